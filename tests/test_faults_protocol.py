"""Replies, idles and prompts that do not come as they should, hooks that fail, and clients without the key."""
import asyncio, time
from collections import Counter, deque
from queue import Empty

import pytest
from conkernelclient import ReplyTimeout, ClientClosedError, ConKernelClient, NoReplyError, run_kernel
from types import SimpleNamespace
from conkernelclient.transports.zmq import Channel
from conkernelclient.engine.request import Request
from conkernelclient.engine.router import Router
from conkernelclient.engine.session import ConSession
from fake_kernel import SPOILERS, FakeKernel, Wire
from fault_tools import *
from inside import reader
from fault_tools import nothing_unheard, pytestmark

both_transports = True   # (of the tests that use `start_kernel`)


async def ready(fk, **kwargs):
    kc = fk.client(ConKernelClient, **kwargs)
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc


# --- replies and idles ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('words,replied,complete', [
    ('busy stream reply', True, False),                                    # no idle
    ('busy stream idle', False, False),                                    # no reply
    ('reply', True, False),
    ('idle', False, False),
    ('busy stream reply reply idle idle', True, True),                     # both twice
    ('busy stream idle idle reply reply', True, True),                     # the wrong order, and both twice
    ('idle reply busy', True, True),
    ('busy stream idle reply:bad_signature', False, False),
    ('busy stream reply idle:bad_signature', True, False),
    ('busy stream reply:too_few reply:broken_json reply idle', True, True),
    ('busy stream orphan reply orphan idle', True, True),                  # a reply to nobody
], ids=lambda o: o.replace(' ', '_') if isinstance(o, str) else None)
async def test_reply_and_idle(words, replied, complete):
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.2)
        req,after = ask(kc, f'fake: {words}'),ask(kc, 'after')
        (done,took) = await within(SOON, req.wait())
        assert done.ended and done.replied is replied and done.complete is complete
        if replied: assert (await req)['parent_header']['msg_id']==req.msg_id
        else:
            with pytest.raises(NoReplyError): await req
        assert [o async for o in req]==req.iopub
        assert complete or took<.2+SLACK
        assert (await within(SOON, after.wait()))[0].complete and text(after)=='after'
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('words,idle', [('busy stream reply idle', True), ('busy stream=idle reply idle', True), ('idle stream reply', True),
                                        ('busy stream reply', False), ('busy stream=idle reply', False), ('busy stream reply idle:bad_signature', False)],
                         ids=lambda o: o.replace(' ', '_') if isinstance(o, str) else None)
@pytest.mark.parametrize('packer', ['orjson','json'])
async def test_idle_of_a_request_that_keeps_nothing(words, idle, packer):
    "It counts once it has been checked, and is there for who reads iopub, parsed as any other"
    with FakeKernel() as fk:
        session = ConSession(key=fk.connection_info['key'].encode(), packer=packer, unpacker=packer)
        kc = await ready(fk, grace=.2, session=session)
        req = kc.request('execute_request', dict(code=f'fake: {words}'), iopub=False)
        done,_ = await within(SOON, req.wait())
        assert done.complete is idle and done.reply and done.idle is idle and not done.iopub
        seen = [o for o in await kc.get_pubs() if o['parent_header'].get('msg_id')==req.msg_id]
        assert [o['msg_type'] for o in seen]==['status' if o in ('busy','idle') else 'stream' for o in words.split() if o!='reply' and ':' not in o]
        assert {'header','msg_id','msg_type','parent_header','metadata','content','buffers'}==set(seen[0])
        assert kc.router.stats['malformed']==words.count(':')
        await at_rest(kc)
        kc.stop_channels()


