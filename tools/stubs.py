"""Write `conkernelclient/core.pyi`: what type checkers and editors read of `core`. `python tools/stubs.py [--check]`.

Its classes have all their public methods in one body, those of their mixins in other modules too, and a method with a
`reply` parameter has an overload for each value. Written from the syntax tree of the sources, so nothing is imported.
With `--check` nothing is written, and the exit code is 1 when the file is not what would be written.
"""
import argparse, ast, builtins, difflib, sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB = 'conkernelclient'
WIDTH = 118
# The type parameters (to get, to set) of the traits in use; `{0}` is the class that a `Type` trait holds
TRAITS = dict(Integer=('int', 'int'), Float=('float', 'float'), Bool=('bool', 'bool'), Unicode=('str', 'str | bytes'),
              Type=('type[{0}]', 'type[{0}] | str'), DottedObjectName=())
# The traits of this package, and the trait of traitlets whose type each has
OWN_TRAITS = dict(Seconds=('traitlets', 'Float'))
# Where the classes that jupyter_client's packages pass on are defined (checkers want them from there)
HOMES = {('jupyter_client', 'AsyncKernelClient'): 'jupyter_client.asynchronous.client',
         ('jupyter_client', 'AsyncKernelManager'): 'jupyter_client.manager',
         ('jupyter_client.ioloop', 'AsyncIOLoopKernelManager'): 'jupyter_client.ioloop.manager'}
HEAD = '''\
# Written by tools/stubs.py from {0} and the modules below it. Do not edit.
# Overrides differ from jupyter_client's methods where these are sync, or take no `reply`:
# mypy: disable-error-code="override, assignment, misc"
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false'''
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unclear(Exception):
    "A public name has no type that can be read from the source"


@dataclass
class Module:
    name: str   # such as `conkernelclient.cells.run`
    path: Path

    @cached_property
    def text(self) -> list[str]: return self.path.read_text(encoding='utf-8').splitlines()

    @cached_property
    def tree(self) -> ast.Module: return ast.parse('\n'.join(self.text))

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]: return {o.name: o for o in self.tree.body if isinstance(o, ast.ClassDef)}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        "Each imported name, with its module and its name there; an empty one for a module itself"
        res = {}
        for o in ast.walk(self.tree):
            if isinstance(o, ast.ImportFrom):
                parts = self.name.split('.')[:-o.level] if o.level else []
                for a in o.names: res[a.asname or a.name] = '.'.join([*parts, *([o.module] if o.module else [])]), a.name
            elif isinstance(o, ast.Import):
                for a in o.names: res[a.asname or a.name.split('.')[0]] = a.name, ''
        return res

    def origin(self, name: str) -> tuple[str, str]|None:
        "Where `name` is defined: module and name; `None` for a builtin"
        if name in self.imports:
            module, there = self.imports[name]
            return HOMES.get((module, there), module), there
        return None if hasattr(builtins, name) and name not in self.classes else (self.name, name)


def load(package: Path) -> dict[str, Module]:
    "The modules of `package` by name"
    res = {}
    for path in sorted(package.rglob('*.py')):
        name = '.'.join([package.name, *path.relative_to(package).with_suffix('').parts])
        res[name] = Module(name, path)
    return res


@dataclass
class Class:
    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str: return self.node.name

    @property
    def key(self) -> tuple[str, str]: return self.module.name, self.name


def merge(chains: list[list]) -> list:
    "Python's order of base classes (C3)"
    chains = [list(o) for o in chains if o]
    res = []
    while chains:
        first = next((c[0] for c in chains if not any(c[0] in o[1:] for o in chains)), None)
        if first is None: raise Unclear('the base classes have no consistent order')
        res.append(first)
        chains = [rest for c in chains if (rest := [o for o in c if o != first])]
    return res


