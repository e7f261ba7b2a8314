"""A kernel dies, or is stuck, and is restarted: once for all who ask for it, and by itself where that is wanted."""
import asyncio, logging, os, signal, sys
from contextlib import asynccontextmanager

import psutil, pytest
from jupyter_client.manager import AsyncKernelManager
from conkernelclient import (ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, KernelRestartedError,
                             UnsupportedFeature, open_kernel, run_kernel)
from conkernelclient.core import end_kernel
from conkernelclient.engine import connection
from fake_kernel import FakeKernel, kernel_specs
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 90
STAY = 'fake: busy hold'
CRASH = 'fake: busy crash=3'


class Scripted(ConKernelManager):
    "Counts its launches; each takes the next of `script`: `ok`, `die`, `hang`, `fail`, or a future to be awaited first"
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.script, self.launches, self.pids, self.began, self.slow_poll = [], 0, [], [], 0.

    async def _async_launch_kernel(self, kernel_cmd, **kwargs):
        self.launches += 1
        self.began.append(asyncio.get_running_loop().time())
        what = self.script.pop(0) if self.script else 'ok'
        if asyncio.isfuture(what): what = await what
        if what=='fail': raise OSError('no more processes')
        if what=='die': kernel_cmd = [sys.executable, '-S', '-c', 'raise SystemExit(7)']
        if what=='hang': kernel_cmd = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']
        await super()._async_launch_kernel(kernel_cmd, **kwargs)
        self.pids.append(self.provisioner.pid)
        if self.slow_poll: self._slow_down(self.provisioner)

    def _slow_down(self, provisioner):
        "A provisioner that has to ask somebody else"
        poll = type(provisioner).poll
        async def slow():
            await asyncio.sleep(self.slow_poll)
            return await poll(provisioner)
        provisioner.poll = slow


@asynccontextmanager
async def scripted(folder, clients=1, cls=Scripted, slow_poll=0., **kwargs):
    "A manager of fake kernels, and ready clients"
    km = cls(kernel_name='fake', kernel_spec_manager=kernel_specs(folder), **kwargs)
    km.slow_poll = slow_poll
    await km.start_kernel()
    kcs = [km.client() for _ in range(clients)]
    try:
        for o in kcs: o.start_channels()
        for o in kcs: await o.wait_for_ready(timeout=SOON)
        yield km, *kcs
    finally:
        for o in kcs: o.stop_channels()
        await km.shutdown_kernel(now=True)
        await until(lambda: not any(lives(o) for o in km.pids), what='the end of all kernels')


def lives(pid):
    try: return psutil.Process(pid).status()!=psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False

def kill(km): os.kill(km.provisioner.pid, signal.SIGKILL)

async def works(kc): assert (await asyncio.wait_for(kc.run('x'), SOON)).text=='x'

def task(coro): return asyncio.ensure_future(coro)


# --- one restart for all ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('slow_poll', [0., .05], ids=['fast_host', 'slow_host'])
async def test_twenty_callers_one_death_one_restart(tmp_path, slow_poll):
    "With a slow host, there is a time in which the restart was asked and has not begun: the others still see a dead kernel"
    async with scripted(tmp_path, clients=3, slow_poll=slow_poll) as (km, *kcs):
        async def caller(i):
            kc = kcs[i%3]
            with pytest.raises(DeadKernelError): await kc.run(STAY)
            await kc.restart()
            await works(kc)
        callers = [task(caller(i)) for i in range(20)]
        await until(lambda: all(o.router.busy for o in kcs))
        kill(km)
        await within(SOON, asyncio.gather(*callers))
        assert km.launches==2
        assert {o.connection.life.generation for o in kcs}=={1}


async def test_twenty_callers_at_once_of_a_living_kernel(tmp_path):
    async with scripted(tmp_path, clients=2) as (km, *kcs):
        await within(SOON, asyncio.gather(*[kcs[i%2].restart() for i in range(20)]))
        assert km.launches==2
        await asyncio.gather(*map(works, kcs))
        await kcs[0].restart()    # a later call is a restart of its own
        assert km.launches==3