@pytest.mark.parametrize('packer', ['orjson','json'])
async def test_outputs_that_are_looked_at_late(packer):
    "A request keeps frames until somebody looks: what it then gives, and counts, is what it gives to who looked from the start"
    with FakeKernel() as fk:
        session = ConSession(key=fk.connection_info['key'].encode(), packer=packer, unpacker=packer)
        kc = await ready(fk, session=session)
        words = 'busy stream=a stream:bad_signature stream=idle display display:broken_json display:null_content hold stream=b reply idle'
        heard = []
        late,early,half,hooked = [ask(kc, f'fake: {words}', on_iopub=o) for o in (None,None,None,heard.append)]
        assert early.iopub==[]
        for req in late,early,half,hooked:
            await fk.until_held(1)
            if req is half: await until(lambda: len(req.iopub)>3, what='the outputs before the pause')
            fk.release()
            assert (await within(SOON, req.wait()))[0].complete
        assert (late.unread==())==(packer=='json') and early.unread==()
        assert kc.router.stats['malformed']==(12 if packer=='json' else 10)
        def kinds(req): return [(sorted(o), o['msg_type'], o['content']) for o in req.iopub]
        assert kinds(late)==kinds(early)==kinds(half)==kinds(hooked) and heard==hooked.iopub
        assert text(late)=='aidleb' and kc.router.stats['malformed']==12 and late.iopub is late.iopub and [o async for o in late]==late.iopub
        await at_rest(kc)
        kc.stop_channels()


async def test_session_that_is_replaced_before_the_start():
    "Outputs are checked and parsed with the session that the channels have"
    with FakeKernel() as fk:
        kc = ConKernelClient(grace=.2)
        for k,v in fk.connection_info.items():
            if k.endswith('_port') or k=='ip': setattr(kc, k, v)
        kc.session = ConSession(key=fk.connection_info['key'].encode())
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        req,bare = ask(kc, 'x'),kc.request('execute_request', dict(code='fake: busy stream=y reply idle'), iopub=False)
        assert (await within(SOON, req.wait()))[0].complete and text(req)=='x'
        assert (await within(SOON, bare.wait()))[0].complete and not kc.router.stats['malformed']
        assert [o['content'].get('text') for o in await kc.get_pubs() if o['msg_type']=='stream']==['y']
        kc.stop_channels()


async def test_session_with_a_deserialize_of_its_own():
    class Marking(ConSession):
        def deserialize(self, *args, **kwargs): return super().deserialize(*args, **kwargs)|dict(mark=True)
    with FakeKernel() as fk:
        kc = await ready(fk, session=Marking(key=fk.connection_info['key'].encode()))
        for keep in (True,False):
            req = kc.request('execute_request', dict(code='fake: busy stream reply idle'), iopub=keep)
            await within(SOON, req.wait())
            seen = req.iopub if keep else [o for o in await kc.get_pubs() if o['parent_header'].get('msg_id')==req.msg_id]
            assert len(seen)==3 and all(o['mark'] for o in (*seen, req.reply))
        kc.stop_channels()


@pytest.mark.parametrize('words', ['busy stream:one_short stream=b reply idle', 'busy stream=b stream:one_short reply idle'])
async def test_message_that_lacks_its_last_frame(words, monkeypatch):
    "It does not take the one behind it along"
    monkeypatch.setitem(SPOILERS, 'one_short', lambda wire, frames: frames[:-1])
    with FakeKernel() as fk:
        kc = await ready(fk)
        req,after = ask(kc, f'fake: {words}'),ask(kc, 'after')
        for o in req,after: assert (await within(SOON, o.wait()))[0].complete
        assert (text(req), text(after))==('b', 'after') and kc.router.stats['malformed']==1
        kc.stop_channels()


async def test_neither_reply_nor_idle_is_bounded_by_its_timeout_only():
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.1)
        req,quiet = ask(kc, 'fake: busy stream', timeout=.5),ask(kc, 'fake: busy')
        after = ask(kc, 'after')
        res, _ = await outcomes([req, req.wait(), after.wait()])
        assert [type(o) for o in res[:2]]==[ReplyTimeout]*2 and res[2].complete
        assert not quiet.done()      # for all we know, the kernel is at work on it
        quiet.cancel()
        await within(SOON, kc.kernel_info(reply=True))     # when a later one is answered, theirs will not come: their places are free
        await at_rest(kc)
        kc.stop_channels()


