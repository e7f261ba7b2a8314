"""Regressions: each of these bugs came from one fact that was kept in several places.

The bad order is forced. Where something must *not* happen, a test pauses so that the mistake could happen; the right
behaviour passes however long the pause is.
"""
import asyncio, random
from collections import Counter
from queue import Empty

import pytest
from conkernelclient import ConKernelClient, DeadKernelError, KernelRestartedError
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 60

HOLD = 'fake: busy echo stream=begun hold reply idle'
LINGERS = {'shutdown_request': 'busy reply idle'}     # a kernel that says it ends, and goes on answering
PROMPT = 'fake: busy input=name? answer reply idle'
SHORT = 1.5   # seconds: far more than what must not wait takes, and half of what a lost iopub may hold up


async def ready(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc

async def subshells(kc):
    return (await soon(kc.request('list_subshell_request', {}, 'control')))['content']['subshell_id']


# --- 1: iopub is away, the kernel lives ----------------------------------------------------------------------------

@pytest.mark.parametrize('how', ['run', 'execute', 'complete', 'request'])
async def test_a_subshell_outlives_a_flap_of_iopub(how):
    "A lost iopub is no restart: requests on the subshell wait for iopub, and are answered"
    with FakeKernel() as fk:
        kc = await ready(fk)
        async with kc.subshell() as sh:
            await Iopub(fk).lose(kc)
            assert kc.status=='ready'
            if how=='run': asked = sh.run('x')
            if how=='execute': asked = sh.execute('x', reply=True)
            if how=='complete': asked = sh.complete('x', reply=True)
            if how=='request': asked = sh.request('history_request')
            await Iopub(fk).find(kc)
            answer = await soon(asked)
            assert (answer.status if how=='run' else answer['content']['status'])=='ok'
        kc.stop_channels()


@pytest.mark.parametrize('left', ['in good order', 'by an exception'])
async def test_a_subshell_that_is_left_while_iopub_is_away_is_deleted(left):
    with FakeKernel() as fk:
        kc = await ready(fk)
        async def use():
            async with kc.subshell() as sh:
                assert await subshells(kc)==[sh.id]
                await Iopub(fk).lose(kc)
                if left=='by an exception': 1/0
        use = asyncio.create_task(use())
        await until(lambda: 'iopub' not in links(kc))
        await Iopub(fk).find(kc)
        assert isinstance(await outcome(use), ZeroDivisionError if left=='by an exception' else type(None))
        await fk.until_received(1, SHORT, msg_type='delete_subshell_request')
        assert await subshells(kc)==[]
        kc.stop_channels()


# --- 2: what was asked of the old kernel never runs in the new one -------------------------------------------------

@pytest.mark.parametrize('now', [True, False], ids=['now', 'in_good_order'])
async def test_what_was_queued_while_iopub_was_away_does_not_run_after_a_restart(now):
    async with managed() as (km, kc, kernels):
        old = kernels[0]
        first = kc.run(HOLD)
        await until_running(first)
        await old.until_held(1)
        await Iopub(old).lose(kc)
        queued = kc.run('queued')
        executed = kc.execute('executed', reply=True)
        await soon(km.restart_kernel(now=now))
        await kc.wait_for_ready(timeout=SOON)
        assert (await soon(kc.run('new'))).text=='new'
        for o in first, queued, executed: assert type(await outcome(o)) is KernelRestartedError, o
        assert kernels[1].codes==['new']


async def test_what_was_queued_while_iopub_was_away_does_not_run_in_a_kernel_of_somebody_else():
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=SOON)     # the new kernel is there before the old one counts as dead
        first = kc.run(HOLD)
        await until_running(first)
        await fk.until_held(1)
        await Iopub(fk).lose(kc)
        queued = kc.run('queued')
        fk.crash()
        fk.received.clear()
        fk.start()
        for o in first, queued: assert type(await outcome(o)) is KernelRestartedError, o
        assert (await soon(kc.run('new'))).text=='new'
        assert fk.codes==['new']
        kc.stop_channels()


