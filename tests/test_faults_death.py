"""The kernel dies, stops, is restarted or never starts: every waiter is told, and a client that lives on is as good as new."""
import asyncio, json, os, signal, sys, time
from pathlib import Path

import psutil, pytest, zmq
from conkernelclient import (ReplyTimeout, ClientClosedError, ConIOLoopKernelManager, ConKernelClient, ConKernelManager, DeadKernelError,
                             KernelRestartedError, NoReplyError, run_kernel)
from fake_kernel import FakeKernel, kernel_specs
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

STAY = 'import time; time.sleep(120)'
both_transports = True   # (of the tests that use `start_kernel`)

async def process(km, kc):
    "The process of a kernel that is idle"
    return km.provisioner.pid if km.provisioner is not None else await kc.eval('__import__("os").getpid()')

def death(kc):
    "What is raised for a kernel that was killed: a server starts it again"
    return DeadKernelError if type(kc) is ConKernelClient else KernelRestartedError


# --- killed --------------------------------------------------------------------------------------------------------

async def test_sigkill_with_1000_in_flight_owned(start_kernel):
    async with start_kernel() as (km, kc):
        pid, local = await process(km, kc), type(kc) is ConKernelClient
        if local: kc.hb_channel.pause()      # the end of the connection is enough to know
        reqs = [ask(kc, STAY), *(ask(kc, '1') for _ in range(500)), *(kc.execute('1', reply=True) for _ in range(499))]
        ends = [o.wait() for o in reqs[:10]]
        await until_busy(reqs[0])
        os.kill(pid, signal.SIGKILL)
        res, took = await outcomes(reqs+ends)
        assert kinds(res)=={death(kc)}
        if not local: return await as_good_as_new(kc)   # the server has started it again
        assert {o.exit_code for o in res}=={-signal.SIGKILL}
        assert took<1*SLACK
        figure('SIGKILL, 1,000 in flight, owned: seconds until all had failed', took)
        assert kc.status=='dead'
        await at_rest(kc)
        with pytest.raises(DeadKernelError) as e: kc.execute('1', reply=True)
        assert e.value.exit_code==-signal.SIGKILL


async def test_sigkill_with_1000_in_flight_connection_file_only():
    async with run_kernel() as (km, mine), attached(km.connection_file) as kc:
        kc.hb_channel.pause()
        reqs = [ask(kc, STAY if not i else '1') for i in range(1000)]
        await until_busy(reqs[0])
        end = ProcessEnd(km.provisioner.pid)
        os.kill(km.provisioner.pid, signal.SIGKILL)
        res, took = await outcomes(reqs)
        assert kinds(res)=={DeadKernelError} and {o.exit_code for o in res}=={None}
        assert took<1*SLACK
        figure('SIGKILL, 1,000 in flight, connection file only: seconds until all had failed', took)
        end.close()
        await at_rest(kc)
        with pytest.raises(DeadKernelError): kc.execute('1', reply=True)


async def test_kernel_exits_in_the_middle_of_output(start_kernel, tmp_path):
    async with start_kernel() as (km, kc):
        go = tmp_path/'go'
        req = ask(kc, f"import os,itertools\nfor i in itertools.count():\n    print(i, flush=True)\n    if os.path.exists({str(go)!r}): os._exit(3)")
        while text(req).count('\n')<10: await within(SOON, anext(aiter(req))); await asyncio.sleep(0)
        go.touch()
        (e,), took = await outcomes([req])
        assert type(e) is death(kc) and e.exit_code==(3 if type(kc) is ConKernelClient else None)
        lines = text(req).split('\n')[:-1]
        assert len(lines)>=10 and lines==[str(i) for i in range(len(lines))]


async def test_last_words_of_a_kernel_are_not_lost(tmp_path):
    "All of the output that left the kernel is there when its waiter is told"
    km = ConKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path))
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        req = ask(kc, 'fake: busy stream=word*1000 stop')
        (e,), took = await outcomes([req])
        assert type(e) is DeadKernelError and e.exit_code==0
        assert text(req)=='word'*1000
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


