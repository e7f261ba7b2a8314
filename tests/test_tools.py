"""The tools that make README.md and the docs: what they change, and what they refuse."""
import ast, configparser, json, re, sys
from codeop import CommandCompiler
from pathlib import Path
from types import SimpleNamespace
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import docs, entries, prose, readme

SITE = 'https://example.org/lib'


@pytest.fixture
def site(tmp_path):
    "A site of two pages, as smalldocs leaves it; returns a function that writes the first page and checks the links."
    (tmp_path/'sub').mkdir()
    (tmp_path/'sub/other page.html').write_text('<h2 id="there">There</h2>')
    (tmp_path/'style.css').touch()
    def check(html):
        (tmp_path/'index.html').write_text(html)
        return docs.check_links(tmp_path, docs.read_pages(tmp_path))
    return check


@pytest.mark.parametrize('link', ['sub/other%20page.html', 'sub/other%20page.html#there', '#here', '#', './', 'style.css?v=1',
                                  'https://example.org/missing', 'mailto:a@example.org', 'data:,x'])
def test_good_links(site, link): assert site(f'<a id="here" href="{link}">x</a>') == []


@pytest.mark.parametrize('link', ['gone.html', 'sub/', 'sub/other%20page.html#gone', '#gone', '../index.html'])
def test_broken_links(site, link):
    problem, = site(f'<a id="here" href="{link}">x</a>')
    assert problem.startswith('index.html: ') and link in problem


def test_missing_resources_are_broken_links(site): assert len(site('<img src="gone.png"><script src="gone.js"></script>')) == 2


def test_broken_links_in_markdown_copies(site, tmp_path):
    (tmp_path/'index.llms.md').write_text('[a](gone.llms.md) and `[b](code.md)`\n\n```\n[c](fence.md)\n```\n\n    [d](output.md)\n')
    assert site('') == ['index.llms.md: no page or file for the link gone.llms.md']


@pytest.mark.parametrize('page, md, expected', [
    ('index.ipynb', '[`A`](https://example.org/lib/core.html#a)', '[`A`](core.html#a)'),
    ('tutorials/one.ipynb', '[`A`](https://example.org/lib/core.html#a)', '[`A`](../core.html#a)'),
    ('tutorials/one.ipynb', '[core](../01_core.ipynb#a), [two](two.ipynb)', '[core](../core.ipynb#a), [two](two.ipynb)'),
    ('cells/run.ipynb', '[core](../01_core.ipynb), [lane](../engine/03_lane.ipynb#x)', '[core](../core.ipynb), [lane](../engine/lane.ipynb#x)'),
    ('engine/lane.ipynb', '[`A`](https://example.org/lib/engine/life.html#a)', '[`A`](life.html#a)'),
    ('index.ipynb', '[other](https://example.org/other/core.html), [home](https://example.org/lib)', None)])
def test_relink(page, md, expected):
    assert docs.relink(md, page, {'01_core.ipynb': 'core.ipynb', 'engine/03_lane.ipynb': 'engine/lane.ipynb'}, SITE) == (expected or md)


def test_tests_that_are_named_become_links(tmp_path):
    (tmp_path/'test_a.py').write_text('import x\n\nasync def test_one(): ...\n')
    assert docs.link_tests('`test_a.py::test_one`, `test_a.py`, `other.py`', tmp_path, 'https://e.org/tests') == (
        '[`test_one`](https://e.org/tests/test_a.py#L3), [`test_a.py`](https://e.org/tests/test_a.py), `other.py`')
    with pytest.raises(SystemExit, match='test_gone'): docs.link_tests('`test_a.py::test_gone`', tmp_path, '')


