"""The exceptions of the harness. Every message names the value, the choices and the next command.

HarnessError
├── ConfigError      an invalid setting: an unknown key or metric, a depth below a metric's cutoff
│   └── TargetError  a class or function named in a config that cannot be imported or called
├── DataError        an unusable dataset: names the file, the line and the fix
├── DownloadError    a file that could not be downloaded, or that has another checksum than expected
├── WeightsError     model weights that cannot be loaded: names the places that were tried
├── ApiError         a model server that rejected a request, failed, or returned an unusable response
├── RunError         a run that cannot be scored: NaN, infinite scores, duplicate documents
├── StoreError       a record on disk that cannot be read
├── OutputError      stdout or stderr that cannot be written, such as to a full disk
└── UndecidedError   not enough data to decide: no records, no common queries, none within the limits (exit code 3)
"""

import difflib
from collections.abc import Sequence


class HarnessError(Exception):
    """An error that a user can fix; shown as one message, without a traceback."""

    is_recorded: bool = False
    """True if a record of the failed evaluation has been stored."""


class ConfigError(HarnessError):
    """An invalid setting."""


class TargetError(ConfigError):
    """A class or function named in a config that cannot be imported or called."""


class DataError(HarnessError):
    """A dataset that cannot be used."""


class DownloadError(HarnessError):
    """A file that could not be downloaded, or that has another checksum than expected."""


class WeightsError(HarnessError):
    """Model weights that cannot be loaded."""


class ApiError(HarnessError):
    """A model server that rejected a request, failed, or returned an unusable response."""


class RunError(HarnessError):
    """A run that cannot be scored."""


class StoreError(HarnessError):
    """A record on disk that cannot be read."""


class OutputError(HarnessError):
    """Output that cannot be written."""


class UndecidedError(HarnessError):
    """Not enough data to decide."""


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Return "; did you mean 'X'?" for the one of the `choices` most similar to `name`, or "" if none is similar."""
    matches = difflib.get_close_matches(name, choices, n=1) or [
        choice for choice in choices if choice.lower() == name.lower()
    ]
    return f"; did you mean {matches[0]!r}?" if matches else ""
