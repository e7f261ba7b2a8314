"""Our client against servers that need an environment of their own: `python tests/servers/run.py all`, or the names of some.

Makes the environments (a venv, pip; npm for a hub's proxy) in `--envs`, starts each server and runs `checks.py` against it.
A server that cannot be installed is a failure, and is reported with what was tried. (README.md says more.)
"""
import argparse, asyncio, os, shutil, subprocess, sys, tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import pytest
from kinds import KINDS, CannotInstall


class Given:
    "Has the server, leaves out the tests of other servers, and counts"
    def __init__(self, server):
        self.server = server
        self.count = Counter()

    def pytest_configure(self, config):
        config.given = self
        config.addinivalue_line('markers', 'only(*names): for these servers')

    def pytest_collection_modifyitems(self, items):
        mine = [o for o in items if (m := o.get_closest_marker('only')) is None or self.server.name in m.args]
        for o in mine:
            why = self.server.impossible.get(o.originalname or o.name)
            if why: o.add_marker(pytest.mark.skip(reason=why))
        items[:] = mine

    def pytest_runtest_logreport(self, report):
        if report.failed or report.skipped or report.when == 'call': self.count['failed' if report.failed else report.outcome] += 1


def check(name, envs, more):
    "Install one server, start it, run the checks, and return how many passed, failed and were skipped"
    server = KINDS[name](envs)
    try: server.install()
    except CannotInstall as e:
        print(f'{name} cannot be installed here. Tried: {e}')
        return 0, 1, 0
    for last in False, False, True:   # (somebody else may take the port)
        server = KINDS[name](envs).start()
        try: asyncio.run(server.ready())
        except Exception as e:
            server.stop()
            if last:
                print(f'{name} does not start: {e!r}\n{server.said()}')
                return 0, 1, 0
        else: break
    os.environ['TESTS_SOON'] = str(server.soon)   # (test_server.py reads it)
    given = Given(server)   # (the fixture is in checks.py: one of a plugin would give way to that of tests/conftest.py)
    try:
        code = pytest.main(['-m', '', '-rs', '-s', '-p', 'no:cacheprovider', '-c', str(HERE.parent.parent/'pytest.ini'),
                            str(HERE/'checks.py'), *more], plugins=[given])
    finally: server.stop()
    if not code: shutil.rmtree(server.work, ignore_errors=True)   # (its logs)
    if code and not given.count['failed']: given.count['failed'] = 1
    return given.count['passed'], given.count['failed'], given.count['skipped']

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', choices=[*KINDS, 'all'], help='which servers')
    parser.add_argument('--envs', type=Path, default=Path(tempfile.gettempdir())/'conkernelclient-servers', help='folder for the environments')
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args, more = parser.parse_known_args()   # what is not known goes to pytest
    os.environ.pop('JUPYTER_GATEWAY_URL', None)
    os.environ.pop('JUPYTER_GATEWAY_AUTH_TOKEN', None)
    names = list(KINDS) if 'all' in args.names else args.names
    lines, totals = [], [0, 0, 0]
    for name in names:
        if len(names) > 1:   # a process for each
            res = subprocess.run([sys.executable, __file__, name, '--envs', str(args.envs), *more], stdout=subprocess.PIPE, text=True)
            print(res.stdout, flush=True)
            words = res.stdout.split()[-6:] if res.stdout.split()[-1:] == ['skipped'] else '0 passed, 1 failed, 0 skipped'.split()
            counts = [int(o) for o in words[::2]]
        else: counts = check(name, args.envs.resolve(), more)
        lines.append('{}: {} passed, {} failed, {} skipped'.format(name, *counts))
        totals = [a+b for a, b in zip(totals, counts)]
    print('\n'+'\n'.join(lines))
    if len(names) > 1: print('{} passed, {} failed, {} skipped'.format(*totals))
    return 1 if totals[1] or not totals[0] else 0

if __name__ == '__main__': sys.exit(main())
