"""Much at a time, behind a real Jupyter server: many requests, much output, a client that is slower than its kernel, a
neighbour that floods. (50 MB in one display, requests that are too large, and ten clients are in test_server.)
"""
import asyncio, json, os, subprocess, sys, textwrap

import pytest
from conkernelclient import *
from proxy import Jupyter, Proxy
from test_server import SOON, ask, client, kernel, outcome, text, until, until_busy
from test_server_faults import goes_on, proxied

bound = 120
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('error'), pytest.mark.filterwarnings('ignore:Unclosed WebSocketClientConnection'),
              pytest.mark.filterwarnings('ignore:unclosed <socket:ResourceWarning')]   # (see test_server_faults)
MANY = 20_000


def asked(kc, n): return [kc.execute('', user_expressions=dict(x=f'{i}'), reply=True) for i in range(n)]

def number(reply): return int(reply['content']['user_expressions']['x']['data']['text/plain'])

async def test_many_queued(jupyter):
    "Each has its own reply, and the server never has more than the window of them"
    async with proxied(jupyter) as (proxy, kc):
        replies = await asyncio.gather(*asked(kc, MANY))
        assert [number(o) for o in replies] == list(range(MANY))
        await goes_on(kc)

async def test_many_queued_and_the_connection_is_cut(jupyter):
    "Those that were not sent yet are spared"
    async with proxied(jupyter) as (proxy, kc):
        reqs = [asyncio.ensure_future(outcome(o, 600)) for o in asked(kc, MANY)]
        for n in 200, 2000, 10_000:
            await until(lambda: sum(o.done() for o in reqs[:n]) > n//2, 300)
            proxy.cut()
        results = await asyncio.gather(*reqs)
        lost = [o for o in results if isinstance(o, Exception)]
        print(f'figure | replies lost in three cuts, of {MANY} | {len(lost)}')
        assert all(isinstance(o, NoReplyError) for o in lost), lost
        assert all(isinstance(o, Exception) or number(o) == i for i, o in enumerate(results))
        assert len(lost) <= 3*256   # (what was on the wire)
        await goes_on(kc)

SLOW = '''
import asyncio, json, re, sys, time
from pathlib import Path
from conkernelclient import open_server_kernel

async def main(url, token, size, n, pause):
    def memory(): return int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])//1024   # the most so far
    def look(event): time.sleep(pause)
    async with open_server_kernel(url, token=token) as kc:
        kc.max_output = 1_000_000
        if len(sys.argv) > 6: kc.connection.transport.most = int(sys.argv[6])
        await kc.run("from IPython.display import display")
        before = memory()
        run = kc.run(f'for i in range({n}): display(dict([("text/plain", "x"*{size})]), raw=True)\\n"end"', on_output=look)
        alive = 0
        while not run.done():
            await asyncio.sleep(.1)
            alive += 1
        r = await run
        after = await kc.eval('6*7')
        print(json.dumps(dict(grown=memory()-before, complete=r.complete, missing=r.missing, kept=sum(len(str(o)) for o in r.outputs),
                              turns=alive, goes_on=after)))
asyncio.run(main(*sys.argv[1:3], *map(int, sys.argv[3:5]), float(sys.argv[5])))
'''

@pytest.fixture(scope='module')
def unlimited():
    server = Jupyter('--ZMQChannelsWebsocketConnection.limit_rate=False').start()
    asyncio.run(server.ready())
    try: yield server
    finally: server.stop()

@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='needs /proc')
@pytest.mark.parametrize('size, n, pause', [(100_000, 1300, .01), (10_000, 13_000, .001), (100_000, 1300, 0)])
async def test_a_slow_client_of_much_output(unlimited, tmp_path, size, n, pause):
    "130 MB, for a client that takes its time with each output: it holds what it keeps, and a little that waits"
    program = tmp_path/'slow.py'
    program.write_text(SLOW)
    process = await asyncio.create_subprocess_exec(sys.executable, program, unlimited.url, unlimited.token, str(size), str(n), str(pause),
                                                   stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    res = json.loads(out)
    print(f'figure | 130 MB in {n:,} displays, {1000*pause:g} ms each: memory has grown by | {res["grown"]} MB')
    assert res['complete'] or res['missing']   # (a server that cannot follow makes the kernel drop some)
    assert res['goes_on'] == 42 and res['kept'] < 3_000_000
    assert res['grown'] < 60
    assert res['turns'] > 2   # other tasks ran

FLOOD = 'from IPython.display import display\nimport time\nend = time.time()+6\nwhile time.time() < end: display(1); time.sleep(.001)'

async def test_a_neighbour_floods_and_all_others_lose():
    "Those that run meanwhile are incomplete, on the main shell and on subshells; the notice is in no output; what comes later is complete"
    jupyter = Jupyter('--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=20').start()
    try:
        await jupyter.ready()
        async with kernel(jupyter) as kc, kc.subshell() as sub, kc.subshell() as third:
            begun = [asyncio.Event() for _ in range(2)]
            code = 'print("begun", flush=True)\nimport time; time.sleep(3)\nprint("quiet out")\nimport sys; print("quiet err", file=sys.stderr)'
            quiet = [o.run(code, on_output=lambda e, b=b: b.set()) for o, b in zip((kc, third), begun)]
            for o in begun: await o.wait()
            waiting = kc.run('print("later")')
            *results, flood = await asyncio.gather(*quiet, sub.run(FLOOD))
            for r in *results, flood:
                assert not r.complete and 'rate exceeded' in r.missing, r.missing
                assert 'rate exceeded' not in r.stdout+r.stderr
            for r in results: assert r.stdout == 'begun\n' and r.stderr == ''
            await waiting   # (it may have lost some, too)
            r = await kc.run('print("after")')
            assert r.complete and r.stdout == 'after\n'
    finally: jupyter.stop()