async def test_second_reply_is_dropped():
    "Also that of a plain `execute`: who reads the shell channel gets one"
    with FakeKernel() as fk:
        kc = await ready(fk)
        mid = kc.execute('fake: busy reply reply sleep=.2 idle')     # the idle comes by another socket, and is not to overtake
        assert (await within(SOON, kc.get_shell_msg()))[0]['parent_header']['msg_id']==mid
        await at_rest(kc)
        with pytest.raises(Empty): await kc.get_shell_msg(timeout=.05)
        assert kc.router.stats['duplicate replies']==1
        kc.stop_channels()


async def test_outputs_after_the_reply_prolong_the_grace_time():
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.5)
        req = ask(kc, 'fake: busy reply '+'sleep=.2 stream=x '*6+'idle')     # idle 1.2 s after the reply, never .5 s of silence
        assert (await within(SOON, req.wait()))[0].complete and text(req)=='x'*6
        kc.stop_channels()


async def test_reply_that_lags_behind_its_idle():
    "A kernel that sends replies and outputs from different threads may be seconds late with one of them (ipykernel under load is)"
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.2)
        reqs = [ask(kc, 'fake: busy idle hold reply'), ask(kc, 'x')]
        await fk.until_held(1)
        fk.after(1., fk.release)
        res, _ = await outcomes(reqs)
        assert kinds(res)=={dict}
        await at_rest(kc)
        kc.stop_channels()


async def test_idle_that_lags_behind_outputs_of_others():
    "iopub is one stream in order: while it flows, an idle may still be behind"
    with FakeKernel(sequential=False) as fk:
        kc = await ready(fk, grace=.5)
        req = ask(kc, 'fake: busy reply sleep=1.5 idle')
        other = ask(kc, 'fake: busy '+'sleep=.1 stream=x '*20+'reply idle')
        res, _ = await outcomes([req.wait(), other.wait()])
        assert [o.complete for o in res]==[True, True]
        kc.stop_channels()


async def test_waiting_for_the_end_can_be_given_up_and_begun_again():
    "Once the reply is here, there is nothing to cancel but the waiting"
    with FakeKernel() as fk:
        kc = await ready(fk)
        req = ask(kc, 'fake: busy reply hold idle')
        await within(SOON, req)
        with pytest.raises(TimeoutError): await asyncio.wait_for(req.wait(), .01)
        again = req.wait()
        await fk.until_held(1)
        fk.release()
        assert (await within(SOON, again))[0] is req and req.complete and (await req.wait()) is req
        await at_rest(kc)
        kc.stop_channels()


async def test_idle_that_lags_far_behind():
    "However long the stream before it is, as long as nothing of a later request has come"
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.3)
        talks = ask(kc, 'fake: busy '+'sleep=.02 stream '*250+'reply idle', channel='control')
        done,_ = await within(SOON, ask(kc, 'fake: busy reply sleep=4 idle').wait())
        assert done.complete and (await within(SOON, talks.wait()))[0].complete
        await at_rest(kc)
        kc.stop_channels()


async def test_idle_that_is_lost_while_the_kernel_talks_on():
    "Nothing is asked of it any more, so the client asks something: then nothing older can be behind"
    with FakeKernel() as fk:
        kc = await ready(fk, grace=.3)
        before,talks = fk.counts['kernel_info_request'],ask(kc, 'fake: busy '+'sleep=.03 stream '*1000+'reply idle', channel='control')
        done,_ = await within(SOON, ask(kc, 'fake: busy reply').wait())
        assert done.replied and not done.complete and not talks.replied
        assert fk.counts['kernel_info_request']==before+1
        talks.cancel()
        kc.stop_channels()


