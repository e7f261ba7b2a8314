"""Right uses of every public method, with the types of what they give. `test_typing.py` checks this file with mypy and
pyright, which must find nothing wrong, and runs it on a kernel.
"""
import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any, Literal, assert_type

from jupyter_client import kernelspec
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from conkernelclient import (Aside, ClientClosedError, Comm, CommClosedError, CommMessage, Comms, ConIOLoopKernelManager, ConKernelClient, ConKernelError, ConKernelManager,
                             DeadKernelError, DebugError, Debugger, ErrorInfo, Event, ExecutionError, ExecutionTimeout, HostTools, Image, Job, JobEvent, Kernel, KernelPool,
                             KernelRestartedError, KernelSubshell, LLMContent,
                             Message, NoReplyError, NoRunningKernel, NotConnected, Pool, Recording, ReplyTimeout, Request, Result, Run, Stopped, Subshell, ToolSchema, UnknownKernel,
                             UnsupportedFeature, Variables, Widget, Widgets, open_kernel, parse_literal, run_kernel, tool_schemas)
from conkernelclient.cells.debug import Breakpoint, Frame, Value
from conkernelclient.cells.jobs import Outcome
from conkernelclient.cells.outputs import Cursor
from conkernelclient.sync import KernelJobs, KernelRecording


async def requests(kc: ConKernelClient, wanted: bool) -> None:
    "The methods of jupyter_client's client"
    assert_type(kc.execute('1'), str)
    assert_type(kc.execute('1', reply=False), str)
    req = kc.execute('1', reply=True, timeout=20)
    assert_type(req, Request)
    reply = await req
    assert_type(reply, Message)
    assert_type(reply['content'], dict[str, Any])
    assert_type(reply['header']['msg_id'], str)
    assert_type(reply['msg_type'], str)
    assert_type(await kc.execute('1', True, False, {'two': '1+1'}, False, False, reply=True, msg_id='one', metadata={}, buffers=[]), Message)
    either = kc.execute('1', reply=wanted)
    assert_type(either, str | Request)
    assert_type(kc.complete('pri'), str)
    assert_type(await kc.complete('pri', 3, reply=True), Message)
    assert_type(kc.inspect('print'), str)
    assert_type(await kc.inspect('print', 2, 1, reply=True), Message)
    assert_type(kc.history(), str)
    assert_type(await kc.history(hist_access_type='tail', n=3, reply=True), Message)
    assert_type(kc.is_complete('if 1:'), str)
    assert_type(await kc.is_complete('if 1:', reply=True), Message)
    assert_type(kc.kernel_info(), str)
    assert_type(await kc.kernel_info(reply=True, channel='control', timeout=20), Message)
    assert_type(kc.comm_info(), str)
    assert_type(await kc.comm_info(reply=True, target_name='none'), Message)
    assert_type(await kc.execute_interactive('print(1)', timeout=20, output_hook=lambda msg: None), Message)
    assert_type(kc.allow_stdin, bool)


async def any_request(kc: ConKernelClient) -> None:
    "`request`, and what a `Request` has"
    seen: list[str] = []
    def note(msg: Message) -> None: seen.append(msg['msg_type'])
    async def slowly(msg: dict[str, Any]) -> None: await asyncio.sleep(0)
    content: dict[str, Any] = dict(code='1', silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=True)
    req = kc.request('execute_request', content, 'shell', timeout=20, on_iopub=note, on_stdin=slowly)
    assert_type(req, Request)
    assert_type(await req.wait(), Request)
    assert_type(req.iopub, list[Message])
    async for msg in req: assert_type(msg, Message)
    assert_type(req.msg_id, str)
    assert_type(req.msg, Message)
    assert_type(req.reply, Message | None)
    assert_type(req.done(), bool)
    assert_type(req.result(), Message)
    assert_type(req.exception(), BaseException | None)
    assert_type(req.cancel(), bool)
    assert_type(req.cancelled(), bool)
    assert_type((req.replied, req.idle, req.ended, req.complete, req.lossy), tuple[bool, bool, bool, bool, bool])
    assert_type(req.missing, str)
    assert_type((req.channel, req.generation, req.header['session']), tuple[str, int, str])
    req.add_done_callback(repr)
    assert_type(req.remove_done_callback(repr), int)
    assert_type(req.get_loop(), asyncio.AbstractEventLoop)
    assert_type(await kc.request('kernel_info_request', channel='control'), Message)
    content |= dict(code='input("colour? ")', allow_stdin=True)
    asking = kc.request('execute_request', content, on_stdin=lambda prompt: kc.input('blue'))
    assert_type(await asking, Message)


