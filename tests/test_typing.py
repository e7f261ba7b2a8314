"""What type checkers and editors see: right uses pass, wrong ones are found, nearly every public name has a type."""
import ast, importlib.util, json, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest
from syntax import ROOT, stubs

USES = ROOT/'tests'/'typing'
LIB = 'conkernelclient'
ENOUGH = .98    # of the public names have a known type
OFFERED = 'run eval map push queue restart status execute subshell interrupt'

# What users hold, and which of its methods are for other modules of the package
HELD = {
    'core.ConKernelClient': 'make_transport make_host unused_heartbeat router',
    'core.ConKernelManager': 'answered found_dead start_again cleanup_connection_file write_connection_file cleanup_random_ports free_ports why taken_ports',
    'engine.request.Request': 'send throw close leave unwanted set_result fail finish fail_end fail_unsent limit take_iopub take_print take_reply take_prompt',
    'cells.run.Run': ('send throw close leave unwanted set_result fail finish connection submit overdue end_early must_begin_within '
                     'record record_end reader_left shown_code'),
    'cells.outputs.Result': '',
    'cells.outputs.Event': '',
    'cells.llm.LLMContent': '',
    'cells.subshell.Subshell': '',
    'cells.comm.Comm': 'take post end check',
    'cells.comm.Comms': 'on open find message enter leave outbox forget adopt',
    'cells.widgets.Widget': 'push change changed renew captures hold capture flush shown',
    'cells.widgets.Widgets': 'models viewer capture enter',
    'cells.record.Recording': '',
    'cells.debug.Debugger': 'check hear news cell_over heal resume',
    'cells.debug.Stopped': '',
    'sync.KernelRecording': '',
    'kernel.Opening': '',
    'sync.Kernel': 'background table job_of',
    'kernels.sync_pool.Pool': 'close',
    'sync.KernelSubshell': '',
    'sync.Job': 'begin submit adopt attend in_thread give_up',
    'sync.Following': 'advance',
}


def needs(tool):
    if importlib.util.find_spec(tool) is None: pytest.skip(f"{tool} is not installed: pip install -e '.[dev]'")


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    "A folder with the package as an installation has it: checkers do not see an editable one as a library"
    folder = tmp_path_factory.mktemp('site')
    shutil.copytree(ROOT/LIB, folder/LIB, ignore=shutil.ignore_patterns('__pycache__'))
    return folder


def call(tool, *args, folder):
    env = os.environ | dict(PYTHONPATH=str(folder), MYPYPATH=str(folder), MYPY_CACHE_DIR=str(folder/'cache'))
    return subprocess.run([sys.executable, '-m', tool, *map(str, args)], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)


def mypy(path, folder):
    "Errors by line"
    res = call('mypy', '--strict', '--follow-imports=silent', '--show-absolute-path', path, folder=folder)
    assert res.returncode in (0, 1), res.stdout+res.stderr
    assert re.search(r'^(Success|Found \d+ errors? in 1 file)', res.stdout, re.M), res.stdout
    found = [(int(line), f'{code}: {text}') for line, text, code in re.findall(r':(\d+): error: (.*)  \[([\w-]+)\]$', res.stdout, re.M)]
    assert len(found) == len(re.findall(': error: ', res.stdout)), res.stdout
    return found


def pyright(path, folder):
    "Errors by line"
    res = call('pyright', '--outputjson', '--pythonpath', sys.executable, path, folder=folder)
    assert res.returncode in (0, 1), res.stdout+res.stderr
    report = json.loads(res.stdout)
    assert report['summary']['filesAnalyzed'] == 1
    return [(o['range']['start']['line']+1, f"{o['rule']}: {o['message']}") for o in report['generalDiagnostics'] if o['severity'] == 'error']


CHECKERS = dict(mypy=mypy, pyright=pyright)


@pytest.mark.parametrize('checker', CHECKERS)
def test_right_uses(checker, installed):
    needs(checker)
    assert CHECKERS[checker](USES/'right.py', installed) == []


@pytest.mark.parametrize('checker', CHECKERS)
def test_wrong_uses(checker, installed):
    "Each wrong line gives the error that stands behind it, and no other line gives any"
    needs(checker)
    lines = (USES/'wrong.py').read_text(encoding='utf-8').splitlines()
    expected = {(i, code) for i, line in enumerate(lines, 1) if (m := re.search(rf'# .*\b{checker}: ([\w, -]+)', line)) for code in m[1].split(', ')}
    assert len(expected) >= 45
    assert {(line, text.partition(':')[0]) for line, text in CHECKERS[checker](USES/'wrong.py', installed)} == expected


def test_right_uses_run():
    "What the checkers pass also works, on a kernel"
    res = subprocess.run([sys.executable, USES/'right.py'], cwd=ROOT, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=100)
    assert res.returncode == 0, res.stderr


