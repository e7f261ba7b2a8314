"""The tools that make README.md and the docs: what they change, and what they refuse."""
import sys
from pathlib import Path
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import docs, readme

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
    ('tutorials/one.ipynb', '[core](../03_core.ipynb#a), [two](two.ipynb)', '[core](../core.ipynb#a), [two](two.ipynb)'),
    ('index.ipynb', '[other](https://example.org/other/core.html), [home](https://example.org/lib)', None)])
def test_relink(page, md, expected):
    assert docs.relink(md, page, {'03_core.ipynb': 'core.ipynb'}, SITE) == (expected or md)


def test_tests_that_are_named_become_links(tmp_path):
    (tmp_path/'test_a.py').write_text('import x\n\nasync def test_one(): ...\n')
    assert docs.link_tests('`test_a.py::test_one`, `test_a.py`, `other.py`', tmp_path, 'https://e.org/tests') == (
        '[`test_one`](https://e.org/tests/test_a.py#L3), [`test_a.py`](https://e.org/tests/test_a.py), `other.py`')
    with pytest.raises(SystemExit, match='test_gone'): docs.link_tests('`test_a.py::test_gone`', tmp_path, '')


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
    ('[core](03_core.ipynb#x)', f'[core]({SITE}/core.html#x)'), ('[core](tutorials/one.html)', f'[core]({SITE}/tutorials/one.html)'),
    ('![p](images/p.svg)', '![p](https://example.org/raw/nbs/images/p.svg)'), ('[a](#b) [c](https://d.e)', None)])
def test_readme_links_are_absolute(md, expected): assert convert(markdown(md)) == (expected or md)


def test_readme_refuses_what_it_cannot_show():
    with pytest.raises(SystemExit): convert(markdown('::: {.callout-note}\nx\n:::'))
    with pytest.raises(SystemExit): convert(code('plot()', dict(output_type='display_data', data={'image/png': 'eA=='}, metadata={})))
