"The kernels to measure against, each a process of its own: the stub (C, or Python without a compiler) and ipykernel."
import json, os, shutil, subprocess, tempfile, time, uuid
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


def find_libzmq(python:str) -> str|None:
    "The libzmq that the pyzmq of `python` brings with it."
    code = 'import zmq, pathlib; print(pathlib.Path(zmq.__file__).parent.parent)'
    site = Path(subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip())
    return next((str(p) for p in [*site.glob('pyzmq.libs/libzmq*'), *site.glob('zmq/.dylibs/libzmq*')]), None)


def build_stub(python:str, build:Path) -> tuple[list[str], str]:
    "The command that starts the stub, and a word on which one it is."
    slow = [python, str(HERE/'stub.py')]
    cc = next((c for c in ('cc', 'gcc', 'clang') if shutil.which(c)), None)
    if not cc: return slow, 'Python (no C compiler found: the stub limits what is measured)'
    lib = find_libzmq(python)
    link = [lib, f'-Wl,-rpath,{Path(lib).parent}', '-Wl,--allow-shlib-undefined'] if lib else ['-lzmq']
    out = subprocess.run([cc, '-O2', '-o', str(build/'stub'), str(HERE/'stub.c'), *link, '-ldl'], capture_output=True, text=True)
    if out.returncode: return slow, f'Python (stub.c did not compile: {out.stderr.strip().splitlines()[-1]})'
    return [str(build/'stub')], f'C ({cc})'


@contextmanager
def stub_kernel(command:list[str]):
    "Start the stub; gives its connection info."
    proc = subprocess.Popen([*command, uuid.uuid4().hex], stdout=subprocess.PIPE, text=True)
    try: yield dict(json.loads(proc.stdout.readline()), pid=proc.pid, stoppable=True)
    finally: end(proc)


@contextmanager
def ipykernel(python:str):
    "Start an ipykernel and wait for its connection file; gives its connection info."
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp)/'kernel.json'
        proc = subprocess.Popen([python, '-m', 'ipykernel_launcher', '-f', str(path)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=dict(os.environ, IPYTHONDIR=tmp, PYDEVD_DISABLE_FILE_VALIDATION='1'))
        try: yield dict(wait_for_json(path, proc), pid=proc.pid)
        finally: end(proc)


def wait_for_json(path:Path, proc:subprocess.Popen, timeout:float=30) -> dict:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and proc.poll() is None:
        try: return json.loads(path.read_text())
        except (OSError, ValueError): time.sleep(0.05)
    raise RuntimeError('ipykernel did not start')


def end(proc:subprocess.Popen):
    proc.kill()
    proc.wait()
    if proc.stdout: proc.stdout.close()
