"""A kernel on the real sockets and the real protocol that does what a test tells it to.

It speaks the Jupyter messaging protocol (signed messages on ZMQ sockets, a connection file) as a kernel
does, runs in a thread of its own with a ZMQ context of its own, and has good manners by default: it tells who
it is, echoes what it executes, says busy and idle, aborts what is queued behind an error, has subshells
(JEP 91), welcomes subscribers (JEP 65), answers heartbeats, interrupts and shutdowns. A test writes down only
what should go wrong:

    def test_idle_never_comes():
        with FakeKernel(on={'execute_request': 'busy stream reply'}) as fk:
            kc = fk.client(BlockingKernelClient)

**Scripts.** What a handler does is said in words, carried out in order: `'idle reply busy'` sends them in the
wrong order, `'busy reply reply idle idle'` sends them twice, `'busy reply:bad_signature idle'` spoils the reply.
A word is `name[:spoiler][=argument][*times]`; `WORDS` lists the names, `SPOILERS` the ways to break a message.
A request may bring its own script, so that one of many behaves badly and a kernel in another process can be
told too: `kc.execute('fake: busy stream=half crash=3')`.

**Handlers.** Where words do not do, `on` takes a function `handler(k, msg)`, which may return a script:

    def answer_wrongly(k, msg):
        k.busy(msg)
        k.reply(msg, parent={'msg_id': 'nobody'})
        k.idle(msg)

and a generator function takes time: it yields seconds, or a future (`k.hold`, `k.input_request`, any
`concurrent.futures.Future`), and goes on with its result. Requests of one shell run one after another, those of
other subshells meanwhile. A handler must never block: it has the kernel's only thread.

    def ask(k, msg):
        name = yield k.input_request(msg, 'name? ')
        k.stream(msg, f'hello {name}')
        k.reply(msg); k.idle(msg)

`on={'*': ''}` covers all other types: this kernel reads everything and answers nothing, but its heart beats.

**From the test.** Every primitive may be called from any thread, so a test can hold requests and answer in its
own order (`fk.reply(fk.received[3])`, `fk.release(reversed(fk.held))`), `freeze()` and `thaw()`,
`close_sockets()` and `reopen_sockets()`, `crash()` and `start()` again on the same ports. `received`, `codes`,
`counts`, `rejected` and `undelivered` say what came and what was lost. Waits are bounded: `wait_received(n)`,
`wait_held(n)`, `wait(predicate)` block, `until_received`, `until_held`, `until` are for coroutines.

    async with FakeKernel(on={'execute_request': 'hold busy reply idle'}, sequential=False) as fk:
        ...                                      # send ten thousand
        await fk.until_held(10_000)
        fk.release(reversed(fk.held))            # the last one is answered first

**As a process.** `python fake_kernel.py -f FILE --behaviour NAME` is a kernel to put into a kernelspec, and
`kernel_specs(folder, ...)` writes such a spec for a kernel manager.

An exception in a handler is raised again when the `with` block ends, so a mistake in a test's script is seen.
A frozen kernel reads and sends nothing, but its operating system and libzmq still accept connections and bytes;
to stop all of it, use the process and `SIGSTOP`.
"""
import argparse, asyncio, errno, functools, heapq, hmac, inspect, itertools, json, os, re, shlex, shutil
import signal, socket, sys, tempfile, threading, time, uuid
from collections import Counter, deque
from concurrent.futures import Future, TimeoutError as FutureTimeout
from datetime import datetime, timezone
from pathlib import Path

import zmq

DELIM = b'<IDS|MSG>'
SOCKETS = dict(shell=zmq.ROUTER, iopub=zmq.XPUB, stdin=zmq.ROUTER, control=zmq.ROUTER, hb=zmq.ROUTER)
PATIENCE = 10  # seconds that a call from another thread waits for the kernel's thread


# --- the wire: frames and signatures, no sockets -------------------------------------------------------------------

class Message(dict):
    "A message in jupyter_client's shape that also knows its `channel`, `idents`, and its header as it came."
    def __init__(self, channel, idents, parts, buffers):
        header, parent, metadata, content = (json.loads(o) for o in parts)
        super().__init__(header=header, msg_id=header['msg_id'], msg_type=header['msg_type'], parent_header=parent,
                         metadata=metadata, content=content, buffers=buffers)
        self.channel, self.idents, self.raw_header = channel, idents, parts[0]
        self.count, self.aborted, self.answer = 0, False, None

    msg_id = property(lambda self: self['msg_id'])
    msg_type = property(lambda self: self['msg_type'])
    code = property(lambda self: self['content'].get('code', ''))
    subshell_id = property(lambda self: self['header'].get('subshell_id'))
    __hash__ = object.__hash__


def as_json(o): return o if isinstance(o, bytes) else json.dumps(o or {}).encode()


