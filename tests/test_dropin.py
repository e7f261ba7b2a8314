"""Code written for jupyter_client works unchanged, with our classes in the place of its own."""
import asyncio,atexit,json,os,signal,sys,tempfile
from pathlib import Path
from queue import Empty

import nbformat,pytest,zmq
from jupyter_client import AsyncKernelClient,AsyncKernelManager,AsyncMultiKernelManager,BlockingKernelClient,KernelManager
from jupyter_client.kernelspec import KernelSpec,KernelSpecManager
from jupyter_client.session import Session
from traitlets import default
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError,CellTimeoutError,DeadKernelError as NbclientDeadKernelError

from conftest import attach
from conkernelclient import ConIOLoopKernelManager,ConKernelClient,ConKernelManager,KernelRestartedError,run_kernel
from conkernelclient.engine.session import ConSession
from fault_tools import at_rest,nothing_unheard,until

bound = 90

async def value(kc, expr, code='', **kw):
    r = await kc.execute(code, user_expressions=dict(x=expr), reply=True, timeout=30, **kw)
    assert r['content']['status']=='ok', r['content']
    return r['content']['user_expressions']['x']['data']['text/plain']

endless = 'import time\nprint("begun", flush=True)\nwhile True: time.sleep(.01)'

async def until_output(req):
    "Until its code runs: an interrupt between `busy` and then is swallowed by ipykernel, at times with the reply"
    await asyncio.wait_for(anext(o async for o in req if o['msg_type']=='stream'), 30)


# nbclient

def notebook(*cells): return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])

def nbclient_for(*cells, **kw): return NotebookClient(notebook(*cells), kernel_manager_class=ConKernelManager, kernel_name='python3', **dict(dict(timeout=60), **kw))

everything = '''
import sys
from IPython.display import HTML,clear_output,display
print('out'); print('err', file=sys.stderr)
display(HTML('<b>x</b>'))
h = display('first', display_id=True)
'''
async def run(nb, how):
    if how=='async': return await nb.async_execute()
    if how=='sync': return await asyncio.to_thread(nb.execute)     # in a thread without a loop
    return nb.execute()                                              # inside a running loop, as in a notebook

@pytest.mark.parametrize('how', ['async', 'sync', 'nested'])
async def test_nbclient_outputs(how):
    nb = nbclient_for(everything, 'h.update("second")', '40+2', 'raise ValueError("expected")', 'print("after")', allow_errors=True)
    await run(nb, how)
    cells = nb.nb.cells
    streams = {o.name:o.text for o in cells[0].outputs if o.output_type=='stream'}
    assert streams==dict(stdout='out\n', stderr='err\n')
    assert [o.data.get('text/html') for o in cells[0].outputs if o.output_type=='display_data']==['<b>x</b>', None]
    assert cells[0].outputs[-1].data['text/plain']=="'second'"      # the update reached the earlier cell
    assert cells[2].outputs[0].output_type=='execute_result' and cells[2].outputs[0].data['text/plain']=='42'
    assert [o.output_type for o in cells[3].outputs]==['error'] and cells[3].outputs[0].ename=='ValueError'
    assert cells[4].outputs[0].text=='after\n'
    assert [o.execution_count for o in cells]==[1, 2, 3, 4, 5]
    assert nb.kc is None or not nb.kc.channels_running

async def test_nbclient_uses_our_client():
    nb = nbclient_for('1')
    async with nb.async_setup_kernel():
        assert type(nb.km) is ConKernelManager and type(nb.kc) is ConKernelClient
        await nb.async_execute_cell(nb.nb.cells[0], 0)

async def test_nbclient_error_cell():
    with pytest.raises(CellExecutionError, match='ZeroDivisionError'): await nbclient_for('1/0', 'print("never")').async_execute()

async def test_nbclient_cell_that_takes_too_long():
    with pytest.raises(CellTimeoutError): await nbclient_for('import time; time.sleep(60)', timeout=1).async_execute()