async def mailboxes(kc: ConKernelClient) -> None:
    "What no request has claimed"
    msg_id = kc.execute('print(1)')
    assert_type(await kc.get_shell_msg(timeout=20), dict[str, Any])
    assert_type(await kc.get_pubs(msg_id, timeout=5), list[Message])
    kc.execute('print(1)')
    assert_type(await kc.get_iopub_msg(timeout=20), dict[str, Any])
    for get in kc.get_stdin_msg, kc.get_control_msg:
        try: assert_type(await get(timeout=0), dict[str, Any])
        except Empty: pass


async def status(kc: ConKernelClient) -> None:
    assert_type(kc.status, str)
    remove = kc.on_status(repr)
    assert_type(remove, Callable[[], None])
    remove()
    assert_type(await kc.wait_for_status('ready', 'busy', timeout=20), str)
    assert_type(await kc.wait_for_ready(timeout=20), None)
    assert_type(await kc.is_alive(), bool)
    assert_type(kc.supports('kernel subshells'), bool)
    assert_type(kc.channels_running, bool)
    assert_type(kc.address('shell'), str)
    assert_type((kc.window, kc.grace, kc.lost_after, kc.readers_grace, kc.unclaimed), tuple[int, float, float, float, int])
    assert_type(kc.startup_timeout, float | None)
    assert_type((kc.interrupt_timeout, kc.begin_patience), tuple[float, float])
    kc.window = 100
    kc.grace = 2.5
    kc.startup_timeout = None
    kc.interrupt_timeout = 4.
    kc.begin_patience = 2.


async def runs(kc: ConKernelClient) -> None:
    "`run`, and what a `Run` has"
    assert_type(await kc.run('1'), Result)
    run = kc.run('print(1)', timeout=20, queue_timeout=20, check=True, stdin=['yes'], on_output=repr, silent=False, store_history=False,
                 user_expressions={'two': '1+1'}, metadata={}, subshell_id=None)
    assert_type(run, Run)
    assert_type(kc.queue, list[Run])
    async for out in run: assert_type(out, Event)
    assert_type(await run, Result)
    assert_type(run.result(), Result)
    assert_type(run.exception(), BaseException | None)
    assert_type((run.done(), run.cancelled(), run.cancel(), run.queued, run.over), tuple[bool, bool, bool, bool, bool])
    assert_type(run.partial, Result)
    assert_type(run.state, str)
    assert_type(run.request, Request | None)
    assert_type(await run.wait_until(lambda: True, timeout=1), bool)

    async def answer(prompt: str, password: bool = False) -> str: return 'blue'
    async def show(event: Event) -> None: await asyncio.sleep(0)
    assert_type(await kc.run('input("colour? ")', stdin=answer, on_output=show), Result)
    assert_type(await kc.run('input("colour? ")', stdin='red'), Result)
    assert_type(await kc.run('input("colour? ")', stdin=lambda prompt: 'green'), Result)

    long = kc.run('import time; time.sleep(30)')
    await long.wait_until(lambda: long.began is not None)
    assert_type(await long.settled(timeout=.01), bool)
    assert_type(await long.interrupt(force=True), bool)
    assert_type(await long, Result)
    kc.run('time.sleep(30)')
    assert_type(await kc.interrupt(), None)
    kc.run('time.sleep(30)')
    assert_type(await kc.cancel_all(), list[Result | BaseException])


async def jobs(kc: ConKernelClient) -> None:
    "A run as a job"
    run = kc.run('print(1)')
    async for event in run.follow(after=0):
        assert_type(event, JobEvent)
        assert_type((event.number, event.run, event.text, event.to_dict()), tuple[int, str, str, dict[str, Any]])
        assert event.kind != 'end' or event.outcome == 'ok'
        assert_type((event.output, event.message), tuple[dict[str, Any] | None, str | None])
    assert_type((run.id, run.code, run.message), tuple[str, str, str])
    assert_type(run.started, datetime | None)
    assert run.outcome == 'ok'
    assert_type(run.for_llm(limit=100), LLMContent)
    text, cursor = run.since()
    assert_type(text, str)
    assert_type(run.since(cursor)[1], tuple[int, ...])
    assert_type(run.since([0, 0, 0, 0, 0, 0])[0], str)
    assert_type(kc.jobs[run.id], Run)
    assert_type(list(kc.jobs.items()), list[tuple[str, Run]])
    assert_type(kc.max_output, float)
    kc.max_output = 1_000_000
    seen: list[str] = []
    remove = kc.on_message(lambda msg: seen.append(msg['msg_type']), channel='iopub')
    assert_type(remove, Callable[[], None])
    remove()