LIBRARY = {
    '__init__.py': "from lib_of_a_test.folder.held import Client\n__all__ = ['Client']\n",
    'folder/__init__.py': '',
    'folder/parts.py': """
from typing import Any, Literal, overload
__all__ = ['Runs', 'make']

class Runs:
    "Runs cells: a part of a client"
    def run(self,
        code: str, # Code, `a|b`
        *,
        timeout: 'float|None' = None, # Seconds   # type: ignore
        **kwargs: Any # All else
    ) -> 'Runs': # Itself
        "Run `code`. Raises `ValueError`."
        return self

    @overload
    def ask(self, reply: Literal[True], /) -> int: ...
    @overload
    def ask(self, reply: bool = False, /) -> str: ...
    def ask(self, reply=False, /):
        "Ask"

def make(name: str = 'x', n: int = 1): return n   # no parameter
""",
    'folder/held.py': """
from lib_of_a_test.folder.parts import Runs
__all__ = ['Client', 'Small']

class _Base(Runs):
    window = 1 # On the wire
    def __init__(self,
        size: int = 3, # Bytes
    ): self._size = size

    @property
    def size(self) -> int:
        "Bytes"
        return self._size

    @size.setter
    def size(self, n): self._size = n

    def stop(self): "Stop"
    close = stop
    def _private(self): ...

class Client(_Base):
    "What users hold"
    @staticmethod
    def version(full: bool = False) -> str: "The version"

class Small(Client):
    "One more"
    def less(self): "Less"
""",
    '_modidx.py': """d = dict(syms={
    'lib_of_a_test.folder.parts': {'lib_of_a_test.folder.parts.' + o: ('folder/parts.html#' + o.lower(), '') for o in ('Runs', 'make')},
    'lib_of_a_test.folder.held': {'lib_of_a_test.folder.held.' + o: ('held.html#' + o.lower(), '') for o in ('_Base', 'Client', 'Small')}})
"""}


@pytest.fixture
def library(tmp_path, monkeypatch):
    "A library of two modules in a folder: a mixin in one, the class that users hold in the other."
    for name, text in LIBRARY.items():
        path = tmp_path/'lib_of_a_test'/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    config = SimpleNamespace(lib_name='lib_of_a_test', git_url='https://e.org', branch='main', doc_host='https://example.org', doc_baseurl='/lib')
    monkeypatch.setattr(entries, 'get_config', lambda: config)
    monkeypatch.syspath_prepend(tmp_path)
    caches = entries.library, entries.source
    for o in caches: o.cache_clear()
    yield entries.library()
    for o in caches: o.cache_clear()
    for o in [o for o in sys.modules if o.startswith('lib_of_a_test')]: del sys.modules[o]


def shown(module, *names): return '\n\n'.join(entries.entries(f'lib_of_a_test.folder.{module}', list(names)))


def test_methods_are_listed_under_the_class_that_users_hold(library):
    titles = re.findall(r'^### (.*)$', shown('held', '_Base', 'Client', 'Small'), flags=re.M)
    assert titles == ['Client.size {#client.size}', 'Client.stop {#client.stop}', 'Client.close {#client.close}', 'Client {#client}',
                      'Client.version {#client.version}', 'Client.run {#client.run}', 'Client.ask {#client.ask}',
                      'Small {#small}', 'Small.less {#small.less}']
    assert re.findall(r'^### (.*)$', shown('parts', 'Runs', 'make'), flags=re.M) == ['Runs {#runs}', 'make {#make}']


def test_an_entry_shows_the_signature_as_it_is(library):
    run, ask = shown('held', 'Client').split('### Client.run')[1].split('### Client.ask')
    assert '```python\ndef run(code: str, *, timeout: float|None = None, **kwargs: Any) -> Runs\n```' in run
    assert run.split('```')[2].strip().startswith("Run `code`. Raises `ValueError`.\n\n| parameter | |")
    assert [o.strip('| ') for o in run.splitlines() if o.startswith('| `') or o.startswith('| ret')] == [
        '`code` | Code, `a\\|b`', '`timeout` | Seconds', '`**kwargs` | All else', 'returns | Itself']
    assert 'def ask(reply: Literal[True], /) -> int\ndef ask(reply: bool = False, /) -> str\ndef ask(reply=False, /)\n' in ask
    text = shown('held', '_Base', 'Client')
    assert '```python\nsize: int\n```' in text and 'def close()' in text and 'def version(full: bool = False) -> str' in text
    assert 'Client(size: int = 3)\n' in text and '| `size` | Bytes |' in text and '| `window` | On the wire |' in text
    assert '| parameter' not in shown('parts', 'make')


def test_an_entry_leads_to_its_line(library):
    line = 1 + LIBRARY['folder/parts.py'].splitlines().index('    def run(self,')
    assert f'(https://e.org/blob/main/lib_of_a_test/folder/parts.py#L{line})' in shown('held', 'Client').split('### Client.run')[0][-200:]


def test_names_become_links(library):
    def address(name, module=None): return library.find(name, module and f'lib_of_a_test.folder.{module}')
    assert address('Client.run') == address('Runs.run') == address('Small.run') == 'held.html#client.run'
    assert address('Small.less') == 'held.html#small.less' and address('make') == 'folder/parts.html#make'
    assert address('_Base.size') is address('Client._private') is address('nothing') is None
    assert entries.link_names('`Runs.run()` and [`make`](x) and `x`', None) == f'[`Runs.run()`]({SITE}/held.html#client.run) and [`make`](x) and `x`'


