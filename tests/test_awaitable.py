"""A request, its end and a run are awaited like the coroutines they replace, by any number of tasks.

Each test goes over all three: `kc.execute(..., reply=True)`, the `wait()` of one, and `kc.run(...)`. A later request
shows that something was *not* sent: messages of one socket keep their order.
"""
import asyncio, collections.abc, contextvars, inspect, subprocess, sys, textwrap
from functools import partial
from pathlib import Path

import anyio, pytest
from conkernelclient import ClientClosedError, ConKernelClient, DeadKernelError, Result
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 60

KINDS = pytest.mark.parametrize('kind', ['request', 'end', 'run'])
HELD = {'execute_request': 'hold busy reply idle'}
HOLD = 'fake: busy echo stream=begun hold reply idle'



@asynccontextmanager
async def connected(on=None, **kwargs):
    "A fake kernel, and a client of it that is ready; so narrow a window that a second request waits in the client"
    with FakeKernel(on=on) as fk:
        kc = fk.client(ConKernelClient, **{'window': 1, **kwargs})
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        try: yield fk, kc
        finally: kc.stop_channels()

def asked(kc, kind, code):
    "Something to await, which has been sent or is queued"
    if kind=='run': return kc.run(code)
    req = kc.execute(code, reply=True)
    return req if kind=='request' else req.wait()

def is_answer(kind, res):
    if kind=='run': return type(res) is Result and res.status=='ok'
    if kind=='end': res = res.reply
    return res['content']['status']=='ok'

# These helpers need nothing but an `await` to work, so that no test fails for what another one is about.

async def result_of(x): return await x

def soon(x, seconds=SOON): return asyncio.wait_for(result_of(x), seconds)

async def outcome(x, seconds=SOON):
    "What became of it: the result, or the exception"
    task = asyncio.create_task(result_of(x))
    await asyncio.wait([task], timeout=seconds)
    assert task.done(), f'{x} has not ended'
    return asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()

async def ended(*xs, seconds=SOON):
    "Wait until all have ended, however that comes"
    return [await outcome(o, seconds) for o in xs]

async def tasks_on(x, n):
    "Tasks that await `x`, and have begun to"
    tasks = [asyncio.create_task(result_of(x)) for _ in range(n)]
    await turns()
    return tasks

async def turns(n=3):
    for _ in range(n): await asyncio.sleep(0)

async def not_sent(fk, kc, *codes):
    "None of `codes` has been sent, nor will be"
    last = kc.execute('last', reply=True)
    fk.on.clear()
    fk.release()
    await soon(last)
    await fk.until(lambda: 'last' in fk.codes)
    assert not set(codes)&set(fk.codes)

def wait_until_answered(fk):
    "Release what is held, and keep the event loop from all work until the answer is at the client's socket"
    n = len(fk.held)
    assert n
    fk.release()
    fk.wait(lambda: not fk.held and not any(o.run for o in fk._lanes.values()))
    time.sleep(.05)


# --- what it is ----------------------------------------------------------------------------------------------------

@KINDS
async def test_it_is_a_coroutine_and_no_future(kind):
    async with connected() as (fk, kc):
        x = asked(kc, kind, 'x')
        assert isinstance(x, collections.abc.Coroutine) and isinstance(x, collections.abc.Awaitable)
        assert asyncio.iscoroutine(x) and inspect.isawaitable(x)
        assert not asyncio.isfuture(x)
        await soon(x)
        assert asyncio.iscoroutine(x) and not asyncio.isfuture(x)


async def by_gather(x): return (await asyncio.gather(x))[0]
async def by_gather_with_another(x): return (await asyncio.gather(asyncio.sleep(0), x))[1]
async def by_wait_for(x): return await asyncio.wait_for(x, SOON)
async def by_shield(x): return await asyncio.shield(x)
async def by_ensure_future(x): return await asyncio.ensure_future(x)
async def by_create_task(x): return await asyncio.create_task(x)

async def by_timeout(x):
    async with asyncio.timeout(SOON): return await x

async def by_wait(x):
    done, pending = await asyncio.wait([asyncio.ensure_future(x)], timeout=SOON)
    assert not pending
    return done.pop().result()