async def recorded(kc: ConKernelClient) -> None:
    "A session as a notebook"
    with TemporaryDirectory() as folder:
        with kc.record(f'{folder}/session.ipynb', autosave=True) as rec:
            assert_type(rec, Recording)
            await kc.run('1')
        assert_type((rec.notebook(), rec.save(), rec.path, len(rec)), tuple[Any, Path, Path | None, int])
        rec.stop()
        assert_type([(o.id, o.code, o.result, o.outcome, o.message) for o in rec.cells], list[tuple[str, str, Result, str, str]])
        assert_type(await kc.replay(rec.path, until=0, timeout=20), list[Result])


def add(a: int, b: int) -> int: return a+b


async def host_tools(kc: ConKernelClient) -> None:
    "Functions of this program, called by cells"
    await kc.expose(add, sync=True, plus=add)
    assert_type(await kc.run('add(1, 2)', tools=dict(total=add), timeout=20), Result)
    assert_type(kc.host_tools, HostTools)
    assert_type(kc.host_tools.exposed, dict[str, Callable[..., Any]])
    assert_type(tool_schemas(add), list[ToolSchema])
    assert_type([(o['name'], o['description'], o['input_schema']) for o in tool_schemas(add, len)], list[tuple[str, str, dict[str, Any]]])


async def debugged(kc: ConKernelClient) -> None:
    "A cell under the debugger"
    events: list[dict[str, Any]] = []
    async with kc.debug(take_over=False) as dbg:
        assert_type(dbg, Debugger)
        remove = dbg.on_event(events.append)
        assert_type(await dbg.breakpoints('a = 1\nb = a', {2: 'a > 0'}), list[Breakpoint])
        assert_type(await dbg.breakpoints('c = 1', [1]), list[Breakpoint])
        stop = await dbg.run('a = 1\nb = a', timeout=60, count_stops=False, store_history=False)
        assert_type(stop, Stopped | Result)
        assert isinstance(stop, Stopped)
        assert_type((stop.reason, stop.frames, stop.thread, stop.text, stop.run, stop.here), tuple[str, list[Frame], int, str, Run, bool])
        assert_type((await stop.locals(frame=0))['a'], Value)
        value = await stop.eval('[a]')
        assert_type((value.text, value.type, value.literal()), tuple[str, str, Any])
        assert_type(await stop.fields(value), dict[str, Value])
        assert_type(await stop.go(timeout=60), Stopped | Result)
        for go in stop.next, stop.step, stop.out: assert callable(go)
        assert_type((await dbg.request('threads', timeout=20))['threads'], Any)
        remove()
    assert [o for o in events if o['event'] == 'stopped']
    try: await stop.next()
    except DebugError as e: assert_type(str(e), str)


async def together(kc: ConKernelClient) -> None:
    "A run and a request are awaited like coroutines"
    task = asyncio.create_task(kc.run('1'))
    assert_type(task, asyncio.Task[Result])
    assert_type(await task, Result)
    assert_type(await asyncio.create_task(kc.execute('1', reply=True)), Message)
    a, b = await asyncio.gather(kc.run('1'), kc.execute('2', reply=True))
    assert_type(a, Result)
    assert_type(b, Message)
    many = await asyncio.gather(*[kc.run(f'{i}') for i in range(3)])
    assert_type(many, list[Result])
    async with asyncio.TaskGroup() as group:
        one = group.create_task(kc.run('1'))
        two = group.create_task(kc.execute('2', reply=True))
    assert_type(one.result(), Result)
    assert_type(two.result(), Message)
    assert_type(await asyncio.wait_for(kc.run('1'), 20), Result)
    assert_type(await asyncio.shield(kc.run('1')), Result)
    done, _ = await asyncio.wait([asyncio.ensure_future(kc.run('1'))])
    for o in done: assert_type(o.result(), Result)
    async with asyncio.timeout(20): assert_type(await kc.run('1'), Result)
    for first in asyncio.as_completed([kc.run('1'), kc.run('2')]): assert_type(await first, Result)


