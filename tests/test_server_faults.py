"""Faults between a client and a kernel behind a real Jupyter server: connections that break in every way, restarts and
deaths that nobody reports, servers that go away. Nothing waits forever, nothing is lost silently, the same client goes on.
"""
import asyncio, os, signal, time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from conkernelclient import *
from conkernelclient.engine.life import State
from conkernelclient.kernels.server import Watch
from proxy import Jupyter, Proxy, free_port, processes_of
from conkernelclient.transports.websocket import tornado_connect
from test_server import SOON, legacy, ask, client, kernel, outcome, text, until, until_busy

bound = 90
pytestmark = pytest.mark.filterwarnings('error')
slow = pytest.mark.slow   # (for their length: they wait for the time limits of a server)

def interrupted(outcome):
    "Has it ended before the kernel did? jupyter_client interrupts a kernel before it asks it to shut down, so its cell may reply"
    return isinstance(outcome, Result) or isinstance(outcome, dict) and outcome['content']['status'] != 'ok'
LINES = 'import time\nfor i in range({n}):\n    print(i, flush=True)\n    time.sleep({pause})'


@asynccontextmanager
async def proxied(jupyter, **kwargs):
    "A kernel, and a client of it behind a proxy"
    async with Proxy(jupyter.port) as proxy:
        async with kernel(jupyter, jupyter.through(proxy.port), **kwargs) as kc: yield proxy, kc

async def printing(kc, n=40, pause=.02):
    "A cell that prints lines and has begun to"
    req = ask(kc, LINES.format(n=n, pause=pause))
    async for msg in req:
        if msg['msg_type'] == 'stream': break
    return req

async def killed_while_watched(kc, patience, dead_after):
    "A cell whose kernel is asked again and again whether it answers, which it does, until it is killed"
    kc.connection.transport.quiet = .5
    os_pid = await pid(kc)
    req = ask(kc, 'import time; time.sleep(1000)')
    await until_busy(req)
    await until(lambda: kc.watching is not None)
    kc.watching.probe_every, kc.watching.patience, kc.watching.dead_after = .5, patience, dead_after
    await asyncio.sleep(3)   # it is asked, and answers
    assert kc.status != 'unresponsive' and not req.done()
    os.kill(os_pid, signal.SIGKILL)
    return req

async def pid(kc): return await kc.eval('__import__("os").getpid()')

async def goes_on(kc):
    "The same client answers. (A break that it has not noticed yet may take one call with it, and is said.)"
    for _ in range(3):
        try: return answered(await kc.eval('6*7', timeout=SOON))
        except (NotConnected, NoReplyError): await asyncio.sleep(.1)
    raise AssertionError('three calls were lost')

def answered(value): assert value == 42

async def after_restart(jupyter, ask):
    """What `ask()` gives after a restart by somebody else. Where the server does not tell of it (`tells`: the new kernel has
    other ports, and the old connection is deaf), one call is lost before the client notices, with an error that says why.
    """
    end = await outcome(ask())
    return end if jupyter.tells or type(end) is not KernelRestartedError else await outcome(ask())


# The connection

async def test_cut_as_the_only_client(jupyter):
    "The server keeps everything for a client that comes back with its session id"
    async with proxied(jupyter) as (proxy, kc):
        for _ in range(3):
            req = await printing(kc)
            proxy.cut()
            reply = await outcome(req)
            await outcome(req.wait())
            assert reply['content']['status'] == 'ok'
            # (what the server had written when it was cut may be lost)
            assert req.complete == (text(req).split() == [str(i) for i in range(40)])
            await goes_on(kc)

