"""The command line, as a person, a script or a CI job runs it."""
import asyncio, io, json, os, re, shutil, signal, subprocess, sys, time
from base64 import b64encode
from pathlib import Path

import pytest

from conkernelclient import cli, list_kernels, open_kernel
from test_kernel import SOON, lives, posix, until

ROOT = Path(__file__).resolve().parent.parent
ARGS = [sys.executable, '-m', 'conkernelclient']
PID = 'import os; print(os.getpid(), flush=True)'


def run(*args, code=0, input=None, **env):
    "What it writes: (stdout, stderr)"
    res = subprocess.run([*ARGS, *map(str, args)], env={**os.environ, 'PYTHONPATH': str(ROOT), **env}, capture_output=True, encoding='utf-8', timeout=60,
                         **(dict(input=input) if input is not None else dict(stdin=subprocess.DEVNULL)))
    assert res.returncode == code, (res.returncode, res.stdout, res.stderr)
    return res.stdout, res.stderr


def begin(*args, **kwargs):
    return subprocess.Popen([*ARGS, *map(str, args)], env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **kwargs)


def notebook(path, *cells, kernel='python3'):
    cells = [dict(cell_type='markdown', source='# Title', metadata={})]+[dict(cell_type='code', source=o, outputs=[], metadata={}) for o in cells]
    path.write_text(json.dumps(dict(cells=cells, metadata=dict(kernelspec=dict(name=kernel)) if kernel else {}, nbformat=4, nbformat_minor=5)))
    return path


def test_code():
    assert run('run', '-c', 'print(1); 6*7') == ('1\n42\n', '')


def test_file(tmp_path):
    path = tmp_path/'file.py'
    path.write_text('\ufeffimport sys\nprint("größer")\nprint("aside", file=sys.stderr)\nprint("no end", end="")', encoding='utf-8')
    assert run('run', path, PYTHONIOENCODING='utf-8') == ('größer\nno end', 'aside\n')
    assert run('run', path, PYTHONIOENCODING='ascii')[0] == 'gr\\xf6\\xdfer\nno end'
    assert run('run', '-', input='print(6*7)') == ('42\n', '')


def test_notebook(tmp_path):
    path = notebook(tmp_path/'nb.ipynb', ['x = 6\n', 'x*7'], '', 'print(x)', '1/0', 'print("not reached")')
    out, err = run('run', path, code=1)
    assert out == '42\n6\n' and 'ZeroDivisionError: division by zero' in err and '\x1b' not in err
    out, err = run('run', notebook(tmp_path/'nb.ipynb', '1', kernel='no-such-kernel'), code=1)
    assert 'Known kernels' in err
    assert run('run', path, '--kernel', 'python3')[0] == '1\n'
    assert run('run', notebook(tmp_path/'nb.ipynb', kernel=None)) == ('', '')


def test_error_begins_a_line():
    out, err = run('run', '-c', 'print(5, end="")\n1/0', code=1)
    assert out == '5\n' and err.rstrip().endswith('ZeroDivisionError: division by zero') and 'Traceback' in err


@pytest.mark.parametrize('args,text', [
    (['no-such-file.py'], 'no-such-file.py'), ([], '-c CODE'), (['-c', '1', '--kernel', 'no-such'], 'Known kernels'),
    (['-c', '1', '--connect', 'no-such-file'], 'No connection file'), (['-c', 'import os; os._exit(3)'], 'exit code 3')])
def test_what_cannot_be_run(args, text):
    out, err = run('run', *args, code=1)
    assert not out and text in err and len(err.splitlines()) == 1 and err.startswith('conkernelclient: ')


def test_no_notebook(tmp_path):
    for text in '[1]', '{"worksheets": []}', 'print(1)':
        (tmp_path/'nb.ipynb').write_text(text)
        out, err = run('run', tmp_path/'nb.ipynb', code=1)
        assert not out and err.startswith('conkernelclient: ') and 'Traceback' not in err


def test_wrong_arguments():
    for args in ['run', '--no-such-option'], ['run', '-c', '1', '--timeout', 'soon'], ['no-such-command'], ['--no-such-option']:
        out, err = run(*args, code=2)
        assert not out and 'usage' in err
    for args in ['--help'], ['-h'], ['run', '--help'], ['kernels', '--help']: assert 'usage' in run(*args)[0]
    assert all(o in run('run', '--help')[0] for o in ('-c', '--kernel', '--connect', '--timeout', '--json', '124', '130'))