@asynccontextmanager
async def restarted_twice():
    """Gives a client after two restarts, its kernel, and two runs that were queued before the second restart.

    `during` was queued during the first restart, and `between` between the two. The cell before them was answered only
    when its kernel was already ending for the second restart.
    """
    async with managed(on=LINGERS, interrupts=False) as (km, kc, kernels):
        restart = asyncio.create_task(km.restart_kernel(now=True))
        await kc.wait_for_status('restarting', timeout=SOON)
        first = kc.run(HOLD)
        during = kc.run('fake: busy stream=during hold reply idle')
        await soon(restart)
        await kc.wait_for_ready(timeout=SOON)
        await kernels[1].until_held(1)
        between = kc.run('between')
        restart = asyncio.create_task(km.restart_kernel())
        await kernels[1].until_received(1, msg_type='shutdown_request')
        kernels[1].release()
        assert (await soon(first)).text=='begun'
        kernels[1].crash(0)
        await soon(restart)
        await kc.wait_for_ready(timeout=SOON)
        yield kc, kernels[2], during, between


async def test_what_was_asked_during_a_restart_does_not_run_after_the_next():
    "It was meant for the kernel between the two restarts"
    async with restarted_twice() as (kc, fk, during, between):
        await asyncio.sleep(.1)     # time to be sent
        fk.release()
        for o in during, between: assert type(await outcome(o)) is KernelRestartedError, o
        assert fk.codes==[] and kc.queue==[]


# --- 3: each flap has its own time ---------------------------------------------------------------------------------

async def test_a_second_flap_is_not_cut_short_by_the_timer_of_the_first():
    "Requests wait for iopub up to 3 s from the second loss, not from the first, so their outputs are not lost"
    loop = asyncio.get_running_loop()
    with FakeKernel() as fk:
        kc = await ready(fk)
        await Iopub(fk).lose(kc)
        first = loop.time()
        await Iopub(fk).find(kc)
        assert (await soon(kc.run('between'))).text=='between'
        await asyncio.sleep(first+2-loop.time())
        await Iopub(fk).lose(kc)
        second = loop.time()
        assert second<first+2.9, 'too slow a machine to tell'
        req = ask(kc, 'after')
        await asyncio.sleep(first+3.5-loop.time())      # the first loss is 3.5 s ago
        sent = 'after' in fk.codes
        waited = loop.time()-second
        await Iopub(fk).find(kc)
        assert not sent or waited>2.9, f'sent without iopub, {waited:.1f} s after the second loss'
        done, _ = await within(SOON, req.wait())
        assert done.complete and text(done)=='after'
        kc.stop_channels()


# --- 4: a second reply ---------------------------------------------------------------------------------------------

# At `hold` the test waits until the client has read the messages so far: two sockets have no common order.
BEFORE_IDLE = 'busy reply hold reply idle'
AFTER_IDLE = 'busy reply idle hold reply'

SECOND = [BEFORE_IDLE, AFTER_IDLE, AFTER_IDLE+' reply']

@pytest.mark.parametrize('channel', ['shell', 'control'])
@pytest.mark.parametrize('script', SECOND, ids=['before_idle', 'after_idle', 'two_more'])
async def test_a_second_reply_is_counted_and_reaches_nobody(script, channel):
    with FakeKernel() as fk:
        kc = await ready(fk)
        get = kc.get_shell_msg if channel=='shell' else kc.get_control_msg
        before = duplicate_replies(kc)
        fk.on['kernel_info_request'] = script
        req = kc.request('kernel_info_request', {}, channel)
        await soon(req)
        await fk.until_held(1)
        if script!=BEFORE_IDLE: await soon(req.wait())
        fk.on.clear()
        fk.release()
        await quiet(kc, channel)
        assert (await soon(req.wait())).complete
        with pytest.raises(Empty): await get(timeout=0)
        assert duplicate_replies(kc)-before==script.count('reply')-1
        kc.stop_channels()


@pytest.mark.parametrize('script', [BEFORE_IDLE, AFTER_IDLE], ids=['before_idle', 'after_idle'])
async def test_a_second_reply_to_a_message_id_is_not_read(script):
    "`execute` returns an id, as jupyter_client's does; reading the channel gives one reply for it"
    with FakeKernel() as fk:
        kc = await ready(fk)
        msg_id = kc.execute(f'fake: {script}')
        assert (await kc.get_shell_msg(timeout=SOON))['parent_header']['msg_id']==msg_id
        await fk.until_held(1)
        if script==AFTER_IDLE:
            while (await kc.get_iopub_msg(timeout=SOON))['content']['execution_state']!='idle': pass
        fk.release()
        last = kc.execute('last')
        assert (await kc.get_shell_msg(timeout=SOON))['parent_header']['msg_id']==last
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)
        kc.stop_channels()


