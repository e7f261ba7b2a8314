"""The same checks for each of several kernels: they differ in what they say, when, and what they can.

Each kernel is installed from PyPI into an environment of its own, under `tests/.kernels` (or the folder that
`CONKERNELCLIENT_KERNELS` names), the first time that it is needed; where that fails, its tests are skipped with the
reason. Only ipykernel 7, which is installed anyway, runs by default: `pytest -m "" tests/test_other_kernels.py` runs all.

What a kernel cannot do, or does in its own way, is in `KERNELS`, as a fact that the tests hold it to: then they fail
when it has learnt it.
"""
import asyncio, fcntl, functools, os, re, subprocess, sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from jupyter_client.kernelspec import KernelSpec
from conkernelclient import DeadKernelError, ExecutionTimeout, KernelRestartedError, UnsupportedFeature, run_kernel
from fault_tools import outcome, outcomes, running, soon, until

bound = 200
SOON = 30

pytestmark = pytest.mark.filterwarnings('error')


# --- the kernels -----------------------------------------------------------------------------------------------------

class Language(NamedTuple):
    say: str     # prints a number
    sleep: str   # sleeps so many seconds
    ask: str     # asks, and prints the answer
    fail: str
    die: str     # ends the kernel's process
    remember: str = 'x = 6*7'
    recall: str = 'print(x)'

PYTHON = Language('print({})', 'import time; time.sleep({})', 'print(input("name? "))', '1/0', 'import os; os._exit(3)')
BASH = Language('echo {}', 'sleep {}', 'read name; echo $name', 'false', 'kill -9 $PPID', 'x=42', 'echo $x')

class Kernel(NamedTuple):
    requires: str    # what is installed; '' for what is there
    module: str      # what `python -m` starts
    options: tuple = ('-f', '{connection_file}')
    language: Language = PYTHON
    interrupt_mode: str = 'signal'
    interrupted: str = 'error KeyboardInterrupt'   # how an interrupted cell ends; 'dies': the kernel ends instead
    limited: str = 'error ZeroDivisionError'       # how a failing cell ends
    prompts: bool = True
    subshells: str = 'yes'       # 'no': the feature is not announced; 'tasks': only cells that await let others run; 'shared': announced, and not true
    # Cells; fewer for a kernel that takes a tenth of a second for each, and for xeus: of 300, in one run of three its shell
    # stops before the last 8 to 29, idle, with nothing on the wire, while its control channel answers
    in_flight: int = 300
    tries: int = 9               # of races; fewer for a kernel that takes its time. (30 each found no more)
    evaluates: bool = True       # expressions, without running a cell

KERNELS = {
    'ipykernel 7': Kernel('', 'ipykernel_launcher'),
    'ipykernel 6.29': Kernel('ipykernel>=6.29,<6.30', 'ipykernel_launcher', subshells='no'),
    # Its wheels end at SIGINT, with any client, and an interrupt_request is answered and changes nothing
    'xeus-python': Kernel('xeus-python', 'xpython_launcher', interrupted='dies', limited="error <class 'ZeroDivisionError'>", subshells='no',
                           in_flight=20),
    'xeus-python raw': Kernel('xeus-python', 'xpython_launcher', ('-f', '{connection_file}', '--raw'), interrupted='dies', subshells='no',
                              evaluates=False, in_flight=20),   # it fails at a cell without code: `IndexError`
    'async-kernel': Kernel('async-kernel', 'async_kernel', ('start', '--connection_file={connection_file}', '--name=async'),
                           interrupt_mode='message', interrupted='error KernelInterrupt', subshells='tasks',
                           tries=4),   # it answers an interrupt_request after a second
    'ipymini': Kernel('ipymini', 'ipymini'),
    # Made with ipykernel's `Kernel`, it inherits the announcement of subshells; there is one bash behind all of them
    'bash_kernel': Kernel('bash_kernel', 'bash_kernel', language=BASH, interrupted='aborted', limited='error ', prompts=False, subshells='shared', in_flight=20, tries=3),
}
SLOW = [o for o in KERNELS if o!='ipykernel 7']
FOLDER = Path(os.environ.get('CONKERNELCLIENT_KERNELS') or Path(__file__).parent/'.kernels')


