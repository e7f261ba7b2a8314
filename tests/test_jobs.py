"""A run as a job: how it ended, its events for any number of readers, new text, the table of jobs, and the bound on outputs.

The orders are forced by a kernel that does as it is told; what depends on a real kernel's outputs runs on one.
"""
import asyncio, gc, json, os, pickle, random, re, subprocess, sys, textwrap, weakref
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path

import nbformat
import pytest
from jupyter_client.session import Session

from conkernelclient import (ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionTimeout, JobEvent,
                             KernelRestartedError, NoReplyError, run_kernel)
from conkernelclient.cells.llm import StreamText
from conkernelclient.cells.outputs import Displays, Outputs, Result

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel

bound = 60
SOON = 20   # seconds: far more than anything here takes
HOLD = 'fake: busy echo stream=begun hold reply idle'
STEPS = 'fake: busy echo stream=one hold stream=two hold stream=three reply idle'

pytestmark = pytest.mark.filterwarnings('error')


@asynccontextmanager
async def fake(on=None, **kwargs):
    with FakeKernel(on=on, **kwargs) as fk:
        kc = fk.client(ConKernelClient)
        await asyncio.wait_for(ready(kc), SOON)
        try: yield fk, kc
        finally: kc.stop_channels()

async def ready(kc): await kc.start_channels()

def soon(awaitable): return asyncio.wait_for(awaitable, SOON)

async def until(predicate):
    async with asyncio.timeout(SOON):
        while not predicate(): await asyncio.sleep(.001)

async def text(run, wanted): await until(lambda: wanted in run.partial.text)

async def outcome(awaitable):
    try: return await soon(awaitable)
    except (Exception, asyncio.CancelledError) as e: return e


class Page:
    "Shows the runs whose events it gets, by the table in the documentation"
    def __init__(self): self.cells, self.number, self.end, self.kinds = {}, 0, None, []

    def show(self, event, run):
        e = json.loads(json.dumps(event.to_dict(), allow_nan=False))
        assert e['number'] > self.number
        self.number = e['number']
        self.kinds.append(e['kind'])
        if e['run'] != run.id and e['run'] not in self.cells: return    # of a cell that this page does not show
        outputs = self.cells.setdefault(e['run'], [])
        match e['kind']:
            case 'new':
                assert e['index'] == len(outputs)
                outputs.append(e['output'])
            case 'append': outputs[e['index']]['text'] += e['output']['text']
            case 'update': outputs[e['index']] = e['output']
            case 'clear': self.cells[run.id] = []
            case 'end': self.end = e['outcome'], e['message']

    async def follow(self, run, count=None):
        "Show `count` events, or all"
        async for e in run.follow(self.number):
            self.show(e, run)
            if count is not None and (count := count-1) <= 0: break

    def drawn(self, run):
        return [{**o, 'text': str(StreamText(o['text']))} if 'text' in o else o for o in self.cells.get(run.id, [])]


# --- what it is, and how it ended ----------------------------------------------------------------------------------

async def test_a_job_from_the_call_on():
    async with fake() as (fk, kc):
        first, second = kc.run(HOLD), kc.run('b')
        assert first.id and second.id and first.id != second.id and (second.code, second.state) == ('b', 'queued')
        assert (second.started, second.outcome, second.message) == (None, None, '')
        before = datetime.now(timezone.utc)
        await text(first, 'begun')
        assert first.state == 'running' and first.outcome is None and second.started is None
        assert first.started.tzinfo is not None and abs((first.started-before).total_seconds()) < 60
        await fk.until_held(1)
        fk.release()
        await soon(second)
        assert (first.state, first.outcome, second.state, second.outcome) == ('done', 'ok', 'done', 'ok')
        assert repr(second) == f"<Run {second.id} done, ok: 'b'>"


async def test_started_without_dates():
    "A kernel whose messages have no dates: our own clock"
    async with fake() as (fk, kc):
        run = kc.run('x')
        await soon(run)
        run.partial._busy = {}
        assert abs((run.started-datetime.now(timezone.utc)).total_seconds()) < 60


