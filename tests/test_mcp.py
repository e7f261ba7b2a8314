"""The MCP server, driven by the SDK's own client over stdio, in both forms of the protocol, with real kernels"""
import asyncio, base64, json, os, re, signal, subprocess, sys, threading, time
from pathlib import Path

import pytest
pytest.importorskip('mcp.server.mcpserver')
import nbformat
from mcp import Client, MCPError, StdioServerParameters
from conkernelclient import list_kernels, open_kernel
from conkernelclient import mcp as server_module
from conkernelclient.mcp import Kernels, Options, main, make_server, parsed
from fault_tools import SOON, running
from model_cells import CELLS
from proxy import Jupyter

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, '-m', 'conkernelclient.mcp']
slow_tests = {f'test_{o}[legacy]' for o in (   # heavy, and the form of the protocol hardly matters to them
    'a_large_picture_fits_and_the_whole_is_a_resource', 'a_flood_and_signs_of_life', 'save', 'two_kernels', 'parallel_calls')}
SLEEP = 'import time\nprint("so far", flush=True)\ntime.sleep(60)'


class Session:
    "A server, and a client that lives in a thread of its own, as tests and the SDK's client want tasks of their own"
    def __init__(self, *args, mode='auto', cwd=None):
        self.params = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *map(str, args)], cwd=cwd,
                                            env=os.environ | dict(PYTHONPATH=str(ROOT)))
        self.mode, self.up, self.error = mode, threading.Event(), None
        self.thread = threading.Thread(target=lambda: asyncio.run(self.live()), daemon=True)

    async def live(self):
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with Client(self.params, mode=self.mode) as self.client:
                self.up.set()
                await self.end.wait()
        finally: self.up.set()

    def __enter__(self):
        self.thread.start()
        assert self.up.wait(SOON)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(SOON)
        assert not self.thread.is_alive()

    def begin(self, name, progress=None, **args):
        async def call(): return await self.client.call_tool(name, args, progress_callback=progress)
        return asyncio.run_coroutine_threadsafe(call(), self.loop)

    def __call__(self, name, **args): return self.begin(name, **args).result(SOON*2)
    def run(self, code, **args): return self('run', code=code, **args)

    def read(self, uri):
        async def read(): return await self.client.read_resource(uri)
        return asyncio.run_coroutine_threadsafe(read(), self.loop).result(SOON).contents[0]

    def until(self, test):
        deadline = time.monotonic()+SOON
        while not test():
            assert time.monotonic() < deadline
            time.sleep(.02)


@pytest.fixture(scope='module', params=['auto', 'legacy'])
def s(request, tmp_path_factory):
    with Session('--cwd', tmp_path_factory.mktemp('cwd'), '--progress', '.3', mode=request.param) as s: yield s


def text(res): return ''.join(o.text for o in res.content if o.type == 'text')
def last(res): return text(res).rstrip().rpartition('\n')[2]
def status(res): return res.structured_content['status']
def job(res): return res.structured_content['job']
def value(s, code, **args): return text(s.run(code, **args)).strip()


# --- results ---------------------------------------------------------------------------------------------------------

def test_the_tools_explain_themselves(s):
    tools = {o.name: o for o in asyncio.run_coroutine_threadsafe(s.client.list_tools(), s.loop).result(SOON).tools}
    assert set(tools) == {*'run look stop restart shutdown kernels inspect complete variables save'.split()}
    for o in tools.values():
        assert 20 < len(o.description) < 260 and o.output_schema is None and o.annotations.read_only_hint is not None
        assert all('description' in p for p in o.input_schema['properties'].values()), o
        assert 'ctx' not in o.input_schema['properties']
    assert tools['run'].input_schema['required'] == ['code'] and tools['run'].annotations.destructive_hint
    assert tools['look'].annotations.read_only_hint and tools['variables'].annotations.read_only_hint

def test_both_forms_of_the_protocol(s):
    assert (s.client.protocol_version >= '2026') == (s.mode == 'auto')

def test_values_and_state(s):
    res = s.run('x = 6*7\nprint("hello")\nx')
    assert text(res) == 'hello\n42\n' and not res.is_error and status(res) == 'ok'
    assert set(res.structured_content) == {'job', 'kernel', 'status', 'duration'} and res.structured_content['kernel'] == 'main'
    assert value(s, 'x+1') == '43' and text(s.run('y = 1')) == '[no output]'

