"""What bad use gets: an error at once that says what to do, and nothing lost or left behind."""
import asyncio,multiprocessing,signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from jupyter_client.kernelspec import KernelSpec,NoSuchKernel

from conftest import attach
from fault_tools import at_rest,nothing_unheard
import inside
from conkernelclient import ClientClosedError,ConKernelClient,ConKernelManager,DeadKernelError,run_kernel

bound = 60
both_transports = 'slow'

async def works(kc):
    "It executes, and nothing is left in flight"
    r = await kc.execute('6*7', user_expressions=dict(x='6*7'), reply=True, timeout=20)
    assert r['content']['user_expressions']['x']['data']['text/plain']=='42'
    await kc.get_pubs()
    await at_rest(kc)

waiting = dict(wait_for_ready=lambda kc: kc.wait_for_ready(timeout=5), execute_interactive=lambda kc: kc.execute_interactive('1', timeout=5), get_pubs=lambda kc: kc.get_pubs(),
               **{o:lambda kc, o=o: getattr(kc, o)(timeout=5) for o in ('get_shell_msg','get_iopub_msg','get_stdin_msg','get_control_msg')})
sending = dict(execute=lambda kc: kc.execute('1'), execute_reply=lambda kc: kc.execute('1', reply=True), request=lambda kc: kc.request('execute_request', dict(code='1')),
               input=lambda kc: kc.input('x'))


# Before, and after

@pytest.mark.parametrize('what', sending)
async def test_sending_before_start_channels(kernel_file, what):
    kc = attach(kernel_file)
    with pytest.raises(ClientClosedError, match=r'start_channels\(\)'): sending[what](kc)
    try: await works(await kc.start_channels())
    finally: kc.stop_channels()

@pytest.mark.parametrize('what', ['wait_for_ready', 'execute_interactive'])
async def test_waiting_before_start_channels(kernel_file, what):
    kc = attach(kernel_file)
    with pytest.raises(RuntimeError, match='start_channels|must be running'): await waiting[what](kc)
    try: await works(await kc.start_channels())
    finally: kc.stop_channels()

@pytest.mark.parametrize('what', sending)
async def test_sending_after_stop_channels(kc, what):
    kc.stop_channels()
    with pytest.raises(ClientClosedError, match='a new client is needed'): sending[what](kc)

@pytest.mark.parametrize('what', waiting)
async def test_waiting_after_stop_channels(kc, what):
    kc.stop_channels()
    with pytest.raises(ClientClosedError, match='stopped|closed'): await waiting[what](kc)

async def test_start_channels_after_stop_channels(kc):
    kc.stop_channels()
    with pytest.raises(ClientClosedError, match='new client'): kc.start_channels()

@pytest.mark.zmq_only('looks at the sockets')
async def test_start_channels_twice(kc):
    sockets = inside.sockets(kc)
    kc.start_channels()
    assert await kc.start_channels() is kc
    assert inside.sockets(kc)==sockets
    await works(kc)

@pytest.mark.zmq_only('looks at the sockets')
async def test_stop_channels_twice(kc):
    await works(kc)
    for _ in range(3): kc.stop_channels()
    assert not any(o for o in inside.sockets(kc).values()) and not kc.channels_running

async def test_stop_channels_of_one_that_was_never_started():
    ConKernelClient().stop_channels()

async def test_a_channel_that_was_not_started(kernel_file):
    kc = attach(kernel_file)
    kc.start_channels(iopub=False, stdin=False, control=False, hb=False)
    try:
        await kc.wait_for_ready(timeout=20)
        assert (await kc.execute('1', reply=True, timeout=20))['content']['status']=='ok'
        with pytest.raises(RuntimeError, match='iopub channel must be running'): await kc.execute_interactive('1', timeout=5)
        with pytest.raises(RuntimeError, match='control'): kc.shutdown()
        with pytest.raises(RuntimeError, match='control'): await kc.kernel_info(reply=True, channel='control', timeout=5)
    finally: kc.stop_channels()


# Arguments

@pytest.mark.parametrize('code', [None, b'1', 1, ['1'], object()], ids=lambda o: type(o).__name__)
async def test_code_that_is_not_a_string(kc, code):
    for f in kc.execute,kc.execute_interactive:
        with pytest.raises(ValueError, match='must be a string'):
            if (r:=f(code)) is not None: await r
    with pytest.raises(ValueError, match='must be a string'): kc.execute(code, reply=True)
    await works(kc)

