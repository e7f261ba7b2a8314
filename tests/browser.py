"""A headless Chromium, driven over the DevTools protocol: as much of it as the tests of the docs site need."""
import json, shutil, subprocess, tempfile, time
from contextlib import contextmanager
from pathlib import Path

import websocket

PROGRAMS = 'chromium', 'chromium-browser', 'google-chrome'
OPTIONS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--disable-sync', '--no-first-run',
           '--disable-background-networking', '--disable-component-update', '--remote-debugging-port=0')
TIMEOUT = 20.  # Seconds for anything that is waited for
POLL = .02
WHERE = '''(() => {  // the middle of the first visible element for a selector, if nothing covers it
    const el = [...document.querySelectorAll(%s)].find(o => o.checkVisibility() && o.getBoundingClientRect().width)
    if (!el) return null
    el.scrollIntoView({block: 'center', behavior: 'instant'})
    const r = el.getBoundingClientRect(), x = r.left + r.width/2, y = r.top + r.height/2
    const hit = document.elementFromPoint(x, y)
    return hit && (el.contains(hit) || hit.contains(el)) ? [x, y] : null })()'''


def program() -> str | None:
    "The path of an installed Chromium."
    return next((path for o in PROGRAMS if (path := shutil.which(o))), None)


def until(what: str, look):
    "Call `look` until it gives something true, and return that."
    deadline = time.monotonic() + TIMEOUT
    while not (res := look()):
        if time.monotonic() > deadline: raise TimeoutError(f'{what}: not within {TIMEOUT:.0f} s')
        time.sleep(POLL)
    return res


@contextmanager
def browser():
    "A running `Browser`."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port = Path(folder)/'DevToolsActivePort'
        process = subprocess.Popen([program(), *OPTIONS, f'--user-data-dir={folder}', 'about:blank'],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            lines = until('Chromium starts', lambda: port.exists() and port.read_text().split())
            ws = websocket.create_connection(f'ws://127.0.0.1:{lines[0]}{lines[1]}', timeout=TIMEOUT, suppress_origin=True)
            try: yield Browser(ws)
            finally: ws.close()
        finally:
            process.terminate()
            try: process.wait(timeout=10)
            except subprocess.TimeoutExpired: process.kill()


class Browser:
    "The connection to a Chromium: calls go out, answers and events come in."
    def __init__(self, ws): self.ws, self.count, self.tabs = ws, 0, {}

    def call(self, method: str, session: str | None = None, **params) -> dict:
        "Call `method` of the protocol, for the tab of `session` or for the browser, and return its result."
        self.count += 1
        number = self.count
        msg = dict(id=number, method=method, params=params)
        if session: msg['sessionId'] = session
        self.ws.send(json.dumps(msg))
        while True:
            answer = json.loads(self.ws.recv())
            if answer.get('id') == number:
                if 'error' in answer: raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer['result']
            if 'method' in answer and (tab := self.tabs.get(answer.get('sessionId'))): tab.event(answer['method'], answer['params'])

    @contextmanager
    def tab(self, width: int = 1280, height: int = 800, phone: bool = False, dark: bool = False):
        "A new `Tab`, with storage of its own, `width` by `height` pixels."
        context = self.call('Target.createBrowserContext')['browserContextId']
        try:
            target = self.call('Target.createTarget', url='about:blank', browserContextId=context)['targetId']
            session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
            tab = self.tabs[session] = Tab(self, session)
            for o in 'Page', 'Runtime', 'Log', 'Network': tab.call(f'{o}.enable')
            tab.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)
            tab.call('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
            yield tab
        finally: self.call('Target.disposeBrowserContext', browserContextId=context)


class Tab:
    "One page at a time, and what was wrong with it."
    def __init__(self, browser: Browser, session: str):
        self.browser, self.session = browser, session
        self.problems, self.loaded, self.urls = [], 0, []

    def call(self, method: str, **params) -> dict: return self.browser.call(method, self.session, **params)

    def event(self, method: str, params: dict):
        "Note what a person would find in the browser's console, and each address that is asked for."
        if method == 'Page.loadEventFired': self.loaded += 1
        elif method == 'Runtime.exceptionThrown':
            details = params['exceptionDetails']
            self.problems.append(details.get('exception', {}).get('description') or details['text'])
        elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'assert'):
            self.problems.append('console: ' + ' '.join(str(o.get('value', o.get('description'))) for o in params['args']))
        elif method == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == 'Network.loadingFailed' and not params.get('canceled'): self.problems.append(f"not loaded: {params['errorText']}")
        elif method == 'Network.requestWillBeSent': self.urls.append(params['request']['url'])

    def js(self, expression: str):
        "The value of a JavaScript `expression`; a promise is awaited."
        res = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        if 'exceptionDetails' in res: raise RuntimeError(f"{expression}: {res['exceptionDetails']}")
        return res['result'].get('value')

    def hear(self):
        "Take in what has happened. (It asks the browser; a page that is just being left, or exchanged, would not answer.)"
        return self.browser.call('Browser.getVersion')

    def until(self, expression: str): return until(expression, lambda: self.js(expression))

    def open(self, url: str):
        "Go to `url`, and wait until it is loaded with all that belongs to it."
        loaded = self.loaded
        res = self.call('Page.navigate', url=url)
        if res.get('errorText'): raise RuntimeError(f"{url}: {res['errorText']}")
        until(f'{url} is loaded', lambda: self.hear() and self.loaded > loaded)

    def click(self, selector: str):
        "Click with the mouse in the middle of the first visible element for `selector`, once that has come to rest, as a person would."
        before = None
        def rests():
            nonlocal before
            last, before = before, self.js(WHERE % json.dumps(selector))
            return before if before and before == last else None
        x, y = until(f'{selector} can be clicked', rests)
        for o in 'mousePressed', 'mouseReleased': self.call('Input.dispatchMouseEvent', type=o, x=x, y=y, button='left', clickCount=1)

    def follow(self, selector: str):
        "Click a link, and wait until the page it leads to is loaded."
        loaded = self.loaded
        self.click(selector)
        until(f'the page behind {selector} is loaded', lambda: self.hear() and self.loaded > loaded)

    def write(self, text: str): self.call('Input.insertText', text=text)

    def press(self, key: str):
        for o in 'keyDown', 'keyUp': self.call('Input.dispatchKeyEvent', type=o, key=key, code=key, windowsVirtualKeyCode=dict(Enter=13, Escape=27).get(key, 0))
