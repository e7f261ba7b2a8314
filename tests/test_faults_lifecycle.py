"""Clients that are started, stopped, dropped, or outlive their loop: nobody waits for ever, and nothing is left behind."""
import asyncio, gc, os, subprocess, sys, textwrap, threading, time, warnings, weakref
from functools import partial
from pathlib import Path

import pytest, zmq
from conkernelclient import ClientClosedError, ConKernelClient, ConKernelManager, run_kernel
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

HERE = Path(__file__).parent


def started(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    return kc

async def ready(fk, **kwargs):
    kc = started(fk, **kwargs)
    await kc.wait_for_ready(timeout=SOON)
    return kc

def script(code, *args, timeout=60, python=('-X','dev','-W','error')):
    "Run a program; fails when it does, hangs, or says anything on stderr. Gives its output."
    res = subprocess.run([sys.executable, *python, '-c', textwrap.dedent(code), *args], capture_output=True, text=True, timeout=timeout,
                         cwd=HERE.parent, env=os.environ|dict(PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get('PYTHONPATH','')])))
    err = [o for o in res.stderr.splitlines() if 'frozen modules' not in o
           and not o.endswith('is unresponsive') and not o.startswith('Executing <')   # so it is, under load
           and not o.endswith('KeyboardInterrupt caught in kernel.')]   # a manager interrupts what it shuts down
    assert res.returncode==0 and not err, res.stderr[-3000:]
    return res.stdout


# --- stop_channels -------------------------------------------------------------------------------------------------

async def test_stop_with_waiters():
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await ready(fk)
        reqs = [ask(kc, str(i)) for i in range(400)]
        ends = [o.wait() for o in reqs]
        gets = [asyncio.ensure_future(o()) for o in (kc.get_shell_msg, kc.get_iopub_msg, kc.get_stdin_msg, kc.get_control_msg)]
        async def outs(): return [m async for m in reqs[0]]
        it,waiting = asyncio.ensure_future(outs()),asyncio.ensure_future(kc.wait_for_status('dead'))
        interactive = asyncio.ensure_future(kc.execute_interactive('1'))
        await fk.until_held(1)
        kc.stop_channels()
        res, took = await outcomes([*reqs, *ends, *gets, it, interactive])
        assert kinds(res)=={ClientClosedError}
        assert took<1
        waiting.cancel()
        await at_rest(kc)
        kc.stop_channels()
        assert kc.status=='closed'
        for use in (lambda: kc.execute('1'), lambda: kc.execute('1', reply=True), kc.start_channels, lambda: kc.input('x')):
            with pytest.raises(ClientClosedError): use()
        for use in (kc.get_shell_msg, kc.wait_for_ready, kc.get_pubs, lambda: kc.execute_interactive('1')):
            with pytest.raises(ClientClosedError): await asyncio.wait_for(use(), SOON)


async def test_stop_while_becoming_ready():
    with FakeKernel(frozen=True) as fk:
        kc = started(fk)
        waits = [asyncio.ensure_future(kc.wait_for_ready(timeout=SOON)) for _ in range(3)]
        await asyncio.sleep(0)
        kc.stop_channels()
        res, took = await outcomes(waits)
        assert kinds(res)=={ClientClosedError}, res


async def test_stop_before_start_and_never_started():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.stop_channels()
        kc.stop_channels()
        del kc
        kc = fk.client(ConKernelClient)
        with pytest.raises(ClientClosedError): kc.execute('1')


async def test_stop_inside_a_hook():
    with FakeKernel() as fk:
        kc = await ready(fk)
        reqs = [ask(kc, str(i), on_iopub=lambda msg: kc.stop_channels()) for i in range(50)]
        reqs.append(ask(kc, 'fake: busy hold reply idle'))   # (all the others may be replied before the first hook is called)
        res, took = await outcomes(reqs)
        assert kinds(res)<={ClientClosedError, dict} and type(res[-1]) is ClientClosedError
        await at_rest(kc)


async def test_200_start_stop_cycles_leave_nothing():
    "No task, thread, file descriptor, socket or client is left; half of the clients are dropped rather than stopped"
    with FakeKernel(record=False) as fk:
        async def cycle(i):
            kc = await ready(fk)
            reqs = [ask(kc, 'x') for _ in range(5)]
            kc.execute('never awaited')
            abandoned = kc.execute('nor this', reply=True)
            if i%3: await asyncio.gather(*reqs)
            if i%2: kc.stop_channels()
            for o in reqs: o.cancel()
            del abandoned
            return weakref.ref(kc)
        refs = [await cycle(i) for i in range(5)]
        gc.collect()
        await asyncio.sleep(.1)
        before,tasks,threads = fds(),len(asyncio.all_tasks()),threading.active_count()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            for i in range(200):
                refs.append(await asyncio.wait_for(cycle(i), SOON))
                if not i%20: gc.collect()
            gc.collect()
            # libzmq's own thread closes the last descriptors, and the scripted kernel its ends of them, a little later
            try: await until(lambda: fds()<=before, 5)
            except TimeoutError: pass
        gc.collect()
        assert not seen, [str(o.message) for o in seen]
        figure('200 start/stop cycles: file descriptors before, after', (before, fds()))
        assert fds()<=before+3
        assert len(asyncio.all_tasks())==tasks and threading.active_count()==threads
        await gone(*refs)