async def test_a_client_that_goes_and_comes_back_misses_nothing(jupyter):
    "The connection is ended at both ends, with nothing under way: the server keeps all, and the request is complete"
    async with proxied(jupyter) as (proxy, kc):
        begun = asyncio.Event()
        run = kc.run('print("begun", flush=True)\nimport time; time.sleep(1)\nfor i in range(20): print(i, flush=True)\n"end"',
                     on_output=lambda o: begun.set())
        await begun.wait()
        await asyncio.sleep(.2)
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(2)
        await proxy.listen()
        r = await outcome(run)
        assert r.stdout.split() == ['begun', *map(str, range(20))] and "'end'" in r.text and r.complete and not r.missing
        await goes_on(kc)

async def test_cut_beside_another_client(jupyter):
    "Then the server keeps nothing: outputs are missing, and the request says so"
    async with proxied(jupyter) as (proxy, kc), client(kc, jupyter.url) as kc2:
        req = await printing(kc)
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(.3)
        await proxy.listen()
        await outcome(req.wait())
        assert text(req).split() != [str(i) for i in range(40)] and not req.complete
        await goes_on(kc)
        await goes_on(kc2)

async def test_a_reply_that_is_lost_in_the_outage(jupyter):
    async with proxied(jupyter) as (proxy, kc), client(kc, jupyter.url) as kc2:
        req = ask(kc, 'import time; time.sleep(.5)')
        await until_busy(req)
        await proxy.refuse()
        proxy.cut()
        await until(lambda: not kc.connection.transport.up)
        queued = [kc.run(f'{i}') for i in range(3)]   # these wait
        await kc2.run('1')                            # behind it: the kernel is done with it
        await proxy.listen()
        assert isinstance(await outcome(req), NoReplyError)
        assert [(await outcome(o)).text.strip() for o in queued] == list('012')

async def test_cut_and_the_server_does_not_know(jupyter):
    async with proxied(jupyter) as (proxy, kc):
        req = await printing(kc)
        proxy.cut(server=False)
        reply = await outcome(req)
        assert not isinstance(reply, Exception) or isinstance(reply, NoReplyError)
        await outcome(req.wait())
        assert text(req).split() == [str(i) for i in range(40)] or not req.complete
        await goes_on(kc)

async def test_a_run_says_that_it_is_incomplete(jupyter):
    async with proxied(jupyter) as (proxy, kc), client(kc, jupyter.url) as kc2:
        begun = asyncio.Event()
        run = kc.run(LINES.format(n=40, pause=.02), on_output=lambda o: begun.set())
        await begun.wait()
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(.2)
        await proxy.listen()
        r = await outcome(run)
        if isinstance(r, Exception): r = r.result
        assert not r.complete and r.missing
        await goes_on(kc)

async def test_cut_again_and_again_with_a_thousand_in_flight(jupyter):
    async with proxied(jupyter) as (proxy, kc):
        reqs = [kc.execute('', user_expressions=dict(x=f'{i}'), reply=True) for i in range(1000)]
        for _ in range(5):
            await asyncio.sleep(.2)
            proxy.cut()
        results = await asyncio.gather(*(outcome(o, 60) for o in reqs))
        for i, o in enumerate(results):
            if isinstance(o, Exception): assert isinstance(o, (NoReplyError, NotConnected)), o
            else: assert o['content']['user_expressions']['x']['data']['text/plain'] == str(i)
        assert any(not isinstance(o, Exception) for o in results)   # (the others were under way in one of the five outages)
        await goes_on(kc)

async def test_half_open(jupyter):
    "Nothing comes and nothing breaks: only our own pings find it out"
    async with Proxy(jupyter.port) as proxy, Proxy(jupyter.port) as other:
        async with kernel(jupyter, f'http://127.0.0.1:{proxy.port}') as kc:
            transport = kc.connection.transport
            transport.ping_every = .5
            transport.reconnect('with other pings')
            await until(lambda: transport.up)
            await goes_on(kc)
            req = await printing(kc)
            proxy.stall()
            await until(lambda: not transport.up, 10)
            assert kc.status == 'ready' or kc.status == 'busy'
            proxy.cut(server=False)
            proxy.resume()
            await outcome(req.wait())
            assert text(req).split() == [str(i) for i in range(40)] or not req.complete
            await goes_on(kc)

