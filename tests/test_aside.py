"""Questions beside a running cell: answered while it runs, parsed, and never behind it."""
import asyncio, gc, weakref

import pytest
from conkernelclient import (ClientClosedError, ConKernelClient, ConKernelManager, DeadKernelError, ExecutionError, ExecutionTimeout,
                             KernelRestartedError, ReplyTimeout, UnsupportedFeature, run_kernel)
from conkernelclient.cells.aside import Completion, Variable
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 90
BUSY = 'import threading\ngo = threading.Event()\ngo.wait(60)'



@pytest.fixture
async def busy():
    "A client of a kernel that runs a cell until the test lets it go"
    async with run_kernel() as (km, kc):
        run = kc.run(BUSY)
        await run.wait_until(lambda: run.inside)
        yield kc
        assert not run.done()
        await kc.aside.run('go.set()')
        assert (await within(SOON, run))[0].status=='ok'


async def subshells(kc):
    reply, _ = await within(SOON, kc.request('list_subshell_request', {}, 'control'))
    return reply['content']['subshell_id']

def task(coro): return asyncio.ensure_future(coro)


# --- beside a running cell --------------------------------------------------------------------------------------------

async def test_all_questions_at_once_on_one_subshell(busy):
    kc = busy
    (completions, doc, variables, value, res), _ = await within(SOON, asyncio.gather(
        kc.completions('thr'), kc.doc('threading.Event'), kc.variables(), kc.aside.eval('go.is_set()'), kc.aside.run('6*7')))
    assert 'threading' in [o.text for o in completions] and all(type(o) is Completion for o in completions)
    assert 'Class implementing event objects' in doc and '\x1b' not in doc
    assert [o.name for o in variables]==['threading', 'go'] and all(type(o) is Variable for o in variables)
    assert (value, res.text.strip())==(False, '42')
    first = await subshells(kc)
    await within(SOON, asyncio.gather(*[kc.completions('pri') for _ in range(20)]))
    assert await subshells(kc)==first and len(first)==1


async def test_twenty_first_questions_make_one_subshell(busy):
    await within(SOON, asyncio.gather(*[busy.completions('pri') for _ in range(20)]))
    assert len(await subshells(busy))==1


async def test_completions_in_the_middle_of_the_code(busy):
    code = 'sör = 1; pri(2)'
    (o,) = [o for o in await busy.completions(code, 12) if o.text=='print']
    assert (o.start, o.end, o.type)==(9, 12, 'function') and code[:o.start]+o.text+code[o.end:]=='sör = 1; print(2)'
    assert await busy.completions('no_such_name_at_all') == []
    assert await busy.doc('no_such_name') == '' and 'def wait' in await busy.doc('go.wait', detail=1)


async def test_a_cancelled_first_question_leaves_the_others(busy):
    asks = [task(busy.completions('pri')) for _ in range(3)]
    await asyncio.sleep(0)
    asks[0].cancel()
    res, _ = await outcomes(asks[1:])
    assert all(o[0].text=='print' for o in res) and len(await subshells(busy))==1
    asks = [task(busy.aside.eval('1')) for _ in range(3)]
    await asyncio.sleep(0)
    for o in asks: o.cancel()
    await outcomes(asks)
    assert (await within(SOON, busy.aside.eval('6*7')))[0]==42


async def test_a_long_cell_aside_delays_no_question_and_its_subshell_goes_when_it_is_done(busy):
    long = task(busy.aside.run('import threading\nlater = threading.Event()\nlater.wait(60)', timeout=60))
    await until(lambda: busy.aside.place.taken)
    assert (await within(SOON, busy.completions('pri', timeout=10)))[0][0].text=='print'
    assert len(await subshells(busy))==2 and not long.done()
    await busy.aside.run('later.set()')
    assert (await within(SOON, long))[0].status=='ok'
    while len(await subshells(busy))>1: await asyncio.sleep(.01)


async def test_a_stuck_subshell_is_replaced(busy):
    with pytest.raises(ExecutionTimeout, match='subshell'): await busy.aside.run('import threading\nstuck = threading.Event()\nstuck.wait(60)', timeout=.1)
    assert (await within(SOON, busy.aside.eval('6*7')))[0]==42
    with pytest.raises(ExecutionTimeout): await busy.aside.eval('stuck.wait(60)', timeout=.1)
    assert (await within(SOON, busy.completions('pri')))[0][0].text=='print'
    assert len(await subshells(busy))==3
    await busy.aside.run('stuck.set()')
    while len(await subshells(busy))>1: await asyncio.sleep(.01)


