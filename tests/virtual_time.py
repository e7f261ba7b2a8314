"""An event loop in virtual time: a sleep takes no time, and the same program always takes the same turns"""
import asyncio, selectors


class Clock(selectors.BaseSelector):
    "Stands where a loop waits for sockets, and lets time pass instead"
    def __init__(self): self.now, self.limit, self.keys = 0., float('inf'), {}

    def select(self, timeout=None):
        if timeout is None: raise Stuck('Nothing will ever happen any more')
        self.now += max(0, timeout)
        if self.now > self.limit: raise Stuck(f'Not done in {self.limit} s (of virtual time)')
        return []

    def register(self, fileobj, events, data=None):
        key = self.keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj): return self.keys.pop(fileobj)
    def get_key(self, fileobj): return self.keys[fileobj]
    def get_map(self): return self.keys


class Stuck(Exception):
    "A program waits for what will not happen"


class VirtualLoop(asyncio.SelectorEventLoop):
    "An event loop whose time is that of its `Clock`"
    def __init__(self):
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self): return self.clock.now


def run_virtual(coro, limit=float('inf')):
    "Run `coro` in a loop of its own. Raises `Stuck` after `limit` seconds of its time."
    loop = VirtualLoop()
    loop.clock.limit = limit
    try: return loop.run_until_complete(coro)
    finally:
        loop.clock.limit = float('inf')
        try:
            for o in asyncio.all_tasks(loop): o.cancel()
            loop.run_until_complete(asyncio.sleep(0))
        finally: loop.close()
