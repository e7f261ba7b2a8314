"""Write `conkernelclient/helptexts.py`: what the comments say of parameters, for `help(kc.run)` and `kc.run?`.

Docments stand beside the parameters, where Python's `help` does not see them. The package adds these texts to its docstrings
when it is imported: a dictionary of strings costs about a millisecond, where reading the sources would cost seconds.
`python tools/help.py`; with `--check` nothing is written, and the exit code is 1 when the file is not what would be written.
"""
import importlib, inspect, os, pprint, sys
from pathlib import Path

import entries

ROOT = Path(__file__).resolve().parent.parent
HEAD = '# Written by tools/help.py from the comments of the parameters. Do not edit.\n\n'


def text(module: str, name: str, method: bool) -> str:
    "The parameters of a function or method of `module` with their meanings; empty where no comment explains them."
    node = entries.definition(module, name)
    rows = [(k.strip('`'), v) for k, v in entries.meanings(entries.source(module), node, method)]
    params = [f'    {k}: {v}' for k, v in rows if k != 'returns']
    returns = [f'Returns: {v}' for k, v in rows if k == 'returns']
    return '\n'.join(['Parameters:', *params] * bool(params) + returns)


def names() -> set[tuple[str, str]]:
    "The functions and methods that users call, by module and name in its source: what the package exports, `__init__` too."
    package, lib, res = importlib.import_module(entries.library().name), entries.library(), set()
    for o in [getattr(package, o) for o in package.__all__]:
        if not inspect.isclass(o): res.add((o.__module__, o.__name__))
        else:
            res |= {entries.written(o, member) for member in lib.members(o)}
            res |= {(cls.__module__, f'{cls.__name__}.__init__') for cls in o.__mro__ if lib.own(cls)}
    return {(module, name) for module, name in res if name in entries.source(module).defs}


def texts() -> dict[str, dict[str, str]]:
    "The texts of all of them that have one, by module and name."
    res: dict[str, dict[str, str]] = {}
    for module, name in sorted(names()):
        if found := text(module, name, '.' in name): res.setdefault(module, {})[name] = found
    return res


def main(args: list[str]) -> int:
    os.chdir(ROOT)
    if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
    dest = ROOT/entries.library().name/'helptexts.py'
    new = f'{HEAD}texts: dict[str, dict[str, str]] = {pprint.pformat(texts(), width=200, sort_dicts=False)}\n'
    fresh = dest.exists() and dest.read_text(encoding='utf-8') == new
    if '--check' in args: return 0 if fresh else 1
    if not fresh: dest.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
