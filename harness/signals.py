"""End a process together with the process that started it."""

import ctypes
import os
import signal
import sys

STARTED_BY = "HARNESS_STARTED_BY"
"""Environment variable with the id of the process that this process must not outlive."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """On Linux, have the kernel kill this process when the thread of `parent` that started it ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl was called
        os.kill(os.getpid(), signal.SIGKILL)