async def test_outcomes():
    async with fake() as (fk, kc):
        kc.interrupt_timeout = .2
        def bad(event): 1/0
        runs = {
            'ok': kc.run('x'),
            'error': kc.run('fake: busy echo error=Bad idle'),
            'checked': kc.run('fake: busy echo error=Bad idle', check=True),
            'aborted': kc.run('fake: busy abort idle'),
            'aborted, checked': kc.run('fake: busy abort idle', check=True),
            'callback': kc.run('fake: busy stream=x reply idle', on_output=bad),
            'timeout': kc.run(HOLD, timeout=.05),
            'cancelled': kc.run('never'),
        }
        runs['cancelled'].cancel()
        runs['why'] = kc.run('never')
        runs['why'].cancel('nobody wants it')
        for o in runs.values(): assert await soon(o.settled())
        got = {k: (o.outcome, o.message) for k, o in runs.items()}
        assert {k: v[0] for k, v in got.items()} == {
            'ok': 'ok', 'error': 'error', 'checked': 'error', 'aborted': 'aborted', 'aborted, checked': 'aborted',
            'callback': 'error', 'timeout': 'timeout', 'cancelled': 'cancelled', 'why': 'cancelled'}
        assert got['ok'][1] == '' and got['error'][1] == got['checked'][1] and got['error'][1].startswith('Bad')
        assert got['callback'][1] == 'ZeroDivisionError: division by zero' and got['why'][1] == 'nobody wants it'
        assert 'took longer than 0.05 s and was interrupted' in got['timeout'][1]
        for name, o in runs.items():
            assert o.id in repr(o) and o.outcome in repr(o) and o.message[:60] in repr(o) and '\n' not in repr(o), name
        kc.grace = .05
        lost = kc.run('fake: busy idle')
        assert isinstance(await outcome(lost), NoReplyError) and lost.outcome == 'error' and 'reply never came' in lost.message
        open_ = kc.run(HOLD)
        await text(open_, 'begun')
        kc.stop_channels()
        assert isinstance(await outcome(open_), ClientClosedError) and (open_.outcome, bool(open_.message)) == ('error', True)


async def test_outcome_of_a_dead_kernel():
    async with fake() as (fk, kc):
        kc.lost_after = .1
        run, queued = kc.run(HOLD), kc.run('b')
        await text(run, 'begun')
        fk.crash()
        for o in run, queued:
            assert await soon(o.settled()) and o.outcome == 'dead' and 'dead' in repr(o) and o.message, o


async def test_outcome_of_a_restart():
    async with run_kernel() as (km, kc):
        run, queued = kc.run("print('begun', flush=True); import time; time.sleep(60)"), kc.run('2')
        await text(run, 'begun')
        await soon(kc.restart(now=True))
        assert [o.outcome for o in (run, queued)] == ['restarted']*2 and 'restarted' in run.message
        assert isinstance(await outcome(run), KernelRestartedError) and await run.settled(0)
        assert (await soon(kc.run('6*7'))).text == '42\n' and list(kc.jobs)[:2] == [run.id, queued.id]


async def test_settled_raises_nothing_and_cancels_nothing():
    async with fake() as (fk, kc):
        run = kc.run(HOLD, check=True)
        assert not await run.settled(0) and not await run.settled(timeout=.01) and not await run.settled(-1)
        waiting = [asyncio.ensure_future(run.settled()) for _ in range(3)]
        await text(run, 'begun')
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert waiting[0].cancelled() and not run.done()
        await fk.until_held(1)
        fk.release()
        assert await soon(waiting[1]) and await soon(waiting[2]) and run.outcome == 'ok'
        bad = kc.run('fake: busy error=Bad idle', check=True)
        assert await soon(bad.settled()) and bad.outcome == 'error' and await bad.settled(0)


async def test_a_run_that_the_kernel_does_not_stop():
    "Its caller has got its outcome, and it is still running"
    async with fake() as (fk, kc):
        kc.interrupt_timeout = .05
        fk.on['interrupt_request'] = 'busy reply idle'
        run = kc.run(HOLD, timeout=.05)
        assert isinstance(await outcome(run), ExecutionTimeout)
        assert (run.state, run.outcome) == ('running', 'timeout') and 'ignored' in run.message
        assert [e.kind async for e in run.follow()][-1] == 'end'
        await fk.until_held(1)
        fk.release()
        await until(lambda: run.state == 'done')
        assert run.outcome == 'timeout' and kc.jobs[run.id] is run


# --- watching is not owning ----------------------------------------------------------------------------------------

