"""Events in the worst order: each was, or could be, a hang, a loss or a crossing."""
import asyncio, gc, os, threading, time

import pytest, zmq
from conkernelclient import ReplyTimeout, ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, KernelRestartedError, NoReplyError, run_kernel
from fake_kernel import FakeKernel, kernel_specs
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 90


async def ready(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc

async def fake_manager(folder, **options):
    km = ConKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(folder, **options))
    await km.start_kernel()
    return km


# --- a kernel that is stopped in the middle ------------------------------------------------------------------------

@pytest.mark.parametrize('script', ['busy stream=here reply freeze idle', 'busy stream=here idle freeze reply'], ids=['before_idle','before_reply'])
async def test_stopped_between_reply_and_idle(script):
    "The grace time does not run out while the kernel is not heard at all"
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient, grace=.6)
        kc.hb_channel.time_to_dead = .1
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        req = ask(kc, f'fake: {script}')
        await kc.wait_for_status('unresponsive', timeout=SOON)
        await asyncio.sleep(1.5)
        fk.thaw()
        (done,_) = await within(SOON, req.wait())
        assert done.complete and done.reply and text(done)=='here'
        kc.stop_channels()


# --- hooks that never end ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('how', ['crash', 'stop', 'timeout', 'cancel'])
async def test_failure_does_not_wait_for_a_hook(how):
    "A person who is asked for input may never answer; a dead kernel, a stop, a timeout are told all the same"
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=.1)
        asked = asyncio.Event()
        async def never(msg):
            asked.set()
            await asyncio.Event().wait()
        timeout = .5 if how=='timeout' else None
        req = ask(kc, 'fake: busy input=name reply idle', on_stdin=never, timeout=timeout)
        end = req.wait()
        interactive = asyncio.ensure_future(kc.execute_interactive('fake: busy input=name reply idle', allow_stdin=True, stdin_hook=never, timeout=timeout))
        await within(SOON, asked.wait())
        if how=='crash': fk.crash()
        if how=='stop': kc.stop_channels()
        if how=='cancel': req.cancel(), interactive.cancel()
        res, took = await outcomes([req, end, interactive], 5)
        assert kinds(res)=={dict(crash=DeadKernelError, stop=ClientClosedError, timeout=ReplyTimeout, cancel=asyncio.CancelledError)[how]}
        kc.stop_channels()


# --- the window ----------------------------------------------------------------------------------------------------

async def test_no_more_than_the_window_on_the_wire():
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}, sequential=False) as fk:
        kc = await ready(fk)
        reqs = [ask(kc, str(i)) for i in range(1500)]
        await fk.until_held(256)
        for released in range(1, 4):
            fk.release(fk.held[:100])
            await fk.until_received(256+100*released)
            await within(SOON, kc.kernel_info(reply=True, channel='control'))
            assert fk.got()==256+100*released
        fk.on.clear()
        fk.release()
        await outcomes([o.wait() for o in reqs])
        assert fk.codes==[str(i) for i in range(1500)]
        await at_rest(kc)
        kc.stop_channels()


async def test_window_full_of_given_up_requests_that_are_never_answered():
    "They do not keep the next from being asked"
    with FakeKernel() as fk:
        kc = await ready(fk, window=4)
        lost = [ask(kc, 'fake: busy', timeout=.1) for _ in range(4)]
        res, _ = await outcomes(lost)
        assert kinds(res)=={ReplyTimeout}
        (done,_) = await within(5, ask(kc, 'x').wait())
        assert done.complete
        await at_rest(kc)
        kc.stop_channels()


