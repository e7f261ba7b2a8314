"""What people take from a result: pictures, tables, text with and without colours, a cell of a notebook; and outputs as they come."""
import asyncio, base64, importlib.util, io, pickle, re, struct, sys, warnings, zlib
from contextlib import redirect_stderr, redirect_stdout

import nbformat
import pytest
from conkernelclient import ConKernelClient, ExecutionError, ExecutionTimeout, Image, Result, open_kernel, run_kernel
from conkernelclient.cells import subshell
from conkernelclient.cells.outputs import Node

bound = 90
both_transports = 'slow'

def png(n=1):
    "A black picture of n times n pixels"
    def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    rows = zlib.compress((b'\0'+bytes(n))*n)
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', n, n, 8, 0, 0, 0, 0))+chunk(b'IDAT', rows)+chunk(b'IEND', b'')

SHOW = 'from IPython.display import *\nimport base64\ndef show(**data): display({k.replace("_", "/").replace("svg", "svg+xml"): v for k, v in data.items()}, raw=True)\n'

async def test_each_representation(kc):
    code = SHOW+f'p = {png()!r}\ndisplay(Image(p)); display(HTML("<b>1</b>")); display(Markdown("*m*")); display(Latex("$x$")); display(JSON({{"a": [1]}}))\ndisplay(SVG("<svg><g/></svg>")); show(image_jpeg=base64.b64encode(b"jpeg").decode()); HTML("<b>2</b>")'
    res = await kc.run(code, check=True)
    assert res.png == png() and res.jpeg == b'jpeg' and res.html == '<b>2</b>' and res.markdown == '*m*' and res.latex == '$x$'
    assert res.json == {'a': [1]} and res.svg.startswith('<svg')
    assert [o.mime for o in res.images] == ['image/png', 'image/svg+xml', 'image/jpeg'] and res.images[0].data == png()
    assert res.representation('text/plain').startswith('<IPython') and res.representation('text/none') is None

async def test_the_value_comes_first_and_then_the_last_display(kc):
    res = await kc.run(SHOW+'show(text_html="one"); show(text_html="two")', check=True)
    assert res.html == 'two' and res.data is None
    res = await kc.run(SHOW+'h = display(HTML("one"), display_id=True); x = HTML("value"); x', check=True)
    assert res.html == 'value'
    await kc.run('h.update(HTML("changed"))', check=True)
    assert res.html == 'value' and [o['data'].get('text/html') for o in res.outputs] == ['changed', 'value']
    res = await kc.run(SHOW+'show(text_html="display", text_plain="x"); 42', check=True)
    assert res.html == 'display' and res.representation('text/plain') == '42'

async def test_nothing_to_show(kc):
    for code in 'pass', 'print(1)', '1/0', '42':
        res = await kc.run(code)
        assert (res.png, res.jpeg, res.svg, res.html, res.markdown, res.latex, res.json, res.images) == (None,)*7+([],)

async def test_a_plot(kc):
    if importlib.util.find_spec('matplotlib') is None: pytest.skip('matplotlib is not installed')
    if not await kc.eval('__import__("importlib.util").util.find_spec("matplotlib") is not None'): pytest.skip('the kernel has no matplotlib')
    res = await kc.run('%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nplt.plot([2, 1]); plt.show()', check=True, timeout=60)
    assert res.png.startswith(b'\x89PNG') and res.data is None and len(res.images) == 2 and res.images[1].data == res.png != res.images[0].data

async def test_a_frame(kc):
    if not await kc.eval('__import__("importlib.util").util.find_spec("pandas") is not None'): pytest.skip('the kernel has no pandas')
    res = await kc.run('import pandas as pd\npd.DataFrame({"a": [1, 2]})', check=True)
    assert '<table' in res.html and 'a' in res.text

async def test_a_picture_shows_itself(kc):
    res = await kc.run(SHOW+f'display(Image({png(2)!r}))')
    image, = res.images
    assert image == Image('image/png', png(2)) and base64.b64decode(image._repr_mimebundle_()['image/png']) == png(2)
    assert repr(image) == f'<Image image/png, {len(png(2))} bytes>' and 'image/svg+xml' in Image('image/svg+xml', b'<svg/>')._repr_mimebundle_()

async def test_text_with_and_without_colours(kc):
    res = await kc.run("print('\\x1b[31mred\\x1b[0m'); 1/0")
    assert '\x1b' not in res.text and res.text.startswith('red\n') and 'ZeroDivisionError' in res.text
    assert res.ansi.startswith('\x1b[31mred\x1b[0m\n') and res.ansi.count('\x1b') > 4
    assert str(res) == res.text and '\x1b' in res.stdout and '\x1b' in res.outputs[-1]['traceback'][0]

