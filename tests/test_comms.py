"""Comms: every order of open, message and close; the kernel that ends; floods; what reaches whom."""
import asyncio, gc, os, random, weakref
from contextlib import asynccontextmanager

import pytest
from conkernelclient import *
from conkernelclient.cells.comm import Comms, Outbox
from conkernelclient.engine.life import State
from fake_kernel import FakeKernel

bound = 60
SOON = 30   # seconds: far more than anything here takes

ECHO = '''
from comm import get_comm_manager, create_comm
def echo(comm, msg):
    comm.on_msg(lambda msg: comm.send(dict(got=msg['content']['data']), buffers=[bytes(o)[::-1] for o in msg['buffers']]))
get_comm_manager().register_target('echo', echo)
'''

async def until(test, seconds=SOON):
    async with asyncio.timeout(seconds):
        while not test(): await asyncio.sleep(.005)

async def raised(awaitable, seconds=SOON):
    "What it raises"
    async with asyncio.timeout(seconds):
        try: got = await awaitable
        except Exception as e: return e
    raise AssertionError(f'it raised nothing, and gave {got!r}')

@asynccontextmanager
async def fake(on=None, **kwargs):
    async with FakeKernel(on) as fk:
        kc = fk.client(ConKernelClient, **{'lost_after': .1, **kwargs})
        await kc.start_channels()
        try: yield fk, kc
        finally: kc.stop_channels()

def cell(fk): return next(o for o in fk.received if o.msg_type == 'execute_request')
def say(fk, kind, comm_id='c', data=None, msg=None, target='t', **how):
    "The kernel publishes a comm message, by default in answer to the first cell"
    content = dict(comm_id=comm_id, data=data or {}) | (dict(target_name=target) if kind == 'open' else {})
    fk.publish(cell(fk) if msg is None else msg, f'comm_{kind}', content, **how)

async def heard(kc):
    "All that the kernel has published so far has come"
    await asyncio.wait_for(kc.run('').wait_until(lambda: True), SOON)
    await asyncio.wait_for(kc.run(''), SOON)


# The order of messages

async def test_a_cell_that_ended():
    "A comm belongs to the kernel: its messages come after the end of the cell that opened it, and they name any parent or none"
    async with fake() as (fk, kc):
        await kc.run('a')
        say(fk, 'open', data=dict(x=1))
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        assert (comm.target, comm.opening.data, comm.ours) == ('t', dict(x=1), False)
        await kc.run('b')
        say(fk, 'msg', data=dict(n=1))
        say(fk, 'msg', data=dict(n=2), msg=fk.received[-1])
        say(fk, 'msg', data=dict(n=3), parent={})
        say(fk, 'msg', data=dict(n=4), parent=dict(msg_id='of another client', msg_type='execute_request'))
        assert [(await comm.receive(SOON)).data['n'] for _ in range(4)] == [1, 2, 3, 4]

async def test_before_its_open_and_after_its_close():
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'msg', data=dict(n='early'))
        say(fk, 'close')
        say(fk, 'open')
        say(fk, 'msg', data=dict(n=1))
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        say(fk, 'msg', data=dict(n=2))
        say(fk, 'close', data=dict(bye=1))
        say(fk, 'msg', data=dict(n='late'))
        assert [o.data async for o in comm] == [dict(n=1), dict(n=2)]
        await until(lambda: kc.comms.unknown == 3)
        assert comm.closed and comm.closing.data == dict(bye=1) and not kc.comms
        assert type(await raised(comm.receive())) is CommClosedError
        with pytest.raises(CommClosedError, match='by the kernel'): comm.send('x')
        say(fk, 'open', data=dict(again=1))   # the same id may be opened again
        await until(lambda: 'c' in kc.comms)
        assert kc.comms['c'] is not comm

async def test_opened_twice():
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        say(fk, 'open', data=dict(second=1))
        say(fk, 'msg', data=dict(n=1))
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        assert (await comm.receive(SOON)).data == dict(n=1) and comm.opening.data == {} and len(kc.comms) == 1