def test_an_error_is_an_error_and_keeps_what_came_before(s):
    res = s.run('print("before")\n1/0')
    assert res.is_error and status(res) == 'error' and text(res).startswith('before\n') and last(res) == 'ZeroDivisionError: division by zero'
    assert value(s, '1') == '1'

def test_pictures(s):
    res = s.run('from IPython.display import display, Image\nprint("see")\ndisplay(Image(bytes.fromhex("89504e470d0a1a0a")+bytes(3000), format="png"))')
    (picture,) = [o for o in res.content if o.type == 'image']
    assert picture.mime_type == 'image/png' and len(base64.b64decode(picture.data)) == 3008 and 'see' in text(res)
    assert picture.data[:40] not in json.dumps(res.structured_content)

def test_a_large_picture_fits_and_the_whole_is_a_resource(s):
    res = s.run(CELLS['large picture'].code.replace('w = h = 1300', 'w = h = 1450'))
    pictures = [o for o in res.content if o.type == 'image']
    assert all(len(base64.b64decode(o.data)) <= 3_500_000 for o in pictures)
    assert pictures or f'cell://{job(res)}/1' in text(res)
    whole = s.read(f'cell://{job(res)}/1')
    assert whole.mime_type == 'image/png' and len(base64.b64decode(whole.blob)) > 6_000_000

def test_a_picture_that_is_only_named_says_where_it_is(s):
    res = s.run('from IPython.display import display, SVG, Image\nfor i in range(12): display(Image(bytes([i])*50, format="png"))')
    assert sum(o.type == 'image' for o in res.content) == 10
    uri, = set(re.findall(r'cell://\w+/6', text(res)))
    assert base64.b64decode(s.read(uri).blob) == bytes([5])*50

def test_long_output_is_cut_and_read_back(s):
    res = s.run('for i in range(30_000): print("line", i)')
    uri = re.search(r'all of it: (cell://\w+)', text(res))[1]
    assert len(text(res)) <= 10_100 and last(res) == 'line 29999' and uri == f'cell://{job(res)}'
    assert s.read(uri).text == ''.join(f'line {i}\n' for i in range(30_000)) == s.read(uri+'/1').text
    for o in 'cell://j99999', uri+'/7', 'cell://nothing':
        with pytest.raises(MCPError, match='No job|has 1 outputs'): s.read(o)

def test_a_flood_and_signs_of_life(s, tmp_path):
    code = f'import os\ni = 0\nwhile not os.path.exists({str(tmp_path/"go")!r}):\n    i += 1\n    print("line", i, "x"*50)'
    seen = []
    async def progress(n, total, message): seen.append((n, message))
    flood = s.begin('run', progress, code=code)
    s.until(lambda: len(seen) >= 2)
    assert value(s, '"beside"', beside=True) == "'beside'"
    (tmp_path/'go').touch()
    res = flood.result(SOON)
    assert len(text(res)) <= 10_100 and last(res).endswith('x'*50) and seen[-1][1].startswith(('line', 'x'))

def test_a_prompt_fails_immediately(s):
    res = s.run('input("name? ")')
    assert res.is_error and 'StdinNotImplementedError' in text(res)

def test_questions_while_a_cell_runs(s):
    s.run('import math\nanswer = [1, 2, 3]')
    busy = s.run(SLEEP, wait=.1)
    s.until(lambda: 'answer: list [3] = [1, 2, 3]' in text(s('variables')))   # (a slow machine shows only names)
    assert 'Return' in text(s('inspect', code='math.sqrt')) and text(s('inspect', code='no_such_name')) == 'Nothing was found.'
    assert 'sqrt(x, /)' in text(s('complete', code='math.sq'))
    assert value(s, 'answer[-1]', beside=True) == '3'
    assert status(s('look', job=job(busy))) == 'running'
    s('stop', job=job(busy))

def test_save(s, tmp_path):
    kernel = 'saved'
    s.run('print("kept")', kernel=kernel), s.run('1/0', kernel=kernel)
    s('save', path=str(tmp_path/'a.ipynb'), kernel=kernel)
    cells = nbformat.read(tmp_path/'a.ipynb', 4).cells
    assert [o.source for o in cells] == ['print("kept")', '1/0'] and cells[1].outputs[0].ename == 'ZeroDivisionError'
    assert 'r.ipynb: 2 cells' in text(s('save', path='r.ipynb', kernel=kernel))   # (in --cwd)
    assert s('save', path='a.txt', kernel=kernel).is_error and s('save', path='a.ipynb', kernel='unused').is_error
    assert not s('shutdown', kernel=kernel).is_error

