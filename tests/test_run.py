"""Runs in hard orders: lanes, cancellation, time limits, prompts and subshells, on a kernel that does as it is told.

What must *not* be sent is shown by what comes after it: messages of one socket keep their order, so when a later
request has been received, all that was sent before has been seen. Sleeps only give a mistake the time to happen.
"""
import asyncio, gc, inspect, io, random, signal, sys, time, types, weakref
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import conkernelclient
from conkernelclient import ConKernelClient, run_kernel
from conkernelclient.cells.outputs import ExecutionError, ExecutionTimeout
from conkernelclient import ClientClosedError, DeadKernelError, KernelRestartedError, NoReplyError
from conkernelclient import Run, UnsupportedFeature

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel
from fault_tools import quiet

SOON = 20  # seconds: far more than anything here takes

pytestmark = pytest.mark.filterwarnings('error')


@asynccontextmanager
async def connected(fk, interrupt_timeout=None, **kwargs):
    "A client of `fk` that knows no manager: it interrupts by message."
    kc = fk.client(ConKernelClient, **kwargs)
    if interrupt_timeout is not None: kc.interrupt_timeout = interrupt_timeout
    await asyncio.wait_for(_ready(kc), SOON)
    try: yield kc
    finally: kc.stop_channels()

async def _ready(kc): await kc.start_channels()


@asynccontextmanager
async def fake(on=None, kc_args=None, **kwargs):
    with FakeKernel(on=on, **kwargs) as fk:
        async with connected(fk, **(kc_args or {})) as kc: yield fk, kc


def soon(awaitable): return asyncio.wait_for(awaitable, SOON)

async def until(predicate, what='what was waited for'):
    async with asyncio.timeout(SOON):
        while not predicate(): await asyncio.sleep(.001)

async def until_state(run, state): await until(lambda: run.state == state, f'{run} to be {state}')

async def outcome(run):
    try: return await soon(run)
    except (Exception, asyncio.CancelledError) as e: return e


# --- the lane ------------------------------------------------------------------------------------------------------

async def test_one_at_a_time_and_an_error_aborts_nobody():
    async with fake() as (fk, kc):
        runs = [kc.run('a'), kc.run('fake: busy echo error=Bad idle'), kc.run('b'), kc.run('c')]
        a, bad, b, c = await soon(asyncio.gather(*runs))
        assert [o.status for o in (a, bad, b, c)] == ['ok', 'error', 'ok', 'ok']
        assert (a.text, b.text, c.text) == ('a', 'b', 'c') and bad.error.ename == 'Bad'
        assert not any(o['content']['stop_on_error'] for o in fk.received if o.msg_type == 'execute_request')
        assert kc.queue == [] and not kc.router.table


async def test_nothing_is_sent_before_the_one_before_is_replied():
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        runs = [kc.run(o) for o in 'abc']
        for i in range(3):
            await fk.until_held(1)
            await quiet(kc, 'control')
            assert fk.codes == list('abc')[:i+1]
            assert [o.state for o in kc.queue][1:] == ['queued'] * (2-i)
            fk.release()
        await soon(asyncio.gather(*runs))


async def test_a_cancelled_queued_run_is_never_sent():
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        a, b, c = (kc.run(o) for o in 'abc')
        await fk.until_held(1)
        assert b.cancel() and b.cancelled() and not b.cancel()
        fk.release()
        await fk.until_held(1)
        fk.release()
        await soon(asyncio.gather(a, c))
        assert fk.codes == ['a', 'c'] and not fk.got('interrupt_request')


async def test_a_storm_of_cancels():
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        first, *rest = (kc.run(str(i)) for i in range(10_000))
        await fk.until_held(1)
        random.Random(1).shuffle(rest)
        for o in rest[:-1]: o.cancel()
        assert len(kc.queue) == 2
        fk.release()
        await fk.until_held(1)
        fk.release()
        await soon(asyncio.gather(first, rest[-1]))
        assert fk.codes == ['0', rest[-1].content['code']]


async def test_a_run_in_the_clients_window_is_withdrawn():
    async with fake({'execute_request': 'busy hold reply idle'}, dict(window=1)) as (fk, kc):
        first = kc.execute('first', reply=True)
        await fk.until_held(1)
        run, following = kc.run('never'), kc.run('next')
        assert run.state == 'sent' and run.cancel()
        assert isinstance(await outcome(run), asyncio.CancelledError) and kc.queue == [following]
        fk.on.clear()
        fk.release()
        await soon(first)
        assert (await soon(following)).text == 'next' and fk.codes == ['first', 'next']


async def test_ten_thousand_that_cannot_be_sent(monkeypatch):
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        runs = [kc.run(str(i)) for i in range(10_000)]
        await fk.until_held(1)
        def fail(*args, **kwargs): raise RuntimeError('not connected')
        monkeypatch.setattr(kc.connection, 'request', fail)
        fk.release()
        await soon(runs[0])
        assert {str(await outcome(o)) for o in runs[1:]} == {'not connected'} and kc.queue == []


async def test_everything_a_future_and_a_coroutine_can_do():
    async with fake() as (fk, kc):
        run = kc.run('x')
        async with asyncio.TaskGroup() as tg: tasks = [tg.create_task(run), tg.create_task(kc.run('y'))]
        assert [o.result().text for o in tasks] == ['x', 'y']
        assert await run is await run is run.result() is tasks[0].result()
        assert (await asyncio.wait_for(kc.run('z'), SOON)).text == 'z'
        assert (await asyncio.shield(kc.run('s'))).text == 's'
        assert [(await o).text for o in asyncio.as_completed([kc.run('c')])] == ['c']


async def test_runs_that_nobody_awaits_are_run_and_leave_nothing():
    async with fake() as (fk, kc):
        kc.jobs.keep = 0    # else the table of jobs has them
        refs = [weakref.ref(kc.run(str(i)).partial) for i in range(20)]
        await soon(kc.run('last'))
        assert fk.codes == [*map(str, range(20)), 'last']
        gc.collect()
        assert not any(o() for o in refs) and not kc.queue and not kc.router.table


