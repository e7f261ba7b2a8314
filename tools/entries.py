"""The entries of the reference: for each exported function and class, and for each public method and property.

A method is listed under the class that users hold: `ConKernelClient.run`, not `RunsCells.run`, wherever its code stands. Two
kinds of classes are only parts of others: private ones, and public ones that a class exported from the package itself
inherits. Signatures come from the source, so they show `*`, defaults and overloads as written, and no cell is run.
`tools/docs.py` puts the entries into the pages, behind the cells that export them.
"""
import ast, importlib, inspect, io, re, textwrap, tokenize
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType

from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import FilterDefaults, mk_cell

FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
MEMBERS = FunctionType, property, cached_property, classmethod, staticmethod
WIDTH = 80  # Characters in a line of a signature; a longer one is broken at its parameters
RE_NAME = re.compile(r'(?<!\[)`([^`\s]+)`')  # a name in backticks that is no link yet
MANY = 5  # A class with more entries than this begins with a list of them


# The source of a module

class Source:
    "The definitions in the source text of a module, by name (`Class.method` too), and its comments, by line."
    def __init__(self, text: str):
        self.lines = text.encode().split(b'\n')  # the places of the syntax tree count bytes
        self.defs, self.comments = {}, {}
        for node in ast.parse(text).body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)): continue
            self.defs.setdefault(node.name, []).append(node)
            for o in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(o, FUNCTIONS): self.defs.setdefault(f'{node.name}.{o.name}', []).append(o)
        for o in tokenize.generate_tokens(io.StringIO(text).readline):
            if o.type == tokenize.COMMENT: self.comments[o.start[0]] = o.string

    def comment(self, line: int) -> str:
        "The comment in `line`, if it is for readers: not for a type checker."
        text = self.comments.get(line, '').lstrip('#').strip()
        return re.sub(r'(^|\s*#\s*)(type|pyright|mypy|pragma|noqa):.*$', '', text)

    def segment(self, node: ast.AST) -> str:
        "The code of `node` in one line. (`ast.get_source_segment` would split the whole text each time.)"
        lines = self.lines[node.lineno-1:node.end_lineno]
        lines[-1] = lines[-1][:node.end_col_offset]
        return ' '.join(b'\n'.join([lines[0][node.col_offset:], *lines[1:]]).decode().split())

    def code(self, node: ast.AST | None) -> str:
        "The code of `node` in one line; an annotation that is written as a string, without its quotes."
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else self.segment(node)


@cache
def source(module: str) -> Source:
    "The source of a `module`, by its name."
    return Source(Path(inspect.getsourcefile(importlib.import_module(module))).read_text(encoding='utf-8'))


def overloaded(node) -> bool: return any(ast.unparse(o).split('.')[-1] == 'overload' for o in node.decorator_list)


def parameters(src: Source, node, method: bool) -> list[tuple[str, str, int]]:
    "The parameters of the function `node`, `*` and `/` included: each as it is written, its name, and its last line."
    args, res = node.args, []
    static = any(ast.unparse(o) == 'staticmethod' for o in node.decorator_list)
    def add(arg, default=None, stars=''):
        text = stars + arg.arg
        if arg.annotation: text += f': {src.code(arg.annotation)}'
        if default is not None: text += f'{" = " if arg.annotation else "="}{src.segment(default)}'
        res.append((text, stars + arg.arg, (default or arg).end_lineno))
    plain = [*args.posonlyargs, *args.args]
    for arg, default in zip(plain, [None]*(len(plain) - len(args.defaults)) + args.defaults):
        add(arg, default)
        if arg in args.posonlyargs[-1:]: res.append(('/', '', 0))
    if method and not static: res = res[1:] if res[1:2] != [('/', '', 0)] else res[2:]
    if args.vararg: add(args.vararg, stars='*')
    elif args.kwonlyargs: res.append(('*', '', 0))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults): add(arg, default)
    if args.kwarg: add(args.kwarg, stars='**')
    return res


def call(before: str, params: list[str], after: str) -> str:
    "`before(params)after` in one line, or with a line for each parameter."
    line = f'{before}({", ".join(params)}){after}'
    if len(line) <= WIDTH or not params: return line
    return f'{before}(\n' + ''.join(f'    {o},\n' for o in params) + f'){after}'


def signature(src: Source, node, name: str, method: bool) -> str:
    "The signature of the function `node`, called `name`."
    if any('property' in ast.unparse(o) for o in node.decorator_list):
        return f'{name}: {src.code(node.returns)}' if node.returns else name
    before = f'{"async " if isinstance(node, ast.AsyncFunctionDef) else ""}def {name}'
    return call(before, [o for o, _, _ in parameters(src, node, method)], f' -> {src.code(node.returns)}' if node.returns else '')


