__version__ = "0.1.0"

import sys
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from conkernelclient import helptexts
from conkernelclient.cells.aside import Aside, Completion, Variable, Variables
from conkernelclient.cells.comm import Comm, CommMessage, Comms
from conkernelclient.cells.debug import DebugError, Debugger, Stopped
from conkernelclient.cells.outputs import ErrorInfo, Event, ExecutionError, ExecutionTimeout, Image, Result, parse_literal
from conkernelclient.cells.jobs import JobEvent
from conkernelclient.cells.llm import LLMContent
from conkernelclient.cells.record import Recording
from conkernelclient.cells.run import Run
from conkernelclient.cells.subshell import Subshell
from conkernelclient.cells.widgets import Widget, Widgets
from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.engine.errors import (
    ClientClosedError, CommClosedError, ConKernelError, DeadKernelError, KernelRestartedError, NoReplyError, NotConnected, ReplyTimeout,
    ServerError, TooManyOpenFiles, UnknownKernel, UnsupportedFeature)
from conkernelclient.engine.request import Request
from conkernelclient.engine.session import Message
from conkernelclient.kernel import NoRunningKernel, open_kernel
from conkernelclient.models.tools import HostTools, ToolSchema, tool_schemas
from conkernelclient.sync import Job, Kernel, KernelSubshell

if TYPE_CHECKING:
    from conkernelclient.kernels.fork import fork_spec
    from conkernelclient.kernels.notebooks import NotebookError, run_notebooks
    from conkernelclient.kernels.pool import KernelPool, PoolClosed
    from conkernelclient.kernels.server import ServerKernelClient, ServerKernelManager, list_kernels, list_kernelspecs, open_server_kernel
    from conkernelclient.kernels.sync_pool import Pool

_LATE = {name: f'conkernelclient.kernels.{module}' for module, names in dict(
    fork='fork_spec', notebooks='NotebookError run_notebooks', pool='KernelPool PoolClosed', sync_pool='Pool',
    server='ServerKernelClient ServerKernelManager list_kernels list_kernelspecs open_server_kernel').items()
    for name in names.split()}   # imported at their first use: many kernels, and kernels elsewhere


def __getattr__(name: str) -> Any:
    if name not in _LATE: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = import_module(_LATE[name])
    _explain(_LATE[name])
    return getattr(module, name)


def _explain(module: str) -> None:
    "Add the meanings of the parameters to the docstrings of `module`, where `help` and `?` show them"
    for name, text in helptexts.texts.pop(module, {}).items():
        f: Any = sys.modules[module]
        for part in name.split('.'): f = vars(f).get(part)
        f = getattr(f, '__func__', f)   # of a class method or static method
        if f is not None: f.__doc__ = f'{cleandoc(f.__doc__ or "")}\n\n{text}'


def __dir__() -> list[str]: return sorted({*globals(), *__all__})


__all__ = ['open_kernel', 'Kernel', 'Job', 'KernelSubshell', 'ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel',
           'KernelPool', 'Pool', 'PoolClosed', 'fork_spec', 'run_notebooks', 'NotebookError',
           'Request', 'Run', 'Subshell', 'Comm', 'CommMessage', 'Comms', 'Widget', 'Widgets', 'Aside', 'Completion', 'Variable', 'Variables', 'Result', 'Image', 'Event', 'JobEvent', 'ErrorInfo', 'LLMContent', 'Message', 'Recording', 'Debugger', 'Stopped', 'HostTools', 'ToolSchema', 'tool_schemas', 'parse_literal',
           'ConKernelError', 'ExecutionError', 'ExecutionTimeout', 'UnsupportedFeature', 'UnknownKernel', 'NoRunningKernel',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'CommClosedError', 'NoReplyError', 'NotConnected',
           'ReplyTimeout', 'TooManyOpenFiles', 'ServerError', 'DebugError',
           'ServerKernelClient', 'ServerKernelManager', 'list_kernels', 'list_kernelspecs', 'open_server_kernel']

for _module in [o for o in helptexts.texts if o in sys.modules]: _explain(_module)
