"The environments of the contenders: made with venv and pip in the build folder, kept, and made anew when their list changes."
import configparser, subprocess, sys
from pathlib import Path

REPO = Path(__file__).parent.parent


def our_requirements() -> list[str]:
    "What this library itself needs, from settings.ini."
    config = configparser.ConfigParser(delimiters=['='], interpolation=None)
    config.read(REPO/'settings.ini')
    return config['DEFAULT'].get('requirements', '').split()


def requirements() -> dict[str, list[str]]:
    base = ['jupyter_client', 'pyzmq', 'orjson', 'ipykernel', *our_requirements()]
    return {'base': base, 'pypi-0.0.18': ['conkernelclient==0.0.18', 'orjson'],
            'pypi-0.0.23': ['conkernelclient==0.0.23', 'orjson']}


def make(folder:Path, wanted:list[str]) -> str:
    "The Python of a virtual environment in `folder` that has `wanted`. Raises RuntimeError when pip cannot."
    python,stamp = folder/'bin'/'python',folder/'requirements.txt'
    if stamp.exists() and stamp.read_text() == '\n'.join(wanted): return str(python)
    for command in ([sys.executable, '-m', 'venv', '--clear', folder], [python, '-m', 'pip', 'install', '-q', *wanted]):
        out = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if out.returncode: raise RuntimeError((out.stderr.strip().splitlines() or ['pip failed'])[-1])
    stamp.write_text('\n'.join(wanted))
    return str(python)


def make_all(build:Path, names:set[str], base:str|None, say=print) -> tuple[dict[str, str], dict[str, str]]:
    """The Python of each environment in `names`, and why the others are missing. `base` is made unless one is given;
    `ours` is the same, with the repository on its path."""
    pythons,missing = {'base': base} if base else {},{}
    for name, wanted in requirements().items():
        if name in pythons or (name != 'base' and name not in names): continue
        say(f'environment {name}: {" ".join(wanted)}')
        try: pythons[name] = make(build/'envs'/name, wanted)
        except RuntimeError as e: missing[name] = str(e)
    if 'base' in pythons: pythons['ours'] = pythons['base']
    return pythons,missing
