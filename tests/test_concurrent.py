"""Many requests at once on a real ipykernel, each with its own reply: over ZMQ, and over a server's WebSocket."""
import asyncio,random

import pytest
from jupyter_client.session import Session

from conkernelclient import ConKernelManager
from fault_tools import at_rest,nothing_unheard,text,until_busy

bound = 90
both_transports = 'slow'

def expression(reply, name='x'):
    content = reply['content']
    assert content['status']=='ok', content
    return content['user_expressions'][name]['data']['text/plain']

async def own_results(kc, n, how=lambda i: {}):
    "`n` executes at once: does each get the value of its own expression?"
    reqs = [kc.execute('', user_expressions=dict(x=f'{i}*7'), reply=True, **how(i)) for i in range(n)]
    replies = await asyncio.gather(*reqs)
    assert [expression(r) for r in replies]==[str(i*7) for i in range(n)]
    for req,r in zip(reqs, replies): assert r['parent_header']['msg_id']==req.msg_id

async def test_the_readme_example():
    km = ConKernelManager(session=Session(key=b'x'))
    await km.start_kernel()
    kc = await km.client().start_channels()
    try:
        assert await kc.is_alive()
        r = await kc.execute('2+1', timeout=1, reply=True)
        assert r['content']['status']=='ok'
        a = kc.execute('x=2', reply=True)
        b = kc.execute('y=3', reply=True)
        r = await asyncio.wait_for(asyncio.gather(a, b), timeout=2)
        assert [o['parent_header']['msg_id'] for o in r]==[a.msg_id, b.msg_id]
        await kc.get_pubs()
        mid = kc.execute('print(1)')
        assert isinstance(mid, str)
        pubs = await kc.get_pubs()
        pubs = [o for o in pubs if o['parent_header']]     # without what the kernel says at its start (a warning of its debugger)
        assert {o['parent_header']['msg_id'] for o in pubs}=={mid}
        assert ''.join(o['content']['text'] for o in pubs if o['msg_type']=='stream')=='1\n'
    finally:
        if await km.is_alive():
            kc.stop_channels()
            await km.shutdown_kernel()
    assert not await km.is_alive()

async def test_1000_executes_each_with_its_own_result(kc):
    await own_results(kc, 1000)
    await at_rest(kc)

@pytest.mark.slow
async def test_1000_executes_50_times(start_kernel):
    async with start_kernel() as (_,kc):
        for _ in range(50):
            await own_results(kc, 1000)
            await kc.get_pubs()
        await at_rest(kc)

@pytest.mark.slow
async def test_10000_executes_5_times(start_kernel):
    async with start_kernel() as (_,kc):
        for _ in range(5): await own_results(kc, 10_000)
        await at_rest(kc)

async def test_as_tasks_as_futures_and_in_a_task_group(kc):
    ask = lambda i: kc.execute('', user_expressions=dict(x=str(i)), reply=True, timeout=30)
    got = [ask(0), asyncio.create_task(ask(1)), asyncio.ensure_future(ask(2)), asyncio.wait_for(ask(3), 30), asyncio.shield(ask(4))]
    async with asyncio.TaskGroup() as tg: tasks = [tg.create_task(ask(i)) for i in range(5, 8)]
    assert [expression(r) for r in await asyncio.gather(*got)]==[str(i) for i in range(5)]
    assert [expression(o.result()) for o in tasks]==['5', '6', '7']
    assert [expression(await o) for o in asyncio.as_completed([ask(9), ask(9)])]==['9', '9']
    await at_rest(kc)

async def test_all_kinds_of_requests_in_one_gather(kc):
    asked = dict(execute_reply=kc.execute('concurrent_name = 1', reply=True, timeout=30), complete_reply=kc.complete('concurrent_na', reply=True, timeout=30),
                 kernel_info_reply=kc.kernel_info(reply=True, channel='control', timeout=30), inspect_reply=kc.inspect('len', reply=True, timeout=30),
                 history_reply=kc.history(hist_access_type='tail', n=1, reply=True, timeout=30), is_complete_reply=kc.is_complete('for x in y:', reply=True, timeout=30),
                 comm_info_reply=kc.comm_info(reply=True, timeout=30))
    executes = [kc.execute('', user_expressions=dict(x=f'{i}'), reply=True, timeout=30) for i in range(10)]
    replies = await asyncio.gather(*asked.values(), *executes)
    assert [r['msg_type'] for r in replies[:len(asked)]]==list(asked)
    assert replies[1]['content']['matches']==['concurrent_name'] and replies[5]['content']['status']=='incomplete'
    assert [expression(r) for r in replies[len(asked):]]==[str(i) for i in range(10)]
    await at_rest(kc)