async def test_errors_of_a_cell_aside(busy):
    with pytest.raises(ExecutionError, match='ZeroDivisionError'): await busy.aside.run('1/0', check=True)
    with pytest.raises(ExecutionError): await busy.aside.eval('1/0')
    assert await busy.aside.eval('1') == 1 and len(await subshells(busy))==1


# --- lives of kernels and clients -------------------------------------------------------------------------------------

async def test_again_after_a_restart():
    async with run_kernel() as (km, kc):
        for _ in range(2):
            assert (await within(SOON, kc.completions('pri')))[0][0].text=='print'
            assert len(await subshells(kc))==1
            await kc.restart(now=True)
        stay = task(kc.aside.run('import threading; threading.Event().wait(60)', timeout=60))
        await until(lambda: kc.aside.place.taken)
        restart = task(kc.restart(now=True))
        with pytest.raises(KernelRestartedError): await within(SOON, stay)
        during = task(kc.completions('pri'))       # waits for the new kernel
        await within(SOON, restart)
        assert (await within(SOON, during))[0][0].text=='print'
        await km.shutdown_kernel(now=True)
        with pytest.raises(DeadKernelError): await within(SOON, kc.completions('pri'))
        kc.stop_channels()
        for ask in kc.completions('pri'), kc.doc('pri'), kc.variables(), kc.aside.eval('1'):
            with pytest.raises(ClientClosedError): await ask


async def test_a_client_that_is_dropped_is_collected(kernel_file):
    kc = ConKernelClient()
    kc.load_connection_file(kernel_file)
    await kc.start_channels()
    await kc.completions('pri')
    gone = weakref.ref(kc)
    del kc
    gc.collect()
    await until(lambda: gc.collect() is not None and gone() is None)


async def test_two_clients_have_a_subshell_each():
    async with run_kernel() as (km, kc):
        other = km.client()
        await other.start_channels()
        run = kc.run(BUSY)
        await run.wait_until(lambda: run.inside)
        for o in kc, other: assert (await within(SOON, o.completions('pri')))[0][0].text=='print'
        assert len(await subshells(kc))==2 and other.aside.place.id!=kc.aside.place.id
        await other.aside.run('go.set()')
        assert (await within(SOON, run))[0].status=='ok'
        other.stop_channels()


# --- kernels without subshells ----------------------------------------------------------------------------------------

async def test_an_idle_kernel_without_subshells_answers_on_its_main_shell():
    async with FakeKernel(subshells=False) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        assert await kc.completions('pri')==[Completion('prix', 0, 3)]
        assert kc.aside.place.id is None
        assert (await within(SOON, kc.aside.run('x')))[0].text=='x'
        with pytest.raises(UnsupportedFeature, match='fake'): await kc.variables()
        kc.stop_channels()


async def test_a_busy_kernel_without_subshells_says_so():
    "Whoever runs the cell, and also while one waits in the client"
    async with FakeKernel(subshells=False) as fk:
        kc, other = fk.client(ConKernelClient), fk.client(ConKernelClient)
        for o in kc, other: await o.start_channels()
        run = kc.run('fake: busy hold reply idle')
        with pytest.raises(UnsupportedFeature, match='no subshells'): await kc.completions('pri')
        await fk.until_held(1)
        for o in kc, other:
            await until(lambda: o.router.busy or o.router.foreign)
            for ask in o.completions('pri'), o.doc('pri'), o.aside.run('x'), o.aside.eval('x'):
                with pytest.raises(UnsupportedFeature, match='no subshells'): await ask
        fk.release()
        await within(SOON, run)
        for o in kc, other:
            await until(lambda: not o.router.foreign)
            assert await o.completions('pri')==[Completion('prix', 0, 3)]
            o.stop_channels()


async def test_a_kernel_that_does_not_answer():
    "On time; and the next question goes to another subshell"
    async with FakeKernel(on={'complete_request': ''}) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        for _ in range(2):
            with pytest.raises(ReplyTimeout): await kc.completions('pri', timeout=.1)
            assert kc.aside.place.id is None
        kc.stop_channels()


