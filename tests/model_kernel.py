"""A kernel and the machine it runs on, in memory, for `memory_transport`.

`ModelKernel` is one process. It has several shells, says busy and idle, echoes, prints, asks, aborts what is queued
behind an error, welcomes subscribers (JEP 65) and has subshells (JEP 91). A cell says in words what it does, after a tag
of its own:

    'a'                     prints `a;`
    'a take=.5 out=3'       prints `a;` three times, within half a second
    'a hang'                runs until it is interrupted
    'a error'               ends with an error
    'a ask'                 asks for input, prints it
    'a deaf take=2'         ignores interrupts
    'a lose=reply'          its reply is not sent; so `idle`, `busy`
    'a twice=reply'         its reply is sent twice; so `idle`
    'a late=.1'             its reply comes after *idle*
    'a die=3'               the process ends, with this exit code

`Machine` runs such processes at one place, one after the other. It is the host of the clients that are given it.
"""
import asyncio, itertools
from collections import deque

import orjson

dumps, loads = orjson.dumps, orjson.loads
NO_META = b'{}'


class Shell:
    "Requests of one shell: one runs, the others wait"
    def __init__(self, subshell_id=None):
        self.id, self.queue = subshell_id, deque()
        self.msg = self.steps = self.timer = None
        self.cut = False      # has an interrupt come?
        self.answer = None    # to its prompt
        self.asking = None    # the id of its `input_request`


class Asked(dict):
    "A request as it came: its content"
    __slots__ = ('line', 'type', 'id', 'frame', 'words', 'client')