async def test_readers_of_a_dead_kernel_are_told():
    "`get_shell_msg` and the like do not wait for ever either"
    async with run_kernel() as (km, kc):
        kc.readers_grace = .1
        waits = [asyncio.ensure_future(get()) for get in (kc.get_shell_msg, kc.get_iopub_msg, kc.get_stdin_msg, kc.get_control_msg)]
        await asyncio.sleep(0)
        os.kill(km.provisioner.pid, signal.SIGKILL)
        res, took = await outcomes(waits)
        assert kinds(res)=={DeadKernelError}


async def test_waiters_on_all_channels_and_subshells_are_told(start_kernel):
    async with start_kernel() as (km, kc):
        pid = await process(km, kc)
        sub = (await within(SOON, kc.request('create_subshell_request', {}, 'control')))[0]['content']['subshell_id']
        reqs = [ask(kc, STAY), ask(kc, STAY, subshell_id=sub), ask(kc, '1', subshell_id=sub)]
        for o in reqs[:2]: await until_busy(o)
        async def outs(o): return [m async for m in o]
        its = [asyncio.ensure_future(outs(o)) for o in reqs]
        os.kill(pid, signal.SIGKILL)
        res, took = await outcomes(reqs+its)
        assert kinds(res)=={death(kc)}
        await at_rest(kc)


# --- stopped -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('owned', [True, False], ids=['owned','connection_file_only'])
@pytest.mark.parametrize('seconds', [0, pytest.param(10, marks=pytest.mark.slow)], ids=['until_noticed','ten_seconds'])
async def test_sigstop_then_sigcont(owned, seconds):
    async with run_kernel() as (km, mine), attached(km.connection_file) as other:
        kc = mine if owned else other
        seen = []
        kc.on_status(seen.append)
        running = ask(kc, "import time; time.sleep(.2); print('here')")
        await until_busy(running)
        os.kill(km.provisioner.pid, signal.SIGSTOP)
        try:
            reqs = [ask(kc, f'print({i})') for i in range(300)]
            (e,), took = await outcomes([kc.execute('1', reply=True, timeout=.5)])
            assert type(e) is ReplyTimeout and .4<took<.5*SLACK
            figure('timeout=.5 while the kernel is stopped fired after', took)
            await kc.wait_for_status('unresponsive', timeout=SOON)
            await asyncio.sleep(seconds)
            assert kc.status=='unresponsive' and not any(o.done() for o in reqs)
        finally: os.kill(km.provisioner.pid, signal.SIGCONT)
        res, took = await outcomes([o.wait() for o in (running, *reqs)])
        assert text(running)=='here\n' and [text(o) for o in reqs]==[f'{i}\n' for i in range(300)]
        assert all(o.complete for o in res)
        await kc.wait_for_status('ready', timeout=SOON)
        assert not {'dead','restarting','starting'} & set(seen), seen
        await as_good_as_new(kc)


# --- restarted -----------------------------------------------------------------------------------------------------

async def restart_with_requests_in_flight(km, clients, now):
    "The seconds from the end of the old process to the end of the last waiter"
    old = await process(km, clients[0])
    reqs = [ask(kc, STAY if not i else '1') for kc in clients for i in range(400)]
    await until(lambda: any(o.iopub for o in reqs[::400]), what='a first cell that runs')     # of two clients, either may be first
    last = []
    for o in reqs: o.add_done_callback(lambda _: last.append(time.monotonic()))
    ended = ProcessEnd(old)
    restart = asyncio.ensure_future(km.restart_kernel(now=now))
    await asyncio.sleep(0)
    meanwhile = [ask(kc, 'print("new")') for kc in clients]
    await within(SOON, restart)
    res, _ = await outcomes(reqs)
    assert kinds(res)=={KernelRestartedError}, kinds(res)
    await until(lambda: ended.at)
    for o in meanwhile:
        await within(SOON, o.wait())
        assert text(o)=='new\n'
    assert await process(km, clients[0])!=old
    for kc in clients: await as_good_as_new(kc)
    return max(last)-ended.at

