"""Widgets: their state against nbclient's, what results show, `Output` widgets, and hard orders of messages."""
import asyncio, base64, gc, json, pickle, weakref
from contextlib import asynccontextmanager

import nbformat, pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from conkernelclient import *
from conkernelclient.cells.outputs import VIEW
from fake_kernel import FakeKernel

bound = 90
SOON = 30
MIME = 'application/vnd.jupyter.widget-state+json'

async def until(test, seconds=SOON):
    async with asyncio.timeout(seconds):
        while not test(): await asyncio.sleep(.005)

def need_widgets():
    pytest.importorskip('ipywidgets', reason="pip install -e '.[dev]'")


# The same notebooks, run by nbclient and by `run`

IMPORTS = 'import ipywidgets as w\nfrom IPython.display import clear_output, display, HTML'
STORIES = dict(
    label=['label = w.Label("one"); display(label)', 'label.value = "two"', 'label.send({"a": 1})'],
    captured=['out = w.Output(); out', 'print("cell")\nwith out: print("widget")\nprint("cell again")'],
    merged=['out = w.Output(); out', 'import sys\nwith out:\n    for i in range(5): print(i, flush=True)\n    print("e", file=sys.stderr, flush=True)\n    print("o")'],
    error=['out = w.Output(); out', 'with out: 1/0', 'print("after")'],
    displays=['out = w.Output(); out', 'with out:\n    display("text")\n    display(HTML("<b>x</b>"))', 'with out: display(w.Label("inside"))'],
    cleared=['out = w.Output(); out', 'with out:\n    print("a")\n    clear_output()', 'with out: print("b")'],
    cleared_later=['out = w.Output(); out', 'print("cell")\nwith out:\n    print("a")\n    clear_output(wait=True)\n    print("b")'],
    cleared_never=['out = w.Output(); out', 'with out:\n    print("a")\n    clear_output(wait=True)'],
    cell_cleared=['out = w.Output(); out', 'print("x")\nwith out: print("a")\nclear_output()'],
    nested=['inner, outer = w.Output(), w.Output(); inner', 'outer', 'with inner:\n    print("1")\n    with outer: print("2")\n    print("3")'],
    same_twice=['out = w.Output(); out', 'with out:\n    print("1")\n    with out: print("2")\n    print("3")\nprint("4")'],
    appended=['out = w.Output(); out', 'out.append_stdout("a"); out.append_stderr("b")', 'out.append_display_data(HTML("<i>i</i>"))'],
    decorated=['out = w.Output(); out', '@out.capture(clear_output=True)\ndef f(): print("f")\nf(); f()'],
    box=['a, b = w.IntSlider(value=3, description="n"), w.Text("t"); w.VBox([a, w.HBox([b, w.Button(description="Go")])])', 'a.value = 5'],
    binary=['w.Image(value=b"\\x89PNG")', 'image = w.Image(value=b"1"); display(image)', 'image.value = b"22"'],
    bars=['from tqdm.notebook import tqdm\nfor i in tqdm(range(5), bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}"): pass'],
    other_comms=['from comm import create_comm\nc = create_comm("nobody knows", data=dict(id=1))', 'c.send(dict(id=1))'],
)

def by_nbclient(cells):
    nb = new_notebook(cells=[new_code_cell(o) for o in cells])
    NotebookClient(nb, kernel_name='python3', timeout=SOON).execute()
    return nb.metadata.get('widgets', {}), [c.outputs for c in nb.cells]

async def by_run(kc, cells):
    results = [await kc.run(o) for o in cells]
    return kc.widgets.state(), [o.outputs for o in results]

def merged(outputs):
    "nbclient leaves each message of a stream as an output of its own"
    res = []
    for o in outputs:
        if res and o['output_type'] == res[-1]['output_type'] == 'stream' and o['name'] == res[-1]['name']: res[-1]['text'] += o['text']
        else: res.append(o)
    return res