async def by_wait_for_the_first(x):
    other = asyncio.ensure_future(asyncio.sleep(SOON))
    done, pending = await asyncio.wait([other, asyncio.ensure_future(x)], return_when=asyncio.FIRST_COMPLETED)
    assert pending=={other}
    other.cancel()
    return done.pop().result()

async def by_as_completed(x):
    for o in asyncio.as_completed([x], timeout=SOON): return await o

async def by_task_group(x):
    async with asyncio.TaskGroup() as tg: task = tg.create_task(x)
    return task.result()

async def by_another_thread(x):
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(x, loop).result(SOON))

async def by_anyio(x):
    res = []
    async def keep(): res.append(await x)
    async with anyio.create_task_group() as tg: tg.start_soon(keep)
    return res[0]

async def by_await_twice(x):
    first = await x
    assert await x is first
    return first

WAYS = {name[3:]: o for name,o in list(globals().items()) if name.startswith('by_')}
WAYS['await'] = result_of

@KINDS
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('way', WAYS)
async def test_ways_to_wait(way, when, kind):
    "Before and after the answer"
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        if when=='before':
            waits = asyncio.create_task(WAYS[way](x))
            await fk.until_held(1)
            await turns()
            early = waits.done() or x.done()
            fk.release()
            res = await soon(waits)
            assert not early
        else:
            await fk.until_held(1)
            fk.release()
            await soon(x)
            res = await soon(WAYS[way](x))
        assert is_answer(kind, res) and x.done() and not x.cancelled()
        assert (await x) is res


