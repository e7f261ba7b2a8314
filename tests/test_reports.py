"""Faults that people reported of kernels and clients, tried on this library: each report, and its whole kind.

The numbers are those of the reports. Where something must *not* happen, a test first lets everything pass that could
make it happen (`quiet`); a pause only gives a mistake its time, and the right behaviour passes however long it is.
Races are tried many times, and the failures counted.
"""
import ast, asyncio, inspect, json, os, pickle, re, signal, subprocess, sys, textwrap, time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty

import pytest
import conkernelclient
from conkernelclient import (ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout,
                             KernelRestartedError, run_kernel)
from conkernelclient.cells.outputs import Result
from conkernelclient.transports.zmq import ZMQTransport
from traitlets import TraitError
from fake_kernel import DELIM, FakeKernel, kernel_specs
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 90

HOLD = 'fake: busy echo stream=begun hold reply idle'
BRIEF = 3   # seconds: far more than a call takes that waits for nothing
PACKAGE = Path(conkernelclient.__file__).parent


async def ready(fk, **kwargs):
    "A ready client of a fake kernel"
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc

@asynccontextmanager
async def fake(on=None, client=None, **kwargs):
    "A fake kernel and a ready client"
    with FakeKernel(on=on, **kwargs) as fk:
        kc = await ready(fk, **(client or {}))
        try: yield fk, kc
        finally: kc.stop_channels()

def soon(awaitable, seconds=SOON): return asyncio.wait_for(awaitable, seconds)

async def outcome(awaitable, seconds=SOON):
    "The result, or the exception"
    return (await outcomes([awaitable], seconds))[0][0]

async def until_running(run): await until(lambda: run.state=='running', what=f'{run} to be running')

async def quiet(kc, channel='shell'):
    "All that was sent on `channel` before has been received, and what it made the kernel send is here"
    await soon(kc.request('kernel_info_request', {}, channel).wait())

def program(code, *args, seconds=60):
    "Run `code` in a process of its own; fails when it does, or hangs. Gives what it printed."
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', textwrap.dedent(code), *map(str, args)]
    try: res = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=os.environ|dict(PYTHONPATH=path))
    except subprocess.TimeoutExpired as e:
        said = [(o or b'').decode()[-2000:] for o in (e.stdout, e.stderr)]
        pytest.fail(f'the program had not ended after {seconds} s; it printed {said}')
    assert res.returncode==0, f'{res.stdout}\n{res.stderr[-3000:]}'
    return res.stdout


# --- 1: nest_asyncio, applied before or after the import -----------------------------------------------------------

NESTED = '''
import asyncio, importlib, sys

module, where = sys.argv[1:]
def apply(): importlib.import_module(module).apply()

if where=='before': apply()
from conkernelclient import *
if where=='after': apply()

async def main():
    loop = asyncio.get_running_loop()
    async with run_kernel() as (km, kc):
        if where=='inside':
            early = kc.run('print(1)')
            apply()
            assert (await early).text=='1\\n'
        def nested(awaitable): return loop.run_until_complete(awaitable)
        assert nested(kc.run('6*7')).text.strip()=='42'
        assert nested(kc.execute('1', reply=True))['content']['status']=='ok'
        print('runs')
        seen = []
        def hook(event): seen.append(nested(kc.kernel_info(reply=True, channel='control'))['content']['status'])
        res = await kc.run('import time\\nfor i in range(3): print(i, flush=True); time.sleep(.2)', on_output=hook)
        assert res.status=='ok' and seen and set(seen)=={'ok'}, (res, seen)
        async def slow_hook(event): seen.append(await kc.kernel_info(reply=True, channel='control'))
        assert (await kc.run('print(1)', on_output=slow_hook)).status=='ok' and type(seen[-1]) is dict
        print('hooks')
        asked = nested(kc.run('print(input())', stdin=lambda prompt: nested(kc.kernel_info(reply=True, channel='control'))['msg_type']))
        assert asked.text=='kernel_info_reply\\n', asked
        print('prompts')
        for stop in 'run', 'task', 'limit', 'all':
            run = kc.run('import time; time.sleep(30)', timeout=.3 if stop=='limit' else None)
            task = asyncio.ensure_future(run)
            while run.state!='running': await asyncio.sleep(.01)
            if stop=='run': run.cancel()
            if stop=='task': task.cancel()
            if stop=='all': nested(kc.cancel_all())
            try: nested(task)
            except (asyncio.CancelledError, ExecutionTimeout) as e: assert (type(e) is ExecutionTimeout)==(stop=='limit')
            else: raise AssertionError(stop)
        print('cancels')
        async with kc.subshell() as sh:
            assert nested(sh.run('1+1')).text.strip()=='2'
            assert [o.text.strip() for o in nested(kc.map(['1', '2']))]==['1', '2']
        print('subshells')
        lost = asyncio.ensure_future(kc.run('import time; time.sleep(30)'))
        nested(kc.restart())
        assert [type(o) for o in nested(asyncio.gather(lost, return_exceptions=True))]==[KernelRestartedError]
        assert nested(kc.run('7')).text.strip()=='7'
        print('restarts')

asyncio.run(asyncio.wait_for(main(), 60))
'''

