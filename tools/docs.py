"""Build the docs site into `_docs/` and check it. From the root of the project: `python tools/docs.py`.

The same sources build with Quarto (`nbdev_docs`), with nbdev's own reference. This needs nothing but the dev extra, and no
network: nbdev processes the notebooks, `tools/entries.py` adds the reference, smalldocs renders them. Between the two, the
processed copy is put in order: pages get the names that nbdev links to (`core.html`, not `01_core.html`), and links to our
own site become relative, so that they work from any place and can be checked. The exit code is 1 when a link, an anchor, a page or a public name is missing.
"""
import json, os, posixpath, re, shutil, subprocess, sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

import entries

ROOT = Path(__file__).resolve().parent.parent
RE_TEST = re.compile(r'`(test_\w+\.py)(?:::(\w+))?`')  # a test, named in prose: `test_run.py::test_text`
RE_LINK = re.compile(r'\]\(([^)\s#]+)((?:#[^)\s]*)?)\)')  # the end of a Markdown link: `](target#anchor)`


# Process: from nbs/ to _proc/

def process() -> tuple[Path, str, str]:
    "Process the notebooks as nbdev does for Quarto; return the folder they are in, and the addresses of the site and of the tests."
    import nbdev.serve
    from nbdev.config import get_config
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    nbdev.serve.FilterDefaults = entries.Filters
    proc, cfg = nbdev.serve.proc_nbs(force=True), get_config()
    if not list(proc.rglob('*.ipynb')):
        sys.exit('No page: nbdev skips all files when a folder on the way to them has a name with a leading dot.')
    return proc, cfg.doc_host + cfg.doc_baseurl, f'{cfg.git_url}/blob/{cfg.branch}/tests'


def rename_pages(proc: Path) -> dict[str, str]:
    "Give each processed notebook the name nbdev links to, as its front matter says; return old to new names."
    names = {}
    for path in sorted(proc.rglob('*.ipynb')):
        new = path.with_name(take_output_file(path)).with_suffix('.ipynb')
        if new != path and new.exists(): sys.exit(f'{path.name}: there is a second page {new.name}.')
        names[path.relative_to(proc).as_posix()] = path.rename(new).relative_to(proc).as_posix()
    return names


def take_output_file(path: Path) -> str:
    "Take `output-file`, which smalldocs does not know, out of the front matter of the processed notebook at `path`."
    nb = json.loads(path.read_text(encoding='utf-8'))
    first = nb['cells'][0] if nb['cells'] else {}
    front = yaml.safe_load(''.join(first['source']).strip().strip('-')) if first.get('cell_type') == 'raw' else {}
    if 'output-file' not in front:
        sys.exit(f'{path.name}: a page needs a title: a first Markdown cell with a `# Title`.')
    res = front.pop('output-file')
    first['source'] = f'---\n{yaml.safe_dump(front)}---\n'.splitlines(keepends=True)
    write_notebook(nb, path)
    return res


def write_notebook(nb: dict, path: Path): path.write_text(json.dumps(nb, indent=1, ensure_ascii=False), encoding='utf-8')


def relink(md: str, page: str, names: dict[str, str], site: str) -> str:
    "Make the links in `md`, the Markdown of `page`, relative where they lead to `site`, and use the new `names`."
    here = posixpath.dirname(page)
    def link(m):
        target, anchor = m.groups()
        if target.startswith(site + '/') and target.endswith('.html'):
            target = posixpath.relpath(target.removeprefix(site + '/'), here or '.')
        elif target.endswith('.ipynb') and not urlsplit(target).scheme:
            new = names.get(posixpath.normpath(posixpath.join(here, target)))
            if new: target = posixpath.relpath(new, here or '.')
        return f']({target}{anchor})'
    return RE_LINK.sub(link, md)


def link_tests(md: str, tests: Path, source: str) -> str:
    "Make each test that the Markdown `md` names a link to its line, below the address `source` of the folder `tests`."
    def link(m):
        file, name = m.groups()
        if not name: return f'[`{file}`]({source}/{file})'
        lines = (tests/file).read_text(encoding='utf-8').splitlines()
        line = next((i for i, o in enumerate(lines, 1) if re.match(rf'\s*(async )?def {name}\(', o)), None)
        if not line: sys.exit(f'There is no test {file}::{name}.')
        return f'[`{name}`]({source}/{file}#L{line})'
    return RE_TEST.sub(link, md)