async def test_given_up_requests_free_their_places_however_many_there_were_since():
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await ready(fk, window=100)
        lost = [ask(kc, 'x') for _ in range(100)]
        await fk.until_held(1)
        for o in lost: o.cancel()
        for _ in range(50):
            more = [kc.request('kernel_info_request', {}, 'control') for _ in range(100)]
            await asyncio.sleep(0)
            for o in more[1:]: o.cancel()
            await within(SOON, more[0].wait())
            await within(SOON, kc.kernel_info(reply=True, channel='control'))
        assert len(kc.router.abandoned)<=4096       # they are not remembered for ever
        last = ask(kc, 'y')
        fk.on.clear()
        fk.release()
        (done,_) = await within(5, last.wait())
        assert done.complete
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('bad', ['null_content', 'listed_parent', 'headless', 'broken_json'])
@pytest.mark.parametrize('which', ['reply', 'idle', 'stream'])
async def test_odd_message_with_others_waiting(which, bad):
    "A signed message that no kernel should send is dropped; it takes nothing with it"
    with FakeKernel() as fk:
        kc = await ready(fk, window=1, grace=.2)
        script = ' '.join(f'{o}:{bad}' if o==which else o for o in ('busy','stream','reply','idle'))
        req,behind = ask(kc, f'fake: {script}'),[ask(kc, str(i)) for i in range(3)]
        res, _ = await outcomes([req.wait(), *(o.wait() for o in behind)], 10)
        assert all(o.complete for o in res[1:]) and [text(o) for o in behind]==['0','1','2']
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('then', ['send', 'wait'])
async def test_replies_that_came_while_the_loop_was_blocked(then):
    "No more edges come on the socket: a send takes the news of the reply away, or there is more than one turn reads"
    with FakeKernel() as fk:
        kc = await ready(fk)
        for i in range(30 if then=='send' else 2):
            reqs = [ask(kc, str(i)) for i in range(1 if then=='send' else 200)]
            n = fk.got()
            fk.wait(lambda: fk.got()>=(i+1)*len(reqs))
            time.sleep(.005 if then=='send' else .2)
            if then=='send': kc.shell_channel.send(kc.session.msg('comm_msg', dict(comm_id='x', data={})))
            res, _ = await outcomes(reqs, 5)
            assert kinds(res)=={dict}
        kc.stop_channels()


# --- iopub comes and goes ------------------------------------------------------------------------------------------

async def test_what_waits_in_the_client_loses_nothing_when_iopub_flaps():
    with FakeKernel(on={'execute_request': 'hold busy stream reply idle'}) as fk:
        kc = await ready(fk, window=2)
        reqs = [ask(kc, str(i)) for i in range(20)]
        await fk.until_received(2)
        before = fk.subscriptions
        Iopub(fk).close()
        await until(lambda: 'iopub' not in links(kc))
        Iopub(fk).open()
        await fk.until(lambda: fk.subscriptions>before)
        await until(lambda: not kc.connection.life.holds)
        fk.on['execute_request'] = 'busy stream reply idle'
        while fk.held: fk.release()
        await outcomes([o.wait() for o in reqs])
        assert [text(o) for o in reqs[2:]]==[str(i) for i in range(2,20)]
        assert all(o.complete for o in reqs[2:])
        kc.stop_channels()


async def test_short_absence_of_iopub_loses_nothing():
    "What is asked meanwhile is sent when it is back"
    with FakeKernel() as fk:
        kc = await ready(fk)
        Iopub(fk).close()
        await until(lambda: 'iopub' not in links(kc))
        reqs = [ask(kc, str(i)) for i in range(5)]
        Iopub(fk).open()
        await outcomes([o.wait() for o in reqs])
        assert all(o.complete for o in reqs) and [text(o) for o in reqs]==[str(i) for i in range(5)]
        kc.stop_channels()


async def test_request_sent_long_after_iopub_went():
    "Outputs are published into the void, then iopub is back for the rest: that is not complete"
    with FakeKernel(on={'execute_request': 'busy stream=first hold stream=second reply idle'}) as fk:
        kc = await ready(fk)
        Iopub(fk).close()
        await until(lambda: 'iopub' not in links(kc))
        req = ask(kc, 'x')
        await fk.until_held(1)       # it is sent when iopub does not come back for some time
        before = fk.subscriptions
        Iopub(fk).open()
        await fk.until(lambda: fk.subscriptions>before)
        fk.release()
        (done,_) = await within(SOON, req.wait())
        assert done.complete is (text(req)=='firstsecond'), (done, text(req))
        kc.stop_channels()


@pytest.mark.parametrize('instead', ['nobody', 'somebody_else'])
async def test_no_iopub_at_the_start(instead):
    "It is said where nothing, or what is no kernel, listens; and where the kernel comes, all is well"
    with FakeKernel() as fk:
        Iopub(fk).close()
        port = fk._truth['iopub_port']
        if instead=='somebody_else':
            def bound():
                try: other.bind(f'tcp://127.0.0.1:{port}')
                except zmq.ZMQError: return False      # the kernel's own socket is not gone yet
                return True
            context = zmq.Context()
            other = context.socket(zmq.REP)
            await until(bound)
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        with pytest.raises(RuntimeError, match=str(port)): await asyncio.wait_for(kc.wait_for_ready(timeout=1), SOON)
        if instead=='somebody_else':
            context.destroy(linger=0)
        Iopub(fk).open()
        await kc.wait_for_ready(timeout=SOON)
        req = ask(kc, 'x')
        assert (await within(SOON, req.wait()))[0].complete and text(req)=='x'
        await at_rest(kc)
        kc.stop_channels()