@KINDS
async def test_many_ways_at_the_same_time(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        waits = [asyncio.create_task(o(x)) for o in WAYS.values()]
        await fk.until_held(1)
        await turns()
        fk.release()
        res, _ = await outcomes(waits)
        assert not [o for o in res if isinstance(o, BaseException)]
        assert is_answer(kind, res[0]) and all(o is res[0] for o in res)


@KINDS
async def test_a_failure_reaches_each_waiter(kind):
    async with connected(HELD, lost_after=.05) as (fk, kc):
        x = asked(kc, kind, 'x')
        waits = [asyncio.create_task(o(x)) for o in WAYS.values()]
        await fk.until_held(1)
        await turns()
        fk.crash()
        res, _ = await outcomes(waits)
        grouped = [o.exceptions[0] if isinstance(o, BaseExceptionGroup) else o for o in res]
        assert kinds(grouped)=={DeadKernelError}
        assert type(x.exception()) is DeadKernelError and type(await outcome(x)) is DeadKernelError


@KINDS
async def test_a_timeout_of_the_request_reaches_each_waiter(kind):
    async with connected(HELD) as (fk, kc):
        if kind=='run': x = kc.run(HOLD, queue_timeout=.1)
        else: x = kc.execute('x', reply=True, timeout=.1)
        if kind=='end': x = x.wait()
        res, _ = await outcomes(await tasks_on(x, 3))
        assert all(isinstance(o, TimeoutError) for o in res)


# --- one of several waiters gives up -------------------------------------------------------------------------------

@KINDS
async def test_one_of_two_tasks_is_cancelled(kind):
    "It ends, and the other one gets the answer"
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        one, other = await tasks_on(x, 2)
        await fk.until_held(1)
        one.cancel()
        await ended(one, seconds=5)
        assert one.cancelled() and not other.done() and not x.done()
        fk.release()
        assert is_answer(kind, await outcome(other))
        assert is_answer(kind, await soon(x)) and not fk.got('interrupt_request')


@KINDS
async def test_one_awaits_directly_and_a_task_is_cancelled(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        task = asyncio.create_task(x)
        async def cancel():
            await fk.until_held(1)
            task.cancel()
            await turns()
            fk.release()
        cancel = asyncio.create_task(cancel())
        assert is_answer(kind, await x)
        await cancel
        assert task.cancelled()


@KINDS
@pytest.mark.parametrize('way', ['wait_for', 'timeout', 'gather', 'task_group', 'shield', 'anyio'])
async def test_one_of_two_gives_up_in_many_ways(way, kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        other, = await tasks_on(x, 1)
        await fk.until_held(1)
        if way=='wait_for':
            with pytest.raises(TimeoutError): await asyncio.wait_for(x, .05)
        elif way=='timeout':
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(.05): await x
        elif way=='gather':
            both = asyncio.gather(x, asyncio.sleep(SOON))
            await turns()
            both.cancel()
            assert isinstance(await outcome(both), asyncio.CancelledError)
        elif way=='task_group':
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as tg:
                    tg.create_task(x)
                    await turns()
                    1/0
        elif way=='shield':
            with pytest.raises(TimeoutError): await asyncio.wait_for(asyncio.shield(x), .05)
        elif way=='anyio':
            with anyio.move_on_after(.05) as scope: await x
            assert scope.cancelled_caught
        assert not other.done() and not x.done()
        fk.release()
        assert is_answer(kind, await outcome(other)) and not fk.got('interrupt_request')


@KINDS
async def test_all_but_one_of_many_are_cancelled_in_one_turn(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        *rest, last = await tasks_on(x, 100)
        for o in rest: o.cancel()
        await ended(*rest, seconds=5)
        assert all(o.cancelled() for o in rest) and not last.done()
        await fk.until_held(1)
        fk.release()
        assert is_answer(kind, await outcome(last))


@KINDS
@pytest.mark.parametrize('together', [True, False], ids=['in_one_turn', 'one_by_one'])
async def test_all_waiters_are_cancelled(kind, together):
    "Then the request is cancelled too; one that was still queued is never sent"
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'never')
        for o in (tasks := await tasks_on(x, 2)):
            o.cancel()
            if not together: await ended(o)
        await ended(*tasks)
        assert all(o.cancelled() for o in tasks) and x.cancelled()
        await not_sent(fk, kc, 'never')
        assert is_answer(kind, await soon(first)) and fk.codes[0]=='first'


@KINDS
async def test_all_waiters_are_cancelled_while_it_is_on_the_wire(kind):
    async with connected() as (fk, kc):
        x = asked(kc, kind, HOLD)
        if kind=='run': await until(lambda: x.state=='running')
        tasks = await tasks_on(x, 2)
        await fk.until_held(1)
        for o in tasks: o.cancel()
        await ended(*tasks)
        assert all(o.cancelled() for o in tasks) and x.cancelled()
        assert fk.got('interrupt_request')==(kind=='run')      # only a run stops the kernel
        fk.release()
        assert is_answer('run', await soon(kc.run('next')))


@KINDS
async def test_cancelling_it_cancels_all_waiters(kind):
    async with connected(HELD) as (fk, kc):
        asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'never')
        tasks = await tasks_on(x, 3)
        assert x.cancel() and not x.cancel()
        await ended(*tasks)
        assert all(o.cancelled() for o in tasks) and x.cancelled()
        assert isinstance(await outcome(x), asyncio.CancelledError)
        await not_sent(fk, kc, 'never')


@pytest.mark.parametrize('who', ['of_the_reply', 'of_the_end'])
async def test_one_waits_for_the_reply_and_one_for_the_end(who):
    "One of them gives up, and the other one still gets what it waits for"
    async with connected({'execute_request': 'busy hold reply hold idle'}) as (fk, kc):
        req = kc.execute('x', reply=True)
        reply, = await tasks_on(req, 1)
        end, = await tasks_on(req.wait(), 1)
        await fk.until_held(1)
        gives_up, stays = (reply, end) if who=='of_the_reply' else (end, reply)
        gives_up.cancel()
        await ended(gives_up)
        assert gives_up.cancelled() and not stays.done() and not req.done()
        fk.release()
        await fk.until(lambda: len(fk.held)==1)
        fk.release()
        assert is_answer('end' if stays is end else 'request', await outcome(stays))


async def test_one_of_two_waiters_for_the_end_gives_up_after_the_reply():
    async with connected({'execute_request': 'busy reply hold idle'}) as (fk, kc):
        req = kc.execute('x', reply=True)
        one, other = await tasks_on(req.wait(), 1)+await tasks_on(req.wait(), 1)
        await soon(req)
        await fk.until_held(1)
        one.cancel()
        await ended(one)
        await turns()
        assert one.cancelled() and not other.done() and not req.cancelled()
        fk.release()
        assert (await outcome(other)) is req and req.complete
        assert (await soon(req.wait())) is req


async def test_the_last_waiter_for_the_end_gives_up_after_the_reply():
    "The reply stays, and a later task can wait for the end again"
    async with connected({'execute_request': 'busy reply hold idle'}) as (fk, kc):
        req = kc.execute('x', reply=True)
        end, = await tasks_on(req.wait(), 1)
        await soon(req)
        await fk.until_held(1)
        end.cancel()
        await ended(end)
        assert end.cancelled() and is_answer('request', await soon(req)) and not req.cancelled()
        again = asyncio.ensure_future(req.wait())
        await turns()
        fk.release()
        assert (await outcome(again)) is req and req.complete


# --- a task that is cancelled before its first step ----------------------------------------------------------------

@KINDS
@pytest.mark.parametrize('way', ['create_task', 'ensure_future', 'gather', 'task_group', 'wait_for', 'anyio'])
async def test_a_task_is_cancelled_before_its_first_step(way, kind):
    "The request or run that it was to wait for is withdrawn"
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'never')
        if way=='task_group':
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as tg:
                    task = tg.create_task(x)
                    1/0
        elif way=='wait_for':
            with pytest.raises(TimeoutError): await asyncio.wait_for(x, 0)
        elif way=='anyio':
            with anyio.CancelScope() as scope:
                scope.cancel()
                await x
            assert scope.cancelled_caught
        else:
            task = getattr(asyncio, way)(x)
            task.cancel()
            assert isinstance(await outcome(task), asyncio.CancelledError)
        await turns()
        assert x.cancelled()
        await not_sent(fk, kc, 'never')
        assert is_answer(kind, await soon(first))


@KINDS
async def test_a_task_is_cancelled_before_its_first_step_and_another_waits(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        other, = await tasks_on(x, 1)
        task = asyncio.create_task(x)
        task.cancel()
        await ended(task)
        with pytest.raises(TimeoutError): await asyncio.wait_for(x, 0)
        assert task.cancelled() and not other.done() and not x.done()
        await fk.until_held(1)
        fk.release()
        assert is_answer(kind, await outcome(other)) and not fk.got('interrupt_request')


@KINDS
async def test_a_cancel_that_comes_after_the_answer_changes_nothing(kind):
    async with connected() as (fk, kc):
        x = asked(kc, kind, 'x')
        res = await soon(x)
        task = asyncio.create_task(x)
        task.cancel()
        await ended(task)
        try: await asyncio.wait_for(x, 0)
        except TimeoutError: pass     # as for any coroutine that is given no time
        assert not x.cancelled() and not x.cancel() and x.result() is res and await x is res


# --- cancelled when its turn has come ------------------------------------------------------------------------------

# Each returns a function that cancels, for the test to call later, and the tasks that end then.

async def cancel_task(x):
    task, = await tasks_on(x, 1)
    return task.cancel, task

async def cancel_task_of_it(x):
    task = asyncio.create_task(x)
    await turns()
    return task.cancel, task

async def cancel_both_tasks(x):
    one, other = await tasks_on(x, 2)
    return lambda: (one.cancel(), other.cancel()), one, other

async def cancel_gather(x):
    both = asyncio.gather(x, asyncio.sleep(SOON))
    await turns()
    return both.cancel, both

async def cancel_new_task(x):
    def cancel():
        task = asyncio.create_task(x)
        task.cancel()
    return cancel,

async def cancel_itself(x): return x.cancel,

async def cancel_a_failing_group(x):
    async def group():
        async with asyncio.TaskGroup() as tg:
            tg.create_task(x)
            tg.create_task(fails())
    async def fails():
        await gate
        1/0
    gate = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(group())
    await turns()
    return partial(gate.set_result, None), task

CANCELS = {name[7:]: o for name,o in list(globals().items()) if name.startswith('cancel_')}

@KINDS
@pytest.mark.parametrize('way', CANCELS)
async def test_it_is_cancelled_one_turn_before_it_would_be_sent(way, kind):
    """Its turn comes in the very next turn of the event loop, and yet it is never sent: a run that is queued, and a
    request in the client's window. (A failing group learns one turn later that it has to cancel its tasks.)"""
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'never')
        cancel, *tasks = await CANCELS[way](x)
        if way=='a_failing_group':
            cancel()
            await turns(2)
        wait_until_answered(fk)
        if way!='a_failing_group': cancel()
        await turns()
        assert x.cancelled()
        await ended(*tasks)
        await not_sent(fk, kc, 'never')
        assert is_answer(kind, await soon(first))


@KINDS
async def test_what_is_not_cancelled_is_sent_in_that_turn(kind):
    "So the test above does force its order"
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'second')
        wait_until_answered(fk)
        await turns(2)
        fk.wait(lambda: 'second' in fk.codes)      # blocks the event loop, so it has been sent already
        fk.release()
        await soon(asyncio.gather(first, x))


