"""The pool under faults: deaths, hangs, cancellations, limits, and an owner that is killed. Nothing is left behind."""
import asyncio, gc, os, random, signal, subprocess, sys, threading, time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_core.paths import jupyter_runtime_dir
from conkernelclient import ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout, KernelPool, PoolClosed, UnsupportedFeature
from conkernelclient.kernels import pool as pool_module
from conkernelclient.kernels.fork import templates
from conkernelclient.kernels.pool import bytes_of, memory_of
from fault_tools import SOON, fds, nothing_unheard, running, until, within
from test_fork import children, state, value

bound = 60
pytestmark = [pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='these tests look into /proc')]

@pytest.fixture(params=[pytest.param('cold', marks=pytest.mark.slow), 'fork'])
def fork(request): return request.param == 'fork'

@pytest.fixture(scope='module', autouse=True)
def no_template_left():
    yield
    assert not templates.running, 'a pool ends its template'

class Counted(ConKernelManager):
    "Counts what is alive, from the moment a start is asked for until the process has ended; `script` may hold, hang or fail starts"
    alive: set = set()
    most = 0
    calls: list = []
    script = None
    @classmethod
    def reset(cls, script=None):
        cls.alive, cls.most, cls.calls, cls.script = set(), 0, [], staticmethod(script) if script else None

    async def start_kernel(self, **kwargs):
        cls = type(self)
        cls.alive.add(self)
        cls.most = max(cls.most, len(cls.alive))
        cls.calls.append(kwargs)
        if cls.script is not None: await cls.script(self, len(cls.calls))
        await super().start_kernel(**kwargs)

    async def shutdown_kernel(self, **kwargs):
        await super().shutdown_kernel(**kwargs)
        type(self).alive.discard(self)

    async def cleanup_resources(self, **kwargs):
        await super().cleanup_resources(**kwargs)
        type(self).alive.discard(self)

@pytest.fixture
def counted():
    Counted.reset()
    yield Counted
    Counted.script = None
    assert not Counted.alive, 'all that was started has ended'

def pids(pool): return [o.manager.provisioner.pid for o in pool.kernels if o.manager.has_kernel]


# Lending

async def test_a_spare_is_there_at_once(counted, fork):
    async with KernelPool(size=3, spare=1, fork=fork, manager_class=counted) as pool:
        await pool.filled(SOON)
        starts = len(counted.calls)
        async with pool.kernel() as kc:
            assert len(counted.calls) <= starts+1   # its successor
            assert await value(kc, '6*7') == 42
            assert pool.stats.lent == 1
        await pool.filled(SOON)
        assert pool.stats.ready == 1
    assert pool.stats.alive == 0 and counted.most <= 3

async def test_each_use_is_fresh(fork):
    async with KernelPool(size=2, spare=1, fork=fork, setup='import os') as pool:
        seen = []
        for _ in range(4):
            async with pool.kernel() as kc:
                seen.append(await value(kc, 'os.getpid()'))
                assert await value(kc, '"x" in globals()') is False
                await kc.run('x = 1')
        assert len(set(seen)) == 4
        await until(lambda: not any(state(o) for o in seen))
        assert pool.stats.recycled == 4

