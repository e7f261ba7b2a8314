"""What a language model reads: of thirty realistic cells, of each way in which a run can end, and in the form of each service"""
import asyncio, base64, json, random

import pytest
from conkernelclient import ConKernelError, ExecutionError, LLMContent, Result, open_kernel, run_kernel
from conkernelclient.cells.llm import Facts, llm_content
from conkernelclient.cells.readable import html_text, installed, short_traceback
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark
from model_cells import CELLS


@pytest.fixture(scope='module')
def k():
    with open_kernel() as k: yield k


@pytest.mark.parametrize('name', CELLS)
def test_of_this_cell_a_model_can_tell(name, k):
    cell = CELLS[name]
    for o in cell.needs: pytest.importorskip(o)
    content = k.run(cell.code, timeout=SOON*2).for_llm()
    text = content.text
    for o in cell.says: assert o in text, text
    for o in cell.hides: assert o not in text, text
    assert content.is_error==cell.error and len(text)<=cell.longest
    pictures = [o for o in content.parts if o['type']=='image']
    assert len(pictures)==cell.pictures and all(len(base64.b64decode(o['data']))<=3_500_000 for o in pictures)
    for o in content.anthropic('t'), content.openai('c'), content.mcp(): json.dumps(o)


# --- the last line ---------------------------------------------------------------------------------------------------

def last(content): return content.text.rstrip('\n').rpartition('\n')[2]

async def test_a_time_limit_is_named():
    async with run_kernel() as (km, kc):
        run = kc.run('print("so far", flush=True)\nimport time; time.sleep(60)', timeout=.5)
        e = await outcome(run)
        for content in e.for_llm(), run.for_llm():
            assert content.is_error and content.text.startswith('so far\n') and 'took longer than 0.5 s and was interrupted' in last(content)
        assert 'KeyboardInterrupt' in e.for_llm().text


async def test_a_death_is_named_with_its_exit_code():
    async with run_kernel() as (km, kc):
        run = kc.run('print("so far", flush=True)\nimport os, time; time.sleep(.2); os._exit(7)')
        e = await outcome(run)
        for content in e.for_llm(), run.for_llm():
            assert content.is_error and 'exit code 7' in last(content) and 'no reply' not in content.text, content.text
        await kc.restart()
        run = kc.run('import time; time.sleep(60)')
        await until_running(run)
        await kc.restart()
        assert 'restarted' in last((await outcome(run)).for_llm()) and 'restarted' in last(run.for_llm())


async def test_a_cancel_a_queue_and_a_cell_that_runs():
    async with run_kernel() as (km, kc):
        run, queued = kc.run('print("so far", flush=True)\nimport time; time.sleep(60)'), kc.run('1')
        await until(lambda: 'so far' in run.partial.text)
        assert last(run.for_llm()).startswith('[still running, for ') and not run.for_llm().is_error
        assert 'waits for its turn' in last(queued.for_llm()) and not queued.for_llm().is_error
        queued.cancel(), run.cancel('the user pressed stop')
        assert await run.settled(SOON) and await queued.settled(SOON)
        assert last(run.for_llm())=='[cancelled: the user pressed stop]' and run.for_llm().text.startswith('so far\n')
        assert last(queued.for_llm()).startswith('[cancelled') and queued.for_llm().is_error
        failed = await outcome(kc.run('1/0', check=True))
        assert isinstance(failed, ExecutionError) and last(failed.for_llm())=='ZeroDivisionError: division by zero'
        kc.stop_channels()
        closed = await outcome(asyncio.ensure_future(refused(kc)))
        assert isinstance(closed, ConKernelError) and last(closed.for_llm())==f'[{closed}]' and closed.for_llm().is_error

async def refused(kc): return await kc.run('1')


def test_without_asyncio():
    with open_kernel() as k:
        job = k.start('print("so far", flush=True)\nimport time; time.sleep(60)')
        next(job.follow())
        assert 'still running' in last(job.for_llm())
        job.stop()
        assert job.settled(SOON) and last(job.for_llm()).startswith('[cancelled')


async def test_output_that_may_be_missing_is_said():
    reply = dict(msg_type='execute_reply', header={}, metadata={}, content=dict(status='ok'))
    res = Result.from_messages('r', reply, [], complete=False)
    res.missing = 'the connection was away'
    assert last(res.for_llm())=='[some output may be missing: the connection was away]'


