"""Cells that call functions of this program: what travels, what is cancelled, who may call, and the hard orders of it all."""
import asyncio, json, threading, time
from contextlib import asynccontextmanager

import ipykernel, pytest
from conkernelclient import *
from conkernelclient.models.tools import json_schema, parameter_comments, tool_schemas
from fake_kernel import FakeKernel
from fault_tools import pytestmark

both_transports = 'slow'
bound = 60
SOON = 30   # seconds: far more than anything here takes
at_once = pytest.mark.skipif(ipykernel.version_info < (7, 4), reason='this ipykernel takes no comm message while a cell awaits: one call at a time')

async def until(test, seconds=SOON):
    async with asyncio.timeout(seconds):
        while not test(): await asyncio.sleep(.005)

async def printed(kc, code, **kwargs):
    "What a cell prints; its error where it fails"
    res = await asyncio.wait_for(kc.run(code, **kwargs), SOON)
    assert res.error is None, f'{res.error.ename}: {res.error.evalue}'
    return res.stdout

class Held:
    "A function of the host that is at work until it is let go, or cancelled"
    def __init__(self): self.begun, self.ended, self.go, self.how = 0, 0, asyncio.Event(), []
    async def __call__(self, value=None):
        self.begun += 1
        try:
            await self.go.wait()
            self.how.append('done')
            return value
        except asyncio.CancelledError:
            self.how.append('cancelled')
            raise
        finally: self.ended += 1

async def echo(*args, **kwargs): return dict(args=list(args), kwargs=kwargs)
def plain_echo(*args, **kwargs): return dict(args=list(args), kwargs=kwargs)
WAYS = ['awaited', 'plain']

async def given(kc, way, **functions):
    "Give functions to the cells: (what stands before a call, arguments for `run`)"
    if way == 'awaited': return 'await ', dict(tools=functions)
    await kc.expose(sync=True, **functions)
    return '', {}


# Values

VALUES = [None, True, 0, -1.5, 'ü€😀\n\x00"\\', [], {}, [1, [2, [3, dict(a=[None, dict(b='c')])]]], 'x'*300_000, {'': ' '}, '\x04', 'conkernelclient:tool:x']

@pytest.mark.parametrize('way', WAYS)
async def test_json_travels(kc, way):
    pre, how = await given(kc, way, echo=echo if way == 'awaited' else plain_echo)
    code = f'import json\nfor v in json.loads({json.dumps(VALUES)!r}):\n    assert ({pre}echo(v, k=v)) == dict(args=[v], kwargs=dict(k=v)), v\nprint("same")'
    assert await printed(kc, code, **how) == 'same\n'

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('sync', [False, True])
async def test_sync_and_async_functions(kc, way, sync):
    pre, how = await given(kc, way, f=plain_echo if sync else echo)
    assert await printed(kc, f"print(({pre}f(1))['args'])", **how) == '[1]\n'

@pytest.mark.parametrize('way', WAYS)
async def test_what_cannot_travel(kc, way):
    "Wrong arguments, and values that are no JSON, are errors in the cell; the next call works"
    async def f(a, *, b=1): return {1, 2} if a == 'set' else a
    pre, how = await given(kc, way, f=f)
    code = f'''
def say(e): print(type(e).__name__, str(e)[:60])
circle = []
circle.append(circle)
for args, kwargs in [((), {{}}), ((1, 2), {{}}), ((1,), dict(c=1)), ((1j,), {{}}), ((circle,), {{}}), (('set',), {{}})]:
    try: {pre}f(*args, **kwargs)
    except Exception as e: say(e)
print({pre}f(5, b=2))'''
    lines = (await printed(kc, code, **how)).splitlines()
    assert [o.split()[0] for o in lines] == ['TypeError']*6+['5']
    assert 'missing' in lines[0] and 'too many' in lines[1] and "'c'" in lines[2] and 'must be JSON' in lines[3] and 'returned' in lines[5]