def plain(widgets, outputs):
    "In a form that can be compared: ids by their order, and no fallback texts of widgets (ours are current)"
    text = json.dumps([widgets, outputs])
    state = widgets.get(MIME, {}).get('state', {})
    for i, id in enumerate(state): text = text.replace(id, f'<{i}>')
    widgets, outputs = json.loads(text)
    outputs = [merged(o) for o in outputs]
    for out in (o for cell in outputs for o in cell): 
        if VIEW in out.get('data', {}): del out['data']['text/plain']
        out.pop('execution_count', None), out.pop('traceback', None)
    for model in widgets.get(MIME, {}).get('state', {}).values():
        for out in model['state'].get('outputs', ()): 
            out.pop('execution_count', None), out.pop('traceback', None)
            if VIEW in out.get('data', {}): del out['data']['text/plain']
    return widgets, outputs

CELLS = [IMPORTS, *(o for story in STORIES.values() for o in story)]   # one kernel runs all stories

def of_story(story, outputs):
    "The outputs of the cells of one story"
    begin = 1+sum(len(STORIES[o]) for o in list(STORIES)[:list(STORIES).index(story)])
    return outputs[begin:begin+len(STORIES[story])]

@pytest.fixture(scope='module')
def by_both():
    "What nbclient gives, and what we give: widgets and outputs"
    need_widgets()
    async def ours():
        async with open_kernel() as kc: return await by_run(kc, CELLS)
    return plain(*by_nbclient(CELLS)), plain(*asyncio.run(ours()))

@pytest.mark.parametrize('story', STORIES)
def test_outputs_as_nbclient(story, by_both):
    want, got = [of_story(story, outputs) for _, outputs in by_both]
    assert got == want

def test_widgets_as_nbclient(by_both):
    "What the notebook file holds of all widgets"
    want, got = [o[MIME].pop('state') for o, _ in by_both]
    assert len(want) > 50 and list(got) == list(want)
    assert [(i, got[i]) for i in want if got[i] != want[i]] == []
    assert by_both[0][0] == by_both[1][0]

def test_nbclient_over_our_client():
    "nbclient is the frontend then: we neither take its outputs nor answer the kernel"
    need_widgets()
    def run(**kwargs):
        nb = new_notebook(cells=[new_code_cell(o) for o in CELLS])
        NotebookClient(nb, timeout=SOON, **kwargs).execute()
        return plain(nb.metadata.widgets, [c.outputs for c in nb.cells])
    assert run(km=ConKernelManager(kernel_name='python3')) == run(kernel_name='python3')

async def test_captured_after_what_was_appended():
    "nbclient loses what the kernel has put into the widget itself; JupyterLab does not"
    need_widgets()
    async with open_kernel() as kc:
        await kc.run(f'{IMPORTS}\nout = w.Output()\nout.append_stdout("a")\nwith out: print("b")', check=True)
        assert next(o for o in kc.widgets.values() if o.kind == 'OutputModel').text == 'ab\n'
        assert await kc.eval('"".join(o["text"] for o in out.outputs)') == 'ab\n'


# What a result shows

async def test_a_result_shows_a_widget_as_it_is_by_now():
    need_widgets()
    async with open_kernel() as kc:
        res = await kc.run('from tqdm.notebook import tqdm\nbar = tqdm(total=5, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}")')
        assert '0/5' in res.text and '0%' in res.text
        kept, (text, cursor) = pickle.loads(pickle.dumps(res)), res.live.text_since()
        assert '0/5' in text
        await kc.run('bar.update(3); bar.refresh()')
        assert '3/5' in res.text and '3/5' in str(res.for_llm()) and '3/5' in res.outputs[0]['data']['text/plain'] and '0/5' in kept.text
        text, cursor = res.live.text_since(cursor)
        assert '3/5' in text and res.live.text_since(cursor)[0] == ''
        await kc.run('bar.update(2); bar.refresh()')
        assert '5/5' in res.text and '█'*10 in res.text
        assert VIEW in res.outputs[0]['data']
        gone = await kc.run('b = tqdm(range(2), leave=False)\nfor i in b: pass')
        assert gone.text.strip() == ''
        await kc.restart()
        assert '5/5' in res.text and '5/5' in pickle.loads(pickle.dumps(res)).text