async def test_a_second_reply_to_a_run_is_not_read():
    with FakeKernel() as fk:
        kc = await ready(fk)
        await soon(kc.run(f'fake: {AFTER_IDLE}'))
        await fk.until_held(1)
        fk.release()
        assert (await soon(kc.run('next'))).text=='next'
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)
        kc.stop_channels()


# --- 5: `while True: await call()` lets other tasks run -------------------------------------------------------------

OFTEN = 1000   # awaits after which other tasks must have had a turn

async def awaits_until_cancelled(call):
    "The number of times that a task awaits `call()` until a cancellation reaches it; fails beyond `OFTEN`"
    count = 0
    async def spin():
        nonlocal count
        asyncio.get_running_loop().call_soon(task.cancel)
        while count<OFTEN:
            count += 1
            try: await call()
            except (Empty, RuntimeError): pass     # a loop that tries again
    task = asyncio.create_task(spin())
    await asyncio.wait([task])
    assert task.cancelled(), f'awaited {count} times, and in all this time no other task had a turn'
    return count


READY = dict(
    get_pubs=lambda kc: kc.get_pubs(timeout=.2),
    get_pubs_now=lambda kc: kc.get_pubs(timeout=0),
    get_pubs_of_one=lambda kc: kc.get_pubs('no such id', timeout=0),
    get_shell_msg=lambda kc: kc.get_shell_msg(timeout=0),
    get_iopub_msg=lambda kc: kc.get_iopub_msg(timeout=0),
    get_stdin_msg=lambda kc: kc.get_stdin_msg(timeout=0),
    get_control_msg=lambda kc: kc.get_control_msg(timeout=0),
    get_msg=lambda kc: kc.iopub_channel.get_msg(timeout=0),
    get_msgs=lambda kc: kc.shell_channel.get_msgs(),
    msg_ready=lambda kc: kc.shell_channel.msg_ready(),
    wait_for_ready=lambda kc: kc.wait_for_ready(),
    wait_for_ready_now=lambda kc: kc.wait_for_ready(timeout=0),
    wait_for_status=lambda kc: kc.wait_for_status('ready', 'busy'),
    cancel_all=lambda kc: kc.cancel_all(),
    map_of_nothing=lambda kc: kc.map([]),
)

@pytest.mark.parametrize('call', READY)
async def test_a_loop_over_a_call_that_has_nothing_to_wait_for_can_be_cancelled(call):
    with FakeKernel() as fk:
        kc = await ready(fk)
        await awaits_until_cancelled(lambda: READY[call](kc))
        assert (await soon(kc.run('x'))).text=='x'
        kc.stop_channels()


@pytest.mark.parametrize('call', ['get_pubs', 'wait_for_status', 'get_iopub_msg'])
async def test_a_loop_over_a_call_that_has_nothing_to_wait_for_times_out(call):
    with FakeKernel() as fk:
        kc = await ready(fk)
        count = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(.05):
                while count<100_000:
                    count += 1
                    try: await READY[call](kc)
                    except Empty: pass
        kc.stop_channels()


@pytest.mark.parametrize('call', ['get_iopub_msg', 'get_pubs'])
async def test_reading_a_backlog_lets_others_have_turns(call):
    "A reader does not wait while there are messages; a kernel that prints fast enough would stop all other tasks"
    with FakeKernel() as fk:
        kc = await ready(fk)
        kc.execute(f'fake: busy stream=x*{3*OFTEN} reply idle')
        await within(SOON, ask(kc, 'last').wait())
        if call=='get_pubs':
            turns = []
            asyncio.get_running_loop().call_soon(turns.append, 1)
            assert len(await kc.get_pubs(timeout=SOON))==3*OFTEN+2 and turns
        else: await awaits_until_cancelled(lambda: kc.get_iopub_msg(timeout=SOON))
        kc.stop_channels()


