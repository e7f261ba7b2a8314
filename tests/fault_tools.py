"""What the fault tests share: bounded waits, a watch on what nobody was told, and figures.

Figures (how long, how much) are printed, not asserted, but for the bounds that are promises; those are given `SLACK`,
as a loaded machine may take its time. `pytest -m "" -s tests/test_faults_*.py | grep figure` lists them.
"""
import asyncio, gc, logging, os, select, signal, time
from contextlib import asynccontextmanager, contextmanager

import pytest, zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import KernelProvisionerBase
from conkernelclient import ConKernelClient, ConKernelManager
import inside
from fake_kernel import FakeKernel

SOON = 30    # seconds: far more than anything here takes that has no bound of its own
SLACK = 5    # how much slower than promised a loaded machine may be

pytestmark = [pytest.mark.filterwarnings('error')]


def figure(what, value):
    print(f'\nfigure | {what} | {value:.3f}' if isinstance(value, float) else f'\nfigure | {what} | {value}')


async def within(seconds, awaitable):
    "The result, and how long it took; fails rather than hangs."
    begin = time.monotonic()
    res = await asyncio.wait_for(asyncio.ensure_future(awaitable), seconds)
    return res, time.monotonic()-begin


async def outcomes(reqs, seconds=SOON):
    "What became of each, and how long that took"
    return await within(seconds, asyncio.gather(*reqs, return_exceptions=True))


def soon(awaitable, seconds=SOON): return asyncio.wait_for(awaitable, seconds)

async def outcome(awaitable, seconds=SOON):
    "The result, or the exception"
    return (await outcomes([awaitable], seconds))[0][0]

def kinds(results): return {type(o) for o in results}

def text(req):
    "What a request wrote to the standard streams"
    return ''.join(o['content']['text'] for o in req.iopub if o['msg_type']=='stream')

def ask(kc, code, **kwargs):
    "An execute request that keeps its outputs"
    content = dict(code=code, silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=True)
    return kc.request('execute_request', content|kwargs.pop('content', {}), **kwargs)

async def until_busy(req, seconds=SOON):
    "Wait until the kernel has begun with `req`"
    async def first():
        async for msg in req:
            if msg['content'].get('execution_state')=='busy': return
    await asyncio.wait_for(first(), seconds)

async def until(predicate, seconds=SOON, what='what was waited for'):
    "Wait, with other tasks going on, until `predicate()` is true"
    deadline = time.monotonic()+seconds
    while not predicate():
        if time.monotonic()>deadline: raise TimeoutError(f'{what}: not within {seconds} s')
        await asyncio.sleep(.005)

async def until_running(run): await until(lambda: run.state=='running', what=f'{run} to be running')

async def quiet(kc, channel='shell'):
    "All that was sent on `channel` before has been received, and what it made the kernel send is here"
    await soon(kc.request('kernel_info_request', {}, channel).wait())


async def at_rest(kc, seconds=SOON):
    "Soon nothing is in flight, and nothing is kept of what was"
    r = kc.router
    def empty(): return not r.table and not r.graces and not any(o.under_way or o.waiting for o in r.shells.values())
    try: await until(empty, seconds)
    except TimeoutError: raise AssertionError(f'not at rest: {r!r}, {list(r.table.values())[:5]}, {list(r.graces)[:5]}') from None

async def as_good_as_new(kc):
    "It executes, outputs included"
    req = ask(kc, 'print(6*7)')
    (done,_) = await within(SOON, req.wait())
    assert done.complete and done.reply['content']['status']=='ok' and text(done)=='42\n', done.iopub
    await at_rest(kc)


@asynccontextmanager
async def attached(connection_file, **kwargs):
    "A ready client made from a connection file alone: it has no manager"
    kc = ConKernelClient(**kwargs)
    kc.load_connection_file(connection_file)
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=SOON)
        yield kc
    finally: kc.stop_channels()


# --- the inside of a client, where nothing public says it: to be changed here when the library changes ------------

def links(kc):
    "The channels, of shell and iopub, whose connection is up"
    return inside.links(kc)

def duplicate_replies(kc):
    "How many replies came to requests that had one already"
    return kc.router.stats['duplicate replies']


# --- a fake kernel whose iopub comes and goes, or that has a manager ------------------------------------------------

