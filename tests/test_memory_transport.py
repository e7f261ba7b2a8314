"""The client over a transport that keeps both ends in memory, in virtual time: the same behaviour as over ZMQ's sockets"""
import asyncio, functools
from contextlib import asynccontextmanager

import pytest
from conkernelclient import *
from conkernelclient.cells.outputs import ExecutionError, ExecutionTimeout
from conkernelclient.engine.connection import Connection
from conkernelclient.engine.errors import *
from conkernelclient.engine.session import ConSession
from conkernelclient.engine.transport import NoHost, Transport, Host
from memory_transport import MemoryClient, MemoryTransport, Place
from model_kernel import Machine
from virtual_time import run_virtual


def virtual(test):
    "Run the coroutine test in virtual time"
    @functools.wraps(test)
    def run(*args, **kwargs): return run_virtual(test(*args, **kwargs), limit=600)
    return run

@asynccontextmanager
async def kernel(host=True, **kwargs):
    "Gives a machine with a running kernel, and a ready client"
    place = Place()
    machine = Machine(place)
    machine.start()
    kc = MemoryClient(place, machine if host else NoHost(), clock=asyncio.get_running_loop().time, **kwargs)
    if host: machine.clients.append(kc)
    try:
        await kc.start_channels()
        yield machine, kc
    finally:
        kc.stop_channels()
        if machine.restarter is not None: machine.restarter.cancel()
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not kc.router.table and not kc.router.graces

def now(): return asyncio.get_running_loop().time()


def test_it_is_a_transport():
    assert isinstance(MemoryTransport(Place()), Transport)

@virtual
async def test_the_machine_is_a_host(): assert isinstance(Machine(Place()), Host)

@virtual
async def test_a_connection_alone():
    place = Place()
    Machine(place).start()
    conn = Connection(MemoryTransport(place), ConSession(key=b''), clock=asyncio.get_running_loop().time)
    conn.open(['shell', 'iopub', 'control', 'hb'])
    await conn.ready(5)
    req = conn.request('history_request', dict(n=3))
    assert (await req)['content']['asked'] == dict(n=3)
    assert (await req.wait()).complete
    conn.close()

@virtual
async def test_replies():
    async with kernel() as (_, kc):
        replies = await asyncio.gather(*[kc.execute(f'c{i}', reply=True) for i in range(500)])
        assert [o['content']['code'] for o in replies] == [f'c{i}' for i in range(500)]
        req = kc.request('execute_request', dict(code='x out=2'))
        assert [o['msg_type'] async for o in req] == ['status', 'execute_input', 'stream', 'stream', 'status']
        msg_id = kc.execute('mail')
        assert (await kc.get_shell_msg(timeout=1))['parent_header']['msg_id'] == msg_id
        assert [o['msg_type'] for o in await kc.get_pubs(msg_id)] == ['status', 'execute_input', 'stream', 'status']

@virtual
async def test_runs():
    async with kernel() as (_, kc):
        runs = [kc.run(f'r{i} take=.1') for i in range(5)]
        began = now()
        assert [o.text for o in await asyncio.gather(*runs)] == [f'r{i};' for i in range(5)]
        assert now()-began == pytest.approx(.5)
        with pytest.raises(ExecutionError): await kc.run('x error', check=True)
        assert (await kc.run('x ask', stdin='me')).text == 'x;[me]'
        seen = [e.text async for e in kc.run('x take=.3 out=3')]
        assert seen == ['x;']*3

@virtual
async def test_time_limits():
    async with kernel() as (machine, kc):
        began = now()
        with pytest.raises(ReplyTimeout): await kc.execute('x take=9', reply=True, timeout=2)
        assert now()-began == pytest.approx(2)
        await kc.request('history_request')
        began = now()
        with pytest.raises(ExecutionTimeout): await kc.run('y hang', timeout=3)
        assert 3 <= now()-began < 3.1
        with pytest.raises(ExecutionTimeout):
            slow = kc.run('z take=2')
            await kc.run('never', queue_timeout=1)
        assert (await slow).text == 'z;'
        assert 'never' not in machine.kernel.ran

@virtual
async def test_cancelling():
    async with kernel() as (machine, kc):
        running, queued = kc.run('x hang'), kc.run('queued')
        task = asyncio.create_task(running)
        await asyncio.sleep(1)
        queued.cancel()
        task.cancel()
        for o in task, queued:
            with pytest.raises(asyncio.CancelledError): await o
        assert (await kc.run('next')).text == 'next;'
        assert machine.kernel.ran == ['x hang', 'next']

@virtual
async def test_an_interrupt():
    async with kernel() as (_, kc):
        run = kc.run('x hang')
        await asyncio.sleep(1)
        await kc.interrupt()
        assert (await run).error.ename == 'KeyboardInterrupt'