class ModelKernel:
    "One kernel process"
    subshells = True
    aborts_for = 0.   # seconds after an error reply in which what comes is aborted, too
    aborts_all = False   # also requests that execute nothing, with an *error*, as xeus does
    def __init__(self, place, serial=0, loop=None, welcomes=True, on_received=None, on_cut=None):
        self.place, self.serial, self.welcomes = place, serial, welcomes
        self.session = f'kernel-{serial}'
        self.loop = loop or asyncio.get_running_loop()
        self.on_received = on_received or (lambda kernel, shell, msg: None)
        self.on_cut = on_cut or (lambda kernel, msg, by: None)
        self.dead = self.frozen = False
        self.code = None
        self.stalled = []       # what has come, or was to be done, while it was frozen
        self.ids = itertools.count()
        self.names = itertools.count(1)
        self.shells = {'control': Shell('control'), None: Shell()}
        self.dying = lambda code: None
        self.ended = lambda: None   # called when it shuts down as it was asked to
        self.lingers = 0.           # seconds from a shutdown_request to its end
        self.ran = []

    @property
    def beats(self): return not self.frozen

    @property
    def open_subshells(self): return [o for o in self.shells if o not in (None, 'control')]

    # --- messages

    def _header(self, msg_type):
        return dumps(dict(msg_id=f'{self.session}-{next(self.ids)}', msg_type=msg_type, session=self.session,
                          username='model', date='2026-01-01T00:00:00.000000Z', version='5.4'))

    def pack(self, msg_type, content, parent=b'{}'):
        return b'', self._header(msg_type), parent, NO_META, dumps(content)

    def publish(self, msg, msg_type, content): self.place.publish(self.pack(msg_type, content, msg.frame))

    def status(self, msg, state):
        if msg.words.get('lose') == state: return
        self.publish(msg, 'status', dict(execution_state=state))
        if msg.words.get('twice') == state: self.publish(msg, 'status', dict(execution_state=state))

    def reply(self, msg, content):
        if msg.words.get('lose') == 'reply': return
        name = msg.type.replace('_request', '_reply')
        for _ in range(2 if msg.words.get('twice') == 'reply' else 1):
            msg.line.answer(self.pack(name, content, msg.frame))

    def joined(self, line):
        "A client has connected a channel"
        if line.channel == 'iopub' and self.welcomes: line.answer(self.pack('iopub_welcome', dict(subscription='')))

    def say_hello(self): self.place.publish(self.pack('status', dict(execution_state='starting')))

    def received(self, line, channel, frames):
        if self.frozen: return self.stalled.append((self.received, (line, channel, frames)))
        header = loads(frames[1])
        msg = Asked(loads(frames[4]))
        msg.line, msg.type, msg.id, msg.frame = line, header['msg_type'], header['msg_id'], frames[1]
        msg.client = header['session']
        if channel == 'stdin': return self._answered(loads(frames[2]).get('msg_id'), msg)
        tag, *words = msg['code'].split() if msg.type == 'execute_request' and msg['code'] else ('',)
        msg.words = dict(o.partition('=')[::2] for o in words) if words else {}
        msg.words['tag'] = tag
        shell = self.shells.get('control' if channel == 'control' else header.get('subshell_id'))
        if shell is None: return   # as ipykernel: it logs an error
        self.on_received(self, shell, msg)
        shell.queue.append(msg)
        if shell.msg is None: self._next(shell)

    # --- what it does

    def _next(self, shell):
        while shell.msg is None and shell.queue and not self.dead and not self.frozen:
            shell.msg = shell.queue.popleft()
            shell.cut = False
            shell.steps = self._handle(shell, shell.msg)
            self._step(shell)

    def _step(self, shell):
        shell.timer = None
        if self.dead: return
        if self.frozen: return self.stalled.append((self._step, (shell,)))
        try: delay = next(shell.steps)
        except StopIteration:
            shell.msg = None
            return self._next(shell)
        if delay is not None: shell.timer = self.loop.call_later(delay, self._step, shell)

    def go_on(self, shell):
        "Not when its timer is over, but now"
        if shell.msg is None: return
        if shell.timer is not None: shell.timer.cancel()
        shell.timer = self.loop.call_soon(self._step, shell)

    def _handle(self, shell, msg):
        self.status(msg, 'busy')
        if msg.type == 'execute_request': yield from self._execute(shell, msg)
        else:
            content = self._answer(msg)
            if content is not None: self.reply(msg, content)
            self.status(msg, 'idle')

    def _answer(self, msg):
        if msg.type == 'kernel_info_request':
            return dict(status='ok', protocol_version='5.4', implementation='model', implementation_version='1',
                        banner='', language_info=dict(name='words'),
                        supported_features=['kernel subshells'] if self.subshells else [])
        if msg.type == 'create_subshell_request':
            name = f'{self.session}-sub{next(self.names)}'
            self.shells[name] = Shell(name)
            return dict(status='ok', subshell_id=name)
        if msg.type == 'delete_subshell_request':
            shell = self.shells.pop(msg['subshell_id'], None)
            if shell is not None: return dict(status='ok')
            return dict(status='error', ename='KeyError', evalue='no such subshell', traceback=[])
        if msg.type == 'list_subshell_request': return dict(status='ok', subshell_id=self.open_subshells)
        if msg.type == 'interrupt_request':
            self.interrupt(msg.client)
            return dict(status='ok')
        if msg.type == 'shutdown_request':
            self.loop.call_later(self.lingers, self.ended)
            return dict(status='ok', restart=msg.get('restart', False))
        return dict(status='ok', asked=dict(msg))

    def _execute(self, shell, msg):
        words, silent = msg.words, msg.get('silent')
        tag = words['tag']
        error = None
        count = int(words.get('out', 1))
        take = float(words.get('take', 0))
        self.ran.append(msg['code'])
        if not silent: self.publish(msg, 'execute_input', dict(code=msg['code'], execution_count=len(self.ran)))
        if 'die' in words:
            yield take
            return self.die(int(words['die'] or 1))
        for _ in range(count):
            if take:
                yield take/count
                if shell.cut: break
            self.publish(msg, 'stream', dict(name='stdout', text=tag+';'))
        while 'hang' in words and not shell.cut: yield None
        if 'ask' in words and not shell.cut:
            if not msg.get('allow_stdin'): error = 'StdinNotImplementedError'
            else:
                question = self.pack('input_request', dict(prompt='? ', password=False), msg.frame)
                shell.answer, shell.asking = None, loads(question[1])['msg_id']
                msg.line.transport.lines['stdin'].answer(question)
                while shell.answer is None and not shell.cut: yield None
                shell.asking = None
                if not shell.cut: self.publish(msg, 'stream', dict(name='stdout', text=f'[{shell.answer}]'))
        if shell.cut: error = 'KeyboardInterrupt'
        elif 'error' in words: error = 'WordError'
        content = dict(status='ok', execution_count=len(self.ran), user_expressions={}, code=msg['code'])
        if error is not None:
            self.publish(msg, 'error', dict(ename=error, evalue=tag, traceback=[]))
            content = dict(status='error', ename=error, evalue=tag, traceback=[], code=msg['code'])
        stops = error is not None and msg.get('stop_on_error', True) and not silent
        if 'late' not in words:
            self.reply(msg, content)
            if stops and self.aborts_for: yield self.aborts_for
        self.status(msg, 'idle')
        if 'late' in words:
            yield float(words['late'])
            self.reply(msg, content)
            if stops and self.aborts_for: yield self.aborts_for
        if stops: self._abort(shell, tag)

    def _abort(self, shell, because):
        said = dict(status='error', ename='', evalue='', traceback=[]) if self.aborts_all else dict(status='aborted')
        for o in [o for o in shell.queue if self.aborts_all or o.type == 'execute_request']:
            shell.queue.remove(o)
            self.status(o, 'busy')
            self.reply(o, said|dict(code=o.get('code'), because=because))
            self.status(o, 'idle')

    def _answered(self, msg_id, msg):
        for shell in self.shells.values():
            if shell.asking == msg_id and shell.msg is not None:
                shell.answer = msg['value']
                self.go_on(shell)

    # --- what happens to it

    def interrupt(self, by=None):
        "A signal: it reaches the main shell"
        if self.frozen: return self.stalled.append((self.interrupt, (by,)))
        shell = self.shells[None]
        msg = shell.msg
        if self.dead or msg is None or msg.type != 'execute_request' or 'deaf' in msg.words or shell.cut: return
        self.on_cut(self, msg, by)
        shell.cut = True
        self.go_on(shell)

    def freeze(self, seconds):
        if self.frozen: return
        self.frozen = True
        self.loop.call_later(seconds, self.thaw)

    def thaw(self):
        self.frozen = False
        if self.dead: return
        stalled, self.stalled = self.stalled, []
        for f, args in stalled: f(*args)
        for o in list(self.shells.values()): self._next(o)

    def die(self, code):
        if self.dead: return
        self.stop(code)
        self.dying(code)

    def stop(self, code=None):
        self.dead, self.code = True, code
        for o in self.shells.values():
            if o.timer is not None: o.timer.cancel()


