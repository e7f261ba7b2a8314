"""What a review of `engine/life` and `engine/connection` found: each test shows one mistake, and passes when it is fixed.

The kernel is in memory, and each bad order is forced. Where something must not happen, a test waits for as long as the
mistake would take.
"""
import asyncio
from collections import deque
from weakref import ref

import pytest
import fault_tools
from fake_kernel import FakeKernel
from conkernelclient import ClientClosedError, ConKernelClient, DeadKernelError, KernelRestartedError
from conkernelclient.engine.connection import Connection
from conkernelclient.engine.lane import Hold
from conkernelclient.engine.life import FENCE, LOSSLESS, PROBE, Life, Link, State
from conkernelclient.engine.session import ConSession
from conkernelclient.engine.transport import NoHost

pytestmark = [pytest.mark.filterwarnings('error')]
bound = 60
SOON = 10   # seconds: far more than anything here takes


class Echo:
    "A kernel in memory: each request is answered with *busy*, a reply and *idle*"
    def __init__(self, session='one'):
        self.kernel = ConSession(key=b'secret', session=session)
        self.sent, self.calls, self.lost = [], [], set()

    def open(self, sink, channels): self.sink = ref(sink)
    def start(self, loop): self.loop = loop
    def send(self, channel, packed):
        msg_type = self.kernel.unpack(packed[1])['msg_type']
        self.sent.append((channel, msg_type))
        self.loop.call_soon(self.answer, channel, packed, msg_type)

    def answer(self, channel, packed, msg_type):
        self.publish('iopub', packed, 'status', execution_state='busy')
        self.publish(channel, packed, msg_type.replace('_request', '_reply'), status='ok')
        self.publish('iopub', packed, 'status', execution_state='idle')

    def publish(self, channel, packed, msg_type, **content):
        if channel in self.lost or self.sink() is None: return
        _, frames = self.kernel.prepare(self.kernel.msg_header(msg_type), content)
        frames = frames[1], packed[1], *frames[3:]
        self.sink().received(channel, deque([(self.kernel.sign(frames), *frames)]), float('inf'))

    def drain(self): self.calls.append('drain')
    def pending(self): return False
    def reopen(self, channels=None): self.calls.append('reopen')
    def expect(self, beats): pass
    def describe(self, channel): return 'memory'
    def close(self): pass


class Owner(NoHost):
    "Started the kernel's process"
    owns = True
    def __init__(self, alive=True, comes_back=False): self.lives, self.comes_back = alive, comes_back
    async def alive(self): return self.lives
    async def exit_code(self): return None if self.lives else 1


def connection(transport=None, **kwargs): return Connection(transport or Echo(), ConSession(key=b'secret'), **kwargs)

async def ready(transport=None, **kwargs):
    conn = connection(transport, **kwargs)
    conn.open(['shell', 'iopub', 'control'])
    await conn.ready(timeout=SOON)
    return conn

def life(*events, **kwargs):
    "A ready life to which `events` have happened"
    res = Life(**kwargs)
    for o in 'opened', 'wanted': res.on(o)
    res.on('answered', session='one', up=('shell', 'iopub'))
    for o in events: res.on(o)
    return res

async def outcome(awaitable, seconds=SOON):
    try: return await asyncio.wait_for(awaitable, seconds)
    except Exception as e: return e

def todo(why): return pytest.mark.xfail(strict=True, reason=why)


# --- the table ---------------------------------------------------------------------------------------------------------

def test_a_shell_that_is_connected_anew_is_fenced():
    "Shell breaks, its next peer is refused for good, all channels are opened anew, and the kernel is there again"
    lf = life('shell down', 'shell refused', 'refused for good')
    assert FENCE in lf.on('shell up') or Hold.SHELL_DOWN not in lf.holds   # else nothing is ever sent again

async def test_a_request_after_a_shell_that_was_refused_for_good():
    conn = await ready(host=Owner())
    conn.link('shell', Link.DOWN)
    conn.link('shell', Link.REFUSED, final=True)
    conn.link('shell', Link.UP)
    reply = await outcome(conn.request('execute_request', dict(code='1')), 1)
    conn.close()
    assert not isinstance(reply, Exception), reply

def test_a_hold_for_iopub_ends_whatever_listens_there():
    "What listens on its port closes each connection before the handshake; the 3 s of the hold must come to an end"
    lf, now, timers = life(), 0., {}
    def happens(event):
        for o in lf.on(event):
            if o.do == 'timer': timers[o.what] = now+o.seconds
            elif o.do == 'stop timer': timers.pop(o.what, None)
            elif o.do == 'reopen': timers['closed'] = now+.01
    happens('iopub down')
    happens('iopub down')
    while Hold.IOPUB_DOWN in lf.holds and now < 10:
        name, now = min(timers.items(), key=lambda o: o[1])
        del timers[name]
        happens('iopub down' if name == 'closed' else name)
    assert now < 4

