"""The clients that are measured. Each has `connect`, `start` (send n requests), `finish` (wait for them; how many came
back) and `close`; `sync` ones block and are driven without an event loop. A library is imported only when a client of
it is made, as each lives in an environment of its own.
"""
import asyncio

CONTENT = dict(silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=True)
TIMEOUT = 60 # seconds


class Client:
    "A client with `start_channels`, whose `call` sends at once and gives something to await."
    sync = False

    def __init__(self, info:dict):
        self.kc = self.make()
        self.kc.load_connection_info(info)

    def make(self):
        from conkernelclient import ConKernelClient
        return ConKernelClient()

    async def connect(self): await self.kc.start_channels()

    def start(self, n:int, code:str): return asyncio.gather(*[self.call(code) for _ in range(n)])

    async def finish(self, pending) -> int: return len(await pending)

    def close(self): self.kc.stop_channels()


class OursReply(Client):
    def call(self, code): return self.kc.execute(code, reply=True)

class OursIdle(Client):
    def call(self, code): return self.kc.request('execute_request', dict(CONTENT, code=code)).wait()

class OursRead(OursIdle):
    async def finish(self, pending):
        done = await pending
        for req in done: req.iopub # parsed when somebody looks
        return len(done)

class OursRun(Client):
    def call(self, code): return self.kc.run(code)

class PyPI18(Client):
    def call(self, code): return self.kc.execute(code, reply=True)

class PyPI23Request(Client):
    def call(self, code): return self.kc.request('execute_request', dict(CONTENT, code=code))

class PyPI23Reply(Client):
    def call(self, code): return self.kc.reply(code)


class JupyterAsync(Client):
    "`AsyncKernelClient`: N sent, then N read, as it has no way to wait for many at once."
    reads_iopub = False

    def make(self):
        from jupyter_client import AsyncKernelClient
        return AsyncKernelClient()

    async def connect(self):
        self.kc.start_channels()
        await self.kc.wait_for_ready(timeout=TIMEOUT)

    def start(self, n:int, code:str):
        for _ in range(n): self.kc.execute(code)
        return n

    async def finish(self, n:int) -> int:
        for _ in range(n): await self.kc.get_shell_msg(timeout=TIMEOUT)
        idles = n if self.reads_iopub else 0
        while idles:
            msg = await self.kc.get_iopub_msg(timeout=TIMEOUT)
            idles -= msg['content'].get('execution_state') == 'idle'
        return n


class JupyterAsyncIdle(JupyterAsync):
    reads_iopub = True


class JupyterBlocking(JupyterAsync):
    sync = True

    def make(self):
        from jupyter_client import BlockingKernelClient
        return BlockingKernelClient()

    async def connect(self):
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=TIMEOUT)

    async def finish(self, n:int) -> int:
        for _ in range(n): self.kc.get_shell_msg(timeout=TIMEOUT)
        return n