class Talk:
    "A router without sockets, on a clock of its own: reply and *idle* of some requests, and what else iopub says"
    def __init__(self):
        self.asked,self.session,self.now = [],ConSession(key=b'secret'),time.monotonic()
        self.router = Router(lambda channel,frames: None, SimpleNamespace(generation=0, session=None, holds=set()), grace=1.)
        self.router.on_doubt = lambda *args: self.asked.append(args)
        self.router.read_with(self.session)

    def replied(self):
        msg = self.session.msg('execute_request', {})
        req = Request(msg, loop=asyncio.get_running_loop())
        self.router.submit(req, self.session.pack_message(msg))
        self.router.dispatch('shell', dict(header=dict(msg_type='execute_reply'), parent_header=req.header, content=dict(status='ok')))
        return req

    def graces(self, n, msg_id=None, silent=False):
        for _ in range(n):
            if msg_id is not None: self.router.claim(deque([(b'', b'', b'{"msg_id":"%b"}' % msg_id.encode(), b'{}', b'{}')]))
            self.now += 1.01
            self.router.expire(self.now, silent)


async def test_a_silent_kernel_is_not_asked():
    talk = Talk()
    talk.replied()
    talk.graces(10, 'somebody')
    talk.graces(50, silent=True)
    assert not talk.asked


async def test_how_long_an_idle_is_waited_for():
    talk = Talk()
    a = talk.replied()
    talk.graces(2)
    assert a.ended and not a.complete            # nothing was heard
    b = talk.replied()
    talk.graces(10, 'somebody')
    assert not b.ended and not talk.asked
    talk.graces(10, 'somebody')
    assert not b.ended and talk.asked==[('shell', None, [])]
    c = talk.replied()
    talk.graces(1, c.msg_id)                     # it cannot be behind any more
    assert b.ended and not c.ended
    talk.graces(500, silent=True)
    assert not c.ended                           # the kernel is stopped
    talk.graces(98, 'somebody')
    assert not c.ended
    talk.graces(5, 'somebody')
    assert c.ended and not c.complete            # not for ever


async def test_an_idle_of_requests_handled_at_once_is_waited_for():
    "A kernel that works on several requests of one shell at a time may be out of order, for a while"
    talk = Talk()
    a,b = talk.replied(),talk.replied()
    talk.graces(10, b.msg_id)
    assert not a.ended
    talk.graces(2, b.msg_id)
    assert a.ended


@pytest.mark.parametrize('how', [dict(protocol='5.0', subshells=False, welcome=False), dict(welcome=False), dict(welcome=.3), dict(welcome='first'),
                                 dict(heartbeat=False)], ids=str)
async def test_kernels_of_all_ages(how):
    with FakeKernel(**how) as fk:
        for _ in range(2):
            kc = await ready(fk)
            req = ask(kc, 'x')
            assert (await within(SOON, req.wait()))[0].complete
            assert [o.get('msg_type') for o in req.iopub]==['status','execute_input','stream','status']
            assert not len(kc.router.mailboxes['shell'])
            await at_rest(kc)
            kc.stop_channels()


# --- hooks ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('is_async', [False, True], ids=['plain','async'])
@pytest.mark.parametrize('which', ['on_iopub', 'on_stdin'])
async def test_hook_that_raises(which, is_async):
    "Only its own request fails, with what it raised"
    def plain(msg): raise KeyError('mine')
    async def later(msg):
        await asyncio.sleep(0)
        raise KeyError('mine')
    with FakeKernel() as fk:
        kc = await ready(fk)
        before = [ask(kc, str(i)) for i in range(5)]
        bad = ask(kc, 'fake: busy input=name stream reply idle' if which=='on_stdin' else 'fake: busy stream hold reply idle', subshell_id=None, **{which: later if is_async else plain})
        (e,), _ = await outcomes([bad.wait()])
        assert type(e) is KeyError
        (e,), _ = await outcomes([bad])
        assert type(e) is KeyError
        if which=='on_stdin': kc.input('go on')
        else:
            await fk.until_held(1)
            fk.release()
        after = [ask(kc, str(i)) for i in range(5)]
        res, _ = await outcomes([o.wait() for o in before+after])
        assert all(o.complete for o in res)
        await at_rest(kc)
        kc.stop_channels()


