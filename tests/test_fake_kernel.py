"""The scriptable kernel speaks the protocol: shown with jupyter_client's own clients, without this package.

Every wait is bounded. What must *not* come is shown by what comes after it: messages of one socket keep their
order, so when the answers to a later request are there, all that the kernel sent before has been seen.
"""
import asyncio, json, os, signal, socket, sys, threading
from contextlib import contextmanager
from pathlib import Path
from queue import Empty

import pytest, zmq
from jupyter_client import AsyncKernelClient, AsyncKernelManager, BlockingKernelClient

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import SPOILERS, FakeKernel, Wire, kernel_specs, words

SOON = 20  # seconds: far more than anything here takes


@contextmanager
def talk(fk, welcome=True):
    "A blocking client of `fk`, subscribed."
    kc, before = fk.client(BlockingKernelClient), fk.subscriptions
    kc.start_channels(hb=False)
    try:
        if welcome: assert kc.get_iopub_msg(timeout=SOON)['msg_type'] == 'iopub_welcome'
        else: fk.wait(lambda: fk.subscriptions > before, SOON)
        yield kc
    finally: kc.stop_channels()


def label(msg): return msg['content'].get('execution_state') or msg['msg_type']

def read_until(get, last):
    "The messages that `get` gives up to the one for which `last` is true; 'bad' for what jupyter_client refuses."
    got = []
    while True:
        try: got.append(get(timeout=SOON))
        except Empty: raise AssertionError(f'never came; before it came {got}') from None
        except Exception: got.append('bad')
        else:
            if last(got[-1]): return got[:-1]


def traffic(kc):
    "What has come on shell and on iopub, up to the answers to a kernel_info_request sent now."
    asked = kc.kernel_info()
    mine = lambda msg: isinstance(msg['parent_header'], dict) and msg['parent_header'].get('msg_id') == asked
    shell = read_until(kc.get_shell_msg, mine)
    iopub = read_until(kc.get_iopub_msg, lambda msg: mine(msg) and label(msg) == 'idle')
    return shell, [o for o in iopub if o == 'bad' or not mine(o)]


def labels(msgs): return [o if o == 'bad' else label(o) for o in msgs]

def dealer(fk, context, sndhwm=0, rcvhwm=0):
    sock = context.socket(zmq.DEALER)
    sock.linger, sock.sndhwm, sock.rcvhwm = 0, sndhwm, rcvhwm
    sock.connect(f"tcp://127.0.0.1:{fk.connection_info['shell_port']}")
    return sock


# --- good manners --------------------------------------------------------------------------------------------------

def test_manners():
    with FakeKernel() as fk:
        kc, outs = fk.client(BlockingKernelClient), []
        kc.start_channels()
        kc.wait_for_ready(timeout=SOON)
        reply = kc.execute_interactive('hello', timeout=SOON, output_hook=outs.append)
        assert reply['content'] == dict(status='ok', execution_count=1, user_expressions={}, payload=[])
        assert labels(outs) == ['busy', 'execute_input', 'stream', 'idle']
        assert outs[2]['content'] == dict(name='stdout', text='hello')
        assert kc.complete('pri', reply=True, timeout=SOON)['content']['matches'] == ['prix']
        kc.is_complete('1')
        assert kc.get_shell_msg(timeout=SOON)['content']['status'] == 'complete'
        assert kc.history(reply=True, timeout=SOON)['content']['history'] == []
        assert kc.inspect('x', reply=True, timeout=SOON)['content']['found'] is False
        assert kc.comm_info(reply=True, timeout=SOON)['content']['comms'] == {}
        assert kc.kernel_info(reply=True, timeout=SOON)['content']['supported_features'] == ['kernel subshells']
        assert kc.is_alive()
        assert kc.shutdown(reply=True, timeout=SOON)['content'] == dict(status='ok', restart=False)
        assert fk.ended.wait(SOON) and not fk.alive and fk.exit_code == 0
        kc.stop_channels()


@pytest.mark.asyncio
async def test_async_client():
    async with FakeKernel() as fk:
        kc = fk.client(AsyncKernelClient)
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        ids = [kc.execute(f'n{i}') for i in range(20)]
        await fk.until_received(20, SOON)
        assert fk.codes == [f'n{i}' for i in range(20)]
        replies = [await kc.get_shell_msg(timeout=SOON) for _ in ids]
        assert [o['parent_header']['msg_id'] for o in replies if o['msg_type'] == 'execute_reply'] == ids
        kc.stop_channels()