async def test_closed_from_both_sides_together():
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        say(fk, 'close')
        comm.close(dict(bye=1))
        comm.close()
        await fk.until(lambda: fk.counts['comm_close'] == 1)
        await heard(kc)
        assert not kc.comms and [o async for o in comm] == [] and fk.counts['comm_close'] == 1
        with pytest.raises(CommClosedError, match='by this client'): comm.send('x')

async def test_malformed():
    "Messages without the fields of the protocol harm nothing"
    async with fake() as (fk, kc):
        await kc.run('')
        for content in ({}, dict(comm_id=1, target_name='t'), dict(comm_id='x'), dict(comm_id=['x'], target_name={}), dict(target_name='t')):
            for kind in 'open', 'msg', 'close': fk.publish(cell(fk), f'comm_{kind}', content)
        say(fk, 'open')
        say(fk, 'msg', data='no dict')
        await until(lambda: kc.comms and kc.comms['c'].unread == 1)
        assert len(kc.comms) == 1 and (await kc.run('ok')).status == 'ok'

async def test_any_order():
    "300 random stories of both sides, against a model"
    async with fake() as (fk, kc):
        await kc.run('')
        rnd = random.Random(5)
        comms = Comms(kc.connection)   # a table of its own, which gets the messages here
        deliver = kc.router.on_comm
        def message(kind, id, **content):
            return dict(header={}, msg_type=f'comm_{kind}', parent_header={}, metadata={}, buffers=[], content=dict(comm_id=id, **content))
        for story in range(300):
            is_open, want, objects, unknown = {}, {}, {}, comms.unknown
            for step in range(30):
                id = f'{story}{rnd.choice("ab")}'
                kind = rnd.choice(['open', 'msg', 'msg', 'close', 'ours'])
                if kind == 'ours':
                    if id in is_open:
                        objects[id].close()
                        del is_open[id]
                    continue
                deliver(message(kind, id, **(dict(target_name='t') if kind == 'open' else dict(data=step))))
                if kind == 'open' and id not in is_open:
                    is_open[id], objects[id], want[id] = True, comms[id], []
                elif kind == 'msg' and id in is_open: want[id].append(step)
                elif kind == 'close': is_open.pop(id, None)
                assert {o for o in comms if o.startswith(str(story)) and o[:-1] == str(story)} == set(is_open)
            for id, comm in objects.items():
                comm.close()
                assert [o.data async for o in comm] == want[id]
        assert not comms


# The kernel ends

@pytest.mark.parametrize('how', ['death', 'close'])
async def test_the_kernel_ends(how):
    "Reading raises the precise error, sending too, and the next kernel hears nothing"
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        async def read(): return [o async for o in comm]
        reading = [asyncio.create_task(read()), asyncio.create_task(comm.receive())]
        await asyncio.sleep(0)
        say(fk, 'msg', data=dict(n='last words'))
        if how == 'close':
            await until(lambda: reading[0].done() or reading[1].done() or not comm.unread)
            kc.stop_channels()
        else: fk.crash()
        kind = DeadKernelError if how == 'death' else ClientClosedError
        got = await asyncio.wait_for(asyncio.gather(*reading, return_exceptions=True), SOON)
        assert kind in {type(o) for o in got} and comm.closed and not kc.comms, got
        with pytest.raises(kind): comm.send('x')
        comm.close()
        if how == 'close': return
        await kc.wait_for_status('dead', timeout=SOON)
        with pytest.raises(DeadKernelError): await kc.open_comm('t')
        fk.start()
        await kc.wait_for_status('ready', timeout=SOON)
        with pytest.raises(kind): comm.send('x')
        before = kc.comms.unknown
        await kc.run('new')
        fk.publish(fk.received[-1], 'comm_msg', dict(comm_id='c', data={}))   # of the new kernel, which has no such comm
        await until(lambda: kc.comms.unknown == before+1)
        assert not fk.counts['comm_msg'] and not fk.counts['comm_close'] and not kc.comms

