"""All ways to a kernel through `open_kernel`: from a warm template, behind a real server, out of a pool; with asyncio and without."""
import asyncio, gc, json, sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest
from conkernelclient import *
from conkernelclient.kernel import Owned
from conkernelclient.sync import AHEAD
from conkernelclient.transports.websocket import Server
from test_kernel import SOON, ended, lives, posix, program, quiet, until

bound = 90
LINUX = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='forks')


@pytest.fixture(autouse=True)
def nothing_left(request):
    "A test leaves no kernel behind that it has started, here or behind the server"
    before = set(Owned.all)
    yield
    gc.collect()
    assert Owned.all <= before
    if 'jupyter' in request.fixturenames: assert there(request.getfixturevalue('jupyter')) == []


def there(jupyter): return [o['id'] for o in asyncio.run(list_kernels(jupyter.url, jupyter.token))]
def at(jupyter, **kwargs): return open_kernel(url=jupyter.url, token=jupyter.token, **kwargs)


# From a warm template

@LINUX
@pytest.mark.parametrize('preload,modules', [('decimal', 'decimal'), (['decimal', 'fractions'], 'fractions'), ((), 'os')])
async def test_preload(preload, modules):
    async with open_kernel(preload=preload) as kc:
        assert kc.manager.provisioner.forked
        assert await kc.eval(f'__import__("sys").modules.get({modules!r}) is not None')
        process = kc.manager.provisioner.process
    assert process.over


@LINUX
def test_preload_without_asyncio():
    opening = open_kernel(preload=(o for o in ['decimal']), cwd='/', env=dict(COLOUR='blue'))
    for _ in range(2):   # the names are kept, although a generator has given them
        with opening as k:
            assert k.run('import sys; "decimal" in sys.modules').text == 'True\n'
            assert k.eval('__import__("os").getcwd(), __import__("os").environ["COLOUR"]') == ('/', 'blue')
    with pytest.raises(UnknownKernel): open_kernel('no-such-kernel', preload='os').start()
    with pytest.raises(ImportError, match='no_such_module'): open_kernel(preload='no_such_module').start()


@LINUX
async def test_a_forked_kernel_is_restarted_when_it_dies():
    async with open_kernel(preload='decimal', restart_on_death=True) as kc:
        with pytest.raises(DeadKernelError): await kc.run('import os; os._exit(3)')
        await kc.wait_for_status('ready', timeout=60)
        assert kc.manager.provisioner.forked and (await kc.run('import sys; "decimal" in sys.modules')).text == 'True\n'


# Behind a server

async def test_server(jupyter):
    async with at(jupyter) as kc:
        assert type(kc) is ServerKernelClient and type(kc.manager) is ServerKernelManager
        assert (await kc.run('6*7')).text == '42\n'
        assert [o['id'] for o in await list_kernels(jupyter.url, jupyter.token)] == [kc.manager.kernel_id]
        async with at(jupyter, kernel_id=kc.manager.kernel_id) as other: await other.push(n=42)
        dropped = await at(jupyter, kernel_id=kc.manager.kernel_id)   # no warning: it is not ours to end
        with warnings.catch_warnings():
            warnings.simplefilter('error', ResourceWarning)
            del dropped
            gc.collect()
        assert await kc.eval('n') == 42
    assert await list_kernels(jupyter.url, jupyter.token) == []
    kc = await at(jupyter)
    assert await kc.eval('6*7') == 42
    await kc.close()
    await kc.close()   # harmless


def test_server_without_asyncio(jupyter):
    with at(jupyter) as k:
        assert k.run('6*7').text == '42\n' and there(jupyter) == [k.manager.kernel_id]
        with at(jupyter, kernel_id=k.manager.kernel_id) as other: other.push(n=42)
        assert k.eval('n') == 42
        k.restart()
        assert k.eval('"n" in globals()') is False
        job = k.start('import time; time.sleep(60)')
        job.interrupt()
        assert job.wait(30).error.ename == 'KeyboardInterrupt'
    k = at(jupyter).start()
    assert k.map(['1', '2'])[1].text == '2\n'
    k.close()


async def test_server_in_the_environment(jupyter, monkeypatch):
    with pytest.raises(ValueError, match='JUPYTER_GATEWAY_URL'): open_kernel(kernel_id='1')
    monkeypatch.setenv('JUPYTER_GATEWAY_URL', jupyter.url)
    async with open_kernel(token=lambda: jupyter.token) as kc: assert type(kc) is ServerKernelClient
    async with open_kernel() as kc: assert type(kc) is ConKernelClient   # of this machine: nobody asked for another


