"""What the fault tests share: bounded waits, a watch on what nobody was told, and figures.

Figures (how long, how much) are printed, not asserted, but for the bounds that are promises; those are given `SLACK`,
as a loaded machine may take its time. `pytest -m "" -s tests/test_faults_*.py | grep figure` lists them.
"""
import asyncio, gc, logging, os, select, time
from contextlib import asynccontextmanager, contextmanager

import pytest
from conkernelclient import ConKernelClient

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