@dataclass
class Stub:
    modules: dict[str, Module]
    module: Module
    names: dict[tuple[str, str], str] = field(default_factory=dict)   # origin -> name in the stub

    # Classes and their bases

    def find(self, key: tuple[str, str]) -> Class|None:
        "The class of this package at `key`; `None` where it is another's"
        module = self.modules.get(key[0])
        if module is None: return None
        if key[1] in module.classes: return Class(module, module.classes[key[1]])
        return self.find(module.imports[key[1]]) if key[1] in module.imports else None

    def bases(self, cls: Class) -> list[tuple[Module, ast.expr, tuple[str, str]]]:
        res = []
        for o in cls.node.bases:
            name = o.value if isinstance(o, ast.Subscript) else o
            match name:
                case ast.Name(id=name): origin = cls.module.origin(name)
                case ast.Attribute(value=ast.Name(id=module), attr=name): origin = cls.module.origin(module)[0], name
                case _: raise Unclear(f'{cls.name}: base {ast.unparse(o)}')
            if origin is not None and origin[1] not in ('Protocol', 'Generic'): res.append((cls.module, o, origin))
        return res

    def mro(self, key: tuple[str, str]) -> list[tuple[str, str]]:
        cls = self.find(key)
        if cls is None: return [key]
        bases = [o[2] for o in self.bases(cls)]
        return [key, *merge([*map(self.mro, bases), bases])]

    def shown_bases(self, cls: Class) -> list[str]:
        "Its public bases; a private one gives its own"
        res = []
        for module, expr, origin in self.bases(cls):
            base = self.find(origin)
            res += self.shown_bases(base) if base is not None and base.name.startswith('_') else [self.annotation(module, expr)]
        return [o for i, o in enumerate(res) if o not in res[:i]]

    def flat(self, cls: Class) -> list[Class]:
        "The classes whose members stand in the body of `cls`: its own and those of this package up to another public class of the module"
        parts = [o for o in self.mro(cls.key) if self.find(o) is not None]
        shown = {o for k in parts[1:] if k[0] == self.module.name and not k[1].startswith('_') for o in self.mro(k)}
        return [self.find(o) for o in parts if o not in shown]

    # Types

    def use(self, origin: tuple[str, str]) -> str:
        "The name in the stub of what is defined at `origin`"
        if origin in self.names: return self.names[origin]
        module, name = origin
        if module == self.module.name: return name
        if name.startswith('_'): raise Unclear(f'{module}.{name} is private')
        wanted = name or module
        taken = {*self.names.values(), *self.public}
        self.names[origin] = wanted if wanted not in taken else f"_{module.rsplit('.')[-1]}_{name}"
        return self.names[origin]

    def annotation(self, module: Module, node: ast.expr) -> str:
        "The text of an annotation that stands in `module`, without quotes and with the names of the stub"
        stub = self
        class Names(ast.NodeTransformer):
            def visit_Constant(self, o):
                return self.visit(ast.parse(o.value, mode='eval').body) if isinstance(o.value, str) else o
            def visit_Subscript(self, o):
                if isinstance(o.value, ast.Name) and o.value.id == 'Literal':
                    o.value = self.visit(o.value)
                    return o
                return self.generic_visit(o)
            def visit_Name(self, o):
                origin = module.origin(o.id)
                return o if origin is None else ast.Name(stub.use(origin))
        return ast.unparse(Names().visit(ast.parse(ast.unparse(node), mode='eval').body))

    def trait(self, module: Module, call: ast.Call) -> str|None:
        "The type of a trait; `None` where `call` makes none"
        if not isinstance(call.func, ast.Name): return None
        origin = module.origin(call.func.id)
        if origin is not None: origin = OWN_TRAITS.get(origin[1], origin)
        if origin is None or origin[0] != 'traitlets': return None
        if origin[1] not in TRAITS: raise Unclear(f'TRAITS of tools/stubs.py has no {origin[1]}')
        kwargs = {o.arg: o.value for o in call.keywords}
        held = kwargs.get('klass') or (call.args[0] if call.args else None)
        none = ' | None' if 'allow_none' in kwargs else ''
        params = [o.format(self.annotation(module, held))+none if '{' in o else o+none for o in TRAITS[origin[1]]]
        return self.use(origin) + (f"[{', '.join(params)}]" if params else '')

    def value(self, module: Module, node: ast.expr) -> str|None:
        "The type of what is assigned, where the source shows it"
        match node:
            case ast.Constant(value=bool()|int()|float()|str()): return type(node.value).__name__
            case ast.Tuple(elts=elts): return f"tuple[{', '.join(self.value(module, o) or '?' for o in elts)}]"
            case ast.Call(func=ast.Attribute(value=ast.Name(id='logging'), attr='getLogger')): return f"{self.use(('logging', ''))}.Logger"
            case ast.Call(): return self.trait(module, node)
        return None

    # Members

    def members(self, cls: Class) -> dict[str, tuple[Module, str|list[Function]]]:
        "Its public members by name, each with the module that defines it: the type of an attribute, the definitions of a method"
        res: dict[str, tuple[Module, str|list[Function]]] = {}
        overloads: dict[tuple[str, str, str], list[Function]] = {}
        parts = self.flat(cls)[::-1]
        for part in parts:
            for o in part.node.body:
                match o:
                    case ast.AnnAssign(target=ast.Name(id=name)) if public(name):
                        res[name] = part.module, self.annotation(part.module, o.annotation)
                    case ast.Assign(targets=[ast.Name(id=name)]) if public(name):
                        res[name] = part.module, self.known(part, name, self.value(part.module, o.value))
                    case ast.FunctionDef(name=name)|ast.AsyncFunctionDef(name=name) if public(name):
                        again = any(isinstance(d, ast.Attribute) and d.attr in ('setter', 'deleter') for d in o.decorator_list)
                        before = overloads.setdefault((part.module.name, part.name, name), [])
                        if overloaded(o): before.append(o)   # (the definition behind the overloads is no part of a stub)
                        res[name] = part.module, [*res[name][1], o] if again else list(before) or [o]
        for part in parts:
            for name, kind in self.assigned(part):
                if name not in res and name not in self.inherited: res[name] = part.module, self.known(part, name, kind())
        return res

    # Traits of jupyter_client's classes that methods of ours assign
    inherited = {'session'}

    def assigned(self, cls: Class):
        "What the methods of `cls` set on `self`: names, and functions that give the types"
        for f in cls.node.body:
            if not isinstance(f, Function): continue
            params = {a.arg: a.annotation for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)}
            for o in ast.walk(f):
                target = o.target if isinstance(o, ast.AnnAssign) else o.targets[0] if isinstance(o, ast.Assign) else None
                match target:
                    case ast.Attribute(value=ast.Name(id='self'), attr=name) if public(name): pass
                    case _: continue
                annotation = o.annotation if isinstance(o, ast.AnnAssign) else None
                if annotation is None and isinstance(o.value, ast.Name): annotation = params.get(o.value.id)
                yield name, (lambda a=annotation, v=o.value: self.annotation(cls.module, a) if a is not None else self.value(cls.module, v))

    def known(self, cls: Class, name: str, kind: str|None) -> str:
        if kind is None or '?' in kind: raise Unclear(f'{cls.module.name}.{cls.name}.{name}: annotate it')
        return kind

    # Text

    def function(self, module: Module, node: Function, indent: str = '') -> list[str]:
        reply = next((o for o in node.args.kwonlyargs if o.arg == 'reply'), None)
        lines = [f'{indent}@{ast.unparse(o)}' for o in node.decorator_list]
        for o in node.decorator_list:
            if isinstance(o, ast.Name) and (origin := module.origin(o.id)): self.use(origin)
        if reply is None: return [*lines, *self.signature(module, node, indent)]
        if not (isinstance(node.returns, ast.BinOp) and isinstance(node.returns.op, ast.BitOr)):
            raise Unclear(f'{node.name}: a method with `reply` returns `str|Request`')
        self.use(('typing', 'overload'))
        self.use(('typing', 'Literal'))
        for kind, default, returns in (('Literal[False]', ' = False', node.returns.left), ('Literal[True]', '', node.returns.right),
                                       ('bool', '', node.returns)):
            lines += [f'{indent}@overload', *self.signature(module, node, indent, {'reply': (kind, default)}, returns)]
        return lines

    def signature(self, module: Module, node: Function, indent: str = '', special: dict[str, tuple[str, str]] = {},
                  returns: ast.expr|None = None) -> list[str]:
        returns = returns or node.returns
        if returns is None and node.name != '__init__': raise Unclear(f'{module.name}.{node.name}: annotate what it returns')
        generator = any(isinstance(o, (ast.Yield, ast.YieldFrom)) for o in ast.walk(node))
        begin = 'async def' if isinstance(node, ast.AsyncFunctionDef) and not generator else 'def'
        args = self.arguments(module, node, special)
        end = f"-> {'None' if returns is None else self.annotation(module, returns)}: ..."
        line = f"{indent}{begin} {node.name}({', '.join(args)}) {end}"
        if len(line) <= WIDTH: return [line]
        return [f'{indent}{begin} {node.name}(', *wrap(args, indent+'    '), f'{indent}) {end}']

    def arguments(self, module: Module, node: Function, special: dict[str, tuple[str, str]]) -> list[str]:
        a = node.args
        plain = [*a.posonlyargs, *a.args]
        defaults = [None]*(len(plain)-len(a.defaults)) + a.defaults
        res = []
        for i, (arg, value) in enumerate(zip(plain, defaults)):
            res.append(self.argument(module, node, arg, value))
            if i+1 == len(a.posonlyargs): res.append('/')
        if a.vararg is not None: res.append('*'+self.argument(module, node, a.vararg, None))
        elif a.kwonlyargs: res.append('*')
        for arg, value in zip(a.kwonlyargs, a.kw_defaults):
            if arg.arg in special: res.append('{}: {}{}'.format(arg.arg, *special[arg.arg]))
            else: res.append(self.argument(module, node, arg, value))
        if a.kwarg is not None: res.append('**'+self.argument(module, node, a.kwarg, None))
        return res

    def argument(self, module: Module, node: Function, arg: ast.arg, value: ast.expr|None) -> str:
        if arg.annotation is None and arg.arg in ('self', 'cls'): return arg.arg
        if arg.annotation is None: raise Unclear(f'{module.name}.{node.name}: annotate {arg.arg}')
        res = f'{arg.arg}: {self.annotation(module, arg.annotation)}'
        if value is None: return res
        plain = isinstance(value, ast.Constant) or isinstance(value, ast.UnaryOp) and isinstance(value.operand, ast.Constant)
        return f'{res} = {ast.unparse(value) if plain else "..."}'

    def klass(self, cls: Class) -> list[str]:
        bases = self.shown_bases(cls)
        lines = [f"class {cls.name}{'('+', '.join(bases)+')' if bases else ''}:"]
        members = self.members(cls)
        lines += [f'    {name}: {kind}' for name, (_, kind) in members.items() if isinstance(kind, str)]
        room = self.module
        for module, nodes in members.values():
            if isinstance(nodes, str): continue
            if module is not room: lines.append(f"    # {module.name.removeprefix(LIB+'.')}")
            room = module
            for o in nodes: lines += self.function(module, o, '    ')
        if len(lines) == 1: lines[0] += ' ...'
        return lines

    @cached_property
    def public(self) -> list[str]:
        node = next(o for o in self.module.tree.body if isinstance(o, ast.Assign) and ast.unparse(o.targets[0]) == '__all__')
        return ast.literal_eval(node.value)

    def body(self) -> dict[str, list[str]]:
        "The lines of each public name"
        res = {}
        for o in self.module.tree.body:
            match o:
                case ast.Assign(targets=[ast.Name(id=name)]) if name in self.public:
                    kind = self.value(self.module, o.value)
                    if kind is None: raise Unclear(f'{self.module.name}.{name}: annotate it')
                    res[name] = [f'{name}: {kind}']
                case ast.AnnAssign(target=ast.Name(id=name)) if name in self.public:
                    res[name] = [f'{name}: {self.annotation(self.module, o.annotation)}']
                case ast.ClassDef(name=name) if name in self.public: res[name] = self.klass(Class(self.module, o))
                case ast.FunctionDef(name=name)|ast.AsyncFunctionDef(name=name) if name in self.public:
                    res[name] = self.function(self.module, o)
        if missing := set(self.public)-set(res): raise Unclear(f"{', '.join(sorted(missing))}: not defined in {self.module.name}")
        return res

    def imports(self) -> list[str]:
        "Those of Python, of others and of this package, with an empty line between"
        groups: list[list[str]] = [[], [], []]
        here = self.module.name.rpartition('.')[0]
        for module in sorted({o for o, _ in self.names}):
            names = sorted((name, shown) for (m, name), shown in self.names.items() if m == module and name)
            own = module.startswith(here+'.')
            group = groups[2 if own else 0 if module.partition('.')[0] in sys.stdlib_module_names else 1]
            if (module, '') in self.names: group.append(f'import {module}')
            text = ', '.join(n if n == s else f'{n} as {s}' for n, s in names)
            if names: group.append(f"from {'.'+module.removeprefix(here+'.') if own else module} import {text}")
        return '\n\n'.join('\n'.join(o) for o in groups if o).split('\n')

    def text(self) -> str:
        blocks = self.body()
        names = ['__all__ = [', *wrap([repr(o) for o in self.public], '    '), ']']
        return '\n\n'.join('\n'.join(o) for o in ([HEAD.format(self.module.path.name), *self.imports()], names, *blocks.values())) + '\n'