@pytest.mark.parametrize('module', ['nest_asyncio', 'nest_asyncio2'])
@pytest.mark.parametrize('where', ['before', 'after', 'inside'])
def test_report_01_nested_loops(where, module):
    "Applied before the import, after it, or inside a running loop"
    pytest.importorskip(module)
    assert program(NESTED, module, where, seconds=90).split()==['runs', 'hooks', 'prompts', 'cancels', 'subshells', 'restarts']

def test_report_01_nothing_of_asyncio_that_may_be_replaced_is_used_by_name():
    "`asyncio.Future` and `asyncio.Task` may be others than at import: no method of theirs is called as `asyncio.Future.x(self)`, none is asked for a type"
    bad = []
    replaced = 'Future', 'Task'
    def names(node): return isinstance(node, ast.Attribute) and node.attr in replaced and getattr(node.value, 'id', '') in ('asyncio', 'futures', 'tasks')
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = isinstance(node, ast.Attribute) and names(node.value)
            asks = isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('isinstance', 'issubclass') and any(map(names, ast.walk(node)))
            if attribute or asks: bad.append(f'{path.name}:{node.lineno}: {ast.unparse(node)}')
    assert not bad, bad


# --- 2 and 5: limits that are none ---------------------------------------------------------------------------------

REFUSED = TypeError, ValueError, TraitError
BAD = dict(str='30', decimal=Decimal(30), nan=float('nan'), list=[30], object=object())
EITHER = dict(timedelta=timedelta(seconds=30), huge=10**400)

def _setting(name): return lambda kc, sh, limit: setattr(kc, name, limit)

def _reader(name): return lambda kc, sh, limit: getattr(kc, f'get_{name}_msg')(timeout=limit)

LIMITS = {
    'run timeout': lambda kc, sh, limit: kc.run('bad', timeout=limit),
    'run queue_timeout': lambda kc, sh, limit: kc.run('bad', queue_timeout=limit),
    'eval timeout': lambda kc, sh, limit: kc.eval('bad', timeout=limit),
    'eval queue_timeout': lambda kc, sh, limit: kc.eval('bad', queue_timeout=limit),
    'map timeout': lambda kc, sh, limit: kc.map(['bad', 'bad'], timeout=limit),
    'map queue_timeout': lambda kc, sh, limit: kc.map(['bad', 'bad'], concurrency=1, queue_timeout=limit),
    'execute timeout': lambda kc, sh, limit: kc.execute('bad', reply=True, timeout=limit),
    'execute timeout, no reply': lambda kc, sh, limit: kc.execute('bad', timeout=limit),
    'complete timeout': lambda kc, sh, limit: kc.complete('bad', reply=True, timeout=limit),
    'inspect timeout': lambda kc, sh, limit: kc.inspect('bad', reply=True, timeout=limit),
    'history timeout': lambda kc, sh, limit: kc.history(reply=True, timeout=limit),
    'is_complete timeout': lambda kc, sh, limit: kc.is_complete('bad', reply=True, timeout=limit),
    'kernel_info timeout': lambda kc, sh, limit: kc.kernel_info(reply=True, timeout=limit),
    'comm_info timeout': lambda kc, sh, limit: kc.comm_info(reply=True, timeout=limit),
    'shutdown timeout': lambda kc, sh, limit: kc.shutdown(reply=True, timeout=limit),
    'request timeout': lambda kc, sh, limit: kc.request('history_request', {}, timeout=limit),
    'request timeout, control': lambda kc, sh, limit: kc.request('debug_request', {}, 'control', timeout=limit),
    'execute_interactive timeout': lambda kc, sh, limit: kc.execute_interactive('bad', timeout=limit),
    'subshell run timeout': lambda kc, sh, limit: sh.run('bad', timeout=limit),
    'subshell run queue_timeout': lambda kc, sh, limit: sh.run('bad', queue_timeout=limit),
    'subshell eval timeout': lambda kc, sh, limit: sh.eval('bad', timeout=limit),
    'subshell execute timeout': lambda kc, sh, limit: sh.execute('bad', reply=True, timeout=limit),
    'subshell complete timeout': lambda kc, sh, limit: sh.complete('bad', reply=True, timeout=limit),
    'subshell inspect timeout': lambda kc, sh, limit: sh.inspect('bad', reply=True, timeout=limit),
    'subshell request timeout': lambda kc, sh, limit: sh.request('history_request', timeout=limit),
    'wait_for_ready timeout': lambda kc, sh, limit: kc.wait_for_ready(timeout=limit),
    'wait_for_status timeout': lambda kc, sh, limit: kc.wait_for_status('dead', timeout=limit),
    'wait_for_status timeout, there': lambda kc, sh, limit: kc.wait_for_status('ready', 'busy', timeout=limit),
    'get_pubs timeout': lambda kc, sh, limit: kc.get_pubs(timeout=limit),
    **{f'get_{o}_msg timeout': _reader(o) for o in ('shell', 'iopub', 'stdin', 'control')},
    **{o: _setting(o) for o in ('interrupt_timeout', 'begin_patience', 'grace', 'lost_after', 'readers_grace', 'startup_timeout')}}