async def test_interactive_hook_that_raises():
    with FakeKernel() as fk:
        kc = await ready(fk)
        def bad(msg): raise KeyError('mine')
        outs = []
        runs = [asyncio.ensure_future(kc.execute_interactive(str(i), output_hook=bad if i==3 else outs.append)) for i in range(8)]
        res, _ = await outcomes(runs)
        assert [type(o) for o in res]==[dict]*3+[KeyError]+[dict]*4
        assert sum(o['msg_type']=='stream' for o in outs)==7
        await at_rest(kc)
        kc.stop_channels()


async def test_async_hook_that_takes_its_time_delays_nobody():
    with FakeKernel() as fk:
        kc = await ready(fk)
        order,go = [],asyncio.Event()
        async def dawdle(msg):
            await go.wait()
            order.append(msg['msg_type'])
        slow = ask(kc, 'fake: busy stream reply idle', on_iopub=dawdle)
        quick = [ask(kc, str(i)) for i in range(300)]
        assert (await within(SOON, slow))[0]['content']['status']=='ok'      # its reply does not wait for its hook either
        await outcomes([o.wait() for o in quick])
        assert not slow.ended
        go.set()
        (done,_) = await within(SOON, slow.wait())
        assert done.complete and order==['status','stream','status']         # in order, and the end is after the last
        kc.stop_channels()


async def test_async_hooks_run_in_order():
    "The first takes longest"
    with FakeKernel() as fk:
        kc = await ready(fk)
        order,delays = [],iter((.05,.04,.03,.02,.01))
        def hook(msg): return slowly(msg, next(delays))
        async def slowly(msg, delay):
            await asyncio.sleep(delay)
            order.append(msg['content'].get('text', msg['content'].get('execution_state')))
        req = ask(kc, 'fake: busy stream=a stream=b stream=c reply idle', on_iopub=hook)
        await within(SOON, req.wait())
        assert order==['busy','a','b','c','idle']
        kc.stop_channels()


async def test_plain_hook_of_a_second_loses_nothing():
    with FakeKernel() as fk:
        kc = await ready(fk)
        slow = ask(kc, 'fake: busy stream reply idle', on_iopub=lambda msg: time.sleep(1) if msg['msg_type']=='stream' else None)
        others = [ask(kc, str(i)) for i in range(300)]
        res, _ = await outcomes([o.wait() for o in [slow, *others]])
        assert all(o.complete for o in res) and [text(o) for o in others]==[str(i) for i in range(300)]
        kc.stop_channels()


def numbered(n): return f"fake: busy {' '.join(f'stream={i}' for i in range(n))} reply idle"


@pytest.mark.parametrize('called', [False, True], ids=['by itself', 'called in between'])
async def test_slow_hooks_let_others_have_turns(called):
    "A reader has a whole batch at hand, and still gives way when its time is up, however often it is called"
    with FakeKernel() as fk:
        kc = await ready(fk, grace=60.)     # (when a grace time is over, the reader looks as well)
        channel = kc.connection.transport.channels['iopub']
        turns,at,n = 0,[],60
        def turn():
            nonlocal turns
            turns += 1
            if called and turns in range(3, 9): channel.read()   # as the event loop does when the socket has become readable
            if len(at)<n: asyncio.get_running_loop().call_soon(turn)
        def hook(msg):
            if msg['msg_type']!='stream': return
            at.append(turns)
            time.sleep(2*Channel.span)
        req = ask(kc, numbered(n), on_iopub=hook)
        if called:
            await fk.until(lambda: fk.codes)
            time.sleep(.3)   # all of it arrives
        turn()
        await within(SOON, req.wait())
        counts = Counter(o for o in at if not called or o>9)
        assert len(at)==n and max(counts.values())<=2      # (the loop may call the reader twice in a turn)
        assert text(req)==''.join(map(str, range(n)))
        await at_rest(kc)
        kc.stop_channels()


