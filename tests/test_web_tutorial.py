"""The server of the tutorial *A cell in a web page*, as it stands there, over real HTTP connections and with a real kernel."""
import asyncio, json, os, sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx, pytest, uvicorn

sys.path.insert(0, str(Path(__file__).parent))
from browser import browser, program, until as blocking_until
from fault_tools import SOON, running, until

bound = 120
TUTORIAL = Path(__file__).parent.parent/'nbs/tutorials/09_a_cell_in_a_web_page.ipynb'
BEGUN = 'import time, pathlib, os\nprint("begun", flush=True)\n'
FOREVER = BEGUN+'time.sleep(600)'


def tutorial_app():
    "What the cells of the tutorial that belong to `app.py` define"
    cells = [''.join(o['source']) for o in json.loads(TUTORIAL.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'code']
    parts = [o for o in cells if o.startswith('# app.py')]
    assert parts
    res = {}
    for o in parts: exec(compile(o, 'app.py', 'exec'), res)
    return SimpleNamespace(**res, names=res)

@asynccontextmanager
async def serving(grace=0.):
    "The server, on a port of its own: its module, its address, and its client of the kernel"
    page = tutorial_app()
    page.names['GRACE'] = grace
    clients = []
    opened = page.names['open_kernel']
    def noted():
        @asynccontextmanager
        async def opening():
            async with opened() as kc:
                clients.append(kc)
                yield kc
        return opening()
    page.names['open_kernel'] = noted
    server = uvicorn.Server(uvicorn.Config(page.app, port=0, log_level='warning', timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        page.url, page.kc = f'http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}', clients[0]
        page.pid = page.kc.manager.provisioner.process.pid
        yield page
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, SOON)

def client(page): return httpx.AsyncClient(base_url=page.url, timeout=SOON)

async def stream(web, method, url, **kwargs):
    async with web.stream(method, url, **kwargs) as answer:
        assert answer.status_code == 200, answer.status_code
        async for line in answer.aiter_lines(): yield json.loads(line)

def cell(web, code): return stream(web, 'POST', '/cells', content=code)
def view(web, run, after=0): return stream(web, 'GET', f'/cells/{run}/{after}')
async def every(events): return [o async for o in events]
def end(events): return events[-1]['kind'], events[-1].get('outcome')
def text(events): return ''.join(o['output']['text'] for o in events if o.get('output', {}).get('output_type') == 'stream')

def until_exists(path): return BEGUN+f'while not pathlib.Path({str(path)!r}).exists(): time.sleep(.005)\nprint("done")'


async def test_outputs_come_as_they_are_made(tmp_path):
    async with serving() as page, client(page) as web:
        events = cell(web, until_exists(tmp_path/'go'))
        first = await anext(events)   # the kernel cannot be done
        assert (first['number'], first['kind'], first['run'], first['output']['text']) == (1, 'new', 'r1', 'begun\n')
        (tmp_path/'go').touch()
        rest = await every(events)
        assert text(rest) == 'done\n' and end(rest) == ('end', 'ok')

async def test_an_error_is_an_output_and_an_end():
    async with serving() as page, client(page) as web:
        events = await every(cell(web, '1/0'))
        assert events[0]['output']['ename'] == 'ZeroDivisionError' and end(events) == ('end', 'error')

async def test_a_browser_that_leaves_stops_its_cell_and_no_other():
    async with serving() as page, client(page) as web:
        events = cell(web, FOREVER)
        assert (await anext(events))['output']['text'] == 'begun\n'
        run = page.kc.jobs['r1']
        behind = asyncio.create_task(every(cell(web, 'print("behind")')))
        await until(lambda: 'r2' in page.kc.jobs)
        assert run.state == 'running'
        await events.aclose()
        assert await run.settled(SOON) and (run.outcome, run.message) == ('cancelled', 'nobody views it')
        assert text(await asyncio.wait_for(behind, SOON)) == 'behind\n'
        assert run.partial.error.ename == 'KeyboardInterrupt'   # the kernel has been interrupted
        assert not page.viewers

async def test_a_browser_that_leaves_in_the_queue(tmp_path):
    "Its cell is never sent; and that also when it has not got a byte of the stream"
    async with serving() as page, client(page) as web:
        first = cell(web, until_exists(tmp_path/'go'))
        await anext(first)
        waiting = asyncio.create_task(every(cell(web, f'open({str(tmp_path/"never")!r}, "w")')))
        await until(lambda: 'r2' in page.kc.jobs)
        waiting.cancel()
        assert await page.kc.jobs['r2'].settled(SOON) and page.kc.jobs['r2'].outcome == 'cancelled'
        assert page.kc.jobs['r1'].state == 'running'
        (tmp_path/'go').touch()
        assert end(await every(first)) == ('end', 'ok')
        assert end(await every(cell(web, '1'))) == ('end', 'ok') and not (tmp_path/'never').exists()

async def test_viewers(tmp_path):
    "A second one gets what it lacks; the first one's leaving stops nothing; the last one's does"
    async with serving() as page, client(page) as one, client(page) as two:
        first = cell(one, until_exists(tmp_path/'go')+'\ntime.sleep(600)')
        run = (await anext(first))['run']
        second, third = view(two, run), view(two, run, 1)
        assert (await anext(second))['output']['text'] == 'begun\n'
        late = asyncio.create_task(anext(third))
        await until(lambda: page.viewers[run] == 3)
        await first.aclose()
        await until(lambda: page.viewers[run] == 2)
        (tmp_path/'go').touch()
        assert (await asyncio.wait_for(late, SOON))['number'] == (await anext(second))['number'] == 2
        assert page.kc.jobs[run].state == 'running'
        await second.aclose()
        await until(lambda: page.viewers[run] == 1)
        assert page.kc.jobs[run].state == 'running'
        await third.aclose()
        assert await page.kc.jobs[run].settled(SOON) and page.kc.jobs[run].outcome == 'cancelled'
        assert text(await every(view(two, run))) == 'begun\ndone\n', 'a cell that has ended can be viewed, too'

async def test_a_reload(tmp_path):
    "The browser is gone, comes back in time, and goes on after the last event that it has"
    async with serving(grace=SOON) as page, client(page) as web:
        events = cell(web, until_exists(tmp_path/'go'))
        last = await anext(events)
        await events.aclose()
        await until(lambda: not page.viewers[last['run']])
        again = view(web, last['run'], last['number'])
        rest = asyncio.create_task(every(again))
        await until(lambda: page.viewers[last['run']])
        (tmp_path/'go').touch()
        rest = await asyncio.wait_for(rest, SOON)
        assert rest[0]['number'] == 2 and text(rest) == 'done\n' and end(rest) == ('end', 'ok')

async def test_a_viewer_that_does_not_read(tmp_path):
    "It delays neither the cell nor another viewer, and has the same outputs in the end"
    code = 'for i in range(300): print(str(i)*20_000)'   # more than sockets take
    async with serving() as page, client(page) as slow, client(page) as web:
        asleep = cell(slow, code)
        begun = await anext(asleep)
        seen = await every(view(web, begun['run']))
        assert end(seen) == ('end', 'ok')
        clear = lambda events: events[max([i for i, o in enumerate(events) if o['kind'] == 'clear'], default=-1)+1:]
        assert text(clear([begun, *await every(asleep)])) == text(clear(seen)) == page.kc.jobs[begun['run']].result().stdout

async def test_a_kernel_that_dies(tmp_path):
    "Each viewer, and each cell that waits, gets an end that says so; the cells after that share one restart"
    async with serving() as page, client(page) as web:
        deadly = cell(web, until_exists(tmp_path/'go')+'\nos._exit(3)')
        run = (await anext(deadly))['run']
        others = [asyncio.create_task(every(o)) for o in (view(web, run), cell(web, 'print("waits")'))]
        await until(lambda: page.viewers[run] == 2 and page.viewers['r2'] == 1)
        (tmp_path/'go').touch()
        for events in [await every(deadly), *await asyncio.wait_for(asyncio.gather(*others), SOON)]:
            assert end(events) == ('end', 'dead') and 'exit code 3' in events[-1]['message']
        provisioner, launches = page.kc.manager.provisioner, []
        launch = provisioner.launch_kernel
        def counted(*args, **kwargs):
            launches.append(args)
            return launch(*args, **kwargs)
        provisioner.launch_kernel = counted
        after = await asyncio.wait_for(asyncio.gather(*[every(cell(web, f'print({i})')) for i in range(20)]), bound)
        assert [text(o) for o in after] == [f'{i}\n' for i in range(20)]
        assert len(launches) == 1

async def test_many_browsers():
    async with serving() as page, client(page) as web:
        seen = await asyncio.gather(*[every(cell(web, f'print({i})')) for i in range(60)])
        assert [text(o) for o in seen] == [f'{i}\n' for i in range(60)] and {end(o) for o in seen} == {('end', 'ok')}
        await until(lambda: not page.viewers)

async def test_a_cell_that_is_not_there():
    async with serving() as page, client(page) as web:
        for url in '/cells/r7/0', '/cells/r1/x', '/cells': assert (await web.get(url)).status_code in (404, 405)

async def test_a_page_from_elsewhere_runs_nothing():
    async with serving() as page, client(page) as web:
        for origin in 'https://example.org', 'null', page.url+'0':
            assert (await web.post('/cells', content='1', headers=dict(Origin=origin))).status_code == 403
        assert not page.kc.jobs
        assert (await web.post('/cells', content='1', headers=dict(Origin=page.url))).status_code == 200

async def test_the_end_of_the_server():
    "With a viewer on the line: its kernel is gone, too"
    async with serving() as page, client(page) as web:
        events = cell(web, FOREVER)
        await anext(events)
        pid = page.pid
        leaving = asyncio.create_task(every(events))
    with pytest.raises(httpx.HTTPError): await asyncio.wait_for(leaving, SOON)
    await until(lambda: not running(pid))


@pytest.mark.skipif(not program(), reason='there is no Chromium')
async def test_in_a_browser(tmp_path):
    "Run, a second person with the same address, a reload, leaving, and a dead kernel"
    def run(tab, code):
        tab.js(f"at('code').value = {json.dumps(code)}")
        tab.click('#run')
    def sees(tab, text, state):
        tab.until(f"at('outputs').innerText.trim() == {json.dumps(text)} && at('state').textContent.startsWith({json.dumps(state)})")
    def look(url):
        with browser() as b, b.tab() as one:
            with b.tab() as two:
                one.open(url)
                run(one, until_exists(tmp_path/'go')+"\nprint('10%', end='\\r'); print('20%')")
                sees(one, 'begun', 'running')
                two.open(one.js('location.href'))
                sees(two, 'begun', 'running')
                (tmp_path/'go').touch()
                for o in one, two: sees(o, 'begun\ndone\n20%', 'ok')
                run(two, 'from IPython.display import display\nbar = display("0 %", display_id="bar")\nbar.update("100 %")\n1/0')
                sees(two, "'100 %'\nZeroDivisionError: division by zero", 'error')
                run(two, FOREVER)
                sees(two, 'begun', 'running')
                loaded = two.loaded
                two.call('Page.reload')
                blocking_until('the reload', lambda: two.hear() and two.loaded > loaded)
                sees(two, 'begun', 'running')
                assert not one.problems and not two.problems
            run(one, 'import os; os._exit(3)')   # behind the cell of a browser that is gone
            sees(one, '', 'dead')
            run(one, 'print("alive")')
            sees(one, 'alive', 'ok')
            run(one, FOREVER)
            sees(one, 'begun', 'running')
            one.click('#stop')
            sees(one, 'begun', 'stopped')
            assert not one.problems
    async with serving(grace=1.) as page:
        await asyncio.to_thread(look, page.url)
        assert await page.kc.jobs['r6'].settled(SOON)
        assert [o.outcome for o in page.kc.jobs.values()] == ['ok', 'error', 'cancelled', 'dead', 'ok', 'cancelled']