def test_wrong_arguments_are_errors_that_help(s):
    assert 'No job' in text(s('look', job='j99999')) and s('look', job='j99999').is_error
    assert 'no name' in text(s.run('1', kernel='../x')) and s.run('1', timeout=-1).is_error and s('run').is_error


# --- jobs ------------------------------------------------------------------------------------------------------------

def test_two_kernels(s):
    s.run('where = "main"'), s.run('where = "other"', kernel='other')
    assert value(s, 'where') == "'main'" and value(s, 'where', kernel='other') == "'other'"
    assert 'main: ' in text(s('kernels')) and 'other: ' in text(s('kernels'))
    assert 'shut down' in text(s('shutdown', kernel='other')) and 'other: off' in text(s('kernels'))
    assert s.run('where', kernel='other').is_error, 'a new kernel'
    s('shutdown', kernel='other')

def test_a_job_goes_on_and_is_looked_at(s, tmp_path):
    code = f'import os, time\nprint("so far", flush=True)\nwhile not os.path.exists({str(tmp_path/"go")!r}): time.sleep(.02)\n"end"'
    res = s.run(code, wait=.5)
    assert status(res) == 'running' and not res.is_error and f"look('{job(res)}')" in last(res)
    s.until(lambda: 'so far' in text(s('look', job=job(res))))
    assert job(res) in text(s('kernels'))
    (tmp_path/'go').touch()
    res = s('look', job=job(res), wait=SOON)
    assert status(res) == 'ok' and text(res) == "so far\n'end'\n"

def test_stop_stops_this_cell_and_no_other(s):
    first, queued, third = s.run(SLEEP, wait=.5), s.run('never = 1', wait=0), s.begin('run', code='"third"')
    assert status(queued) == 'queued'
    assert status(s('stop', job=job(queued))) == 'cancelled'
    res = s('stop', job=job(first))
    assert status(res) == 'cancelled' and 'stop()' in last(res) and not res.is_error and text(res).startswith('so far')
    assert text(third.result(SOON)) == "'third'\n" and value(s, "'never' in globals()") == 'False'

def test_a_time_limit_keeps_what_came_before(s):
    res = s.run(SLEEP, timeout=.7)
    assert res.is_error and status(res) == 'timeout' and text(res).startswith('so far\n') and 'took longer than 0.7 s' in last(res)
    assert value(s, '"alive"') == "'alive'"

def test_cancelling_a_call_interrupts_its_cell_and_no_other(s):
    s.run('seen = []')
    calls = [s.begin('run', code=o) for o in (SLEEP, 'seen.append("queued")', 'seen.append("neighbour")')]
    def jobs(): return re.findall(r'j\d+', text(s('kernels')).splitlines()[0])
    s.until(lambda: len(jobs()) == 3)
    running, queued = jobs()[:2]
    s.until(lambda: 'so far' in text(s('look', job=running)))
    calls[1].cancel(), calls[0].cancel()
    assert not calls[2].result(SOON).is_error and value(s, 'seen') == "['neighbour']"
    res = s('look', job=running, wait=SOON)
    assert status(res) == 'cancelled' and 'cancelled the call' in last(res) and status(s('look', job=queued)) == 'cancelled'

def test_cancelling_a_look_stops_nothing(s, tmp_path):
    res = s.run(f'import os, time\nwhile not os.path.exists({str(tmp_path/"go")!r}): time.sleep(.02)\n"end"', wait=0)
    looking = s.begin('look', job=job(res), wait=SOON)
    assert status(s('look', job=job(res))) in ('queued', 'running')
    looking.cancel()
    assert status(s('look', job=job(res), wait=.3)) == 'running'
    (tmp_path/'go').touch()
    assert text(s('look', job=job(res), wait=SOON)) == "'end'\n"

def test_parallel_calls(s):
    calls = [s.begin('run', code=f'{i}*10' if i != 5 else '1/0', kernel='main' if i % 2 else 'twin') for i in range(20)]
    got = [o.result(SOON) for o in calls]
    assert [o.is_error for o in got] == [i == 5 for i in range(20)]
    assert [text(o).strip() for i, o in enumerate(got) if i != 5] == [str(i*10) for i in range(20) if i != 5]
    s('shutdown', kernel='twin')

