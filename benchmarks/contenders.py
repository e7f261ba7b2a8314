"What is measured, and where. Only names: the classes need what their environment has."
from importlib import import_module

# name: (class, environment, label)
CONTENDERS = dict(
    raw=('floors:Raw', 'base', "stub's limit: frames counted, reply only"),
    raw_iopub=('floors:RawIopub', 'base', "stub's limit: frames counted, with iopub"),
    floor=('floors:Bare', 'base', 'floor: bare DEALER, reply only'),
    floor_iopub=('floors:BareIopub', 'base', 'floor: bare DEALER, iopub parsed'),
    floor_multipart=('floors:BareMultipart', 'base', 'floor: the same, with send_multipart and recv_multipart'),
    floor_checked=('floors:BareChecked', 'base', 'floor: bare DEALER, iopub parsed, signatures checked'),
    zmq_asyncio=('floors:BareAsync', 'base', 'bare zmq.asyncio, reply only'),
    bare_client=('floors:BareClient', 'base', 'bare client: futures and checks, and nothing else'),
    ours_reply=('clients:OursReply', 'ours', 'this library: execute(reply=True)'),
    ours_idle=('clients:OursIdle', 'ours', 'this library: request().wait()'),
    ours_read=('clients:OursRead', 'ours', 'this library: request().wait(), then its iopub'),
    ours_run=('clients:OursRun', 'ours', 'this library: run'),
    jupyter_async=('clients:JupyterAsync', 'base', 'jupyter_client async, iopub unread'),
    jupyter_async_idle=('clients:JupyterAsyncIdle', 'base', 'jupyter_client async, iopub read'),
    jupyter_blocking=('clients:JupyterBlocking', 'base', 'jupyter_client blocking, iopub unread'),
    pypi18=('clients:PyPI18', 'pypi-0.0.18', 'PyPI 0.0.18: execute(reply=True), iopub unread'),
    pypi23_request=('clients:PyPI23Request', 'pypi-0.0.23', 'PyPI 0.0.23: request'),
    pypi23_reply=('clients:PyPI23Reply', 'pypi-0.0.23', 'PyPI 0.0.23: reply (waits for idle)'),
)

# The same with an earlier commit, for `--before`.
CONTENDERS |= {f'before{name[4:]}': (cls, 'before', label.replace('this library', 'before'))
               for name, (cls, env, label) in CONTENDERS.items() if env == 'ours'}


def load(name:str) -> type:
    "The class of contender `name`."
    module,cls = CONTENDERS[name][0].split(':')
    return getattr(import_module(module), cls)
