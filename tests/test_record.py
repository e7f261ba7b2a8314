"""A session as a notebook: every kind of end is in it, it is valid at every moment, and others run it again."""
import asyncio, shutil, gc, json, threading, weakref

import nbformat, pytest
from nbclient import NotebookClient
from conkernelclient import (ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout, KernelRestartedError,
                             open_kernel, open_server_kernel, run_kernel)
from conkernelclient.cells import record
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import pytestmark
from proxy import Jupyter

bound = 90
SLEEP = 'import time; print("begun", flush=True); time.sleep(60)'


async def end(run):
    try: return (await within(SOON, run))[0]
    except (Exception, asyncio.CancelledError) as e: return e

def valid(rec):
    nb = rec.notebook()
    nbformat.validate(nb)
    assert nbformat.reads(nbformat.writes(nb), as_version=4)==nb
    return nb

def cell(nb, i): return nb.cells[i].metadata.get('conkernelclient', {}).get('outcome', 'ok'), nb.cells[i].metadata.get('tags', [])

async def rerun(nb):
    "By nbclient, with a kernel of its own"
    client = NotebookClient(nb, kernel_manager_class=ConKernelManager, timeout=SOON)
    return (await within(3*SOON, client.async_execute()))[0]


async def test_all_ends_and_nbclient_runs_it_again():
    async with run_kernel() as (km, kc):
        kc.interrupt_timeout = 4.
        rec = kc.record()
        await end(kc.run('x = 6\nprint("out", flush=True)\nx*7'))
        await end(kc.run('1/0'))
        await end(kc.run('1/0', check=True))
        await end(kc.run(SLEEP, timeout=.5))
        slow, queued = kc.run(SLEEP), kc.run('raise SystemExit("never")')
        await until(lambda: slow.partial.outputs)
        queued.cancel()
        slow.cancel()
        await end(slow), await end(queued)
        await end(kc.run('import sys; sys.stderr.write("err"); from IPython.display import display, HTML; display(HTML("<b>1</b>"))'))
        stopped = kc.run(SLEEP)
        await until(lambda: stopped.partial.outputs)
        await within(SOON, stopped.interrupt())
        await end(stopped)
        await end(kc.run('raise KeyboardInterrupt'))   # (as by the stop button of another client)
        lost = kc.run(SLEEP)
        await within(SOON, lost.wait_until(lambda: lost.inside))
        await kc.restart()
        assert isinstance(await end(lost), KernelRestartedError)
        await end(kc.run('x = 7'))
        nb = valid(rec)
    raises, skipped = ['raises-exception'], ['skip-execution']
    assert [cell(nb, i) for i in range(len(nb.cells))]==[
        ('ok', []), ('error', raises), ('error', raises), ('timeout', skipped), ('cancelled', skipped), ('cancelled', skipped),
        ('ok', []), ('error', skipped), ('error', skipped), ('restarted', skipped), ('ok', [])]
    assert nb.metadata.kernelspec.name=='python3' and nb.metadata.language_info.file_extension=='.py'
    assert nb.cells[0].outputs[0].text=='out\n' and nb.cells[4].outputs[0].text=='begun\n' and not nb.cells[5].outputs
    busy, idle = [nb.cells[0].metadata.execution[f'iopub.status.{o}'] for o in ('busy', 'idle')]
    assert busy<=idle and 'execution' not in nb.cells[5].metadata
    assert len({o.id for o in nb.cells})==len(nb.cells)
    before = [o.outputs for o in nb.cells]
    again = await rerun(nb)
    assert [o.id for o in again.cells]==[o.id for o in nb.cells]
    for i in 0, 6: assert [o.get('text', o.get('data')) for o in again.cells[i].outputs]==[o.get('text', o.get('data')) for o in before[i]]
    assert again.cells[1].outputs[-1].ename=='ZeroDivisionError'


async def test_what_is_not_recorded(kc):
    rec = kc.record()
    await kc.run('1', silent=True)
    await kc.run('1', store_history=False)
    await kc.eval('1')
    await kc.push(x=1)
    await kc.execute('1', reply=True)
    assert len(rec)==0 and valid(rec).cells==[]
    await kc.run('2')
    assert len(rec)==1
    rec.stop()
    rec.stop()
    await kc.run('3')
    assert [o.code for o in rec.cells]==['2'] and not kc.runs.recorders