# --- a run that is cancelled ends when the kernel has stopped -------------------------------------------------------

def in_its_own_time(k, msg):
    "An interrupt that takes effect when it is released"
    yield k.hold(msg)
    k._interrupt()
    k.busy(msg), k.reply(msg), k.idle(msg)

STOPS = [(way, often) for way in ('await', 'create_task', 'gather', 'task_group', 'wait') for often in (1, 5)]
STOPS += [(way, 1) for way in ('wait_for', 'timeout', 'anyio')]     # anyio cancels in each turn of the loop

@pytest.mark.parametrize('way,often', STOPS)
async def test_a_cancelled_run_raises_when_the_kernel_has_stopped(way, often):
    "Cancelled once or several times: the kernel gets one interrupt, and the outputs so far are kept"
    async with connected({'interrupt_request': in_its_own_time}) as (fk, kc):
        run = kc.run(HOLD)
        await until(lambda: run.state=='running')
        await fk.until_held(1)
        async def waits():
            if way=='wait_for': return await asyncio.wait_for(run, .05)
            if way=='timeout':
                async with asyncio.timeout(.05): return await run
            if way=='wait':
                waiter = asyncio.create_task(run)
                try: await asyncio.wait([waiter])
                finally:
                    waiter.cancel()
                    await waiter
            if way=='anyio':
                with anyio.move_on_after(.05) as scope: return await run
                return scope.cancelled_caught
            return await WAYS[way](run)
        task = asyncio.create_task(run if way=='create_task' else waits())
        await turns()
        for _ in range(often):
            if way not in ('wait_for', 'timeout', 'anyio'): task.cancel()
            await turns(1)
        await fk.until_held(2)      # the kernel has the interrupt, and goes on with the cell
        await turns(20)
        assert not task.done() and not run.done()
        fk.release([o for o in fk.held if o.msg_type=='interrupt_request'])
        await ended(task)
        if way in ('wait_for', 'timeout'): assert isinstance(task.exception(), TimeoutError)
        elif way=='anyio': assert task.result() is True
        else: assert task.cancelled()
        assert run.cancelled() and run.partial.stdout=='begun' and run.partial.error.ename=='KeyboardInterrupt'
        assert fk.got('interrupt_request')==1
        fk.on.clear()
        assert is_answer('run', await soon(kc.run('next')))

