"""Rare ways to read and send, which the notebooks do not show."""
import asyncio, select, sys

import pytest, zmq, zmq.asyncio

from conkernelclient import run_kernel
from conkernelclient.channels import ConChannel
from conkernelclient.engine.session import ConSession
from conkernelclient.transports.zmq import Heartbeat

bound = 60
SOON = 30   # seconds: far more than anything here takes


class BlindLoop(asyncio.SelectorEventLoop):
    "Cannot watch a descriptor for us, as Windows' default loop cannot (pyzmq has its own way there)"
    def add_reader(self, fd, callback, *args):
        if callback.__module__.startswith('conkernelclient'): raise NotImplementedError
        return super().add_reader(fd, callback, *args)


@pytest.mark.skipif(sys.platform == 'win32', reason='its default loop is such a loop')
def test_an_event_loop_that_cannot_watch_descriptors():
    "Requests, outputs, a death and a restart; no task stays behind"
    async def use():
        before = asyncio.all_tasks()
        async with run_kernel() as (km, kc):
            replies = await asyncio.gather(*[kc.execute('', user_expressions=dict(i=str(i)), reply=True) for i in range(200)])
            assert [o['content']['user_expressions']['i']['data']['text/plain'] for o in replies] == [str(i) for i in range(200)]
            assert (await kc.run('print("out")')).stdout == 'out\n'
            run = kc.run('import time; time.sleep(100)')
            await km.restart_kernel(now=True)
            with pytest.raises(RuntimeError, match='restarted'): await run
            assert (await kc.run('6*7')).text == '42\n'
        for _ in range(10): await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before
    with asyncio.Runner(loop_factory=BlindLoop) as runner: runner.run(asyncio.wait_for(use(), bound))


async def test_session_send_on_a_socket_that_we_read(kc):
    "By somebody who does not know that we read it: the send takes the news of a reply away, and the reply is found all the same"
    for _ in range(20):
        req = kc.execute('1', reply=True)
        select.select([kc.shell_channel.socket.FD], [], [], SOON)   # the loop is blocked until something is there
        msg = kc.session.send(kc.shell_channel.socket, 'comm_info_request')
        assert (await asyncio.wait_for(req, SOON))['content']['status'] == 'ok'
        assert (await kc.get_shell_msg(timeout=SOON))['parent_header']['msg_id'] == msg['header']['msg_id']


async def test_a_heartbeat_that_is_silent_and_back():
    changes = asyncio.Queue()
    with zmq.Context() as context:
        kernel = context.socket(zmq.ROUTER)
        port = kernel.bind_to_random_port('tcp://127.0.0.1')
        hb = Heartbeat(zmq.asyncio.Context.shadow(context), None, ('127.0.0.1', port))
        hb.time_to_dead = .02
        hb.on_change = changes.put_nowait
        assert not hb.is_beating()   # it has not begun
        hb.start()
        assert await asyncio.wait_for(changes.get(), SOON) is False
        async def echo():
            while True:
                while kernel.poll(0): kernel.send_multipart(kernel.recv_multipart())
                await asyncio.sleep(.005)
        echoing = asyncio.ensure_future(echo())
        assert await asyncio.wait_for(changes.get(), SOON) is True
        assert hb.is_beating()
        echoing.cancel()
        hb.stop()
        kernel.close(linger=0)
    assert not hb.is_beating() and not hb.is_alive()


async def test_a_channel_without_a_client_sends_and_closes():
    "As jupyter_client's class can be used"
    with zmq.Context() as context:
        kernel = context.socket(zmq.ROUTER)
        port = kernel.bind_to_random_port('tcp://127.0.0.1')
        session = ConSession(key=b'secret')
        socket = zmq.asyncio.Context.shadow(context).socket(zmq.DEALER)
        socket.connect(f'tcp://127.0.0.1:{port}')
        channel = ConChannel(socket, session)
        assert channel.is_alive()
        channel.send(session.msg('comm_info_request'))
        _, frames = session.feed_identities(await asyncio.to_thread(kernel.recv_multipart))
        assert ConSession(key=b'secret').deserialize(frames)['msg_type'] == 'comm_info_request'
        channel.close()
        assert not channel.is_alive() and socket.closed
        kernel.close(linger=0)
