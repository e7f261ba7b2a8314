"""The rules of the house, held over the syntax tree: which module knows which, and no private name of another one."""
import ast, importlib, subprocess, sys
from collections import Counter
from pathlib import Path
import pytest
from syntax import PACKAGE, stubs

LIB = PACKAGE.name

# Each module with those it may import, in the order of building: a module knows only what stands above it
ENGINE = 'engine.session engine.errors engine.request engine.lane engine.life engine.router engine.transport engine.connection'
KNOWS = {
    'cells.readable': '',
    'cells.llm': 'cells.readable',
    'engine.session': '',
    'engine.errors': 'cells.llm',
    'engine.request': 'engine.errors engine.session',
    'engine.lane': '',
    'engine.life': 'engine.errors engine.lane',
    'engine.router': 'engine.request engine.lane engine.session',
    'engine.transport': 'engine.errors engine.life engine.session',
    'engine.connection': 'engine.session engine.errors engine.request engine.lane engine.life engine.router engine.transport',
    'transports.sockets': 'engine.errors',
    'transports.ports': '',
    'transports.ledger': '',
    'transports.zmq': 'engine.transport engine.session engine.errors engine.life transports.sockets transports.ledger',
    'transports.peer': 'engine.transport',
    'transports.websocket': 'engine.transport engine.session engine.errors engine.life transports.ledger transports.peer',
    'cells.wire': '',
    'cells.outputs': 'cells.llm cells.readable cells.wire engine.errors',
    'cells.show': 'cells.llm cells.outputs',
    'cells.jobs': 'engine.errors engine.request cells.llm cells.outputs',
    'cells.stop': ENGINE,
    'cells.comm': ENGINE,
    'cells.run': f'{ENGINE} cells.outputs cells.show cells.jobs cells.stop cells.comm',
    'cells.values': f'{ENGINE} cells.outputs cells.wire cells.run',
    'cells.subshell': f'{ENGINE} cells.outputs cells.comm cells.run cells.values',
    'cells.aside': f'{ENGINE} cells.llm cells.outputs cells.comm cells.run cells.subshell',
    'cells.widgets': f'{ENGINE} cells.llm cells.outputs cells.comm cells.run',
    'cells.force': 'engine.errors cells.aside',
    'cells.record': f'{ENGINE} cells.outputs cells.jobs cells.run cells.aside',
    'cells.debug': f'{ENGINE} cells.outputs cells.run cells.aside',
    'models.tools': f'{ENGINE} cells.outputs cells.comm cells.run cells.values',
    'channels': f'{ENGINE} transports.zmq',
    'core': f'{ENGINE} transports.ledger transports.ports transports.sockets transports.zmq cells.llm cells.outputs cells.run cells.subshell cells.aside cells.widgets cells.force cells.record cells.debug models.tools channels',
    'kernels.server': f'{ENGINE} transports.websocket core',
    'kernels.template': '',
    'kernels.fork': 'engine.errors kernels.template',
    'kernels.pool': f'{ENGINE} cells.outputs cells.subshell core kernels.fork kernels.server transports.websocket',
    'kernels.notebooks': 'engine.errors cells.record cells.values cells.subshell kernels.pool',
    'sync': 'engine.errors engine.session cells.jobs cells.llm cells.outputs cells.show cells.record cells.run cells.subshell core',
    'kernels.sync_pool': 'cells.outputs kernels.pool sync',
    'kernel': 'engine.errors core sync kernels.fork kernels.pool kernels.sync_pool kernels.server transports.websocket',
    'demo': 'engine.session cells.subshell core',
    'cli': 'engine.errors cells.jobs cells.llm cells.outputs cells.run kernels.notebooks kernels.server sync kernel demo',
    'mcp': 'engine.errors engine.request cells.jobs cells.llm cells.readable cells.record cells.run core kernel',
}
FREE = {'__init__', '__main__', '_modidx', 'helptexts', 'engine.__init__', 'transports.__init__', 'cells.__init__', 'models.__init__', 'kernels.__init__'}   # these import what they pass on
SANS_IO = 'engine.lane', 'engine.life'    # they get the time as an argument, and no event loop