def test_received_and_counts():
    with FakeKernel() as fk, talk(fk) as kc:
        a, b = kc.execute('a'), kc.complete('b')
        fk.wait_received(1, SOON), fk.wait_received(2, SOON, msg_type=None)
        assert [(o.msg_id, o.msg_type, o.channel) for o in fk.received] == [
            (a, 'execute_request', 'shell'), (b, 'complete_request', 'shell')]
        assert fk.counts == dict(execute_request=1, complete_request=1) and fk.codes == ['a']


# --- scripts -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('script, shell, iopub', [
    ('busy stream reply', ['execute_reply'], ['busy', 'stream']),
    ('busy stream idle', [], ['busy', 'stream', 'idle']),
    ('idle reply busy', ['execute_reply'], ['idle', 'busy']),
    ('busy reply*2 idle*2', ['execute_reply'] * 2, ['busy', 'idle', 'idle']),
    ('busy sleep=0.01 display reply sleep=0.01 result idle', ['execute_reply'],
     ['busy', 'display_data', 'execute_result', 'idle']),
    ('', [], []),
    ('junk=26 reply', None, None),
])
def test_scripts(script, shell, iopub):
    with FakeKernel(on={'execute_request': script}) as fk, talk(fk) as kc:
        kc.execute('code')
        got = traffic(kc)
        if shell is None:
            assert [len(o) for o in got] == [27, 26] and all('bad' in o for o in got)
        else: assert (labels(got[0]), labels(got[1])) == (shell, iopub)


def test_a_request_brings_its_script():
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute("fake: stream='two words' reply")
        kc.execute('good')
        shell, iopub = traffic(kc)
        assert labels(shell) == ['execute_reply'] * 2
        assert labels(iopub) == ['stream', 'busy', 'execute_input', 'stream', 'idle']
        assert iopub[0]['content']['text'] == 'two words'


def test_words():
    assert words('reply:too_few=x*3') == [('reply', dict(mangle='too_few'), ('x',), 3)]
    for o in 'bussy', 'reply:nonsense', 'reply!':
        with pytest.raises(ValueError, match='no such word'): words(o)


def test_unknown_parent():
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute('fake: orphan')
        assert [o['parent_header']['msg_id'] for o in traffic(kc)[0]] == ['nobody']


REFUSED = set(SPOILERS) - {'no_parent', 'null_content', 'listed_parent'}  # these jupyter_client lets pass

@pytest.mark.parametrize('spoiler', sorted(SPOILERS))
def test_spoilers(spoiler):
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute(f'fake: stream:{spoiler} reply:{spoiler} reply')
        shell, iopub = traffic(kc)
        assert len(shell) == 2 and shell[1]['msg_type'] == 'execute_reply' and len(iopub) == 1
        assert (shell[0] == 'bad') == (iopub[0] == 'bad') == (spoiler in REFUSED)


def test_own_spoiler_and_raw_frames():
    def handler(k, msg):
        k.reply(msg, mangle=lambda wire, frames: [*frames, b'a buffer'])
        k.raw('shell', k.wire.pack('strange_reply', {'a': 1}, msg.raw_header), to=msg)
        k.reply(msg, buffers=[b'one', b'two'])
    with FakeKernel(on={'execute_request': handler}) as fk, talk(fk) as kc:
        kc.execute('x')
        a, b, c = traffic(kc)[0]
        assert bytes(a['buffers'][0]) == b'a buffer' and b['content'] == {'a': 1}
        assert [bytes(o) for o in c['buffers']] == [b'one', b'two']


def test_huge_frame():
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute('fake: huge=100 reply idle')
        shell, iopub = traffic(kc)
        assert len(iopub[0]['buffers'][0]) == 10**8 and labels(shell) == ['execute_reply']


# --- handlers that take time ---------------------------------------------------------------------------------------

def test_input_for_one_of_several():
    with FakeKernel() as fk, talk(fk) as kc:
        ids = [kc.execute(o, allow_stdin=True) for o in ('a', "fake: busy input='name? ' answer reply idle", 'c')]
        asked = kc.get_stdin_msg(timeout=SOON)
        assert asked['parent_header']['msg_id'] == ids[1] and asked['content']['prompt'] == 'name? '
        assert fk.got() <= 3
        kc.input('Ada')
        shell, iopub = traffic(kc)
        assert [o['parent_header']['msg_id'] for o in shell] == ids
        assert [o['content']['text'] for o in iopub if o['msg_type'] == 'stream'] == ['a', 'Ada', 'c']


