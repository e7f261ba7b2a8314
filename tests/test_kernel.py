"""`open_kernel` and `Kernel`: with asyncio and without, in all the places where people call them."""
import asyncio, gc, json, multiprocessing, os, signal, socket, subprocess, sys, textwrap, threading, time, warnings
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from jupyter_client.kernelspec import KernelSpec

from conkernelclient import (ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout,
                             Job, Kernel, KernelRestartedError, NoRunningKernel, UnknownKernel, open_kernel, run_kernel)
from conkernelclient.kernel import Owned, Wanted, running_kernels, start
from conkernelclient.sync import background

bound = 60
ROOT = Path(__file__).resolve().parent.parent
SOON = 30
posix = pytest.mark.skipif(sys.platform == 'win32', reason='signals to processes, and forks')


def lives(pid):
    "Does the process run? (One that has ended may wait for its parent to look at it.)"
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    stat = Path(f'/proc/{pid}/stat')
    try: return stat.read_text().rpartition(')')[2].split()[0] != 'Z' if stat.parent.parent.exists() else True
    except FileNotFoundError: return False


def until(predicate, seconds=SOON, what='it'):
    deadline = time.monotonic()+seconds
    while not predicate():
        assert time.monotonic() < deadline, f'{what}: not within {seconds} s'
        time.sleep(.01)


def broken(code=3): return KernelSpec(argv=[sys.executable, '-c', f'raise SystemExit({code})', '{connection_file}'])


@pytest.fixture(scope='module')
def k():
    with open_kernel() as k: yield k


@pytest.fixture(autouse=True)
def nothing_left(request):
    "A test leaves no kernel behind that it has started"
    before = set(Owned.all)
    yield
    gc.collect()
    assert Owned.all <= before


def program(code, *args, **kwargs):
    "A Python program"
    env = {**os.environ, 'PYTHONPATH': str(ROOT), **kwargs.pop('env', {})}
    head = 'import asyncio, os, sys, threading, time\nfrom conkernelclient import *\n'
    return subprocess.Popen([sys.executable, '-W', 'ignore:This process:DeprecationWarning', '-c', head+textwrap.dedent(code), *args], env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **kwargs)


def ended(p, code=0):
    "Its lines, once it has ended"
    try: out, err = p.communicate(timeout=SOON)
    except subprocess.TimeoutExpired as e:
        p.kill()   # (a kernel that it leaves may keep the pipes open: what was read is in the exception)
        raise AssertionError(f'it has not ended: {e.stdout}, {e.stderr}') from None
    assert p.returncode == code, (p.returncode, out, err)
    return out.splitlines(), err


def quiet(err):
    "Does stderr say nothing? (A kernel may say that another program has taken one of its ports; it is then started again.)"
    return err == '' or 'Address already in use' in err and f'{ROOT.name}/' not in err and 'ignored' not in err


def line(p):
    "Its next line"
    with ThreadPoolExecutor(1) as pool: return pool.submit(p.stdout.readline).result(SOON).strip()


# The four ways

async def test_async_with():
    async with open_kernel() as kc:
        assert type(kc) is ConKernelClient and (await kc.run('6*7')).text == '42\n'
        km = kc.manager
        assert type(km) is ConKernelManager and km.has_kernel and Path(km.connection_file).exists()
    assert not km.has_kernel and kc.status == 'closed' and not Path(km.connection_file).exists()


async def test_await():
    kc = await open_kernel()
    km = kc.manager
    waiting = kc.run('import time; time.sleep(60)')
    await kc.close()
    with pytest.raises(ClientClosedError): await waiting
    assert not km.has_kernel
    await kc.close()   # harmless


def test_with():
    with open_kernel() as k:
        assert type(k) is Kernel and k.run('6*7').text == '42\n' and k.status == 'ready'
        km = k.manager
        assert km.has_kernel
    assert not km.has_kernel and k.status == 'closed'
    with pytest.raises(ClientClosedError, match=r'open_kernel\(\)'): k.run('1')
    with pytest.raises(ClientClosedError, match=r'open_kernel\(\)'): k.start('1')


def test_start_and_close():
    k = open_kernel().start()
    assert k.eval('6*7') == 42
    with ThreadPoolExecutor(4) as pool: list(pool.map(lambda _: k.close(), range(4)))
    k.close()
    assert not k.client.manager.has_kernel


def test_one_opening_may_be_opened_again():
    opening = open_kernel()
    with opening as a, opening as b:
        a.push(x=1)
        assert b.eval("'x' in globals()") is False
    with opening as c: assert c.eval('1') == 1


