"""A kernel behind a Jupyter server against the same kernel over ZMQ, in turns: python benchmarks/server.py

One server, one kernel, two clients of it: one by the server's WebSocket, one by the connection file. Rounds alternate,
so that a busy machine slows both. Prints medians in ms and their ratio.
"""
import asyncio, statistics, sys, time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent/'tests')]
from jupyter_core.paths import jupyter_runtime_dir
from conkernelclient import ConKernelClient, open_server_kernel
from proxy import Jupyter

async def one_by_one(kc, n=30):
    begin = time.perf_counter()
    for i in range(n): await kc.run(f'{i}')
    return (time.perf_counter()-begin)/n*1000

async def replies(kc, n=30):
    begin = time.perf_counter()
    for i in range(n): await kc.execute('', reply=True)
    return (time.perf_counter()-begin)/n*1000

async def in_flight(kc, n=100):
    begin = time.perf_counter()
    await asyncio.gather(*(kc.execute('', reply=True) for _ in range(n)))
    return (time.perf_counter()-begin)*1000

async def runs(kc, n=100):
    begin = time.perf_counter()
    await asyncio.gather(*(kc.run(f'{i}') for i in range(n)))
    return (time.perf_counter()-begin)*1000

async def main(rounds=9):
    jupyter = Jupyter("--KernelManager.transport=tcp").start()   # as servers do; tests have files
    try:
        await jupyter.ready()
        async with open_server_kernel(jupyter.url, token=jupyter.token) as ws:
            direct = ConKernelClient()
            direct.load_connection_file(Path(jupyter_runtime_dir())/f'kernel-{ws.parent.kernel_id}.json')
            await direct.start_channels()
            for f in one_by_one, replies, in_flight, runs:
                times = {ws: [], direct: []}
                for _ in range(rounds):
                    for kc in times: times[kc].append(await f(kc))
                a, b = (statistics.median(times[o]) for o in (ws, direct))
                print(f'{f.__name__:12} server {a:8.2f} ms   zmq {b:8.2f} ms   ratio {a/b:.2f} (best {min(times[ws])/min(times[direct]):.2f})')
            direct.stop_channels()
    finally: jupyter.stop()

if __name__ == '__main__': asyncio.run(main())