async def test_a_running_cell_shows_its_progress():
    need_widgets()
    async with open_kernel() as kc:
        run = kc.run('from tqdm.notebook import tqdm\nbar = tqdm(total=9, bar_format="{n_fmt}/{total_fmt}")\nbar.update(4); bar.refresh()\ninput()', stdin=lambda prompt: asked.wait())
        asked = asyncio.Event()
        await until(lambda: '4/9' in run.partial.text)
        run.interrupt()
        await run

def test_a_widget_of_another_kernel_is_not_shown_in_our_own(monkeypatch):
    "A notebook that shows a result shows the text: it does not know the model"
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, 'publish_display_data', lambda data, metadata, **kwargs: shown.append(data))
    res = Result.from_messages(None, None, [dict(msg_type='display_data', content=dict(data={'text/plain': 'bar', VIEW: dict(model_id='x')}, metadata={}))])
    res._ipython_display_()
    assert shown == [{'text/plain': 'bar'}]


async def test_a_result_keeps_no_client():
    "…although it knows the texts of the widgets"
    async with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        def shows(k, msg):
            k.busy(msg)
            Model(k, value=7).open(msg=msg)
            k.publish(msg, 'display_data', dict(data={'text/plain': '0', VIEW: dict(model_id='m')}, metadata={}, transient={}))
            k.reply(msg), k.idle(msg)
        fk.on['execute_request'] = shows
        res = await kc.run('x')
        comm, gone = kc.comms['m'], [weakref.ref(kc), weakref.ref(kc.connection), weakref.ref(kc.runs)]
        kc.stop_channels()
        kc = None
        for _ in range(100):
            gc.collect()
            if not any(o() for o in gone): break
            await asyncio.sleep(.02)
        assert [o() for o in gone] == [None]*3 and res.text == '7\n'
        with pytest.raises(ClientClosedError): comm.send(1)

def test_without_asyncio():
    need_widgets()
    with open_kernel() as k:
        res = k.run('import ipywidgets as w; s = w.IntSlider(value=3); s')
        id = res.outputs[0]['data'][VIEW]['model_id']
        k.in_loop(lambda kc: kc.widgets[id].set(value=5))
        assert k.eval('s.value') == 5 and res.text == '5\n' and k.widget_state()[MIME]['state'][id]['state']['value'] == 5


# Scripted kernels: the order of messages

class Model:
    "A widget in a fake kernel"
    def __init__(self, fk, id='m', **state):
        self.fk, self.id, self.state = fk, id, dict(_model_name='IntSliderModel', _model_module='m', _model_module_version='1') | state

    def first(self): return next(o for o in self.fk.received if o.msg_type == 'execute_request')
    def say(self, kind, data, msg=None, **how): self.fk.publish(self.first() if msg is None else msg, f'comm_{kind}', data, **how)
    def open(self, paths=(), **how):
        data = dict(state=self.state, buffer_paths=list(paths))
        self.say('open', dict(comm_id=self.id, target_name='jupyter.widget', data=data), **how)
    def update(self, state, method='update', paths=(), **how):
        self.say('msg', dict(comm_id=self.id, data=dict(method=method, state=state, buffer_paths=list(paths))), **how)
    def close(self, **how): self.say('close', dict(comm_id=self.id, data={}), **how)

@asynccontextmanager
async def fake(on=None, **kwargs):
    async with FakeKernel(on) as fk:
        kc = fk.client(ConKernelClient, **{'lost_after': .1, **kwargs})
        await kc.start_channels()
        try:
            await kc.run('')
            yield fk, kc
        finally: kc.stop_channels()

async def opened(kc, model, **how):
    model.open(**how)
    await until(lambda: model.id in kc.widgets)
    return kc.widgets[model.id]