async def test_a_slow_line(jupyter):
    "A large output over a line that takes seconds for it is whole, and others are not stopped"
    async with proxied(jupyter) as (proxy, kc), client(kc, jupyter.url) as kc2:
        transport = kc.connection.transport
        transport.ping_every, transport.quiet = 1., 1.
        transport.reconnect('with other pings')
        await until(lambda: transport.up)
        await goes_on(kc)
        outages, proxy.rate, kc.connection.grace = transport.outages, 1_500_000, .5
        r, _ = await asyncio.gather(kc.run('from IPython.display import display\ndisplay({"text/plain": "x"*6_000_000}, raw=True)'), goes_on(kc2))
        assert r.complete and len(r.outputs[0]['data']['text/plain']) == 6_000_000 and transport.outages == outages

@slow
async def test_a_line_that_stops_in_a_message(jupyter):
    "It is given up, and what was missed is said"
    async with proxied(jupyter) as (proxy, kc):
        transport = kc.connection.transport
        transport.ping_every, transport.quiet = 1., 1.
        transport.reconnect('with other pings')
        await until(lambda: transport.up)
        await goes_on(kc)
        proxy.rate, kc.connection.grace = 3_000_000, .5
        run = kc.run('from IPython.display import display\ndisplay({"text/plain": "x"*6_000_000}, raw=True)')
        begin = proxy.passed
        await until(lambda: proxy.passed-begin > 1_000_000)
        proxy.stall()
        await until(lambda: not transport.up)
        proxy.rate = 0
        proxy.cut(server=False)
        proxy.resume()
        r = await outcome(run)
        if isinstance(r, Exception): r = r.result
        assert not r.complete or len(r.outputs[0]['data']['text/plain']) == 6_000_000
        await goes_on(kc)

@slow
async def test_not_reachable(jupyter):
    "After `reconnect_timeout` pending calls fail, and when it is back the client goes on"
    async with proxied(jupyter) as (proxy, kc):
        kc.connection.transport.reconnect_timeout = 1.
        req = ask(kc, 'import time; time.sleep(5)')
        await until_busy(req)
        await proxy.refuse()
        proxy.cut()
        queued = kc.run('1')
        error = await outcome(req)
        assert isinstance(error, DeadKernelError) and 'was not reachable for 1 s' in str(error) and 'Nothing listens' in str(error)
        assert isinstance(await outcome(queued), DeadKernelError)
        with pytest.raises(DeadKernelError): await kc.execute('1', reply=True)
        await proxy.listen()
        await kc.wait_for_status('ready', timeout=SOON)
        await goes_on(kc)


@pytest.mark.parametrize('answer', ['302 Found\r\nLocation: /hub/user/ann', '503 Service Unavailable', *(pytest.param(o, marks=slow) for o in (
    '424 Failed Dependency', '200 OK', '500 Internal Server Error'))])
async def test_a_proxy_that_answers_for_the_server(jupyter, answer):
    "As a hub does while a user's server is away: it is not there now"
    async with proxied(jupyter) as (proxy, kc):
        req = ask(kc, 'import time; time.sleep(2)')
        await until_busy(req)
        proxy.answer = f'HTTP/1.1 {answer}\r\nContent-Length: 6\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>'.encode()
        proxy.cut()
        with pytest.raises(ServerError): await kc.parent.is_alive()
        await asyncio.sleep(.3)
        assert not req.done() and not kc.connection.transport.up
        proxy.answer = None
        await outcome(req)
        await goes_on(kc)


# Restarts

