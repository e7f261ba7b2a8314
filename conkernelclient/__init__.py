__version__ = "0.1.0"

from conkernelclient.cells.outputs import ErrorInfo, Event, ExecutionError, ExecutionTimeout, Result, parse_literal
from conkernelclient.cells.jobs import JobEvent
from conkernelclient.cells.llm import LLMContent
from conkernelclient.cells.run import Run
from conkernelclient.cells.subshell import Subshell
from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.engine.errors import (
    ClientClosedError, ConKernelError, DeadKernelError, KernelRestartedError, NoReplyError, NotConnected, ReplyTimeout,
    TooManyOpenFiles, UnknownKernel, UnsupportedFeature)
from conkernelclient.engine.request import Request
from conkernelclient.engine.session import Message
from conkernelclient.kernel import NoRunningKernel, open_kernel
from conkernelclient.kernels.fork import fork_spec
from conkernelclient.kernels.notebooks import NotebookError, run_notebooks
from conkernelclient.kernels.pool import KernelPool, PoolClosed
from conkernelclient.sync import Job, Kernel, KernelSubshell

__all__ = ['open_kernel', 'Kernel', 'Job', 'KernelSubshell', 'ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel',
           'KernelPool', 'PoolClosed', 'fork_spec', 'run_notebooks', 'NotebookError',
           'Request', 'Run', 'Subshell', 'Result', 'Event', 'JobEvent', 'ErrorInfo', 'LLMContent', 'Message', 'parse_literal',
           'ConKernelError', 'ExecutionError', 'ExecutionTimeout', 'UnsupportedFeature', 'UnknownKernel', 'NoRunningKernel',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'NoReplyError', 'NotConnected',
           'ReplyTimeout', 'TooManyOpenFiles']