async def test_followers_come_and_go():
    async with fake() as (fk, kc):
        run, pages = kc.run(STEPS), [Page() for _ in range(5)]
        whole = asyncio.ensure_future(pages[0].follow(run))
        await soon(pages[1].follow(run, 1))        # leaves after the first event
        given_up = asyncio.ensure_future(pages[2].follow(run))
        await text(run, 'one')
        given_up.cancel()
        assert isinstance(await outcome(given_up), asyncio.CancelledError)
        for i in 1, 2:
            assert not run.done()
            await fk.until_held(1)
            fk.release()
            await text(run, 'two' if i == 1 else 'three')
            if i == 1: await soon(pages[3].follow(run, 1))
        await soon(whole)
        for o in pages[1:]: await soon(o.follow(run))
        assert run.outcome == 'ok' and not fk.got('interrupt_request')
        for o in pages: assert o.drawn(run) == run.partial.outputs and o.end == ('ok', ''), o.kinds
        numbers = [e.number async for e in run.follow()]
        assert numbers == list(range(1, len(numbers)+1)) and [e async for e in run.follow(numbers[-1])] == []
        assert [e.number async for e in run.follow(after=numbers[-2])] == numbers[-1:]


async def test_followers_of_every_end():
    "The last event says how it ended; nothing is raised"
    async with fake() as (fk, kc):
        bad, queued, running = kc.run('fake: busy error=Bad idle', check=True), kc.run('x'), kc.run(HOLD)
        late = kc.run('never')
        pages = [Page() for _ in range(4)]
        tasks = [asyncio.ensure_future(o.follow(run)) for o, run in zip(pages, (bad, queued, running, late))]
        await text(running, 'begun')
        late.cancel('not needed')
        running.cancel()
        for o in tasks: await soon(o)
        assert [o.end[0] for o in pages] == ['error', 'ok', 'cancelled', 'cancelled'] and pages[3].end[1] == 'not needed'
        assert pages[0].end[1].startswith('Bad')
        closed, page = kc.run(HOLD), Page()
        task = asyncio.ensure_future(page.follow(closed))
        await text(closed, 'begun')
        kc.stop_channels()
        await soon(task)
        assert page.end[0] == 'error'


async def test_the_end_comes_after_the_hooks():
    "A slow callback holds the end back, and no event is lost"
    async with fake() as (fk, kc):
        go = asyncio.Event()
        async def slow(event): await go.wait()
        run, page = kc.run('fake: busy stream=x reply idle', on_output=slow), Page()
        task = asyncio.ensure_future(page.follow(run))
        await until(lambda: run.state == 'done')
        assert page.end is None and run.outcome is None
        go.set()
        await soon(task)
        assert page.end == ('ok', '') and page.drawn(run) == run.partial.outputs


async def test_a_second_reader_never_cancels():
    async with fake() as (fk, kc):
        run, got = kc.run(STEPS), []
        async def first():
            async for out in run: got.append(out.text)
        async def second():
            async for out in run: break
        reading = asyncio.ensure_future(first())
        await until(lambda: got)
        await soon(second())
        await soon(second())
        for _ in range(2):
            await fk.until_held(1)
            fk.release()
        await soon(reading)
        assert run.outcome == 'ok' and ''.join(got) == 'onetwothree' and not fk.got('interrupt_request')


async def test_the_first_reader_leaves_others_go_on():
    async with fake() as (fk, kc):
        run, got = kc.run(STEPS), []
        async def first():
            async for out in run: break
        async def second():
            async for out in run: got.append(out.text)
        reader = aiter(run)         # the first one
        reading = asyncio.ensure_future(second())
        await until(lambda: got)
        await soon(anext(reader))
        del reader
        assert not run.done() and len(run._mail) == 1
        for _ in range(2):
            await fk.until_held(1)
            fk.release()
        await soon(reading)
        assert run.outcome == 'ok' and ''.join(got) == 'onetwothree'
        # and where a task waits for it
        run = kc.run(STEPS)
        waiting = asyncio.ensure_future(run)
        await asyncio.sleep(0)
        async for out in run: break
        for _ in range(2):
            assert not run.done()
            await fk.until_held(1)
            fk.release()
        assert (await soon(waiting)).text == 'onetwothree'


async def test_the_only_reader_cancels_and_says_why():
    "A follower only watches, so it does not keep the cell running"
    async with fake() as (fk, kc):
        page = Page()
        run = kc.run(HOLD)
        task = asyncio.ensure_future(page.follow(run))
        async for out in run: break
        error = await outcome(run)
        assert isinstance(error, asyncio.CancelledError) and 'the loop that read its outputs was left' in str(error)
        await soon(task)
        assert run.outcome == 'cancelled' and page.end == ('cancelled', str(error)) and fk.got('interrupt_request') == 1
        async for out in kc.run(HOLD): break
        *_, last = kc.jobs.values()
        assert await soon(last.settled()) and last.outcome == 'cancelled' and 'was left' in last.message