@functools.cache
def python_of(requires):
    "The Python of an environment with `requires`; skips where it cannot be made"
    if not requires: return sys.executable
    folder = FOLDER/(re.sub(r'\W+', '-', requires)+f'-{sys.implementation.cache_tag}')
    python, done = folder/'bin'/'python', folder/'installed'
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix('.lock'), 'w') as lock:     # several processes may run these tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for command in ([sys.executable, '-m', 'venv', '--clear', str(folder)],
                            [str(python), '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--retries', '1', requires]):
                try: res = subprocess.run(command, capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL)
                except (OSError, subprocess.TimeoutExpired) as e: return f'skip: {e}'
                if res.returncode: return 'skip: '+' '.join((res.stderr.strip() or res.stdout.strip()).split('\n')[-2:])
            done.touch()
    return str(python)

@pytest.fixture(params=[pytest.param(o, marks=[pytest.mark.slow] if o in SLOW else [], id=o.replace(' ', '-')) for o in KERNELS])
def kernel(request):
    kernel = KERNELS[request.param]
    python = python_of(kernel.requires)
    if python.startswith('skip: '): pytest.skip(f'{request.param} cannot be installed here: {python[6:]}')
    return kernel

@asynccontextmanager
async def started(kernel):
    spec = KernelSpec(argv=[python_of(kernel.requires), '-m', kernel.module, *kernel.options], display_name=kernel.module,
                      language='bash' if kernel.language is BASH else 'python', interrupt_mode=kernel.interrupt_mode)
    async with run_kernel(kernel_spec=spec) as (km, kc): yield km, kc

def ending(res): return f'{res.status} {res.error.ename}' if res.error else res.status

async def works(kc, kernel):
    res = await soon(kc.run(kernel.language.say.format(42)))
    assert res.text.strip()=='42' and res.status=='ok' and res.complete, res


# --- the checks ------------------------------------------------------------------------------------------------------

async def test_run(kernel):
    "Cells, one after the other: outputs, counts, state, errors"
    lang = kernel.language
    async with started(kernel) as (km, kc):
        assert kc.status=='ready' and kc.connection.info['protocol_version'].startswith('5.')
        res = await soon(kc.run(lang.say.format(1)))
        assert res.text=='1\n' and res.status=='ok' and res.execution_count==1 and res.complete and res.duration is not None
        await soon(kc.run(lang.remember))
        assert (await soon(kc.run(lang.recall))).text.strip()=='42'
        failed, after = kc.run(lang.fail), kc.run(lang.say.format(2))
        res = await soon(failed)
        assert ending(res).startswith(kernel.limited) and repr(res) and res.for_llm().text, res
        assert (await soon(after)).text.strip()=='2', 'an error aborts no other run'
        reply = await soon(kc.execute(lang.say.format(3), reply=True))
        assert reply['content']['status']=='ok'
        assert (await soon(kc.complete('pri' if lang is PYTHON else 'ech', reply=True)))['content']['matches']
        if lang is PYTHON and kernel.evaluates: assert await soon(kc.eval('6*7'))==42
        elif lang is PYTHON: assert 'IndexError' in str(await outcome(kc.eval('6*7')))

