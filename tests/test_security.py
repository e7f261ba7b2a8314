"""What the page *Security* says, where no other test holds it: who reaches a kernel, what is logged, where a token goes"""
import asyncio, json, os, socket, stat, sys, tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest, zmq
from jupyter_client.kernelspec import KernelSpec
from conkernelclient import *
from conkernelclient.transports.websocket import Server, ServerError, tornado_connect
from test_dropin import ipykernel_can_encrypt

bound = 90
SOON = 30
linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='asks Linux')
posix = pytest.mark.skipif(os.name != 'posix', reason='POSIX permissions')


# Who reaches a kernel

@posix
async def test_a_connection_file_is_for_its_user_alone():
    before = os.umask(0)
    try:
        async with run_kernel() as (km, kc): modes = [os.stat(km.connection_file).st_mode]
        async with open_kernel() as kc: modes.append(os.stat(kc.manager.connection_file).st_mode)
    finally: os.umask(before)
    assert [stat.S_IMODE(o) for o in modes] == [0o600]*2

@linux
async def test_the_ports_are_on_the_loopback_only():
    async with run_kernel() as (km, kc):
        info = km.get_connection_info()
        assert info['ip'] == '127.0.0.1'
        for o in 'shell_port', 'iopub_port', 'stdin_port', 'control_port', 'hb_port':
            socket.create_connection(('127.0.0.1', info[o]), SOON).close()
            with pytest.raises(ConnectionRefusedError): socket.create_connection(('127.0.0.2', info[o]), SOON)

async def test_each_kernel_has_a_key_of_its_own():
    async with run_kernel() as (a, _), run_kernel() as (b, _):
        keys = [json.loads(Path(o.connection_file).read_text())['key'] for o in (a, b)]
    assert keys[0] != keys[1] and min(map(len, keys)) >= 32

@posix
async def test_ipc_sockets_follow_the_umask():
    "Others need the right to write in order to connect"
    with tempfile.TemporaryDirectory(prefix='ck-') as tmp:
        assert stat.S_IMODE(os.stat(tmp).st_mode) == 0o700
        before = os.umask(0o22)
        try:
            km = ConKernelManager(transport='ipc', ip=f'{tmp}/k')
            await km.start_kernel()
        finally: os.umask(before)
        kc = km.client()
        try:
            await kc.start_channels()
            modes = [o.stat().st_mode for o in Path(tmp).glob('k-*')]
            assert len(modes) == 5 and all(stat.S_ISSOCK(o) and not o & 0o22 for o in modes)
        finally:
            kc.stop_channels()
            await km.shutdown_kernel(now=True)

@pytest.mark.parametrize('encryption', ['disabled', 'required'])
async def test_outputs_can_be_read_without_the_key_unless_they_are_encrypted(encryption):
    if encryption == 'required' and not ipykernel_can_encrypt(): pytest.skip('the kernel cannot encrypt')
    km = ConKernelManager(transport_encryption=encryption)
    await km.start_kernel()
    kc = km.client()
    try:
        await kc.start_channels()
        with zmq.Context() as ctx, ctx.socket(zmq.SUB) as spy, spy.get_monitor_socket() as news:
            spy.linger = 0
            spy.subscribe(b'')
            spy.connect(f'tcp://127.0.0.1:{km.iopub_port}')
            if encryption == 'disabled':
                heard = b''
                async with asyncio.timeout(SOON):   # (until its subscription has arrived)
                    while b'a secret' not in heard:
                        await kc.run('print("a secret")')
                        while spy.poll(0): heard += b''.join(spy.recv_multipart())
            else:
                end = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL|zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL|zmq.EVENT_DISCONNECTED
                async with asyncio.timeout(SOON):
                    while not (news.poll(0) and int.from_bytes(news.recv_multipart()[0][:2], sys.byteorder) & end):
                        await asyncio.sleep(.01)
                await kc.run('print("a secret")')
                assert not spy.poll(100)
            spy.disable_monitor()
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)