def test_each_client_is_asked_and_answered():
    with FakeKernel(sequential=False) as fk, talk(fk) as one, talk(fk) as two:
        for kc, name in (one, 'one'), (two, 'two'): kc.execute(f'fake: input={name} answer reply', allow_stdin=True)
        for kc in (two, one): kc.input('for ' + kc.get_stdin_msg(timeout=SOON)['content']['prompt'])
        for kc in (one, two): assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'
        said = {o['content']['text'] for o in traffic(one)[1] if o['msg_type'] == 'stream'}
        assert said == {'for one', 'for two'}


def test_input_reply_that_names_its_prompt():
    with FakeKernel(sequential=False) as fk, talk(fk) as kc:
        for o in 'ab': kc.execute(f'fake: input={o} stream={o} answer reply', allow_stdin=True)
        asked = [kc.get_stdin_msg(timeout=SOON) for _ in 'ab']
        for o in reversed(asked):
            kc.stdin_channel.send(kc.session.msg('input_reply', dict(value=o['content']['prompt'].upper()), parent=o))
        for _ in 'ab': kc.get_shell_msg(timeout=SOON)
        said = [o['content']['text'] for o in traffic(kc)[1] if o['msg_type'] == 'stream']
        assert ''.join(said) == 'bBaA'


def test_generator_and_hold():
    def handler(k, msg):
        k.busy(msg)
        yield 0.01
        yield k.hold(msg)
        k.reply(msg, more='said')
        k.idle(msg)
    with FakeKernel(on={'execute_request': handler}) as fk, talk(fk) as kc:
        a, b = kc.execute('a'), kc.execute('b')
        fk.wait_held(1, SOON)
        fk.wait_received(2, SOON)
        assert [o.code for o in fk.held] == ['a']  # one shell, one at a time
        fk.release()
        fk.wait(lambda: [o.code for o in fk.held] == ['b'], SOON)
        fk.release([b])
        shell, iopub = traffic(kc)
        assert [o['parent_header']['msg_id'] for o in shell] == [a, b]
        assert shell[0]['content']['more'] == 'said' and labels(iopub) == ['busy', 'idle'] * 2


@pytest.mark.asyncio
async def test_ten_thousand_in_reverse_order():
    n = 10_000
    async with FakeKernel(on={'execute_request': 'hold reply'}, sequential=False) as fk:
        with zmq.Context() as context, dealer(fk, context) as sock:
            wire = Wire(fk.connection_info['key'].encode())
            for i in range(n): sock.send_multipart(wire.pack('execute_request', {'code': f'{i}'}))
            await fk.until_held(n, 60)
            assert fk.codes == [f'{i}' for i in range(n)]
            fk.release(reversed(fk.held))
            counts = []
            while len(counts) < n and sock.poll(SOON * 1000):
                counts.append(json.loads(sock.recv_multipart()[5])['execution_count'])
            assert counts == list(range(n, 0, -1))


def test_answers_from_the_test():
    with FakeKernel(on={'execute_request': ''}) as fk, talk(fk) as kc:
        ids = [kc.execute(o) for o in 'abc']
        fk.wait_received(3, SOON)
        for o in reversed(fk.received):
            fk.busy(o), fk.stream(o, f'late {o.code}'), fk.reply(o), fk.idle(o)
        replies = [kc.get_shell_msg(timeout=SOON) for _ in ids]
        assert [o['parent_header']['msg_id'] for o in replies] == ids[::-1]
        said = [o['content']['text'] for o in traffic(kc)[1] if o['msg_type'] == 'stream']
        assert said == ['late c', 'late b', 'late a']


def test_interrupt():
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute('fake: busy hold reply idle')
        fk.wait_held(1, SOON)
        kc.control_channel.send(kc.session.msg('interrupt_request', {}))
        assert kc.get_control_msg(timeout=SOON)['msg_type'] == 'interrupt_reply'
        assert kc.get_shell_msg(timeout=SOON)['content']['ename'] == 'KeyboardInterrupt'
        assert fk.held == []
        fk.interrupts = False
        kc.execute('fake: busy hold reply idle')
        fk.wait_held(1, SOON)
        kc.control_channel.send(kc.session.msg('interrupt_request', {}))
        assert kc.get_control_msg(timeout=SOON)['msg_type'] == 'interrupt_reply'
        fk.release()
        assert kc.get_shell_msg(timeout=SOON)['content']['status'] == 'ok'