async def test_nbclient_interrupt_on_timeout():
    nb = nbclient_for('import time\nfor _ in range(6000): time.sleep(.01)', 'print("after")', timeout=1, interrupt_on_timeout=True, allow_errors=True)
    await nb.async_execute()
    assert [o.ename for o in nb.nb.cells[0].outputs if o.output_type=='error']==['KeyboardInterrupt']
    assert nb.nb.cells[1].outputs[0].text=='after\n'

@pytest.mark.parametrize('how', ['async', 'sync'])
async def test_nbclient_dead_kernel(how):
    with pytest.raises(NbclientDeadKernelError): await run(nbclient_for('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', '1'), how)

async def test_nbclient_kernel_that_dies_at_start(tmp_path):
    nb = nbclient_for('1', startup_timeout=30)
    nb.km = ConKernelManager(kernel_spec=KernelSpec(argv=[sys.executable, '-c', 'raise SystemExit(3)', '{connection_file}'], display_name='short', language='python'))
    with pytest.raises(RuntimeError, match='died'): await nb.async_execute()
    atexit.unregister(nb._cleanup_kernel)     # nbclient forgets to, and then fails at exit

async def test_nbclient_two_notebooks_at_once():
    a,b = nbclient_for('x = 1', 'print(x)'),nbclient_for('x = 2', 'print(x)')
    await asyncio.gather(a.async_execute(), b.async_execute())
    assert [o.nb.cells[1].outputs[0].text for o in (a,b)]==['1\n', '2\n']

async def test_nbclient_on_a_kernel_of_ours():
    async with run_kernel() as (km,kc):
        await kc.execute('given = 5', reply=True, timeout=30)
        nb = NotebookClient(notebook('print(given)'), km=km, timeout=60)
        await nb.async_execute(cleanup_kc=False)
        assert nb.nb.cells[0].outputs[0].text=='5\n'
        if nb.kc is not None: nb.kc.stop_channels()
        assert await value(kc, 'given')=='5'


# Managers of many kernels, servers

@pytest.mark.parametrize('name', ['conkernelclient.ConKernelManager', pytest.param('conkernelclient.core.ConIOLoopKernelManager', marks=pytest.mark.slow)])
async def test_multi_kernel_manager(name):
    mkm = AsyncMultiKernelManager(kernel_manager_class=name)
    ids = await asyncio.gather(*(mkm.start_kernel() for _ in range(2)))
    kcs = []
    try:
        for i in ids:
            assert isinstance(mkm.get_kernel(i), ConKernelManager) and await mkm.is_alive(i)
            kcs.append(await mkm.get_kernel(i).client().start_channels())
        await asyncio.gather(*(o.execute(f'x = {i}', reply=True, timeout=30) for i,o in enumerate(kcs)))
        await mkm.restart_kernel(ids[0])
        assert await asyncio.gather(*(value(o, '"x" in globals()') for o in kcs))==['False', 'True']
        loop = kcs[1].request('execute_request', dict(code=endless, silent=False))
        await until_output(loop)
        await mkm.interrupt_kernel(ids[1])
        assert (await asyncio.wait_for(loop, 30))['content']['ename']=='KeyboardInterrupt'
        await mkm.shutdown_kernel(ids[0])
        assert mkm.list_kernel_ids()==[ids[1]]
    finally:
        for o in kcs: o.stop_channels()
        await mkm.shutdown_all(now=True)
    assert mkm.list_kernel_ids()==[]

server = pytest.importorskip('jupyter_server.services.kernels.kernelmanager')
class OurServerManager(ConIOLoopKernelManager, server.ServerKernelManager): "What a server's configuration would name"

def mapping_manager(tmp_path):
    from traitlets.config import Config
    c = Config()
    c.AsyncMappingKernelManager.kernel_manager_class = f'{__name__}.OurServerManager'
    c.AsyncMappingKernelManager.root_dir = str(tmp_path)
    c.KernelRestarter.time_to_dead = c.KernelRestarter.restart_limit = 5
    return server.AsyncMappingKernelManager(config=c)

