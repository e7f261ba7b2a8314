"""What live outputs cost the client, beside other clients and beside a floor of its own: python benchmarks/outputs.py

    python benchmarks/outputs.py                      # 5 turns
    python benchmarks/outputs.py --before DIR         # and the same with the package in that folder
    python benchmarks/outputs.py --only ours_run,floor --cases prints
    python benchmarks/outputs.py --python PATH        # in an environment of yours; else one is made

Each contender has a process of its own, started in an empty folder, and an ipykernel of its own. All are alive at once and
take turns, in a different order each time. CPU is that of the client's whole process, ZMQ's thread included. Ratios are
taken turn by turn. `lacks` counts characters of the text that a contender did not get.
"""
import argparse, asyncio, json, os, statistics, subprocess, sys, tempfile, time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
LINES = 20_000
# Name: the code, how many characters it prints, how many messages that is (to divide by), what one of them is
CASES = dict(
    prints=(f'for i in range({LINES}): print(i, flush=True)', sum(len(str(i))+1 for i in range(LINES)), LINES, 'µs a print'),
    burst=(f'for i in range({LINES}): print(i)', sum(len(str(i))+1 for i in range(LINES)), 1, 'ms'),
    displays=('for i in range(3000): display(i)', 0, 3000, 'µs a display'),
    large=("print('x'*20_000_000)", 20_000_001, 1, 'ms'),
    cells=(None, 0, 100, 'µs a cell'),
    lone=(None, 0, 20, 'µs a print'))
ASK_TIME = "import time\ntime.sleep(.02)\nprint(time.time(), flush=True)"


# --- in the process of one contender -----------------------------------------------------------------------------------

class Ours:
    "This library: `run`"
    def __init__(self, info): self.info = info

    async def connect(self):
        from conkernelclient import ConKernelClient
        self.kc = ConKernelClient()
        self.kc.load_connection_info(self.info)
        await self.kc.start_channels()

    async def text(self, code): return (await self.kc.run(code, check=True)).stdout

class OursFor(Ours):
    "This library: `async for`"
    async def text(self, code): return ''.join([e.text async for e in self.kc.run(code) if e.output['output_type'] == 'stream'])

class Stock(Ours):
    "jupyter_client: `execute_interactive`"
    async def connect(self):
        from jupyter_client import AsyncKernelClient
        self.kc = AsyncKernelClient()
        self.kc.load_connection_info(self.info)
        self.kc.start_channels()
        await self.kc.wait_for_ready(timeout=60)

    async def text(self, code):
        texts = []
        def hook(msg):
            if msg['msg_type'] == 'stream': texts.append(msg['content']['text'])
        await self.kc.execute_interactive(code, output_hook=hook)
        return ''.join(texts)

class OursInteractive(Stock):
    "This library: `execute_interactive`"
    connect = Ours.connect

class NbClient(Ours):
    "nbclient: a cell"
    async def connect(self):
        import nbformat
        from nbclient import NotebookClient
        self.new = nbformat.v4.new_code_cell
        self.nb = nbformat.v4.new_notebook()
        self.client = NotebookClient(self.nb, timeout=120, iopub_timeout=60, kernel_name='python3')
        self.kernel = self.client.async_setup_kernel()
        await self.kernel.__aenter__()

    async def text(self, code):
        cell = self.new(code)
        self.nb.cells[:] = [cell]
        await self.client.async_execute_cell(cell, 0)
        return ''.join(o['text'] for o in cell.outputs if o.output_type == 'stream')

class Floor(Ours):
    "The floor: a bare reader on the event loop that takes all there is at each wake, and parses contents with orjson"
    woken = 0
    async def connect(self):
        import zmq
        from floors import Bare, BareClient, BareIopub
        self.zmq = zmq
        self.bare = BareIopub(self.info)
        self.shell, self.iopub = self.bare.open(zmq.DEALER, 'shell_port'), self.bare.open(zmq.SUB, 'iopub_port')
        self.iopub.recv_multipart()
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.iopub.get(zmq.FD), self.read)
        self.msg_id, self.texts, self.over = '', [], None

    def read(self):
        import orjson
        from floors import crecv
        self.woken += 1
        try:
            while True:
                crecv(self.iopub, 1); crecv(self.iopub, 1); crecv(self.iopub, 1); crecv(self.iopub, 1)
                parent = crecv(self.iopub, 1)
                crecv(self.iopub, 1)
                content = orjson.loads(crecv(self.iopub, 1))
                if 'text' in content: self.texts.append(content['text'])
                elif content.get('execution_state') == 'idle' and self.msg_id.encode() in parent: self.over.set_result(None)
        except self.zmq.Again: pass

    async def text(self, code):
        from floors import recv_frames, send_frames
        self.texts, self.over = [], self.loop.create_future()
        self.msg_id, frames = self.bare.wire.execute(code)
        send_frames(self.shell, frames)
        self.loop.call_soon(self.read)
        await self.over
        while self.shell.poll(0): recv_frames(self.shell, 6)
        self.read()
        return ''.join(self.texts)

CONTENDERS = dict(floor=Floor, ours_run=Ours, ours_for=OursFor, ours_interactive=OursInteractive, jupyter_client=Stock, nbclient=NbClient)


