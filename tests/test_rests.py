"""While output pours through a WebSocket, the peer rests between two reads: what comes in a rest keeps its order, and only the
end of the cell that prints is late. The socket and the event loop are scripted, and the time is set by hand."""
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from wsproto.frame_protocol import FrameProtocol
from conkernelclient.engine.life import Link
from conkernelclient.engine.session import ConSession
from conkernelclient.transports.peer import SocketPeer
from conkernelclient.transports.websocket import V1, Line, Server, WebSocketTransport, pack_v1

KERNEL = ConSession(key=b'', session='k1')
KINDS = dict(stream='iopub', status='iopub', execute_reply='shell', input_request='stdin')
LATE = .0011   # seconds: a rest is over


class Still:
    "An event loop whose time we set"
    def __init__(self): self.now, self.watched, self.timers = 1., None, []
    def add_reader(self, fd, call): self.watched = call
    def remove_reader(self, fd): self.watched = None
    def remove_writer(self, fd): pass
    def is_closed(self): return False
    def create_future(self): return SimpleNamespace(done=lambda: True)
    def call_soon(self, call, *args): return self.call_later(0, call, *args)
    def call_later(self, delay, call, *args):
        timer = SimpleNamespace(when=self.now+delay, call=partial(call, *args))
        timer.cancel = lambda: self.timers.remove(timer) if timer in self.timers else None
        self.timers.append(timer)
        return timer


class Wire:
    "A connected socket: what has come, and what was sent"
    def __init__(self): self.data, self.cut, self.sent, self.closed = b'', False, [], False
    def recv(self, size):
        if not self.data and not self.cut: raise BlockingIOError
        data, self.data = self.data[:size], self.data[size:]
        return data
    def send(self, data): return self.sent.append(bytes(data)) or len(data)
    def fileno(self): return 7
    def close(self): self.closed = True
    def setblocking(self, flag): pass
    def setsockopt(self, *args): pass


class Scene:
    "A transport with all that is below it, and the kernel's end; a sink that notes what it gets"
    def __init__(self):
        self.loop, self.wire, self.kernel, self.got = Still(), Wire(), FrameProtocol(client=False, extensions=[]), []
        self.unanswered, self.idle_owed, self.answers = 1, False, None
        self.t = WebSocketTransport(Server('http://host'), lambda: '1', 'mine', in_flight=lambda: self.unanswered)
        self.t.open(self, ['shell', 'iopub'])
        self.t.loop = self.loop
        self.t._task = SimpleNamespace(done=lambda: False, cancelling=lambda: 0, cancel=lambda: None)
        self.line = Line(self.t._came, self.t._ended, self.loop)
        self.peer = SocketPeer(self.wire, self.loop, self.line.message, subprotocol=V1)
        self.t._line = self.line
        self.line.begin(self.peer)

    # the sink
    def received(self, channel, batch, until):
        for frames in batch:
            self.got.append((round(self.loop.now-self.begin, 6), KERNEL.unpack(frames[1])['msg_type']))
            if self.answers and self.got[-1][1] == 'execute_reply': self.answers()
        batch.clear()
    def link(self, channel, event, why='', final=False): self.got.append((round(self.loop.now-self.begin, 6), event))
    def awaits_idle(self): return self.idle_owed

    def inside(self):
        "The scripted loop runs"
        stack = ExitStack()
        stack.enter_context(patch('time.monotonic', lambda: self.loop.now))
        stack.enter_context(patch('asyncio.get_running_loop', lambda: self.loop))
        return stack

    def send(self, channel):
        with self.inside(): self.t.send(channel, (b'', b'{}', b'{}', b'{}', b'{}'))

    # the kernel
    def come(self, *kinds, after=0.):
        "Messages come, one read apart from those before where the socket is watched"
        for kind in kinds:
            content = dict(name='stdout', text='x') if kind == 'stream' else dict(execution_state='idle')
            frames = b'', *KERNEL.serialize(KERNEL.msg(kind, content))[2:]
            self.wire.data += self.kernel.send_data(pack_v1(KINDS[kind], frames))
        self.turn(after)

    def turn(self, seconds=0.):
        "Time passes, and the loop takes a turn"
        self.loop.now += seconds
        with self.inside():
            for o in [o for o in self.loop.timers if o.when <= self.loop.now]:
                if o in self.loop.timers:
                    self.loop.timers.remove(o)
                    o.call()
            if self.loop.watched and (self.wire.data or self.wire.cut): self.loop.watched()

    @property
    def rests(self): return self.loop.watched is None and not self.wire.closed

    def pour(self):
        "Output pours until the peer rests. Afterwards, times count from now."
        self.begin = self.loop.now
        for _ in range(100):
            self.come('stream', after=.0002)
            if self.rests: break
        assert self.rests and len(self.got) > 20
        assert all(i*.0002 == pytest.approx(t-.0002) for i, (t, _) in enumerate(self.got))   # each was read when it came
        self.begin = self.loop.now
        self.got.clear()
        return self


