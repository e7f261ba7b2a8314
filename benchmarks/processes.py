"Contenders in processes of their own: measured once, or served, so that several can take turns."
import json, os, subprocess, tempfile, threading
from pathlib import Path
from subprocess import PIPE
from contenders import CONTENDERS

HERE = Path(__file__).resolve().parent
# Where an environment's `conkernelclient` is, for those that do not have it installed.
CHECKOUTS = {'ours': HERE.parent, 'before': HERE/'build'/'before'}


def worker(name: str, python: str, info: dict, plan: dict) -> tuple[list[str], dict[str, str]]:
    "A command that measures, and its environment."
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    checkout = CHECKOUTS.get(CONTENDERS[name][1])
    if checkout: env['PYTHONPATH'] = str(checkout)
    return [python, str(HERE/'worker.py'), name, json.dumps(info), json.dumps(plan)],env


def last_line(text: str) -> str:
    "The last line of what a process wrote to its standard error."
    return (text.strip().splitlines() or ['it died without a word'])[-1]


def measure(name: str, python: str, info: dict, plan: dict, timeout: float = 180) -> dict:
    "Measure one contender once, in a process of its own; a failure is a result too."
    command,env = worker(name, python, info, plan)
    try: out = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
    except subprocess.TimeoutExpired: return dict(failed=f'nothing after {timeout} seconds')
    if out.returncode: return dict(failed=last_line(out.stderr))
    return json.loads(out.stdout.strip().splitlines()[-1])


class Served:
    "A contender that stays, in a process of its own and with a kernel of its own, and measures when it is asked to."
    def __init__(self, name: str, python: str, info: dict):
        command,env = worker(name, python, info, {})
        self.errors = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(command, env=env, text=True, stdin=PIPE, stdout=PIPE, stderr=self.errors)

    def answer(self, question: str = '') -> dict|float|None:
        "The next line from the process, after it has read `question`; None when it died, or took a minute."
        watchdog = threading.Timer(60, self.process.kill)
        watchdog.start()
        try:
            if question: print(question, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError): return None
        finally: watchdog.cancel()

    def ready(self) -> dict:
        "Wait until it is connected. Returns the `package`: the `conkernelclient` it imported; or why it is `absent`."
        return self.answer() or dict(absent=self.why())

    def __call__(self, *what) -> dict|float|None:
        "The result of a worker's method, given its name and arguments; None when the process died, or took a minute."
        return self.answer(json.dumps(what))

    def why(self) -> str:
        "Why the process died: the last line of its standard error."
        self.errors.seek(0)
        return last_line(self.errors.read())

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()