async def test_server_kernel_manager(tmp_path):
    "Start, watch activity (over Tornado's streams), use a client beside it, interrupt, restart, shut down"
    mkm = mapping_manager(tmp_path)
    kid = await mkm.start_kernel(kernel_name='python3', path='')
    try:
        km = mkm.get_kernel(kid)
        assert isinstance(km, OurServerManager) and type(kc:=km.client()) is ConKernelClient
        await kc.start_channels()
        await kc.execute('import time', reply=True, timeout=30)
        async with asyncio.timeout(30):
            while km.execution_state!='idle':       # the server's own connection may be made after ours, and have heard nothing yet
                await kc.execute('1', reply=True, timeout=30)
        assert mkm.kernel_model(kid)['execution_state']=='idle'
        slow = kc.request('execute_request', dict(code=endless, silent=False))
        await until(lambda: km.execution_state=='busy', what='the server saw the kernel busy')
        await until_output(slow)
        await mkm.interrupt_kernel(kid)
        assert (await asyncio.wait_for(slow, 30))['content']['status']=='error'
        await mkm.restart_kernel(kid)
        assert await value(kc, '"time" in globals()')=='False'
        kc.stop_channels()
    finally: await mkm.shutdown_all(now=True)

async def test_server_restarts_a_crashed_kernel(tmp_path):
    mkm = mapping_manager(tmp_path)
    kid = await mkm.start_kernel(kernel_name='python3', path='')
    try:
        km = mkm.get_kernel(kid)
        kc = await km.client().start_channels()
        running = kc.execute('x = 1; import time; time.sleep(60)', reply=True)
        died = asyncio.get_running_loop().create_future()
        km.add_restart_callback(lambda: died.done() or died.set_result(None), 'restart')
        await kc.kernel_info(reply=True, channel='control', timeout=30)
        await km.signal_kernel(signal.SIGKILL)
        with pytest.raises(KernelRestartedError): await asyncio.wait_for(running, 60)
        await asyncio.wait_for(died, 60)
        await kc.wait_for_ready(timeout=60)
        assert await value(kc, '"x" in globals()')=='False'
        kc.stop_channels()
    finally: await mkm.shutdown_all(now=True)

async def test_autorestart_with_the_ioloop_manager():
    km = ConIOLoopKernelManager()
    await km.start_kernel()
    kc = await km.client().start_channels()
    try:
        waiting = [kc.execute('import time; time.sleep(60)', reply=True), kc.execute('1', reply=True)]
        await kc.kernel_info(reply=True, channel='control', timeout=30)
        await km.signal_kernel(signal.SIGKILL)
        for e in await asyncio.gather(*waiting, return_exceptions=True): assert isinstance(e, KernelRestartedError)
        await kc.wait_for_ready(timeout=60)
        assert await value(kc, '1+1')=='2'
    finally:
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


# jupyter_client's own sequences

async def test_start_channels_then_wait_for_ready(recwarn):
    km = ConKernelManager()
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    await kc.wait_for_ready(timeout=60)
    with pytest.raises(Empty): await kc.get_shell_msg(timeout=0)      # of the probes nothing is left
    mid = kc.execute('print("hello")')
    reply = await kc.get_shell_msg(timeout=30)
    assert reply['parent_header']['msg_id']==mid and reply['content']['status']=='ok'
    types = []
    while not types or types[-1]!='idle':
        msg = await kc.get_iopub_msg(timeout=30)
        if not msg['parent_header']: continue      # what the kernel says at its start (a warning of its debugger)
        assert msg['parent_header']['msg_id']==mid
        types.append(msg['content'].get('execution_state') or msg['msg_type'])
    assert types[:2]==['busy', 'execute_input'] and set(types[2:-1])=={'stream'}
    for name in 'shell','iopub','stdin','control','hb': assert getattr(kc, f'{name}_channel').is_alive()
    assert kc.channels_running and await kc.is_alive() and kc.hb_channel.is_beating()
    kc.stop_channels()
    assert not kc.channels_running
    await km.shutdown_kernel()
    assert not await km.is_alive()
    assert not [o for o in recwarn if issubclass(o.category, RuntimeWarning)], [str(o.message) for o in recwarn]