async def values(kc: ConKernelClient) -> None:
    assert_type(await kc.push(x=1, y=[2]), None)
    assert_type(await kc.eval('x', timeout=20), Any)
    assert_type(await kc.map(['x+1', 'x+2'], concurrency=2, progress=False, timeout=20), list[Result])
    assert_type(await kc.map('{}+1', [1, 2]), list[Result])
    assert_type(await kc.map(lambda o: f'{o}+1', [1, 2], return_exceptions=True), list[Result | BaseException])
    assert_type(await kc.call('sorted', [2, 1], reverse=True), Any)
    assert_type(await kc.push_all(dict(x=1), timeout=20), None)
    assert_type(await kc.call_all('len', ['abc'], {}, timeout=20), Any)
    assert_type(await kc.run('1', display=True, buffers=[b'x']), Result)
    async with kc.subshell() as sh: assert_type(await sh.call('len', 'abc'), Any)
    try: await kc.map(['1/0'], check=True)
    except ExecutionError as e: assert_type(e.results, list[Result | None])
    assert_type(parse_literal('[1, 2]'), Any)


def results(res: Result, event: Event) -> None:
    "What a `Result` and an `Event` have"
    assert_type((res.text, res.stdout, res.stderr, res.ansi), tuple[str, str, str, str])
    assert_type((res.png, res.jpeg), tuple[bytes | None, bytes | None])
    assert_type((res.svg, res.html, res.markdown, res.latex), tuple[str | None, str | None, str | None, str | None])
    assert_type((res.json, res.representation('text/html')), tuple[Any, Any])
    assert_type(res.images, list[Image])
    for image in res.images: assert_type((image.mime, image.data), tuple[str, bytes])
    assert_type(res.to_cell('1'), dict[str, Any])
    assert_type(res.outputs, list[dict[str, Any]])
    assert_type(res.data, dict[str, Any] | None)
    assert_type(res.status, str | None)
    assert_type(res.error, ErrorInfo | None)
    if res.error is not None: assert_type((res.error.ename, res.error.evalue, res.error.traceback), tuple[str, str, list[str]])
    assert_type(res.missing, str)
    assert_type((res.execution_count, res.duration), tuple[int | None, float | None])
    assert_type(res.user_expressions, dict[str, Any])
    assert_type((res.msg_id, res.complete, res.dropped, res.missing), tuple[str | None, bool, int, str])
    assert_type(res.started, datetime | None)
    content = res.for_llm(limit=1000, max_images=2)
    assert_type(content, LLMContent)
    assert_type((content.text, content.anthropic(), content.openai()), tuple[str, list[dict[str, Any]], list[dict[str, Any]]])
    assert_type(content.parts, list[dict[str, Any]])
    assert_type((content.anthropic('id'), content.openai('id')), tuple[list[dict[str, Any]], list[dict[str, Any]]])
    assert_type((content.mcp(), content.is_error), tuple[dict[str, Any], bool])
    assert_type(res.for_llm(traceback='full', max_image_bytes=100, spill='folder'), LLMContent)
    assert_type(res.exit_code, int | None)
    assert_type(Result.from_messages('id', None, []), Result)
    assert_type((event.kind == 'new', event.text), tuple[bool, str])
    assert_type(event.output, dict[str, Any] | None)
    assert_type(res.add({'msg_type': 'stream', 'content': {'text': 'more'}}), tuple[Event, ...])
    assert_type(res.live.outputs, list[dict[str, Any]])