# Private names of dependencies: in which module, and why there is no public way
DEPENDENCIES = {
    ('engine.request', '_asyncio_future_blocking'): 'how a future says to its task that it is to sleep (asyncio gives it to every future)',
    ('engine.connection', '_get_running_loop'): 'the public function raises where no loop runs, in place of giving `None`',
    ('cells.subshell', '_allow_stdin'): 'in the kernel: ipykernel keeps it once for all subshells',
    ('cells.subshell', '_input_request'): 'in the kernel: ipykernel lets prompts of two subshells mix',
    ('cells.subshell', '_sys_raw_input'): 'in the kernel: ipykernel swaps `input` for each cell',
    ('cells.subshell', '_save_getpass'): 'in the kernel: the same of `getpass`',
    ('cells.force', '_current_frames'): 'in the kernel: where its main thread is; `sys` has no other name for it',
    ('cells.debug', '_callbacks'): 'in the kernel: answers of debugpy that wait for the next stop; no public way gives them',
    ('models.tools', '_input_request'): 'in the kernel: the public way asks whether prompts are allowed, and names another cell in a thread',
    ('models.tools', '_parent_ident'): 'in the kernel: where the answer to that comes from',
    ('kernels.template', '_exit'): 'the only way to end a process in the midst of its work; `os` has no other name for it',
    ('transports.websocket', '_receive_frame_loop'): "tornado's reading, which begins by itself after the opening: there is no way to have it not begin",
    ('core', '_make_url'): 'the address of a channel: no public method gives it',
    ('core', '_created_context'): 'was the view of the ZMQ context made for this client or manager? Else it must not be closed',
    ('core', '_async_is_alive'): 'what jupyter_client waits with; subclasses count its calls',
    ('core', '_context_default'): 'the default of a trait has the name that the default in the base class has',
    ('core', '_connect_control_socket'): 'jupyter_client connects it at each start; here it waits for something to send',
    ('core', '_close_control_socket'): 'what was not sent is dropped when the process is gone: jupyter_client lets it linger, for whoever listens next',
    ('core', '_control_socket'): 'the same',
    ('core', '_attempted_start'): 'was there a start before? A wrapper of jupyter_client asks it, which sleeps 10 ms afterwards, and ours that does not',
    ('core', '_async_start_kernel'): 'the same wrapper, where a restart calls it',
    ('core', '_async_shutdown_kernel'): 'the same',
    ('core', '_async_post_start_kernel'): 'the step of the start that connects it',
    ('core', '_async_wait'): 'jupyter_client waits for the end of the process with it; it asks every 0.1 s',
    ('core', '_create_connected_socket'): 'all `connect_*` methods go through it: socket options have to be set before the socket is made',
    ('core', '_{o}_channel'): 'the property makes the channel when it is read',
    ('core', '_hb_channel'): 'the same',
    ('core', '_handle_kernel_info_reply'): 'adapts the session to the protocol version of the kernel',
    ('core', '_output_hook_default'): 'what jupyter_client documents as the default of `execute_interactive`',
    ('core', '_output_hook_kernel'): 'the same, inside a kernel',
    ('core', '_stdin_hook_default'): 'the same, for prompts',
    ('core', '_restarter'): 'is the kernel watched?',
}


def modules(package: Path):
    "The modules by name, without the name of the package; with the second element the whole load"
    return {o.name.removeprefix(package.name+'.'): o for o in stubs.load(package).values()}


@pytest.fixture(scope='module')
def house(): return modules(PACKAGE)


def private(name): return name.startswith('_') and not name.endswith('__') and name != '_'


# What may import what

def rooms_imported(module, package):
    "The modules of `package` that `module` imports: (line, name)"
    for o in ast.walk(module.tree):
        if isinstance(o, ast.ImportFrom):
            base = '.'.join([*(module.name.split('.')[:-o.level] if o.level else []), *([o.module] if o.module else [])])
            names = [base, *(f'{base}.{a.name}' for a in o.names)]
        elif isinstance(o, ast.Import): names = [a.name for a in o.names]
        else: continue
        yield from ((o.lineno, n.removeprefix(package+'.')) for n in names if n.startswith(package+'.'))


def upwards(rooms, package, knows):
    return [f'{name}:{line} imports {other}' for name, module in rooms.items() if name in knows
            for line, other in rooms_imported(module, package) if other in knows and other not in knows[name].split()]


def test_the_table_names_all_modules(house):
    assert set(KNOWS)|FREE == set(house)
    above = list(KNOWS)
    for i, (name, known) in enumerate(KNOWS.items()): assert set(known.split()) <= set(above[:i]), name


def test_imports_point_downwards(house):
    assert sum(len(list(rooms_imported(o, LIB))) for o in house.values()) > 80
    assert upwards(house, LIB, KNOWS) == []


LOOKS = """
import sys, conkernelclient
print([o for o in sys.modules if o.startswith('conkernelclient.kernels.') or o.startswith('conkernelclient.transports.websocket')])
print(set(conkernelclient.__all__)-set(dir(conkernelclient)), [o for o in conkernelclient.__all__ if getattr(conkernelclient, o, None) is None])
"""

