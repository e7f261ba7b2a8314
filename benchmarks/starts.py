"""How long a kernel takes to start and to end, and what it costs while nobody uses it: this checkout and earlier commits.

    python benchmarks/starts.py                    # this checkout alone
    python benchmarks/starts.py main HEAD~3        # and these commits, each as a ratio to the first

Each commit has a process of its own. They take turns within each round, in a different order each time, so that the
machine's speed cancels out; the ratios are taken round by round. The kernel is ipykernel (`--kernel`: another one).
The last column is the kernel alone: its process and three sockets, and nothing else of a client. What a client takes in
addition is its own share.
"""
import argparse, asyncio, gc, io, json, os, subprocess, sys, tempfile, time, zipfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
MANY = 5     # kernels that are open at once, for what one of them costs
NAMES = dict(start='start until ready, ms', first='… until the first result, ms', shutdown='orderly shutdown, ms', restart='restart until ready, ms',
             threads='threads, each kernel', fds='file descriptors, each kernel', idle='idle, % of a core, 100 kernels')


# --- in the process of one commit --------------------------------------------------------------------------------------

async def once(name: str) -> dict[str, float]:
    "One kernel: started, used, restarted, shut down; in ms"
    from conkernelclient import ConKernelManager
    km, took, begin = ConKernelManager(kernel_name=name), {}, time.perf_counter()
    def lap(key):
        nonlocal begin
        now = time.perf_counter()
        took[key], begin = (now-begin)*1000, now
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    await kc.wait_for_ready(timeout=60)
    lap('start')
    await kc.execute('1', reply=True)
    lap('first')
    took['first'] += took['start']
    begin = time.perf_counter()
    await km.restart_kernel()
    await kc.wait_for_ready(timeout=60)
    lap('restart')
    kc.stop_channels()
    begin = time.perf_counter()
    await km.shutdown_kernel()
    lap('shutdown')
    return took

def used() -> dict[str, int]:
    return dict(threads=len(os.listdir('/proc/self/task')), fds=len(os.listdir('/proc/self/fd')))

async def many(name: str, seconds: float) -> dict[str, float]:
    "What one of several open kernels costs"
    from conkernelclient import run_kernel
    from contextlib import AsyncExitStack
    async with run_kernel(name): pass    # (what the first one brings with it counts for none)
    gc.collect()
    before = used()
    async with AsyncExitStack() as stack:
        for _ in range(MANY): await stack.enter_async_context(run_kernel(name))
        after = used()
        await asyncio.sleep(1)
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        idle = (time.process_time()-cpu)/seconds/MANY*100
    return {o: (after[o]-before[o])/MANY for o in before}|dict(idle=idle*100)

async def serve(name: str):
    print('ready', flush=True)
    for line in sys.stdin:
        what = line.split()
        result = await (once(name) if what[0]=='once' else many(name, float(what[1])))
        print(json.dumps(result), flush=True)


# --- the kernel alone ----------------------------------------------------------------------------------------------------