# --- deaths and restarts -------------------------------------------------------------------------------------------

async def test_back_for_a_moment_and_gone_again():
    "A kernel without manager that returned but died before it answered: what was asked of it meanwhile is told"
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=.2)
        fk.crash()
        await kc.wait_for_status('dead', timeout=SOON)
        fk._frozen_at_start = True
        fk.start()
        await kc.wait_for_status('restarting', timeout=SOON)
        req = ask(kc, 'x')
        fk.crash()
        (e,), _ = await outcomes([req], 5)
        assert type(e) is DeadKernelError
        fk._frozen_at_start = False
        fk.start()
        await kc.wait_for_status('ready', timeout=SOON)
        assert (await within(SOON, ask(kc, 'y').wait()))[0].complete
        await at_rest(kc)
        kc.stop_channels()


async def test_back_while_its_death_is_certified():
    "A client without manager has waited long enough, and in that moment the connection is there again"
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=.05)
        host = kc.connection.host
        seen,code = [],host.exit_code
        kc.on_status(seen.append)
        async def late():
            fk._order(lambda: fk._sockets.update(shell=fk._open('shell', zmq.ROUTER)))
            await until(lambda: 'shell' in links(kc))
            return await code()
        host.exit_code = late
        fk._order(lambda: fk._sockets.pop('shell').close())
        await until(lambda: 'shell' not in links(kc))
        await until(lambda: 'shell' in links(kc))
        await asyncio.sleep(.5)      # the verdict waits a moment for last words
        assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
        assert 'dead' not in seen
        kc.stop_channels()


@pytest.mark.parametrize('handover', [True, False], ids=['handover','no_handover'])
async def test_kernel_that_is_back_before_the_monitor_listens(handover):
    "The handshake with the new kernel is over before anybody could hear of it"
    with FakeKernel(handover=handover) as fk:
        kc = await ready(fk, lost_after=.2)
        transport = kc.connection.transport
        watch = transport._watch
        def late(*args, **kwargs):
            fk.start()
            fk.wait(lambda: fk.subscriptions>before)
            time.sleep(.5)      # for the shell's handshake too
            del transport._watch
            watch(*args, **kwargs)
        before,transport._watch = fk.subscriptions,late
        fk.crash()
        await kc.wait_for_status('dead', timeout=SOON)
        await kc.wait_for_status('ready', timeout=5)
        assert (await within(SOON, ask(kc, 'y').wait()))[0].complete
        kc.stop_channels()


async def test_connections_are_known_of_however_early_they_were():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        transport = kc.connection.transport
        watch = transport._watch
        def late(*args, **kwargs):
            fk.wait(lambda: fk.subscriptions)
            watch(*args, **kwargs)
        transport._watch = late
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        assert links(kc)=={'shell','iopub'}
        req = ask(kc, 'fake: busy stream=word*1000 stop')
        (e,), _ = await outcomes([req])
        assert type(e) is DeadKernelError and text(req)=='word'*1000
        kc.stop_channels()


async def test_what_waits_unanswered_does_not_reach_the_next_kernel():
    "A comm message behind a full window is meant for the kernel of then"
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await ready(fk, window=1, lost_after=.2)
        req = ask(kc, 'x')
        await fk.until_held(1)
        kc.shell_channel.send(kc.session.msg('comm_msg', dict(comm_id='of the old kernel', data={})))
        fk.crash()
        (e,), _ = await outcomes([req])
        assert type(e) is DeadKernelError
        await kc.wait_for_status('dead', timeout=SOON)
        fk.on.clear()
        fk.start()
        await kc.wait_for_status('ready', timeout=SOON)
        assert (await within(SOON, ask(kc, 'y').wait()))[0].complete
        assert not fk.counts['comm_msg']
        kc.stop_channels()


async def test_probe_that_is_given_up_leaves_nothing():
    "A kernel that swallows the first question: the client is not busy with it for ever"
    swallowed = []
    def some(k, msg):
        if not swallowed: return swallowed.append(msg)
        return 'busy reply idle'
    with FakeKernel(on={'kernel_info_request': some}) as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        with pytest.raises(RuntimeError): await kc.wait_for_ready(timeout=.3)
        await kc.wait_for_ready(timeout=SOON)
        await at_rest(kc)
        assert kc.status=='ready'
        kc.stop_channels()


