"""One client of a kernel behind a server, in its own process and environment: `server_clients.py NAME JSON`, run by server.py.

Each line of the standard input, `[what, n]`, is a measurement, and its result is a line of JSON: seconds on the clock, seconds
of CPU of this process with all its threads, and how many bytes of output came. It imports nothing but the one client.
"""
import asyncio, inspect, json, os, struct, sys, time
from importlib.metadata import PackageNotFoundError, version

# With pauses: without them, the kernel may be faster than the server, and drops what is more than its high-water mark.
PRINTS = 'import time\nfor i in range({}):\n    print(i, flush=True)\n    if i%500 == 0: time.sleep(.1)'


class Ours:
    "This library, behind the server"
    module, package = 'conkernelclient', 'conkernelclient'
    async def connect(self, info):
        from conkernelclient import ServerKernelManager
        self.km = ServerKernelManager(info['url'], info['token'])
        await self.km.start_kernel(info['kernel_id'])
        self.kc = self.km.client()
        await self.kc.start_channels()

    async def cell(self, code):
        r = await self.kc.run(code)
        if not r.complete: print(f'A cell is incomplete: {r.missing}', file=sys.stderr)
        return len(r.stdout)
    async def reply(self): await self.kc.execute('', reply=True)
    async def flight(self, n): await asyncio.gather(*(self.kc.execute('', reply=True) for _ in range(n)))


class Direct(Ours):
    "This library over ZMQ, without the server"
    async def connect(self, info):
        from conkernelclient import ConKernelClient
        self.kc = ConKernelClient()
        self.kc.load_connection_file(info['file'])
        await self.kc.start_channels()


class Floor:
    "tornado's WebSocket and orjson: parses each message, keeps and promises nothing"
    module, package = 'tornado', 'tornado'
    async def connect(self, info):
        import orjson, socket, uuid
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect
        self.loads, self.dumps, self.session = orjson.loads, orjson.dumps, uuid.uuid4().hex
        address = f'ws{info["url"][4:]}/api/kernels/{info["kernel_id"]}/channels?session_id={self.session}'
        request = HTTPRequest(address, headers={'Authorization': f'token {info["token"]}'} if info['token'] else {})
        self.n, self.wanted, self.bytes = 0, {}, 0
        self.ws = await websocket_connect(request, on_message_callback=self.came, max_message_size=2**62,
                                          subprotocols=['v1.kernel.websocket.jupyter.org'])
        sock = self.ws.protocol.stream.socket
        self.ws.protocol.stream.set_nodelay(True)
        self.quick = lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1) if hasattr(socket, 'TCP_QUICKACK') else None
        self.quick()

    def came(self, data):
        self.quick()
        if data is None: return
        n, = struct.unpack_from('<Q', data)
        _, b, c, d, e, f = struct.unpack_from('<6Q', data, 8)
        header, parent, _, content = (self.loads(o) for o in (data[b:c], data[c:d], data[d:e], data[e:f]))
        waits = self.wanted.get(parent.get('msg_id'))
        if waits is None: return
        kind = header['msg_type']
        if kind == 'stream': self.bytes += len(content['text'])
        idle = kind == 'status' and content['execution_state'] == 'idle'
        if kind != 'execute_reply' and not idle: return
        waits[1] -= 1
        if waits[1] <= 0 or not waits[2] and not idle:
            if not waits[0].done(): waits[0].set_result(None)
            if waits[1] <= 0: del self.wanted[parent['msg_id']]

    def ask(self, code, both):
        self.n += 1
        msg_id = f'{self.session}_{self.n}'
        header = dict(msg_id=msg_id, msg_type='execute_request', session=self.session, username='', date='2026-01-01T00:00:00Z', version='5.3')
        content = dict(code=code, silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=True)
        parts = [b'shell', self.dumps(header), b'{}', b'{}', self.dumps(content)]
        offsets = [8*(len(parts)+2)]
        for o in parts: offsets.append(offsets[-1]+len(o))
        done = asyncio.get_running_loop().create_future()
        self.wanted[msg_id] = [done, 2, both]
        self.ws.write_message(b''.join((struct.pack(f'<{len(offsets)+1}Q', len(offsets), *offsets), *parts)), binary=True)
        self.quick()
        return done

    async def cell(self, code):
        self.bytes = 0
        await self.ask(code, True)
        return self.bytes

    async def reply(self): await self.ask('', False)
    async def flight(self, n): await asyncio.gather(*(self.ask('', False) for _ in range(n)))


