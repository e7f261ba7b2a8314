"""Many kernels from one process: how fast they start, what each costs, and how far it goes.

    python benchmarks/pool.py                     # all parts; needs Linux, and pandas and nbclient for some of them
    python benchmarks/pool.py --only starts,use   # some of: starts, use, kernels, clients, notebooks
    python benchmarks/pool.py --kernels 200,400   # how many kernels at once; --clients 1000: how many clients of stub kernels
    python benchmarks/pool.py --out FOLDER        # also results.json, and a picture of the starts

What is compared takes turns, in another order in each round, and the ratios are taken round by round: the machine's speed
cancels out. Kernels run in a folder of their own, with a history in memory, so that they do not wait for each other's file.
"""
import argparse, asyncio, gc, importlib.util, json, os, sys, tempfile, time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from conkernelclient import ConKernelClient, ConKernelManager, KernelPool, fork_spec, run_notebooks
from conkernelclient.kernels.fork import templates
from conkernelclient.kernels.pool import memory_of, want_descriptors

HAS_PANDAS = importlib.util.find_spec('pandas') is not None
MB = 2**20

def now(): return time.perf_counter()*1000
def say(*words): print(*words, file=sys.stderr, flush=True)
def fds(): return len(os.listdir('/proc/self/fd'))
def rss(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/MB


# --- one kernel ----------------------------------------------------------------------------------------------------------

async def once(spec, code) -> dict:
    "One kernel: until ready, until the first result, and its orderly end; in ms"
    km = ConKernelManager(kernel_spec=spec)
    begin = now()
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    await kc.wait_for_ready(timeout=120)
    ready = now()-begin
    await kc.run(code, check=True)
    first = now()-begin
    kc.stop_channels()
    begin = now()
    await km.shutdown_kernel()
    return dict(ready=ready, first=first, shutdown=now()-begin)

async def starts(args) -> dict:
    "Cold and forked, and both with pandas"
    kinds = dict(cold=(None, '1'), fork=(fork_spec(), '1'))
    if HAS_PANDAS: kinds |= {'cold, pandas': (None, 'import pandas'), 'fork, pandas': (fork_spec('pandas'), 'import pandas')}
    for o in kinds.values(): await once(*o)     # templates are made, files are read
    found = {o: [] for o in kinds}
    for r in range(args.rounds):
        order = list(kinds)[r%len(kinds):]+list(kinds)[:r%len(kinds)]
        for o in order: found[o].append(await once(*kinds[o]))
    res = {f'{k}: {m}, ms': median(o[m] for o in v) for k, v in found.items() for m in ('ready', 'first', 'shutdown')}
    for a, b in ('cold', 'fork'), ('cold, pandas', 'fork, pandas'):
        if a in found: res[f'{b} over {a}: first result'] = median(x['first']/y['first'] for x, y in zip(found[a], found[b]))
    templates.end()
    return res


# --- a kernel of a pool --------------------------------------------------------------------------------------------------

async def use(args) -> dict:
    "The wait for a spare, and fresh kernels in a second"
    res, modules = {}, ['pandas'] if HAS_PANDAS else []
    async with KernelPool(size=4, spare=1, preload=modules) as pool:
        waits = []
        for _ in range(args.rounds*2):
            await pool.filled()
            begin = now()
            async with pool.kernel() as kc:
                waits.append(now()-begin)
                await kc.run('1')
        res['a kernel from a pool with a spare, ms'] = median(waits)
    codes = [f'import {modules[0]}' if modules else '1']*(4*args.rounds)
    for fork in True, False:
        async with KernelPool(size=4, spare=2, preload=modules, fork=fork) as pool:
            await pool.filled()
            some = codes[:None if fork else len(codes)//4]
            begin = now()
            results = await pool.map(some)
            res[f'fresh kernels in a second, {"forked" if fork else "cold"}'] = len(some)/(now()-begin)*1000
            assert all(getattr(o, 'status', None) == 'ok' for o in results), results
    return res


# --- many kernels --------------------------------------------------------------------------------------------------------

async def idle(seconds) -> float:
    "The CPU of this process while nothing happens, in % of a core"
    await asyncio.sleep(2)
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time()-cpu)/(time.perf_counter()-begin)*100

async def some_kernels(n, args) -> dict:
    "`n` forked kernels at once, one cell on each"
    want_descriptors(64+40*n)
    async with KernelPool(size=1, spare=1) as pool: await pool.filled()   # what the first brings counts for none
    gc.collect()
    before, memory = fds(), rss()
    pool = KernelPool(size=n, spare=n, startup_timeout=300)
    pool.parallel = 8
    async with pool, AsyncExitStack() as stack:
        begin = now()
        await pool.filled()
        started = now()-begin
        clients = [await stack.enter_async_context(pool.kernel()) for _ in range(n)]
        begin = now()
        results = await asyncio.gather(*[o.run(f'{i}*2') for i, o in enumerate(clients)])
        cells = now()-begin
        assert [o.text.strip() for o in results] == [str(2*i) for i in range(n)]
        res = {'started, s': started/1000, 'one cell on each, s': cells/1000, 'failed starts': pool.stats.failed,
               'memory of a kernel, MB': pool.stats.memory/n/MB, 'client memory of each, MB': (rss()-memory)/n, 'descriptors of each': (fds()-before)/n,
               'client idle, % of a core, all': await idle(args.seconds)}
        begin = now()
    res['ended, s'] = (now()-begin)/1000
    return {f'{n} kernels: {k}': v for k, v in res.items()}

async def kernels(args) -> dict:
    res = {}
    for n in args.kernels:
        say(n, 'kernels')
        res |= await some_kernels(n, args)
    return res


# --- many clients --------------------------------------------------------------------------------------------------------

async def connected(info) -> ConKernelClient:
    kc = ConKernelClient()
    kc.load_connection_info({k: v for k, v in info.items() if k.endswith('_port') or k in ('ip', 'transport', 'key', 'signature_scheme')})
    kc.start_channels()
    await kc.wait_for_ready(timeout=120)
    return kc

async def turns(ask, clients, rounds) -> tuple[float, float]:
    """What `ask` reaches with one request in flight on each of `clients`, as a part of what it reaches with as many on the
    first; and the CPU time of this process for a request, the same way. They take turns."""
    found = []
    for i in range(rounds):
        took = {}
        for alone in (True, False)[::1 if i%2 else -1]:
            some = clients[:1]*len(clients) if alone else clients
            begin, cpu = now(), time.process_time()
            await asyncio.gather(*[ask(o) for o in some])
            took[alone] = now()-begin, time.process_time()-cpu
        found.append([a/b for a, b in zip(took[True], took[False])])
    return tuple(map(median, zip(*found)))

def bare_clients(infos):
    "The least that any client must do (`floors.py`), with one context for all"
    import zmq
    from floors import BareClient
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))
    class Shared(BareClient):
        def __init__(self, info):
            super().__init__(info)
            self.ctx.term()
            self.ctx = context
        def close(self):
            for o in self.shell, self.iopub:
                self.loop.remove_reader(o.get(zmq.FD))
                o.close(linger=0)
    return [Shared(o) for o in infos]

