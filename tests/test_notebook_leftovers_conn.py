"""What notebooks tested once and no longer show: the whole client on an event loop that cannot watch descriptors."""
import asyncio

import conkernelclient.transports.zmq as transport
from conkernelclient import ConKernelClient
from fake_kernel import FakeKernel
from fault_tools import *
from fault_tools import nothing_unheard, pytestmark

bound = 60


class Blind:
    "An event loop that cannot watch descriptors, as the default one of Windows"
    def __init__(self, loop): self.loop = loop
    def add_reader(self, fd, call): raise NotImplementedError
    def __getattr__(self, name): return getattr(self.loop, name)


async def test_a_loop_that_cannot_watch_descriptors(monkeypatch):
    "Small tasks poll instead: 200 replies, outputs, and closing leaves no task"
    class Polled(transport.Watch):
        def __init__(self, loop, *args): super().__init__(Blind(loop), *args)
    monkeypatch.setattr(transport, 'Watch', Polled)
    before = asyncio.all_tasks()
    with FakeKernel() as fk:
        kc = fk.client(ConKernelClient)
        kc.start_channels()
        await kc.wait_for_ready(timeout=SOON)
        replies = await asyncio.wait_for(asyncio.gather(*[kc.execute(str(i), reply=True) for i in range(200)]), SOON)
        assert len(replies)==200
        req = ask(kc, 'x')
        await asyncio.wait_for(req.wait(), SOON)
        assert req.complete and text(req)=='x'
        await at_rest(kc)
        kc.stop_channels()
        await until(lambda: asyncio.all_tasks()==before, what='the tasks to end')