def test_a_word_is_no_link(library):
    "`make` may be a parameter: it is a link where it is defined, or as a call."
    assert entries.link_names('`make`', 'lib_of_a_test.folder.held') == '`make`'
    assert entries.link_names('`make`', 'lib_of_a_test.folder.parts') == f'[`make`]({SITE}/folder/parts.html#make)'
    assert entries.link_names('`make()`', None) == f'[`make()`]({SITE}/folder/parts.html#make)'


def test_a_public_method_without_an_entry_fails_the_build(library):
    ids = {page: {ref.split('#')[1] for places in library.addresses.values() for ref in places.values() if ref.startswith(page + '#')}
           for page in ('held.html', 'folder/parts.html')}
    pages = {page: SimpleNamespace(ids=o) for page, o in ids.items()}
    assert docs.check_names(pages, library.addresses) == []
    ids['held.html'].remove('client.run')
    assert any(o.startswith('held.html#client.run: no entry for Client.run') for o in docs.check_names(pages, library.addresses))
    del pages['folder/parts.html']
    assert any('no entry for make' in o for o in docs.check_names(pages, library.addresses))


def test_at_a_glance(library):
    seen = {}
    text = entries.glance('## Client\n\n<!-- glance Client: stop version -->\n\n<!-- glance Client -->', seen)
    assert re.findall(r'^- \[`(.+?)`\]\((\S+?)\) ?(.*)$', text, flags=re.M) == [
        (code, f'{SITE}/held.html#{anchor}', words) for code, anchor, words in [
            ('Client', 'client', 'What users hold'), ('stop()', 'client.stop', 'Stop'), ('version(…)', 'client.version', 'The version'),
            ('size', 'client.size', 'Bytes'), ('close()', 'client.close', 'Stop'), ('run(code, …)', 'client.run', 'Run `code`'),
            ('ask(…)', 'client.ask', 'Ask'), ('window', 'client', 'On the wire')]]
    assert not entries.unseen(seen)
    assert entries.unseen({'Client': seen['Client'] - {'run'}}) == ['Client.run']
    with pytest.raises(ValueError, match='Client has no gone'): entries.glance('<!-- glance Client: gone -->', {})


def test_everything_has_a_line_at_a_glance():
    import conkernelclient
    text = (Path(__file__).parent.parent/'nbs'/'api.ipynb').read_text(encoding='utf-8')
    seen = {}
    listed = entries.glance('\n'.join(f'<!-- glance {m[1]} -->' for m in re.finditer(r'<!-- glance (\w+)', text)), seen)
    assert set(seen) == set(conkernelclient.__all__) and not entries.unseen(seen)
    assert 'core.html#conkernelclient.run) Run `code`' in listed and len(listed.splitlines()) > 300


def test_help_shows_the_meanings_of_parameters():
    import inspect, conkernelclient
    for name in 'ConKernelClient.run', 'Kernel.run', 'Run.follow', 'KernelPool.map', 'KernelPool.__init__', 'Pool.map', 'open_kernel', 'run_notebooks':
        f = getattr(conkernelclient, name.split('.')[0])
        for part in name.split('.')[1:]: f = getattr(f, part)
        doc = inspect.getdoc(f)
        named = [o for o in inspect.signature(f).parameters.values() if o.name != 'self' and f'    {o.name}: ' in doc]
        assert 'Parameters:\n    ' in doc and named, name
    assert '    timeout: Seconds that it may take' in inspect.getdoc(conkernelclient.ConKernelClient.run)


def test_what_help_shows_is_fresh():
    import help
    assert help.main(['--check']) == 0, 'run `python tools/help.py`: comments of parameters have changed'


def test_show_doc_by_hand_is_refused(library):
    cell = SimpleNamespace(cell_type='code', source='show_doc(Client.run)', directives_={})
    with pytest.raises(ValueError, match='show_doc'): entries.Entries(SimpleNamespace(cells=[cell])).begin()


def test_the_library_itself():
    lib = entries.library()
    assert lib.find('ConKernelClient.run') == lib.find('RunsCells.run') == 'core.html#conkernelclient.run'
    assert lib.find('ConKernelClient') == 'core.html#conkernelclient' and lib.find('ConKernelManager') == 'core.html#conkernelmanager'
    assert lib.find('Request.done') == 'engine/request.html#request.done' and lib.find('Run.cancel') == 'cells/run.html#run.cancel'


