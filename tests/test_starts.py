"""What a start, an idle kernel and its end cost and leave behind: the shared context, ports that are taken, the end of the process."""
import asyncio, gc, os, signal, socket, subprocess, sys, textwrap, threading
from contextlib import suppress
from pathlib import Path

import pytest, zmq, zmq.asyncio
from jupyter_client.ioloop.manager import AsyncIOLoopKernelManager
from jupyter_client.manager import AsyncKernelManager
from conkernelclient import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, DeadKernelError, run_kernel
from conkernelclient.channels import ConChannel
from conkernelclient.transports.ports import KeptPorts, is_taken, port_range
from conkernelclient.transports.sockets import ContextView
from fake_kernel import FakeKernel, kernel_specs
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 90


def program(code, seconds=60):
    "Run `code` in a process of its own: gives what it printed; fails when it fails or hangs"
    here = Path(__file__).parent
    env = os.environ|dict(PYTHONPATH=os.pathsep.join([str(here.parent), str(here)]))
    res = subprocess.run([sys.executable, '-W', 'error', '-c', textwrap.dedent(code)], capture_output=True, text=True, timeout=seconds, env=env)
    assert res.returncode==0, res.stdout+res.stderr
    return res.stdout

def fake_manager(folder, behaviour='polite', cls=ConKernelManager, **options):
    return cls(kernel_name='fake', kernel_spec_manager=kernel_specs(folder, behaviour=behaviour, **options))

async def ready(km):
    kc = km.client()
    kc.start_channels()
    await kc.wait_for_ready(timeout=SOON)
    return kc

async def runs(kc): assert (await asyncio.wait_for(kc.run('x'), SOON)).text=='x'


# --- one context --------------------------------------------------------------------------------------------------------

async def test_clients_and_managers_share_a_context(tmp_path):
    "No threads come with a further client; that one is closed, dropped or garbage means nothing to the others"
    km = fake_manager(tmp_path)
    await km.start_kernel()
    kc = await ready(km)
    threads = threading.active_count(), len(os.listdir('/proc/self/task'))
    others = [await ready(km) for _ in range(5)]
    assert (threading.active_count(), len(os.listdir('/proc/self/task')))==threads
    assert {o.context.underlying for o in (km, kc, *others)}=={ContextView().underlying}
    others.pop().stop_channels()
    others.pop()
    gc.collect()
    await asyncio.sleep(0)
    await runs(kc)
    for o in others: await runs(o)
    other = await ready(km)
    other.context.destroy()     # a user may think that it is theirs
    other.stop_channels()
    await runs(kc)
    await km.shutdown_kernel()
    assert km.context.closed
    with FakeKernel() as fk:
        other = fk.client(ConKernelClient)
        await other.start_channels()
        await runs(other)
        other.stop_channels()
    for o in (kc, *others): o.stop_channels()

async def test_a_context_that_is_given_is_used_and_never_closed(tmp_path):
    context = zmq.asyncio.Context()
    km = ConKernelManager(kernel_name='fake', kernel_spec_manager=kernel_specs(tmp_path), context=context)
    await km.start_kernel()
    kc = km.client(context=context)
    await kc.start_channels()
    assert kc.context is km.context is context
    await runs(kc)
    kc.stop_channels()
    await km.shutdown_kernel()
    assert not context.closed
    dropped = km.client(context=context)
    dropped.start_channels()
    del dropped, kc, km
    gc.collect()
    await asyncio.sleep(0)
    assert not context.closed
    await asyncio.wait_for(asyncio.to_thread(context.term), SOON)   # no socket is open

@pytest.mark.parametrize('end', ['stopped', 'dropped', 'open', 'open in another thread', 'loop closed'])
def test_python_ends(end):
    "Whatever is open: the program ends, and says nothing"
    said = program(f'''
        import asyncio, threading
        from conkernelclient import ConKernelClient
        from fake_kernel import FakeKernel
        end, kept = {end!r}, []
        async def main():
            kc = fk.client(ConKernelClient)
            await kc.start_channels()
            await kc.run('x')
            if end=='stopped': kc.stop_channels()
            elif end!='dropped': kept.append(kc)
        def begin(): asyncio.run(main())
        fk = FakeKernel().start()
        if end=='open in another thread':
            t = threading.Thread(target=begin)
            t.start()
            t.join()
        else: begin()
        if end=='loop closed': kept.pop().stop_channels()
        fk.close()
        print('end', flush=True)
        ''', seconds=30)
    assert said=='end\n'

