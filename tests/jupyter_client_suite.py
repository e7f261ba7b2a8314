"""Run jupyter_client's own tests with our classes in the place of its `AsyncKernelManager` and `AsyncKernelClient`

    pip install -e '.[dev]' 'pytest-jupyter[client]' pytest-timeout msgpack
    python tests/jupyter_client_suite.py                # with ours
    python tests/jupyter_client_suite.py --stock        # with jupyter_client's, to see what fails in any case
    python tests/jupyter_client_suite.py -- -k Async    # what follows `--` is for pytest

It fetches the sdist of the installed version from PyPI (or takes `--sdist PATH`, a file or an unpacked folder), copies
its tests to a temporary folder, and loads itself there as a pytest plugin that puts our classes in place before any
test module is imported. The exit code is pytest's.
"""
import argparse,os,shutil,subprocess,sys,tarfile,tempfile
from importlib.metadata import version
from pathlib import Path

modules = 'test_client test_kernelmanager test_manager test_multikernelmanager test_provisioning test_public_api test_restarter test_transport_security'.split()

def put_in_place():
    "From here on, who imports jupyter_client's asynchronous classes gets ours"
    import jupyter_client,jupyter_client.asynchronous,jupyter_client.asynchronous.client,jupyter_client.client,jupyter_client.ioloop
    import jupyter_client.ioloop.manager,jupyter_client.manager,jupyter_client.multikernelmanager as mkm
    from jupyter_client.utils import run_sync
    import conkernelclient.core as ours
    for o in jupyter_client,jupyter_client.manager,jupyter_client.ioloop.manager: o.AsyncKernelManager = ours.ConKernelManager
    for o in jupyter_client,jupyter_client.asynchronous,jupyter_client.asynchronous.client,jupyter_client.manager: o.AsyncKernelClient = ours.ConKernelClient
    for o in jupyter_client.ioloop,jupyter_client.ioloop.manager: o.AsyncIOLoopKernelManager = ours.ConIOLoopKernelManager
    mkm.AsyncMultiKernelManager.kernel_manager_class.default_value = 'conkernelclient.core.ConIOLoopKernelManager'

    class SyncFace(ours.ConKernelManager):
        "For tests that are written for `KernelManager`, and call nothing that waits but these"
        pre_start_kernel = run_sync(ours.ConKernelManager._async_pre_start_kernel)
        cleanup_resources = run_sync(ours.ConKernelManager._async_cleanup_resources)
    return ours,SyncFace

def pytest_configure(config):
    if os.environ.get('SUITE_STOCK'): return
    config.in_place = put_in_place()

def pytest_runtest_setup(item):
    if os.environ.get('SUITE_STOCK'): return
    (ours,face),name = item.config.in_place,item.module.__name__.rpartition('.')[2]
    # These modules look at connection details, through the synchronous classes. (One test reads a socket of the
    # manager's context without awaiting, which no asyncio context allows.)
    if name in ('test_transport_security','test_manager'):
        from jupyter_client.manager import KernelManager
        item.module.KernelManager = KernelManager if 'plaintext_visibility' in item.name else face
    if name=='test_transport_security': item.module.KernelClient = ours.ConKernelClient

def pytest_report_header(config):
    return 'jupyter_client tests with ' + ("jupyter_client's own classes" if os.environ.get('SUITE_STOCK') else 'conkernelclient in place')

def sdist(given, folder):
    "The unpacked sdist of the installed jupyter_client"
    if given is None:
        subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', ':all:', '-d', folder,
                        f'jupyter_client=={version("jupyter_client")}'], check=True, timeout=300)
        given = next(Path(folder).glob('*.tar.gz'))
    given = Path(given)
    if given.is_dir(): return given
    with tarfile.open(given) as f: f.extractall(folder, filter='data')
    return next(o.parent for o in Path(folder).glob('*/tests'))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--stock', action='store_true', help="run them with jupyter_client's own classes")
    parser.add_argument('--sdist', help='an sdist of jupyter_client, packed or unpacked')
    parser.add_argument('args', nargs='*', help='for pytest')
    args = parser.parse_args()
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as tmp:
        src,run = sdist(args.sdist, tmp),Path(tmp)/'run'
        shutil.copytree(src/'tests', run/'tests')
        shutil.copy(src/'pyproject.toml', run)
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(here.parent), str(here.parents[1]), os.environ.get('PYTHONPATH', '')]))
        if args.stock: env['SUITE_STOCK'] = '1'
        # pytest-asyncio would compete with the runner of coroutine tests that these tests expect
        cmd = [sys.executable, '-m', 'pytest', '-p', 'jupyter_client_suite', '-p', 'no:asyncio', '-p', 'no:cacheprovider',
               *(f'tests/{o}.py' for o in modules), *args.args]
        return subprocess.run(cmd, cwd=run, env=env).returncode

if __name__=='__main__': sys.exit(main())