async def test_stopped_client_that_is_kept_holds_nothing():
    with FakeKernel(record=False) as fk:
        (await ready(fk)).stop_channels()
        before,kept = fds(),[]
        for _ in range(10):
            kc = await ready(fk)
            kept.append(kc)
            kc.stop_channels()
        try: await until(lambda: fds()<=before, 5)
        except TimeoutError: pass
        assert fds()<=before+3 and not any(o.hb_channel.is_alive() for o in kept)


def test_stopped_client_is_freed_though_its_loop_holds_it():
    "Its finalizer holds the transport, that its loop, and a loop its exception handler, which may be of one who has the client"
    with FakeKernel(record=False) as fk:
        class Service:
            def failed(self, loop, context): pass
            async def serve(self):
                asyncio.get_running_loop().set_exception_handler(self.failed)
                self.kc = await ready(fk)
                self.kc.stop_channels()
        service = Service()
        asyncio.run(service.serve())
        kc = weakref.ref(service.kc)
        del service
        gc.collect()
        assert kc() is None


@pytest.mark.slow
async def test_200_real_kernels_leave_nothing():
    manager = partial(ConKernelManager, transport='ipc')     # chosen TCP ports are at times taken before the kernel binds them
    async def cycle():
        async with run_kernel(manager_class=manager) as (km, kc): await as_good_as_new(kc)
    for _ in range(3): await cycle()
    gc.collect()
    before,tasks,threads = fds(),len(asyncio.all_tasks()),threading.active_count()
    for _ in range(200): await asyncio.wait_for(cycle(), SOON)
    gc.collect()
    try: await until(lambda: fds()<=before, 5)
    except TimeoutError: pass
    figure('200 kernels: file descriptors before, after', (before, fds()))
    assert fds()<=before+3 and len(asyncio.all_tasks())==tasks and threading.active_count()==threads


# --- dropped -------------------------------------------------------------------------------------------------------

async def gone(*refs):
    "None of them is left, soon: what the loop has yet to call may hold one for a turn"
    gc.collect()
    await until(lambda: all(o() is None for o in refs), what='the end of a dropped client')

async def test_dropped_client_goes_at_once():
    "Without a cycle collection, and without warnings; but not while somebody waits for a reply"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await ready(fk)
        ref,req = weakref.ref(kc),ask(kc, 'x')
        del kc
        gc.collect()
        assert ref() is not None
        await fk.until_held(1)
        fk.release()
        (done,_) = await within(SOON, req.wait())
        assert done.complete
        await gone(ref)


async def test_idle_client_that_is_dropped_needs_no_cycle_collection():
    with FakeKernel() as fk:
        kc = await ready(fk)
        await within(SOON, ask(kc, 'x').wait())
        await at_rest(kc)
        await asyncio.sleep(.05)      # what the loop has still to call may hold it for a moment
        gc.collect()
        gc.disable()
        try:
            ref = weakref.ref(kc)
            del kc
            await until(lambda: ref() is None, 2, 'the end of a dropped client')
        finally: gc.enable()


async def test_dropped_with_abandoned_requests():
    "Requests that nobody holds do not keep their client, nor warn"
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await ready(fk)
        kc.execute('x')
        await fk.until_held(1)
        ref = weakref.ref(kc)
        del kc
        await gone(ref)


async def test_dropped_after_a_failed_start():
    with FakeKernel(frozen=True) as fk:
        kc = started(fk)
        with pytest.raises(RuntimeError): await kc.wait_for_ready(timeout=.1)
        ref = weakref.ref(kc)
        del kc
        gc.collect()
        await until(lambda: gc.collect() is not None and ref() is None, 3, 'the end of a dropped client')


def test_dropped_in_another_thread():
    with FakeKernel() as fk:
        async def main():
            kc = await ready(fk)
            box,ref = [kc],weakref.ref(kc)
            del kc
            await asyncio.to_thread(lambda: (box.clear(), gc.collect()))
            await gone(ref)
        asyncio.run(main())


# --- event loops ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('how', ['stopped', 'dropped', 'kept', 'waiting'])
def test_loop_closed_first(how):
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        before,keep = fds(),[]
        async def main():
            kc = await ready(fk)
            reqs = [ask(kc, str(i)) for i in range(10)]
            if how=='waiting': asyncio.ensure_future(kc.get_shell_msg())
            await fk.until_held(1)
            keep.extend([kc, reqs])
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            asyncio.run(main())
            kc,reqs = keep
            keep.clear()
            if how=='stopped':
                kc.stop_channels()
                kc.stop_channels()
                assert all(o.done() for o in reqs)
            elif how!='dropped':
                with pytest.raises(RuntimeError): kc.execute('1', reply=True)
                async def other():
                    with pytest.raises(RuntimeError): kc.execute('1', reply=True)
                    kc.stop_channels()
                asyncio.run(other())
            del kc,reqs
            gc.collect()
        assert not seen, [str(o.message) for o in seen]
        deadline = time.monotonic()+5
        while fds()>before and time.monotonic()<deadline: time.sleep(.01)
        assert fds()<=before+3


