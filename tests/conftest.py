"""A kernel for tests that leave it as it was: one process for all of them, and for each test a client of its own.

A module whose coroutine tests are to end in time whatever happens says `bound = 60` (seconds for each of them).
"""
import asyncio,atexit,functools,inspect,os,shutil,tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jupyter_client import KernelManager

from conkernelclient import ConKernelClient, open_server_kernel, run_kernel
from proxy import Jupyter

# Many kernels at once would share IPython's history file, and print what they think of it among their outputs
ipython_dir = Path(tempfile.mkdtemp(prefix='ipython-'))
atexit.register(shutil.rmtree, ipython_dir, ignore_errors=True)
(ipython_dir/'profile_default').mkdir()
(ipython_dir/'profile_default/ipython_kernel_config.py').write_text("get_config().HistoryManager.hist_file = ':memory:'\n")
os.environ['IPYTHONDIR'] = str(ipython_dir)


@pytest.fixture(scope='session')
def kernel_file():
    "The connection file of a running kernel, started by jupyter_client's own blocking manager"
    km = KernelManager()
    km.start_kernel()
    try: yield km.connection_file
    finally: km.shutdown_kernel(now=True)

def attach(connection_file, **kwargs):
    kc = ConKernelClient(**kwargs)
    kc.load_connection_file(connection_file)
    return kc

@pytest.fixture(scope='module')
def jupyter():
    "A Jupyter server, one for each module of tests"
    server = Jupyter().start()
    try:
        asyncio.run(server.ready())
        yield server
    finally: server.stop()


# One suite, two transports: where a module says `both_transports = True`, its tests that use `kc`, `shared` or
# `start_kernel` run over ZMQ, and once more behind a Jupyter server (with `'slow'`: among the slow ones). Those that are
# about ZMQ are marked so: `@pytest.mark.zmq_only('why')`
def pytest_generate_tests(metafunc):
    both = getattr(metafunc.module, 'both_transports', False)
    if not both or 'carrier' not in metafunc.fixturenames or metafunc.definition.get_closest_marker('zmq_only'): return
    marks = [pytest.mark.slow] if both == 'slow' else []
    metafunc.parametrize('carrier', ['zmq', pytest.param('websocket', marks=marks)])

@pytest.fixture
def carrier():
    "What carries the messages of `kc` and `start_kernel`"
    return 'zmq'

@pytest.fixture(scope='module')
def served(jupyter):
    "A manager of a kernel behind the server, for tests that leave it as it was"
    from conkernelclient import ServerKernelManager
    km = ServerKernelManager(jupyter.url, jupyter.token)
    asyncio.run(km.start_kernel())
    yield km
    asyncio.run(km.shutdown_kernel())

@pytest.fixture
def shared(request, carrier):
    "Makes a client of a kernel that is there for all tests"
    if carrier == 'zmq': return functools.partial(attach, request.getfixturevalue('kernel_file'))
    return request.getfixturevalue('served').client

@pytest.fixture
async def kc(shared):
    "A ready client of a kernel that somebody else has started"
    kc = shared()
    try:
        yield await kc.start_channels()
    finally: kc.stop_channels()

@pytest.fixture
def start_kernel(request, carrier):
    "`async with start_kernel() as (km, kc):` gives a kernel of its own, with its manager"
    if carrier == 'zmq': return run_kernel
    jupyter = request.getfixturevalue('jupyter')
    @asynccontextmanager
    async def start():
        async with open_server_kernel(jupyter.url, token=jupyter.token) as kc: yield kc.parent, kc
    return start


def _bounded(test, seconds):
    @functools.wraps(test)
    async def run(*args, **kwargs):
        try:
            async with asyncio.timeout(seconds): return await test(*args, **kwargs)
        except TimeoutError as e:
            if asyncio.current_task().cancelling(): raise
            raise AssertionError(f'{test.__name__} failed with a timeout (it has {seconds} s): {e!r}') from e
    return run

def pytest_collection_modifyitems(items):
    for item in items:
        slow = getattr(item.module, 'slow_tests', ())   # (here)
        if getattr(item, 'originalname', '') in slow or item.name in slow: item.add_marker(pytest.mark.slow)
        seconds = getattr(item.module, 'bound', None)
        if seconds and inspect.iscoroutinefunction(getattr(item, 'obj', None)): item.obj = _bounded(item.obj, item.get_closest_marker('slow') and 1800 or seconds)
