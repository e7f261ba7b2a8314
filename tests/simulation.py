"""Random stories of clients and kernels, in virtual time, and the rules that each of them must keep.

`python tests/simulation.py SEED EVENTS` plays one story and prints it; `--shrink` looks for its shortest part that
breaks the same rule, `--all` stops at faults that are known, too. A story depends on its seed only: no clock, no id and
no order of a set decides anything.

What happens: sends, runs, replies, lost halves, duplicates, late messages, flaps of each link, frozen kernels, deaths,
restarts (by us, by a restarter, by somebody else with and without a broken connection), cancels, time limits, hooks
that raise or never end, prompts, subshells, interrupts, and two clients of one kernel.

The rules:
- Each call ends with its own answer, or with an error that has its cause in the story; at the end of a story, within a
  bounded time.
- What was asked of one kernel process never runs in another, once the client can know that there is another; what is
  asked after the beginning of a restart never runs in the old process.
- What its caller gave up before it was sent is never sent.
- The window of a shell holds, and there is one run of a shell at a time; what can be sent is sent; the order of each
  shell is kept.
- Requests wait for a lost iopub as long as they should, and control does not.
- An interrupt reaches the run it was meant for.
- The holds of all lanes are those of `Life`, and they fit its state.
- At the end nothing is left: in the table, the lanes, the grace times, the mailboxes, and no task.
"""
import asyncio, logging, random, re, sys
from collections import Counter
from contextlib import suppress

from conkernelclient.cells.outputs import ExecutionError, ExecutionTimeout
from conkernelclient.engine.errors import *
from conkernelclient.engine.lane import Hold
from conkernelclient.engine.life import Link, State
from conkernelclient.engine.transport import NoHost
from memory_transport import MemoryClient, MemoryTransport, Place
from model_kernel import Machine, loads
from virtual_time import Stuck, run_virtual

EPS = 1e-6
MAY_LACK = 4.6   # seconds after a break of iopub in which nobody can say that nothing was lost: 3 s, the way back, .5 s
RESTARTING = State.ENDING, State.COMING

LATE = 'a late reply to what has failed'
EARLY = 'asked while starting'
UNNOTICED = 'a late reply of another kernel is not noticed'
KNOWN: set[str] = set()   # faults of the library that are known: stories go on where they meet them


class Violation(AssertionError):
    "A rule was broken"

class HookError(Exception):
    "Raised by a hook"


class Ask:
    "One call of a client, and what was known when it was made"
    over = replied = sent = False
    cancelled = wanted_end = False     # by us
    cut = False                        # was it interrupted?
    check = got = False
    closing = sub_gone = False         # is its subshell being left?
    dropped = float('inf')   # when the only task that waited was cancelled
    error = end = result = shell = subshell = timeout = queue_timeout = hook = msg_id = None
    sent_at = None
    heard = None    # when its error reply came: a number, and seconds
    def __init__(self, player, kind, tag='', words=(), **kwargs):
        sim, life = player.sim, player.life
        self.player, self.kind, self.tag, self.words = player, kind, tag, words
        self.at = sim.now
        self.number = next(sim.numbers)
        self.meant_for()
        self.serial = sim.machine.kernel.serial
        self.dead = sim.machine.kernel.dead
        self.state = life.state
        self.nameless = life.session is None and life.state is State.STARTING   # no kernel has said yet who it is
        iopub = player.transport.lines.get('iopub')
        self.deaf = iopub is None or not iopub.up    # is iopub away?
        self.__dict__.update(kwargs)

    def meant_for(self):
        "Which process it is for, as far as its client can know now"
        p = self.player
        self.knows, self.least, self.announced = p.knows, p.least, p.announced
        self.restarting = p.life.state in RESTARTING

    def __repr__(self): return f'{self.player.name}.{self.kind}({" ".join([self.tag, *self.words])})'


class SpyTransport(MemoryTransport):
    "Tells the player what goes in and out, one message at a time"
    player = None
    def send(self, channel, packed):
        self.player.sends(channel, packed)
        super().send(channel, packed)

    def _hand_over(self, channel):
        box, sink = self.inbox[channel], self._sink()
        if sink is None or self.closed: return box.clear()
        while box:
            frames = box.popleft()
            if channel in ('shell', 'control'): self.player.hears(frames)
            elif channel == 'iopub' and b'iopub_welcome' in frames[1]: self.player.told('iopub', Link.UP)
            sink.received(channel, type(box)([frames]), float('inf'))

    def tell(self, channel, link):
        self.player.told(channel, link)
        super().tell(channel, link)


class SpyClient(MemoryClient):
    transport_class = SpyTransport


class PlayersHost:
    "The machine as one client sees it"
    def __init__(self, player, machine): self.player, self.machine = player, machine
    def __getattr__(self, name): return getattr(self.machine, name)
    async def interrupt(self):
        if self.machine.by_message: return False
        self.machine.kernel.interrupt(self.player.name)
        return True