DEAD = dict(
    wait_for_ready=lambda kc: kc.wait_for_ready(timeout=1),
    wait_for_status=lambda kc: kc.wait_for_status('dead'),
    get_iopub_msg=lambda kc: kc.get_iopub_msg(timeout=1),
    get_shell_msg=lambda kc: kc.get_shell_msg(timeout=1),
)

@pytest.mark.parametrize('call', DEAD)
async def test_trying_again_on_a_dead_kernel_lets_others_have_turns(call):
    "One of them may be about to restart it"
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=.05, readers_grace=.05)
        fk.crash()
        await kc.wait_for_status('dead', timeout=SOON)
        with pytest.raises(DeadKernelError): await soon(kc.get_iopub_msg(timeout=SOON))
        await awaits_until_cancelled(lambda: DEAD[call](kc))
        kc.stop_channels()


async def test_interrupting_a_kernel_that_takes_signals_lets_others_have_turns():
    async with managed() as (km, kc, kernels):
        await awaits_until_cancelled(kc.interrupt)
        assert (await soon(kc.run('x'))).text=='x'


async def test_interrupting_until_a_restart_is_over_lets_it_end():
    "`while kc.status=='restarting': await kc.interrupt()`"
    async with managed(on=LINGERS) as (km, kc, kernels):
        restart = asyncio.create_task(km.restart_kernel())
        await kc.wait_for_status('restarting', timeout=SOON)
        await kernels[0].until_received(1, msg_type='shutdown_request')
        await awaits_until_cancelled(kc.interrupt)
        kernels[0].crash()
        await soon(restart)
        await kc.wait_for_ready(timeout=SOON)
        assert (await soon(kc.run('x'))).text=='x'


# --- 7: a failure ends only what was asked of the kernel that failed ------------------------------------------------

async def test_a_run_of_the_old_kernel_that_ends_late_takes_no_newer_one_with_it():
    """The old kernel never answered an interrupt, so the queue waits until the new one has answered a fence. The old run
    at its head is too late then, but the new ones behind it are not."""
    def later(k, msg):
        "Answers the probe of a client that is not ready yet, and holds later requests"
        if probed: yield k.hold(msg)
        probed.append(msg)
        k.busy(msg), k.reply(msg), k.idle(msg)
    probed = []
    async with managed(interrupt_mode='message', on={'interrupt_request': ''}) as (km, kc, kernels):
        stop = asyncio.create_task(kc.interrupt())
        await kernels[0].until_received(1, msg_type='interrupt_request')
        old = kc.run('old')
        assert kc.queue==[old] and old.state=='queued'
        km.provisioner.options = dict(on={'kernel_info_request': later})
        await soon(km.restart_kernel(now=True))
        await kc.wait_for_ready(timeout=SOON)
        new = [kc.run(f'new {i}') for i in range(3)]
        await asyncio.sleep(.1)     # fences are sent, where there are any
        kernels[1].on.clear()
        kernels[1].release()
        assert type(await outcome(old)) is KernelRestartedError
        assert [getattr(o, 'text', o) for o in (await outcomes(new))[0]]==[f'new {i}' for i in range(3)]
        assert kernels[0].codes==[] and kernels[1].codes==[f'new {i}' for i in range(3)]
        await soon(stop)


async def test_runs_that_are_too_late_take_no_newer_one_with_them():
    "They are queued behind two old runs"
    async with restarted_twice() as (kc, fk, during, between):
        new = [kc.run(f'new {i}') for i in range(3)]
        await asyncio.sleep(.1)     # time for the old ones to be sent
        fk.release()
        assert [getattr(o, 'text', o) for o in (await outcomes(new))[0]]==[f'new {i}' for i in range(3)]


async def test_a_run_whose_hook_ends_after_the_restart_takes_no_newer_one_with_it():
    async with managed() as (km, kc, kernels):
        gate, begun = asyncio.Event(), asyncio.Event()
        async def hook(event):
            begun.set()
            await gate.wait()
        done = kc.run('fake: busy stream=x reply hold idle', on_output=hook)
        running = kc.run(HOLD, on_output=hook)
        await soon(begun.wait())
        await kernels[0].until_held(1)
        await soon(km.restart_kernel(now=True))
        await kc.wait_for_ready(timeout=SOON)
        first = kc.run(HOLD)
        await until_running(first)
        behind = [kc.run(f'new {i}') for i in range(3)]
        gate.set()
        await outcomes([done, running])
        await kernels[1].until_held(1)
        kernels[1].release()
        assert [o.status for o in (await outcomes([first, *behind]))[0]]==['ok']*4


