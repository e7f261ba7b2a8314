"""Wrong uses: behind each stands what mypy (its error code) and pyright (its rule) say of it. `test_typing.py` checks that
they say exactly that. The file is never run.
"""
from conkernelclient import (ConKernelClient, ConKernelManager, DeadKernelError, Event, Job, Kernel, Message, Request, Result, Run, Subshell, open_kernel,
                             run_kernel)


async def forgotten(kc: ConKernelClient, sh: Subshell, km: ConKernelManager) -> None:
    "An `await` too few, one too many, or the wrong kind of block"
    kc.run('1').stdout   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    kc.start_channels().run('1')   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    kc.execute('1', reply=True)['content']   # mypy: index; pyright: reportIndexIssue
    sh.execute('1', reply=True)['content']   # mypy: index; pyright: reportIndexIssue
    await sh.complete('pri')   # mypy: misc; pyright: reportGeneralTypeIssues
    await kc.execute('1')   # mypy: misc; pyright: reportGeneralTypeIssues
    await kc.status   # mypy: misc; pyright: reportGeneralTypeIssues
    for out in kc.run('1'): print(out)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    for msg in kc.request('kernel_info_request'): print(msg)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    with kc.subshell() as sh: print(sh)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    with run_kernel() as both: print(both)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    kc.map(['1'])[0]   # mypy: index; pyright: reportIndexIssue
    km.client().execute_interactive('1')['content']   # mypy: index; pyright: reportIndexIssue


async def not_open(k: Kernel, job: Job) -> None:
    "What is not open yet, and the other face"
    open_kernel().run('1')   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    await open_kernel().start()   # mypy: misc; pyright: reportGeneralTypeIssues
    async with open_kernel() as kc: print(kc.start('1'))   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    with open_kernel() as other: await other.run('1')   # mypy: misc; pyright: reportGeneralTypeIssues
    open_kernel(cwd=1)   # mypy: arg-type; pyright: reportArgumentType
    open_kernel('python3', None)   # mypy: call-arg; pyright: reportCallIssue
    await k.run('1')   # mypy: misc; pyright: reportGeneralTypeIssues
    async for out in job: print(out)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    k.run('1', timeout='5')   # mypy: arg-type; pyright: reportArgumentType
    k.run(1)   # mypy: arg-type; pyright: reportArgumentType
    k.start('1').text   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    async with k.subshell() as sh: print(sh)   # mypy: attr-defined; pyright: reportGeneralTypeIssues
    k.status = 'ready'   # mypy: misc; pyright: reportAttributeAccessIssue


async def misspelt(kc: ConKernelClient, res: Result, event: Event, error: DeadKernelError) -> None:
    "Names that are not there"
    kc.runs_('1')   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    await kc.run('1', time_limit=5)   # mypy: call-arg; pyright: reportCallIssue
    await kc.execute('1', reply=True, time_out=5)   # mypy: call-overload; pyright: reportCallIssue
    (await kc.execute('1', reply=True))['contents']   # mypy: typeddict-item; pyright: reportGeneralTypeIssues
    (await kc.execute('1', reply=True)).content   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    (await kc.run('1'))['content']   # mypy: index; pyright: reportIndexIssue
    res.plain   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    event.body   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    error.code   # mypy: attr-defined; pyright: reportAttributeAccessIssue
    kc.run('1').cancel_all()   # mypy: attr-defined; pyright: reportAttributeAccessIssue


async def mistyped(kc: ConKernelClient, sh: Subshell) -> None:
    "Arguments of other types, or in other places"
    kc.run(1)   # mypy: arg-type; pyright: reportArgumentType
    kc.run('1', 5)   # mypy: call-arg; pyright: reportCallIssue
    kc.run('1', timeout='5')   # mypy: arg-type; pyright: reportArgumentType
    kc.run('1', on_output='print')   # mypy: arg-type; pyright: reportArgumentType
    sh.run(1)   # mypy: arg-type; pyright: reportArgumentType
    sh.execute('1', reply='yes')   # mypy: call-overload; pyright: reportCallIssue, reportArgumentType
    kc.execute(b'1', reply=True)   # mypy: call-overload; pyright: reportCallIssue, reportArgumentType
    kc.execute('1', reply='yes')   # mypy: call-overload; pyright: reportCallIssue, reportArgumentType
    kc.complete('pri', reply=True, timeout='5')   # mypy: call-overload; pyright: reportCallIssue, reportArgumentType
    kc.kernel_info('control')   # mypy: call-overload; pyright: reportCallIssue
    await kc.push(1)   # mypy: call-arg; pyright: reportCallIssue
    await kc.eval('x', 5)   # mypy: call-arg; pyright: reportCallIssue
    await kc.map(1)   # mypy: call-overload; pyright: reportArgumentType
    await kc.map(['1'], concurrency='2')   # mypy: call-overload; pyright: reportArgumentType
    kc.on_status('ready')   # mypy: arg-type; pyright: reportArgumentType
    await kc.wait_for_status(1)   # mypy: arg-type; pyright: reportArgumentType
    await kc.get_pubs(timeout=None)   # mypy: arg-type; pyright: reportArgumentType
    kc.request('kernel_info_request', on_iopub=1)   # mypy: arg-type; pyright: reportArgumentType
    kc.status = 'ready'   # mypy: misc; pyright: reportAttributeAccessIssue
    kc.window = 'wide'   # mypy: assignment; pyright: reportAttributeAccessIssue
    ConKernelManager(kernel_spec='python3')   # mypy: arg-type; pyright: reportArgumentType
    run_kernel(manager_class=ConKernelClient)   # mypy: arg-type; pyright: reportArgumentType


async def mistaken(kc: ConKernelClient) -> None:
    "Results taken for something else"
    msg_id: int = kc.execute('1')   # mypy: assignment; pyright: reportAssignmentType
    reply: Message = kc.execute('1', reply=True)   # mypy: assignment; pyright: reportAssignmentType
    run: Request = kc.run('1')   # mypy: assignment; pyright: reportAssignmentType
    res: Run = await kc.run('1')   # mypy: assignment; pyright: reportAssignmentType
    text: str = (await kc.run('1')).data   # mypy: assignment; pyright: reportAssignmentType
    outs: list[str] = [o async for o in kc.run('1')]   # mypy: misc; pyright: reportAssignmentType
    print(msg_id, reply, run, res, text, outs)