def test_a_restart_is_told_to_jobs(s):
    s.run('gone = 1')
    running, queued = s.run(SLEEP, wait=.3), s.run('2', wait=0)
    assert 'restarted' in text(s('restart'))
    for o in running, queued:
        res = s('look', job=job(o))
        assert status(res) == 'restarted' and res.is_error and 'restarted' in last(res)
    assert 'NameError' in text(s.run('gone'))
    assert 'not running' in text(s('restart', kernel='unused'))

def test_a_death_is_told_and_the_next_run_goes_on(s):
    res = s.run('print("so far", flush=True)\nimport os, time; time.sleep(.3); os._exit(7)')
    assert res.is_error and status(res) == 'dead' and text(res).startswith('so far\n') and 'exit code 7' in text(res)
    s.until(lambda: 'main: dead' in text(s('kernels')))
    res = s.run('6*7')
    assert 'had died' in text(res).splitlines()[0] and last(res) == '42' and not res.is_error
    assert value(s, '6*7') == '42', 'said once'

def test_progress_is_a_sign_of_life(s, tmp_path):
    code = f'import os, time\nprint("step 1", flush=True)\nwhile not os.path.exists({str(tmp_path/"go")!r}): time.sleep(.02)'
    seen = []
    async def progress(n, total, message): seen.append((n, message))
    call = s.begin('run', progress, code=code)
    wanted = 2 if s.mode == 'auto' else 1
    s.until(lambda: len(seen) == wanted)
    (tmp_path/'go').touch()
    call.result(SOON)
    assert Options().progress < 5 and [o[0] for o in seen] == [1, 2][:wanted] and seen[-1][1] == 'step 1'


STUBBORN = 'import time\nprint("so far", flush=True)\nwhile True:\n    try: time.sleep(.1)\n    except KeyboardInterrupt: pass'

async def call(client, name, **args): return await asyncio.wait_for(client.call_tool(name, args), SOON*2)

async def until(test):
    async with asyncio.timeout(SOON):
        while not (value := await test()): await asyncio.sleep(.02)
    return value

async def test_a_stubborn_cell():
    async with Client(make_server(grace=.5)) as c:
        res = await call(c, 'run', code=STUBBORN, wait=.5)
        res = await call(c, 'stop', job=job(res))
        assert res.is_error and "restart('main') ends it" in last(res) and status(res) == 'cancelled'
        await call(c, 'restart')
        assert last(await call(c, 'run', code='1')) == '1'


# --- servers of their own: in this process, as their transport does not matter ------------------------------------------

async def test_startup_idle_timeout_and_allow(tmp_path):
    (tmp_path/'start.py').write_text('ready = "made at the start"')
    options = dict(startup=str(tmp_path/'start.py'), idle_timeout=.4, limit=300, allow=['run', 'kernels'])
    async with Client(make_server(**options)) as c:
        async def value(code): return text(await call(c, 'run', code=code)).strip()
        assert await value('ready; mine = 1; ready') == "'made at the start'"
        assert await value('import time; time.sleep(1); mine') == '1', 'one that runs is in use'
        assert len(await value('print("x"*5000)')) <= 600 and (await call(c, 'stop', job='j1')).is_error
        (tmp_path/'start.py').write_text('again = 1\n1/0')
        async def off(): return 'main: off' in text(await call(c, 'kernels'))
        await until(off)
        res = await call(c, 'run', code='print("again" in globals(), "mine" in globals())')
        assert 'was not used for 0.4 s' in text(res) and 'start.py failed: ZeroDivisionError' in text(res) and last(res) == 'True False'

async def test_a_kernel_that_is_used_while_another_one_ends_stays():
    class Kernel:
        notes = ()
        def __init__(self, name): self.name, self.used, self.ended, self.notes = name, False, False, []
        def idle(self): return not self.used and not self.ended
        async def close(self):
            other.used = True   # somebody calls a tool
            self.ended = True
            raise RuntimeError('something else')
    one, other = Kernel('one'), Kernel('other')
    kernels = Kernels(Options(idle_timeout=.01))
    kernels.places = dict(one=one, other=other)
    reaper = asyncio.ensure_future(kernels.reap())
    async def ended(): return one.ended
    await until(ended)
    await asyncio.sleep(.05)
    assert not other.ended and not reaper.done()
    reaper.cancel()

