"""Floods, bursts, abandoned requests: none lost, none crossed, memory bounded, the loop never blocked by a send."""
import asyncio, gc, logging, random, re, time, tracemalloc, warnings, weakref
from collections import Counter

import pytest
from conkernelclient import ReplyTimeout, ClientClosedError, ConKernelClient, ConKernelManager, NoReplyError, run_kernel
from fake_kernel import FakeKernel, kernel_specs
from fault_tools import *
from inside import sockets
from fault_tools import nothing_unheard, pytestmark

slow = pytest.mark.slow
both_transports = True   # (of the tests that use `start_kernel`)
QUIET = dict(silent=True)     # for real kernels: keeps the history's database out of it


async def ready(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc


# --- many clients --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('clients,n', [(2,100), (10,20), pytest.param(2, 500, marks=slow), pytest.param(10, 500, marks=slow)])
async def test_clients_of_one_manager(start_kernel, clients, n, caplog):
    async with start_kernel() as (km, kc):
        kcs = [kc, *[km.client() for _ in range(clients-1)]]
        assert len({o.session.session for o in kcs})==clients
        try:
            for o in kcs[1:]: o.start_channels()
            for o in kcs[1:]: await o.wait_for_ready(timeout=SOON)
            reqs = {(c,i): ask(o, f"print('{c}.{i}')", content=dict(store_history=False, user_expressions=dict(x=f"'{c}.{i}'")))
                    for i in range(n) for c,o in enumerate(kcs)}
            await outcomes([o.wait() for o in reqs.values()], 600)
            for (c,i),o in reqs.items():
                assert o.complete and text(o)==f'{c}.{i}\n'
                assert o.reply['content']['user_expressions']['x']['data']['text/plain']==f"'{c}.{i}'"
                assert all(m['parent_header']['msg_id']==o.msg_id for m in o.iopub)
            assert not any(o.router.stats['malformed'] for o in kcs)
            assert 'Duplicate' not in caplog.text
            for o in kcs: await at_rest(o)
        finally:
            for o in kcs[1:]: o.stop_channels()


# --- bursts --------------------------------------------------------------------------------------------------------

async def burst(kc, n, make, seconds):
    "Send `n` at once; the longest that one send took (Python's garbage collector aside), and the loop's longest turn meanwhile"
    longest,reqs = 0.,[]
    gc.collect()
    gc.disable()
    try:
        for i in range(n):
            begin = time.perf_counter()
            reqs.append(make(i))
            longest = max(longest, time.perf_counter()-begin)
    finally: gc.enable()
    turn = 0.
    async def watch():
        nonlocal turn
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0)
            turn = max(turn, time.perf_counter()-begin)
    order = []
    for i,o in enumerate(reqs): o.add_done_callback(lambda _, i=i: order.append(i))
    task = asyncio.ensure_future(watch())
    res, took = await outcomes(reqs, seconds)
    task.cancel()
    assert order==list(range(n)), 'replies out of order'
    return reqs, res, longest, turn, took

