"""Messages on stderr."""

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Print one line on stderr."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