@pytest.mark.parametrize('exprs', [[1], dict(a=1), {1:'a'}, 'a', dict(a=None)], ids=repr)
async def test_user_expressions_that_are_none(kc, exprs):
    for reply in False,True:
        with pytest.raises((ValueError,AttributeError)): kc.execute('1', user_expressions=exprs, reply=reply)
    await works(kc)

async def test_a_msg_id_in_flight(kc):
    first = kc.execute('x = 5', msg_id='mine', user_expressions=dict(x='x'), reply=True, timeout=20)
    for again in lambda: kc.execute('x = 6', msg_id='mine', reply=True), lambda: kc.execute('x = 6', msg_id='mine'), lambda: kc.request('execute_request', dict(code='x = 6'), msg_id='mine'):
        with pytest.raises(ValueError, match="'mine' is already in flight"): again()
    assert (await first)['content']['user_expressions']['x']['data']['text/plain']=='5'
    await kc.get_pubs()
    again = await kc.execute('x = 7', msg_id='mine', user_expressions=dict(x='x'), reply=True, timeout=20)    # it has ended: the id is free
    assert again['content']['user_expressions']['x']['data']['text/plain']=='7'
    await works(kc)

@pytest.mark.parametrize('buffers,error', [([1], TypeError), ([b'ok', None], TypeError), (['text'], TypeError), ([memoryview(bytearray(8))[::2]], ValueError), (5, TypeError)],
                         ids=lambda o: repr(o).split(' at ')[0])
async def test_bad_buffers(kc, buffers, error):
    for f in kc.execute, lambda *a, **kw: kc.execute(*a, reply=True, **kw), lambda code, **kw: kc.request('execute_request', dict(code=code), **kw):
        with pytest.raises(error): f('1', buffers=buffers, msg_id='again')
    await works(kc)

@pytest.mark.parametrize('content', [dict(code=object()), dict(code={1,2}), [1], 5], ids=lambda o: repr(o).split(' at ')[0])
async def test_content_that_cannot_be_sent(kc, content):
    try: await kc.request('execute_request', content, timeout=1)
    except (TypeError,ValueError,TimeoutError): pass     # some of these can be packed; the kernel then does what it likes
    await works(kc)

@pytest.mark.parametrize('timeout', ['1', object(), [1]], ids=lambda o: type(o).__name__)
async def test_a_timeout_that_is_no_number(kc, timeout):
    with pytest.raises(TypeError): kc.execute('1', reply=True, timeout=timeout)
    await works(kc)

@pytest.mark.parametrize('timeout', [0, -1])
async def test_a_timeout_that_is_over(kc, timeout):
    before = kc.execute('import time; time.sleep(.3)', reply=True)
    with pytest.raises(TimeoutError, match='execute_request'): await kc.execute('1', reply=True, timeout=timeout)
    assert (await before)['content']['status']=='ok'
    await works(kc)

@pytest.mark.parametrize('channel', ['iopub', 'stdin', 'hb', 'nothing', None])
async def test_request_on_a_channel_that_takes_none(kc, channel):
    with pytest.raises(ValueError, match='shell.*control'): kc.request('kernel_info_request', channel=channel, timeout=5)
    await works(kc)


# Kernels

async def test_unknown_kernel_name():
    km = ConKernelManager(kernel_name='no-such-kernel')
    with pytest.raises(NoSuchKernel, match='no-such-kernel.*Known kernels.*python3') as e: await km.start_kernel()
    assert e.value.name=='no-such-kernel' and 'python3' in e.value.known
    with pytest.raises(NoSuchKernel, match='Known kernels.*python3'):
        async with run_kernel('no-such-kernel'): pass

async def test_a_kernel_that_cannot_be_started():
    km = ConKernelManager(kernel_spec=KernelSpec(argv=['/no/such/program', '{connection_file}'], display_name='none', language='none'))
    with pytest.raises(FileNotFoundError, match='/no/such/program'): await km.start_kernel()

async def test_a_client_of_a_kernel_that_was_not_started():
    kc = ConKernelManager().client()
    try:
        with pytest.raises(Exception) as e:
            kc.start_channels()
            await kc.wait_for_ready(timeout=3)
        assert 'start_kernel' in str(e.value)
    finally: kc.stop_channels()