async def test_while_it_runs():
    with FakeKernel(on={'execute_request': 'busy echo stream=some hold reply idle'}) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            rec = kc.record()
            first, second = kc.run('a'), kc.run('b')
            await fk.until_held(1)
            await until(lambda: first.partial.outputs)
            nb = valid(rec)
            assert [cell(nb, i) for i in (0, 1)]==[('running', []), ('queued', [])] and nb.cells[0].outputs[0].text=='some'
            fk.release()
            await fk.until_held(1)
            fk.release()
            await within(SOON, asyncio.gather(first, second))
            after = valid(rec)
            assert [o.id for o in after.cells]==[o.id for o in nb.cells]
            assert [cell(after, i) for i in (0, 1)]==[('ok', [])]*2
            assert after.metadata.kernelspec==dict(name='fake', display_name='fake', language='fake'), 'nobody knows the kernelspec'
        finally: kc.stop_channels()


async def test_a_display_that_is_updated_later(kc):
    rec = kc.record()
    await kc.run('from IPython.display import display; h = display("old", display_id=True)')
    await kc.run('h.update("new")')
    nb = valid(rec)
    assert nb.cells[0].outputs[0].data['text/plain']=="'new'"


# --- replay -----------------------------------------------------------------------------------------------------------

async def test_replay_after_a_restart_is_the_same_session():
    async with run_kernel() as (km, kc):
        rec = kc.record()
        for o in 'n = 1', 'n += 1', '1/0', 'n': await kc.run(o)
        before = valid(rec)
        await kc.restart()
        results = await kc.replay(before)
        assert [o.status for o in results]==['ok', 'ok', 'error', 'ok'] and results[-1].text.strip()=='2'
        after = valid(rec)
        assert [o.id for o in after.cells]==[o.id for o in before.cells] and len(rec)==4
        assert after.cells[0].metadata.execution!=before.cells[0].metadata.execution
        await kc.restart()
        assert len(await kc.replay(before, until=before.cells[0].id))==1 and await kc.eval('n')==1


async def test_what_replay_raises(kc, tmp_path):
    nb = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell('# n'), nbformat.v4.new_code_cell('n = 1'), nbformat.v4.new_code_cell('  \n'),
        nbformat.v4.new_code_cell('raise SystemExit', metadata=dict(tags=['skip-execution'])),
        nbformat.v4.new_code_cell('n/0'), nbformat.v4.new_code_cell('n = 2')])
    nbformat.write(nb, tmp_path/'a.ipynb')
    with pytest.raises(ExecutionError, match='ZeroDivisionError') as e: await kc.replay(tmp_path/'a.ipynb')
    assert len(e.value.results)==1 and await kc.eval('n')==1
    for until in 6, -1, 'nobody', True:
        with pytest.raises(ValueError, match='no cell'): await kc.replay(nb, until=until)
    assert len(await kc.replay(str(tmp_path/'a.ipynb'), until=3))==1
    raw = json.loads((tmp_path/'a.ipynb').read_text())   # its sources are lists of lines
    assert len(await kc.replay(raw, until=1))==1


async def test_a_cancelled_replay_stops_its_cell():
    with FakeKernel(on={'execute_request': 'busy echo hold reply idle'}) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            nb = dict(cells=[dict(cell_type='code', source=o) for o in 'ab'])
            task = asyncio.ensure_future(kc.replay(nb))
            await fk.until_held(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError): await within(SOON, task)
            assert fk.codes==['a'] and not kc.queue
        finally: kc.stop_channels()


# --- saving -----------------------------------------------------------------------------------------------------------

async def test_autosave_survives_the_death_of_the_kernel(tmp_path):
    path = tmp_path/'deep'/'session.ipynb'
    async with run_kernel() as (km, kc):
        kc.record(path, autosave=True)
        await kc.run('print(6*7)')
        assert isinstance(await end(kc.run('import os; os._exit(3)')), DeadKernelError)
        def saved(): return path.exists() and nbformat.read(path, as_version=4)
        await until(lambda: saved() and len(saved().cells)==2 and cell(saved(), 1)[0]=='dead')
        assert saved().cells[0].outputs[0].text=='42\n' and 'exit code 3' in saved().cells[1].metadata.conkernelclient.message
        assert [o.name for o in path.parent.iterdir()]==['session.ipynb']


async def test_a_reader_never_sees_half_a_file(tmp_path, kc):
    path, seen, over = tmp_path/'session.ipynb', [], threading.Event()
    def read():
        while not over.is_set():
            if path.exists(): seen.append(len(nbformat.read(path, as_version=4).cells))
    reader = asyncio.create_task(asyncio.to_thread(read))
    try:
        with kc.record(path, autosave=True):
            for i in range(30): await kc.run(f'print("{i}"*10_000)')
    finally:
        over.set()
        await within(SOON, reader)   # raises what reading raised
    assert seen==sorted(seen) and len(nbformat.read(path, as_version=4).cells)==30


