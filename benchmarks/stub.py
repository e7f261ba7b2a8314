"The stub kernel in Python, for machines without a C compiler: what `stub.c` does, but slower than a fast client asks."
import hashlib, hmac, json, os, sys
from datetime import datetime, timezone
from itertools import count
import zmq

DELIM = b'<IDS|MSG>'
INFO = dict(status='ok', protocol_version='5.3', implementation='stub', implementation_version='1', banner='stub',
            language_info=dict(name='python', version='3', mimetype='text/x-python', file_extension='.py'), help_links=[],
            supported_features=[])


class Stub:
    def __init__(self, key:str):
        self.key,self.session,self.ids,self.executed = key,f'{os.urandom(4).hex()}-{os.urandom(12).hex()}',count(1),0
        self.mac = hmac.new(key.encode(), digestmod=hashlib.sha256)
        self.ctx = zmq.Context()
        self.socks = {name: self.bind(zmq.XPUB if name == 'iopub' else zmq.ROUTER)
                      for name in ('shell', 'control', 'hb', 'stdin', 'iopub')}

    def bind(self, kind:int) -> zmq.Socket:
        sock = self.ctx.socket(kind)
        sock.linger = sock.sndhwm = sock.rcvhwm = 0
        if kind == zmq.XPUB: sock.setsockopt(zmq.XPUB_VERBOSE, 1)
        sock.bind('tcp://127.0.0.1:*')
        return sock

    def info(self) -> dict:
        ports = {f'{name}_port': int(s.last_endpoint.rsplit(b':', 1)[1]) for name, s in self.socks.items()}
        return dict(ports, ip='127.0.0.1', transport='tcp', key=self.key, signature_scheme='hmac-sha256', fast_sha=0)

    def send(self, sock:zmq.Socket, ident:bytes, kind:str, parent:bytes, content:dict):
        header = dict(msg_id=f'{self.session}_{os.getpid()}_{next(self.ids)}', msg_type=kind, username='stub', session=self.session,
                      date=datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%fZ'), version='5.3')
        parts = [json.dumps(header).encode(), parent, b'{}', json.dumps(content).encode()]
        mac = self.mac.copy()
        for part in parts: mac.update(part)
        sock.send_multipart([ident, DELIM, mac.hexdigest().encode(), *parts])

    def publish(self, topic:str, kind:str, parent:bytes, **content):
        self.send(self.socks['iopub'], topic.encode(), kind, parent, content)

    def execute(self, parent:bytes, content:bytes) -> dict:
        self.executed += 1
        if b'print' in content:
            self.publish('kernel.stub.execute_input', 'execute_input', parent, code='print(1)', execution_count=self.executed)
            self.publish('stream.stdout', 'stream', parent, name='stdout', text='1\n')
        return dict(status='ok', execution_count=self.executed, user_expressions={}, payload=[])

    def serve(self, sock:zmq.Socket):
        "Answer one request on the ROUTER `sock`."
        ident,delim,_,header,_,_,content,*_ = sock.recv_multipart()
        kind = json.loads(header)['msg_type']
        if delim != DELIM or not kind.endswith('_request'): return
        self.publish('kernel.stub.status', 'status', header, execution_state='busy')
        answer = INFO if kind == 'kernel_info_request' else dict(status='ok')
        if kind == 'execute_request': answer = self.execute(header, content)
        self.send(sock, ident, kind.replace('_request', '_reply'), header, answer)
        self.publish('kernel.stub.status', 'status', header, execution_state='idle')
        if kind == 'shutdown_request': raise SystemExit

    def welcome(self):
        frame = self.socks['iopub'].recv()
        if frame[:1] == b'\x01':
            self.send(self.socks['iopub'], frame[1:], 'iopub_welcome', b'{}', dict(subscription=frame[1:].decode()))

    def run(self):
        poller,parent = zmq.Poller(),os.getppid()
        for sock in self.socks.values(): poller.register(sock, zmq.POLLIN)
        while os.getppid() == parent:
            ready = dict(poller.poll(1000))
            if self.socks['iopub'] in ready: self.welcome()
            for name in ('shell', 'control'):
                if self.socks[name] in ready: self.serve(self.socks[name])
            if self.socks['hb'] in ready: self.socks['hb'].send_multipart(self.socks['hb'].recv_multipart())
            if self.socks['stdin'] in ready: self.socks['stdin'].recv_multipart()


if __name__ == '__main__':
    stub = Stub(sys.argv[1])
    print(json.dumps(stub.info()), flush=True)
    stub.run()