async def test_echoes():
    "The echo of an older change does not undo a newer one; those of other clients and the kernel's own changes count"
    async with fake() as (fk, kc):
        m = Model(fk, value=0, other=0)
        widget = await opened(kc, m)
        widget.set(value=1)
        widget.set(value=2, other=5)
        await fk.until(lambda: fk.counts['comm_msg'] == 2)
        one, two = [o for o in fk.received if o.msg_type == 'comm_msg']
        assert (one['content']['data'], widget.state['value']) == (dict(method='update', state=dict(value=1), buffer_paths=[]), 2)
        seen = []
        async def after():
            "What the kernel has said so far has come"
            m.update(dict(mark=len(seen)))
            seen.append(1)
            await until(lambda: widget.state.get('mark') == len(seen)-1)
        m.update(dict(value=1), 'echo_update', msg=one)
        m.update(dict(value=7), 'echo_update')   # of another client, which was before ours
        await after()
        assert widget.state['value'] == 2
        m.update(dict(value=2, other=5), 'echo_update', msg=two)
        m.update(dict(value=8), 'echo_update')   # of another client, afterwards
        await after()
        assert (widget.state['value'], widget.state['other']) == (8, 5)
        m.update(dict(value=9))   # the kernel's own
        m.update({}, 'custom')
        m.update('none'), m.update(None, 'echo_update')
        await after()
        assert widget.state['value'] == 9 and widget.text == '9'

async def test_binary_state():
    async with fake() as (fk, kc):
        m = Model(fk, pixels=[1, None], nested={})
        widget = await opened(kc, m, paths=[['pixels', 1], ['nested', 'x'], ['value'], ['nowhere', 'y']], buffers=[b'one', b'two', b'three', b'lost'])
        assert [bytes(o) for o in (widget.state['pixels'][1], widget.state['nested']['x'], widget.state['value'])] == [b'one', b'two', b'three']
        stored = kc.widgets.state()[MIME]['state']['m']
        assert stored['state'] == m.state | dict(pixels=[1, None], nested={})
        assert {tuple(o['path']): base64.b64decode(o['data']) for o in stored['buffers']} == {('pixels', 1): b'one', ('nested', 'x'): b'two', ('value',): b'three'}
        m.update(dict(pixels=[2]))   # and the buffer that was in it is gone
        m.update({}, paths=[['value']], buffers=[bytes(200_000)])
        await until(lambda: len(widget.state['value']) == 200_000)
        assert [o['path'] for o in kc.widgets.state()[MIME]['state']['m']['buffers']] == [['nested', 'x'], ['value']]
        widget.set(value=b'from here', deep=dict(a=[b'1']))
        await fk.until(lambda: fk.counts['comm_msg'] == 1)
        sent = fk.received[-1]
        assert sent['content']['data'] == dict(method='update', state=dict(deep=dict(a=[None])), buffer_paths=[['value'], ['deep', 'a', 0]])
        assert sent['buffers'] == [b'from here', b'1']
        json.dumps(kc.widgets.state())

OUTPUT = dict(_model_name='OutputModel', _model_module='@jupyter-widgets/output', msg_id='', outputs=[])

async def test_an_output_widget_hears_late_outputs_and_those_of_handlers():
    async with fake({'comm_msg': 'busy'}) as (fk, kc):
        out = await opened(kc, Model(fk, **OUTPUT))
        m = Model(fk, **OUTPUT)
        res = await kc.run('x')
        request = fk.received[-1]
        m.update(dict(msg_id=request.msg_id))
        fk.stream(request, 'late')
        await until(lambda: out.text == 'late')
        assert (res.text, res.late) == ('x', 0)
        out.send({'event': 'click'})
        await fk.until(lambda: any(o['content']['data'].get('method') == 'custom' for o in fk.received if o.msg_type == 'comm_msg'))
        click = next(o for o in fk.received if o.msg_type == 'comm_msg' and o['content']['data']['method'] == 'custom')
        m.update(dict(msg_id=click.msg_id), msg=click)
        fk.stream(click, ' and clicked')
        fk.display(click, 'shown')
        m.update(dict(msg_id=''), msg=click)
        fk.stream(click, 'not captured')
        fk.idle(click)
        await until(lambda: 'shown' in out.text)
        await until(lambda: any(o['msg_type'] == 'stream' for o in [*map(read, kc.router.mailboxes['iopub'].items)]))
        assert out.state['outputs'][0]['text'] == 'late and clicked' and len(out.state['outputs']) == 2 and not kc.widgets.captured