async def test_a_run_is_freed_without_the_collector():
    async with fake() as (fk, kc):
        kc.jobs.keep = 0
        await soon(kc.run('warm up'))
        gc.disable()
        try:
            ref = weakref.ref(await soon(kc.run('x', stdin=['a'], on_output=lambda e: None)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ref() is None
        finally: gc.enable()


async def test_wrong_arguments_are_told_at_the_call():
    async with fake() as (fk, kc):
        with pytest.raises(ValueError): kc.run(3)
        assert kc.queue == []
    with pytest.raises(ClientClosedError): kc.run('x')


def test_the_names_and_arguments_that_callers_rely_on():
    names = {}
    exec('from conkernelclient import *', names)
    for o in 'run_kernel Result ExecutionError ExecutionTimeout DeadKernelError KernelRestartedError UnsupportedFeature'.split():
        assert names[o] is getattr(conkernelclient, o)
    assert issubclass(ExecutionTimeout, TimeoutError) and issubclass(KernelRestartedError, DeadKernelError)
    first, code, *rest = inspect.signature(ConKernelClient.run).parameters.values()
    want = dict(timeout=None, queue_timeout=None, check=False, stdin=None, on_output=None, silent=False, store_history=True,
                user_expressions=None, metadata=None, buffers=None, display=False, on_comm=None, tools=None)
    assert code.name == 'code' and {o.kind for o in rest} == {inspect.Parameter.KEYWORD_ONLY}
    assert {o.name: o.default for o in rest if o.name != 'subshell_id'} == want


async def test_what_is_asked_is_what_is_sent():
    async with fake() as (fk, kc):
        await soon(kc.run('a', silent=True, user_expressions={'x': '1'}, metadata={'m': 1}))
        await soon(kc.run('b', store_history=False))
        a, b = (o for o in fk.received if o.msg_type == 'execute_request')
        assert a['content'] == dict(code='a', silent=True, store_history=False, user_expressions={'x': '1'}, allow_stdin=False, stop_on_error=False)
        assert a['metadata'] == {'m': 1} and b['content']['store_history'] is False and b['content']['silent'] is False


# --- the end of a run, in odd orders --------------------------------------------------------------------------------

async def test_outputs_after_the_reply_belong_to_the_run():
    async with fake() as (fk, kc):
        res = await soon(kc.run('fake: busy echo reply stream=late idle'))
        assert res.text == 'late' and res.complete
        assert (await soon(kc.run('fake: busy stream=a idle reply'))).complete


async def test_the_next_is_sent_at_the_reply_already():
    async with fake() as (fk, kc):
        first, second = kc.run('fake: busy reply hold stream=late idle'), kc.run('second')
        await fk.until_held(1)
        await quiet(kc, 'control')
        assert not first.done()
        fk.sequential = True
        fk.release()
        assert (await soon(first)).text == 'late' and (await soon(second)).text == 'second'


async def test_no_idle_no_reply():
    async with fake(kc_args=dict(grace=.1)) as (fk, kc):
        no_idle, no_reply, fine = kc.run('fake: busy stream=x reply'), kc.run('fake: busy stream=y idle'), kc.run('z')
        assert not (await soon(no_idle)).complete and no_idle.result().text == 'x'
        e = await outcome(no_reply)
        assert isinstance(e, NoReplyError) and e.result.text == 'y'
        assert (await soon(fine)).text == 'z'


async def test_a_reply_that_makes_no_sense_harms_nobody():
    def odd(k, msg):
        if msg.code != 'odd': return 'busy echo stream reply idle'
        k.busy(msg)
        k.reply(msg, payload=[1])
        k.idle(msg)
    async with fake({'execute_request': odd}) as (fk, kc):
        run, following = kc.run('odd'), kc.run('next')
        res = await soon(run)
        assert (res.status, res.text, res.complete) == ('ok', '', True)   # a payload that is none is ignored
        assert (await soon(following)).text == 'next' and kc.queue == []


async def test_check():
    async with fake() as (fk, kc):
        with pytest.raises(ExecutionError, match='Bad') as e: await soon(kc.run('fake: busy stream=x error=Bad idle', check=True))
        assert e.value.result.stdout == 'x'
        with pytest.raises(ExecutionError): await soon(kc.run('fake: busy abort idle', check=True))
        assert (await soon(kc.run('fine', check=True))).status == 'ok'


# --- death ----------------------------------------------------------------------------------------------------------

async def test_a_dead_kernel_fails_all_runs_with_what_they_had():
    async with fake(kc_args=dict(lost_after=.1)) as (fk, kc):
        first, *rest = [kc.run('fake: busy stream=some hold'), *map(kc.run, 'abc')]
        await fk.until_held(1)
        await until(lambda: first.partial.text)
        fk.crash()
        for o in (first, *rest):
            e = await outcome(o)
            assert type(e) is DeadKernelError and e.result is o.partial
        assert first.partial.text == 'some' and kc.queue == []
        assert isinstance(await outcome(kc.run('after')), DeadKernelError) and kc.queue == []


async def test_death_in_the_middle_of_an_interrupt():
    async with fake({'interrupt_request': 'crash'}, dict(lost_after=.1)) as (fk, kc):
        run, timed, queued = kc.run('fake: busy echo hold'), kc.run('fake: busy hold', timeout=9), kc.run('x')
        await until_state(run, 'running')
        run.cancel()
        assert isinstance(await outcome(run), asyncio.CancelledError)
        assert isinstance(await outcome(timed), DeadKernelError) and isinstance(await outcome(queued), DeadKernelError)
        assert kc.queue == []


async def test_closing_fails_all_runs():
    async with fake() as (fk, kc):
        runs = [kc.run('fake: busy echo hold'), kc.run('a'), kc.run('fake: busy hold', timeout=5)]
        await until_state(runs[0], 'running')
        runs[0].cancel()
        asks = kc.run('b', on_output=lambda e: None)
        kc.stop_channels()
        got = [await outcome(o) for o in (*runs, asks)]
        assert [type(o) for o in got] == [asyncio.CancelledError, ClientClosedError, ClientClosedError, ClientClosedError]


# --- stopping -------------------------------------------------------------------------------------------------------

HOLD = 'fake: busy echo stream=begun hold reply idle'

async def test_cancel_interrupts_waits_and_gives_what_there_is():
    async with fake() as (fk, kc):
        run, following = kc.run(HOLD), kc.run('next')
        await until_state(run, 'running')
        assert run.cancel() and not run.done()
        e = await outcome(run)
        assert isinstance(e, asyncio.CancelledError) and e.result is run.partial and e.result.error.ename == 'KeyboardInterrupt'
        assert e.result.stdout == 'begun' and e.result.complete and run.cancelled() and not run.cancel()
        assert (await soon(following)).status == 'ok' and fk.got('interrupt_request') == 1
        with pytest.raises(asyncio.CancelledError) as again: await run
        assert again.value.result is run.partial


async def test_cancelling_tasks_and_timeouts_cancel_the_run():
    async with fake() as (fk, kc):
        with pytest.raises(TimeoutError) as e: await asyncio.wait_for(kc.run(HOLD), .1)
        assert e.value.__cause__.result.error.ename == 'KeyboardInterrupt'
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(.1): await kc.run(HOLD)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tg:
                tg.create_task(kc.run(HOLD))
                tg.create_task(kc.run('x', queue_timeout=.1))
        both = asyncio.gather(kc.run(HOLD), kc.run('never'))
        await until_state(kc.queue[0], 'running')
        both.cancel()
        with pytest.raises(asyncio.CancelledError): await soon(both)
        assert (await soon(kc.run('next'))).text == 'next' and 'never' not in fk.codes
        assert fk.got('interrupt_request') == 4 and kc.queue == []


async def test_no_interrupt_for_a_run_that_ends_by_itself():
    async with fake() as (fk, kc):
        run = kc.run(HOLD)
        await until_state(run, 'running')
        await fk.until_held(1)
        run.cancel()
        fk.release()
        assert isinstance(await outcome(run), asyncio.CancelledError) and run.partial.status == 'ok'
        assert (await soon(kc.run('next'))).status == 'ok' and not fk.got('interrupt_request')


def late_interrupt(k, msg):
    "The running cell ends just before the interrupt takes effect, which then hits whatever comes next."
    main = k._lanes[None]
    if main.run:
        running = main.msg
        k.release([running])
        k.pending = True
    k.reply(msg)

def fragile(script):
    "What `script` does, unless an interrupt is pending: then it is hit"
    def handle(k, msg):
        if not getattr(k, 'pending', False): return msg.code.removeprefix('fake:') if msg.code.startswith('fake:') else script
        k.pending, k.hit = False, msg.msg_type
        k.busy(msg)
        k.idle(msg)     # as ipykernel: no reply
    return handle

async def test_an_interrupt_that_comes_late_hits_the_fence_and_no_run():
    on = {'interrupt_request': late_interrupt, 'execute_request': fragile('busy echo stream reply idle'),
          'kernel_info_request': fragile('busy reply idle')}
    async with fake(on, dict(grace=60)) as (fk, kc):
        for i in range(20):
            victim, following = kc.run(HOLD), kc.run(f'next {i}')
            await until_state(victim, 'running')
            victim.cancel()
            assert isinstance(await outcome(victim), asyncio.CancelledError)
            assert (await soon(following)).status == 'ok' and fk.hit == 'kernel_info_request'
        assert fk.got('interrupt_request') == 20 and kc.queue == []


async def test_the_lane_waits_for_the_fence():
    async with fake() as (fk, kc):
        fk.on['kernel_info_request'] = lambda k, msg: 'busy reply idle' if msg.channel == 'control' else 'hold busy reply idle'
        run, following = kc.run(HOLD), kc.run('next')
        await until_state(run, 'running')
        await fk.until_held(1)
        run.cancel()
        await until(lambda: [o.msg_type for o in fk.held] == ['kernel_info_request'])
        assert isinstance(await outcome(run), asyncio.CancelledError)
        await quiet(kc, 'control')
        assert 'next' not in fk.codes and following.state == 'queued'
        fk.release()
        assert (await soon(following)).text == 'next'


@pytest.mark.parametrize('after', ['idle', ''])
async def test_an_interrupt_that_loses_the_reply(after):
    "With or without idle, the fence shows that the cell is over."
    def lose(k, msg):
        main = k._lanes[None]
        lost, run = main.msg, main.run
        k._leave(main)
        run.close()
        k._held.clear()
        if after: k.idle(lost)
        k.reply(msg)
    async with fake({'interrupt_request': lose}, dict(grace=60 if after else .2)) as (fk, kc):
        run, following = kc.run(HOLD), kc.run('next')
        await until_state(run, 'running')
        run.cancel()
        e = await outcome(run)
        assert isinstance(e, asyncio.CancelledError) and e.result.status is None and e.result.stdout == 'begun'
        assert (await soon(following)).text == 'next'
        run = kc.run(HOLD)
        await until_state(run, 'running')
        assert await soon(run.interrupt()) is True
        assert (await soon(run)).status is None       # interrupted, not cancelled: a result, as far as it goes


async def test_a_kernel_that_ignores_interrupts():
    async with fake(kc_args=dict(interrupt_timeout=.6), interrupts=False) as (fk, kc):
        run, queued = kc.run(HOLD, timeout=.05), kc.run('next')
        await fk.until_held(1)
        e = await outcome(run)
        assert isinstance(e, ExecutionTimeout) and isinstance(e, TimeoutError) and e.result.stdout == 'begun'
        assert 'ignored the interrupt' in str(e) and fk.got('interrupt_request') == 2
        assert kc.queue == [run, queued] and 'ignored' in repr(run) and queued.state == 'queued'
        assert fk.codes == [HOLD]
        fk.release()
        assert (await soon(queued)).text == 'next' and kc.queue == []


async def test_nobody_elses_cell_is_interrupted():
    "Another client's cell is running: ours was sent, but has not begun."
    async with fake() as (fk, kc):
        async with connected(fk) as other:
            theirs = other.run(HOLD)
            await until_state(theirs, 'running')
            await fk.until_held(1)
            a, b, c = kc.run(HOLD), kc.run('b'), kc.run('c', queue_timeout=.1)
            a.cancel()
            assert isinstance(await outcome(a), asyncio.CancelledError)      # at once, for there is nothing to stop
            assert isinstance(await outcome(c), ExecutionTimeout)
            assert not fk.got('interrupt_request') and not theirs.done()
            fk.release([next(o for o in fk.held if o.code == HOLD)])
            assert (await soon(theirs)).status == 'ok'
            assert (await soon(b)).text == 'b' and fk.got('interrupt_request') == 1    # for a, when its turn had come
            assert a.partial.error.ename == 'KeyboardInterrupt' and 'c' not in fk.codes


async def test_queue_timeout_of_a_run_that_is_sent_but_not_begun():
    async with fake() as (fk, kc):
        async with connected(fk) as other:
            theirs = other.run(HOLD)
            await until_state(theirs, 'running')
            await fk.until_held(1)
            ours = kc.run(HOLD, queue_timeout=.1)
            e = await outcome(ours)
            assert isinstance(e, ExecutionTimeout) and 'begin' in str(e) and not fk.got('interrupt_request')
            fk.release()
            assert (await soon(theirs)).status == 'ok'
            assert (await soon(kc.run('next'))).text == 'next' and ours.partial.error.ename == 'KeyboardInterrupt'


async def test_timeout_counts_from_busy():
    async with fake({'execute_request': lambda k, msg: msg.code}) as (fk, kc):
        first, second = kc.run('busy hold reply idle'), kc.run('hold busy reply idle', timeout=.2)
        await fk.until_held(1)
        await asyncio.sleep(.3)
        fk.release()
        await soon(first)
        await fk.until_held(1)      # sent, and still not begun
        await asyncio.sleep(.3)
        fk.release()
        assert (await soon(second)).status == 'ok' and not fk.got('interrupt_request')


async def test_interrupt_and_cancel_at_once_interrupt_once():
    async with fake() as (fk, kc):
        run = kc.run(HOLD)
        await until_state(run, 'running')
        stopped = run.interrupt(), run.interrupt()
        run.cancel()
        assert isinstance(await outcome(run), asyncio.CancelledError)
        await soon(asyncio.gather(*stopped))
        assert (await soon(kc.run('next'))).text == 'next' and fk.got('interrupt_request') == 1


async def test_an_interrupt_that_is_answered_late_is_fenced_again():
    "The kernel takes the message only after the cell has ended by itself, and a first fence has passed."
    def late(k, msg):
        yield k.hold(msg)
        k.pending = True
        k.reply(msg)
    on = {'interrupt_request': late, 'execute_request': fragile('busy echo stream reply idle'),
          'kernel_info_request': fragile('busy reply idle')}
    async with fake(on, dict(grace=60)) as (fk, kc):
        victim, following = kc.run(HOLD), kc.run('next')
        await until_state(victim, 'running')
        victim.cancel()
        await fk.until_held(2)      # the cell, and the interrupt
        fences = fk.got('kernel_info_request')
        fk.release([o for o in fk.held if o.code])
        assert isinstance(await outcome(victim), asyncio.CancelledError) and victim.partial.status == 'ok'
        await fk.until_received(fences+1, msg_type='kernel_info_request')
        await quiet(kc)
        assert 'next' not in fk.codes and 'interrupt' in repr(following.shell)
        fk.release()
        assert (await soon(following)).text == 'next' and fk.hit == 'kernel_info_request'


async def test_a_kernel_that_never_answers_interrupts_is_not_waited_for():
    async with fake({'interrupt_request': ''}, dict(grace=.1, interrupt_timeout=.1)) as (fk, kc):
        victim, following = kc.run(HOLD), kc.run('next')
        await until_state(victim, 'running')
        await fk.until_held(1)
        victim.cancel()
        assert isinstance(await outcome(victim), asyncio.CancelledError) and victim.ignored
        fk.release()
        assert (await soon(following)).text == 'next' and not kc.router.table


async def test_the_stop_button_spares_the_next(monkeypatch):
    "What it was pressed for ends by itself before the interrupt is sent."
    monkeypatch.setattr('conkernelclient.cells.stop.INSIDE', SOON)
    async with fake() as (fk, kc):
        run, following = kc.run(HOLD), kc.run('next')
        await until_state(run, 'running')
        await fk.until_held(1)
        stop = asyncio.create_task(kc.interrupt())
        await asyncio.sleep(.01)
        fk.release()
        await soon(stop)
        assert (await soon(run)).status == (await soon(following)).status == 'ok' and not fk.got('interrupt_request')


async def test_a_lane_says_what_it_waits_for():
    async with fake() as (fk, kc):
        run, following = kc.run(HOLD), kc.run('next')
        await fk.until_held(1)
        assert 'waits for <Run' in repr(run.shell) and 'begun' in repr(run.shell) and '1 queued' in repr(run.shell)
        fk.release()
        await soon(following)
        assert 'free; 0 queued' in repr(run.shell)


async def test_a_cancel_overrides_a_timeout_under_way():
    async with fake(kc_args=dict(interrupt_timeout=.4), interrupts=False) as (fk, kc):
        run = kc.run(HOLD, timeout=.01)
        task = asyncio.ensure_future(run)
        await fk.until_received(1, msg_type='interrupt_request')
        run.cancel()
        assert isinstance(await outcome(run), asyncio.CancelledError)
        fk.release()


async def test_cancel_all():
    async with fake() as (fk, kc):
        runs = [kc.run(HOLD), *map(kc.run, 'abc')]
        await until_state(runs[0], 'running')
        got = await soon(kc.cancel_all())
        assert len(got) == 4 and all(isinstance(o, asyncio.CancelledError) for o in got)
        assert fk.codes == [HOLD] and kc.queue == [] and await soon(kc.cancel_all()) == []
        assert (await soon(kc.run('next'))).text == 'next'


async def test_the_stop_button():
    async with fake() as (fk, kc):
        run = kc.run(HOLD)
        await until_state(run, 'running')
        await soon(kc.interrupt())
        assert (await soon(run)).error.ename == 'KeyboardInterrupt' and not run.cancelled()
        plain = kc.execute(HOLD, reply=True)
        await fk.until_held(1)
        await soon(kc.interrupt())
        assert (await soon(plain))['content']['ename'] == 'KeyboardInterrupt'
        assert (await soon(kc.run('next'))).text == 'next'
        done = kc.run('x')
        await soon(done)
        assert await soon(done.interrupt()) is False and fk.got('interrupt_request') == 2


async def test_restart_needs_a_manager():
    async with fake() as (fk, kc):
        with pytest.raises(UnsupportedFeature): await kc.restart()


# --- live -----------------------------------------------------------------------------------------------------------

PIECES = 'fake: busy echo ' + ' '.join(f'stream={i}' for i in range(50)) + ' reply idle'
WHOLE = ''.join(map(str, range(50)))

async def test_a_slow_consumer_slows_nobody_and_loses_nothing():
    async with fake() as (fk, kc):
        go, got = asyncio.Event(), []
        async def slowly(event):
            await go.wait()
            got.append(event.text)
        run, reader = kc.run(PIECES, on_output=slowly), kc.run(PIECES)
        async def read():
            async for out in reader:
                await go.wait()
                got.append(out.text)
        task = asyncio.create_task(read())
        assert (await soon(kc.run('other'))).text == 'other'
        assert not run.done() and run.state == 'done' and got == [] and kc.queue == []
        go.set()
        assert (await soon(run)).text == WHOLE
        await soon(task)
        assert ''.join(got) == WHOLE*2


async def test_a_late_reader_gets_it_all():
    async with fake() as (fk, kc):
        run = kc.run('fake: busy stream=a display=b hold stream=c reply idle')
        await until(lambda: len(run.partial.outputs) == 2)
        await fk.until_held(1)
        got = []
        async for out in run:
            got.append((out.kind, out.text))
            if out.text == 'a': fk.release()
        assert got == [('new', 'a'), ('new', 'b\n'), ('new', 'c')]
        assert [o.text async for o in run] == ['a', 'b\n', 'c']     # and one that comes after the end


@pytest.mark.parametrize('how', ['break', 'raise', 'return', 'cancel'])
async def test_leaving_the_loop_early_cancels(how):
    async with fake() as (fk, kc):
        run, following = kc.run(HOLD), kc.run('next')
        async def read():
            async for out in run:
                if how == 'break': break
                if how == 'raise': raise ZeroDivisionError
                if how == 'return': return
        task = asyncio.create_task(read())
        if how == 'cancel':
            await until(lambda: run.partial.text)
            task.cancel()
        try: await soon(task)
        except (ZeroDivisionError, asyncio.CancelledError): pass
        del task
        assert isinstance(await outcome(run), asyncio.CancelledError)
        assert (await soon(following)).text == 'next' and fk.got('interrupt_request') == 1


async def test_a_loop_raises_what_the_run_raises():
    async with fake() as (fk, kc):
        got = []
        with pytest.raises(ExecutionError):
            async for out in kc.run('fake: busy stream=x error=Bad idle', check=True): got.append(out.kind)
        assert got == ['new', 'new']


async def test_closing_while_outputs_are_read():
    async with fake() as (fk, kc):
        got, begun = [], asyncio.Event()
        async def read(run):
            async for out in run:
                got.append(out.text)
                begun.set()
        async def slowly(event):
            begun.set()
            await asyncio.Event().wait()
        reader = asyncio.create_task(read(kc.run(HOLD)))
        await soon(begun.wait())
        begun.clear()
        await fk.until_held(1)
        fk.release()
        await soon(reader)
        slow = kc.run('fake: busy stream=x reply idle', on_output=slowly)
        await soon(begun.wait())
        begun.clear()
        reader = asyncio.create_task(read(kc.run(HOLD)))
        await soon(begun.wait())
        kc.stop_channels()
        assert isinstance(await outcome(reader), ClientClosedError) and got == ['begun', 'begun']
        assert slow.state == 'done' and (await soon(slow)).text == 'x'      # its callback was cancelled
        assert kc.queue == []


async def test_cancel_all_in_all_states():
    async with fake() as (fk, kc):
        async with connected(fk) as other:
            theirs = other.run(HOLD)
            await until_state(theirs, 'running')
            await fk.until_held(1)
            async with kc.subshell() as sh:
                there = sh.run('fake: busy echo hold reply idle')
                sent, queued = kc.run(HOLD), kc.run('never')
                await until_state(there, 'running')
                await fk.until_held(2)
                assert (sent.state, queued.state) == ('sent', 'queued')
                got = await soon(kc.cancel_all())
                assert [type(o) for o in got] == [asyncio.CancelledError]*3 and set(kc.queue) == {sent, there}
                assert not fk.got('interrupt_request') and not theirs.done()
                fk.release()
                assert (await soon(theirs)).status == 'ok' and (await soon(kc.run('next'))).text == 'next'
            assert 'never' not in fk.codes and sent.partial.error.ename == 'KeyboardInterrupt' and kc.queue == []


async def test_callbacks_that_raise():
    async with fake() as (fk, kc):
        def bad(event): 1/0
        async def worse(event): 1/0
        for hook in (bad, worse):
            run = kc.run(HOLD, on_output=hook)
            e = await outcome(run)
            assert isinstance(e, ZeroDivisionError) and e.result.stdout == 'begun'
            run = kc.run('fake: busy stream=x stream=y reply idle', on_output=hook)
            assert isinstance(await outcome(run), ZeroDivisionError)
        assert (await soon(kc.run('next'))).text == 'next' and fk.got('interrupt_request') == 2


async def test_callbacks_whose_own_work_was_cancelled():
    async with fake() as (fk, kc):
        def bad(event): raise asyncio.CancelledError
        async def worse(event): raise asyncio.CancelledError
        for hook in (bad, worse):
            assert isinstance(await outcome(kc.run('fake: busy stream=x stream=y reply idle', on_output=hook)), asyncio.CancelledError)
        assert isinstance(await outcome(kc.run('fake: busy echo input=a answer reply idle', stdin=worse)), asyncio.CancelledError)
        assert (await soon(kc.run('next'))).text == 'next' and kc.queue == []


# --- prompts --------------------------------------------------------------------------------------------------------

ASK = 'fake: busy input=name? answer reply idle'

async def test_prompts():
    async with fake() as (fk, kc):
        async def later(prompt, password): return f'{prompt}{password}'
        assert (await soon(kc.run(ASK, stdin=['Ada']))).text == 'Ada'
        assert (await soon(kc.run(ASK, stdin='Ada\nGrace'))).text == 'Ada'
        assert (await soon(kc.run(ASK, stdin=str.upper))).text == 'NAME?'
        assert (await soon(kc.run(ASK, stdin=later))).text == 'name?False'
        assert (await soon(kc.run(ASK, stdin=[]))).text == '\x04'
        await soon(kc.run('x'))
        told = [o['content']['allow_stdin'] for o in fk.received if o.msg_type == 'execute_request']
        assert told == [True]*5 + [False]


async def test_concurrent_runs_get_their_own_prompts():
    async with fake() as (fk, kc):
        async with kc.subshell() as a, kc.subshell() as b:
            gate, asked = asyncio.Event(), []
            def answers(name):
                async def answer(prompt):
                    asked.append(name)
                    await gate.wait()
                    return name
                return answer
            runs = [o.run(ASK, stdin=answers(n)) for o, n in ((kc, 'main'), (a, 'a'), (b, 'b'))]
            await until(lambda: len(asked) == 3)
            gate.set()
            assert [o.text for o in await soon(asyncio.gather(*runs))] == ['main', 'a', 'b']


async def test_a_run_cancelled_at_its_prompt():
    async with fake() as (fk, kc):
        asked, ended = asyncio.Event(), asyncio.Event()
        async def never(prompt):
            asked.set()
            try: await asyncio.Event().wait()
            finally: ended.set()
        run = kc.run('fake: busy echo input=a answer reply idle', stdin=never)
        await soon(asked.wait())
        run.cancel()
        assert isinstance(await outcome(run), asyncio.CancelledError)
        await soon(ended.wait())
        assert (await soon(kc.run('next'))).text == 'next' and not fk.got('input_reply')


async def test_an_answer_that_fails():
    async with fake() as (fk, kc):
        ask = 'fake: busy echo input=a answer reply idle'
        assert isinstance(await outcome(kc.run(ask, stdin=lambda prompt: 1/0)), ZeroDivisionError)
        assert isinstance(await outcome(kc.run(ask, stdin=[3])), TypeError)
        assert (await soon(kc.run('next'))).text == 'next'


async def test_a_prompt_that_nobody_will_answer_on_a_subshell_gets_the_end_of_file():
    "No interrupt reaches it there: it would hold up the subshell for good."
    async with fake() as (fk, kc):
        async with kc.subshell() as sh:
            asked = asyncio.Event()
            async def never(prompt):
                asked.set()
                await asyncio.Event().wait()
            given_up, following = sh.run(ASK, stdin=never), sh.run('next')
            await soon(asked.wait())
            given_up.cancel()
            assert isinstance(await outcome(given_up), asyncio.CancelledError)
            assert (await soon(following)).text == 'next' and given_up.partial.text == '\x04'
            failing = sh.run(ASK, stdin=lambda prompt: 1/0)
            assert isinstance(await outcome(failing), ZeroDivisionError)
            late = sh.run('fake: busy hold input=a answer reply idle', stdin=['a'])
            await fk.until_held(1)
            late.cancel()
            assert isinstance(await outcome(late), asyncio.CancelledError)
            fk.release()
            assert (await soon(sh.run('next'))).text == 'next' and failing.partial.text == late.partial.text == '\x04'
        assert kc.queue == []


async def test_a_kernel_that_asks_though_it_may_not():
    async with fake() as (fk, kc):
        assert (await soon(kc.run(ASK))).text == '\x04'


async def test_a_password_is_told():
    async with fake() as (fk, kc):
        def ask(k, msg):
            k.busy(msg)
            k.stream(msg, (yield k.input_request(msg, 'key? ', password=True)))
            k.reply(msg), k.idle(msg)
        fk.on['execute_request'] = ask
        assert (await soon(kc.run('x', stdin=lambda prompt, password: f'{prompt}{password}'))).text == 'key? True'
        assert (await soon(kc.run('x', stdin=lambda prompt, **told: str(told)))).text == "{'password': True}"


# --- subshells ------------------------------------------------------------------------------------------------------

async def subshells(kc): return (await soon(kc.request('list_subshell_request', {}, 'control')))['content']['subshell_id']


async def test_no_subshells():
    async with fake(subshells=False) as (fk, kc):
        assert not kc.supports('kernel subshells')
        with pytest.raises(UnsupportedFeature):
            async with kc.subshell(): pass
        with pytest.raises(UnsupportedFeature): await kc.map(['a', 'b'])
        assert [o.text for o in await soon(kc.map('abc', concurrency=1))] == list('abc')
        assert not fk.got('create_subshell_request')


async def test_a_subshell_is_a_lane_of_its_own():
    async with fake() as (fk, kc):
        assert kc.supports('kernel subshells')
        async with kc.subshell() as sh:
            slow = kc.run(HOLD)
            await fk.until_held(1)
            assert [o.text for o in await soon(asyncio.gather(*map(sh.run, 'abc')))] == list('abc')
            assert (await soon(sh.execute('d', reply=True)))['content']['status'] == 'ok'
            assert (await soon(sh.complete('pri', reply=True)))['content']['matches'] == ['prix']
            assert (await soon(sh.inspect('x', reply=True)))['content']['found'] is False
            assert (await soon(sh.request('history_request')))['content']['history'] == []
            assert not slow.done() and {o.subshell_id for o in fk.received if o.code in 'abcd' and o.code} == {sh.id}
            fk.release()
            await soon(slow)
        assert await subshells(kc) == []
        with pytest.raises(RuntimeError): sh.run('x')


async def test_leaving_in_good_order_waits_for_what_was_begun():
    async with fake() as (fk, kc):
        async with kc.subshell() as sh:
            runs = [sh.run('fake: busy hold reply idle'), sh.run('x')]
            await fk.until_held(1)
            asyncio.get_running_loop().call_later(.05, fk.release)
        assert all(o.done() for o in runs) and runs[1].result().text == 'x' and await subshells(kc) == []


async def test_leaving_with_an_error_lets_go_and_deletes_later():
    "Deleting a busy subshell makes ipykernel stop reading shell messages: it has to wait."
    async with fake() as (fk, kc):
        with pytest.raises(ZeroDivisionError):
            async with kc.subshell() as sh:
                slow, queued = sh.run('fake: busy echo hold reply idle'), sh.run('never')
                await until_state(slow, 'running')
                await fk.until_held(1)
                1/0
        assert slow.cancelled() and queued.cancelled() and kc.queue == [slow]
        await quiet(kc, 'control')
        assert not fk.got('delete_subshell_request') and not fk.got('interrupt_request')
        fk.release()
        await fk.until_received(1, msg_type='delete_subshell_request')
        assert await subshells(kc) == [] and 'never' not in fk.codes
        await until(lambda: kc.queue == [])


async def test_cancel_and_timeout_on_a_subshell_let_the_caller_go():
    async with fake() as (fk, kc):
        async with kc.subshell() as sh:
            run, following = sh.run('fake: busy echo stream=x hold reply idle'), sh.run('next')
            await until_state(run, 'running')
            await fk.until_held(1)
            with pytest.raises(UnsupportedFeature): run.interrupt()
            run.cancel()
            assert isinstance(await outcome(run), asyncio.CancelledError) and kc.queue[0] is run
            assert 'nobody waits' in repr(run) and following.state == 'queued'
            fk.release()
            assert (await soon(following)).text == 'next' and run.partial.status == 'ok'
            run = sh.run('fake: busy echo stream=x hold reply idle', timeout=.05)
            e = await outcome(run)
            assert isinstance(e, ExecutionTimeout) and 'still running' in str(e)
            await fk.until_held(1)
            fk.release()
        assert not fk.got('interrupt_request') and await subshells(kc) == []


async def test_a_subshell_whose_kernel_died():
    async with fake(kc_args=dict(lost_after=.1)) as (fk, kc):
        with pytest.raises(DeadKernelError):
            async with asyncio.timeout(SOON), kc.subshell() as sh:
                run = sh.run('fake: busy hold')
                await until_state(run, 'running')
                fk.crash()
                await run


async def test_a_subshell_whose_creation_is_cancelled_is_deleted():
    async with fake() as (fk, kc):
        created = fk._subshell_request
        def slowly(k, msg):
            yield k.hold(msg)
            k._subshell_request(msg)
        fk.on['create_subshell_request'] = slowly
        async def enter():
            async with kc.subshell(): pass
        task = asyncio.create_task(enter())
        await fk.until_held(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError): await task
        fk.release()
        await fk.until_received(1, msg_type='delete_subshell_request')
        assert await subshells(kc) == []


async def test_map_keeps_order_and_ends_at_an_error():
    async with fake() as (fk, kc):
        assert [o.text for o in await soon(kc.map(map(str, range(30))))] == [*map(str, range(30))]
        assert fk.got('create_subshell_request') == 4
        with pytest.raises(ExecutionError): await soon(kc.map(['a', 'fake: busy error=Bad idle', *'cdefg'], check=True))
        assert await subshells(kc) == [] and kc.queue == []
        task = asyncio.create_task(kc.map(['fake: busy hold reply idle']*3))
        await fk.until_held(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError): await soon(task)
        fk.release()
        await fk.until_received(11, msg_type='delete_subshell_request')
        assert await subshells(kc) == []


class Bar:
    made = []
    def __init__(self, total): self.total, self.n, self.closed = total, 0, False; self.made.append(self)
    def update(self): self.n += 1
    def close(self): self.closed = True

class Screen(io.StringIO):
    def isatty(self): return True

async def test_a_progress_bar_where_a_person_watches(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tqdm', types.ModuleType('tqdm'))
    monkeypatch.setitem(sys.modules, 'tqdm.auto', types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(Bar, 'made', [])
    async with fake() as (fk, kc):
        monkeypatch.setattr(sys, 'stderr', io.StringIO())
        await soon(kc.map('abc', progress=True))
        assert Bar.made == []
        monkeypatch.setattr(sys, 'stderr', Screen())
        await soon(kc.map('abc'))
        assert Bar.made == []
        await soon(kc.map('abc', progress=True))
        with pytest.raises(ExecutionError): await soon(kc.map(['a', 'fake: busy error=Bad idle'], concurrency=1, check=True, progress=True))
        assert [(o.total, o.n, o.closed) for o in Bar.made] == [(3, 3, True), (2, 1, True)]


# --- a real kernel --------------------------------------------------------------------------------------------------

@asynccontextmanager
async def real(by_message=False):
    async with asyncio.timeout(300), run_kernel() as (km, kc):
        if not by_message: yield km, kc
        else:
            other = ConKernelClient()
            other.load_connection_info(km.get_connection_info())
            await _ready(other)
            try: yield km, other
            finally: other.stop_channels()


@pytest.mark.parametrize('by_message', [False, True])
async def test_no_interrupt_hits_a_run_that_counts(by_message):
    "200 runs cancelled at random moments, some queued, some running, among runs that count."
    rnd = random.Random(7)
    async with real(by_message) as (km, kc):
        await kc.run('import time\nn, done = 0, []')
        async def victim():
            # Most are long: an interrupt at the very end of a cell may cost ipykernel its life, whoever sends it.
            run = kc.run('time.sleep(60)' if rnd.random() < .7 else 'time.sleep(.01)')
            await asyncio.sleep(rnd.choice([0, 0, .002, .01]))
            run.cancel()
            try: await run
            except asyncio.CancelledError: return run.interrupted
        interrupted = 0
        for _ in range(50):
            victims = [asyncio.create_task(victim()) for _ in range(4)]
            await asyncio.sleep(0)
            counting = [kc.run('n += 1; done.append(n)') for _ in range(4)]
            assert {o.status for o in await asyncio.gather(*counting)} == {'ok'}
            interrupted += sum(map(bool, await asyncio.gather(*victims)))
        assert await kc.eval('n') == 200 and await kc.eval('done') == list(range(1, 201))
        assert interrupted >= 20 and kc.queue == []


async def test_killed_in_the_middle():
    async with real() as (km, kc):
        runs = [kc.run("print('begun', flush=True)\nimport time; time.sleep(60)"), kc.run('x', timeout=5), kc.run('y')]
        async for out in runs[0]:
            await km.signal_kernel(signal.SIGKILL)
            break
        got = [await outcome(o) for o in runs]
        assert isinstance(got[0], asyncio.CancelledError) and runs[0].partial.stdout == 'begun\n'
        assert all(isinstance(o, DeadKernelError) for o in got[1:])
        await kc.restart()
        assert (await kc.run('6*7')).text == '42\n' and kc.queue == []


async def test_restart_fails_runs_and_subshells_and_forgets_displays():
    show = "from IPython.display import display; h = display(1, display_id='d')"
    async with real() as (km, kc):
        old = await kc.run(show)
        async with kc.subshell() as sh:
            deaf = kc.run("import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass")
            there, queued = sh.run('import time; time.sleep(60)'), kc.run('x')
            await until_state(deaf, 'running')
            restart = asyncio.create_task(kc.restart())
            await asyncio.sleep(0)
            new = kc.run(show.replace('(1,', '(2,'))
            assert isinstance(await outcome(deaf), KernelRestartedError) and isinstance(await outcome(queued), KernelRestartedError)
            assert isinstance(await outcome(there), KernelRestartedError)
            await restart
            with pytest.raises(KernelRestartedError): sh.run('x')
        assert (await new).text == '2\n' and old.text == '1\n' and kc.queue == []
        async with kc.subshell() as sh: assert (await sh.run('1+1')).data['text/plain'] == '2'


async def test_interrupts_during_a_restart_leave_the_new_kernel_alone():
    "It would die of one that comes while it imports."
    async with real() as (km, kc):
        slow = kc.run('import time; time.sleep(60)')
        await until_state(slow, 'running')
        restart = asyncio.create_task(kc.restart(now=True))
        await kc.wait_for_status('restarting', timeout=SOON)
        new = kc.run('6*7')
        while kc.status == 'restarting':
            slow.cancel()
            await kc.interrupt()
            await asyncio.sleep(.01)
        await restart
        assert (await soon(new)).text == '42\n' and isinstance(await outcome(slow), (asyncio.CancelledError, KernelRestartedError))


async def test_cancel_all_spares_subshells_in_the_making():
    async with real() as (km, kc):
        for _ in range(5):
            opened = asyncio.create_task(kc.subshell().__aenter__())
            while not opened.done():
                await kc.cancel_all()
                await asyncio.sleep(0)
            sh = await opened
            assert (await soon(sh.run('6*7'))).data['text/plain'] == '42'
            await sh.__aexit__(None, None, None)
        assert await subshells(kc) == []


async def test_a_restart_in_the_middle_of_making_a_subshell_leaves_nothing():
    async with real() as (km, kc):
        async def enter():
            async with kc.subshell() as sh: return await sh.run('1')
        await kc.run('1')
        opened = asyncio.create_task(enter())
        await until(lambda: any(o[1] for o in kc.router.shells))       # it exists, and is being prepared
        await km.restart_kernel(now=True)
        assert isinstance(await outcome(opened), (KernelRestartedError, conkernelclient.Result))
        await kc.wait_for_ready(timeout=SOON)
        await until(lambda: list(kc.runs.shells) == [None] and not [o for o in kc.router.shells if o[1]])
        assert (await soon(kc.run('6*7'))).text == '42\n'


async def test_tool_loop():
    "Start a long computation, run three quick cells, cancel the long one, restart."
    async with real() as (km, kc):
        async with kc.subshell() as sh:
            slow = kc.run('import time\nfor i in range(10**6): time.sleep(.01)')
            await until_state(slow, 'running')
            assert [(await sh.run(f'{i}**2')).data['text/plain'] for i in range(3)] == ['0', '1', '4']
            slow.cancel()
            assert isinstance(await outcome(slow), asyncio.CancelledError) and slow.partial.error.ename == 'KeyboardInterrupt'
        await kc.restart()
        assert isinstance(await outcome(kc.run('i', check=True)), ExecutionError)


async def test_what_waited_at_a_restart_never_runs_in_the_new_kernel():
    "Its turn has not come: behind the cell that was interrupted, that of another client runs."
    async with real() as (km, kc):
        other = km.client()
        await _ready(other)
        try:
            slow, waiting = kc.run('import time; time.sleep(60)'), kc.run('ran = True')
            await until_state(slow, 'running')
            theirs = other.execute('time.sleep(60)', reply=True)
            await soon(slow.interrupt())
            await soon(slow)
            assert waiting.state == 'queued'
            restart = asyncio.create_task(kc.restart())
            assert isinstance(await outcome(waiting), KernelRestartedError) and isinstance(await outcome(theirs), KernelRestartedError)
            await restart
            assert await kc.eval("'ran' in globals()") is False and kc.queue == []
        finally: other.stop_channels()


@pytest.mark.parametrize('code', [
    'import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)',
    'sum(range(10**12))',      # C code that looks for no signals, and holds the GIL
], ids=['ignored', 'in C'])
@pytest.mark.parametrize('by_message', [False, True])
async def test_what_cannot_be_interrupted_is_told_and_restarted(code, by_message):
    async with real(by_message) as (km, kc):
        kc.interrupt_timeout = .5
        run, queued = kc.run(code, timeout=.2), kc.run('x')
        e = await outcome(run)
        begun = run.state == 'running'     # C code may keep the kernel from saying so
        assert isinstance(e, ExecutionTimeout) and ('ignored the interrupt' if begun else 'does not say') in str(e) and 'restart' in str(e)
        assert kc.queue == [run, queued] and (not begun or 'ignored' in repr(run.shell))
        cancelled = kc.cancel_all()
        assert [type(o) for o in await soon(cancelled)] == [asyncio.CancelledError]
        if by_message: return
        await soon(kc.restart())
        assert (await soon(kc.run('6*7'))).text == '42\n' and kc.queue == []


async def test_a_time_limit_holds_where_the_kernel_does_not_say_that_it_began():
    # Nothing that we know of stands before it, so it is interrupted; this kernel ignores that
    async with fake(on={'execute_request': 'hold busy echo reply idle', 'interrupt_request': 'busy reply idle'}) as (fk, kc):
        kc.begin_patience, kc.interrupt_timeout = .1, .2
        run, queued = kc.run('a', timeout=.1), kc.run('b')
        e = await outcome(run)
        assert isinstance(e, ExecutionTimeout) and 'does not say' in str(e) and e.result.stdout == ''
        assert 'an interrupt has changed nothing' in str(e) and fk.counts['interrupt_request'] == 2
        assert kc.queue == [run, queued] and run.state == 'sent' and not kc.router.table[run.request.msg_id].replied
        fk.on['execute_request'] = 'busy echo stream=done reply idle'
        fk.release()                # it says so after all: nobody waits, and the next one goes
        assert (await soon(queued)).text == 'done' and kc.queue == []


@pytest.mark.parametrize('whose', ['own', 'another'])
async def test_a_time_limit_does_not_start_behind_the_cell_of_somebody_else(whose):
    async with fake(on={'execute_request': 'busy hold echo reply idle'}) as (fk, kc):
        async with connected(fk) as other:
            kc.begin_patience = .01
            before = (kc if whose == 'own' else other).execute('a', reply=True)
            await soon(fk.until_held(1))
            run = kc.run('b', timeout=.01)
            ticks, doubt = [], run.request.router.stands_first
            kc.router.stands_first = lambda req: ticks.append(doubt(req)) or ticks[-1]
            await until(lambda: len(ticks) > 5)
            assert not any(ticks) and run.state == 'sent' and not run.done()
            run.timeout = 20
            fk.on['execute_request'] = 'busy echo stream=done reply idle'
            fk.release()
            assert (await soon(run)).text == 'done' and (await soon(before))['content']['status'] == 'ok'


async def test_cells_that_await_can_be_stopped():
    async with real() as (km, kc):
        run = kc.run("import asyncio\nprint('begun')\nawait asyncio.sleep(60)", timeout=.3)
        e = await outcome(run)
        assert isinstance(e, ExecutionTimeout) and 'was interrupted' in str(e) and e.result.stdout == 'begun\n' and e.result.status == 'error'
        assert (await kc.run('6*7')).text == '42\n'


async def test_no_interrupt_hits_others_on_subshells_or_behind_time_limits():
    "Time limits at random moments, a kernel that is slow to go idle, and cells that count on the main shell and on a subshell."
    rnd = random.Random(3)
    async with real() as (km, kc):
        await kc.run("import time\nn = m = 0\nget_ipython().events.register('post_run_cell', lambda r: time.sleep(.02))")
        async with kc.subshell() as sh:
            others = [sh.run('for i in range(10): m += 1; time.sleep(.005)') for _ in range(15)]
            ended = 0
            for _ in range(15):
                victims = [kc.run('time.sleep(60)', timeout=rnd.choice([.01, .05, .1])), kc.run('time.sleep(60)', timeout=.001)]
                counting = [kc.run('n += 1') for _ in range(2)]
                ended += sum([isinstance(await outcome(o), ExecutionTimeout) for o in victims])
                assert {o.status for o in await asyncio.gather(*counting)} == {'ok'}
            assert {o.status for o in await asyncio.gather(*others)} == {'ok'}
            assert ended == 30 and await kc.eval('n, m') == (30, 150)


async def test_each_shell_has_its_own_prompts_errors_and_right_to_ask():
    "All of them are kept once for all threads in ipykernel (7.4); this fails should it change in a way that our cure does not know."
    async with real() as (km, kc):
        async with kc.subshell() as a, kc.subshell() as b:
            async def answer(prompt):
                await asyncio.sleep(.02)
                return prompt.upper()
            runs = [o.run(f"print([input('{n}'+str(i)) for i in range(5)])", stdin=answer) for o, n in ((kc, 'main'), (a, 'a'), (b, 'b'))]
            assert [o.text for o in await asyncio.gather(*runs)] == [f'{[f"{n}{i}" for i in range(5)]}\n' for n in ('MAIN', 'A', 'B')]
            gate = "import time\nwhile not gate: time.sleep(.01)\n"
            for may_ask in (True, False):
                await a.push(gate=False)
                run = kc.run(gate + "print(input('?'))", stdin=['me'] if may_ask else None)
                await until_state(run, 'running')
                await b.run('gate = True', stdin=None if may_ask else ['x'])
                if may_ask: assert (await run).text == 'me\n'
                else: assert (await run).error.ename == 'StdinNotImplementedError'
            never = a.run("input('?')", stdin=lambda prompt: asyncio.get_running_loop().create_future())
            await until(lambda: never._asking is not None)
            never.cancel()
            assert isinstance(await outcome(never), asyncio.CancelledError)
            assert (await soon(a.run('6*7'))).text == '42\n' and never.partial.error.ename == 'EOFError'
        results = await kc.map([f'def f{i}(): raise ValueError({i})\nf{i}()' for i in range(100)])
        for i, o in enumerate(results): assert o.error.evalue == str(i) and f'f{i}()' in conkernelclient.cells.outputs.strip_ansi(str(o.error.traceback))


async def test_leaving_a_subshell_whose_cell_waits_for_an_answer():
    async with real() as (km, kc):
        with pytest.raises(ZeroDivisionError):
            async with kc.subshell() as sh:
                run = sh.run("input('?')", stdin=lambda prompt: asyncio.get_running_loop().create_future())
                await until(lambda: run._asking is not None)
                1/0
        await until(lambda: kc.queue == [])
        assert (await kc.run('6*7')).text == '42\n'


async def test_many_take_little_longer_than_with_execute():
    """Wanted, and measured on a machine that does nothing else: at most 25 % longer. One after the other takes two turns of two
    processes for each, which a busy machine makes longer, so what is asserted is only that nothing is grossly wrong."""
    async with real() as (km, kc):
        async def seconds(send):
            start = time.perf_counter()
            await asyncio.gather(*[send() for _ in range(300)])
            return time.perf_counter()-start
        ratios = []
        for _ in range(6):
            plain = await seconds(lambda: kc.execute('1', reply=True))
            ratios.append(await seconds(lambda: kc.run('1'))/plain)
            if ratios[-1] < 1.25: break
        assert min(ratios) < 3, ratios