def processed(*cells):
    from execnb.nbio import dict2nb
    return dict2nb(dict(cells=list(cells), metadata={}, nbformat=4, nbformat_minor=5))


def code(source, *outputs): return dict(cell_type='code', source=source, outputs=list(outputs), metadata={})
def markdown(source): return dict(cell_type='markdown', source=source, metadata={})
def stream(text): return dict(output_type='stream', name='stdout', text=text)


def convert(*cells): return readme.convert(processed(*cells), SITE, 'https://example.org/raw/nbs').removeprefix(readme.NOTE).strip()


def test_readme_title():
    assert convert(dict(cell_type='raw', source='---\ntitle: Lib\ndescription: It is\n---\n', metadata={})) == '# Lib\n\n> It is'


def test_readme_keeps_saved_outputs():
    result = dict(output_type='execute_result', data={'text/plain': ['3']}, metadata={})
    assert convert(code("#| code-fold: true\nprint('a')\n3", stream(['a\n', 'b\n']), result)) == "```python\nprint('a')\n3\n```\n\n```\na\nb\n```\n\n```\n3\n```"


@pytest.mark.parametrize('option, expected', [('echo', '```\na\n```'), ('output', '```python\nf()\n```'), ('include', '')])
def test_readme_cell_options(option, expected): assert convert(code(f'#| {option}: false\nf()', stream('a'))) == expected


@pytest.mark.parametrize('md, expected', [
    ('[core](01_core.ipynb#x)', f'[core]({SITE}/core.html#x)'), ('[lane](engine/03_lane.ipynb)', f'[lane]({SITE}/engine/lane.html)'), ('[core](tutorials/one.html)', f'[core]({SITE}/tutorials/one.html)'),
    ('![p](images/p.svg)', '![p](https://example.org/raw/nbs/images/p.svg)'), ('[a](#b) [c](https://d.e)', None)])
def test_readme_links_are_absolute(md, expected): assert convert(markdown(md)) == (expected or md)


def test_readme_refuses_what_it_cannot_show():
    with pytest.raises(SystemExit): convert(markdown('::: {.callout-note}\nx\n:::'))
    with pytest.raises(SystemExit): convert(code('plot()', dict(output_type='display_data', data={'image/png': 'eA=='}, metadata={})))


# Prose

def test_prose_gets_no_harder_to_read():
    "The counts of tools/prose.json may only fall: `python tools/prose.py`"
    problems = prose.grown(prose.hits(), json.loads(prose.COUNTS.read_text()))
    assert not problems, '\n'.join(problems)


HARD = {'who': 'Who begins to read late first gets the outputs.', 'what': 'What is in flight fails.', 'told': 'Every caller is told.',
        'people': 'Nobody waits.', 'at once': 'The call fails at once.', 'for ever': 'It waits for ever.', 'makes of': 'It makes text of it.',
        'for = because': 'It must go on, for a model that hears nothing can do nothing, for it is stuck.', 'be it': 'It fails, be it a run.',
        'mended': 'The bug is mended.', 'in line': 'A cell is in line.', 'meanwhile': 'It goes on meanwhile.', 'hears': 'The model hears so.',
        'as they come': 'Outputs are shown as they come.', 'stands': 'The time stands in the reply.', 'is no': 'It is no literal.', 'all the same': 'It is read all the same.',
        'tells': 'The heartbeat tells.', 'shall': 'The cell shall go on.', 'anew': 'It begins anew.', 'time-out': 'A time-out.',
        'aside': 'It waits. (On Windows, it waits longer.)', 'that is': 'That is a setting.', 'heading': '## How is it doing?',
        'word order': 'It waits as ever.', 'long': 'a '*46 + 'b.'}

@pytest.mark.parametrize('name', HARD)
def test_prose_that_is_counted(name): assert [o for o, _ in prose.found(HARD[name])].count(name) == 1

def test_each_pattern_has_an_example(): assert HARD.keys() == {*prose.PATTERNS, 'long'}

@pytest.mark.parametrize('text', [
    'You can see who waits.', 'The message says what is wrong.', 'What do you see?', 'Who reads, writes, and runs it?', '## What to read next', 'It cannot be told from another one.', 'There is no kernel.', 'The name stands for it.', 'It tells the kernel the time.',
    'See [Many cells at once](02_many_cells.ipynb).', 'Ten seconds, for the cell that is running.', 'It returns text for a model.',
    'The call (a coroutine) returns.', 'A table of results (see below).', 'In line with the protocol, it replies.', '`What is here fails.`',
    '```\nNobody waits at once.\n```', '| a | b |\n|---|---|\n| ' + 'a '*30 + '| ' + 'b '*30 + '|'])