async def test_required_encryption_is_never_left_out():
    "A kernel whose kernelspec does not say that it can encrypt is not started"
    spec = KernelSpec(argv=[sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='plain', language='python')
    km = ConKernelManager(kernel_spec=spec, transport_encryption='required')
    with pytest.raises(RuntimeError, match='encrypt'): await km.start_kernel()
    assert not km.has_kernel

@linux
async def test_forked_kernels_and_those_of_a_pool_are_encrypted():
    if not ipykernel_can_encrypt(): pytest.skip('the kernel cannot encrypt')
    async with KernelPool(size=1, spare=0) as pool, pool.kernel() as kc: assert kc.curve_publickey
    async with run_kernel(kernel_spec=fork_spec()) as (km, kc): assert kc.curve_publickey and km.provisioner.template is not None


# What is logged

async def test_no_code_output_answer_or_key_is_logged(caplog):
    caplog.set_level(1)
    async with run_kernel() as (km, kc):
        await kc.run('print("se"+"cret output")\n# secret code')
        await kc.run('x = input("secret prompt")', stdin=['secret answer'])
        assert (await kc.run('raise ValueError("secret error")')).error
        assert await kc.eval('"secret value"') == 'secret value'
        await kc.expose(add=lambda a: a+' of the host')
        await kc.run('await add("secret argument")')
        said = caplog.text+repr(kc)+repr(km)
        secrets = [kc.session.key.decode(), *(kc.curve_secretkey and [kc.curve_secretkey.decode()] or [])]
    assert caplog.records and 'secret' not in said and not [o for o in secrets if o in said]


# What a kernel is not

@posix
async def test_a_cell_has_the_rights_of_your_user(tmp_path, monkeypatch):
    "It reads private files and the environment, unless the kernel gets another one"
    (tmp_path/'private').write_text('mine')
    (tmp_path/'private').chmod(0o600)
    monkeypatch.setenv('API_KEY', 'mine')
    async with run_kernel() as (km, kc):
        assert await kc.eval('__import__("os").getuid()') == os.getuid()
        assert await kc.eval(f'open({str(tmp_path/"private")!r}).read()') == 'mine'
        assert await kc.eval('__import__("os").environ.get("API_KEY")') == 'mine'
    env = {k: v for k, v in os.environ.items() if k != 'API_KEY'}
    async with run_kernel(env=env) as (km, kc): assert await kc.eval('__import__("os").environ.get("API_KEY")') is None

async def test_a_tool_gets_whatever_json_a_cell_sends():
    "Type hints are for the model: the function has to check its arguments"
    got = []
    def fetch(path: str) -> str:
        got.append(path)
        return 'ok'
    async with run_kernel() as (km, kc):
        await kc.run('await fetch({"path": ["/etc/passwd"]})', tools=dict(fetch=fetch), check=True)
    assert got == [{'path': ['/etc/passwd']}]


# Where a token goes

@asynccontextmanager
async def scripted_server(answer=b'200 OK\r\nContent-Length: 2\r\n\r\n[]'):
    "A server with one answer to all; gives its address, and the heads of the requests it gets"
    asked = []
    async def serve(reader, writer):
        asked.append((await reader.readuntil(b'\r\n\r\n')).decode())
        writer.write(b'HTTP/1.1 '+answer)
        writer.close()
    async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
        yield f'http://127.0.0.1:{server.sockets[0].getsockname()[1]}', asked

@pytest.mark.parametrize('how', ['argument', 'address'])
async def test_a_token_is_in_a_header_only(how):
    async with scripted_server() as (url, asked):
        await list_kernels(*((url, 'hush') if how == 'argument' else (f'{url}/?token=hush',)))
    line, *headers = asked[0].splitlines()
    assert 'hush' not in line and [o for o in headers if 'hush' in o] == ['Authorization: token hush']

async def test_no_redirect_gets_the_token():
    "Neither of a request nor of a WebSocket"
    async with scripted_server() as (there, asked):
        answer = f'302 Found\r\nLocation: {there}/api/kernels\r\nContent-Length: 0\r\n\r\n'.encode()
        async with scripted_server(answer) as (url, here):
            with pytest.raises(ServerError, match='redirects'): await list_kernels(url, 'hush')
            headers = await Server(url, 'hush').headers()
            with pytest.raises(Exception, match='302'):
                await tornado_connect(url.replace('http', 'ws', 1), headers, lambda data: None, ssl_options=None, ping_every=20, timeout=SOON)
            assert len(here) == 2
    assert asked == []
