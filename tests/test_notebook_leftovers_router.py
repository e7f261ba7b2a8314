"""The router and its requests without sockets: orders of messages that the notebooks do not go into."""
import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
from conkernelclient import DeadKernelError, KernelRestartedError, NoReplyError
from conkernelclient.engine.request import Request
from conkernelclient.engine.router import CHANNELS, Router


def message(msg_id, msg_type, content, parent=None):
    header = dict(msg_id=msg_id, msg_type=msg_type)
    return dict(header=header, msg_id=msg_id, msg_type=msg_type, parent_header=parent or {}, metadata={}, content=content, buffers=[])


class Desk:
    "A router without a socket: `sent` is what went on the wire; the other methods say what the kernel does"
    def __init__(self, **kwargs):
        self.sent, self.n, self.now = [], 0, 0.
        self.kernel = SimpleNamespace(generation=0, session=None, holds=set())
        self.router = Router(lambda channel, packed: self.sent.append(packed[0]), self.kernel, clock=lambda: self.now, **kwargs)

    def request(self, msg_type='execute_request', timeout=None, generation=0, claims_iopub=True, **content):
        self.n += 1
        msg = message(f'r{self.n}', msg_type, content)
        req = Request(msg, loop=asyncio.get_running_loop(), generation=generation, claims_iopub=claims_iopub)
        self.router.submit(req, (req.msg_id,), timeout=timeout)
        return req

    def says(self, req, channel, msg_type, **content):
        self.router.dispatch(channel, message(f'{msg_type} to {req.msg_id}', msg_type, content, dict(msg_id=req.msg_id)))

    def reply(self, req, status='ok', **content): self.says(req, 'shell', 'execute_reply', status=status, **content)
    def idle(self, req): self.says(req, 'iopub', 'status', execution_state='idle')
    def stream(self, req, text): self.says(req, 'iopub', 'stream', name='stdout', text=text)
    def unclaimed(self): return [len(self.router.mailboxes[o]) for o in CHANNELS]


async def soon(x): return await asyncio.wait_for(x, 10)


async def test_replies_in_another_order():
    desk = Desk()
    a, b, c = [desk.request() for _ in range(3)]
    for req, n in ((b, 2), (c, 3), (a, 1)): desk.reply(req, n=n)
    assert [o['content']['n'] for o in await soon(asyncio.gather(a, b, c))] == [1, 2, 3]


@pytest.mark.parametrize('first', ['reply', 'idle'])
async def test_outputs_go_to_their_own_request_and_both_halves_end_it(first):
    desk = Desk()
    a, b = desk.request(), desk.request()
    desk.stream(a, 'a')
    desk.stream(b, 'b')
    getattr(desk, first)(b)
    assert not b.ended
    getattr(desk, 'idle' if first == 'reply' else 'reply')(b)
    assert b.complete and b.ended and not a.ended
    assert [o['content']['text'] for o in b.iopub[:1]] == ['b']
    assert await soon(b.wait()) is b


async def test_late_messages_for_a_cancelled_request_reach_no_mailbox():
    desk = Desk()
    a = desk.request()
    a.cancel()
    assert not desk.router.table
    desk.stream(a, 'late')
    desk.reply(a)
    desk.idle(a)
    assert desk.unclaimed() == [0, 0, 0, 0]
    assert desk.router.stats == {'late messages': 3}
    assert not desk.router.busy


async def test_a_timeout_fails_one_request_only():
    desk = Desk()
    slow, other = desk.request(timeout=.01), desk.request()
    with pytest.raises(TimeoutError, match='No reply to execute_request within 0.01 s'): await soon(slow)
    desk.reply(other)
    assert (await soon(other))['content']['status'] == 'ok'


async def test_outputs_stay_frames_until_somebody_looks():
    parsed = []
    def parse(frames):
        parsed.append(frames[3])
        return dict(msg_type='stream', header=dict(msg_type='stream'), content=dict(text=frames[3]))
    desk = Desk()
    codec = SimpleNamespace(parse=parse, deserialize=parse, parses_late=True, check=bool, says_idle=lambda frames: b'idle' in frames[4],
                            parents={o: dict(msg_id=o) for o in ('r1', 'r2', 'r3')})
    desk.router.read_with(codec)
    a, b, hooked = [desk.request() for _ in range(3)]
    hooked.on_iopub = [].append
    def come(req, *words): return desk.router.claim(deque((b'', b'', req.msg_id, o, o) for o in words))   # what must be parsed now
    assert (come(a, b'1', b'2'), come(b, b'1', b'idle'), come(hooked, b'1')[3]) == (None, None, b'1')
    assert (parsed, b.idle, a.idle) == ([], True, False)
    assert [o['content']['text'] for o in a.iopub] == [b'1', b'2'] == parsed
    assert come(a, b'3')[3] == b'3'
    assert a.iopub is a.iopub
    desk.stream(a, '3')
    assert [o['content']['text'] for o in a.iopub] == [b'1', b'2', '3']
    assert parsed == [b'1', b'2']