async def test_restart_by_us(jupyter):
    async with kernel(jupyter) as kc:
        await kc.run('x = 1')
        flying = [kc.execute('import time; time.sleep(60)', reply=True), kc.run('2'), ask(kc, '3')]
        restart = asyncio.ensure_future(kc.parent.restart_kernel())
        await kc.wait_for_status('restarting', timeout=SOON)
        new = kc.run('"x" in globals()')
        await restart
        first, *others = [await outcome(o, 2) for o in flying]
        assert type(first) is KernelRestartedError
        for o in others:   # the server interrupts first, and then the old kernel may get to the next ones
            assert type(o) is KernelRestartedError or (o.status if isinstance(o, Result) else o['content']['status']) == 'ok', o
        assert (await outcome(new)).text.strip() == 'False'

async def test_two_restarts_at_a_time(jupyter):
    async with kernel(jupyter) as kc, client(kc) as kc2:
        await asyncio.gather(kc.parent.restart_kernel(), kc2.parent.restart_kernel(), kc.parent.restart_kernel())
        await goes_on(kc)
        await goes_on(kc2)

async def test_restart_by_somebody_else(jupyter):
    async with kernel(jupyter) as kc:
        for _ in range(2):
            await kc.run('x = 1')
            flying = [kc.execute('import time; time.sleep(60)', reply=True), kc.run('2'), ask(kc, '3')]
            await asyncio.sleep(.1)
            await jupyter.post(f'api/kernels/{kc.parent.kernel_id}/restart')
            begin = time.monotonic()
            errors = [await outcome(o) for o in flying]
            assert all(interrupted(o) or type(o) is KernelRestartedError for o in errors), errors
            print(f'figure | restart by somebody else, told after | {time.monotonic()-begin:.2f} s')
            assert (await after_restart(jupyter, lambda: kc.run('"x" in globals()'))).text.strip() == 'False'

async def test_restart_in_an_outage(jupyter):
    async with proxied(jupyter) as (proxy, kc):
        await kc.run('x = 1')
        req = ask(kc, 'import time; time.sleep(60)')
        await until_busy(req)
        await proxy.refuse()
        proxy.cut()
        await jupyter.post(f'api/kernels/{kc.parent.kernel_id}/restart')
        await proxy.listen()
        end = await outcome(req)   # (a server that interrupts the cell first keeps its reply)
        assert isinstance(end, KernelRestartedError) or interrupted(end), end
        assert (await after_restart(jupyter, lambda: kc.run('"x" in globals()'))).text.strip() == 'False'

async def test_the_kernel_dies_and_the_server_restarts_it(jupyter):
    async with kernel(jupyter) as kc, client(kc) as kc2:
        await kc.run('x = 1')
        os_pid = await pid(kc)
        flying = [ask(kc, 'import time; time.sleep(60)')]
        await until_busy(flying[0])
        flying.append(kc2.run('1'))   # behind it
        await kc2.kernel_info(reply=True, channel='control')   # (the server has passed on both)
        os.kill(os_pid, signal.SIGKILL)
        begin = time.monotonic()
        assert [type(await outcome(o)) for o in flying] == [KernelRestartedError]*2
        print(f'figure | autorestart, told after | {time.monotonic()-begin:.2f} s')
        assert (await outcome(kc.run('"x" in globals()'))).text.strip() == 'False'
        await goes_on(kc2)

async def test_the_kernel_dies_in_an_outage(jupyter):
    async with proxied(jupyter) as (proxy, kc):
        os_pid = await pid(kc)
        req = ask(kc, 'import time; time.sleep(60)')
        await until_busy(req)
        await proxy.refuse()
        proxy.cut()
        os.kill(os_pid, signal.SIGKILL)
        # (The server's model may say *busy* until the next request: its subscription may miss that the new kernel is starting)
        await until(lambda: set(processes_of(kc.parent.kernel_id))-{os_pid})
        await proxy.listen()
        assert isinstance(await outcome(req), KernelRestartedError)
        await goes_on(kc)


