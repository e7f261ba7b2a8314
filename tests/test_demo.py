"""The demo, as a person or a CI job runs it: `python -m conkernelclient`."""
import asyncio, io, json, os, subprocess, sys
from pathlib import Path

import pytest

from conkernelclient import demo

ROOT = Path(__file__).resolve().parent.parent
ARGS = [sys.executable, '-m', 'conkernelclient']


def run(*args, **env):
    return subprocess.run([*ARGS, *args], cwd=ROOT, env={**os.environ, **env}, capture_output=True, encoding='utf-8', timeout=60)


def test_demo():
    res = run(PYTHONIOENCODING='utf-8')
    assert res.returncode == 0, res.stderr
    lines = res.stdout.splitlines()
    assert lines[-1].startswith('OK: 111 of 111 replies reached their own caller')
    assert sum(o.startswith('  subshell  |') for o in lines) == 10
    assert [o for o in lines if '|' in o][-1].startswith('  main shell|')
    assert res.stdout.count('█') > 50 and '\x1b' not in res.stdout  # it is no terminal


def test_plain_text_only():
    res = run('--many', '7', PYTHONIOENCODING='ascii', PYTHONUTF8='0')
    assert res.returncode == 0, res.stderr
    assert res.stdout.isascii() and 'OK: 18 of 18 replies' in res.stdout


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a pseudo-terminal')
def test_terminal():
    import pty
    main, side = pty.openpty()
    with subprocess.Popen([*ARGS, '--many', '3'], cwd=ROOT, stdin=side, stdout=side, stderr=side) as p:
        os.close(side)
        out = b''
        while True:
            try: new = os.read(main, 4096)
            except OSError: break  # how Linux says that the other side is closed
            if not new: break
            out += new
        assert p.wait(timeout=60) == 0
    os.close(main)
    assert b'\r\x1b[K' in out and b'OK: 14 of 14' in out


def test_no_such_kernel():
    res = run('--kernel', 'nosuch')
    assert res.returncode == 1 and not res.stdout
    assert len(res.stderr.splitlines()) == 1 and 'nosuch' in res.stderr and 'Known kernels: ' in res.stderr


def spec(path, argv):
    path = path/'kernels'/'broken'
    path.mkdir(parents=True)
    (path/'kernel.json').write_text(json.dumps(dict(argv=argv, display_name='Broken', language='python')))


def test_kernel_that_dies(tmp_path):
    spec(tmp_path, [sys.executable, '-c', 'raise SystemExit(3)'])
    res = run('--kernel', 'broken', JUPYTER_PATH=str(tmp_path))
    assert res.returncode == 1 and 'broken' in res.stderr and 'Traceback' not in res.stderr


def test_program_that_is_not_there(tmp_path):
    spec(tmp_path, [str(tmp_path/'no_such_program'), '{connection_file}'])
    res = run('--kernel', 'broken', JUPYTER_PATH=str(tmp_path))
    assert res.returncode == 1 and 'no_such_program' in res.stderr and 'Traceback' not in res.stderr


class Confused:
    "A client that gives each caller the reply of the one before"
    def __init__(self): self.last = None
    def execute(self, code, reply, timeout, user_expressions):
        secret = code.split(' = ')[1]
        fut = asyncio.get_running_loop().create_future()
        fut.set_result(dict(content=dict(user_expressions=dict(mine=dict(data={'text/plain': self.last or secret})))))
        self.last = secret
        return fut


async def test_confused_replies_are_noticed():
    out = io.StringIO()
    own = await demo.at_once(Confused(), None, demo.Screen(out), 60)
    assert own == [True] + [False]*59
    assert out.getvalue().count('X') == 59