# --- bounds ----------------------------------------------------------------------------------------------------------

def test_whatever_the_outputs_are_the_text_is_bounded():
    rng = random.Random(5)
    picture = base64.b64encode(bytes(300)).decode()
    def output():
        kind = rng.choice(('stream', 'error', 'text', 'picture', 'html', 'chart'))
        words = ' '.join(rng.choice(('word', '\n', '\x1b[31m', '<b>', '</style>', 'x'*50)) for _ in range(rng.randint(0, 300)))
        if kind=='stream': return dict(output_type='stream', name=rng.choice(('stdout', 'stderr')), text=words)
        if kind=='error': return dict(output_type='error', ename='E', evalue='v', traceback=[words, 'File /x/site-packages/a.py:1, in f\n'+words]*rng.randint(0, 9))
        data = dict(text={'text/plain': words}, picture={'image/png': picture, 'text/plain': words}, html={'text/html': words},
                    chart={'application/vnd.plotly.v1+json': dict(data=[dict(x=words.split(), name=words[:30])])})[kind]
        return dict(output_type='display_data', metadata={}, data=data)
    for _ in range(150):
        outputs = [output() for _ in range(rng.randint(0, 12))]
        kept = {}
        def keep(name, data): return kept.setdefault(name, data) and name
        facts = Facts(rng.choice(('ok', 'error', None)), ending=rng.choice(('', 'the end')))
        content = llm_content(outputs, facts, limit=1500, max_images=4, spill=rng.choice((None, keep)))
        names = sum(len(o) for o in content.text.split('\n') if o.startswith('[image/'))
        assert 0<len(content.text)<=1500+names+100 and sum(o['type']=='image' for o in content.parts)<=4
        assert not facts.ending or last(content)=='[the end]'
        assert ('all of it' in content.text)==('output.txt' in kept)


@pytest.mark.skipif(not installed('PIL'), reason='needs Pillow')
def test_pillow_shrinks_what_is_too_large(k):
    res = k.run(CELLS['large picture'].code)
    (part,) = [o for o in res.for_llm(max_image_bytes=100_000).parts if o['type']=='image']
    assert len(base64.b64decode(part['data']))<=100_000 and base64.b64decode(part['data']).startswith(b'\x89PNG')


def test_without_pillow_a_large_picture_is_named(k, monkeypatch, tmp_path):
    monkeypatch.setattr('conkernelclient.cells.readable.installed', lambda package: False)
    content = k.run(CELLS['large picture'].code).for_llm(spill=tmp_path)
    assert [o['type'] for o in content.parts]==['text']
    (file,) = tmp_path.iterdir()
    assert str(file) in content.text and file.read_bytes().startswith(b'\x89PNG')


def test_the_whole_is_kept(k, tmp_path):
    res = k.run('for i in range(30_000): print("line", i)')
    content = res.for_llm(spill=tmp_path)
    (file,) = tmp_path.iterdir()
    assert f'all of it: {file}' in content.text and file.read_text()==res.stdout and len(content.text)<=10_000
    assert [*tmp_path.iterdir()]==[file] and res.for_llm(spill=tmp_path).text==content.text


def test_a_spill_that_fails_costs_only_the_handle(k, tmp_path, caplog):
    res = k.run('for i in range(30_000): print("line", i)')
    (tmp_path/'file').touch()
    def full(name, data): raise OSError('no space left on the device')
    for spill in full, tmp_path/'file', lambda *_: None:
        content = res.for_llm(spill=spill)
        assert 'lines cut ...]' in content.text and content.text.rstrip().endswith('line 29999')
    assert caplog.text.count('could not be kept')==2


# --- what a service takes --------------------------------------------------------------------------------------------

def display(**data): return dict(output_type='display_data', metadata={}, data={k.replace('_', '/', 1): v for k, v in data.items()})
def printed(text): return dict(output_type='stream', name='stdout', text=text)
PICTURE = base64.b64encode(b'\x89PNG\r\n\x1a\n'+bytes(100)).decode()

@pytest.mark.parametrize('outputs', [
    [], [printed('')], [printed('\n')], [display(image_png='not base64!')], [display(image_png='')], [display(image_png={'a': 1})], [display(image_png=None)],
    [display(image_png='AAA')], [display(image_png='ü')], [display(audio_wav='%%')], [display(image_png=PICTURE), printed('\n')], [printed(' '), display(image_png=PICTURE)],
    [display(image_png=base64.b64encode(b'\xff\xd8\xff'+bytes(100)).decode())], [display(text_html='<b></b>')], [display(text_plain='\t')]])