def test_what_few_need_is_imported_late():
    "Pools, forks, notebooks and servers are not imported until one of their names is used; all names are there"
    res = subprocess.run([sys.executable, '-c', LOOKS], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert res.stdout.splitlines() == ['[]', 'set() []'], res.stderr


@pytest.mark.parametrize('name', SANS_IO)
def test_no_clock_and_no_loop(house, name):
    tops = {m.partition('.')[0] for m, _ in house[name].imports.values()}
    assert tops and not tops & {'asyncio', 'time', 'threading', 'zmq', 'logging', 'datetime'}


# No patches

def patches(rooms, package):
    "Decorators called `patch`, and attributes set on a class of another module of the package"
    for name, module in rooms.items():
        ours = {n for n, (m, _) in module.imports.items() if m.startswith(package)}
        for o in ast.walk(module.tree):
            for d in getattr(o, 'decorator_list', ()):
                func = d.func if isinstance(d, ast.Call) else d
                if ast.unparse(func).rpartition('.')[2] in ('patch', 'patch_to', 'patch_property'): yield f'{name}:{o.lineno} @{ast.unparse(d)}'
            targets = o.targets if isinstance(o, ast.Assign) else [o.target] if isinstance(o, (ast.AnnAssign, ast.AugAssign)) else ()
            if isinstance(o, ast.Call) and ast.unparse(o.func) == 'setattr' and isinstance(o.args[0], ast.Name):
                targets = [ast.Attribute(value=o.args[0], attr='')]
            for t in targets:
                if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id in ours:
                    yield f'{name}:{o.lineno} sets {t.value.id}.{t.attr}'


def test_no_patches(house):
    assert sum(isinstance(o, ast.ClassDef) for m in house.values() for o in ast.walk(m.tree)) > 80
    assert list(patches(house, LIB)) == []


# No private names of other modules

def written(arg):
    "The name in a string or an f-string, whose fields stay as they are: `_{o}_channel`"
    if isinstance(arg, ast.JoinedStr): return ast.unparse(arg)[2:-1]
    return str(arg.value) if isinstance(arg, ast.Constant) else ''


def accesses(tree):
    "Each private attribute that is read or set: (line, owner, name); `getattr` and the like, and code in a string, count too"
    for o in ast.walk(tree):
        if isinstance(o, ast.Attribute) and private(o.attr): yield o.lineno, o.value, o.attr
        elif isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and o.func.id in ('getattr', 'hasattr', 'setattr', 'delattr'):
            name = written(o.args[1]) if len(o.args) > 1 else ''
            if private(name): yield o.lineno, o.args[0], name
        elif isinstance(o, ast.Constant) and isinstance(o.value, str) and '\n' in o.value:
            try: inner = ast.parse(o.value)
            except SyntaxError: continue
            yield from ((o.lineno, ast.Name('code in a string'), name) for _, _, name in accesses(inner))


def is_self(owner):
    return isinstance(owner, ast.Name) and owner.id in ('self', 'cls') or isinstance(owner, ast.Call) and ast.unparse(owner.func) == 'super'


def defined(tree, skip=()):
    "The private names that `tree` defines: functions, variables, slots, and attributes that it sets on `self`"
    for o in ast.walk(tree):
        if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): name = o.name
        elif isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store) and is_self(o.value): name = o.attr
        elif isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store): name = o.id
        elif isinstance(o, ast.arg): name = o.arg
        else: continue
        if private(name): yield name
    for o in ast.walk(tree):
        if isinstance(o, ast.Assign) and any(ast.unparse(t) == '__slots__' for t in o.targets):
            yield from (s.value for s in ast.walk(o.value) if isinstance(s, ast.Constant) and private(s.value))


