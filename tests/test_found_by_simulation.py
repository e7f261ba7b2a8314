"""The shortest stories of what the simulation has found. Each docstring says what goes wrong, and what would be right."""
import asyncio, itertools
from queue import Empty

import pytest
from conkernelclient import *
from conkernelclient.engine.errors import *
from conkernelclient.engine.life import Link
from memory_transport import MemoryClient
from simulation import simulate
from test_memory_transport import kernel, virtual

left = pytest.mark.xfail(strict=True, reason='kernels may answer out of order: nothing can tell that this one will not come')


@virtual
async def test_a_reply_of_another_kernel_sends_nothing_of_the_old_one():
    """`_reply` releases the lane, which sends what waits, before it looks at the reply's session: so it is sent to the new
    kernel, though what it was meant for is known to be gone. The run fails as restarted, and runs all the same.

    Right: look at the session before `release` (and before `on_reply`, which releases the lane of runs)."""
    async with kernel(host=False) as (machine, kc):
        machine.swap(silent=True)
        first, second = kc.run('first'), kc.run('second')
        await first
        with pytest.raises(KernelRestartedError): await second
        await asyncio.sleep(1)
        assert machine.kernel.ran == ['first']

@virtual
async def test_requests_too_are_not_sent_after_a_reply_of_another_kernel():
    "The same for requests that wait for the window"
    async with kernel(host=False, window=1) as (machine, kc):
        machine.swap(silent=True)
        first, second = kc.execute('first', reply=True), kc.execute('second', reply=True)
        await first
        with pytest.raises(KernelRestartedError): await second
        await asyncio.sleep(1)
        assert machine.kernel.ran == ['first']

@virtual
async def test_a_death_that_was_verified_late_is_not_one_of_the_new_kernel():
    """The kernel dies, and `_died` waits for its last words (200 ms, as long as iopub's link is not told down). Within that
    time it is restarted, and ready. Then `_died` goes on: the new kernel "died", with the old exit code, and what was asked
    of it fails.

    Right: `_verify` and `_died` remember the generation, and end when it is another one."""
    async with kernel() as (machine, kc):
        machine.boots = 0
        iopub = machine.place.lines('iopub')[0]
        iopub.cut = lambda lose=True: None     # the news that iopub is gone takes a while
        machine.kill()
        await asyncio.sleep(.01)
        await machine.restart(now=True)
        await kc.wait_for_status('ready', timeout=5)
        run = kc.run('x take=.5')
        assert (await run).text == 'x;'

@virtual
async def test_a_late_reply_of_another_kernel_is_noticed():
    """A request is given up (its time is over), then its reply comes, with another session. `_late` does not look at it: the
    client stays with the session, the subshells and the displays of the old kernel.

    Right: each reply, also one that nobody waits for, is compared with `kernel.session`."""
    async with kernel(host=False) as (machine, kc):
        machine.swap(silent=True)
        with pytest.raises(ReplyTimeout): await kc.execute('x take=.2', reply=True, timeout=.1)
        await asyncio.sleep(1)
        assert kc.connection.life.session == machine.kernel.session

@virtual
async def test_a_reply_that_comes_after_its_request_failed_is_nobodys():
    """A kernel was restarted and no connection broke: requests under way fail as restarted, but the new kernel gets and
    answers them. Their replies land among the unclaimed messages, where `get_shell_msg` finds them.

    Right: `Router.fail` remembers what it fails, as what was given up; and does not forget what was given up before."""
    async with kernel(host=False) as (machine, kc):
        machine.swap(silent=True)
        machine.place.delay = lambda: .01
        first, second = kc.execute('first', reply=True), kc.execute('second take=.1', reply=True)
        await first
        with pytest.raises(KernelRestartedError): await second
        await asyncio.sleep(1)
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)

@virtual
async def test_a_reply_that_comes_after_its_request_was_given_up_and_the_kernel_restarted_is_nobodys():
    "The same for a request that was given up before: `fail` clears `abandoned`"
    async with kernel(host=False) as (machine, kc):
        machine.swap(silent=True)
        machine.place.delay = lambda: .01
        first, second = kc.execute('first', reply=True), kc.execute('second take=.1', reply=True, timeout=.015)
        await first
        with pytest.raises(ReplyTimeout): await second
        await asyncio.sleep(1)
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)

@pytest.mark.parametrize('ready', [True, False])
@virtual
async def test_what_is_lost_while_the_client_is_starting_is_missed(ready):
    """A client that is not ready yet (nobody waits, or the kernel is busy) sends, and its connection breaks: what was under
    way is lost, and its call never ends. Only in `ready` does the shell's link lead to a fence.

    Right: the same rows for `starting`: *shell up*, where it was down, asks the lanes; *fence* fails what was lost."""
    async with kernel() as (machine, first):
        machine.kernel.freeze(1)
        kc = MemoryClient(machine.place, machine, 'second', asyncio.get_running_loop().time)
        kc.start_channels()
        await asyncio.sleep(.1)
        asked = asyncio.create_task(kc.wait_for_ready(timeout=30)) if ready else None
        machine.place.delay = lambda: .01
        req = kc.execute('x', reply=True)
        await asyncio.sleep(.001)
        for o in 'shell', 'control': kc.connection.transport.lines[o].block(.1)
        if asked: await asked
        try:
            with pytest.raises(NoReplyError): await asyncio.wait_for(req, 60)
        finally: kc.stop_channels()