async def test_cells_and_outputs_that_nbformat_writes(kc):
    codes = ['1', 'print("a\\nb")\nimport sys\nprint("c", file=sys.stderr)', '1/0', SHOW+'show(application_json={"a": 1}); show(text_html="x")', 'pass', 'len?']
    nb, other = nbformat.v4.new_notebook(), nbformat.v4.new_notebook()
    for code in codes:
        res = await kc.run(code)
        nb.cells.append(res.to_cell(code))
        other.cells.append(nbformat.v4.new_code_cell(code, outputs=res.outputs, execution_count=res.execution_count))
    nbformat.validate(nb)
    assert len({o.id for o in nb.cells}) == len(codes)
    for o in nb, other:
        again = nbformat.reads(nbformat.writes(o), as_version=4)
        nbformat.validate(again)
        assert [c.outputs for c in again.cells] == [c.outputs for c in nb.cells] and [c.source for c in again.cells] == codes
    assert again.cells[0].outputs[0].data['text/plain'] == '1'

async def test_a_cell_is_a_copy(kc):
    res = await kc.run('h = display("one", display_id=True)')
    cell = res.to_cell('x')
    await kc.run('h.update("two")')
    assert "'one'" in cell.outputs[0].data['text/plain'] and "'two'" in res.outputs[0].data['text/plain']
    assert pickle.loads(pickle.dumps(res)).outputs == res.outputs and type(pickle.loads(pickle.dumps(res)).outputs[0]) is Node


# Outputs as they come

async def test_display_in_a_terminal(kc):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        res = await kc.run("import sys\nprint('one'); print('two', file=sys.stderr); display('three'); 1/0", display=True)
    assert out.getvalue() == "one\n'three'\n" and err.getvalue().startswith('two\n') and 'ZeroDivisionError' in err.getvalue()
    assert res.text.startswith('one\n')

async def test_display_beside_a_hook(kc):
    seen = []
    async def hook(event): seen.append(event.text)
    with redirect_stdout(io.StringIO()) as out: await kc.run('print(1)', display=True, on_output=hook)
    assert out.getvalue() == '1\n' and seen == ['1\n']
    def broken(event): raise ValueError('hook')
    with redirect_stdout(io.StringIO()), pytest.raises(ValueError, match='hook'): await kc.run('print(1)', display=True, on_output=broken)

@pytest.fixture
async def notebook():
    "A kernel that has a client for another kernel, as a person's notebook has"
    async with run_kernel() as (km, outer):
        await outer.run(f'import sys; sys.path[:0] = {[o for o in sys.path if o]!r}\nfrom conkernelclient import *', check=True)
        await outer.run('opened = run_kernel()\nkm, kc = await opened.__aenter__()', check=True)
        yield outer
        await outer.run('await opened.__aexit__(None, None, None)')

def seen(res):
    return [(o.get('name') or o['output_type'], o['text'] if 'name' in o else (o.get('data') or {}).get('text/plain')) for o in res.outputs]

CELL = '"import sys\\nprint(1)\\nprint(2, file=sys.stderr)\\nh = display(3, display_id=True)\\nh.update(4)\\n5"'
WANT = [('stdout', '1\n'), ('stderr', '2\n'), ('display_data', '4'), ('display_data', '5')]

async def test_display_in_a_notebook(notebook):
    res = await notebook.run(f'res = await kc.run({CELL}, display=True)', timeout=60, check=True)
    assert seen(res) == WANT
    assert seen(await notebook.run('res')) == WANT   # another cell shows it again
    assert seen(await notebook.run(f'await kc.run({CELL}, display=True)')) == WANT   # but the same one does not
    res = await notebook.run('await kc.run("print(1); from IPython.display import clear_output; clear_output(); print(2)", display=True)')
    assert seen(res) == [('stdout', '2\n')]

async def test_display_goes_to_the_cell_that_runs_it(notebook):
    "Also when another cell runs by then"
    first = await notebook.run('import asyncio\ngo = asyncio.Event()\nasync def answer(prompt):\n    await go.wait()\n    return "x"\n'
                               'task = asyncio.ensure_future(kc.run("input()\\nprint(2); display(3)", display=True, stdin=answer))', check=True)
    second = await notebook.run('go.set()\nawait task\nprint("second")', timeout=30, check=True)
    assert seen(second) == [('stdout', 'second\n')]
    assert first.late >= 2

