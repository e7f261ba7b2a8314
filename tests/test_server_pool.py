"""A pool whose kernels run behind a real Jupyter server; the rules of a pool stand in test_pool.py"""
import asyncio, os, signal

import pytest
from conkernelclient import *
from proxy import Proxy, free_port
from test_server import SOON, kernel, until

bound = 90
pytestmark = pytest.mark.filterwarnings('error')


async def there(jupyter): return [o['id'] for o in await list_kernels(jupyter.url, jupyter.token)]
def pool_at(jupyter, *args, **kwargs): return KernelPool(*args, url=jupyter.url, token=jupyter.token, **kwargs)


async def test_fresh_kernels_and_none_is_left(jupyter):
    async with pool_at(jupyter, 3, 1, preload=['decimal', 'fractions'], setup='n = 6') as pool:
        await pool.filled(SOON)
        async with pool.kernel(timeout=SOON) as kc:
            assert type(kc) is ServerKernelClient and kc.parent.kernel_id in await there(jupyter)
            assert await kc.eval('n*7') == 42 and await kc.eval('fractions.__name__, decimal.__name__') == ('fractions', 'decimal')
        results = await pool.map([f'print("x" in globals()); x = {i}; x' for i in range(5)])
        assert [o.stdout for o in results] == ['False\n']*5 and [o.text.split()[-1] for o in results] == list('01234')
        assert pool.stats.memory is None and pool.stats.alive <= 3 and pool.stats.started >= 6
    assert await there(jupyter) == []

async def test_kernels_that_are_used_again(jupyter):
    async with pool_at(jupyter, 1, 0, max_uses=3) as pool:
        async with pool.kernel(timeout=SOON) as kc:
            await kc.run('x = 1')
            first = kc.parent.kernel_id
        async with pool.kernel(timeout=SOON) as kc: assert await kc.eval('x') == 1 and kc.parent.kernel_id == first
        async with pool.kernel(timeout=SOON, env=dict(COLOUR='blue')) as kc: assert kc.parent.kernel_id != first   # another one
    assert await there(jupyter) == []

async def test_a_spare_that_somebody_deletes_is_not_lent(jupyter):
    async with pool_at(jupyter, 1, 1) as pool:
        await pool.filled(SOON)
        first, = await there(jupyter)
        await jupyter.delete(f'api/kernels/{first}')
        async with pool.kernel(timeout=SOON) as kc: assert await kc.eval('6*7') == 42 and kc.parent.kernel_id != first

async def test_a_kernel_that_dies_in_use(jupyter):
    "The server starts it again; the pool does not lend it again"
    async with pool_at(jupyter, 1, 0, max_uses=9) as pool:
        async with pool.kernel(timeout=SOON) as kc:
            await kc.run('x = 1')
            first = kc.parent.kernel_id
            os_pid = await kc.eval('__import__("os").getpid()')
            os.kill(os_pid, signal.SIGKILL)
            with pytest.raises(KernelRestartedError): await kc.run('import time; time.sleep(60)')
        async with pool.kernel(timeout=SOON) as kc: assert await kc.eval('"x" in globals()') is False and kc.parent.kernel_id != first
    assert await there(jupyter) == []

async def test_closed_while_kernels_start(jupyter):
    async with pool_at(jupyter, 3, 3) as pool: await until(lambda: pool.stats.starting >= 2)
    assert await there(jupyter) == []

async def test_why_there_is_no_kernel(jupyter):
    async def message(**kwargs):
        with pytest.raises(ConKernelError) as e:
            async with KernelPool(1, 0, **{**dict(url=jupyter.url, token=jupyter.token), **kwargs}) as pool:
                async with pool.kernel(timeout=SOON): pass
        return str(e.value)
    assert 'Nothing listens' in await message(url=f'http://127.0.0.1:{free_port()}')
    assert 'refuses the token' in await message(token='wrong')
    assert 'cobol' in await message(kernel_name='cobol')

async def test_a_server_that_is_away_for_some_time(jupyter):
    "Calls raise the reason; when it is back, the pool goes on"
    async with Proxy(jupyter.port) as proxy:
        async with pool_at(proxy_of(proxy, jupyter), 1, 0) as pool:
            async with pool.kernel(timeout=SOON) as kc: assert await kc.eval('6*7') == 42
            await until(lambda: not pool.stats.alive)
            await proxy.refuse()
            proxy.cut()
            with pytest.raises(ServerError, match='Nothing listens'):
                async with pool.kernel(timeout=SOON): pass
            await proxy.listen()
            async with pool.kernel(timeout=SOON) as kc: assert await kc.eval('6*7') == 42
    assert await there(jupyter) == []

def proxy_of(proxy, jupyter):
    class There: url, token = f'http://127.0.0.1:{proxy.port}', jupyter.token
    return There

def test_without_asyncio(jupyter):
    with Pool(2, 1, url=jupyter.url, token=jupyter.token) as pool:
        with pool.kernel(timeout=SOON) as k: assert k.run('6*7').text == '42\n'
        assert [o.text for o in pool.map(['1', '2'])] == ['1\n', '2\n']
        with open_kernel(pool=pool) as k: assert k.eval('1+1') == 2
    assert asyncio.run(there(jupyter)) == []

async def test_from_the_environment(jupyter, monkeypatch):
    monkeypatch.setenv('JUPYTER_GATEWAY_URL', jupyter.url)
    async with KernelPool(1, 0, token=lambda: jupyter.token) as pool:
        async with pool.kernel(timeout=SOON) as kc: assert kc.parent.kernel_id in await there(jupyter)

async def test_what_a_server_cannot_do(jupyter):
    for kwargs in dict(kernel_spec=object()), dict(manager_class=ConIOLoopKernelManager), dict(cwd='/tmp'):
        with pytest.raises(ValueError, match='server'): pool_at(jupyter, **kwargs)
    for kwargs in dict(max_memory='1 GB'), dict(kernel_memory='1 GB'):
        with pytest.raises(UnsupportedFeature): pool_at(jupyter, **kwargs)
    async with pool_at(jupyter, 1, 0) as pool:
        with pytest.raises(ValueError, match='folder of the server'):
            async with pool.kernel(cwd='/tmp'): pass