class Player:
    "A client, and what it can know"
    def __init__(self, sim, name, managed, **kwargs):
        self.sim, self.name, self.managed = sim, name, managed
        self.knows = -1         # the newest process of which it has a reply
        self.learned = None     # when that came first
        self.by_late = False    # was that reply one that nobody waited for?
        self.announced = 0      # restarts that its host has told
        self.least = 0          # the first process that what it asks now may reach
        self.links = {}         # what it was told last: link, when, its state and generation then
        self.breaks = []        # when its shell connection broke
        self.iopub_breaks = []
        self.deaths = []        # when it took the kernel for dead
        self.anything = 0       # calls of `interrupt` that may hit anything
        self.ids = {}           # what claims its messages, by message id
        self.mail = {}          # what does not
        self.subs = []
        self.aborting = {}      # by shell: since when it is held
        host = PlayersHost(self, sim.machine) if managed else NoHost()
        self.kc = SpyClient(sim.place, host, name, clock=sim.loop.time, **kwargs)
        self.life, self.router = self.kc.connection.life, self.kc.router
        self.transport = self.kc.connection.transport
        self.transport.player = self
        if managed: sim.machine.clients.append(self.kc)
        self.kc.on_status(self.status)
        self.was = 'closed'
        self.early = False      # did its connection break before it was ready?
        self.kc.start_channels()

    def status(self, status):
        self.sim.note(f'{self.name} is {status}')
        if status == 'dead': self.deaths.append(self.sim.now)
        if self.was == 'restarting' and status in ('ready', 'busy'):
            for o in self.sim.pending:
                if o.player is self and o.restarting: o.meant_for()
        self.was = status

    def told(self, channel, link):
        if channel not in ('shell', 'iopub'): return
        self.sim.note(f'{self.name} is told: {channel} {link.value}')
        self.links[channel] = link, self.sim.now, self.life.state, self.life.generation

    def hears(self, frames):
        session = loads(frames[1])['session']
        serial = int(session.removeprefix('kernel-'))
        parent = loads(frames[2]).get('msg_id')
        ask = self.ids.get(parent)
        if serial > self.knows:
            self.knows, self.learned = serial, self.sim.now
            self.by_late = parent not in self.router.table
        if ask is not None: ask.replied = True
        ask = ask or self.mail.get(parent)
        if ask is not None: self.hears_status(ask, loads(frames[4]))

    def hears_status(self, ask, content):
        "What was asked after an error reply is not aborted because of that error"
        if content.get('status') == 'error' and ask.heard is None: ask.heard = next(self.sim.numbers), self.sim.now
        cause = self.sim.asks.get(content.get('because'))
        if cause is None or cause.player is not self or cause.heard is None: return
        number, at = cause.heard
        if number > ask.number or ask.sent_at >= at+self.router.grace-EPS: return   # (a hold ends after the grace time)
        self.sim.fail(f'{ask} was asked after the error reply to {cause}, and is aborted because of it')

    def sends(self, channel, packed):
        sim = self.sim
        header = loads(packed[1])
        content = loads(packed[4])
        code = content.get('code') or content.get('tag')
        if not code: return
        ask = sim.asks.get(code.split()[0])
        if ask is None: return
        if sim.verbose: sim.note(f'{self.name} sends {ask}')
        if ask.over: sim.fail(f'{ask} was sent after its end')
        if ask.sent: sim.fail(f'{ask} was sent twice')
        ask.sent, ask.sent_at = True, sim.now
        ask.msg_id = header['msg_id']
        ask.sent_knows, ask.sent_announced = self.knows, self.announced
        ask.shell = 'control' if channel == 'control' else header.get('subshell_id')
        (self.mail if ask.kind == 'post' else self.ids)[ask.msg_id] = ask
        if ask.kind != 'run':
            shell = self.router.shells.get((channel, header.get('subshell_id')))
            sent = [o for o in sim.pending if o.player is self and o.shell == ask.shell and o.sent and not o.replied]
            on_wire = sum(o.kind in ('request', 'execute') and o.msg_id in self.router.table for o in sent)
            if on_wire > self.router.window: sim.fail(f'{on_wire} on the wire, the window is {self.router.window}')
        link, at, state, generation = self.links.get('iopub', (None, 0, None, 0))
        same = state is State.READY is self.life.state and generation == self.life.generation
        if channel == 'shell' and link is Link.DOWN and same and sim.now < at+3-EPS:
            sim.fail(f'{ask} was sent {sim.now-at:.2f} s after iopub was lost, not 3 s')

    def check(self):
        "What has to hold after each event"
        life, router, sim = self.life, self.router, self.sim
        def need(ok, why, known=None):
            if not ok: sim.fail(f'{self.name}: {why}; {life}', known)
        if life.state is State.CLOSED: return
        need((Hold.RESTART in life.holds) == (life.state in RESTARTING), 'the RESTART hold and the state differ')
        if life.state in (State.NEW, State.STARTING, State.DEAD): need(not life.holds, 'held')
        need(Hold.INTERRUPT not in life.holds, 'the interrupt of a lane holds all')
        for (channel, _), shell in router.shells.items():
            holds = {o for o in life.holds if o is not Hold.IOPUB_DOWN or channel == 'shell'}
            need(shell.holds-{Hold.ABORTING} == holds, f'{shell} has other holds')
            if Hold.ABORTING not in shell.holds: self.aborting.pop(shell, None)
            since = self.aborting.setdefault(shell, sim.now) if Hold.ABORTING in shell.holds else sim.now
            need(sim.now <= since+router.grace+EPS, f'{shell} was held for {sim.now-since:.2f} s')
            need(channel == 'shell' or Hold.ABORTING not in shell.holds, f'{shell}: control is never held by an error')
            need(shell.on_wire <= shell.limit, f'{shell} has more than its limit')
            stopped = shell.holds or shell.on_wire >= shell.limit
            need(not shell.waiting or stopped, f'{shell} does not send what may go')
        interrupts = self.kc.runs.interrupts
        for o in self.kc.runs.shells.values():
            need(o.lane.holds-{Hold.INTERRUPT} == life.holds, f'{o.lane} has other holds')
            need(o.lane.on_wire <= 1, f'{o.lane} has more than one')
            need(not o.lane.waiting or o.lane.holds or o.lane.on_wire, f'{o.lane} does not send what may go')
        held = Hold.INTERRUPT in interrupts.lane.holds
        need(held == (interrupts.under_way > 0), 'the INTERRUPT hold is not that of an interrupt')
        if Hold.IOPUB_DOWN in life.holds and life.state is State.READY and self.links.get('iopub'):
            link, at, *_ = self.links['iopub']
            patience = .5 if link is Link.UP else 3
            need(sim.now <= at+patience+EPS, f'held for {sim.now-at:.2f} s since iopub is {link}')
        need(router.graces.keys() <= router.table.keys(), 'a grace time of nothing')
        for o in router.table.values(): need(not o.ended, f'{o} has ended')
        need(len(router.abandoned) <= 4096 and len(router.foreign) <= 1000, 'unbounded')
        for o in router.mailboxes.values(): need(len(o) <= o.maxlen, f'the {o.channel} mailbox is unbounded')
        if life.state is State.READY and not life.holds and self.knows >= 0:
            why = f'it is ready for {life.session}, and has a reply of kernel {self.knows}'
            need(life.session == f'kernel-{self.knows}', why, UNNOTICED if self.by_late else EARLY if self.early else None)

    def empty_mail(self):
        "What no request has claimed must be what nobody asked for, once"
        for channel in 'shell', 'control':
            box, seen = self.router.mailboxes[channel], Counter()
            while (msg := box.pop()) is not None:
                parent = msg['parent_header'].get('msg_id')
                seen[parent] += 1
                if parent in self.ids:
                    ask = self.ids[parent]
                    self.sim.fail(f'{self.name}: a reply to {ask} is in the mailbox', LATE if ask.error is not None else None)
                ask = self.mail.get(parent)
                if ask is not None:
                    if ask.got: self.sim.fail(f'{self.name}: {ask} was replied twice', LATE if self.life.generation else None)
                    ask.got = True
        for channel in 'iopub', 'stdin':
            while self.router.mailboxes[channel].pop() is not None: pass