async def test_the_pattern_of_get_shell_msg_and_recv_reply(kc):
    for ask in kc.execute, kc.complete, kc.inspect, kc.is_complete:
        mid = ask('1')
        assert (await kc._async_recv_reply(mid, timeout=30))['parent_header']['msg_id']==mid
    for ask in kc.history, kc.kernel_info, kc.comm_info:
        mid = ask()
        assert (await kc._async_recv_reply(mid, timeout=30))['parent_header']['msg_id']==mid
    with pytest.raises(Empty): await kc.get_shell_msg(timeout=.01)
    mid = kc.kernel_info()
    assert (await kc.shell_channel.get_msg(timeout=30))['parent_header']['msg_id']==mid
    mid = kc.kernel_info()
    await until(lambda: len(kc.router.mailboxes['shell']))
    assert await kc.shell_channel.msg_ready()
    assert [o['parent_header']['msg_id'] for o in await kc.shell_channel.get_msgs()]==[mid]

async def test_messages_sent_by_the_channel_itself(kc):
    "As widgets and debuggers do"
    msg = kc.session.msg('kernel_info_request', {})
    kc.shell_channel.send(msg)
    assert (await kc.get_shell_msg(timeout=30))['parent_header']['msg_id']==msg['header']['msg_id']
    msg = kc.session.msg('kernel_info_request', {})
    kc.control_channel.send(msg)
    assert (await kc.get_control_msg(timeout=30))['parent_header']['msg_id']==msg['header']['msg_id']
    kc.shell_channel.send(kc.session.msg('comm_open', dict(comm_id='c', target_name='none', data={})))
    assert (await kc.execute('1', reply=True, timeout=30))['content']['status']=='ok'

async def test_execute_interactive_prints(kc, capsys):
    r = await kc.execute_interactive('import sys; print("to out"); print("to err", file=sys.stderr); 6*7', timeout=30)
    assert r['content']['status']=='ok'
    out,err = capsys.readouterr()
    assert 'to out' in out and '42' in out and 'to err' in err

async def test_execute_interactive_two_at_once_with_hooks_and_stdin(kc):
    async def one(name):
        outs = []
        async def answer(msg):
            await asyncio.sleep(0)
            kc.input(f'{name} says {msg["content"]["prompt"]}', parent=msg)
        r = await kc.execute_interactive(f'print(input("{name}?"), end="")', output_hook=outs.append, stdin_hook=answer, allow_stdin=True, timeout=30)
        assert r['content']['status']=='ok' and {o['parent_header']['msg_id'] for o in outs}=={r['parent_header']['msg_id']}
        return ''.join(o['content']['text'] for o in outs if o['msg_type']=='stream')
    assert await asyncio.gather(one('a'), one('b'))==['a says a?', 'b says b?']
    await at_rest(kc)

async def test_execute_interactive_with_a_plain_stdin_hook(kc):
    "As jupyter_client's tests do: the hook answers without naming the prompt"
    r = await kc.execute_interactive('typed = input()', stdin_hook=lambda msg: kc.input('typed by a hook'), timeout=30)
    assert r['content']['status']=='ok' and await value(kc, 'typed')=="'typed by a hook'"

async def test_execute_interactive_fails(kc):
    with pytest.raises(TimeoutError): await kc.execute_interactive('import time; time.sleep(1)', timeout=.2)
    def hook(msg): raise LookupError('of the hook')
    with pytest.raises(LookupError, match='of the hook'): await kc.execute_interactive('print(1)', output_hook=hook, timeout=30)
    assert (await kc.execute_interactive('1/0', output_hook=lambda msg: None, timeout=30))['content']['ename']=='ZeroDivisionError'