def test_server_that_refuses(jupyter):
    with pytest.raises(ServerError) as e: open_kernel(url=jupyter.url, token='wrong').start()
    assert e.value.code == 403
    with pytest.raises(UnknownKernel): at(jupyter, name='cobol').start()
    with pytest.raises(ServerError, match='no kernel 1'): at(jupyter, kernel_id='1').start()
    with pytest.raises(RuntimeError): at(jupyter, startup_timeout=.001).start()


FORGOTTEN = dict(
    sync='k = open_kernel(url=url, token=token).start()\nk.run("print(1)")\nprint("opened")',
    async_='async def main():\n    global kc\n    kc = await open_kernel(url=url, token=token)\n    print("opened")\nasyncio.run(main())',
    dropped='async def main():\n    kc = await open_kernel(url=url, token=token)\n    print("opened")\nasyncio.run(main())')

@pytest.mark.parametrize('how', FORGOTTEN)
def test_a_program_that_forgets_its_kernel(jupyter, how):
    "The server is not left with it"
    p = program(f'url, token = {jupyter.url!r}, {jupyter.token!r}\n{FORGOTTEN[how]}')
    out, err = ended(p)
    assert out == ['opened'] and quiet(err), err
    assert there(jupyter) == []


# Out of a pool

async def test_pool():
    async with KernelPool(size=2, spare=1, max_uses=3) as pool:
        async with open_kernel(pool=pool) as kc:
            assert pool.stats.lent == 1 and type(kc) is ConKernelClient
            await kc.push(n=42)
        assert pool.stats.lent == 0
        kc = await open_kernel(pool=pool)
        assert await kc.eval('n') == 42   # the same: it was given back as it was, its channels open
        await asyncio.gather(kc.close(), kc.close())
        await kc.close()
        assert pool.stats.lent == 0 and kc.status == 'ready'
        async with open_kernel(pool=pool, cwd='/', env=dict(COLOUR='blue')) as kc:
            assert await kc.eval('__import__("os").getcwd(), __import__("os").environ["COLOUR"]') == ('/', 'blue')
        async with open_kernel(pool=pool), open_kernel(pool=pool):
            with pytest.raises(TimeoutError): await open_kernel(pool=pool, timeout=.05)
        assert pool.stats.lent == 0
    with pytest.raises(PoolClosed): await open_kernel(pool=pool)


async def test_a_client_is_given_back_once():
    "An old user's second `close` does not take the kernel from the next user"
    async with KernelPool(size=1, spare=1, max_uses=5) as pool:
        old = await open_kernel(pool=pool)
        await old.close()
        async with pool.kernel() as kc:
            assert kc is old
            await old.close()
            assert pool.stats.lent == 1 and (await kc.run('6*7')).text == '42\n'


async def test_a_pool_of_another_loop():
    async with KernelPool(size=1, spare=0) as pool:
        with pytest.raises(RuntimeError, match='another event loop'): open_kernel(pool=pool).start()
        def elsewhere(): asyncio.run(pool.map(['1']))
        with pytest.raises(RuntimeError, match='another event loop'): await asyncio.to_thread(elsewhere)


# What does not go together

@pytest.mark.parametrize('kwargs,word', [
    (dict(url='http://h', preload='os'), 'preload: not with url'), (dict(url='http://h', kernel_spec=object()), 'kernel_spec'),
    (dict(url='http://h', connection_file='latest'), 'url: not with connection_file'), (dict(url='http://h', restart_on_death=True), 'restart_on_death'),
    (dict(url='http://h', cwd='/tmp'), 'relative'), (dict(url='http://h', kernel_id='1', cwd='a'), 'cwd: not with kernel_id'),
    (dict(url='http://h', kernel_id='1', env={'A': '1'}), 'env: not with kernel_id'), (dict(url='http://h', manager_class=print), 'manager_class'),
    (dict(url='http://h', kernel_id='1', name='ir'), 'name'), (dict(url='http://h', kernel_id='1', path='a'), 'path'),
    (dict(pool=object(), name='ir'), 'KernelPool takes'), (dict(pool=object(), preload='os'), 'preload'), (dict(pool=object(), url='http://h'), 'url'),
    (dict(pool=object(), startup_timeout=1), 'startup_timeout'), (dict(pool=object(), restart_on_death=True), 'restart_on_death'),
    (dict(preload='os', kernel_spec=object()), 'fork_spec'), (dict(preload='os', connection_file='latest'), 'preload: not with connection_file'),
    (dict(connection_file='latest', extra_arguments=['x']), 'extra_arguments'), (dict(token='t', connection_file='latest'), 'token')])
