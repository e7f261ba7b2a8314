"""The floors: what pyzmq itself costs, with nothing of a client around it.

They send and receive frame by frame through the C socket, which is several times cheaper than `send_multipart` and
`recv_multipart` (those ask `RCVMORE` after each frame), and check neither signatures nor replays. (`BareMultipart` and
`BareChecked` show what these calls, and these checks, cost in themselves.)
"""
import asyncio, hashlib, os
from datetime import datetime, timezone
from hmac import compare_digest
import orjson, zmq, zmq.asyncio
from zmq.backend import Socket as CSocket

DELIM,MORE = b'<IDS|MSG>',zmq.SNDMORE
csend,crecv = CSocket.send,CSocket.recv


class Wire:
    "Packs and signs requests as a Jupyter client must."
    def __init__(self, key:str):
        block = key.encode().ljust(64, b'\0')
        self.inner = hashlib.sha256(bytes(b ^ 0x36 for b in block))
        self.outer = hashlib.sha256(bytes(b ^ 0x5c for b in block))
        self.session,self.count = f'{os.urandom(4).hex()}-{os.urandom(12).hex()}',0

    def sign(self, parts:list[bytes]) -> bytes:
        inner,outer = self.inner.copy(),self.outer.copy()
        inner.update(b''.join(parts))
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def request(self, kind:str, content:dict) -> tuple[str, list[bytes]]:
        self.count += 1
        msg_id = f'{self.session}_{os.getpid()}_{self.count}'
        header = dict(msg_id=msg_id, msg_type=kind, username='bench', session=self.session,
                      date=datetime.now(timezone.utc), version='5.4')
        parts = [orjson.dumps(header), b'{}', b'{}', orjson.dumps(content)]
        return msg_id, [DELIM, self.sign(parts), *parts]

    def execute(self, code:str) -> tuple[str, list[bytes]]:
        return self.request('execute_request', dict(code=code, silent=False, store_history=True, user_expressions={},
                                                    allow_stdin=False, stop_on_error=True))


def parse(frames:list[bytes]) -> dict:
    "The message in `frames`, which end with signature, header, parent header, metadata, content."
    header,parent,meta,content = map(orjson.loads, frames[-4:])
    return dict(header=header, parent_header=parent, metadata=meta, content=content)


def send_frames(sock:zmq.Socket, frames:list[bytes]):
    for frame in frames[:-1]: csend(sock, frame, MORE)
    csend(sock, frames[-1], 0)


def recv_frames(sock:zmq.Socket, n:int, flags:int=0) -> list[bytes]:
    "A message of `n` frames: the layout is known, so `RCVMORE` need not be asked."
    return [crecv(sock, flags) for _ in range(n)]


class Bare:
    "A DEALER that blocks: N sent, then N read and matched by id."
    sync,reads_iopub,parse = True,False,staticmethod(parse)
    send,recv = staticmethod(send_frames),staticmethod(recv_frames)

    def __init__(self, info:dict):
        self.info,self.wire,self.ctx = info,Wire(info['key']),zmq.Context()
        self.pending = {}

    def open(self, kind:int, port:str) -> zmq.Socket:
        sock = self.ctx.socket(kind)
        sock.linger = sock.sndhwm = sock.rcvhwm = 0
        sock.rcvtimeo = 30_000 # milliseconds: a floor that hangs ends by itself
        if kind == zmq.SUB: sock.subscribe(b'')
        sock.connect(f"tcp://{self.info['ip']}:{self.info[port]}")
        return sock

    async def connect(self):
        self.shell = self.open(zmq.DEALER, 'shell_port')
        if self.reads_iopub:
            self.iopub = self.open(zmq.SUB, 'iopub_port')
            assert parse(self.iopub.recv_multipart())['header']['msg_type'] == 'iopub_welcome'
        msg_id,frames = self.wire.request('kernel_info_request', {})
        self.pending[msg_id] = []
        send_frames(self.shell, frames)
        await self.finish(1)

    def start(self, n:int, code:str):
        for _ in range(n):
            msg_id,frames = self.wire.execute(code)
            self.pending[msg_id] = []
            self.send(self.shell, frames)
        return n

    async def finish(self, n:int) -> int:
        for _ in range(n): self.pending[self.parse(self.recv(self.shell, 6))['parent_header']['msg_id']]
        if self.reads_iopub: self.read_iopub(n)
        done,self.pending = len(self.pending),{}
        return done

    def read_iopub(self, idles:int):
        while idles:
            msg = self.parse(self.recv(self.iopub, 7))
            mine = self.pending.get(msg['parent_header'].get('msg_id')) # None: a kernel's own, as `starting`
            if mine is None: continue
            mine.append(msg)
            idles -= msg['content'].get('execution_state') == 'idle'

    def close(self): self.ctx.destroy(linger=0)


class BareIopub(Bare):
    "The same, with iopub read, parsed and kept by request."
    reads_iopub = True


class BareMultipart(BareIopub):
    "The same, written with the calls that pyzmq documents."
    def send(self, sock:zmq.Socket, frames:list[bytes]): sock.send_multipart(frames)
    def recv(self, sock:zmq.Socket, n:int) -> list[bytes]: return sock.recv_multipart()


class BareChecked(BareIopub):
    "The same, with each signature checked, and remembered against replays."
    def __init__(self, info:dict):
        super().__init__(info)
        self.seen = set()

    def parse(self, frames:list[bytes]) -> dict:
        signature = frames[-5]
        if signature in self.seen or not compare_digest(signature, self.wire.sign(frames[-4:])): raise ValueError('bad signature')
        self.seen.add(signature)
        return parse(frames)