async def test_first_come_first_served(counted):
    async with KernelPool(size=2, spare=0, manager_class=counted) as pool:
        order = []
        async def one(i):
            async with pool.kernel() as kc:
                order.append(i)
                await value(kc, '1')
        tasks = []
        for i in range(12):
            tasks.append(asyncio.create_task(one(i)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == sorted(order) and counted.most == 2

async def test_who_waits_comes_before_spares(counted, monkeypatch):
    "One start at a time: each kernel goes to a caller until none is left"
    gate = asyncio.Semaphore(0)
    async def hold(manager, n): await gate.acquire()
    counted.reset(hold)
    monkeypatch.setattr(KernelPool, 'parallel', 1)
    async with KernelPool(size=5, spare=2, manager_class=counted) as pool:
        done = asyncio.Event()
        async def one():
            async with pool.kernel(): await done.wait()
        tasks = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        for n in 1, 2, 3:
            assert pool.stats.starting == 1
            gate.release()
            await until(lambda: pool.stats.lent == n)
            assert pool.stats.ready == 0
        gate.release(); gate.release()
        await pool.filled(SOON)
        assert pool.stats[:5] == (5, 0, 2, 3, 0)
        done.set()
        for _ in range(9): gate.release()
        await asyncio.gather(*tasks)

async def test_handed_on_as_it_is(counted):
    async with KernelPool(size=1, spare=1, max_uses=3, manager_class=counted) as pool:
        seen = []
        for i in range(6):
            async with pool.kernel() as kc: seen.append(await value(kc, f'import os; x = globals().get("x", 0)+1; x, os.getpid()'))
        assert [o[0] for o in seen] == [1, 2, 3, 1, 2, 3] and len({o[1] for o in seen}) == 2

@pytest.mark.parametrize('what', ['busy', 'restarted', 'closed', 'cancelled', 'killed'])
async def test_not_handed_on(what):
    "A kernel that is busy, another than it was, or that its user was torn from"
    async with KernelPool(size=2, spare=0, max_uses=9) as pool:
        async def use():
            async with pool.kernel() as kc:
                pid = await value(kc, 'import os; os.getpid()')
                if what == 'busy':
                    run = kc.run('while True: pass')
                    await run.wait_until(lambda: run.inside, SOON)
                elif what == 'restarted': await kc.parent.restart_kernel(now=True)
                elif what == 'closed': kc.stop_channels()
                elif what == 'cancelled': raise asyncio.CancelledError
                else: os.kill(pid, signal.SIGKILL)
                return pid
        pid, = await asyncio.gather(use(), return_exceptions=True) if what != 'cancelled' else [0]
        if what == 'cancelled':
            with pytest.raises(asyncio.CancelledError): await use()
        await until(lambda: pool.stats.alive == 0)
        assert not pid or not running(pid)
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42

async def test_an_exception_of_the_user_keeps_it(counted):
    async with KernelPool(size=1, spare=0, max_uses=2, manager_class=counted) as pool:
        with pytest.raises(ExecutionError):
            async with pool.kernel() as kc: await kc.run('x = 1; 1/0', check=True)
        async with pool.kernel() as kc: assert await value(kc, 'x') == 1

async def test_another_folder(tmp_path, counted):
    "It is started now, within `size`: a spare makes room"
    async with KernelPool(size=2, spare=2, manager_class=counted) as pool:
        await pool.filled(SOON)
        async with pool.kernel(cwd=str(tmp_path), env=dict(os.environ, HERE='1')) as kc:
            assert await value(kc, 'import os; os.getcwd(), os.environ["HERE"]') == (str(tmp_path), '1')
        async with pool.kernel() as kc: assert await value(kc, 'import os; os.getcwd()') == os.getcwd()
        with pytest.raises(FileNotFoundError):
            async with pool.kernel(cwd=str(tmp_path/'no')): pass
        assert await pool.map(['1']) and counted.most == 2

async def test_no_history(fork):
    async with KernelPool(size=1, spare=0, fork=fork) as pool, pool.kernel() as kc:
        assert await value(kc, 'get_ipython().history_manager.enabled') is False

@pytest.mark.parametrize('fork', [True, False])
async def test_preload(fork):
    async with KernelPool(size=1, spare=0, preload=['colorsys'], fork=fork) as pool, pool.kernel() as kc:
        assert await value(kc, 'import sys; "colorsys" in sys.modules')


# Deaths

async def test_spares_that_die(counted, fork):
    "They are replaced when they die, before anybody asks"
    async with KernelPool(size=3, spare=2, fork=fork, manager_class=counted) as pool:
        await pool.filled(SOON)
        old = pids(pool)
        for o in old: os.kill(o, signal.SIGKILL)
        await until(lambda: pool.stats.died == 2)
        await pool.filled(SOON)
        assert not set(old) & set(pids(pool)) and pool.stats.ready == 2

async def test_dead_at_hand_out():
    "Nobody was told yet: the caller gets the next one"
    async with KernelPool(size=2, spare=1, fork=False) as pool:
        await pool.filled(SOON)
        pid, = pids(pool)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED|os.WNOWAIT)   # it is dead, and the loop had no turn
        assert pool.stats.ready == 1
        async with pool.kernel() as kc: assert await value(kc, 'import os; os.getpid()') != pid
        assert pool.stats.died == 1

async def test_death_in_use(fork):
    async with KernelPool(size=1, spare=0, fork=fork) as pool:
        with pytest.raises(DeadKernelError) as e:
            async with pool.kernel() as kc: await kc.run('import os; os._exit(5)')
        assert e.value.exit_code == 5
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42
        assert pool.stats.died == 1

async def test_template_killed():
    async with KernelPool(size=4, spare=2) as pool:
        await pool.filled(SOON)
        old, = pool.templates
        before = pids(pool)
        old.process.kill()
        await until(lambda: pool.stats.died == 2 and not any(map(running, before)))
        await pool.filled(SOON)
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42
        assert len(pool.templates) == 2


# Starts that fail

@pytest.mark.slow
async def test_a_start_that_hangs(counted, monkeypatch):
    "Nobody waits for it longer than `patience`, and it ends in time"
    async def hang(manager, n):
        if n == 1: await asyncio.sleep(1000)
    counted.reset(hang)
    monkeypatch.setattr(KernelPool, 'patience', .3)
    async with KernelPool(size=3, spare=0, startup_timeout=10, manager_class=counted) as pool:
        async def one():
            async with pool.kernel() as kc: return await value(kc, '6*7')
        first = asyncio.create_task(one())
        await asyncio.sleep(0)
        assert await asyncio.gather(one(), one(), first) == [42]*3
        assert pool.stats.starting == 1
        await until(lambda: pool.stats.failed == 1)
        assert await one() == 42

async def test_a_kernel_that_never_answers(counted):
    spec = KernelSpec(argv=[sys.executable, '-c', 'import time; time.sleep(1000)', '{connection_file}'], display_name='x', language='python')
    async with KernelPool(size=1, spare=0, startup_timeout=.5, kernel_spec=spec, manager_class=counted) as pool:
        with pytest.raises(RuntimeError, match='not ready within 0.5 s'):
            async with pool.kernel(): pass

async def test_each_failure_is_told_once():
    spec = KernelSpec(argv=[sys.executable, '-c', 'raise SystemExit(3)', '{connection_file}'], display_name='x', language='python')
    async with KernelPool(size=2, spare=0, kernel_spec=spec) as pool:
        async def one():
            async with pool.kernel(): pass
        errors = await asyncio.gather(one(), one(), one(), return_exceptions=True)
        assert [o.exit_code for o in errors] == [3]*3 and pool.stats.failed == 3

async def test_setup_that_raises():
    async with KernelPool(size=1, spare=0, setup='1/0') as pool:
        with pytest.raises(ExecutionError, match='ZeroDivisionError'):
            async with pool.kernel(): pass

async def test_spares_pause_after_failures(counted, monkeypatch):
    "After three failures in a row: 1, 2, 4 s; a success ends it"
    async def fail(manager, n):
        if n <= 5: raise OSError(12, 'no memory')
    counted.reset(fail)
    loop = asyncio.get_running_loop()
    waits, later = [], loop.call_later
    def call_later(seconds, callback, *args, **kwargs):
        if getattr(callback, '__func__', None) is KernelPool._go_on:
            waits.append(seconds)
            seconds = .01
        return later(seconds, callback, *args, **kwargs)
    monkeypatch.setattr(loop, 'call_later', call_later)
    async with KernelPool(size=1, spare=1, manager_class=counted) as pool:
        with pytest.raises(OSError, match='no memory'): await pool.filled(SOON)
        await until(lambda: pool.stats.ready == 1)
        assert waits == [1, 2, 4] and pool.stats.failed == 5 and pool.error is None

async def test_a_caller_is_told_during_a_pause(counted):
    async def fail(manager, n): raise OSError(12, f'no memory {n}')
    counted.reset(fail)
    async with KernelPool(size=1, spare=1, manager_class=counted) as pool:
        await until(lambda: pool._paused is not None)
        n = len(counted.calls)
        with pytest.raises(OSError, match=f'no memory {n+1}'):
            async with pool.kernel(): pass


# Cancellation

async def test_cancelled_in_the_queue():
    async with KernelPool(size=1, spare=0) as pool:
        async with pool.kernel():
            async def one():
                async with pool.kernel(): raise AssertionError('never')
            waits = asyncio.create_task(one())
            await asyncio.sleep(0)
            assert pool.stats.waiting == 1
            waits.cancel()
            await asyncio.wait([waits])
            assert waits.cancelled() and pool.stats.waiting == 0
            with pytest.raises(TimeoutError, match='0.05 s'): await asyncio.create_task(anext_of(pool.kernel(timeout=.05)))
            assert pool.stats.waiting == 0

async def anext_of(manager):
    async with manager: pass

async def test_cancelled_as_the_kernel_arrives(monkeypatch):
    "It goes to the next in line"
    async with KernelPool(size=1, spare=0, max_uses=9) as pool:
        got = []
        async def one(i):
            async with pool.kernel() as kc: got.append(i)
        async with pool.kernel():
            tasks = [asyncio.create_task(one(i)) for i in range(3)]
            await asyncio.sleep(0)
            hand_out = pool._hand_out
            def then_cancel(k, waiter):
                hand_out(k, waiter)
                tasks[0].cancel()   # before the task has its turn
            monkeypatch.setattr(pool, '_hand_out', then_cancel)
        await asyncio.wait(tasks)
        assert tasks[0].cancelled() and got == [1, 2]
        assert pool.stats.recycled == 0 and pool.stats.started == 1

async def test_cancelled_as_a_special_one_starts(tmp_path, counted):
    hold = asyncio.Event()
    async def wait(manager, n): await hold.wait()
    counted.reset(wait)
    async with KernelPool(size=1, spare=0, manager_class=counted) as pool:
        task = asyncio.create_task(anext_of(pool.kernel(cwd=str(tmp_path))))
        await until(lambda: counted.alive)
        task.cancel()
        await until(lambda: not counted.alive and pool.stats.alive == 0)
        hold.set()
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42

async def test_cancelled_in_use():
    async with KernelPool(size=1, spare=0) as pool:
        async def one():
            async with pool.kernel() as kc: await kc.run('while True: pass')
        task = asyncio.create_task(one())
        await until(lambda: pool.stats.lent == 1)
        pid, = pids(pool)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: state(pid) is None)
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42