@pytest.mark.parametrize('limit', [-1, 0, 1, 10, 10_000])
def test_no_block_is_empty_and_each_picture_is_one(outputs, limit, tmp_path):
    "Else the service refuses the message, and the conversation from then on"
    for options in {}, dict(spill=tmp_path), dict(max_images=0, spill=tmp_path), dict(max_images=-1), dict(max_image_bytes=10):
        content = llm_content(outputs, limit=limit, **options)
        assert content.parts and all(o['text'].strip() for o in content.parts if o['type']=='text')
        assert len(content.text)<=max(limit, 120 + 2*len(str(tmp_path)) if 'spill' in options else 120)
        for o in content.parts:
            if o['type']!='image': continue
            raw = base64.b64decode(o['data'], validate=True)
            assert raw and o['media_type']==('image/jpeg' if raw.startswith(b'\xff\xd8\xff') else 'image/png')


def test_a_cell_that_displays_no_picture(k):
    content = k.run('from IPython.display import display\ndisplay({"image/png": "no base64!"}, raw=True)').for_llm()
    assert content.text=='[image/png: what the cell gave is no base64]\n' and len(content.parts)==1


def test_hundreds_of_pictures_fit(tmp_path):
    content = llm_content([display(image_png=base64.b64encode(bytes([i%250, i//250]*30)).decode()) for i in range(1000)], spill=tmp_path, limit=3000)
    assert len(content.text)<=3000 and sum(o['type']=='image' for o in content.parts)==10
    listed = next(o for o in tmp_path.iterdir() if o.name.endswith('output.txt')).read_text()
    assert listed.count('[image/png, 60 bytes: ')==990


def test_huge_html_and_tables(k):
    row = '<tr>'+'<td>1.5</td>'*30+'</tr>'
    for html in '<table>'+row*20_000+'</table>', '<div>'*100_000+'deep', '<p>a &lt; b</p>'*100_000:
        text = llm_content([display(text_html=html)]).text
        assert len(text)<=10_000 and 'more characters of HTML' in text
    frame = dict(text_html='<table class="dataframe">'+row*20_000+'</table>', text_plain='0 1 2\n'*20_000)
    assert llm_content([display(**frame)]).text.startswith('0 1 2\n')
    assert 'deep' in html_text('<div>'*5_000+'deep') and '<' not in html_text('<div>'*5_000+'deep')


# --- odd input -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('spec', [None, [], 'x', {}, {'data': None}, {'data': [None, 1, {'x': {'dtype': 'f8', 'bdata': 'AAA'}, 'y': 5}]}, {'layout': []},
                                  {'layout': {'xaxis': 3, 'title': {'text': None}}}, {'encoding': {'x': None}}, {'layer': 5, 'spec': []}, {'mark': {}},
                                  {'data': {'values': [1]}}, {'datasets': {'a': [{'x': float('nan')}]}, 'encoding': {'x': {'field': 'x'}}}])
@pytest.mark.parametrize('mime', ['application/vnd.plotly.v1+json', 'application/vnd.vegalite.v5+json', 'application/vnd.vega.v5+json'])
def test_a_chart_that_is_none(mime, spec):
    assert llm_content([dict(output_type='display_data', metadata={}, data={mime: spec})]).text


def test_html_that_is_broken():
    for html in ('<', '<table', '<style>x', '<!-- x', '<table class="dataframe">', '<td>'*1000, '</p>'*1000, '&', '&#99999999;', ''): html_text(html)
    assert llm_content([dict(output_type='display_data', metadata={}, data={'text/html': '', 'text/plain': 'plain'})]).text=='plain\n'


def test_long_html_and_tracebacks_take_linear_time():
    def seconds(f, n):
        begin = time.process_time()
        f(n)
        return time.process_time()-begin
    for f in (lambda n: short_traceback(['Cell In[1], line 1, in f']*n), lambda n: short_traceback([f'File x/site-packages/{i}.py:1' for i in range(n)]),
              lambda n: llm_content([dict(output_type='display_data', metadata={}, data={'text/html': '<style>'*n+'<!--'*n+'<img data:a/b;'*n})])):
        small, large = min(seconds(f, 1000) for _ in range(3)), min(seconds(f, 8000) for _ in range(2))
        assert large<40*small+.2