def test_outputs_in_a_rest_come_together_and_the_next_rest_follows():
    s = Scene().pour()
    for _ in range(3): s.come('stream', after=.0002)
    assert s.got == []
    s.turn(LATE-.0006)
    assert s.got == [(LATE, 'stream')]*3 and s.rests

def test_a_prompt_behind_outputs():
    s = Scene().pour()
    s.come('stream', 'stream', 'input_request', after=.0002)
    s.turn(LATE)
    assert [o for _, o in s.got] == ['stream', 'stream', 'input_request'] and not s.rests
    s.come('stream', after=.0002)   # what is printed then is read when it comes
    assert s.got[-1] == (round(LATE+.0004, 6), 'stream')

def test_idle_behind_a_reply():
    s = Scene().pour()
    s.answers = lambda: setattr(s, 'unanswered', 0)
    s.come('stream', 'execute_reply', after=.0002)
    s.turn(LATE)
    assert [o for _, o in s.got] == ['stream', 'execute_reply'] and not s.rests
    s.come('status', after=.0001)
    assert s.got[-1] == (round(LATE+.0003, 6), 'status')

def test_no_rest_while_idle_is_owed():
    "Outputs of threads may come between the reply and the idle, however long"
    s = Scene().pour()
    s.answers = lambda: (setattr(s, 'unanswered', 0), setattr(s, 'idle_owed', True))
    s.come('execute_reply', after=LATE)
    for _ in range(100):
        s.come('stream', after=.0002)
        assert not s.rests
    s.come('status')
    assert s.got[-1] == (round(s.loop.now-s.begin, 6), 'status')

def test_the_next_cell_is_sent_in_the_reply_of_the_one_before():
    s = Scene().pour()
    s.answers = lambda: s.send('shell')
    s.come('stream', 'execute_reply', 'status', after=.0002)
    s.turn(LATE)
    assert len(s.wire.sent) == 1 and not s.rests
    for _ in range(40): s.come('stream', after=.0002)   # its first outputs
    assert [t for t, _ in s.got[3:]] == [round(.0002+LATE+.0002*(i+1), 6) for i in range(40)]

def test_a_request_that_is_sent_ends_the_rest():
    s = Scene().pour()
    s.send('control')
    s.unanswered = 2
    assert not s.rests
    for _ in range(100): s.come('stream', after=.0002)
    assert len(s.got) == 100 and not s.rests

def test_closed_in_a_rest():
    s = Scene().pour()
    s.come('stream', after=.0002)
    with s.inside(): s.t.close()
    assert s.loop.timers == []
    for _ in range(4): s.turn(LATE)
    assert (s.got, s.wire.closed, s.loop.watched, s.loop.timers) == ([], True, None, [])

def test_cut_in_a_rest():
    "What came before the cut is handed over before the news"
    s = Scene().pour()
    s.come('stream', 'stream', after=.0002)
    s.wire.cut = True
    for _ in range(4): s.turn(LATE)
    assert [o for _, o in s.got] == ['stream', 'stream', Link.DOWN] and s.wire.closed and s.loop.timers == []

def test_reopened_in_a_rest():
    "Nothing of the old connection is handed over"
    s = Scene().pour()
    s.come('stream', after=.0002)
    s.loop.create_task = lambda coro: coro.close()
    s.t.reopen()
    for _ in range(4): s.turn(LATE)
    assert (s.got, s.wire.closed, s.loop.timers) == ([], True, [])

def test_output_that_stops():
    "One rest is in vain, and what comes then is read when it comes"
    s = Scene().pour()
    s.turn(LATE)
    assert not s.rests and s.got == []
    for _ in range(5): s.come('stream', after=.1)
    assert [t for t, _ in s.got] == [round(LATE+.1*(i+1), 6) for i in range(5)]

def test_output_that_is_too_slow_for_rests():
    "One message in ten milliseconds is late"
    s, came = Scene().pour(), []
    s.turn(LATE)
    for _ in range(100):
        s.come('stream')
        came.append(round(s.loop.now-s.begin, 6))
        for _ in range(7): s.turn(.0001)
    assert len(s.got) == 100 and 1 <= sum(t > c for (t, _), c in zip(s.got, came)) <= 7

def test_a_server_that_holds_messages_back_until_the_first_is_acknowledged():
    "In a rest only one comes, and the others when it has been read"
    s = Scene().pour()
    for _ in range(10):
        before = len(s.got)
        s.come('stream', after=LATE)
        assert len(s.got) == before+1 and not s.rests
        s.come('stream', 'stream', 'stream', after=.00005)
        assert len(s.got) == before+4 and s.rests