OPS = dict(run=20, request=8, execute=12, post=4, control=4, run_sub=6, ask_sub=3, open_sub=2, close_sub=2, map=1,
           cancel=8, drop_task=3, cancel_all=1, interrupt=2, interrupt_run=2, ready=2, read=3, new_client=.5, pause=3,
           flap_iopub=5, flap_shell=3, flap_both=1, freeze=1, kill=1, restart=2, kc_restart=1, fail_restart=.3,
           swap=1, swap_silent=1)


def story(seed, events):
    "The events of a story, each with a number from which its details come"
    rng = random.Random(seed)
    names, weights = zip(*OPS.items())
    return [(o, rng.getrandbits(32)) for o in rng.choices(names, weights, k=events)]


class Simulation:
    "Plays one story"
    readies = .9     # how many begin with a kernel that is ready
    def __init__(self, seed, ops, verbose=False, known=KNOWN):
        self.known = known
        self.seed, self.ops, self.verbose = seed, ops, verbose
        self.asks = {}          # by tag
        self.pending = {}       # asks that have not ended (a dict, for its order)
        self.numbers = iter(range(10**9))
        self.deaths = []        # when, which process
        self.failure = None
        self.stats = Counter()
        self.last_arrival = {}

    now = property(lambda self: self.loop.time())

    def note(self, what):
        if self.verbose: print(f'{self.now:9.4f}  {what}')

    def fail(self, why, known=None):
        "A rule is broken. (What is raised here may be caught on its way, so it is kept.)"
        if known in self.known:
            self.stats[known] += 1
            return
        self.note(f'!!! {why}')
        self.keep(f'{why} (at {self.now:.4f} s; seed {self.seed}, {len(self.ops)} events)')
        raise self.failure

    def keep(self, why):
        if self.failure is None: self.failure = Violation(why)

    # --- the world

    async def begin(self):
        rng = random.Random(self.seed*7919+1)
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self.loop_failed)
        slow = rng.choice([0, .0002, .002, .02])
        delays = random.Random(self.seed*7919+2)
        self.place = Place(lambda: delays.expovariate(1/slow) if slow and delays.random() < .7 else 0.)
        self.machine = m = Machine(self.place, welcomes=rng.random() < .7, on_received=self.received, on_cut=self.cut)
        m.watch = self.watch
        m.boots = rng.choice([0, .05, .4, 1.5])
        m.lingers = rng.choice([0, .3, 1.5, 9])
        m.by_message = rng.random() < .3
        m.lose = rng.random() < .5
        m.aborts_for = random.Random(self.seed*7919+3).choice([0, 0, .01, .3])
        m.poll = random.Random(self.seed*7919+4).choice([1, .1])   # a restarter, or the manager's `restart_on_death`
        self.managed = rng.random() < .6
        m.start()
        if self.managed and rng.random() < .4: m.start_restarter(times=rng.choice([1, 100]))
        count = rng.choice([1, 1, 2])
        self.window = rng.choice([1, 2, 8, 256])
        self.settings = [dict(window=self.window, grace=rng.choice([.5, 3.]), unclaimed=200,
                              lost_after=rng.choice([.6, 5.])) for _ in range(count)]
        managed = [self.managed and (i == 0 or rng.random() < .5) for i in range(count)]
        self.players = [Player(self, f'k{i}', managed[i], **self.settings[i]) for i in range(count)]
        self.clients = count
        if rng.random() < self.readies:
            for o in self.players: self.call(Ask(o, 'ready'), o.kc.wait_for_ready(timeout=60))
            await asyncio.sleep(3)

    def loop_failed(self, loop, context):
        error = context.get('exception')
        if isinstance(error, Violation): return
        self.note(f'loop: {context}')
        self.keep(f"The loop reports {context.get('message')}: {error!r} (seed {self.seed}, {len(self.ops)} events)")

    def watch(self, what, kernel=None, args=()):
        self.note(f'machine: {what}' + ('' if kernel is None else f' {kernel.session}') + (f' {args}' if args else ''))
        if what == 'died':
            self.deaths.append((self.now, kernel.serial))
            for o in self.players: self.broke(o)
        if what == 'restart_begins':
            for o in self.players:
                if o.managed:
                    o.announced += 1
                    o.least = max(o.least, self.machine.kernel.serial+1)
        if what == 'restart_ends' and args: self.deaths.append((self.now, 10**6))

    def broke(self, player):
        if player.life.state is State.STARTING: player.early = EARLY in self.known
        player.breaks.append(self.now)
        player.iopub_breaks.append(self.now)

    def received(self, kernel, shell, msg):
        "A message has reached a kernel process"
        tag = msg.words['tag'] or msg.get('tag')
        ask = self.asks.get(tag)
        if ask is None: return
        self.note(f'{kernel.session} gets {ask}')
        if kernel.serial < ask.least:
            self.fail(f'{ask} was asked after the beginning of a restart, and runs in the old kernel {kernel.serial}')
        newer = kernel.serial > ask.knows >= 0 and not ask.restarting and not ask.nameless
        if newer and (ask.sent_knows >= kernel.serial or ask.sent_announced > ask.announced):
            first = ask.sent_knows >= kernel.serial and ask.sent_at == ask.player.learned
            known = (EARLY if ask.state is State.STARTING else UNNOTICED if ask.player.by_late else
                     'sent before the other kernel is noticed' if first else None)
            self.fail(f'{ask} was asked of kernel {ask.knows}, and runs in kernel {kernel.serial}', known)
        key = ask.player, kernel.serial, shell.id, ask.kind == 'run'
        if self.last_arrival.get(key, -1) > ask.number: self.fail(f'{ask} comes out of turn')
        self.last_arrival[key] = ask.number
        if ask.kind == 'run':
            for o in (shell.msg, *shell.queue):
                other = o is not None and self.asks.get(o.words['tag'])
                if other and other.kind == 'run' and other.player is ask.player:
                    self.fail(f'{ask} was sent while {other} is under way')

    def cut(self, kernel, msg, by):
        ask = self.asks.get(msg.words['tag'])
        self.note(f'{ask} is interrupted, by {by}')
        if ask is None: return
        ask.cut = True
        player = ask.player
        # an interrupt_request that was sent while nobody listened reaches the next kernel
        strays = (self.machine.by_message or not player.managed) and (player.breaks or ask.state is State.STARTING)
        if ask.kind == 'run' and by == player.name and not ask.wanted_end and not player.anything and not strays:
            self.fail(f'{ask} was interrupted, and nobody wanted that')

    # --- calls, and how they end

    def call(self, ask, awaitable):
        "A coroutine, as a call that must end"
        task = self.loop.create_task(awaitable)
        return self.follow(ask, task)

    def follow(self, ask, awaitable):
        ask.awaitable = awaitable
        self.pending[ask] = None
        awaitable.add_done_callback(lambda o: self.ended(ask, o))
        return ask

    def ended(self, ask, awaitable):
        self.pending.pop(ask, None)
        ask.over, ask.end = True, self.now
        self.stats[ask.kind] += 1
        error = result = None
        if awaitable.cancelled(): error = asyncio.CancelledError()
        elif (error := awaitable.exception()) is None: result = awaitable.result()
        ask.error = error
        self.note(f'{ask} ends with {error!r}' if error is not None else f'{ask} has its answer')
        if isinstance(error, Violation): return
        if error is None: self.judge_answer(ask, result)
        else: self.judge_error(ask, error)

    def judge_answer(self, ask, result):
        if self.now > ask.dropped+EPS:
            self.fail(f'{ask} has an answer, though its task was cancelled {self.now-ask.dropped:.2f} s before')
        if ask.kind in ('request', 'execute', 'control'):
            if result['parent_header']['msg_id'] != ask.awaitable.msg_id: self.fail(f'{ask} has the answer to another one')
            code = result['content'].get('code')
            if ask.kind == 'execute' and code and code.split()[0] != ask.tag: self.fail(f'{ask} has the reply of {code}')
        if ask.kind == 'run' and result.status is not None: self.judge_result(ask, result)
        if ask.kind == 'map':
            for o, tag in zip(result, ask.words):
                if o.status == 'ok' and set(o.text.split(';'))-{tag, ''}: self.fail(f'{ask} has {o.text!r} for {tag}')

    def judge_result(self, ask, result):
        text, one = result.text, ask.tag+';'
        if result.error is not None: text = text.split(result.error.ename)[0]
        rest = result.stdout.replace(one, '')
        if rest and not ('ask' in ask.words and rest.startswith('[')): self.fail(f'{ask} has the output {result.stdout!r}')
        lost = ask.deaf or any(ask.at <= o+MAY_LACK for o in ask.player.iopub_breaks)
        out = next((int(o[4:]) for o in ask.words if o.startswith('out=')), 1)
        if result.status == 'ok' and result.complete and result.stdout.count(one) != out:
            why = f'{ask} is complete, and has {result.stdout.count(one)} of {out} outputs'
            self.fail(why, 'complete without outputs' if lost else None)
        halves = any(o in ask.words for o in ('lose=reply', 'lose=idle'))
        closed = ask.player.life.state is State.CLOSED
        if not result.complete and ask.state is not State.STARTING and not lost and not halves and not closed and not self.may_lack_reply(ask):
            self.fail(f'{ask} is incomplete, and nothing was lost', UNNOTICED if ask.player.by_late else None)
        if result.status == 'error' and result.error.ename == 'KeyboardInterrupt' and not ask.cut:
            self.fail(f'{ask} was not interrupted')

    def restarted_since(self, ask):
        "Is there a reason for a `KernelRestartedError`?"
        if any(at >= ask.at-EPS and serial >= ask.least for at, serial in self.deaths): return True
        if any(o >= ask.at-EPS for o in ask.player.deaths): return True   # (though it may then find the same one)
        if ask.player.announced > ask.announced: return True
        return ask.serial > max(ask.knows, ask.least) or ask.dead and ask.serial >= ask.least

    def may_lack_reply(self, ask):
        if any(o in ('lose=reply', 'twice=idle') or o.startswith('late') for o in ask.words): return True
        if ask.cut or ask.wanted_end or ask.sub_gone or ask.subshell is not None and ask.subshell.closing: return True
        return any(ask.at-1 <= o for o in ask.player.breaks) or self.restarted_since(ask)

    def judge_error(self, ask, error):
        player, kind = ask.player, type(error)
        def need(ok, known=None):
            if not ok: self.fail(f'{ask} ended with {error!r}, without a cause', EARLY if player.early else known)
        if kind is asyncio.CancelledError:
            closed = player.life.state is State.CLOSED
            if not ask.cancelled and not ask.sub_gone:
                self.fail(f'{ask} was cancelled, and nobody did that', 'cancelled by closing' if closed else None)
        elif kind is ClientClosedError: need(player.life.state is State.CLOSED)
        elif kind is KernelRestartedError:
            old = 'an old death' if 'is being restarted' in str(error) else None
            need(self.restarted_since(ask), UNNOTICED if player.by_late else old)
        elif kind is DeadKernelError:
            # without a host, a connection that is away for a while counts as a death
            need(any(ask.at-EPS <= at for at, _ in self.deaths) or ask.dead or not player.managed and bool(player.breaks)
                 or self.restarted_since(ask))
        elif kind is ReplyTimeout:
            if ask.kind in ('sub', 'map'): return
            held = ask.kind == 'poke' and Hold.SHELL_DOWN in player.life.holds
            need(ask.timeout is not None and self.now >= ask.at+ask.timeout-EPS, 'a lost fence' if held else None)
            if ask.timeout is None: return
            if self.now > ask.at+ask.timeout+EPS: self.fail(f'{ask} timed out late, after {self.now-ask.at:.2f} s')
        elif kind is ExecutionTimeout:
            least = min(o for o in (ask.timeout, ask.queue_timeout, 10**9) if o is not None)
            need(least < 10**9 and self.now >= ask.at+least-EPS)
        elif kind is NoReplyError: need(self.may_lack_reply(ask))
        elif kind is HookError: need(ask.hook in ('raises', 'raises late'))
        elif kind is ExecutionError: need(ask.kind == 'map' or ask.check)
        elif kind is UnsupportedFeature: need(ask.kind in ('sub', 'map') or ask.kind == 'kc_restart' and not player.managed)
        elif kind is RuntimeError and ask.kind in ('ready', 'kc_restart'):
            need("didn't respond" in str(error) or 'no more processes' in str(error))
        else: need(False)

    # --- what players do

    def words(self, rng, run=False):
        words = []
        if rng.random() < .5: words.append(f'take={rng.choice([.001, .01, .05, .2, 1.5])}')
        if rng.random() < .2: words.append(f'out={rng.choice([0, 2, 5])}')
        o = rng.random()
        if o < .05: words.append('error')
        elif o < .08: words.append('lose=reply')
        elif o < .11: words.append('lose=idle')
        elif o < .13: words.append('lose=busy')
        elif o < .17: words.append('twice=reply')
        elif o < .18: words.append('twice=idle')
        elif o < .20: words.append(f'late={rng.choice([.001, .1, 4])}')
        elif o < .21: words.append('deaf')
        elif o < .22 and rng.random() < .3: words.append('die=1')
        elif run and o < .26: words.append('hang')
        elif run and o < .30: words.append('ask')
        return words

    def hook(self, rng, ask):
        "A hook for each output, or None"
        ask.hook = rng.choice([None]*14+['raises', 'raises late', 'never ends', 'takes time'])
        async def late(seconds, error=None):
            await asyncio.sleep(seconds)
            if error is not None:
                ask.wanted_end = True
                raise error
        def raises(o):
            ask.wanted_end = True
            raise HookError
        return {None: None, 'raises': raises, 'raises late': lambda o: late(.02, HookError()),
                'never ends': lambda o: late(1e6), 'takes time': lambda o: late(.05)}[ask.hook]

    def new_ask(self, rng, player, kind, run=False, **kwargs):
        tag = f'{kind[0]}{len(self.asks)}'
        words = self.words(rng, run) if kind in ('run', 'execute', 'post') else ()
        ask = self.asks[tag] = Ask(player, kind, tag, words, **kwargs)
        ask.code = ' '.join([tag, *ask.words])
        return ask

    def try_call(self, ask, f):
        "A call may raise at the call itself"
        self.note(f'{ask}')
        try: awaitable = f()
        except Violation: raise
        except Exception as e:
            ask.over = True
            return self.judge_call_error(ask, e)
        return self.follow(ask, awaitable)

    def judge_call_error(self, ask, error):
        self.note(f'{ask} raises {error!r}')
        sub = ask.subshell
        if sub is not None and type(error) is RuntimeError and sub.over: return
        if type(error) is KernelRestartedError:
            if sub is None or not self.restarted_since(sub):
                self.fail(f'{ask} raises {error!r}, without a cause', UNNOTICED if ask.player.by_late else None)
        elif type(error) is DeadKernelError:
            if ask.player.life.state is not State.DEAD: self.fail(f'{ask} raises {error!r}, and nobody says that it is dead')
        elif type(error) is ClientClosedError:
            if ask.player.life.state is not State.CLOSED: self.fail(f'{ask} raises {error!r}')
        else: self.fail(f'{ask} raises {error!r}')

    def do_run(self, rng, player, sub=None):
        ask = self.new_ask(rng, player, 'run', True, subshell=sub)
        kwargs = {}
        if 'hang' in ask.words and sub is not None: ask.words, ask.code = (), ask.tag
        if rng.random() < .25 or 'hang' in ask.words: ask.timeout = kwargs['timeout'] = rng.choice([.01, .3, 2.])
        if rng.random() < .1: ask.queue_timeout = kwargs['queue_timeout'] = rng.choice([.01, .5, 3.])
        if rng.random() < .2: ask.check = kwargs['check'] = True
        if (hook := self.hook(rng, ask)) is not None: kwargs['on_output'] = hook
        if 'ask' in ask.words and rng.random() < .8: kwargs['stdin'] = self.answers(rng, ask)
        self.try_call(ask, lambda: (sub.shell if sub else player.kc).run(ask.code, **kwargs))
        limit = min(ask.timeout or 99, ask.queue_timeout or 99)
        if limit < 99: self.loop.call_later(limit, self.wants_end, ask)
        if not ask.over and rng.random() < .15: self.through_task(ask, ask.awaitable, rng.random() < .2)

    def wants_end(self, ask): ask.wanted_end = True

    def answers(self, rng, ask):
        async def slow(prompt):
            await asyncio.sleep(.1)
            return 'slow'
        def raises(prompt):
            ask.hook = 'raises'
            ask.wanted_end = True
            raise HookError
        return rng.choice([lambda prompt: 'me', slow, ['listed'], raises])

    def through_task(self, ask, awaitable, drop=False):
        "A task awaits it, so that cancelling the task cancels it"
        ask.task = self.loop.create_task(awaitable)
        ask.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        if drop: self.drop(ask)   # before its first step

    def do_request(self, rng, player, sub=None, channel='shell', kind='request'):
        ask = self.new_ask(rng, player, kind, subshell=sub)
        if rng.random() < .2: ask.timeout = rng.choice([.001, .1, 2.])
        target = sub.shell if sub else player.kc
        kwargs = dict(timeout=ask.timeout) if sub else dict(timeout=ask.timeout, channel=channel)
        self.try_call(ask, lambda: target.request('history_request', dict(tag=ask.tag), **kwargs))
        self.sent_now(ask, channel, sub)

    def sent_now(self, ask, channel, sub):
        "Control does not wait for iopub, and nothing waits where nothing holds it"
        if ask.over or ask.sent: return
        player = ask.player
        shell = player.router.shells[channel, sub.shell.id if sub else None]
        holds = player.life.holds-({Hold.IOPUB_DOWN} if channel == 'control' else set()) | (shell.holds & {Hold.ABORTING})
        if not holds and shell.on_wire < shell.limit: self.fail(f'{ask} was not sent')

    def do_execute(self, rng, player, sub=None):
        ask = self.new_ask(rng, player, 'execute', subshell=sub)
        if rng.random() < .2: ask.timeout = rng.choice([.001, .1, 2.])
        target = sub.shell if sub else player.kc
        stop = rng.random() < .5
        if rng.random() < .3 and sub is None:
            hook = self.hook(rng, ask)
            content = dict(code=ask.code, silent=False, store_history=True, user_expressions={}, allow_stdin=False,
                           stop_on_error=stop)
            self.try_call(ask, lambda: target.request('execute_request', content, timeout=ask.timeout, on_iopub=hook))
            if not ask.over and rng.random() < .8:
                ask.end_ask = end = Ask(player, 'end', ask.tag, ask.words, hook=ask.hook, timeout=ask.timeout)
                self.follow(end, ask.awaitable.wait())
        else: self.try_call(ask, lambda: target.execute(ask.code, reply=True, timeout=ask.timeout, stop_on_error=stop))
        self.sent_now(ask, 'shell', sub)
        if not ask.over and rng.random() < .15: self.through_task(ask, ask.awaitable, rng.random() < .2)

    def do_post(self, rng, player):
        ask = self.new_ask(rng, player, 'post')
        self.note(f'{ask}')
        try: ask.msg_id = player.kc.execute(ask.code)
        except Exception as e: return self.judge_call_error(ask, e)

    def do_control(self, rng, player): self.do_request(rng, player, channel='control', kind='control')

    def open_subs(self, player): return [o for o in player.subs if o.shell is not None and not o.closing]

    def do_run_sub(self, rng, player):
        if subs := self.open_subs(player): self.do_run(rng, player, rng.choice(subs))

    def do_ask_sub(self, rng, player):
        if subs := self.open_subs(player): rng.choice([self.do_request, self.do_execute])(rng, player, rng.choice(subs))

    def do_open_sub(self, rng, player):
        if len(player.subs) > 3: return
        sub = Ask(player, 'sub', f's{len(self.asks)}', shell=None, closing=False, leave=asyncio.Event())
        self.asks[sub.tag] = sub
        self.note(f'{sub}')
        player.subs.append(sub)
        sub.by_error = rng.random() < .3
        async def use():
            try:
                async with player.kc.subshell() as sh:
                    sub.shell = sh
                    await sub.leave.wait()
                    sub.closing = True
                    self.note(f'{sub} is left')
                    if sub.by_error: raise HookError
            except HookError: pass
            finally:
                sub.closing = True
                player.subs.remove(sub)
        self.call(sub, use())

    def do_close_sub(self, rng, player):
        if subs := self.open_subs(player): self.leave(rng.choice(subs))

    def leave(self, sub):
        sub.leave.set()
        for o in list(self.pending):
            if o.subshell is sub: o.sub_gone = o.wanted_end = True

    def do_map(self, rng, player):
        if 'kernel subshells' not in (player.kc.connection.info.get('supported_features') or ()): return
        tags = [f'm{next(self.numbers)}' for _ in range(rng.randint(1, 6))]
        codes = [f'{o} take=.05' for o in tags]
        self.call(Ask(player, 'map', 'map', tags), player.kc.map(codes, concurrency=rng.randint(1, 3)))

    def choose(self, rng, player, *kinds):
        asks = [o for o in self.pending if o.player is player and o.kind in kinds]
        return rng.choice(asks) if asks else None

    def do_cancel(self, rng, player):
        ask = self.choose(rng, player, 'run', 'run', 'execute', 'request', 'control')
        if ask is not None: self.give_up(ask)

    def give_up(self, ask):
        self.note(f'cancel {ask}')
        ask.cancelled = ask.wanted_end = True
        if hasattr(ask, 'end_ask'): ask.end_ask.cancelled = True
        ask.awaitable.cancel()

    def do_drop_task(self, rng, player):
        ask = self.choose(rng, player, 'run', 'execute')
        if ask is not None and hasattr(ask, 'task'): self.drop(ask)

    def drop(self, ask):
        self.note(f'cancel the task of {ask}')
        ask.cancelled = ask.wanted_end = True
        if hasattr(ask, 'end_ask'): ask.end_ask.cancelled = True
        ask.task.cancel()
        ask.dropped = self.now
        if ask.kind == 'run' and ask.subshell is None: self.loop.call_later(30, self.must_be_over, ask)

    def must_be_over(self, ask):
        if not ask.over and not ask.player.early: self.fail(f'{ask}: its task was cancelled, and it goes on')

    def do_cancel_all(self, rng, player):
        if player.life.state is State.CLOSED: return
        self.note(f'{player.name} cancels all')
        queue = [*player.kc.queue, *player.kc.runs.hooked]   # (also those of which only the hooks are still at work)
        for o in self.pending:
            if o.player is player and (o.kind == 'map' or o.kind == 'run' and o.awaitable in queue):
                o.cancelled = o.wanted_end = True
        player.kc.cancel_all()

    def do_interrupt(self, rng, player):
        player.anything += 1
        ask = self.call(Ask(player, 'interrupt'), player.kc.interrupt())
        self.note(f'{ask}')
        ask.awaitable.add_done_callback(lambda o: self.loop.call_later(10, self.nothing_more, player))

    def nothing_more(self, player): player.anything -= 1

    def do_interrupt_run(self, rng, player):
        ask = self.choose(rng, player, 'run')
        if ask is None or ask.subshell is not None: return
        ask.wanted_end = True
        self.note(f'interrupt {ask}')
        self.follow(Ask(player, 'stop', cancelled=True), ask.awaitable.interrupt())

    def do_ready(self, rng, player):
        self.call(Ask(player, 'ready'), player.kc.wait_for_ready(timeout=rng.choice([.05, 2, 60])))

    def do_new_client(self, rng, player):
        self.note(f'{player.name} closes')
        player.kc.stop_channels()
        if player.kc in self.machine.clients: self.machine.clients.remove(player.kc)
        i = self.players.index(player)
        player.empty_mail()
        for sub in list(player.subs): self.leave(sub)
        self.clients += 1
        self.players[i] = Player(self, f'k{self.clients-1}', player.managed, **self.settings[i])
        self.call(Ask(self.players[i], 'ready'), self.players[i].kc.wait_for_ready(timeout=60))

    def do_read(self, rng, player): player.empty_mail()
    def do_pause(self, rng, player): pass

    # --- what happens to them

    def flap(self, player, channels, seconds):
        lines = [player.transport.lines[o] for o in channels if o in player.transport.lines]
        if not any(o.up for o in lines): return
        self.note(f'{player.name} loses {", ".join(channels)} for {seconds} s')
        if 'shell' in channels: self.broke(player)
        elif 'iopub' in channels: player.iopub_breaks.append(self.now)
        for o in lines:
            if not o.blocked: o.block(seconds, lose=self.machine.lose)

    def gap(self, rng): return rng.choice([0., .01, .1, .4, .4, 2.])

    def do_flap_iopub(self, rng, player): self.flap(player, ['iopub'], rng.choice([.01, .1, 1., 2.5, 4.]))
    def do_flap_shell(self, rng, player): self.flap(player, ['shell', 'control', 'stdin'], self.gap(rng))
    def do_flap_both(self, rng, player): self.flap(player, ['shell', 'control', 'stdin', 'iopub'], self.gap(rng))

    def do_freeze(self, rng, player):
        seconds = rng.choice([.1, 2., 5.])
        self.note(f'{self.machine.kernel.session} is frozen for {seconds} s')
        self.machine.kernel.freeze(seconds)

    def do_kill(self, rng, player):
        if not self.machine.kernel.dead: self.machine.kill(rng.choice([-9, 1]))

    def do_restart(self, rng, player):
        "By the manager; where there is none for the clients, by somebody else's"
        self.note('the manager restarts it')
        self.call(Ask(player, 'manager'), self.managers_restart(rng.random() < .5))

    async def managers_restart(self, now):
        with suppress(RuntimeError): await self.machine.restart(now)

    def do_kc_restart(self, rng, player):
        ask = Ask(player, 'kc_restart')
        self.note(f'{ask}')
        self.call(ask, player.kc.restart(now=rng.choice([True, False, None]), timeout=30))

    def do_fail_restart(self, rng, player): self.machine.fails += 1

    def do_swap(self, rng, player, silent=False):
        if self.machine.turn.locked() or self.machine.kernel.dead: return
        self.note('somebody else restarts it' + (', and no connection breaks' if silent else ''))
        self.machine.swap(silent, self.gap(rng))

    def do_swap_silent(self, rng, player): self.do_swap(rng, player, True)

    # --- the play

    async def play(self):
        await self.begin()
        for op, number in self.ops:
            rng = random.Random(number)
            player = rng.choice(self.players)
            getattr(self, 'do_'+op)(rng, player)
            self.check()
            o = rng.random()
            pause = 0 if o < .5 else rng.expovariate(50) if o < .8 else .3 if o < .96 else 3.5 if o < .99 else 8.
            await asyncio.sleep(pause)
            self.check()
        await self.calm()
        await self.close()

    def check(self):
        if self.failure is not None: raise self.failure
        for o in self.players: o.check()

    def stuck_cell(self):
        "A cell that only an interrupt ends, and that nobody will interrupt any more"
        for shell in self.machine.kernel.shells.values():
            words = shell.msg.words if shell.msg is not None else ()
            if 'hang' in words or 'ask' in words or 'deaf' in words: return True
        return False

    async def calm(self):
        "Nothing bad happens any more: everything has to end"
        self.note('from here on, all is calm')
        self.machine.fails = 0
        for o in self.place.lines():
            if o.blocked: o.unblock()
        if self.machine.kernel.frozen: self.machine.kernel.thaw()
        await self.sleep(15)
        while self.machine.turn.locked(): await self.sleep(1)
        if self.machine.kernel.dead:
            with suppress(RuntimeError): await self.machine.restart(now=True)
        for o in self.players: self.call(Ask(o, 'ready'), o.kc.wait_for_ready(timeout=60))
        await self.sleep(5)
        for o in self.players:
            if o.life.state is State.DEAD and not self.machine.kernel.dead: self.fail(f'{o.name} takes the kernel for dead')
            for sub in list(o.subs): self.leave(sub)
        for o in list(self.pending):
            endless = o.hook == 'never ends' or 'hang' in o.words or 'ask' in o.words
            if endless and not o.cancelled and o.kind in ('run', 'execute', 'end'): self.give_up(o)
        for i in range(60):
            await self.sleep(2)
            if self.stuck_cell(): self.unstick()
            if self.machine.kernel.dead and not self.machine.turn.locked(): await self.managers_restart(True)
            if i == 20:   # a restart that broke no connection is noticed with the next reply only
                for o in self.players:
                    for channel in 'shell', 'control': self.call(Ask(o, 'poke'), self.poke(o, channel))
            if i == 27 and (self.pending or any(o.router.table for o in self.players)):   # and what was lost, with a fence
                for o in self.players: self.flap(o, ['shell', 'control', 'stdin'], .1)
            if i > 30 and not self.pending: break
        if self.pending:
            early = all(o.state is State.STARTING or o.player.early for o in self.pending)
            held = all(o.player.early or Hold.SHELL_DOWN in o.player.life.holds for o in self.pending)
            known = EARLY if early else 'a lost fence' if held else None
            self.fail(f'These calls never end: {list(self.pending)}', known)
            for o in list(self.pending): self.give_up(o)
        await self.sleep(5)
        for o in self.players: self.check_end(o)

    async def poke(self, player, channel):
        with suppress(KernelRestartedError, NoReplyError):
            await player.kc.request('kernel_info_request', channel=channel, timeout=30)

    def unstick(self):
        for shell in list(self.machine.kernel.shells.values()):
            if shell.msg is not None and {'hang', 'ask'} & shell.msg.words.keys():
                shell.cut = True
                self.machine.kernel.go_on(shell)

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)
        self.check()

    def check_end(self, player):
        router, runs, kernel = player.router, player.kc.runs, self.machine.kernel
        def need(ok, why):
            if not ok: self.fail(f'{player.name}, at the end: {why}')
        if player.early: return
        need(player.life.state is State.READY, player.life)
        if player.life.holds == {Hold.SHELL_DOWN}: return self.fail(f'{player.name}: {player.life}', 'a lost fence')
        need(not player.life.holds, player.life)
        need(player.life.session == kernel.session, f'{player.life.session} is not {kernel.session}')
        left = f'{player.name}, at the end: in the table: {router.table}'
        if any(o.header.get('subshell_id') and o.header['msg_type'] == 'kernel_info_request' for o in router.table.values()):
            return self.fail(left, 'a subshell is deleted in the next kernel')
        fences = all(o.header['msg_type'] == 'kernel_info_request' for o in router.table.values())
        if router.table: return self.fail(left, 'a fence for the next kernel' if fences else None)
        need(not router.graces, f'graces: {router.graces}')
        mine = {('shell', None), ('control', None), ('stdin', None)}
        need(set(router.shells) <= mine, f'shells are left: {router.shells}')
        need(set(runs.shells) <= {None}, f'runs are left: {runs.shells}')
        for o in (*router.shells.values(), *(s.lane for s in runs.shells.values())):
            need(not o.waiting and not o.under_way and not o.uncounted and not o.given_up, f'{o} is not empty')
        need(not player.kc.queue, f'queue: {player.kc.queue}')
        need(len(player.kc.connection.lanes) == 2, f'lanes: {player.kc.connection.lanes}')   # the main shell's, and the table of comms
        player.empty_mail()

    async def close(self):
        if self.machine.restarter is not None: self.machine.restarter.cancel()
        for o in self.players: o.kc.stop_channels()
        self.machine.kernel.stop()
        await asyncio.sleep(60)
        left = asyncio.all_tasks()-{asyncio.current_task()}
        hooks = all('_Hooked._after' in repr(o) or '.late' in repr(o) for o in left)
        if left: self.fail(f'Tasks are left: {left}', 'hooks outlive their request' if hooks else None)
        for o in left: o.cancel()
        await asyncio.sleep(0)
        if self.failure is not None: raise self.failure