def test_asyncio_run_twice_with_new_clients():
    async def main(fk):
        kc = await ready(fk)
        reqs = [ask(kc, str(i)) for i in range(300)]
        await outcomes([o.wait() for o in reqs])
        assert [text(o) for o in reqs]==[str(i) for i in range(300)]
        kc.stop_channels()
    with FakeKernel() as fk:
        for _ in range(3): asyncio.run(main(fk))


def test_asyncio_run_twice_with_one_manager():
    "The kernel and its manager outlive the loop that started them"
    km = ConKernelManager()
    async def first():
        await km.start_kernel()
        kc = await km.client().start_channels()
        await as_good_as_new(kc)
        kc.stop_channels()
    async def second():
        kc = await km.client().start_channels()
        await as_good_as_new(kc)
        kc.stop_channels()
        await km.shutdown_kernel(now=True)
    asyncio.run(first())
    asyncio.run(second())


def test_client_made_and_started_outside_a_loop():
    with FakeKernel() as fk:
        kc = started(fk)
        async def main():
            await kc.wait_for_ready(timeout=SOON)
            assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
            kc.stop_channels()
        asyncio.run(main())
        kc = started(fk)
        kc.stop_channels()      # never used


def test_use_from_another_thread_or_loop_is_refused():
    with FakeKernel() as fk:
        async def main():
            kc = await ready(fk)
            def use():
                with pytest.raises(RuntimeError, match='thread'): kc.execute('1', reply=True)
                async def inside():
                    with pytest.raises(RuntimeError, match='thread|loop'): kc.execute('1', reply=True)
                asyncio.run(inside())
            await asyncio.to_thread(use)
            assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
            kc.stop_channels()
        asyncio.run(main())


PROGRAM = '''
    import asyncio, sys
    from conkernelclient import run_kernel
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 60
        async with run_kernel() as (km, kc):
            reqs = [kc.request('execute_request', dict(code=f'print({i})', silent=True)) for i in range(50)]
            await asyncio.gather(*(o.wait() for o in reqs))
            assert all(o.complete for o in reqs)
            bad = kc.execute('1', reply=True, timeout=.001), kc.execute('import time; time.sleep(.1)', reply=True)
            bad[1].cancel()
            kc.execute('never awaited'), kc.execute('nor this', reply=True)
            kc.execute('1/0', reply=True)
            await asyncio.sleep(.01)
            assert len(asyncio.all_tasks())<=2, asyncio.all_tasks()
    run = {'asyncio': asyncio.run, 'debug': lambda o: asyncio.run(o, debug=True)}.get(sys.argv[1])
    if not run:
        import uvloop
        run = uvloop.run
    run(main())
    run(main())
    print('done')
'''

@pytest.mark.parametrize('loop', ['asyncio', 'debug', 'uvloop'])
def test_program_without_warnings(loop):
    "A whole program under `-X dev -W error`, twice: nothing on stderr, exit code 0"
    if loop=='uvloop': pytest.importorskip('uvloop')
    assert script(PROGRAM, loop)=='done\n'


@pytest.mark.parametrize('end', ['', 'kc.stop_channels()', 'km._kill_kernel', 'raise SystemExit(0)', 'del kc'])
def test_program_that_does_not_clean_up(end):
    "It ends, soon and silently, whatever it left open"
    script(f'''
        import asyncio
        from fake_kernel import FakeKernel
        from conkernelclient import ConKernelClient
        fk = FakeKernel(on={{'execute_request': 'hold'}}).start()
        async def main():
            global kc
            kc = fk.client(ConKernelClient)
            await kc.start_channels()
            kc.execute('1'), kc.execute('1', reply=True)
            await fk.until_held(1)
            {end.replace('km._kill_kernel', 'fk.crash()')}
        asyncio.run(main())
        fk.close()
    ''')


def test_keyboard_interrupt_in_the_middle():
    out = script('''
        import asyncio, os, signal, threading
        from fake_kernel import FakeKernel
        from conkernelclient import ConKernelClient
        fk = FakeKernel(on={'execute_request': 'hold'}).start()
        async def main():
            kc = await fk.client(ConKernelClient).start_channels()
            reqs = [kc.execute('1', reply=True) for _ in range(10)]
            await fk.until_held(1)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.gather(*reqs)
        try: asyncio.run(main())
        except KeyboardInterrupt: print('interrupted')
        fk.close()
    ''')
    assert out=='interrupted\\n'.replace('\\n','\n')


def test_forked_child_may_not_send():
    with FakeKernel() as fk:
        async def main():
            kc = await ready(fk)
            pid = os.fork()
            if not pid:
                try: kc.execute('from the child')
                except RuntimeError: os._exit(0)
                except BaseException: os._exit(1)
                os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
            assert (await within(SOON, ask(kc, 'x').wait()))[0].complete
            assert 'from the child' not in fk.codes
            kc.stop_channels()
        asyncio.run(main())