async def test_inside_a_loop():
    "A notebook cell: its thread has a running loop, which the call blocks"
    with open_kernel() as k: assert k.run('6*7').text == '42\n'
    async with open_kernel() as kc: assert await kc.eval('1') == 1


async def test_options(tmp_path):
    async with open_kernel(cwd=tmp_path, env=dict(COLOUR='blue'), extra_arguments=['--IPKernelApp.quiet=False']) as kc:
        code = "__import__('os').getcwd(), __import__('os').environ['COLOUR'], 'PATH' in __import__('os').environ, __import__('sys').orig_argv[-1]"
        assert await kc.eval(code) == (str(tmp_path), 'blue', True, '--IPKernelApp.quiet=False')
    spec = KernelSpec(argv=[sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='Own', language='python')
    class Manager(ConKernelManager): pass
    async with open_kernel(kernel_spec=spec, manager_class=Manager) as kc: assert type(kc.manager) is Manager


def test_exception_in_the_block():
    with pytest.raises(ZeroDivisionError), open_kernel() as k: 1/0
    assert k.status == 'closed' and not k.client.manager.has_kernel


async def test_exception_in_the_async_block():
    with pytest.raises(ZeroDivisionError):
        async with open_kernel() as kc: 1/0
    assert not kc.manager.has_kernel


# A start that fails

@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path/'runtime'))
    return tmp_path/'runtime'


@pytest.mark.parametrize('kwargs,error', [
    (dict(name='no-such-kernel'), UnknownKernel), (dict(kernel_spec=broken()), DeadKernelError),
    (dict(kernel_spec=KernelSpec(argv=['/no/such/program', '{connection_file}'])), FileNotFoundError),
    (dict(startup_timeout=.001), RuntimeError), (dict(cwd='/no/such/folder'), FileNotFoundError),
    (dict(connection_file='no-such-file'), NoRunningKernel)])
async def test_start_that_fails(kwargs, error, runtime):
    with pytest.raises(error): await open_kernel(**kwargs)
    with pytest.raises(error):
        async with open_kernel(**kwargs): pass
    with pytest.raises(error): open_kernel(**kwargs).start()
    with pytest.raises(error), open_kernel(**kwargs): pass
    assert not Owned.all and not list(runtime.glob('*'))


class Slow(ConKernelManager):
    "Says when its kernel's process is there"
    launched: threading.Event
    async def start_kernel(self, **kwargs):
        await super().start_kernel(**kwargs)
        Slow.process = self.provisioner.process
        Slow.launched.set()


@pytest.mark.parametrize('way', ['await', 'block'])
async def test_cancelled_while_opening(way, runtime):
    Slow.launched = threading.Event()
    opening = open_kernel(manager_class=Slow)
    async def enter():
        async with opening: pass
    async def wait(): await opening
    task = asyncio.create_task(wait() if way == 'await' else enter())
    while not Slow.launched.is_set(): await asyncio.sleep(.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError): await task
    assert Slow.process.poll() is not None and not list(runtime.glob('*'))


async def test_close_that_is_cancelled():
    kc = await open_kernel()
    process = kc.manager.provisioner.process
    task = asyncio.create_task(kc.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError): await task
    await kc.close()
    assert process.poll() is not None


async def test_options_that_do_not_go_together():
    for more in dict(cwd='/'), dict(env=dict(A='1')), dict(restart_on_death=True), dict(extra_arguments=['x']):
        with pytest.raises(ValueError, match=next(iter(more))): open_kernel(connection_file='latest', **more)


# A running kernel

async def test_join(runtime):
    async with open_kernel() as kc:
        path = kc.manager.connection_file
        for connection_file in 'latest', path, Path(path), Path(path).name, Path(path).stem.removeprefix('kernel-'):
            async with open_kernel(connection_file=connection_file) as other: await other.run('n = globals().get("n", 0)+1', check=True)
            assert other.manager is None
            with open_kernel(connection_file=connection_file) as k: k.run('n += 1', check=True)
            assert k.manager is None
        assert await kc.eval('n') == 10
        assert [o.path for o in running_kernels()] == [path] and running_kernels()[0].name == 'python3'
    assert running_kernels() == []
    with pytest.raises(NoRunningKernel, match='No kernel is running'): await open_kernel(connection_file='latest')


