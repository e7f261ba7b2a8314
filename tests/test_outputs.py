"""The long comparisons for `conkernelclient.cells.outputs`: with nbclient on a real kernel, and with a simple reference."""
import asyncio, base64, gc, pickle, random, re, time
from copy import deepcopy
from pathlib import Path

import nbformat, pytest
from jupyter_client.connect import port_names
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import conkernelclient
from conkernelclient import run_kernel
from conkernelclient.cells.llm import StreamText, cut_middle, strip_ansi
from conkernelclient.cells.outputs import Displays, ExecutionError, ExecutionTimeout, Outputs, Result, as_output, parse_literal
from conkernelclient.transports.ports import KeptPorts

PNG = ('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')


def msg(kind, content=None, date=None, metadata=None):
    header = dict(msg_type=kind, msg_id='k', date=date)
    return dict(header=header, msg_type=kind, msg_id='k', parent_header={}, content=content or {},
                metadata=metadata or {}, buffers=[])


def stream(text, name='stdout'): return msg('stream', dict(name=name, text=text))


def validate(outputs):
    cell = nbformat.v4.new_code_cell('', outputs=[nbformat.from_dict(o) for o in outputs])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


# ---- the simple reference: whole texts, whole lists, nothing incremental ----

def terminal(text):
    "JupyterLab's rules for the cursor, one character at a time"
    done, line, pos = '', [], 0
    for ch in text:
        if ch == '\n': done, line, pos = done + ''.join(line) + ch, [], 0
        elif ch == '\r': pos = 0
        elif ch == '\b':
            if pos: line[pos - 1:pos + 1], pos = [], pos - 1
        else: line[pos:pos + 1], pos = [ch], pos + 1
    return done + ''.join(line)


def merge(outputs):
    "Consecutive stream outputs of one name as one, the cursor applied"
    res = []
    for o in deepcopy(list(outputs)):
        if res and o.get('name') is not None and res[-1].get('name') == o['name']: res[-1]['text'] += o['text']
        else: res.append(o)
    for o in res:
        if 'name' in o: o['text'] = terminal(o['text'])
    return res


class Reference:
    "All cells of a client, as lists of (display id, output) pairs"
    def __init__(self, n): self.cells, self.wait = [[] for _ in range(n)], [False] * n

    def add(self, n, m):
        c, kind = m['content'], m['msg_type']
        did = (c.get('transient') or {}).get('display_id')
        if kind == 'clear_output':
            if c['wait']: self.wait[n] = True
            else: self.cells[n] = []
        if did:
            for cell in self.cells:
                for shown, out in cell:
                    if shown == did: out.update(data=c['data'], metadata=c['metadata'])
        if as_output(m) is None: return
        if self.wait[n]: self.cells[n], self.wait[n] = [], False
        self.cells[n].append((did, as_output(m)))

    def outputs(self, n): return merge(o for _, o in self.cells[n])


def random_text(rng): return ''.join(rng.choice('abcdefg\n\r\r\b\b') for _ in range(rng.choice([0, 1, 2, 5, 20])))


def random_msg(rng):
    kind = rng.choice(['stream'] * 6 + ['display_data'] * 3 + ['update_display_data'] * 2
                      + ['execute_result', 'error', 'clear_output', 'status', 'comm_msg'])
    if kind == 'stream': return stream(random_text(rng), rng.choice(['stdout', 'stdout', 'stderr']))
    if kind == 'error': return msg(kind, dict(ename='E', evalue=str(rng.random()), traceback=['x', 'y']))
    if kind == 'clear_output': return msg(kind, dict(wait=rng.random() < .6))
    if kind in ('status', 'comm_msg'): return msg(kind, dict(execution_state='busy', comm_id='c', data={}))
    did = rng.choice([None, 'a', 'b', 'c'])
    content = dict(data={'text/plain': str(rng.random())}, metadata={'n': rng.random()},
                   transient=rng.choice([None, {}]) if did is None else {'display_id': did})
    if kind == 'execute_result': content['execution_count'] = rng.randint(1, 9)
    return msg(kind, content)


@pytest.mark.parametrize('seed', range(4))
def test_stream_text_is_as_the_reference(seed):
    rng = random.Random(seed)
    for _ in range(400):
        pieces, t = [random_text(rng) for _ in range(rng.randint(1, 10))], StreamText()
        for i, p in enumerate(pieces):
            t.write(p)
            if rng.random() < .2: assert str(t) == terminal(''.join(pieces[:i + 1]))
        assert str(t) == terminal(''.join(pieces)), pieces