def test_interrupt_that_is_caught():
    def handler(k, msg):
        try: yield k.hold(msg)
        except KeyboardInterrupt: k.reply(msg, caught=True)
    with FakeKernel(on={'execute_request': handler}) as fk, talk(fk) as kc:
        kc.execute('x')
        fk.wait_held(1, SOON)
        fk.interrupt()
        assert kc.get_shell_msg(timeout=SOON)['content']['caught']


@pytest.mark.parametrize('stop', [True, False])
def test_stop_on_error(stop):
    with FakeKernel() as fk, talk(fk) as kc:
        kc.execute('fake: busy hold error=Oops idle', stop_on_error=stop)
        for o in 'bcd': kc.execute(o)
        fk.wait_received(4, SOON)
        fk.release()
        shell, iopub = traffic(kc)
        assert shell[0]['content']['ename'] == 'Oops'
        assert [o['content']['status'] for o in shell] == ['error'] + ['aborted' if stop else 'ok'] * 3
        assert labels(iopub)[:3] == ['busy', 'error', 'idle']


# --- the kernel's state --------------------------------------------------------------------------------------------

def test_freeze_and_thaw():
    with FakeKernel() as fk, talk(fk) as kc:
        fk.freeze()
        kc.execute('a')
        with pytest.raises(Empty): kc.get_shell_msg(timeout=0.1)
        assert fk.codes == []
        fk.thaw()
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'
        kc.execute('fake: busy freeze=0.05 reply idle')
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply' and not fk.frozen
        kc.execute('fake: busy freeze reply idle')
        fk.wait(lambda: fk.frozen, SOON)
        fk.thaw()
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'


def test_posted_while_frozen():
    with FakeKernel(on={'execute_request': ''}) as fk, talk(fk) as kc:
        kc.execute('a')
        fk.wait_received(1, SOON)
        fk.freeze()
        fk.reply(fk.received[0])
        with pytest.raises(Empty): kc.get_shell_msg(timeout=0.1)
        fk.thaw()
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'


def test_frozen_at_start():
    with FakeKernel(frozen=True) as fk:
        kc = fk.client(BlockingKernelClient)
        kc.start_channels(hb=False)
        kc.kernel_info()
        with pytest.raises(Empty): kc.get_shell_msg(timeout=0.1)
        fk.thaw()
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'kernel_info_reply'
        kc.stop_channels()


def test_close_and_reopen_sockets():
    with FakeKernel() as fk, talk(fk) as kc:
        fk.close_sockets()
        fk.reopen_sockets()
        assert kc.get_iopub_msg(timeout=SOON)['msg_type'] == 'iopub_welcome'  # it came back by itself
        kc.execute('a')
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'
        kc.execute('fake: close reply sleep=0.05 open')
        read_until(kc.get_iopub_msg, lambda msg: label(msg) == 'iopub_welcome')
        assert fk.undelivered['shell'] == 1


def test_crash_and_start_again():
    with FakeKernel() as fk, talk(fk) as kc:
        ports = dict(fk.connection_info)
        kc.execute('fake: busy crash=7 reply idle')
        assert fk.ended.wait(SOON) and fk.exit_code == 7 and not fk.alive
        with pytest.raises(RuntimeError, match='ended'): fk.wait(lambda: False, SOON)
        fk.start()
        assert fk.connection_info == ports and fk.exit_code is None
        assert kc.get_iopub_msg(timeout=SOON)['msg_type'] in ('iopub_welcome', 'status')
        kc.execute('again')
        assert kc.get_shell_msg(timeout=SOON)['msg_type'] == 'execute_reply'
        fk.crash(9)
        assert fk.exit_code == 9 and not fk.alive


# --- features ------------------------------------------------------------------------------------------------------

