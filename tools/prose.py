"""Count turns of phrase that are hard to read, in prose cells, docstrings, comments and error messages.

    python tools/prose.py              # the counts, beside those that are committed; fails where one has grown
    python tools/prose.py told who     # and each sentence that has one of these patterns
    python tools/prose.py --write      # commit to lower counts (with --accept, to higher ones: after a merge)

The counts are in `tools/prose.json`, and may only fall. If a new sentence is counted wrongly, write it in another way, or
make the pattern more precise and add the sentence to `tests/test_tools.py`.
"""
import argparse, ast, io, json, re, sys, tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ROOT/'tools/prose.json'
START = r'(?:^|(?<=[.:;!?] )|(?<=\| )|(?<=\*\* ))'   # of a sentence
VERB = r'(?:is|are|was|were|has|have|had|does|do|did|can|may|must|will|would|\w+s)'
PATTERNS = {  # name: (what it looks for, what to write instead)
    'who': (rf'(?i){START}who(?:ever)? (?!to\b)(?![^.]*[?])[^.?]*[.,:;]|\b(?:and|but|so|that|to|for|by|from|than|when|if|of) who(?:ever)? {VERB}\b',
            'the caller, the reader, you; a plural noun'),
    'what': (rf'{START}What(?:ever)? (?!to\b|is (?:new|next)\b)[^.?|:]*\b{VERB}\b[^.?|:]*[.]', 'the thing by its name'),
    'told': (r'\b(?:is|are|be|been|was|were|being|gets?|got) told\b(?! from)|\b(?:is|are|was|were|be) let go\b', 'raises, fails, receives'),
    'people': (r'(?i)\b(?:everybody|everyone|nobody|somebody|anybody)\b', 'no caller, each caller, another client'),
    'at once': (r'(?i)(?<!many cells )\bat once\b', 'immediately, or: at the same time'),
    'for ever': (r'(?i)\bfor ever\b', 'forever'),
    'for = because': (r'(?<=[,;:] )for (?:it|they|he|the|this|that|these|there|a|an|you|all|both|each|what|nothing|one|its) (?:(?!that\b|which\b)[\w`.]+ ){0,3}'
                      r'(?:is|are|was|were|has|have|had|can|cannot|may|must|does|do|would|will)\b', 'because'),
    'makes of': (r'(?i)\b(?:makes?|made|making) (?:an? |the )?(?:\w+ )?of (?:it|them|that|this)\b'
                 r'|\b(?:becomes?|became|come|comes|came) of (?:it|them|that|this|a|an|the|each|all|what)\b', 'turns … into; results'),
    'be it': (r'(?i)\bbe (?:it|they|that)\b(?! (?:said|so))', 'whether'),
    'mended': (r'(?i)\b(?:mend(?:s|ed|ing)?|cures?|cured)\b', 'fix'),
    'in line': (r'(?i)\b(?:in|stand\w*) line\b(?! with)', 'queued'),
    'meanwhile': (r'(?i)\bmeanwhile\b|\bin the meantime\b', 'while …'),
    'hears': (r'(?i)\b(?:hears?|heard) (?:so|of|that|nothing|about|from)\b', 'receives, is notified'),
    'as they come': (r'(?i)\b(?:as|while) (?:it|they|each) (?:come|comes|came)\b', 'live; as they arrive; unchanged'),
    'stands': (r'(?i)\bstands?\b(?! (?:for|in for|out|by|on their own)\b)(?!-)', 'is'),
    'is no': (r'(?i)(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|other\b)\w+', 'is not a'),
    'all the same': (r'(?i)\ball the same\b', 'nevertheless'),
    'tells': (r'(?i)\b(?:tells?|told)(?: of\b|[.;:|]| ?$)', 'shows, reports'),
    'shall': (r'(?i)\bshall\b', 'should, must'),
    'anew': (r'(?i)\banew\b', 'again, new'),
    'time-out': (r'(?i)\btime-outs?\b', 'timeout'),
    'aside': (r'(?:^|(?<=[.:!?] ))\((?=[A-Z`])[^()]{12,}[.]\)', 'a sentence without brackets, or nothing'),
    'that is': (rf'{START}(?:That|Those) (?:is|are|was|were|has|have|does|makes?|means?|costs?)\b', 'the noun'),
    'heading': (r'^#+ (?:What (?!to\b)|Who |And |But |So |A look|The rest|How (?:is|far|does|do) |Which |Why )', 'a heading that names the thing'),
    'word order': (r'(?i)\b(?:no (?:more|longer) (?:there|its)|all of it\.$|none of (?:ours|its)|is the like|and the like of|as ever)\b', 'plain words'),
}
LONG = 45   # Words in a sentence, at most


class Said(NamedTuple):
    where: str
    text: str


# Where the prose is