async def test_display_without_asyncio(notebook):
    await notebook.run('k = open_kernel().start()', check=True, timeout=60)
    try:
        assert seen(await notebook.run(f'res = k.run({CELL}, display=True)')) == WANT
        assert seen(await notebook.run(f'k.run({CELL}, display=True)')) == WANT
        assert seen(await notebook.run(f'job = k.start({CELL}, display=True)\nres = job.wait()\nimport time; time.sleep(.5)')) == WANT
    finally: await notebook.run('k.close()')


# Many cells

async def test_map_over_items(kc):
    assert [o.text for o in await kc.map('print({}, {})', ['a', (1,), None])] == ['a a\n', '(1,) (1,)\n', 'None None\n']
    assert [o.text for o in await kc.map(lambda o: f'print({o})', range(3), concurrency=1)] == ['0\n', '1\n', '2\n']
    for args, error, why in [(('f({})',), ValueError, 'needs items'), ((['1'], 4), TypeError, 'concurrency=4'), ((str,), TypeError, 'kc.map'),
                             (('f({})', [object()]), ValueError, 'not a Python literal'), ((['1'], [2]), ValueError, 'template')]:
        with pytest.raises(error, match=why): await kc.map(*args)
    assert kc.queue == []

@pytest.mark.parametrize('concurrency', [1, 2])
async def test_map_keeps_the_other_results(kc, concurrency):
    with pytest.raises(ExecutionError) as e: await kc.map(['1', '2', '1/0', *['import time; time.sleep(.5)']*5], concurrency=concurrency, check=True)   # (the other shell goes on while it fails)
    results = e.value.results
    assert len(results) == 8 and results[2].error.ename == 'ZeroDivisionError' and results[0].text == '1\n' and results[-1] is None
    with pytest.raises(ExecutionTimeout) as e: await kc.map(['1', 'import time; time.sleep(60)'], concurrency=1, timeout=1)
    assert e.value.results[0].text == '1\n' and e.value.results[1] is e.value.result

@pytest.mark.parametrize('concurrency', [1, 2])
async def test_map_returns_exceptions(kc, concurrency):
    res = await kc.map('1/{}', [1, 0, 2, 0, 4], concurrency=concurrency, check=True, return_exceptions=True)
    assert [type(o) for o in res] == [Result, ExecutionError, Result, ExecutionError, Result] and res[4].text == '0.25\n'
    task = asyncio.create_task(kc.map(['import time; time.sleep(60)']*3, concurrency=1, return_exceptions=True))
    while not kc.queue: await asyncio.sleep(.01)
    run = kc.queue[0]
    await run.wait_until(lambda: run.inside)
    task.cancel()
    with pytest.raises(asyncio.CancelledError): await task   # the caller's cancel is none of these exceptions
    while kc.queue: await asyncio.sleep(.01)

@pytest.mark.parametrize('hook,cells', [('lambda event, cell: say(cell, event)', [0, 1]), ('lambda event, **more: say(more["cell"], event)', [0, 1]),
                                        ('lambda event: say(None, event)', [None]), ('later', [0, 1])])
async def test_map_says_which_cell_speaks(kc, hook, cells):
    got = {}
    def say(cell, event): got[cell] = got.get(cell, '')+event.text
    async def later(event, *, cell):
        await asyncio.sleep(0)
        say(cell, event)
    await kc.map('print({})', 'ab', on_output=eval(hook, dict(say=say, later=later)))
    assert list(sorted(got)) == cells if cells != [None] else sorted(got[None]) == list('\n\nab')
    if cells == [0, 1]: assert got == {0: 'a\n', 1: 'b\n'}

def test_progress_without_a_package_warns(monkeypatch):
    for o in 'tqdm', 'tqdm.auto', 'fastprogress', 'fastprogress.fastprogress': monkeypatch.setitem(sys.modules, o, None)
    monkeypatch.setattr(subshell, 'watched', lambda: True)
    with pytest.warns(UserWarning, match='pip install tqdm') as got: subshell.progress_bar(3, True)[0]()
    assert len(got) == 1
    monkeypatch.setattr(subshell, 'watched', lambda: False)
    with warnings.catch_warnings(action='error'): subshell.progress_bar(3, True)

def test_map_without_asyncio():
    with open_kernel() as k:
        assert [o.text for o in k.map('print({})', 'ab')] == ['a\n', 'b\n']
        assert [type(o) for o in k.map('1/{}', [0, 1], check=True, return_exceptions=True)] == [ExecutionError, Result]
        with pytest.raises(ExecutionError) as e: k.map(['1', '1/0'], concurrency=1, check=True)
        assert e.value.results[0].text == '1\n'