async def test_large_outputs_let_others_have_turns():
    "To check a signature takes as long as the output is large"
    with FakeKernel(on={'execute_request': large_outputs}) as fk:
        kc = await ready(fk, grace=60.)
        reader(kc, 'iopub').span = 0
        def kept(unread): return 1+kept(unread[0]) if unread else 0
        req,steps,before = ask(kc, ''),[],0
        fk.wait_received(1)
        time.sleep(.3)                       # all is there when the reader looks
        while not req.ended:
            await asyncio.sleep(0)
            steps.append(kept(req.unread)-before)
            before += steps[-1]
        assert sum(steps)==42 and max(steps)<=3       # (the loop may call the reader twice in a turn; and there is *busy*)
        kc.stop_channels()

def large_outputs(k, msg):
    k.busy(msg)
    for _ in range(40): k.stream(msg, 'x'*200_000)
    k.reply(msg)
    k.idle(msg)


@pytest.mark.parametrize('batched', [True, False])
async def test_a_hook_in_which_the_channel_is_read(batched):
    "As where a hook runs the loop (nest_asyncio): what its reader has at hand comes next, once, in order"
    with FakeKernel() as fk:
        kc = await ready(fk)
        seen,deep = [],0
        def hook(msg):
            nonlocal deep
            if msg['msg_type']!='stream': return
            seen.append(msg['content']['text'])
            if len(seen)<10:
                deep += 1
                reader(kc, 'iopub').read()
        req = ask(kc, numbered(40), on_iopub=hook)
        if batched: time.sleep(.2)       # all is there when the reader looks
        await within(SOON, req.wait())
        assert deep==9 and seen==[str(i) for i in range(40)]
        await at_rest(kc)
        kc.stop_channels()


async def test_a_hook_that_stops_the_channels():
    "What the reader has at hand goes to nobody"
    with FakeKernel() as fk:
        kc = await ready(fk)
        seen = []
        def hook(msg):
            seen.append(msg['msg_type'])
            if msg['msg_type']=='stream': kc.stop_channels()
        req = ask(kc, numbered(40).replace('reply', ''), on_iopub=hook)
        time.sleep(.2)                       # all is there when the reader looks
        res, _ = await outcomes([req])
        await asyncio.sleep(.05)
        assert type(res[0]) is ClientClosedError and seen==['status','stream']
        assert not len(kc.router.mailboxes['iopub'])


async def test_a_hook_that_is_interrupted():
    "Even what no hook should raise leaves nothing behind that the reader has at hand"
    class Stop(BaseException): pass
    with FakeKernel() as fk:
        kc = await ready(fk, grace=60.)
        ch = reader(kc, 'iopub')
        def hook(msg):
            if msg['msg_type']=='stream' and msg['content']['text']=='3': raise Stop
        req = ask(kc, numbered(40), on_iopub=hook)
        asyncio.get_running_loop().remove_reader(ch._watch.fd)     # nothing but the reader itself will make it look again
        time.sleep(.2)                       # all is there when the reader looks
        with pytest.raises(Stop):
            while not req.idle: ch.read()
        await until(lambda: not ch.taken)
        while not req.idle: ch.read()      # (what came later)
        await within(SOON, req.wait())
        assert text(req)==''.join(map(str, range(40)))
        kc.stop_channels()