class Wire:
    "Messages to signed frames and back, as the messaging spec's wire protocol has it."
    def __init__(self, key:bytes, scheme:str='hmac-sha256', version:str='5.4'):
        self.key, self.digest, self.version = key, scheme.removeprefix('hmac-'), version
        self.session, self.serial, self.seen = uuid.uuid4().hex, itertools.count(1), set()
        self._now = 0, ''

    def sign(self, parts):
        return hmac.digest(self.key, b''.join(parts), self.digest).hex().encode() if self.key else b''

    def new_id(self): return f'{self.session}_{next(self.serial)}'

    def now(self):
        "The date for a header, formatted once a millisecond."
        ms = int(time.time() * 1000)
        if ms != self._now[0]: self._now = ms, datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat()
        return self._now[1]

    def header(self, msg_type, msg_id):
        # Nothing here needs escaping, and this runs several times a request: no JSON library.
        return (f'{{"msg_id":"{msg_id}","msg_type":"{msg_type}","session":"{self.session}","username":"fake",'
                f'"date":"{self.now()}","version":"{self.version}"}}').encode()

    def pack(self, msg_type, content, parent=b'{}', metadata=b'{}', buffers=(), msg_id=None):
        parts = [self.header(msg_type, msg_id or self.new_id()), as_json(parent), as_json(metadata), as_json(content)]
        return [DELIM, self.sign(parts), *parts, *buffers]

    def unpack(self, channel, frames):
        "The message in `frames`; raises ValueError with the reason where a kernel would drop it."
        if DELIM not in frames: raise ValueError('no delimiter')
        i = frames.index(DELIM)
        signature, parts, buffers = b''.join(frames[i+1:i+2]), frames[i+2:i+6], frames[i+6:]
        if len(parts) < 4: raise ValueError('too few frames')
        self._check(signature, parts)
        try: return Message(channel, frames[:i], parts, buffers)
        except (ValueError, KeyError, TypeError): raise ValueError('broken JSON') from None

    def _check(self, signature, parts):
        if not self.key: return
        if not hmac.compare_digest(signature, self.sign(parts)): raise ValueError('wrong signature')
        if signature in self.seen: raise ValueError('duplicate signature')
        self.seen.add(signature)
        if len(self.seen) > 2**16: self.seen.clear()  # jupyter_client's digest history has this size


def _spoil(i, change):
    "A spoiler that changes the `i`th frame from the delimiter on, unsigned unless it is the signature's own fault."
    def spoil(wire, frames):
        at = frames.index(DELIM)
        parts = list(frames[at:])
        parts[i] = change(parts[i])
        if i > 1: parts[1] = wire.sign(parts[2:6])
        return [*frames[:at], *parts]
    return spoil

SPOILERS = dict(
    bad_signature=_spoil(1, lambda o: o[::-1] or b'0' * 64),
    no_signature=_spoil(1, lambda o: b''),
    broken_header=_spoil(2, lambda o: o[:-1]),
    broken_json=_spoil(5, lambda o: b'{"status": '),
    not_json=_spoil(5, lambda o: b'\xff\xfe\x00'),
    headless=_spoil(2, lambda o: b'{}'),
    no_parent=_spoil(3, lambda o: b'{}'),
    listed_parent=_spoil(3, lambda o: b'[1]'),
    null_content=_spoil(5, lambda o: b'null'),
    no_delimiter=lambda wire, frames: [o for o in frames if o != DELIM],
    too_few=lambda wire, frames: frames[:frames.index(DELIM) + 3],
    empty=lambda wire, frames: [*frames[:frames.index(DELIM)], b''],
)


# pyzmq's own multipart calls combine enum flags for each frame, which costs several times what libzmq does.
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

def send_frames(sock, frames):
    for o in frames[:-1]: sock.send(o, MORE, copy=len(o) < 2**16)
    sock.send(frames[-1], NOBLOCK, copy=len(frames[-1]) < 2**16)

def recv_frames(sock):
    frames, more = [], True
    while more:
        frame = sock.recv(NOBLOCK, copy=False)
        frames.append(frame.bytes)
        more = frame.more
    return frames


# --- one shell -----------------------------------------------------------------------------------------------------

class Lane:
    "The requests of one shell: what waits, and the generator that runs. `turn` tells a stale wake-up from a due one."
    def __init__(self): self.queue, self.run, self.msg, self.turn = deque(), None, None, 0


def in_kernel(f):
    "Let the kernel's thread do `f`; a caller in another thread waits for it, at most `PATIENCE` seconds."
    def wrapper(self, *args, **kwargs):
        if threading.current_thread() is self._thread or not self.alive: return f(self, *args, **kwargs)
        fut = Future()
        def order():
            try: fut.set_result(f(self, *args, **kwargs))
            except BaseException as e: fut.set_exception(e)
        self._order(order)
        return fut.result(PATIENCE)
    wrapper.__name__, wrapper.__doc__ = f.__name__, f.__doc__
    return wrapper


# --- the kernel ----------------------------------------------------------------------------------------------------