async def test_stdin_by_get_stdin_msg(kc):
    mid = kc.execute('typed = input("name? ")', allow_stdin=True)
    msg = await kc.get_stdin_msg(timeout=30)
    assert msg['content']==dict(prompt='name? ', password=False)
    kc.input('me')
    assert (await kc._async_recv_reply(mid, timeout=30))['content']['status']=='ok'
    assert await value(kc, 'typed')=="'me'"


# Connections

async def test_a_blocking_client_beside_ours(kernel_file, kc):
    other = BlockingKernelClient()
    other.load_connection_file(kernel_file)
    other.start_channels()
    def talk():
        other.wait_for_ready(timeout=30)
        return [other.execute(f'theirs = {i}', user_expressions=dict(x='theirs'), reply=True, timeout=30)['content']['user_expressions']['x']['data']['text/plain'] for i in range(40)]
    try:
        theirs = asyncio.create_task(asyncio.to_thread(talk))
        ours = await asyncio.gather(*(value(kc, f'{i}') for i in range(200)))
        assert ours==[str(i) for i in range(200)]
        assert await theirs==[str(i) for i in range(40)]
    finally:
        await asyncio.to_thread(other.stop_channels)
    await at_rest(kc)

async def test_the_stock_client_beside_ours_in_one_loop(kernel_file, kc):
    other = AsyncKernelClient()
    other.load_connection_file(kernel_file)
    other.start_channels()
    try:
        await other.wait_for_ready(timeout=30)
        async def theirs():
            for i in range(20):
                r = await other.execute('', user_expressions=dict(x=str(i)), reply=True, timeout=30)
                assert r['content']['user_expressions']['x']['data']['text/plain']==str(i)
        await asyncio.gather(theirs(), *(value(kc, f'{i}') for i in range(100)))
    finally: other.stop_channels()

async def test_two_clients_of_one_manager():
    async with run_kernel() as (km,a):
        b = await km.client().start_channels()
        try:
            assert len({a.session.session, b.session.session, km.session.session})==3
            got = await asyncio.gather(*(value(o, f'"{name}{i}"') for i in range(50) for name,o in (('a',a),('b',b))))
            assert got==[f"'{name}{i}'" for i in range(50) for name in 'ab']
            mid = a.execute('print("of a")')
            assert {o['parent_header']['msg_id'] for o in await a.get_pubs(mid, timeout=20)}=={mid}
        finally: b.stop_channels()
        assert await value(a, '1')=='1'

async def test_a_stock_client_and_ours_of_one_manager():
    async with run_kernel() as (km,kc):
        stock = AsyncKernelClient(parent=km)
        stock.load_connection_file(km.connection_file)
        stock.start_channels()
        try:
            await stock.wait_for_ready(timeout=30)
            assert (await stock.execute('1', reply=True, timeout=30))['content']['status']=='ok'
            assert await value(kc, '1')=='1'
        finally: stock.stop_channels()

@pytest.mark.parametrize('kind', ['class', 'factory'])
async def test_our_client_of_a_stock_manager(kind):
    km = AsyncKernelManager(client_class='conkernelclient.ConKernelClient') if kind=='class' else AsyncKernelManager(client_factory=ConKernelClient)
    await km.start_kernel()
    try:
        kc = km.client()
        assert type(kc) is ConKernelClient and kc.session.session!=km.session.session
        await kc.start_channels()
        assert await asyncio.gather(*(value(kc, str(i)) for i in range(50)))==[str(i) for i in range(50)]
        kc.stop_channels()
    finally: await km.shutdown_kernel(now=True)

async def test_our_client_of_a_blocking_manager():
    km = KernelManager(client_class='conkernelclient.ConKernelClient', client_factory=ConKernelClient)
    await asyncio.to_thread(km.start_kernel)
    try:
        kc = await km.client().start_channels()
        assert await value(kc, '2')=='2'
        kc.stop_channels()
    finally: await asyncio.to_thread(km.shutdown_kernel, now=True)