async def test_a_late_caller_leaves_a_living_kernel_alone(tmp_path):
    async with scripted(tmp_path, clients=2) as (km, kc, other):
        late = kc.run(STAY)
        await until(lambda: kc.router.busy)
        kill(km)
        with pytest.raises(DeadKernelError): await late
        await other.restart(if_dead=True)
        await until(lambda: kc.status=='ready')   # (the kernel answers no question of its while the neighbour's cell holds it)
        neighbour = other.run('fake: busy stream=mine hold reply idle')
        await until(lambda: neighbour.partial.text=='mine')
        await kc.restart(if_dead=True)
        assert km.launches==2 and not neighbour.done()
        await kc.restart()
        with pytest.raises(KernelRestartedError): await neighbour
        assert km.launches==3


async def test_if_dead_sees_a_death_that_nobody_has_noticed(tmp_path):
    async with scripted(tmp_path) as (km, kc):
        for i in range(3):
            kill(km)
            os.waitid(os.P_PID, km.provisioner.pid, os.WEXITED|os.WNOWAIT)
            assert kc.status=='ready'
            await kc.restart(if_dead=True)
            assert km.launches==2+i and kc.status=='ready'
            await works(kc)


async def test_if_dead_waits_for_a_restart_that_is_under_way(tmp_path):
    async with scripted(tmp_path) as (km, kc):
        go = asyncio.get_running_loop().create_future()
        km.script = [go]
        first = task(km.restart_kernel(now=True))
        await kc.wait_for_status('restarting', timeout=SOON)
        late = [task(kc.restart(if_dead=o)) for o in (True, False)]
        await until(lambda: km.launches==2)
        assert not any(o.done() for o in late)
        go.set_result('ok')
        await within(SOON, asyncio.gather(first, *late))
        assert km.launches==2 and kc.status=='ready'


async def test_the_managers_own_method_restarts_at_each_call(tmp_path):
    async with scripted(tmp_path) as (km, kc):
        await within(SOON, asyncio.gather(*[km.restart_kernel(now=True) for _ in range(3)]))
        assert km.launches==4
        await kc.wait_for_ready(timeout=SOON)
        await works(kc)


@pytest.mark.parametrize('who', ['first', 'other', 'first, at once'])
async def test_a_cancel_ends_one_wait(tmp_path, who):
    async with scripted(tmp_path, clients=2) as (km, kc, other):
        go = asyncio.get_running_loop().create_future()
        km.script = [go]
        calls = [task(kc.restart(now=True)), task(other.restart()), task(kc.restart())]
        if who!='first, at once': await until(lambda: km.launches==2)
        else: await asyncio.sleep(0)
        gone = calls.pop(1 if who=='other' else 0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError): await within(SOON, gone)
        assert not any(o.done() for o in calls)
        go.set_result('ok')
        await within(SOON, asyncio.gather(*calls))
        assert km.launches==2
        await asyncio.gather(works(kc), works(other))


async def test_the_last_cancel_ends_the_restart(tmp_path):
    "And a call that comes while it ends does not join it"
    async with scripted(tmp_path, clients=2) as (km, kc, other):
        km.script = [asyncio.get_running_loop().create_future()]
        calls = [task(o.restart(now=True)) for o in (kc, other, kc)]
        await until(lambda: km.launches==2)
        for o in calls: o.cancel()
        await asyncio.sleep(0)
        again = task(kc.restart())
        assert {type(o) for o in (await outcomes(calls))[0]}=={asyncio.CancelledError}
        await within(SOON, again)
        assert km.launches==3
        await asyncio.gather(works(kc), works(other))


