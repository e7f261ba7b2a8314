"""Compares this checkout with an earlier commit. Both are alive and take turns of a fraction of a second.

A pair is the same contender twice: with the earlier commit on its path, and with this checkout. Contenders use only the
public API, so they fit both. Ratios are taken turn by turn, so that the machine's speed cancels out.
"""
import io, shutil, subprocess, sys, zipfile
from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from statistics import median, quantiles
from contenders import CONTENDERS
from processes import CHECKOUTS, Served, last_line
from report import number

SIDES = ('before', 'ours')
PER_PROCESS = 6 # turns, then new processes: where its objects lie in memory gives each process a speed of its own
WORST = 1.03 # a median ratio above this one is bold in the report
# Name, unit, a method of the worker and its arguments, every how many turns.
GATHERED = [('1 in flight, gathered', 'µs of CPU', ('waves', 1, 150, '1'), 1),
            ('100 in flight, gathered', 'µs of CPU', ('waves', 100, 800, '1'), 1),
            ('10,000 in flight, gathered', 'µs of CPU', ('waves', 10000, 10000, '1'), 3)]
IN_ORDER = [('1 in flight, awaited', 'µs of CPU', ('ordered', 1, 150), 1),
            ('100 in flight, awaited in order', 'µs of CPU', ('ordered', 100, 800), 1),
            ('10,000 in flight, awaited in order', 'µs of CPU', ('ordered', 10000, 10000), 3)]
PRINTING = [('100 in flight that print, gathered', 'µs of CPU', ('waves', 100, 800, 'print(1)'), 1)]
QUEUED = [('100 at once, queued by the client', 'µs of CPU', ('waves', 100, 200, '1'), 1)]
LATENCY = [('latency of one', 'µs', ('latency', 120), 1)]
MEMORY = [('500 in flight, gathered', 'bytes each', ('memory', 500), 6),
          ('500 in flight, to be awaited in order', 'bytes each', ('memory', 500, True), 6)]
PAIRS = {'reply': GATHERED + IN_ORDER + LATENCY + MEMORY,
         'idle': GATHERED + IN_ORDER + PRINTING + LATENCY + MEMORY,
         'read': GATHERED[1:] + PRINTING,
         'run': IN_ORDER[:1] + QUEUED + LATENCY}


def checkout(rev: str) -> str:
    "Put the package as it was at `rev` into the build folder. Returns the commit's short hash and subject."
    def git(*args):
        out = subprocess.run(['git', *args], cwd=CHECKOUTS['ours'], capture_output=True)
        if out.returncode: sys.exit(f'git {args[0]}: {last_line(out.stderr.decode())}')
        return out.stdout
    archive = git('archive', '--format=zip', rev, 'conkernelclient')
    folder = CHECKOUTS['before']
    shutil.rmtree(folder, ignore_errors=True)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
    return git('log', '-1', '--format=%h %s', rev).decode().strip()


def check(side: str, served: Served):
    "Wait until `served` is ready. Exits when it failed, or imported another checkout."
    ready = served.ready()
    if 'absent' in ready: sys.exit(f'{side}: {ready["absent"]}')
    package = Path(ready['package']).resolve().parent
    if package.parent != CHECKOUTS[side]: sys.exit(f'{side}: imported {package}')


def turn(sides: dict[str, Served], k: int, measure: tuple) -> dict[str, float]:
    "Ask both sides for `measure`, one after the other. Returns the value of each."
    values = {}
    for side in SIDES[::-1] if k // 2 % 2 else SIDES: # ABAB, then BABA
        got = sides[side](*measure)
        if got is None: sys.exit(f'{side}, {measure}: {sides[side].why()}')
        values[side] = got['cpu_us'] if isinstance(got, dict) else got
    return values


def one_set(kind: str, turns: range, python: str, start, results: list[dict]):
    "Some turns of one pair, in processes made for them."
    with ExitStack() as stack:
        sides = {side: Served(f'{side}_{kind}', python, stack.enter_context(start())) for side in SIDES}
        for served in sides.values(): stack.callback(served.close)
        for side, served in sides.items(): check(side, served)
        for k in turns:
            for result in results:
                if k % result['every'] == 0: result['values'].append(turn(sides, k, result['measure']))


def compare(rev: str, turns: int, kinds: list[str], python: str, start, say) -> dict:
    "Measure the pairs `kinds`, `turns` turns each. Returns the values of each turn."
    data = dict(before=checkout(rev), turns=turns, pairs={})
    fields = 'name', 'unit', 'measure', 'every'
    for kind in kinds: data['pairs'][kind] = [dict(zip(fields, m), values=[]) for m in PAIRS[kind]]
    for k in range(0, turns, PER_PROCESS):
        some = range(k, min(k + PER_PROCESS, turns))
        for kind in kinds: one_set(kind, some, python, start, data['pairs'][kind])
        say(f'  {some.stop} of {turns} turns')
    return data


def summary(result: dict) -> dict[str, float]:
    """Medians of both sides, median and quartiles of the ratios, and `noise`: half the 95 % confidence interval of the
    ratios' median."""
    ratios = [v['ours'] / v['before'] for v in result['values']]
    low, mid, high = quantiles(ratios) if len(ratios) > 1 else ratios * 3
    out = {side: median(v[side] for v in result['values']) for side in SIDES}
    deviation = (high - low) / 1.35 # as in a normal distribution
    noise = 1.96 * 1.25 * deviation / sqrt(len(ratios)) # a median's standard error is 1.25 times that of a mean
    return dict(out, ratio=mid, low=low, high=high, noise=noise, turns=len(ratios))


def row(label: str, result: dict) -> str:
    "A line of the report."
    s = summary(result)
    ratio = f"{s['ratio']:.3f}"
    if s['ratio'] > WORST: ratio = f'**{ratio}**'
    noise = f"{s['noise']:.3f}" if s['turns'] > 3 else '–'
    cells = [label, result['name'], result['unit'], number(s['before']), number(s['ours'])]
    cells += [ratio, noise, f"{s['low']:.3f}–{s['high']:.3f}", str(s['turns'])]
    return f'| {" | ".join(cells)} |'


def markdown(data: dict) -> str:
    "The report: a line for each measure of each pair."
    lines = [f"{data['date']}, {data['machine']}, stub kernel in {data['stub']}. Before: {data['before']}", '',
             'Ratios are this checkout over the commit before, turn by turn: their median, its 95 % interval, their '
             f'quartiles. Medians above {WORST} are bold.', '',
             '| call | | unit | before | this checkout | ratio | ± | quartiles | turns |', '|' + '---|' * 9]
    for kind, results in data['pairs'].items():
        lines += [row(CONTENDERS[f'ours_{kind}'][2].removeprefix('this library: '), r) for r in results]
    return '\n'.join(lines) + '\n'
