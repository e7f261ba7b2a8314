"""Kernels forked from a template do what kernels of their own process do: each test of the first part runs on both."""
import asyncio, os, signal, subprocess, sys, textwrap, time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from conkernelclient import ConKernelManager, DeadKernelError, ExecutionError, UnknownKernel, parse_literal, run_kernel
from conkernelclient.kernels import template as template_module
from conkernelclient.kernels.fork import ForkedProcess, ForkProvisioner, Streams, fork_spec, parse_command, templates
from fault_tools import SOON, fds, nothing_unheard, running, until, within

bound = 60
pytestmark = [pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='forking kernels needs Linux')]

def spec_of(how, *preload, **kwargs):
    return fork_spec(preload, **kwargs) if how == 'fork' else KernelSpec(**dict(KernelSpecManager().get_kernel_spec('python3').to_dict(), env=kwargs.get('env', {})))

@pytest.fixture(params=[pytest.param('cold', marks=pytest.mark.slow), 'fork'])
def how(request): return request.param

@pytest.fixture(scope='module', autouse=True)
def no_template_left():
    "Ended by the module, and with them every fork"
    yield
    left = [*templates.running.values()]
    templates.end()
    assert not any(running(o.process.pid) for o in left)

async def value(kc, expr): return parse_literal((await kc.run(expr, check=True)).data)