async def test_300_in_flight(kernel):
    "Each gets its own reply and its own outputs, in order"
    count = kernel.in_flight
    async with started(kernel) as (km, kc):
        content = dict(silent=False, store_history=False, user_expressions={}, allow_stdin=False, stop_on_error=False)
        asked = [kc.request('execute_request', content|dict(code=kernel.language.say.format(i))) for i in range(count)]
        res, took = await outcomes([o.wait() for o in asked], SOON)
        assert [''.join(m['content']['text'] for m in o.iopub if m['msg_type']=='stream').strip() for o in res]==[str(i) for i in range(count)]
        assert all(o.complete and o.reply['content']['status']=='ok' for o in res)
        print(f'\nfigure | {kernel.requires or "ipykernel 7"}: {count} cells, seconds | {took:.2f}')
        await works(kc, kernel)

async def test_after_an_error(kernel):
    "A cell that is asked when another one has failed is not aborted with those behind that one"
    async with started(kernel) as (km, kc):
        aborted, tries = 0, 3*kernel.tries
        for i in range(tries):
            failing = kc.execute(kernel.language.fail, reply=True)
            assert (await soon(failing))['content']['status']=='error'
            aborted += (await soon(kc.run(kernel.language.say.format(i)))).text.strip()!=str(i)
        print(f'\nfigure | {kernel.module}: not run after an error, of {tries} | {aborted}')
        await works(kc, kernel)
    assert not aborted, aborted

async def test_interrupt(kernel):
    "The cell is stopped, the next one runs. A kernel that ends instead is dead, and its calls say so."
    async with started(kernel) as (km, kc):
        for how in 'run', 'button', 'limit', 'cancel': await stopped(kernel, kc, how)

async def stopped(kernel, kc, how):
    run = kc.run(kernel.language.sleep.format(60), timeout=.5 if how=='limit' else None)
    await until(lambda: run.state=='running')
    await asyncio.sleep(.2)
    if how=='run': assert await soon(run.interrupt()) is True
    if how=='button': await soon(kc.interrupt())
    if how=='cancel': run.cancel()
    for _ in range(4):   # (ipymini loses one interrupt in a hundred: another press ends the cell then)
        if (await asyncio.wait([asyncio.ensure_future(asyncio.shield(run))], timeout=5))[0]: break
        await soon(run.interrupt())
    got = await outcome(run)
    if how=='limit': assert isinstance(got, ExecutionTimeout) or kernel.interrupted=='dies', got
    elif how=='cancel': assert isinstance(got, asyncio.CancelledError), got
    elif kernel.interrupted=='dies': assert isinstance(got, DeadKernelError), got
    else: assert ending(got)==kernel.interrupted, got
    if kernel.interrupted=='dies':
        await soon(kc.wait_for_status('dead'))
        await soon(kc.restart(now=True))
    await works(kc, kernel)

async def test_interrupts(kernel):
    "Many, at all moments: each cell ends as an interrupted one, if need be at the second press of the button"
    if kernel.interrupted=='dies': pytest.skip('an interrupt ends this kernel')
    tries, other, again = kernel.tries, [], 0
    patience = 10 if kernel.interrupt_mode=='message' else 1   # (async-kernel answers after a second; a second press then ends the cell otherwise)
    async with started(kernel) as (km, kc):
        for i in range(tries):
            run = kc.run(kernel.language.sleep.format(60))
            await until(lambda: run.state=='running')
            await asyncio.sleep(.1*(i%3))
            for press in range(5):
                await soon(run.interrupt())
                await asyncio.wait([asyncio.ensure_future(asyncio.shield(run))], timeout=patience)
                if run.done(): break
                again += 1
            got = await outcome(run)
            # (bash_kernel may say *idle* to an interrupted cell and send no reply)
            if kernel.language is BASH and not isinstance(got, Exception) and not got.status: continue
            if isinstance(got, Exception) or ending(got)!=kernel.interrupted: other.append(f'{i}: {got!r}')
        print(f'\nfigure | {kernel.module}: cells that ended otherwise, of {tries} | {len(other)}\nfigure | {kernel.module}: interrupts that changed nothing | {again}')
        await works(kc, kernel)
    assert not other, other

