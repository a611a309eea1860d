"""A command that is a Hydra job: its errors said in one place, its end as an exit code, SIGTERM as Ctrl-C."""

import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.config import build
from harness.config.conf import CONF
from harness.console import say
from harness.errors import HarnessError

_USERS = (HarnessError, HydraException, OmegaConfBaseException, ValueError)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a Ctrl-C: what was measured is kept, and what was begun is left."""


def run_job(config_name: str, job: Callable[[DictConfig], Any], arguments: Sequence[str]) -> int:
    """Run Hydra over the arguments; 0 when every job ends well, 1 otherwise, 130 and 143 when interrupted.

    A `HarnessError` is said as one message and anything else with its traceback, at once and once.
    """
    sys.argv = ["harness", *arguments]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on; what the user sees is written below
    try:
        with terminable(), contextlib.redirect_stderr(_WithoutHydrasLine(sys.stderr)):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(_saying(job, config_name))()
    except KeyboardInterrupt as error:
        done = "measured" if config_name == "run" else "done"
        say(f"interrupted; what was {done} is kept, the same command goes on")
        return 143 if isinstance(error, Terminated) else 130
    except _USERS as error:
        if not getattr(error, "said", False):
            _say_error(build.refused(error, arguments, config_name), config_name)
    except Exception as error:  # a part's own failure: its traceback helps who writes it
        if not getattr(error, "said", False):
            traceback.print_exc()
    else:
        return 0
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
    return 1


@contextlib.contextmanager
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


def folders(run: Any) -> list[str]:
    """The folders of configs beside our own that a job's HydraConfig was composed from."""
    sources = [source.path for source in run.runtime.config_sources if source.schema == "file"]
    return [path for path in sources if path and Path(path) != CONF]


def folder_options(run: Any) -> list[str]:
    """Those folders as they are given on the command line."""
    return [f"--config-dir={folder}" for folder in folders(run)]


def _saying(job: Callable[[DictConfig], Any], config_name: str) -> Callable[[DictConfig], Any]:
    """The job, which says its error when it comes: a sweep may have many more jobs to do."""

    @functools.wraps(job)
    def said(config: DictConfig) -> Any:
        try:
            return job(config)
        except Exception as error:
            if isinstance(error, HarnessError):
                _say_error(str(error), config_name)
            else:
                traceback.print_exc()
            error.said = True  # type: ignore[attr-defined]
            raise

    return said


def _say_error(message: str, config_name: str) -> None:
    command = "harness" if config_name == "run" else f"harness {config_name}"
    say(f"error: {message.replace('harness --cfg job', f'{command} --cfg job')}")


class _WithoutHydrasLine:
    """Standard error without the line that Hydra adds to a job's error, which has been said by then."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text.startswith("Error executing job with overrides"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