async def test_latest_passes_over_what_is_dead(runtime):
    async with open_kernel() as kc:
        path = Path(kc.manager.connection_file)
        dead = json.loads(path.read_text())
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            dead['shell_port'] = s.getsockname()[1]   # nobody listens
        (runtime/'kernel-dead.json').write_text(json.dumps(dead))
        (runtime/'kernel-half.json').write_text('{"shell_po')
        (runtime/'kernel-strange.json').write_text('[1]')
        (runtime/'kernel-empty.json').write_text('{}')
        os.utime(path, (1, 1))
        assert [o.path for o in running_kernels()] == [str(path)]
        async with open_kernel(connection_file='latest') as other: assert other.connection_file == str(path)
        with pytest.raises(RuntimeError, match='nothing listens'):
            await open_kernel(connection_file=runtime/'kernel-dead.json', startup_timeout=.5)


async def test_the_kernel_that_joins_is_not_its_own_latest(runtime):
    "In a notebook, `latest` would be the notebook's own kernel, and the call would wait for itself"
    async with open_kernel(env=dict(JUPYTER_RUNTIME_DIR=str(runtime), PYTHONPATH=str(ROOT))) as kc:
        assert len(running_kernels()) == 1
        res = await kc.run('from conkernelclient import *; open_kernel(connection_file="latest").start()', timeout=20)
        assert res.error.ename == 'NoRunningKernel'


# Runs

def test_run(k):
    assert k.run('print(1); 6*7').text == '1\n42\n'
    assert k.run('1/0').error.ename == 'ZeroDivisionError'
    with pytest.raises(ExecutionError) as e: k.run('1/0', check=True)
    assert e.value.result.error.ename == 'ZeroDivisionError'
    with pytest.raises(ExecutionTimeout) as e: k.run('print(5)\nimport time; time.sleep(60)', timeout=.2)
    assert e.value.result.stdout == '5\n'
    with pytest.raises(ValueError, match='must be a string'): k.run(1)
    with pytest.raises(TypeError): k.run('1', time_out=5)
    assert k.run('1', store_history=False, silent=True).text == ''
    assert k.queue == []


def test_values(k):
    k.push(a=1, b=[2])
    assert k.eval('a, b') == (1, [2])
    with pytest.raises(ValueError, match='literal'): k.push(a=object())
    with pytest.raises(ExecutionError): k.eval('no_such_name')
    assert 'print' in k.complete('prin', timeout=SOON)['content']['matches']
    assert k.complete('print.__na', 10)['content']['status'] == 'ok'
    assert 'sum' in k.inspect('sum', timeout=SOON)['content']['data']['text/plain']
    assert k.inspect('sum', 2, 1)['content']['found']
    assert [o.text for o in k.map([f'{i}*{i}' for i in range(5)], concurrency=2)] == [f'{i*i}\n' for i in range(5)]
    assert k.in_loop(lambda kc: kc.kernel_info(reply=True))['msg_type'] == 'kernel_info_reply'


def test_hooks_are_called_here(k):
    seen = []
    def hear(event): seen.append((event.text, threading.get_ident()))
    def answer(prompt): return f'{prompt}{threading.get_ident()}'
    res = k.run('for i in range(3): print(input(i))', stdin=answer, on_output=hear)
    me = threading.get_ident()
    assert res.text == ''.join(f'{i}{me}\n' for i in range(3))
    assert ''.join(o for o, _ in seen) == res.text and {o for _, o in seen} == {me}
    assert k.run('print(input("?"), input())', stdin=['a', 'b']).text == 'a b\n'
    assert k.run('print(input("?"), __import__("getpass").getpass("!"))', stdin=lambda p, password: f'{p}{password}').text == '?False !True\n'


def test_hooks_may_call_the_kernel(k):
    "They run in no loop, so they may block"
    with k.subshell() as sh:
        assert k.run('print(input("2*3"))', stdin=lambda p: str(sh.eval(p))).text == '6\n'
        got = []
        k.run('print(7)', on_output=lambda out: got.append(sh.eval(out.text)))
        assert got == [7]


@pytest.mark.parametrize('hook', ['on_output', 'stdin'])
def test_hook_that_fails(k, hook):
    def fail(_): raise LookupError('mine')
    code = 'print(1); import time; time.sleep(60)' if hook == 'on_output' else 'print(input())'
    with pytest.raises(LookupError, match='mine'): k.run(code, **{hook: fail})
    with pytest.raises(LookupError, match='mine'): k.start(code, **{hook: fail}).wait(SOON)
    assert k.eval('1') == 1


def test_an_async_hook_is_refused(k):
    async def answer(prompt): return 'x'
    with pytest.raises(TypeError, match='plain function'): k.run('input()', stdin=answer)
    assert k.eval('1') == 1


