__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from conkernelclient.cells.outputs import ErrorInfo, Event, ExecutionError, ExecutionTimeout, Result, parse_literal
from conkernelclient.cells.llm import LLMContent
from conkernelclient.cells.run import Run
from conkernelclient.cells.subshell import Subshell
from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.engine.errors import (
    ClientClosedError, ConKernelError, DeadKernelError, KernelRestartedError, NoReplyError, NotConnected, ReplyTimeout,
    ServerError, UnknownKernel, UnsupportedFeature)
from conkernelclient.engine.request import Request
from conkernelclient.engine.session import Message


if TYPE_CHECKING: from conkernelclient.kernels.server import ServerKernelClient, ServerKernelManager, list_kernels, open_server_kernel

_LATE = {o: 'conkernelclient.kernels.server' for o in
         ('ServerKernelClient', 'ServerKernelManager', 'list_kernels', 'open_server_kernel')}   # imported at their first use


def __getattr__(name: str) -> Any:
    if name not in _LATE: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LATE[name]), name)


__all__ = ['ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel',
           'Request', 'Run', 'Subshell', 'Result', 'Event', 'ErrorInfo', 'LLMContent', 'Message', 'parse_literal',
           'ConKernelError', 'ExecutionError', 'ExecutionTimeout', 'UnsupportedFeature', 'UnknownKernel',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'NoReplyError', 'NotConnected',
           'ReplyTimeout', 'ServerError',
           'ServerKernelClient', 'ServerKernelManager', 'list_kernels', 'open_server_kernel']
