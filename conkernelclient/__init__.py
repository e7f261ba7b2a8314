__version__ = "0.1.0"

from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.cells.outputs import ExecutionError, ExecutionTimeout, Result
from conkernelclient.router import ClientClosedError, DeadKernelError, KernelRestartedError, NoReplyError, Request
from conkernelclient.run import UnsupportedFeature   # (and the client gets `run`, `subshell`, …)

__all__ = ['ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel', 'Request', 'Result',
           'ExecutionError', 'ExecutionTimeout', 'UnsupportedFeature',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'NoReplyError']