class Alone:
    "A kernel's process, and bare sockets that are there before it listens"
    label = 'the kernel alone'
    def __init__(self, kernel: str):
        from jupyter_client.kernelspec import KernelSpecManager
        self.argv = KernelSpecManager().get_kernel_spec(kernel).argv

    def __call__(self, what: str) -> dict[str, float]:
        if not what.startswith('once'): return {}
        import zmq
        from jupyter_client.connect import write_connection_file
        from jupyter_client.session import Session
        with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
            file, info = write_connection_file(f'{folder}/kernel.json', key=b'key')
            session = Session(key=b'key')
            def ask(sock, what, **content):
                session.send(sock, what, content)
                session.recv(sock, mode=0)
            begin = time.perf_counter()
            def lap(): return (time.perf_counter()-begin)*1000
            process = subprocess.Popen([o.format(connection_file=file) for o in self.argv], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            socks = {}
            for o, kind in dict(shell=zmq.DEALER, control=zmq.DEALER, iopub=zmq.SUB).items():
                sock = socks[o] = context.socket(kind)
                sock.reconnect_ivl, sock.reconnect_ivl_max, sock.linger = 10, 20, 0
                if kind == zmq.SUB: sock.subscribe(b'')
                sock.connect(f'tcp://127.0.0.1:{info[f"{o}_port"]}')
            ask(socks['shell'], 'kernel_info_request')
            start = lap()
            ask(socks['shell'], 'execute_request', code='1', silent=False)
            first = lap()
            begin = time.perf_counter()
            session.send(socks['control'], 'shutdown_request', dict(restart=False))
            process.wait()
            shutdown = lap()
            for o in socks.values(): o.close()
        return dict(start=start, first=first, shutdown=shutdown)


# --- in the process that compares ----------------------------------------------------------------------------------------

class Side:
    "A commit, served by a process"
    def __init__(self, label: str, folder: Path, kernel: str):
        self.label = label
        env = os.environ|dict(PYTHONPATH=str(folder))
        command = [sys.executable, __file__, '--serve', '--kernel', kernel]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, cwd=folder)
        self.answer()
    def answer(self) -> str:
        line = self.process.stdout.readline()
        if not line: sys.exit(f'{self.label}: its process has ended')
        return line
    def __call__(self, what: str) -> dict[str, float]:
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.answer())

def checkout(commit: str, folder: Path) -> Path:
    "The package as it was at `commit`"
    where = folder/commit.replace('/', '-')
    archive = subprocess.run(['git', 'archive', '--format=zip', commit, 'conkernelclient'], cwd=ROOT, capture_output=True, check=True).stdout
    zipfile.ZipFile(io.BytesIO(archive)).extractall(where)
    return where

def compare(sides: list[Side|Alone], rounds: int, seconds: float) -> list[dict[str, list[float]]]:
    "The values of each side, by measure"
    found = [{o: [] for o in NAMES} for _ in sides]
    def take(what, order):
        for i in order:
            for k, v in sides[i](what).items(): found[i][k].append(v)
    for r in range(rounds):
        order = [(i+r)%len(sides) for i in range(len(sides))]
        take('once', order if r%4<2 else order[::-1])
        print(f'\rround {r+1} of {rounds}', end='', file=sys.stderr, flush=True)
    for r in range(2): take(f'many {seconds}', range(len(sides))[::1 if r else -1])
    print('\r', end='', file=sys.stderr)
    return found

def table(labels: list[str], found: list[dict[str, list[float]]]) -> str:
    "Medians, and behind them the first side's value over each, round by round"
    lines = ['| | '+' | '.join(labels)+' |', '|---'*(len(labels)+1)+'|']
    for key, name in NAMES.items():
        cells = []
        for i, values in enumerate(found):
            mine, first = values[key], found[0][key]
            if not mine:
                cells.append('')
                continue
            ratio = median(a/b for a, b in zip(first, mine) if b) if i and any(mine) else None
            cells.append(f'{median(mine):,.3g}'+(f' ({ratio:.2f} ×)' if ratio else ''))
        lines.append(f'| {name} | '+' | '.join(cells)+' |')
    return '\n'.join(lines)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('commits', nargs='*', help='earlier commits; the first is what the others are compared with')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--seconds', type=float, default=20, help='of idling')
    parser.add_argument('--kernel', default='python3')
    parser.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve: return asyncio.run(serve(args.kernel))
    with tempfile.TemporaryDirectory() as folder:
        labels = [*args.commits, 'this checkout']
        folders = [checkout(o, Path(folder)) for o in args.commits]+[ROOT]
        sides = [Side(label, where, args.kernel) for label, where in zip(labels, folders)]
        found = compare([*sides, Alone(args.kernel)], args.rounds, args.seconds)
        for o in sides: o.process.stdin.close()
        for o in sides: o.process.wait()
    print(table([*labels, Alone.label], found))

if __name__=='__main__': main()
