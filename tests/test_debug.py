"""The debugger: on a real kernel what it does, and on scripted ones the hard orders of events, requests and ends."""
import asyncio, socket

import pytest
from conkernelclient import (ConKernelClient, DeadKernelError, DebugError, Debugger, ExecutionTimeout, KernelRestartedError, ReplyTimeout,
                             Result, Stopped, UnsupportedFeature, open_server_kernel, run_kernel)
from conkernelclient.cells.debug import Breakpoint, Value
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import pytestmark
from proxy import Jupyter

bound = 60
CODE = '''def double(n):
    m = n*2
    return m
total = 0
for n in range(5):
    total += double(n)
total'''


def soon(awaitable): return asyncio.wait_for(asyncio.ensure_future(awaitable), SOON)
def place(stop): return stop.reason, [(o.name, o.line) for o in stop.frames]

async def outcome(awaitable):
    try: return await soon(awaitable)
    except (Exception, asyncio.CancelledError) as e: return e


# --- a real kernel ----------------------------------------------------------------------------------------------------

async def test_a_walk():
    async with run_kernel() as (km, kc):
        events = []
        async with kc.debug() as dbg:
            remove = dbg.on_event(lambda e: events.append(e['event']))
            assert await soon(dbg.breakpoints(CODE, {2: 'n>2'}))==[Breakpoint(2, True)]
            stop = await soon(dbg.run(CODE))
            assert isinstance(stop, Stopped) and place(stop)==('breakpoint', [('double', 2), ('<module>', 6)])
            assert await stop.locals()=={'n': Value('3', 'int')} and (await stop.locals(1))['total'].literal()==6
            assert (await stop.eval('n*7')).literal()==21 and str(await stop.eval('total', frame=1))=='6'
            with pytest.raises(DebugError, match='ZeroDivisionError'): await stop.eval('n/0')
            with pytest.raises(ValueError, match='no frame 2'): await stop.eval('n', frame=2)
            parts = await stop.fields(await stop.eval('[10, dict(a=1)]'))
            assert parts['0']==Value('10', 'int') and await stop.fields(parts['0'])=={}
            assert kc.status=='busy' and await soon(kc.aside.eval('total'))==6
            later = await soon(stop.next())
            assert place(later)==('step', [('double', 3), ('<module>', 6)]) and (await later.locals())['m'].text=='6'
            assert not stop.here and later.here
            for ask in stop.go, stop.locals, stop.next: 
                with pytest.raises(DebugError, match='has gone on'): await ask()
            out = await soon(later.out())
            assert place(out)[1]==[('<module>', 6)]
            again = await soon(out.go())
            assert place(again)[1][0]==('double', 2) and (await again.eval('n')).text=='4'
            await dbg.breakpoints(CODE, [])
            res = await soon(again.go())
            assert isinstance(res, Result) and res.text.strip()=='20'
            assert (await soon(dbg.run(CODE))).text.strip()=='20'
            inner = 'double(1)\ndouble(2)'
            await dbg.breakpoints(inner, {1: None})
            step = await soon((await soon(dbg.run(inner))).step())
            assert place(step)[1][0]==('double', 2)
            remove()
        assert events.count('stopped')==6 and kc.debugger is None
        with pytest.raises(DebugError, match='inside its block'): await dbg.request('threads')
        assert (await soon(step.run)).status=='ok', 'the cell that was left at a breakpoint goes on'
        assert (await soon(kc.run(CODE))).text.strip()=='20'


async def test_a_step_that_outlives_its_cell_stops_no_other():
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            await dbg.breakpoints('a = 1\nb = 2', [2])
            stop = await soon(dbg.run('a = 1\nb = 2'))
            assert isinstance(await soon(stop.next()), Result)
            assert (await soon(kc.run('6*7'))).text.strip()=='42'
            stop = await soon(dbg.run('a = 1\nb = 2'))
            assert isinstance(await soon(stop.step()), Result)
            assert isinstance(await soon(dbg.run('a')), Result)
            assert place(await soon(dbg.run('a = 1\nb = 2')))==('breakpoint', [('<module>', 2)])
        assert (await soon(kc.run('6*7'))).text.strip()=='42'