async def refused(call):
    "Raises `call` what a bad argument raises? A coroutine function when it is awaited, all others immediately"
    try:
        got = call()
        if inspect.iscoroutine(got) and not isinstance(got, conkernelclient.engine.request.Awaitable): await soon(got, BRIEF)
    except REFUSED as e: return not isinstance(e, ExecutionError) and 'evaluates no expressions' not in str(e)
    except (Empty, TimeoutError, RuntimeError, ExecutionError): pass
    return False

def asked(fk): return Counter(o.msg_type for o in fk.received if o.msg_type not in ('kernel_info_request', 'create_subshell_request'))

@pytest.mark.parametrize('busy', [False, True], ids=['idle', 'busy'])
@pytest.mark.parametrize('value', [*BAD, *EITHER])
@pytest.mark.parametrize('what', LIMITS)
async def test_report_02_a_limit_that_is_none(what, value, busy):
    """Refused at the call: nothing is sent, and nobody else is affected: neither what is under way, nor what comes later.

    Decided: a string, a `Decimal`, a list, an object and NaN are refused, by each method and each setting, with `TypeError`
    or `ValueError` (a trait's `TraitError`), also where the limit would not have been needed. A `timedelta`, and a number
    beyond what a float holds, may be refused or mean what they say: here they only may do no harm. Infinity means *never*.
    """
    async with fake() as (fk, kc):
        if 'subshell' not in what: sh = None
        else: sh = await kc.subshell().__aenter__()
        before = asked(fk)
        if busy:
            held, waits = kc.run(HOLD), kc.run('waits')
            await soon(fk.until_held(1))
        call, limit = LIMITS[what], (BAD|EITHER)[value]
        was_refused = await refused(lambda: call(kc, sh, limit))
        if value in BAD: assert was_refused, f'{what}={limit!r} was taken'
        if busy:
            fk.release()
            assert (await soon(held, BRIEF)).text=='begun' and (await soon(waits, BRIEF)).text=='waits'
        shells = [kc] if sh is None else [kc, sh]
        if fk.alive and kc.status not in ('dead', 'closed'):
            for o in shells:
                assert (await soon(o.run('later'), BRIEF)).text=='later'
                assert (await soon(o.execute('later', reply=True), BRIEF))['content']['status']=='ok'
        else: assert not was_refused and 'shutdown' in what
        if was_refused:
            sent = asked(fk)-before
            assert sent==Counter(execute_request=2*len(shells)+2*busy) and 'bad' not in fk.codes, sent
        assert not kc.queue

@pytest.mark.parametrize('limit', [float('inf'), 30, 30., True+29])
async def test_report_02_limits_that_are_some(limit):
    "Numbers are limits, infinity included: it means never"
    async with fake() as (fk, kc):
        async with kc.subshell() as sh:
            for what, call in LIMITS.items():
                if 'shutdown' in what or 'control' in what or 'wait_for_status timeout'==what or what.startswith('get_'): continue
                if limit==float('inf') and what=='startup_timeout': continue
                got = call(kc, sh, limit)
                res = await outcome(got, BRIEF) if inspect.isawaitable(got) else None
                assert not isinstance(res, BaseException) or 'eval' in what and 'evaluates no expressions' in str(res), (what, res)

