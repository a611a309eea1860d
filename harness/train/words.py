"""Words of a text as two texts are compared by: Unicode's compatible forms made one, no case, no punctuation."""

import re
import unicodedata

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, normalised (NFKC, case folded)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normalised(text: str) -> str:
    """Those words, a blank between each two."""
    return " ".join(words(text))
