"""Run a command as a Hydra job: print its errors once, return an exit code, and treat SIGTERM like Ctrl-C."""

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
"""Exit codes of a job that failed, and of arguments that were rejected before anything was done."""
_HYDRA_ERRORS = HydraException | OmegaConfBaseException | ValueError


def exit_code(error: BaseException) -> int:
    """Return 2 for a rejected setting, and 1 for any other error, such as one that left a failed record."""
    is_usage = isinstance(error, ConfigError) and not isinstance(error, TargetError) and not error.is_recorded
    return USAGE if is_usage else FAILED


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C: results so far are kept and the job in progress is abandoned."""


def run_job(config_name: str, job: Callable[[DictConfig], Any], arguments: Sequence[str]) -> int:
    """Run Hydra over the arguments and return the exit code.

    A `HarnessError` is printed immediately as one message, and any other exception with its traceback.

    Args:
        config_name: The config in conf/, without its suffix.
        job: The function that Hydra calls with each composed config.
        arguments: The command line after the command.

    Returns:
        0 if every job succeeds, 1 if one failed, 2 if arguments or settings were rejected and nothing else failed,
        130 after Ctrl-C and 143 after SIGTERM.
    """
    codes: list[int] = []
    sys.argv = ["harness", *arguments]
    previous = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors, and they are printed below
    try:
        with terminable(), contextlib.redirect_stderr(_HideHydraErrorLine(sys.stderr)):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(
                _print_errors(job, config_name, codes)
            )()
    except KeyboardInterrupt as error:
        verb = "measured" if config_name == "run" else "done"
        say(f"interrupted; what was {verb} is kept; repeat the command to continue")
        return 143 if isinstance(error, Terminated) else 130
    except Exception as error:
        is_printed = getattr(error, "is_printed", False)  # by a job, perhaps in a launcher's process
        codes.append(exit_code(error) if is_printed else _print_outer(error, arguments, config_name))
    else:
        return 0
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if previous is not None:
            os.environ["HYDRA_FULL_ERROR"] = previous
    return min(codes, default=FAILED)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM during the block; do nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _raise_terminated(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not interrupt the clean-up
    raise Terminated


def config_folders(run: Any) -> list[str]:
    """Return the additional config folders of a job, from its HydraConfig."""
    sources = [source.path for source in run.runtime.config_sources if source.schema == "file"]
    return [path for path in sources if path and Path(path) != CONF]


def config_dir_options(run: Any) -> list[str]:
    """Return the additional config folders as command-line options."""
    return [f"--config-dir={folder}" for folder in config_folders(run)]


def _print_errors(job: Callable[[DictConfig], Any], config_name: str, codes: list[int]) -> Callable[[DictConfig], Any]:
    """Wrap a job so that its error is printed immediately instead of at the end of the sweep."""

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
            error.is_printed = True  # type: ignore[attr-defined]
            raise

    return wrapped


def _print_outer(error: Exception, arguments: Sequence[str], config_name: str) -> int:
    """Print an error that no job has printed; return its exit code."""
    if isinstance(error, HarnessError | _HYDRA_ERRORS):
        _say_error(build.explain_error(error, arguments, config_name), config_name)
        return USAGE if isinstance(error, _HYDRA_ERRORS) else exit_code(error)
    traceback.print_exc()  # an unexpected error, perhaps in a user's retriever
    return FAILED


def _say_error(message: str, config_name: str) -> None:
    command = "harness" if config_name == "run" else f"harness {config_name}"
    say(f"error: {message.replace('harness --cfg job', f'{command} --cfg job')}")


class _HideHydraErrorLine:
    """A wrapper of standard error that drops the line that Hydra adds to a job's error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text.startswith("Error executing job with overrides"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