class Datalayer:
    "datalayer's jupyter-kernel-client, which has one cell in flight: of a flight, its low-level client sends all and reads all"
    module, package = 'jupyter_kernel_client', 'jupyter-kernel-client'
    def connect(self, info):
        from jupyter_kernel_client import JupyterKernelClient
        self.kernel = JupyterKernelClient(server_url=info['url'], token=info['token'], kernel_id=info['kernel_id'])
        self.kernel.start()
        self.low = self.kernel._manager.client

    def cell(self, code): return sum(len(o.get('text', '')) for o in self.kernel.execute(code, timeout=100)['outputs'])
    def reply(self): self.flight(1)
    def flight(self, n):
        waiting = {self.low.execute('') for _ in range(n)}
        while waiting: waiting.discard(self.low.get_shell_msg(timeout=60)['parent_header'].get('msg_id'))
        while self.low.iopub_channel.msg_ready(): self.low.iopub_channel.get_msgs()


class Gateway:
    "jupyter_server's GatewayKernelClient"
    module, package = 'jupyter_server', 'jupyter_server'
    async def connect(self, info):
        from jupyter_server.gateway.managers import GatewayClient, GatewayKernelClient
        GatewayClient.instance().url = info['url']
        self.kc = GatewayKernelClient(info['kernel_id'])
        await self.kc.start_channels()
        for o in 'shell', 'iopub', 'stdin', 'hb', 'control': getattr(self.kc, f'{o}_channel')

    async def cell(self, code):
        msg_id, n, busy = self.kc.execute(code), 0, True
        while busy:
            msg = await self.kc.get_iopub_msg(timeout=60)
            if msg['parent_header'].get('msg_id') != msg_id: continue
            if msg['msg_type'] == 'stream': n += len(msg['content']['text'])
            busy = msg['content'].get('execution_state') != 'idle'
        await self.replies({msg_id})
        return n

    async def replies(self, waiting):
        while waiting: waiting.discard((await self.kc.get_shell_msg(timeout=60))['parent_header'].get('msg_id'))

    async def reply(self): await self.flight(1)
    async def flight(self, n): await self.replies({self.kc.execute('') for _ in range(n)})


CLIENTS = dict(ours=Ours, zmq=Direct, floor=Floor, datalayer=Datalayer, gateway=Gateway)


class Measure:
    def __init__(self, client): self.client = client

    async def call(self, f, *args):
        res = f(*args)
        return await res if inspect.isawaitable(res) else res

    async def cells(self, n):
        for i in range(n): await self.call(self.client.cell, f'{i}')

    async def replies(self, n):
        for _ in range(n): await self.call(self.client.reply)

    async def flight(self, n): await self.call(self.client.flight, n)
    async def prints(self, n): return await self.call(self.client.cell, PRINTS.format(n))

    async def serve(self, info):
        await self.call(self.client.connect, info)
        await self.cells(3)
        module = sys.modules[self.client.module]
        try: number = version(self.client.package)
        except PackageNotFoundError: number = getattr(module, '__version__', '?')
        print(json.dumps(dict(version=getattr(module, '__version__', number), file=module.__file__)), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, n = json.loads(line)
            begin, cpu = time.perf_counter(), time.process_time()
            came = await getattr(self, what)(n)
            print(json.dumps(dict(wall=time.perf_counter()-begin, cpu=time.process_time()-cpu, came=came)), flush=True)
            await asyncio.sleep(.05)   # (what comes behind a reply is not the next measurement's)


if __name__ == '__main__':
    asyncio.run(Measure(CLIENTS[sys.argv[1]]()).serve(json.loads(sys.argv[2])))
    os._exit(0)   # (some leave threads behind)
