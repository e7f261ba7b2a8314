"""How a connection is doing, for people: `kc.status`, and what is logged of it."""
import asyncio, logging, signal
import pytest
from conkernelclient import ConKernelManager, DeadKernelError, run_kernel

SOON = 60    # seconds: far more than anything here takes
SECRET = 'k33p-this-to-yourself'


def watched(kc):
    seen = []
    return seen, kc.on_status(seen.append)


async def test_a_life():
    "From starting to closed, with a death and a restart between"
    km = ConKernelManager()
    await km.start_kernel()
    kc = km.client()
    assert kc.status=='closed'
    try:
        seen, _ = watched(kc)
        kc.start_channels()
        assert kc.status=='starting'
        await kc.wait_for_status('ready', timeout=SOON)
        slow = kc.execute('import time; time.sleep(100)', reply=True)
        assert kc.status=='busy'
        await km.signal_kernel(signal.SIGKILL)
        assert await kc.wait_for_status('dead', timeout=SOON)=='dead'
        with pytest.raises(DeadKernelError): await slow
        restart = asyncio.ensure_future(km.restart_kernel())
        await kc.wait_for_status('restarting', timeout=SOON)
        await restart
        await kc.wait_for_status('ready', timeout=SOON)
        assert (await kc.execute('1', reply=True, timeout=SOON))['content']['status']=='ok'
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)
    assert kc.status=='closed'
    assert [o for o in seen if o not in ('busy','unresponsive')]==['starting','ready','dead','restarting','ready','ready','closed'] \
        or [o for o in dict.fromkeys(seen)][:2]==['starting','ready'] and seen[-1]=='closed', seen


async def test_waiting_begins_while_busy():
    "A status that changed while nobody watched is known to those who begin to watch"
    async with run_kernel() as (km,kc):
        kc.execute('1')
        assert kc.status=='busy'
        assert await kc.wait_for_status('ready', timeout=5)=='ready'


async def test_watching_ends():
    "A callback that was removed is not called, and one that raises hurts nobody"
    async with run_kernel() as (km, kc):
        seen, remove = watched(kc)
        kc.on_status(lambda status: 1/0)
        await kc.execute('1', reply=True, timeout=SOON)
        assert seen[:2]==['busy','ready']
        remove()
        n = len(seen)
        await kc.execute('1', reply=True, timeout=SOON)
        assert len(seen)==n
    with pytest.raises(TimeoutError): await kc.wait_for_status('ready', timeout=.01)


async def test_no_code_and_no_output_above_debug(caplog):
    "What happened to the connection is told at INFO and above; what people ran never is"
    caplog.set_level(logging.DEBUG, 'conkernelclient')
    async with run_kernel() as (km, kc):
        await kc.execute(f'print({SECRET!r}); {SECRET!r}', reply=True, timeout=SOON)
        res = await kc.run(f'print({SECRET!r}); 1/0  # {SECRET}')
        assert SECRET in res.text
        waiting = kc.execute(f'import time; time.sleep(100)  # {SECRET}', reply=True)
        await km.signal_kernel(signal.SIGKILL)
        with pytest.raises(DeadKernelError): await asyncio.wait_for(waiting, SOON)
        await km.restart_kernel()
        await kc.wait_for_ready(timeout=SOON)
    told = [o for o in caplog.records if o.name=='conkernelclient' and o.levelno>=logging.INFO]
    assert any('is dead' in o.getMessage() and o.levelno==logging.WARNING for o in told)
    assert any('is ready' in o.getMessage() and o.levelno==logging.INFO for o in told)
    assert not [o for o in told if SECRET in o.getMessage()]
    assert any('execute_request' in o.getMessage() for o in caplog.records if o.levelno==logging.DEBUG)
