__version__ = "0.1.0"

from conkernelclient.core import ConIOLoopKernelManager, ConKernelClient, ConKernelManager, run_kernel
from conkernelclient.router import ClientClosedError, DeadKernelError, KernelRestartedError, NoReplyError, Request

__all__ = ['ConKernelClient', 'ConKernelManager', 'ConIOLoopKernelManager', 'run_kernel', 'Request',
           'DeadKernelError', 'KernelRestartedError', 'ClientClosedError', 'NoReplyError']
