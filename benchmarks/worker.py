"""Measures one contender against one kernel and prints what it found as JSON: `worker.py NAME INFO PLAN`. With an empty
plan it measures, again and again, what it is asked for on its standard input.

It runs in the contender's own environment, in a process of its own, and imports nothing else of the benchmark than the
contender. CPU is the process's, libzmq's I/O thread included.
"""
import asyncio, gc, json, os, signal, statistics, sys, time, tracemalloc
from importlib.metadata import version
from pathlib import Path
from contenders import load


def cpu_seconds(pid:int) -> float|None:
    "CPU time of all threads of process `pid`, to the nanosecond; Linux only."
    try: return sum(int(p.read_text().split()[0]) for p in Path(f'/proc/{pid}/task').glob('*/schedstat')) / 1e9
    except OSError: return None


class Bench:
    def __init__(self, name:str, info:dict, plan:dict):
        self.cls,self.info,self.plan,self.code = load(name),info,plan,'1'

    async def run(self) -> dict:
        out = dict(connect_ms=[await self.connect() for _ in range(self.plan['connects'])])
        await self.waves(50, 200)
        if self.plan['latency']: out['latency_us'] = await self.latency(self.plan['latency'])
        out['cells'] = {n: await self.waves(n, total) for n, total in self.plan['cells']}
        if self.plan['extras']: out.update(await self.extras())
        self.client.close()
        return out

    async def serve(self):
        "What each line of input asks for, a method and what it takes, as a line of JSON, until there is none."
        await self.connect()
        await self.waves(50, 200)
        print(json.dumps(dict(package=package())), flush=True)
        while line := await self.asked():
            what,n,*args = json.loads(line)
            # A wave that is not counted: this process has slept, and others have had the caches.
            await self.waves(min(n, 1000) if args else 1, min(max(n, 100), 1000), *args[1:])
            print(json.dumps(await getattr(self, what)(n, *args)), flush=True)
        self.client.close()

    async def asked(self) -> str:
        "A line of input, and the loop goes on: zmq.asyncio may miss what comes while its loop is blocked."
        return sys.stdin.readline() if self.cls.sync else await asyncio.to_thread(sys.stdin.readline)

    async def extras(self) -> dict:
        out = dict(output=await self.waves(100, 1000, 'print(1)'))
        if hasattr(self.cls, 'call'): out['in_order'] = await self.waves(100, 1000, burst=self.in_order)
        if not self.cls.sync: out['pause_ms'] = {n: await self.pause(n, max(n, 2000)) for n in self.plan['pauses']}
        out['bytes_in_flight'] = await self.memory(500)
        return out

    async def connect(self) -> float:
        "Milliseconds from opening the channels to ready; the client of the time before is closed."
        if hasattr(self, 'client'): self.client.close()
        self.client = self.cls(self.info)
        start = time.perf_counter()
        await self.client.connect()
        return (time.perf_counter() - start) * 1e3

    async def burst(self, n:int, code:str):
        done = await self.client.finish(self.client.start(n, code))
        assert done == n, f'{done} of {n} came back'

    async def in_order(self, n:int, code:str):
        "All sent, then awaited one after the other instead of gathered: no task per request."
        for each in [self.client.call(code) for _ in range(n)]: await each

    async def ordered(self, n: int, total: int) -> dict:
        "`waves`, awaited one after the other."
        return await self.waves(n, total, burst=self.in_order)

    async def latency(self, n:int) -> float:
        "Median microseconds of one request alone."
        call = getattr(self.client, 'call', None)
        times = []
        for _ in range(n):
            start = time.perf_counter()
            if call: await call(self.code)
            else: await self.burst(1, self.code)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    async def waves(self, n:int, total:int, code:str='1', burst=None) -> dict:
        "Waves of `n` in flight until `total` requests: requests per second, CPU µs per request of client and kernel."
        burst,count = burst or self.burst,max(1, total // n)
        gc.collect()
        kernel,cpu,start = cpu_seconds(self.info['pid']),time.process_time(),time.perf_counter()
        for _ in range(count): await burst(n, code)
        wall,cpu = time.perf_counter() - start,time.process_time() - cpu
        each = 1e6 / (n * count)
        out = dict(rate=n * count / wall, cpu_us=cpu * each)
        if kernel is not None: out['kernel_us'] = (cpu_seconds(self.info['pid']) - kernel) * each
        return out

    async def pause(self, n:int, total:int) -> dict:
        """The longest time, in ms, between two beats of a 1 ms timer, on the clock and in the thread's own CPU time (a
        busy machine lengthens the first); and the longest collection of garbage, which is part of it, and grows with all
        that the program holds. Requests go out 50 at a time, yielding between, so that asking is no pause."""
        gc.collect()
        began,collected = 0.0,0.0
        def collecting(phase, info):
            nonlocal began, collected
            if phase == 'start': began = time.thread_time()
            else: collected = max(collected, time.thread_time() - began)
        gc.callbacks.append(collecting)
        loop,tick,running = asyncio.get_running_loop(),0.001,True
        last,worst = (time.perf_counter(), time.thread_time()),(0.0, 0.0)
        def beat():
            nonlocal worst, last
            now = time.perf_counter(),time.thread_time()
            worst = max(worst[0], now[0] - last[0] - tick),max(worst[1], now[1] - last[1])
            last = now
            if running: loop.call_later(tick, beat)
        beat()
        for _ in range(max(1, total // n)):
            parts = []
            for k in range(0, n, 50):
                parts.append(self.client.start(min(50, n - k), self.code))
                await asyncio.sleep(0)
            for part in parts: await self.client.finish(part)
        running = False
        gc.callbacks.remove(collecting)
        return dict(clock=worst[0] * 1e3, cpu=worst[1] * 1e3, gc=collected * 1e3)

    async def memory(self, n:int, ordered:bool=False) -> float|None:
        """Python's bytes per request in flight: the kernel is stopped while `n` are sent; without what gathering takes when
        they are to be awaited in order."""
        if not self.info.get('stoppable'): return None
        await self.burst(n, self.code)
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        os.kill(self.info['pid'], signal.SIGSTOP)
        try:
            pending = [self.client.call(self.code) for _ in range(n)] if ordered else self.client.start(n, self.code)
            if not self.cls.sync: await asyncio.sleep(0)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
        finally: os.kill(self.info['pid'], signal.SIGCONT)
        tracemalloc.stop()
        if ordered: pending = asyncio.gather(*pending)
        await self.client.finish(pending)
        return held / n


def drive(coro):
    "The result of a coroutine that never waits on a loop: blocking clients misbehave beside a running one."
    try: coro.send(None)
    except StopIteration as e: return e.value
    raise RuntimeError('a blocking contender awaited')


def package() -> str|None:
    "The file of the `conkernelclient` that the contender has imported."
    return getattr(sys.modules.get('conkernelclient'), '__file__', None)


def versions() -> dict:
    out = dict(python=sys.version.split()[0])
    for name in ('pyzmq', 'jupyter_client', 'conkernelclient', 'jupywire', 'orjson'):
        try: out[name] = version(name)
        except Exception: pass
    return out


def main(name:str, info:str, plan:str):
    try:
        bench = Bench(name, json.loads(info), json.loads(plan))
        if not bench.plan: return drive(bench.serve()) if bench.cls.sync else asyncio.run(bench.serve())
        out = drive(bench.run()) if bench.cls.sync else asyncio.run(bench.run())
    except ImportError as e: out = dict(absent=f'{e}')
    print(json.dumps(dict(out, versions=versions())))


if __name__ == '__main__': main(*sys.argv[1:])
