"From the rounds' results to what a person reads: tables with medians (min–max), the targets as ratios, and a picture."
import json
from pathlib import Path
from statistics import median,quantiles
from contenders import CONTENDERS
from plot import svg

LABEL = {name: c[2] for name, c in CONTENDERS.items()}


def get(result:dict, path:str) -> float|None:
    "The value at `path`, such as `cells/100/rate`, or None."
    for key in path.split('/'): result = result.get(key) if isinstance(result, dict) else None
    return median(result) if isinstance(result, list) else result


def values(results:dict, name:str, path:str) -> list[float]:
    "One value for each round that has it."
    return [v for r in results.get(name, []) if (v := get(r, path)) is not None]


def number(v:float) -> str: return f'{v:,.0f}' if v >= 100 else f'{v:.1f}' if v >= 10 else f'{v:.2f}'


def spread(vals:list[float]) -> str:
    "`median (min–max)`, of ten and more the quartiles, or a dash."
    if not vals: return '–'
    low,_,high = quantiles(vals) if len(vals) >= 10 else (min(vals), 0, max(vals))
    return f'{number(median(vals))} ({number(low)}–{number(high)})'


def table(results:dict, columns:dict[str, str]) -> list[str]:
    "A Markdown table with a line per contender; `columns` is heading: path."
    lines = [f'| | {" | ".join(columns)} |', '|---|' + '---|' * len(columns)]
    for name in results:
        cells = [spread(values(results, name, path)) for path in columns.values()]
        if any(c != '–' for c in cells): lines.append(f'| {LABEL[name]} | {" | ".join(cells)} |')
    return lines


def sizes(results:dict) -> list[str]:
    "The numbers in flight that were measured, in order."
    found = {n for rounds in results.values() for r in rounds for n in r.get('cells', {})}
    return sorted(found, key=int)


def ratios(results:dict, a:str, b:str) -> list[float]:
    "Round by round, the value at `a` over the value at `b`; each is `contender/path`."
    (na,pa),(nb,pb) = a.split('/', 1),b.split('/', 1)
    pairs = [(get(x, pa), get(y, pb)) for x, y in zip(results.get(na, []), results.get(nb, []))]
    return [x / y for x, y in pairs if x is not None and y]


def target(text:str, vals:list[float], op:str, limit:float) -> dict:
    "A target held against the median of `vals`; None when it was not measured."
    met = None if not vals else median(vals) >= limit if op == '≥' else median(vals) <= limit
    return dict(text=text, values=vals, wanted=f'{op} {limit}', met=met)


def targets(results:dict, real:dict, side:dict) -> list[dict]:
    "What this library wants to reach, from this one run: ratios, so that the machine's speed cancels out; turn by turn where `side` has them."
    def ratio(text, a, b, op, limit): return target(text, ratios(side, a, b) or ratios(results, a, b), op, limit)
    out = []
    for n in ('100', '1000'):
        rate,cpu = f'cells/{n}/rate',f'cells/{n}/cpu_us'
        out += [ratio(f'throughput, {n} in flight: execute over PyPI 0.0.18', f'ours_reply/{rate}', f'pypi18/{rate}', '≥', 5),
                ratio(f'throughput, {n} in flight: execute over PyPI 0.0.23 request', f'ours_reply/{rate}', f'pypi23_request/{rate}', '≥', 8),
                ratio(f'throughput, {n} in flight: wait over PyPI 0.0.23 reply', f'ours_idle/{rate}', f'pypi23_reply/{rate}', '≥', 8),
                ratio(f'throughput, {n} in flight: wait over floor', f'ours_idle/{rate}', f'floor_iopub/{rate}', '≥', .6),
                ratio(f'CPU, {n} in flight: wait over floor', f'ours_idle/{cpu}', f'floor_iopub/{cpu}', '≤', 1.6),
                ratio(f'throughput, {n} in flight: wait and iopub looked at, over floor', f'ours_read/{rate}', f'floor_iopub/{rate}', '≥', .6),
                ratio(f'CPU, {n} in flight: wait and iopub looked at, over floor', f'ours_read/{cpu}', f'floor_iopub/{cpu}', '≤', 1.6),
                ratio(f'throughput, {n} in flight: wait over a floor with send_multipart', f'ours_idle/{rate}', f'floor_multipart/{rate}', '≥', .6),
                ratio(f'CPU, {n} in flight: wait over a floor with send_multipart', f'ours_idle/{cpu}', f'floor_multipart/{cpu}', '≤', 1.6),
                ratio(f'CPU, {n} in flight: wait over a floor that checks signatures', f'ours_idle/{cpu}', f'floor_checked/{cpu}', '≤', 1.6),
                ratio(f'CPU, {n} in flight: a bare client over floor', f'bare_client/{cpu}', f'floor_iopub/{cpu}', '≤', 1.6)]
    out += [ratio('CPU, 100 in flight that print: wait over floor', 'ours_idle/output/cpu_us', 'floor_iopub/output/cpu_us', '≤', 1.6),
            ratio('latency of one: execute over bare zmq.asyncio', 'ours_reply/latency_us', 'zmq_asyncio/latency_us', '≤', 1)]
    for name in ('ours_reply', 'ours_idle'):
        out += [ratio(f'CPU of {LABEL[name][14:]}: {n} in flight over 100', f'{name}/cells/{n}/cpu_us', f'{name}/cells/100/cpu_us', '≤', 1.25)
                for n in ('1000', '10000')]
        out += [target(f'longest pause of {LABEL[name][14:]}, {n} in flight (ms of CPU)', values(results, name, f'pause_ms/{n}/cpu'), '≤', most)
                for n, most in (('100', 10), ('1000', 10), ('10000', 50))]
    out += [target('warm connect (ms)', values(results, 'ours_reply', 'connect_ms'), '≤', 10)]
    for name in ('ours_reply', 'ours_idle'):
        out += [target(f'ipykernel, 10 in flight: share of the CPU, {LABEL[name][14:]}', shares(real, name, '10'), '≤', .12)]
    return out