def test_death_and_restart():
    with open_kernel() as k:
        waiting = k.start('import time; time.sleep(60)')
        with pytest.raises(DeadKernelError): k.in_loop(lambda kc: kc.manager.provisioner.kill()); waiting.wait(SOON)
        with pytest.raises(DeadKernelError): k.run('1')
        k.restart()
        assert k.eval('6*7') == 42
        waiting = k.start('import time; time.sleep(60)')
        k.restart(now=True)
        with pytest.raises(KernelRestartedError): waiting.wait(SOON)
        assert k.status == 'ready'


async def test_a_dead_kernel_is_closed_as_well(runtime):
    with open_kernel() as k:
        with pytest.raises(DeadKernelError): k.run('import os; os._exit(3)')
    async with open_kernel() as kc:
        with pytest.raises(DeadKernelError): await kc.run('import os; os._exit(3)')
    assert not list(runtime.glob('*'))


async def test_restart_on_death():
    async with open_kernel(restart_on_death=True) as kc:
        for i in range(2):
            with pytest.raises(DeadKernelError): await kc.run('import os; os._exit(3)')
            await kc.wait_for_status('ready', timeout=SOON)
            assert await kc.eval('6*7') == 42


async def test_restart_on_death_has_a_limit():
    async with open_kernel(restart_on_death=True) as kc:
        kc.manager.restart_limit = 1
        with pytest.raises(DeadKernelError): await kc.run('import os; os._exit(3)')
        await kc.wait_for_status('ready', timeout=SOON)
        with pytest.raises(DeadKernelError): await kc.run('import os; os._exit(3)')
        with pytest.raises(TimeoutError): await kc.wait_for_status('ready', timeout=1)
        assert kc.status == 'dead'


def test_a_kernel_on_its_way_out_is_not_restarted():
    with open_kernel(restart_on_death=True) as k:
        process = k.manager.provisioner.process
    assert process.poll() is not None and not k.client.manager.has_kernel


# Jobs

LONG = 'import time\nfor i in range(1000): print(i); time.sleep(.02)'


def test_job(k):
    job = k.start('print(1); 6*7')
    assert type(job) is Job and job.wait(SOON).text == '1\n42\n' and job.wait().text == '1\n42\n'
    assert job.done and job.state == 'done' and job.settled(0) and job.stop() is False
    assert ''.join(o.text for o in job) == '1\n42\n'   # also afterwards
    failing = k.start('1/0', check=True)
    with pytest.raises(ExecutionError): failing.wait(SOON)
    with pytest.raises(ExecutionError): list(failing)
    assert failing.settled()


def test_follow(k):
    job = k.start(LONG)
    texts = [[], []]
    def follow(i):
        try:
            for out in job: texts[i].append(out.text)
        except CancelledError as e: return e
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(follow, i) for i in range(2)]
        for out in job:
            if '3' in out.text: break
        del out
        assert not job.done   # leaving stops nothing
        assert job.stop() is True
        errors = [o.result(SOON) for o in both]
    assert job.settled(SOON) and all(isinstance(o, CancelledError) for o in errors)
    assert ''.join(texts[0]) == ''.join(texts[1]) == job.partial.ansi   # events have the colours
    with pytest.raises(CancelledError) as e: job.wait()
    assert e.value.result is job.partial


def test_wait_in_vain(k):
    job = k.start('import time; time.sleep(60)')
    with pytest.raises(TimeoutError, match='it goes on'): job.wait(.05)
    assert not job.settled(.05) and not job.done and k.queue == [job]
    job.interrupt()
    assert job.wait(SOON).error.ename == 'KeyboardInterrupt'


def test_interrupt_of_a_job_that_has_just_been_started(k):
    for _ in range(10):
        job = k.start('import time; time.sleep(60)')
        queued = k.start('1')
        assert queued.interrupt() is False and job.interrupt() is True
        assert job.wait(SOON).error.ename == 'KeyboardInterrupt' and queued.wait(SOON).text == '1\n'
        assert job.interrupt() is False
        stopped = k.start('time.sleep(60)')
        until(lambda: stopped.state == 'running')
        assert stopped.stop() and stopped.settled(SOON)   # for a moment, the client sends nothing: the interrupt might hit the next
        job = k.start('time.sleep(60)')
        assert job.interrupt() is True and job.wait(SOON).error.ename == 'KeyboardInterrupt'


def test_queued_job_that_is_stopped_never_runs(k):
    k.run('ran = False')
    first = k.start('import time; time.sleep(60)')
    second = k.start('ran = True')
    assert [o.state for o in (first, second)][1] == 'queued' and k.queue == [first, second]
    assert second.stop() and second.settled(SOON)
    with pytest.raises(CancelledError): second.wait()
    assert first.stop() and first.settled(SOON)
    assert k.eval('ran') is False


