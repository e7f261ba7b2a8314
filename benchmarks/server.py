"""Clients of a kernel behind a Jupyter server, in turns: python benchmarks/server.py [--rounds 9] [--only ours,zmq]

This library behind a server, this library over ZMQ without a server, a floor (tornado's WebSocket and orjson), datalayer's
jupyter-kernel-client, and jupyter_server's GatewayKernelClient. Each is a process with a kernel of its own; the peers have
environments of their own in `benchmarks/build/envs`. All run in an empty folder, where no checkout shadows a package, and the
version and the file of what was imported are printed. Rounds alternate, so that a busy machine slows all of them.
"""
import argparse, asyncio, json, os, statistics, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent/'tests'), str(HERE.parent)]
from jupyter_core.paths import jupyter_runtime_dir
from envs import make
from proxy import Jupyter

PACKAGES = dict(datalayer=['jupyter-kernel-client'], gateway=['jupyter_server', 'ipykernel'])
MEASURES = dict(cells=30, replies=30, flight=100, prints=20_000)
TITLES = dict(cells='30 cells one after the other, with their outputs', replies='30 replies, one after the other',
              flight='100 replies in flight', prints='one cell with 20,000 flushed prints')
OPTIONS = ('--KernelManager.transport=tcp', '--ServerApp.disable_check_xsrf=True',   # ports, as servers have; no token, as
           '--ZMQChannelsWebsocketConnection.limit_rate=False')                      # GatewayKernelClient's WebSocket has none


class Worker:
    "A client in a process of its own"
    def __init__(self, name, python, info, folder):
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        if name not in PACKAGES: env['PYTHONPATH'] = str(HERE.parent)
        self.errors = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen([python, str(HERE/'server_clients.py'), name, json.dumps(info)], env=env, cwd=folder, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    async def answer(self, *question):
        "The next result. Raises `RuntimeError` when the process has died, or takes three minutes."
        try:
            if question: print(json.dumps(question), file=self.process.stdin, flush=True)
            async with asyncio.timeout(180): line = await asyncio.to_thread(self.process.stdout.readline)
            return json.loads(line)
        except (OSError, ValueError, TimeoutError):
            self.process.kill()
            self.errors.seek(0)
            raise RuntimeError((self.errors.read().strip().splitlines() or ['nothing in three minutes'])[-1]) from None

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


async def begin(name, jupyter, folder):
    "Start a client with a kernel of its own"
    python = make(HERE/'build'/'envs'/name, PACKAGES[name]) if name in PACKAGES else sys.executable
    kernel_id = (await jupyter.post('api/kernels'))['id']
    file = Path(jupyter_runtime_dir())/f'kernel-{kernel_id}.json'
    worker = Worker(name, python, dict(url=jupyter.url, token=jupyter.token, kernel_id=kernel_id, file=str(file)), folder)
    what = await worker.answer()
    print(f'{name:10} {what["version"]:12} {what["file"]}', flush=True)
    return worker

def line(name, got, n, base):
    "A client's medians, and its medians of the ratios to ZMQ of the same round"
    wall, cpu = ([o[k] for o in got] for k in ('wall', 'cpu'))
    text = f'  {name:10} {statistics.median(wall)/n*1e3:9.3f} ms {statistics.median(cpu)/n*1e6:9.0f} µs of CPU'
    if base: text += ''.join(f'   {title} {statistics.median(o[k]/b[k] for o, b in zip(got, base)):6.2f}' for k, title in (('wall', 'time'), ('cpu', 'CPU')))
    lost = [want-o['came'] for o in got if (want := o.get('want')) and o['came'] != want]
    return text+(f'   lost {max(lost):,} characters' if lost else '')

async def compare(workers, rounds):
    for what, n in MEASURES.items():
        want = sum(len(str(i))+1 for i in range(n)) if what == 'prints' else None
        got = {name: [] for name in workers}
        for i in range(max(rounds//3, 1) if what == 'prints' else rounds):
            for name in [*workers][::1 if i%2 else -1]:
                try: got[name].append(await workers[name].answer(what, n)|dict(want=want))
                except RuntimeError as e: print(f'{name} failed: {e}')
            for name in [*workers]:
                if len(got[name]) <= i: workers.pop(name).close()
        print(f'\n{TITLES[what]}: per {"line" if what == "prints" else "cell"}, and the ratio to ZMQ')
        for name in workers: print(line(name, got[name], n, got.get('zmq')), flush=True)

async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--only', default='zmq,ours,floor,datalayer,gateway', help='which clients')
    args = parser.parse_args()
    jupyter, workers = Jupyter(*OPTIONS, token='').start(), {}
    try:
        await jupyter.ready()
        with tempfile.TemporaryDirectory() as folder:
            for name in args.only.split(','):
                try: workers[name] = await begin(name, jupyter, folder)
                except RuntimeError as e: print(f'{name} is not measured: {e}')
            await compare(workers, args.rounds)
    finally:
        for o in workers.values(): o.close()
        jupyter.stop()

if __name__ == '__main__': asyncio.run(main())