def replay(state, events):
    "What a listener that only hears events makes of them"
    for e in events:
        outs = state.setdefault(id(e.outputs), [])
        if e.kind == 'clear': outs.clear()
        elif e.kind == 'update': outs[e.index] = deepcopy(e.output)
        elif e.kind == 'append':
            assert e.index == len(outs) - 1
            outs[-1]['text'] += e.output['text']
        else:
            assert e.kind == 'new' and e.index == len(outs)
            outs.append(deepcopy(e.output))


@pytest.mark.parametrize('seed', range(4))
def test_outputs_are_as_the_reference(seed):
    rng = random.Random(100 + seed)
    for _ in range(60):
        displays, ref, state = Displays(), Reference(3), {}
        ours = [Outputs(displays) for _ in range(3)]
        msgs = [(rng.randrange(3), random_msg(rng)) for _ in range(rng.randint(1, 40))]
        before = deepcopy(msgs)
        for n, m in msgs:
            replay(state, ours[n].add(m))
            ref.add(n, deepcopy(m))
            if rng.random() < .2: assert ours[n].outputs == ref.outputs(n)  # looking changes nothing
        assert msgs == before  # messages belong to the caller
        for n, o in enumerate(ours):
            assert o.outputs == ref.outputs(n)
            assert merge(state.get(id(o), [])) == o.outputs
            validate(o.outputs)


@pytest.mark.parametrize('seed', range(4))
def test_result_texts_bounds_and_pickle(seed):
    rng = random.Random(200 + seed)
    for _ in range(60):
        msgs = [random_msg(rng) for _ in range(rng.randint(0, 60))]
        for _ in range(rng.choice([0, 0, 1, 15])):
            msgs.insert(rng.randint(0, len(msgs)), msg('display_data', dict(data={'image/png': PNG}, metadata={})))
        reply = rng.choice([None, msg('execute_reply', dict(status='ok'))])
        res = Result.from_messages('m', reply, msgs, complete=reply is not None)
        for name in ('stdout', 'stderr'):
            assert getattr(res, name) == ''.join(o['text'] for o in res.outputs if o.get('name') == name)
        limit = rng.choice([1000, 1200, 10_000])
        content = res.for_llm(limit=limit)
        assert 0 < len(content.text) <= limit and all(p.get('text') != '' for p in content.parts)
        images = [p for p in content.parts if p['type'] == 'image']
        assert len(images) == min(10, sum('image/png' in o.get('data', {}) for o in res.outputs))
        assert all(p['data'] == PNG for p in images) and PNG[:20] not in content.text
        copy = pickle.loads(pickle.dumps(res))
        assert (copy.outputs, copy.status, copy.text, copy.complete) == (res.outputs, res.status, res.text, res.complete)
        for r in (res, copy): r.add(stream('more'))  # and it can go on growing, the cursor where it was
        assert copy.outputs == res.outputs


# ---- with nbclient and a real kernel ----