def state(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError: return None

def children(pid): return [int(o) for o in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


# The process

async def test_it_begins_when_its_manager_has_read_the_connection_file(monkeypatch):
    "A kernel writes that file too; a fork would do so while it is being read"
    seen = []
    class Slow(ConKernelManager):
        def _reconcile_connection_info(self, info):
            time.sleep(.3)
            seen.append((len(os.listdir(f'/proc/{self.provisioner.pid}/task')), Path(self.connection_file).stat().st_mtime_ns == wrote[0]))
            super()._reconcile_connection_info(info)
        def write_connection_file(self, **kwargs):
            super().write_connection_file(**kwargs)
            wrote[:] = [Path(self.connection_file).stat().st_mtime_ns]
    wrote = []
    async with run_kernel(kernel_spec=fork_spec(), manager_class=Slow) as (_, kc): assert await value(kc, '6*7') == 42
    assert seen == [(1, True)]

async def test_folder_environment_and_limits(how, tmp_path):
    env = dict(os.environ, ONLY_HERE='1', TZ='Pacific/Kiritimati')
    env.pop('HOSTNAME', None)
    before = os.umask(0o27)
    try:
        async with run_kernel(kernel_spec=spec_of(how), cwd=str(tmp_path), env=env) as (km, kc):
            os.umask(before)
            assert await value(kc, 'import os; os.getcwd()') == str(tmp_path)
            assert await value(kc, 'import time; os.environ["ONLY_HERE"], time.strftime("%z"), "HOSTNAME" in os.environ') == ('1', '+1400', False)
            assert await value(kc, 'oct(os.umask(0))') == '0o27'
            assert await value(kc, 'os.getsid(0) == os.getpgid(0) == os.getpid()')
            assert await value(kc, 'import resource; resource.getrlimit(resource.RLIMIT_NOFILE)') == __import__('resource').getrlimit(7)
            assert await value(kc, f'os.environ["JPY_PARENT_PID"] == "{os.getpid()}"')
    finally: os.umask(before)

async def test_no_secret_of_others_in_proc(monkeypatch):
    "The template never has a variable that some kernel must not have"
    monkeypatch.setenv('A_SECRET', 'hush')
    env = {k: v for k, v in os.environ.items() if k != 'A_SECRET'}
    async with run_kernel(kernel_spec=fork_spec(), env=env) as (km, kc), run_kernel(kernel_spec=fork_spec()) as (_, knows):
        assert not await value(kc, '"hush" in open("/proc/self/environ").read()')
        assert await value(knows, 'import os; os.environ["A_SECRET"]') == 'hush'
        assert not await value(knows, '"hush" in open("/proc/self/environ").read()')

async def test_module_path_and_main(how, tmp_path):
    (tmp_path/'beside.py').write_text('x = 1')
    async with run_kernel(kernel_spec=spec_of(how), cwd=str(tmp_path)) as (_, kc):
        assert await value(kc, 'import sys, beside; beside.x, sys.path.count("")') == (1, 1)
        folder = str(Path(template_module.__file__).parent)
        assert not await value(kc, f'{folder!r} in sys.path')
        assert await value(kc, '__name__, sys.modules["__main__"].__dict__ is globals(), sys.argv[0].endswith("ipykernel_launcher.py")') == ('__main__', True, True)
        assert await value(kc, 'import pickle\nclass A: pass\npickle.loads(pickle.dumps(A())).__class__ is A')
        assert await value(kc, 'import gc; gc.isenabled()')

async def test_streams(how, tmp_path):
    "What the process writes by itself goes where the caller wants it"
    out = open(tmp_path/'out', 'wb')
    async with run_kernel(kernel_spec=spec_of(how), stdout=out, stderr=subprocess.STDOUT) as (_, kc):
        await kc.run('import os; os.write(1, b"one ")', check=True)
        await kc.run('import sys; sys.__stderr__.write("two "); sys.__stderr__.flush()', check=True)
        assert await value(kc, 'sys.__stdin__.read()') == ''
    out.close()
    assert {'one', 'two'} <= set((tmp_path/'out').read_text().split())

async def test_a_folder_that_is_not_there(how, tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        async with run_kernel(kernel_spec=spec_of(how), cwd=str(tmp_path/'no')): pass
    assert str(tmp_path/'no') in str(e.value)

LINKS = '''
import os
def link(o):
    try: return os.readlink(f"/proc/self/fd/{o}")
    except OSError: return ""
unix = {o.split()[6] for o in open("/proc/net/unix") if len(o.split()) > 6}
links = [link(o) for o in os.listdir("/proc/self/fd")]
(len(links), [o for o in links if "pidfd" in o or "memfd" in o or o.startswith("socket") and o[8:-1] in unix])
'''

async def test_open_descriptors_of_a_kernel(how):
    "The second fork has no descriptor of the first, or of the template: neither more, nor pidfds, nor sockets that are not of the network"
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc), run_kernel(kernel_spec=spec_of(how)) as (_, kc2):
        (n, ours), (n2, ours2) = await value(kc, LINKS), await value(kc2, LINKS)
        assert n == n2 and len(ours) == len(ours2), (ours, ours2)
        assert not [o for o in ours2 if 'fd' in o]


# Numbers that have to differ

DRAWS = '''
import random, uuid, secrets, tempfile, ssl
draws = [random.random(), str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(8), next(tempfile._get_candidate_names()), ssl.RAND_bytes(8).hex()]
try:
    import numpy
    draws += [float(numpy.random.rand()), float(numpy.random.default_rng().random())]
except ImportError: pass
draws
'''

async def test_random_numbers_differ(how):
    modules = ['random', 'uuid', 'secrets', 'tempfile', 'ssl'] + (['numpy', 'numpy.random'] if __import__('importlib').util.find_spec('numpy') else [])
    spec = spec_of(how, *modules)
    async with run_kernel(kernel_spec=spec) as (_, kc), run_kernel(kernel_spec=spec) as (_, kc2):
        a, b = await asyncio.gather(value(kc, DRAWS), value(kc2, DRAWS))
        assert len(a) == len(b) >= 6 and not set(a) & set(b)


# What cells do

async def test_cells(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc):
        assert (await kc.run('!echo $((6*7))')).text.strip() == '42'
        assert await value(kc, 'import asyncio\nawait asyncio.sleep(0, 6)*7') == 42
        assert await value(kc, 'import threading\nres = []\nt = threading.Thread(target=res.append, args=[1]); t.start(); t.join(); res') == [1]
        assert await value(kc, 'import subprocess, sys; subprocess.run([sys.executable, "-c", "print(6*7)"], capture_output=True, text=True).stdout') == '42\n'
        reply = await kc.complete('import subpro', reply=True, timeout=SOON)
        assert 'subprocess' in reply['content']['matches']
        async with kc.subshell() as sh:
            slow = kc.run('import time; time.sleep(.3); 1')
            assert await sh.eval('6*7') == 42
            await slow

@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
async def test_multiprocessing(how, method):
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc):
        code = f'import multiprocessing, math\nwith multiprocessing.get_context({method!r}).Pool(2) as p: r = p.map(math.factorial, range(5))\nr'
        assert await value(kc, code) == [1, 1, 2, 6, 24]

async def test_debugger(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc):
        async def ask(command, seq, **arguments):
            content = dict(type='request', seq=seq, command=command, arguments=arguments)
            return (await asyncio.wait_for(kc.request('debug_request', content, 'control'), SOON))['content']
        info = await ask('debugInfo', 1)
        assert info['success'] and info['body']['isStarted'] is False
        info = await ask('initialize', 2, clientID='x', adapterID='x', pathFormat='path', linesStartAt1=True, columnsStartAt1=True)
        assert info['success'], info

async def test_interrupt(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc):
        with pytest.raises(TimeoutError): await kc.run('import time; time.sleep(100)', timeout=.2)
        run = kc.run('x = 1\nwhile True: pass')
        await run.wait_until(lambda: run.inside, SOON)
        await run.interrupt()
        assert (await run).error.ename == 'KeyboardInterrupt'
        assert await value(kc, 'x') == 1

async def test_an_interrupt_reaches_its_processes(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (_, kc):
        run = kc.run('import subprocess; p = subprocess.Popen(["sleep", "100"]); print(p.pid, flush=True); code = p.wait()')
        await until(lambda: run.partial.stdout)
        await run.interrupt()
        await run
        await until(lambda: not running(int(run.partial.stdout)))


# The end

@pytest.mark.parametrize('code,expected', [('os._exit(7)', 7), ('os.kill(os.getpid(), 9)', -9), ('os.kill(os.getpid(), 11)', -11)])
async def test_exit_codes(how, code, expected):
    async with run_kernel(kernel_spec=spec_of(how)) as (km, kc):
        with pytest.raises(DeadKernelError) as e: await kc.run('import os; '+code)
        assert e.value.exit_code == expected
        assert await km.provisioner.poll() == expected and not await km.is_alive()
        await km.restart_kernel()
        assert await value(kc, '6*7') == 42

async def test_orderly_end_runs_atexit(how, tmp_path):
    km = ConKernelManager(kernel_spec=spec_of(how), shutdown_wait_time=2*SOON)   # the machine may be busy
    await km.start_kernel()
    kc = await km.client().start_channels()
    await kc.run(f'import atexit; atexit.register(lambda: open({str(tmp_path/"x")!r}, "w").write("done"));', check=True)
    pid = km.provisioner.pid
    kc.stop_channels()
    await km.shutdown_kernel()
    assert (tmp_path/'x').read_text() == 'done' and not km.has_kernel
    await until(lambda: state(pid) is None)

async def test_restarts(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (km, kc):
        for now in True, False:
            pid = await value(kc, 'x = 1; __import__("os").getpid()')
            await km.restart_kernel(now=now)
            assert not await value(kc, '"x" in globals()') and await value(kc, '__import__("os").getpid()') != pid
            await until(lambda: state(pid) is None)

async def test_processes_of_a_killed_kernel_end(how):
    async with run_kernel(kernel_spec=spec_of(how)) as (km, kc):
        pid = await value(kc, 'import subprocess; subprocess.Popen(["sleep", "100"]).pid')
    await until(lambda: not running(pid))


# The owner ends

OWNER = '''
import asyncio, sys, os
sys.path[:0] = {path!r}
from conkernelclient import run_kernel
from conkernelclient.kernels.fork import fork_spec
async def main():
    async with run_kernel(kernel_spec={spec}) as (km, kc), run_kernel(kernel_spec={spec}) as (km2, kc2):
        await kc2.run('6*7')
        busy = kc.run({busy!r})
        await busy.wait_until(lambda: busy.inside, 30)
        await asyncio.sleep(.5)
        print(*[o.provisioner.pid for o in (km, km2)], await kc2.eval('__import__("os").getppid()'), flush=True)
        await asyncio.sleep(100)
asyncio.run(main())
'''

@pytest.mark.parametrize('busy', ['while True: pass', 'import ctypes, time; time.sleep(.2); ctypes.PyDLL(None).sleep(100)'], ids=['Python', 'C'])
async def test_owner_killed(how, busy):
    "All are gone in two seconds; a fork also where a C function never lets Python run"
    if how == 'cold' and 'ctypes' in busy: pytest.skip('ipykernel looks for its parent in Python')
    code = OWNER.format(path=[str(Path(template_module.__file__).parents[2])], spec='fork_spec()' if how == 'fork' else None, busy=busy)
    owner = await asyncio.create_subprocess_exec(sys.executable, '-c', code, stdout=subprocess.PIPE)
    pids = [int(o) for o in (await asyncio.wait_for(owner.stdout.readline(), SOON)).split()]
    if how == 'cold': pids.pop()
    assert all(map(running, pids))
    owner.kill()
    await owner.wait()
    _, took = await within(SOON, until(lambda: not any(map(running, pids))))
    assert took < 2 or how == 'cold', took
    owner._transport.close()


# The template

async def test_template_killed():
    "Its kernels end, and the next start makes a new one"
    spec = fork_spec()
    async with run_kernel(kernel_spec=spec) as (km, kc):
        pid, old = km.provisioner.pid, km.provisioner.template
        run = kc.run('while True: pass')
        await run.wait_until(lambda: run.inside, SOON)
        old.process.kill()
        with pytest.raises(DeadKernelError) as e: await asyncio.wait_for(run, SOON)
        assert e.value.exit_code == -9
        await until(lambda: not running(pid))
        await km.restart_kernel()
        assert await value(kc, '6*7') == 42
        assert km.provisioner.forked and km.provisioner.template is not old

async def test_starts_at_once_share_a_template():
    spec = fork_spec(['colorsys'])
    async def one():
        async with run_kernel(kernel_spec=spec) as (km, kc): return await value(kc, 'import sys, os; "colorsys" in sys.modules, os.getppid()')
    (*told,) = await asyncio.gather(*[one() for _ in range(4)])
    assert len(set(told)) == 1 and told[0][0]
    template = next(o for o in templates.running.values() if o.process.pid == told[0][1])
    await until(lambda: not children(template.process.pid))   # no zombie
    assert template.alive

async def test_other_early_variables_other_template():
    async def about(**env):
        async with run_kernel(kernel_spec=fork_spec(), env=dict(os.environ, **env)) as (_, kc):
            return await value(kc, 'import sys, os; os.getppid(), hash("x")')
    a, b, c = await about(X='1'), await about(X='2'), await about(PYTHONHASHSEED='0')
    assert a == b and c[0] != a[0]
    assert c[1] == int(subprocess.run([sys.executable, '-c', 'print(hash("x"))'], env=dict(os.environ, PYTHONHASHSEED='0'), capture_output=True).stdout)

async def test_flags_are_the_templates():
    spec = fork_spec()
    spec.argv = [spec.argv[0], '-O', '-X', 'utf8', '-W', 'ignore::BytesWarning', *spec.argv[1:]]
    async with run_kernel(kernel_spec=spec) as (km, kc):
        assert km.provisioner.forked
        assert await value(kc, 'import sys; sys.flags.optimize, sys.flags.utf8_mode, "ignore::BytesWarning" in sys.warnoptions') == (1, 1, True)

async def test_it_ends_by_itself():
    async with run_kernel(kernel_spec=fork_spec(['sched'], linger=.2)) as (km, kc):
        template = km.provisioner.template
        await asyncio.sleep(.5)
        assert template.alive
    await until(lambda: not template.alive)

async def test_asked_as_it_ends():
    "A template that is gone when it is asked is replaced"
    spec = fork_spec(['nturl2path'])
    async with run_kernel(kernel_spec=spec) as (km, _): first = km.provisioner.template
    first.process.kill()
    os.waitid(os.P_PID, first.process.pid, os.WEXITED|os.WNOWAIT)
    alive = type(first).alive
    try:
        type(first).alive = property(lambda self: self is first or alive.fget(self))   # nobody has seen it yet
        async with run_kernel(kernel_spec=spec) as (km, kc):
            assert km.provisioner.forked and km.provisioner.template is not first
    finally: type(first).alive = alive

async def test_cancelled_starts(how):
    "At any point; nothing is left"
    spec = spec_of(how, 'fractions', 'smtplib') if how == 'fork' else None
    for delay in 0, .002, .01, .03, .1, .3:
        km = ConKernelManager(kernel_spec=spec)
        task = asyncio.create_task(km.start_kernel())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if km.has_kernel: await km.shutdown_kernel(now=True)
        else: await km.cleanup_resources()
        if how == 'fork' and delay == .01: templates.end()   # the next are asked of one that is busy with its imports
    for o in templates.running.values(): await until(lambda: not children(o.process.pid))

async def test_fork_of_the_owner():
    "A fork of this process has no hold on a template or a kernel"
    spec = fork_spec(['stringprep'])
    async with run_kernel(kernel_spec=spec) as (km, kc):
        template = km.provisioner.template
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, b'1' if not templates.running and template.control.fileno() < 0 else b'0')
            signal.pause()
            os._exit(0)
        try:
            assert os.read(read, 1) == b'1'
            kernel = km.provisioner.pid
            await km.shutdown_kernel(now=True)
            await until(lambda: state(kernel) is None)   # reaped: the fork's copy of the socket does not hinder it
            templates.end([template])
            assert not running(template.process.pid)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(read); os.close(write)


# In a process of its own after all

@pytest.mark.parametrize('code,word', [
    ('import threading, time; threading.Thread(target=time.sleep, args=[600], daemon=True).start()', 'has started threads'),
    pytest.param('import zmq; context = zmq.Context()', 'a ZMQ context', marks=pytest.mark.slow),
    pytest.param('import asyncio; loop = asyncio.new_event_loop()', 'an event loop', marks=pytest.mark.slow),
])
async def test_what_a_module_may_not_do(tmp_path, caplog, code, word):
    (tmp_path/'early.py').write_text(code)
    spec = fork_spec('early', env={'PYTHONPATH': str(tmp_path)})
    async def one():
        async with run_kernel(kernel_spec=spec) as (km, kc): return km.provisioner.forked, await value(kc, '6*7')
    assert await asyncio.gather(one(), one()) == [(False, 42)]*2
    started = set(templates.running.values())
    assert await one() == (False, 42)
    assert set(templates.running.values()) <= started, 'a template that refuses is not tried again'
    assert word in caplog.text

async def test_other_commands_and_arguments(caplog, tmp_path):
    async def one(spec, **kwargs):
        km = ConKernelManager(kernel_spec=spec)
        await km.start_kernel(**kwargs)
        try: return km.provisioner.forked
        finally: await km.shutdown_kernel(now=True)
    plain = fork_spec()
    other = KernelSpec(argv=[sys.executable, '-c', 'import time; time.sleep(100)', '{connection_file}'], metadata=plain.metadata, language='python')
    assert [await one(plain), await one(plain, independent=True), await one(plain, process_group=None, umask=0o22), await one(other)] == [True, False, False, False]
    assert 'Only an ipykernel' in caplog.text and 'independent' in caplog.text and 'umask' in caplog.text

async def test_wrong_module():
    before = fds()
    for _ in range(3):
        with pytest.raises(ImportError, match="preload=.'no_such_thing'.: ModuleNotFoundError"):
            async with run_kernel(kernel_spec=fork_spec('no_such_thing')): pass
    templates.get([sys.executable], {}, [], 1)   # (tidies)
    templates.end()
    assert fds() <= before

async def test_unknown_kernel():
    with pytest.raises(UnknownKernel, match='python3'): fork_spec(kernel_name='nope')


# Many

async def test_descriptors_and_zombies():
    "40 kernels, ten at once: afterwards there is nothing that was not there before"
    spec = fork_spec()
    async with run_kernel(kernel_spec=spec) as (km, _): template = km.provisioner.template
    before = fds()
    gate = asyncio.Semaphore(10)
    async def one(i):
        async with gate, run_kernel(kernel_spec=spec) as (_, kc): return await value(kc, f'{i}*2')
    assert await asyncio.gather(*map(one, range(40))) == [2*i for i in range(40)]
    await until(lambda: not children(template.process.pid))
    held = len(os.listdir(f'/proc/{template.process.pid}/fd'))
    assert held < 12, held
    await until(lambda: fds() <= before)

async def test_a_start_that_is_given_up_never_becomes_a_kernel(monkeypatch):
    "Its connection file is gone by then: it would listen with keys of its own, and not encrypted"
    forked = []
    class CutShort(ForkedProcess):
        async def first_news(self):
            await super().first_news()
            pid = self.news['pid']
            parent = int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
            os.kill(parent, signal.SIGSTOP)     # the template does not get to killing it: only the gate decides
            forked.extend([pid, parent])
            raise asyncio.CancelledError
    async with run_kernel(kernel_spec=fork_spec()) as (_, kc): await kc.run('1')    # the template is there
    monkeypatch.setattr('conkernelclient.kernels.fork.ForkedProcess', CutShort)
    km = ConKernelManager(kernel_spec=fork_spec())
    try:
        with pytest.raises(asyncio.CancelledError): await km.start_kernel()
        pid, _ = forked
        assert not os.path.exists(km.connection_file)
        await until(lambda: state(pid) == 'Z' or os.path.exists(km.connection_file))
        assert state(pid) == 'Z' and not os.path.exists(km.connection_file)
    finally:
        for o in forked[1:]: os.kill(o, signal.SIGCONT)
    await until(lambda: state(pid) is None)      # reaped