@pytest.fixture
def alone(tmp_path, monkeypatch):
    "No kernel is running that this test has not started"
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path))

async def test_a_joined_kernel_is_never_shut_down(alone):
    async with open_kernel() as k:
        await k.run('mine = 1')
        file = await k.eval('__import__("ipykernel").get_connection_file()')
        async with Client(make_server(connect=file, grace=2)) as c:
            async def value(code): return text(await call(c, 'run', code=code)).strip()
            assert await value('mine; theirs = 2; mine') == '1'
            assert 'goes on running' in text(await call(c, 'shutdown', kernel='main'))
            assert await value('theirs') == '2' and 'joined' in text(await call(c, 'kernels'))
            assert (await call(c, 'restart')).is_error
            await call(c, 'run', code=SLEEP, wait=.3)
        assert await asyncio.wait_for(k.eval('theirs'), SOON) == 2, "the server's cell was stopped when it left"

async def test_the_latest_kernel_is_not_one_of_this_server(alone):
    async with Client(make_server(connect='latest')) as c:
        assert 'No kernel is running' in text(await call(c, 'run', code='1'))
        assert not (await call(c, 'run', code='scratch = 1', kernel='scratch')).is_error
        assert 'No kernel is running' in text(await call(c, 'run', code='1'))
        async with open_kernel() as k:
            await k.run('mine = 1')
            await call(c, 'run', code='1', kernel='a-newer-one')
            assert text(await call(c, 'run', code='mine, "scratch" in globals()')) == '(1, False)\n'
        async with open_kernel() as k:   # another one, as the person has closed the first
            await k.run('mine = 2')
            async def joined(): return (res := await call(c, 'run', code='mine')) and not res.is_error and res
            res = await until(joined)
            assert 'had died: this is a new one' in text(res) and last(res) == '2'

async def test_a_kernel_that_has_ended_cannot_be_joined(alone, tmp_path):
    "It says so, in place of a minute of silence"
    (tmp_path/'old.json').write_text(json.dumps(dict(ip='127.0.0.1', transport='tcp', shell_port=1)))
    (tmp_path/'text.json').write_text('no JSON')
    for file, why in (('old.json', 'has ended'), ('text.json', 'is not a connection file'), ('absent.json', 'No connection file')):
        async with Client(make_server(connect=str(tmp_path/file))) as c:
            res = await call(c, 'run', code='1')
            assert res.is_error and why in text(res)

async def test_a_shutdown_is_told_to_jobs_also_to_one_that_waits_for_its_kernel():
    server = make_server()
    async with Client(server) as c:
        running, queued = await call(c, 'run', code=SLEEP, wait=.5), await call(c, 'run', code='2', wait=0)
        assert 'shut down' in text(await call(c, 'shutdown', kernel='main'))
        for o in running, queued:
            res = await call(c, 'look', job=job(o))
            assert status(res) == 'dead' and res.is_error and "'main' was shut down" in text(res) and 'next run starts' in last(res)
        starting = asyncio.ensure_future(call(c, 'run', code='3'))
        async def begun(): return server.tools.places['main'].opening.under_way
        await until(begun)
        assert 'shut down' in text(await call(c, 'shutdown', kernel='main'))
        assert (await starting).is_error and 'shut down' in text(await starting)
        given_up = asyncio.ensure_future(call(c, 'run', code='never = 1'))
        await until(begun)
        given_up.cancel()
        assert text(await call(c, 'run', code='"never" in globals()')) == 'False\n'
        leaving = asyncio.ensure_future(call(c, 'run', code='4', kernel='other'))
        async def other(): return 'other' in server.tools.places and server.tools.places['other'].opening.under_way
        await until(other)
    res, = await asyncio.gather(leaving, return_exceptions=True)
    assert isinstance(res, Exception) or res.is_error
    assert {o.status for o in server.tools.places.values()} == {'off'} and not server.tools.places['other'].opening.under_way