@virtual
async def test_a_lost_fence_does_not_hold_a_shell_forever():
    """The connection breaks and comes back; the fence is under way when the kernel is restarted, and something between us
    and the kernel (a proxy, a server) keeps the connection. The fence is never answered: `SHELL_DOWN` holds for ever, nothing
    is sent, so nothing can show that there is another kernel.

    Right: ask again after a second or so, as a probe does; the first answer ends it."""
    async with kernel() as (machine, kc):
        machine.kernel.freeze(1)
        for o in 'shell', 'control': machine.place.lines(o)[0].block(.1)
        await asyncio.sleep(.5)
        machine.swap(silent=True)
        await asyncio.sleep(5)
        assert (await asyncio.wait_for(kc.run('x'), 60)).text == 'x;'

@pytest.mark.parametrize('what', ['map', 'subshell', 'interrupt'])
@virtual
async def test_closing_raises_an_error_that_says_so(what):
    """`close` cancels the tasks of the connection, also those that a caller awaits: the caller, whom nobody has cancelled,
    gets `CancelledError`.

    Right: `ClientClosedError`, as everywhere else."""
    async with kernel() as (machine, kc):
        async def use():
            async with kc.subshell(): pass
        run = kc.run('x hang')
        await asyncio.sleep(.1)
        machine.place.delay = lambda: .1
        machine.by_message = True
        call = {'map': lambda: kc.map(['y'], concurrency=2), 'subshell': use, 'interrupt': run.interrupt}[what]
        task = asyncio.ensure_future(call())
        await asyncio.sleep(.05)
        kc.stop_channels()
        with pytest.raises(ClientClosedError): await run
        with pytest.raises(ClientClosedError): await task

@pytest.mark.parametrize('end', ['cancel', 'close', 'timeout'])
@virtual
async def test_hooks_of_a_request_end_with_it(end):
    """An async hook that never ends outlives its request, and the client: a task is left. (Those of a run are cancelled.)

    Right: when a request ends other than by its own end, its hooks are cancelled."""
    async with kernel() as (_, kc):
        async def hook(msg): await asyncio.Event().wait()
        req = kc.request('execute_request', dict(code='x hang'), on_iopub=hook, timeout=2 if end == 'timeout' else None)
        await asyncio.sleep(.5)
        if end == 'cancel': req.cancel()
        if end == 'close': kc.stop_channels()
        await asyncio.sleep(5)
        assert req.done()
        left = [o for o in asyncio.all_tasks() if '_after' in repr(o)]
        for o in left: o.cancel()
        assert not left

@virtual
async def test_a_result_that_lacks_outputs_is_not_complete():
    """iopub's connection breaks while a cell runs and is back before its *idle*. The outputs in between are lost; the request
    knows (`complete` is false), the `Result` does not: "nothing is missing".

    Right: `Result.complete` is false where its request is `lossy`."""
    async with kernel() as (machine, kc):
        run = kc.run('x take=1 out=4')
        await asyncio.sleep(.1)
        machine.place.lines('iopub')[0].block(.5)
        result = await run
        assert result.text != 'x;'*4 and not result.complete

@left
@virtual
async def test_a_later_reply_ends_a_request_of_which_both_halves_are_lost():
    """A reply is lost, and iopub was away when its *idle* came. No grace time begins, and the request never ends, though the
    shell, which answers in order, answers later ones.

    Right (if it is worth it): a reply to a later request of the same shell begins the grace time of those before it."""
    async with kernel() as (machine, kc):
        req = kc.execute('x lose=reply take=.2', reply=True)
        await asyncio.sleep(.1)
        machine.place.lines('iopub')[0].block(.5)
        await asyncio.sleep(5)
        await kc.kernel_info(reply=True)
        with pytest.raises(NoReplyError): await asyncio.wait_for(req, 60)

@virtual
async def test_a_subshell_that_is_left_at_the_death_of_its_kernel_is_not_deleted_in_the_next_one():
    """The block is left in the turn of the loop in which the death is noticed: `gone` is still false, so `_delete` is spawned,
    and begins when the generation has grown. Its requests are for the new kernel, which has no such subshell: they are
    never answered. The block never ends; a task, a request and two lanes are left.

    Right: `_delete` looks at `gone` first."""
    async with kernel() as (machine, kc):
        machine.boots = 0
        async def use():
            async with kc.subshell():
                asyncio.get_running_loop().call_soon(kc.connection.restart_begins)
        left = asyncio.create_task(use())
        await asyncio.sleep(.1)
        machine.kill()
        await machine.restart(now=True)
        await kc.wait_for_status('ready', timeout=5)
        await asyncio.wait_for(left, 60)
        assert not kc.router.table
        assert set(kc.router.shells) <= {('shell', None), ('control', None)}

