"""Check the comparison table of the front page: `python benchmarks/peers.py`, or with the names of some peers.

Each peer gets an environment of its own (see `envs.py`) and a real kernel, and runs in an empty folder. For each row of the
table the script prints what happened. It judges nothing: compare its lines with the table.
"""
import asyncio, os, subprocess, sys, tempfile, time
from importlib.metadata import version
from pathlib import Path

LIMIT = 15   # Seconds after which a pending call counts as waiting
PEERS = dict(ours='conkernelclient', jupyter_client='jupyter_client', nbclient='nbclient', pypi='conkernelclient', ipyparallel='ipyparallel')
LIVE = "import time\nprint('first', flush=True)\ntime.sleep(2)\nprint('last')"
LONG = 'import time; time.sleep(600)'
DEADLY = "import os, time; time.sleep(.5); os._exit(3)"


def short(e): return f'{type(e).__name__}: {str(e).splitlines()[0][:70]}' if str(e).strip() else type(e).__name__


async def ending(pending, since=None):
    "How a pending call ends, and after how long"
    task,begin = asyncio.ensure_future(pending),since or time.monotonic()
    await asyncio.wait([task], timeout=LIMIT)
    if not task.done():
        task.cancel()
        return f'still waits after {LIMIT} s'
    end = f'after {time.monotonic()-begin:.1f} s'
    return f'fails {end} ({short(task.exception())})' if task.exception() else f'returns {end}'


async def outcome(calls):
    "How many of `calls` gave the value that belongs to them. The last one is awaited first"
    got = await asyncio.gather(*[asyncio.wait_for(o, LIMIT) for o in reversed(calls)], return_exceptions=True)
    wrong = [o for i,o in enumerate(reversed(got)) if o!=i]
    kinds = sorted({short(o) if isinstance(o, Exception) else 'reply to another' for o in wrong})
    return f'{len(got)-len(wrong)} of {len(got)} own replies' + (f'; the others: {", ".join(kinds)}' if wrong else '')


def value(reply): return int(reply['content']['user_expressions']['it']['data']['text/plain'])
async def valued(pending): return value(await pending)
def asking(i): return dict(code='', silent=False, user_expressions=dict(it=str(i)))

async def reply_to(kc, msg_id):
    "The shell reply to a request, as a program for `AsyncKernelClient` reads it: those of others are dropped"
    while (reply := await asyncio.wait_for(kc.get_shell_msg(timeout=5), 10))['parent_header'].get('msg_id')!=msg_id: pass
    return reply


class Ours:
    "This library"
    async def open(self): self.kc = await module().open_kernel()
    async def close(self): await self.kc.close()
    async def callers(self): return await outcome([self.kc.eval(str(i)) for i in range(10)])

    async def replaces(self): return await drop_in(module().ConKernelManager)

    async def live(self):
        run,other = self.kc.run(LIVE),self.kc.run("print('other')")
        async for out in run.follow():
            if 'first' in out.text: break
        return f'first output while the cell runs: {not run.done()}; the other cell has its own: {(await other).stdout!r}'

    async def dies(self): return await ending(self.kc.run(DEADLY))

    async def restarted(self):
        await self.kc.restart(if_dead=True)
        run = self.kc.run(LONG)
        await asyncio.sleep(1)
        begin,restart = time.monotonic(),asyncio.create_task(self.kc.restart())
        res = await ending(run, begin)
        await restart
        return res

    async def subshells(self):
        busy = self.kc.run('import time; time.sleep(3)')
        async with self.kc.subshell() as sh: return f'{await sh.eval("6*7")} while the main shell is busy: {not busy.done()}'


async def drop_in(manager):
    "A program for `AsyncKernelClient`, line by line, with another manager"
    from jupyter_client import AsyncKernelClient
    km,done = manager(),[]
    await km.start_kernel()
    kc = km.client()
    try:
        started = kc.start_channels()
        done.append('start_channels()')
        await asyncio.wait_for(kc.wait_for_ready(timeout=10), 15)
        done.append('wait_for_ready()')
        assert value(await reply_to(kc, kc.execute(**asking(7))))==7
        done.append('execute() and get_shell_msg()')
        assert value(await asyncio.wait_for(kc.execute(**asking(7), reply=True, timeout=5), 10))==7
        done.append('execute(reply=True)')
        res = 'all of it works'
    except (Exception,asyncio.TimeoutError) as e: res = f'then {short(e)}'
    if asyncio.iscoroutine(started): started.close()
    kc.stop_channels()
    await km.shutdown_kernel(now=True)
    return f'subclass: {isinstance(kc, AsyncKernelClient)}; works: {", ".join(done)}; {res}'