SETUP = '''
import sys, time
from IPython.display import *
from IPython import get_ipython
def out(*pieces, file=sys.stdout):
    for p in pieces: file.write(p); file.flush()
'''
CELLS = [  # each after a flush, so that pieces arrive as messages of their own
    "print('hi')",
    "6*7",
    "None",
    "out('a'); out('b\\n'); out('x\\n', file=sys.stderr); out('c\\n'); out('d\\n'); out('y', 'z', file=sys.stderr)",
    "for i in range(20): print(i); print(-i, file=sys.stderr)",
    "out(*(f'\\r{i:3d}% ' + '#' * (i // 10) for i in range(0, 101, 5))); out('\\ndone\\n')",
    "out('longer text', '\\r', 'short\\n')",
    "out('abc\\b\\bX', '\\b\\b\\b\\b\\b', 'Y\\n\\b', 'Z', '\\b \\b')",
    "out('dos\\r\\nlines\\r\\n', 'last\\r')",
    "out('one\\n'); clear_output(); out('two\\n')",
    "out('one\\n'); clear_output(wait=True); out('two\\n'); out('three\\n')",
    "out('stays\\n'); clear_output(wait=True)",
    "out('one\\n'); clear_output(wait=True); clear_output(); out('two\\n')",
    "display(1); clear_output(wait=True); update_display('late', display_id='d1'); display(2)",
    "h = display('first', display_id='d1'); h.update('second')",
    "update_display('from a later cell', display_id='d1'); print('ok')",
    "display('again', display_id='d1'); display('and again', display_id='d1')",
    "update_display(HTML('<b>rich</b>'), display_id='d1', metadata={'text/html': {'isolated': True}})",
    "clear_output(); display('here', display_id='d1'); clear_output(); print('gone')",
    "update_display('nobody shows it here', display_id='d1')",
    "update_display('unknown id', display_id='never shown')",
    "for i in range(5): clear_output(wait=True); display(i, display_id='loop'); out(str(i))",
    "display(HTML('<i>x</i>'), Markdown('*x*'), Latex('$x$'), JSON({'a': [1, None]}), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))",
    f"import base64; Image(data=base64.b64decode('{PNG}'))",
    "display({'text/plain': 'raw', 'application/vnd.x+json': {'k': 1}}, raw=True, metadata={'m': 1})",
    "print('before'); 1/0",
    "def f(): raise ValueError('two\\nlines')\nf()",
    "raise SystemExit",
    "this is no python",
    "get_ipython().showtraceback((ValueError, ValueError('shown, but the cell goes on'), None)); 'value'",
    "import os; os.system('echo from a child process'); None",
    "get_ipython().ast_node_interactivity = 'all'",
    "1\nprint('between')\n2",
]


class Manager(AsyncKernelManager):
    "jupyter_client's, with ports that nobody else gets"
    cache_ports = False
    def write_connection_file(self, **kwargs):
        self.kept = KeptPorts()
        for o in port_names: setattr(self, o, getattr(self, o) or self.kept.choose(self.ip))
        super().write_connection_file(**kwargs)


class Listening(NotebookClient):
    "An nbclient that keeps the messages of each cell"
    def process_message(self, msg, cell, cell_index):
        self.seen.setdefault(cell_index, []).append(deepcopy(msg))  # nbclient changes some of them
        return super().process_message(msg, cell, cell_index)


def run_nbclient(codes, **kwargs):
    "The cells and the messages of each, after nbclient ran `codes`"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in codes])
    client = Listening(nb, allow_errors=True, timeout=60, startup_timeout=60, kernel_manager_class=Manager, **kwargs)
    client.seen = {}
    client.execute()
    return nb.cells, client.seen


@pytest.fixture(scope='module')
def ran(): return run_nbclient([SETUP, *CELLS])


def collect(seen, n):
    displays = Displays()
    ours = [Result(displays=displays) for _ in range(n)]
    for i in sorted(seen):
        for m in seen[i]: ours[i].add(m)
    return ours


def test_outputs_are_those_of_nbclient(ran):
    cells, seen = ran
    for cell, res in zip(cells, collect(seen, len(cells)), strict=True):
        assert res.outputs == merge(cell.outputs), cell.source
        assert res.execution_count == cell.execution_count
        assert res.duration > 0
        validate(res.outputs)
        assert 'transient' not in str(res.outputs)
    assert sum(len(c.outputs) for c in cells) > 60  # the kernel did answer


async def test_a_run_has_the_outputs_of_nbclient(ran):
    "The same cells through `run`, in a kernel of its own; later cells update the displays of earlier results"
    async with run_kernel() as (km, kc):
        results = [await asyncio.wait_for(kc.run(c), 60) for c in (SETUP, *CELLS)]
        events = [[e async for e in kc.run(c)] for c in CELLS[-3:]]
    for cell, res in zip(ran[0], results, strict=True):
        assert no_process(res.outputs) == no_process(merge(cell.outputs)), cell.source
        assert res.execution_count == cell.execution_count and res.complete
    assert ''.join(e.text for e in events[-1]) == results[-1].text


def no_process(outputs):
    "`outputs` without the number of the process, which is in the name of a cell's file"
    return [{**o, 'traceback': [re.sub(r'ipykernel_\d+', 'ipykernel', t) for t in o['traceback']]} if 'traceback' in o else o for o in outputs]


