"""A process that ends when the one that started it does, however that ended."""

import ctypes
import os
import signal
import sys

ENDS_WITH_PARENT = "SHUFFLENET_JAX_ENDS_WITH_PARENT"
"""Environment variable that holds the parent's number; who starts a process sets it."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Has the kernel send this process SIGTERM when its parent ends; does so at once if it has.

    Does nothing where the environment does not ask for it, or the system is not Linux.
    """
    parent = os.environ.get(ENDS_WITH_PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