@pytest.mark.parametrize('way', ['await', 'create_task', 'wait_for'])
async def test_the_partial_result_travels_with_the_cancellation(way):
    async with connected() as (fk, kc):
        run = kc.run(HOLD)
        await until(lambda: run.state=='running')
        await fk.until_held(1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError) as e: await WAYS[way](run)
        assert e.value.result is run.partial and run.partial.stdout=='begun'


# --- the methods of a future ---------------------------------------------------------------------------------------

@KINDS
async def test_before_and_after_the_answer(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        assert not x.done() and not x.cancelled()
        with pytest.raises(asyncio.InvalidStateError): x.result()
        with pytest.raises(asyncio.InvalidStateError): x.exception()
        await fk.until_held(1)
        fk.release()
        res = await soon(x)
        assert x.done() and not x.cancelled() and x.result() is res and x.exception() is None
        assert not x.cancel()


@KINDS
async def test_after_a_failure(kind):
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        await fk.until_held(1)
        kc.stop_channels()
        assert type(await outcome(x)) is ClientClosedError
        assert x.done() and not x.cancelled() and type(x.exception()) is ClientClosedError and not x.cancel()
        with pytest.raises(ClientClosedError): x.result()


@KINDS
async def test_after_a_cancellation(kind):
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'x')
        assert x.cancel('for a reason')
        with pytest.raises(asyncio.CancelledError, match='for a reason'): await x
        assert x.done() and x.cancelled() and not x.cancel()
        with pytest.raises(asyncio.CancelledError): x.result()
        with pytest.raises(asyncio.CancelledError): x.exception()
        fk.release()
        assert is_answer(kind, await soon(first))