def test_welcome():
    with FakeKernel() as fk, talk(fk), talk(fk): pass
    with FakeKernel(welcome='first') as fk, talk(fk), zmq.Context() as context, context.socket(zmq.SUB) as sock:
        sock.connect(f"tcp://127.0.0.1:{fk.connection_info['iopub_port']}")
        sock.subscribe(b'')
        assert not sock.poll(200) and fk.subscriptions == 1
    with FakeKernel(welcome=False) as fk, talk(fk, welcome=False) as kc:
        assert labels(traffic(kc)[1]) == []
        fk.say_welcome()
        assert kc.get_iopub_msg(timeout=SOON)['content'] == {'subscription': ''}
    with FakeKernel(welcome=0.05) as fk, talk(fk): pass


def test_protocol_5_0():
    with FakeKernel(protocol='5.0', subshells=False, welcome=False) as fk, talk(fk, welcome=False) as kc:
        info = kc.kernel_info(reply=True, timeout=SOON)
        assert info['content']['protocol_version'] == info['header']['version'] == '5.0'
        assert info['content']['supported_features'] == []


def control(kc, msg_type, **content): kc.control_channel.send(kc.session.msg(msg_type, content))

def test_no_subshells():
    with FakeKernel(subshells=False) as fk, talk(fk) as kc:
        control(kc, 'create_subshell_request')
        control(kc, 'kernel_info_request')
        assert kc.get_control_msg(timeout=SOON)['msg_type'] == 'kernel_info_reply'
        assert fk.counts['create_subshell_request'] == 1


def ask(kc, msg_type, **content):
    control(kc, msg_type, **content)
    return kc.get_control_msg(timeout=SOON)['content']

def execute_in(kc, subshell_id, code):
    msg = kc.session.msg('execute_request', {'code': code})
    msg['header']['subshell_id'] = subshell_id
    kc.shell_channel.send(msg)
    return msg['msg_id']


def test_subshells():
    with FakeKernel() as fk, talk(fk) as kc:
        a, b = (ask(kc, 'create_subshell_request')['subshell_id'] for _ in 'ab')
        assert ask(kc, 'list_subshell_request')['subshell_id'] == [a, b]
        kc.execute('fake: hold reply')
        fk.wait_held(1, SOON)  # the main shell is taken, the others are not
        ids = [execute_in(kc, o, 'fake: stream=1 hold stream=2 reply') for o in (a, a, b)]
        fk.wait_held(3, SOON)
        assert [o.msg_id for o in fk.held[1:]] == [ids[0], ids[2]]  # within a subshell one after another
        fk.release([ids[2], ids[0]])
        fk.wait(lambda: ids[1] in [o.msg_id for o in fk.held], SOON)
        assert ask(kc, 'delete_subshell_request', subshell_id=b) == {'status': 'ok'}
        assert ask(kc, 'delete_subshell_request', subshell_id=b)['status'] == 'error'
        fk.release()
        replies = [kc.get_shell_msg(timeout=SOON)['parent_header']['msg_id'] for _ in range(4)]
        assert replies[:2] == [ids[2], ids[0]]
        lost = execute_in(kc, 'nowhere', 'x')
        refused = kc.get_shell_msg(timeout=SOON)
        assert refused['parent_header']['msg_id'] == lost and refused['content']['ename'] == 'UnknownSubshellError'


def test_heartbeat():
    with FakeKernel() as fk, zmq.Context() as context:
        for beats in True, False:
            fk.heartbeat = beats
            with context.socket(zmq.REQ) as sock:
                sock.linger = 0
                sock.connect(f"tcp://127.0.0.1:{fk.connection_info['hb_port']}")
                sock.send(b'ping')
                assert bool(sock.poll(SOON * 1000 if beats else 100)) == beats


def test_replies_past_the_mark_are_lost():
    big = 'x' * 10**4
    with FakeKernel(on={'execute_request': lambda k, msg: k.reply(msg, big=big)}, hwm={'shell': 1000}) as fk:
        with zmq.Context() as context, dealer(fk, context, rcvhwm=10) as sock:
            wire = Wire(fk.connection_info['key'].encode())
            for i in range(5000): sock.send_multipart(wire.pack('execute_request', {'code': ''}))
            fk.wait_received(5000, 60)
            fk.wait(lambda: fk.undelivered['shell'] > 0, SOON)