def test_stopped_from_another_thread(k):
    stopper = threading.Timer(.3, lambda: k.queue[0].stop())
    stopper.start()
    with pytest.raises(CancelledError): k.run('import time; time.sleep(60)')
    stopper.join()
    threading.Timer(.3, k.interrupt).start()
    assert k.run('import time; time.sleep(60)').error.ename == 'KeyboardInterrupt'


def test_job_with_hooks(k):
    seen, threads = [], set()
    def hear(event):
        seen.append(event.text)
        threads.add(threading.get_ident())
    job = k.start('print(input("a")); print(input("b"))', stdin=lambda p: p*2, on_output=hear)
    assert job.wait(SOON).text == 'aa\nbb\n' == ''.join(seen)   # a job has ended when its hooks have
    assert threading.get_ident() not in threads and len(threads) == 1


def test_job_survives_the_thread_that_started_it(k):
    with ThreadPoolExecutor(1) as pool: job = pool.submit(k.start, 'import time; time.sleep(.2); 6*7').result(SOON)
    assert job.wait(SOON).text == '42\n'


def test_job_that_nobody_keeps(k):
    k.run('kept = 0')
    k.start('import time; time.sleep(.1); kept = 1')
    gc.collect()
    assert k.eval('kept') == 1


def test_jobs_of_closed_kernels():
    k = open_kernel().start()
    running, waiting = k.start('import time; time.sleep(60)'), k.start('1')
    followed = iter(waiting)
    k.close()
    for o in running, waiting:
        with pytest.raises(ClientClosedError): o.wait(SOON)
        assert o.stop() is False
    with pytest.raises(ClientClosedError): next(followed)


# Threads

def test_many_threads_one_kernel(k):
    "Each gets its own results, prompts and outputs"
    def caller(i):
        for j in range(10):
            name = f'{i}-{j}'
            outs = []
            res = k.run(f'print({name!r}); print(input())', stdin=[name], on_output=lambda e: outs.append(e.text))
            assert res.text == f'{name}\n{name}\n' == ''.join(outs)
            assert k.eval(repr(name)) == name
            assert k.start(repr(name)).wait(SOON).text == repr(name)+'\n'
        return i
    with ThreadPoolExecutor(8) as pool: assert list(pool.map(caller, range(8))) == list(range(8))
    assert k.queue == []


def test_kernels_share_one_thread():
    with open_kernel() as a:
        before = {o for o in threading.enumerate() if o.name == 'conkernelclient'}
        with open_kernel() as b: assert a.background is b.background
        assert before == {o for o in threading.enumerate() if o.name == 'conkernelclient'} == {background().thread}


def test_web_threads(k):
    "As Flask's and Django's servers do: a thread for each request"
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = k.run(f'print({self.path[1:]}**2)', timeout=SOON).text.encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *args): pass
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        def ask(i):
            with urlopen(f'http://127.0.0.1:{server.server_port}/{i}', timeout=SOON) as r: return r.read().decode()
        with ThreadPoolExecutor(8) as pool: assert list(pool.map(ask, range(20))) == [f'{i*i}\n' for i in range(20)]
        server.shutdown()


def test_the_background_loop_itself_is_refused(k):
    for f in (lambda: k.run('1'), lambda: k.start('1'), lambda: k.eval('1'), lambda: k.status and k.queue, k.interrupt, k.restart, k.close,
              lambda: k.map(['1']), open_kernel().start):
        with pytest.raises(RuntimeError, match='wait forever'): k.in_loop(lambda kc: f() and None)
    job = k.start('import time; time.sleep(60)')
    with pytest.raises(RuntimeError, match='wait forever'): k.in_loop(lambda kc: job.wait() and None)
    assert k.in_loop(lambda kc: job.stop()) is True   # this does not wait
    assert job.settled(SOON) and k.eval('1') == 1


def test_a_callback_that_leaves_does_not_end_the_loop(k, caplog):
    k.in_loop(lambda kc: asyncio.get_running_loop().call_soon(sys.exit, 3) and None)
    assert k.eval('6*7') == 42


def test_subshell(k):
    with k.subshell() as sh:
        assert sh.id and not sh.closed
        busy = k.start('import time; time.sleep(60)')
        sh.push(x=6)
        assert sh.run('print(x*7)').text == '42\n' and sh.eval('x') == 6 and sh.start('x+1').wait(SOON).text == '7\n'
        assert 'print' in sh.complete('prin')['content']['matches'] and sh.inspect('sum')['content']['found']
        assert not busy.done
        busy.stop()
    assert sh.closed
    with pytest.raises(ClientClosedError): sh.run('1')
    with pytest.raises(RuntimeError, match='`with` block'): k.subshell().run('1')
    with pytest.raises(ZeroDivisionError), k.subshell() as sh: 1/0
    assert sh.closed and k.eval('1') == 1