class Storm:
    """Random runs, cancels, flaps, restarts and kills, all at once, on kernels with a manager.

    A run is meant for the kernel that is there when it is asked, or that comes when a restart is under way. So it can
    fail only by a restart or a death *after* that, and no other kernel can give its result.
    """
    scripts = ('fake: busy echo stream reply idle', 'fake: busy echo sleep=.01 stream reply idle',
               'fake: busy stream sleep=.05 reply idle')

    def __init__(self, seed, km, kc, kernels):
        self.rnd = random.Random(seed)
        self.km, self.kc, self.kernels = km, kc, kernels
        self.begun = 0         # restarts so far; the kernels have these numbers
        self.killed = False    # is the last kernel dead, with no restart under way?
        self.asked = []        # (code, kernel it is meant for, was that one dead, outcome, restarts then, killed then)
        self.tasks = set()
        self.over = False

    async def pause(self, most): await asyncio.sleep(self.rnd.random()*most)

    def ask(self, number):
        code = f'{self.rnd.choice(self.scripts)} stream={number}'
        task = asyncio.create_task(self.follow(code, self.kc.run(code), self.begun, self.killed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def follow(self, code, run, meant, dead):
        if self.rnd.random()<.25:
            await self.pause(.05)
            run.cancel()
        try: end = await run
        except (Exception, asyncio.CancelledError) as e: end = e
        self.asked.append((code, meant, dead, end, self.begun, self.killed))

    async def asking(self, seconds):
        until, number = time.monotonic()+seconds, 0
        while time.monotonic()<until:
            for _ in range(self.rnd.choice([1, 1, 3, 10])):
                number += 1
                self.ask(number)
            await self.pause(.03)

    async def flapping(self):
        while not self.over:
            await self.pause(.3)
            fk = self.kernels[-1]
            fk._order(lambda: 'iopub' in fk._sockets and fk._sockets.pop('iopub').close())
            await self.pause(.1)
            fk._order(lambda: fk.alive and 'iopub' not in fk._sockets and Iopub(fk).open())

    async def restart(self):
        now = self.killed or self.rnd.random()<.7     # (what a manager sends to a dead kernel would reach the new one)
        self.begun += 1
        self.killed = False
        await self.km.restart_kernel(now=now)

    async def restarting(self):
        while not self.over:
            await self.pause(.8)
            if self.rnd.random()<.3:
                self.killed = True
                self.kernels[-1].crash(9)
                await self.pause(.05)
            restart = asyncio.create_task(self.restart())
            while not restart.done():
                if self.rnd.random()<.5: await outcome(asyncio.ensure_future(self.kc.wait_for_ready(timeout=SOON)))
                await self.pause(.02)
            await restart
            await self.kc.wait_for_ready(timeout=SOON)

    async def rage(self, seconds):
        others = [asyncio.create_task(o) for o in (self.flapping(), self.restarting())]
        await self.asking(seconds)
        self.over = True
        await asyncio.gather(*others)

    def wrong(self):
        "Describes each run that ended as none may"
        for code, meant, dead, end, begun, killed in self.asked:
            ran = [i for i,fk in enumerate(self.kernels) if code in fk.codes]
            if not isinstance(end, BaseException) and ran!=[meant]: yield f'meant for kernel {meant}, result of {ran}'
            elif isinstance(end, DeadKernelError) and not (begun>meant or dead or killed):
                yield f'meant for kernel {meant}, which is alive: {end!r}'
            elif isinstance(end, Exception) and not isinstance(end, DeadKernelError): yield f'{end!r}'


@pytest.mark.parametrize('seed', [0, *[pytest.param(o, marks=pytest.mark.slow) for o in range(1, 10)]])
async def test_storm(seed):
    "Each run ends in bounded time, with the answer of its own kernel, or for a restart that came after it was asked"
    async with managed(client=dict(grace=.2)) as (km, kc, kernels):
        storm = Storm(seed, km, kc, kernels)
        await storm.rage(3 if seed==0 else 10)
        await until(lambda: not storm.tasks, SOON, f'all runs to end; {kc.queue}')
        wrong = list(storm.wrong())
        figure(f'storm {seed}: runs, kernels, wrong', f'{len(storm.asked)}, {len(kernels)}, {len(wrong)}')
        assert not wrong, Counter(wrong).most_common(5)
        assert (await soon(kc.run('x'))).status=='ok'


# --- 8: a restart is over when the new kernel answers ---------------------------------------------------------------

@pytest.mark.parametrize('while_', ['wait_for_ready', 'wait_for_status', 'nobody_waits'])
async def test_the_old_kernel_does_not_answer_for_the_new_one(while_):
    "The old one is slow to end: the client is ready when the *new* kernel is, and sends nothing to the old one"
    async with managed(on=LINGERS) as (km, kc, kernels):
        old = kernels[0]
        km.provisioner.options = {}
        restart = asyncio.create_task(km.restart_kernel())
        await kc.wait_for_status('restarting', timeout=SOON)
        await old.until_received(1, msg_type='shutdown_request')
        if while_=='wait_for_ready': waits = asyncio.create_task(kc.wait_for_ready(timeout=SOON))
        if while_=='wait_for_status': waits = asyncio.create_task(kc.wait_for_status('ready', timeout=SOON))
        if while_=='nobody_waits': waits = restart
        new = [kc.run('run'), kc.execute('executed', reply=True)]
        await asyncio.sleep(.3)      # time for the old kernel to answer
        early = waits.done()
        status = kc.status
        old.crash(0)
        await soon(restart)
        await soon(waits)
        res, _ = await outcomes(new)
        assert old.codes==[] and not early and status=='restarting'
        assert not any(isinstance(o, Exception) for o in res) and sorted(kernels[1].codes)==['executed', 'run']


async def test_ready_after_a_restart_is_announced_once():
    "`on_status` does not say *ready* while the old kernel ends"
    async with managed(on=LINGERS) as (km, kc, kernels):
        seen = []
        km.provisioner.options = {}
        kc.on_status(seen.append)
        restart = asyncio.create_task(km.restart_kernel())
        await kc.wait_for_status('restarting', timeout=SOON)
        waits = [asyncio.create_task(kc.wait_for_ready(timeout=SOON)) for _ in range(3)]
        await kernels[0].until_received(1, msg_type='shutdown_request')
        await asyncio.sleep(.3)
        kernels[0].crash(0)
        await soon(asyncio.gather(restart, *waits))
        assert [o for o in seen if o!='busy']==['restarting', 'ready']


# --- 9: another kernel behind the same address ----------------------------------------------------------------------

def display(k, msg):
    "Display the code, always under the same id"
    k.busy(msg)
    data = {'text/plain': msg.code}
    k.publish(msg, 'display_data', dict(data=data, metadata={}, transient=dict(display_id='the id')))
    k.reply(msg)
    k.idle(msg)

async def another_kernel(fk, kc, how):
    "Put a kernel without subshells behind the address of `kc`, which has nothing in flight"
    fk.subshells = False
    if how=='restarted':        # the connection breaks, and is back before the kernel counts as dead
        fk.crash()
        await until(lambda: 'shell' not in links(kc))
        fk.start()
        await until(lambda: links(kc)=={'shell', 'iopub'})
    else: fk._order(lambda: setattr(fk.wire, 'session', 'another'))     # the connection is that of a proxy, and stays

HOW = pytest.mark.parametrize('how', ['restarted', 'behind_a_proxy'])


async def test_a_kernel_that_somebody_else_restarted_is_noticed_though_nothing_was_in_flight():
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=SOON)
        seen = []
        kc.on_status(seen.append)
        await another_kernel(fk, kc, 'restarted')
        await until(lambda: 'restarting' in seen and kc.status=='ready', 5, f'the client to say so; it said {seen}')
        assert (await soon(kc.run('x'))).text=='x'
        kc.stop_channels()


async def test_a_reply_of_another_kernel_is_noticed():
    with FakeKernel() as fk:
        kc = await ready(fk)
        seen = []
        kc.on_status(seen.append)
        await another_kernel(fk, kc, 'behind_a_proxy')
        res = await outcome(kc.execute('x', reply=True))
        assert type(res) in (dict, KernelRestartedError)     # that reply, or that the kernel is another one
        await until(lambda: 'restarting' in seen and kc.status=='ready', 5, f'the client to say so; it said {seen}')
        assert (await soon(kc.run('y'))).text=='y'
        kc.stop_channels()


async def reply_of_another(fk, kc, how):
    "Another kernel has taken the place of the old one, and something of it has reached the client"
    await another_kernel(fk, kc, how)
    await outcome(kc.execute('x', reply=True))
    await kc.wait_for_ready(timeout=SOON)

@HOW
async def test_subshells_are_those_of_the_old_kernel(how):
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=SOON)
        async with kc.subshell() as sh:
            await reply_of_another(fk, kc, how)
            with pytest.raises(KernelRestartedError): sh.run('x')
        kc.stop_channels()