NEGATIVE_IS_OVER = ['run timeout', 'run queue_timeout', 'eval timeout', 'eval queue_timeout', 'map timeout', 'map queue_timeout',
                    'execute timeout', 'complete timeout', 'request timeout', 'execute_interactive timeout', 'subshell run timeout',
                    'wait_for_status timeout', 'get_shell_msg timeout', 'get_iopub_msg timeout', 'get_stdin_msg timeout', 'get_control_msg timeout']

@pytest.mark.parametrize('limit', [0, -1, -.5, float('-inf')])
@pytest.mark.parametrize('what', NEGATIVE_IS_OVER)
async def test_report_02_a_limit_that_is_over(what, limit):
    """Decided: where a call waits, a negative limit is what is left of a time that is over, as in `asyncio.wait_for`: the call
    ends as at its limit, soon, and harms nobody."""
    async with fake(on=dict(history_request='busy hold reply idle', complete_request='busy hold reply idle'), client=dict(grace=.3)) as (fk, kc):
        sh = await kc.subshell().__aenter__() if 'subshell' in what else None
        kc.interrupt_timeout = .4
        held = kc.run(HOLD)
        await soon(fk.until_held(1))
        if sh is not None or 'get_' in what or 'status' in what: fk.release()
        call = LIMITS[what]
        task = asyncio.ensure_future(call(kc, sh, limit))
        if 'timeout' in what and 'queue' not in what: asyncio.get_running_loop().call_later(.1, lambda: fk.held and fk.release())
        res = await outcome(task, 10)
        assert isinstance(res, (TimeoutError, Empty)), res
        if fk.held: fk.release()
        assert (await soon(held, BRIEF)).text=='begun'
        await until(lambda: not kc.queue, 10)
        assert (await soon(kc.run('later'), BRIEF)).text=='later'

@pytest.mark.parametrize('what', ['interrupt_timeout', 'begin_patience', 'grace', 'lost_after', 'readers_grace', 'startup_timeout'])
async def test_report_02_a_negative_setting(what):
    "Decided: a setting of so many seconds cannot be negative"
    async with fake() as (fk, kc):
        assert await refused(lambda: setattr(kc, what, -1)), f'{what}=-1 was taken'
        assert getattr(kc, what) is None or getattr(kc, what)>=0

@pytest.mark.parametrize('value', [*BAD, 'negative'])
async def test_report_02_a_restart_with_a_bad_limit_restarts_nothing(value):
    "Decided: negative is refused here, as the kernel would be gone before anybody could say that the time is over"
    async with managed() as (km, kc, kernels):
        limit = (BAD|dict(negative=-1))[value]
        held = kc.run(HOLD)
        await soon(kernels[0].until_held(1))
        was_refused = await refused(lambda: kc.restart(timeout=limit))
        assert was_refused and len(kernels)==1, f'restart(timeout={limit!r}): refused {was_refused}, kernels so far {len(kernels)}'
        kernels[0].release()
        assert (await soon(held)).text=='begun'

@pytest.mark.parametrize('value', [*BAD, 'negative'])
async def test_report_02_a_kernel_with_a_bad_limit_is_not_started(value, tmp_path):
    started = []
    class Manager(ConKernelManager):
        async def start_kernel(self, **kwargs):
            started.append(self)
            await super().start_kernel(**kwargs)
    spec = kernel_specs(tmp_path).get_kernel_spec('fake')
    async def use():
        async with run_kernel(kernel_spec=spec, startup_timeout=(BAD|dict(negative=-1))[value], manager_class=Manager): pass
    was_refused = await refused(use)
    assert was_refused and not started, f'refused {was_refused}, started {len(started)}'

async def test_report_02_a_bad_limit_on_a_real_kernel():
    "The report: every later `run`, `eval` and `push` of the client hung, also after a restart"
    async with run_kernel() as (km, kc):
        with pytest.raises(TypeError): kc.run('x = 1', timeout='30')
        assert (await soon(kc.run('6*7'))).text.strip()=='42'
        await soon(kc.push(y=2))
        assert await soon(kc.eval('y'))==2
        with pytest.raises(ExecutionError): await soon(kc.eval('x'))
        await kc.restart()
        assert await soon(kc.eval('6*7'))==42