@slow
async def test_the_kernel_dies_too_often():
    jupyter = Jupyter('--KernelRestarter.restart_limit=1').start()
    try:
        await jupyter.ready()
        async with kernel(jupyter) as kc:
            for _ in range(2):
                os_pid = await pid(kc)
                req = ask(kc, 'import time; time.sleep(1000)')
                await until_busy(req)
                os.kill(os_pid, signal.SIGKILL)
                error = await outcome(req)
                if type(error) is DeadKernelError: break
                assert isinstance(error, KernelRestartedError)
            await kc.wait_for_status('dead', timeout=SOON)
    finally: jupyter.stop()


# Ends

@pytest.mark.parametrize('busy', [True, False])
async def test_deleted_by_somebody_else(jupyter, busy):
    async with kernel(jupyter) as kc:
        if busy: req = await printing(kc, 1000, .1)
        await jupyter.delete(f'api/kernels/{kc.parent.kernel_id}')
        begin = time.monotonic()
        if busy:
            error = await outcome(req)
            assert interrupted(error) or isinstance(error, DeadKernelError) and 'shut the kernel down' in str(error), error
        await kc.wait_for_status('dead', timeout=SOON)
        print(f'figure | deletion, told after | {time.monotonic()-begin:.2f} s')
        with pytest.raises(DeadKernelError, match='start another one'): await kc.execute('1', reply=True)
        assert await kc.is_alive() is False and await kc.parent.is_alive() is False

def silent_server(kc):
    "The server does not answer questions for the kernel, as one that stands still; `Event.set` ends it. And what was asked."
    transport, answers, asked = kc.connection.transport, asyncio.Event(), []
    model = transport.model
    async def late():
        asked.append(time.monotonic())
        if not answers.is_set(): raise ServerError('it does not answer in time')
        return await model()
    transport.model = late
    return answers, asked

async def test_deleted_by_a_server_that_stands_still(jupyter):
    "It is asked again, until it answers"
    async with kernel(jupyter) as kc:
        answers, asked = silent_server(kc)
        await jupyter.delete(f'api/kernels/{kc.parent.kernel_id}')
        await until(lambda: len(asked) > 2)
        assert kc.status != 'dead'
        answers.set()
        await kc.wait_for_status('dead', timeout=SOON)

async def test_a_server_that_stands_still_is_no_dead_kernel(jupyter):
    "A kernel counts as dead when it does not answer and the server does"
    async with kernel(jupyter) as kc:
        kc.connection.transport.quiet = .1
        os_pid = await pid(kc)
        answers, asked = silent_server(kc)
        req = ask(kc, 'import time; time.sleep(1000)')
        await until_busy(req)
        await until(lambda: kc.watching is not None)
        kc.watching.probe_every, kc.watching.patience, kc.watching.dead_after = .05, .05, .05
        os.kill(os_pid, signal.SIGSTOP)
        try:
            begin = len(asked)
            await until(lambda: len(asked) > begin+20)
            assert not req.done() and kc.watching.unanswered is None
            answers.set()
            error = await outcome(req)
            assert isinstance(error, DeadKernelError) and 'has not answered' in str(error), error
        finally: os.kill(os_pid, signal.SIGCONT)

class Unheard:
    "Connection and transport of a kernel that answers no question, with a server that has it"
    info, up = dict(supported_features=['kernel subshells']), False
    def __init__(self): self.silent, self.said = False, []
    def fell_silent(self): self.silent = True
    def reconnect(self, why): self.said.append('reconnect')
    def host_says(self, status, why): self.said.append(status)
    async def model(self): return dict(execution_state='busy')
    async def request(self, *args, **kwargs): raise NotConnected('No connection')

async def test_silences_do_not_add_up(monkeypatch):
    "Time counts from the last silence, not from one that has ended: behind some servers, each restart by others begins with one"
    clock = SimpleNamespace(now=1.)
    monkeypatch.setattr('conkernelclient.kernels.server.time', SimpleNamespace(monotonic=lambda: clock.now))
    kernel = Unheard()
    watch = Watch(kernel, kernel)
    async def look(now):
        clock.now = now
        await watch._look()
        return kernel.said[-1]
    watch.probe_every = 0.
    assert await look(1) == 'reconnect' and kernel.silent
    kernel.silent = False   # something came
    assert await look(40) == 'reconnect'
    assert await look(60) == 'reconnect'
    assert await look(71) == 'dead' and kernel.said == ['reconnect', 'reconnect', 'dead']