class Raw(Bare):
    "Frames signed once and sent again and again, answers counted and not looked at: the stub's own limit."
    each = 2 # iopub messages per request

    def start(self, n:int, code:str):
        _,frames = self.wire.execute(code)
        self.each = 4 if 'print' in code else 2
        for _ in range(n): send_frames(self.shell, frames)
        return n

    async def finish(self, n:int) -> int:
        for _ in range(n): recv_frames(self.shell, 6)
        if self.reads_iopub: [recv_frames(self.iopub, 7) for _ in range(n * self.each)]
        return n


class RawIopub(Raw):
    "The same, with iopub."
    reads_iopub = True


class BareAsync(Bare):
    "A `zmq.asyncio` DEALER, one reader task, a future for each reply."
    sync = False

    def __init__(self, info:dict):
        super().__init__(info)
        self.ctx = zmq.asyncio.Context()

    async def connect(self):
        self.shell = self.open(zmq.DEALER, 'shell_port')
        self.reader = asyncio.create_task(self.read())
        await self.call('kernel_info_request', {})

    async def read(self):
        while True:
            msg = parse(await self.shell.recv_multipart())
            self.pending.pop(msg['parent_header']['msg_id']).set_result(msg)

    def call(self, *request) -> asyncio.Future:
        msg_id,frames = self.wire.request(*request) if len(request) == 2 else self.wire.execute(*request)
        future = self.pending[msg_id] = asyncio.get_running_loop().create_future()
        self.shell.send_multipart(frames)
        return future

    def start(self, n:int, code:str): return asyncio.gather(*[self.call(code) for _ in range(n)])

    async def finish(self, pending) -> int: return len(await pending)

    def close(self):
        self.reader.cancel()
        super().close()


class Call(asyncio.Future):
    "One request of `BareClient`: its reply, and the future of its end."
    __slots__ = ('msg_id','replied','idle','unread','end')


class BareClient(BareAsync):
    """What any client does that lets many wait at once, gives jupyter_client's dicts, and checks what it takes: readers on
    the event loop, two futures for a request, signatures, replays, dates. And nothing else: no request of it can be late,
    lost, given up or in anybody's way, and it has no windows, hooks, time limits, status, debug log or subclasses."""
    def __init__(self, info:dict):
        Bare.__init__(self, info)
        self.seen,self.ring,self.place,self.parents,self.looking = set(),{},0,{},False

    async def connect(self):
        self.shell,self.iopub = self.open(zmq.DEALER, 'shell_port'),self.open(zmq.SUB, 'iopub_port')
        self.iopub.recv_multipart() # the welcome
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.shell.get(zmq.FD), self.read_shell)
        self.loop.add_reader(self.iopub.get(zmq.FD), self.read_iopub)
        self.loop.call_soon(self.read_iopub)
        await self.call('kernel_info_request', {})

    def call(self, *request) -> asyncio.Future:
        msg_id,frames = self.wire.request(*request) if len(request) == 2 else self.wire.execute(*request)
        call = self.pending[msg_id] = Call(loop=self.loop)
        call.msg_id,call.replied,call.idle,call.unread,call.end = msg_id,False,False,(),self.loop.create_future()
        send_frames(self.shell, frames)
        if not self.looking:
            self.looking = True # a send may have taken the signal of what has come
            self.loop.call_soon(self.look)
        return call.end

    def look(self):
        self.looking = False
        self.read_shell()

    def take(self, sock:zmq.Socket, lead:int) -> list[tuple]:
        got = []
        try:
            for _ in range(64):
                for _ in range(lead): crecv(sock, zmq.NOBLOCK)
                got.append((crecv(sock, 1), crecv(sock, 1), crecv(sock, 1), crecv(sock, 1), crecv(sock, 1)))
        except zmq.Again: pass
        else: self.loop.call_soon(self.read_shell if sock is self.shell else self.read_iopub)
        return got

    def check(self, frames:tuple):
        signature = frames[0]
        if signature in self.seen or not compare_digest(signature, self.wire.sign(frames[1:])): raise ValueError('bad signature')
        place = self.place % 65536
        if len(self.seen) >= 65536: self.seen.discard(self.ring.get(place))
        self.seen.add(signature)
        self.ring[place],self.place = signature,place + 1

    def header(self, frame:bytes) -> dict:
        header = orjson.loads(frame)
        header['date'] = datetime.fromisoformat(header['date'])
        return header

    def parent(self, frame:bytes) -> dict:
        parent = self.parents.get(frame)
        if parent is None:
            if len(self.parents) > 10_000: self.parents.clear()
            parent = self.parents[frame] = self.header(frame)
        return parent

    def read_shell(self):
        for frames in self.take(self.shell, 1):
            self.check(frames)
            header,parent = self.header(frames[1]),self.parent(frames[2])
            msg = dict(header=header, msg_id=header['msg_id'], msg_type=header['msg_type'], parent_header=parent.copy(),
                       metadata=orjson.loads(frames[3]), content=orjson.loads(frames[4]), buffers=[])
            call = self.pending[parent['msg_id']]
            call.replied = True
            call.set_result(msg)
            if call.idle: self.over(call)

    def read_iopub(self):
        for frames in self.take(self.iopub, 2):
            call = self.pending.get(self.parent(frames[2]).get('msg_id'))
            if call is None: continue
            self.check(frames)
            call.unread = call.unread,frames # parsed when somebody looks, as this library does
            if b'idle' in frames[4] and orjson.loads(frames[4]).get('execution_state') == 'idle':
                call.idle = True
                if call.replied: self.over(call)

    def over(self, call:Call):
        del self.pending[call.msg_id]
        call.end.set_result(call)

    def close(self):
        for sock in self.shell,self.iopub: self.loop.remove_reader(sock.get(zmq.FD))
        Bare.close(self)