async def test_each_missing_half_ends_as_incomplete_after_the_grace_time():
    desk = Desk(grace=3)
    a, b, c = [desk.request() for _ in range(3)]
    desk.reply(a)
    desk.idle(b)
    assert (a.ended, a.done(), b.ended, b.done()) == (False, True, False, False)
    assert desk.router.expire(2) == 3
    assert not a.ended and not b.ended
    assert desk.router.expire(4) is None
    assert (a.ended, a.complete, b.ended, b.complete, c.ended) == (True, False, True, False, False)
    assert (await soon(a.wait())).reply and (await soon(b.wait())).reply is None
    with pytest.raises(NoReplyError, match='though the kernel is idle'): await soon(b)


async def test_window_withdraws_what_waits_and_keeps_places_of_what_was_sent():
    desk = Desk(window=2)
    a, b, c, d, e = [desk.request() for _ in range(5)]
    assert desk.sent == ['r1', 'r2']
    c.cancel()
    a.cancel()
    assert desk.sent == ['r1', 'r2']
    desk.reply(b)                       # frees b's place, and a's, which was before it
    assert desk.sent == ['r1', 'r2', 'r4', 'r5']


async def test_an_error_aborts_only_execute_requests_and_only_those_that_waited():
    desk = Desk(window=2)
    a, b, c = desk.request(), desk.request(), desk.request()
    desk.request('kernel_info_request')
    d = desk.request()
    desk.reply(a, status='error')       # c and d wait here, as they might wait in the kernel
    later = desk.request()
    assert [(await soon(o))['content']['status'] for o in (c, d)] == ['aborted', 'aborted']
    assert c.reply['metadata'] == dict(status='aborted')
    assert [o['content'] for o in c.iopub] == [dict(execution_state='busy'), dict(execution_state='idle')]
    assert c.complete and not b.done() and not later.done()
    assert desk.sent == ['r1', 'r2', 'r4']


async def test_an_aborted_reply_names_the_kernel_so_that_it_is_not_taken_for_another_one():
    desk = Desk(window=1)
    desk.kernel.session = 'the kernel'
    others = []
    desk.router.on_other_kernel = lambda: others.append(1)
    a, b = desk.request(), desk.request()
    desk.router.dispatch('shell', dict(message('reply', 'execute_reply', dict(status='error'), a.header),
                                       header=dict(msg_type='execute_reply', session='the kernel')))
    assert (await soon(b))['content'] == dict(status='aborted')
    assert not others


@pytest.mark.parametrize('content', [dict(stop_on_error=False), dict(silent=True)], ids=str)
async def test_an_error_aborts_nothing_where_the_request_says_so(content):
    desk = Desk(window=1)
    a, b = desk.request(**content), desk.request()
    desk.reply(a, status='error')
    assert desk.sent == ['r1', 'r2'] and not b.done()


async def test_a_death_reaches_each_waiter_with_an_exception_of_its_own():
    desk = Desk(window=1)
    a, b, c, dropped = [desk.request() for _ in range(4)]
    outputs = aiter(a)
    desk.stream(a, 'last words')
    end, first = c.wait(), await soon(anext(outputs))
    desk.router.fail(DeadKernelError('The kernel died (exit code -9)', -9), upto=0)
    res = await soon(asyncio.gather(a, b, end, anext(outputs), return_exceptions=True))
    assert all(isinstance(o, DeadKernelError) and o.exit_code == -9 for o in res) and len(set(map(id, res))) == 4
    assert first['content']['text'] == 'last words'
    assert not desk.router.table and not desk.router.shells['shell', None].waiting and not desk.router.busy


async def test_a_failure_in_a_hook_is_not_waited_for():
    desk = Desk()
    never = asyncio.Event()
    async def ask_a_person(msg): await never.wait()
    a = desk.request()
    a.on_iopub = ask_a_person
    desk.stream(a, 'password?')
    desk.router.fail(KernelRestartedError(), upto=0)
    with pytest.raises(KernelRestartedError): await soon(a.wait())
    never.set()


async def test_hooks_end_their_own_request_and_delay_no_other():
    desk, heard, go = Desk(), [], asyncio.Event()
    def bad(msg): raise KeyError('oops')
    async def slow(msg):
        if msg['msg_type'] == 'stream': await go.wait()
        heard.append(msg['msg_type'])
    a, b, c = [desk.request() for _ in range(3)]
    a.on_iopub = bad
    b.on_iopub = slow
    for req in a, b, c: desk.stream(req, 'x')
    for req in a, b, c: desk.reply(req)
    for req in b, c: desk.idle(req)
    assert c.ended and not b.ended
    go.set()
    await soon(b.wait())
    assert heard == ['stream', 'status']
    with pytest.raises(KeyError, match='oops'): await soon(a)


async def test_giving_up_on_the_end_takes_the_request_out_of_the_table():
    desk = Desk()
    req = desk.request()
    with pytest.raises(TimeoutError): await asyncio.wait_for(req.wait(), .01)
    assert req.cancelled() and not desk.router.table


async def test_an_id_in_flight_is_refused():
    desk = Desk()
    req = desk.request()
    with pytest.raises(ValueError, match='already in flight'): desk.router.submit(Request(message('r1', 'x', {})), ('r1',))
    assert desk.router.table['r1'] is req and desk.sent == ['r1']
