"""Faults that people reported of kernels and clients, tried on this library: each report, and its whole kind.

The numbers are those of the reports. Where something must *not* happen, a test first lets everything pass that could
make it happen (`quiet`); a pause only gives a mistake its time, and the right behaviour passes however long it is.
Races are tried many times, and the failures counted.
"""
import ast, asyncio, contextlib, gc, inspect, io, json, os, pickle, re, signal, socket, subprocess, sys, textwrap, time, warnings, weakref
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty

import pytest
import conkernelclient
from conkernelclient import (ClientClosedError, Comm, CommMessage, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout,
                             KernelRestartedError, run_kernel)
from conkernelclient.cells.outputs import Result
from conkernelclient.engine.session import ConSession
from conkernelclient.transports import zmq as zmq_room
from conkernelclient.transports.zmq import Channel
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

def some(quick, slow):
    "Parameters: those that always run, and those that run only with `-m slow`"
    return [*quick, *[pytest.param(*(o if isinstance(o, tuple) else (o,)), marks=pytest.mark.slow) for o in slow]]

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

@pytest.mark.parametrize('module, where', some([('nest_asyncio', 'after'), ('nest_asyncio2', 'inside')],
    [('nest_asyncio', 'before'), ('nest_asyncio', 'inside'), ('nest_asyncio2', 'before'), ('nest_asyncio2', 'after')]))
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

REFUSED = TypeError, ValueError, OverflowError, TraitError
BAD = dict(str='30', decimal=Decimal(30), nan=float('nan'), list=[30], object=object())
EITHER = dict(timedelta=timedelta(seconds=30), huge=10**400)

def _setting(name): return lambda kc, sh, limit: setattr(kc, name, limit)

def _comm(kc):
    "A comm with a message to read"
    comm = Comm(kc.comms, 't')
    comm.take(CommMessage('msg', {}, [], {}, comm, None))
    return comm

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
    'open_comm timeout': lambda kc, sh, limit: kc.open_comm('t', timeout=limit),
    'receive timeout': lambda kc, sh, limit: _comm(kc).receive(limit),
    'widgets load timeout': lambda kc, sh, limit: kc.widgets.load(timeout=limit),
    'subshell open_comm timeout': lambda kc, sh, limit: sh.open_comm('t', timeout=limit),
    'subshell run timeout': lambda kc, sh, limit: sh.run('bad', timeout=limit),
    'subshell run queue_timeout': lambda kc, sh, limit: sh.run('bad', queue_timeout=limit),
    'subshell eval timeout': lambda kc, sh, limit: sh.eval('bad', timeout=limit),
    'subshell execute timeout': lambda kc, sh, limit: sh.execute('bad', reply=True, timeout=limit),
    'subshell complete timeout': lambda kc, sh, limit: sh.complete('bad', reply=True, timeout=limit),
    'subshell inspect timeout': lambda kc, sh, limit: sh.inspect('bad', reply=True, timeout=limit),
    'subshell request timeout': lambda kc, sh, limit: sh.request('history_request', timeout=limit),
    'completions timeout': lambda kc, sh, limit: kc.completions('bad', timeout=limit),
    'doc timeout': lambda kc, sh, limit: kc.doc('bad', timeout=limit),
    'variables timeout': lambda kc, sh, limit: kc.variables(timeout=limit),
    'replay timeout': lambda kc, sh, limit: kc.replay(dict(cells=[dict(cell_type='code', source='bad')]), timeout=limit),
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

async def ask_with(what, limit, busy, may_be_taken):
    "Make the call with a limit that is none, then see whether anybody noticed"
    async with fake() as (fk, kc):
        sh = await kc.subshell().__aenter__() if 'subshell' in what else None
        before = asked(fk)
        if busy:
            held, waits = kc.run(HOLD), kc.run('waits')
            await soon(fk.until_held(1))
        was_refused = await refused(lambda: LIMITS[what](kc, sh, limit))
        assert was_refused or may_be_taken, 'it was taken'
        if what=='shutdown timeout' and not was_refused: return   # it means what it says, and the kernel is gone
        if busy:
            if fk.held: fk.release()
            assert (await soon(held, BRIEF)).text=='begun' and (await soon(waits, BRIEF)).text=='waits', 'who was there noticed it'
        shells = [kc] if sh is None else [kc, sh]
        for o in shells:
            assert (await soon(o.run('later'), BRIEF)).text=='later'
            assert (await soon(o.execute('later', reply=True), BRIEF))['content']['status']=='ok'
        if was_refused:
            sent = asked(fk)-before
            assert sent==Counter(execute_request=2*len(shells)+2*busy) and 'bad' not in fk.codes, f'it was refused, and sent: {sent}'
        assert not kc.queue, kc.queue

@pytest.mark.parametrize('what', LIMITS)
async def test_report_02_a_limit_that_is_none(what):
    """Refused at the call: nothing is sent, and nobody else is affected: neither what is under way, nor what comes later.

    Decided: a string, a `Decimal`, a list, an object and NaN are refused, by each method and each setting, with `TypeError`
    or `ValueError` (a trait's `TraitError`), also where the limit would not have been needed. A `timedelta`, and a number
    beyond what a float holds, may be refused or mean what they say: here they only may do no harm. Infinity means *never*.
    """
    bad = []
    for busy in False, True:
        for name, limit in (BAD|EITHER).items():
            try: await ask_with(what, limit, busy, name in EITHER)
            except (AssertionError, TimeoutError, RuntimeError, OverflowError) as e: bad.append(f'{name}, {"busy" if busy else "idle"}: {e!r}'[:150])
    assert not bad, f'{what}:\n'+'\n'.join(bad)