@pytest.mark.parametrize('n', [3000, pytest.param(20_000, marks=slow)])
async def test_burst_on_a_slow_kernel_with_a_mark_of_1000(n):
    "It reads no faster than it answers, and drops the replies that do not fit"
    with FakeKernel(hwm=dict(shell=1000), read_ahead=False, record=False) as fk:
        kc = await ready(fk)
        gc.collect()
        gc.freeze()
        before = rss()
        reqs, res, longest, turn, took = await burst(kc, n, lambda i: ask(kc, str(i), content=dict(silent=True)), 240)
        gc.unfreeze()
        assert kinds(res)=={dict} and not fk.undelivered, (kinds(res), fk.undelivered)
        assert [o['content']['execution_count'] for o in res]==list(range(1, n+1))   # run in call order
        assert longest<.05*SLACK
        figure(f'{n} requests at once, slow kernel: longest send (ms), longest turn of the loop (ms), seconds in all, MB more', (round(longest*1000, 2), round(turn*1000, 1), round(took, 2), round(rss()-before, 1)))
        await outcomes([o.wait() for o in reqs])
        await at_rest(kc)
        ref = weakref.ref(reqs[n//2])
        del reqs, res
        gc.collect()
        assert ref() is None        # given back
        kc.stop_channels()


@pytest.mark.parametrize('n', [300, pytest.param(20_000, marks=slow)])
async def test_burst_on_a_real_kernel(start_kernel, n):
    async with start_kernel() as (km, kc):
        reqs, res, longest, turn, took = await burst(kc, n, lambda i: ask(kc, f'x={i}', content=dict(silent=True, user_expressions=dict(x='x'))), 600)
        assert kinds(res)=={dict}
        assert [int(o['content']['user_expressions']['x']['data']['text/plain']) for o in res]==list(range(n))
        assert longest<.05*SLACK
        figure(f'{n} requests at once, ipykernel: longest send (ms), longest turn of the loop (ms), seconds in all', (round(longest*1000, 2), round(turn*1000, 1), round(took, 2)))
        await outcomes([o.wait() for o in reqs])
        assert all(o.complete for o in reqs)
        await at_rest(kc)


async def test_clients_of_one_kernel_share_what_it_takes():
    "More than some two thousand requests on the wire stop ipykernel for good, whoever sent them"
    with FakeKernel(on={'execute_request': 'busy hold reply idle'}, sequential=False) as fk, FakeKernel() as another:
        alone,kcs = await ready(another),[await ready(fk) for _ in range(10)]
        assert [o.router.window for o in (alone,*kcs)]==[256]+[100]*10
        reqs = [ask(o, 'x') for o in kcs for _ in range(300)]
        await fk.until_held(1000)
        for o in kcs[5:]: o.stop_channels()
        assert [o.router.window for o in kcs[:5]]==[200]*5
        res = asyncio.ensure_future(outcomes([o.wait() for o in reqs], 60))
        while not res.done():
            assert sum(lane.on_wire for o in kcs for lane in o.router.shells.values())<=1000
            fk.release()
            await asyncio.sleep(.01)
        assert kinds(res.result()[0])=={type(reqs[0]), ClientClosedError} and sum(o.complete for o in reqs)==1500
        del kcs[1:5], o, reqs, res
        gc.collect()
        kcs.append(await ready(fk))            # those that were dropped do not count
        assert [o.router.window for o in kcs if o.status!='closed']==[256]*2
        for o in (alone,*kcs): o.stop_channels()


@pytest.mark.parametrize('rounds', [2, pytest.param(10, marks=slow)])
async def test_ten_thousand_answered_in_reverse(rounds):
    "The client's window lets as many out as it holds; each round of it is answered last first"
    with FakeKernel(on={'execute_request': 'hold busy stream reply idle'}, sequential=False) as fk:
        kc = await ready(fk, window=1000)
        reqs = [ask(kc, str(i)) for i in range(rounds*1000)]
        all_done = asyncio.gather(*(o.wait() for o in reqs))
        for _ in range(rounds):
            await fk.until_held(1000)
            fk.release(list(reversed(fk.held)))
        await within(SOON*2, all_done)
        assert [text(o) for o in reqs]==[str(i) for i in range(rounds*1000)]
        assert all(o.complete and o.reply['parent_header']['msg_id']==o.msg_id for o in reqs)
        await at_rest(kc)
        kc.stop_channels()


# --- an error aborts what waits ------------------------------------------------------------------------------------

@pytest.mark.parametrize('real', [False, True], ids=['scripted','ipykernel'])
async def test_error_aborts_what_waits_in_the_window(start_kernel, real):
    async def check(kc, boom, good):
        first = ask(kc, boom)
        behind = [ask(kc, good, **how) for _ in range(200) for how in ({}, dict(content=dict(stop_on_error=False)))]
        other = kc.kernel_info(reply=True)
        sent = kc.execute(good)
        res, _ = await outcomes([first, *behind])
        assert res[0]['content']['status']=='error'
        assert {o['content']['status'] for o in res[1:]}=={'aborted'}
        assert (await within(SOON, other))[0]['content']['status']=='ok'    # only execute requests are aborted
        assert (await within(SOON, kc.get_shell_msg()))[0]['content']['status']=='aborted'
        later = ask(kc, good)
        assert (await within(SOON, later))[0]['content']['status']=='ok'
        await outcomes([o.wait() for o in (first, *behind, later)])
        await at_rest(kc)
    if real:
        async with start_kernel() as (km, kc):
            kc.window = 32
            await check(kc, 'import time; time.sleep(.3); 1/0', '1')
    else:
        with FakeKernel() as fk:
            kc = await ready(fk, window=32)
            await check(kc, 'fake: busy sleep=.1 error idle', '1')
            assert 33<=fk.counts['execute_request']<100      # the others never left
            kc.stop_channels()


async def test_error_without_stop_on_error_aborts_nobody():
    with FakeKernel() as fk:
        kc = await ready(fk, window=8)
        first = ask(kc, 'fake: busy sleep=.05 error idle', content=dict(stop_on_error=False))
        behind = [ask(kc, '1') for i in range(50)]
        res, _ = await outcomes([first, *behind])
        assert [o['content']['status'] for o in res]==['error']+['ok']*50
        kc.stop_channels()


# --- output floods -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n,seconds', [(3000,1), pytest.param(20_000, 3, marks=slow)])
async def test_20_000_displays_while_the_loop_is_blocked(n, seconds):
    async with run_kernel() as (km, kc):
        req = ask(kc, f"from IPython.display import display\nfor i in range({n}): display(i)", content=dict(store_history=False))
        await until_busy(req)
        time.sleep(seconds)
        (done,took) = await within(120, req.wait())
        assert done.complete
        got = [o['content']['data']['text/plain'] for o in req.iopub if o['msg_type']=='display_data']
        assert got==[str(i) for i in range(n)]


@pytest.mark.parametrize('n', [20_000, pytest.param(1_000_000, marks=slow)])
async def test_output_that_nobody_reads(n, caplog):
    with FakeKernel(record=False) as fk:
        kc = await ready(fk, unclaimed=5000)
        gc.collect()
        before = rss()
        for i in range(n//2000):
            kc.execute(f'fake: busy stream=text*{2000} reply idle')
            await within(SOON, kc.get_shell_msg())
        await at_rest(kc)
        q = kc.router.mailboxes['iopub']
        kept = 2002*(n//2000)
        assert len(q)==5000 and q.dropped==kept-5000
        assert sum('Nobody reads' in o.getMessage() for o in caplog.records)==1
        assert rss()-before<60
        figure(f'{n} unread messages: MB more, kept, dropped', (round(rss()-before, 1), len(q), q.dropped))
        req = ask(kc, 'x')
        assert (await within(SOON, req.wait()))[0].complete and text(req)=='x'
        kc.stop_channels()


@slow
async def test_million_messages_to_a_request_that_reads():
    with FakeKernel(record=False) as fk:
        kc = await ready(fk)
        seen = 0
        def count(msg):
            nonlocal seen
            seen += msg['msg_type']=='stream'
        for i in range(500):
            req = ask(kc, 'fake: busy stream=text*2000 reply idle', on_iopub=count)
            await within(SOON, req.wait())
        assert seen==1_000_000
        kc.stop_channels()


# --- malformed and foreign messages --------------------------------------------------------------------------------

async def test_malformed_and_foreign_flood(caplog):
    "10,000 that nobody can use on shell and iopub, between good ones"
    with FakeKernel(on={'execute_request': 'busy junk=13 stream reply junk=13 idle'}) as fk:     # each kind of junk once
        kc = await ready(fk)
        reqs = [ask(kc, str(i)) for i in range(200)]
        await outcomes([o.wait() for o in reqs], 60)
        assert all(o.complete for o in reqs) and [text(o) for o in reqs]==[str(i) for i in range(200)]
        req = ask(kc, 'after')
        assert (await within(SOON, req.wait()))[0].complete
        figure('10,000 malformed and foreign messages: counted as malformed', kc.router.stats['malformed'])
        assert kc.router.stats['malformed']>5000
        assert sum('malformed' in o.getMessage() for o in caplog.records)<=4
        await at_rest(kc)
        kc.stop_channels()


async def test_frame_of_100_mb():
    with FakeKernel() as fk:
        kc = await ready(fk)
        req,after = ask(kc, 'fake: busy huge=100 reply idle'),ask(kc, 'after')
        (done,took) = await within(SOON, req.wait())
        assert done.complete and [len(b) for o in req.iopub for b in o['buffers']]==[100_000_000]
        assert (await within(SOON, after.wait()))[0].complete
        kc.stop_channels()


# --- given up ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n', [2000, pytest.param(10_000, marks=slow)])
async def test_10_000_random_cancels_timeouts_and_drops(n):
    rnd = random.Random(3)
    with FakeKernel(record=False) as fk, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        kc = await ready(fk, grace=1.)
        live,tasks = [],[]
        async def wait_for(req, t):
            try: return await asyncio.wait_for(req, t)
            except (asyncio.TimeoutError, asyncio.CancelledError): return None
        for i in range(n):
            code = str(i)
            kind = rnd.randrange(8)
            if kind==0: live.append((code, ask(kc, code)))
            elif kind==1: ask(kc, code).cancel()
            elif kind==2: ask(kc, code, timeout=rnd.random()*.01)
            elif kind==3: tasks.append(asyncio.ensure_future(wait_for(ask(kc, code), rnd.random()*.01)))
            elif kind==4: kc.execute(code, reply=True)
            elif kind==5:
                t = asyncio.ensure_future(wait_for(ask(kc, code).wait(), None))
                asyncio.get_running_loop().call_later(rnd.random()*.01, t.cancel)
                tasks.append(t)
            elif kind==6:
                try: await asyncio.wait_for(kc.execute(code, reply=True), rnd.random()*.001)
                except asyncio.TimeoutError: pass
            else:
                async def outs(req):
                    async for _ in req: return
                tasks.append(asyncio.ensure_future(outs(ask(kc, code))))
            if not i%500: gc.collect()
        await outcomes([o.wait() for _,o in live], 60)
        await outcomes(tasks, 60)
        assert all(o.complete and text(o)==code for code,o in live)
        await at_rest(kc)
        req = ask(kc, 'after')
        assert (await within(SOON, req.wait()))[0].complete
        live.clear(), tasks.clear()
        del t, req
        gc.collect()
        await asyncio.sleep(0)
        gc.collect()
        assert not [o for o in gc.get_objects() if type(o).__name__=='Request']
        assert not seen, [str(o.message) for o in seen]
        figure(f'{n} random ones: late messages dropped', kc.router.stats['late messages'])
        kc.stop_channels()


async def test_window_filled_with_given_up_requests_opens_again():
    "Requests that time out on the wire keep their place until the kernel has answered them, not for ever"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}, sequential=False) as fk:
        kc = await ready(fk, window=16)
        gone = [ask(kc, 'x', timeout=.05) for _ in range(16)]
        res, _ = await outcomes(gone)
        assert kinds(res)=={ReplyTimeout}
        last = ask(kc, 'y')
        await fk.until_held(16)
        fk.on.clear()
        fk.release()
        assert (await within(SOON, last.wait()))[0].complete
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('how', ['cancel', 'timeout', 'wait_for', 'cancelled_task', 'end_cancelled'])
async def test_given_up_requests_leave_the_table_at_once(how):
    "Not only when the kernel answers them"
    with FakeKernel(on={'execute_request': 'hold'}) as fk:
        kc = await ready(fk, window=4)
        reqs = [ask(kc, str(i), timeout=.05 if how=='timeout' else None) for i in range(10)]
        if how=='cancel': [o.cancel() for o in reqs]
        elif how=='end_cancelled': [o.wait().cancel() for o in reqs]
        elif how=='wait_for': await outcomes([asyncio.ensure_future(asyncio.wait_for(o, .05)) for o in reqs])
        elif how=='cancelled_task':
            async def wait(o): await o
            tasks = [asyncio.ensure_future(wait(o)) for o in reqs]
            await asyncio.sleep(0)
            for o in tasks: o.cancel()
            await outcomes(tasks)
        res, _ = await outcomes(reqs)
        assert kinds(res)=={ReplyTimeout if how=='timeout' else asyncio.CancelledError}
        assert not any(o.msg_id in kc.router.table for o in reqs)
        kc.stop_channels()


# --- memory --------------------------------------------------------------------------------------------------------

async def test_sockets_have_no_mark():
    "What a busy loop does not read is kept by libzmq, and a burst does not wait for a peer; after a reconnection too"
    with FakeKernel() as fk:
        kc = await ready(fk, lost_after=.1)
        for _ in range(2):
            await within(SOON, kc.request('kernel_info_request', {}, 'control').wait())   # (it connects when it is used)
            for o in sockets(kc).values(): assert o.rcvhwm==o.sndhwm==0
            fk.crash()
            await kc.wait_for_status('dead', timeout=SOON)
            fk.start()
            await kc.wait_for_status('ready', timeout=SOON)
        kc.stop_channels()


async def test_unread_outputs_are_bounded_in_bytes():
    with FakeKernel(record=False) as fk:
        kc = await ready(fk)
        q = kc.router.mailboxes['iopub']
        q.maxbytes = 10*2**20
        for _ in range(3):
            kc.execute('fake: busy huge=1*10 reply idle')
            await within(SOON, kc.get_shell_msg())
        await at_rest(kc)
        assert 8*2**20<q.nbytes<=q.maxbytes and q.dropped>=20
        pubs = await kc.get_pubs()
        assert sum(o['msg_type']=='display_data' for o in pubs)==10 and not q.nbytes
        kc.stop_channels()


@pytest.mark.parametrize('n', [2000, pytest.param(20_000, marks=slow)])
async def test_memory_of_a_burst_is_bounded_and_given_back(n, tmp_path):
    "Traced memory: bounded for each request that waits, and gone when all is over and dropped; a second burst is no dearer than the first"
    km = ConKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path))     # a process of its own: its memory is not counted
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    held,left,resident = [],[],[]
    try:
        await kc.wait_for_ready(timeout=SOON)
        kc.session.digest_history_size = 100      # replays are refused for so many messages (65,536 by default): those are kept
        tracemalloc.start()
        for _ in range(4):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            reqs = [ask(kc, str(i), content=dict(silent=True)) for i in range(n)]
            held.append((tracemalloc.get_traced_memory()[0]-before)/n)
            for o in reqs: await within(120, o.wait())
            done = (tracemalloc.get_traced_memory()[0]-before)/n
            assert all(o.complete for o in reqs)
            del reqs, o
            await asyncio.sleep(0)
            gc.collect()
            left.append((tracemalloc.get_traced_memory()[0]-before)/n)
            resident.append(rss())
        figure(f'{n} requests at once: bytes for each that waits, for each that is done (reply and 2 iopub messages kept), left', (round(held[-1]), round(done), round(left[-1])))
        assert held[-1]<4096
        assert max(left[1:])<100          # the first fills what is kept for good (parents, digests)
        assert resident[-1]-resident[1]<max(40, (resident[1]-resident[0]))     # arenas come and go
    finally:
        tracemalloc.stop()
        kc.stop_channels()
        await km.shutdown_kernel(now=True)