@HOW
async def test_what_a_kernel_supports_is_asked_of_another_one_again(how):
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=SOON)
        assert kc.supports('kernel subshells')
        await reply_of_another(fk, kc, how)
        assert not kc.supports('kernel subshells')
        kc.stop_channels()


@HOW
async def test_another_kernel_does_not_update_displays_of_the_old_one(how):
    with FakeKernel(on={'execute_request': display}) as fk:
        kc = await ready(fk, lost_after=SOON)
        old = await soon(kc.run('old'))
        await reply_of_another(fk, kc, how)
        new = await soon(kc.run('new'))
        assert (old.text, new.text)==('old\n', 'new\n')
        kc.stop_channels()


# --- 10: a task that is cancelled before its first step; channels that need not wait for iopub ----------------------

@pytest.mark.parametrize('how', ['create_task', 'TaskGroup', 'gather'])
async def test_a_task_cancelled_before_its_first_step_stops_the_cell(how):
    with FakeKernel() as fk:
        kc = await ready(fk)
        run = kc.run(HOLD)
        following = kc.run('next')
        await until_running(run)
        await fk.until_held(1)
        if how=='TaskGroup':
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as tg:
                    tg.create_task(run)
                    1/0
        else:
            task = asyncio.create_task(run) if how=='create_task' else asyncio.gather(run)
            task.cancel()
            assert isinstance(await outcome(task), asyncio.CancelledError)
        await fk.until_received(1, 3, msg_type='interrupt_request')
        assert isinstance(await outcome(run), asyncio.CancelledError) and run.partial.stdout=='begun'
        assert (await soon(following)).text=='next' and fk.got('interrupt_request')==1
        kc.stop_channels()