async def test_who_cancels_says_why():
    async with fake() as (fk, kc):
        runs = kc.run(HOLD), kc.run('never')
        await text(runs[0], 'begun')
        await soon(kc.cancel_all())
        assert all('cancel_all' in o.message for o in runs)
        async with kc.subshell() as sh: pass
        try:
            async with kc.subshell() as sh:
                run = sh.run(HOLD)
                await text(run, 'begun')
                raise ZeroDivisionError
        except ZeroDivisionError: pass
        assert run.outcome == 'cancelled' and 'subshell' in run.message and 'on a subshell' in repr(run)
        fk.release()


async def test_an_update_of_another_cell_is_that_cells():
    async with run_kernel() as (km, kc):
        first = kc.run("h = display('0 %', display_id='bar')")
        await soon(first)
        early = Page()
        await soon(early.follow(first))
        second, page = kc.run("h.update('50 %'); display('mine', display_id='x'); h.update('100 %')"), Page()
        page.cells[first.id] = early.drawn(first)      # it shows both
        await soon(page.follow(second))
        updates = [e async for e in second.follow() if e.kind == 'update']
        assert [(e.run, e.index, e.output['data']['text/plain']) for e in updates] == [(first.id, 0, "'50 %'"), (first.id, 0, "'100 %'")]
        assert page.drawn(second) == second.partial.outputs and page.drawn(first) == first.partial.outputs
        await soon(early.follow(first))       # the page of the first one comes back
        assert early.drawn(first) == first.partial.outputs and "'100 %'" in str(early.drawn(first))
        assert early.kinds[-1] == 'end' and early.end == ('ok', '')
        # followed while it happens
        third = kc.run("h.update('again'); h.update('and again')")
        third.follow()
        await soon(third)
        assert [(e.kind, e.run) async for e in third.follow()] == [('update', first.id)]*2+[('end', third.id)]
        assert third.since()[0] == '' and 'and again' in first.since()[0]


async def test_two_running_cells_and_one_display():
    "A cell that is followed while another one changes its display"
    async with run_kernel() as (km, kc):
        async with kc.subshell() as sh:
            await soon(kc.run("import threading; there, go = threading.Event(), threading.Event()", check=True))
            first, page = kc.run("h = display('0 %', display_id='bar'); there.set(); go.wait(30)"), Page()
            task = asyncio.ensure_future(page.follow(first))
            await text(first, '0 %')
            await soon(sh.run("there.wait(20); h.update('100 %')", check=True))   # (the display is here before `h` is there)
            await until(lambda: 'update' in page.kinds)
            await soon(sh.run("go.set()", check=True))
            await soon(task)
            assert page.drawn(first) == first.partial.outputs and "'100 %'" in str(page.drawn(first))


def random_messages(rng, count):
    def msg(kind, **content): return dict(msg_type=kind, header={}, parent_header={}, metadata={}, content=content, buffers=[])
    for i in range(count):
        match rng.choice(['stream']*6+['display']*2+['update', 'clear', 'error']):
            case 'stream':
                piece = ''.join(rng.choice('abc123\n\r\b') for _ in range(rng.randrange(1, 8)))
                yield msg('stream', name=rng.choice(['stdout']*4+['stderr']), text=piece)
            case 'display':
                transient = {'display_id': rng.choice('xy')} if rng.random() < .5 else {}
                yield msg('display_data', data={'text/plain': f'<{i}>'}, metadata={}, transient=transient)
            case 'update': yield msg('update_display_data', data={'text/plain': f'<{i}>'}, metadata={}, transient={'display_id': rng.choice('xy')})
            case 'clear': yield msg('clear_output', wait=rng.random() < .5)
            case 'error': yield msg('error', ename='E', evalue=str(i), traceback=[f'trace {i}'])


@pytest.mark.parametrize('part', range(4))
async def test_every_reader_comes_to_the_same_outputs(part):
    "Random outputs; readers that come, leave and come back at random places; small journals and small limits"
    from conkernelclient.cells import jobs
    class Cell(jobs.JobFacts): partial = None
    room = jobs.ROOM
    async with fake() as (fk, kc):
        for seed in range(part*150, part*150+150):
            rng = random.Random(seed)
            run = Cell(asyncio.get_running_loop())
            run.id, run.partial = 'r1', Result(displays=Displays())
            jobs.ROOM = rng.choice([0, 2000, room])
            if rng.random() < .5: run.partial.live.bound(rng.choice([30, 100, 300]))
            try:
                pages = [Page() for _ in range(3)]
                for m in random_messages(rng, rng.randrange(1, 60)):
                    run.record(run.partial.add(m), lambda outputs: None)
                    for o in pages:
                        if rng.random() > .3: continue
                        run.follow()
                        there = len([*unread(run, o)])
                        if there: await o.follow(run, rng.randrange(1, there+1))
                run.set_result(run.partial)
                run.record_end()
                for o in [*pages, Page()]:
                    await o.follow(run)
                    assert o.drawn(run) == run.partial.outputs, seed
                    assert o.kinds.count('end') == 1 and o.kinds[-1] == 'end', seed
            finally: jobs.ROOM = room

