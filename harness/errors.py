"""What can go wrong, as one tree. Every message names the value, the choices and the next command.

HarnessError
├── ConfigError      a setting that cannot be: an unknown key, a metric nobody knows, a depth below a metric's cutoff
│   └── TargetError  a class or function named in a config that cannot be imported or called
├── DataError        a collection that cannot be used: names the file, the line and the fix
├── DownloadError    a file that could not be fetched, or that is not the one that was promised
├── WeightsError     model weights that cannot be had: names what was tried
├── ApiError         a server of a model that refused, failed, or gave no answer that can be used
├── RunError         a retriever's answer that no metric may score: NaN, infinite, a document twice
├── StoreError       a record on disk that cannot be read
└── UndecidedError   nothing to decide from: no records, nothing in common, nothing within the limits (exit code 3)
"""

import difflib
from collections.abc import Sequence


class HarnessError(Exception):
    """Something a user can mend; shown as one message, without a traceback."""

    is_recorded: bool = False
    """A record of a failed evaluation has been stored for it."""


class ConfigError(HarnessError):
    """A setting that cannot be."""


class TargetError(ConfigError):
    """A class or function named in a config that cannot be imported or called."""


class DataError(HarnessError):
    """A collection that cannot be used."""


class DownloadError(HarnessError):
    """A file that could not be fetched, or that is not the one that was promised."""


class WeightsError(HarnessError):
    """Model weights that cannot be had."""


class ApiError(HarnessError):
    """A server of a model that refused, failed, or gave no answer that can be used."""


class RunError(HarnessError):
    """A retriever's answer that no metric may score."""


class StoreError(HarnessError):
    """A record on disk that cannot be read."""


class UndecidedError(HarnessError):
    """Nothing to decide from."""


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Return "; did you mean 'NAME'?" for the choice that is most like a name, for a message; "" where none is."""
    near = difflib.get_close_matches(name, choices, n=1) or [each for each in choices if each.lower() == name.lower()]
    return f"; did you mean {near[0]!r}?" if near else ""