async def test_a_failure_reaches_all(tmp_path):
    async with scripted(tmp_path, clients=2) as (km, kc, other):
        km.script = ['fail']
        waiting = kc.run(STAY)
        errors, _ = await outcomes([o.restart() for o in (kc, other)*5])
        assert all('no more processes' in str(o) for o in errors) and km.launches==2
        with pytest.raises(DeadKernelError): await waiting
        assert kc.status==other.status=='dead'
        await within(SOON, asyncio.gather(*[o.restart() for o in (kc, other)*5]))
        assert km.launches==3
        await works(other)


async def test_a_call_that_joins_the_managers_restart_does_not_fail_with_it(tmp_path):
    "Whoever called the manager gave up; those who called the client did not"
    async with scripted(tmp_path) as (km, kc):
        km.script = [asyncio.get_running_loop().create_future()]
        manager = task(km.restart_kernel(now=True))
        await until(lambda: km.launches==2)
        calls = [task(kc.restart()) for _ in range(5)]
        await asyncio.sleep(0)
        manager.cancel()
        await within(SOON, asyncio.gather(*calls))
        assert manager.cancelled() and km.launches==3
        await works(kc)


async def test_a_kernel_that_hangs_at_its_start_is_restarted(tmp_path):
    "Those who call while somebody waits join; after a wait in vain, the next call is a restart"
    async with scripted(tmp_path, clients=2) as (km, kc, other):
        km.script = ['hang', 'hang']
        for i in range(2):
            errors, _ = await outcomes([o.restart(timeout=.5) for o in (kc, other)*10])
            assert all("didn't respond" in str(o) for o in errors) and km.launches==2+i
        await within(SOON, asyncio.gather(*[kc.restart() for _ in range(20)]))
        assert km.launches==4
        await asyncio.gather(works(kc), works(other))


async def test_a_cancelled_wait_is_in_vain_after_a_while(tmp_path, monkeypatch):
    "A caller with a time limit of its own; one that is cancelled soon lets the kernel come"
    async with scripted(tmp_path) as (km, kc):
        km.script = ['hang']
        async def call(): await asyncio.wait_for(kc.restart(), .3)
        for _ in range(2):
            with pytest.raises(TimeoutError): await call()
        assert km.launches==2
        monkeypatch.setattr(connection, 'PATIENCE', .5)
        with pytest.raises(TimeoutError): await call()
        await within(SOON, kc.restart())
        assert km.launches==3
        await works(kc)


async def test_if_dead_never_kills_what_starts(tmp_path):
    async with scripted(tmp_path) as (km, kc):
        km.script = ['hang']
        for o in False, True, True:
            with pytest.raises(RuntimeError, match="didn't respond"): await kc.restart(timeout=.3, if_dead=o)
        assert km.launches==2


async def test_clients_of_jupyter_clients_own_manager_share_a_restart(tmp_path):
    "It bears no two restarts at a time. (It does not tell its clients of a restart, so they may see a death.)"
    km = AsyncKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path), client_factory=ConKernelClient)
    await km.start_kernel()
    kcs = [km.client() for _ in range(2)]
    for o in kcs:
        o.start_channels()
        await o.wait_for_ready(timeout=SOON)
    count = 0
    launch = km._async_launch_kernel
    async def counted(*args, **kwargs):
        nonlocal count
        count += 1
        await launch(*args, **kwargs)
    km._async_launch_kernel = counted
    try:
        await outcomes([o.restart(now=True) for o in kcs*5])
        assert count==1
    finally:
        for o in kcs: o.stop_channels()
        await km.shutdown_kernel(now=True)


async def test_without_a_manager_it_says_so():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        with pytest.raises(UnsupportedFeature): await kc.restart()
        await kc.restart(if_dead=True)    # it lives, as far as anybody knows
        kc.stop_channels()


