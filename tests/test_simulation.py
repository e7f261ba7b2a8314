"""The simulation keeps its rules; and it finds each of the bugs that the first cut had, where they are put back"""
import logging, os, subprocess, sys, time
from collections import Counter
from pathlib import Path

import pytest
from conkernelclient.cells.run import Run
from conkernelclient.cells.stop import Interrupts
from conkernelclient.cells.subshell import Subshell
from conkernelclient.engine import life, router
from conkernelclient.engine.connection import Connection
from conkernelclient.engine.errors import KernelRestartedError
from conkernelclient.engine.lane import Hold, Lane
from conkernelclient.engine.life import State
from conkernelclient.engine.router import Router
from simulation import KNOWN, Violation, simulate

EVENTS = 100   # in one story
FIRST = int(os.environ.get('SIMULATION_SEED', 0))   # of the seeds


@pytest.fixture(autouse=True)
def quiet():
    "What goes wrong in a story is logged, and a million events log a lot"
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def stories(count, events=EVENTS, first=FIRST):
    "Play stories until one fails. Gives figures."
    stats, began = Counter(), time.perf_counter()
    for seed in range(first, first+count):
        try: stats += simulate(seed, events)
        except Violation as e:
            pytest.fail(f'{e}\n\nThe story: python tests/simulation.py {seed} {events}; its shortest part: add --shrink')
    known = {o: stats.pop(o) for o in KNOWN if o in stats}
    took = time.perf_counter()-began
    return (f'{count*events:,} events in {count:,} stories, {sum(stats.values()):,} calls ended, {took:.0f} s\n'
            f'calls: {dict(stats.most_common())}\nknown faults met: {known}')


def test_ten_thousand_events(): print(stories(100))

@pytest.mark.slow
@pytest.mark.parametrize('part', range(20))
def test_a_million_events(part, capsys):
    "In parts of 50,000 events, so that one that fails leaves the others"
    figures = stories(500, first=FIRST+1_000_000+500*part)
    with capsys.disabled(): print(f'\n{figures}')


def trace(seed, hashes):
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests.parent), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONHASHSEED': str(hashes), 'PYTHONPATH': path}
    command = [sys.executable, tests/'simulation.py', str(seed), '150']
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout

@pytest.mark.parametrize('seed', [3, 4])
def test_a_seed_replays_exactly(seed):
    "In another process, with other hashes and at another time"
    first, second = trace(seed, 1), trace(seed, 2)
    assert first.count('\n') > 150
    assert first == second


# --- the bugs of the first cut, put back ---------------------------------------------------------------------------

def subshells_end_with_any_hold(patch):
    "1: a lost iopub is taken for a restart"
    check = Subshell._check
    def by_holds(self):
        if self.connection.life.holds: raise KernelRestartedError('The kernel was restarted: its subshells are gone')
        return check(self)
    patch.setattr(Subshell, '_check', by_holds)

def runs_lose_their_generation(patch):
    "2: a run that is queued while iopub is away is for whichever kernel comes"
    init = Run.__init__
    def without(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if Hold.IOPUB_DOWN in self.connection.life.holds: self.generation += 1
    patch.setattr(Run, '__init__', without)

def timers_are_not_replaced(patch):
    "3: a second flap is held only for the rest of the first one's time"
    def over(self, name):
        self._timers.pop(name, None)
        self.happened(name)
    patch.setattr(Connection, '_stop_timer', lambda self, name: self._timers.pop(name, None))
    patch.setattr(Connection, '_timer_over', over)

def replies_are_not_remembered(patch):
    "4: a second reply lands among the unclaimed messages"
    class Forgetful(dict):
        def __setitem__(self, key, value): pass
    init = Router.__init__
    def forgetting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._answered = Forgetful()
    patch.setattr(Router, '__init__', forgetting)

def lanes_drop_all(patch):
    "7: what was asked after a restart fails with what was asked before"
    def fail(self, upto, error):
        self.router.fail(error, upto)
        for lane, on_drop in list(self.lanes.items()):
            for item in lane.drop(10**9): on_drop(item, error)
    patch.setattr(Connection, '_fail', fail)

def the_old_kernel_answers_for_the_new_one(patch):
    "8: ready while the old kernel is still ending"
    patch.setitem(life.TABLE, (State.ENDING, 'wanted'), (None, (life.PROBE,)))
    patch.setitem(life.TABLE, (State.ENDING, 'answered'), (State.READY, ()))

def probes_go_on(patch):
    "8: the same, with a probe of before the restart"
    patch.setattr(life, 'RESTART', life.RESTART[:1])
    patch.setitem(life.TABLE, (State.COMING, 'restart'), (State.ENDING, ()))
    patch.setitem(life.TABLE, (State.ENDING, 'answered'), (State.READY, ()))

def another_kernel_is_not_noticed(patch):
    "9: a restart by somebody else while nothing is in flight"
    def unheard(self, channel, msg):
        self.life.session = None
        self.router.dispatch(channel, msg)
    fence = Connection._fence_all
    def of_those_in_flight(self):
        if any(o.under_way for o in self.router.shells.values()): fence(self)
        else: self.happened('fence', ids=[])
    patch.setattr(Connection, '_other_kernel', lambda self, channel, msg: unheard(self, channel, msg))
    patch.setattr(Connection, '_fence_all', of_those_in_flight)

def control_waits_for_iopub(patch):
    "10: a hold stops every channel"
    patch.setattr(router, '_holds', lambda why, channel: True)

def tasks_cancelled_before_their_first_step(patch):
    "10: the task is cancelled, the cell runs to its end"
    def without(self, typ, val=None, tb=None):
        error = val if val is not None else typ() if isinstance(typ, type) else typ
        raise error
    patch.setattr(Run, 'throw', without)

def withdrawn_requests_are_sent(patch):
    patch.setattr(Lane, 'withdraw', lambda self, key: key in self.waiting)

def fences_are_not_awaited(patch):
    "What was lost with a connection is never missed"
    patch.setattr(Router, 'fail_lost', lambda self, ids, error: None)

def windows_are_not_kept(patch):
    add = Lane.add
    def at_once(self, key, item, first=False):
        self.limit = 10**9
        return add(self, key, item, first)
    patch.setattr(Lane, 'add', at_once)

def any_run_is_interrupted(patch):
    "An interrupt is sent, however late, to whatever runs then"
    async def interrupt(self, run):
        await self.send()
        return True
    patch.setattr(Interrupts, 'interrupt', interrupt)


FAULTS = [subshells_end_with_any_hold, runs_lose_their_generation, timers_are_not_replaced, replies_are_not_remembered,
          lanes_drop_all, the_old_kernel_answers_for_the_new_one, probes_go_on, another_kernel_is_not_noticed,
          control_waits_for_iopub, tasks_cancelled_before_their_first_step, withdrawn_requests_are_sent,
          fences_are_not_awaited, windows_are_not_kept, any_run_is_interrupted]

@pytest.mark.parametrize('fault', FAULTS, ids=lambda o: o.__name__)
def test_a_fault_is_found(fault, monkeypatch):
    fault(monkeypatch)
    for seed in range(60):
        try: simulate(seed, EVENTS)
        except Violation as e: return print(f'found after {(seed+1)*EVENTS} events: {e}')
    raise AssertionError(f'not found in {60*EVENTS} events')