def test_timeout():
    out, err = run('run', '-c', 'print("before", flush=True)\nimport time; time.sleep(60)', '--timeout', '1', code=124)
    assert out == 'before\n' and 'took longer than 1.0 s' in err


def test_json():
    code = 'print(1); print(2)\nfrom IPython.display import display\nd = display(3, display_id="x"); d.update(4); 1/0'
    out, err = run('run', '-c', code, '--json', code=1)
    lines = [json.loads(o) for o in out.splitlines()]
    assert [o['kind'] for o in lines if o['kind'] != 'append'] == ['new', 'new', 'update', 'new', 'end'] and not err
    assert ''.join(o['output']['text'] for o in lines if o.get('output', {}).get('output_type') == 'stream') == '1\n2\n'
    assert lines[-2]['output']['ename'] == 'ZeroDivisionError' and lines[-1] == dict(kind='end', exit_code=1, why='')
    end = json.loads(run('run', '-c', '1', '--kernel', 'no-such', '--json', code=1)[0])
    assert end['kind'] == 'end' and end['exit_code'] == 1 and 'no-such' in end['why']


def test_json_says_which_cell(tmp_path):
    lines = [json.loads(o) for o in run('run', notebook(tmp_path/'nb.ipynb', '1', '2'), '--json')[0].splitlines()]
    assert [(o['cell'], o['output']['data']) for o in lines[:-1]] == [(0, {'text/plain': '1'}), (1, {'text/plain': '2'})]


def test_outputs_come_live(tmp_path):
    "The next line of the cell runs only when the first has been read"
    go = tmp_path/'go'
    p = begin('run', '-c', f'import os, time\nprint("first", flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(.01)\nprint("second")')
    assert p.stdout.readline() == 'first\n'
    go.touch()
    assert p.communicate(timeout=SOON) == ('second\n', '') and p.returncode == 0


PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=='
PICTURE = f'''
from base64 import b64decode
from IPython.display import Image
print("before", end="")
Image(data=b64decode("{PNG}"))'''


def test_pictures():
    assert run('run', '-c', PICTURE)[0] == 'before\n[image/png, 1 x 1, 70 bytes]\n'


@posix
@pytest.mark.parametrize('env,code', [(dict(TERM='xterm-kitty'), '\x1b_Ga=T,f=100,m=0;'+PNG), (dict(TERM_PROGRAM='iTerm.app'), '\x1b]1337;File=inline=1;size=70:'+PNG),
                                      (dict(TERM='xterm'), '[image/png, 1 x 1, 70 bytes]')])
def test_pictures_in_a_terminal(env, code):
    import pty
    main, side = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ('KITTY_WINDOW_ID', 'TERM_PROGRAM')}
    with subprocess.Popen([*ARGS, 'run', '-c', PICTURE], env={**clean, 'PYTHONPATH': str(ROOT), **env}, stdin=side, stdout=side, stderr=side) as p:
        os.close(side)
        out = b''
        while True:
            try: new = os.read(main, 4096)
            except OSError: break
            if not new: break
            out += new
        assert p.wait(timeout=60) == 0
    os.close(main)
    assert 'before\r\n'+code in out.decode()


def test_prompts():
    code = 'a = input("name? "); import getpass; b = getpass.getpass("word? "); print(a, b)\ntry: input()\nexcept EOFError: print("end")'
    assert run('run', '-c', code, input='Ada\nx y\n')[0].endswith('word? Ada x y\nend\n')
    assert run('run', '-', input='try: input()\nexcept EOFError: print("end")')[0] == 'end\n'


def test_connect(tmp_path):
    env = dict(JUPYTER_RUNTIME_DIR=str(tmp_path/'runtime'))
    with pytest.MonkeyPatch.context() as m:
        m.setenv('JUPYTER_RUNTIME_DIR', env['JUPYTER_RUNTIME_DIR'])
        with open_kernel() as k:
            k.push(n=1)
            assert run('run', '-c', 'n += 1; n', '--connect', 'latest', **env)[0] == '2\n'
            assert run('run', '-c', 'n += 1; n', '--connect', k.manager.connection_file, **env)[0] == '3\n'
            assert k.eval('n') == 3
            out, _ = run('kernels', **env)
            assert 'Python 3' in out and k.manager.connection_file in out
            listed = json.loads(run('kernels', '--json', **env)[0])
            assert listed['running'] == [dict(name='python3', path=k.manager.connection_file)]
            assert 'python3' in [o['name'] for o in listed['installed']] and all(Path(o['path']).exists() for o in listed['installed'])
        assert 'No kernel is running' in run('kernels', **env)[0]
        assert 'No kernel is running' in run('run', '-c', '1', '--connect', 'latest', code=1, **env)[1]