async def test_real_kernels_stubborn_callers():
    "What the docs say to do, by twenty at once: each has its answer, and one restart was enough"
    async with run_kernel() as (km, kc):
        generation = kc.connection.life.generation
        async def stubbornly(code, attempts=2):
            for _ in range(attempts):
                try: return await kc.run(code, check=True)
                except DeadKernelError: await kc.restart(if_dead=True)
            raise DeadKernelError(f'It died {attempts} times')
        callers = [task(stubbornly(f'import time; time.sleep(.01); {i}')) for i in range(20)]
        await until(lambda: kc.router.busy)
        kill(km)
        (res, _) = await outcomes(callers)
        assert [o.text.strip() for o in res]==[str(i) for i in range(20)]
        assert kc.connection.life.generation==generation+1
        with pytest.raises(DeadKernelError, match='2 times'): await stubbornly('import os; os._exit(1)')


# --- a kernel that comes back by itself -------------------------------------------------------------------------------

async def test_it_comes_back_and_calls_wait_for_it(tmp_path, caplog):
    caplog.set_level(logging.WARNING, 'conkernelclient')
    async with scripted(tmp_path, clients=2, restart_on_death=True) as (km, kc, other):
        seen = []
        other.on_status(seen.append)
        dying, queued, request = kc.run(CRASH), kc.run('x'), other.kernel_info(reply=True)
        for o in dying, queued:
            with pytest.raises(KernelRestartedError, match='exit code 3') as e: await within(SOON, o)
            assert e.value.exit_code==3
        assert kc.status=='restarting'
        await until(lambda: 'restarting' in seen, what='the other client to be told')   # before that, it would send to the dead kernel
        await asyncio.gather(works(kc), works(other))
        assert (kc.status, other.status)==('ready', 'ready') and km.launches==2
        assert [o for o in seen if o not in ('busy', 'ready')]==['restarting']
        assert 'has died (exit code 3), and is restarted (1 of at most 5' in caplog.text
        request.cancel()


async def test_each_in_a_row_waits_longer_and_the_last_stays_dead(tmp_path, caplog):
    "Kernels that die at their start: what waits for them fails when it is over, and no earlier"
    async with scripted(tmp_path, restart_on_death=True, restart_limit=3, restart_delay=.2) as (km, kc):
        km.script = ['die']*3
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        statuses = []
        kc.on_status(statuses.append)
        waiting = kc.run('x')
        with pytest.raises(DeadKernelError, match='died 4 times in a row'): await within(SOON, waiting)
        assert kc.status=='dead' and statuses==['dead'] and km.launches==4
        first, second, third = (b-a for a, b in zip(km.began[1:], km.began[2:]+[float('inf')]))
        assert first>=.4 and second>=.8
        assert 'has died 4 times in a row, and stays dead' in caplog.text
        with pytest.raises(DeadKernelError, match='restart'): await kc.run('x')
        await asyncio.sleep(.3)
        assert km.launches==4 and not km.will_restart
        await kc.restart()       # by hand: a new row
        await works(kc)
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        await works(kc)


async def test_a_long_life_ends_the_row(tmp_path, monkeypatch):
    import conkernelclient.core as core
    async with scripted(tmp_path, restart_on_death=True, restart_limit=1) as (km, kc):
        monkeypatch.setattr(core, 'STABLE', 0.)
        for _ in range(3):
            with pytest.raises(KernelRestartedError): await kc.run(CRASH)
            await works(kc)
        monkeypatch.setattr(core, 'STABLE', 60.)
        with pytest.raises(DeadKernelError) as e: await kc.run(CRASH)
        assert type(e.value) is DeadKernelError and kc.status=='dead' and km.launches==4


async def test_a_launch_that_fails_is_tried_again(tmp_path):
    async with scripted(tmp_path, restart_on_death=True) as (km, kc):
        km.script = ['fail', 'fail']
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        await until(lambda: km.launches==4)
        await kc.wait_for_status('ready', timeout=SOON)
        await works(kc)