def meanings(src: Source, node, method: bool) -> list[tuple[str, str]]:
    "What the comments say of the parameters of the function `node` and of what it returns: docments."
    res, body = [], node.body[0].lineno
    params = parameters(src, node, method)
    for i, (_, name, line) in enumerate(params):
        last = line not in [o for _, _, o in params[i+1:]]  # a comment belongs to the last parameter in its line
        if name and last and line < body and (text := src.comment(line)): res.append((f'`{name}`', text))
    if node.returns and node.returns.end_lineno < body and (text := src.comment(node.returns.end_lineno)):
        if node.returns.end_lineno not in [o for _, _, o in params]: res.append(('returns', text))
    return res


def table(head: str, rows: list[tuple[str, str]]) -> str:
    "A Markdown table of two columns; empty without `rows`."
    def cell(text): return re.sub(r'(?<!\\)\|', r'\\|', text)
    if not rows: return ''
    return '\n'.join([f'| {head} | |', '|---|---|', *(f'| {cell(a)} | {cell(b)} |' for a, b in rows)])


def docstring(node) -> str:
    "The docstring of `node`, as a paragraph of Markdown."
    return textwrap.dedent(ast.get_docstring(node) or '').replace('\n\n', '\0').replace('\n', ' ').replace('\0', '\n\n')


def sentence(text: str) -> str:
    "The first sentence of a docstring."
    return re.split(r'(?<=[.!?])\s|\n\n', text, maxsplit=1)[0].rstrip('.')


def clause(text: str) -> str:
    "The first sentence of a docstring up to a semicolon or colon, with a capital letter: enough for a list."
    res = re.match(r'(?:`[^`]*`|[^`]){12,}?(?=[;:] |$)|.*', sentence(text), re.S)[0]
    return res[:1].upper() + res[1:]


# The classes of the library

class Library:
    "What a package exports, and where each name has its entry."
    def __init__(self, name: str):
        self.name = name
        self.index = importlib.import_module(f'{name}._modidx').d['syms']
        self.modules = {o: importlib.import_module(o) for o in self.index}
        package = importlib.import_module(name)
        self.exports = getattr(package, '__all__', [])
        self.top = [o for o in map(package.__dict__.get, self.exports) if inspect.isclass(o)]

    def own(self, cls: type) -> bool: return cls.__module__ in self.index

    def exported(self, module: str) -> dict[str, object]:
        "The functions and classes that `module` exports, by name."
        mod = self.modules[module]
        found = {o: vars(mod).get(o) for o in getattr(mod, '__all__', [])}
        return {k: v for k, v in found.items() if callable(v) and f'{module}.{k}' in self.index[module]}

    def public(self, cls: type) -> bool: return self.own(cls) and not cls.__qualname__.startswith('_')

    def part(self, cls: type) -> bool:
        "Is `cls` only a part of other classes, which have the entries of its methods?"
        return not self.public(cls) or cls not in self.top and any(cls in o.__mro__ for o in self.top)

    def page(self, cls: type) -> str: return self.index[cls.__module__][f'{cls.__module__}.{cls.__name__}'][0].split('#')[0]

    @cache
    def members(self, cls: type) -> dict[str, type]:
        "The public methods and properties of `cls`, each with the class in whose body it stands: first its own, then those of its bases."
        res, order = {}, [o for o in cls.__mro__ if self.own(o)]
        for o in order:
            for name, value in vars(o).items():
                if not name.startswith('_') and isinstance(value, MEMBERS): res.setdefault(name, o)
        # Mixins as the story goes: the first one is the base of all others. Those of other modules come last.
        story = sorted([*order[:1], *reversed(order[1:])], key=lambda o: o.__module__ != cls.__module__)
        return {k: v for o in story for k, v in res.items() if v is o}

    @cache
    def owner(self, cls: type, name: str) -> type:
        "The class under whose name the member `name` of `cls` has its entry."
        where = self.members(cls)[name]
        public = [o for o in cls.__mro__[1:] if self.public(o) and where in o.__mro__]
        held = next((o for o in public if not self.part(o)), None)
        if held: return self.owner(held, name)
        if self.part(cls): return next((self.owner(o, name) for o in self.top if cls in o.__mro__), cls)
        return self.owner(public[0], name) if public and cls not in self.top else cls

    def entries(self, cls: type) -> dict[str, type]:
        "The members of `cls` that have their entry under its name, each with the class in whose body it stands."
        return {k: v for k, v in self.members(cls).items() if self.owner(cls, k) is cls}

    def address(self, cls: type, name: str) -> str:
        "Page and anchor of the entry of a member of `cls`."
        owner = self.owner(cls, name)
        return f'{self.page(owner)}#{owner.__name__}.{name}'.split('#')[0] + f'#{owner.__name__}.{name}'.lower()

    @cached_property
    def addresses(self) -> dict[str, dict[str, str]]:
        "For each name, its pages with anchors, by module: `run_kernel`, `ConKernelClient.run`, `RunsCells.run`."
        res: dict[str, dict[str, str]] = {}
        for module in self.index:
            for name, o in self.exported(module).items():
                res.setdefault(name, {})[module] = self.index[module][f'{module}.{name}'][0]
                for member in self.members(o) if inspect.isclass(o) else []:
                    res.setdefault(f'{name}.{member}', {})[module] = self.address(o, member)
        return res

    def find(self, name: str, module: str | None = None) -> str | None:
        "The address for a `name` in the text of the page of `module`; None where it is not public, or may be one of several."
        for prefix in sorted(self.index, key=len, reverse=True):
            if name.startswith(prefix + '.'): name, module = name.removeprefix(prefix + '.'), prefix
        found = self.addresses.get(name, {})
        tops = [v for k, v in found.items() if any(o.__module__ == k and o.__name__ == name.split('.')[0] for o in self.top)]
        if module in found: return found[module]
        return (tops or [*found.values(), None])[0] if tops or len(found) == 1 else None


    def meant(self, name: str, module: str | None) -> bool:
        "Does a bare `name` on the page of `module` mean ours? One word in lower case, as `check`, is often a parameter or a value."
        return not (name.isalpha() and name.islower()) or name in self.exports or module in self.addresses.get(name, {})