def relink_notebook(path: Path, page: str, names: dict[str, str], site: str, tests: str):
    "Put the links of the processed notebook at `path` in order: those of its prose and of its Markdown outputs."
    def fix(lines): return relink(''.join(lines), page, names, site).splitlines(keepends=True)
    nb = json.loads(path.read_text(encoding='utf-8'))
    for cell in nb['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = fix(link_tests(''.join(cell['source']), ROOT/'tests', tests))
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if 'text/markdown' in data:
                md = ''.join(data['text/markdown'])
                data['text/markdown'] = fix([md])
    write_notebook(nb, path)


def configure(proc: Path, names: dict[str, str]):
    "Use the new `names` in sidebar and navbar, and ask for `llms.txt` and Markdown copies (older Quartos refuse that key)."
    def rename(o):
        if isinstance(o, dict): return {k: rename(v) for k, v in o.items()}
        if isinstance(o, list): return [rename(v) for v in o]
        return names.get(o, o)
    for name, change in (('sidebar.yml', rename), ('_quarto.yml', lambda o: ask_for_llms(rename(o)))):
        path = proc/name
        path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text())), sort_keys=False))


def ask_for_llms(config: dict) -> dict:
    config['website']['llms-txt'] = True
    return config


def describe(path: Path):
    "Take title and description, the first sentence, out of the Markdown page at `path` and into its front matter."
    title, first, rest = path.read_text(encoding='utf-8').split('\n\n', 2)
    sentence, *more = re.split(r'(?<=[.!?])\s', first.strip(), maxsplit=1)
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', ' '.join(sentence.split())).replace('`', '')
    front = yaml.safe_dump(dict(title=title.strip().removeprefix('# '), description=text), allow_unicode=True)
    path.write_text('\n\n'.join([f'---\n{front}---', *more, rest]), encoding='utf-8')


def finish(docs: Path, site: str):
    "Say on each page where it lives, and take what is for editors out of the Markdown copies."
    for path in docs.rglob('*.html'):
        if 'site_libs' in path.parts: continue
        url = f'{site}/{path.relative_to(docs).as_posix()}'.removesuffix('index.html')
        head = f'<link rel="canonical" href="{url}">\n<meta property="og:url" content="{url}">\n<meta property="og:type" content="website">\n</head>'
        path.write_text(path.read_text(encoding='utf-8').replace('</head>', head, 1), encoding='utf-8')
    for path in docs.rglob('*.llms.md'):
        md = re.sub(r'<!-- WARNING: .*? -->\n*', '', path.read_text(encoding='utf-8'))
        md = re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}', r'\1', md)
        path.write_text(re.sub(r'\]\((?!\w+:)([\w./-]+)\.html(#[^)]*)?\)', r'](\1.llms.md\2)', md), encoding='utf-8')


def write_index(docs: Path, sidebar: list, site: str):
    "Write `llms.txt`: the Markdown copies in the order and the sections of the `sidebar`, and what each is about."
    def line(page):
        page = (page['href'] if isinstance(page, dict) else page).rsplit('.', 1)[0]
        html = (docs/f'{page}.html').read_text(encoding='utf-8')
        title = re.search(r'<meta property="og:title" content="([^"]*)"', html)
        about = re.search(r'<meta name="description" content="([^"]*)"', html)
        return f'- [{unescape(title[1])}]({site}/{page}.llms.md)' + (f': {unescape(about[1])}' if about else '')
    index = docs/'llms.txt'
    text = index.read_text(encoding='utf-8').partition('## ')[0].strip()
    for o in sidebar:
        if 'section' not in o: text += '\n\n' + line(o['href'])
        else: text += '\n\n'.join(['', f"## {o['section']}", '\n'.join(map(line, o['contents']))])
    index.write_text(text + '\n', encoding='utf-8')


def build() -> Path:
    "Build the site; return its folder."
    proc, site, tests = process()
    names = rename_pages(proc)
    for name in names.values(): relink_notebook(proc/name, name, names, site, tests)
    for path in proc.rglob('*.md'): describe(path)
    configure(proc, names)
    run = subprocess.run([sys.executable, '-m', 'smalldocs.cli', 'render', str(proc), '--quiet', '--strict'])
    if run.returncode: sys.exit('smalldocs could not render the pages without a warning; see above.')
    finish(proc/'_docs', site)
    write_index(proc/'_docs', yaml.safe_load((proc/'sidebar.yml').read_text())['website']['sidebar']['contents'], site)
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    return Path(shutil.move(proc/'_docs', ROOT/'_docs'))


# Check: what a reader could click on

class Page(HTMLParser):
    "The ids and the links of one HTML page."
    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(attrs[o] for o in ('id', 'name') if attrs.get(o))
        self.links += [attrs[o] for o in ('href', 'src') if attrs.get(o)]


def read_pages(docs: Path) -> dict[str, Page]:
    "The pages of the site in folder `docs`, by name: `core.html`, `tutorials/first_steps.html`."
    return {o.relative_to(docs).as_posix(): Page(o) for o in sorted(docs.rglob('*.html')) if 'site_libs' not in o.parts}


def problem(docs: Path, pages: dict[str, Page], page: str, link: str) -> str | None:
    "What is wrong with `link` on `page`; None for a good one and for one that leads elsewhere."
    url = urlsplit(link)
    if url.scheme or url.netloc: return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(url.path))) if url.path else page
    if (docs/target).is_dir(): target = posixpath.normpath(posixpath.join(target, 'index.html'))
    if not (docs/target).is_file(): return f'{page}: no page or file for the link {link}'
    if url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids:
        return f'{page}: no anchor for the link {link}'


def check_links(docs: Path, pages: dict[str, Page]) -> list[str]:
    "Broken links and anchors, on the pages and in their Markdown copies."
    found = [problem(docs, pages, name, link) for name, page in pages.items() for link in page.links]
    for path in docs.rglob('*.llms.md'):
        name = path.relative_to(docs).as_posix()
        found += [problem(docs, {}, name, m[1]) for m in RE_LINK.finditer(prose(path.read_text(encoding='utf-8')))]
    return [o for o in found if o]


def prose(md: str) -> str:
    "Markdown `md` without its code, in which a link is only an example."
    md = re.sub(r'^(`{3,}).*?^\1', '', md, flags=re.M | re.S)
    md = re.sub(r'^ {4}.*$', '', md, flags=re.M)
    return re.sub(r'`(?!\]\()[^`\n]+`', 'code', md)