def test_a_few_by_hand(ran):
    "What a person sees, so that the comparison is not of two empty lists"
    cells, seen = ran
    ours = dict(zip((c.source for c in cells), collect(seen, len(cells))))
    text = lambda start: next(r.text for s, r in ours.items() if s.startswith(start))
    assert text("out(*(f'\\r") == '100% ##########\ndone\n'
    assert text("out('longer") == 'shortr text\n'
    assert text("out('one\\n'); clear_output(wait=True); out") == 'two\nthree\n'
    assert text("out('stays") == 'stays\n'
    assert text("h = display(").startswith("'nobody shows") is True
    assert text('6*7') == '42\n'


def test_where_nbclient_coalesces_as_we_do():
    "With `coalesce_streams` nbclient applies `\\r` itself: the same wherever a line is drawn over whole"
    codes = [SETUP, "out(*(f'\\r{i:3d}%' for i in range(101))); out('\\nend\\n'); 1", "out('a\\n', 'b\\n'); out('c', file=sys.stderr)"]
    cells, seen = run_nbclient(codes, coalesce_streams=True)
    for cell, res in zip(cells, collect(seen, len(cells)), strict=True): assert res.outputs == cell.outputs


def test_a_result_displays_itself_as_the_cell_did(ran):
    "In a real notebook: the same outputs, the value as a display, the traceback on stderr"
    cells, seen = ran
    which = [i for i, c in enumerate(cells) if i and not c.source.startswith('out(')]
    results = [r for i, r in enumerate(collect(seen, len(cells))) if i in which]
    root = str(Path(conkernelclient.__file__).parent.parent)
    blob = base64.b64encode(pickle.dumps(results)).decode()
    load = f"import sys; sys.path.insert(0, {root!r})\nimport base64, pickle\nrs = pickle.loads(base64.b64decode('{blob}'))"
    shown, _ = run_nbclient([load, *(f'rs[{i}]' for i in range(len(results)))])
    for res, cell in zip(results, shown[1:], strict=True):
        want = []
        for o in res.outputs:
            if o['output_type'] == 'error': o = dict(output_type='stream', name='stderr', text='\n'.join(o['traceback']) + '\n')
            elif 'data' in o: o = dict(output_type='display_data', data=o['data'], metadata=o['metadata'])
            want.append(o)
        assert merge(cell.outputs) == merge(want)


def test_execution_error_in_ipython():
    "In a notebook the exception prints as the kernel's traceback, in colours"
    root = str(Path(conkernelclient.__file__).parent.parent)
    code = f"""import sys; sys.path.insert(0, {root!r})
from conkernelclient.cells.outputs import *
m = dict(msg_type='execute_reply', header={{}}, content=dict(status='error', ename='E', evalue='v', traceback=['\\x1b[31mred\\x1b[0m']))
raise ExecutionError(Result.from_messages('m', m, []))"""
    (cell,), _ = run_nbclient([code])
    assert cell.outputs[-1]['traceback'] == ['\x1b[31mred\x1b[0m']
    assert cell.outputs[-1]['evalue'] == 'E: v\n\nred'


# ---- memory, speed, odd messages ----

def test_displays_keep_nothing_alive_and_are_bounded():
    displays = Displays(maxlen=50)
    o = Outputs(displays)
    for i in range(500):
        o.add(msg('display_data', dict(data={'text/plain': str(i)}, metadata={}, transient={'display_id': str(i)})))
    assert len(displays) == 50
    # its own displays an Outputs always knows
    assert [e.index for e in o.add(msg('update_display_data', dict(data={}, transient={'display_id': '3'})))] == [3]
    del o
    gc.collect()
    assert displays.find('499') == []


def test_same_id_displayed_by_many_short_lived_requests():
    displays = Displays()
    for _ in range(200):
        Outputs(displays).add(msg('display_data', dict(data={}, metadata={}, transient={'display_id': 'x'})))
    assert len(displays) == 1 and len(displays._refs['x']) <= 2


@pytest.mark.parametrize('pieces', [
    lambda n: ['.'] * n,                                       # one endless line
    lambda n: [f'\r{i:8d} ' + '#' * 70 for i in range(n)],     # a progress bar
    lambda n: ['x' * n, '\r'] + ['y'] * n,                     # writing over a long line
    lambda n: ['x' * n] + ['\b'] * n,
    lambda n: ['x' * n] + ['\rx\b'] * n,
], ids=['line', 'bar', 'over', 'backspaces', 'returns'])
def test_many_stream_messages_take_linear_time(pieces):
    def seconds(n):
        msgs, o = [stream(p) for p in pieces(n)], Outputs()
        start = time.process_time()
        for m in msgs: o.add(m)
        o.outputs
        return time.process_time() - start
    # 16 times the work: linear takes 16 times as long, quadratic 256 times
    small, large = min(seconds(4_000) for _ in range(3)), min(seconds(64_000) for _ in range(2))
    assert large < 80 * small