# Dropped

async def test_dropped_client():
    kc = await open_kernel()
    process = kc.manager.provisioner.process
    with pytest.warns(ResourceWarning, match='not closed'):
        del kc
        gc.collect()
    assert process.wait(SOON) is not None


def test_dropped_kernel():
    k = open_kernel().start()
    k.run('1')
    process = k.manager.provisioner.process
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ResourceWarning)
        del k
        gc.collect()
    assert process.wait(SOON) is not None


def test_dropped_kernel_with_a_job_goes_on():
    before = set(Owned.all)
    job = open_kernel().start().start('import time; time.sleep(.3); 6*7')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ResourceWarning)
        gc.collect()
        assert job.wait(SOON).text == '42\n'
        del job
        until(lambda: gc.collect() is not None and Owned.all == before)


def test_opening_that_is_never_opened():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        opening = open_kernel()
        assert 'not open' in repr(opening)
        with pytest.raises(AttributeError, match='async with open_kernel'): opening.run('1')
        assert not hasattr(opening, 'eval')
        del opening
        gc.collect()


# The end of the program

ENDS = dict(
    kernel_kept='k = open_kernel().start(); print(k.eval("__import__(\'os\').getpid()"))',
    kernel_and_cell='k = open_kernel().start(); print(k.eval("__import__(\'os\').getpid()")); job = k.start("import time; time.sleep(600)")',
    in_a_function='def f():\n    k = open_kernel().start()\n    print(k.eval("__import__(\'os\').getpid()"))\nf()',
    in_a_daemon='''
        def f():
            global k
            k = open_kernel().start()
            print(k.eval("__import__('os').getpid()"))
            try: k.run('import time; time.sleep(600)')
            except ClientClosedError: pass
        threading.Thread(target=f, daemon=True).start()
        while not [o for o in globals().get('k') and k.queue or [] if '600' in o.code and o.state == 'running']: time.sleep(.01)''',
    exit_in_the_block='with open_kernel() as k:\n    print(k.eval("__import__(\'os\').getpid()"))\n    sys.exit(0)',
    client_kept='''
        async def main():
            global kc
            kc = await open_kernel()
            print(await kc.eval("__import__('os').getpid()"))
        asyncio.run(main())''',
    client_of_main='''
        async def main():
            kc = await open_kernel()
            print(await kc.eval("__import__('os').getpid()"))
        asyncio.run(main())''',
    client_and_cell='''
        async def main():
            global kc
            kc = await open_kernel()
            print(await kc.eval("__import__('os').getpid()"))
            kc.run('import time; time.sleep(600)')
        asyncio.run(main())''',
    watched='''
        async def main():
            global kc
            kc = await open_kernel(restart_on_death=True)
            print(await kc.eval("__import__('os').getpid()"))
        asyncio.run(main())
        k = open_kernel(restart_on_death=True).start()
        print(k.eval("__import__('os').getpid()"))''',
    thread_with_its_own_loop='''
        def work():
            async def main():
                global kc
                kc = await open_kernel()
                print(await kc.eval("__import__('os').getpid()"), flush=True)
                there.set()
                await asyncio.sleep(600)
            asyncio.run(main())
        there = threading.Event()
        threading.Thread(target=work, daemon=True).start()
        there.wait(30)''',
    nested_loops='''
        import nest_asyncio
        nest_asyncio.apply()
        async def main():
            with open_kernel() as k: k.run('1')
            k = open_kernel().start()
            print(k.eval("__import__('os').getpid()"))
            asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))
        asyncio.run(main())''',
)


@posix
@pytest.mark.parametrize('how', ENDS)
def test_the_program_ends(how, tmp_path):
    "No kernel is left, and nothing is said of it"
    begin = time.monotonic()
    lines, err = ended(program(ENDS[how], env=dict(JUPYTER_RUNTIME_DIR=str(tmp_path))))
    pids = [int(o) for o in lines]
    assert pids and not any(map(lives, pids)), pids
    assert quiet(err) and not list(tmp_path.glob('kernel-*.json'))
    assert time.monotonic()-begin < SOON


@posix
@pytest.mark.parametrize('how', ['exception', 'terminated', 'killed'])
def test_the_program_ends_badly(how):
    p = program('''
        k = open_kernel().start()
        print(k.eval("__import__('os').getpid()"), flush=True)
        if sys.argv[1] == 'exception': 1/0
        time.sleep(600)''', how)
    pid = int(line(p))
    if how != 'exception': p.send_signal(signal.SIGTERM if how == 'terminated' else signal.SIGKILL)
    p.communicate(timeout=SOON)
    until(lambda: not lives(pid), what='the kernel ends')   # (a killed program runs no code: its kernel notices)


