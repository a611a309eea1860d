"""Processes that end no later than the process that started them."""

import ctypes
import os
import signal
import sys

STARTED_BY = "HARNESS_STARTED_BY"
"""Set for a process that must not outlive the one with this number."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """On Linux: be killed when the thread of process `parent` that started this one ends, however it does."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this was said
        os.kill(os.getpid(), signal.SIGKILL)