# --- variables --------------------------------------------------------------------------------------------------------

STRANGE = '''
import threading
from enum import Enum
class Stuck:
    def __repr__(self): threading.Event().wait(30); return 'late'
class Raises:
    @property
    def shape(self): raise ValueError('no shape')
    def __len__(self): raise OSError('no length')
    def __repr__(self): raise KeyError('no repr')
    def __sizeof__(self): raise TypeError('no size')
class Array:
    shape, nbytes = (3, 4), 96
    def __repr__(self): return 'array(...)'
class Table:
    shape = (2, 5)
    def memory_usage(self): return self
    def sum(self): return 80
class Colour(Enum): RED = 1
raises, array, table = Raises(), Array(), Table()
long, deep, empty, number = 'y'*10**6, {i: [i]*1000 for i in range(1000)}, [], 10**500
quote = "it's\\n\\"so\\""
_private = 1
sys = reprlib = None
'''

async def test_variables_of_all_kinds(busy):
    await busy.aside.run(STRANGE, check=True)
    found = {o.name: o for o in await busy.variables()}
    assert found['array'][1:]==('Array', (3, 4), 96, 'array(...)')
    assert found['table'][1:4]==('Table', (2, 5), 80)
    assert found['raises'][1:]==('Raises', None, None, '<its repr raises KeyError>') or found['raises'].shape is None
    assert found['long'].shape==(10**6,) and found['long'].size>10**6 and len(found['long'].preview)<=200
    assert found['deep'].shape==(1000,) and found['deep'].preview.startswith('{0: [0, 0') and len(found['deep'].preview)<=200
    assert found['empty'][1:3]==('list', (0,)) and found['quote'].preview==repr("it's\n\"so\"")
    assert found['number'].type=='int' and len(found['number'].preview)<=200
    assert found['Array'][1:3]==('type', None)
    assert '_private' not in found and not {'In', 'Out', 'exit', 'quit', 'get_ipython', 'listed', 'facts'} & found.keys()


async def test_a_repr_that_never_ends_costs_only_its_preview(busy):
    await busy.aside.run(STRANGE+'''
a, stuck, b, stuck2, c = 1, Stuck(), 2, Stuck(), 3
''', check=True)
    found, took = await within(SOON, busy.variables(patience=1.))
    previews = {o.name: o.preview for o in found}
    assert (previews['a'], previews['b'], previews['c'])==('1', '2', '3') and previews['stuck']==previews['stuck2']=='…'
    assert {o.name: o.type for o in found}['stuck']=='Stuck'
    many, took = await within(SOON, busy.aside.run('for i in range(50): globals()[f"stuck{i}"] = Stuck()'))
    found = await busy.variables(patience=.4, timeout=10)     # all of them within their time
    assert len(found)>50 and {o.preview for o in found if o.type=='Stuck'}=={'…'}
    assert await busy.variables(patience=0)!=[]
    assert len(await subshells(busy))==1


async def test_a_limit(busy):
    await busy.aside.run('for i in range(500): globals()[f"v{i}"] = i')
    found = await busy.variables()
    assert [o.name for o in found]==[f'v{i}' for i in range(300, 500)] and found.left_out==303
    few = await busy.variables(limit=3)
    assert [(o.name, o.preview) for o in few]==[('v497', '497'), ('v498', '498'), ('v499', '499')] and few.left_out==500
    assert await busy.variables(limit=0)==[]
    assert len(await busy.variables(limit=10**6))==503


async def test_nothing_is_left_behind_in_the_kernel():
    async with run_kernel() as (km, kc):
        look = '[sorted(o for o in globals() if not o.startswith("_")), get_ipython().execution_count]'
        before = await kc.eval(look)
        await kc.variables()
        await kc.completions('pri')
        await kc.doc('print')
        assert await kc.eval(look)==before


async def test_while_the_cell_makes_variables():
    async with run_kernel() as (km, kc):
        run = kc.run('import time\ni = 0\nwhile "stop" not in globals(): globals()[f"v{i}"] = i; i += 1; time.sleep(0)')
        await run.wait_until(lambda: run.inside)
        for _ in range(10): assert len((await within(SOON, kc.variables()))[0])>0
        await kc.aside.run('stop = 1')
        assert (await within(SOON, run))[0].status=='ok'