def plain(text: str) -> str:
    "Markdown without code blocks and what stands in backticks, links by their words"
    text = re.sub(r'(?ms)^```.*?^```|^<.*?>$', '', text)
    text = re.sub(r'`[^`\n]+`', '`x`', text)
    return re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)


def cells(root: Path) -> Iterator[tuple[str, str, str]]:
    "Place, kind and source of each cell of the notebooks"
    for path in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts: continue
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            yield f"{path.relative_to(root/'nbs')} {cell.get('id', '')}", cell['cell_type'], ''.join(cell['source'])


def exported(source: str) -> bool: return any(o.startswith('#| export') or o.startswith('#|export') for o in source.splitlines()[:5])


def words_of(node: ast.AST) -> str:
    "The words of a string, or of an f-string without what is put in"
    if isinstance(node, ast.Constant): return node.value if isinstance(node.value, str) else ''
    if isinstance(node, ast.JoinedStr): return ''.join(words_of(o) or 'x' for o in node.values)
    if isinstance(node, ast.BinOp): return words_of(node.left) + words_of(node.right)
    if isinstance(node, ast.IfExp): return f'{words_of(node.body)} | {words_of(node.orelse)}'
    return ''


def in_code(source: str) -> Iterator[str]:
    "Docstrings, comments, and the messages of exceptions and logs"
    try: tree = ast.parse(source)
    except SyntaxError: return   # (a magic)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): yield ast.get_docstring(node) or ''
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if name.endswith(('Error', 'Timeout', 'Kernel', 'Feature', 'Warning', 'Exit')) or name in ('NotConnected', 'warning', 'error', 'info', 'warn'):
                yield from map(words_of, node.args)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r'# *(?:\||type:|noqa)', token.string): yield token.string.lstrip('# ')


def prose(root: Path = ROOT) -> Iterator[Said]:
    "All prose of the project, piece by piece"
    for where, kind, source in cells(root):
        if kind == 'markdown': yield Said(where, plain(source))
        elif kind == 'code' and exported(source): yield from (Said(where, plain(o)) for o in in_code(source) if o)
    for name in 'CONTRIBUTING.md', 'benchmarks/README.md', 'tests/servers/README.md': yield Said(name, plain((root/name).read_text(encoding='utf-8')))


# What is counted

def sentences(text: str) -> Iterator[str]:
    "The sentences of Markdown: headings and the cells of tables stand alone"
    for block in re.split(r'\n\s*\n|\n(?=#|\||[-*] |\d+\. )|(?<!^)\|', text):
        block = ' '.join(block.split()).strip('|>').strip()
        yield from (o for o in re.split(r'(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.) (?=[A-Z`(*]|jupyter_client|ipykernel|nbclient|pandas)', block.removeprefix('- ')) if o)


def found(text: str) -> Iterator[tuple[str, str]]:
    "The patterns in a text, each with its sentence"
    for sentence in sentences(text):
        for name, (regex, _) in PATTERNS.items():
            yield from ((name, sentence) for _ in re.finditer(regex, sentence))
        if len(sentence.split()) > LONG: yield 'long', sentence


def hits(root: Path = ROOT) -> dict[str, list[Said]]:
    "For each pattern, the sentences that have it"
    res: dict[str, list[Said]] = {o: [] for o in (*PATTERNS, 'long')}
    for said in prose(root):
        for name, sentence in found(said.text): res[name].append(Said(said.where, sentence))
    return res


def grown(now: dict[str, list[Said]], before: dict[str, int]) -> list[str]:
    "What to say where a count has grown: the pattern, what to write, and its sentences"
    return [f"{name}: {before.get(name, 0)} -> {len(o)} (write: {PATTERNS[name][1] if name in PATTERNS else f'sentences of at most {LONG} words'})\n"
            + '\n'.join(f'  {x.where}: {x.text}' for x in o) for name, o in now.items() if len(o) > before.get(name, 0)]


def main():
    parser = argparse.ArgumentParser(description='Count turns of phrase that are hard to read.')
    parser.add_argument('patterns', nargs='*', help='show the sentences that have these')
    parser.add_argument('--write', action='store_true', help='write the present counts to tools/prose.json, if none has grown')
    parser.add_argument('--accept', action='store_true', help='with --write: also counts that have grown')
    args = parser.parse_args()
    now, before = hits(), json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    for name in args.patterns: print(f'{name}:', *(f'  {o.where}: {o.text}' for o in now[name]), sep='\n')
    if not args.patterns:
        for name, o in now.items(): print(f'{name:16}{len(o):5}{before.get(name, 0):6}')
    problems = grown(now, before) if before else []
    if args.write and (args.accept or not problems): COUNTS.write_text(json.dumps({k: len(o) for k, o in now.items()}, indent=1) + '\n')
    elif problems: sys.exit('\n'.join(problems))


if __name__ == '__main__': main()