# Forks

@posix
def test_forked_child():
    p = program('''
        k = open_kernel().start()
        k.push(x=1)
        job = k.start('import time; time.sleep(1)')
        child = os.fork()
        if child == 0:
            for f in (lambda: k.run('1')), (lambda: k.start('1')), job.wait, job.stop, (lambda: list(job)), (lambda: k.queue):
                try: f()
                except RuntimeError as e: assert 'fork' in str(e), e
                else: raise AssertionError('it did not raise')
            k.close()
            with open_kernel() as mine: print('child', mine.eval('6*7'), flush=True)
            mine = open_kernel().start()
            print('left', mine.eval("__import__('os').getpid()"), flush=True)
            sys.exit(0)
        print('exit', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print('parent', k.eval('x'), job.wait(30).status)
        k.close()''')
    lines, err = ended(p)
    assert quiet(err) and lines[0] == 'child 42' and lines[2:] == ['exit 0', 'parent 1 ok'] and not lives(int(lines[1].split()[1]))


@posix
def test_what_a_child_drops_is_its_parents():
    "Neither the kernel nor its connection file goes when a forked child forgets its manager"
    p = program("""
        import gc
        def child(drop):
            pid = os.fork()
            if pid == 0:
                drop()
                gc.collect()
                os._exit(0)
            os.waitpid(pid, 0)
        k = open_kernel().start()
        child(lambda: globals().pop('k'))
        print(os.path.exists(k.manager.connection_file), k.eval('1'))
        k.close()
        async def main():
            global km, kc
            async with run_kernel() as (km, kc):
                child(lambda: [globals().pop(o) for o in ('km', 'kc')])
                print(os.path.exists(km.connection_file), await kc.eval('2'))
            kc = await open_kernel()
            child(lambda: globals().pop('kc'))
            print(os.path.exists(kc.manager.connection_file), await kc.eval('3'))
            await kc.close()
        asyncio.run(main())""")
    lines, err = ended(p)
    assert lines == ['True 1', 'True 2', 'True 3'] and quiet(err)


@posix
def test_fork_while_another_thread_opens():
    "Locks that are held at the fork do not matter to the child"
    p = program('''
        from conkernelclient import sync
        sync._process.lock.acquire()
        if os.fork() == 0:
            with open_kernel() as k: print(k.eval('6*7'), flush=True)
            os._exit(0)
        os.wait()''')
    lines, err = ended(p)
    assert lines == ['42']


def worker(i):
    "In a process of multiprocessing: its kernel is never closed"
    k = open_kernel().start()
    return k.eval("__import__('os').getpid()"), os.getpid()


@posix
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_worker_processes(method, k):
    with multiprocessing.get_context(method).Pool(2) as pool:
        pids = pool.map(worker, range(2))
        pool.close()
        pool.join()
    assert k.eval('6*7') == 42
    for pid, _ in pids: until(lambda: not lives(pid), what='the kernel of a worker ends')


# Ctrl-C

def interrupted(code, when='ready'):
    p = program(code)
    assert line(p) == when
    p.send_signal(signal.SIGINT)
    return p


@posix
def test_ctrl_c_interrupts_the_cell():
    lines, err = ended(interrupted('''
        with open_kernel() as k:
            try: k.run('print("ready")\\nimport time; time.sleep(600)', on_output=lambda o: print(o.text, end='', flush=True))
            except KeyboardInterrupt as e: print('interrupted', e.result.error.ename, k.queue)
            print(k.eval('6*7'))'''))
    assert lines == ['interrupted KeyboardInterrupt []', '42'] and quiet(err)


@posix
@pytest.mark.parametrize('call', ['k.run(CODE)', 'k.start(CODE).wait()', 'k.eval(EXPR)', 'k.map([CODE])', 'list(k.start(CODE))',
                                  'k.run(CODE, stdin=["x"])'])
def test_ctrl_c_everywhere(call):
    "What waits is interrupted; a cell that the call owns is stopped"
    lines, err = ended(interrupted(f'''
        CODE = 'open("/dev/null"); import time; time.sleep(600)'
        EXPR = '__import__("time").sleep(600)'
        with open_kernel() as k:
            def say():
                while k.status != 'busy': time.sleep(.01)
                time.sleep(.3)
                print('ready', flush=True)
            threading.Thread(target=say, daemon=True).start()
            try: {call}
            except KeyboardInterrupt: print('interrupted')
            for o in k.queue: o.stop()
            print(k.eval('6*7'))'''))
    assert lines == ['interrupted', '42'], err