@pytest.mark.parametrize('max_uses', [1, 5])
async def test_cancelled_at_random(counted, max_uses):
    "50 tasks, cancelled while they acquire, use or return: `size` holds, and all else is served"
    rng = random.Random(max_uses)
    async with KernelPool(size=4, spare=1, max_uses=max_uses, manager_class=counted) as pool:
        async def one(i):
            async with pool.kernel(**(dict(cwd='/') if i%9 == 8 else {})) as kc: return await value(kc, f'{i}')
        async def cut(i):
            task = asyncio.create_task(one(i))
            await asyncio.sleep(rng.random()*1.5)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == i
        good = [asyncio.create_task(one(i)) for i in range(5)]
        await asyncio.gather(*map(cut, range(50)))
        assert await asyncio.gather(*good) == list(range(5))
        await pool.filled(SOON)
        def at_rest():
            alive, starting, ready, lent, waiting = pool.stats[:5]
            return starting == lent == waiting == 0 and alive == ready and (ready == 1 or max_uses > 1)
        await until(at_rest)
        assert counted.most <= 4
    assert pool.stats.alive == 0


# Limits

async def test_memory_limit():
    "Above it, spares end first, nothing is started, and calls wait; below it, all goes on"
    async with KernelPool(size=4, spare=2, max_memory='64 GB') as pool:
        await pool.filled(SOON)
        async with pool.kernel() as kc:
            await kc.run('x = b"x"*300_000_000', check=True)
            pool.max_memory = 250_000_000
            await until(lambda: pool.stats.ready == 0 and pool.stats.alive == 1)
            with pytest.raises(TimeoutError):
                async with pool.kernel(timeout=.3): pass
            waits = asyncio.create_task(anext_of(pool.kernel()))
        await asyncio.wait_for(waits, SOON)
        await pool.filled(SOON)

