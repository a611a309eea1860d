"""The commands: what measures is Hydra, what reads records is argparse."""

import argparse

JOBS = ("run", "quickstart", "mteb", "finetuned", "train", "synthesize")
"""The commands that are Hydra jobs; settings without a command are `run`, nothing at all is `quickstart`."""
READS = (
    *("report", "compare", "recommend", "gate", "accept", "export", "import"),
    *("explain", "list", "cache", "validate", "env"),
)
COMMANDS = (*JOBS, *READS)


def amount(text: str) -> float:
    """An option's number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no amount; give a number of 0 or more")
    return value