async def test_a_death_while_the_restart_is_under_way(tmp_path):
    "Killed before it has answered, again and again"
    async with scripted(tmp_path, restart_on_death=True) as (km, kc):
        go = asyncio.get_running_loop().create_future()
        km.script = ['hang', 'die', go]
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        waiting = kc.run('x')
        joined = task(kc.restart())
        await until(lambda: len(km.pids)==2)
        kill(km)
        await until(lambda: km.launches==4)
        assert kc.status=='restarting' and not waiting.done() and not joined.done()
        go.set_result('ok')
        assert (await within(SOON, waiting))[0].text=='x'
        await within(SOON, joined)
        assert km.launches==4


@pytest.mark.parametrize('what', ['die', 'hang'])
async def test_a_kernel_that_has_never_answered_is_not_restarted(tmp_path, what):
    km = Scripted(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path), restart_on_death=True)
    km.script = [what]
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    if what=='hang': kill(km)
    with pytest.raises(DeadKernelError): await kc.wait_for_ready(timeout=SOON)
    await asyncio.sleep(.3)
    assert km.launches==1
    kc.stop_channels()
    await km.shutdown_kernel(now=True)


async def test_without_a_client_it_comes_back_too(tmp_path):
    async with scripted(tmp_path, restart_on_death=True) as (km, kc):
        kc.stop_channels()
        kill(km)
        await until(lambda: km.launches==2)
        await until(lambda: not km.restarting)
        other = km.client()
        other.start_channels()
        await other.wait_for_ready(timeout=SOON)
        await works(other)
        other.stop_channels()


@pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='needs a watch on the process that can be taken away')
async def test_without_a_watch_on_the_process_a_client_notices(tmp_path, monkeypatch):
    "As on other systems than Linux"
    def none(pid): raise OSError
    monkeypatch.setattr(os, 'pidfd_open', none)
    async with scripted(tmp_path, restart_on_death=True) as (km, kc):
        km.script = ['die']
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        await works(kc)
        assert km.launches==3


async def test_a_restart_by_hand_does_not_wait_for_the_delay(tmp_path):
    async with scripted(tmp_path, restart_on_death=True, restart_delay=1.) as (km, kc):
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        await within(SOON, km.restart_kernel(now=True))
        await kc.wait_for_ready(timeout=SOON)
        await works(kc)
        pid = km.provisioner.pid
        await asyncio.sleep(1.2)
        assert km.launches==2 and km.provisioner.pid==pid
        await works(kc)


@pytest.mark.parametrize('when', ['in the delay', 'in the restart', 'at the death'])
@pytest.mark.parametrize('how', ['shutdown', 'end_kernel'])
async def test_a_shutdown_ends_it(tmp_path, when, how):
    "Nothing starts afterwards, and who waits gets an error"
    async with scripted(tmp_path, restart_on_death=True, restart_delay=.5 if when=='in the delay' else 0.) as (km, kc):
        go = asyncio.get_running_loop().create_future()
        km.script = [go]
        with pytest.raises(KernelRestartedError):
            if when!='at the death': await kc.run(CRASH)
            else:
                kill(km)
                raise KernelRestartedError
        waiting = None if when=='at the death' else kc.run('x')
        if when=='in the restart': await until(lambda: km.launches==2)
        end = task(km.shutdown_kernel(now=True) if how=='shutdown' else end_kernel(km))
        await asyncio.sleep(0)
        go.set_result('ok')
        await within(SOON, end)
        if waiting is not None:
            with pytest.raises(DeadKernelError): await within(SOON, waiting)
        launches = km.launches
        await asyncio.sleep(.7)
        assert km.launches==launches and not km.has_kernel and not km.will_restart
        await until(lambda: kc.status=='dead')
        await km.start_kernel()      # and a start makes all as it was
        other = km.client()
        other.start_channels()
        await other.wait_for_ready(timeout=SOON)
        with pytest.raises(KernelRestartedError): await other.run(CRASH)
        await works(other)
        other.stop_channels()