async def test_results_outlast_the_table_of_jobs():
    "More calls than a client remembers, and outputs larger than it keeps: each call gets its result"
    server = make_server()
    async with Client(server) as c:
        await call(c, 'run', code='1')
        server.tools.places['main'].kc.jobs.limit = 10
        got = await asyncio.gather(*[call(c, 'run', code=f'print("x"*100, {i})') for i in range(130)])
        assert [text(o).split()[1] for o in got] == [str(i) for i in range(130)]
        assert 'No job' in text(await call(c, 'look', job='j2'))

async def test_hundreds_of_pictures(monkeypatch):
    "Their places are looked up once, and the answer fits"
    looks, look = [], server_module.binaries
    def counted(output):
        looks.append(output)
        return look(output)
    monkeypatch.setattr(server_module, 'binaries', counted)
    async with Client(make_server()) as c:
        res = await call(c, 'run', code='from IPython.display import display, Image\nfor i in range(300): display(Image(i.to_bytes(2, "big")*50, format="png"))')
        assert len(looks) == 300 and len(text(res)) <= 10_000 and sum(o.type == 'image' for o in res.content) == 10
        listed = (await c.read_resource(f'cell://{job(res)}')).contents[0].text
        assert listed.count('cell://') == 300
        whole = (await c.read_resource(f'cell://{job(res)}/150')).contents[0]
        assert base64.b64decode(whole.blob) == (149).to_bytes(2, 'big')*50

async def test_outputs_that_are_no_pictures_and_places_that_are_none(tmp_path):
    async with Client(make_server(cwd=str(tmp_path))) as c:
        res = await call(c, 'run', code='from IPython.display import display\ndisplay({"image/png": "no base64!"}, raw=True)')
        assert not res.is_error and 'no base64' in text(res) and all(o.type == 'text' for o in res.content)
        for o in '', '/1':
            assert (await c.read_resource(f'cell://{job(res)}{o}')).contents[0].mime_type == 'text/plain'
        for o in 'cell://', 'cell://j1/0', 'cell://j1/'+'9'*5000, 'cell://j1/1/2', 'cell://../x', 'file:///etc/passwd':
            with pytest.raises(MCPError) as e: await c.read_resource(o)
            assert 'nternal' not in str(e.value), o
        (tmp_path/'folder.ipynb').mkdir()
        for path, why in (('folder.ipynb', 'is a folder'), ('/proc/none/x.ipynb', 'No such file'), ('a\0.ipynb', 'null'), ('', 'ends in .ipynb'), ('~nobody-here/x.ipynb', 'home')):
            res = await call(c, 'save', path=path)
            assert res.is_error and why in text(res), text(res)
        assert str((tmp_path/'sub'/'x.ipynb').resolve()) in text(await call(c, 'save', path='sub/../sub/x.ipynb'))
        assert not [o for o in tmp_path.rglob('*.part')]

async def test_what_cannot_be_had_is_said():
    async with Client(make_server(kernel='no-such-kernel')) as client:
        res = await client.call_tool('run', dict(code='1'))
        assert res.is_error and 'No such kernel named no-such-kernel' in text(res)
    assert parsed(['--idle-timeout', '5', '--allow', 'run']) == dict(idle_timeout=5., allow=['run'])
    wrong = '--allow sudo', '--token x', '--limit x', '--limit 0', '--progress -1', '--grace 0', '--idle-timeout nan', '--cwd no/such', '--kernel='
    for o in wrong:
        with pytest.raises(SystemExit): parsed(o.split())

@pytest.mark.slow
async def test_kernels_behind_a_jupyter_server():
    jupyter = Jupyter().start()
    try:
        await jupyter.ready()
        async with Client(make_server(url=jupyter.url, token=jupyter.token)) as client:
            assert (await client.call_tool('run', dict(code='6*7'))).content[0].text == '42\n'
            kernel, = await list_kernels(jupyter.url, jupyter.token)
            server = make_server(url=jupyter.url, token=jupyter.token, connect=kernel['id'])
            async with Client(server) as other:
                assert (await other.call_tool('run', dict(code='_'))).content[0].text == '42\n'
            assert len(await list_kernels(jupyter.url, jupyter.token)) == 1, 'a joined one goes on'
            res = await call(client, 'save', path='/tmp/x.ipynb')
            assert res.is_error and 'only written below' in text(res), 'the cells cannot write on this machine'
        assert await list_kernels(jupyter.url, jupyter.token) == []
        raw = await asyncio.to_thread(Raw, '--url', jupyter.url, '--token', jupyter.token)
        try:
            assert await asyncio.to_thread(raw.run, '6*7') == '42\n' and len(await list_kernels(jupyter.url, jupyter.token)) == 1
            raw.p.terminate()
            assert await asyncio.to_thread(raw.p.wait, SOON) == -signal.SIGTERM
            async def none(): return await list_kernels(jupyter.url, jupyter.token) == []
            await until(none)
        finally: raw.p.kill(), raw.p.wait(), raw.p.stdin.close(), raw.p.stdout.close()
    finally: jupyter.stop()

