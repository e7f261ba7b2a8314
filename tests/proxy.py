"""A TCP proxy that misbehaves, and a Jupyter server in a process of its own, for the tests of kernels behind a server.

    async with Proxy(port) as proxy:     # proxy.port leads to port
        proxy.cut()                      # both ends of all connections are closed
        proxy.cut(server=False)          # the client's end only: the server notices nothing
        proxy.stall() … proxy.resume()   # connections stay open, and nothing passes
        proxy.rate = 10_000              # bytes per second, in each direction
        await proxy.refuse() … await proxy.listen()
        proxy.answer = b'HTTP/1.1 503 …'     # what new connections get
"""
import asyncio, os, signal, socket, subprocess, sys, tempfile, time

import psutil   # (ipykernel needs it)
from conkernelclient import ServerError
from conkernelclient.transports.websocket import Server


class Way:
    "One direction of a connection"
    def __init__(self, proxy, reader, writer, inbound):
        self.proxy, self.reader, self.writer, self.inbound = proxy, reader, writer, inbound
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        try:
            while data := await self.reader.read(2**16):
                await self.proxy.open.wait()
                if self.proxy.rate: await asyncio.sleep(len(data)/self.proxy.rate)
                self.proxy.passed += len(data)
                self.writer.write(data)
                await self.writer.drain()
        except (ConnectionError, OSError): pass
        self.writer.close()


class Proxy:
    def __init__(self, target):
        self.target, self.port, self.rate, self.passed = target, 0, 0, 0
        self.open, self.server, self.ways, self.tasks = asyncio.Event(), None, [], set()
        self.answer = None   # what new connections get at their first request, in place of the target's answer
        self.open.set()

    async def __aenter__(self):
        await self.listen()
        return self

    async def __aexit__(self, *args):
        await self.refuse()
        self.cut()
        self.open.set()
        await asyncio.gather(*(o.task for o in self.ways), return_exceptions=True)

    async def listen(self):
        self.server = await asyncio.start_server(self._connected, '127.0.0.1', self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def refuse(self):
        "No new connections; those that are open stay"
        self.server.close()

    async def _connected(self, reader, writer):
        if self.answer is not None:
            await reader.readuntil(b'\r\n\r\n')
            writer.write(self.answer)
            await writer.drain()
            return writer.close()
        try: there, back = await asyncio.open_connection('127.0.0.1', self.target)
        except OSError: return writer.close()
        self.ways += [Way(self, reader, back, True), Way(self, there, writer, False)]

    def cut(self, server=True):
        "End all connections; with `server=False` the server does not see it"
        for o in self.ways:
            if o.inbound and not server:
                o.task.cancel()     # what it would close is the server's end
                continue
            o.writer.transport.abort()
            if not server: o.task.cancel()

    def stall(self): self.open.clear()
    def resume(self): self.open.set()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def processes_of(kernel_id):
    "The ids of the processes of a kernel on this machine (its connection file is among their arguments)"
    found = []
    for o in psutil.process_iter():
        try:
            if any(kernel_id in arg for arg in o.cmdline()) and o.status() != psutil.STATUS_ZOMBIE: found.append(o.pid)
        except psutil.Error: pass   # it has ended
    return found


# Kernels of a server under test listen at files. At ports, one in some hundred dies at its start on a busy machine, as
# another process has taken the port that was free when the server chose it. (That is a test of its own, in test_server.)
QUIET = '--KernelManager.transport=ipc', '--KernelRestarter.time_to_dead=0.5'

class Jupyter:
    "A Jupyter server in a process of its own. Its log goes to the file that SERVER_LOG names."
    log = open(os.environ['SERVER_LOG'], 'ab') if os.environ.get('SERVER_LOG') else subprocess.DEVNULL
    path = ''      # of its base address
    kernels = {}   # what `start_kernel` needs there
    tells = True   # does a client hear of a restart by others before the new kernel takes requests?
    def __init__(self, *options, token='secret', port=None, ssl_options=None):
        self.port, self.token, self.options = port or free_port(), token, options
        self.url = self.through(self.port)
        self.process, self.ssl_options = None, ssl_options

    def through(self, port):
        "Its address behind a proxy"
        return f'http://127.0.0.1:{port}{self.path}'

    def settings(self):
        "The options, which come before those of all"
        given = {o.partition('=')[0] for o in self.options}
        return [*self.options, *(o for o in QUIET if o.partition('=')[0] not in given)]

    def command(self):
        return [sys.executable, '-m', 'jupyter_server', f'--ServerApp.port={self.port}', f'--IdentityProvider.token={self.token}',
                '--ServerApp.port_retries=0', '--ServerApp.open_browser=False', '--ServerApp.allow_root=True',
                f'--ServerApp.root_dir={tempfile.mkdtemp()}', *self.settings()]

    def start(self):
        self.process = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log, start_new_session=True)
        return self

    async def ready(self):
        "Wait until it answers. Where another process has taken its port, it is started once more, with another."
        until = time.monotonic()+60
        while True:
            try: return await self.get('api/kernelspecs')
            except ServerError:
                if time.monotonic() > until: raise
                if self.process.poll() is not None:
                    old, self.port = self.port, free_port()
                    self.url = self.url.replace(str(old), str(self.port))
                    self.start()
                await asyncio.sleep(.1)

    def server(self): return Server(self.url, self.token, ssl_options=self.ssl_options)
    async def get(self, path): return await self.server().fetch('GET', path)
    async def post(self, path, body=None): return await self.server().fetch('POST', path, body or {}, 60)
    async def delete(self, path): return await self.server().fetch('DELETE', path, None, 60)

    def stop(self, sig=signal.SIGTERM):
        if self.process is None: return
        self.process.send_signal(sig)
        try: self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)
        try: os.killpg(self.process.pid, signal.SIGKILL)     # kernels that are left
        except ProcessLookupError: pass
        self.process = None


class Gateway(Jupyter):
    "A Kernel Gateway in a process of its own"
    def command(self):
        return [sys.executable, '-m', 'kernel_gateway', f'--KernelGatewayApp.port={self.port}', f'--KernelGatewayApp.auth_token={self.token}',
                '--KernelGatewayApp.port_retries=0', *self.settings()]
