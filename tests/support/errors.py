"""Expected errors and patterns of their messages."""

import re
from contextlib import AbstractContextManager

import pytest

from harness.errors import DataError


def mentions(*parts: str) -> str:
    """Return a pattern for `pytest.raises` that matches a message which has the `parts` in this order."""
    return "(?s)" + ".*".join(re.escape(part) for part in parts)


def data_error(message: str) -> AbstractContextManager[pytest.ExceptionInfo[DataError]]:
    """Return a context that expects a DataError whose message contains `message`."""
    return pytest.raises(DataError, match=re.escape(message))