@pytest.mark.parametrize('how', ['interrupt', *[pytest.param(o, marks=pytest.mark.slow) for o in ('cancel', 'button', 'timeout')]])
async def test_an_interrupt_at_a_breakpoint(how):
    "The cell ends precisely, and the next one stops again"
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            await dbg.breakpoints(CODE, [2])
            for _ in range(2):
                stop = await soon(dbg.run(CODE, timeout=3 if how=='timeout' else None, count_stops=how=='timeout'))
                assert place(stop)[1][0]==('double', 2)
                if how=='interrupt': assert await soon(stop.run.interrupt()) is True
                elif how=='button': await soon(kc.interrupt())
                elif how=='cancel': stop.run.cancel()
                ended = await outcome(stop.run)
                if how=='timeout': assert isinstance(ended, ExecutionTimeout)
                elif how=='cancel': assert isinstance(ended, asyncio.CancelledError)
                else: assert ended.error.ename=='KeyboardInterrupt'
                assert not stop.here
                with pytest.raises(DebugError): await stop.go()
            stop = await soon(dbg.run(CODE))
            await dbg.breakpoints(CODE, {})
            assert (await soon(stop.go())).text.strip()=='20'
        assert (await soon(kc.request('kernel_info_request', channel='control')))['content']['status']=='ok'


async def test_an_interrupt_and_go_at_the_same_time():
    "Whatever comes first: the cell ends, and neither the control channel nor the debugger is stuck"
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            await dbg.breakpoints(CODE, [2])
            for _ in range(4):
                stop = await soon(dbg.run(CODE))
                going, _ = await asyncio.gather(outcome(stop.go()), outcome(stop.run.interrupt()))
                if isinstance(going, Stopped): stop.run.cancel()
                await outcome(stop.run)
                await soon(kc.request('kernel_info_request', channel='control'))
            assert isinstance(await soon(dbg.run(CODE)), Stopped)


async def test_a_restart_at_a_breakpoint():
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            await dbg.breakpoints(CODE, [2])
            stop = await soon(dbg.run(CODE))
            await soon(kc.restart())
            assert isinstance(await outcome(stop.run), KernelRestartedError)
            for ask in stop.go, stop.locals, lambda: dbg.run('1'), lambda: dbg.breakpoints(CODE, [1]), lambda: dbg.request('threads'):
                with pytest.raises(KernelRestartedError, match='kc.debug'): await soon(ask())
        async with kc.debug() as dbg:
            await dbg.breakpoints(CODE, [2])
            assert place(await soon(dbg.run(CODE)))[1][0]==('double', 2)


async def test_a_death_at_a_breakpoint():
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            await dbg.breakpoints(CODE, [2])
            stop = await soon(dbg.run(CODE))
            asked = asyncio.ensure_future(outcome(kc.aside.run('import os; os._exit(3)')))
            assert 'exit code 3' in str(await outcome(stop.run)) and isinstance(await asked, DeadKernelError)
            for ask in stop.go, lambda: dbg.run('1'): assert isinstance(await outcome(ask()), (DeadKernelError, DebugError))
            assert isinstance(await outcome(dbg.request('threads')), DeadKernelError)


async def test_one_client_at_a_time():
    async with run_kernel() as (km, kc):
        async with kc.debug() as dbg:
            with pytest.raises(DebugError, match='This client'): await kc.debug().__aenter__()
            await dbg.breakpoints(CODE, [2])
            other = await km.client().start_channels()
            stop = await soon(dbg.run(CODE))
            try:
                with pytest.raises(DebugError, match='take_over=True'): await soon(other.debug().__aenter__())
                assert stop.here, 'nobody was disturbed'
                await dbg.breakpoints(CODE, [])
                assert (await soon(stop.go())).status=='ok'
                async with other.debug(take_over=True) as theirs:
                    await until(lambda: dbg.ended)
                    for ask in lambda: dbg.run(CODE), lambda: dbg.request('threads'):
                        with pytest.raises(DebugError, match='Another client'): await soon(ask())
                    await theirs.breakpoints(CODE, [3])
                    assert place(await soon(theirs.run(CODE)))[1][0]==('double', 3)
            finally: other.stop_channels()
        async with kc.debug() as dbg: assert (await soon(dbg.run('6*7'))).text.strip()=='42'