async def comms(kc: ConKernelClient) -> None:
    "Comms, and what they carry"
    await kc.run('from comm import get_comm_manager as m\nm().register_target("t", lambda comm, msg: comm.on_msg(lambda msg: comm.send(1)))')
    comm = await kc.open_comm('t', {'n': 1}, [b'1'], metadata={}, subshell_id=None, timeout=20)
    assert_type(comm, Comm)
    assert_type(kc.comms, Comms)
    assert_type(kc.comms[comm.id], Comm)
    assert_type(kc.comms.get('none'), Comm | None)
    assert_type(comm.send(dict(n=1), [memoryview(b'1')], {}), None)
    msg = await comm.receive(20)
    assert_type(msg, CommMessage)
    assert_type((msg.kind, msg.data, msg.comm, msg.parent), tuple[Literal['open', 'msg', 'close'], Any, Comm, str | None])
    assert_type(msg.buffers, list[memoryview])
    assert_type((comm.target, comm.ours, comm.unread, comm.dropped, comm.closed), tuple[str, bool, int, int, bool])
    assert_type((comm.opening, comm.closing, comm.error), tuple[CommMessage | None, CommMessage | None, Exception | None])
    async def handler(comm: Comm, msg: CommMessage) -> None:
        async for o in comm: assert_type(o, CommMessage)
    assert_type(kc.on_comm('other', handler)(), None)
    seen: list[CommMessage] = []
    assert_type(await kc.run('1', on_comm=seen.append), Result)
    comm.on_message = seen.append
    assert_type(comm.close('bye'), None)
    try: await comm.receive()
    except CommClosedError as e: assert_type(e, CommClosedError)
    async with kc.subshell() as sh: assert_type(await sh.open_comm('t', timeout=20), Comm)


async def widgets(kc: ConKernelClient) -> None:
    "The kernel's widgets"
    assert_type(kc.widgets, Widgets)
    assert_type(kc.widgets.state(), dict[str, Any])
    assert_type(kc.widgets.get('none'), Widget | None)
    try: assert_type(await kc.widgets.load(timeout=20), int)
    except UnsupportedFeature: pass
    for widget in kc.widgets.values():
        assert_type((widget.id, widget.kind, widget.text, widget.closed, widget.comm), tuple[str, str, str, bool, Comm])
        assert_type(widget.state, dict[str, Any])
        assert_type(widget.children(), list[Widget])
        assert_type(widget.set(value=1), None)
        assert_type(widget.send({'event': 'click'}, [b'1']), None)


async def subshells(kc: ConKernelClient) -> None:
    assert_type(kc.subshell(), Subshell)
    async with kc.subshell() as sh:
        assert_type(sh, Subshell)
        assert_type(sh.id, str | None)
        assert_type(sh.run('1', timeout=20), Run)
        assert_type(await sh.run('1'), Result)
        assert_type(await sh.push(x=1), None)
        assert_type(await sh.eval('x'), Any)
        assert_type(await sh.request('kernel_info_request'), Message)
        assert_type((sh.execute('1'), sh.complete('pri'), sh.inspect('print')), tuple[str, str, str])
        assert_type(await sh.execute('1', reply=True, timeout=20), Message)
        assert_type(await sh.complete('pri', 3, reply=True), Message)
        assert_type(await sh.inspect('print', reply=True), Message)
        wanted = bool(sh.id)
        assert_type(sh.execute('1', reply=wanted), str | Request)
        assert_type((sh.closed, sh.gone), tuple[bool, bool])


async def questions(kc: ConKernelClient) -> None:
    aside = kc.aside
    assert_type(aside, Aside)
    assert_type(await aside.run('1', timeout=20), Result)
    assert_type(await aside.eval('1', timeout=20), Any)
    assert_type(await aside.request('inspect_request', dict(code='print', cursor_pos=5, detail_level=0)), dict[str, Any])
    for completion in await kc.completions('pri', 3): assert_type((completion.text, completion.start), tuple[str, int])
    assert_type(await kc.doc('print'), str)
    found = await kc.variables(limit=10)
    assert_type((found, found.left_out), tuple[Variables, int])
    for o in found: assert_type((o.name, o.type, o.shape, o.size, o.preview), tuple[str, str, tuple[int, ...] | None, int | None, str])


