"""`run.interrupt(force=True)`: a cell that blocks inside an awaited coroutine is stopped, and nothing else is touched."""
import asyncio

import pytest
from conkernelclient import ConKernelClient, UnsupportedFeature, run_kernel
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import pytestmark

bound = 60
START = 'import asyncio, time\nkept = 6\n'
BLOCKS = dict(
    sleep='async def f(): time.sleep(60)\nawait f()',
    short_sleeps='async def f():\n    while True: time.sleep(.01)\nawait f()',
    computes='async def f():\n    while True: pass\nawait f()',
    top='await asyncio.sleep(0)\ntime.sleep(60)',
    task='async def f(): time.sleep(60)\nawait asyncio.create_task(f())',
    gathered='async def f(): time.sleep(60)\nawait asyncio.gather(f(), f(), f())')


async def begun(kc, code):
    run = kc.run(code)
    await within(SOON, run.wait_until(lambda: run.inside))
    return run


SLOW = 'short_sleeps', 'top', 'task'

@pytest.mark.parametrize('name', [pytest.param(o, marks=pytest.mark.slow) if o in SLOW else o for o in BLOCKS])
async def test_a_blocking_call_in_a_coroutine_is_stopped(name):
    async with run_kernel() as (km, kc):
        run = await begun(kc, START+BLOCKS[name])
        kc.interrupt_timeout = 4.
        assert (await within(SOON, run.interrupt(force=True)))[0] is True
        kind = 'CancelledError' if name in ('task', 'gathered') else 'KeyboardInterrupt'
        assert (await within(SOON, run))[0].error.ename==kind
        assert not run.ignored and await kc.eval('kept')==6 and kc.connection.life.generation==0


async def forced(kc, monkeypatch):
    "How often an exception was asked for"
    asked = []
    force = kc.runs.force
    async def counted():
        asked.append(res := await force())
        return res
    monkeypatch.setattr(kc.runs, 'force', counted)
    return asked


async def test_nothing_is_forced_where_an_interrupt_does(monkeypatch):
    async with run_kernel() as (km, kc):
        asked = await forced(kc, monkeypatch)
        for code, kind in ('time.sleep(60)', 'KeyboardInterrupt'), ('await asyncio.sleep(60)', 'CancelledError'):
            run = await begun(kc, START+code)
            assert (await within(SOON, run.interrupt(force=True)))[0] is True
            assert (await within(SOON, run))[0].error.ename==kind
            assert (await within(SOON, run.interrupt(force=True)))[0] is False, 'it is over'
        assert asked==[]


@pytest.mark.parametrize('code', [
    'while go:\n    try: time.sleep(.05)\n    except KeyboardInterrupt: pass',
    'async def f():\n    while go:\n        try: await asyncio.sleep(.05)\n        except asyncio.CancelledError: pass\nawait f()'])
async def test_a_cell_that_catches_the_interrupt_is_left_alone(code, monkeypatch, caplog):
    async with run_kernel() as (km, kc):
        kc.interrupt_timeout = .5
        asked = await forced(kc, monkeypatch)
        run = await begun(kc, f'{START}go = True\n{code}\nprint("to its end")')
        assert (await within(SOON, run.interrupt(force=True)))[0] is True
        assert not run.over and run.ignored and asked==[False]
        assert 'kc.restart() is the way out' in caplog.text
        await kc.aside.run('go = False')
        assert (await within(SOON, run))[0].text.endswith('to its end\n')


async def test_a_kernel_without_subshells(caplog):
    with FakeKernel(on={'execute_request': 'busy echo hold reply idle'}, subshells=False, interrupts=False) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            kc.interrupt_timeout = .2
            run = await begun(kc, 'x')
            assert (await within(SOON, run.interrupt(force=True)))[0] is True
            assert run.ignored and 'The kernel ignores the interrupt' in caplog.text
            assert fk.codes==['x']
            fk.release()
            assert (await within(SOON, run))[0].status=='ok'
        finally: kc.stop_channels()


async def test_a_restart_while_it_is_forced(monkeypatch):
    async with run_kernel() as (km, kc):
        kc.interrupt_timeout = .4
        run = await begun(kc, START+BLOCKS['sleep'])
        async def slow():
            await kc.restart(now=True)
            return False
        monkeypatch.setattr(kc.runs, 'force', slow)
        assert (await within(SOON, run.interrupt(force=True)))[0] is True
        with pytest.raises(RuntimeError, match='restarted'): await run
        assert (await within(SOON, kc.run('1+1')))[0].text.strip()=='2'


async def test_not_on_a_subshell(kc):
    async with kc.subshell() as sh:
        run = sh.run('1')
        with pytest.raises(UnsupportedFeature): run.interrupt(force=True)
        await within(SOON, run)