async def test_hooks_that_use_the_client():
    "A hook may send, cancel itself or others"
    with FakeKernel() as fk:
        kc = await ready(fk)
        more = []
        req = ask(kc, 'a', on_iopub=lambda msg: more.append(ask(kc, 'b')) if msg['msg_type']=='stream' else None)
        await within(SOON, req.wait())
        await within(SOON, more[0].wait())
        selfish = ask(kc, 'fake: busy hold reply idle', on_iopub=lambda msg: selfish.cancel())
        other = ask(kc, 'd')
        (e,), _ = await outcomes([selfish])
        await fk.until_held(1)
        fk.release()
        res = [e, *(await outcomes([other.wait()]))[0]]
        assert type(res[0]) is asyncio.CancelledError and res[1].complete
        await at_rest(kc)
        kc.stop_channels()


# --- prompts -------------------------------------------------------------------------------------------------------

def answering(kc, name, delays=None):
    async def answer(msg):
        await asyncio.sleep(0)
        kc.input(f"{name} to {msg['content']['prompt']}", parent=msg)
    return answer

async def test_ten_cells_ask_at_once_on_one_client():
    "Each prompt comes to its own request's hook, and each answer to the cell that asked, whatever the order"
    with FakeKernel(sequential=False) as fk:
        kc = await ready(fk)
        reqs = [ask(kc, f'fake: busy input=prompt{i} answer reply idle', content=dict(allow_stdin=True), on_stdin=answering(kc, f'answer{i}')) for i in range(10)]
        res, _ = await outcomes([o.wait() for o in reqs])
        assert all(o.complete for o in res)
        assert [text(o) for o in reqs]==[f'answer{i} to prompt{i}' for i in range(10)]
        kc.stop_channels()


async def test_ten_clients_ask_at_once(start_kernel):
    async with start_kernel() as (km, kc):
        kcs = [kc, *[km.client() for _ in range(9)]]
        try:
            for o in kcs[1:]: o.start_channels()
            for o in kcs[1:]: await o.wait_for_ready(timeout=SOON)
            reqs = [ask(o, f"print(input('prompt{i}'))", content=dict(allow_stdin=True, store_history=False), on_stdin=answering(o, f'answer{i}')) for i,o in enumerate(kcs)]
            res, _ = await outcomes([o.wait() for o in reqs], 60)
            assert [text(o) for o in reqs]==[f'answer{i} to prompt{i}\n' for i in range(10)]
        finally:
            for o in kcs[1:]: o.stop_channels()


async def test_ten_subshells_ask():
    "ipykernel has one stdin socket, so its subshells' prompts are put one after another by locks of the test: answers do not cross"
    with FakeKernel() as fk:
        kc = await ready(fk)
        subs = [(await within(SOON, kc.request('create_subshell_request', {}, 'control')))[0]['content']['subshell_id'] for _ in range(10)]
        reqs = [ask(kc, f'fake: busy input=prompt{i} answer reply idle', subshell_id=s, content=dict(allow_stdin=True), on_stdin=answering(kc, f'answer{i}')) for i,s in enumerate(subs)]
        res, _ = await outcomes([o.wait() for o in reqs])
        assert [text(o) for o in reqs]==[f'answer{i} to prompt{i}' for i in range(10)]
        kc.stop_channels()


async def test_interactive_prompts_at_once():
    "The same with jupyter_client's way of answering, which names no parent"
    with FakeKernel(sequential=False) as fk:
        kc = await ready(fk)
        def hook(i):
            async def answer(msg):
                await asyncio.sleep(.01*(10-i))      # the first asked is answered last
                kc.input(f"answer{i} to {msg['content']['prompt']}")
            return answer
        outs = {i: [] for i in range(10)}
        runs = [kc.execute_interactive(f'fake: busy input=prompt{i} answer reply idle', allow_stdin=True, output_hook=outs[i].append, stdin_hook=hook(i)) for i in range(10)]
        await outcomes([asyncio.ensure_future(o) for o in runs])
        assert [''.join(m['content']['text'] for m in outs[i] if m['msg_type']=='stream') for i in range(10)]==[f'answer{i} to prompt{i}' for i in range(10)]
        kc.stop_channels()