def test_odd_messages_do_not_raise():
    for kind in ('stream', 'display_data', 'execute_result', 'error', 'clear_output', 'update_display_data', 'status',
                 'execute_input', 'execute_reply', 'comm_open', 'unknown'):
        res = Result()
        res.add(msg(kind))
        res.text, res.for_llm(), repr(res), res.error, res.duration, res.status
        validate(res.outputs)


def test_reply_with_buffers_is_picklable():
    reply = msg('execute_reply', dict(status='ok'))
    reply['buffers'] = [memoryview(b'abc')]
    res = pickle.loads(pickle.dumps(Result.from_messages('m', reply, [])))
    assert res.reply['buffers'] == [b'abc'] and isinstance(reply['buffers'][0], memoryview)


def test_exceptions_pickle_with_notes():
    res = Result.from_messages('m', msg('execute_reply', dict(status='error', ename='E', evalue='', traceback=[])), [])
    for e in (ExecutionError(res), ExecutionTimeout('late', res)):
        e.add_note('a note')
        copy = pickle.loads(pickle.dumps(e))
        assert (str(copy), copy.__notes__, copy.result.status) == (str(e), ['a note'], 'error')


def test_the_traceback_is_that_of_the_cell():
    "In the reply ipykernel may put that of a cell which failed at the same time on another shell"
    own, other = dict(ename='E', evalue='own', traceback=['own']), dict(ename='E', evalue='own', traceback=['other'])
    reply = msg('execute_reply', dict(status='error', **other))
    assert Result.from_messages('m', reply, [msg('error', own)]).error == ('E', 'own', ['own'])
    assert Result.from_messages('m', reply, [msg('error', dict(own, ename='Shown'))]).error == ('E', 'own', ['other'])
    assert Result.from_messages('m', msg('execute_reply', dict(status='error')), [msg('error', own)]).error == ('E', 'own', ['own'])


def test_error_of_a_silent_cell_reaches_the_model():
    reply = msg('execute_reply', dict(status='error', ename='E', evalue='v', traceback=['\x1b[31mE: v\x1b[0m']))
    res = Result.from_messages('m', reply, [])
    assert res.outputs == [] and res.text == '' and res.for_llm().text == 'E: v\n'


@pytest.mark.parametrize('value', [0, -1.5, 1e300, 'a\n"\'', b'\x00', None, True, (), (1,), [], {}, set(), {1, 2}, 3j,
                                   {'a': [(1, {2: b'3'})]}, '...'])
def test_literals_come_back(value): assert parse_literal({'text/plain': repr(value)}) == value


@pytest.mark.parametrize('text', ['object()', '<x>', '', '1 +', 'nan', '__import__("os")', '(' * 1000, '9' * 5000, '[...]',
                                  '{1: ...}', '{...}', "a\x00b"])
def test_what_is_no_literal_is_refused(text):
    with pytest.raises(ValueError): parse_literal({'text/plain': text})


def test_cut_keeps_both_ends():
    rng = random.Random(5)
    for _ in range(300):
        text = ''.join(rng.choice('abc   \n') for _ in range(rng.randint(0, 3000)))
        limit = rng.randint(60, 2000)
        cut = cut_middle(text, limit)
        assert len(cut) <= limit and (cut == text) == (len(text) <= limit)
        if cut != text:
            head, _, tail = cut.partition('\n[... ')[0], *cut.partition(' lines cut ...]\n')[1:]
            assert text.startswith(head) and text.endswith(tail)
            said = int(cut.partition('\n[... ')[2].partition(' ')[0].replace(',', ''))
            assert said == len(text) - len(head) - len(tail)


def test_strip_ansi_is_linear_on_what_never_ends():
    for bad in ('\x1b]' * 50_000, '\x1b[' * 50_000, '\x1bP' * 50_000, '\x1b[' + '1' * 100_000, '\x1b]8;;' + 'x' * 100_000):
        start = time.process_time()
        strip_ansi(bad)
        assert time.process_time() - start < 5  # far from the hours of a quadratic one, not a speed test
