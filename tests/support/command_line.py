"""Run the `harness` command in this process, or in another one."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import __main__


def harness(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `harness ARGUMENTS` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def harness_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `harness ARGUMENTS` in a process of its own; `options` are those of `subprocess.run`."""
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until `condition()` is true; fail after `timeout_s`, so that a hanging process does not block the tests."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s"
        time.sleep(0.005)