# --- the key -------------------------------------------------------------------------------------------------------

def wire_messages(wire, kc, parent):
    "What an intruder would send a client as its kernel"
    return [wire.pack('execute_reply', dict(status='ok', execution_count=666), parent),
            wire.pack('stream', dict(name='stdout', text='forged'), parent),
            wire.pack('status', dict(execution_state='idle'), parent)]

async def test_client_without_the_key_gets_nothing():
    "Nothing is executed for it, and nothing read; its messages are dropped and counted"
    with FakeKernel() as fk:
        good = await ready(fk)
        bad = fk.client(ConKernelClient)
        bad.session.key = b'not the key'
        bad.start_channels()
        await asyncio.wait_for(_refused(bad), SOON)
        assert ask(good, 'x') and (await within(SOON, ask(good, 'y').wait()))[0].complete
        bad.connection.happened('answered')              # as if it had got in: it still can do nothing
        req = ask(bad, 'evil', timeout=.5)
        (e,), _ = await outcomes([req])
        assert type(e) is ReplyTimeout
        secret = ask(good, 'secret')
        await within(SOON, secret.wait())
        iopub = bad.router.mailboxes['iopub']
        await until(lambda: len(iopub)>=4)     # the outputs of others came; what nobody reads is not verified yet
        with pytest.raises(Empty): await bad.get_iopub_msg(timeout=.1)
        assert iopub.malformed>=4 and await bad.get_pubs(timeout=.1)==[]
        assert not req.iopub and 'evil' not in fk.codes and any('signature' in o[1] for o in fk.rejected)
        bad.stop_channels()
        good.stop_channels()

async def _refused(kc):
    with pytest.raises(RuntimeError, match='key'): await kc.wait_for_ready(timeout=.5)


async def test_real_kernel_executes_nothing_for_a_client_without_the_key(tmp_path):
    async with run_kernel() as (km, good):
        bad = ConKernelClient()
        bad.load_connection_file(km.connection_file)
        bad.session.key = b'not the key'
        bad.start_channels()
        bad.connection.happened('answered')
        mark = tmp_path/'mark'
        (e,), _ = await outcomes([ask(bad, f"open({str(mark)!r}, 'w')", timeout=.5)])
        assert type(e) is ReplyTimeout and not mark.exists()
        await as_good_as_new(good)
        assert not mark.exists()
        bad.stop_channels()


async def test_intruder_that_poses_as_the_kernel():
    "Forged replies, outputs and idles for a request in flight are dropped and counted; the kernel's own are taken"
    with FakeKernel(on={'execute_request': 'hold busy stream=true reply idle'}) as fk:
        kc = await ready(fk)
        req = ask(kc, 'x')
        await fk.until_held(1)
        asked = fk.received[-1]
        forged = wire_messages(Wire(b'a guess'), kc, asked.raw_header)+wire_messages(Wire(b''), kc, asked.raw_header)
        for o in forged:
            fk.raw('shell', o, to=asked)
            fk.raw('iopub', [b'stream', *o])
        fk.release()
        (done,_) = await within(SOON, req.wait())
        assert done.complete and text(req)=='true' and req.reply['content']['execution_count']==1
        assert kc.router.stats['malformed']==len(forged)*2
        kc.stop_channels()


async def test_replayed_messages_are_dropped():
    "Signed messages that are sent once more (an intruder who listens needs no key for that)"
    with FakeKernel(on={'execute_request': 'hold busy reply idle'}) as fk:
        kc = await ready(fk)
        req = ask(kc, 'x')
        await fk.until_held(1)
        asked = fk.received[-1]
        out = fk.wire.pack('stream', dict(name='stdout', text='once'), asked.raw_header)
        for _ in range(3): fk.raw('iopub', [b'stream', *out])
        fk.release()
        (done,_) = await within(SOON, req.wait())
        assert done.complete and text(req)=='once' and kc.router.stats['malformed']==2
        kc.stop_channels()