async def test_restart_while_starting(tmp_path):
    km = await fake_manager(tmp_path)
    kc = km.client()
    kc.start_channels()
    try:
        waits = [asyncio.ensure_future(kc.wait_for_ready(timeout=SOON)) for _ in range(3)]
        await asyncio.sleep(0)
        early = ask(kc, 'early')
        await within(SOON, km.restart_kernel(now=True))
        res, _ = await outcomes([*waits, early])
        assert res[:3]==[None]*3 and type(res[3]) in (KernelRestartedError, dict)
        assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
        await at_rest(kc)
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


@pytest.mark.parametrize('handover', [True, False], ids=['handover','no_handover'])
async def test_new_kernel_that_is_up_before_the_client_is_told(tmp_path, handover):
    "On a busy machine: the old sockets have connected to the new kernel, under the client's name"
    km = await fake_manager(tmp_path, handover=handover)
    kc = km.client()
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        launch = km._async_launch_kernel
        async def slow(*args, **kwargs):
            await launch(*args, **kwargs)
            await until(lambda: {'shell','iopub'}<=links(kc))
        km._async_launch_kernel = slow
        for _ in range(3):
            req = ask(kc, 'fake: busy')
            await until_busy(req)
            await within(SOON, km.restart_kernel(now=True))
            (e,), _ = await outcomes([req])
            assert type(e) is KernelRestartedError
            await asyncio.wait_for(kc.wait_for_ready(timeout=5), SOON)
            assert (await within(5, ask(kc, 'x').wait()))[0].complete
        await at_rest(kc)
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


async def test_two_restarts_at_once(tmp_path):
    km = await fake_manager(tmp_path)
    kc = km.client()
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        req = ask(kc, 'fake: busy hold')
        res, _ = await outcomes([asyncio.ensure_future(km.restart_kernel(now=True)) for _ in range(2)])
        (e,), _ = await outcomes([req])
        assert isinstance(e, DeadKernelError)
        await kc.wait_for_ready(timeout=SOON)
        assert (await within(SOON, ask(kc, 'x').wait()))[0].complete, res
        await at_rest(kc)
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


async def test_stop_when_ready_and_restart_in_status_callbacks(tmp_path):
    "A status callback may stop the client that tells it"
    with FakeKernel() as fk:
        for when in 'ready','busy':
            kc = fk.client(ConKernelClient)
            kc.on_status(lambda status: kc.stop_channels() if status==when else None)
            kc.start_channels()
            try:
                await asyncio.wait_for(kc.wait_for_ready(timeout=SOON), SOON)
                (e,), _ = await outcomes([ask(kc, 'x')])
                assert type(e) is ClientClosedError
            except ClientClosedError: pass
            assert kc.status=='closed'
            await at_rest(kc)


async def test_stop_and_send_in_done_callbacks():
    with FakeKernel() as fk:
        kc = await ready(fk)
        more = []
        first = ask(kc, 'a')
        first.add_done_callback(lambda _: more.append(ask(kc, 'b')))
        await within(SOON, first.wait())
        await within(SOON, more[0].wait())
        last,behind = ask(kc, 'c'),[ask(kc, 'd') for _ in range(300)]
        last.add_done_callback(lambda _: kc.stop_channels())
        res, _ = await outcomes([last, *behind])
        assert type(res[0]) is dict and kinds(res[1:])<={dict, ClientClosedError}
        await at_rest(kc)


async def test_subshell_deleted_with_requests_in_flight():
    "Who waits for a subshell that is gone is told"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await ready(fk, window=2)
        sub = (await within(SOON, kc.request('create_subshell_request', {}, 'control')))[0]['content']['subshell_id']
        reqs = [ask(kc, str(i), subshell_id=sub) for i in range(5)]
        await fk.until_held(1)
        await within(SOON, kc.request('delete_subshell_request', dict(subshell_id=sub), 'control'))
        res, _ = await outcomes(reqs, 5)
        assert all(isinstance(o, Exception) or o['content']['status']=='error' for o in res), res
        await at_rest(kc)
        assert (None not in kc.router.shells) and ('shell',sub) not in kc.router.shells     # nor is anything kept of it
        kc.stop_channels()


# --- threads, loops, processes -------------------------------------------------------------------------------------