def overloaded(node: Function) -> bool: return any(isinstance(o, ast.Name) and o.id == 'overload' for o in node.decorator_list)

def public(name: str) -> bool:
    "Is it shown? Special methods are, where not every object has them."
    if name.startswith('__') and name.endswith('__'): return name == '__init__' or name != '__del__' and not hasattr(object, name)
    return not name.startswith('_')


def wrap(items: list[str], indent: str) -> list[str]:
    "`items` with commas, in lines that are not too long"
    lines = []
    for o in items:
        if lines and len(lines[-1])+len(o)+2 <= WIDTH: lines[-1] += f' {o},'
        else: lines.append(f'{indent}{o},')
    return lines


def stub(package: Path, name: str = 'core') -> str:
    "The text of the stub of the module `name`"
    modules = load(package)
    return Stub(modules, modules[f'{package.name}.{name}']).text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='only say whether the file is up to date')
    args = parser.parse_args()
    dest = ROOT/LIB/'core.pyi'
    try: new = stub(ROOT/LIB)
    except Unclear as e: sys.exit(f'{dest.name}: {e}')
    old = dest.read_text(encoding='utf-8') if dest.exists() else ''
    if not args.check:
        if new != old: dest.write_text(new, encoding='utf-8')
        return 0
    sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), 'core.pyi', 'python tools/stubs.py'))
    return int(new != old)


if __name__ == '__main__': sys.exit(main())