@KINDS
@pytest.mark.parametrize('end', ['answer', 'failure', 'cancel'])
async def test_callbacks(end, kind):
    "Each is called with it, once, in a later turn and in its context; a removed one is not called"
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'x') if end=='cancel' else first
        var, context = contextvars.ContextVar('var'), contextvars.copy_context()
        context.run(var.set, 'its own')
        called, contexts, removed = [], [], []
        def note(o): contexts.append(var.get(None))
        x.add_done_callback(removed.append)
        x.add_done_callback(removed.append)
        assert x.remove_done_callback(removed.append)==2 and x.remove_done_callback(removed.append)==0
        x.add_done_callback(called.append)
        x.add_done_callback(note, context=context)
        await turns()
        assert not called
        if end=='answer': fk.release()
        if end=='failure': kc.stop_channels()
        if end=='cancel': x.cancel()
        await outcome(x)
        await turns()
        assert called==[x] and contexts==['its own'] and not removed
        x.add_done_callback(called.append)      # called although it comes late, in the next turn
        assert called==[x]
        await turns(1)
        assert called==[x, x]
        x.add_done_callback(removed.append)
        assert x.remove_done_callback(removed.append) in (0, 1)     # a future's has been scheduled already


@KINDS
async def test_a_callback_that_raises(kind):
    "The event loop handles the exception, and the other callbacks are called"
    async with connected(HELD) as (fk, kc):
        heard, called = [], []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context['exception']))
        def bad(o): 1/0
        x = asked(kc, kind, 'x')
        x.add_done_callback(bad)
        x.add_done_callback(called.append)
        await fk.until_held(1)
        fk.release()
        assert is_answer(kind, await soon(x))
        await turns()
        assert [type(o) for o in heard]==[ZeroDivisionError] and called==[x]


# --- anyio ---------------------------------------------------------------------------------------------------------

@KINDS
async def test_anyio_starts_it(kind):
    "A task group takes a function that gives a coroutine"
    async with connected() as (fk, kc):
        async with anyio.create_task_group() as tg:
            if kind=='run': tg.start_soon(kc.run, 'a')
            if kind=='request': tg.start_soon(partial(kc.execute, reply=True), 'a')
            if kind=='end': tg.start_soon(lambda: kc.execute('a', reply=True).wait())
        assert fk.codes==['a'] and kc.queue==[]


async def test_anyio_cancels_what_a_failing_group_runs():
    async with connected() as (fk, kc):
        async def fails():
            await fk.until_held(1)
            1/0
        run, queued = kc.run(HOLD), kc.run('never')
        with pytest.raises(ExceptionGroup) as e:
            async with anyio.create_task_group() as tg:
                tg.start_soon(lambda: run)
                tg.start_soon(lambda: queued)
                tg.start_soon(fails)
        assert [type(o) for o in e.value.exceptions]==[ZeroDivisionError]
        assert run.cancelled() and queued.cancelled() and run.partial.error.ename=='KeyboardInterrupt'
        await not_sent(fk, kc, 'never')
        assert fk.got('interrupt_request')==1


@KINDS
async def test_anyio_fails_after_a_time(kind):
    async with connected(HELD) as (fk, kc):
        first = asked(kc, kind, 'first')
        await fk.until_held(1)
        x = asked(kc, kind, 'never')
        with pytest.raises(TimeoutError):
            with anyio.fail_after(.05): await x
        assert x.cancelled()
        await not_sent(fk, kc, 'never')
        assert is_answer(kind, await soon(first))


