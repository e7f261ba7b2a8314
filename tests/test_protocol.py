"""The table of the protocol: each message type of the spec is in it, each call that it names exists, and sends what it says."""
import asyncio, importlib.util, json, re
from pathlib import Path

import pytest
from conkernelclient import ConKernelClient, ConKernelManager, Debugger, Request, Result, Run, Subshell
from fake_kernel import FakeKernel
from fault_tools import SOON, within

bound = 60
# As the messaging spec 5.5 lists them
SHELL = 'execute inspect complete history is_complete connect comm_info kernel_info'.split()
CONTROL = 'shutdown interrupt debug create_subshell delete_subshell list_subshell'.split()
IOPUB = ('iopub_welcome stream display_data update_display_data execute_input execute_result error status clear_output debug_event '
         'comm_open comm_msg comm_close').split()
STDIN = 'input_request input_reply'.split()
COMMS = 'comm_open comm_msg comm_close'.split()
PAGE = Path(__file__).parent.parent/'nbs'/'protocol.ipynb'


def tables():
    "By channel: the message types and the calls of each row"
    res = {}
    for cell in json.loads(PAGE.read_text(encoding='utf-8'))['cells']:
        head, *lines = ''.join(cell['source']).splitlines()
        rows = [tuple(re.findall('`([^`]+)`', o) for o in line.split('|')[1:3]) for line in lines if line.startswith('| `')]
        channel = next((o for o in ('shell', 'control', 'iopub', 'stdin') if o in head.split()), None)
        if rows: res[channel] = rows
    return res

def types(section): return [o for kinds, _ in tables()[section] for o in kinds]
def both(names): return [f'{o}_{end}' for o in names for end in ('request', 'reply')]


@pytest.mark.parametrize('section,wanted', [('shell', both(SHELL)+COMMS), ('control', both(CONTROL)), ('iopub', IOPUB), ('stdin', STDIN)])
def test_every_message_type_is_there_once(section, wanted):
    assert sorted(types(section))==sorted(wanted)


def test_every_call_exists():
    owners = dict(kc=ConKernelClient, run=Run, res=Result, dbg=Debugger, sh=Subshell, req=Request)
    if importlib.util.find_spec('conkernelclient.cells.comm') is not None: owners['comm'] = importlib.import_module('conkernelclient.cells.comm').Comm
    calls = [o for rows in tables().values() for _, calls in rows for o in calls]
    assert len(calls) > 50 and all(calls for rows in tables().values() for _, calls in rows)
    for o in calls:
        owner, _, name = o.partition('.')
        if 'comm' in o and 'comm' not in owners and o!='kc.comm_info': continue
        assert hasattr(owners[owner], name), o


async def debugged(kc):
    async with kc.debug(): pass

async def with_subshell(kc):
    async with kc.subshell() as sh: await sh.run('1')

SENT = dict(   # who speaks it, and the channel
    execute_request=(lambda kc: kc.run('1'), 'shell'), inspect_request=(lambda kc: kc.doc('a'), 'shell'),
    complete_request=(lambda kc: kc.completions('a'), 'shell'), history_request=(lambda kc: kc.history(reply=True), 'shell'),
    is_complete_request=(lambda kc: kc.is_complete('a', reply=True), 'shell'), comm_info_request=(lambda kc: kc.comm_info(reply=True), 'shell'),
    kernel_info_request=(lambda kc: kc.kernel_info(reply=True), 'shell'),
    connect_request=(lambda kc: kc.request('connect_request'), 'shell'),
    interrupt_request=(lambda kc: kc.interrupt(), 'control'), debug_request=(debugged, 'control'),
    create_subshell_request=(with_subshell, 'control'), delete_subshell_request=(with_subshell, 'control'),
    list_subshell_request=(lambda kc: kc.request('list_subshell_request', {}, 'control'), 'control'),
    shutdown_request=(lambda kc: kc.shutdown(reply=True), 'control'))


def test_all_requests_are_tried(): assert set(SENT)=={f'{o}_request' for o in SHELL+CONTROL}

@pytest.mark.parametrize('msg_type', SENT)
async def test_the_call_sends_it(msg_type):
    def info(k, msg):
        k.busy(msg)
        k.reply(msg, supported_features=['kernel subshells', 'debugger'])
        k.idle(msg)
    def dap(k, msg): k.reply(msg, success=True, command=msg['content']['command'], body=dict(isStarted=False))
    call, channel = SENT[msg_type]
    with FakeKernel(on=dict(kernel_info_request=info, debug_request=dap, connect_request='busy reply idle')) as fk:
        kc = fk.client(ConKernelClient)
        await kc.start_channels()
        try:
            before = len(fk.received)
            await within(SOON, call(kc))
            await fk.until(lambda: any(o.msg_type==msg_type and o.channel==channel for o in fk.received[before:]))
        finally: kc.stop_channels()
