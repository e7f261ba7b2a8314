"""Many notebooks at once: nbclient's semantics, our kernels, and what is saved when something goes wrong."""
import asyncio, os, signal, subprocess, sys
from pathlib import Path

import nbformat, pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from conkernelclient import KernelPool, NotebookError, UnknownKernel, run_notebooks
from conkernelclient.kernels.fork import templates
from conkernelclient.kernels.notebooks import run_files, save, with_parameters
from fault_tools import SOON, nothing_unheard, running, until

bound = 60

def notebook(*cells, **metadata):
    return new_notebook(cells=[new_code_cell(o) if isinstance(o, str) else o for o in cells], metadata=metadata)

def tagged(source, *tags): return new_code_cell(source, metadata=dict(tags=list(tags)))

def written(folder, **nbs):
    for k, v in nbs.items(): nbformat.write(v, folder/f'{k}.ipynb')
    return [folder/f'{k}.ipynb' for k in nbs]

def texts(nb): return [''.join(o.get('text', '') or o.get('data', {}).get('text/plain', '') or o.get('ename', '') for o in c.outputs) for c in nb.cells if c.cell_type == 'code']

def parts(folder): return [o for o in folder.rglob('*') if o.name.endswith('.part')]


async def test_semantics_of_nbclient():
    nb = notebook(tagged('1/0', 'raises-exception'), tagged('print("no")', 'skip-execution'), new_markdown_cell('text'), 'print("yes")')
    run, = await run_notebooks(nb)
    assert run.status == 'ok' and texts(run.nb) == ['ZeroDivisionError', '', 'yes\n']
    assert 'iopub.execute_input' in run.nb.cells[3].metadata.execution      # timings
    assert run.nb.metadata.language_info.name == 'python'
    assert texts(nb) == ['', '', ''], 'what was given stays as it was'
    run, = await run_notebooks([notebook('1/0', '6*7')], allow_errors=True, record_timing=False)
    assert run.status == 'ok' and texts(run.nb)[1] == '42' and 'execution' not in run.nb.cells[0].metadata

async def test_each_has_a_fresh_kernel_and_at_most_so_many_run(tmp_path):
    "Each notebook says when it began and ended; no more than two overlap"
    code = f'import time, os; assert "mine" not in globals(); mine = 1; a = time.monotonic(); time.sleep(.3); (a, time.monotonic(), os.getpid())'
    runs = await run_notebooks([notebook(code) for _ in range(6)], concurrency=2)
    spans = [eval(texts(o.nb)[0]) for o in runs]
    assert len({o[2] for o in spans}) == 6
    assert max(sum(a < t < b for a, b, _ in spans) for t, _, _ in spans)+1 <= 2

async def test_saved_when_it_ends(tmp_path):
    paths = written(tmp_path, a=notebook('print(1)'), b=notebook('print(2)', '1/0', 'print(3)'))
    with pytest.raises(NotebookError, match='b.ipynb: ZeroDivisionError: division by zero') as e:
        await run_notebooks(paths, output=tmp_path/'out'/'deep')
    assert [o.status for o in e.value.runs] == ['ok', 'error'] and e.value.runs[1].cells == '2/3'
    assert texts(nbformat.read(tmp_path/'out/deep/a.ipynb', 4)) == ['1\n']
    assert texts(nbformat.read(tmp_path/'out/deep/b.ipynb', 4)) == ['2\n', 'ZeroDivisionError', '']
    assert not parts(tmp_path) and texts(nbformat.read(paths[0], 4)) == ['']
    await run_notebooks(paths[0], output=lambda name: tmp_path/name)       # in its place
    assert texts(nbformat.read(paths[0], 4)) == ['1\n']

async def test_no_outputs_of_an_older_run(tmp_path):
    old = notebook('1/0', 'print(3)')
    old.cells[1].outputs = [nbformat.v4.new_output('stream', text='old')]
    old.cells[1].execution_count = 7
    run, = await run_notebooks(old, on_error='go on')
    assert texts(run.nb) == ['ZeroDivisionError', ''] and run.cells == '1/2'

def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path/'a.ipynb'
    save(notebook('1'), path)
    before = path.read_text()
    monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError(28, 'no space')))
    with pytest.raises(OSError): save(notebook('2'), path)
    assert path.read_text() == before and not parts(tmp_path)

async def test_timeouts_deaths_and_files_that_are_none(tmp_path):
    "Each says what happened, and the others run"
    paths = written(tmp_path, slow=notebook('import time; time.sleep(100)'), dies=notebook('print("last", flush=True)\nimport os, time; time.sleep(.2); os._exit(3)'), good=notebook('6*7'))
    (tmp_path/'broken.ipynb').write_text('{')
    runs = await run_notebooks([*paths, tmp_path/'broken.ipynb', tmp_path/'none.ipynb'], timeout=3, on_error='go on', output=tmp_path/'out')
    assert [o.status for o in runs] == ['timeout', 'died', 'ok', 'failed', 'failed']
    assert texts(nbformat.read(tmp_path/'out/dies.ipynb', 4)) == ['last\n']
    assert 'FileNotFoundError' in str(runs) and not (tmp_path/'out/none.ipynb').exists()