def unread(run, page):
    "The events that a page gets without waiting"
    follower = run.follow(page.number)
    while (e := follower._next()) is not None:
        follower.at = e.number
        yield e


async def test_nothing_is_kept_where_nobody_follows():
    async with fake() as (fk, kc):
        run = kc.run('fake: busy stream=a stream=b reply idle')
        await soon(run)
        assert run.journal is None and run._mail is None
        run.follow()
        assert len(run.journal.events) == 2     # one output, and the end


async def test_a_number_of_another_life():
    async with fake() as (fk, kc):
        run = kc.run('fake: busy stream=a reply idle')
        await soon(run)
        got = [e async for e in run.follow(after=1000)]
        assert [e.kind for e in got] == ['clear', 'new', 'end'] and [e.number for e in got] == [1001, 1002, 1003]
        assert [e.kind async for e in run.follow(after=-5)][-1] == 'end'


# --- new text ------------------------------------------------------------------------------------------------------

def drawn(text):
    "What a terminal shows of a text: `\\r`, `\\b` (which also deletes, as in a notebook), and `ESC[K`"
    lines, cur = [''], 0
    for c in re.findall('\x1b\\[K|.', text, re.S):
        line = lines[-1]
        if c == '\x1b[K': lines[-1] = line[:cur]
        elif c == '\n': lines, cur = [*lines, ''], 0
        elif c == '\r': cur = 0
        elif c == '\b':
            if cur: lines[-1], cur = line[:cur-1]+line[cur+(cur < len(line)):], cur-1
        else: lines[-1], cur = line[:cur]+c+line[cur+1:], cur+1
    return '\n'.join(lines)


def stream(text, name='stdout'): return dict(msg_type='stream', content=dict(name=name, text=text))


@pytest.mark.parametrize('part', range(4))
def test_the_texts_together_are_the_text(part):
    for seed in range(part*500, part*500+500):
        rng, o, got, raw, cursor = random.Random(seed), Outputs(), '', '', None
        for _ in range(rng.randrange(1, 40)):
            piece = ''.join(rng.choice('abcd12\n\r'+'\b'*(seed%2)) for _ in range(rng.randrange(1, 8)))
            raw += piece
            o.add(stream(piece))
            if rng.random() < .4:
                new, cursor = o.text_since(json.loads(json.dumps(cursor)))
                got += new
        new, cursor = o.text_since(cursor)
        assert drawn(got+new) == o.outputs[0]['text'] == str(StreamText(raw)), seed
        assert o.text_since(cursor) == ('', cursor)


@pytest.mark.parametrize('names', [['stdout'], ['stdout', 'stderr']])
def test_nothing_comes_twice_and_nothing_that_is_kept_is_missed(names):
    "With a limit that is exceeded again and again"
    for seed in range(500):
        rng, o, got, cursor, always, at = random.Random(seed), Outputs(), '', None, '', None
        o.bound(rng.choice([60, 100, 300]))
        often = rng.choice([.05, .5, 1])
        for n in range(rng.randrange(1, 200)):
            o.add(stream(f'<{n}>'+rng.choice(['', '\n']), rng.choice(names)))
            new, at = o.text_since(at)
            always += new
            if rng.random() < often:
                new, cursor = o.text_since(cursor)
                got += new
        new, cursor = o.text_since(cursor)
        seen = [int(i) for i in re.findall(r'<(\d+)>', got+new)]
        assert seen == sorted(set(seen)), seed
        assert [int(i) for i in re.findall(r'<(\d+)>', always)] == list(range(n+1)), seed
        kept = [int(i) for i in re.findall(r'<(\d+)>', ''.join(out['text'] for out in o.outputs))]
        assert set(kept) <= set(seen), seed