async def test_report_05_nan_delays_nobodys_timers():
    "Other timers of the program come in time, whatever limits were asked for"
    async with fake() as (fk, kc):
        loop = asyncio.get_running_loop()
        held = kc.run(HOLD)
        await soon(fk.until_held(1))
        tasks, taken = [], 0
        for i in range(60):
            for call in (lambda: kc.execute('bad', reply=True, timeout=float('nan')), lambda: kc.run('bad', queue_timeout=float('nan')),
                         lambda: kc.wait_for_status('dead', timeout=float('nan'))):
                try: tasks.append(asyncio.ensure_future(call()))
                except REFUSED: continue
                taken += 1
        late, due = [], []
        def tick(at): late.append(loop.time()-at)
        for i in range(100):
            due.append(at := loop.time()+.01*i)
            loop.call_at(at, tick, at)
        await until(lambda: len(late)==100, 20, 'all timers')
        figure('timers late by more than 0.5 s, of 100', sum(o>.5 for o in late))
        assert max(late)<.5, (max(late), sum(o>.5 for o in late))
        for o in tasks: o.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fk.release()
        await soon(held)
        assert taken<=60   # coroutines are refused only when they are awaited


# --- 2: an exception in the middle of a call -----------------------------------------------------------------------

def ways_to_call(kc):
    return dict(run=lambda: kc.run('victim'), run_limited=lambda: kc.run('victim', timeout=20, queue_timeout=20),
                execute=lambda: kc.execute('victim', reply=True, timeout=20), post=lambda: kc.execute('victim'),
                request=lambda: kc.request('execute_request', dict(code='victim', silent=False)),
                complete=lambda: kc.complete('victim', reply=True))

@contextmanager
def interrupted_at(n, when=lambda frame: True):
    "Raise `KeyboardInterrupt` at the `n`-th line of the package that runs in here, once. Gives a list with the place."
    place, count = [], 0
    def local(frame, event, arg):
        nonlocal count
        if event!='line' or place: return local
        count += 1
        if count<n: return local
        place.append(f'{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}')
        raise KeyboardInterrupt
    def tracer(frame, event, arg):
        return local if not place and frame.f_code.co_filename.startswith(str(PACKAGE)) and when(frame) else None
    before = sys.gettrace()
    sys.settrace(tracer)
    try: yield place
    finally: sys.settrace(before)

async def unharmed(fk, kc, seconds=BRIEF):
    "Later calls work, and nothing stays behind"
    assert (await soon(kc.run('later'), seconds)).text=='later'
    assert (await soon(kc.execute('later', reply=True), seconds))['content']['status']=='ok'
    assert (await soon(kc.complete('later', reply=True), seconds))['content']['status']=='ok'
    await until(lambda: not kc.queue, seconds, 'the queue to be empty')
    await at_rest(kc, seconds)

@pytest.mark.parametrize('behind', [False, True], ids=['alone', 'behind another'])
@pytest.mark.parametrize('what', ['run', 'run_limited', 'execute', 'post', 'request', 'complete'])
async def test_report_02_interrupted_at_each_line_of_a_call(what, behind):
    "`KeyboardInterrupt` may come at any line: the call is as good as never made, or was sent once; no later call waits for it"
    bad, n, raised = [], 0, True
    async def attempt():
        async with fake(client=dict(grace=.5)) as (fk, kc):
            nonlocal n, raised
            await quiet(kc)
            while raised and len(bad)<5:
                n += 1
                other = kc.run(HOLD) if behind else None
                if behind: await soon(fk.until_held(1))
                del fk.received[:]
                with interrupted_at(n) as place:
                    try: ways_to_call(kc)[what]()
                    except KeyboardInterrupt: pass
                raised = bool(place)
                if behind:
                    fk.release()
                    assert (await soon(other)).text=='begun'
                if not place: return
                try:
                    await unharmed(fk, kc, 1.5)
                    asked = [o.code for o in fk.received if 'code' in o['content']]
                    assert asked.count('victim')<=1, asked
                except (AssertionError, TimeoutError, RuntimeError) as e:
                    bad.append(f'{place[0]}: {e!r}'[:200])
                    return   # and go on with another client
    while raised and len(bad)<5: await attempt()
    figure(f'{what}, {"behind another" if behind else "alone"}: lines tried', n)
    assert not bad, f'{len(bad)} of {n} lines leave something behind:\n'+'\n'.join(bad)