@cache
def library() -> Library: return Library(get_config().lib_name)


# Entries, as Markdown

def entry(title: str, module: str, line: int, code: str, *parts: str) -> str:
    "An entry: its heading with an anchor, a link to its `line`, its signature and the `parts` of its text."
    cfg = get_config()
    py = module.replace('.', '/') + '.py'
    link = f'[source]({cfg.git_url}/blob/{cfg.branch}/{py}#L{line}){{target="_blank" style="float:right; font-size:smaller"}}'
    return '\n\n'.join(['---', link, f'### {title} {{#{title.lower()}}}', f'```python\n{code}\n```', *filter(None, parts)])


def function_entry(module: str, name: str, title: str = '', method: bool = False) -> str:
    "The entry of a function, or of a method that stands as `name` (`Class.method`) in `module` and is shown as `title`."
    src = source(module)
    nodes = src.defs[name]
    shown = [o for o in nodes if overloaded(o)]
    node = definition(module, name)
    title = title or name
    short = title.split('.')[-1]
    code = '\n'.join(signature(src, o, short, method) for o in [*shown, node])
    return entry(title, module, node.lineno, code, docstring(node), table('parameter', meanings(src, node, method)))


def member_entry(cls: type, name: str) -> str:
    "The entry of a method or property of `cls`."
    return function_entry(*written(cls, name), f'{cls.__name__}.{name}', method=True)


def written(cls: type, name: str) -> tuple[str, str]:
    "The module and the name in its source of the member `name` of `cls`: `close = stop` leads to `stop`."
    where = library().members(cls)[name]
    value = vars(where)[name]
    func = getattr(value, 'fget', None) or getattr(value, 'func', None) or getattr(value, '__func__', value)
    return where.__module__, f'{where.__name__}.{func.__name__}'


def definition(module: str, name: str):
    "The node with the docstring and the parameters of the function or method `name` of `module`."
    nodes = source(module).defs[name]
    return nodes[-1] if overloaded(nodes[0]) else nodes[0]  # a property has its setter after it


def attributes(cls: type) -> list[tuple[str, str]]:
    "The public attributes of `cls` and of its private parts that a comment or the help of a trait explains."
    rows: dict[str, str] = {}
    for o in reversed([o for o in cls.__mro__ if o is cls or library().own(o) and o.__name__.startswith('_')]):
        src = source(o.__module__)
        for node in src.defs[o.__name__][0].body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
            if not isinstance(target, ast.Name) or target.id.startswith('_'): continue
            trait = vars(o).get(target.id)
            help = getattr(trait, 'help', '') if hasattr(trait, 'default_value') else ''
            text = f'{help.rstrip(".")}. Default: `{trait.default_value!r}`' if help else src.comment(node.end_lineno)
            if text: rows[target.id] = text
    return [(f'`{k}`', v) for k, v in rows.items()]