async def test_an_error_of_the_block_is_not_replaced_by_that_of_the_deletion(jupyter):
    with pytest.raises(ZeroDivisionError):
        async with open_server_kernel(jupyter.url, token=jupyter.token) as kc:
            kc.parent.server.url = f'http://127.0.0.1:{free_port()}'
            1/0
    await jupyter.delete(f'api/kernels/{kc.parent.kernel_id}')

async def test_deleted_in_an_outage(jupyter):
    async with proxied(jupyter) as (proxy, kc):
        req = await printing(kc, 1000, .1)
        await proxy.refuse()
        proxy.cut()
        await jupyter.delete(f'api/kernels/{kc.parent.kernel_id}')
        await proxy.listen()
        assert isinstance(error := await outcome(req), DeadKernelError) and 'does not exist' in str(error), error

@slow
async def test_killed_and_nobody_restarts_it():
    "The server says nothing, and its model stays *busy*: the client asks the kernel itself"
    jupyter = Jupyter('--KernelManager.autorestart=False', '--MappingKernelManager.kernel_info_timeout=60').start()
    try:
        await jupyter.ready()
        async with kernel(jupyter) as kc:
            req = await killed_while_watched(kc, patience=1., dead_after=3.)
            await kc.wait_for_status('unresponsive', timeout=SOON)
            error = await outcome(req)
            assert isinstance(error, DeadKernelError) and 'has not answered' in str(error)
            await kc.parent.restart_kernel()
            await goes_on(kc)
    finally: jupyter.stop()

@slow
@pytest.mark.parametrize('sig', [signal.SIGTERM, signal.SIGKILL])
async def test_the_server_ends(sig):
    jupyter = Jupyter().start()
    try:
        await jupyter.ready()
        km = ServerKernelManager(jupyter.url, jupyter.token)
        await km.start_kernel()
        kc = await km.client().start_channels()
        kc.connection.transport.reconnect_timeout = 3.
        req = ask(kc, 'import time; time.sleep(1000)')
        await until_busy(req)
        jupyter.stop(sig)
        error = await outcome(req)
        assert isinstance(error, DeadKernelError) and 'was not reachable' in str(error), error
        kc.stop_channels()
        with pytest.raises(ServerError, match='Nothing listens'): await km.shutdown_kernel()
    finally: jupyter.stop(signal.SIGKILL)

@slow
async def test_the_server_is_started_again():
    "It does not know the kernel any more"
    jupyter = Jupyter().start()
    try:
        await jupyter.ready()
        km = ServerKernelManager(jupyter.url, jupyter.token)
        await km.start_kernel()
        kc = await km.client().start_channels()
        req = ask(kc, 'import time; time.sleep(1000)')
        await until_busy(req)
        jupyter.stop()
        jupyter.start()
        error = await outcome(req)
        assert isinstance(error, DeadKernelError) and 'does not exist' in str(error), error
        kc.stop_channels()
        await km.shutdown_kernel()   # there is nothing to delete
    finally: jupyter.stop(signal.SIGKILL)

@slow
async def test_the_server_has_another_token_now():
    jupyter = Jupyter().start()
    try:
        await jupyter.ready()
        async with Proxy(jupyter.port) as proxy:
            km = ServerKernelManager(f'http://127.0.0.1:{proxy.port}', jupyter.token)
            await km.start_kernel()
            kc = await km.client().start_channels()
            req = ask(kc, 'import time; time.sleep(1000)')
            await until_busy(req)
            km.server.token = 'revoked'
            proxy.cut()
            error = await outcome(req)
            assert isinstance(error, DeadKernelError) and 'refuses the token' in str(error), error
            km.server.token = jupyter.token
            await km.interrupt_kernel()   # (else it has no time for us)
            await kc.wait_for_status('ready', timeout=SOON)
            kc.stop_channels()
            await km.shutdown_kernel()
    finally: jupyter.stop()