def test_shell_that_is_not_read_fills_up():
    with FakeKernel(read_ahead=False, hwm={'shell': 10}) as fk:
        with zmq.Context() as context, dealer(fk, context, sndhwm=10) as sock:
            wire, sent = Wire(fk.connection_info['key'].encode()), 1
            sock.send_multipart(wire.pack('execute_request', {'code': 'fake: hold reply'}))
            fk.wait_held(1, SOON)
            while sock.poll(200, zmq.POLLOUT):
                sock.send_multipart(wire.pack('execute_request', {'code': 'x' * 10**5}))
                sent += 1
                assert sent < 10**4
            assert fk.got() == 1
            fk.release()
            fk.wait_received(sent, SOON)


# --- keys and transports -------------------------------------------------------------------------------------------

@pytest.mark.parametrize('how', [dict(transport='ipc'), dict(curve=True), dict(transport='ipc', curve=True)])
def test_transports(how):
    with FakeKernel(**how) as fk:
        kc = fk.client(BlockingKernelClient)
        kc.start_channels()
        kc.wait_for_ready(timeout=SOON)
        assert kc.execute('a', reply=True, timeout=SOON)['content']['status'] == 'ok'
        kc.stop_channels()


def test_wrong_curve_key():
    public, secret = (o.decode() for o in zmq.curve_keypair())
    with FakeKernel(curve=True, file_says=dict(curve_publickey=public, curve_secretkey=secret)) as fk:
        kc = fk.client(BlockingKernelClient)
        kc.start_channels(hb=False)
        kc.kernel_info()
        with pytest.raises(Empty): kc.get_shell_msg(timeout=0.3)
        assert fk.got(None) == 0 and fk.rejected == []  # nothing passed the handshake
        kc.stop_channels()


def test_wrong_key():
    with FakeKernel(file_says={'key': 'another'}) as fk:
        kc = fk.client(BlockingKernelClient)
        kc.start_channels(hb=False)
        kc.execute('secret')
        fk.wait(lambda: fk.rejected, SOON)
        assert fk.rejected == [('shell', 'wrong signature')] and fk.received == []
        with pytest.raises(ValueError, match='Invalid Signature'): kc.get_iopub_msg(timeout=SOON)
        kc.stop_channels()


def test_bad_messages_from_a_client_are_dropped():
    with FakeKernel() as fk, zmq.Context() as context, dealer(fk, context) as sock:
        wire = Wire(fk.connection_info['key'].encode())
        good = wire.pack('execute_request', {'code': 'good'})
        broken = SPOILERS['broken_json'](wire, wire.pack('execute_request', {}))
        for o in [b'x'], good[:3], broken, SPOILERS['bad_signature'](wire, good), good, good: sock.send_multipart(o)
        fk.wait(lambda: len(fk.rejected) == 5, SOON)
        assert [o for _, o in fk.rejected] == ['no delimiter', 'too few frames', 'broken JSON', 'wrong signature',
                                               'duplicate signature']
        assert fk.codes == ['good']


# --- the test's own mistakes, and the end --------------------------------------------------------------------------

def test_mistakes_come_out():
    def handler(k, msg): raise KeyError('a slip')
    with pytest.raises(KeyError, match='a slip'):
        with FakeKernel(on={'execute_request': handler}) as fk, talk(fk) as kc:
            kc.execute('x')
            fk.wait(lambda: fk.errors, SOON)
    with pytest.raises(ValueError, match='no such word'):
        with FakeKernel(on={'execute_request': 'busy bsy'}) as fk, talk(fk) as kc:
            kc.execute('x')
            fk.wait(lambda: fk.errors, SOON)
            assert kc.kernel_info(reply=True, timeout=SOON)  # it lives on


@pytest.mark.asyncio
async def test_waits_are_bounded():
    async with FakeKernel() as fk:
        with pytest.raises(TimeoutError, match='3 execute_request'): fk.wait_received(3, 0.01)
        with pytest.raises(TimeoutError, match='3 messages'): await fk.until_received(3, 0.01, msg_type=None)
        with pytest.raises(ZeroDivisionError): fk.wait(lambda: 1 / 0, SOON)
        waiting = asyncio.create_task(fk.until(lambda: False, SOON))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError): await waiting
        fk.wait(lambda: True, SOON)
        assert fk._waiters == []


def open_files(): return len(os.listdir('/proc/self/fd'))