@posix
def test_ctrl_c_interrupts_the_cell():
    "Its handlers run, its last outputs are shown, and then the command leaves"
    p = begin('run', '-c', f'{PID}\nimport time\ntry: time.sleep(600)\nfinally: print("last words")')
    pid = int(p.stdout.readline())
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=SOON)
    assert p.returncode == 130 and out == 'last words\n' and err.rstrip().endswith('KeyboardInterrupt:') and 'conkernelclient' not in err
    assert not lives(pid)


@posix
def test_ctrl_c_twice_leaves():
    code = f'{PID}\nimport time\nwhile True:\n    try: time.sleep(600)\n    except KeyboardInterrupt: print("ignored", flush=True)'
    p = begin('run', '-c', code)
    pid = int(p.stdout.readline())
    p.send_signal(signal.SIGINT)
    assert p.stdout.readline() == 'ignored\n'
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=SOON)
    assert p.returncode == 130 and 'Traceback' not in err and not lives(pid)


@posix
def test_ctrl_c_ends_a_notebook(tmp_path):
    p = begin('run', notebook(tmp_path/'nb.ipynb', f'{PID}\nimport time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: pass', 'print("not reached")'))
    int(p.stdout.readline())
    p.send_signal(signal.SIGINT)
    assert p.communicate(timeout=SOON) == ('', '') and p.returncode == 130


@posix
def test_the_reader_leaves():
    p = subprocess.Popen([*ARGS, 'run', '-c', f'{PID}\nfor i in range(10**6): print(i, flush=True)'], env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    pid = int(p.stdout.readline())
    p.stdout.close()
    err = p.stderr.read()
    assert p.wait(SOON) == 141 and err == '' and not lives(pid)


@posix
@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ended_from_outside(sent):
    p = begin('run', '-c', f'{PID}\nimport time; time.sleep(600)')
    pid = int(p.stdout.readline())
    p.send_signal(sent)
    p.communicate(timeout=SOON)
    until(lambda: not lives(pid), what='the kernel ends')


def test_entry_point():
    "What an installation makes of the scripts in settings.ini"
    from configparser import ConfigParser
    config = ConfigParser()
    config.read(ROOT/'settings.ini', encoding='utf-8')
    name, _, target = config['DEFAULT']['console_scripts'].partition('=')
    module, _, attr = target.partition(':')
    assert name == 'conkernelclient' and getattr(__import__(module, fromlist=[attr]), attr) is cli.main


def test_terminal_output_is_cleared():
    class Terminal(io.StringIO):
        def isatty(self): return True
    out = Terminal()
    with open_kernel() as k:
        assert cli.run_cell(k, 'from IPython.display import clear_output\nprint(1, flush=True); clear_output(); print(2)', cli.Show(out, io.StringIO())) == (0, '')
    assert out.getvalue() == '1\n\r\x1b[K2\n'


# JobEvents, servers, many notebooks

def test_json_is_what_job_events_are(tmp_path):
    "The same fields as `JobEvent.to_dict` gives, numbered in each cell"
    code = 'from IPython.display import clear_output\nprint(1); clear_output(); print(2)'
    lines = [json.loads(o) for o in run('run', notebook(tmp_path/'nb.ipynb', code, '3'), '--json')[0].splitlines()]
    first, second = [[o for o in lines if o.get('cell') == i] for i in range(2)]
    assert [o['number'] for o in first] == list(range(1, len(first)+1)) and [o['number'] for o in second] == [1]
    assert len({o['run'] for o in first}) == 1 and {o['run'] for o in first} != {o['run'] for o in second}
    clear = next(o for o in first if o['kind'] == 'clear')
    assert set(clear) == {'cell', 'number', 'run', 'kind'}   # what it has not, it does not name
    assert first[-1]['output'] == dict(output_type='stream', name='stdout', text='2\n') and first[-1]['index'] == 0


def test_url(jupyter):
    def there(): return [o['id'] for o in asyncio.run(list_kernels(jupyter.url, jupyter.token))]
    at = '--url', jupyter.url
    assert run('run', '-c', 'print(6*7)', *at, '--token', jupyter.token) == ('42\n', '') and there() == []
    assert run('run', '-c', '1/0', *at, JUPYTER_GATEWAY_AUTH_TOKEN=jupyter.token, code=1)[1].rstrip().endswith('division by zero') and there() == []
    with open_kernel(url=jupyter.url, token=jupyter.token) as k:
        k.push(n=42)
        assert run('run', '-c', 'n', *at, '--token', jupyter.token, '--connect', k.manager.kernel_id)[0] == '42\n'
        assert k.eval('n') == 42   # it goes on
    assert '403' in run('run', '-c', '1', *at, '--token', 'wrong', code=1)[1]
    assert '--url' in run('run', '-c', '1', '--token', 'x', code=1)[1]
    assert 'no kernel 1' in run('run', '-c', '1', *at, '--token', jupyter.token, '--connect', '1', code=1)[1]


@posix
def test_kernels_of_a_server(jupyter):
    at = 'kernels', '--url', jupyter.url
    secret = dict(JUPYTER_GATEWAY_AUTH_TOKEN=jupyter.token)
    out = run(*at, **secret)[0]
    assert f'Installed kernels at {jupyter.url}' in out and 'Python 3' in out and 'No kernel is running.' in out
    with open_kernel(url=jupyter.url, token=jupyter.token) as k:
        out, err = run(*at, '--token', jupyter.token)
        assert re.search(rf'^  python3 +{k.manager.kernel_id}  (idle|busy|starting), clients: 1$', out, re.M) and not err
        told = json.loads(run(*at, '--json', **secret)[0])
        assert told['running'][0]['id'] == k.manager.kernel_id and told['running'][0]['clients'] == 1
        assert 'python3' in [o['name'] for o in told['installed']]
    assert 'refuses the token' in run(*at, '--token', 'wrong', code=1)[1]
    assert 'Give --url' in run('kernels', '--token', 'x', code=1)[1]
    assert 'must begin with http' in run('kernels', '--url', 'nowhere', code=1)[1]

def test_url_and_ctrl_c(jupyter):
    "The kernel of the server is interrupted, and deleted"
    p = begin('run', '-c', 'print("on", flush=True)\nimport time; time.sleep(60)', '--url', jupyter.url, '--token', jupyter.token)
    assert p.stdout.readline() == 'on\n'
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=SOON)
    assert p.returncode == 130 and 'KeyboardInterrupt' in err
    assert asyncio.run(list_kernels(jupyter.url, jupyter.token)) == []


