__version__ = "0.1.0"

from conkernelclient.cells.outputs import ErrorInfo, Event, ExecutionError, ExecutionTimeout, Result, parse_literal
from conkernelclient.cells.llm import LLMContent
from conkernelclient.cells.run import Run
from conkernelclient.cells.subshell import Subshell
from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.engine.errors import (
    ClientClosedError, ConKernelError, DeadKernelError, KernelRestartedError, NoReplyError, NotConnected, ReplyTimeout,
    TooManyOpenFiles, UnknownKernel, UnsupportedFeature)
from conkernelclient.engine.request import Request
from conkernelclient.kernels.fork import fork_spec
from conkernelclient.kernels.notebooks import NotebookError, run_notebooks
from conkernelclient.kernels.pool import KernelPool, PoolClosed
from conkernelclient.engine.session import Message

__all__ = ['ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel', 'fork_spec', 'KernelPool', 'PoolClosed', 'NotebookError', 'run_notebooks',
           'Request', 'Run', 'Subshell', 'Result', 'Event', 'ErrorInfo', 'LLMContent', 'Message', 'parse_literal',
           'ConKernelError', 'ExecutionError', 'ExecutionTimeout', 'UnsupportedFeature', 'UnknownKernel',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'NoReplyError', 'NotConnected',
           'ReplyTimeout', 'TooManyOpenFiles']