class Machine:
    "Runs one kernel process after the other, at one place: the host of its clients"
    owns = started = True
    hint = 'restart it'
    poll = 1.          # seconds between two looks of the restarter
    boots = .05        # seconds from a process's start until it listens
    lingers = 0.       # seconds that a kernel takes to shut down
    patience = 5.      # seconds until one that does not is killed
    by_message = False # is a kernel interrupted by an `interrupt_request`?
    aborts_for = 0.    # seconds after an error reply in which a kernel aborts also what comes
    lose = True        # is what is under way lost when a process ends?
    def __init__(self, place, loop=None, **kernel):
        self.place, self.kwargs = place, kernel
        self.loop = loop or asyncio.get_running_loop()
        self.clients = []        # those that are told of restarts
        self.processes = []
        self.launches = 0        # an order to start or stop makes older ones void
        self.restarter = None
        self.turn = asyncio.Lock()
        self.fails = 0           # so many restarts fail
        self.watch = lambda what, **facts: None

    @property
    def kernel(self): return self.processes[-1]

    @property
    def comes_back(self): return self.restarter is not None or self.turn.locked()

    def tell(self, what, *args):
        self.watch(what, args=args)
        for kc in list(self.clients): getattr(kc.connection, what)(*args)

    def start(self, boots=None):
        "A new process; it listens a little later"
        self.launches += 1
        kernel = ModelKernel(self.place, len(self.processes), self.loop, **self.kwargs)
        kernel.dying, kernel.aborts_for = self._died, self.aborts_for
        self.processes.append(kernel)
        self.watch('started', kernel=kernel)
        self.loop.call_later(self.boots if boots is None else boots, self._listens, kernel)
        return kernel

    def _listens(self, kernel):
        if kernel.dead or kernel is not self.kernel: return
        self.place.listen(kernel)
        kernel.say_hello()

    def _died(self, code):
        self.watch('died', kernel=self.kernel)
        self.place.leave(self.lose)

    def kill(self, code=-9):
        self.kernel.die(code)

    def swap(self, silent=False, gap=0.):
        "Somebody else restarts it: `silent`, so that no connection breaks"
        old = self.kernel
        old.stop(0)
        self.watch('died', kernel=old)
        if not silent: self.place.leave(self.lose)
        kernel = self.start(boots=gap)
        if silent: self.place.listen(kernel)

    async def restart(self, now=False):
        async with self.turn: await self._restart(now)

    async def _restart(self, now):
        old = self.kernel
        self.tell('restart_begins', old.code if old.dead else None)
        try:
            if not now and not old.dead:
                old.interrupt()
                gone = asyncio.Event()
                old.ended = lambda: (old.die(0), gone.set())
                self.loop.call_later(self.lingers, old.ended)
                try: await asyncio.wait_for(gone.wait(), self.patience)
                except TimeoutError: pass
            old.die(-9)
            await asyncio.sleep(0)
            if self.fails:
                self.fails -= 1
                raise RuntimeError('no more processes')
            self.start()
        except BaseException as e:
            self.tell('restart_ends', e)
            raise
        self.tell('restart_ends')

    async def alive(self): return not self.kernel.dead
    async def exit_code(self): return self.kernel.code if self.kernel.dead else None
    async def interrupt(self):
        if self.by_message: return False
        self.kernel.interrupt()
        return True

    def start_restarter(self, times=100):
        self.restarter = self.loop.create_task(self._watch(times))

    async def _watch(self, times):
        while True:
            await asyncio.sleep(self.poll)
            if not self.kernel.dead or self.turn.locked(): continue
            times -= 1
            if times < 0: break
            try: await self.restart(now=True)
            except RuntimeError: pass
        self.restarter = None
        self.tell('restart_ends', 'it died too often', 'gave up')