async def test_new_text_of_a_real_cell():
    code = """
    import sys, time
    from IPython.display import clear_output, display
    def step():
        sys.stdout.flush(); sys.stderr.flush()
        input()
    print('loading'); step()
    print(' 10%', end=''); step()
    for i in range(20, 101): print(f'\\r {i}%', end='')
    step()
    print(); print('done'); step()
    h = display('a plot', display_id='p'); step()
    h.update('better'); step()
    clear_output(); print('anew'); step()
    clear_output(wait=True); step()
    print('last')
    1/0"""
    async with run_kernel() as (km, kc):
        steps, asked = asyncio.Queue(), asyncio.Queue()
        async def answer(prompt):
            asked.put_nowait(None)
            await steps.get()
            return ''
        run, cursor, got = kc.run(textwrap.dedent(code), stdin=answer), None, []
        for _ in range(8):
            await soon(asked.get())
            await soon(kc.request('kernel_info_request', channel='control').wait())
            want = len(got)
            async with asyncio.timeout(SOON):
                while True:     # the outputs come on another channel than the question
                    text, new = run.since(cursor)
                    if text or want == 7: break
                    await asyncio.sleep(.01)
            await asyncio.sleep(.1)
            text, cursor = run.since(cursor)
            got.append(text)
            steps.put_nowait(None)
        await soon(run)
        got.append(run.since(cursor)[0])
        assert got[:8] == ['loading\n', ' 10%', '\r 100%', '\ndone\n', "'a plot'\n", "'better'\n", 'anew\n', ''], got
        assert got[8].startswith('last\n') and 'ZeroDivisionError' in got[8]
        assert run.since(run.since(None)[1])[0] == '' and run.since()[0] == run.partial.ansi


# --- the table -----------------------------------------------------------------------------------------------------

async def test_the_last_hundred_and_all_that_have_not_ended():
    async with fake() as (fk, kc):
        waiting = kc.run(HOLD)
        async with kc.subshell() as sh:
            runs = [sh.run(str(i)) for i in range(150)]
            await soon(asyncio.gather(*runs))
            assert [o.code for o in kc.jobs.values()] == [*map(str, range(50, 150)), HOLD] and len(kc.jobs) == 101
            assert kc.jobs[waiting.id] is waiting and runs[-1].id in kc.jobs and runs[0].id not in kc.jobs
            with pytest.raises(KeyError, match='last 100'): kc.jobs[runs[0].id]
            many = [sh.run('x') for _ in range(200)]
            assert len(kc.jobs) == 301                  # all that wait
            await soon(asyncio.gather(*many))
        assert repr(kc.jobs).count('\n') == 100
        await fk.until_held(1)
        fk.release()
        await soon(waiting)
        assert list(kc.jobs.values())[-1] is waiting
        await soon(kc.run('', silent=True))
        assert list(kc.jobs.values())[-1] is waiting    # a silent one leaves


async def test_large_results_leave_the_table_earlier():
    async with fake() as (fk, kc):
        kc.jobs.limit = 1000
        await soon(asyncio.gather(*[kc.run('fake: busy stream='+'x'*300+' reply idle') for _ in range(10)]))
        assert len(kc.jobs) == 3
        await soon(kc.run('fake: busy stream='+'x'*3000+' reply idle'))
        assert len(kc.jobs) == 1


async def test_the_table_keeps_no_callbacks_and_no_client():
    async with fake() as (fk, kc):
        class Hook:
            def __call__(self, o): return 'a'
        hooks = Hook(), Hook()
        refs = [weakref.ref(o) for o in hooks]
        run = kc.run('fake: busy stream=x reply idle', on_output=hooks[0], stdin=hooks[1])
        del hooks
        await soon(run)
        await asyncio.sleep(.01)
        gc.collect()
        assert [o() for o in refs] == [None, None] and run.id in kc.jobs
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await soon(ready(kc))
        remove = kc.on_message(lambda msg: None)
        run = kc.run('x')
        follower = run.follow()
        await soon(run)
        ref = weakref.ref(kc)
        del kc
        gc.collect()
        assert ref() is None and [e.kind async for e in follower][-1] == 'end'
        remove()


# --- bounds --------------------------------------------------------------------------------------------------------

