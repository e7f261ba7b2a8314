"""Kernels behind a real Jupyter server: everything that works over ZMQ works there, over both WebSocket protocols"""
import asyncio, gc, json, os, shutil, ssl, subprocess, sys, threading, time, warnings
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf

import nbformat, pytest
from nbclient import NotebookClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler
from conkernelclient import *
from conkernelclient.kernels.server import restarts_under_way
from conkernelclient.transports.peer import SocketPeer
from conkernelclient.transports.websocket import Handshake, Server, TornadoPeer, WebSocketTransport, pack_v1, tornado_connect
from proxy import Jupyter, Proxy, free_port

bound = 90
SOON = float(os.environ.get('TESTS_SOON', 30))   # seconds: far more than anything here takes that has no bound of its own (servers/run.py: at that server)
pytestmark = pytest.mark.filterwarnings('error')


async def legacy(*args, **kwargs):
    "Opens a WebSocket that offers no subprotocol, as to an old server"
    return await tornado_connect(*args, subprotocols=(), **kwargs)

PROTOCOLS = pytest.mark.parametrize('connect', [tornado_connect, legacy])

@asynccontextmanager
async def kernel(jupyter, url=None, **kwargs):
    async with open_server_kernel(url or jupyter.url, token=jupyter.token, **jupyter.kernels|kwargs) as kc: yield kc
    kc = None
    await asyncio.sleep(0)

@asynccontextmanager
async def client(kc, url=None, **kwargs):
    "Another client of the kernel of `kc`"
    server = kc.parent.server
    async with open_server_kernel(url or server.url, token=server.token, kernel_id=kc.parent.kernel_id, **kwargs) as kc2: yield kc2

def ask(kc, code, **kwargs):
    "An execute request that keeps its outputs"
    content = dict(code=code, silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=False)
    return kc.request('execute_request', content, **kwargs)

def text(req): return ''.join(o['content']['text'] for o in req.iopub if o['msg_type'] == 'stream')

async def until(test, seconds=SOON):
    async with asyncio.timeout(seconds):
        while not test(): await asyncio.sleep(.005)

async def until_busy(req):
    "Wait until the kernel has begun with `req`"
    async for msg in req:
        if msg['content'].get('execution_state') == 'busy': return

async def outcome(awaitable, seconds=SOON):
    "What it gives or raises, in time"
    async with asyncio.timeout(seconds):
        try: return await awaitable
        except ConKernelError as e: return e


# What works