@posix
def test_ctrl_c_of_a_queued_cell():
    lines, err = ended(interrupted('''
        with open_kernel() as k:
            k.push(ran=False)
            first = k.start('import time; time.sleep(600)')
            def say():
                while len(k.queue) < 2: time.sleep(.01)
                print('ready', flush=True)
            threading.Thread(target=say, daemon=True).start()
            try: k.run('ran = True')
            except KeyboardInterrupt: print('interrupted', first.done)
            first.stop()
            print(k.eval('ran'))'''))
    assert lines == ['interrupted False', 'False'] and quiet(err)


@posix
def test_ctrl_c_twice_leaves():
    "A cell that ignores interrupts keeps the program only for the first"
    p = interrupted('''
        code = """
        import time
        print('ready')
        until = time.monotonic()+600
        while time.monotonic() < until:
            try: time.sleep(600)
            except KeyboardInterrupt: print('ignored')
        """
        with open_kernel() as k:
            print('pid', k.eval("__import__('os').getpid()"), file=sys.stderr)
            import textwrap
            k.run(textwrap.dedent(code), on_output=lambda o: print(o.text, end='', flush=True))''')
    time.sleep(.5)
    p.send_signal(signal.SIGINT)
    begin = time.monotonic()
    out, err = p.communicate(timeout=SOON)
    assert 'KeyboardInterrupt' in err and p.returncode in (1, -2, 130)
    assert not lives(int(err.split('pid ')[1].split()[0]))


@posix
@pytest.mark.parametrize('patience', [8, 0])
def test_ctrl_c_while_opening(patience, tmp_path):
    "Nothing is left, also when the program does not wait for the end of what it has begun"
    p = program("""
        from jupyter_client.kernelspec import KernelSpec
        from conkernelclient import sync
        sync.CLEANUP = int(sys.argv[1])
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        spec = KernelSpec(argv=[sys.executable, '-c', code, '{connection_file}'], display_name='x', language='python')
        try: open_kernel(kernel_spec=spec).start()
        except KeyboardInterrupt: print('interrupted')""", str(patience), env=dict(JUPYTER_RUNTIME_DIR=str(tmp_path)))
    pid = int(line(p))
    p.send_signal(signal.SIGINT)
    lines, err = ended(p)
    assert lines == ['interrupted'] and not lives(pid) and not list(tmp_path.glob('*.json')), err


@posix
async def test_the_stop_button_of_a_notebook():
    "A notebook cell that waits for another kernel: the button interrupts the cell there, and then here"
    async with open_kernel(env=dict(PYTHONPATH=str(ROOT))) as kc:
        await kc.run('from conkernelclient import *\nk = open_kernel().start()', check=True)
        pid = await kc.eval("k.eval('__import__(\\'os\\').getpid()')")
        run = kc.run("k.run('print(1, flush=True)\\nimport time; time.sleep(600)', on_output=lambda o: print(o.text, flush=True))")
        pressed = False
        async for out in run:
            if out.text.startswith('1') and not pressed: pressed = await kc.interrupt() is None
        assert (await run).error.ename == 'KeyboardInterrupt'
        assert await kc.eval("k.queue, k.eval('6*7')") == ([], 42) and lives(pid)
    until(lambda: not lives(pid), what='the kernel of a killed kernel ends')


# Mistakes

def test_plain_with_of_run_kernel():
    with pytest.raises(TypeError, match=r'`async with`.*open_kernel'):
        with run_kernel(): pass


async def test_start_kernel_without_await():
    km = ConKernelManager()
    forgotten = km.start_kernel()
    kc = km.client()
    kc.start_channels()
    with pytest.raises(RuntimeError, match='`await km.start_kernel'): await kc.run('1')
    with pytest.raises(RuntimeError, match='`await km.start_kernel'): kc.execute('1', reply=True)
    kc.stop_channels()
    forgotten.close()


async def test_run_in_the_wrong_thread():
    async with open_kernel() as kc:
        loop = asyncio.get_running_loop()
        def call(): asyncio.run_coroutine_threadsafe(kc.run('1'), loop)
        with pytest.raises(RuntimeError, match=r'async def ask\(\).*open_kernel'): await asyncio.to_thread(call)
        def right():
            async def ask(): return await kc.run('6*7')
            return asyncio.run_coroutine_threadsafe(ask(), loop).result(SOON)
        assert (await asyncio.to_thread(right)).text == '42\n'