async def test_prompt(kernel):
    lang = kernel.language
    async with started(kernel) as (km, kc):
        if not kernel.prompts:
            got = await outcome(kc.run(lang.ask, stdin=['me'], timeout=1))
            assert isinstance(got, ExecutionTimeout), f'it has learnt to ask: {got}'
            return await works(kc, kernel)
        asked = []
        def answer(prompt):
            asked.append(prompt)
            return 'me'
        res = await soon(kc.run(lang.ask, stdin=answer))
        assert res.status=='ok' and res.text.strip().endswith('me') and asked==['name? '], (res, asked, res.error)
        res = await soon(kc.run(lang.ask))
        assert res.status=='error', 'it may not ask'
        await works(kc, kernel)

async def test_subshell(kernel):
    "A cell runs beside another one, where the kernel has subshells"
    lang = kernel.language
    async with started(kernel) as (km, kc):
        if kernel.subshells=='no':
            with pytest.raises(UnsupportedFeature): await soon(kc.subshell().__aenter__())
            with pytest.raises(UnsupportedFeature): await soon(kc.map(['1', '2']))
            return await works(kc, kernel)
        async with kc.subshell() as sh:
            sleeps = 'import asyncio; await asyncio.sleep(2)' if kernel.subshells=='tasks' else lang.sleep.format(2)
            long = kc.run(sleeps)
            await until(lambda: long.state=='running')
            if kernel.subshells=='shared':
                # Two of its threads read one terminal: either may take what the other one waits for
                beside, = await asyncio.gather(soon(sh.run(lang.say.format(42)), 5), return_exceptions=True)
                print(f'\nfigure | {kernel.module}: on a subshell, while another cell runs | {beside!r}')
                await km.restart_kernel(now=True)
                await outcome(long)
            else:
                beside = await outcome(sh.run(lang.say.format(42)))
                assert beside.text.strip()=='42' and beside.status=='ok' and not long.done(), (beside, long)
                assert (await soon(long)).status=='ok'
                failed, after = sh.run(lang.fail), sh.run(lang.say.format(2))
                assert ending(await soon(failed)).startswith(kernel.limited) and (await soon(after)).text.strip()=='2'
        if kernel.subshells!='shared':
            assert [o.text.strip() for o in await soon(kc.map([lang.say.format(i) for i in range(8)], concurrency=2))]==[str(i) for i in range(8)]
        await works(kc, kernel)

async def test_restart(kernel):
    "What was in flight fails, the same client goes on, and nothing is left of the old kernel's state"
    lang = kernel.language
    async with started(kernel) as (km, kc):
        for when in 'idle', 'busy':
            await soon(kc.run(lang.remember))
            run = kc.run(lang.sleep.format(60)) if when=='busy' else None
            if run: await until(lambda: run.state=='running')
            await soon(kc.restart())
            if run: assert isinstance(await outcome(run), KernelRestartedError)
            await works(kc, kernel)
            res = await soon(kc.run(lang.recall))
            assert '42' not in res.text and kc.status in ('ready', 'busy')

async def test_death(kernel):
    "Each pending call fails soon, with the exit code; a restart brings the kernel back for the same client"
    lang = kernel.language
    async with started(kernel) as (km, kc):
        pid = km.provisioner.process.pid
        asked = [kc.run(lang.die), kc.run(lang.say.format(1)), kc.execute(lang.say.format(1), reply=True)]
        res, took = await outcomes(asked)
        assert all(isinstance(o, DeadKernelError) and o.exit_code==(-9 if lang is BASH else 3) for o in res), res
        assert took<10 and not running(pid)
        await soon(kc.wait_for_status('dead'))
        await soon(kc.restart())
        await works(kc, kernel)

async def test_end(kernel):
    "Nothing is left: no process, also where the kernel is at work"
    async with started(kernel) as (km, kc):
        pid = km.provisioner.process.pid
        run = kc.run(kernel.language.sleep.format(60))
        await until(lambda: run.state=='running')
    assert not running(pid) and run.done()
