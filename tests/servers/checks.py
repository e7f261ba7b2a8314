"""What must work behind any server: `run.py` runs these against each kind. Most are the tests of a plain Jupyter Server.

The fixture `jupyter` is the server (`kinds.py`), in place of the one of tests/conftest.py.
"""
import asyncio, time

import nbformat, pytest
from nbclient import NotebookClient
from conkernelclient import *
from conkernelclient.transports.websocket import tornado_connect
from proxy import Proxy
from test_server import (
    SOON, ask, client, kernel, outcome, text, until, until_busy,
    test_a_large_output, test_a_request_that_the_server_would_not_take, test_a_thousand_in_flight, test_binary_buffers, test_control_overtakes,
    test_large_values_travel, test_one_cell_is_interrupted_and_no_other, test_requests, test_runs, test_subshells_and_map,
    test_ten_clients_one_kernel, test_two_clients_one_kernel)
from test_server_faults import (
    after_restart, goes_on, interrupted, killed_while_watched, printing, proxied,
    test_a_proxy_that_answers_for_the_server, test_a_reply_that_is_lost_in_the_outage, test_a_run_says_that_it_is_incomplete,
    test_cut_again_and_again_with_a_thousand_in_flight, test_cut_and_the_server_does_not_know, test_cut_as_the_only_client,
    test_cut_beside_another_client, test_deleted_by_somebody_else, test_deleted_in_an_outage, test_not_reachable,
    test_restart_by_somebody_else, test_restart_by_us, test_restart_in_an_outage, test_the_kernel_dies_and_the_server_restarts_it)

bound = 10*SOON   # seconds for each

@pytest.fixture(scope='session')
def jupyter(request):
    "The server that `run.py` has started"
    return request.config.given.server

def manager(jupyter, **kwargs): return ServerKernelManager(**dict(url=jupyter.url, token=jupyter.token)|kwargs)

async def message(awaitable):
    "The text of the error that must come"
    with pytest.raises(ConKernelError) as e: await awaitable
    print(f'error | {e.value}')
    return str(e.value)


# Begin and end

async def test_starts_attaches_and_deletes(jupyter):
    options = {'name': 'python3'}|jupyter.kernels
    async with open_kernel(url=jupyter.url, token=jupyter.token, **options) as kc:
        await kc.run('x = 6')
        kernel_id = kc.parent.kernel_id
        async with open_kernel(url=jupyter.url, token=jupyter.token, kernel_id=kernel_id) as guest:
            assert await guest.eval('x*7') == 42
        assert await kc.eval('x') == 6   # the guest has left it running
        assert kernel_id in [o['id'] for o in await list_kernels(jupyter.url, jupyter.token)]
    with pytest.raises(ServerError): await manager(jupyter).start_kernel(kernel_id)

def test_without_asyncio(jupyter):
    with open_kernel(url=jupyter.url, token=jupyter.token, **{'name': 'python3'}|jupyter.kernels) as k:
        assert k.run('6*7').text.strip().endswith('42')

async def test_nbclient(jupyter):
    cells = 'print(6*7)', '1/0', 'import sys; print("err", file=sys.stderr)'
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    km = manager(jupyter)
    if 'name' in jupyter.kernels: km.kernel_name = jupyter.kernels['name']
    runner = NotebookClient(nb, km=km, allow_errors=True)
    await runner.async_execute(**{k: v for k, v in jupyter.kernels.items() if k != 'name'})
    runner.kc.stop_channels()
    await km.shutdown_kernel()
    assert [o.outputs[0].get('text') or o.outputs[0].ename for o in nb.cells] == ['42\n', 'ZeroDivisionError', 'err\n']

async def test_how_fast(jupyter):
    "A figure, not a promise"
    async with kernel(jupyter) as kc:
        await kc.run('1')
        begin = time.monotonic()
        for _ in range(100): await kc.run('1')
        print(f'figure | {jupyter.name}: a cell, one after the other | {10*(time.monotonic()-begin):.1f} ms')


# Errors

async def test_wrong_tokens(jupyter):
    assert 'refuses the token' in await message(list_kernels(jupyter.url, 'wrong'))
    assert 'wants a token' in await message(list_kernels(jupyter.url))
    assert 'refuses the token' in await message(manager(jupyter, token='wrong').start_kernel())

async def test_a_token_that_is_fetched_again(jupyter):
    given = []
    async def token():
        given.append('expired' if not given else jupyter.token)
        return given[-1]
    km = manager(jupyter, token=token)
    assert isinstance(await list_kernels(jupyter.url, token), list) and given == ['expired', jupyter.token]
    async with kernel(jupyter) as kc:   # the WebSocket, too, asks again
        given.clear()
        await km.start_kernel(kc.parent.kernel_id)
        assert given == ['expired', jupyter.token]
        given.clear()
        km.server.forget_token()
        kc2 = km.client()
        kc2.start_channels()
        assert await kc2.eval('6*7', timeout=SOON) == 42
        kc2.stop_channels()

async def test_unknown_kernels(jupyter):
    async with kernel(jupyter) as kc:
        for wrong in '11111111-2222-3333-4444-555555555555', 'what':
            assert kc.parent.kernel_id in await message(manager(jupyter).start_kernel(wrong))