def check_indices(docs: Path, pages: dict[str, Page]) -> list[str]:
    "What search and `llms.txt` miss, or list without its being there."
    entries = [o['href'] for o in json.loads((docs/'search.json').read_text(encoding='utf-8'))]
    listed = re.findall(r'\]\(([^)]+)\)', (docs/'llms.txt').read_text(encoding='utf-8'))
    found = [o for o in (problem(docs, pages, 'search.json', o) for o in entries) if o]
    for page in pages:
        if not any(o.split('#')[0] == page for o in entries): found.append(f'{page}: not found by search')
        copy = page.removesuffix('.html') + '.llms.md'
        if not (docs/copy).is_file() or not any(o.endswith('/' + copy) for o in listed): found.append(f'{page}: not in llms.txt')
    return found


def check_names(pages: dict[str, Page], addresses: dict[str, dict[str, str]]) -> list[str]:
    "Public functions, classes, methods and properties without an entry, so that `core.html#conkernelclient` always works."
    found = []
    for name, places in addresses.items():
        for module, ref in places.items():
            page, anchor = ref.split('#')
            if page not in pages or anchor not in pages[page].ids: found.append(f'{ref}: no entry for {name} of {module}')
    return found


def main():
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    docs = build()
    pages = read_pages(docs)
    problems = [*check_links(docs, pages), *check_indices(docs, pages), *check_names(pages, entries.library().addresses)]
    for o in dict.fromkeys(problems): print(o, file=sys.stderr)
    if problems: sys.exit(1)
    print(f'{len(pages)} pages in {docs.relative_to(ROOT)}/, all links good. Look: python -m http.server -d {docs.name}')


if __name__ == '__main__': main()
