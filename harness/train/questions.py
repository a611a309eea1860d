"""What a language model answered, read: which of its questions can be trained on, and why the others cannot."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.text.tokenizer import ENGLISH
from harness.train.words import normalised, words

_IN_A_ROW = 0.8
_STOP_WORDS = frozenset(ENGLISH.split())
_NO_ANSWER = {"unknown", "unanswerable", "none", "null", "n a", "not stated", "not given", "not specified"}
FINISHES = {"length": "too_long", "content_filter": "content_filter", "refusal": "refusal"}
"""Why an answer ended before it was whole, and the reason that it is counted under."""


def listed(content: str, finish: str) -> list[Any] | str:
    """The questions of an answer as they came, or why there are none.

    `too_long` (cut off at max_tokens), `content_filter`, `refusal`; `not_json`; `no_questions`: no list of them in it.
    """
    if finish in FINISHES:
        return FINISHES[finish]
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return "not_json"
    questions = found.get("questions") if isinstance(found, Mapping) else None
    return questions if isinstance(questions, list) and questions else "no_questions"


def usable(listed: list[Any], document: str, n: int) -> tuple[list[str], Counter[str]]:
    """The questions to keep, and the count of the others by reason.

    `surplus`: more than the `n` that were asked for. `empty`: no words. `copy`: its words stand in the document in a
    row, all of them or four fifths. `unanswerable`: it comes without an answer, with one that says so, or with one of
    whose words (stop words left out) the document has none.
    """
    kept, dropped = list[str](), Counter({"surplus": len(listed) - n} if len(listed) > n else {})
    text = normalised(document)
    known = frozenset(text.split())
    for one in listed[:n]:
        question, answer = (_text(one, name) for name in ("question", "answer"))
        if not words(question):
            dropped["empty"] += 1
        elif _copied(words(question), text):
            dropped["copy"] += 1
        elif not _answered(answer, text, known):
            dropped["unanswerable"] += 1
        else:
            kept.append(question)
    return kept, dropped


def _text(one: Any, name: str) -> str:
    """A field as one line; numbers are answers too."""
    value = one.get(name) if isinstance(one, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())


def _copied(question: list[str], text: str) -> bool:
    run = math.ceil(_IN_A_ROW * len(question))
    return any(" ".join(question[start : start + run]) in text for start in range(len(question) - run + 1))


def _answered(answer: str, text: str, known: frozenset[str]) -> bool:
    if normalised(answer) in _NO_ANSWER:
        return False
    content = [word for word in words(answer) if word not in _STOP_WORDS]
    # scripts without blanks between words: any part of the text
    return any(word in known or (not word.isascii() and word in text) for word in content)
