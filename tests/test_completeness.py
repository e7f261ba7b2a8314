"""Have all outputs come? Over ZMQ, a client that counts the kernel's messages knows (`count_messages=True`)."""
import asyncio, time

import pytest
from conkernelclient import KernelRestartedError, run_kernel
from fault_tools import SOON, nothing_unheard, outcomes, until, within

bound = 90
FLOOD = 'from IPython.display import display\nfor i in range({n}): display({{"text/plain": "x"*100_000}}, raw=True)'


def counting(km, **kwargs):
    kc = km.client(count_messages=True, **kwargs)
    kc.max_output = 10**9   # (200 MB would be cut)
    return kc

async def test_a_flood_that_the_kernel_drops_some_of(tmp_path):
    "2,000 displays of 100 kB while this process does not read: more than the kernel keeps for a client. Nobody reports it"
    async with run_kernel() as (km, plain):
        kc = await counting(km).start_channels()
        try:
            await kc.run('1')   # (the account begins)
            go, done = tmp_path/'go', tmp_path/'done'
            run = kc.run(f'import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.01)\n{FLOOD.format(n=2000)}\nopen({str(done)!r}, "w")')
            await until(lambda: kc.router.busy)
            go.touch()
            while not done.exists(): time.sleep(.01)   # the event loop is blocked, so that nothing is read
            r, _ = await within(SOON, run)
            came = len([o for o in r.outputs if o['output_type'] == 'display_data'])
            print(f'figure | displays of 2,000 that came over ZMQ | {came}')
            assert r.complete == (came == 2000)
            if not r.complete: assert 'did not come' in r.missing
            r = await kc.run('1')
            assert r.complete and not r.missing
        finally: kc.stop_channels()

async def test_nothing_is_missed_where_nothing_is_missing():
    "Four clients, subshells, prompts, control and comms: no false alarm"
    async with run_kernel() as (km, plain):
        kcs = [await counting(km).start_channels() for _ in range(4)]
        try:
            async def work(kc):
                results = await asyncio.gather(*(kc.run(f'print({i}); {i}') for i in range(30)), kc.kernel_info(reply=True, channel='control'),
                                               kc.run('input("?")', stdin=['answer']))
                assert all(o.complete and not o.missing for o in (*results[:-2], results[-1]))
                assert all(o.complete for o in await kc.map(f'print({i}); {i}' for i in range(8)))
            await asyncio.gather(*map(work, kcs))
            assert all(o.connection.transport.ledger.judges for o in kcs)
        finally:
            for o in kcs: o.stop_channels()

async def test_the_account_begins_anew_with_the_next_kernel():
    async with run_kernel() as (km, plain):
        kc = await counting(km).start_channels()
        try:
            for _ in range(2):
                assert (await kc.run('print(1)')).complete
                flying = kc.run('import time; time.sleep(60)')
                restart = asyncio.ensure_future(km.restart_kernel(now=True))
                (res,), _ = await outcomes([flying])
                assert type(res) is KernelRestartedError
                await restart
                results = await asyncio.gather(*(kc.run(f'print({i})') for i in range(20)))
                assert all(o.complete and o.stdout == f'{i}\n' for i, o in enumerate(results))
        finally: kc.stop_channels()