class Measure:
    "Measures one contender"
    def __init__(self, client, pid): self.client, self.pid = client, pid

    async def case(self, name: str) -> dict:
        "One turn"
        if name in ('cells', 'lone'): return await getattr(self, name)(CASES[name][2])
        code, size, n, unit = CASES[name]
        cpu, wall = time.process_time(), time.perf_counter()
        text = await self.client.text(code)
        each = (1e6 if 'µs' in unit else 1e3)/n
        return dict(cpu=(time.process_time()-cpu)*each, wall=(time.perf_counter()-wall)*each, lacks=size-len(text))

    async def cells(self, n: int) -> dict:
        "Cells one after the other, and the client's share of the CPU that client and kernel take together"
        from worker import cpu_seconds
        await self.client.text('1')
        cpu, kernel, wall = time.process_time(), cpu_seconds(self.pid), time.perf_counter()
        for _ in range(n): await self.client.text('1')
        cpu, kernel, wall = time.process_time()-cpu, cpu_seconds(self.pid)-kernel, time.perf_counter()-wall
        return dict(cpu=cpu*1e6/n, wall=wall*1e6/n, share=100*cpu/(cpu+kernel))

    async def lone(self, n: int) -> dict:
        "How long a print that comes alone is on its way to the caller: the end of a cell comes behind it"
        got = []
        if isinstance(self.client, OursFor):
            for _ in range(n):
                async for e in self.client.kc.run(ASK_TIME):
                    if e.text.strip(): got.append(time.time()-float(e.text))   # (the line end may come by itself)
        else: return dict(wall=float('nan'), cpu=float('nan'))
        return dict(wall=statistics.median(got)*1e6, cpu=float('nan'))

async def serve(name: str):
    import kernels, worker
    sys.path.append(str(HERE))
    with ExitStack() as stack:
        info = {} if name == 'nbclient' else stack.enter_context(kernels.ipykernel(sys.executable))
        client = CONTENDERS[name](info)
        await client.connect()
        await client.text('1')
        pid = client.client.km.provisioner.pid if name == 'nbclient' else info['pid']
        measure = Measure(client, pid)
        modules = {o: sys.modules[o].__file__ for o in ('conkernelclient', 'jupyter_client', 'nbclient') if o in sys.modules}
        print(json.dumps(dict(worker.versions(), modules=modules)), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await measure.case(line.strip())), flush=True)
        if name == 'nbclient': await client.kernel.__aexit__(None, None, None)


# --- in the process that compares ----------------------------------------------------------------------------------------

class Side:
    "A contender, served by a process in an empty folder"
    def __init__(self, label: str, name: str, python: str, folder: Path|None, stack: ExitStack):
        self.label = label
        env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        env['PATH'] = f'{Path(python).parent}{os.pathsep}{env["PATH"]}'
        if folder is not None: env['PYTHONPATH'] = str(folder)
        empty = stack.enter_context(tempfile.TemporaryDirectory())
        command = [python, str(Path(__file__).resolve()), '--serve', name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=empty)
        stack.callback(self.end)
        self.ready = self.answer()
        used = self.ready['modules'].get('conkernelclient')
        if folder is not None and Path(used).parent.parent != folder: sys.exit(f'{label}: imported {used}')
        if folder is None and used: sys.exit(f'{label}: imported {used}, and should not')

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line: sys.exit(f'{self.label}: its process has ended')
        return json.loads(line)

    def __call__(self, case: str) -> dict:
        print(case, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self):
        self.process.stdin.close()
        try: self.process.wait(15)
        except subprocess.TimeoutExpired: self.process.kill()


def table(case: str, labels: list[str], turns: list[dict]) -> list[str]:
    "Lines of the report: medians, and ratios to the floor, nbclient and jupyter_client"
    peers = [o for o in ('floor', 'before_run', 'before_for', 'jupyter_client', 'nbclient') if o in labels]
    lines = [f'### {case}, {CASES[case][3]}', '', f'| | CPU | time | {" | ".join("CPU / "+o for o in peers)} | lacks | share |',
             '|'+'---|'*(5+len(peers))]
    mid = statistics.median
    for o in labels:
        cells = [f'{mid(t[o]["cpu"] for t in turns):,.1f}', f'{mid(t[o]["wall"] for t in turns):,.1f}']
        cells += [f'{mid(t[o]["cpu"]/t[p]["cpu"] for t in turns):.2f}' for p in peers]
        cells += [str(max(t[o].get('lacks', 0) for t in turns)), f'{mid(t[o]["share"] for t in turns):.0f} %' if 'share' in turns[0][o] else '']
        lines.append(f'| {o} | {" | ".join(cells)} |')
    return [*lines, '']


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--turns', type=int, default=5)
    p.add_argument('--before', type=Path, help='a folder with an earlier `conkernelclient`')
    p.add_argument('--only', default=','.join(CONTENDERS))
    p.add_argument('--cases', default=','.join(CASES))
    p.add_argument('--python', help='a Python that has jupyter_client, nbclient, orjson and ipykernel; made by default')
    p.add_argument('--serve', help=argparse.SUPPRESS)
    return p.parse_args()


def main():
    opts = options()
    if opts.serve: return asyncio.run(serve(opts.serve))
    python = opts.python
    if python is None:
        import envs
        (HERE/'build').mkdir(exist_ok=True)
        python = envs.make(HERE/'build'/'envs'/'outputs', [*envs.requirements()['base'], 'nbclient'])
    with ExitStack() as stack:
        sides = {}
        for name in opts.only.split(','):
            ours = name.startswith('ours')
            sides[name] = Side(name, name, python, HERE.parent if ours else None, stack)
            if ours and opts.before:
                label = f'before{name[4:]}'
                sides[label] = Side(label, name, python, opts.before.resolve(), stack)
        for side in sides.values(): print(side.label, side.ready, file=sys.stderr)
        for case in opts.cases.split(','):
            turns = []
            for k in range(opts.turns):
                turns.append({o: sides[o](case) for o in list(sides)[::1 if k%2 else -1]})
            print('\n'.join(table(case, list(sides), turns)), flush=True)

if __name__ == '__main__': main()