class Iopub:
    "The kernel's socket for outputs alone"
    def __init__(self, fk): self.fk = fk
    def close(self): self.fk._order(lambda: self.fk._sockets.pop('iopub').close())
    def open(self): self.fk._order(lambda: self.fk._sockets.update(iopub=self.fk._open('iopub', zmq.XPUB)))

    async def lose(self, kc, seconds=SOON):
        "Close it, and wait until `kc` has noticed"
        self.close()
        await until(lambda: 'iopub' not in links(kc), seconds, 'the client to notice that iopub is down')

    async def find(self, kc, seconds=SOON):
        "Open it, and wait until `kc` has subscribed again"
        before = self.fk.subscriptions
        self.open()
        await self.fk.until(lambda: self.fk.subscriptions>before, seconds)
        await until(lambda: 'iopub' in links(kc), seconds, 'the client to notice that iopub is up')


class InThisProcess(KernelProvisionerBase):
    """Launches each kernel of a manager as a `FakeKernel` in a thread of this process, on the same ports.

    So a test can hold, flap and crash kernels that have a manager, and look into each: `kernels` are all so far.
    """
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.kernels = []
        self.options = {}      # for the next `FakeKernel`
        self.reaped = False

    @property
    def has_process(self): return bool(self.kernels) and not self.reaped

    async def pre_launch(self, **kwargs):
        self.parent.write_connection_file()
        self.connection_info = self.parent.get_connection_info()
        return dict(kwargs, cmd=['fake'])

    async def launch_kernel(self, cmd, **kwargs):
        self.kernels.append(FakeKernel(connection_file=self.parent.connection_file, **self.options))
        await asyncio.to_thread(self.kernels[-1].start)
        self.reaped = False
        return self.connection_info

    async def poll(self): return None if self.kernels[-1].alive else self.kernels[-1].exit_code

    async def wait(self):
        while await self.poll() is None: await asyncio.sleep(.01)
        self.reaped = True
        return await self.poll()

    async def send_signal(self, signum):
        if signum==signal.SIGINT: self.kernels[-1].interrupt()

    async def kill(self, restart=False): await asyncio.to_thread(self.kernels[-1].crash, -signal.SIGKILL)
    async def terminate(self, restart=False): await asyncio.to_thread(self.kernels[-1].crash, -signal.SIGTERM)
    async def cleanup(self, restart=False): pass


@asynccontextmanager
async def managed(interrupt_mode='signal', client=None, **options):
    "A manager, a ready client made with the options `client`, and the list of its kernels, one more after each restart"
    km = ConKernelManager(kernel_spec=KernelSpec(argv=['fake'], display_name='fake', interrupt_mode=interrupt_mode))
    km.provisioner = InThisProcess(parent=km, kernel_spec=km.kernel_spec)
    km.provisioner.options = options
    kernels = km.provisioner.kernels
    kc = None
    try:
        await km.start_kernel()
        kc = km.client(**(client or {}))
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        yield km, kc, kernels
    finally:
        if kc is not None: kc.stop_channels()
        await km.shutdown_kernel(now=True)
        for fk in kernels: fk.close()
    assert not any(fk.errors for fk in kernels), [fk.errors for fk in kernels]


class ProcessEnd:
    "Learns when process `pid` ends"
    def __init__(self, pid):
        self.fd,self.at,self.loop = os.pidfd_open(pid),None,asyncio.get_running_loop()
        self.loop.add_reader(self.fd, self._ended)
    def _ended(self):
        self.at = time.monotonic()
        self.close()
    def close(self):
        if self.fd is None: return
        self.loop.remove_reader(self.fd)
        os.close(self.fd)
        self.fd = None

def running(pid):
    "Is there such a process, which has not ended?"
    try:
        with open(f'/proc/{pid}/stat') as f: return f.read().rpartition(')')[2].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError): return False

def fds(): return len(os.listdir('/proc/self/fd'))

def rss():
    "Resident memory of this process, in MB"
    with open('/proc/self/statm') as f: return int(f.read().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20


@pytest.fixture(autouse=True)
def nothing_unheard(caplog):
    "Fails a test after which asyncio had to report what nobody had handled"
    yield
    gc.collect()
    unheard = [o.getMessage() for when in ('setup','call','teardown') for o in caplog.get_records(when)
               if o.name=='asyncio' and o.levelno>=logging.ERROR or o.levelno>=logging.ERROR and o.exc_info and o.name=='conkernelclient']
    assert not unheard, unheard