async def test_in_its_folder_with_its_kernel(tmp_path):
    for o in 'xy': (tmp_path/o).mkdir()
    where = 'import os; print(os.getcwd())'
    paths = [*written(tmp_path/'x', a=notebook(where), b=notebook(where)), *written(tmp_path/'y', a=notebook(where, kernelspec=dict(name='nope', display_name='x')))]
    runs = await run_notebooks(paths, on_error='go on')
    assert [o.status for o in runs] == ['ok', 'ok', 'failed'] and isinstance(runs[2].error, UnknownKernel)
    runs = await run_notebooks(paths, kernel_name='python3', output=tmp_path/'out')
    assert [Path(texts(o.nb)[0].strip()).name for o in runs] == ['x', 'x', 'y']
    assert sorted(o.name for o in (tmp_path/'out').iterdir()) == ['a_0.ipynb', 'a_1.ipynb', 'b.ipynb']

async def test_a_pool_that_is_given():
    async with KernelPool(size=2, spare=1, preload='colorsys', setup='greeting = "hello"') as pool:
        runs = await run_notebooks([notebook('import sys; print("colorsys" in sys.modules, greeting)')]*3, pool=pool)
        assert [texts(o.nb) for o in runs] == [['True hello\n']]*3
        assert not pool.closed and pool.stats.recycled == 3

async def test_parameters():
    nb = notebook(new_markdown_cell('#'), tagged('n = 1\nm = 2', 'parameters'), 'print(n, m)')
    runs = await run_notebooks([nb]*3, parameters=[dict(n=i) for i in range(3)])
    assert [texts(o.nb)[-1] for o in runs] == ['0 2\n', '1 2\n', '2 2\n']
    with pytest.raises(ValueError, match='1 sets of parameters for 3'): await run_notebooks([nb]*3, parameters=[{}])
    old = nbformat.from_dict(dict(nb, nbformat_minor=4))
    for o in old.cells: o.pop('id', None)
    nbformat.validate(with_parameters(old, dict(n=1)))

def test_papermill_reads_them_alike(tmp_path):
    papermill = pytest.importorskip('papermill')
    nb = notebook('first = 1', tagged('n = 1', 'parameters'), 'print(n)')
    ours = with_parameters(nb, dict(n=5, names=['a'], deep={'k': None}))
    from papermill.parameterize import parameterize_notebook
    theirs = parameterize_notebook(papermill.iorw.load_notebook_node(str(written(tmp_path, a=nb)[0])), dict(n=5, names=['a'], deep={'k': None}), kernel_name='python3', language='python')
    assert [o.metadata.get('tags', []) for o in ours.cells] == [o.metadata.get('tags', []) for o in theirs.cells]
    a, b = {}, {}
    exec(ours.cells[2].source, a); exec(theirs.cells[2].source, b)
    assert {k: v for k, v in a.items() if k[0] != '_'} == {k: v for k, v in b.items() if k[0] != '_'}

async def test_cancelled(tmp_path):
    "What there is is saved, and the kernels are gone"
    paths = written(tmp_path, **{f'n{i}': notebook(f'import os; open("pid{i}", "w").write(str(os.getpid())); print("begun")', 'import time; time.sleep(100)') for i in range(3)})
    task = asyncio.create_task(run_notebooks(paths, concurrency=2, output=tmp_path/'out'))
    def begun(): return [int(o.read_text()) for o in tmp_path.glob('pid*') if o.read_text()]
    await until(lambda: len(begun()) == 2)
    await asyncio.sleep(.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as e: await task
    assert [o.status for o in e.value.runs] == ['cancelled', 'cancelled', 'not run']
    assert [texts(nbformat.read(o, 4)) for o in sorted((tmp_path/'out').iterdir())] == [['begun\n', '']]*2
    await until(lambda: not any(map(running, begun())))
    assert not parts(tmp_path)

async def test_signal_handlers_stay():
    "nbclient would put its own on the loop, and take them away"
    loop, got = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGTERM, got.append, 1)
    try:
        await run_notebooks([notebook('1')]*2)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: got)
    finally: loop.remove_signal_handler(signal.SIGTERM)

@pytest.mark.skipif(os.name != 'posix', reason='sends SIGINT')
def test_ctrl_c(tmp_path):
    "Of a program: its notebooks are saved, its kernels gone, and the table says how it went"
    paths = written(tmp_path, a=notebook('import os; print(os.getpid())', 'open("begun", "w").close(); import time; time.sleep(100)'), b=notebook('1'))
    code = f'''if 1:
        from conkernelclient.kernels.notebooks import run_files
        code, runs = run_files({[str(o) for o in paths]!r}, output={str(tmp_path/"out")!r}, jobs=1)
        print([o.status for o in runs])
        raise SystemExit(code)'''
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(o or '.' for o in sys.path))
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, env=env, text=True)
    import time
    end = time.monotonic()+SOON
    while not (tmp_path/'begun').exists() and time.monotonic() < end: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=SOON)
    assert (p.returncode, out.strip()) == (130, "['cancelled', 'not run']")
    pid, last = texts(nbformat.read(tmp_path/'out/a.ipynb', 4))
    assert last == '' and not running(int(pid))

async def test_without_nbclient(monkeypatch):
    monkeypatch.setitem(sys.modules, 'nbclient', None)
    with pytest.raises(ImportError, match=r'conkernelclient\[notebook\]'): await run_notebooks([])

async def test_wrong_use():
    with pytest.raises(ValueError, match='on_error'): await run_notebooks([], on_error='ignore')
    with pytest.raises(ValueError, match='concurrency'): await run_notebooks([], concurrency=0)
    assert await run_notebooks([]) == [] and not templates.running
