"""Expected errors and patterns of their messages."""

import re
from contextlib import AbstractContextManager

import pytest

from harness.errors import DataError


def exact(message: str) -> str:
    """Return a pattern for `pytest.raises` that matches `message` and nothing around it."""
    return f"^{re.escape(message)}$"


def data_error(message: str) -> AbstractContextManager[pytest.ExceptionInfo[DataError]]:
    """Return a context that expects a DataError whose message contains `message`."""
    return pytest.raises(DataError, match=re.escape(message))