async def clients(args) -> dict:
    "Clients of as many stub kernels"
    from kernels import build_stub, end
    import subprocess, uuid
    n, res = args.clients, {}
    want_descriptors(64+40*n)
    with tempfile.TemporaryDirectory() as folder:
        command, kind = build_stub(sys.executable, Path(folder))
        say(n, 'stub kernels:', kind)
        stubs = [subprocess.Popen([*command, uuid.uuid4().hex], stdout=subprocess.PIPE, text=True) for _ in range(n)]
        try:
            infos = [json.loads(o.stdout.readline()) for o in stubs]
            for o in stubs: o.stdout.close()
            first = await connected(infos[0])
            gc.collect()
            before, memory = fds(), rss()
            gate = asyncio.Semaphore(50)
            async def one(info):
                async with gate: return await connected(info)
            begin = now()
            kcs = [first, *await asyncio.gather(*map(one, infos[1:]))]
            res['connected, s'] = (now()-begin)/1000
            res['memory of each, MB'], res['descriptors of each'] = (rss()-memory)/(n-1), (fds()-before)/(n-1)
            begin = now()
            await asyncio.gather(*[o.execute('1', reply=True) for o in kcs])
            res['one request on each at once, s'] = (now()-begin)/1000
            res['throughput over all, of one client with as many in flight'], res['the same by CPU time of the client'] = \
                await turns(lambda o: o.execute('1', reply=True), kcs, args.rounds)
            res['idle, % of a core, all'] = await idle(args.seconds)
            begin = now()
            for o in kcs: o.stop_channels()
            res['closed, s'] = (now()-begin)/1000
            bare = bare_clients(infos)
            for o in bare: await o.connect()
            res['bare sockets: throughput over all, of one with as many in flight'], res['bare sockets: the same by CPU time'] = \
                await turns(lambda o: o.call('1'), bare, args.rounds)
            for o in bare: o.close()
        finally:
            for o in stubs: end(o)
    return {f'{n} clients: {k}': v for k, v in res.items()}