@pytest.mark.parametrize('times', [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize('now', [True, False], ids=['now','politely'])
async def test_restart_with_requests_in_flight(start_kernel, now, times):
    async with start_kernel() as (km, kc):
        took = [await restart_with_requests_in_flight(km, [kc], now) for _ in range(times)]
        assert max(took)<1*SLACK
        figure(f'restart_kernel(now={now}) x {times}: seconds from the old process\'s end to the last waiter told', max(took))

@pytest.mark.parametrize('newports', [False, True])
async def test_restart_with_two_clients(start_kernel, newports):
    async with start_kernel() as (km, kc):
        other = await km.client().start_channels()
        try: await restart_with_requests_in_flight(km, [kc, other], True)
        finally: other.stop_channels()


@pytest.mark.parametrize('now', [True, False], ids=['now','politely'])
async def test_restart_that_gives_the_kernel_time_to_answer_its_interrupt(now):
    "jupyter_client interrupts before it kills: KeyboardInterrupt and `aborted` are no answers of the cells, but the restart's own"
    async with run_kernel() as (km, kc):
        reqs = [ask(kc, STAY if not i else '1') for i in range(400)]
        await until_busy(reqs[0])
        kill = km.provisioner.kill
        async def slow(*args, **kwargs):
            await asyncio.sleep(.3)
            await kill(*args, **kwargs)
        km.provisioner.kill = slow
        await within(SOON, km.restart_kernel(now=now))
        res, _ = await outcomes(reqs)
        told = [o for o in res if type(o) is not KernelRestartedError]      # after the interrupt it may have run some, which is no echo
        assert type(res[0]) is KernelRestartedError and all(o['content']['status']=='ok' for o in told), told[:3]
        await as_good_as_new(kc)


@pytest.mark.parametrize('interrupted', [False, True], ids=['killed','interrupted before'])
async def test_restart_seen_by_a_client_without_manager(interrupted):
    """Such a client is not told of the restart. What the kernel answers to the manager's interrupt, before it is killed, is an
    answer; so is what the new one answers that the old one's connection had no room for (the next test)"""
    async with run_kernel() as (km, mine), attached(km.connection_file) as kc:
        reqs = [ask(kc, "print('begun', flush=True); "+STAY if not i else '1') for i in range(300)]
        while not text(reqs[0]): await within(SOON, anext(aiter(reqs[0]))); await asyncio.sleep(0)
        interrupt = km._async_interrupt_kernel
        async def first():
            if interrupted:
                await interrupt()
                await outcomes(reqs[:1])
        km._async_interrupt_kernel = first
        await within(SOON, km.restart_kernel(now=True))
        res, _ = await outcomes(reqs)
        told = [o['content'] for o in res if type(o) is dict]
        assert all(isinstance(o, (dict,DeadKernelError)) for o in res), kinds(res)
        assert (type(res[0]) is dict)==interrupted and all(o['status']!='error' for o in told[interrupted:])
        if interrupted: assert told[0]['ename']=='KeyboardInterrupt'
        await until(lambda: kc.connection.life.generation)   # (all may be answered before it notices)
        await kc.wait_for_status('ready', timeout=SOON)
        await as_good_as_new(kc)


async def test_what_the_old_kernel_had_no_room_for_goes_to_the_new_one():
    """ZMQ keeps what it could not write to a connection for the next one: the new kernel runs it. What it has answered before
    it is known as another kernel is an answer; the rest fails as what it is, asked of the old one"""
    async with run_kernel() as (km, mine), attached(km.connection_file, lost_after=SOON) as kc:
        async def nothing(): pass
        km._async_interrupt_kernel = nothing
        first = ask(kc, "print('begun', flush=True); "+STAY)
        while not text(first): await within(SOON, anext(aiter(first))); await asyncio.sleep(0)
        os.kill(km.provisioner.pid, signal.SIGSTOP)
        reqs = [ask(kc, f'{i}#'+'x'*100_000) for i in range(250)]
        await within(SOON, km.restart_kernel(now=True))
        res, _ = await outcomes([first, *reqs])
        told = [o['content'] for o in res if type(o) is dict]
        assert isinstance(res[0], DeadKernelError) and all(isinstance(o, (dict,DeadKernelError)) for o in res), kinds(res)
        assert [(o['status'], o['execution_count']) for o in told]==[('ok', i+1) for i in range(len(told))], told[:3]
        await kc.wait_for_status('ready', timeout=SOON)
        await as_good_as_new(kc)


async def test_restart_that_is_cancelled_leaves_nobody_waiting(start_kernel):
    async with start_kernel() as (km, kc):
        reqs = [ask(kc, STAY if not i else '1') for i in range(300)]
        await until_busy(reqs[0])
        task = asyncio.ensure_future(km.restart_kernel(now=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=SOON)
        res, _ = await outcomes(reqs)
        assert all(isinstance(o, DeadKernelError) for o in res), kinds(res)
        if kc.status!='ready': assert kc.status=='dead'      # the old one's process has ended, and there is no new one
        await within(SOON, km.restart_kernel(now=True))
        await kc.wait_for_ready(timeout=SOON)
        await as_good_as_new(kc)


@pytest.mark.parametrize('times', [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_autorestart_of_a_crashed_kernel(times):
    km = ConIOLoopKernelManager()
    await km.start_kernel()
    km._restarter.time_to_dead,km._restarter.restart_limit = .2,100
    km.stop_restarter(); km._restarter = None
    km.start_restarter()
    km._restarter.stop()
    km._restarter.time_to_dead,km._restarter._pcallback = .2,None
    km._restarter.start()
    kc = km.client()
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        for _ in range(times):
            reqs = [ask(kc, STAY if not i else '1') for i in range(400)]
            await until_busy(reqs[0])
            os.kill(km.provisioner.pid, signal.SIGKILL)
            res, took = await outcomes(reqs)
            assert kinds(res)=={KernelRestartedError} and {o.exit_code for o in res}=={-signal.SIGKILL}
            assert took<1*SLACK
            await kc.wait_for_status('ready', timeout=SOON)
            await as_good_as_new(kc)
        figure('crash under a restarter: seconds until 400 had failed', took)
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


# --- the connection flaps ------------------------------------------------------------------------------------------

async def fake_client(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc

async def back(fk):
    "Open the sockets again, and wait until a client's are connected: iopub has subscribed, and shell has asked something"
    before,asked = fk.subscriptions,fk.counts['kernel_info_request']
    fk.reopen_sockets()
    await fk.until(lambda: fk.subscriptions>before and fk.counts['kernel_info_request']>asked, what='a reconnected client')

@pytest.mark.parametrize('keep', [True, False], ids=['request','execute'])
async def test_flap_loses_a_reply(keep):
    "The reply was sent while there was no connection: who waits for it is told"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await fake_client(fk)
        reqs = [ask(kc, str(i), iopub=keep) for i in range(3)]
        ids = [kc.execute('sent')]      # nobody waits for this one, but it takes a place on the wire
        await fk.until_received(4)
        await fk.until_held(1)
        fk.close_sockets()
        fk.release()                    # the first is answered into the void
        await fk.until_held(1)          # the second has begun
        fk.on['execute_request'] = 'busy reply idle'
        begin = time.monotonic()
        await back(fk)
        fk.release()
        res, _ = await outcomes(reqs)
        took = time.monotonic()-begin
        assert type(res[0]) is NoReplyError
        assert all(type(o) is dict for o in res[1:])
        figure('flap: seconds until the loss of a reply was told', took)
        assert (await within(SOON, kc.get_shell_msg()))[0]['parent_header']['msg_id']==ids[0]
        await at_rest(kc)
        kc.stop_channels()


async def test_flap_while_a_request_runs_on():
    "Nothing was lost: the reply comes over the new connection, and nobody was told otherwise"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await fake_client(fk)
        reqs = [ask(kc, str(i)) for i in range(3)]
        await fk.until_received(3)      # what the kernel has not read yet would be lost with the connection
        await fk.until_held(1)
        fk.close_sockets()
        await back(fk)
        fk.on['execute_request'] = 'busy reply idle'
        fk.release()
        res, _ = await outcomes(reqs)
        assert kinds(res)=={dict}, (kinds(res), dict(fk.undelivered), kc.status, dict(fk.counts), fk.subscriptions)
        await outcomes([o.wait() for o in reqs])
        await at_rest(kc)
        kc.stop_channels()


async def test_flap_loses_requests_on_their_way():
    "Sent, but not read by the kernel when the connection broke: who waits is told, and the one that was read goes on"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await fake_client(fk)
        begun = ask(kc, 'begun')
        await fk.until_held(1)
        fk.freeze()
        lost = [ask(kc, str(i)) for i in range(3)]
        await asyncio.sleep(.05)        # for the bytes to leave; those that do not are delivered later, and answered
        fk.close_sockets()
        fk.thaw()
        await back(fk)
        fk.on['execute_request'] = 'busy reply idle'
        fk.release()
        res, _ = await outcomes([begun, *lost])
        assert type(res[0]) is dict
        ran = set(fk.codes)
        assert [type(o) for o in res[1:]]==[dict if str(i) in ran else NoReplyError for i in range(3)]
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('n', [1, 600])
async def test_flaps_in_a_row(n):
    "Many flaps while requests go on: each gets its own reply, or is told"
    with FakeKernel() as fk:
        kc = await fake_client(fk, grace=.2, lost_after=SOON)
        all_reqs = []
        for _ in range(5):
            all_reqs += [ask(kc, str(i)) for i in range(n)]
            await asyncio.sleep(0)
            before = fk.subscriptions
            fk.close_sockets()
            fk.reopen_sockets()
            await fk.until(lambda: fk.subscriptions>before)
        res, took = await outcomes(all_reqs)
        assert kinds(res)<={dict, NoReplyError}
        assert all(o['parent_header']['msg_id']==r.msg_id for o,r in zip(res, all_reqs) if type(o) is dict)
        await outcomes([o.wait() for o in all_reqs])
        await soon_complete(kc)
        await at_rest(kc)
        kc.stop_channels()


async def soon_complete(kc, seconds=SOON):
    "It executes, and soon (the connection for outputs may come back a little later than the one for replies) outputs included"
    deadline = time.monotonic()+seconds
    while True:
        req = ask(kc, 'after', timeout=seconds)
        await req.wait()
        if req.complete: break
        assert time.monotonic()<deadline, 'never complete again'
    assert text(req)=='after'

async def test_request_sent_while_iopub_is_down():
    "The first of its outputs was published before iopub was back: it is not said to be complete"
    with FakeKernel(on={'execute_request': 'busy stream=first hold stream=second reply idle'}) as fk:
        kc = await fake_client(fk)
        def iopub(what): fk._order(what)
        iopub(lambda: fk._sockets.pop('iopub').close())
        await until(lambda: 'iopub' not in links(kc))
        req = ask(kc, 'x')
        await asyncio.sleep(0)      # if it waits for iopub, it is not held yet
        before = fk.subscriptions
        try: await fk.until_held(1, timeout=.3)
        except TimeoutError: pass
        iopub(lambda: fk._sockets.update(iopub=fk._open('iopub', zmq.XPUB)))
        await fk.until(lambda: fk.subscriptions>before)
        await fk.until_held(1)
        fk.release()
        (done,_) = await within(SOON, req.wait())
        assert done.complete is (text(req)=='firstsecond'), (done, text(req))
        kc.stop_channels()


async def test_kernel_replaced_behind_the_clients_back():
    "Another kernel on the same ports, before anybody could notice that the first was gone"
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await fake_client(fk, lost_after=20.)
        reqs = [ask(kc, str(i)) for i in range(300)]
        await fk.until_received(256)
        fk.crash()
        fk.on.clear()
        fk.start()
        res, took = await outcomes(reqs)
        assert kinds(res)=={KernelRestartedError}, kinds(res)       # those that waited in the window too: their state is gone
        await soon_complete(kc)
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('handover', [True, False], ids=['handover','no_handover'])
async def test_kernel_gone_and_back(handover):
    "Dead for its client; and then there is one again on the same ports"
    with FakeKernel(on={'execute_request': 'hold'}, handover=handover) as fk:
        kc = await fake_client(fk, lost_after=.2)
        reqs = [ask(kc, str(i)) for i in range(300)]
        await fk.until_held(1)
        fk.crash()
        res, took = await outcomes(reqs)
        assert kinds(res)=={DeadKernelError}
        await kc.wait_for_status('dead', timeout=SOON)
        fk.on.clear()
        fk.start()
        await kc.wait_for_status('ready', timeout=SOON)
        assert (await within(SOON, ask(kc, 'after').wait()))[0].complete
        assert 'after' in fk.codes and len(fk.codes)<300   # what had been told to fail was not run by the new kernel
        await at_rest(kc)
        kc.stop_channels()


# --- it never starts -----------------------------------------------------------------------------------------------

def children(): return {o.pid for o in psutil.Process().children(recursive=True)}

@pytest.mark.parametrize('behaviour,timeout,error,words', [
    ('silent', 1., RuntimeError, 'respond'),
    ('deaf', 1., RuntimeError, 'heartbeat beats'),
    ('dies', 20., DeadKernelError, 'exit code 3'),
    ('dies_when_asked', 20., DeadKernelError, 'exit code 4'),
    ('wrong_key', 1., RuntimeError, 'key'),
])
async def test_start_failure(tmp_path, behaviour, timeout, error, words):
    from functools import partial
    before,begin = children(),time.monotonic()
    manager = partial(ConKernelManager, kernel_spec_manager=kernel_specs(tmp_path, behaviour=behaviour))
    async def use():
        async with run_kernel('fake', startup_timeout=timeout, manager_class=manager): pass
    with pytest.raises(error, match=words): await asyncio.wait_for(use(), SOON)
    took = time.monotonic()-begin
    assert took<timeout+SLACK
    figure(f'start of a kernel that is {behaviour!r}: seconds until the error (timeout {timeout})', took)
    assert children()<=before


async def test_start_of_an_unknown_command(tmp_path):
    from functools import partial
    specs = kernel_specs(tmp_path)
    f = tmp_path/'fake'/'kernel.json'
    f.write_text(json.dumps(json.loads(f.read_text())|dict(argv=['no-such-command-anywhere'])))
    before = children()
    with pytest.raises(FileNotFoundError, match='no-such-command'):
        async with run_kernel('fake', manager_class=partial(ConKernelManager, kernel_spec_manager=specs)): pass
    assert children()<=before


async def test_cancelled_start_leaves_no_orphan(tmp_path):
    from functools import partial
    before = children()
    async def use():
        async with run_kernel('fake', manager_class=partial(ConKernelManager, kernel_spec_manager=kernel_specs(tmp_path, behaviour='deaf'))): pass
    task = asyncio.ensure_future(use())
    await until(lambda: children()>before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError): await asyncio.wait_for(task, SOON)
    assert children()<=before


async def test_connection_file_gone(tmp_path):
    kc = ConKernelClient(connection_file=str(tmp_path/'gone.json'))
    with pytest.raises(FileNotFoundError): kc.load_connection_file()


async def test_port_closed():
    with FakeKernel() as fk: kc = fk.client(ConKernelClient)
    kc.start_channels()
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match='nothing listens'): await asyncio.wait_for(kc.wait_for_ready(timeout=1), SOON)
    assert time.monotonic()-begin<1*SLACK
    kc.stop_channels()


async def test_wrong_key_in_the_connection_file():
    with FakeKernel(file_says=dict(key='another')) as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        with pytest.raises(RuntimeError, match='key'): await asyncio.wait_for(kc.wait_for_ready(timeout=1), SOON)
        assert not fk.received and fk.rejected
        kc.stop_channels()


async def test_wrong_curve_key():
    other = zmq.curve_keypair()
    with FakeKernel(curve=True, file_says=dict(curve_publickey=other[0].decode(), curve_secretkey=other[1].decode())) as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        with pytest.raises(RuntimeError, match='[Cc]urve'): await asyncio.wait_for(kc.wait_for_ready(timeout=1), SOON)
        assert not fk.received
        kc.stop_channels()


async def test_no_curve_key_for_an_encrypted_kernel():
    with FakeKernel(curve=True, file_says=dict(curve_publickey=None, curve_secretkey=None)) as fk:
        fk.connection_file and Path(fk.connection_file).write_text(
            json.dumps({k:v for k,v in fk.connection_info.items() if v is not None}))
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        with pytest.raises(RuntimeError, match='respond'): await asyncio.wait_for(kc.wait_for_ready(timeout=1), SOON)
        assert not fk.received
        kc.stop_channels()


@pytest.mark.parametrize('how', [dict(curve=True), dict(transport='ipc'), dict(transport='ipc', curve=True)], ids=str)
async def test_encrypted_and_ipc_connections_work(how):
    with FakeKernel(**how) as fk:
        kc = await fake_client(fk)
        reqs = [ask(kc, str(i)) for i in range(600)]
        await outcomes([o.wait() for o in reqs])
        assert [text(o) for o in reqs]==[str(i) for i in range(600)] and all(o.complete for o in reqs)
        kc.stop_channels()


@pytest.mark.parametrize('transport', ['tcp', 'ipc'])
@pytest.mark.parametrize('encryption', ['required', 'disabled'])
async def test_real_kernel_encrypted_and_ipc(transport, encryption):
    km = ConKernelManager(transport=transport, transport_encryption=encryption)
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        await as_good_as_new(kc)
        os.kill(km.provisioner.pid, signal.SIGKILL)
        await kc.wait_for_status('dead', timeout=SOON)
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


async def test_a_restart_of_a_dead_kernel_shuts_nothing_down():
    "A `shutdown_request` that nobody received waits in the manager's socket; the next kernel, if it listens soon, would end"
    async with managed() as (km, kc, kernels):
        for i in range(5):
            kernels[-1].crash(3)
            await kc.wait_for_status('dead', timeout=SOON)
            await kc.restart()
            await asyncio.sleep(.15)   # (it is kept for a tenth of a second)
            assert kernels[-1].counts['shutdown_request']==0
            assert (await asyncio.wait_for(kc.run('x'), SOON)).text=='x'


async def test_what_a_kernel_did_not_get_reaches_no_other(monkeypatch):
    "A restart interrupts the kernel first, which ends some of them (xeus): then nobody is there for the `shutdown_request`"
    async with managed() as (km, kc, kernels):
        async def interrupt(): kernels[-1].crash(3)
        monkeypatch.setattr(km, '_async_interrupt_kernel', interrupt)
        for i in range(5):
            await km.restart_kernel()
            await kc.wait_for_ready(timeout=SOON)
            await asyncio.sleep(.15)   # (it lingers for a tenth of a second)
            assert kernels[-1].counts['shutdown_request']==0
            assert (await asyncio.wait_for(kc.run('x'), SOON)).text=='x'