@pytest.mark.parametrize('delay', [0., .5])
async def test_closing_ends_it(delay):
    async with open_kernel(restart_on_death=True) as kc:
        km = kc.manager
        km.restart_delay = delay
        kill(km)
        await kc.wait_for_status('restarting', timeout=SOON)
        waiting = kc.run('1')
    with pytest.raises(ClientClosedError): await waiting
    await asyncio.sleep(.7)
    assert not km.has_kernel and not km.will_restart and kc.status=='closed'


async def test_the_end_in_the_middle_of_a_restart_leaves_no_process(tmp_path):
    "The old process is gone, the next is not there yet"
    async with scripted(tmp_path) as (km, kc):
        go = asyncio.get_running_loop().create_future()
        km.script = [go]
        restart = task(kc.restart(now=True))
        await until(lambda: km.launches==2)
        assert not km.has_kernel
        end = task(end_kernel(km))
        await asyncio.sleep(.05)
        go.set_result('ok')
        await within(SOON, end)
        with pytest.raises(DeadKernelError): await within(SOON, restart)
        assert len(km.pids)==2 and not any(map(lives, km.pids))


async def test_it_can_be_switched_on_and_off(tmp_path):
    async with scripted(tmp_path) as (km, kc):
        with pytest.raises(DeadKernelError): await kc.run(CRASH)
        assert kc.status=='dead' and not km.will_restart
        await kc.restart()
        km.restart_on_death = True
        with pytest.raises(KernelRestartedError): await kc.run(CRASH)
        await works(kc)
        km.restart_on_death = False
        with pytest.raises(DeadKernelError): await kc.run(CRASH)
        assert kc.status=='dead'


async def test_what_is_asked_of_the_dead_kernel_is_never_run_by_the_next(tmp_path):
    "Real kernels: a counter in a file says what has run"
    async with open_kernel(restart_on_death=True) as kc:
        path = tmp_path/'ran'
        def count(i): return f'open({str(path)!r}, "a").write("{i} ")'
        runs = [kc.run('import os; os._exit(1)'), *(kc.run(count(i)) for i in range(10))]
        errors, _ = await outcomes(runs)
        assert kinds(errors)=={KernelRestartedError}
        await kc.run(count('new'), check=True)
        assert path.read_text()=='new '


# --- a cell that ends its kernel --------------------------------------------------------------------------------------

BECAUSE = r'\(exit code 0\) because a cell called exit\(\)'

@pytest.mark.parametrize('code', ['exit()', 'quit'])
async def test_a_death_by_exit_says_so(code):
    async with run_kernel() as (km, kc):
        assert (await kc.run(code)).status=='ok'
        waiting = kc.run('import asyncio; await asyncio.sleep(60)')
        with pytest.raises(DeadKernelError, match=f'died {BECAUSE}$'): await within(SOON, waiting)
        with pytest.raises(DeadKernelError, match=f'is dead {BECAUSE}; '): await kc.run('1')
        await kc.restart()
        os.kill(km.provisioner.pid, signal.SIGKILL)
        await kc.wait_for_status('dead', timeout=SOON)
        with pytest.raises(DeadKernelError) as e: await kc.run('1')
        assert 'exit()' not in str(e.value)


async def test_a_death_by_exit_of_an_execute_request_and_a_restart():
    async with open_kernel(restart_on_death=True) as kc:
        kc.execute('exit()')
        waiting = kc.run('import asyncio; await asyncio.sleep(60)')
        with pytest.raises(KernelRestartedError, match=f'died {BECAUSE}, and is being restarted'): await within(SOON, waiting)
        assert await kc.eval('6*7')==42


async def test_a_kernel_that_keeps_running_has_not_exited():
    async with run_kernel() as (km, kc):
        for o in 'exit(keep_kernel=True)', 'raise SystemExit', 'print?': await kc.run(o)
        os.kill(km.provisioner.pid, signal.SIGKILL)
        await kc.wait_for_status('dead', timeout=SOON)
        with pytest.raises(DeadKernelError) as e: await kc.run('1')
        assert 'exit()' not in str(e.value)