@virtual
async def test_cancel_all_reaches_runs_of_which_only_a_hook_is_at_work():
    """The kernel is done with a cell, its async hook is not. The run is not done, but it is not in `queue` either, so
    `cancel_all` leaves it; so does leaving a subshell's block.

    Right: `queue` has all runs that are not done (or the docs say that it has not)."""
    async with kernel() as (_, kc):
        async def hook(event): await asyncio.Event().wait()
        run = kc.run('x', on_output=hook)
        await asyncio.sleep(1)
        kc.cancel_all()
        with pytest.raises(asyncio.CancelledError): await asyncio.wait_for(asyncio.shield(run), 30)

@virtual
async def test_a_fence_is_for_the_kernel_it_was_meant_for():
    """The connection is back, so fences are spawned; in the same turn of the loop a restart begins. `_fence` begins after
    that: its request has the new generation, goes to the old kernel, and is lost. It stays in the table, its task goes on, and `status` is `busy` for good.

    Right: `_do_fence` says which generation the fence is for, and `_fence` returns when it is another one."""
    async with kernel() as (machine, kc):
        transport = kc.connection.transport
        tell = transport.tell
        def told(channel, link):
            tell(channel, link)
            if channel != 'shell' or link.value != 'up': return
            kc.connection.restart_begins()
            machine.kernel.freeze(60)
        transport.tell = told
        machine.place.lines('shell')[0].block(.1)
        await asyncio.sleep(.2)
        transport.tell = tell
        await machine.restart(now=True)
        await asyncio.sleep(30)
        assert kc.status == 'ready'
        assert not kc.router.table

@virtual
async def test_ready_for_the_kernel_that_answered_last():
    """A probe is answered, then waits up to half a second for iopub. Within that time the kernel is restarted by somebody else.
    The client is ready for the session of the old reply; so the first reply of the new kernel looks like a restart, and what
    is in flight fails.

    Right: when the shell's connection broke after the probe was sent, ask again."""
    async with kernel() as (machine, _):
        for i in range(20):
            kc = MemoryClient(machine.place, None, f'k{i}', asyncio.get_running_loop().time)
            kc.start_channels()
            kc.connection.transport.lines['iopub'].block(1.3)
            asked = asyncio.create_task(kc.wait_for_ready(timeout=30))
            await asyncio.sleep(.2+i*.02)      # (it connects iopub anew after .67)
            assert not asked.done()
            machine.swap(gap=.02)
            await asked
            session, ready_for = machine.kernel.session, kc.connection.life.session
            kc.stop_channels()
            assert ready_for == session, i

@virtual
async def test_a_reply_that_comes_after_its_request_was_doubted_is_nobodys():
    """*idle* comes, the reply does not; the fence that is to clear this up is not answered in time, because the kernel is
    frozen. The request fails (although the heartbeat says that nothing can be known now). When its reply comes, it lands
    among the unclaimed messages.

    Right: `give_up` remembers it, as `abandon` does; and a fence waits as long as the kernel is silent."""
    async with kernel(grace=.5) as (machine, kc):
        req = kc.execute('x late=4', reply=True)
        await asyncio.sleep(.3)
        machine.kernel.freeze(8)
        with pytest.raises(NoReplyError): await req
        await asyncio.sleep(10)
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)

@pytest.mark.parametrize('seed', [1009029, 4249, 5335, 7615, 8683])
def test_stories_of_rare_orders(seed):
    "Seeds that have shown a fault: an abort during a restart, a doubt about which nobody could be asked, a hook, a late reply"
    simulate(seed, 100)

@virtual
async def test_output_that_is_still_under_way_when_a_death_is_seen_is_waited_for():
    """The kernel prints for a second's worth of the path, and ends. Its process is gone long before its last output has
    arrived; `_died` waited 200 ms in all.

    Right: as long as output comes, the end of its connection is waited for."""
    async with kernel() as (machine, kc):
        iopub = machine.place.lines('iopub')[0]
        slow = itertools.count(1)
        machine.place.delay = lambda: next(slow)*.05     # each message takes longer than the one before
        run = kc.run('a out=20 hang')
        await asyncio.sleep(.6)
        machine.place.delay = lambda: 0.
        iopub.cut = lambda lose=True: iopub.later('in', iopub.transport.tell, 'iopub', Link.DOWN)   # behind the output
        machine.kill()
        with pytest.raises(DeadKernelError): await run
        assert run.partial.text == 'a;'*20