def test_a_forked_child_has_a_context_of_its_own():
    "It talks to the kernel, and neither that nor its end is noticed in the parent"
    said = program('''
        import asyncio, os, warnings
        from conkernelclient import ConKernelClient
        from conkernelclient.transports.sockets import ContextView
        from fake_kernel import FakeKernel
        warnings.simplefilter('ignore')     # (Python 3.12: a fork in a process with threads)
        async def talk(fk):
            kc = fk.client(ConKernelClient)
            await kc.start_channels()
            return kc
        def child(fk, context):
            assert ContextView().underlying!=context.underlying
            async def use():
                kc = await talk(fk)
                assert (await kc.run('x')).text=='x'
                kc.stop_channels()
            asyncio.run(asyncio.wait_for(use(), 20))
        async def main():
            with FakeKernel() as fk:
                kc = await talk(fk)
                context = kc.context
                pid = os.fork()
                if not pid:
                    code = 1
                    try:
                        asyncio._set_running_loop(None)
                        child(fk, context)
                        code = 0
                    finally: os._exit(code)
                while not (done := os.waitpid(pid, os.WNOHANG))[0]: await asyncio.sleep(.02)
                assert kc.context is context and not context.closed
                print(os.waitstatus_to_exitcode(done[1]), (await kc.run('x')).text)
                kc.stop_channels()
        asyncio.run(main())
        ''')
    assert said=='0 x\n'

def test_more_clients_than_a_context_usually_allows():
    "A context refuses the 1,024th socket by default; ours has 65,535"
    sockets = ContextView().get(zmq.MAX_SOCKETS)
    assert sockets>=60_000

async def test_a_channel_that_was_used_before_the_start_is_closed_too():
    with FakeKernel() as fk:
        context = zmq.asyncio.Context()
        kc = fk.client(ConKernelClient, context=context)
        assert kc.shell_channel.socket is not None
        kc.stop_channels()
        await asyncio.wait_for(asyncio.to_thread(context.term), SOON)


# --- a port that is taken --------------------------------------------------------------------------------------------------

class Robbed(ConKernelManager):
    "Somebody takes the port of its kernel's shell before each of the first `times` launches"
    times = 1
    launches = 0
    thieves: list
    async def _async_launch_kernel(self, *args, **kwargs):
        self.launches += 1
        if self.launches<=self.times:
            self.thieves = [*getattr(self, 'thieves', ()), socket.create_server(('127.0.0.1', self.shell_port))]
        await super()._async_launch_kernel(*args, **kwargs)
    def free(self):
        for o in getattr(self, 'thieves', ()): o.close()

async def test_a_taken_port_is_noticed_by_any_client(tmp_path):
    "Two clients, one of them opened only later: both reach the second kernel"
    km = fake_manager(tmp_path, cls=Robbed)
    await km.start_kernel()
    ports, seen = km.ports, []
    early, late = km.client(), km.client()
    early.on_status(seen.append)
    early.start_channels()
    await early.wait_for_ready(timeout=SOON)
    await runs(early)
    await late.start_channels()
    await runs(late)
    assert km.launches==2 and not set(ports)&set(km.ports) and Path(km.connection_file).exists()
    assert 'dead' not in seen
    for o in early, late: o.stop_channels()
    await km.shutdown_kernel()
    assert not Path(km.connection_file).exists()
    km.free()

async def test_a_port_that_is_taken_at_a_restart(tmp_path):
    km = fake_manager(tmp_path, cls=Robbed)
    km.times = 0
    await km.start_kernel()
    kc = await ready(km)
    await runs(kc)
    km.times = 2
    await km.restart_kernel(now=True)
    await kc.wait_for_ready(timeout=SOON)
    await runs(kc)
    assert km.launches==3
    kc.stop_channels()
    await km.shutdown_kernel()
    km.free()