@pytest.mark.parametrize('how', ['reply', 'wait', 'run'])
async def test_what_is_over_is_freed_without_the_garbage_collector(how):
    "No cycles: else every request would lie there until a collection that stops the loop"
    with FakeKernel() as fk:
        kc = await ready(fk)
        call = dict(reply=lambda: kc.execute('x', reply=True), wait=lambda: ask(kc, 'x').wait(), run=lambda: kc.run('x'))[how]
        await within(SOON, call())
        gc.collect()
        gc.disable()
        try:
            await outcomes([call() for _ in range(20)])
            await at_rest(kc)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(o).__name__ for o in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not {'Request','_End','Run','Result'} & set(left), left
        kc.stop_channels()


# --- soak ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n', [2000, pytest.param(200_000, marks=slow)])
async def test_soak(n):
    "Mixed outputs, errors, cancels; memory is measured after a warm-up"
    rnd = random.Random(5)
    codes = ['fake: busy echo stream=hello*5 result=1 reply idle', 'fake: busy error idle', 'fake: busy huge=.01 display=x reply idle',
             'x', 'fake: busy junk=2 reply idle', 'fake: reply busy idle']
    with FakeKernel(record=False) as fk:
        kc = await ready(fk, grace=1., unclaimed=1000)
        async def rounds(n):
            for _ in range(n//200):
                reqs = []
                for i in range(200):
                    code = rnd.choice(codes)
                    if i%20==0: kc.execute(code, stop_on_error=False)
                    else: reqs.append(ask(kc, code, content=dict(stop_on_error=False)))
                for o in reqs[::17]: o.cancel()
                res, _ = await outcomes([o.wait() for o in reqs], 60)
                assert kinds(res)<={type(reqs[0]), asyncio.CancelledError}, kinds(res)
                await kc.get_pubs(timeout=10)
                fk.errors.clear(), fk.rejected.clear()
        await rounds(max(n//10, 1000))
        gc.collect()
        before,files = rss(),fds()
        begin = time.monotonic()
        await rounds(n)
        gc.collect()
        await at_rest(kc)
        figure(f'soak of {n} requests: MB more, descriptors more, seconds', (round(rss()-before, 2), fds()-files, round(time.monotonic()-begin, 1)))
        assert rss()-before<20 and fds()<=files
        kc.stop_channels()