def encrypted(km): return bool(km.get_connection_info().get('curve_publickey'))

def ipykernel_can_encrypt(): return zmq.has('curve') and 'curve' in (KernelSpecManager().get_kernel_spec('python3').metadata or {}).get('supported_encryption', ())

slowly = lambda *args: pytest.param(*args, marks=pytest.mark.slow)
@pytest.mark.parametrize('transport,encryption', [('tcp','disabled'), ('tcp','required'), ('ipc','auto'), slowly('tcp','auto'), slowly('ipc','disabled'), slowly('ipc','required')])
async def test_transports_and_encryption(transport, encryption):
    if encryption=='required' and not ipykernel_can_encrypt(): pytest.skip('the kernel cannot encrypt')
    with tempfile.TemporaryDirectory(prefix='ck-') as tmp:     # short: the name of an ipc socket must be
        km = ConKernelManager(transport=transport, transport_encryption=encryption, **(dict(ip=f'{tmp}/k') if transport=='ipc' else {}))
        await km.start_kernel()
        kcs = []
        try:
            assert encrypted(km)==(encryption!='disabled' and ipykernel_can_encrypt())
            for make in km.client, lambda: attach(km.connection_file):
                kcs.append(kc:=make())
                await kc.start_channels()
                assert await value(kc, '1')=='1'
                assert (await kc.kernel_info(reply=True, channel='control', timeout=30))['content']['status']=='ok'
                pubs = await kc.get_pubs(kc.execute('print(5)'), timeout=20)
                assert any('5' in o['content'].get('text', '') for o in pubs)
            await km.restart_kernel()
            for kc in kcs[:1]: assert await value(kc, '2')=='2'
        finally:
            for kc in kcs: kc.stop_channels()
            await km.shutdown_kernel(now=True)

async def test_encryption_is_on_by_default_where_the_kernel_can():
    assert ConKernelManager().transport_encryption==('auto' if zmq.has('curve') else 'disabled')
    async with run_kernel() as (km,_): assert encrypted(km)==ipykernel_can_encrypt()

async def test_connection_info_given_by_hand(kernel_file):
    info = json.loads(Path(kernel_file).read_text())
    kc = ConKernelClient()
    kc.load_connection_info(info)
    try:
        await kc.start_channels()
        assert await value(kc, '3')=='3'
    finally: kc.stop_channels()

async def test_a_session_given_by_hand(kernel_file):
    info = json.loads(Path(kernel_file).read_text())
    kc = ConKernelClient(session=Session(key=info['key'].encode(), session='my-own', username='me'))
    info.pop('key')
    kc.load_connection_info(info)
    try:
        await kc.start_channels()
        assert isinstance(kc.session, ConSession) and kc.session.session=='my-own'
        r = await kc.execute('', reply=True, timeout=30)
        assert r['parent_header']['session']=='my-own' and r['parent_header']['username']=='me'
    finally: kc.stop_channels()

@pytest.mark.parametrize('how', ['by default', 'set before the start', 'set later'])
async def test_a_session_that_is_none_of_our_making(kernel_file, how):
    info = json.loads(Path(kernel_file).read_text())
    made = ConSession(key=info['key'].encode(), username='else')
    class Client(ConKernelClient):
        @default('session')
        def _session_default(self): return made if how=='by default' else ConSession(parent=self)
    kc = Client()
    kc.load_connection_info(info)
    if how=='set before the start': kc.session = made
    try:
        await kc.start_channels()
        if how=='set later':
            made.session = kc.session.session     # else the kernel would answer somebody else
            kc.session = made
        r = await kc.execute('', reply=True, timeout=30)
        assert r['parent_header']['username']=='else'
    finally: kc.stop_channels()

@pytest.mark.parametrize('packer', ['json', 'orjson'])
async def test_packers(kernel_file, packer):
    kc = attach(kernel_file)
    kc.session.packer = packer
    try:
        await kc.start_channels()
        assert await asyncio.gather(*(value(kc, repr(f'ünï{i}')) for i in range(20)))==[repr(f'ünï{i}') for i in range(20)]
    finally: kc.stop_channels()