async def test_what_waits_does_not_reach_the_next_kernel():
    "Behind a full window, a comm message is meant for the kernel of then; who awaits a raw one gets the error"
    async with fake({'execute_request': 'hold busy reply idle'}, window=1) as (fk, kc):
        say_open = asyncio.ensure_future(kc.open_comm('t', timeout=SOON))
        comm = await say_open
        held = kc.execute('x', reply=True)
        await fk.until_held(1)
        comm.send('waits')
        raw = kc.request('comm_msg', dict(comm_id=comm.id, data={}))
        assert not raw.done()
        fk.crash()
        assert type(await raised(held)) is type(await raised(raw)) is DeadKernelError
        await kc.wait_for_status('dead', timeout=SOON)
        fk.on.clear()
        fk.start()
        await kc.wait_for_status('ready', timeout=SOON)
        assert (await kc.run('y')).status == 'ok' and not fk.counts['comm_msg']

async def test_the_words_of_another_kernel():
    "A comm that another process opens, before the client has noticed it, is none of this kernel's"
    async with fake() as (fk, kc):
        await kc.run('')
        name, fk.wire.session = fk.wire.session, 'another'
        say(fk, 'open')
        await until(lambda: any(o for o in kc.router.mailboxes['iopub'].items))
        fk.wire.session = name
        await heard(kc)
        assert not kc.comms

async def test_the_last_words_of_a_kernel():
    "When its restart has begun, they reach the comms that are there, and open none: that would belong to the next kernel"
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        await until(lambda: 'c' in kc.comms)
        comm, life = kc.comms['c'], kc.connection.life
        kc.connection.restart_begins()
        assert life.state is State.ENDING
        say(fk, 'open', 'late')
        say(fk, 'msg', data=dict(n='late'))
        assert (await comm.receive(SOON)).data == dict(n='late') and set(kc.comms) == {'c'}
        fk.crash()
        assert type(await raised(comm.receive())) is KernelRestartedError and not kc.comms

async def test_a_real_restart():
    async with open_kernel() as kc:
        await kc.run(ECHO, check=True)
        comm = await kc.open_comm('echo', timeout=SOON)
        reading = asyncio.ensure_future(comm.receive())
        res = await kc.run("other = create_comm(target_name='mine')", check=True)
        other = next(o for o in kc.comms.values() if o.target == 'mine')
        await kc.restart()
        assert type(await raised(reading)) is KernelRestartedError and type(await raised(other.receive())) is KernelRestartedError
        assert not kc.comms
        await kc.run(ECHO, check=True)
        comm = await kc.open_comm('echo', timeout=SOON)
        comm.send(1)
        assert (await comm.receive(SOON)).data == dict(got=1)


# Opening

async def test_opening_where_no_target_is():
    async with fake({'comm_open': lambda k, msg: (k.busy(msg), k.publish(msg, 'comm_close', dict(comm_id=msg['content']['comm_id'], data={})), k.idle(msg)) and None}) as (fk, kc):
        e = await raised(kc.open_comm('t'))
        assert type(e) is CommClosedError and "'t'" in str(e) and not kc.comms
        assert not fk.counts['comm_close']

async def test_opened_and_closed_with_a_message():
    "A target may say something and close: that is no failure"
    def target(k, msg):
        id = msg['content']['comm_id']
        k.busy(msg)
        for kind, data in ('msg', 'hi'), ('close', {}): k.publish(msg, f'comm_{kind}', dict(comm_id=id, data=data))
        k.idle(msg)
    async with fake({'comm_open': target}) as (fk, kc):
        comm = await kc.open_comm('t')
        assert [o.data async for o in comm] == ['hi']