class JupyterClient:
    "jupyter_client's own AsyncKernelClient"
    async def open(self):
        from jupyter_client.manager import start_new_async_kernel
        self.km,self.kc = await start_new_async_kernel()

    async def close(self):
        self.kc.stop_channels()
        await self.km.shutdown_kernel(now=True)

    async def callers(self): return await outcome([valued(self.kc.execute(**asking(i), reply=True, timeout=5)) for i in range(10)])

    async def replaces(self):
        from jupyter_client import AsyncKernelManager
        return await drop_in(AsyncKernelManager)

    async def interactive(self, code):
        seen,begin = [],time.monotonic()
        def hook(msg):
            if msg['msg_type']=='stream': seen.append((round(time.monotonic()-begin), msg['content']['text']))
        await self.kc.execute_interactive(code, output_hook=hook, timeout=8)
        return seen

    async def live(self):
        one = await self.interactive(LIVE)
        await self.close()
        await self.open()
        two = await asyncio.gather(self.interactive(LIVE), self.interactive("print('other')"), return_exceptions=True)
        return f'execute_interactive, (second, text): {one}; two at the same time: {[short(o) if isinstance(o, Exception) else o for o in two]}'

    async def dies(self):
        await self.close()
        await self.open()
        return await ending(self.kc.execute(DEADLY, reply=True))

    async def restarted(self):
        await self.close()
        await self.open()
        pending = asyncio.ensure_future(self.kc.execute(LONG, reply=True))
        await asyncio.sleep(1)
        begin = time.monotonic()
        await self.km.restart_kernel(now=True)
        return await ending(pending, begin)

    async def subshells(self):
        await self.close()
        await self.open()
        s,names = self.kc.session,[o for o in dir(self.kc) if 'subshell' in o]
        self.kc.control_channel.send(s.msg('create_subshell_request', {}))
        made = await self.kc.get_control_msg(timeout=5)
        self.kc.execute('import time; time.sleep(3)')
        msg,begin = s.msg('execute_request', asking(42)),time.monotonic()
        msg['header']['subshell_id'] = made['content']['subshell_id']
        self.kc.shell_channel.send(msg)
        reply = await reply_to(self.kc, msg['header']['msg_id'])
        return f'methods: {names}; with messages made by hand: {value(reply)} while the main shell is busy: {time.monotonic()-begin<2}'


class Nbclient:
    "nbclient, cell by cell"
    def notebook(self, *cells):
        import nbformat
        from nbclient import NotebookClient
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
        return NotebookClient(nb),nb.cells

    async def open(self): pass
    async def close(self): pass

    async def callers(self):
        client,cells = self.notebook(*map(str, range(4)))
        async with client.async_setup_kernel():
            async def ask(i): return int((await client.async_execute_cell(cells[i], i)).outputs[0].data['text/plain'])
            return await outcome([ask(i) for i in range(4)])

    async def replaces(self):
        import nbclient
        from jupyter_client import AsyncKernelClient
        return f'its subclasses of AsyncKernelClient: {[k for k,v in vars(nbclient).items() if isinstance(v, type) and issubclass(v, AsyncKernelClient)]}'

    async def live(self):
        client,cells = self.notebook(LIVE)
        async with client.async_setup_kernel():
            run = asyncio.create_task(client.async_execute_cell(cells[0], 0))
            while not cells[0].outputs: await asyncio.sleep(.05)
            early = not run.done()
            await run
        return f'first output in the cell while it runs: {early}; in the end {cells[0].outputs[0].text!r}'

    async def dies(self):
        client,cells = self.notebook(DEADLY)
        async with client.async_setup_kernel(): return await ending(client.async_execute_cell(cells[0], 0))

    async def restarted(self):
        client,cells = self.notebook(LONG)
        async with client.async_setup_kernel():
            pending = asyncio.ensure_future(client.async_execute_cell(cells[0], 0))
            await asyncio.sleep(1)
            begin = time.monotonic()
            await client.km.restart_kernel(now=True)
            return await ending(pending, begin)

    async def subshells(self):
        from nbclient import NotebookClient
        return f'methods: {[o for o in dir(NotebookClient) if "subshell" in o]}'


class PyPI(Ours):
    "The package of this name on PyPI, by AnswerDotAI"
    async def open(self):
        self.km = module().ConKernelManager()
        await self.km.start_kernel()
        self.kc = await self.km.client().start_channels()

    close = JupyterClient.close

    async def replaces(self):
        plain,own = await drop_in(module().ConKernelManager),value(await self.kc.reply(**asking(7)))
        try: await self.kc.execute(**asking(7), reply=True)
        except Exception as e: return f'{plain}. With `await start_channels()`: reply() gives {own}, execute(reply=True) fails ({short(e)})'

    async def callers(self): return await outcome([valued(self.kc.reply(**asking(i))) for i in range(10)])

    async def live(self):
        other = self.kc.reply("print('other')")
        begin,seen = time.monotonic(),[]
        async for o in self.kc.run(LIVE):
            if o['msg_type']=='stream': seen.append((round(time.monotonic()-begin), o['content']['text']))
        await other
        return f'(second, text): {seen}'

    async def dies(self): return await ending(self.kc.reply(DEADLY))

    async def restarted(self):
        await self.close()
        await self.open()
        from conkernelclient.ops import reconnect
        first = asyncio.ensure_future(self.kc.reply(LONG))
        await asyncio.sleep(1)
        begin = time.monotonic()
        await self.km.restart_kernel(now=True)
        res = await ending(asyncio.shield(first), begin)
        await self.close()
        await self.open()
        second = asyncio.ensure_future(self.kc.reply(LONG))
        await asyncio.sleep(1)
        begin = time.monotonic()
        self.kc = await reconnect(self.km, self.kc)
        return f'restart_kernel: {res}; its own reconnect: {await ending(second, begin)}'

    async def subshells(self):
        made = await self.kc.control('create_subshell_request')
        busy = asyncio.ensure_future(self.kc.reply('import time; time.sleep(3)'))
        reply = await self.kc.reply(**asking(42), subshell_id=made['content']['subshell_id'])
        return f'control("create_subshell_request") and subshell_id=: {value(reply)} while the main shell is busy: {not busy.done()}'