def read(item): return item[2] if item[0] == 0 else dict(msg_type='stream' if b'stream' in item[3] else '')

async def test_a_flood_of_captured_outputs_makes_few_messages():
    "The next one follows when the kernel has got to the last"
    def flood(k, msg):
        m = Model(k, **OUTPUT)
        k.busy(msg)
        m.update(dict(msg_id=msg.msg_id), msg=msg)
        for i in range(2000): k.stream(msg, f'{i} ')
        m.update(dict(msg_id=''), msg=msg)
        k.stream(msg, 'cell')
        k.reply(msg), k.idle(msg)
    async with fake() as (fk, kc):
        out = await opened(kc, Model(fk, **OUTPUT))
        fk.on['execute_request'] = flood
        res = await kc.run('x')
        every = ''.join(f'{i} ' for i in range(2000))
        assert res.text == 'cell' and out.text == every
        def last(): return [o for o in fk.received if o.msg_type == 'comm_msg'][-1]['content']['data']
        await fk.until(lambda: fk.counts['comm_msg'] and last()['state']['outputs'][0]['text'] == every)
        assert fk.counts['comm_msg'] < 50 and last()['method'] == 'update'

async def test_an_echo_takes_no_output_back():
    "An echo comes when more outputs have been captured since"
    async with fake() as (fk, kc):
        m = Model(fk, **OUTPUT)
        out = await opened(kc, m)
        await kc.run('x')
        request = fk.received[-1]
        m.update(dict(msg_id=request.msg_id))
        fk.stream(request, 'one ')
        await fk.until(lambda: fk.counts['comm_msg'] == 1)
        sync = fk.received[-1]
        fk.stream(request, 'two ')
        m.update(sync['content']['data']['state'], 'echo_update', msg=sync)
        fk.stream(request, 'three')
        await until(lambda: 'three' in out.text)
        assert out.text == 'one two three'
        await fk.until(lambda: fk.received[-1]['content']['data']['state']['outputs'][0]['text'] == 'one two three')

async def test_captured_while_the_kernel_listens():
    "A cell that awaits: the kernel takes what we tell it in the midst of the outputs"
    need_widgets()
    async with open_kernel() as kc:
        await kc.run(f'{IMPORTS}\nimport asyncio\nout = w.Output()', check=True)
        res = await kc.run('with out:\n    for i in range(30):\n        print(i, flush=True)\n        await asyncio.sleep(.01)\nprint("cell")', check=True)
        every = ''.join(f'{i}\n' for i in range(30))
        out = next(o for o in kc.widgets.values() if o.kind == 'OutputModel')
        assert (out.text, res.text) == (every, 'cell\n')
        await until_kernel(kc, f'"".join(o["text"] for o in out.outputs) == {every!r}')

async def until_kernel(kc, condition):
    async with asyncio.timeout(SOON):
        while not await kc.eval(condition): await asyncio.sleep(.02)

async def test_only_the_client_that_asked_captures():
    "Another client of the kernel neither shows these outputs nor answers"
    async with fake() as (fk, kc):
        other = fk.client(ConKernelClient)
        await other.start_channels()
        try:
            m = Model(fk, **OUTPUT)
            out = await opened(kc, m)
            await until(lambda: 'm' in other.widgets)
            res = await kc.run('x')
            m.update(dict(msg_id=fk.received[-1].msg_id))
            fk.stream(fk.received[-1], 'captured')
            await until(lambda: out.text == 'captured')
            await other.run('')
            assert other.widgets['m'].text == '' and fk.counts['comm_msg'] == 1
            m.update(dict(outputs=[dict(output_type='stream', name='stdout', text='captured')]), 'echo_update', msg=next(o for o in fk.received if o.msg_type == 'comm_msg'))
            await until(lambda: other.widgets['m'].text == 'captured')
        finally: other.stop_channels()