# --- nothing is left, and nothing is logged (`nothing_unheard` looks after each test) -------------------------------

FAILURES = pytest.mark.parametrize('how', ['crash', 'stop', 'timeout'])

async def fail(fk, kc, how):
    if how=='crash':
        fk.crash()
        await kc.wait_for_status('dead', timeout=SOON)
    if how=='stop': kc.stop_channels()
    if how=='timeout': await asyncio.sleep(.3)
    await turns()

def asked_for(kc, kind, how):
    timeout = .2 if how=='timeout' else None
    if kind=='run': return kc.run('x', queue_timeout=timeout)
    req = kc.execute('x', reply=True, timeout=timeout)
    return req if kind=='request' else req.wait()


@KINDS
@FAILURES
async def test_a_failure_that_nobody_waits_for(how, kind):
    async with connected(HELD, lost_after=.05) as (fk, kc):
        x = asked_for(kc, kind, how)
        await fk.until_held(1)
        await fail(fk, kc, how)
        await until(x.done)
        del x
        gc.collect()


@KINDS
@FAILURES
async def test_a_failure_that_is_awaited(how, kind):
    async with connected(HELD, lost_after=.05) as (fk, kc):
        async def direct():
            with pytest.raises((RuntimeError, TimeoutError)): await x
        x = asked_for(kc, kind, how)
        waits = [asyncio.create_task(direct()) for _ in range(2)]
        waits.append(asyncio.gather(x, return_exceptions=True))
        await fk.until_held(1)
        await fail(fk, kc, how)
        await soon(asyncio.gather(*waits))
        await direct()      # and once more
        del x, waits
        gc.collect()


@KINDS
@pytest.mark.parametrize('first', ['cancel', 'failure'])
async def test_a_failure_in_the_turn_in_which_a_task_is_cancelled(first, kind):
    "The other one fails with the kernel"
    async with connected(HELD) as (fk, kc):
        x = asked(kc, kind, 'x')
        tasks = await tasks_on(x, 2)
        await fk.until_held(1)
        if first=='cancel': tasks[0].cancel()
        kc.stop_channels()
        if first=='failure': tasks[0].cancel()
        one, other = await ended(*tasks)
        assert type(one) in (asyncio.CancelledError, ClientClosedError)
        assert type(other) is ClientClosedError
        del x, tasks, one, other
        gc.collect()


@KINDS
@FAILURES
@pytest.mark.parametrize('left', ['wait_for', 'closed', 'dropped'])
async def test_a_failure_after_a_waiter_has_gone(left, how, kind):
    async with connected(HELD, lost_after=.05) as (fk, kc):
        async def direct(): return await x
        x = asked_for(kc, kind, how)
        await fk.until_held(1)
        if left=='wait_for':
            with pytest.raises(TimeoutError): await asyncio.wait_for(x, .01)
        if left in ('closed', 'dropped'):
            coro = direct()
            coro.send(None)      # it waits
            if left=='closed': coro.close()
            del coro
        await fail(fk, kc, how)
        del x
        gc.collect()
        await turns()
        gc.collect()


# --- other event loops ---------------------------------------------------------------------------------------------