async def errors(kc: ConKernelClient) -> None:
    "Each is a `ConKernelError`, and what it would be without this library"
    try: await kc.run('1/0', check=True)
    except ExecutionError as e: assert_type(e.result, Result)
    try: await kc.run('import time; time.sleep(30)', timeout=.1)
    except ExecutionTimeout as e: assert_type((e.result, e.for_llm(limit=100)), tuple[Result, LLMContent])
    try: await kc.execute('1', reply=True)
    except KernelRestartedError as e: assert_type(e.exit_code, int | None)
    except DeadKernelError as e: assert_type(e.exit_code, int | None)
    except (ReplyTimeout, NoReplyError, NotConnected, ClientClosedError, UnsupportedFeature, CancelledError): raise
    except ConKernelError: raise
    kinds: list[type[RuntimeError]] = [DeadKernelError, KernelRestartedError, NoReplyError, ClientClosedError, NotConnected, UnsupportedFeature]
    late: list[type[TimeoutError]] = [ReplyTimeout, ExecutionTimeout]
    ours: list[type[ConKernelError]] = [*(o for o in (ExecutionError, UnknownKernel, DeadKernelError, ReplyTimeout))]
    missing: type[kernelspec.NoSuchKernel] = UnknownKernel
    assert kinds and late and ours and missing
    assert_type(UnknownKernel('ruby', ['python3']).known, list[str])


async def managers() -> None:
    km = ConKernelManager(kernel_name='python3')
    stock: AsyncKernelManager = km
    assert_type(await km.start_kernel(), None)
    kc = km.client()
    assert_type(kc, ConKernelClient)
    other: AsyncKernelClient = kc
    assert stock.has_kernel and other is kc
    assert_type(await kc.start_channels(shell=True, iopub=True, stdin=True, hb=True, control=True), ConKernelClient)
    second = await km.client().start_channels()
    assert_type(second, ConKernelClient)
    second.stop_channels()
    assert_type(await kc.restart(now=True, timeout=60), None)
    assert_type(await kc.restart(if_dead=True), None)
    assert_type(await km.restart_kernel(now=True), None)
    await kc.wait_for_ready(timeout=60)
    assert_type((km.restarting, km.will_restart), tuple[bool, bool])
    async with km.one_restart(): assert km.restarting
    assert_type(await km.restart_over(), bool)
    km.restart_on_death = True
    await km.interrupt_kernel()
    await km.is_alive()
    assert_type(await kc.shutdown(reply=True, timeout=20), Message)
    assert_type(kc.stop_channels(), None)
    assert_type(await km.shutdown_kernel(now=True), None)
    watched: ConKernelManager = ConIOLoopKernelManager()
    assert watched.kernel_spec
    assert_type(watched.client(), ConKernelClient)


async def by_file(path: str) -> ConKernelClient:
    "A client of a kernel that somebody else has started"
    kc = ConKernelClient(connection_file=path)
    kc.load_connection_file()
    return await kc.start_channels()


async def opened() -> None:
    "`open_kernel` with asyncio"
    async with open_kernel('python3', cwd='/', env={'A': '1'}, startup_timeout=60, restart_on_death=True, manager_class=ConKernelManager) as kc:
        assert_type(kc, ConKernelClient)
        assert_type(await kc.run('6*7'), Result)
        km = kc.manager
        assert_type(km, ConKernelManager | None)
        assert km is not None
        async with open_kernel(connection_file=km.connection_file) as other: assert_type(other, ConKernelClient)
    kc = await open_kernel()
    assert_type(kc, ConKernelClient)
    assert_type(await kc.close(), None)
    async with open_kernel(preload='decimal') as kc: assert_type(kc, ConKernelClient)
    async with open_kernel(preload=['decimal', 'fractions']) as kc: assert_type(kc, ConKernelClient)
    async with KernelPool() as pool, open_kernel(pool=pool, cwd='/', timeout=60) as kc: assert_type(kc, ConKernelClient)
    try: await open_kernel(connection_file=Path('no-such-file'))
    except NoRunningKernel as e: assert_type(e.args, tuple[Any, ...])


async def elsewhere() -> None:
    "`open_kernel` for a kernel behind a server; not run here"
    async def token() -> str: return 'a token'
    async with open_kernel(url='https://host:8888', token=token, headers={'X-Who': 'me'}) as kc: assert_type(kc, ConKernelClient)
    with open_kernel(url='https://host:8888', token='a token', kernel_id='1') as k: assert_type(k, Kernel)