@pytest.mark.parametrize('at_once', [True, False])
@virtual
async def test_a_restart_by_the_host(at_once):
    async with kernel() as (machine, kc):
        machine.lingers = 1.
        old = [kc.run('old hang'), kc.run('queued'), kc.execute('executed hang', reply=True)]
        await asyncio.sleep(.1)
        restart = asyncio.create_task(kc.restart(now=at_once))
        await asyncio.sleep(.01)
        during = kc.run('during')
        for o in old:
            with pytest.raises(KernelRestartedError): await o
        await restart
        assert (await during).text == 'during;'
        assert machine.kernel.ran == ['during'] and kc.status == 'ready'

@virtual
async def test_a_restarter():
    async with kernel() as (machine, kc):
        machine.start_restarter()
        run = kc.run('x hang')
        await asyncio.sleep(.1)
        machine.kill()
        with pytest.raises(KernelRestartedError, match='exit code -9'): await run
        assert (await kc.run('new')).text == 'new;'

@virtual
async def test_a_death():
    async with kernel() as (machine, kc):
        began = now()
        with pytest.raises(DeadKernelError) as e: await kc.run('x die=3')
        assert e.value.exit_code == 3 and now()-began < .1 and kc.status == 'dead'
        with pytest.raises(DeadKernelError): await kc.execute('y', reply=True)
        await kc.restart()
        assert (await kc.run('new')).text == 'new;'

@virtual
async def test_a_death_that_no_host_tells():
    async with kernel(host=False) as (machine, kc):
        run = kc.run('x hang')
        await asyncio.sleep(.1)
        machine.kill()
        began = now()
        with pytest.raises(DeadKernelError): await run
        assert kc.lost_after <= now()-began < kc.lost_after+.1
        machine.start()
        await kc.wait_for_status('ready', timeout=5)
        assert (await kc.run('new')).text == 'new;'

@pytest.mark.parametrize('silent', [True, False])
@virtual
async def test_a_restart_by_somebody_else(silent):
    async with kernel(host=False) as (machine, kc):
        machine.swap(silent, gap=.1)
        await asyncio.sleep(1)
        if silent: await kc.kernel_info(reply=True)
        await kc.wait_for_status('ready', timeout=5)
        assert kc.connection.life.generation == 1
        assert (await kc.run('new')).text == 'new;'

@virtual
async def test_iopub_is_lost():
    async with kernel() as (machine, kc):
        running = kc.request('execute_request', dict(code='x take=.5'))
        await asyncio.sleep(.1)
        machine.place.lines('iopub')[0].block(1)
        await asyncio.sleep(.1)
        began = now()
        waits, control = kc.run('waits'), kc.kernel_info(reply=True, channel='control')
        await control
        assert now()-began == 0
        assert (await waits).text == 'waits;'
        assert .8 < now()-began < 1.
        assert not (await running.wait()).complete

@virtual
async def test_shell_is_lost():
    async with kernel() as (machine, kc):
        kc.lost_after = 60
        req = kc.execute('x take=.5', reply=True)
        await asyncio.sleep(.1)
        machine.place.lines('shell')[0].block(1)
        with pytest.raises(NoReplyError): await req
        assert (await kc.run('next')).text == 'next;'

@virtual
async def test_subshells():
    async with kernel() as (machine, kc):
        hang = kc.run('x hang')
        async with kc.subshell() as sh:
            assert (await sh.run('y')).text == 'y;'
            assert machine.kernel.open_subshells == [sh.id]
        assert machine.kernel.open_subshells == []
        await kc.interrupt()
        assert (await hang).error.ename == 'KeyboardInterrupt'
        began = now()
        results = await kc.map([f'm{i} take=1' for i in range(10)], concurrency=4)
        assert [o.text for o in results] == [f'm{i};' for i in range(10)] and 3 <= now()-began < 3.5

@virtual
async def test_two_clients():
    async with kernel() as (machine, kc):
        other = MemoryClient(machine.place, name='other')
        await other.start_channels()
        a, b = kc.run('a take=.1'), other.run('b take=.1')
        assert (await a).text == 'a;' and (await b).text == 'b;'
        await kc.restart()
        await other.wait_for_status('ready', timeout=5)
        assert (await other.run('c')).text == 'c;' and other.connection.life.generation == 1
        other.stop_channels()

@virtual
async def test_closing():
    async with kernel() as (_, kc):
        pending = [kc.run('x hang'), kc.run('y'), kc.execute('z', reply=True), kc.request('history_request').wait()]
        await asyncio.sleep(.1)
        kc.stop_channels()
        for o in pending:
            with pytest.raises(ClientClosedError): await o