async def test_a_request_while_the_tunnel_of_iopub_leads_nowhere():
    "An SSH tunnel whose other end is gone: it accepts connections, and closes each"
    def refuse(reader, writer): writer.close()
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        await fault_tools.Iopub(fk).lose(kc)
        server = None
        while server is None:
            try: server = await asyncio.start_server(refuse, '127.0.0.1', fk._truth['iopub_port'])
            except OSError: await asyncio.sleep(.01)   # the kernel's own socket is not gone yet
        reply = await outcome(kc.execute('1', reply=True), 6)   # held for 3 s at most
        kc.stop_channels()
        server.close()
        await server.wait_closed()
        assert not isinstance(reply, Exception), reply

def test_a_kernel_that_beats_again_is_not_verified_any_more():
    lf = life('silent')
    assert any(o.do == 'stop timer' and o.what == 'silence timer' for o in lf.on('beats, nobody knows'))

async def test_a_kernel_of_somebody_else_that_beats_again_is_left_alone():
    conn = await ready()
    conn.beat(False)
    conn.beat(True)
    await asyncio.sleep(.7)   # the timer is set anew every half second
    timers, late = dict(conn._timers), dict(conn.life.late)
    conn.close()
    assert not timers and not late

def test_ready_while_iopub_is_away():
    "The probe was heard on iopub, which then broke before the reply came: outputs may be lost, and nothing says so"
    lf = Life()
    for o in 'opened', 'wanted', 'shell up', 'iopub up', 'iopub down': lf.on(o)
    actions = lf.on('answered', session='one', up=('shell',))
    assert lf.links['iopub'] is Link.DOWN
    assert Hold.IOPUB_DOWN in lf.holds or actions.count(LOSSLESS) == 0

def test_a_timer_of_an_earlier_restart_ends_no_later_one():
    lf, timers = life(), set()
    def happens(event):
        for o in lf.on(event):
            if o.do == 'timer': timers.add(o.what)
            elif o.do == 'stop timer': timers.discard(o.what)
            elif o.do == 'stop timers': timers.clear()
    for o in 'restart asked', 'ended', 'restart': happens(o)
    if 'ending timer' in timers: happens('ending timer')
    assert lf.state is State.ENDING   # our manager is still ending the old kernel

def test_a_late_event_changes_nothing():
    "A server reports a death that our verification has reported already, without the exit code"
    lf = life()
    lf.on('died', code=-9)
    lf.on('died', code=None)
    assert lf.late['dead', 'died'] == 1
    assert lf.exit_code == -9 and lf.error.exit_code == -9

def test_a_shell_that_is_refused_is_held():
    "A transport that reports a refusal without a break before it (a server that refuses a token)"
    lf = life()
    lf.on('shell refused')
    assert Hold.SHELL_DOWN in lf.holds


# --- statuses ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('what', ['request', 'close'])
async def test_watchers_get_the_latest_status_last(what):
    conn, seen = connection(), []
    def act(status):
        if status != 'ready' or seen.count('ready'): return
        if what == 'close': conn.close()
        elif not conn.router.table: conn.request('execute_request', dict(code='1'))
    conn.watch(act)
    conn.watch(seen.append)
    conn.open(['shell', 'iopub'])
    conn.happened('answered', session='one', up=('shell', 'iopub'))
    status = conn.status
    last = list(seen)
    conn.close()
    assert last[-1] == status, (last, status)

@pytest.mark.parametrize('when', ['before', 'while waiting'])
async def test_waiting_for_a_status_ends_with_the_connection(when):
    conn = await ready()
    if when == 'before': conn.close()
    waiting = asyncio.ensure_future(conn.wait_for_status('dead'))
    await asyncio.sleep(.01)
    conn.close()
    res = await outcome(waiting, 1)
    assert isinstance(res, ClientClosedError), res


# --- actions -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('what', ['readdress', 'reopen', 'drain'])
async def test_an_action_that_raises_does_not_end_the_rest(what):
    "A restart whose first attempt to open sockets fails (too many open files): the client gets ready, or calls raise"
    conn = await ready()
    fails = [OSError('Too many open files')]
    def fail(*args):
        if fails: raise fails.pop()
    if what == 'readdress': conn.readdress = fail
    else: setattr(conn.transport, what, fail)
    conn.restart_begins()
    new = conn.request('execute_request', dict(code='1'))
    try: conn.restart_ends()
    except OSError: pass
    res = await outcome(new, 2)
    conn.close()
    assert not isinstance(res, TimeoutError)

async def test_an_interrupt_in_a_status_callback_leaves_no_half_state():
    "Ctrl-C while a status callback runs: the old kernel is ending, and gets what is meant for the next"
    conn = await ready()
    def interrupted(status): raise KeyboardInterrupt
    remove = conn.watch(interrupted)
    try: conn.restart_begins()
    except KeyboardInterrupt: pass
    remove()
    before = len(conn.transport.sent)
    conn.request('execute_request', dict(code='meant for the next kernel'))
    sent = conn.transport.sent[before:]
    conn.close()
    assert sent == []