async def test_head_and_tail():
    async with run_kernel() as (km, kc):
        assert kc.max_output == 50_000_000
        kc.max_output = 10_000
        whole = await soon(kc.run("print('x'*9_999)"))
        assert whole.dropped == 0 and whole.stdout == 'x'*9999+'\n'
        code = "import sys\nfor i in range(100_000): print('line', i)"
        run = kc.run(code)
        res = await soon(run)
        size = sum(len(f'line {i}\n') for i in range(100_000))
        head, note, tail = (o['text'] for o in res.outputs)
        assert head.startswith('line 0\nline 1\n') and head.endswith('\n') and len(head) > 4000
        assert tail.endswith('line 99998\nline 99999\n') and tail.startswith('line ') and len(tail) > 2000
        assert len(head)+len(tail)+res.dropped == size and f'{res.dropped:,} characters' in note and len(res.text) < 10_200
        assert f'{res.dropped:,} characters' in res.for_llm().text and f'{res.dropped:,}' in res.for_llm(300).text
        assert pickle.loads(pickle.dumps(res)).dropped == res.dropped
        page = Page()
        await soon(page.follow(run))
        assert page.drawn(run) == res.outputs
        # both streams, displays, an error: nothing but the middle is missing
        mixed = await soon(kc.run("for i in range(3000):\n print(i); print(i, file=sys.stderr)\n if i%1000==0: display(i)\n1/0"))
        assert mixed.error.ename == 'ZeroDivisionError' and mixed.dropped and mixed.stdout.startswith('0\n') and '2999\n' in mixed.stderr
        big = await soon(kc.run("from IPython.display import HTML\ndisplay(HTML('x'*100_000)); 'value'"))
        assert big.data == {'text/plain': "'value'"} and big.dropped > 100_000 and 'x'*1000 not in big.text

        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('', outputs=o.outputs) for o in (res, mixed, big)])
        nbformat.validate(nb)


MEMORY = '''
import asyncio, resource, sys
from conkernelclient import run_kernel
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
async def main():
    async with run_kernel() as (km, kc):
        kc.max_output = 2_000_000
        await kc.run("import sys; line = 'x'*99+chr(10)")
        before = peak()
        run = kc.run("for i in range(2000): sys.stdout.write(line*1000); sys.stdout.flush()")     # 200 MB
        async def watch():
            async for e in run.follow(): pass
        async def slow():       # takes one event, and no more until the end
            async for e in run:
                await run.settled()
        watching = asyncio.create_task(watch()), asyncio.create_task(slow())
        res = await asyncio.wait_for(run, 90)
        await asyncio.wait_for(asyncio.gather(*watching), 20)
        print(len(res.text), res.dropped, int(peak()-before))
asyncio.run(main())
'''

async def test_memory_is_bounded():
    "200 MB of text, a follower, and a reader that takes nothing"
    run = await asyncio.create_subprocess_exec(sys.executable, '-c', MEMORY, stdout=subprocess.PIPE,
                                               env=os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1])))
    out, _ = await asyncio.wait_for(run.communicate(), 100)
    kept, dropped, mb = map(int, out.split())
    assert kept < 2_000_200 and 100_000_000 < dropped < 200_000_000 and mb < 120, (kept, dropped, mb)   # (ipykernel loses some)


def test_many_small_pieces():
    o, n = Outputs(), 0
    o.bound(100_000)
    for i in range(300_000):
        o.add(stream('ab'))
        if i%3 == 0: o.add(stream('c', 'stderr'))
    assert len(o) < 2000 and o.size <= 112_500 and o.dropped
    assert sum(len(out['text']) for out in o.outputs)+o.dropped in range(700_000, 700_100)   # with the note


def test_an_update_counts():
    o = Outputs(Displays())
    o.bound(1000)
    def display(text, name, kind='display_data'): return dict(msg_type=kind, content=dict(data={'text/plain': text}, metadata={}, transient={'display_id': name}))
    for name in 'abcdef': o.add(display('', name))
    for name in 'abcdef': o.add(display('x'*400, name, 'update_display_data'))
    assert o.dropped and o.size <= 1000


