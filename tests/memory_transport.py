"""A transport that keeps both ends in memory, for tests: no sockets, and only the delays that a test asks for.

A `Place` is an address. A kernel listens there (anything with `received(line, channel, frames)`, `joined(line)` and
`beats`), or nobody does. `MemoryTransport(place)` is the client's end, with one `Line` for each open connection of a
channel. A line behaves as a ZMQ socket does: it connects by itself as soon as somebody listens, keeps what is sent while
nobody does, keeps the order of its messages, and loses those under way when it is cut.

    place = Place()
    place.listen(ModelKernel(place))
    kc = MemoryClient(place)
    await kc.start_channels()
"""
import asyncio, weakref
from collections import deque
from math import inf

from conkernelclient import ConKernelClient

from conkernelclient.engine.life import Link
from conkernelclient.engine.session import ConSession
from conkernelclient.engine.transport import NoHost


class Line:
    "One connection of one channel, from a client to whoever listens"
    def __init__(self, transport, channel):
        self.transport, self.channel, self.place = transport, channel, transport.place
        self.up = self.closed = self.blocked = False
        self.kept = deque()     # sent while nobody listened
        self.ways = {}          # what is under way, by direction
        self.due = {}           # when the last of it arrives, by direction

    def later(self, way, f, *args):
        "Call `f` after the delay of the place, and after everything before it on this way"
        loop, queue = self.transport.loop, self.ways.setdefault(way, deque())
        queue.append((f, args))
        self.due[way] = when = max(self.due.get(way, 0), loop.time()+self.place.delay())
        loop.call_at(when, self._next, queue)

    def _next(self, queue):
        if queue and not self.closed:
            f, args = queue.popleft()
            f(*args)

    def connect(self):
        "Connect, if somebody listens"
        if self.up or self.blocked or self.closed or self.place.kernel is None or self.transport.loop is None: return
        self.up = True
        self.later('news', self.transport.tell, self.channel, Link.UP)
        while self.kept: self.send(self.kept.popleft())
        self.place.kernel.joined(self)

    def cut(self, lose=True):
        "Nobody listens any more, or the path is gone. With `lose`, what is under way to the client is lost too."
        if not self.up: return
        self.up = False
        for o in ('out', 'in') if lose else ('out',): self.ways.pop(o, deque()).clear()
        self.later('news', self.transport.tell, self.channel, Link.DOWN)

    def block(self, seconds, lose=True):
        "The path is gone for a while"
        self.cut(lose)
        self.blocked = True
        self.transport.loop.call_later(seconds, self.unblock)

    def unblock(self):
        self.blocked = False
        self.connect()

    def send(self, frames):
        "From the client to the kernel"
        if self.up: self.later('out', self._arrive, frames)
        else: self.kept.append(frames)

    def _arrive(self, frames): self.place.kernel.received(self, self.channel, frames)

    def answer(self, frames):
        "From the kernel to the client"
        if self.up: self.later('in', self.transport.arrived, self, frames)


class Place:
    "An address, where a kernel listens or nobody does"
    def __init__(self, delay=lambda: 0.):
        self.delay = delay      # gives the seconds that the next message takes, or the news of a link
        self.kernel = None
        self.transports = []

    def lines(self, *channels):
        return [o for t in self.transports for c, o in t.lines.items() if not channels or c in channels]

    def listen(self, kernel):
        "From here on `kernel` listens. Lines that are up notice nothing, as behind a proxy."
        self.kernel = kernel
        for o in self.lines(): o.connect()

    def leave(self, lose=True):
        "Nobody listens any more"
        self.kernel = None
        for o in self.lines(): o.cut(lose)

    def publish(self, frames):
        for o in self.lines('iopub'): o.answer(frames)


class MemoryTransport:
    "Carries packed messages to a place"
    beat_every = 1.
    def __init__(self, place):
        self.place, self.loop, self.closed = place, None, False
        self.lines = {}      # by channel
        self.inbox = {}      # messages that have arrived, by channel
        self._sink, self._beats, self._timer = lambda: None, None, None

    def open(self, sink, channels):
        self._sink = weakref.ref(sink)
        if self not in self.place.transports: self.place.transports.append(self)
        for o in channels:
            if o == 'hb': self._beats = True
            elif o not in self.lines: self.lines[o], self.inbox[o] = Line(self, o), deque()

    def start(self, loop):
        self.loop = loop
        for o in self.lines.values(): o.connect()
        if self._beats is not None and self._timer is None: self._timer = loop.call_later(self.beat_every, self._beat)

    def send(self, channel, packed): self.lines[channel].send(packed)

    def arrived(self, line, frames):
        box = self.inbox[line.channel]
        box.append(frames)
        if len(box) == 1: self.loop.call_soon(self._hand_over, line.channel)

    def _hand_over(self, channel):
        box, sink = self.inbox[channel], self._sink()
        if sink is None or self.closed: box.clear()
        elif box: sink.received(channel, box, inf)

    def drain(self):
        for o in self.inbox: self._hand_over(o)

    def pending(self): return any(self.inbox.values())

    def tell(self, channel, link):
        if (sink := self._sink()) is not None: sink.link(channel, link)

    def reopen(self, channels=None):
        for o in channels or list(self.lines):
            self.lines[o].closed = True
            self.inbox[o].clear()
            self.lines[o] = Line(self, o)
            self.lines[o].connect()

    def expect(self, beats): self._beats = beats

    def _beat(self):
        kernel, sink = self.place.kernel, self._sink()
        if self.closed or sink is None: return
        self._timer = self.loop.call_later(self.beat_every, self._beat)
        beats = kernel is not None and kernel.beats
        if beats != self._beats:
            self._beats = beats
            sink.beat(beats)

    def describe(self, channel): return f'memory:{channel}'

    def close(self):
        self.closed = True
        for o in self.lines.values(): o.closed = True
        if self in self.place.transports: self.place.transports.remove(self)
        if self._timer is not None and not self.loop.is_closed(): self._timer.cancel()


class MemoryClient(ConKernelClient):
    "A client of the kernel at `place`"
    transport_class = MemoryTransport
    def __init__(self, place, host=None, name='client', clock=None, **kwargs):
        self._place, self._host = place, host
        super().__init__(session=ConSession(key=b'', session=name), **kwargs)
        if clock is not None: self.router.clock = clock

    def make_transport(self): return self.transport_class(self._place)
    def make_host(self): return self._host or NoHost()