CONTROL = ['kernel_info', 'interrupt_request', 'interrupt', 'cancel', 'stop_button', 'cancel_all']

@pytest.mark.parametrize('how', CONTROL)
async def test_control_does_not_wait_for_iopub(how):
    "Least of all the interrupt of a cell"
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.2)
        run = kc.run(HOLD)
        await until_running(run)
        await fk.until_held(1)
        await Iopub(fk).lose(kc)
        asked = None
        if how=='kernel_info': await soon(kc.kernel_info(reply=True, channel='control'), SHORT)
        else:
            if how=='interrupt_request': asked = kc.request('interrupt_request', {}, 'control')
            if how=='interrupt': asked = run.interrupt()
            if how=='stop_button': asked = asyncio.create_task(kc.interrupt())
            if how=='cancel': run.cancel()
            if how=='cancel_all': asked = kc.cancel_all()
            await fk.until_received(1, SHORT, msg_type='interrupt_request')
        await Iopub(fk).find(kc)
        fk.release()
        await outcome(run)
        if asked is not None: await outcome(asked)
        kc.stop_channels()


@pytest.mark.parametrize('how', ['run', 'hook'])
async def test_an_answer_to_a_prompt_does_not_wait_for_iopub(how):
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.2)
        asked, gate = asyncio.Event(), asyncio.Event()
        async def answer(prompt):
            asked.set()
            await gate.wait()
            if how=='run': return 'Ada'
            kc.input('Ada')
        asking = kc.run(PROMPT, stdin=answer) if how=='run' else ask(kc, PROMPT, on_stdin=answer)
        await soon(asked.wait())
        await Iopub(fk).lose(kc)
        gate.set()
        await fk.until_received(1, SHORT, msg_type='input_reply')
        assert next(o for o in fk.received if o.msg_type=='input_reply')['content']['value']=='Ada'
        await Iopub(fk).find(kc)
        await outcome(asking)
        kc.stop_channels()