def simulate(seed, events=100, ops=None, **kwargs):
    "Play a story. Raises `Violation`. Gives figures."
    sim = Simulation(seed, story(seed, events) if ops is None else ops, **kwargs)
    try: run_virtual(sim.play(), limit=100_000)
    except Violation: raise
    except Exception as e:
        if sim.failure is not None: raise sim.failure from e
        raise Violation(f'{e!r} (seed {seed}, {len(sim.ops)} events)') from e
    return sim.stats


def shrink(seed, ops):
    "The shortest part of a story that still breaks the same rule"
    def broken(ops):
        try: simulate(seed, ops=ops, known=KNOWN)
        except Violation as e: return re.sub(r'\(.*?\)|\d+(\.\d+)?', '', str(e))
    def fails(ops): return broken(ops) == rule
    rule = broken(ops)
    if rule is None: return ops
    size = len(ops)//2
    while size:
        i = 0
        while i < len(ops):
            less = ops[:i]+ops[i+size:]
            if fails(less): ops = less
            else: i += size
        size //= 2
    return ops


if __name__ == '__main__':
    logging.getLogger('traitlets').setLevel(logging.ERROR)
    seed, events = map(int, sys.argv[1:3])
    ops = story(seed, events)
    if '--all' in sys.argv: KNOWN = set()   # also the faults that are known
    if '--shrink' in sys.argv: ops = shrink(seed, ops)
    simulate(seed, ops=ops, verbose=True, known=KNOWN)
    print('all rules were kept')