PROGRAM = '''
    import asyncio, sys
    where, module = sys.argv[1:]
    def nest(loop=None):
        import importlib
        importlib.import_module(module).apply(loop)

    if where=='before': nest(asyncio.new_event_loop())
    from conkernelclient import ClientClosedError, ConKernelClient
    if where=='after': nest(asyncio.new_event_loop())
    from fake_kernel import FakeKernel

    HOLD = 'fake: busy echo stream=begun hold reply idle'

    async def answers(kc):
        def three(): return kc.execute('a', reply=True), kc.execute('b', reply=True).wait(), kc.run('c')
        def check(reply, req, result):
            assert reply['content']['status']==req.reply['content']['status']==result.status=='ok' and result.text=='c'
        check(*[await o for o in three()])
        check(*await asyncio.gather(*three()))
        check(*[await asyncio.wait_for(o, 20) for o in three()])
        check(*[await asyncio.shield(o) for o in three()])
        check(*[await asyncio.create_task(o) for o in three()])
        async with asyncio.TaskGroup() as tg: tasks = [tg.create_task(o) for o in three()]
        check(*[o.result() for o in tasks])
        tasks = [asyncio.ensure_future(o) for o in three()]
        done, pending = await asyncio.wait(tasks, timeout=20)
        assert not pending
        check(*[o.result() for o in tasks])
        assert len([await o for o in asyncio.as_completed(three())])==3
        print('answers')

    async def cancels(fk, kc):
        run, queued = kc.run(HOLD), kc.run('never')
        await fk.until_held(1)
        one, other = [asyncio.create_task(o) for o in (run, run)]
        new = asyncio.create_task(queued)
        new.cancel()
        await asyncio.sleep(.01)
        one.cancel()
        await asyncio.wait([one, new])
        assert one.cancelled() and new.cancelled() and queued.cancelled() and not other.done()
        other.cancel()
        await asyncio.wait([other])
        assert other.cancelled() and run.cancelled() and run.partial.error.ename=='KeyboardInterrupt'
        try: await asyncio.wait_for(kc.run(HOLD), .1)
        except TimeoutError: pass
        else: assert False
        assert (await kc.run('next')).text=='next' and 'never' not in fk.codes
        print('cancels')

    async def failures(fk, kc):
        run, req = kc.run(HOLD), kc.execute('behind', reply=True)
        await fk.until_held(1)
        waits = [asyncio.ensure_future(o) for o in (run, run, req, req.wait())]
        await asyncio.sleep(.01)
        kc.stop_channels()
        res = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(o) for o in res]==[ClientClosedError]*4
        print('failures')

    def nested(loop, kc):
        assert loop.run_until_complete(kc.run('x')).text=='x'
        assert loop.run_until_complete(kc.execute('x', reply=True))['content']['status']=='ok'
        assert loop.run_until_complete(asyncio.gather(kc.run('x'), kc.run('y')))[1].text=='y'
        assert asyncio.run(kc.run('z')).text=='z'
        print('nested')

    async def main():
        with FakeKernel() as fk:
            kc = fk.client(ConKernelClient)
            await kc.start_channels()
            loop = asyncio.get_running_loop()
            if where=='inside':      # as in a notebook: the loop runs, a client is there, something is in flight
                early = kc.run('fake: busy stream=early hold reply idle')
                await fk.until_held(1)
                nest()
                fk.release()
                assert (await early).text=='early'
            await answers(kc)
            await cancels(fk, kc)
            if where in ('before', 'after', 'inside'): nested(loop, kc)
            await failures(fk, kc)

    if where in ('before', 'after'): nest(loop := asyncio.new_event_loop())
    if where in ('before', 'after'): loop.run_until_complete(main())
    elif where=='uvloop':
        import uvloop
        uvloop.run(main())
    else: asyncio.run(main(), debug=where=='debug')
    print('done')
'''

def program(*args):
    "Run `PROGRAM`; fails when it does, hangs, or says anything on stderr. Gives what it printed."
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', textwrap.dedent(PROGRAM), *args]
    env = os.environ|dict(PYTHONPATH=path)
    res = subprocess.run(command, capture_output=True, text=True, timeout=SOON, env=env)
    said = [o for o in res.stderr.splitlines() if not o.startswith('Executing <')]   # so it is, under load
    assert res.returncode==0 and not said, f'{res.stdout}\n{res.stderr[-3000:]}'
    return res.stdout.split()

@pytest.mark.parametrize('loop', ['asyncio', 'debug', 'uvloop'])
def test_event_loops(loop):
    if loop=='uvloop': pytest.importorskip('uvloop')
    assert program(loop, '')==['answers', 'cancels', 'failures', 'done']


@pytest.mark.parametrize('module', ['nest_asyncio', 'nest_asyncio2'])
@pytest.mark.parametrize('where', ['before', 'after', 'inside'])
def test_nested_event_loops(where, module):
    "Applied before or after the import, or in a running loop; it replaces `asyncio.Future` and `asyncio.Task`"
    pytest.importorskip(module)
    assert program(where, module)==['answers', 'cancels', 'nested', 'failures', 'done']