@pytest.mark.parametrize('limit', [float('inf'), 30, 30., True+29])
async def test_report_02_limits_that_are_some(limit):
    "Numbers are limits, infinity included: it means never"
    async with fake() as (fk, kc):
        async with kc.subshell() as sh:
            for what, call in LIMITS.items():
                if 'shutdown' in what or 'control' in what or 'wait_for_status timeout'==what or what.startswith(('get_', 'variables', 'widgets')): continue
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
    ends as at its limit, soon, and harms nobody. A cell that was quick may be done before its limit is looked at."""
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
        quick = 'queue' not in what and re.search('run|eval|map', what)
        assert isinstance(res, (TimeoutError, Empty)) or quick and (not isinstance(res, Exception) or type(res) is ValueError), res
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

@pytest.mark.parametrize('what, behind', some([('run', False), ('execute', False), ('post', False), ('run', True)],
    [('run_limited', False), ('request', False), ('complete', False), ('run_limited', True), ('execute', True), ('post', True), ('request', True), ('complete', True)]))
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
                    await unharmed(fk, kc)
                    asked = [o.code for o in fk.received if 'code' in o['content']]
                    assert asked.count('victim')<=1, asked
                except (AssertionError, TimeoutError, RuntimeError, KeyboardInterrupt) as e:
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
        send = Channel.send
        def interrupted(self, packed):
            if sent: send(self, packed)
            monkeypatch.setattr(Channel, 'send', send)
            signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(Channel, 'send', interrupted)
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

@contextmanager
def stopped_between_frames(monkeypatch, sent):
    "Raise `KeyboardInterrupt` after so many frames of the next message, once"
    send, count = zmq_room._send, 0
    def interrupted(socket, frame, flags):
        nonlocal count
        if count==sent:
            monkeypatch.setattr(zmq_room, '_send', send)
            raise KeyboardInterrupt
        count += 1
        return send(socket, frame, flags)
    monkeypatch.setattr(zmq_room, '_send', interrupted)
    try: yield
    finally: monkeypatch.setattr(zmq_room, '_send', send)

@pytest.mark.parametrize('sent', range(6))
async def test_report_02_interrupted_between_two_frames(sent, monkeypatch):
    "The next message is not appended to the half that was sent, and nothing runs twice"
    async with fake(client=dict(grace=.5)) as (fk, kc):
        for what, call in ways_to_call(kc).items():
            with stopped_between_frames(monkeypatch, sent), pytest.raises(KeyboardInterrupt): call()
            await unharmed(fk, kc)
        assert fk.codes.count('victim')==0, fk.codes

async def test_report_02_interrupted_between_two_frames_of_a_real_kernel(monkeypatch):
    "ipykernel drops the half as malformed"
    async with run_kernel() as (km, kc):
        for sent in range(6):
            with stopped_between_frames(monkeypatch, sent), pytest.raises(KeyboardInterrupt): kc.run('victim = 1')
            assert (await soon(kc.run('print("victim" in globals())'), 10)).text=='False\n'
            assert (await soon(kc.execute('1', reply=True), 10))['content']['status']=='ok'

def test_report_02_each_limit_is_tried():
    "No public method with a limit is missing in `LIMITS`"
    tried = {o.partition(',')[0] for o in LIMITS}
    missing = []
    for prefix, cls in ('', ConKernelClient), ('subshell ', conkernelclient.Subshell):
        for name in dir(cls):
            f = inspect.getattr_static(cls, name)
            if name.startswith('_') or not inspect.isfunction(f) or not f.__module__.startswith('conkernelclient'): continue
            missing += [o for p in inspect.signature(f).parameters if p.endswith('timeout') and (o := f'{prefix}{name} {p}') not in tried]
    assert sorted(missing)==['restart timeout'], missing   # which has a test of its own

@pytest.mark.parametrize('what', ['the queued run', 'the queued request', 'cancel_all', 'interrupt'])
async def test_report_02_interrupted_at_each_line_of_a_cancel(what):
    "A call that stops something may be made again after a `KeyboardInterrupt`: then it has stopped it, and later calls work"
    bad, n, raised = [], 0, True
    async def attempt():
        nonlocal n, raised
        n += 1
        async with fake(client=dict(grace=.5)) as (fk, kc):
            kc.interrupt_timeout = 1
            held, queued = kc.run(HOLD), kc.run('queued')
            await soon(fk.until_held(1))
            kc.window = 1
            asked = kc.execute('asked', reply=True)
            call = {'the queued run': queued.cancel, 'the queued request': asked.cancel, 'cancel_all': kc.cancel_all, 'interrupt': held.interrupt}[what]
            with interrupted_at(n) as place, warnings.catch_warnings():
                warnings.simplefilter('ignore')   # of a coroutine that is made, and then not started
                try: call()
                except KeyboardInterrupt: pass
            raised = bool(place)
            again = call()
            try:
                if inspect.isawaitable(again): await outcome(again, 5)
                for o in fk.held: fk.release([o])
                ended = (await outcomes([held, queued, asked], 5))[0]
                if what in ('the queued run', 'cancel_all'): assert 'queued' not in fk.codes and isinstance(ended[1], asyncio.CancelledError), ended
                if what=='the queued request': assert 'asked' not in fk.codes and isinstance(ended[2], asyncio.CancelledError), ended
                kc.window = 256
                await unharmed(fk, kc)
                assert max(Counter(fk.codes)[o] for o in ('queued', 'asked'))<=1
            except (AssertionError, TimeoutError, RuntimeError, KeyboardInterrupt) as e: bad.append(f'{place and place[0]}: {e!r}'[:200])
    while raised and len(bad)<5: await attempt()
    figure(f'{what}: lines tried', n)
    assert not bad, f'{len(bad)} of {n} lines leave something behind:\n'+'\n'.join(bad)

@pytest.mark.slow
def test_report_02_interrupted_while_answers_are_read(caplog):
    "`KeyboardInterrupt` in a callback of the loop, which is then run again: at most what was just looked at may be lost; all ends in bounded time"
    bad, n, step, raised = [], 1, 3, True
    loop = asyncio.new_event_loop()
    def do(coro, seconds=10): return loop.run_until_complete(asyncio.wait_for(coro, seconds))
    async def asked(kc): return [asyncio.ensure_future(o) for o in (kc.run('one'), kc.execute('two', reply=True), kc.run('three'), kc.complete('four', reply=True))]
    def attempt():
        nonlocal n, raised
        with FakeKernel() as fk:
            kc = do(ready(fk, grace=.3))
            try:
                while raised and len(bad)<5:
                    n += step
                    fk.freeze()
                    tasks = do(asked(kc))
                    fk.thaw()
                    with interrupted_at(n) as place:
                        try: do(asyncio.wait(tasks))
                        except KeyboardInterrupt: pass
                    raised = bool(place)
                    try:
                        assert not do(asyncio.wait(tasks, timeout=4))[1], 'what was asked before has not ended'
                        for o in tasks: o.exception()   # lost, or interrupted itself
                        do(unharmed(fk, kc, 4))
                    except (AssertionError, TimeoutError, RuntimeError, KeyboardInterrupt) as e:
                        bad.append(f'{place and place[0]}: {e!r}'[:150])
                        return
            finally:
                kc.stop_channels()
                for o in asyncio.all_tasks(loop): o.cancel()
                do(asyncio.sleep(.01))
    while raised and len(bad)<5: attempt()
    loop.close()
    caplog.clear()   # what was lost has been said
    figure('lines of the reading side that were tried', n//step)
    assert not bad, f'{len(bad)} of {n//step} lines leave something behind:\n'+'\n'.join(bad)


# --- 3: a kernel that says *busy* late, or never -------------------------------------------------------------------

LOCKED = 'pow(7, 10**8)\n0'   # holds the interpreter lock for more than a minute; SIGINT ends it
# What is published comes three seconds later, and the reply does not wait for it
LATE = '''import sys, time
sys.stdout.flush_timeout = sys.stderr.flush_timeout = .01
get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(3))'''
STOPS = 'interrupt', 'cancel', 'limit', 'task', 'wait_for'

async def stop(run, how):
    "Stop a run, in each way there is. Gives what its caller gets."
    if how=='interrupt': assert await soon(run.interrupt(), BRIEF) is True, 'run.interrupt() says that there was nothing to interrupt'
    if how=='cancel': run.cancel()
    task = asyncio.ensure_future(asyncio.wait_for(run, .1) if how=='wait_for' else run)
    await asyncio.sleep(0)
    if how=='task': task.cancel()
    return await outcome(task, 15)

def as_it_should(how, got):
    "Does the caller get what a stopped cell gives?"
    if how=='interrupt': return isinstance(got, Result) and got.status=='error' and got.error.ename=='KeyboardInterrupt'
    return isinstance(got, dict(limit=ExecutionTimeout, wait_for=TimeoutError).get(how, asyncio.CancelledError))

@pytest.mark.parametrize('how', STOPS)
async def test_report_03_a_cell_that_holds_the_interpreter_lock(how):
    "ipykernel's thread for iopub cannot say *busy* while it is held. The cell is stopped all the same, in much less time than it takes."
    async with run_kernel() as (km, kc):
        failed, tries, hard = [], 2, 0
        await kc.run('1')
        for i in range(4*tries):
            if i>=tries and hard: break   # (on a loaded machine, all of the first ones may be easy)
            assert (await soon(kc.execute(LATE, reply=True)))['content']['status']=='ok'
            run = kc.run(LOCKED, timeout=.5 if how=='limit' else None)   # its *busy* waits behind that, and then for the lock
            await asyncio.sleep(.3)
            hard += run.state=='sent'
            try:
                got = await stop(run, how)
                assert as_it_should(how, got), f'its caller gets {got!r}'
                assert (await soon(kc.run('6*7'), 10)).text.strip()=='42'
            except (AssertionError, TimeoutError) as e:
                failed.append(repr(e) if str(e) else 'it runs on: no later cell within 10 s')
                break   # it runs on
        figure(f'locked cells that were not stopped by {how}, of {i}', len(failed))
        assert not failed and hard, (failed, hard)

@pytest.mark.parametrize('says, how, by', some([('never', o, 'message') for o in STOPS] + [('never', 'cancel', 'signal'), ('late', 'interrupt', 'message')],
    [('never', o, 'signal') for o in STOPS if o!='cancel'] + [('late', o, by) for o in STOPS for by in ('message', 'signal') if (o, by)!=('interrupt', 'message')]))
async def test_report_03_a_kernel_that_does_not_say_busy(says, how, by):
    "Nothing that we know of stands before the cell, so it is the one that is interrupted"
    code = 'fake: hold reply idle' if says=='never' else 'fake: sleep=2 busy hold reply idle'
    async with managed(interrupt_mode=by) as (km, kc, kernels):
        fk = kernels[0]
        run = kc.run(code, timeout=.2 if how=='limit' else None)
        await soon(fk.until(lambda: code in fk.codes))
        if says=='never': await soon(fk.until_held(1))
        got = await stop(run, how)
        assert as_it_should(how, got), got
        assert (await soon(kc.run('later'), 5)).text=='later'

@pytest.mark.parametrize('how', STOPS)
async def test_report_03_the_cell_of_somebody_else_stands_before_it(how):
    "Then nothing is interrupted: it would hit the other one"
    async with fake() as (fk, kc):
        other = await ready(fk)
        held = other.run(HOLD)
        await soon(fk.until_held(1))
        while (await kc.get_iopub_msg(timeout=SOON))['content'].get('execution_state')!='busy': pass   # of the other's cell
        run = kc.run('mine', timeout=.2 if how=='limit' else None)
        await soon(fk.until(lambda: 'mine' in fk.codes))
        if how=='interrupt': assert await soon(run.interrupt(), BRIEF) is False
        if how=='cancel': run.cancel()
        task = asyncio.ensure_future(asyncio.wait_for(run, .1) if how=='wait_for' else run)
        await asyncio.sleep(0)
        if how=='task': task.cancel()
        await asyncio.wait([task], timeout=1.2)
        await quiet(kc, 'control')
        assert fk.counts['interrupt_request']==0
        fk.release()
        assert (await soon(held)).text=='begun'
        await outcome(task)
        await outcome(run)
        assert (await soon(kc.run('later'))).text=='later'
        other.stop_channels()


# --- 4: null, or another type, where a missing field has a default --------------------------------------------------

WRONG = dict(null=None, number=7, text='a\nb', list=['a', 7, None], dict={'a': None})

def fields(**said): return {k: v for k, v in said.items() if v is not ...}

def published(msg_type, **content):
    "A handler of a cell that publishes this, and replies"
    def handler(k, msg):
        k.busy(msg)
        k.publish(msg, msg_type, content)
        k.reply(msg)
        k.idle(msg)
    return handler

def replied(**content):
    "A handler of a cell that replies this, and nothing that a kernel usually adds"
    def handler(k, msg):
        k.busy(msg)
        k._send(msg.channel, 'execute_reply', dict(status='ok')|content, msg)
        k.idle(msg)
    return handler

def shown(res):
    "Everything that a result can be asked for; raises where one of these does"
    error = res.error
    if error is not None: assert all(type(o) is str for o in (error.ename, error.evalue, *error.traceback)), error
    for o in res.outputs:
        if o['output_type']=='error': assert all(type(x) is str for x in (o['ename'], o['evalue'], *o['traceback'])) and type(o['traceback']) is list, o
        elif o['output_type']=='stream': assert type(o['text']) is str and type(o['name']) is str, o
        else: assert type(o['data']) is dict and type(o['metadata']) is dict, o
    llm = res.for_llm()
    assert type(res.user_expressions) is dict
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): res._ipython_display_()
    str(ExecutionError(res)), pickle.loads(pickle.dumps(res)), res.duration, res.execution_count, str(error), llm.anthropic(), llm.openai(), res.data
    return dict(repr=re.sub(r'\[\d+\]', '', repr(res)), str=str(res), text=res.text, stdout=res.stdout, stderr=res.stderr, llm=llm.text, outputs=res.outputs)

async def answer(fk, kc, handler):
    fk.on['execute_request'] = handler
    try: return await soon(kc.run('x'), 5)
    finally: fk.on.pop('execute_request')

ERROR = dict(ename='ValueError', evalue='no', traceback=['one', 'two'])
BUNDLE = dict(data={'text/plain': 'shown'}, metadata={}, transient={'display_id': 'd'})
PUBLISHED = dict(error=ERROR, stream=dict(name='stdout', text='said'), display_data=BUNDLE, update_display_data=BUNDLE,
                 execute_result=BUNDLE|dict(execution_count=1), clear_output=dict(wait=True), execute_input=dict(code='x', execution_count=1),
                 status=dict(execution_state='busy'))
REPLIED = dict(error=dict(status='error', **ERROR), ok=dict(status='ok', execution_count=1, payload=[dict(source='page', data={'text/plain': 'page'}, start=0)],
                                                               user_expressions=dict(value=dict(status='ok', data={'text/plain': '1'}, metadata={}))))

@pytest.mark.parametrize('kind, field', [(kind, field) for kind, content in PUBLISHED.items() for field in content])
async def test_report_04_a_field_of_an_output_is_null_or_of_another_type(kind, field):
    "Null is as if it were missing; with any other type the run ends, and all of its result can be read and printed"
    bad = []
    async with fake() as (fk, kc):
        missing = {k: v for k, v in PUBLISHED[kind].items() if k!=field}
        expected = shown(await answer(fk, kc, published(kind, **missing)))
        for name, value in WRONG.items():
            try:
                res = await answer(fk, kc, published(kind, **missing, **{field: value}))
                got = shown(res)
                if value is None: assert got==expected, f'{got} where it is missing: {expected}'
            except Exception as e: bad.append(f'{field}={value!r}: {e!r}'[:300])
        await unharmed(fk, kc)
    assert not bad, f'{kind}:\n'+'\n'.join(bad)

@pytest.mark.parametrize('kind, field', [(kind, field) for kind, content in REPLIED.items() for field in content])
async def test_report_04_a_field_of_a_reply_is_null_or_of_another_type(kind, field):
    bad = []
    async with fake() as (fk, kc):
        missing = {k: v for k, v in REPLIED[kind].items() if k!=field}
        if field!='status': expected = shown(await answer(fk, kc, replied(**missing)))
        for name, value in WRONG.items():
            try:
                got = shown(await answer(fk, kc, replied(**missing, **{field: value})))
                if value is None and field!='status': assert got==expected, f'{got} where it is missing: {expected}'
            except Exception as e: bad.append(f'{field}={value!r}: {e!r}'[:300])
        await unharmed(fk, kc)
    assert not bad, f'{kind}:\n'+'\n'.join(bad)

NESTED_FIELDS = {
    'display_id': lambda v: published('display_data', **BUNDLE|dict(transient=dict(display_id=v))),
    'display_id of an update': lambda v: published('update_display_data', **BUNDLE|dict(transient=dict(display_id=v))),
    'text/plain': lambda v: published('display_data', data={'text/plain': v}),
    'text/html': lambda v: published('display_data', data={'text/html': v}),
    'image/png': lambda v: published('display_data', data={'image/png': v}),
    'image/svg+xml': lambda v: published('display_data', data={'image/svg+xml': v}),
    'application/json': lambda v: published('display_data', data={'application/json': v}),
    'a line of a traceback': lambda v: published('error', **ERROR|dict(traceback=['one', v])),
    'a line of a reply\'s traceback': lambda v: replied(status='error', **ERROR|dict(traceback=['one', v])),
    'an entry of the payload': lambda v: replied(payload=[v]),
    'source of the payload': lambda v: replied(payload=[dict(source=v, data={'text/plain': 'page'})]),
    'data of the payload': lambda v: replied(payload=[dict(source='page', data=v)]),
    'an expression': lambda v: replied(user_expressions=dict(value=v)),
    'data of an expression': lambda v: replied(user_expressions=dict(value=dict(status='ok', data=v, metadata={}))),
    'metadata of the reply': lambda v: lambda k, msg: (k.busy(msg), k.reply(msg, metadata=dict(started=v)), k.idle(msg)) and None}

@pytest.mark.parametrize('where', NESTED_FIELDS)
async def test_report_04_what_is_inside_a_field_is_null_or_of_another_type(where):
    bad = []
    async with fake() as (fk, kc):
        for name, value in WRONG.items():
            try: shown(await answer(fk, kc, NESTED_FIELDS[where](value)))
            except Exception as e: bad.append(f'{value!r}: {e!r}'[:300])
            fk.on['execute_request'] = NESTED_FIELDS[where](value)
            try: await soon(kc.eval('1'), 5)
            except (ValueError, ExecutionError): pass   # no literal
            except Exception as e: bad.append(f'eval, {value!r}: {e!r}'[:300])
            fk.on.pop('execute_request')
        await unharmed(fk, kc)
    assert not bad, f'{where}:\n'+'\n'.join(bad)

async def test_report_04_a_traceback_that_is_a_string_is_its_lines():
    async with fake() as (fk, kc):
        for text, lines in {'one\ntwo': ['one', 'two'], 'one': ['one'], '': []}.items():
            res = await answer(fk, kc, published('error', **ERROR|dict(traceback=text)))
            assert res.outputs[0]['traceback']==lines
            res = await answer(fk, kc, replied(status='error', **ERROR|dict(traceback=text)))
            assert res.error.traceback==lines
        res = await answer(fk, kc, published('error', ename=None, evalue=None, traceback=['one', 2]))
        assert res.outputs[0]==dict(output_type='error', ename='', evalue='', traceback=['one', '2'])

@pytest.mark.parametrize('field', ['protocol_version', 'implementation', 'implementation_version', 'language_info', 'banner', 'help_links', 'supported_features', 'status'])
async def test_report_04_a_field_of_kernel_info_is_null_or_of_another_type(field):
    "The kernel is ready all the same; it has no feature that it does not name"
    bad = []
    for value in (..., *WRONG.values()):
        info = {k: v for k, v in FakeKernel()._kernel_info(None).items() if k!=field} | fields(**{field: value})
        def handler(k, msg):
            k.busy(msg)
            k._send(msg.channel, 'kernel_info_reply', dict(status='ok')|info, msg)
            k.idle(msg)
        with FakeKernel(on=dict(kernel_info_request=handler)) as fk:
            kc = fk.client(ConKernelClient)
            kc.start_channels()
            try:
                await kc.wait_for_ready(timeout=3)
                assert (await soon(kc.run('x'), 5)).text=='x'
                if field=='supported_features':
                    assert not kc.supports('kernel subshells')
                    with pytest.raises(conkernelclient.UnsupportedFeature): await kc.map(['x'])
            except Exception as e: bad.append(f'{value!r}: {e!r}'[:200])
            kc.stop_channels()
    assert not bad, f'{field}:\n'+'\n'.join(bad)

@pytest.mark.parametrize('what', ['complete', 'inspect', 'history', 'is_complete', 'comm_info'])
async def test_report_04_other_replies_with_null(what):
    "The reply is given as it came"
    ask = dict(complete=lambda kc: kc.complete('x', reply=True), inspect=lambda kc: kc.inspect('x', reply=True), history=lambda kc: kc.history(reply=True),
               is_complete=lambda kc: kc.is_complete('x', reply=True), comm_info=lambda kc: kc.comm_info(reply=True))[what]
    keys = 'status', 'matches', 'cursor_start', 'cursor_end', 'metadata', 'found', 'data', 'history', 'indent', 'comms'
    async with fake() as (fk, kc):
        for value in WRONG.values():
            def handler(k, msg):
                k.busy(msg)
                k._send(msg.channel, msg.msg_type.replace('request', 'reply'), dict.fromkeys(keys, value), msg)
                k.idle(msg)
            fk.on[f'{what}_request'] = handler
            assert (await soon(ask(kc), 5))['content']==dict.fromkeys(keys, value)
        fk.on.clear()
        await unharmed(fk, kc)

@pytest.mark.parametrize('field', ['prompt', 'password'])
async def test_report_04_a_prompt_with_null(field):
    "A prompt is text, whatever it was, and a password is asked for or not"
    bad = []
    async with fake() as (fk, kc):
        for value in WRONG.values():
            told = []
            def handler(k, msg):
                k.busy(msg)
                said = yield k.input_request(msg, **{field: value})
                k.stream(msg, said)
                k.reply(msg)
                k.idle(msg)
            def reply(prompt, *, password):
                told.append((prompt, password))
                return 'me'
            fk.on['execute_request'] = handler
            try:
                assert (await soon(kc.run('x', stdin=reply), 5)).text=='me'
                assert [type(o) for o in told[0]]==[str, bool], told
            except Exception as e: bad.append(f'{value!r}: {e!r}'[:200])
            fk.on.clear()
        await unharmed(fk, kc)
    assert not bad, '\n'.join(bad)


@pytest.mark.parametrize('value', WRONG, ids=str)
async def test_report_04_what_is_printed(value, capsys):
    "`execute_interactive` prints such outputs, and ends well"
    value = WRONG[value]
    async with fake() as (fk, kc):
        for kind, content in (*[(kind, dict.fromkeys(content, value)) for kind, content in PUBLISHED.items() if kind!='status'],
                              ('display_data', dict(data={'text/plain': value})), ('stream', dict(name='stderr', text='fine'))):
            fk.on['execute_request'] = published(kind, **content)
            assert (await soon(kc.execute_interactive('x')))['content']['status']=='ok'
        fk.on.clear()
        assert capsys.readouterr().err.endswith('fine')


# --- 6: what is asked after an error has been replied ----------------------------------------------------------------

@pytest.mark.parametrize('code, then', some([('1/0', 'run'), ('1+', 'run'), ('1+', 'execute')],
    [('1/0', 'execute'), *[(o, then) for o in ('1/0', '1+') for then in ('three runs', 'execute_interactive')]]))
async def test_report_06_what_is_asked_after_an_error_runs(code, then):
    "ipykernel replies before it stops aborting its queue; what was asked after the reply is not aborted"
    tries, aborted = 300, 0
    async with run_kernel() as (km, kc):
        for i in range(tries):
            assert (await soon(kc.execute(code, reply=True)))['content']['status']=='error'
            if then=='run': states = [(await soon(kc.run('1'))).status]
            if then=='three runs': states = [o.status for o in await soon(asyncio.gather(*[kc.run('1') for _ in range(3)]))]
            if then=='execute': states = [(await soon(kc.execute('1', reply=True)))['content']['status']]
            if then=='execute_interactive': states = [(await soon(kc.execute_interactive('1', output_hook=lambda msg: None)))['content']['status']]
            aborted += any(o!='ok' for o in states)
        figure(f'{code}, then {then}: not run, of {tries}', aborted)
        assert (await soon(kc.eval('6*7')))==42
    assert not aborted, f'{aborted} of {tries} did not run'

async def test_report_06_on_a_subshell():
    tries, aborted = 200, 0
    async with run_kernel() as (km, kc):
        async with kc.subshell() as sh:
            for i in range(tries):
                assert (await soon(sh.execute('1+', reply=True)))['content']['status']=='error'
                aborted += (await soon(sh.run('1'))).status!='ok'
    figure(f'on a subshell: not run, of {tries}', aborted)
    assert not aborted, f'{aborted} of {tries} did not run'

def aborts_late(k, msg):
    "As ipykernel, whose abort of the queue comes after the reply: here long after it"
    k.busy(msg)
    said = dict(ename='Error', evalue='as told', traceback=[])
    k.publish(msg, 'error', said)
    k.reply(msg, 'error', **said)
    yield .2
    if msg['content']['stop_on_error']: k._abort_behind(msg)
    k.idle(msg)

def late_handler(k, msg): return aborts_late(k, msg) if msg.code=='fail' else k.execute(msg)

@pytest.mark.parametrize('then', ['run', 'execute', 'request', 'execute_interactive', 'post'])
async def test_report_06_a_kernel_that_aborts_late(then):
    "The same, forced: everything that reaches the kernel within 0.2 s after its error reply is aborted"
    async with fake(on=dict(execute_request=late_handler)) as (fk, kc):
        for i in range(5):
            assert (await soon(kc.execute('fail', reply=True)))['content']['status']=='error'
            if then=='run': state = (await soon(kc.run('x'))).status
            if then=='execute': state = (await soon(kc.execute('x', reply=True)))['content']['status']
            if then=='request': state = (await soon(kc.request('execute_request', dict(code='x', stop_on_error=True))))['content']['status']
            if then=='execute_interactive': state = (await soon(kc.execute_interactive('x', output_hook=lambda msg: None)))['content']['status']
            if then=='post':
                msg_id = kc.execute('x')
                while (msg := await kc.get_shell_msg(timeout=SOON))['parent_header']['msg_id']!=msg_id: pass
                state = msg['content']['status']
            assert state=='ok', f'{then} {i}: {state}'

async def test_report_06_what_was_asked_before_the_error_reply_is_aborted():
    "What `stop_on_error` is for: it had been asked before anybody could know of the error"
    async with fake(on=dict(execute_request=late_handler)) as (fk, kc):
        for window in 256, 1:
            kc.window = window
            first, behind = kc.execute('fail', reply=True), kc.execute('x', reply=True)
            assert (await soon(first))['content']['status']=='error'
            assert (await soon(behind))['content']['status']=='aborted'

async def test_report_06_no_error_no_fence():
    "Not at the cost of the normal path: where nothing was aborted, nothing more is asked"
    async with fake() as (fk, kc):
        await quiet(kc)
        before = fk.got(None)
        for i in range(20): assert (await soon(kc.execute('x', reply=True)))['content']['status']=='ok'
        for i in range(20): assert (await soon(kc.run('fake: busy error=Error idle'))).status=='error'   # a run never stops others
        assert fk.got(None)-before==40


# --- 7: hints that do not fit ----------------------------------------------------------------------------------------

@contextmanager
def taken_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        yield s.getsockname()[1]

async def test_report_07_a_port_that_is_taken():
    "Both tries of a start meet a port that somebody has: the words say so, and what to do; the manager is gone"
    with taken_port() as port:
        class Manager(ConKernelManager):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.cache_ports, self.shell_port = False, port
        with pytest.raises(DeadKernelError) as e:
            async with run_kernel(manager_class=Manager): pass
        said = str(e.value)
        assert re.search(r'\b(ports?|address)\b', said) and re.search('taken|in use|occupied', said) and str(port) in said, said
        assert 'restart' not in said, said

@pytest.mark.parametrize('how', ['dies', 'dies_when_asked'])
async def test_report_07_a_kernel_that_does_not_start(how, tmp_path):
    "No hint at a manager that the caller of `run_kernel` has never seen"
    specs = kernel_specs(tmp_path, behaviour=how)
    with pytest.raises(DeadKernelError, match='exit code [34]') as e:
        async with run_kernel(kernel_spec=specs.get_kernel_spec('fake')): pass
    assert not re.search(r'km\.|kc\.|restart', str(e.value)), e.value

async def test_report_07_no_manager_no_hint_at_one():
    "A client that was made from a connection file has no `km`, and its `restart` raises: no message names these"
    said = []
    async def note(awaitable): said.append(str(await outcome(awaitable)))
    with FakeKernel(interrupts=False) as fk:
        kc = await ready(fk, lost_after=.2)
        kc.interrupt_timeout, kc.begin_patience = .2, .1
        await note(kc.run(HOLD, timeout=.1))             # ignores the interrupt
        fk.release()
        await note(kc.run('fake: hold reply idle', timeout=.1))   # does not say that it begins
        fk.release()
        held = kc.run(HOLD)
        await until_running(held)
        fk.crash()
        await note(held)
        await note(kc.run('x'))
        with pytest.raises(DeadKernelError) as e: kc.execute('x')
        said.append(str(e.value))
        await note(kc.wait_for_ready(timeout=1))
        await note(kc.restart())
        kc.stop_channels()
        await note(kc.execute_interactive('x'))
        with pytest.raises(ClientClosedError) as e: kc.execute('x')
        said.append(str(e.value))
        with pytest.raises(ClientClosedError) as e: kc.start_channels()
        said.append(str(e.value))
    figure('messages', len(said))
    bad = [o for o in said if re.search(r'\bkm\.|kc\.restart|call start_kernel', o)]
    assert not bad, bad

async def test_report_07_what_a_hint_says_works():
    "A message that names `km.restart_kernel()` or `kc.restart()`: it can be called, and this client goes on"
    failed = []
    for end in 'killed', 'shut down', 'asked to shut down':
        async with run_kernel() as (km, kc):
            if end=='killed': await km.provisioner.kill()
            if end=='shut down': await km.shutdown_kernel()
            if end=='asked to shut down': await soon(kc.shutdown(reply=True))
            await soon(kc.wait_for_status('dead'))
            with pytest.raises(DeadKernelError) as e: kc.run('1') and await soon(kc.run('1'))
            said = str(e.value)
            try:
                if 'km.restart_kernel()' in said: await soon(km.restart_kernel())
                elif 'kc.restart()' in said: await soon(kc.restart())
                else: continue
                await kc.wait_for_ready(timeout=SOON)
                assert (await soon(kc.run('1'))).text.strip()=='1'
            except Exception as e: failed.append(f'{end}: {said!r}; then {e!r}')
    assert not failed, failed


# --- 8: a start that fails halfway -----------------------------------------------------------------------------------

FAILS = '''
import asyncio, gc, os, sys, tempfile, threading, traceback
from pathlib import Path
from unittest.mock import patch
from jupyter_client.provisioning import LocalProvisioner
import jupyter_client.connect, zmq
from conkernelclient import *

step, how = sys.argv[1:]
class Told(Exception): pass
def children():
    found = []
    for o in Path('/proc').glob('[0-9]*/stat'):
        try: text = o.read_text()
        except OSError: continue
        state, parent = text.rpartition(')')[2].split()[:2]
        if int(parent)==os.getpid() and state not in 'ZX': found.append(text.split()[0])
    return found

def files(): return sorted(str(o) for o in Path(os.environ['JUPYTER_RUNTIME_DIR']).glob('kernel*')) + sorted(str(o) for o in Path(tempfile.gettempdir()).glob('tmp*.json'))

def fail(*args, **kwargs): raise Told(step)
async def afail(*args, **kwargs): raise Told(step)
async def launch_then_fail(self, *args, **kwargs):
    await launched(self, *args, **kwargs)
    raise Told(step)
launched = LocalProvisioner.launch_kernel
PATCHES = {
    'pre_launch': lambda: patch.object(LocalProvisioner, 'pre_launch', afail),
    'launch': lambda: patch.object(LocalProvisioner, 'launch_kernel', afail),
    'launched': lambda: patch.object(LocalProvisioner, 'launch_kernel', launch_then_fail),
    'post_launch': lambda: patch.object(LocalProvisioner, 'post_launch', afail),
    'connection file': lambda: patch.object(ConKernelManager, 'write_connection_file', fail),
    'control socket': lambda: patch.object(ConKernelManager, '_connect_control_socket', fail),
    'client': lambda: patch.object(ConKernelManager, 'client', fail),
    'channels': lambda: patch.object(ConKernelClient, 'start_channels', fail),
    'connect': lambda: patch.object(ConKernelClient, 'connect_iopub', fail),
    'ready': lambda: patch.object(ConKernelClient, 'wait_for_ready', afail)}

async def start(manager):
    if how=='run_kernel':
        async with run_kernel(manager_class=manager): pass
    else:
        km = manager()
        if how=='kept': kept.append(km)
        await km.start_kernel()

kept = []
async def main():
    ConKernelManager().context.socket(zmq.DEALER).close()   # the ZMQ context is the process's, and stays
    before, files_before = len(os.listdir('/proc/self/fd')), files()
    ip = '/tmp/' + 'x'*110
    manager = (lambda **kwargs: ConKernelManager(transport='ipc', ip=ip, **kwargs)) if step=='long path' else ConKernelManager
    try:
        if step=='long path': await asyncio.wait_for(start(manager), 30)
        else:
            with PATCHES[step](): await asyncio.wait_for(start(manager), 30)
    except Exception as e: print('raised', type(e).__name__, e)
    else: print('raised nothing')
    gc.collect()
    for i in range(100):
        if not children(): break
        await asyncio.sleep(.05)
    print('processes', len(children()))
    print('files', len(set(files())-set(files_before)))
    print('descriptors', len(os.listdir('/proc/self/fd'))-before)
    kept.clear()
    gc.collect()
    print('collected')
    async with run_kernel() as (km, kc): print('works', (await kc.run('6*7')).text.strip())

asyncio.run(main())
print('end', flush=True)
'''

def facts(printed):
    "Lines of `name value`, as a dict"
    return dict(line.partition(' ')[::2] for line in printed.splitlines() if line)

def start_that_fails(step, how, tmp_path, monkeypatch):
    for name in 'JUPYTER_RUNTIME_DIR', 'TMPDIR':
        (tmp_path/name).mkdir()
        monkeypatch.setenv(name, str(tmp_path/name))
    return facts(program(FAILS, step, how, seconds=45))

@pytest.mark.parametrize('how', some(['run_kernel', 'manager'], ['kept']))
def test_report_08_a_path_that_is_too_long(how, tmp_path, monkeypatch):
    "Refused before the launch with the limit named, or shortened; nothing is left, nothing hangs"
    got = start_that_fails('long path', how, tmp_path, monkeypatch)
    assert got['raised']=='nothing' or re.search(r'\b10[0-9]\b', got['raised']) and not got['raised'].startswith('TimeoutError'), got
    if how=='kept' and got['raised']=='nothing': del got['processes'], got['files'], got['descriptors']   # it runs
    else: assert got['processes']==got['files']=='0' and int(got['descriptors'])<=2, got   # a loop's own
    assert got['works']=='42' and 'end' in got

STEPS = 'pre_launch', 'launch', 'launched', 'post_launch', 'connection file', 'control socket'

QUICK = [('launched', 'manager'), ('control socket', 'manager'), ('connection file', 'run_kernel'), ('ready', 'run_kernel')]
EACH = [(o, 'manager') for o in STEPS] + [(o, 'run_kernel') for o in (*STEPS, 'client', 'channels', 'connect', 'ready')]

@pytest.mark.parametrize('step, how', some(QUICK, [o for o in EACH if o not in QUICK]))
def test_report_08_a_start_that_fails_halfway(step, how, tmp_path, monkeypatch):
    "In each of its steps: the error of that step is raised, and nothing is left: no process, no file, no descriptor; the program goes on, and ends"
    got = start_that_fails(step, how, tmp_path, monkeypatch)
    assert got['raised']==f'Told {step}', got
    assert got['processes']==got['files']=='0' and int(got['descriptors'])<=2, got
    assert got['works']=='42' and 'end' in got


# --- 9: malformed in one place ---------------------------------------------------------------------------------------

def changed_header(i, field, value):
    "A spoiler for the header (2) or the parent's (3)"
    def spoil(wire, frames):
        at = frames.index(DELIM)
        parts = list(frames[at:])
        header = json.loads(parts[i])
        header.pop(field, None)
        parts[i] = json.dumps(header if value is ... else header|{field: value}).encode()
        parts[1] = wire.sign(parts[2:6])
        return [*frames[:at], *parts]
    return spoil

def spoilt(which, spoil):
    "A handler that spoils one of the messages for a cell"
    def how(name): return dict(mangle=spoil) if name==which else {}
    def handler(k, msg):
        k.busy(msg, **how('busy'))
        k.stream(msg, 'said', **how('stream'))
        k.reply(msg, **how('reply'))
        k.idle(msg, **how('idle'))
    return handler

HEADER = [('version', 5), ('version', None), ('version', ...), ('version', '7'), ('version', ''), ('version', 'x.y'), ('version', [5]), ('msg_id', ...), ('msg_id', None), ('msg_id', 7),
          ('date', ...), ('date', None), ('date', 7), ('date', 'yesterday'), ('session', ...), ('session', None), ('session', 7), ('username', ...), ('username', None)]

@pytest.mark.parametrize('which', ['reply', 'idle', 'busy', 'stream'])
@pytest.mark.parametrize('field, value', HEADER, ids=[f'{o}={"missing" if v is ... else v!r}' for o, v in HEADER])
async def test_report_09_a_header_that_is_malformed_in_one_place(field, value, which):
    "`execute` and `run` end alike, in bounded time; where all that is needed is there, the message is taken"
    async with fake(client=dict(grace=.4)) as (fk, kc):
        fk.on['execute_request'] = spoilt(which, changed_header(2, field, value))
        request = kc.request('execute_request', dict(code='x', silent=False, stop_on_error=False))
        begin = time.monotonic()
        ended = await outcome(request.wait(), 6)
        ran = await outcome(kc.run('x'), 6)
        executed = await outcome(kc.execute('x', reply=True), 6)
        fk.on.clear()
        assert 'TimeoutError' not in repr([ended, ran, executed]), f'not ended after 6 s: {[ended, ran, executed]}'
        kinds = [type(o) if isinstance(o, Exception) else 'ok' for o in (request.exception() or 'ok', ran, executed)]
        assert len(set(kinds))==1, f'they end differently: {kinds}'
        assert kinds[0]=='ok', kinds[0]
        assert ran.status=='ok' and ran.text=='said' and ran.complete, (ran, ran.complete)
        await unharmed(fk, kc)

@pytest.mark.parametrize('field, value', [('version', 5), ('msg_id', ...)], ids=['version', 'msg_id'])
async def test_report_09_run_ends_as_soon_as_execute(field, value):
    "With the usual grace times: `run` had not ended after twice the time"
    async with fake(on=dict(execute_request=spoilt('reply', changed_header(2, field, value)))) as (fk, kc):
        executed, took = await outcomes([kc.execute('x', reply=True)], 20)
        ran, ran_took = await outcomes([kc.run('x')], 20)
        assert type(ran[0]) is type(executed[0]) or isinstance(ran[0], Result) and isinstance(executed[0], dict), (ran, executed)
        assert took<kc.grace+SLACK and ran_took<took+2, (took, ran_took)

PARENT = [('version', 5), ('version', ...), ('msg_type', ...), ('msg_type', 7), ('date', None), ('date', 'yesterday'), ('session', ...), ('session', 'other'), ('username', 7)]

@pytest.mark.parametrize('which', ['reply', 'idle', 'stream'])
@pytest.mark.parametrize('field, value', PARENT, ids=[f'{o}={"missing" if v is ... else v!r}' for o, v in PARENT])
async def test_report_09_a_parent_that_is_malformed_in_one_place(field, value, which):
    "Only its `msg_id` is needed"
    async with fake(on=dict(execute_request=spoilt(which, changed_header(3, field, value))), client=dict(grace=.4)) as (fk, kc):
        ran, executed = await outcome(kc.run('x'), 6), await outcome(kc.execute('x', reply=True), 6)
        assert isinstance(ran, Result) and ran.complete and ran.text=='said' and isinstance(executed, dict), (ran, executed)
        fk.on.clear()
        await unharmed(fk, kc)

@pytest.mark.parametrize('which', ['reply', 'idle', 'busy', 'stream'])
@pytest.mark.parametrize('spoiler', ['bad_signature', 'broken_header', 'broken_json', 'headless', 'no_parent', 'listed_parent', 'null_content', 'too_few', 'empty'])
async def test_report_09_a_message_that_cannot_be_used(spoiler, which):
    "It is as if it had never come: `execute`, `run` and a request that is waited for end alike, in bounded time"
    async with fake(on=dict(execute_request=spoilt(which, spoiler)), client=dict(grace=.4)) as (fk, kc):
        req = kc.request('execute_request', dict(code='x', silent=False, stop_on_error=False))
        res = (await outcomes([req, kc.run('x'), kc.execute('x', reply=True)], 15))[0]
        kinds = [type(o) if isinstance(o, Exception) else 'ok' for o in res]
        assert kinds==[conkernelclient.NoReplyError if which=='reply' else 'ok']*3, res
        fk.on.clear()
        await unharmed(fk, kc)


@pytest.mark.parametrize('field, value', [('version', 5), ('version', None), ('msg_id', ...), ('date', 7), ('session', 7)], ids=str)
async def test_report_09_a_message_that_nobody_has_claimed(field, value):
    "It can be read all the same: of another client, and of a plain request"
    async with fake() as (fk, kc):
        with contextlib.suppress(Empty):
            while True: await kc.get_iopub_msg(timeout=0)
        spoil = changed_header(2, field, value)
        fk.publish(None, 'stream', dict(name='stdout', text='of another client'), parent={'msg_id': 'unknown'}, mangle=spoil)
        assert (await kc.get_iopub_msg(timeout=5))['content']['text']=='of another client'
        fk.on['execute_request'] = spoilt('stream', spoil)
        kc.execute('x')
        assert 'said' in [o['content'].get('text') for o in await kc.get_pubs()]
        fk.on['execute_request'] = spoilt('reply', spoil)
        kc.execute('x')
        fk.on.clear()
        while (await kc.get_shell_msg(timeout=5))['parent_header']['msg_id']!=fk.received[-1].msg_id: pass

@pytest.mark.parametrize('msg_id', [[], {}, ['a'], None, 7, 1.5, True], ids=repr)
async def test_report_09_a_parent_whose_id_is_none(msg_id, caplog):
    "Such a message answers nobody: it can be read, and nothing is logged"
    async with fake() as (fk, kc):
        with contextlib.suppress(Empty):
            while True: await kc.get_iopub_msg(timeout=0)
        fk.publish(None, 'stream', dict(name='stdout', text='said'), parent={'msg_id': msg_id})
        assert (await kc.get_iopub_msg(timeout=5))['content']['text']=='said'
        await unharmed(fk, kc)
        assert not [o for o in caplog.records if o.name=='conkernelclient' and o.levelname in ('ERROR', 'WARNING')]


# --- 10: outputs that come when their request is over ----------------------------------------------------------------

LATER = '''from IPython.display import display
import threading
handle, go = display('first', display_id=True), threading.Event()
def later():
    go.wait(20)
    handle.update('second')
threading.Thread(target=later).start()'''

async def until_shows(res, text, seconds=10):
    try: await until(lambda: text in res.text and text in repr(res.outputs), seconds)
    except TimeoutError: raise AssertionError(f'it shows {res.outputs}') from None

async def test_report_10_a_display_that_is_updated_after_its_cell():
    "By a thread, while nothing runs, while another cell runs, and while another client's does"
    async with run_kernel() as (km, kc):
        res = await soon(kc.run("from IPython.display import display\nimport threading\nh = display('first', display_id=True)\nthreading.Timer(.5, lambda: h.update('second')).start()"))
        await until_shows(res, 'second')
        res = await soon(kc.run(LATER))
        assert 'first' in res.text and res.complete
        await soon(kc.run('go.set()'))
        await until_shows(res, 'second')
        task = await soon(kc.run("import asyncio\nh = display('one', display_id=True)\nasync def later():\n    await asyncio.sleep(.3)\n    h.update('two')\ntask = asyncio.create_task(later())"))
        await until_shows(task, 'two')
        other = km.client()
        await other.start_channels()
        await soon(other.run("h.update('three')"))
        await until_shows(task, 'three')
        other.stop_channels()

PARENTS = {'its own': lambda k, msg, asked: msg.raw_header, 'nobody': lambda k, msg, asked: {}, 'unknown': lambda k, msg, asked: {'msg_id': 'unknown', 'msg_type': 'execute_request'},
           'a plain request': lambda k, msg, asked: {'msg_id': asked, 'msg_type': 'execute_request'}, 'a number': lambda k, msg, asked: {'msg_id': 7}}

@pytest.mark.parametrize('parent', PARENTS)
@pytest.mark.parametrize('kind', ['update_display_data', 'display_data'])
async def test_report_10_whoever_the_parent_is(parent, kind):
    "A display of the same id is shown where it was: in all finished results, and in those under way"
    def show(k, msg):
        k.busy(msg)
        k.publish(msg, 'display_data', dict(data={'text/plain': 'first'}, metadata={}, transient=dict(display_id='d')))
        k.reply(msg)
        k.idle(msg)
    events = []
    async with fake() as (fk, kc):
        fk.on['execute_request'] = show
        res, also = await soon(kc.run('x', on_output=events.append)), await soon(kc.run('y'))
        fk.on.clear()
        asked = kc.execute(HOLD) if parent=='a plain request' else None
        if asked: await soon(fk.until_held(1))
        msg = fk.received[-1] if parent!='its own' else next(o for o in fk.received if o.code=='x')
        fk.publish(msg, kind, dict(data={'text/plain': 'second'}, metadata={'m': 1}, transient=dict(display_id='d')), parent=PARENTS[parent](fk, msg, asked))
        await until_shows(res, 'second', 5)
        await until_shows(also, 'second', 5)
        assert res.outputs[0]['metadata']=={'m': 1} and len(res.outputs)==1
        if asked: fk.release()

async def test_report_10_a_display_of_a_kernel_that_is_gone_stays():
    "A restarted kernel gives ids anew: its displays are none of the old one's"
    def show(k, msg):
        k.busy(msg)
        k.publish(msg, 'display_data', dict(data={'text/plain': msg.code}, metadata={}, transient=dict(display_id='d')))
        k.reply(msg)
        k.idle(msg)
    async with managed(on=dict(execute_request=show)) as (km, kc, kernels):
        res = await soon(kc.run('first'))
        await soon(kc.restart())
        new = await soon(kc.run('second'))
        kernels[1].publish(None, 'update_display_data', dict(data={'text/plain': 'third'}, metadata={}, transient=dict(display_id='d')), parent={})
        await until_shows(new, 'third', 5)
        assert res.text=='first\n'

async def test_report_10_late_outputs_are_kept_and_counted():
    "By the spec *idle* is the end of a request: what comes for it later is for `get_iopub_msg`, and is counted"
    async with fake() as (fk, kc):
        res = await soon(kc.run('x'))
        while True:
            try: await kc.get_iopub_msg(timeout=0)
            except Empty: break
        msg = next(o for o in fk.received if o.code=='x')
        before = Counter(kc.router.stats)
        for i in range(3): fk.stream(msg, f'late {i}')
        late = [await kc.get_iopub_msg(timeout=5) for _ in range(3)]
        assert [o['content']['text'] for o in late]==['late 0', 'late 1', 'late 2']
        assert res.text=='x', 'it has ended'
        counted = Counter(kc.router.stats)-before
        assert counted.total()==3, counted

SHOWN = dict(data={'text/plain': 'first'}, metadata={}, transient=dict(display_id='d'))

def showing(k, msg):
    "A handler of a cell that shows a display"
    k.busy(msg)
    k.publish(msg, 'display_data', SHOWN)
    k.reply(msg)
    k.idle(msg)

async def test_report_10_a_result_counts_its_late_outputs():
    "`Result.late`: outputs only, neither a status nor the update of a display, which is applied"
    async with fake() as (fk, kc):
        fk.on['execute_request'] = showing
        res, other = await soon(kc.run('x')), await soon(kc.run('y'))
        fk.on.clear()
        msg = next(o for o in fk.received if o.code=='x')
        fk.idle(msg)
        for kind in 'display_data', 'update_display_data': fk.publish(msg, kind, SHOWN|dict(data={'text/plain': 'second'}))
        fk.publish(msg, 'error', ERROR)
        fk.stream(msg, 'late')
        await until_shows(res, 'second', 5)
        await until(lambda: res.late==3, what='three late outputs')
        assert res.complete and len(res.outputs)==1 and other.late==0
        assert pickle.loads(pickle.dumps(res)).late==3
        late = [o['msg_type'] for o in await kc.get_pubs()]
        assert [o for o in late if o!='status']==['display_data', 'update_display_data', 'error', 'stream'], 'they can be read'

async def test_report_10_what_comes_right_behind_idle():
    "In the same batch, when the request is over and its run does not know yet"
    def show(k, msg):
        showing(k, msg)
        k.publish(msg, 'update_display_data', SHOWN|dict(data={'text/plain': msg.code}))
        k.stream(msg, 'late')
    bad = []
    async with fake(on=dict(execute_request=show)) as (fk, kc):
        for i in range(30):
            res = await soon(kc.run(f'cell {i}'))
            await quiet(kc)
            def right():   # idle may overtake the reply: the stream then came in time
                return res.text.startswith(f'cell {i}\n') and (res.late, 'late' in res.text) in ((1, False), (0, True))
            try: await until(right, 2)
            except TimeoutError: bad.append((res.text, res.late))
    assert not bad, bad

async def test_report_10_a_run_under_way_hears_of_its_display():
    "It is updated by another client's cell: an event as for its own"
    events = []
    async with fake() as (fk, kc):
        def show(k, msg):
            k.busy(msg)
            k.publish(msg, 'display_data', SHOWN)
            held.append(msg)
        held = []
        fk.on['execute_request'] = show
        run = kc.run('x', on_output=events.append)
        await until(lambda: len(events)==1)
        fk.publish(None, 'update_display_data', SHOWN|dict(data={'text/plain': 'second'}), parent={'msg_id': 'of another client'})
        await until(lambda: len(events)==2)
        assert events[1].kind=='update' and events[1].index==0 and events[1].output['data']=={'text/plain': 'second'}
        fk.reply(held[0])
        fk.idle(held[0])
        assert (await soon(run)).text=='second\n' and len(events)==2

async def test_report_10_results_are_not_kept_alive():
    "Neither for their displays, nor to count what comes late; and what is kept of them is bounded"
    async with fake(on=dict(execute_request=showing)) as (fk, kc):
        kc.jobs.keep = 0     # (the table of jobs keeps the last ones, and is bounded)
        gone = []
        for i in range(20): gone.append(weakref.ref(await soon(kc.run(str(i)))))
        last = await soon(kc.run('last'))
        gc.collect()
        assert [o() for o in gone]==[None]*20
        for i in range(1100): kc.runs.follow(f'request {i}', last)
        assert len(kc.router.followed)<=1024
        first = next(o for o in fk.received if o.code=='0')
        fk.stream(first, 'late')     # of a result that nobody has any more
        fk.publish(first, 'display_data', SHOWN|dict(data={'text/plain': 'second'}))
        await until_shows(last, 'second', 5)
        assert kc.router.mailboxes['iopub'].nbytes>0, 'kept as frames, which are counted'

async def asked_by_request(kc, sh): return kc.request('execute_request', dict(code=HOLD, silent=False))
async def asked_by_hooked_request(kc, sh): return kc.request('execute_request', dict(code=HOLD, silent=False), on_iopub=lambda msg: None)
async def asked_by_read_request(kc, sh):
    req = await asked_by_request(kc, sh)
    assert req.iopub==[]     # from now on, its messages are parsed as they come
    return req
async def asked_by_execute(kc, sh): return kc.execute(HOLD, reply=True)
async def asked_interactively(kc, sh): return asyncio.ensure_future(kc.execute_interactive(HOLD, output_hook=lambda msg: None))
async def asked_by_run(kc, sh): return kc.run(HOLD)
async def asked_on_a_subshell(kc, sh): return sh.run(HOLD)

@pytest.mark.parametrize('session', [{}, dict(packer='json', unpacker='json')], ids=['usual', 'of its own packer'])
@pytest.mark.parametrize('ask', [asked_by_request, asked_by_hooked_request, asked_by_read_request, asked_by_execute, asked_interactively,
                                 asked_by_run, asked_on_a_subshell])
async def test_report_10_an_update_by_what_is_under_way(ask, session):
    "However it was asked: the finished result shows it, and all have theirs"
    async with fake(client=dict(session=ConSession(**session))) as (fk, kc):
        assert kc.session.parses_late==(not session)
        async with kc.subshell() as sh:
            fk.on['execute_request'] = showing
            res = await soon(kc.run('x'))
            fk.on.clear()
            asked = await ask(kc, sh)
            await soon(fk.until_held(1))
            msg = next(o for o in fk.received if o.code==HOLD)
            for i in range(3): fk.publish(msg, 'update_display_data', SHOWN|dict(data={'text/plain': f'update {i}'}))
            await until_shows(res, 'update 2', 5)
            fk.release()
            await soon(asked)
            assert (await soon(kc.run('later'))).text=='later'
        assert res.late==0 and res.text=='update 2\n'

async def test_report_10_a_forged_display_changes_nothing():
    async with fake(on=dict(execute_request=showing)) as (fk, kc):
        res = await soon(kc.run('x'))
        before = kc.router.stats['malformed']
        for parent in {}, {'msg_id': 'unknown'}, fk.received[-1].raw_header:
            fk.publish(fk.received[-1], 'update_display_data', SHOWN|dict(data={'text/plain': 'forged'}), parent=parent, mangle='bad_signature')
        await until(lambda: kc.router.stats['malformed']==before+3)
        assert res.text=='first\n' and res.late==0

async def test_report_10_late_outputs_of_a_thread():
    "The same with a real kernel: a thread that prints after its cell"
    async with run_kernel() as (km, kc):
        res = await soon(kc.run("import threading\ngo = threading.Event()\ndef later():\n    go.wait(20)\n    print('late', flush=True)\nt = threading.Thread(target=later)\nt.start()"))
        assert res.complete
        before = Counter(kc.router.stats)
        nxt = await soon(kc.run('go.set()\nt.join()'))
        async def read():
            while 'late' not in str((await kc.get_iopub_msg(timeout=5))['content'].get('text')): pass
        if 'late' not in nxt.text:     # ipykernel sends it with the thread's own parent
            await read()
            assert (Counter(kc.router.stats)-before).total()>=1


# --- 11: limits of the system ----------------------------------------------------------------------------------------

FULL = '''
import asyncio, contextlib, gc, os, re, resource, sys, tempfile
from pathlib import Path
from conkernelclient import *
from fake_kernel import FakeKernel, kernel_specs

what = sys.argv[1]
def fds(): return len(os.listdir('/proc/self/fd'))
def children():
    found = 0
    for o in Path('/proc').glob('[0-9]*/stat'):
        try: state, parent = o.read_text().rpartition(')')[2].split()[:2]
        except OSError: continue
        found += int(parent)==os.getpid() and state not in 'ZX'
    return found

async def kernels(folder):
    spec = kernel_specs(folder).get_kernel_spec('fake')
    print('before', fds())
    async with contextlib.AsyncExitStack() as stack:
        there = []
        try:
            while len(there)<60: there.append(await asyncio.wait_for(stack.enter_async_context(run_kernel(kernel_spec=spec)), 40))
        except Exception as e: print('raised', type(e).__name__, ' '.join(str(e).split()), '|', type(e.__cause__).__name__)
        await settle(lambda: children()==len(there))
        print('kernels', len(there))
        print('processes', children())
        print('answer', sum([(await asyncio.wait_for(kc.run('x'), 10)).text=='x' for _, kc in there]))
        there.clear()
    await settle(lambda: not children())
    gc.collect()
    print('left', children())
    print('after', fds())
    async with run_kernel(kernel_spec=spec) as (km, kc): print('works', (await kc.run('x')).text)

async def settle(test):
    for i in range(100):
        if test(): break
        await asyncio.sleep(.05)

async def clients(folder):
    fk = FakeKernel().start()
    print('before', fds())
    there, at = [], 0
    try:
        while len(there)<100:
            at = fds()
            kc = fk.client(ConKernelClient)
            kc.start_channels()
            there.append(kc)
            await kc.wait_for_ready(timeout=10)
    except Exception as e: print('raised', type(e).__name__, ' '.join(str(e).split()))
    if there and there[-1] is kc and kc.status!='ready': there.pop()
    kc.stop_channels()
    del kc
    gc.collect()
    await settle(lambda: fds()<=at)
    print('kernels', len(there))
    print('open', fds()-at)
    print('answer', sum([(await asyncio.wait_for(kc.run('x'), 10)).text=='x' for kc in there]))
    for kc in there: kc.stop_channels()
    there.clear()
    gc.collect()
    await settle(lambda: not fds()-60>0)
    print('after', fds())
    kc = fk.client(ConKernelClient)
    await kc.start_channels()
    print('works', (await kc.run('x')).text)
    kc.stop_channels()
    fk.close()

async def restart(folder):
    spec = kernel_specs(folder).get_kernel_spec('fake')
    async with run_kernel(kernel_spec=spec) as (km, kc):
        hoard = []
        try:
            while True: hoard.append(open('/dev/null'))
        except OSError: pass
        try: await asyncio.wait_for(kc.restart(timeout=10), 30)
        except BaseException as e: print('raised', type(e).__name__, ' '.join(str(e).split()))
        for o in hoard: o.close()
        await asyncio.wait_for(kc.restart(), 30)
        print('works', (await asyncio.wait_for(kc.run('x'), 10)).text)
    print('left', children())

async def main():
    with tempfile.TemporaryDirectory() as folder: await globals()[what](folder)

limit = 200
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
asyncio.run(main())
print('end', flush=True)
'''

def says_the_limit(said):
    "How many fit, and how to raise it"
    return re.search(r'\d+ (kernels|clients)|(kernels|clients)\D{0,30}\d+', said) and re.search('ulimit|RLIMIT_NOFILE|setrlimit', said)

@pytest.mark.parametrize('what', ['kernels', 'clients'])
def test_report_11_no_more_descriptors(what):
    "The error says how many fit, and how to raise the limit; nothing half-open is left, and those that are there go on"
    got = facts(program(FULL, what, seconds=120))
    figure(f'{what} that fit into 200 descriptors', int(got['kernels']))
    assert int(got['kernels'])>2 and got['answer']==got['kernels'], got
    assert says_the_limit(got['raised']), got
    if what=='kernels': assert got['processes']==got['kernels'] and got['left']=='0', got
    else: assert int(got['open'])<=0, got
    assert int(got['after'])<=int(got['before'])+5 and got['works']=='x' and 'end' in got, got

def test_report_11_no_more_descriptors_at_a_restart():
    "It fails in bounded time, with the reason; when there are descriptors again, the next restart works with the same client"
    got = facts(program(FULL, 'restart', seconds=100))
    assert got['works']=='x' and got['left']=='0' and 'end' in got, got
    assert re.search('descriptors|open files|ulimit', got.get('raised', 'ulimit')), got


# --- 12: what JupyterLab always sends --------------------------------------------------------------------------------

@pytest.mark.parametrize('how', ['run', 'input', 'execute_interactive'])
async def test_report_12_an_answer_has_a_status(how):
    "async-kernel reads it: `KeyError: 'status'`"
    async with fake() as (fk, kc):
        code = 'fake: busy input=name? answer reply idle'
        if how=='run': assert (await soon(kc.run(code, stdin='me'))).text=='me'
        if how=='execute_interactive': await soon(kc.execute_interactive(code, output_hook=lambda msg: None, stdin_hook=lambda msg: kc.input('me')))
        if how=='input':
            req = kc.execute(code, allow_stdin=True, reply=True)
            kc.input('me', parent=await kc.get_stdin_msg(timeout=SOON))
            await soon(req)
        said, = [o for o in fk.received if o.channel=='stdin']
        assert said['content']==dict(value='me', status='ok') and said.msg_type=='input_reply'
        assert said['parent_header']['msg_type']=='input_request'

# What JupyterLab 4 puts into the content of each request (packages/services/src/kernel)
ALWAYS = dict(execute_request={'code', 'silent', 'store_history', 'user_expressions', 'allow_stdin', 'stop_on_error'}, complete_request={'code', 'cursor_pos'},
              inspect_request={'code', 'cursor_pos', 'detail_level'}, history_request={'output', 'raw', 'hist_access_type', 'session', 'start'},
              is_complete_request={'code'}, comm_info_request=set(), kernel_info_request=set(), interrupt_request=set(), shutdown_request={'restart'},
              create_subshell_request=set(), delete_subshell_request={'subshell_id'}, input_reply={'value', 'status'})
HEADERS = {'msg_id', 'msg_type', 'session', 'username', 'version', 'date'}

async def test_report_12_our_messages_lack_nothing():
    "Of each kind that the client sends: content, header and metadata as JupyterLab sends them"
    async with fake() as (fk, kc):
        await soon(kc.run('fake: busy input=name? answer reply idle', stdin='me'))
        await soon(kc.execute('x', reply=True))
        await soon(kc.execute_interactive('x', output_hook=lambda msg: None))
        await outcome(kc.eval('1'))
        await soon(kc.push(x=1))
        for ask in (lambda: kc.complete('x', reply=True), lambda: kc.inspect('x', reply=True), lambda: kc.history(reply=True), lambda: kc.is_complete('x', reply=True),
                    lambda: kc.comm_info(reply=True), lambda: kc.kernel_info(reply=True)): await soon(ask())
        async with kc.subshell() as sh: await soon(sh.run('x'))
        await soon(kc.interrupt())
        await quiet(kc)
        await soon(kc.shutdown(reply=True))
        bad = []
        for msg in fk.received:
            lacks = (ALWAYS[msg.msg_type]-msg['content'].keys())|(HEADERS-msg['header'].keys())
            if lacks: bad.append(f'{msg.msg_type} lacks {lacks}')
            if type(msg['metadata']) is not dict or type(msg['parent_header']) is not dict: bad.append(f'{msg.msg_type}: {msg}')
        assert {o.msg_type for o in fk.received}>=ALWAYS.keys()
        assert not bad, sorted(set(bad))


# --- and from a review of the code -----------------------------------------------------------------------------------

WAYS = ['well', 'iopub flaps', 'outputs lost', 'no idle', 'no reply', 'reply twice', 'idle first']

@pytest.mark.parametrize('how', WAYS)
async def test_report_13_a_result_is_complete_where_its_request_is(how):
    "`Result.complete` says that nothing is missing; it must not where an output may have been lost"
    script = {'no idle': 'fake: busy echo stream=begun hold reply', 'no reply': 'fake: busy echo stream=begun hold idle',
              'reply twice': 'fake: busy echo stream=begun hold reply reply idle', 'idle first': 'fake: busy echo stream=begun hold idle reply'}.get(how, HOLD)
    async with fake(client=dict(grace=.3)) as (fk, kc):
        run = kc.run(script)
        await until_running(run)
        await soon(fk.until_held(1))
        if how=='iopub flaps':
            await Iopub(fk).lose(kc)
            await Iopub(fk).find(kc)
        if how=='outputs lost': kc.connection.lost_output('as told')
        fk.release()
        got = await outcome(run, 10)
        res = got.result if isinstance(got, Exception) else got
        await soon(run.request.wait())
        await until(lambda: run.request.ended)
        assert res.complete==run.request.complete==(how in ('well', 'reply twice', 'idle first')), (how, res.complete, run.request)

async def test_report_13_a_result_of_a_lost_connection_with_a_real_kernel():
    "`complete` is False in what an exception carries, too"
    async with run_kernel() as (km, kc):
        run = kc.run("print('begun', flush=True)\nimport time\ntime.sleep(60)")
        await until(lambda: run.partial.text=='begun\n')
        await km.provisioner.kill()
        got = await outcome(run)
        assert isinstance(got, DeadKernelError) and got.result.text=='begun\n' and got.result.complete is False


# --- 14: found on other kernels --------------------------------------------------------------------------------------

async def test_report_14_a_reply_that_comes_after_the_fence():
    "A kernel may answer `kernel_info` at any time (ipymini does): that answer, and *idle*, do not mean that the reply of an interrupted cell is lost"
    def cell(k, msg):
        if 'long' not in msg.code: return k.execute(msg)
        k.busy(msg)
        k.echo_input(msg)
        cells.append(msg)      # its shell is free for other requests
    def interrupt(k, msg):
        k.busy(msg)
        k.reply(msg)
        k.idle(msg)
        said = dict(ename='KeyboardInterrupt', evalue='', traceback=['KeyboardInterrupt'])
        over = cells.pop()
        k.publish(over, 'error', said)
        k.idle(over)
        k.after(.1, lambda: k.reply(over, 'error', **said))
    cells, tries, lost = [], 5, []
    async with fake(on=dict(execute_request=cell, interrupt_request=interrupt)) as (fk, kc):
        for i in range(tries):
            run = kc.run(f'long {i}')
            await until_running(run)
            assert await soon(run.interrupt()) is True
            res = await soon(run)
            if res.status!='error' or res.error.ename!='KeyboardInterrupt': lost.append(res)
            assert (await soon(kc.run('later'))).text=='later'
    figure(f'replies that were taken for lost, of {tries}', len(lost))
    assert not lost, lost

async def test_report_14_a_cell_that_runs_on_beside_the_fence():
    "Such a kernel answers the fence while the cell runs on, as the interrupt changed nothing: the cell is not lost, however long it takes"
    cells, behind = [], []
    def cell(k, msg):
        if cells: return behind.append(msg)    # one cell after the other
        if msg.code!='long': return k.execute(msg)
        k.busy(msg)
        k.echo_input(msg)
        cells.append(msg)
    def over(k):
        msg = cells.pop()
        k.stream(msg, 'done')
        k.reply(msg)
        k.idle(msg)
        for o in behind: k.execute(o)
    on = dict(execute_request=cell, interrupt_request='busy reply idle')
    async with fake(on=on) as (fk, kc):
        kc.grace = .2
        run = kc.run('long')
        await until_running(run)
        assert await soon(run.interrupt()) is True
        await soon(fk.until(lambda: behind))    # the fence that executes nothing
        await asyncio.sleep(1)
        assert not run.done(), run
        over(fk)
        assert (await soon(run)).text=='done'
        assert (await soon(kc.run('later'))).text=='later'
