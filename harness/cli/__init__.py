"""The commands: what measures is Hydra, what reads records is argparse."""

import sys
from contextlib import suppress

COMMANDS = ("run", "report", "compare", "recommend", "gate", "accept", "explain", "list", "cache", "validate", "env")


def say(line: str) -> None:
    """One line on stderr."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