async def test_an_overtaken_write_changes_nothing(tmp_path, kc, monkeypatch):
    "The write of the older notebook reaches the disk last"
    begun, go = threading.Event(), threading.Event()
    put = record.Recording._put
    def slow(self, nb, number):
        if number==1:
            begun.set()
            go.wait(SOON)
        put(self, nb, number)
    monkeypatch.setattr(record.Recording, '_put', slow)
    rec = kc.record(tmp_path/'session.ipynb', autosave=True)
    await kc.run('1')
    await asyncio.to_thread(begun.wait, SOON)
    await kc.run('2')
    rec.stop()
    go.set()
    await within(SOON, rec._writer)
    assert len(nbformat.read(rec.path, as_version=4).cells)==2


async def test_a_closed_client_has_saved_all(tmp_path):
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        rec = kc.record(tmp_path/'session.ipynb', autosave=True)
        run, held = kc.run('a'), kc.run('fake: busy hold reply idle')
        await within(SOON, run)
        await fk.until_held(1)
        kc.stop_channels()
        await end(held)
        await until(lambda: len(nbformat.read(rec.path, as_version=4).cells)==2 if rec.path.exists() else False)
        await until(lambda: cell(nbformat.read(rec.path, as_version=4), 1)==('error', ['skip-execution']))
        assert valid(rec)


async def test_a_disk_that_fails_ends_no_session(tmp_path, kc, monkeypatch, caplog):
    rec = kc.record(tmp_path/'session.ipynb', autosave=True)
    def full(nb, path): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(record, 'save', full)
        assert (await kc.run('6*7')).text.strip()=='42'
        await until(lambda: 'No space left' in caplog.text)
        with pytest.raises(OSError): rec.save()
    await kc.run('6*8')
    await until(lambda: rec.path.exists() and len(nbformat.read(rec.path, as_version=4).cells)==2)


async def test_widget_state_stands_in_the_metadata(kc):
    state = {'application/vnd.jupyter.widget-state+json': dict(version_major=2, version_minor=0, state={})}
    kc.runs.widget_state = lambda: state
    rec = kc.record()
    await kc.run('1')
    assert valid(rec).metadata.widgets==state


async def test_a_client_that_is_dropped_is_freed(tmp_path):
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        rec = kc.record()
        await kc.run('a')
        gone = weakref.ref(kc)
        gc.disable()
        try:
            del kc
            await until(lambda: gone() is None)
        finally: gc.enable()
        assert len(valid(rec).cells)==1, 'the recording is still there'


# --- elsewhere --------------------------------------------------------------------------------------------------------

def test_without_asyncio(tmp_path):
    with open_kernel() as k:
        with k.record(tmp_path/'session.ipynb') as rec:
            jobs = [k.start('for i in range(2000): print(i)') for _ in range(3)]
            while not all(o.done for o in jobs): nbformat.validate(rec.notebook())
            k.run('n = 1')
        assert len(rec)==4 and len(nbformat.read(tmp_path/'session.ipynb', as_version=4).cells)==4
        k.restart()
        assert len(k.replay(tmp_path/'session.ipynb'))==4 and k.eval('n')==1
    assert rec.save(tmp_path/'later.ipynb').exists(), 'also when the kernel is closed'


async def test_behind_a_server(tmp_path):
    server = Jupyter().start()
    try:
        await server.ready()
        async with open_server_kernel(server.url, token=server.token) as kc:
            with kc.record(tmp_path/'session.ipynb', autosave=True) as rec:
                await kc.run('n = 6')
                await kc.run('n*7')
            nb = nbformat.read(rec.path, as_version=4)
            assert nb.metadata.kernelspec.name=='python3' and nb.cells[1].outputs[0].data['text/plain']=='42'
            await kc.restart()
            assert (await kc.replay(rec.path))[-1].text.strip()=='42'
    finally: server.stop()


async def test_a_stopped_recording_writes_no_more(tmp_path, kc):
    "Its caller may have the result of the last cell before the recording hears of the end"
    for i in range(20):
        folder = tmp_path/str(i)
        with kc.record(folder/'s.ipynb', autosave=True): await kc.run('1')
        cell, = nbformat.read(folder/'s.ipynb', as_version=4).cells
        assert cell.outputs and not cell.metadata.get('tags')
        shutil.rmtree(folder)
        await kc.run('2')
        assert not folder.exists()
