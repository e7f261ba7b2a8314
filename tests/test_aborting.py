"""After an error, a kernel aborts what waits in its queue, and may go on with that for a while after its error reply.

What is asked after that reply waits in the client until a fence has been answered. The model kernel aborts everything
that reaches it within half a second after an error reply, in virtual time.
"""
import asyncio
from contextlib import asynccontextmanager

import pytest
from conkernelclient import *
from conkernelclient.engine.lane import Hold
from test_memory_transport import kernel, now, virtual

WINDOW = .5


@asynccontextmanager
async def aborting(window=WINDOW, aborts_all=False, **kwargs):
    async with kernel(**kwargs) as (machine, kc):
        machine.aborts_for = machine.kernel.aborts_for = window
        machine.kernel.aborts_all = aborts_all
        yield machine, kc

def held(kc, subshell_id=None): return Hold.ABORTING in kc.router.shells['shell', subshell_id].holds

async def fail(kc, **kwargs):
    "A cell has failed, and its error reply is here"
    assert (await kc.execute('e error', reply=True, **kwargs))['content']['status']=='error'

async def outcome(awaitable):
    try: return await awaitable
    except (RuntimeError, TimeoutError) as e: return e


@virtual
async def test_what_is_asked_after_an_error_waits_until_the_aborting_is_over():
    async with aborting() as (machine, kc):
        await fail(kc)
        assert held(kc)
        at = now()
        run, request = kc.run('a'), kc.execute('b', reply=True)
        msg_id = kc.execute('c')
        assert (await run).text=='a;' and (await request)['content']['status']=='ok' and now()-at>=WINDOW-.01
        msg = await kc.get_shell_msg(timeout=1)
        assert msg['parent_header']['msg_id']==msg_id and msg['content']['status']=='ok'
        assert machine.kernel.ran==['e error', 'a', 'b', 'c'] and not held(kc)

@virtual
@pytest.mark.parametrize('window', [256, 2, 1])
async def test_what_was_asked_before_is_aborted(window):
    async with aborting(window=WINDOW) as (machine, kc):
        kc.window = window
        asked = [kc.execute(o, reply=True) for o in ('e error', 'a', 'b', 'c')]
        assert [(await o)['content']['status'] for o in asked]==['error', *['aborted']*3]
        assert (await kc.run('d')).text=='d;' and machine.kernel.ran==['e error', 'd']

@virtual
async def test_a_run_aborts_nothing_and_waits_for_nothing():
    async with aborting() as (machine, kc):
        assert (await kc.run('e error')).status=='error' and not held(kc)
        assert (await kc.execute('f error', reply=True, stop_on_error=False))['content']['status']=='error' and not held(kc)
        at = now()
        assert (await kc.run('a')).text=='a;' and now()-at<.1

@virtual
async def test_only_that_shell_waits():
    async with aborting() as (machine, kc):
        async with kc.subshell() as sh:
            assert (await sh.execute('e error', reply=True))['content']['status']=='error'
            assert held(kc, sh.id) and not held(kc)
            at = now()
            beside, control, behind = kc.run('a'), kc.kernel_info(reply=True, channel='control'), sh.run('b')
            assert (await beside).text=='a;' and (await control)['content']['status']=='ok' and now()-at<.1
            assert (await behind).text=='b;' and now()-at>=WINDOW-.01
            await fail(kc)
            assert held(kc) and not held(kc, sh.id)
            assert (await sh.run('c')).text=='c;' and (await kc.run('d')).text=='d;'

@virtual
async def test_an_error_whose_caller_has_given_up():
    async with aborting() as (machine, kc):
        with pytest.raises(ReplyTimeout): await kc.execute('e take=.2 error', reply=True, timeout=.1)
        await asyncio.sleep(.15)
        assert held(kc) and (await kc.run('a')).text=='a;'

@virtual
async def test_after_an_aborted_cell():
    "The cell that failed was another client's; the kernel may be aborting still"
    async with aborting() as (machine, kc):
        other = type(kc)(machine.place)
        await other.start_channels()
        failed = other.execute('e take=.1 error', reply=True)
        await asyncio.sleep(.05)
        aborted = kc.execute('a', reply=True, stop_on_error=False)
        assert (await aborted)['content']['status']=='aborted' and held(kc)
        assert (await kc.run('b')).text=='b;' and not held(kc)
        await failed
        other.stop_channels()

@virtual
async def test_a_kernel_that_aborts_the_fence_too_and_says_error():
    "As kernels made with xeus: what they abort ends with an error, and aborts none of what waits in the client"
    async with aborting(aborts_all=True) as (machine, kc):
        failing, behind = kc.execute('e error', reply=True), kc.execute('a', reply=True)
        await failing
        after = kc.execute('b', reply=True)
        assert (await behind)['content']['status']=='error'
        assert (await after)['content']['status']=='ok' and machine.kernel.ran==['e error', 'b']

@virtual
async def test_a_kernel_that_does_not_answer_the_fence():
    "The hold ends with the grace time"
    async with aborting(grace=1.) as (machine, kc):
        await fail(kc)
        machine.kernel.freeze(5)
        run = kc.run('a')
        await asyncio.sleep(.9)
        assert held(kc)
        await asyncio.sleep(.2)
        assert not held(kc) and run.request.packed is None
        await outcome(run)      # it was sent while the kernel may still be aborting
        assert (await kc.run('b')).text=='b;'

@virtual
@pytest.mark.parametrize('how', ['dies', 'restarts', 'closes', 'is swapped', 'loses shell', 'loses iopub'])
async def test_what_happens_while_it_waits(how):
    async with aborting(host=how!='is swapped') as (machine, kc):
        await fail(kc)
        run, request = kc.run('a'), kc.execute('b', reply=True)
        got = asyncio.ensure_future(asyncio.gather(outcome(run), outcome(request)))
        await asyncio.sleep(.1)
        assert held(kc) and machine.kernel.ran==['e error']
        if how=='dies': machine.kill()
        if how=='restarts': await kc.restart(now=True)
        if how=='closes': kc.stop_channels()
        if how=='is swapped': machine.swap()
        lines = dict(zip(['loses shell', 'loses iopub'], [['shell', 'control'], ['iopub']])).get(how, ())
        for o in lines: kc.connection.transport.lines[o].block(.1)
        a, b = await asyncio.wait_for(got, 30)
        error = {'dies': DeadKernelError, 'restarts': KernelRestartedError, 'closes': ClientClosedError,
                 'is swapped': KernelRestartedError}.get(how)
        if error is None: assert a.text=='a;' and b['content']['status']=='ok'
        else: assert type(a) is error and type(b) is error
        if how=='closes': return
        if how=='dies': await kc.restart()
        assert (await kc.run('c')).text=='c;' and not held(kc)
        assert machine.kernel.ran==['c'] if error else machine.kernel.ran==['e error', 'a', 'b', 'c']

@virtual
async def test_a_subshell_that_is_left_while_it_waits():
    async with aborting() as (machine, kc):
        async with kc.subshell() as sh:
            assert (await sh.execute('e error', reply=True))['content']['status']=='error'
            run = sh.run('a')
        assert (await run).text=='a;'
        await asyncio.sleep(5)
        assert set(kc.router.shells)=={('shell', None), ('control', None)}
