"""Normalise texts for comparison: Unicode NFKC, case folding, no punctuation."""

import re
import unicodedata

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the normalised words of a text."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normalise(text: str) -> str:
    """Return the normalised words of a text, joined by spaces."""
    return " ".join(words(text))