def test_prose_that_is_not_counted(text): assert not list(prose.found(prose.plain(text)))

def test_prose_is_found_in_comments():
    code = "#| export\n# As ever\nz = '# not prose'   # (it shall be)\ny = 1   # type: ignore"
    assert list(prose.in_code(code)) == ['As ever', '(it shall be)']

def test_prose_is_found_in_docstrings_comments_and_messages():
    code = '''
def f(
    x: int = 3, # Nobody needs it
) -> None: # Who waits
    "Is told"
    raise ValueError(f'{x} is gone' ' at once')
log.warning('for ever')
y = 'not prose'
'''
    assert sorted(prose.in_code(code)) == sorted(['Is told', 'x is gone at once', 'for ever', 'Nobody needs it', 'Who waits'])


def pasted(text):
    "The statements of `text` as a prompt reads them line by line: a block ends with an empty line"
    compiler, lines = CommandCompiler(), []
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for line in [*text.splitlines(), '']:
        lines.append(line)
        if compiler('\n'.join(lines)): lines = []
    return not lines

def test_a_block_that_ends_without_an_empty_line_cannot_be_pasted():
    assert pasted('if 1:\n    x = 1\n\nx') and pasted('f("""a\n\nb""")\nx')
    for o in 'if 1:\n    x = 1\nx', 'with f() as a: a\nx':
        with pytest.raises(SyntaxError): pasted(o)

@pytest.mark.parametrize('page', ['index', 'tutorials/01_first_steps'])
def test_pages_for_beginners_can_be_pasted_at_a_prompt(page):
    "The front page promises `python -m asyncio`, whose prompt reads line by line before Python 3.13"
    cells = [''.join(o['source']) for o in json.loads((ROOT/f'nbs/{page}.ipynb').read_text(encoding='utf-8'))['cells'] if o['cell_type']=='code']
    seen = [o for o in cells if not re.match(r'#\|\s*(hide|echo: false)', o)]
    assert len(seen) > 8
    for o in seen: assert pasted(o), o

BROUGHT = {'conkernelclient', 'jupyter_client', 'ipykernel', 'IPython', 'zmq', 'fastcore', 'orjson', 'traitlets', 'comm', 'tornado'}   # by the package itself

def lacking(page):
    "The packages that the cells of a page import, and that no `pip install` before them names"
    config, said, res = configparser.ConfigParser(), '', []
    config.read(ROOT/'settings.ini', encoding='utf-8')
    for o in json.loads(page.read_text(encoding='utf-8'))['cells']:
        source = ''.join(o['source'])
        if o['cell_type'] != 'code':
            for line in re.findall(r'pip install ([^`\n#]+)', source):
                extras = re.findall(r"\.\[([\w,]+)\]", line)
                said += ' '.join([line, *(config['DEFAULT'][f'{x}_requirements'] for e in extras for x in e.split(','))])+' '
                if 'nbclient' in said: said += 'nbformat '   # nbclient brings it
        elif not re.match(r'#\|\s*hide', source):
            tree = ast.walk(compile(source, page.name, 'exec', ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
            names = {name for n in tree for name in ([a.name for a in n.names] if isinstance(n, ast.Import) else [n.module] if isinstance(n, ast.ImportFrom) else [])}
            res += [m for m in sorted({name.partition('.')[0] for name in names}-BROUGHT-sys.stdlib_module_names)
                    if not re.search(rf"(^|[\s']){m.replace('_', '[-_]')}", said)]
    return res

@pytest.mark.parametrize('page', sorted((ROOT/'nbs/tutorials').glob('*.ipynb')), ids=lambda o: o.stem)
def test_a_tutorial_says_what_to_install(page): assert not lacking(page)

def test_a_package_that_a_page_does_not_name(tmp_path):
    page = tmp_path/'page.ipynb'
    def wanted(*cells): page.write_text(json.dumps(dict(cells=[dict(cell_type=k, source=s) for k, s in cells]))); return lacking(page)
    use = ('code', 'import asyncio, nbformat.v4\nawait f()\nfrom nbclient import x')
    assert wanted(use) == ['nbclient', 'nbformat'] and wanted(('markdown', '`pip install nbformat`'), use) == ['nbclient']
    assert wanted(('markdown', "`pip install '.[notebook]'`"), use) == [] and wanted(use, ('markdown', "`pip install '.[notebook]'`")) != []