def test_what_does_not_go_together(kwargs, word):
    with pytest.raises(ValueError, match=word): open_kernel(**kwargs)


# Jobs, without asyncio

@pytest.fixture(scope='module')
def k():
    with open_kernel() as k: yield k


def test_a_job_says_what_it_is_and_how_it_ended(k):
    before = datetime.now(timezone.utc)
    job = k.start('print(1)\n1/0')
    assert job.id and k.jobs[job.id].run is job.run and job.settled(SOON) and job.wait(SOON).status == 'error'
    assert (job.outcome, job.state, job.code) == ('error', 'done', 'print(1)\n1/0') and 'ZeroDivisionError' in job.message
    assert before <= job.started <= datetime.now(timezone.utc) and f'{job.id} error' in repr(job)
    again = k.jobs[job.id]   # from the client's table, now that it has ended
    assert again.outcome == 'error' and again.done and again.wait(0).stdout == '1\n'
    late = k.start('import time; time.sleep(60)', timeout=.2)
    with pytest.raises(ExecutionTimeout): late.wait(SOON)
    assert late.outcome == 'timeout' and 'took longer' in late.message
    first, queued = k.start('time.sleep(60)'), k.start('1')
    assert queued.outcome is None and queued.started is None and queued.stop() and queued.outcome == 'cancelled'
    assert first.stop() and first.settled(SOON) and first.outcome == 'cancelled'


def test_jobs_by_id(k):
    kept = k.start('print(1, flush=True)\nimport time; time.sleep(60)')
    ended = k.start('1')
    next(kept.follow())   # it runs: its repr stays as it is
    assert list(k.jobs)[-2:] == [kept.id, ended.id] and k.jobs[kept.id] is kept and repr(kept) in repr(k.jobs)
    ended.stop(), kept.stop(), kept.settled(SOON)
    with k.subshell() as sh: ids = [sh.start('1').id for _ in range(2)]
    assert all(k.jobs[o].settled(SOON) for o in ids) and len(k.jobs) == len(list(k.jobs)) >= 4
    with pytest.raises(KeyError, match='No job'): k.jobs['r0']


def test_follow_by_number(k):
    job = k.start('for i in range(5): print(i, flush=True)\n1/0')
    seen = list(job.follow())   # raises nothing
    assert [o.number for o in seen] == list(range(1, len(seen)+1)) and seen[-1].kind == 'end' and seen[-1].outcome == 'error'
    assert ''.join(o.text for o in seen if o.kind != 'end').startswith('0\n1\n2\n3\n4\n')
    assert list(job.follow(after=2)) == seen[2:] == list(k.jobs[job.id].follow(after=2))
    assert json.loads(json.dumps(seen[-1].to_dict()))['outcome'] == 'error'


def test_since(k):
    job = k.start('import time\nfor i in range(3): print(i, flush=True); time.sleep(.05)')
    got, cursor = '', None
    while True:
        over = job.settled(.01)
        text, cursor = job.since(cursor)
        cursor = json.loads(json.dumps(cursor))
        got += text
        if over: break
    assert got == '0\n1\n2\n' and job.since(cursor)[0] == ''


@pytest.mark.parametrize('follow', [iter, Job.follow])
def test_a_slow_thread_is_not_drowned(k, follow):
    "While it sleeps, a bounded number of events waits for it; afterwards it gets all"
    n, line = 1000, 'x'*1200   # no more messages than ZMQ keeps for a client that the system does not let run
    job = k.start(f'for i in range({n}): print(i, {line!r}, flush=True)')
    slow = follow(job)
    first = next(slow)
    until(lambda: slow.mail.qsize() >= AHEAD-1)   # it may have been full before
    assert job.settled(SOON) and slow.mail.qsize() <= AHEAD+1
    events = [first, *slow]
    clears = [i for i, o in enumerate(events) if o.kind == 'clear']   # far behind, `follow` begins anew
    assert len(clears) <= (follow is Job.follow)
    texts = [o.text for o in events[clears[0] if clears else 0:] if o.kind != 'end']
    assert ''.join(texts) == job.partial.text
    assert job.partial.text == ''.join(f'{i} {line}\n' for i in range(n)), 'lost before it came to the thread'