def constructor(cls: type) -> tuple[str, list[tuple[str, str]]]:
    "How to make a `cls`, and the meaning of its parameters; without an `__init__` of the library, its head and its fields."
    owner = next((o for o in cls.__mro__ if library().own(o) and '__init__' in vars(o) and isinstance(vars(o)['__init__'], FunctionType)
                  and f'{o.__name__}.__init__' in source(o.__module__).defs), None)
    if owner and not getattr(cls, '_is_protocol', False):
        src = source(owner.__module__)
        node = src.defs[f'{owner.__name__}.__init__'][0]
        return call(cls.__name__, [o for o, _, _ in parameters(src, node, True)], ''), meanings(src, node, True)
    src = source(cls.__module__)
    node = src.defs[cls.__name__][0]
    bases = [src.code(o) for o in node.bases if not src.code(o).startswith('_')]
    fields = [o for o in node.body if isinstance(o, (ast.AnnAssign, ast.Assign))]
    lines = [f'    {src.code(o)}' for o in fields if not src.code(o).startswith('_')]
    return '\n'.join([call(f'class {cls.__name__}', bases, ':' if lines else '') if bases else f'class {cls.__name__}{":" if lines else ""}', *lines]), []


def bases(cls: type) -> str:
    "The public classes that `cls` extends, those of its private parts too."
    found = []
    for o in cls.__mro__[1:]:
        if library().own(o) and library().part(o) or o.__name__ in ('object', 'Protocol', 'Generic') or any(o in x.__mro__ for x in found): continue
        found.append(o)
    return f'Extends {", ".join(f"`{o.__name__}`" for o in found)}.' if found else ''


def site() -> str: return get_config().doc_host + get_config().doc_baseurl


def link(cls: type, name: str, short: bool = False) -> str:
    "A link to the entry of a member of `cls`; a `short` one is without the name of its class."
    text = name if short else f'{library().owner(cls, name).__name__}.{name}'
    return f'[`{text}`]({site()}/{library().address(cls, name)})'


def class_entry(cls: type) -> str:
    "The entry of `cls`: how to make it, its attributes, and a list of its methods where they are many or have their entries elsewhere."
    lib, src = library(), source(cls.__module__)
    node = src.defs[cls.__name__][0]
    code, rows = constructor(cls)
    mine, all = lib.entries(cls), lib.members(cls)
    listed = [(link(cls, o, short=True), sentence(docstring(definition(*written(cls, o))))) for o in (mine if len(mine) > MANY else [])]
    near = [k for k, v in all.items() if v is cls or not lib.public(v)] if lib.part(cls) else all  # not those of another part
    elsewhere = ', '.join(link(cls, o) for o in near if o not in mine)
    return entry(cls.__name__, cls.__module__, node.lineno, code, docstring(node), bases(cls), table('parameter', rows),
                 table('attribute', attributes(cls)), table('method', listed), f'Its methods are {elsewhere}.' if elsewhere and lib.part(cls)
                 else f'Inherited: {elsewhere}.' if elsewhere else '')


def entries(module: str, names: list[str]) -> list[str]:
    "The entries to show behind a cell that defines `names`, classes and functions of `module`."
    lib, res = library(), []
    for name in names:
        o = getattr(lib.modules[module], name)
        if not inspect.isclass(o):
            if not name.startswith('_'): res.append(function_entry(module, name))
            continue
        if lib.public(o): res.append(class_entry(o))
        # What is written in this class, under the names of the classes of this page that have it
        for cls in (v for v in lib.exported(module).values() if inspect.isclass(v) and o in v.__mro__):
            res += [member_entry(cls, k) for k, where in lib.entries(cls).items() if where is o]
        # And what this class has from other pages
        if lib.public(o): res += [member_entry(o, k) for k, where in lib.entries(o).items() if where.__module__ != module]
    return res


# At a glance: a line for each name

RE_GLANCE = re.compile(r'^<!-- glance (\w+)(?::(.*?))? -->$', re.M | re.S)


def brief(src: Source, node, name: str, method: bool) -> str:
    "A call of the function `node`, called `name`, with the parameters it must have; a property is only its name."
    if any('property' in ast.unparse(o) for o in node.decorator_list): return name
    params = [(text, param) for text, param, _ in parameters(src, node, method) if param]
    must = [param for text, param in params if '=' not in text and not param.startswith('*')]
    return f'{name}({", ".join(must + ["…"] * (len(must) < len(params)))})'