@pytest.mark.only('hub', 'enterprise', 'provisioners', 'ssh')
async def test_an_unknown_kernelspec(jupyter):
    with pytest.raises(UnknownKernel) as e: await manager(jupyter, kernel_name='cobol').start_kernel()
    assert 'python' in str(e.value)


# Ends

@pytest.mark.parametrize('away', [False, True])
async def test_deleted_there(jupyter, away):
    async with proxied(jupyter) as (proxy, kc):
        req = await printing(kc, 1000, .1)
        if away:
            await proxy.refuse()
            proxy.cut()
        await jupyter.delete(f'api/kernels/{kc.parent.kernel_id}')
        if away: await proxy.listen()
        error = await outcome(req)
        assert interrupted(error) or isinstance(error, DeadKernelError), error
        with pytest.raises(DeadKernelError): await outcome_of_next(kc)
        await kc.wait_for_status('dead', timeout=SOON)

async def outcome_of_next(kc):
    "What a request gets that is sent after the end, raised"
    res = await outcome(kc.execute('1', reply=True))
    if isinstance(res, Exception): raise res

@pytest.mark.only('provisioners', 'ssh', 'jupygate')
async def test_the_kernel_dies_and_nobody_restarts_it(jupyter):
    async with kernel(jupyter) as kc:
        req = await killed_while_watched(kc, patience=2., dead_after=5.)
        begin = time.monotonic()
        assert isinstance(await outcome(req, 90), DeadKernelError)
        print(f'figure | {jupyter.name}: death, told after | {time.monotonic()-begin:.1f} s')
        await kc.parent.restart_kernel()
        await goes_on(kc)

async def test_a_restart_with_other_clients(jupyter):
    "Ours, several times: the other client hears of each"
    async with kernel(jupyter) as kc, client(kc) as kc2:
        for _ in range(3):
            flying = [ask(kc, 'import time; time.sleep(60)')]
            await until_busy(flying[0])
            flying.append(ask(kc2, '1'))   # behind it
            session = kc2.connection.life.session
            await kc.parent.restart_kernel()
            first, second = [await outcome(o) for o in flying]
            assert interrupted(first) or isinstance(first, KernelRestartedError), first
            # (the server interrupts the first, and then the old kernel may get to the second before it ends)
            assert isinstance(second, KernelRestartedError) or second['header']['session'] == session, second
            await goes_on(kc)
            assert isinstance(await after_restart(jupyter, lambda: kc2.kernel_info(reply=True)), dict)
            await goes_on(kc2)

@pytest.mark.only('enterprise', 'provisioners', 'ssh', 'jupygate')
async def test_the_server_ends_and_begins(jupyter):
    try:
        async with kernel(jupyter) as old:
            old.connection.transport.reconnect_timeout = 2.
            req = ask(old, 'import time; time.sleep(1000)')
            await until_busy(req)
            await asyncio.to_thread(jupyter.stop)
            end = await outcome(req)   # (some servers interrupt the cell first, and pass on its reply)
            assert interrupted(end) or isinstance(end, DeadKernelError) and 'Nothing listens' in str(end), end
            jupyter.start()
            await jupyter.ready()
    finally:
        if jupyter.process is None:   # (the checks that follow need it)
            jupyter.start()
            await jupyter.ready()
    async with kernel(jupyter) as kc: await goes_on(kc)


# A hub

@pytest.mark.only('hub')
async def test_the_server_of_the_user_is_not_running(jupyter):
    "What a person sees before the server is started, and what a client that was there does"
    km = manager(jupyter)
    await km.start_kernel()
    kc = await km.client().start_channels()
    kc.connection.transport.reconnect_timeout = 2.
    req = ask(kc, 'import time; time.sleep(1000)')
    await until_busy(req)
    await jupyter.stop_server()
    try:
        error = await outcome(req)
        print(f'error | {error}')
        assert isinstance(error, DeadKernelError) and 'is not running: start it' in str(error)
        for o in list_kernels(jupyter.url, jupyter.token), manager(jupyter).start_kernel(), km.is_alive(), km.interrupt_kernel(), km.restart_kernel():
            assert 'is not running: start it' in await message(o)
    finally: await jupyter.start_server()
    await until(lambda: kc.connection.transport.gone)   # the kernel is gone with the server
    with pytest.raises(DeadKernelError, match='start another one'): await kc.execute('1', reply=True)
    kc.stop_channels()
    await km.shutdown_kernel()
    async with kernel(jupyter) as kc: await goes_on(kc)

@pytest.mark.only('hub')
async def test_an_address_of_the_hub_that_is_no_server(jupyter):
    hub = f'http://127.0.0.1:{jupyter.port}'
    assert '/user/NAME' in await message(list_kernels(hub, jupyter.token))
    assert '/user/NAME' in await message(list_kernels(hub+'/hub', jupyter.token))
    assert 'is not running' in await message(list_kernels(hub+'/user/nobody', jupyter.token))

@pytest.mark.only('hub')
async def test_a_token_without_the_scope(jupyter):
    assert 'access:servers' in await message(list_kernels(jupyter.url, await jupyter.new_token('read:users:name!user=ann')))

async def test_zzz_no_kernel_is_left(jupyter):
    async with asyncio.timeout(SOON):
        while await list_kernels(jupyter.url, jupyter.token): await asyncio.sleep(.2)