@pytest.mark.parametrize('name', HELD)
def test_every_method_is_used(name):
    "`right.py` leaves out no public method or property"
    modules = stubs.load(ROOT/LIB)
    module, _, cls = f'{LIB}.{name}'.rpartition('.')
    stub = stubs.Stub(modules, modules[module])
    parts = [o for key in stub.mro((module, cls)) if (o := stub.find(key)) is not None]
    methods = {o.name for part in parts for o in part.node.body if isinstance(o, stubs.Function) and not o.name.startswith('_')}
    used = {o.attr for o in ast.walk(ast.parse((USES/'right.py').read_text(encoding='utf-8'))) if isinstance(o, ast.Attribute)}
    internal = set(HELD[name].split())
    assert methods and internal <= methods
    assert methods-used-internal == set()


def test_public_names_have_types(installed):
    "`pyright --verifytypes`: it counts every public name of every module"
    needs('pyright')
    res = call('pyright', '--verifytypes', LIB, '--ignoreexternal', '--outputjson', '--pythonpath', sys.executable, folder=installed)
    report = json.loads(res.stdout)['typeCompleteness']
    assert Path(report['packageRootDirectory']).resolve() == (installed/LIB).resolve() and report['pyTypedPath']
    assert sum(report['exportedSymbolCounts'].values()) > 500
    unknown = [o['name'] for o in report['symbols'] if o['isExported'] and not (o['isTypeKnown'] and not o['isTypeAmbiguous'])]
    assert report['completenessScore'] >= ENOUGH, f"{report['completenessScore']:.1%}; no known type: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize('code,offered', [
    ('async def f(kc: ConKernelClient):\n    kc.', OFFERED),
    ('async def f():\n    async with run_kernel() as both:\n        km, kc = both\n        kc.', OFFERED),   # (jedi reads no tuple after `as`)
    ('async def f():\n    kc = await ConKernelManager().client().start_channels()\n    kc.', OFFERED),
    ('async def f():\n    async with open_kernel() as kc:\n        kc.', OFFERED),
    ('async def f():\n    kc = await open_kernel()\n    kc.', OFFERED),
    ('with open_kernel() as k:\n    k.', 'run eval map push queue restart status start subshell interrupt close'),
    ('k = open_kernel().start()\nk.start("1").', 'wait stop settled done partial'),
    ('with open_kernel() as k:\n    res = k.run("1")\n    res.', 'text stdout outputs error for_llm status'),
    ('async def f(kc: ConKernelClient):\n    kc.run("1").', 'interrupt cancel done result partial queued'),
    ('async def f(kc: ConKernelClient):\n    res = await kc.run("1")\n    res.', 'text stdout outputs error for_llm status'),
    ('async def f(kc: ConKernelClient):\n    async for out in kc.run("1"):\n        out.', 'kind text output'),
    ('async def f(kc: ConKernelClient):\n    async with kc.subshell() as sh:\n        sh.', 'run eval push execute request id'),
    ('async def f(kc: ConKernelClient):\n    kc.request("kernel_info_request").', 'wait iopub reply msg_id cancel complete'),
])
def test_completion(code, offered, installed):
    "An editor offers the methods of a client and of what it gives, without running anything"
    needs('jedi')
    import jedi
    project = jedi.Project(installed, added_sys_path=[str(installed)], load_unsafe_extensions=False)
    script = jedi.Script(f'from {LIB} import ConKernelClient, ConKernelManager, open_kernel, run_kernel\n{code}', project=project, path=installed/'use.py')
    assert set(offered.split())-{o.name for o in script.complete()} == set()


def test_stub_is_fresh():
    res = subprocess.run([sys.executable, ROOT/'tools'/'stubs.py', '--check'], capture_output=True, text=True, timeout=60)
    assert res.returncode == 0, res.stdout+res.stderr


def test_stub_is_as_the_module(installed):
    "mypy's stubtest imports `core` and compares: signatures, defaults, and names that either lacks"
    needs('mypy')
    res = call('mypy.stubtest', f'{LIB}.core', folder=installed)
    assert res.returncode == 0 and 'no issues found in 1 module' in res.stdout, res.stdout+res.stderr


@pytest.mark.slow   # (`.ci/run` makes the stub anew, and finds any difference)
def test_a_stale_stub_is_found(installed):
    needs('mypy')
    stub = installed/LIB/'core.pyi'
    text = stub.read_text(encoding='utf-8')
    assert 'def is_complete(self, code: str' in text
    try:
        stub.write_text(text.replace('def is_complete(self, code: str', 'def is_complete(self, source: str'), encoding='utf-8')
        res = call('mypy.stubtest', f'{LIB}.core', folder=installed)
    finally: stub.write_text(text, encoding='utf-8')
    assert res.returncode == 1 and 'ConKernelClient.is_complete is inconsistent' in res.stdout, res.stdout+res.stderr