def shares(real:dict, name:str, n:str) -> list[float]:
    "The client's part of the CPU that client and kernel took together, for each round."
    cells = [r.get('cells', {}).get(n, {}) for r in real.get(name, [])]
    return [c['cpu_us'] / (c['cpu_us'] + c['kernel_us']) for c in cells if c.get('kernel_us')]


def target_table(found:list[dict]) -> list[str]:
    word = {True: 'met', False: '**missed**', None: 'not measured'}
    return ['| target | measured | wanted | |', '|---|---|---|---|',
            *[f"| {t['text']} | {spread(t['values'])} | {t['wanted']} | {word[t['met']]} |" for t in found]]


def failures(data:dict) -> list[str]:
    "What could not be measured, and why."
    out = [f'environment {name}: {why}' for name, why in data['missing'].items()]
    for part in ('stub_results', 'side_results', 'real_results'):
        for name, rounds in data.get(part, {}).items():
            out += [f'{LABEL[name]}: {r.get("absent") or r["failed"]}' for r in rounds if 'absent' in r or 'failed' in r]
    return [f'- {line}' for line in dict.fromkeys(out)]


def real_table(real:dict) -> list[str]:
    lines = ['| | requests/s, 10 in flight | client CPU, µs | kernel CPU, µs | client share |', '|---|---|---|---|---|']
    for name in real:
        vals = [values(real, name, f'cells/10/{key}') for key in ('rate', 'cpu_us', 'kernel_us')]
        share = [100 * s for s in shares(real, name, '10')]
        if vals[0]: lines.append(f'| {LABEL[name]} | {" | ".join(map(spread, vals))} | {spread(share)} % |')
    return lines


def markdown(data:dict) -> str:
    res,real = data['stub_results'],data.get('real_results', {})
    one = {'one alone, µs': 'latency_us', 'warm connect, ms': 'connect_ms', 'bytes in flight': 'bytes_in_flight'}
    pauses = {f'{n} in flight, {kind}': f'pause_ms/{n}/{kind}' for n in sizes(res) if int(n) >= 100 for kind in ('clock', 'cpu', 'gc')}
    more = {'printing: requests/s': 'output/rate', 'printing: CPU, µs': 'output/cpu_us',
            'in order: requests/s': 'in_order/rate', 'in order: CPU, µs': 'in_order/cpu_us'}
    parts = [('Requests per second, by requests in flight', table(res, {n: f'cells/{n}/rate' for n in sizes(res)})),
             ('Client CPU per request (µs), by requests in flight', table(res, {n: f'cells/{n}/cpu_us' for n in sizes(res)})),
             ('The stub’s CPU per request (µs)', table(res, {n: f'cells/{n}/kernel_us' for n in sizes(res)})),
             ('One request, connecting, memory', table(res, one)), ('Longest pause of the event loop (ms): on the clock, in CPU time, and the longest garbage collection in it', table(res, pauses)),
             ('100 in flight: cells that print; awaited in order, not gathered', table(res, more))]
    if real: parts.append(('A real ipykernel', real_table(real)))
    parts.append(('Targets', target_table(targets(res, real, data.get('side_results', {})))))
    if lost := failures(data): parts.append(('Not measured', lost))
    head = f"{data['date']}, {data['machine']}, stub kernel in {data['stub']}, {data['rounds']} rounds: median (min–max; of ten and more the quartiles)."
    return '\n\n'.join([head, *[f'## {title}\n\n' + '\n'.join(lines) for title, lines in parts]]) + '\n'


def write(data:dict, out:Path):
    data['targets'] = targets(data['stub_results'], data.get('real_results', {}), data.get('side_results', {}))
    (out/'results.json').write_text(json.dumps(data, indent=1))
    (out/'results.md').write_text(markdown(data))
    res = data['stub_results']
    lines = {name: {int(n): (median(v), median(values(res, name, f'cells/{n}/cpu_us')))
                    for n in sizes(res) if (v := values(res, name, f'cells/{n}/rate'))} for name in res if not name.startswith('raw')}
    (out/'results.svg').write_text(svg({LABEL[name]: points for name, points in lines.items() if points}))