async def test_a_third_start_is_left_to_the_caller(tmp_path):
    km = fake_manager(tmp_path, cls=Robbed)
    km.times = 2
    await km.start_kernel()
    kc = km.client()
    with pytest.raises(DeadKernelError, match=r'port \d+ is taken'): await asyncio.wait_for(kc.start_channels(), SOON)
    assert km.launches==2
    await km.restart_kernel()   # the port is the affair of the caller now
    km.free()
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

@pytest.mark.parametrize('pauses', [(.02,), pytest.param((0, .001, .05, .1, .2, .4), marks=pytest.mark.slow)], ids=['one', 'many'])
async def test_a_shutdown_while_it_is_started_again(tmp_path, pauses):
    "Nothing is left, however the two meet (the pauses decide where they meet, and none of these is wrong)"
    for pause in pauses:
        km = fake_manager(tmp_path, cls=Robbed)
        await km.start_kernel()
        kc = km.client()
        kc.start_channels()
        waiting = asyncio.ensure_future(kc.wait_for_ready(timeout=SOON))
        await until(lambda: km.launches==2 or km._again is not None)
        await asyncio.sleep(pause)
        await asyncio.wait_for(km.shutdown_kernel(now=True), SOON)
        assert not km.has_kernel and not km.restarting
        kc.stop_channels()
        with suppress(RuntimeError): await asyncio.wait_for(waiting, SOON)
        km.free()
        assert not km.has_kernel

async def test_a_kernel_that_has_answered_is_not_started_again(tmp_path):
    "It dies, and a listener takes its port: that is a death, and its variables are gone"
    km = fake_manager(tmp_path, cls=Robbed)
    km.times = 0
    await km.start_kernel()
    kc = await ready(km)
    await km.provisioner.kill()
    await kc.wait_for_status('dead', timeout=SOON)
    assert km.launches==1
    kc.stop_channels()
    await km.shutdown_kernel(now=True)


# --- the heartbeat rests -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('ip, every', [('127.0.0.1', 5), ('192.0.2.1', 1)])
async def test_the_heartbeat_of_a_near_kernel_rests(ip, every):
    kc = ConKernelClient(ip=ip, shell_port=1, iopub_port=2, stdin_port=3, hb_port=4, control_port=5)
    kc.start_channels()
    assert kc.hb_channel.every==every
    kc.stop_channels()

async def test_a_resting_heartbeat_asks_when_the_connection_breaks():
    "`is_alive` of a client whose kernel is not ours goes by it"
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.hb_channel.time_to_dead = .05
        kc.start_channels()
        await asyncio.wait_for(kc.wait_for_ready(), SOON)
        kc.hb_channel.every = 1_000_000
        await until(lambda: kc.hb_channel._rests)
        assert await kc.is_alive()
        fk.close_sockets()
        await until(lambda: not kc.hb_channel.is_beating())
        assert not await kc.is_alive()
        kc.stop_channels()


# --- the control channel connects late -------------------------------------------------------------------------------------

async def asked(kc): return (await asyncio.wait_for(kc.kernel_info(reply=True, channel='control'), SOON))['content']['status']

async def test_the_control_channel_connects_when_it_is_used():
    "It is open for all that ask; two descriptors less, until the first message that goes there"
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        await asyncio.wait_for(kc.wait_for_ready(), SOON)
        channel = kc.control_channel
        assert channel.is_alive() and kc.channels_running and channel.socket is None
        assert not await channel.msg_ready() and kc.connection.transport.channels['control'].late
        posted = kc.kernel_info(channel='control')
        assert (await channel.get_msg(timeout=SOON))['parent_header']['msg_id']==posted
        assert await asked(kc)=='ok' and channel is kc.control_channel and not channel.socket.closed
        kc.stop_channels()
        assert not channel.is_alive() and channel.socket is None

async def test_the_control_channel_of_a_restarted_kernel(tmp_path):
    "Used before a restart on other ports, after it, or both"
    km = fake_manager(tmp_path)
    await km.start_kernel()
    used, unused = await ready(km), await ready(km)
    assert await asked(used)=='ok'
    await km.restart_kernel(newports=True)
    for kc in used, unused:
        await kc.wait_for_ready(timeout=SOON)
        assert await asked(kc)=='ok'
        kc.stop_channels()
    await km.shutdown_kernel()

