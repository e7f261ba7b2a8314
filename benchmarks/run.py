"""Measures this library, its rivals and the floor under them. See README.md.

    python benchmarks/run.py            # some twenty-five minutes
    python benchmarks/run.py --quick    # a few minutes, fewer rounds
    python benchmarks/run.py --before REV    # this checkout beside an earlier commit, under four minutes
"""
import argparse, json, os, platform, sys, time
from contextlib import ExitStack
from pathlib import Path
import before, envs, kernels, report
from contenders import CONTENDERS
from processes import HERE, Served, measure

FULL = dict(latency=300, connects=5, cells=[(1, 300), (10, 1000), (100, 2000), (1000, 3000), (10000, 10000)], extras=True,
            pauses=[100, 1000, 10000])
QUICK = dict(latency=200, connects=3, cells=[(1, 200), (10, 500), (100, 1000), (1000, 2000)], extras=True, pauses=[100, 1000])
REAL = dict(latency=0, connects=1, cells=[(1, 60), (10, 150), (100, 200)], extras=False, pauses=[])
QUICK_REAL = dict(REAL, cells=[(10, 100)])
COMPARED = ('floor_iopub', 'floor_multipart', 'floor_checked', 'zmq_asyncio', 'bare_client', 'ours_reply', 'ours_idle', 'ours_read', 'pypi18',
            'pypi23_request', 'pypi23_reply') # of which the targets tell ratios


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='3 rounds, no 10,000 in flight')
    p.add_argument('--rounds', type=int, help='interleaved rounds (5; 3 with --quick)')
    names = ', '.join(n for n in CONTENDERS if not n.startswith('before'))
    p.add_argument('--only', help=f'names of contenders, with commas between: {names}')
    p.add_argument('--before', metavar='REV', help='compare this checkout with that commit, and measure nothing else')
    p.add_argument('--turns', type=int, default=48, help='turns of each pair, with --before (%(default)s)')
    p.add_argument('--no-real', action='store_true', help='leave ipykernel out')
    p.add_argument('--python', help='a Python that has jupyter_client, orjson, ipykernel, for all but the PyPI contenders')
    p.add_argument('--out', type=Path, default=HERE/'build', help='folder for the results')
    return p.parse_args()


def one_round(k:int, names:list[str], pythons:dict, start, plan:dict, results:dict):
    "Every contender once, each on a fresh kernel, beginning with another one each time."
    shift = k % len(names)
    for name in names[shift:] + names[:shift]:
        if any('absent' in r or 'failed' in r for r in results[name]): continue
        with start() as info: res = measure(name, pythons[CONTENDERS[name][1]], info, plan)
        results[name].append(res)
        cell = res.get('cells', {}).get('100', {})
        say(f"  {k + 1} {name:20}", f"{cell['rate']:8,.0f}/s {cell['cpu_us']:6.1f} µs" if cell else res)


def rounds(n:int, names:list[str], pythons:dict, start, plan:dict) -> dict:
    results = {name: [] for name in names}
    for k in range(n): one_round(k, names, pythons, start, plan, results)
    return results


DEAD = dict(failed='it died, or took a minute, while all took turns')

def one_turn(ask:Served) -> dict:
    got = [ask('waves', 100, 800, '1'),ask('waves', 1000, 2000, '1'),ask('waves', 100, 400, 'print(1)'),ask('latency', 200)]
    return DEAD if None in got else dict(cells={'100': got[0], '1000': got[1]}, output=got[2], latency_us=got[3])

def side_by_side(turns:int, names:list[str], pythons:dict, start) -> dict:
    "All of `names` alive at once, taking turns of a fraction of a second: what slows the machine down slows all down."
    with ExitStack() as stack:
        served = {n: Served(n, pythons[CONTENDERS[n][1]], stack.enter_context(start())) for n in names}
        for o in served.values(): stack.callback(o.close)
        results = {n: [] if 'package' in o.ready() else [DEAD] for n, o in served.items()}
        for k in range(turns):
            for n in [n for n in names if DEAD not in results[n]][::1 if k % 2 else -1]: results[n].append(one_turn(served[n]))
            if k % 5 == 4: say(f'  {k + 1} turns')
    return results


def say(*args): print(*args, file=sys.stderr, flush=True)


def against_earlier(names: list[str], opts: argparse.Namespace, python: str, start, data: dict):
    "This checkout beside the commit `opts.before`; writes before.json and before.md."
    data |= before.compare(opts.before, opts.turns, [n.removeprefix('ours_') for n in names], python, start, say)
    (opts.out/'before.json').write_text(json.dumps(data, indent=1))
    (opts.out/'before.md').write_text(before.markdown(data))
    print((opts.out/'before.md').read_text())


def against_rivals(names: list[str], opts: argparse.Namespace, pythons: dict[str, str], start, data: dict):
    "This library beside its rivals and the floors; writes results.json, results.md and results.svg."
    n = data['rounds'] = opts.rounds or (3 if opts.quick else 5)
    data['stub_results'] = rounds(n, names, pythons, start, QUICK if opts.quick else FULL)
    say('side by side:')
    data['side_results'] = side_by_side(10 if opts.quick else 20, [m for m in names if m in COMPARED], pythons, start)
    report.write(data, opts.out) # kept, should the slow part be interrupted
    if not opts.no_real:
        say('ipykernel:')
        data['real_results'] = rounds(min(n, 3), [m for m in names if not m.startswith('raw')], pythons,
                                      lambda: kernels.ipykernel(pythons['base']),
                                      QUICK_REAL if opts.quick else REAL)
    report.write(data, opts.out)
    print((opts.out/'results.md').read_text())


def main():
    opts = options()
    opts.out.mkdir(parents=True, exist_ok=True)
    (HERE/'build').mkdir(exist_ok=True)
    names = opts.only.split(',') if opts.only else list(CONTENDERS)
    if opts.before: names = [n for n in names if n.removeprefix('ours_') in before.PAIRS]
    pythons,missing = envs.make_all(HERE/'build', {CONTENDERS[n][1] for n in names}, opts.python, say)
    if 'base' not in pythons: sys.exit(f"no environment to measure in: {missing['base']} (give one with --python)")
    names = [n for n in names if CONTENDERS[n][1] in pythons]
    if not names: sys.exit('none of these contenders can be measured')
    stub,kind = kernels.build_stub(pythons['base'], HERE/'build')
    say(f'stub kernel: {kind}')
    machine = f'{platform.machine()}, {os.cpu_count()} cores'
    data = dict(date=time.strftime('%Y-%m-%d'), machine=machine, stub=kind, missing=missing)
    def start(): return kernels.stub_kernel(stub)
    if opts.before: against_earlier(names, opts, pythons['base'], start, data)
    else: against_rivals(names, opts, pythons, start, data)


if __name__ == '__main__': main()