class Special(Exception): pass
ERRORS = [(ValueError('no'), 'ValueError', 'no'), (KeyError('k'), 'KeyError', "'k'"), (OSError(2, 'gone'), 'FileNotFoundError', '[Errno 2] gone'),
          (Special('what'), 'HostError', 'Special: what'), (ValueError('long '*50_000), 'ValueError', 'long '*50_000),
          (UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'), 'HostError', None), (StopIteration(1), None, None), (SystemExit(3), 'HostError', 'SystemExit: 3'),
          (asyncio.CancelledError('c'), 'HostError', 'CancelledError: c'), (ValueError(object), 'ValueError', "<class 'object'>"), (Special(), 'HostError', 'Special')]

@pytest.mark.parametrize('way', WAYS)
async def test_exceptions(kc, way):
    "The host's exception has its kind where that is built in, and its message whole"
    async def f(i): raise ERRORS[i][0]
    pre, how = await given(kc, way, f=f)
    for i, (_, kind, message) in enumerate(ERRORS):
        res = await asyncio.wait_for(kc.run(f'{pre}f({i})', **how), SOON)
        assert res.status == 'error' and (kind is None or res.error.ename == kind)
        assert message is None or res.error.evalue == message
    assert res.error.ename == 'HostError' and kc.host_tools.calls == {}

async def test_help_and_signature(kc):
    async def look(query: str, /, limit: 'Unknown' = 3, *more, deep: bool = False, **rest) -> 'Titles':
        "Look for it"
    code = 'import inspect\nprint(inspect.signature(look), inspect.iscoroutinefunction(look), look.__doc__)'
    assert await printed(kc, code, tools=dict(look=look)) == "(query: str, /, limit: Unknown = 3, *more, deep: bool = False, **rest) -> Titles True Look for it\n"
    assert 'Look for it' in (await printed(kc, 'help(look)', tools=dict(look=look)))


# Many at once

@at_once
async def test_fifty_at_once(kc):
    "Each waits until all are there"
    barrier = asyncio.Barrier(50)
    async def meet(i):
        await barrier.wait()
        return i
    code = 'import asyncio\nprint(sum(await asyncio.gather(*[meet(i) for i in range(50)])))'
    assert await printed(kc, code, tools=dict(meet=meet)) == '1225\n'

async def test_more_than_the_window(kc):
    "A thousand comm messages may be on the wire: a cell gets more answers than that"
    code = 'import asyncio\nfor _ in range(2): print(len(await asyncio.gather(*[echo(i) for i in range(1100)])))\nfor _ in range(400): await echo()'
    assert await printed(kc, code, tools=dict(echo=echo)) == '1100\n1100\n'

@at_once
async def test_a_call_that_was_lost_is_sent_again(kc):
    "Each call is made once, also where it waits for long"
    held, made = Held(), []
    async def f(i):
        made.append(i)
        return i
    heard, lost = kc.host_tools.connection.router.on_comm, []
    def lossy(msg):
        if (msg['content'].get('data') or {}).get('content') and len(lost) < 5: lost.append(msg)
        else: heard(msg)
    kc.host_tools.connection.router.on_comm = lossy
    run = kc.run('import asyncio\nprint(await asyncio.gather(held(7), *[f(i) for i in range(9)]))', tools=dict(f=f, held=held))
    await until(lambda: len(made) == 9 and held.begun)
    await until(lambda: kc.host_tools.seen)
    held.go.set()
    assert (await asyncio.wait_for(run, SOON)).stdout == f'{[7, *range(9)]}\n'
    assert len(lost) == 5 and sorted(made) == list(range(9)) and held.begun == 1

@at_once
async def test_plain_functions_do_not_block(kc):
    "They meet in threads, while the loop goes on"
    barrier = threading.Barrier(3)
    def meet(): return barrier.wait(SOON) >= 0
    code = 'import asyncio\nprint(await asyncio.gather(meet(), meet()))'
    run = kc.run(code, tools=dict(meet=meet))
    await until(lambda: barrier.n_waiting == 2)
    await asyncio.to_thread(barrier.wait, SOON)
    assert (await run).stdout == '[True, True]\n'


# What ends a call

@at_once
async def test_the_cell_ends_first(kc):
    "A call that nobody awaits ends with its cell, and prints nothing"
    held = Held()
    res = await printed(kc, 'import asyncio\ntask = asyncio.create_task(held())\nwhile not await count(): await asyncio.sleep(.01)', tools=dict(held=held, count=lambda: held.begun))
    await until(lambda: held.ended == 1 and not kc.host_tools.calls)
    assert held.how == ['cancelled']
    assert await printed(kc, 'import asyncio\nawait asyncio.wait([task])\nprint(task.cancelled())') == 'True\n'

@at_once
async def test_given_up_in_the_kernel(kc):
    "`wait_for` in the cell cancels the host's function; the cell goes on"
    held = Held()
    code = 'import asyncio\ntry: await asyncio.wait_for(held(), .2)\nexcept TimeoutError: print("gave up")\nprint(await done())'
    async def done(): return await until(lambda: held.ended) or held.how
    assert await printed(kc, code, tools=dict(held=held, done=done)) == "gave up\n['cancelled']\n"

@pytest.mark.parametrize('way', WAYS)
async def test_interrupt(kc, way):
    held = Held()
    pre, how = await given(kc, way, held=held, echo=echo)
    run = kc.run(f'kept = 6\n{pre}held()', **how)
    await until(lambda: held.begun)
    await run.interrupt()
    res = await asyncio.wait_for(run, SOON)
    assert res.status == 'error' and res.error.ename in ('KeyboardInterrupt', 'CancelledError')
    await until(lambda: held.ended)
    assert held.how == ['cancelled'] and await printed(kc, f"print(kept, ({pre}echo(1))['args'])", **how) == '6 [1]\n'

GATHERED = 'import asyncio\nasync def f(i): return held(i)\nawait asyncio.gather(f(1), f(2))'

@pytest.mark.parametrize('code', ['await asyncio.sleep(0)\nheld()', 'async def f(): held()\nawait f()', GATHERED])
async def test_a_plain_call_in_a_cell_that_awaits(kc, code):
    "ipykernel's interrupt changes nothing there; the host stops the call, and the kernel lives on"
    held = Held()
    await kc.expose(held=held, sync=True)
    run = kc.run(f'import asyncio\nkept = 7\n{code}')
    for i in range(2 if code is GATHERED else 1):
        await until(lambda: held.begun > i)
        await asyncio.sleep(.25*i)   # a second interrupt within 0.2 s is none
        await run.interrupt()
    res = await asyncio.wait_for(run, SOON)
    assert res.status == 'error' and res.error.ename in ('KeyboardInterrupt', 'CancelledError')
    assert await printed(kc, 'print(kept)') == '7\n'

@pytest.mark.parametrize('way', WAYS)
async def test_cancel_and_time_limit(kc, way):
    held = Held()
    pre, how = await given(kc, way, held=held)
    run = kc.run(f'{pre}held()', **how)
    await until(lambda: held.begun)
    run.cancel()
    with pytest.raises(asyncio.CancelledError): await asyncio.wait_for(run, SOON)
    with pytest.raises(ExecutionTimeout): await asyncio.wait_for(kc.run(f'{pre}held()', timeout=.3, **how), SOON)
    await until(lambda: held.ended == held.begun == 2)
    assert held.how == ['cancelled']*2

@pytest.mark.parametrize('late', [False, True])
async def test_the_answer_to_an_interrupted_call_answers_nothing_else(kc, late):
    "The cell catches the interrupt and asks its user; an answer to the call that comes late is dropped"
    held = Held()
    await kc.expose(held=held, sync=True)
    async def user(prompt): return 'right'
    run = kc.run('try: held("wrong")\nexcept KeyboardInterrupt: print(input("who? "), input("and? "))', stdin=user)
    await until(lambda: held.begun)
    if late:   # the answer is sent, whatever the kernel has said meanwhile
        send = kc.runs.input
        def first(text, msg):
            send('conkernelclient:tool:old/1 {"value": "wrong"}', msg)
            send(text, msg)
        kc.runs.input = first
    await run.interrupt()
    held.go.set()
    assert (await asyncio.wait_for(run, SOON)).stdout == 'right right\n'
    if late: kc.runs.input = send
    assert await printed(kc, 'print(held(3))') == '3\n'

@pytest.mark.parametrize('way', WAYS)
async def test_death(way):
    held = Held()
    async with run_kernel() as (km, kc):
        pre, how = await given(kc, way, held=held)
        run = kc.run(f'{pre}held()', **how)
        await until(lambda: held.begun)
        await km.signal_kernel(9)
        with pytest.raises(DeadKernelError): await asyncio.wait_for(run, SOON)
        await until(lambda: held.ended and not kc.host_tools.calls)
        assert held.how == ['cancelled']

async def test_restart_and_expose_again():
    held = Held()
    async with run_kernel() as (km, kc):
        await kc.expose(echo, sync=True, held=held)
        run = kc.run('held()')
        await until(lambda: held.begun)
        await kc.restart()
        with pytest.raises(KernelRestartedError): await run
        await until(lambda: held.ended)
        assert held.how == ['cancelled']
        assert (await kc.run('echo(1)')).error.ename == 'NameError'
        await kc.expose(echo, sync=True)
        assert list(kc.host_tools.exposed) == ['echo']
        assert await printed(kc, "print(echo(1)['args'], (await f(2))['args'])", tools=dict(f=echo)) == '[1] [2]\n'

async def test_the_client_is_closed(shared):
    held = Held()
    kc = shared()
    await kc.start_channels()
    run = kc.run('import asyncio\nawait asyncio.wait_for(held(), 60)', tools=dict(held=held))
    await until(lambda: held.begun)
    await kc.interrupt()   # the kernel is for other tests too
    await run.settled()
    kc.stop_channels()
    await until(lambda: held.ended)
    assert held.how == ['cancelled']


# Who may call

@at_once
async def test_another_cell_is_refused(kc):
    "Tools of an earlier cell, also in a task that it has left behind"
    code = 'import asyncio\nasync def later():\n    await asyncio.sleep(.2)\n    return await echo()\ntask = asyncio.create_task(later())'
    await printed(kc, code, tools=dict(echo=echo))
    res = await kc.run('await echo()')
    assert res.error.ename == 'RuntimeError' and 'no tool of this cell' in res.error.evalue
    res = await kc.run('await task')
    assert res.error.ename == 'RuntimeError' and 'only while its cell runs' in res.error.evalue
    assert await printed(kc, "print((await echo(2))['args'])", tools=dict(echo=echo)) == '[2]\n'

@pytest.mark.parametrize('way', WAYS)
async def test_two_clients(shared, way):
    "What one has exposed does not answer cells of the other; both may have a function of one name, in turn"
    a, b = shared(), shared()
    try:
        await a.start_channels()
        await b.start_channels()
        pre = 'await ' if way == 'awaited' else ''
        await a.expose(who=lambda: 'a', sync=way == 'plain')
        res = await asyncio.wait_for(b.run(f'{pre}who()', stdin=['never']), SOON)
        assert res.error.ename == 'RuntimeError' and 'client that gave it' in res.error.evalue
        assert await printed(a, f'print({pre}who())') == 'a\n'
        await b.expose(who=lambda: 'b', sync=way == 'plain')
        assert await printed(b, f'print({pre}who())') == 'b\n'
    finally:
        a.stop_channels()
        b.stop_channels()

@pytest.mark.parametrize('way', WAYS)
async def test_a_raw_request_is_refused(kc, way):
    pre = 'await ' if way == 'awaited' else ''
    await kc.expose(echo, sync=way == 'plain')
    reply = await asyncio.wait_for(kc.request('execute_request', dict(code=f'{pre}echo()', silent=False, store_history=False, user_expressions={}, allow_stdin=False, stop_on_error=False)), SOON)
    assert reply['content']['ename'] == 'RuntimeError' and 'kc.run' in reply['content']['evalue']

async def test_users_prompts_go_to_the_user(kc):
    await kc.expose(add=lambda a, b: a+b, sync=True)
    asked = []
    def user(prompt):
        asked.append(prompt)
        return '5'
    assert await printed(kc, 'print(add(int(input("a? ")), add(1, int(input("b? ")))))', stdin=user) == '11\n'
    assert asked == ['a? ', 'b? ']
    res = await kc.run('print(add(1, 2))\ninput()')
    assert res.stdout == '3\n' and res.error.ename == 'StdinNotImplementedError'


# Threads and subshells

THREADS = '''
import threading
got = []
def work(i): got.append(add(i, 1))
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for o in threads: o.start()
mine = [add(i, 100) for i in range(8)]
for o in threads: o.join()
print(sorted(got), mine)
'''

async def test_threads_of_the_kernel(kc):
    "Plain calls of threads, beside those of the cell: each gets its own answer"
    await kc.expose(add=lambda a, b: a+b, sync=True)
    assert await printed(kc, THREADS) == f'{list(range(1, 9))} {list(range(100, 108))}\n'

async def test_an_event_loop_in_a_thread(kc):
    "Its cell waits for the thread, and can take no comm message: the call goes another way"
    code = '''
import asyncio, threading
got = []
async def two(): got.append([o['args'] for o in await asyncio.gather(echo(1), echo(2))])
thread = threading.Thread(target=lambda: asyncio.run(two()))
thread.start()
thread.join()
print(got)'''
    assert await printed(kc, code, tools=dict(echo=echo)) == '[[[1], [2]]]\n'

async def test_subshells(start_kernel):
    "Cells beside each other, with tools of one name: each calls its own"
    async with start_kernel() as (km, kc):
        held = Held()
        run = kc.run('print(await held(1))', tools=dict(held=held))
        await until(lambda: held.begun)
        async with kc.subshell() as one, kc.subshell() as two:
            a, b = asyncio.Event(), asyncio.Event()
            async def first(): a.set(); await b.wait(); return 'first'
            async def second(): b.set(); await a.wait(); return 'second'
            code = 'await here()\nprint(await f())'
            there = asyncio.Barrier(2)
            async def here(): await there.wait()   # both cells have their tools when either calls
            both = [o.run(code, tools=dict(f=f, here=here)) for o, f in ((one, first), (two, second))]
            res = await asyncio.wait_for(asyncio.gather(*both), SOON)
            assert [o.stdout for o in res] == ['first\n', 'second\n']
            await two.run('def f(x): return x')
        held.go.set()
        assert (await run).stdout == '1\n'

async def test_plain_calls_on_a_subshell(start_kernel):
    "Beside a plain call of the main shell; a run that is given up there gets its end, for no interrupt reaches it"
    async with start_kernel() as (km, kc):
        held = Held()
        await kc.expose(held=held, double=lambda o: 2*o, sync=True)
        async with kc.subshell() as sh:
            assert (await asyncio.wait_for(sh.run('print([double(i) for i in range(5)])'), SOON)).stdout == '[0, 2, 4, 6, 8]\n'
            run = sh.run('held()')
            await until(lambda: held.begun)
            run.cancel()
            with pytest.raises(asyncio.CancelledError): await asyncio.wait_for(run, SOON)
            await until(lambda: held.ended)
            assert (await asyncio.wait_for(sh.run('print(double(4))'), SOON)).stdout == '8\n'


# Other kernels

async def test_an_older_ipykernel():
    "Without comms during a cell, awaited calls go by prompts"
    async with run_kernel() as (km, kc):
        await kc.run('import ipykernel\nipykernel.version_info = (7, 3, 0)')
        code = 'import asyncio\nprint([o["args"] for o in await asyncio.gather(*[echo(i) for i in range(3)])], input("? "))'
        assert await printed(kc, code, tools=dict(echo=echo), stdin=['user']) == '[[0], [1], [2]] user\n'
        held = Held()
        run = kc.run('await held()', tools=dict(held=held))
        await until(lambda: held.begun)
        await run.interrupt()
        assert (await asyncio.wait_for(run, SOON)).status == 'error'
        await until(lambda: held.ended)

@asynccontextmanager
async def fake(on=None, **kwargs):
    async with FakeKernel(on, **kwargs) as fk:
        kc = fk.client(ConKernelClient, lost_after=.1)
        await kc.start_channels()
        try: yield fk, kc
        finally: kc.stop_channels()

async def test_another_language():
    async with fake() as (fk, kc):
        kc.connection.info['language_info'] = dict(name='R')
        with pytest.raises(UnsupportedFeature, match='runs R'): await asyncio.wait_for(kc.run('1', tools=dict(echo=echo)), SOON)
        with pytest.raises(UnsupportedFeature, match='runs R'): await asyncio.wait_for(kc.expose(echo), SOON)

async def test_python_without_ipykernel(kc):
    "The definition fails: the cell ends with a word that says why"
    await kc.run('import sys, builtins\nhidden = {k: sys.modules.pop(k) for k in list(sys.modules) if k.startswith("_conkernelclient_tools")}\nsys.modules["comm"], kept = None, sys.modules["comm"]')
    try:
        with pytest.raises(UnsupportedFeature, match='needs ipykernel'): await asyncio.wait_for(kc.expose(echo), SOON)
        with pytest.raises(UnsupportedFeature, match='needs ipykernel'): await asyncio.wait_for(kc.run('await echo()', tools=dict(echo=echo)), SOON)
    finally: await kc.run('sys.modules["comm"] = kept\nsys.modules.update(hidden)')
    assert await printed(kc, 'print((await echo(1))["args"])', tools=dict(echo=echo)) == '[1]\n'

@pytest.mark.parametrize('tools,error', [({'a b': echo}, ValueError), ({'class': echo}, ValueError), (dict(f=3), TypeError), ([echo], TypeError)])
async def test_bad_tools(kc, tools, error):
    with pytest.raises(error): await asyncio.wait_for(kc.run('1', tools=tools), SOON)
    assert await printed(kc, 'print(1)') == '1\n'


# Without asyncio, and schemas

def test_sync_face():
    with open_kernel() as k:
        assert k.run("print((await f(1))['args'])", tools=dict(f=plain_echo)).stdout == '[1]\n'
        k.expose(plain_echo, sync=True, add=lambda a, b: a+b)
        assert k.run("print(plain_echo(1)['args'], add(1, 2))").stdout == '[1] 3\n'

def test_schemas():
    from typing import Annotated, Any, Literal, Optional
    def f(
        a: str, # First
        b: Optional[int] = None, # Second
        *more: int, # No argument for a model
        c: Annotated[Literal['x', 'y'], 'Which'] = 'x', d: list[dict[str, float]] = (), e: 'Nowhere' = 1, # Fifth
        g=True,
    ) -> int: # The sum
        "Do it"
    schema, = tool_schemas(f)
    assert schema['name'] == 'f' and schema['description'] == 'Do it\nReturns: The sum'
    shape = schema['input_schema']
    assert shape['required'] == ['a'] and list(shape['properties']) == ['a', 'b', 'c', 'd', 'e', 'g']
    assert shape['properties']['a'].get('description') == 'First' and shape['properties']['g'] == dict(default=True)
    assert shape['properties']['e'] == dict(description='Fifth', default=1)
    json.dumps(schema)
    assert json_schema(Optional[int]) == dict(anyOf=[dict(type='integer'), dict(type='null')])
    assert json_schema(Annotated[str, 'what']) == dict(type='string', description='what')
    assert json_schema(list[dict[str, float]]) == dict(type='array', items=dict(type='object', additionalProperties=dict(type='number')))
    assert json_schema(Any) == json_schema(Special) == {}
    assert tool_schemas(len)[0]['input_schema']['required'] == ['obj'] and parameter_comments(print) == {}


# Functions of the host that misbehave, and calls at the wrong time

@pytest.mark.parametrize('way', WAYS)
async def test_functions_that_hang_hold_up_no_other(kc, way):
    "Their cells give up; more of them than there are threads in a pool, and the next call is answered"
    go = threading.Event()
    held = Held()
    pre, how = await given(kc, way, hang=go.wait, held=held, quick=lambda: 'quick')
    async def begun(n): await until(lambda: sum(o.name == 'tool wait' for o in threading.enumerate()) >= n)
    try:
        before = sum(o.name == 'tool wait' for o in threading.enumerate())
        for i in range(12):
            run = kc.run(f'{pre}hang()', **how)
            await begun(before+i+1)
            run.cancel()
            await run.settled()
        assert await printed(kc, f'print({pre}quick())', **how) == 'quick\n'
    finally: go.set()
    await begun(0)

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('sync', [False, True])
async def test_whatever_a_function_raises_the_cell_gets_an_answer(kc, way, sync):
    class Mute(Exception):
        def __str__(self): raise ValueError('no text')
    errors = [GeneratorExit('g'), BaseExceptionGroup('two', [KeyboardInterrupt()]), Mute('m')]
    def f(i): raise errors[i]
    async def g(i): raise errors[i]
    pre, how = await given(kc, way, f=f if sync else g)
    code = f'for i in range(3):\n    try: {pre}f(i)\n    except Exception as e: print(type(e).__name__, str(e)[:20])'
    assert await printed(kc, code, **how) == 'HostError GeneratorExit: g\nHostError BaseExceptionGroup: \nHostError Mute\n'

@pytest.mark.parametrize('way', WAYS)
async def test_values_that_only_one_side_can_read(kc, way):
    "So deep, or so long, that the parser of the other side gives up: an error, and no cell that waits forever"
    def nested(n):
        res = []
        for _ in range(n): res = [res]
        return res
    class Odd(dict):
        def items(self): raise RuntimeError('no items')
    def f(n): return {1: nested, 2: lambda _: Odd(a=1), 3: lambda _: 10**5000}[n%10](n)
    pre, how = await given(kc, way, f=f)
    code = f'''
import sys
for n in (2, 3, *range(601, 1400, 10), 100_001):
    try: {pre}f(n)
    except TypeError as e: last = str(e)
print(last)
deep = []
for i in range(100_000): deep = [deep]
for o in (deep, 10**5000):
    try: {pre}f(o)
    except TypeError as e: print(e)
sys.set_int_max_str_digits(0)
try: {pre}f(10**5000)
except ValueError as e: print(e)
finally: sys.set_int_max_str_digits(4300)
print({pre}f(1))'''
    value, *arguments, unread, whole = (await printed(kc, code, **how)).splitlines()
    assert 'of the host returned what is no JSON' in value and ['must be JSON' in o for o in arguments] == [True, True]
    assert '4300 digits' in unread and whole == '[[]]'

async def test_a_signature_that_cannot_be_shown(kc):
    class Mute:
        def __repr__(self): raise ValueError('no text')
    def f(x=Mute()) -> Mute(): return 1
    assert await printed(kc, 'import inspect\nprint(await f(), inspect.signature(f))', tools=dict(f=f)) == '1 (x=…) -> …\n'

LATER = '''
import threading
got = []
def work():
    for _ in range(3):
        go.wait()
        try: got.append(add(1, 2))
        except Exception as e: got.append(f'{type(e).__name__}: {e}')
go = threading.Event()
thread = threading.Thread(target=work)
thread.start()
'''

async def test_a_thread_that_calls_after_its_cell(kc):
    "It is refused. Were it left waiting, each call and each prompt after it would wait, too."
    await kc.expose(add=lambda a, b: a+b, sync=True)
    await printed(kc, LATER)
    await kc.request('execute_request', dict(code='go.set()', silent=True, store_history=False, user_expressions={}, allow_stdin=False, stop_on_error=False))
    assert await printed(kc, 'print(add(3, 4), input("? "))', stdin=['user']) == '7 user\n'
    got = await printed(kc, 'thread.join()\nprint(len(got), *set(got), sep="\\n")')
    assert got.startswith('3\n') and 'RuntimeError' in got

@at_once
async def test_a_cell_ends_while_its_thread_waits_for_an_answer(kc):
    held = Held()
    await kc.expose(held=held, add=lambda a, b: a+b, sync=True)
    code = LATER.replace('add(1, 2)', 'held(1)').replace('range(3)', 'range(1)')
    await printed(kc, f'import asyncio\n{code}go.set()\nwhile not await begun(): await asyncio.sleep(.01)', tools=dict(begun=lambda: held.begun))
    await until(lambda: held.ended)
    assert await printed(kc, 'print(add(3, 4), input("? "))', stdin=['user']) == '7 user\n'
    assert (await printed(kc, 'thread.join(20)\nprint(thread.is_alive(), got)')).startswith('False')
    assert held.how == ['cancelled']

async def test_two_clients_at_the_same_time(shared):
    "Both define a function of one name while the kernel is busy: each cell calls its own client's"
    a, b, c = shared(), shared(), shared()
    try:
        for o in a, b, c: await o.start_channels()
        for _ in range(6):
            busy = c.run('import time\ntime.sleep(.1)')
            await until(lambda: busy.state == 'running')
            runs = [o.run('print(await f())', tools=dict(f=lambda name=name: name)) for o, name in ((a, 'a'), (b, 'b'))]
            assert [o.stdout for o in await asyncio.wait_for(asyncio.gather(*runs), SOON)] == ['a\n', 'b\n']
            await busy
    finally:
        for o in a, b, c: o.stop_channels()

async def test_a_tool_does_not_hide_an_exposed_function(kc):
    await kc.expose(f=lambda: 'plain', sync=True)
    with pytest.raises(ValueError, match='another name'): await asyncio.wait_for(kc.run('await f()', tools=dict(f=echo)), SOON)
    assert await printed(kc, 'print(f())') == 'plain\n'
    await kc.expose(f=echo)
    assert await printed(kc, 'print((await f(1))["args"])', tools=dict(f=echo)) == '[1]\n'

@pytest.mark.parametrize('sync', [False, True])
async def test_a_thousand_calls_and_the_end_of_their_kernel(sync):
    "A restart in the middle cancels all of them; the next cell calls again"
    held = Held()
    stop = threading.Event()
    async with run_kernel() as (km, kc):
        f = stop.wait if sync else held
        try:
            run = kc.run('import asyncio\nawait asyncio.gather(*[f(i) for i in range(1000)])', tools=dict(f=lambda i: f(), n=len) if sync else dict(f=f))
            await until(lambda: len(kc.host_tools.calls) == 1000)
            await kc.restart()
            with pytest.raises(KernelRestartedError): await run
            await until(lambda: not kc.host_tools.calls and held.begun == held.ended)
            assert await printed(kc, "print((await f(2))['args'])", tools=dict(f=plain_echo)) == '[2]\n'
        finally: stop.set()