async def test_a_control_channel_that_was_closed_or_never_started():
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        await asyncio.wait_for(kc.wait_for_ready(), SOON)
        kc.control_channel.close()
        with pytest.raises(RuntimeError, match='control channel is closed'): await asked(kc)
        kc.stop_channels()
        kc = fk.client(ConKernelClient)
        kc.start_channels(control=False)
        with pytest.raises(RuntimeError, match='not started'): await asked(kc)
        kc.stop_channels()

async def test_a_control_channel_of_another_kind_is_made_with_its_socket():
    "So is one that was used before the start"
    class Own(ConChannel):
        def __init__(self, socket, *args):
            assert socket is not None
            super().__init__(socket, *args)
    with FakeKernel() as fk:
        for kc, use in (fk.client(ConKernelClient, control_channel_class=Own), lambda: None), (fk.client(ConKernelClient), lambda: kc.control_channel):
            use()
            kc.start_channels()
            assert kc.control_channel.socket is not None and not kc.connection.transport.channels['control'].late
            await asyncio.wait_for(kc.wait_for_ready(), SOON)
            assert await asked(kc)=='ok'
            kc.stop_channels()

LIMITED = """
import asyncio, os, resource
from conkernelclient import run_kernel, TooManyOpenFiles
async def main():
    async with run_kernel() as (km, kc):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        hoard = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hoard[-1]+1, hard))
        hoard += [os.dup(o) for o in range(hoard[-1]) if not os.path.exists(f'/proc/self/fd/{o}')]   # (none is free below)
        try: kc.kernel_info(reply=True, channel='control')
        except TooManyOpenFiles as e: print('raised', e.errno)
        print((await kc.run('1+1')).text)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print((await kc.kernel_info(reply=True, channel='control', timeout=30))['content']['status'])
asyncio.run(main())
"""

@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='Linux')
def test_no_descriptor_left_for_the_control_channel():
    "The call says so, the client goes on, and the next call connects"
    assert program(LIMITED).split()==['raised', '24', '2', 'ok']


# --- no naps -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('cls, naps', [(ConKernelManager, 0), (ConIOLoopKernelManager, 0), (AsyncKernelManager, 4)])
async def test_starts_and_shutdowns_do_not_sleep(tmp_path, monkeypatch, cls, naps):
    "jupyter_client's wrapper does, after each of the four; *pending* is over when they return, here as there"
    slept, sleep = [], asyncio.sleep
    monkeypatch.setattr(asyncio, 'sleep', lambda delay, *args: (slept.append(delay), sleep(delay, *args))[1])
    km = fake_manager(tmp_path, cls=cls)
    pending = []
    for step in km.start_kernel, km.restart_kernel, km.shutdown_kernel:
        await step()
        assert km.ready.done() and km.ready.exception() is None
        pending.append(km.ready)
    assert len(set(map(id, pending)))==3 and slept.count(.01)==naps

async def test_a_start_that_fails_is_no_longer_pending(tmp_path, monkeypatch):
    km = fake_manager(tmp_path)
    async def fails(*args, **kwargs): raise OSError('no process')
    monkeypatch.setattr(ConKernelManager, '_async_launch_kernel', fails)
    monkeypatch.setattr(ConKernelManager, '_launch_kernel', fails)
    with pytest.raises(OSError, match='no process'): await km.start_kernel()
    assert isinstance(km.ready.exception(), OSError)

async def test_a_mixed_in_start_is_called(tmp_path):
    "As a server's manager has one"
    steps = []
    class Server(AsyncIOLoopKernelManager):
        async def start_kernel(self, **kwargs):
            steps.append('start')
            await super().start_kernel(**kwargs)
        async def shutdown_kernel(self, now=False, restart=False):
            steps.append('shutdown')
            await super().shutdown_kernel(now=now, restart=restart)
    class Both(ConKernelManager, Server): pass
    km = fake_manager(tmp_path, cls=Both)
    await km.start_kernel()
    kc = await ready(km)
    await runs(kc)
    kc.stop_channels()
    await km.shutdown_kernel()
    assert steps==['start', 'shutdown']