class Names:
    "The private names of a package, class by class"
    def __init__(self, rooms, package):
        self.rooms = rooms
        self.package = package
        loaded = {f'{package}.{k}': v for k, v in rooms.items()}
        stub = stubs.Stub(loaded, next(iter(loaded.values())))
        self.mro = {(m.name, c): stub.mro((m.name, c)) for m in rooms.values() for c in m.classes}
        self.own = {(m.name, c): set(defined(node)) for m in rooms.values() for c, node in m.classes.items()}

    def family(self, key):
        "The classes of its module that it builds on, or that build on it"
        below = [k for k, bases in self.mro.items() if key in bases and k[0] == key[0]]
        return {o for k in below for o in self.mro[k] if o[0] == key[0] and o in self.own}

    def other_rooms(self, key):
        "The classes of other modules of the package that it, or a class of its module that builds on it, builds on"
        return {o for k, bases in self.mro.items() if key in bases and k[0] == key[0] for o in bases if o[0] != key[0] and o in self.own}

    def external(self, key):
        "What bases of other packages of `key`, or of a class that builds on it in its module, have: private names"
        names = set()
        for k, bases in self.mro.items():
            if key not in bases or k[0] != key[0]: continue
            for module, name in bases:
                if (module, name) not in self.own and module.partition('.')[0] not in ('builtins', 'typing', 'collections', 'enum'):
                    names |= {o for o in dir(getattr(importlib.import_module(module), name)) if private(o) and not o.endswith('_')}
        return names

    def faults(self, dependencies):
        "Private names that cross, and those of dependencies that are used: (fault texts, used dependencies, how many were seen)"
        found, used, seen = [], set(), 0
        for room, module in self.rooms.items():
            here = set(defined(module.tree))
            for o in ast.walk(module.tree):
                if isinstance(o, ast.ImportFrom):
                    found += [f'{room}:{o.lineno} imports {a.name}' for a in o.names if private(a.name)]
            inside = {}
            for name, node in module.classes.items():
                key = module.name, name
                family = set().union(*(self.own[o] for o in self.family(key)))
                others = set().union(*(self.own[o] for o in self.other_rooms(key)), set())
                outside = self.external(key)
                for item in self.own[key]:
                    if item in others: found.append(f'{room}: {name} redefines {item} of another module')
                    if item in outside: used.add((room, item))
                for line, owner, item in accesses(node):
                    if is_self(owner): inside[line, item] = item in family-others and item not in outside
                    if is_self(owner) and item in others and item not in family: found.append(f'{room}:{line} self.{item} is of another module')
            for line, owner, item in accesses(module.tree):
                seen += 1
                if inside.get((line, item)) or f'{room}:{line} self.{item} is of another module' in found: continue
                if (line, item) not in inside and item in here: continue
                used.add((room, item))
        found += [f'{room}: {item} is private to another module or package' for room, item in sorted(used-set(dependencies))]
        return found, used, seen


def test_no_private_name_crosses(house):
    faults, used, seen = Names(house, LIB).faults(DEPENDENCIES)
    assert seen > 500
    assert faults == []
    assert set(DEPENDENCIES)-used == set(), 'no longer used'


# The rules find what they are there for

def write(folder, **texts):
    package = folder/'house'
    package.mkdir()
    for name, text in texts.items(): (package/f'{name}.py').write_text(text, encoding='utf-8')
    return modules(package)


BASE = '''
class _Mixin:
    def __init__(self): self._kept = 1
    def _work(self): return self._kept
class Base(_Mixin): pass
def _helper(): pass
'''


@pytest.mark.parametrize('text,fault', [
    ('from .base import Base\nclass Room(Base):\n    def f(self): return self._kept', 'self._kept is of another module'),
    ('from .base import Base\nclass Room(Base):\n    def _work(self): return 2', 'Room redefines _work of another module'),
    ('from .base import Base\ndef f(o): return o._kept', '_kept is private to another'),
    ("from .base import Base\ndef f(o): return getattr(o, '_kept', 1)", '_kept is private to another'),
    ("from .base import Base\ndef f(o, name): return getattr(o, f'_{name}', 1)", '_{name} is private to another'),
    ('from .base import _helper', 'imports _helper'),
    ('from . import base\nbase._helper()', '_helper is private to another'),
    ('from asyncio import Future\nclass Room(Future):\n    def f(self): return self._callbacks', '_callbacks is private to another'),
    ('from asyncio import Future\nclass Room(Future):\n    def f(self): self._callbacks = 1', '_callbacks is private to another'),
    ("CODE = '''import x\nx._secret()'''", '_secret is private to another'),
])
def test_crossing_names_are_found(tmp_path, text, fault):
    faults, _, _ = Names(write(tmp_path, base=BASE, room=text), 'house').faults({})
    assert len(faults) == 1 and fault in faults[0], faults


def test_own_private_names_are_fine(tmp_path):
    text = 'from .base import Base\nclass Room(Base):\n    def _mine(self): self._new = 1\n    def f(self, o: "Room"): return self._mine(), o._new'
    assert Names(write(tmp_path, base=BASE, room=text), 'house').faults({})[0] == []


@pytest.mark.parametrize('text,fault', [
    ('from .base import Base\n@patch\ndef f(self: Base): pass', '@patch'),
    ('import fastcore.basics as b\n@b.patch(as_prop=True)\ndef f(self: int): pass', '@b.patch'),
    ('from .base import Base\nBase.f = 1', 'sets Base.f'),
    ("from .base import Base\nsetattr(Base, 'f', 1)", 'sets Base.'),
])
def test_patches_are_found(tmp_path, text, fault):
    found = list(patches(write(tmp_path, base=BASE, room=text), 'house'))
    assert len(found) == 1 and fault in found[0]


@pytest.mark.parametrize('text', ['from .room import x', 'from house.room import x', 'from . import room', 'import house.room',
                                  'def f():\n    from .room import x'])
def test_imports_upwards_are_found(tmp_path, text):
    rooms = write(tmp_path, base=text, room='x = 1')
    assert upwards(rooms, 'house', dict(base='', room='base')) == [f"base:{text.count(chr(10))+1} imports room"]