async def test_stop_from_another_thread():
    "It is refused, or waiters are told at once: nobody waits on"
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await ready(fk)
        kc.hb_channel.stop()                # nothing else wakes the loop
        req = ask(kc, 'x')
        await fk.until_held(1)
        def stop():
            try: kc.stop_channels()
            except RuntimeError: asyncio.run_coroutine_threadsafe(_call(kc.stop_channels), loop).result(SOON)
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=stop)
        thread.start()
        res, took = await outcomes([req], 5)
        assert kinds(res)=={ClientClosedError} and took<2
        await asyncio.to_thread(thread.join, SOON)

async def _call(f): f()


def test_restart_with_a_client_in_another_thread(tmp_path):
    "Its requests fail and it goes on, in its own thread"
    started,restart,done = threading.Event(),threading.Event(),[]
    def other(km):
        async def use():
            kc = km.client()
            kc.start_channels()
            await kc.wait_for_ready(timeout=SOON)
            touched = []
            for o in kc.connection.transport.channels.values():
                reopen = o.reopen
                o.reopen = lambda sock, reopen=reopen: (touched.append(threading.get_ident()), reopen(sock))
            req = ask(kc, 'fake: busy hold')
            await until_busy(req)
            started.set()
            (e,), _ = await outcomes([req])
            done.append(type(e))
            done.append((await within(SOON, ask(kc, 'x').wait()))[0].complete)
            assert set(touched)<={threading.get_ident()}
            kc.stop_channels()
            done.append('end')
        asyncio.run(use())
    async def main():
        km = await fake_manager(tmp_path)
        thread = threading.Thread(target=other, args=(km,))
        thread.start()
        try:
            assert await asyncio.to_thread(started.wait, SOON)
            await within(SOON, km.restart_kernel(now=True))
            await asyncio.to_thread(thread.join, SOON)
            assert done==[KernelRestartedError, True, 'end']
        finally: await km.shutdown_kernel(now=True)
    asyncio.run(main())


def test_what_a_dead_kernel_left_is_read_to_the_end():
    "A reader stops after a batch, so that others have their turn; before a failure is told, all that is there is read"
    class Channel:
        def __init__(self, batches): self.batches = batches
        def backlog(self): return self.batches>0
        def read(self): self.batches -= 1
        def close(self): pass
    kc = ConKernelClient()
    transport = kc.connection.transport
    transport.channels = dict(shell=Channel(2), iopub=Channel(5))
    transport.drain()
    assert [o.batches for o in transport.channels.values()]==[0, 0]


def test_restart_with_a_client_whose_loop_is_closed(tmp_path):
    "It hinders nobody"
    keep = []
    async def first():
        km = await fake_manager(tmp_path)
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        keep.extend([km, kc, ask(kc, 'fake: busy')])     # nobody answers it
    async def second():
        km = keep[0]
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        await within(SOON, km.restart_kernel(now=True))
        await kc.wait_for_ready(timeout=SOON)
        assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
        kc.stop_channels()
        keep[1].stop_channels()
        await km.shutdown_kernel(now=True)
    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.parametrize('how', ['dropped', 'stopped'])
def test_forked_child_that_lets_go_of_the_client(how):
    "The parent's event loop hears on: a child shares its epoll"
    with FakeKernel() as fk:
        async def main():
            box = [await ready(fk)]
            pid = os.fork()
            if not pid:
                try:
                    if how=='stopped': box[0].stop_channels()
                    box.clear()
                    gc.collect()
                finally: os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
            kc = box[0]
            kc.hb_channel.pause()
            for i in range(3): assert (await within(5, ask(kc, str(i)).wait()))[0].complete
            kc.stop_channels()
        asyncio.run(main())


async def test_reader_that_gives_up_often_leaves_nothing():
    "`async for` with a timeout of its own for each message"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await ready(fk)
        req = ask(kc, 'x')
        await fk.until_held(1)
        for _ in range(200):
            with pytest.raises(asyncio.TimeoutError): await asyncio.wait_for(anext(aiter(req)), 0)
            task = asyncio.ensure_future(anext(aiter(req)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert len(req._listeners or ())<10
        fk.release()
        assert (await within(SOON, req.wait()))[0].complete
        kc.stop_channels()


async def test_input_without_a_stdin_channel():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels(stdin=False)
        await kc.wait_for_ready(timeout=SOON)
        with pytest.raises(ClientClosedError, match='stdin'): kc.input('x')
        kc.stop_channels()