@pytest.mark.parametrize('how', ['timeout', 'cancel', 'crash'])
async def test_opening_in_vain(how):
    "A kernel that does not get to it; it closes the comm when it does"
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        run = kc.run('x')
        await fk.until_held(1)
        opening = asyncio.ensure_future(kc.open_comm('t', timeout=.1 if how == 'timeout' else None))
        if how != 'timeout': await until(lambda: kc.comms)   # (where the loop is slow, it is over before anybody looks)
        if how == 'timeout': assert type(await raised(opening)) is ReplyTimeout
        if how == 'crash':
            fk.crash()
            assert type(await raised(opening)) is type(await raised(run)) is DeadKernelError
        if how == 'cancel':
            opening.cancel()
            assert (await asyncio.gather(opening, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert not kc.comms
        if how == 'crash': return
        fk.release()
        await asyncio.wait_for(run, SOON)
        await fk.until(lambda: (fk.counts['comm_open'], fk.counts['comm_close']) == (1, 1))
        assert not kc.router.busy

async def test_a_kernel_that_says_nothing_of_comms():
    "Neither busy nor idle, as in the midst of a cell that awaits"
    async with fake({o: '' for o in ('comm_open', 'comm_msg', 'comm_close')}) as (fk, kc):
        comm = await asyncio.wait_for(kc.open_comm('t'), SOON)
        for i in range(3500): comm.send(i)
        await fk.until(lambda: fk.counts['comm_msg'] == 3500, SOON)
        assert [o['content']['data'] for o in fk.received if o.msg_type == 'comm_msg'] == list(range(3500))

async def test_at_most_a_thousand_on_the_wire():
    "…while the kernel does not get to them"
    async with fake({'execute_request': 'busy hold reply idle'}) as (fk, kc):
        comm = await kc.open_comm('t')
        run = kc.run('x')
        await fk.until_held(1)
        for i in range(3000): comm.send(i)
        assert kc.comms.outbox().lane.on_wire == Outbox.limit and len(kc.comms.outbox().lane.waiting) >= 1900
        fk.release()
        await fk.until(lambda: fk.counts['comm_msg'] == 3000, SOON)
        assert (await asyncio.wait_for(run, SOON)).status == 'ok'
        await until(lambda: not kc.comms.outbox().lane.under_way)
        await until(lambda: not kc.router.attended)

@pytest.mark.slow
@pytest.mark.parametrize('cell', ['import time; time.sleep(1)', 'import asyncio; await asyncio.sleep(1)'], ids=['blocks', 'awaits'])
async def test_a_flood_leaves_the_kernel_alive(cell):
    "20,000 messages during one cell deadlock ipykernel 7.4 where nobody limits them"
    async with open_kernel() as kc:
        await kc.run('from comm import get_comm_manager\ngot = []\n'
                     'get_comm_manager().register_target("t", lambda comm, msg: comm.on_msg(lambda msg: got.append(msg["content"]["data"])))', check=True)
        comm = await kc.open_comm('t', timeout=SOON)
        run = kc.run(cell)
        for i in range(20_000):
            comm.send(i)
            if not i % 500: await asyncio.sleep(0)
        assert (await asyncio.wait_for(run, SOON)).status == 'ok'
        await asyncio.wait_for(until(lambda: not kc.comms.outbox().lane.waiting), SOON)
        assert await kc.eval('got == list(range(20_000))', timeout=SOON)


# Handlers, hooks, readers

async def test_handlers():
    async with fake() as (fk, kc):
        await kc.run('')
        seen = []
        async def reads(comm, msg):
            seen.append(msg.kind)
            async for o in comm: seen.append(o.data)
            seen.append('end')
        def fails(comm, msg): raise ValueError('as told')
        async def fails_later(comm, msg): raise ValueError('as told')
        kc.on_comm('reads', reads)
        kc.on_comm('fails', fails)
        kc.on_comm('later', fails_later)
        remove = kc.on_comm('removed', reads)
        remove(), remove()
        for o in 'reads', 'fails', 'later', 'removed': say(fk, 'open', o, target=o)
        say(fk, 'msg', 'reads', data=dict(n=1))
        say(fk, 'close', 'reads')
        await until(lambda: 'end' in seen and 'removed' in kc.comms)
        await fk.until(lambda: fk.counts['comm_close'] == 2)
        assert seen == ['open', dict(n=1), 'end'] and set(kc.comms) == {'removed'}

async def test_on_comm_of_a_run():
    "All that answers the cell, in order, and nothing else; an exception of the hook ends the run"
    def speak(k, msg):
        k.busy(msg)
        say(k, 'open', 'x', msg=msg)
        k.stream(msg, 'text')
        say(k, 'msg', 'x', dict(n=1), msg=msg)
        say(k, 'msg', 'other', dict(n='unknown'), msg=msg)
        say(k, 'close', 'x', msg=msg)
        k.reply(msg), k.idle(msg)
    async with fake({'execute_request': speak}) as (fk, kc):
        seen, later = [], []
        async def hook(msg): later.append((msg.kind, msg.comm.id))
        res = await kc.run('x', on_comm=lambda msg: seen.append((msg.kind, msg.data)))
        assert res.text == 'text' and seen == [('open', {}), ('msg', dict(n=1)), ('close', {})]
        await kc.run('x', on_comm=hook)
        assert later == [('open', 'x'), ('msg', 'x'), ('close', 'x')]
        def fails(msg): raise ValueError('as told')
        assert type(await raised(kc.run('x', on_comm=fails))) is ValueError

async def test_comm_messages_of_requests_that_nobody_reads():
    "…are found too, and a reader of the request gets them as before"
    def speak(k, msg):
        k.busy(msg), say(k, 'open', msg.code, msg=msg), say(k, 'msg', msg.code, dict(n=1), msg=msg), k.reply(msg), k.idle(msg)
    async with fake({'execute_request': speak}) as (fk, kc):
        req = kc.request('execute_request', dict(code='a'))
        await req.wait()
        assert kc.comms['a'].unread == 1 and [o['msg_type'] for o in req.iopub] == ['status', 'comm_open', 'comm_msg', 'status']
        kc.execute('b')   # jupyter_client's way, as nbclient uses it
        assert [(await kc.get_iopub_msg(timeout=SOON))['msg_type'] for _ in range(4)] == ['status', 'comm_open', 'comm_msg', 'status']
        assert kc.comms['b'].unread == 1

async def test_what_our_messages_cause():
    "Their busy and idle are nobody's business; text that a handler in the kernel prints goes to the mailbox"
    def speak(k, msg): k.busy(msg), k.stream(msg, 'printed'), k.idle(msg)
    async with fake({'comm_msg': speak}) as (fk, kc):
        comm = await kc.open_comm('t')
        await kc.get_pubs()
        comm.send(1)
        await until(lambda: not kc.router.attended)
        assert [o['msg_type'] for o in await kc.get_pubs()] == ['stream'] and not kc.router.foreign

async def test_unread_messages_are_bounded(caplog):
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        await until(lambda: 'c' in kc.comms)
        comm = kc.comms['c']
        comm.max_unread, comm.max_bytes = 10, 1000
        for i in range(50): say(fk, 'msg', data=dict(n=i))
        await until(lambda: comm.dropped+comm.unread == 50)
        assert [comm.unread, (await comm.receive()).data] == [10, dict(n=40)] and 'Nobody reads' in caplog.text
        for i in range(5): say(fk, 'msg', data=dict(n=i), buffers=[bytes(400)])
        say(fk, 'msg', data=dict(n='end'), buffers=[bytes(5000)])
        await until(lambda: comm.unread == 1)
        assert (await comm.receive()).data == dict(n='end')

async def test_two_readers_and_a_cancelled_one():
    "Each message goes to one of them, and none is lost"
    async with fake() as (fk, kc):
        await kc.run('')
        say(fk, 'open')
        await until(lambda: 'c' in kc.comms)
        comm, got = kc.comms['c'], []
        async def read():
            async for o in comm: got.append(o.data['n'])
        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0)
        for i in range(200):
            say(fk, 'msg', data=dict(n=i))
            if i == 100: readers.pop().cancel()
        say(fk, 'close')
        await asyncio.wait_for(asyncio.gather(*readers), SOON)
        assert sorted(got) == list(range(200))


async def test_from_another_thread():
    "…it raises, and sends nothing"
    async with fake() as (fk, kc):
        comm = await kc.open_comm('t')
        assert 'another thread' in str(await raised(asyncio.to_thread(comm.send, 1)))
        await kc.run('')
        assert not fk.counts['comm_msg']


# Raw requests

async def test_a_raw_comm_message_has_no_reply():
    "`request` gives the message as it was sent, immediately; its outputs are its own, and its end is its *idle*"
    async with fake({'comm_msg': 'busy stream=here idle'}) as (fk, kc):
        req = kc.request('comm_msg', dict(comm_id='x', data={}))
        msg = await req
        assert (msg['msg_type'], msg['msg_id']) == ('comm_msg', req.msg_id) and req.reply is None
        await asyncio.wait_for(req.wait(), SOON)
        assert req.complete and [o['msg_type'] for o in req.iopub] == ['status', 'stream', 'status'] and not kc.router.table

async def test_a_raw_comm_message_without_idle():
    "It ends as incomplete when the kernel has gone on to something else, not by a grace time"
    async with fake({'comm_msg': '', 'execute_request': 'busy hold reply idle'}, grace=.02) as (fk, kc):
        run = kc.run('x')
        await fk.until_held(1)
        req = kc.request('comm_msg', dict(comm_id='x', data={}))
        await req
        await asyncio.sleep(.3)   # many times the grace time: the kernel has not got to it
        assert not req.ended
        fk.release()
        await run
        await asyncio.wait_for(req.wait(), SOON)
        assert not req.complete and not kc.router.table

async def test_a_raw_comm_message_that_is_cancelled_is_not_sent():
    async with fake({'execute_request': 'busy hold reply idle'}, window=1) as (fk, kc):
        held = kc.execute('x', reply=True)
        await fk.until_held(1)
        raw = kc.request('comm_msg', dict(comm_id='x', data={}))
        late = kc.request('comm_msg', dict(comm_id='y', data={}), timeout=.05)
        assert raw.cancel() and type(await raised(late)) is ReplyTimeout
        fk.release()
        await held
        await heard_raw(kc)
        await until(lambda: not kc.router.table)
        assert not fk.counts['comm_msg']

async def heard_raw(kc): await kc.kernel_info(reply=True, timeout=SOON)


# Buffers, subshells, life

async def test_large_buffers_are_not_copied(kc):
    "Both ways: a received buffer is a view of memory that ZMQ filled"
    await kc.run(ECHO, check=True)
    comm = await kc.open_comm('echo', timeout=SOON)
    data = os.urandom(3_000_000)
    comm.send(0, [data, memoryview(data)[1:-1], b'', b'abc'])
    msg = await comm.receive(SOON)
    assert [bytes(o)[::-1] for o in msg.buffers] == [data, data[1:-1], b'', b'abc']
    large, small = msg.buffers[0], msg.buffers[3]
    assert not isinstance(large.obj, (bytes, bytearray)) and large.readonly and isinstance(small.obj, bytes)
    comm.close()

async def test_a_cell_that_awaits_is_answered(kc):
    "A comm answers in the midst of an async cell, on the main shell"
    await kc.run(ECHO+'''
import asyncio
answers = asyncio.Queue()
def ask(comm, msg):
    comm.on_msg(lambda msg: answers.put_nowait(msg['content']['data']))
get_comm_manager().register_target('ask', ask)''', check=True)
    comm = await kc.open_comm('ask', timeout=SOON)
    run = kc.run('comm = create_comm(target_name="question", data="age?"); await answers.get()')
    kc.on_comm('question', lambda asked, msg: comm.send(42))
    assert (await asyncio.wait_for(run, SOON)).text.strip() == '42'

async def test_through_a_subshell(kc):
    await kc.run(ECHO, check=True)
    async with kc.subshell() as sh:
        run = kc.run('import time; time.sleep(60)')
        comm = await sh.open_comm('echo', timeout=SOON)
        comm.send(1)
        assert (await comm.receive(SOON)).data == dict(got=1) and not run.done()
        run.interrupt()
        await run
    assert comm.subshell_id is None and sh.id not in kc.comms._boxes
    comm.close()

async def test_a_dropped_client_is_collected():
    async with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        comm = await kc.open_comm('t')
        comm.send(1)
        await until(lambda: not kc.router.attended)
        gone, comm = weakref.ref(kc), None
        kc = None
        for _ in range(100):
            gc.collect()
            if gone() is None: break
            await asyncio.sleep(.02)
        assert gone() is None