async def test_an_exception_leaves_no_cell_behind():
    async with run_kernel() as (km, kc):
        kc.interrupt_timeout = 10.
        code = 'import time\nfor i in range(6000):\n    time.sleep(.01)'
        with pytest.raises(ZeroDivisionError):
            async with kc.debug() as dbg:
                await dbg.breakpoints(code, [3])
                stop = await soon(dbg.run(code))
                1/0
        assert isinstance(await outcome(stop.run), asyncio.CancelledError)
        assert (await soon(kc.run('6*7'))).text.strip()=='42'


async def test_a_port_that_somebody_took():
    "ipykernel has looked for a free port, and another program listens there when debugpy wants to"
    async with run_kernel() as (km, kc):
        port = await kc.eval('get_ipython().kernel.debugger.debugpy_client.get_host_port()[1]')
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', int(port)))
            taken.listen()
            async with kc.debug() as dbg:
                await dbg.breakpoints(CODE, [2])
                assert place(await soon(dbg.run(CODE)))[1][0]==('double', 2)


async def test_behind_a_server():
    server = Jupyter().start()
    try:
        await server.ready()
        async with open_server_kernel(server.url, token=server.token) as kc:
            async with kc.debug() as dbg:
                await dbg.breakpoints(CODE, {2: 'n>2'})
                stop = await soon(dbg.run(CODE))
                assert place(stop)[1][0]==('double', 2) and await soon(kc.aside.eval('n'))==3
                stop = await soon(stop.next())
                assert (await stop.locals())['m'].literal()==6
                await soon(stop.run.interrupt())
                assert (await soon(stop.run)).error.ename=='KeyboardInterrupt'
                stop = await soon(dbg.run(CODE))
                await dbg.breakpoints(CODE, [])
                assert (await soon(stop.go())).text.strip()=='20'
    finally: server.stop()


# --- a scripted one ---------------------------------------------------------------------------------------------------

class Dap:
    "A debugger: each cell stops as often as `stops` says; `how` it goes on may be replaced"
    def __init__(self, stops=1, go='reply continued', **options):
        self.stops, self.go, self.left, self.cell, self.asked = stops, go, 0, None, []
        self.options = options
        self.stopped = []   # what `debugInfo` says

    def info(self, k, msg):
        k.busy(msg)
        k.reply(msg, supported_features=['kernel subshells', 'debugger'])
        k.idle(msg)

    def execute(self, k, msg):
        k.busy(msg)
        if not msg['content']['silent']:
            k.echo_input(msg)
            self.left, self.cell = self.stops, msg
            if self.left: self.stop(k)
            yield k.hold(msg)
        k.reply(msg)
        k.idle(msg)

    def stop(self, k, parent=None):
        self.left -= 1
        k.publish(parent or self.cell, 'debug_event', dict(type='event', event='stopped', body=dict(reason='breakpoint', threadId=1)),
                  parent={} if parent is None else None)

    def answer(self, k, msg):
        command = msg['content']['command']
        self.asked.append(command)
        bodies = dict(debugInfo=dict(isStarted=False, stoppedThreads=self.stopped), stackTrace=dict(stackFrames=[dict(id=1, name='f', line=2, source=dict(path='x'))]),
                      scopes=dict(scopes=[]), evaluate=dict(result='6', type='int'))
        def reply(): k.reply(msg, type='response', command=command, success=True, body=bodies.get(command, {}))
        if command not in ('continue', 'next', 'stepIn', 'stepOut'): return reply()
        for word in self.go.split():
            if word=='reply': reply()
            elif word=='refuse': k.reply(msg, type='response', command=command, success=False, message='the thread is not suspended')
            elif word=='continued': k.publish(msg, 'debug_event', dict(type='event', event='continued', body=dict(threadId=1)))
            elif word=='stopped': self.stop(k, msg)
            elif word=='end': k.release()
        if 'end' not in self.go and 'stopped' not in self.go and 'wait' not in self.go:
            if self.left: self.stop(k)
            else: k.release()

    def kernel(self): return FakeKernel(on=dict(kernel_info_request=self.info, execute_request=self.execute, debug_request=self.answer), **self.options)


