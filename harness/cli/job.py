"""A command that is a Hydra job: its errors are printed in one place, its end is an exit code, SIGTERM is a Ctrl-C."""

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
from harness.errors import ConfigError, HarnessError, TargetError

FAILED, USAGE = 1, 2
"""Exit codes of a job that failed, and of words that were refused before anything was done."""
_OF_HYDRA = HydraException | OmegaConfBaseException | ValueError


def exit_code(error: BaseException) -> int:
    """Return 2 for a setting that was refused, and 1 for any other error, such as one that left a failed record."""
    is_usage = isinstance(error, ConfigError) and not isinstance(error, TargetError) and not error.is_recorded
    return USAGE if is_usage else FAILED


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a Ctrl-C: what was measured is kept, and what was begun is left."""


def run_job(config_name: str, job: Callable[[DictConfig], Any], arguments: Sequence[str]) -> int:
    """Run Hydra over the arguments and return the exit code.

    A `HarnessError` is printed as one message and anything else with its traceback, at once and once.

    Returns:
        0 where every job ends well, 1 where one failed, 2 where words or settings were refused and nothing else failed,
        130 and 143 where it was interrupted.
    """
    codes: list[int] = []
    sys.argv = ["harness", *arguments]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on; what the user sees is written below
    try:
        with terminable(), contextlib.redirect_stderr(_WithoutHydrasLine(sys.stderr)):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(
                _printing(job, config_name, codes)
            )()
    except KeyboardInterrupt as error:
        done = "measured" if config_name == "run" else "done"
        say(f"interrupted; what was {done} is kept, the same command goes on")
        return 143 if isinstance(error, Terminated) else 130
    except Exception as error:
        is_printed = getattr(error, "said", False)  # by a job, of a launcher's process perhaps
        codes.append(exit_code(error) if is_printed else _print_outer(error, arguments, config_name))
    else:
        return 0
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
    return min(codes, default=FAILED)


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


def _printing(job: Callable[[DictConfig], Any], config_name: str, codes: list[int]) -> Callable[[DictConfig], Any]:
    """Wrap a job so that its error is printed immediately instead of at the end of the sweep, and its code noted."""

    @functools.wraps(job)
    def wrapped(config: DictConfig) -> Any:
        try:
            return job(config)
        except Exception as error:
            codes.append(exit_code(error))
            if isinstance(error, HarnessError):
                _say_error(str(error), config_name)
            else:
                traceback.print_exc()
            error.said = True  # type: ignore[attr-defined]
            raise

    return wrapped


def _print_outer(error: Exception, arguments: Sequence[str], config_name: str) -> int:
    """Print an error that no job of this process has printed; return its exit code."""
    if isinstance(error, HarnessError | _OF_HYDRA):
        _say_error(build.refused(error, arguments, config_name), config_name)
        return USAGE if isinstance(error, _OF_HYDRA) else exit_code(error)
    traceback.print_exc()  # a retriever's failure: it helps who writes the retriever
    return FAILED


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
