"""Run the notebooks again and keep what they print. From the root of the project:

    python tools/refresh.py                 # all notebooks; writes those that changed
    python tools/refresh.py nbs/01_core.ipynb
    python tools/refresh.py --check         # writes nothing; shows what would change, and fails if anything would

Cells run as `nbdev_test` runs them, and those that it skips keep the outputs they have (`#| notest`, `#| eval: false`).
The result is clean (`nbdev_clean`), so a notebook whose outputs are stable gives an empty diff.
"""
import argparse, difflib, json, os, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300  # Seconds for one notebook


def skipped(cell, flags: set[str]) -> bool:
    "Whether nbdev_test would skip `cell`: the rules of `nbdev.test.test_nb`."
    from nbdev.process import extract_directives
    if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: return True
    directives = extract_directives(cell, remove=False)
    return directives.get('eval:', [''])[0].lower() == 'false' or bool(flags & directives.keys())


def never_run(path: Path) -> bool:
    "Whether the front matter of the notebook at `path` says `skip_exec`."
    from fastcore.basics import str2bool
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    return str2bool(getattr(nb, 'frontmatter_', {}).get('skip_exec', False))


def run(path: Path) -> str:
    "The text of the notebook at `path` after a run, cleaned."
    from execnb.nbio import nb2str, read_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    cfg, nb, shell = get_config(), read_nb(path), CaptureShell(path)
    flags = set(cfg.tst_flags.split())
    os.chdir(path.parent)
    for cell in nb.cells:
        if skipped(cell, flags): continue
        cell.outputs = []
        shell.cell(cell)
        if shell.exc: sys.exit(shell.prettytb(fname=path))
        cell.outputs = [o for o in cell.outputs if o.get('data') != {}]  # of what shows itself by `_ipython_display_`
    nb = json.loads(nb2str(nb))
    clean_nb(nb, cfg.clear_all, cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split(), cfg.clean_ids)
    return nb2str(nb)


def worker(path: Path, out: Path):
    "Run the notebook at `path` in this process, with the project first on the import path, and write its text to `out`."
    os.environ['IN_TEST'] = '1'
    sys.path.insert(0, str(ROOT))
    out.write_text(path.read_text(encoding='utf-8') if never_run(path) else run(path), encoding='utf-8')
    os._exit(0)  # nothing that a notebook left behind may keep this process


def refreshed(path: Path) -> str | None:
    "The text of the notebook at `path` after a run in a process of its own; None when that failed."
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp)/path.name
        cmd = [sys.executable, __file__, '--worker', str(path), str(out)]
        try: failed = subprocess.run(cmd, stdin=subprocess.DEVNULL, timeout=TIMEOUT).returncode
        except subprocess.TimeoutExpired: return print(f'{path}: no end after {TIMEOUT} seconds', file=sys.stderr)
        return None if failed else out.read_text(encoding='utf-8')


def refresh(path: Path, check: bool) -> bool:
    "Run one notebook and write it if it changed, or with `check` show the change; return whether all is well."
    old, new = path.read_text(encoding='utf-8'), refreshed(path)
    if new is None: return False
    if old == new: return True
    if check:
        diff = difflib.unified_diff(old.splitlines(), new.splitlines(), f'{path}, saved', f'{path}, run', lineterm='', n=1)
        print(*diff, sep='\n')
    else:
        path.write_text(new, encoding='utf-8')
        print(f'{path}: changed')
    return not check


def main():
    parser = argparse.ArgumentParser(description='Run the notebooks again and keep what they print.')
    parser.add_argument('notebooks', nargs='*', type=Path, help='notebooks to run (default: all)')
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a notebook would change')
    parser.add_argument('--worker', nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    paths = [o.resolve() for o in args.notebooks]
    os.chdir(ROOT)
    if args.worker: worker(*args.worker)
    from nbdev.doclinks import nbglob
    paths = paths or [o.resolve() for o in sorted(nbglob(as_path=True))]
    good = [refresh(o, args.check) for o in paths]
    print(f'{sum(good)} of {len(good)} notebooks {"are as a run leaves them" if args.check else "run"}')
    sys.exit(not (good and all(good)))


if __name__ == '__main__': main()