async def test_buffers_reach_the_kernel_and_come_back(kc):
    code = '''
from ipykernel.comm import Comm
def opened(comm, msg): comm.send(dict(n=len(msg['buffers'])), buffers=[bytes(o)[::-1] for o in msg['buffers']])
get_ipython().kernel.comm_manager.register_target('echo', opened)
'''
    await kc.execute(code, reply=True, timeout=30)
    req = kc.request('comm_open', dict(comm_id='c1', target_name='echo', data={}), buffers=[b'abc', os.urandom(2_000_000), b''])
    got = await asyncio.wait_for(anext(o async for o in req if o['msg_type']=='comm_msg'), 30)
    assert got['content']['data']==dict(n=3) and [len(o) for o in got['buffers']]==[3, 2_000_000, 0] and bytes(got['buffers'][0])==b'cba'
    req.cancel()


# Launching

async def test_run_kernel():
    async with run_kernel(cwd='/', env=dict(os.environ, SOME='thing')) as (km,kc):
        assert type(km) is ConKernelManager and type(kc) is ConKernelClient
        assert await value(kc, 'os.getcwd(), os.environ["SOME"]', 'import os')=="('/', 'thing')"
        assert await km.is_alive()
    assert not await km.is_alive() and not kc.channels_running and not os.path.exists(km.connection_file)

async def test_run_kernel_ends_it_when_the_body_fails():
    with pytest.raises(LookupError):
        async with run_kernel() as (km,kc):
            waiting = kc.execute('import time; time.sleep(60)', reply=True)
            raise LookupError
    assert not await km.is_alive() and waiting.done() and isinstance(waiting.exception(), RuntimeError)

async def test_run_kernel_of_a_kernelspec_that_is_not_installed():
    spec = KernelSpec(argv=[sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='mine', language='python', env=dict(MINE='yes'))
    async with run_kernel(kernel_spec=spec) as (km,kc):
        assert km.kernel_spec is spec and await value(kc, 'os.environ["MINE"]', 'import os')=="'yes'"
        await km.restart_kernel()
        assert await value(kc, 'os.environ["MINE"]', 'import os')=="'yes'"

async def test_a_kernelspec_for_the_manager_with_curve_metadata():
    spec = KernelSpec(argv=[sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='mine', language='python', metadata=dict(supported_encryption='curve'))
    km = ConKernelManager(kernel_spec=spec, transport_encryption='required')
    await km.start_kernel()
    try:
        kc = await km.client().start_channels()
        assert encrypted(km) and await value(kc, '1')=='1'
        kc.stop_channels()
    finally: await km.shutdown_kernel(now=True)

async def test_kernelspec_of_a_folder(tmp_path):
    folder = tmp_path/'kernels'/'mine'
    folder.mkdir(parents=True)
    (folder/'kernel.json').write_text(json.dumps(dict(argv=[sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='mine', language='python')))
    km = ConKernelManager(kernel_name='mine', kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(tmp_path/'kernels')]))
    await km.start_kernel()
    try:
        kc = await km.client().start_channels()
        assert await value(kc, '4')=='4'
        kc.stop_channels()
    finally: await km.shutdown_kernel(now=True)

async def test_config_reaches_client_and_manager():
    from traitlets.config import Config
    c = Config()
    c.ConKernelClient.window,c.ConKernelManager.shutdown_wait_time = 7,2.
    km = ConKernelManager(config=c)
    assert km.client().window==7 and km.shutdown_wait_time==2

def test_what_is_exported():
    import conkernelclient
    names = {}
    exec('from conkernelclient import *', names)
    assert {'ConKernelClient','ConKernelManager','run_kernel','DeadKernelError','KernelRestartedError'}<=set(names)
    assert issubclass(conkernelclient.ConKernelManager, AsyncKernelManager) and issubclass(conkernelclient.ConKernelClient, AsyncKernelClient)
