"""A kernel for tests that leave it as it was: one process for all of them, and for each test a client of its own.

A module whose coroutine tests are to end in time whatever happens says `bound = 60` (seconds for each of them).
"""
import asyncio,atexit,functools,inspect,os,shutil,tempfile
from pathlib import Path

import pytest
from jupyter_client import KernelManager

from conkernelclient import ConKernelClient
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

@pytest.fixture
async def kc(kernel_file):
    "A ready client, without a manager"
    kc = attach(kernel_file)
    try:
        yield await kc.start_channels()
    finally: kc.stop_channels()

@pytest.fixture(scope='module')
def jupyter():
    "A Jupyter server, one for each module of tests"
    server = Jupyter().start()
    try:
        asyncio.run(server.ready())
        yield server
    finally: server.stop()


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
        seconds = getattr(item.module, 'bound', None)
        if seconds and inspect.iscoroutinefunction(getattr(item, 'obj', None)): item.obj = _bounded(item.obj, item.get_closest_marker('slow') and 1800 or seconds)