class Session:
    "A client of such a kernel, with its debugger"
    def __init__(self, dap, **kwargs): self.dap, self.kwargs = dap, kwargs
    async def __aenter__(self):
        self.fk = self.dap.kernel().start()
        self.kc = self.fk.client(ConKernelClient, **self.kwargs)
        await self.kc.start_channels()
        self.dbg = await self.kc.debug().__aenter__()
        return self.fk, self.kc, self.dbg
    async def __aexit__(self, kind, *_):
        if self.fk.alive and kind is None: await soon(self.dbg.__aexit__(None, None, None))
        self.kc.stop_channels()
        self.fk.__exit__(kind)


@pytest.mark.parametrize('go', ['reply continued', 'continued reply', 'reply', 'stopped reply', 'reply stopped', 'continued stopped reply',
                                'reply continued stopped'])
async def test_events_before_and_after_the_reply(go):
    "Each call gets its own stop, in whatever order the event and the reply come"
    dap = Dap(stops=3, go=go)
    async with Session(dap) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        for _ in range(2):
            before, stop = stop, await soon(stop.next())
            assert isinstance(stop, Stopped) and stop.here and not before.here
        dap.go = 'reply continued end'
        assert (await soon(stop.go())).status=='ok' and dap.asked.count('next')==2


@pytest.mark.parametrize('go', ['end reply', 'reply end', 'continued end reply', pytest.param('end', marks=pytest.mark.slow)])
async def test_the_end_before_and_after_the_reply(go):
    async with Session(Dap(go=go), grace=.3) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        assert (await soon(stop.go())).status=='ok' and dbg.cell is None
        assert isinstance(await soon(kc.run('y', silent=True)), Result)


async def test_a_continue_that_is_never_answered(monkeypatch):
    "It has a limit, and the cell is where it was, as far as anybody knows"
    dap = Dap(go='wait')
    async with Session(dap) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        original = dbg._ask
        monkeypatch.setattr(dbg, '_ask', lambda command, arguments: original(command, arguments, .2))
        with pytest.raises(ReplyTimeout): await soon(stop.go())
        assert not stop.run.done()
        monkeypatch.undo()
        fk.release()
        await soon(stop.run)


async def test_a_refused_step():
    async with Session(Dap(go='refuse wait')) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        with pytest.raises(DebugError, match='not suspended'): await soon(stop.next())
        fk.release()
        await soon(stop.run)


async def test_a_cancelled_go_stops_the_cell():
    dap = Dap(go='reply continued wait')
    async with Session(dap) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        going = asyncio.ensure_future(stop.go())
        await until(lambda: 'continue' in dap.asked and not dbg._expected)
        going.cancel()
        assert isinstance(await outcome(going), asyncio.CancelledError)
        assert isinstance(await outcome(stop.run), asyncio.CancelledError) and fk.got('interrupt_request')


async def test_a_cancelled_run_stops_the_cell():
    async with Session(Dap(stops=0)) as (fk, kc, dbg):
        running = asyncio.ensure_future(dbg.run('x'))
        await fk.until_held(1)
        running.cancel()
        assert isinstance(await outcome(running), asyncio.CancelledError) and fk.got('interrupt_request')
        await until(lambda: not kc.queue)
        assert dbg.cell is None or dbg.cell.done()


async def test_a_time_limit_does_not_count_at_a_breakpoint():
    async with Session(Dap(stops=2, go='reply continued')) as (fk, kc, dbg):
        stop = await soon(dbg.run('x', timeout=.3))
        await asyncio.sleep(.5)
        assert not stop.run.done()
        stop = await soon(stop.next())
        assert isinstance(stop, Stopped)
        assert (await soon(stop.go())).status=='ok'


async def test_a_time_limit_counts_while_the_cell_runs():
    async with Session(Dap(go='reply continued wait')) as (fk, kc, dbg):
        stop = await soon(dbg.run('x', timeout=.3))
        assert 'without the time at breakpoints' in str(await outcome(stop.go()))
        stop = await soon(dbg.run('x'))
        assert isinstance(ended := await outcome(stop.go(timeout=.2)), ExecutionTimeout) and 'without a stop' in str(ended)
        stop = await soon(dbg.run('x', timeout=.2, count_stops=True))
        assert isinstance(await outcome(stop.run), ExecutionTimeout)