# --- the end of the process ------------------------------------------------------------------------------------------------

FORKS = '''
import os, time
if not os.fork():      # it has the kernel's connections, and lives on
    for o in range(600): time.sleep(.1)
    os._exit(0)
'''

@pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='Linux')
async def test_a_death_is_told_though_the_connection_lives_on():
    "A process that the kernel has forked holds its sockets, so nothing breaks; no heartbeat is waited for"
    async with run_kernel() as (km, kc):
        kc.hb_channel.time_to_dead = 1000
        await asyncio.wait_for(kc.run(FORKS, ), SOON)
        pending = kc.run('import time; time.sleep(1000)')
        await until(lambda: pending.state=='running')
        os.kill(km.provisioner.pid, signal.SIGKILL)
        with pytest.raises(DeadKernelError, match='-9'): await asyncio.wait_for(pending, SOON)
        with suppress(OSError): os.killpg(km.provisioner.pgid, signal.SIGKILL)

@pytest.mark.parametrize('how', ['killed', 'shut down'])
async def test_a_dead_kernel_is_not_asked_to_shut_down(tmp_path, how):
    "ZMQ would keep the request for the next kernel on that port, which would end"
    km, sent = fake_manager(tmp_path), []
    await km.start_kernel()
    kc = await ready(km)
    km.session.digest_history_size, send = 0, km.session.send
    km.session.send = lambda stream, msg, *args, **kwargs: (sent.append(msg['header']['msg_type']), send(stream, msg, *args, **kwargs))[1]
    for i in range(5):
        sent.clear()
        if how=='killed': await km.provisioner.kill()
        else: await km.shutdown_kernel()
        sent.clear()
        await kc.wait_for_status('dead', timeout=SOON)
        await km.restart_kernel()
        await kc.wait_for_ready(timeout=SOON)
        await runs(kc)
        assert not sent
    kc.stop_channels()
    await km.shutdown_kernel()
    assert 'shutdown_request' in sent

async def test_the_end_is_not_asked_for_again_and_again(tmp_path):
    km = fake_manager(tmp_path)
    await km.start_kernel()
    asked, is_alive = [], km._async_is_alive
    async def count():
        asked.append(1)
        return await is_alive()
    km._async_is_alive = count
    await km.shutdown_kernel()
    figure('questions until the end', len(asked))
    assert len(asked)<8 or not hasattr(os, 'pidfd_open')

async def test_where_there_is_no_pidfd(tmp_path, monkeypatch):
    "As ever, by asking"
    def nothing(pid): raise OSError('no such call')
    monkeypatch.setattr(os, 'pidfd_open', nothing, raising=False)
    km = fake_manager(tmp_path)
    await km.start_kernel()
    kc = await ready(km)
    await km.restart_kernel()
    await kc.wait_for_ready(timeout=SOON)
    kc.stop_channels()
    await asyncio.wait_for(km.shutdown_kernel(), SOON)
    assert not km.has_kernel

async def test_a_manager_that_is_dropped_leaves_no_descriptor(tmp_path):
    "The watch on the process holds neither the manager nor the descriptor"
    km = fake_manager(tmp_path)
    await km.start_kernel()
    await km.shutdown_kernel()
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(3):
        km = fake_manager(tmp_path)
        await km.start_kernel()
        process = km.provisioner.process
        for _ in range(2): await km.restart_kernel(now=True)
        process = km.provisioner.process
        del km
        gc.collect()
        await asyncio.sleep(0)
        process.kill()
        await asyncio.to_thread(process.wait)
    gc.collect()
    await until(lambda: len(os.listdir('/proc/self/fd'))<=before)


# --- a start that fails ----------------------------------------------------------------------------------------------------

async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path):
    "At each turn of the loop; the same manager can start a kernel afterwards"
    turns, done = 0, False
    km = fake_manager(tmp_path)
    while not done:
        task = asyncio.ensure_future(km.start_kernel())
        for _ in range(turns): await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError): await asyncio.wait_for(task, SOON)
        if not done: assert not km.has_kernel and not (km.connection_file and Path(km.connection_file).exists()), turns
        turns += 1
        if turns>40: break     # (it sleeps in real time at its end)
    if not done: await km.start_kernel()
    kc = await ready(km)
    await runs(kc)
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

