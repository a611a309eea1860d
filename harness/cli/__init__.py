"""The commands: what measures is Hydra, what reads records is argparse."""

import argparse


def amount(text: str) -> float:
    """An option's number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no amount; give a number of 0 or more")
    return value