# --- notebooks -----------------------------------------------------------------------------------------------------------

async def notebooks(args) -> dict:
    "20 notebooks of six cells with pandas: nbclient one by one, and four at once"
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    cells = ['import pandas as pd' if HAS_PANDAS else 'import decimal', 'n = 1', 'x = list(range(1000))', 'y = pd.Series(x).sum()' if HAS_PANDAS else 'y = sum(x)', 'print(y)', 'y']
    def make(): return [new_notebook(cells=[new_code_cell(o) for o in cells], metadata=dict(kernelspec=dict(name='python3', display_name='x'))) for _ in range(20)]
    took = {'nbclient': [], 'ours': []}
    async def one_by_one():
        for nb in make(): await NotebookClient(nb, kernel_name='python3').async_execute()
    async def ours():
        runs = await run_notebooks(make(), concurrency=4, preload='pandas' if HAS_PANDAS else 'decimal')
        assert not runs.failed, runs
    for r in range(3):
        for name, job in [('nbclient', one_by_one), ('ours', ours)][::1 if r%2 else -1]:
            begin = now()
            await job()
            took[name].append((now()-begin)/1000)
            say(name, round(took[name][-1], 1))
    return {'20 notebooks, nbclient one by one, s': median(took['nbclient']), '20 notebooks, 4 at once, template and pool included, s': median(took['ours']),
            '20 notebooks: nbclient over ours': median(a/b for a, b in zip(*took.values()))}


# --- all of it -------------------------------------------------------------------------------------------------------------

def table(res) -> str: return '\n'.join(['| | |', '|---|---|', *[f'| {k} | {v:,.3g} |' for k, v in res.items()]])

def picture(res) -> str:
    "Bars: from the start to the first result"
    rows = [(k.partition(':')[0], v) for k, v in res.items() if k.endswith(': first, ms')]
    rows.append(('from a pool', res['a kernel from a pool with a spare, ms']))
    most, width, height = max(v for _, v in rows), 640, 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {len(rows)*height+44}" font-family="sans-serif" font-size="13">',
           '<rect width="100%" height="100%" fill="#fff"/>', '<text x="10" y="22" font-size="14">Until a fresh kernel has given its first result (from a pool: until it is there), ms</text>']
    for i, (name, v) in enumerate(rows):
        y, colour = 36+i*height, '#8a8a8a' if 'cold' in name else '#d1242f'
        out += [f'<text x="110" y="{y+18}" text-anchor="end">{name}</text>', f'<rect x="120" y="{y}" width="{max(2, v/most*440):.0f}" height="24" fill="{colour}"/>',
                f'<text x="{max(2, v/most*440)+128:.0f}" y="{y+17}">{v:,.{0 if v >= 10 else 1}f}</text>']
    return '\n'.join([*out, '</svg>'])

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = dict(starts=starts, use=use, kernels=kernels, clients=clients, notebooks=notebooks)
    parser.add_argument('--only', default=','.join(parts))
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--seconds', type=float, default=60, help='of idling')
    parser.add_argument('--kernels', default='200')
    parser.add_argument('--clients', type=int, default=1000)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    args.kernels = [int(o) for o in args.kernels.split(',')]
    res = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ['IPYTHONDIR'] = folder
        (Path(folder)/'profile_default').mkdir()
        (Path(folder)/'profile_default/ipython_kernel_config.py').write_text("get_config().HistoryManager.hist_file = ':memory:'\n")
        for name in args.only.split(','):
            say(name)
            res |= asyncio.run(parts[name](args))
    print(table(res))
    if args.out is None: return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out/'results.json').write_text(json.dumps(res, indent=1))
    if {'starts', 'use'} <= set(args.only.split(',')): (args.out/'starts.svg').write_text(picture(res))

if __name__ == '__main__': main()