async def test_memory_of_one_kernel(fork):
    async with KernelPool(size=1, spare=0, kernel_memory='1 GB', fork=fork) as pool, pool.kernel() as kc:
        assert (await kc.run('x = b"x"*3_000_000_000')).error.ename == 'MemoryError'
        assert await value(kc, '6*7') == 42

async def test_memory_counts_processes():
    async with KernelPool(size=1, spare=0) as pool, pool.kernel() as kc:
        before = pool.stats.memory
        assert 5e6 < before < 400e6
        await kc.run('import subprocess, sys; p = subprocess.Popen([sys.executable, "-c", "x = b\'x\'*200_000_000; print(1, flush=True); input()"], stdin=-1, stdout=-1); p.stdout.readline()', check=True)
        assert pool.stats.memory > before+190e6

async def test_idle_pool_goes_to_nothing(counted):
    async with KernelPool(size=2, spare=2, idle_timeout=.4, manager_class=counted) as pool:
        await pool.filled(SOON)
        await until(lambda: pool.stats.alive == 0)
        starts = len(counted.calls)
        await asyncio.sleep(.5)
        assert len(counted.calls) == starts
        async with pool.kernel() as kc: assert await value(kc, '6*7') == 42
        await pool.filled(SOON)

@pytest.mark.parametrize('wrong', [dict(size=0), dict(spare=-1), dict(max_uses=0), dict(max_memory='much')])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError): KernelPool(**wrong)