def test_many_notebooks(tmp_path):
    good = [notebook(tmp_path/f'{o}.ipynb', f'print({i})') for i, o in enumerate('abc')]
    bad, out = notebook(tmp_path/'bad.ipynb', '1/0', '"not reached"'), tmp_path/'out'
    table, err = run('run', *good, '-j', 2, '-o', out)
    assert [o.split()[:3] for o in table.splitlines()[1:]] == [[f'{o}.ipynb', 'ok', '1/1'] for o in 'abc']
    assert [json.loads((out/o.name).read_text())['cells'][1]['outputs'][0]['text'] for o in good] == [['0\n'], ['1\n'], ['2\n']]
    table, err = run('run', bad, *good, '--keep-going', '--json', '-o', tmp_path/'out2', code=1)
    lines = [json.loads(o) for o in table.splitlines()]
    assert [(o['name'], o['status']) for o in lines] == [('bad.ipynb', 'error'), *[(o.name, 'ok') for o in good]]
    assert 'ZeroDivisionError' in lines[0]['error'] and Path(lines[0]['output']).exists()
    table, err = run('run', bad, good[0], '-j', 1, code=1)
    assert 'ZeroDivisionError' in table and 'not run' in table   # it stops at the first that fails


@pytest.mark.parametrize('args,text', [
    (('a.py', 'b.ipynb'), 'a.py'), (('-o', 'out'), 'no file'), (('a.ipynb', 'b.ipynb', '--connect', 'latest'), 'connect: not with'),
    (('a.ipynb', '-j', '2', '--url', 'http://h'), 'url: not with'), (('a.ipynb', '-j', '0'), 'at least 1')])
def test_what_does_not_go_with_many_notebooks(args, text):
    assert text in run('run', *args, code=1)[1]


@posix
def test_ctrl_c_saves_what_there_is(tmp_path):
    path, out = notebook(tmp_path/'long.ipynb', 'print("first")', f'open({str(tmp_path/"on")!r}, "w"); import time; time.sleep(60)'), tmp_path/'out'
    p = begin('run', path, '-o', out)
    until(lambda: (tmp_path/'on').exists())
    p.send_signal(signal.SIGINT)
    table, err = p.communicate(timeout=SOON)
    assert p.returncode == 130 and 'cancelled' in table and 'Traceback' not in err
    assert json.loads((out/'long.ipynb').read_text())['cells'][1]['outputs'][0]['text'] == ['first\n']