def lines(name: str) -> dict[str, str]:
    "The lines of the list for the exported class or function `name` of the package, by what each explains."
    lib = library()
    o = getattr(importlib.import_module(lib.name), name)
    def item(code, address, text): return f'- [`{code}`]({site()}/{address}) {clause(text)}'
    if not inspect.isclass(o):
        node = definition(o.__module__, name)
        return {name: item(brief(source(o.__module__), node, name, False), lib.find(name), docstring(node))}
    res = {name: item(name, lib.find(name), docstring(definition(o.__module__, name)))}
    for member in lib.entries(o) if not issubclass(o, BaseException) else []:
        module, there = written(o, member)
        node = definition(module, there)
        res[member] = item(brief(source(module), node, member, True), lib.address(o, member), docstring(node))
    known = [a for base in o.__mro__[1:] if base in lib.top for a, _ in attributes(base)]
    for code, text in attributes(o) if not issubclass(o, BaseException) else []:
        member = code.strip('`')
        if member not in res and code not in known: res[member] = item(member, lib.find(name), text)
    return res


def glance(md: str, seen: dict[str, set[str]]) -> str:
    """Markdown `md` with a list in place of each `<!-- glance Class: name name -->`: a line for each name, or for all that are
    not yet in `seen`, where it notes them by class. Raises `ValueError` for a name that is not there."""
    def fill(m):
        found, done = lines(m[1]), seen.setdefault(m[1], set())
        names = [o for o in found if o not in done]
        if m[2] is not None: names = [*([m[1]] if m[1] in names else []), *m[2].split()]
        done.update(names)
        if unknown := [o for o in names if o not in found]: raise ValueError(f'glance: {m[1]} has no {", ".join(unknown)}')
        return '\n'.join(found[o] for o in names)
    return RE_GLANCE.sub(fill, md)


def unseen(seen: dict[str, set[str]]) -> list[str]:
    "The names that the package exports, and their members, that are not in `seen`."
    names = importlib.import_module(library().name).__all__
    return [f'{name}.{o}' for name in names for o in lines(name) if o not in seen.get(name, set())]


# Into the pages

def module_of(nb) -> str | None:
    "The module that the notebook `nb` exports to."
    for cell in nb.cells:
        if cell.cell_type == 'code' and (name := getattr(cell, 'directives_', {}).get('default_exp')): return f'{library().name}.{name[0]}'


class Entries:
    "Puts the entries behind the cells that export their names, and the name of the module first; a processor for nbdev."
    def __init__(self, nb): self.nb = nb

    def begin(self):
        module, seen = module_of(self.nb), {}
        for cell in self.nb.cells:
            if cell.cell_type == 'markdown': cell.source = glance(cell.source, seen)
        if seen and (missing := unseen(seen)): raise ValueError(f'no line at a glance for {", ".join(missing)}')
        for i, cell in reversed(list(enumerate(self.nb.cells))):
            if cell.cell_type != 'code': continue
            if re.search(r'^show_doc\(', cell.source, flags=re.M): raise ValueError('show_doc is not needed: tools/docs.py writes all entries')
            if 'export' not in cell.directives_ or 'hide' in cell.directives_ or not module: continue
            names = [o.name for o in ast.parse(cell.source).body if isinstance(o, (*FUNCTIONS, ast.ClassDef))]
            self.nb.cells[i+1:i+1] = [mk_cell(o, 'markdown') for o in entries(module, list(dict.fromkeys(names)))]
        if module: self.nb.cells.insert(1, mk_cell(f'Module `{module}`', 'markdown'))   # (a page has the name of its topic)


class Filters(FilterDefaults):
    "nbdev's processors, with our entries in place of its own, and links to them."
    def base_procs(self):
        replaced = 'add_show_docs', 'clean_show_doc', 'exec_show_docs'
        return [Entries if o.__name__ == 'add_show_docs' else o for o in super().base_procs() if o.__name__ not in replaced[1:]]

    def __call__(self, nb):
        proc = self.nb_proc(nb)
        before = NbdevLookup.link_line
        NbdevLookup.link_line = lambda lookup, line: link_names(line, module_of(proc.nb), lookup.doc)
        try: proc.process()
        finally: NbdevLookup.link_line = before


def link_names(line: str, module: str | None, others=lambda name: None) -> str:
    "Make each name in backticks in the `line` of Markdown a link to its entry; `others` knows those of other libraries."
    def replace(m):
        name = m[1].removesuffix('()')
        address = library().find(name, module) if library().meant(name, module) or m[1] != name else None
        other = None if address else others(name)
        if other and other.startswith(site()): other = None  # nbdev lists private names and those of parts
        return f'[{m[0]}]({site()}/{address})' if address else f'[{m[0]}]({other})' if other else m[0]
    return RE_NAME.sub(replace, line)
