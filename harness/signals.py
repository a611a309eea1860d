"""How a measuring process ends early: SIGTERM as Ctrl-C, and never later than the process that started it."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STARTED_BY = "HARNESS_STARTED_BY"
"""Set for a process that must not outlive the one with this number."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a Ctrl-C: what was measured is kept, and what was begun is left."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` for a SIGTERM during the block. In a thread that is not the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _terminated(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what cleans up is not interrupted
    raise Terminated


def end_with_parent() -> None:
    """On Linux: be killed when the process that `STARTED_BY` names dies, however it dies."""
    parent = os.environ.pop(STARTED_BY, None)
    if parent is not None:
        end_with(int(parent))


def end_with(parent: int) -> None:
    """On Linux: be killed when the thread of process `parent` that started this one ends, however it does."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this was said
        os.kill(os.getpid(), signal.SIGKILL)