async def test_a_kernel_whose_info_cannot_be_read():
    "`on_info` raises (jupyter_client's does for a reply without `protocol_version`): ready, or an error that says so"
    def on_info(reply): raise KeyError('protocol_version')
    conn = connection(on_info=on_info)
    conn.open(['shell', 'iopub'])
    res = await outcome(conn.ready(), 2)
    conn.close()
    assert not isinstance(res, TimeoutError)

async def test_a_host_that_fails_once():
    "The death of the process is noticed, although the first question fails"
    class Flaky(Owner):
        failed = False
        async def alive(self):
            if not self.failed:
                self.failed = True
                raise OSError('cannot ask now')
            return False
    conn = await ready(host=Flaky())
    for o in 'iopub', 'shell': conn.link(o, Link.DOWN)
    res = await outcome(conn.request('execute_request', dict(code='1')), 2)
    conn.close()
    assert isinstance(res, DeadKernelError), res

async def test_a_second_break_has_a_time_of_its_own():
    conn = await ready(lost_after=.4)
    conn.link('iopub', Link.DOWN)
    conn.link('shell', Link.DOWN)
    await asyncio.sleep(.3)
    conn.link('shell', Link.UP)
    conn.link('shell', Link.DOWN)
    await asyncio.sleep(.25)
    status = conn.status
    conn.close()
    assert status != 'dead'   # it has been away for .25 s

async def test_a_fence_does_not_outlive_a_restart():
    "The connection is back, and in the same turn of the loop a restart begins; the old kernel answers nothing any more"
    conn = await ready(host=Owner())
    conn.link('shell', Link.DOWN)
    conn.link('shell', Link.UP)
    conn.restart_begins()
    conn.transport.lost = {'shell', 'iopub', 'control'}
    await asyncio.sleep(.05)
    conn.transport.lost = set()
    conn.transport.kernel = ConSession(key=b'secret', session='two')
    conn.restart_ends()
    await conn.ready(timeout=SOON)
    await asyncio.sleep(.05)
    left = list(conn.router.table), conn.status, len(conn._tasks)
    conn.close()
    assert left == ([], 'ready', 0)

async def test_readers_of_a_kernel_that_died_before_the_first_use():
    "Opened outside a loop, and the restart failed there: a reader gets the error all the same"
    conn = connection(host=Owner(), readers_grace=.05)
    def outside():
        conn.open(['shell', 'iopub'])
        conn.restart_begins()
        conn.restart_ends('no such command')
    await asyncio.to_thread(outside)
    conn.in_loop()
    res = await outcome(conn.router.mailboxes['shell'].get(), 1)
    conn.close()
    assert isinstance(res, DeadKernelError), res

async def test_outputs_from_before_the_start_keep_their_order():
    conn = connection()
    conn.open(['shell', 'iopub'])
    box = conn.router.mailboxes['iopub']
    box.push((b'wrong signature', b'{}', b'{}', b'{}', b'{}'))
    for i in 'ab': box.push(dict(msg_type='status', parent_header=dict(msg_id=i), content={}))
    conn.happened('answered', session='one', up=('shell', 'iopub'))
    left = [box.pop()['parent_header']['msg_id'] for _ in range(len(box))]
    conn.close()
    assert left == ['a', 'b']

async def test_waiting_in_vain_leaves_nothing():
    conn = connection()
    conn.open(['shell'])
    conn.transport.lost = {'shell'}
    for _ in range(20): assert isinstance(await outcome(conn.ready(timeout=.001)), RuntimeError)
    left = len(conn._waiting)
    conn.close()
    assert left <= 1


# --- what is right ------------------------------------------------------------------------------------------------------

async def test_events_in_the_middle_of_actions_wait():
    "While sockets are drained, a restart begins: it is carried out after the rest"
    conn = await ready(host=Owner())
    drain = conn.transport.drain
    def draining():
        conn.transport.drain = drain
        conn.restart_begins()
        assert conn.life.state is State.COMING
    conn.transport.drain = draining
    conn.happened('other kernel')
    assert conn.life.state is State.ENDING and conn._probe is None
    conn.close()

@pytest.mark.parametrize('how', ['status', 'drop', 'drain'])
async def test_closing_in_the_middle_of_actions(how):
    "In a status callback, in what is called for a dropped item, while sockets are drained: closed, and nothing else is done"
    conn = await ready(host=Owner())
    closing = lambda *args: conn.close()
    if how == 'status': conn.watch(lambda status: status == 'restarting' and conn.close())
    if how == 'drain': conn.transport.drain = closing
    lane = conn.lane(1, lambda item: None, closing if how == 'drop' else lambda item, error: None)
    class Item: generation = 0
    lane.add('a', Item())
    req = conn.request('execute_request', dict(code='1'))
    conn.happened('other kernel')
    assert conn.status == 'closed'
    assert isinstance(await outcome(req), (ClientClosedError, KernelRestartedError))
    assert not conn._timers and conn._probe is None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not conn._tasks