# --- a tap on the messages -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('session', ['ours', 'slow'])
async def test_a_tap_sees_every_message_once(session):
    with FakeKernel() as fk:
        kwargs = {}
        if session == 'slow':
            class Own(Session):
                def unpack(self, o): return json.loads(o if isinstance(o, str) else bytes(o).decode())
            kwargs = dict(packer='json', unpacker='json')
        kc = fk.client(ConKernelClient, **({} if session == 'ours' else dict(session=Session(key=fk.connection_info['key'].encode() if isinstance(fk.connection_info['key'], str) else fk.connection_info['key'], **kwargs))))
        await soon(ready(kc))
        assert kc.connection.received == kc.router.received
        seen, iopub = [], []
        def bad(msg): raise ZeroDivisionError
        removes = [kc.on_message(bad), kc.on_message(lambda m: seen.append(m)), kc.on_message(lambda m: iopub.append(m), 'iopub')]
        assert kc.connection.received != kc.router.received
        with pytest.raises(ValueError, match='no channel'): kc.on_message(print, 'heartbeat')
        run, req = kc.run('fake: busy echo stream=a stream=b reply idle'), kc.execute('x', reply=True)
        res = await soon(run)
        await soon(req)
        await soon(kc.kernel_info(reply=True, channel='control'))
        msg_id = kc.execute('fake: busy stream=mailbox reply idle')
        assert [m['content'].get('text') for m in await soon(kc.get_pubs(msg_id, timeout=SOON)) if m['msg_type'] == 'stream'] == ['mailbox']
        assert res.text == 'ab' and res.complete
        mine = [m for m in seen if m['parent_header'].get('msg_id') == res.msg_id]
        assert [m['msg_type'] for m in mine if m['msg_type'] != 'execute_reply'] == ['status', 'execute_input', 'stream', 'stream', 'status']
        assert [m['content']['text'] for m in mine if m['msg_type'] == 'stream'] == ['a', 'b']
        ids = [m['msg_id'] for m in seen]
        assert len(ids) == len(set(ids)) and {m['msg_type'] for m in seen} >= {'execute_reply', 'kernel_info_reply'}
        assert all(m['msg_type'] in ('status', 'execute_input', 'stream', 'iopub_welcome') for m in iopub) and len(iopub) < len(seen)
        assert not kc.router.stats['malformed'] and not kc.router.stats['duplicate replies']
        for o in removes: o()
        n = len(seen)
        await soon(kc.run('y'))
        assert len(seen) == n and kc.connection.received == kc.router.received
        removes[1]()    # again: harmless
        kc.stop_channels()


# --- words for mistakes --------------------------------------------------------------------------------------------

async def test_words():
    async with fake() as (fk, kc):
        run = kc.run('x')
        for name in 'text', 'stdout', 'outputs', 'data', 'error', 'status':
            with pytest.raises(AttributeError, match=rf"(?s)no attribute '{name}': did you forget `await`\?"): getattr(run, name)
        with pytest.raises(AttributeError, match="no attribute 'txt'$"): run.txt
        with pytest.raises(AttributeError, match="no attribute '_private'$"): run._private
        req = kc.execute('x', reply=True)
        with pytest.raises(TypeError, match=r"did you forget `await`\? \(await …\)\['content'\]"): req['content']
        with pytest.raises(TypeError): list(req)
        await soon(run)
        await soon(req)
        msg_id = kc.execute('1')
        assert isinstance(msg_id, str) and type(pickle.loads(pickle.dumps(msg_id))) is str and json.dumps(msg_id) == f'"{msg_id}"'
        for o in msg_id, kc.kernel_info():
            with pytest.raises(TypeError, match='use `reply=True` to await the reply'): await o
        await soon(kc.kernel_info(reply=True))      # the kernel is done with what was sent
        fk.on['execute_request'] = 'busy hold reply idle'
        slow = kc.run('import time;\ntime.sleep(3)', timeout=.05)
        with pytest.raises(ExecutionTimeout, match=r"^'import time; ti…' took longer than 0.05 s and was interrupted$"): await soon(slow)
        blocking, waiting = kc.run('a'), kc.run('b', queue_timeout=.05)
        with pytest.raises(ExecutionTimeout, match=r"^'b' did not begin within 0.05 s"): await soon(waiting)
        await soon(kc.cancel_all())


async def test_programs_that_await_what_is_awaitable():
    "nbclient and jupyter_core do so with what `execute` returns"
    from jupyter_core.utils import ensure_async
    async with fake() as (fk, kc):
        msg_id = kc.execute('1')
        assert await ensure_async(msg_id) == msg_id


async def test_reprs():
    async with fake() as (fk, kc):
        assert re.fullmatch(r'<ConKernelClient ready: \S+>', repr(kc)), repr(kc)
        run = kc.run(HOLD)
        await text(run, 'begun')
        assert '1 in flight' in repr(kc) and repr(run) in repr(kc) and '\n' not in repr(kc)
        await fk.until_held(1)
        fk.release()
        events = [o async for o in run]
        assert repr(events[0]) == "<Event new 0: stdout 'begun'>"
        assert [repr(e) async for e in run.follow()][-1] == f'<JobEvent 2 of {run.id}: end, ok>'
    assert 'closed' in repr(kc)
    km = ConKernelManager()
    assert repr(km) == "<ConKernelManager 'python3', not started, clients: 0>"
    assert repr(ConKernelClient()).startswith('<ConKernelClient closed: tcp://')