@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='counts file descriptors in /proc')
def test_nothing_is_left():
    def cycle():
        with FakeKernel() as fk, talk(fk) as kc:
            kc.execute('fake: busy hold reply idle')
            fk.wait_held(1, SOON)
        return fk
    cycle()
    threads, files = threading.active_count(), open_files()
    for _ in range(20): fk = cycle()
    assert (threading.active_count(), open_files()) == (threads, files)
    assert not os.path.exists(fk.connection_file)
    for o in 'shell', 'iopub', 'stdin', 'control', 'hb':
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(('127.0.0.1', fk.connection_info[f'{o}_port']))


def test_connection_file(tmp_path):
    path = str(tmp_path / 'mine.json')
    with FakeKernel(connection_file=path, file_says={'kernel_name': 'liar'}) as fk:
        said = json.loads(Path(path).read_text())
        assert said == fk.connection_info and said['kernel_name'] == 'liar'
        assert Path(path).stat().st_mode & 0o77 == 0
    with FakeKernel(connection_file=path) as fk:  # a file that is there is obeyed
        assert {**fk.connection_info, 'kernel_name': 'liar'} == said
        with talk(fk) as kc: assert kc.kernel_info(reply=True, timeout=SOON)


# --- as a process --------------------------------------------------------------------------------------------------

async def started(tmp_path, behaviour='polite', manager={}, **options):
    specs = kernel_specs(tmp_path, behaviour=behaviour, **options)
    km = AsyncKernelManager(kernel_name='fake', kernel_spec_manager=specs, shutdown_wait_time=2, **manager)
    await km.start_kernel()
    kc = km.client()
    kc.start_channels()
    return km, kc

async def over(km, kc):
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

async def exit_code(km):
    return await asyncio.wait_for(km.provisioner.wait(), SOON)


@pytest.mark.asyncio
@pytest.mark.parametrize('manager', [{}, dict(transport='ipc'), dict(transport_encryption='required')])
async def test_process(tmp_path, manager, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where jupyter_client puts its IPC files
    km, kc = await started(tmp_path, manager=manager)
    await kc.wait_for_ready(timeout=SOON)
    msg_id = kc.execute('fake: busy sleep=100 reply idle')
    await asyncio.wait_for(busy(kc, msg_id), SOON)
    await km.interrupt_kernel()
    assert (await kc.get_shell_msg(timeout=SOON))['content']['ename'] == 'KeyboardInterrupt'
    kc.shutdown()
    assert await exit_code(km) == 0
    await over(km, kc)

async def busy(kc, msg_id):
    while True:
        msg = await kc.get_iopub_msg(timeout=SOON)
        if msg['parent_header'].get('msg_id') == msg_id and label(msg) == 'busy': return


@pytest.mark.asyncio
async def test_process_that_crashes(tmp_path):
    km, kc = await started(tmp_path, on={'complete_request': 'crash=5'})
    await kc.wait_for_ready(timeout=SOON)
    kc.complete('x')
    assert await exit_code(km) == 5
    await over(km, kc)


@pytest.mark.asyncio
@pytest.mark.parametrize('behaviour, code', [('dies', 3), ('dies_when_asked', 4)])
async def test_process_that_dies_at_start(tmp_path, behaviour, code):
    km, kc = await started(tmp_path, behaviour)
    kc.kernel_info()
    assert await exit_code(km) == code
    await over(km, kc)


@pytest.mark.asyncio
@pytest.mark.parametrize('behaviour', ['silent', 'deaf', 'wrong_key'])
async def test_process_that_never_answers(tmp_path, behaviour):
    km, kc = await started(tmp_path, behaviour)
    kc.kernel_info()
    with pytest.raises(Empty): await kc.get_shell_msg(timeout=0.5)
    assert await km.is_alive()
    await over(km, kc)
    assert not await km.is_alive()


@pytest.mark.asyncio
async def test_immortal_process(tmp_path):
    km, kc = await started(tmp_path, 'immortal')
    await kc.wait_for_ready(timeout=SOON)
    msg_id = kc.execute('fake: busy sleep=0.2 reply idle')
    await asyncio.wait_for(busy(kc, msg_id), SOON)
    await km.interrupt_kernel()
    await km.signal_kernel(signal.SIGTERM)
    assert (await kc.get_shell_msg(timeout=SOON))['content']['status'] == 'ok'
    kc.shutdown()
    assert (await kc.get_control_msg(timeout=SOON))['msg_type'] == 'shutdown_reply'
    kc.execute('still here')
    assert (await kc.get_shell_msg(timeout=SOON))['content']['status'] == 'ok'
    await over(km, kc)