@pytest.mark.parametrize('follow', [iter, Job.follow])
def test_a_thread_that_leaves_is_not_waited_for(k, follow):
    job = k.start(f'for i in range({20*AHEAD}): print(i, flush=True)')
    slow = follow(job)
    until(lambda: slow.mail.qsize() >= AHEAD)
    box = slow.mail
    del slow
    gc.collect()
    until(lambda: sys.getrefcount(box) == 2, what='the task of the loop that fills it ends')
    assert job.wait(SOON).status == 'ok'


def test_hooks_that_are_slow_get_all(k):
    seen = []
    def hear(event):
        if len(seen) == 2: assert job_is_over.wait(SOON)
        seen.append(event.text)
    job_is_over = threading.Event()
    job = k.start(f'for i in range({4*AHEAD}): print(i, flush=True)', on_output=hear)
    until(lambda: job.run.done())
    assert not job.done   # its hooks have not ended
    job_is_over.set()
    assert job.wait(SOON).text == ''.join(seen)


# A pool, without asyncio

def test_sync_pool():
    with Pool(size=2, spare=1, max_uses=3) as pool:
        with pool.kernel() as k:
            assert type(k) is Kernel and pool.stats.lent == 1 and k.run('n = 6').status == 'ok'
        assert pool.stats.lent == 0
        with open_kernel(pool=pool) as k: assert k.eval('n*7') == 42
        k.close()   # harmless
        with pytest.raises(ClientClosedError): k.run('1')
        with pool.kernel(cwd='/') as k: assert k.eval('__import__("os").getcwd()') == '/'
        a, b = pool.kernel(), pool.kernel()
        with pytest.raises(TimeoutError): pool.kernel(timeout=.05)
        a.close(), b.close()
        pool.filled(SOON)
        assert [o.text for o in pool.map(['1', '2', '3'])] == ['1\n', '2\n', '3\n']
        assert isinstance(pool.map(['import os; os._exit(3)'])[0], DeadKernelError)
    assert pool.stats.alive == 0
    with pytest.raises(PoolClosed): pool.kernel()
    pool.close()   # harmless


def test_sync_pool_in_many_threads():
    with Pool(size=2, spare=2, max_uses=100) as pool, ThreadPoolExecutor(8) as threads:
        def work(i):
            with pool.kernel() as k: return k.eval(f'{i}*{i}')
        assert list(threads.map(work, range(24))) == [i*i for i in range(24)]
        assert pool.stats.lent == pool.stats.waiting == 0 and pool.stats.alive <= 2


def test_sync_pool_that_cannot_start():
    with pytest.raises(UnknownKernel): Pool(kernel_name='no-such-kernel')
    with Pool(size=1, spare=0, setup='1/0') as pool, pytest.raises(ExecutionError): pool.kernel()
    async def main():
        async with open_kernel(pool=pool): pass
    with Pool(size=1, spare=0) as pool, pytest.raises(RuntimeError, match='another event loop'): asyncio.run(main())


@posix
@pytest.mark.parametrize('end', ['', 'k.close()', 'raise SystemExit(0)'])
def test_a_program_that_forgets_its_pool(end):
    p = program(f'pool = Pool(size=2, spare=1).__enter__()\nk = pool.kernel()\nprint(k.eval("__import__(\'os\').getpid()"))\n{end}')
    out, err = ended(p)
    until(lambda: not lives(int(out[0])))
    assert quiet(err), err


@pytest.mark.parametrize('way', ['one door', 'server'])
async def test_cancelled_while_the_server_starts_it(jupyter, monkeypatch, way):
    "The server has started the kernel, but its answer has not come: the kernel is deleted all the same"
    started, go = asyncio.Event(), asyncio.Event()
    fetch = Server.fetch
    async def slow(self, method, *args):
        res = await fetch(self, method, *args)
        if method == 'POST':
            started.set()
            await go.wait()
        return res
    monkeypatch.setattr(Server, 'fetch', slow)
    async def open():
        if way == 'one door': await at(jupyter)
        else:
            async with open_server_kernel(jupyter.url, token=jupyter.token): pass
    task = asyncio.create_task(open())
    await started.wait()
    assert len(await list_kernels(jupyter.url, jupyter.token)) == 1
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError): await task
    assert await list_kernels(jupyter.url, jupyter.token) == []