async def test_a_crash_while_it_goes_on():
    dap = Dap(go='reply continued wait')
    async with Session(dap, lost_after=.2) as (fk, kc, dbg):
        stop = await soon(dbg.run('x'))
        going = asyncio.ensure_future(stop.go())
        await until(lambda: 'continue' in dap.asked)
        fk.crash()
        assert isinstance(await outcome(going), DeadKernelError)
        kc.stop_channels()


async def test_a_stop_that_was_missed():
    "iopub is away when the cell stops: the debugger is asked"
    dap = Dap(stops=0)
    async with Session(dap, grace=1.) as (fk, kc, dbg):
        running = asyncio.ensure_future(dbg.run('x'))
        await until(lambda: dbg.cell is not None and dbg.cell.inside)
        iopub = Iopub(fk)
        await iopub.lose(kc)
        dap.stopped = [3, 1]   # published where nobody listens
        await iopub.find(kc)
        stop = await soon(running)
        assert isinstance(stop, Stopped) and (stop.reason, stop.thread)==('unknown', 1) and stop.here
        dap.stopped = []
        assert isinstance(await soon(stop.go()), Result)


async def test_limits_that_are_none():
    async with Session(Dap()) as (fk, kc, dbg):
        for limit in '3', float('nan'), True:
            with pytest.raises((TypeError, ValueError)): await dbg.run('x', timeout=limit)
            with pytest.raises((TypeError, ValueError)): await dbg.request('threads', timeout=limit)
        assert not fk.codes and dbg.cell is None
        stop = await soon(dbg.run('x'))
        for limit in '3', float('nan'), True:
            with pytest.raises((TypeError, ValueError)): await stop.go(timeout=limit)
        with pytest.raises(DebugError, match='One cell at a time'): await dbg.run('y')
        assert stop.here and (await soon(stop.go())).status=='ok'


async def test_a_hook_that_raises_ends_nothing(caplog):
    async with Session(Dap()) as (fk, kc, dbg):
        seen = []
        dbg.on_event(lambda e: 1/0)
        dbg.on_event(lambda e: seen.append(e['event']))
        assert isinstance(await soon(dbg.run('x')), Stopped) and seen==['stopped'] and 'hook' in caplog.text
        caplog.clear()   # (nothing else may be logged)
        fk.release()


async def test_a_kernel_without_a_debugger():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            with pytest.raises(UnsupportedFeature, match='no debugger'): await kc.debug().__aenter__()
            assert kc.debugger is None and not fk.got('debug_request')
        finally: kc.stop_channels()


async def test_a_debugger_that_does_not_begin(monkeypatch):
    dap = Dap()
    answer = dap.answer
    def never(k, msg):
        if msg['content']['command']!='attach': answer(k, msg)
    ask = Debugger._ask
    monkeypatch.setattr(Debugger, '_ask', lambda self, command, arguments, timeout=10: ask(self, command, arguments, min(timeout, .3)))
    with dap.kernel() as fk:
        fk.on['debug_request'] = never
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            with pytest.raises(DebugError, match='does not begin .*restart'): await soon(kc.debug().__aenter__())
            assert kc.debugger is None
        finally: kc.stop_channels()


async def test_entering_that_is_cancelled():
    dap = Dap()
    answer = dap.answer
    def never(k, msg):
        if msg['content']['command']!='attach': answer(k, msg)
    with dap.kernel() as fk:
        fk.on['debug_request'] = never
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            entering = asyncio.ensure_future(kc.debug().__aenter__())
            await until(lambda: 'initialize' in dap.asked and fk.got('debug_request')>=3)
            entering.cancel()
            assert isinstance(await outcome(entering), asyncio.CancelledError) and kc.debugger is None
            await until(lambda: 'disconnect' in dap.asked)
            fk.on['debug_request'] = answer
            async with kc.debug() as dbg: assert isinstance(await soon(dbg.run('x')), Stopped)
            fk.release()
        finally: kc.stop_channels()
