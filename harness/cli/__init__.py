"""The commands. Those that measure are Hydra jobs; those that read records use argparse."""

import argparse


def non_negative_number(text: str) -> float:
    """Return the number that an option gives. Raises `ArgumentTypeError` unless it is finite and at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of 0 or more")
    return value