async def test_each_times_out_on_its_own(kc):
    "While a cell runs: what waits behind it on shell times out, each when it said; control is answered, and so is who waits longer"
    busy = kc.request('execute_request', dict(code='import time\nfor _ in range(3000): time.sleep(.01)', silent=False, allow_stdin=False))
    await until_busy(busy)
    loop,ends = asyncio.get_running_loop(),{}
    async def ask(name, req):
        try: return await req
        except TimeoutError as e: return e
        finally: ends[name] = loop.time()
    begin = loop.time()
    short = {f'execute {t}':kc.execute('', reply=True, timeout=t) for t in (.2, .4, .6)} | dict(complete=kc.complete('a', reply=True, timeout=.3))
    long = kc.execute('', user_expressions=dict(x='1'), stop_on_error=False, reply=True, timeout=60)
    got = await asyncio.gather(*[ask(k, req) for k,req in short.items()], ask('control', kc.kernel_info(reply=True, channel='control', timeout=20)))
    assert all(isinstance(o, TimeoutError) for o in got[:-1]) and got[-1]['msg_type']=='kernel_info_reply'
    assert 'complete_request within 0.3 s' in str(got[3])
    for t in .2,.4,.6: assert ends[f'execute {t}']-begin>=t-.02
    assert sorted(k for k in ends if k!='control')==['complete', 'execute 0.2', 'execute 0.4', 'execute 0.6']
    assert not busy.done() and not long.done()
    req = kc.request('interrupt_request', channel='control', timeout=20)
    assert (await req)['content']['status']=='ok'
    r = await asyncio.wait_for(busy, 20)
    assert r['content']['ename']=='KeyboardInterrupt'
    assert (await long)['content']['status'] in ('ok','aborted')      # the error of the interrupted cell aborts what waits behind it
    await at_rest(kc)

async def test_cancelled_and_abandoned_ones_among_others(kc):
    rnd = random.Random(1)
    reqs = [kc.execute('', user_expressions=dict(x=str(i)), reply=True) for i in range(600)]
    gone = set(rnd.sample(range(600), 200))
    for i in gone: reqs[i].cancel()
    for i in rnd.sample(range(600), 50): kc.execute('')
    kept = [i for i in range(600) if i not in gone]
    assert [expression(r) for r in await asyncio.gather(*(reqs[i] for i in kept))]==[str(i) for i in kept]
    assert all(reqs[i].cancelled() for i in gone)
    await kc.get_pubs(timeout=20)
    await at_rest(kc)

async def test_outputs_of_each(kc):
    reqs = [kc.request('execute_request', dict(code=f'print({i})', silent=False)) for i in range(300)]
    for i,req in enumerate(await asyncio.gather(*(o.wait() for o in reqs))):
        assert text(req)==f'{i}\n' and req.complete
    await at_rest(kc)

async def test_several_clients_of_one_kernel_at_once(shared):
    kcs = [shared() for _ in range(4)]
    try:
        await asyncio.gather(*(o.start_channels() for o in kcs))
        assert len({o.session.session for o in kcs})==4
        await asyncio.gather(*(own_results(o, 150) for o in kcs))
        for o in kcs: await at_rest(o)
    finally:
        for o in kcs: o.stop_channels()

async def test_an_error_aborts_those_behind_it_within_and_beyond_the_window(start_kernel):
    async with start_kernel() as (_,kc):
        kc.router.window = 8
        first = kc.execute('import time; time.sleep(.3); 1/0', reply=True)
        behind = [kc.execute(f'ran = {i}', reply=True) for i in range(40)]
        r = await asyncio.gather(first, *behind)
        assert r[0]['content']['status']=='error' and {o['content']['status'] for o in r[1:]}=={'aborted'}
        r = await kc.execute('', user_expressions=dict(x='"ran" in globals()'), reply=True)
        assert expression(r)=='False'

async def test_subshells_answer_while_the_main_shell_is_busy(kc):
    info = await kc.kernel_info(reply=True, timeout=20)
    if 'kernel subshells' not in info['content'].get('supported_features', []): pytest.skip('this kernel has no subshells')
    sub = (await kc.request('create_subshell_request', channel='control', timeout=20))['content']['subshell_id']
    busy = kc.request('execute_request', dict(code='import threading; gate = threading.Event(); print(gate.wait(30))', silent=False))
    await until_busy(busy)
    assert expression(await kc.execute('', user_expressions=dict(x='1'), subshell_id=sub, reply=True, timeout=20))=='1'
    await kc.execute('gate.set()', subshell_id=sub, reply=True, timeout=20)
    await busy.wait()
    assert text(busy)=='True\n'
    await kc.request('delete_subshell_request', dict(subshell_id=sub), channel='control', timeout=20)
    await at_rest(kc)