async def test_limit_of_descriptors():
    "A pool raises the soft limit as far as it needs"
    code = '''if 1:
        import asyncio, resource
        from conkernelclient import KernelPool
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        async def main():
            async with KernelPool(size=10, spare=10) as pool:
                await pool.filled(50)
                print(pool.stats.ready, resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 400)
        asyncio.run(main())'''
    p = await asyncio.create_subprocess_exec(sys.executable, '-c', code, stdout=-1, env=dict(os.environ, PYTHONPATH=os.pathsep.join(o or '.' for o in sys.path)))
    out, _ = await asyncio.wait_for(p.communicate(), SOON*2)
    assert out.decode().split() == ['10', 'True']


# Many pieces of code

async def test_map():
    async with KernelPool(size=3, spare=1) as pool:
        res = await pool.map(['1+1', '1/0', 'import os; os._exit(4)', 'while True: pass', '"five"'], timeout=1)
        assert [type(o).__name__ for o in res] == ['Result', 'Result', 'DeadKernelError', 'ExecutionTimeout', 'Result']
        assert res[0].text == '2\n' and res[1].error.ename == 'ZeroDivisionError' and res[4].text == "'five'\n"
        task = asyncio.create_task(pool.map(['while True: pass']*5))
        await until(lambda: pool.stats.lent == 3)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: pool.stats.lent == 0 and pool.stats.waiting == 0)
        assert await pool.map([]) == []


# The end

async def test_closing():
    pool = KernelPool(size=1, spare=1)
    with pytest.raises(PoolClosed, match='not open'): await anext_of(pool.kernel())
    async with pool:
        async def use(event):
            async with pool.kernel() as kc:
                await event.wait()
                return await value(kc, '6*7')
        event = asyncio.Event()
        lent = asyncio.create_task(use(event))
        await until(lambda: pool.stats.lent)
        waits = asyncio.create_task(use(event))
        await asyncio.sleep(0)
        closing = asyncio.create_task(pool.close())
        with pytest.raises(PoolClosed): await waits
        with pytest.raises(PoolClosed): await anext_of(pool.kernel())
        assert not closing.done()
        event.set()
        assert await lent == 42      # within the grace
        await closing
        await pool.close()
    with pytest.raises(PoolClosed, match='make a new one'): await pool.__aenter__()
    assert pool.stats.alive == 0 and not any(o.alive for o in pool.templates)