class FakeKernel:
    "A scriptable kernel; the module's docstring tells how to use it."
    def __init__(self,
        on:dict|None=None, # Handlers or scripts by msg_type; '*' for all types that have none here
        *,
        connection_file:str|None=None, # Read if it is there, else written; None: in a folder that is removed at the end
        transport:str='tcp', # 'tcp' or 'ipc'
        curve:bool=False, # Be a CurveZMQ server, with new keys in the connection file
        key:str|None=None, # The key it signs with; None: as the connection file says, else a new one
        protocol:str='5.4', # In headers and kernel_info
        subshells:bool=True, # Without: the feature is not announced, and create_subshell_request never answered
        welcome:bool|float|str=True, # iopub_welcome: for each subscriber, never, so many seconds late, or only to the
                                     # 'first', as ipykernel 7.4 does (its XPUB is not verbose)
        heartbeat:bool=True, # Echo heartbeats; may be changed at any time
        interrupts:bool=True, # End the running request at interrupt_request; else only reply to it
        frozen:bool=False, # Start frozen: the sockets are there, nobody reads
        sequential:bool=True, # One request at a time in each shell; else each starts as it comes
        read_ahead:bool=True, # Read the shell socket while a request runs; else it fills up, to its mark and further
        record:bool=True, # Keep what is received; else only count it
        handover:bool=True, # May a new connection take an identity over (as ipykernel has it)? Else it is ignored while the old one lives
        hwm:dict|None=None, # High-water marks by channel, such as {'shell': 1000}; 0, no mark, is the default
        file_says:dict|None=None, # Lies: what the connection file says instead, such as {'key': 'other'}
        on_crash=None, # What `crash(code)` calls; None: close everything at once
    ):
        self.on, self.protocol, self.subshells, self.welcome = dict(on or {}), protocol, subshells, welcome
        self.heartbeat, self.interrupts, self.sequential = heartbeat, interrupts, sequential
        self.read_ahead, self.record, self.hwm, self.on_crash = read_ahead, record, hwm or {}, on_crash
        self.handover = handover
        self.frozen, self._frozen_at_start = frozen, frozen
        self.file_says, self._folder, self._truth = file_says or {}, None, {}
        self._given = dict(connection_file=connection_file, transport=transport, curve=curve, key=key)
        self.received, self.rejected, self.errors = [], [], []
        self.counts, self.undelivered, self.subscriptions = Counter(), Counter(), 0
        self.exit_code, self._thread, self._running, self.ended = None, None, False, threading.Event()
        self.ended.set()
        self._sockets, self._orders, self._posts, self._waiters = {}, deque(), deque(), []
        self._lock, self._wake = threading.RLock(), None

    # --- life ------------------------------------------------------------------------------------------------------

    def __enter__(self): return self.start()
    async def __aenter__(self): return self.start()

    def __exit__(self, kind, *_):
        self.close()
        if self.errors and (kind is None or issubclass(kind, Exception)): raise self.errors[0]

    async def __aexit__(self, *exc): self.__exit__(*exc)

    @property
    def alive(self): return self._thread is not None and self._thread.is_alive() and not self.ended.is_set()

    def start(self):
        "Bind the sockets, write the connection file and run; also again, on the same ports, after an end."
        if self.alive: raise RuntimeError('the kernel runs already')
        if not self._truth: self._settle()
        self._reset()
        ready = Future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name='fake-kernel', daemon=True)
        self._thread.start()
        ready.result(PATIENCE)
        return self

    def stop(self, linger:int=0):
        "End as a kernel that has left its loop, and wait for the thread; `linger`: milliseconds for what is unsent."
        if self.alive: self._finish(linger=linger)
        if self._thread is not None and self._thread is not threading.current_thread(): self._join()

    def close(self):
        "Stop, and remove the connection file if it is ours."
        self.stop()
        if self._folder: shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def crash(self, code:int=1):
        "Die at once: nothing is flushed or said."
        if self.on_crash: self.on_crash(code)
        if self.alive: self._finish(code)
        if threading.current_thread() is not self._thread: self._join()

    @in_kernel
    def _finish(self, code=0, linger=0):
        self.exit_code, self._running = code, False
        self._close_all(linger)

    def _join(self):
        self._thread.join(PATIENCE)
        if self._thread.is_alive(): raise TimeoutError('the kernel does not end: does a handler block?')

    def _reset(self):
        self._lanes = {None: Lane(), 'control': Lane()}
        self._timers, self._asked, self._held, self._serial = [], {}, {}, itertools.count()
        self._count, self._running, self.exit_code, self.frozen = 0, True, None, self._frozen_at_start
        self._thawed, self._thaw_at = Future(), None
        self.wire = Wire(self._key, self._truth['signature_scheme'], self.protocol)
        self.ended.clear()
        here, there = socket.socketpair()
        here.setblocking(False), there.setblocking(False)
        self._wake, self._alarm = here, there

    # --- the connection file ---------------------------------------------------------------------------------------

    @property
    def connection_info(self): return {**self._truth, **self.file_says}

    def client(self, cls, **kwargs):
        "A client of class `cls` made from the connection file, as one that knows no manager; not started."
        kc = cls(**kwargs)
        kc.load_connection_file(self.connection_file)
        return kc

    def _settle(self):
        "Read the connection file, or decide what it will say; ports that are 0 are known once they are bound."
        given = self._given
        self.connection_file = given['connection_file'] or self._own_file()
        path = Path(self.connection_file)
        there = path.exists() and path.stat().st_size
        self._truth = json.loads(path.read_text()) if there else self._new_info()
        self._write = not there
        self._key = (given['key'] or self._truth['key']).encode()

    def _own_file(self):
        self._folder = tempfile.mkdtemp(prefix='fake-kernel-')
        return os.path.join(self._folder, 'kernel.json')

    def _new_info(self):
        given, ipc = self._given, self._given['transport'] == 'ipc'
        info = {f'{o}_port': i if ipc else 0 for i, o in enumerate(SOCKETS, 1)}
        info |= dict(ip=os.path.splitext(self.connection_file)[0] + '-ipc' if ipc else '127.0.0.1',
                     key=given['key'] or uuid.uuid4().hex, transport=given['transport'],
                     signature_scheme='hmac-sha256', kernel_name='fake')
        if given['curve']:
            names = 'curve_publickey', 'curve_secretkey'
            info |= {n: o.decode() for n, o in zip(names, zmq.curve_keypair())}
        return info

    def _write_file(self):
        with open(os.open(self.connection_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as f:
            json.dump(self.connection_info, f)

    # --- sockets ---------------------------------------------------------------------------------------------------

    def _open_all(self):
        for channel, kind in SOCKETS.items(): self._sockets[channel] = self._open(channel, kind)

    def _open(self, channel, kind):
        sock = self._context.socket(kind)
        sock.linger, sock.sndhwm, sock.rcvhwm = 0, self.hwm.get(channel, 0), self.hwm.get(channel, 0)
        # Mandatory: what a full or vanished peer does not get is an error here, so that it can be counted.
        if kind == zmq.ROUTER: sock.router_handover, sock.router_mandatory = int(self.handover), 1
        elif self.welcome != 'first': sock.xpub_verbose = 1
        if 'curve_secretkey' in self._truth:
            sock.curve_server = True
            sock.curve_secretkey, sock.curve_publickey = (self._truth[o].encode()
                                                          for o in ('curve_secretkey', 'curve_publickey'))
        self._bind(sock, channel)
        return sock

    def _bind(self, sock, channel):
        port, ip, transport = (self._truth[o] for o in (f'{channel}_port', 'ip', 'transport'))
        url = f'ipc://{ip}-{port}' if transport == 'ipc' else f'tcp://{ip}:{port or "*"}'
        deadline = time.monotonic() + PATIENCE / 2
        while True:  # libzmq gives a port back a little after its socket was closed
            try: sock.bind(url); break
            except zmq.ZMQError as e:
                if e.errno != errno.EADDRINUSE or time.monotonic() > deadline: raise
                time.sleep(0.005)
        if not port: self._truth[f'{channel}_port'] = int(sock.last_endpoint.decode().strip('\0').rsplit(':', 1)[1])

    def _close_all(self, linger=0):
        for sock in self._sockets.values(): sock.close(linger)
        self._sockets = {}

    @in_kernel
    def close_sockets(self):
        "Close all sockets; the kernel lives on, and what it sends meanwhile is lost."
        self._close_all()

    @in_kernel
    def reopen_sockets(self):
        "Bind all sockets again, on the same ports."
        if self._running and not self._sockets: self._open_all()

    # --- the loop, all in the kernel's thread ----------------------------------------------------------------------

    def _main(self, ready):
        self._context = zmq.Context()
        try:
            self._open_all()
            if self._write: self._write_file()
            ready.set_result(None)
            while self._running: self._turn()
        except BaseException as e:
            if ready.done(): self.errors.append(e)
            else: ready.set_exception(e)
        finally: self._clear_up()

    def _clear_up(self):
        self._close_all()
        for lane in self._lanes.values():
            if lane.run: lane.run.close()
        self._context.term()
        with self._lock:
            self.ended.set()
            self._wake.close(), self._alarm.close()
            self._run_all(self._orders)
            self._posts.clear()
            self._check_waiters()

    def _turn(self):
        ready = zmq.zmq_poll(self._interest(), self._patience())
        try: self._wake.recv(4096)
        except BlockingIOError: pass
        self._run_all(self._orders)
        if self._thaw_at and time.monotonic() >= self._thaw_at: self.thaw()
        if not self.frozen:
            self._run_all(self._posts)
            self._run_timers()
            fresh = {o for o, _ in ready}
            for channel, sock in list(self._sockets.items()):
                if sock in fresh: self._read(channel, 500 if self.read_ahead or channel != 'shell' else 1)
            for lane in list(self._lanes.values()): self._pump(lane)
        self._check_waiters()

    def _interest(self):
        polled = [(self._wake.fileno(), zmq.POLLIN)]
        if self.frozen: return polled
        full = self._shell_is_full()
        return polled + [(o, zmq.POLLIN) for name, o in self._sockets.items() if not (full and name == 'shell')]

    def _shell_is_full(self):
        main = self._lanes[None]
        return not self.read_ahead and (main.run or main.queue)

    def _patience(self):
        "Milliseconds until something is due, rounded up; -1: until something comes."
        due = self._thaw_at if self.frozen else self._timers[0][0] if self._timers else None
        return -1 if due is None else max(0, int((due - time.monotonic()) * 1000) + 1)

    def _run_all(self, calls):
        while calls and (calls is self._orders or self._free()): self._try(calls.popleft())

    def _run_timers(self):
        while self._timers and self._free() and self._timers[0][0] <= time.monotonic(): heapq.heappop(self._timers)[2]()

    def _free(self): return self._running and not self.frozen

    def _try(self, f, *args):
        try: return f(*args)
        except Exception as e: self.errors.append(e)

    def _order(self, f): self._push(self._orders, f)
    def _post(self, f, *args): self._push(self._posts, lambda: f(*args))

    def _soon(self, f, *args):
        "Call `f` now if this is the kernel's thread, else have it called there."
        if threading.current_thread() is self._thread: f(*args)
        else: self._post(f, *args)

    def _push(self, calls, f):
        "Have `f` called in the kernel's thread: `_orders` even while it is frozen, `_posts` not before it thaws."
        with self._lock:
            if self.ended.is_set(): return f() if calls is self._orders else None
            calls.append(f)
            if len(calls) == 1 or calls is self._orders:
                try: self._alarm.send(b'.')
                except BlockingIOError: pass  # full of wake-ups: it will wake

    def after(self, seconds:float, f, *args):
        "Call `f(*args)` in so many seconds."
        due = time.monotonic() + seconds
        self._order(lambda: heapq.heappush(self._timers, (due, next(self._serial), lambda: self._try(f, *args))))

    @in_kernel
    def freeze(self, seconds:float|None=None):
        "Read and send nothing, heartbeats included, until `thaw()` or so long; gives a future of the thaw, to yield."
        if not self.frozen: self.frozen, self._thawed = True, Future()
        self._thaw_at = time.monotonic() + seconds if seconds else None
        return self._thawed

    @in_kernel
    def thaw(self):
        "Go on where it froze."
        self.frozen, self._thaw_at = False, None
        if not self._thawed.done(): self._thawed.set_result(None)

    # --- what comes in ---------------------------------------------------------------------------------------------

    def _read(self, channel, limit):
        sock = self._sockets[channel]
        take = dict(hb=self._beat, iopub=self._subscribed).get(channel, self._take)
        while limit and self._free() and self._sockets.get(channel) is sock:
            try: frames = recv_frames(sock)
            except zmq.Again: return
            take(channel, frames)
            limit -= 1

    def _beat(self, channel, frames):
        if self.heartbeat: self._out('hb', frames)

    def _subscribed(self, channel, frames):
        if frames[0][:1] != b'\1': return
        self.subscriptions += 1
        if self.welcome is True or self.welcome == 'first': self.say_welcome(frames[0][1:])
        elif self.welcome is not False: self.after(self.welcome, self.say_welcome, frames[0][1:])

    def _take(self, channel, frames):
        try: msg = self.wire.unpack(channel, frames)
        except ValueError as e: return self.rejected.append((channel, str(e)))
        if msg.msg_type == 'execute_request': self._count += 1
        msg.count = self._count
        self.counts[msg.msg_type] += 1
        if self.record: self.received.append(msg)
        if channel == 'stdin': self._told(msg)
        else: self._queue(msg)

    def _queue(self, msg):
        name = msg.subshell_id if msg.channel == 'shell' else 'control'
        if name in self._lanes: self._lanes[name].queue.append(msg)
        else: self._run_words(msg, 'busy', 'refuse', 'idle')

    def _run_words(self, msg, *words):
        for o in words: WORDS[o](self, msg)

    def _pump(self, lane):
        while lane.queue and not lane.run and self._free():
            msg = lane.queue.popleft()
            if msg.aborted: self._run_words(msg, 'busy', 'abort', 'idle')
            else: self._begin(lane if self.sequential else Lane(), msg)

    def _begin(self, lane, msg):
        todo = self._handler(msg.msg_type)
        if callable(todo): todo = self._try(todo, self, msg)
        if isinstance(todo, str): todo = self._script(todo, msg)
        if not inspect.isgenerator(todo): return
        lane.run, lane.msg = todo, msg
        self._step(lane, todo.send, None)

    def _handler(self, msg_type):
        own = self.on.get(msg_type)
        if own is None: own = self.on.get('*')
        return DEFAULTS.get(msg_type) if own is None else own

    def _step(self, lane, go, value):
        "Let the generator of `lane` go on to its next wish: so many seconds, or a future's result."
        lane.turn += 1
        try: wish = go(value)
        except KeyboardInterrupt: return self._interrupted(lane)
        except StopIteration: return self._leave(lane)
        except Exception as e:
            self.errors.append(e)
            return self._leave(lane)
        turn = lane.turn
        if isinstance(wish, Future): wish.add_done_callback(lambda o: self._post(self._resume, lane, turn, o))
        else: self.after(wish or 0, self._resume, lane, turn)

    def _leave(self, lane): lane.run = lane.msg = None

    def _resume(self, lane, turn, fut=None):
        if lane.turn != turn or not lane.run: return  # it was interrupted meanwhile
        if fut is None: return self._step(lane, lane.run.send, None)
        if fut.exception(): self._step(lane, lane.run.throw, fut.exception())
        else: self._step(lane, lane.run.send, fut.result())

    def _interrupted(self, lane):
        msg = lane.msg
        self._leave(lane)
        self._held.pop(msg.msg_id, None)
        self.error(msg, 'KeyboardInterrupt')
        self.idle(msg)

    def interrupt(self): self._post(self._interrupt)

    def _interrupt(self):
        main = self._lanes[None]
        if main.run and self.interrupts: self._step(main, main.run.throw, KeyboardInterrupt())

    # --- what goes out: from any thread ----------------------------------------------------------------------------

    def raw(self, channel:str, frames:list, to=None):
        "Send `frames` as they are, to the client that sent `to` (iopub goes to all)."
        self._soon(self._out, channel, [*to.idents, *frames] if to is not None and channel != 'iopub' else list(frames))

    def _out(self, channel, frames):
        sock = self._sockets.get(channel)
        try:
            if sock: send_frames(sock, frames)
        except zmq.ZMQError as e:
            if e.errno not in (errno.EAGAIN, errno.EHOSTUNREACH): raise
            sock = None
        if not sock: self.undelivered[channel] += 1

    def _send(self, channel, msg_type, content, msg, parent=None, mangle=None, metadata=b'{}', buffers=(), msg_id=None):
        "Send a message to whoever sent `msg`, as an answer to `parent` (by default the same)."
        parent = parent if parent is not None else msg.raw_header if msg is not None else {}
        frames = self.wire.pack(msg_type, content, parent, metadata, buffers, msg_id)
        if channel == 'iopub': frames.insert(0, f'kernel.{self.wire.session}.{msg_type}'.encode())
        if mangle: frames = (SPOILERS[mangle] if isinstance(mangle, str) else mangle)(self.wire, frames)
        self.raw(channel, frames, msg)

    def publish(self, msg, msg_type, content, **how): self._send('iopub', msg_type, content, msg, **how)
    def busy(self, msg, **how): self.publish(msg, 'status', b'{"execution_state":"busy"}', **how)
    def idle(self, msg, **how): self.publish(msg, 'status', b'{"execution_state":"idle"}', **how)

    def stream(self, msg, text=None, name='stdout', **how):
        self.publish(msg, 'stream', dict(name=name, text=msg.code if text is None else text), **how)

    def echo_input(self, msg, **how):
        self.publish(msg, 'execute_input', dict(code=msg.code, execution_count=msg.count), **how)

    def result(self, msg, text='', **how):
        content = dict(data={'text/plain': text}, metadata={}, execution_count=msg.count)
        self.publish(msg, 'execute_result', content, **how)

    def display(self, msg, text='', **how):
        self.publish(msg, 'display_data', dict(data={'text/plain': text}, metadata={}, transient={}), **how)

    def huge(self, msg, megabytes=100, **how):
        self.display(msg, 'huge', buffers=[bytes(int(float(megabytes) * 10**6))], **how)

    def reply(self, msg, status='ok', *, parent=None, mangle=None, metadata=b'{}', buffers=(), **content):
        "Reply on the channel that `msg` came by; `content` adds to, or replaces, what such a reply says."
        usual = USUAL.get(msg.msg_type, lambda k, msg: {})(self, msg) if status == 'ok' else {}
        self._send(msg.channel, msg.msg_type.replace('_request', '_reply'), {'status': status, **usual, **content}, msg,
                   parent=parent, mangle=mangle, metadata=metadata, buffers=buffers)

    def error(self, msg, ename='Error', evalue='as told', traceback=(), **how):
        "Publish an error, reply with it, and abort what is queued behind unless it said `stop_on_error=False`."
        said = dict(ename=ename, evalue=evalue, traceback=list(traceback))
        self.publish(msg, 'error', said)
        self.reply(msg, 'error', execution_count=msg.count, **said, **how)
        if msg['content'].get('stop_on_error', True): self._soon(self._abort_behind, msg)

    def _abort_behind(self, msg):
        # What has come to the socket by now counts as queued, as in ipykernel.
        if 'shell' in self._sockets: self._read('shell', 10**6)
        for o in self._lanes.get(msg.subshell_id, Lane()).queue: o.aborted = o.msg_type == 'execute_request'

    def input_request(self, msg, prompt='', password=False, **how):
        "Ask the client of `msg`; the future, for a handler to yield, gets what it answers."
        fut, msg_id = Future(), self.wire.new_id()
        self._asked[msg_id] = (msg, fut)
        self._send('stdin', 'input_request', dict(prompt=prompt, password=password), msg, msg_id=msg_id, **how)
        return fut

    def _told(self, msg):
        "Hand an input_reply to the prompt it names; jupyter_client names none: then to the oldest of that client."
        ours = (o for o, (asked, _) in self._asked.items() if asked.idents == msg.idents)
        name = msg['parent_header'].get('msg_id')
        name = name if name in self._asked else next(ours, None)
        if name: self._asked.pop(name)[1].set_result(msg['content'].get('value', ''))

    def say_welcome(self, topic=b'', **how):
        frames = self.wire.pack('iopub_welcome', dict(subscription=topic.decode()))
        self.raw('iopub', [topic, *frames] if topic else frames)

    def junk(self, msg, n=1):
        "Send `n` messages that no client can use, on shell and iopub: each spoiler in turn, then an unknown parent."
        kinds = [*SPOILERS, None]
        for i in range(int(n)):
            kind = kinds[i % len(kinds)]
            how = dict(mangle=kind) if kind else dict(parent={'msg_id': 'nobody', 'msg_type': 'execute_request'})
            self.reply(msg, **how)
            self.stream(msg, 'junk', **how)

    def hold(self, msg):
        "A future, for a handler to yield, that `release` resolves."
        fut = Future()
        self._held[msg.msg_id] = (msg, fut)
        return fut

    @property
    def held(self): return [o for o, _ in list(self._held.values())]

    def release(self, msgs=None):
        "Let held requests go on, in the order of `msgs` (messages or msg_ids); None: all, as they came."
        for o in list(self.held if msgs is None else msgs):
            fut = self._held.pop(o if isinstance(o, str) else o.msg_id)[1]
            fut.set_result(None)

    # --- what a test waits for -------------------------------------------------------------------------------------

    @property
    def codes(self): return [o.code for o in list(self.received) if o.msg_type == 'execute_request']

    def got(self, msg_type='execute_request'):
        "How many of `msg_type` came so far; None: of all."
        return self.counts[msg_type] if msg_type else sum(list(self.counts.values()))

    def wait(self, predicate, timeout:float=PATIENCE, what='what was waited for'):
        "Block until `predicate()` is true: it is called in the kernel's thread after whatever happens there."
        waiter = self._watch(predicate)
        try: return waiter[1].result(timeout)
        except FutureTimeout: raise TimeoutError(f'{what}: not in {timeout} s; received {dict(self.counts)}') from None
        finally: self._order(lambda: self._forget(waiter))

    async def until(self, predicate, timeout:float=PATIENCE, what='what was waited for'):
        "`wait` for a coroutine."
        waiter = self._watch(predicate)
        try: return await asyncio.wait_for(asyncio.wrap_future(waiter[1]), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f'{what}: not in {timeout} s; received {dict(self.counts)}') from None
        finally: self._order(lambda: self._forget(waiter))

    def wait_received(self, n, timeout:float=PATIENCE, msg_type='execute_request'):
        "Block until `n` of `msg_type` came; None: of all types."
        self.wait(lambda: self.got(msg_type) >= n, timeout, f'{n} {msg_type or "messages"}')

    async def until_received(self, n, timeout:float=PATIENCE, msg_type='execute_request'):
        await self.until(lambda: self.got(msg_type) >= n, timeout, f'{n} {msg_type or "messages"}')

    def wait_held(self, n, timeout:float=PATIENCE): self.wait(lambda: len(self._held) >= n, timeout, f'{n} held')
    async def until_held(self, n, timeout:float=PATIENCE):
        await self.until(lambda: len(self._held) >= n, timeout, f'{n} held')

    def _watch(self, predicate):
        waiter = (predicate, Future())
        waiter[1].set_running_or_notify_cancel()  # a caller that gives up cannot cancel it under the kernel's hands
        self._order(lambda: self._waiters.append(waiter) or self._check_waiters())
        return waiter

    def _check_waiters(self):
        for waiter in list(self._waiters):
            predicate, fut = waiter
            try:
                if predicate(): fut.set_result(None)
                elif self.ended.is_set(): raise RuntimeError('the kernel has ended')
                else: continue
            except Exception as e: fut.set_exception(e)
            self._forget(waiter)

    def _forget(self, waiter):
        if waiter in self._waiters: self._waiters.remove(waiter)

    # --- good manners ----------------------------------------------------------------------------------------------

    def _script(self, text, msg):
        for name, how, args, times in words(text):
            for _ in range(times):
                if not self._running: return
                wish = WORDS[name](self, msg, *args, **how)
                if wish is not None: yield wish

    def execute(self, msg):
        "Echo the code, or carry out the script that it brings."
        if msg.code.startswith('fake:'): return msg.code.removeprefix('fake:')
        self.busy(msg)
        if not msg['content'].get('silent'):
            self.echo_input(msg)
            self.stream(msg)
        self.reply(msg)
        self.idle(msg)

    def _subshell_request(self, msg):
        if not self.subshells: return
        kind, wanted = msg.msg_type.split('_')[0], msg['content'].get('subshell_id')
        if kind == 'create':
            wanted = str(uuid.uuid4())
            self._lanes[wanted] = Lane()
            return self.reply(msg, subshell_id=wanted)
        if kind == 'list': return self.reply(msg, subshell_id=[o for o in self._lanes if o not in (None, 'control')])
        if wanted in (None, 'control') or wanted not in self._lanes:
            return self.reply(msg, 'error', evalue=f'Unknown subshell_id {wanted!r}')
        lane = self._lanes.pop(wanted)
        if lane.run: lane.run.close()
        self._leave(lane)
        self.reply(msg)

    def _interrupt_request(self, msg):
        if self.protocol in ('5.0', '5.1', '5.2'): return  # it came with 5.3
        self._interrupt()
        self.busy(msg), self.reply(msg), self.idle(msg)

    def _shutdown_request(self, msg):
        self.busy(msg)
        self.reply(msg, restart=msg['content'].get('restart', False))
        self.idle(msg)
        self._finish(linger=500)

    def _kernel_info(self, msg):
        return dict(protocol_version=self.protocol, implementation='fake', implementation_version='1', banner='fake',
                    language_info=dict(name='fake', version='1', mimetype='text/plain', file_extension='.txt'),
                    help_links=[], supported_features=['kernel subshells'] if self.subshells else [])


# What a reply says when its status is ok.
USUAL = dict(
    kernel_info_request=FakeKernel._kernel_info,
    execute_request=lambda k, msg: dict(execution_count=msg.count, user_expressions={}, payload=[]),
    complete_request=lambda k, msg: dict(matches=[msg.code + 'x'], cursor_start=0,
                                         cursor_end=msg['content'].get('cursor_pos', 0), metadata={}),
    inspect_request=lambda k, msg: dict(found=False, data={}, metadata={}),
    history_request=lambda k, msg: dict(history=[]),
    is_complete_request=lambda k, msg: dict(status='complete'),
    comm_info_request=lambda k, msg: dict(comms={}),
)

# What is done where a test says nothing; other types are recorded and not answered.
DEFAULTS = {o: 'busy reply idle' for o in USUAL} | {o: 'busy idle' for o in ('comm_open', 'comm_msg', 'comm_close')} | {
    f'{o}_subshell_request': FakeKernel._subshell_request for o in ('create', 'delete', 'list')} | dict(
    execute_request=FakeKernel.execute,
    interrupt_request=FakeKernel._interrupt_request,
    shutdown_request=FakeKernel._shutdown_request,
)


# --- words ---------------------------------------------------------------------------------------------------------

def _ask(k, msg, prompt='', **how):
    "Ask, and keep the answer for the word `answer`."
    fut = k.input_request(msg, prompt, **how)
    fut.add_done_callback(lambda o: setattr(msg, 'answer', o.result()))
    return fut

WORDS = dict(
    busy=FakeKernel.busy, idle=FakeKernel.idle,
    echo=FakeKernel.echo_input,
    stream=FakeKernel.stream,                       # stream=text, else the code
    result=FakeKernel.result, display=FakeKernel.display,
    huge=FakeKernel.huge,                           # a display with a buffer: huge=100, in megabytes
    reply=lambda k, msg, **how: k.reply(msg, **how),
    error=FakeKernel.error,                         # error=ename: also replies, and aborts what is queued
    abort=lambda k, msg, **how: k.reply(msg, 'aborted', **how),
    refuse=lambda k, msg, **how: k.reply(msg, 'error', ename='UnknownSubshellError', traceback=[],
                                         evalue=f'Unknown subshell_id {msg.subshell_id!r}', **how),
    orphan=lambda k, msg, **how: k.reply(msg, parent={'msg_id': 'nobody', 'msg_type': msg.msg_type}, **how),
    junk=FakeKernel.junk,                           # junk=1000: messages that nobody can use
    input=_ask,                                     # input=prompt, and wait for the answer
    answer=lambda k, msg, **how: k.stream(msg, msg.answer, **how),
    hold=FakeKernel.hold,                           # wait for fk.release()
    sleep=lambda k, msg, seconds=0: float(seconds),
    freeze=lambda k, msg, seconds=None: k.freeze(seconds and float(seconds)),  # until fk.thaw(), or so long
    close=lambda k, msg: k.close_sockets(), open=lambda k, msg: k.reopen_sockets(),
    stop=lambda k, msg: k._finish(linger=10_000),      # end in good order
    crash=lambda k, msg, code=1: k.crash(int(code)),
)


@functools.lru_cache(maxsize=1000)
def words(text:str):
    "A script as a list of (word, options, arguments, times); raises ValueError for what is no word."
    return [_word(o) for o in shlex.split(text)]

def _word(text):
    found = re.fullmatch(r'(\w+)(?::(\w+))?(?:=(.*?))?(?:\*(\d+))?', text, re.DOTALL)
    name, mangle, arg, times = found.groups() if found else (text, None, None, None)
    if name not in WORDS or mangle and mangle not in SPOILERS: raise ValueError(f'no such word: {text!r}')
    return name, dict(mangle=mangle) if mangle else {}, () if arg is None else (arg,), int(times or 1)


# --- as a process --------------------------------------------------------------------------------------------------

# What `--behaviour` names: options of FakeKernel, and of `serve`.
BEHAVIOURS = dict(
    polite={},
    old=dict(protocol='5.0', subshells=False, welcome=False), # as kernels were in 2015
    like_ipykernel=dict(protocol='5.3', welcome='first'), # as ipykernel 7.4 is
    silent=dict(frozen=True), # the sockets are there, and that is all
    deaf=dict(on={'*': ''}), # its heart beats, it answers nothing
    heartless=dict(heartbeat=False),
    dies=dict(die=3), # before there is a socket
    dies_when_asked=dict(on={'kernel_info_request': 'crash=4'}),
    late=dict(delay=1.0),
    wrong_key=dict(key='not the one in the file'),
    no_welcome=dict(welcome=False),
    late_welcome=dict(welcome=1.0),
    stubborn=dict(interrupts=False, ignore=['SIGINT']),
    immortal=dict(interrupts=False, ignore=['SIGINT', 'SIGTERM'], on={'shutdown_request': 'busy reply idle'}),
)


def serve(connection_file, die:int|None=None, delay:float=0, ignore=(), life:float=600, **options):
    "Be a kernel until it ends, the parent is gone, or `life` seconds are over; `die`: the exit code to leave with now."
    if die is not None: os._exit(die)
    time.sleep(delay)
    fk = FakeKernel(connection_file=connection_file, on_crash=os._exit, record=False, **options)
    signal.signal(signal.SIGINT, lambda *_: fk.interrupt())
    for o in ignore: signal.signal(getattr(signal, o), signal.SIG_IGN)
    parent, deadline = os.getppid(), time.monotonic() + life
    fk.start()
    while not fk.ended.wait(0.5):
        if os.getppid() != parent or time.monotonic() > deadline: os._exit(1)
    fk.close()
    for e in fk.errors: print('fake kernel:', repr(e), file=sys.stderr)
    os._exit(2 if fk.errors else fk.exit_code)


def kernel_specs(folder, name:str='fake', behaviour:str='polite', *, interrupt_mode:str='signal', **options):
    """Write a kernelspec into `folder` and give a KernelSpecManager that knows all those in it. `options`, as JSON,
    go to FakeKernel and `serve`:

        km = AsyncKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path, behaviour='dies'))
    """
    from jupyter_client.kernelspec import KernelSpecManager
    argv = [sys.executable, str(Path(__file__).resolve()), '-f', '{connection_file}', '--behaviour', behaviour]
    if options: argv += ['--options', json.dumps(options)]
    spec = dict(argv=argv, display_name=name, language='fake', interrupt_mode=interrupt_mode,
                metadata={'supported_encryption': ['curve']})
    where = Path(folder) / name
    where.mkdir(parents=True, exist_ok=True)
    (where / 'kernel.json').write_text(json.dumps(spec))
    return KernelSpecManager(kernel_dirs=[str(folder)])


def main():
    parser = argparse.ArgumentParser(description='A kernel that does what a test tells it to.')
    parser.add_argument('-f', '--connection-file', required=True)
    parser.add_argument('--behaviour', choices=BEHAVIOURS, default='polite')
    parser.add_argument('--options', type=json.loads, default={}, help='JSON: further options of FakeKernel')
    args = parser.parse_args()
    serve(args.connection_file, **{**BEHAVIOURS[args.behaviour], **args.options})


if __name__ == '__main__': main()