@slow
async def test_culled():
    jupyter = Jupyter('--MappingKernelManager.cull_idle_timeout=5', '--MappingKernelManager.cull_interval=1',
                      '--MappingKernelManager.cull_connected=True').start()
    try:
        await jupyter.ready()
        km = ServerKernelManager(jupyter.url, jupyter.token)
        await km.start_kernel()
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_status('dead', timeout=SOON)   # (on a slow machine, before it was ready)
        with pytest.raises(DeadKernelError, match='culled|does not exist'): await kc.execute('1', reply=True)
        kc.stop_channels()
    finally: jupyter.stop()


# Limits of the server

@pytest.fixture(scope='module')
def strict():
    "A server with a low limit"
    server = Jupyter('--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=20').start()
    asyncio.run(server.ready())
    try: yield server
    finally: server.stop()

@pytest.mark.parametrize('connect', [tornado_connect, legacy])
async def test_the_rate_limit_is_hit(strict, connect):
    async with kernel(strict, connect=connect) as kc:
        r = await kc.run('from IPython.display import display\nfor i in range(500): display(i)')
        assert not r.complete and 'rate exceeded' in r.missing and 'rate exceeded' not in r.stderr and len(r.outputs) < 500
        r = await kc.run('print("x"*100)')
        assert r.complete and r.stdout == 'x'*100+'\n'

async def test_the_rate_limit_is_hit_by_a_neighbour(strict):
    "The server drops outputs, errors too, of requests that are told nothing"
    async with kernel(strict) as kc:
        async with kc.subshell() as sub:
            quiet = kc.run('import time\ntime.sleep(2)\nprint("quiet out"); 1/0')
            flood = sub.run('from IPython.display import display\nimport time\nend = time.time()+4\nwhile time.time() < end: display(1); time.sleep(.001)')
            a, b = await quiet, await flood
            assert a.stdout == '' and a.status == 'error' and not a.complete and 'rate exceeded' in a.missing
            assert not b.complete and b.missing
        r = await kc.run('1')
        assert r.complete

@slow
async def test_a_loss_that_nobody_reports():
    "A flood too fast for the server: the kernel drops messages, and the numbers of those that come tell"
    jupyter = Jupyter('--ZMQChannelsWebsocketConnection.limit_rate=False').start()
    try:
        await jupyter.ready()
        async with kernel(jupyter) as kc:
            kc.max_output = 10**9   # (200 MB would be cut)
            r = await kc.run('from IPython.display import display\nfor i in range(2000): display({"text/plain": "x"*100_000}, raw=True)')
            print(f'figure | displays of 2,000 that came | {len(r.outputs)}')
            assert r.complete == (len(r.outputs) == 2000)
            if not r.complete: assert 'did not come' in r.missing
            r = await kc.run('1')
            assert r.complete and not r.missing
    finally: jupyter.stop()

async def test_nothing_is_missed_where_nothing_is_missing(jupyter):
    "Four clients, subshells, prompts and comms: no false alarm"
    async with kernel(jupyter) as kc, client(kc) as a, client(kc) as b, client(kc) as c:
        async def work(kc):
            results = await asyncio.gather(*(kc.run(f'print({i}); {i}') for i in range(30)), kc.run('input("?")', stdin=['answer']),
                                           kc.kernel_info(reply=True, channel='control'))
            assert all(o.complete and not o.missing for o in results[:-1])
            assert all(o.complete for o in await kc.map(f'print({i}); {i}' for i in range(8)))
        await asyncio.gather(*map(work, (kc, a, b, c)))
        assert not [o.connection.transport.ledger for o in (kc, a, b, c) if len(o.connection.transport.ledger.missing) > 2000]