async def test_a_startup_file_that_is_not_there():
    async with Client(make_server(startup='no/such.py')) as client:
        res = await client.call_tool('run', dict(code='1'))
        assert 'could not be read' in text(res) and last(res) == '1' and not res.is_error

async def test_a_server_of_ones_own():
    server = make_server(allow=['run'])
    @server.tool()
    def double(n: int) -> int: return 2*n
    async with Client(server) as client:
        assert (await client.call_tool('double', dict(n=4))).content[0].text == '8'
        assert (await client.call_tool('run', dict(code='6*7'))).content[0].text == '42\n'
        assert server.tools.places['main'].status != 'off'
    assert server.tools.places['main'].status == 'off'


# --- the wire, and the end -------------------------------------------------------------------------------------------

class Raw:
    "A server, and the lines of its stdout"
    def __init__(self, *args):
        self.p = subprocess.Popen([*COMMAND, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                  env=os.environ | dict(PYTHONPATH=str(ROOT)))
        self.ask('initialize', protocolVersion='2025-06-18', capabilities={}, clientInfo=dict(name='t', version='1'))
        self.send(dict(method='notifications/initialized'))

    def send(self, msg):
        self.p.stdin.write(json.dumps(dict(jsonrpc='2.0', **msg))+'\n')
        self.p.stdin.flush()

    def ask(self, method, **params):
        self.send(dict(id=1, method=method, params=params))
        while 'id' not in (msg := json.loads(self.p.stdout.readline())): pass   # (fails for a line that is no JSON)
        return msg['result']

    def run(self, code, **args): return self.ask('tools/call', name='run', arguments=dict(code=code, **args))['content'][0]['text']

NOISE = '''import os, sys
os.write(1, b"raw\\n"), os.write(2, b"raw\\n"), os.system("echo shell")
print("raw", file=sys.__stdout__, flush=True)
os.getpid()'''

def ended(pid):
    deadline = time.monotonic()+SOON
    while running(pid) and time.monotonic() < deadline: time.sleep(.05)
    return not running(pid)

def test_a_kernels_own_stdout_is_not_on_the_wire():
    "And what ends the server, the end of its stdin, ends the kernel"
    raw = Raw()
    try:
        for _ in range(3): pid = int(raw.run(NOISE).split()[-1])
        assert running(pid)
        raw.send(dict(id=2, method='tools/call', params=dict(name='run', arguments=dict(code='import time; time.sleep(600)'))))
        raw.p.stdin.close()
        for line in raw.p.stdout: json.loads(line)
        assert raw.p.wait(SOON) == 0 and ended(pid)
    finally: raw.p.kill(), raw.p.wait(), raw.p.stdout.close()

@pytest.mark.parametrize('end', [pytest.param('terminate', marks=pytest.mark.slow), pytest.param('hang up', marks=pytest.mark.slow), 'kill'])
def test_kernels_end_with_the_server(end):
    "Also one that is busy"
    raw = Raw()
    try:
        pid = int(raw.run('import os; os.getpid()'))
        assert 'so far' in raw.run(SLEEP.replace('60', '600'), wait=1) and running(pid)
        raw.p.send_signal(signal.SIGHUP) if end == 'hang up' else getattr(raw.p, end)()
        raw.p.wait(SOON)
        assert ended(pid)
    finally: raw.p.kill(), raw.p.wait(), raw.p.stdin.close(), raw.p.stdout.close()

def test_without_the_package_it_says_what_to_install():
    code = 'import sys; sys.modules["mcp"] = None; import conkernelclient.mcp'
    res = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=SOON)
    assert "pip install 'conkernelclient[mcp]'" in res.stderr.splitlines()[-1]

def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit): main(['--help'])
    shown = capsys.readouterr().out
    for o in '--kernel --cwd --connect --limit --progress --grace --idle-timeout --startup --allow --url --token'.split(): assert o in shown