async def test_a_manager_whose_start_failed_starts(tmp_path):
    class Fails(ConKernelManager):
        fails = True
        def _connect_control_socket(self):
            if self.fails: raise RuntimeError('as told')
            super()._connect_control_socket()
    km = fake_manager(tmp_path, cls=Fails)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='as told'): await km.start_kernel()
        assert not km.has_kernel and not Path(km.connection_file).exists()
    km.fails = False
    await km.start_kernel()
    kc = await ready(km)
    km.fails = True
    with pytest.raises(RuntimeError, match='as told'): await km.restart_kernel(now=True)
    assert not km.has_kernel and kc.status=='dead'
    km.fails = False
    await km.restart_kernel()
    await kc.wait_for_ready(timeout=SOON)
    await runs(kc)
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

# --- the ports of a kernel ------------------------------------------------------------------------------------------

async def test_nobody_gets_the_ports_of_a_kernel_by_chance(tmp_path):
    "The system hands out ports of its own range, to connections and to `bind(0)`; a kernel's are elsewhere, also after a restart"
    km = fake_manager(tmp_path)
    seen = []
    await km.start_kernel()
    kc = await ready(km)
    for newports in False, True, True:
        seen.append(km.ports)
        await km.restart_kernel(now=True, newports=newports)
        await kc.wait_for_ready(timeout=SOON)
        await runs(kc)
    seen.append(km.ports)
    assert seen[0]==seen[1] and len({tuple(o) for o in seen})==3
    lowest = 49152
    if sys.platform=='linux': lowest = int(Path('/proc/sys/net/ipv4/ip_local_port_range').read_text().split()[0])
    assert all(0<o<lowest for ports in seen for o in ports) or lowest<=12000
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

@pytest.mark.parametrize('system, ours', [('32768\t60999\n', (20000, 30000)), ('15000 60000', (13000, 15000)), ('1024 60999', (61000, 65536)),
                                          ('1024 65535', (1024, 65536)), ('', (20000, 30000)), (None, (20000, 30000))])
def test_the_range_of_ports(system, ours, monkeypatch):
    def read_text(path):
        if system is None: raise FileNotFoundError(path)
        return system
    monkeypatch.setattr(Path, 'read_text', read_text)
    assert port_range()==ours

async def test_a_port_that_was_asked_for_is_kept(tmp_path):
    km = fake_manager(tmp_path)
    kept = KeptPorts()
    km.shell_port = kept.choose(km.ip)
    wanted = km.shell_port
    await km.start_kernel()
    kc = await ready(km)
    await km.restart_kernel(now=True, newports=True)
    await kc.wait_for_ready(timeout=SOON)
    assert km.shell_port==wanted
    kc.stop_channels()
    await km.shutdown_kernel(now=True)

def test_no_free_port(monkeypatch):
    monkeypatch.setattr('conkernelclient.transports.ports._alone', lambda ip, port: None)
    with pytest.raises(OSError, match='no free port'): KeptPorts().choose('127.0.0.1')

@pytest.mark.skipif(sys.platform!='linux', reason='Linux')
async def test_ports_are_kept_until_the_kernel_has_them(tmp_path):
    "No program, and no other manager, gets one between the choice and the kernel's bind; then they are given back"
    km = fake_manager(tmp_path)
    km.write_connection_file()
    for port in km.ports:
        with socket.socket() as other, pytest.raises(OSError, match='in use'): other.bind((km.ip, port))
    before = fds()
    await km.start_kernel()
    kc = await ready(km)
    await runs(kc)
    assert not km._kept and all(is_taken(km.ip, o) for o in km.ports)
    kc.stop_channels()
    await km.shutdown_kernel(now=True)
    assert fds()<=before-5
    dropped = fake_manager(tmp_path)
    dropped.write_connection_file()
    ports, ip = dropped.ports, dropped.ip
    dropped.cleanup_connection_file()
    del dropped
    for port in ports:
        with socket.socket() as other: other.bind((ip, port))