async def test_closing_without_patience():
    async with KernelPool(size=2, spare=0, grace=.1) as pool:
        async def use():
            async with pool.kernel() as kc: await kc.run('while True: pass')
        lent = asyncio.create_task(use())
        await until(lambda: pool.stats.lent)
        pid, = pids(pool)
    assert not running(pid)
    res, = await asyncio.gather(lent, return_exceptions=True)
    assert isinstance(res, RuntimeError), res

async def test_closing_is_not_cancelled():
    "A cancelled block ends all the same"
    async def block():
        async with KernelPool(size=2, spare=2, manager_class=Counted) as pool:
            await pool.filled(SOON)
            return pool
    Counted.reset()
    async def main():
        async with KernelPool(size=2, spare=2, manager_class=Counted): await asyncio.sleep(1000)
    task = asyncio.create_task(main())
    await until(lambda: len(Counted.calls) == 2)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: not Counted.alive)

OWNER = '''
import asyncio, os, threading, time
from conkernelclient import KernelPool
for _ in range(5): threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
async def main():
    async with KernelPool(size=6, spare=2, fork={fork}) as pool:
        await pool.filled(60)
        async with pool.kernel() as kc:
            run = kc.run('while True: pass')
            await run.wait_until(lambda: run.inside, 30)
            await pool.filled(60)
            pids = [o.manager.provisioner.pid for o in pool.kernels]
            print(*pids, *[o.process.pid for o in pool.templates], flush=True)
            await asyncio.sleep(1000)
asyncio.run(main())
'''

@pytest.mark.parametrize('how', ['killed', 'Ctrl-C'])
async def test_owner_ends(fork, how):
    "Also one with threads"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(o or '.' for o in sys.path))
    owner = await asyncio.create_subprocess_exec(sys.executable, '-c', OWNER.format(fork=fork), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    gone = [int(o) for o in (await asyncio.wait_for(owner.stdout.readline(), SOON)).split()]
    assert len(gone) == 3+fork and all(map(running, gone))
    owner.send_signal(signal.SIGKILL if how == 'killed' else signal.SIGINT)
    await asyncio.wait_for(owner.wait(), SOON)
    _, took = await within(SOON, until(lambda: not any(map(running, gone))))
    assert took < 2 or not fork, took
    owner._transport.close()

async def leaves_nothing(uses, size, **kwargs):
    "What is there after `uses` uses that was not there before"
    files = set(os.listdir(jupyter_runtime_dir()))
    async with KernelPool(size=size, spare=2, **kwargs) as pool:
        await pool.map(['1']*size)
        await pool.filled(SOON)
        gc.collect()
        before, threads = fds(), threading.active_count()
        res = await pool.map([f'{i}' for i in range(uses)])
        assert [o.text.strip() for o in res] == [str(i) for i in range(uses)]
        await pool.filled(SOON)
        await until(lambda: pool.stats[:5] == (2, 0, 2, 0, 0))
        gc.collect()
        for o in pool.templates: await until(lambda: len(children(o.process.pid)) == 2)
        assert fds() <= before+4 and threading.active_count() <= threads+1
        assert len(set(os.listdir(jupyter_runtime_dir()))-files) <= 2
    assert not set(os.listdir(jupyter_runtime_dir()))-files
    assert not [o for o in children(os.getpid()) if state(o) == 'Z'], 'a zombie'

@pytest.fixture
def runtime_dir(tmp_path, monkeypatch): monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path))

async def test_nothing_is_left(runtime_dir): await leaves_nothing(30, 4)

@pytest.mark.slow
async def test_nothing_is_left_after_500_uses(runtime_dir): await leaves_nothing(500, 8)