async def test_closed_and_lost():
    async with fake() as (fk, kc):
        m, n = Model(fk, value=1), Model(fk, 'n', value=2)
        a, b = await opened(kc, m), await opened(kc, n)
        m.close()
        await until(lambda: len(kc.widgets) == 1)
        m.update(dict(value=9))
        await kc.run('')
        assert (a.closed, a.text, set(kc.widgets)) == (True, '', {'n'}) and set(kc.widgets.state()[MIME]['state']) == {'n'}
        with pytest.raises(CommClosedError): a.set(value=3)
        assert a.state['value'] == 1
        fk.crash()
        await kc.wait_for_status('dead', timeout=SOON)
        assert b.closed and b.text == '2' and not kc.widgets and kc.widgets.state() == {}
        with pytest.raises(DeadKernelError): b.set(value=3)

async def test_malformed_and_circular():
    async with fake() as (fk, kc):
        m = Model(fk)
        for data in (None, [], 1, dict(state=[]), dict(state=dict(children=['IPY_MODEL_loop', 'IPY_MODEL_none', 3, None]), buffer_paths='x')):
            m.say('open', dict(comm_id='loop', target_name='jupyter.widget', data=data))
            m.say('msg', dict(comm_id='loop', data=dict(method='update', state=dict(value={}), buffer_paths=[[], ['a', 'b']])), buffers=[b'', b''])
            m.say('close', dict(comm_id='loop', data={})) if data != dict(state=dict(children=['IPY_MODEL_loop', 'IPY_MODEL_none', 3, None]), buffer_paths='x') else None
        out = Model(fk, 'out', **OUTPUT | dict(outputs=[1, {}, dict(output_type='stream'), dict(output_type='display_data', data=None)], msg_id=7))
        await opened(kc, out)
        await until(lambda: 'loop' in kc.widgets)
        assert kc.widgets['loop'].text == '' and repr(kc.widgets['out']) and (await kc.run('ok')).text == 'ok'
        json.dumps(kc.widgets.state())

async def test_a_handler_of_the_users_own():
    "…for `jupyter.widget` sees the messages too"
    async with fake() as (fk, kc):
        seen = []
        async def handler(comm, msg):
            async for o in comm: seen.append(o.data['state'])
        kc.on_comm('jupyter.widget', handler)
        m = Model(fk, value=1)
        widget = await opened(kc, m)
        m.update(dict(value=2))
        await until(lambda: seen)
        assert seen == [dict(value=2)] and widget.state['value'] == 2
    async with fake() as (fk, kc):
        m = Model(fk, value=1)
        widget = await opened(kc, m)
        for i in range(50): m.update(dict(value=i))
        await until(lambda: widget.state['value'] == 49)
        assert kc.comms['m'].unread == 0   # nobody reads them, and nobody has to


# Real kernels

async def test_a_client_that_comes_late():
    need_widgets()
    async with open_kernel() as kc:
        await kc.run('import ipywidgets as w\ns, i = w.IntSlider(value=3), w.Image(value=b"png")\nout = w.Output()\nwith out: print("in")', check=True)
        await kc.run('')
        late = ConKernelClient()
        late.load_connection_info(kc.get_connection_info())
        await late.start_channels()
        try:
            assert not late.widgets and await late.widgets.load() == len(kc.widgets) and await late.widgets.load() == 0
            assert set(late.widgets) == set(kc.widgets)
            slider = next(o for o in late.widgets.values() if o.kind == 'IntSliderModel')
            slider.set(value=8)
            assert await late.eval('s.value') == 8
            await kc.run('')
            assert kc.widgets[slider.id].state['value'] == 8
            assert any(bytes(o.state['value']) == b'png' for o in late.widgets.values() if o.kind == 'ImageModel')
            assert next(o for o in late.widgets.values() if o.kind == 'OutputModel').text == 'in\n'
        finally: late.stop_channels()

async def test_a_kernel_without_widgets(kc):
    with pytest.raises(UnsupportedFeature, match='ipywidgets'): await kc.widgets.load()
    assert kc.widgets.state() == {}