def synchronous() -> None:
    "`open_kernel` without asyncio: a `Kernel`"
    with open_kernel() as k: assert_type(k, Kernel)
    k = open_kernel().start()
    assert_type(k, Kernel)
    def answer(prompt: str, password: bool = False) -> str: return 'blue'
    assert_type(k.run('1', timeout=20, check=True, stdin=answer, on_output=print, store_history=False), Result)
    assert_type(k.run('input()', stdin=['yes']).text, str)
    assert_type(k.eval('1', timeout=20), Any)
    assert_type(k.push(x=1), None)
    assert_type(k.map(['1', '2'], concurrency=2, progress=False), list[Result])
    assert_type(k.map('{}+1', [1, 2], return_exceptions=True), list[Result | BaseException])
    assert_type(k.call('len', 'abc'), Any)
    assert_type(k.run('1', display=True), Result)
    assert_type(k.complete('pri', 3, timeout=20), Message)
    assert_type(k.inspect('print', 2, 1)['content'], dict[str, Any])
    assert_type((k.status, k.closed, k.manager, k.client), tuple[str, bool, ConKernelManager | None, ConKernelClient])
    assert_type(k.in_loop(lambda kc: kc.kernel_info(reply=True)), Any)
    assert_type(k.interrupt(), None)
    following = k.attend('print(1)', timeout=20)
    for out in following: assert_type(out, Event)
    assert_type(following.job.wait(), Result)
    job = k.start('import time; time.sleep(30)', timeout=60, on_output=print)
    assert_type(job, Job)
    assert_type(k.queue, list[Job])
    assert_type(k.widget_state(), dict[str, Any])
    assert_type((job.code, job.state, job.done, job.partial, job.run), tuple[str, str, bool, Result, Run | None])
    assert_type(job.settled(.1), bool)
    assert_type(job.for_llm(limit=100), LLMContent)
    assert_type((job.id, job.outcome, job.message, job.started), tuple[str, Outcome | None, str, datetime | None])
    assert_type(job.since(), tuple[str, Cursor])
    assert_type(k.jobs, KernelJobs)
    assert_type(k.jobs[job.id].follow(after=2).job, Job)
    assert_type(job.interrupt(), bool)
    assert_type(job.wait(20), Result)
    assert_type(job.result(), Result)
    assert_type(job.stop(), bool)
    folder = TemporaryDirectory()
    with k.record(Path(folder.name)/'session.ipynb', autosave=True) as kept: assert_type(kept, KernelRecording)
    assert_type((kept.notebook(), kept.save(), len(kept)), tuple[Any, Path, int])
    kept.stop()
    folder.cleanup()
    assert_type(kept.recording, Recording)
    k.expose(add, sync=True)
    assert_type(k.run('add(1, 2)', tools=dict(total=add)), Result)
    assert_type(k.replay(kept.notebook(), until=None, timeout=20), list[Result])
    for numbered in job.follow(): assert_type(numbered, JobEvent)
    with Pool(size=2, spare=1, preload='decimal') as pool, pool.kernel(timeout=60) as lent:
        assert_type(lent, Kernel)
        assert_type(pool.map(['1'], timeout=20), list[Result | Exception])
        assert_type(pool.filled(60), None)
        assert_type(pool.stats.lent, int)
        with open_kernel(pool=pool) as other: assert_type(other, Kernel)
    for event in job: assert_type(event, Event)
    with k.subshell() as sh:
        assert_type(sh, KernelSubshell)
        assert_type((sh.id, sh.closed), tuple[str | None, bool])
        assert_type(sh.run('1'), Result)
        assert_type(sh.start('1').wait(20), Result)
        assert_type(sh.eval('1'), Any)
        assert_type(sh.complete('pri'), Message)
    assert_type(k.restart(now=True, timeout=60), None)
    assert_type(k.close(), None)


def wait_for(awaitable: Awaitable[Result]) -> Awaitable[Result]: return awaitable


async def main() -> None:
    with TemporaryDirectory() as folder:
        async with run_kernel('python3', startup_timeout=60, cwd=folder, manager_class=ConKernelManager) as (km, kc):
            assert_type(km, ConKernelManager)
            assert_type(kc, ConKernelClient)
            for use in any_request, mailboxes, status, runs, jobs, recorded, host_tools, debugged, together, values, comms, widgets, subshells, errors: await use(kc)
            await requests(kc, True)
            events = [o async for o in kc.run('print(1)')]
            results(await kc.run('1/0'), events[0])
            assert_type(await wait_for(kc.run('1')), Result)
            third = await by_file(str(Path(km.connection_file)))
            third.stop_channels()
    await managers()


if __name__ == '__main__':
    asyncio.run(main())
    asyncio.run(opened())
    synchronous()
