"""Write README.md from `nbs/index.ipynb`. From the root of the project: `python tools/readme.py`.

It is the notebook as nbdev processes it for the docs, with its saved outputs: nothing is run. Links are made to work
wherever a README is shown, so they lead to the docs site by their full address.
"""
import os, re, sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NOTE = '<!-- Made from nbs/index.ipynb by tools/readme.py. Change the notebook, not this file. -->'
RE_LINK = re.compile(r'(!?)\[([^\]]*)\]\((?!#)([^)\s:]+)\)')  # a Markdown link or image without a scheme
RE_OPTION = re.compile(r'^#\|\s*([\w-]+):\s*(.*)$')


def text(o: str | list) -> str:
    "A string that a notebook may keep as a list of lines."
    return o if isinstance(o, str) else ''.join(o)


def fenced(code: str, lang: str = '') -> str:
    "`code` in a fence that is longer than any in it."
    fence = '`' * max(3, 1 + max((len(o) for o in re.findall('`+', code)), default=0))
    return f'{fence}{lang}\n{code.strip(chr(10))}\n{fence}'


def absolute(md: str, site: str, raw: str) -> str:
    "Markdown `md` with relative links led to the docs `site`, and relative images to the files under `raw`."
    def link(m):
        image, label, target = m.groups()
        if image: return f'![{label}]({raw}/{target})'
        page, _, anchor = target.partition('#')
        page = re.sub(r'(^|/)\d+\w*?_', r'\1', page.removesuffix('.ipynb')) + '.html' if page.endswith('.ipynb') else page
        return f'[{label}]({site}/{page}{"#" + anchor if anchor else ""})'
    return RE_LINK.sub(link, md)


def output(out: dict) -> str:
    "One saved output as Markdown: what is Markdown as it is, all else as it was printed."
    if out['output_type'] == 'stream': return fenced(text(out['text']))
    if out['output_type'] == 'error': return fenced(f"{out['ename']}: {out['evalue']}")
    data = out['data']
    if 'text/markdown' in data: return text(data['text/markdown'])
    if any(o.startswith('image/') for o in data): sys.exit('README.md cannot hold a picture that a cell made: link to a file.')
    return fenced(text(data['text/plain']))


def code_cell(cell: dict) -> list[str]:
    "A code cell and its outputs, as its `#|` options ask (`echo`, `output`, `include`)."
    lines = cell['source'].splitlines()
    options = {}
    while lines and lines[0].startswith('#|'):
        if m := RE_OPTION.match(lines.pop(0)): options[m[1]] = m[2].strip()
    def wanted(o): return options.get(o) != 'false' and options.get('include') != 'false'
    code = [fenced('\n'.join(lines), 'python')] if wanted('echo') and ''.join(lines).strip() else []
    return code + [output(o) for o in cell.get('outputs', [])] if wanted('output') else code


def convert(nb, site: str, raw: str) -> str:
    "README text from `nb`, a notebook that nbdev has processed."
    parts = [NOTE]
    for cell in nb.cells:
        if cell.cell_type == 'raw':
            front = yaml.safe_load(cell.source.strip().strip('-')) or {}
            parts += [f"# {front['title']}"] * ('title' in front) + [f"> {front['description']}"] * ('description' in front)
        elif cell.cell_type == 'code': parts += code_cell(cell)
        elif not cell.source.startswith('<!--'): parts.append(absolute(cell.source.strip(), site, raw))
    res = '\n\n'.join(parts) + '\n'
    if re.search(r'^:::', res, flags=re.M): sys.exit("README.md cannot hold Quarto's ::: blocks: write a quote instead.")
    return res


def main():
    os.chdir(ROOT)
    from execnb.nbio import read_nb
    from nbdev.config import get_config
    from nbdev.doclinks import NbdevLookup
    from nbdev.processors import FilterDefaults
    os.environ['IN_TEST'] = '1'  # as nbdev sets when it processes pages: a notebook's own export does nothing
    NbdevLookup.linkify = lambda self, md: md  # which names become links would depend on what is installed
    cfg = get_config()
    nb = read_nb(cfg.nbs_path/cfg.readme_nb)
    FilterDefaults()(nb)
    raw = f'https://raw.githubusercontent.com/{cfg.user}/{cfg.repo}/{cfg.branch}/{cfg.nbs_path.name}'
    (ROOT/'README.md').write_text(convert(nb, cfg.doc_host + cfg.doc_baseurl, raw), encoding='utf-8')


if __name__ == '__main__': main()