@PROTOCOLS
async def test_requests(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        reply = await kc.execute('x = 1', user_expressions=dict(y='x+1'), reply=True)
        assert reply['content']['user_expressions']['y']['data']['text/plain'] == '2'
        assert (await kc.complete('impo', reply=True))['content']['matches'] == ['import']
        assert (await kc.is_complete('for', reply=True))['content']['status'] == 'invalid'
        req = ask(kc, 'print("out")\n1/0')
        assert (await req)['content']['ename'] == 'ZeroDivisionError'
        assert (await req.wait()).complete and text(req) == 'out\n'
        msg_id = kc.execute('print(6*7)')
        assert (await kc.get_shell_msg(timeout=SOON))['parent_header']['msg_id'] == msg_id
        assert ''.join(o['content']['text'] for o in await kc.get_pubs(msg_id) if o['msg_type'] == 'stream') == '42\n'

@PROTOCOLS
async def test_runs(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        seen = []
        r = await kc.run('for i in range(3): print(i, flush=True)\ni', on_output=lambda e: seen.append(e.text))
        assert r.complete and r.stdout == '0\n1\n2\n' and ''.join(seen).startswith('0\n1\n2\n')
        r = await kc.run('a, b = input("one? "), input("two? ")\na+b', stdin=['6', '7'])
        assert "'67'" in r.text
        with pytest.raises(ExecutionTimeout) as e: await kc.run('print("begun", flush=True)\nimport time; time.sleep(60)', timeout=.5)
        assert e.value.result.stdout == 'begun\n'
        assert await kc.eval('1+1') == 2

@PROTOCOLS
async def test_prompts_and_the_end_behind_poured_prints(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        code = 'for i in range(200): print(i, flush=True)\nprint(input("? "), flush=True)\n'
        lines = ''.join(f'{i}\n' for i in range(200))
        r = await kc.run(code*2, stdin=['one', 'two'])
        assert r.complete and r.stdout == f'{lines}one\n{lines}two\n'
        results = await asyncio.gather(*(kc.run(f'for i in range(50): print({i}, flush=True)') for i in range(5)))
        assert [o.stdout for o in results] == [f'{i}\n'*50 for i in range(5)] and all(o.complete for o in results)

@pytest.mark.parametrize('installed', [True, False])
async def test_who_reads_the_websocket(jupyter, monkeypatch, installed):
    "With wsproto the socket is read directly (the test fails where a later tornado begins to read in another way), else by tornado"
    if not installed: monkeypatch.setattr('conkernelclient.transports.peer.FrameProtocol', None)
    async with kernel(jupyter) as kc:
        assert (await kc.run('print("out")')).stdout == 'out\n'
        assert type(kc.connection.transport._line.peer) is (SocketPeer if installed else TornadoPeer)

async def test_one_cell_is_interrupted_and_no_other(jupyter):
    async with kernel(jupyter) as kc:
        begun = asyncio.Event()
        first = kc.run('import time; print("begun", flush=True); time.sleep(60)', on_output=lambda o: begun.set())
        others = [kc.run(f'{i}') for i in range(5)]
        await begun.wait()
        assert await first.interrupt()
        assert (await first).error.ename == 'KeyboardInterrupt'
        assert [(await o).text.strip() for o in others] == list('01234')

@PROTOCOLS
async def test_subshells_and_map(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        main = kc.run('import time; time.sleep(1.5)\n"main"')
        async with kc.subshell() as sub: assert (await sub.run('1+1')).text.strip() == '2'
        assert not main.done()
        assert [o.text.strip() for o in await kc.map(f'{i}*{i}' for i in range(8))] == [str(i*i) for i in range(8)]
        assert 'main' in (await main).text

@PROTOCOLS
async def test_large_values_travel(jupyter, connect):
    "A server drops much output: values come with the reply"
    async with kernel(jupyter, connect=connect) as kc:
        value = [bytes([i])*2_000_000 for i in range(5)]
        await kc.push(value=value)
        assert await kc.eval('value') == value and await kc.call('copy.copy', value) == value

async def test_control_overtakes(jupyter):
    async with kernel(jupyter) as kc:
        req = ask(kc, 'import time; time.sleep(1)')
        await until_busy(req)
        await kc.kernel_info(reply=True, channel='control', timeout=SOON)
        assert not req.replied
        await req

COMM = '''
def target(comm, msg):
    comm.send(dict(n=len(msg['buffers'])), buffers=[bytes(o)[::-1] for o in msg['buffers']])
get_ipython().kernel.comm_manager.register_target('back', target)'''

@PROTOCOLS
async def test_binary_buffers(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        await kc.execute(COMM, reply=True)
        await kc.get_pubs()
        msg = kc.session.msg('comm_open', dict(comm_id='1', target_name='back', data={}))
        msg['buffers'] = [b'abc', b'', memoryview(bytes(range(256))*1000)]
        kc.shell_channel.send(msg)
        while (back := await kc.get_iopub_msg(timeout=SOON))['msg_type'] != 'comm_msg': pass
        assert back['content']['data'] == dict(n=3)
        assert [bytes(o) for o in back['buffers']] == [b'cba', b'', (bytes(range(256))*1000)[::-1]]

@PROTOCOLS
async def test_comms_and_widgets(jupyter, connect):
    pytest.importorskip('ipywidgets', reason="pip install -e '.[dev]'")
    async with kernel(jupyter, connect=connect) as kc:
        res = await kc.run('from tqdm.notebook import tqdm\nimport ipywidgets as w\nfor i in tqdm(range(5), bar_format="{n_fmt}/{total_fmt}"): pass\n'
                           's, i, out = w.IntSlider(), w.Image(value=bytes(range(256))*1000), w.Output()\nwith out: print("captured")', check=True)
        assert '5/5' in res.text and 'captured' not in res.text
        slider, image, out = [next(o for o in kc.widgets.values() if o.kind == f'{k}Model') for k in ('IntSlider', 'Image', 'Output')]
        slider.set(value=7)
        assert await kc.eval('s.value, out.outputs[0]["text"]') == (7, 'captured\n') and out.text == 'captured\n'
        assert bytes(image.state['value']) == bytes(range(256))*1000
        image.set(value=b'x'*300_000)
        assert await kc.eval('i.value == b"x"*300_000')
        await kc.run('from comm import get_comm_manager as m\nm().register_target("t", lambda comm, msg: comm.on_msg(lambda msg: comm.send(1, buffers=msg["buffers"])))')
        comm = await kc.open_comm('t', timeout=SOON)
        comm.send(0, [b'abc'])
        assert bytes((await comm.receive(SOON)).buffers[0]) == b'abc'
        with pytest.raises(CommClosedError): await kc.open_comm('none', timeout=SOON)
        await kc.restart()
        with pytest.raises(KernelRestartedError): comm.send(1)
        assert slider.closed and not kc.widgets

@PROTOCOLS
async def test_a_thousand_in_flight(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        replies = await asyncio.gather(*(kc.execute('', user_expressions=dict(x=f'{i}'), reply=True) for i in range(1000)))
        assert [o['content']['user_expressions']['x']['data']['text/plain'] for o in replies] == [str(i) for i in range(1000)]
        reqs = [ask(kc, f'print({i})') for i in range(300)]
        await asyncio.gather(*(o.wait() for o in reqs))
        assert [text(o) for o in reqs if o.complete] == [f'{i}\n' for i, o in enumerate(reqs) if o.complete]
        while not (await asyncio.wait_for(kc.run('print()'), SOON)).complete: pass   # (of many, a busy server loses some at the kernel's mark; the next message shows it)
        reqs = [ask(kc, f'print({i})') for i in range(20)]
        await asyncio.gather(*(o.wait() for o in reqs))
        assert [text(o) for o in reqs] == [f'{i}\n' for i in range(20)] and all(o.complete for o in reqs)

async def test_two_clients_one_kernel(jupyter):
    async with kernel(jupyter) as kc, client(kc) as kc2:
        async def many(kc, name):
            results = await asyncio.gather(*(kc.run(f'print("{name}", {i})') for i in range(50)))
            assert [o.stdout for o in results] == [f'{name} {i}\n' for i in range(50)] and all(o.complete for o in results)
        await asyncio.gather(many(kc, 'a'), many(kc2, 'b'))

async def test_ten_clients_one_kernel(jupyter):
    async with AsyncExitStack() as stack:
        kc = await stack.enter_async_context(kernel(jupyter))
        clients = [kc, *[await stack.enter_async_context(client(kc)) for _ in range(9)]]
        results = await asyncio.gather(*(c.run(f'print({i}, {j})') for i, c in enumerate(clients) for j in range(10)))
        assert [o.stdout for o in results] == [f'{i} {j}\n' for i in range(10) for j in range(10)]
        assert all(o.complete for o in results)

async def test_what_is_sent_before_it_is_open(jupyter):
    km = ServerKernelManager(jupyter.url, jupyter.token)
    await km.start_kernel()
    kc = km.client()
    starting = kc.start_channels()
    early = [kc.execute(f'y = {i}', user_expressions=dict(y='y'), reply=True) for i in range(3)]
    assert [(await o)['content']['user_expressions']['y']['data']['text/plain'] for o in early] == ['0', '1', '2']
    await starting
    kc.stop_channels()
    await km.shutdown_kernel()

def test_without_a_loop_at_first(jupyter):
    "A client may be made and opened before an event loop runs"
    km = ServerKernelManager(jupyter.url, jupyter.token)
    asyncio.run(km.start_kernel())
    kc = km.client()
    kc.start_channels()
    async def use():
        assert await kc.eval('1+1') == 2
        kc.stop_channels()
        await km.shutdown_kernel()
    asyncio.run(use())

def test_a_loop_that_ends_under_an_open_client(jupyter, caplog):
    "The client is dropped later; nothing is left of it but the kernel"
    km = ServerKernelManager(jupyter.url, jupyter.token)
    async def begin():
        await km.start_kernel()
        kc = await km.client().start_channels()
        assert await kc.eval('1+1') == 2
        return kc
    kc = asyncio.run(begin())
    with pytest.raises(RuntimeError, match='event loop is closed'): kc.execute('1')
    transport = kc.connection.transport
    kc = None
    gc.collect()
    assert transport.closed and not caplog.records
    asyncio.run(km.shutdown_kernel())

async def test_nbclient(jupyter):
    cells = 'print(6*7)', '1/0', 'import sys; print("err", file=sys.stderr)'
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    km = ServerKernelManager(jupyter.url, jupyter.token)
    runner = NotebookClient(nb, km=km, allow_errors=True)
    await runner.async_execute()
    runner.kc.stop_channels()
    await km.shutdown_kernel()
    # (A busy kernel may publish one print in two parts, and nbclient keeps both)
    assert [''.join(o.get('text') or o.ename for o in cell.outputs) for cell in nb.cells] == ['42\n', 'ZeroDivisionError', 'err\n']

@pytest.mark.parametrize('how', ['km', 'class'])
def test_papermill(jupyter, tmp_path, monkeypatch, how):
    "With a manager that the caller keeps, or with the class, which finds its server in the environment"
    papermill = pytest.importorskip('papermill')
    cells = [nbformat.v4.new_code_cell('n = 1', metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell('print(n*7)')]
    nb = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='', language='python')))
    nbformat.write(nb, tmp_path/'in.ipynb')
    km = ServerKernelManager(jupyter.url, jupyter.token)
    monkeypatch.setenv('JUPYTER_GATEWAY_URL', jupyter.url)
    monkeypatch.setenv('JUPYTER_GATEWAY_AUTH_TOKEN', jupyter.token)
    def run(name, n):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')   # (papermill's own)
            done = papermill.execute_notebook(str(tmp_path/'in.ipynb'), str(tmp_path/name), dict(n=n), progress_bar=False,
                                              **(dict(km=km) if how == 'km' else dict(kernel_manager_class=ServerKernelManager)))
        return done.cells[-1].outputs[0].text
    assert run('out.ipynb', 6) == '42\n'
    nb.cells[-1].source = '1/n'
    nbformat.write(nb, tmp_path/'in.ipynb')
    with pytest.raises(papermill.PapermillExecutionError, match='ZeroDivisionError'): run('failed.ipynb', 0)
    assert nbformat.read(tmp_path/'failed.ipynb', 4).cells[-1].outputs[-1].ename == 'ZeroDivisionError'
    if how == 'km': asyncio.run(km.shutdown_kernel())
    assert asyncio.run(list_kernels(jupyter.url, jupyter.token)) == []

async def test_nbclient_and_a_kernel_that_dies(jupyter):
    "nbclient waits for ever where a server starts the kernel again (nbclient#319); here the cell fails"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('import os, signal; os.kill(os.getpid(), signal.SIGKILL)')])
    km = ServerKernelManager(jupyter.url, jupyter.token)
    runner = NotebookClient(nb, km=km)
    async with asyncio.timeout(SOON):
        with pytest.raises(Exception) as e: await runner.async_execute()
    assert 'ied' in str(e.value), e.value
    if runner.kc is not None: runner.kc.stop_channels()
    await km.shutdown_kernel()

async def test_from_the_environment(jupyter, monkeypatch):
    monkeypatch.setenv('JUPYTER_GATEWAY_URL', jupyter.url)
    monkeypatch.setenv('JUPYTER_GATEWAY_AUTH_TOKEN', jupyter.token)
    async with open_server_kernel() as kc:
        assert kc.parent.kernel_id in [o['id'] for o in await list_kernels()]

async def test_nothing_is_left(jupyter):
    before = asyncio.all_tasks()
    fds = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for _ in range(3):
        async with kernel(jupyter) as kc: await kc.run('1')
    kc = None
    await until(lambda: asyncio.all_tasks() == before)
    if fds: await until(lambda: len(os.listdir('/proc/self/fd')) <= fds)

async def test_a_dropped_client_is_collected(jupyter):
    import weakref
    async with kernel(jupyter) as kc:
        km = ServerKernelManager(jupyter.url, jupyter.token)
        await km.start_kernel(kc.parent.kernel_id)
        kc2 = await km.client().start_channels()
        await kc2.run('1')
        transport, dropped = kc2.connection.transport, weakref.ref(kc2)
        del kc2
        gc.collect()
        await until(lambda: dropped() is None and transport.closed and not transport.up)


# Sizes

@PROTOCOLS
async def test_a_large_output(jupyter, connect):
    async with kernel(jupyter, connect=connect) as kc:
        kc.connection.grace = SOON   # (a busy server may take long to pack it, and reply first)
        r = await kc.run('from IPython.display import display\ndisplay({"text/plain": "x"*50_000_000}, raw=True)')
        assert r.complete and len(r.outputs[0]['data']['text/plain']) == 50_000_000

async def test_a_request_that_the_server_would_not_take(jupyter):
    async with kernel(jupyter) as kc:
        running = kc.run('import time; time.sleep(.5)\n"spared"')
        with pytest.raises(ValueError, match='the server takes'): await kc.execute('#'*12_000_000, reply=True)
        with pytest.raises(ValueError, match='the server takes'): await kc.run('#'*12_000_000)
        assert 'spared' in (await running).text
        r = await kc.run('s = "' + 'x'*9_000_000 + '"\nlen(s)')
        assert r.text.strip() == '9000000'


# Errors of use

async def test_who_is_refused(jupyter):
    async def message(url=jupyter.url, token=jupyter.token, **kwargs):
        with pytest.raises(ConKernelError) as e:
            async with open_server_kernel(url, token=token, **kwargs): pass
        return str(e.value)
    assert 'refuses the token (HTTP 403)' in await message(token='wrong')
    assert 'wants a token' in await message(token='')
    assert 'Nothing listens' in await message(f'http://127.0.0.1:{free_port()}')
    assert 'is not known' in await message('http://no.such.host.invalid')
    assert 'does the address lack a path?' in await message(jupyter.url+'/nowhere')
    assert 'is it http?' in await message(jupyter.url.replace('http', 'https'))
    assert 'python3' in await message(name='cobol')
    async with kernel(jupyter) as kc:
        assert kc.parent.kernel_id in await message(kernel_id='11111111-2222-3333-4444-555555555555')
        assert kc.parent.kernel_id in await message(kernel_id='what')

def serve(*handlers):
    "A web server in this process, and its address"
    sock, port = bind_unused_port()
    web = HTTPServer(Application(handlers))
    web.add_socket(sock)
    return web, f'http://127.0.0.1:{port}'

class HubForNobody(RequestHandler):
    "A hub, in place of a server that is not running"
    def get(self): self.redirect('/hub'+self.request.path)
    def post(self): self.set_status(403)
    delete = post

async def test_a_hub_answers_for_a_server_that_is_not_running(caplog):
    "It refuses what is no GET, as if the token were wrong"
    caplog.set_level('CRITICAL')
    web, url = serve(('/.*', HubForNobody))
    try:
        km = ServerKernelManager(url+'/user/ann', 'good')
        km.kernel_id, km._running = '1', True
        for o in list_kernels(km.server.url, 'good'), km.start_kernel('1'), km.start_kernel(), km.interrupt_kernel(), km.restart_kernel(), km.shutdown_kernel():
            with pytest.raises(ServerError, match=f'{url}/user/ann is not running: start it .*POST {url}/hub/api/users/ann/server'): await o
        with pytest.raises(ServerError, match=f'{url} is a JupyterHub: .* {url}/user/NAME'): await list_kernels(url, 'good')
        with pytest.raises(ServerError, match='users/ann/servers/second$'): await list_kernels(url+'/user/ann/second', 'good')
    finally: web.stop()

class Kernels(RequestHandler):
    "A gateway without kernelspecs"
    def get(self): self.write('[]')
    def post(self): self.write(dict(id='7', name=''))

async def test_a_gateway_without_kernelspecs(caplog):
    caplog.set_level('CRITICAL')
    web, url = serve(('/api/kernels', Kernels))
    try:
        km = ServerKernelManager(url, kernel_name='of no importance')
        await km.start_kernel()
        assert km.kernel_id == '7' and km.kernel_spec is None and not km.is_jupyter
        with pytest.raises(ServerError, match='no Jupyter server'): await ServerKernelManager(url+'/elsewhere').start_kernel()
    finally: web.stop()

class Flood(WebSocketHandler):
    "Sends 40 MB, as fast as the client takes them"
    sent, piece, n = 0, 50_000, 800
    def select_subprotocol(self, offered): return offered[0]
    def open(self): self.task = asyncio.ensure_future(self.flood())
    async def flood(self):
        for _ in range(self.n):
            await self.write_message(pack_v1('iopub', (b'', b'{}', b'{}', b'{}', bytes(self.piece))), binary=True)
            Flood.sent += self.piece

class Slow:
    "A sink that takes nothing until it may, or must"
    takes, got = False, 0
    def link(self, *args): pass
    def received(self, channel, batch, until):
        while batch and (self.takes or until == inf):
            self.got += len(batch.popleft()[4])

async def test_a_program_that_is_slower_than_its_kernel():
    "What it has not taken yet waits at the server, but for a little"
    web, url = serve(('/api/kernels/1/channels', Flood))
    Flood.sent = 0
    sink, t = Slow(), WebSocketTransport(Server(url), lambda: '1', 'me')
    try:
        t.most, t.span = 500_000, 0
        t.open(sink, ['iopub'])
        t.start(asyncio.get_running_loop())
        await until(lambda: Flood.sent)
        before = -1
        while Flood.sent != before:   # until it moves no more
            before = Flood.sent
            for _ in range(100): await asyncio.sleep(.005)
        assert Flood.sent < 25_000_000   # (much of it in the buffers of the system)
        sink.takes = True
        await until(lambda: sink.got == Flood.n*Flood.piece, 60)
    finally:
        t.close()
        web.stop()
        await until(lambda: not t.up)

@pytest.mark.skipif(shutil.which('openssl') is None, reason='needs openssl')
async def test_certificates(tmp_path):
    key, cert = tmp_path/'key.pem', tmp_path/'cert.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert,
                    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'], check=True, capture_output=True)
    trusts = ssl.create_default_context(cafile=cert)
    jupyter = Jupyter(f'--ServerApp.certfile={cert}', f'--ServerApp.keyfile={key}', ssl_options=trusts)
    jupyter.url = f'https://localhost:{jupyter.port}'
    jupyter.start()
    try:
        await jupyter.ready()
        with pytest.raises(ServerError, match='is not trusted'): await list_kernels(jupyter.url, jupyter.token)
        async with kernel(jupyter, ssl_options=trusts) as kc:
            assert await kc.eval('6*7') == 42
            r = await kc.run('print("x"*1_000_000)')
            assert r.complete and len(r.stdout) == 1_000_001
    finally: jupyter.stop()

async def test_the_token_is_kept_out_of_logs_and_addresses(jupyter, caplog):
    caplog.set_level(1)
    async with kernel(jupyter) as kc:
        await kc.run('1')
        assert jupyter.token not in repr(kc.parent.server)+kc.connection.transport.describe('shell')
    assert jupyter.token not in caplog.text and 'insecure' not in caplog.text

@pytest.mark.parametrize('is_async', [False, True])
async def test_a_token_that_expires(jupyter, is_async):
    given = []
    def sync():
        given.append(jupyter.token if len(given) != 1 else 'expired')
        return given[-1]
    async def later(): return sync()
    async with kernel(jupyter) as kc:
        km = ServerKernelManager(jupyter.url, later if is_async else sync)
        await km.start_kernel(kc.parent.kernel_id)
        assert await km.is_alive() and len(given) == 1
        km.server.forget_token()
        assert await km.is_alive() and given == [jupyter.token, 'expired', jupyter.token]


# Connections that are given up

async def silent(reader, writer):
    "A server that takes everything, and says nothing"
    try:
        while await reader.read(2**16): pass
    finally: writer.transport.abort()

@pytest.mark.parametrize('when', ['at once', 'connected'])
def test_a_request_that_is_given_up(when, caplog):
    "Its connection ends with it, also where the loop ends too"
    sockets = []
    async def main():
        async def serve(reader, writer):
            sockets.append('open')
            await silent(reader, writer)
            sockets.append('closed')
        async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
            asking = asyncio.ensure_future(Server(f'http://127.0.0.1:{server.sockets[0].getsockname()[1]}', 'x').fetch('GET', 'api'))
            if when == 'at once': await asyncio.sleep(0)
            else: await until(lambda: sockets)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await until(lambda: sockets.count('open') == sockets.count('closed'))
    asyncio.run(main())
    gc.collect()
    assert not caplog.records

@pytest.mark.parametrize('when', ['at once', 'connected', 'asked'])
async def test_a_handshake_that_is_given_up(when, monkeypatch):
    "Its socket is closed, wherever it was, and no task or timer is left"
    monkeypatch.setattr(Handshake, 'grace', .05)
    sockets = []
    async def serve(reader, writer):
        sockets.append('open')
        if when == 'asked': await reader.readuntil(b'\r\n\r\n')
        sockets.append('asked')
        await silent(reader, writer)
        sockets.append('closed')
    before = asyncio.all_tasks()
    async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.ensure_future(tornado_connect(
            f'ws://127.0.0.1:{port}/', {}, lambda data: None, ssl_options=None, ping_every=20, timeout=60))
        if when == 'at once': await asyncio.sleep(0)
        else: await until(lambda: when == 'connected' and sockets or 'asked' in sockets)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        await until(lambda: sockets.count('open') == sockets.count('closed'))
    opening = None
    await until(lambda: asyncio.all_tasks() == before)
    gc.collect()

def test_a_handshake_that_is_given_up_before_the_loop_ends():
    "The loop does not wait for it, and nothing is left"
    asked = []
    async def main():
        async def serve(reader, writer):
            await reader.readuntil(b'\r\n\r\n')
            asked.append(True)
            await silent(reader, writer)
        server = await asyncio.start_server(serve, '127.0.0.1', 0)
        opening = asyncio.ensure_future(tornado_connect(
            f'ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/', {}, lambda data: None, ssl_options=None, ping_every=20, timeout=60))
        await until(lambda: asked)
        opening.cancel()
        await asyncio.wait([opening])
        server.close()
    asyncio.run(main())
    gc.collect()

async def test_the_server_goes_on_counting(jupyter):
    "A server takes a handshake that breaks for a client less: one that nobody wants any more is ended in order"
    async with kernel(jupyter) as kc:
        for turns in range(6):
            opening = asyncio.ensure_future(tornado_connect(
                f'{jupyter.url.replace("http", "ws")}/api/kernels/{kc.parent.kernel_id}/channels?session_id=other{turns}',
                {'Authorization': f'token {jupyter.token}'}, lambda data: None, ssl_options=None, ping_every=20, timeout=60))
            for _ in range(turns): await asyncio.sleep(.001)
            if not opening.cancel(): opening.result().close()   # (it was faster)
            await asyncio.wait([opening])
        connections, ended = [], 0
        while ended < 10:   # (in the meantime there may be more)
            connections.append((await jupyter.get(f'api/kernels/{kc.parent.kernel_id}'))['connections'])
            ended = ended+1 if connections[-1] == 1 else 0
            assert len(connections) < 200 and min(connections) > 0
            await asyncio.sleep(.02)

STUMBLES = """import os, sys, time
if os.path.exists({mark!r}): os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[1]])
open({mark!r}, 'w').close()
time.sleep(2)
sys.exit(1)"""

async def test_a_kernel_that_dies_at_its_start(tmp_path, monkeypatch):
    "The server starts it again, with other ports, and goes on waiting for an answer at the old ones"
    folder = tmp_path/'kernels'/'stumbles'
    folder.mkdir(parents=True)
    argv = [sys.executable, '-c', STUMBLES.format(mark=str(tmp_path/'mark')), '{connection_file}']
    (folder/'kernel.json').write_text(json.dumps(dict(argv=argv, display_name='Stumbles', language='python')))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path))
    monkeypatch.setattr(WebSocketTransport, 'handshake_patience', 5.)
    jupyter = Jupyter('--KernelManager.transport=tcp').start()
    try:
        await jupyter.ready()
        begin = time.monotonic()
        async with kernel(jupyter, name='stumbles') as kc: assert await kc.eval('6*7') == 42
        print(f'figure | kernel that died at its start, ready after | {time.monotonic()-begin:.1f} s')
    finally: jupyter.stop()