@pytest.mark.parametrize('sent', [False, True], ids=['before it is sent', 'when it was sent'])
@pytest.mark.parametrize('what', ['run', 'run_limited', 'execute', 'post', 'request', 'complete'])
async def test_report_02_ctrl_c_while_a_message_is_sent(what, sent, monkeypatch):
    "A real SIGINT: its handler raises where the message is written to the socket"
    async with fake(client=dict(grace=.5)) as (fk, kc):
        other = await ready(fk)
        held = other.run(HOLD)
        await soon(fk.until_held(1))
        del fk.received[:]
        send = ZMQTransport.send
        def interrupted(self, channel, packed):
            if sent: send(self, channel, packed)
            monkeypatch.setattr(ZMQTransport, 'send', send)
            signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(ZMQTransport, 'send', interrupted)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt): ways_to_call(kc)[what]()
        finally: signal.signal(signal.SIGINT, before)
        fk.release()
        assert (await soon(held)).text=='begun'
        await unharmed(fk, kc)
        codes = [o.code for o in fk.received if 'code' in o['content']]
        assert codes.count('victim')==sent, codes
        other.stop_channels()

@pytest.mark.parametrize('what', ['the queued run', 'the queued request', 'cancel_all', 'interrupt'])
async def test_report_02_interrupted_at_each_line_of_a_cancel(what):
    "The same for calls that stop something: the cell under way goes on or is stopped, and later calls work"
    bad, n, raised = [], 0, True
    async def attempt():
        nonlocal n, raised
        async with fake(client=dict(grace=.5)) as (fk, kc):
            n += 1
            kc.interrupt_timeout = 1
            held, queued = kc.run(HOLD), kc.run('queued')
            kc.window = 1
            asked = kc.execute('asked', reply=True)
            await soon(fk.until_held(1))
            calls = {'the queued run': queued.cancel, 'the queued request': asked.cancel, 'cancel_all': kc.cancel_all, 'interrupt': held.interrupt}
            with interrupted_at(n) as place:
                try: got = calls[what]()
                except KeyboardInterrupt: got = None
            raised = bool(place)
            if fk.held and what!='interrupt' and what!='cancel_all': fk.release()
            try:
                if fk.held:
                    await asyncio.wait([asyncio.ensure_future(o) for o in (held,)], timeout=.3)
                    for o in fk.held: fk.release([o])
                await outcomes([held, queued, asked], 5)
                await unharmed(fk, kc, 1.5)
                assert max(Counter(fk.codes)[o] for o in ('queued', 'asked'))<=1
            except (AssertionError, TimeoutError, RuntimeError) as e: bad.append(f'{place and place[0]}: {e!r}'[:200])
            if got is not None and inspect.isawaitable(got): await outcome(got)
    while raised and len(bad)<5: await attempt()
    assert not bad, f'{len(bad)} of {n} lines leave something behind:\n'+'\n'.join(bad)

READS = 200   # lines of the reading side that are tried, evenly spread

def test_report_02_interrupted_while_answers_are_read():
    "`KeyboardInterrupt` in a callback of the loop, which is then run again: at most what was just looked at may be lost, and ends in bounded time"
    def tries():
        with FakeKernel() as fk:
            loop = asyncio.new_event_loop()
            def do(coro): return loop.run_until_complete(asyncio.wait_for(coro, 10))
            async def use(kc): return await asyncio.gather(kc.run('victim'), kc.execute('victim', reply=True), kc.run('another'), return_exceptions=True)
            kc = do(ready(fk, grace=.3))
            try:
                while True:
                    n = yield
                    task = loop.create_task(use(kc))
                    with interrupted_at(n) as place:
                        try: loop.run_until_complete(task)
                        except KeyboardInterrupt: pass
                    try:
                        do(asyncio.wait([task]))
                        do(unharmed(fk, kc, 4))
                        problem = None
                    except (AssertionError, TimeoutError, RuntimeError) as e: problem = repr(e)[:150]
                    yield place and place[0], problem
                    if problem: return
            finally:
                kc.stop_channels()
                do(asyncio.sleep(0))
                for o in asyncio.all_tasks(loop): o.cancel()
                do(asyncio.sleep(.01))
                loop.close()
    bad, count, it = [], 0, None
    n, step = 1, 7   # about 1,300 lines run here; those before the first look at the socket are the test above
    while len(bad)<5 and count<READS:
        it = it or tries()
        next(it)
        place, problem = it.send(n)
        count += 1
        if problem:
            bad.append(f'{place}: {problem}')
            it.close()
            it = None
        if not place: break
        n += step
    if it: it.close()
    figure('lines of the reading side that were tried', count)
    assert not bad, f'{len(bad)} of {count} lines leave something behind:\n'+'\n'.join(bad)