class Ipyparallel:
    "ipyparallel, a cluster of one engine"
    async def open(self):
        import ipyparallel
        self.cluster = ipyparallel.Cluster(n=1, log_level=40)
        self.rc = await self.cluster.start_and_connect(n=1, activate=False)
        self.view = self.rc[0]

    async def close(self):
        self.rc.close()
        await self.cluster.stop_cluster()

    async def got(self, pending): return await asyncio.to_thread(pending.get, LIMIT)
    async def callers(self): return await outcome([self.got(self.view.apply_async(int, i)) for i in range(10)])

    async def replaces(self):
        from jupyter_client import AsyncKernelClient
        return f'subclass: {isinstance(self.rc, AsyncKernelClient)}'

    async def live(self):
        pending = self.view.execute(LIVE, silent=False, block=False)
        while not pending.stdout and not pending.ready(): await asyncio.sleep(.05)
        return f'first output while the cell runs: {not pending.ready()}; {pending.stdout!r}'

    async def dies(self):
        await self.got(self.view.execute('1', block=False))
        return await ending(self.got(self.view.execute(DEADLY, block=False)))

    async def restarted(self):
        await self.close()
        await self.open()
        pending = asyncio.ensure_future(self.got(self.view.execute(LONG, block=False)))
        await asyncio.sleep(1)
        begin = time.monotonic()
        await self.cluster.restart_engines()
        return await ending(pending, begin)

    async def subshells(self): return f'methods: {[o for o in {*dir(self.rc), *dir(self.view)} if "subshell" in o]}'


def module():
    import conkernelclient
    return conkernelclient


ROWS = dict(callers='two callers at the same time', replaces='replaces AsyncKernelClient', live='outputs of one cell',
            dies='pending calls when the kernel dies', restarted='pending calls when it is restarted', subshells='subshells')


async def check(name):
    "All rows of one peer, in its own environment"
    peer = dict(ours=Ours, jupyter_client=JupyterClient, nbclient=Nbclient, pypi=PyPI, ipyparallel=Ipyparallel)[name]()
    await peer.open()
    for row,title in ROWS.items():
        try: res = await asyncio.wait_for(getattr(peer, row)(), 90)
        except Exception as e: res = f'NOT TRIED: {short(e)}'
        print(f'  {title:36}{res}', flush=True)
        if row=='dies':     # the next rows need a kernel that lives
            try: await peer.close()
            except Exception: pass
            await peer.open()
    await peer.close()


def main(names):
    from envs import REPO, make, our_requirements
    wanted = dict(ours=our_requirements(), jupyter_client=['jupyter_client', 'ipykernel'], nbclient=['nbclient', 'ipykernel'],
                  pypi=['conkernelclient<0.1', 'ipykernel'], ipyparallel=['ipyparallel'])
    for name in names or PEERS:
        python = make(REPO/'benchmarks/build/envs'/f'peer-{name}', wanted[name])
        env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
        if name=='ours': env['PYTHONPATH'] = str(REPO)
        with tempfile.TemporaryDirectory() as folder:
            env |= dict(HOME=folder, PATH=f'{Path(python).parent}:{env["PATH"]}')
            err = open(f'{folder}/stderr', 'w+')   # warnings of kernels, and tasks that the checks leave behind
            code = subprocess.run([python, '-P', __file__, '--here', name], cwd=folder, env=env, stderr=err).returncode
            if code: print(f'  {name} ended with {code}:', (Path(folder, 'stderr').read_text().strip().splitlines() or [''])[-1])


if __name__=='__main__':
    if sys.argv[1:2]!=['--here']: main(sys.argv[1:])
    else:
        name = sys.argv[2]
        of = module().__version__ if name=='ours' else version(PEERS[name])
        print(f'{name} {of} (jupyter_client {version("jupyter_client")}, ipykernel {version("ipykernel")}, Python {sys.version.split()[0]})', flush=True)
        asyncio.run(check(name))