async def test_a_server_that_goes_away_in_a_handshake():
    for cut in b'', b'HTTP/1.1 101 Switching':
        async def serve(reader, writer):
            await reader.readuntil(b'\r\n\r\n')
            writer.write(cut)
            await writer.drain()
            writer.close()
        async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:
            with pytest.raises(Exception):
                await tornado_connect(f'ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/', {}, lambda data: None,
                                      ssl_options=None, ping_every=20, timeout=5)
        gc.collect()


# Restarts of one kernel by many managers

class Restarts:
    "In place of a server: answers a restart when it may, and counts those at a time"
    url = 'http://127.0.0.1:8888'
    def __init__(self):
        self.now = self.most = self.done = 0
        self.may = threading.Event()
    async def fetch(self, method, path, body=None, timeout=20.):
        if not path.endswith('/restart'): return dict(id='1', name='python3', execution_state='idle')
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while not self.may.is_set(): await asyncio.sleep(.001)
        finally: self.now -= 1
        self.done += 1

async def test_restarts_of_one_kernel_follow_each_other():
    "Whatever manager and thread they come from; a caller that gives up holds nobody up"
    server = Restarts()
    async def manager():
        km = ServerKernelManager(server.url, 'x')
        km.server = server
        await km.start_kernel('1')
        return km
    async def elsewhere(): await (await manager()).restart_kernel()
    managers = [await manager() for _ in range(4)]
    restarts = [asyncio.ensure_future(o.restart_kernel()) for o in managers]
    threads = [asyncio.ensure_future(asyncio.to_thread(asyncio.run, elsewhere())) for _ in range(2)]
    await until(lambda: server.now)
    restarts[0].cancel()   # it is under way
    restarts[1].cancel()   # it waits
    server.may.set()
    results = await asyncio.gather(*restarts, *threads, return_exceptions=True)
    assert [type(o) for o in results] == [asyncio.CancelledError]*2+[type(None)]*4
    assert server.most == 1 and server.done == 4 and not restarts_under_way

async def test_shut_down_while_the_server_starts_it_again():
    "A server answers 500 then; the kernel must not be left there"
    server = Restarts()
    server.asked = []
    async def fetch(method, path, body=None, timeout=20.):
        if method == 'DELETE':
            server.asked.append(path)
            if len(server.asked) < 3: raise ServerError('Unhandled error', 500)
            if len(server.asked) == 4: raise ServerError('There is none', 404, True)
        return dict(id='1', name='python3')
    server.fetch = fetch
    for n in 3, 4:
        km = ServerKernelManager(server.url, 'x')
        km.server = server
        await km.start_kernel('1')
        km._owned = True   # as if it had started it
        await km.shutdown_kernel()
        assert len(server.asked) == n and not km.has_kernel
