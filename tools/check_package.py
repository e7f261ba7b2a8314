"""Build the wheel and the sdist as a release would, and use them as a stranger would. `python tools/check_package.py`.

Checks that all files of the library are in them (modules of nested packages, `py.typed`, `.pyi`), installs them into empty
environments and imports every module there: with fastcore 1 and with fastcore 2, both of which users have, and with the extra `mcp`
and without. Without it, the module that needs it has to say so. Needs the network (PyPI) and about a minute.
"""
import subprocess, sys, tarfile, tempfile, venv, zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB = 'conkernelclient'
IMPORT = f'''
import importlib, sys, fastcore, {LIB}
from {LIB} import *
extras, missing = sys.argv[1] == 'extras', []
for o in sys.argv[2:]:
    try: importlib.import_module(o)
    except ImportError as e:
        if extras or '{LIB}[' not in str(e): raise
        missing.append(o)
assert missing == ([] if extras else ['{LIB}.mcp']), missing
print('fastcore', fastcore.__version__, '{LIB}', {LIB}.__version__, len(sys.argv)-2-len(missing), 'modules')
'''


def run(*cmd, **kwargs):
    "Run `cmd`; show its output and stop only when it fails."
    res = subprocess.run([str(o) for o in cmd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, **kwargs)
    if res.returncode: sys.exit(f'{res.stdout}\nfailed: {" ".join(map(str, cmd))}')
    return res.stdout


def tracked(*patterns: str) -> set[str]:
    "The files that git tracks and that match `patterns`."
    return set(run('git', 'ls-files', *patterns, cwd=ROOT).split())


def modules() -> list[str]:
    "All modules of the library, in its packages too."
    names = [o.removesuffix('.py').replace('/', '.') for o in sorted(tracked(f'{LIB}/*.py'))]
    return [o.removesuffix('.__init__') for o in names if not o.endswith('.__main__')]


def check_contents(wheel: Path, sdist: Path):
    "Stop when a file that should be in `wheel` or `sdist` is not, or the wheel has more than the library."
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as tar: in_sdist = {o.name.partition('/')[2] for o in tar.getmembers()}
    library = tracked(f'{LIB}/*')
    project = library | tracked('nbs/*', 'tests/*', 'tools/*', 'benchmarks/*', 'settings.ini', 'setup.py', '*.toml', '*.md', 'LICENSE')
    extra = {o for o in in_wheel if not o.startswith(f'{LIB}-')} - library
    wrong = {'not in the wheel': library - in_wheel, 'too much in the wheel': extra, 'not in the sdist': project - in_sdist}
    for what, names in wrong.items():
        if names: sys.exit(f'{what}: {", ".join(sorted(names))}')
    print(f'{wheel.name} and {sdist.name} have what they should: {len(in_wheel)} and {len(in_sdist)} files')


def check_import(tmp: Path, package: Path, fastcore: str, extras: str = ''):
    "Install `package` into a new environment under `tmp` with the given `fastcore` and `extras`, and import all of it there."
    env = tmp/f'{package.name}-env'
    venv.create(env, with_pip=True)
    python = env/('Scripts' if sys.platform == 'win32' else 'bin')/'python'
    run(python, '-m', 'pip', 'install', '-q', f'{package}{extras}', fastcore)
    print(f'{package.name}:', run(python, '-c', IMPORT, 'extras' if extras else 'bare', *modules(), cwd=tmp).strip())


def main():
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        # What git tracks, and nothing that an earlier build left in the checkout
        for o in tracked():
            dest = tmp/'src'/o
            dest.parent.mkdir(parents=True, exist_ok=True)
            dest.write_bytes((ROOT/o).read_bytes())
        run(sys.executable, '-m', 'build', '--outdir', tmp/'dist', tmp/'src')
        (wheel,), (sdist,) = (tmp/'dist').glob('*.whl'), (tmp/'dist').glob('*.tar.gz')
        check_contents(wheel, sdist)
        check_import(tmp, wheel, 'fastcore>=2', '[mcp]')
        check_import(tmp, sdist, 'fastcore<2')


if __name__ == '__main__': main()