async def test_a_dead_kernel():
    async with run_kernel() as (km,kc):
        await km.signal_kernel(signal.SIGSTOP)      # so that nothing is answered before it is dead
        waits = [kc.execute('import time; time.sleep(60)', reply=True), kc.kernel_info(reply=True), kc.kernel_info(reply=True, channel='control'),
                 asyncio.ensure_future(kc.execute_interactive('1')), kc.request('execute_request', dict(code='1')).wait()]
        await km.signal_kernel(signal.SIGKILL)
        for e in await asyncio.gather(*waits, return_exceptions=True): assert isinstance(e, DeadKernelError) and e.exit_code==-9, e
        for name in 'execute_reply','execute','request':
            with pytest.raises(DeadKernelError, match='exit code -9.*restart'): sending[name](kc)
        for name in 'wait_for_ready','execute_interactive':
            with pytest.raises(DeadKernelError): await waiting[name](kc)
        await km.restart_kernel()
        await kc.wait_for_ready(timeout=30)
        await works(kc)


# Tasks, loops, threads, processes

@pytest.mark.parametrize('name', ['shell', 'iopub', 'stdin', 'control'])
async def test_two_tasks_read_one_channel(kc, name):
    get = getattr(kc, f'get_{name}_msg')
    await kc.get_pubs()
    first = asyncio.ensure_future(get(timeout=20))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match='Two tasks.*reply=True'): await get(timeout=5)
    assert not first.done()
    if name=='stdin': mid = kc.execute('input("?")', allow_stdin=True)
    else: mid = kc.kernel_info(channel='control' if name=='control' else 'shell')
    msg = await first
    assert msg['parent_header']['msg_id']==mid
    if name=='stdin': kc.input('x', parent=msg)
    await kc.get_pubs(mid, timeout=20)
    while (msg:=await kc.get_shell_msg(timeout=20) if name in ('stdin','iopub') else msg)['parent_header'].get('msg_id')!=mid: pass
    await works(kc)

def in_another_thread(f):
    with ThreadPoolExecutor(1) as pool: return pool.submit(f)

@pytest.mark.parametrize('what', [*sending, *waiting])
async def test_another_loop(kc, what):
    async def use():
        if what in sending: return sending[what](kc)
        return await waiting[what](kc)
    f = await asyncio.to_thread(in_another_thread, lambda: asyncio.run(use()))
    with pytest.raises(RuntimeError, match='run_coroutine_threadsafe'): f.result(20)
    await works(kc)

@pytest.mark.parametrize('what', sending)
async def test_another_thread_without_a_loop(kc, what):
    f = await asyncio.to_thread(in_another_thread, lambda: sending[what](kc))
    with pytest.raises(RuntimeError, match='run_coroutine_threadsafe'): f.result(20)
    await works(kc)

async def test_what_another_thread_should_do(kc):
    loop = asyncio.get_running_loop()
    async def ask(): return await kc.execute('1', reply=True, timeout=20)
    def in_thread(): return asyncio.run_coroutine_threadsafe(ask(), loop).result(20)
    assert (await asyncio.to_thread(in_thread))['content']['status']=='ok'

def test_another_loop_of_the_same_thread(kernel_file):
    kc = attach(kernel_file)
    async def first(): await works(await kc.start_channels())
    async def second():
        for name in sending:
            with pytest.raises(RuntimeError, match=r'another event loop.*make one for this loop$'): sending[name](kc)
        for name in waiting:
            with pytest.raises(RuntimeError, match=r'another event loop.*make one for this loop$'): await waiting[name](kc)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(first(), 30))
        asyncio.run(asyncio.wait_for(second(), 30))
        loop.run_until_complete(asyncio.wait_for(works(kc), 30))
        kc.stop_channels()
        loop.run_until_complete(asyncio.sleep(0))
    finally: loop.close()

def test_a_reply_before_there_is_a_loop(kernel_file):
    kc = attach(kernel_file)
    kc.start_channels()
    with pytest.raises(RuntimeError, match='inside a coroutine'): kc.execute('1', reply=True)
    mid = kc.execute('1')      # needs no loop
    async def inside():
        await kc.wait_for_ready(timeout=20)
        assert (await kc.get_shell_msg(timeout=20))['parent_header']['msg_id']==mid
        await works(kc)
        kc.stop_channels()
    asyncio.run(asyncio.wait_for(inside(), 60))

def _child(kc, conn):
    try: conn.send(('sent', kc.execute('1')))
    except BaseException as e: conn.send((type(e).__name__, str(e)))

async def test_a_forked_process(kc):
    ctx = multiprocessing.get_context('fork')
    here,there = ctx.Pipe()
    p = ctx.Process(target=_child, args=(kc,there))
    p.start()
    got = await asyncio.to_thread(lambda: here.recv() if here.poll(20) else None)
    await asyncio.to_thread(p.join, 20)
    if p.is_alive(): p.kill()
    assert got and got[0]=='RuntimeError' and 'forked process' in got[1], got
    await works(kc)
