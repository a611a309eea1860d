"""Parse the answers of a language model and filter its questions."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.text.tokenizer import ENGLISH_STOP_WORDS
from harness.train.words import normalise, words

_COPIED_SHARE = 0.8
_STOP_WORDS = frozenset(ENGLISH_STOP_WORDS.split())
_NO_ANSWER = {"unknown", "unanswerable", "none", "null", "n a", "not stated", "not given", "not specified"}
FINISHES = {"length": "too_long", "content_filter": "content_filter", "refusal": "refusal"}
"""Finish reasons of incomplete answers, and the reasons under which they are counted."""


def parse_questions(content: str, finish: str) -> list[Any] | str:
    """Return the unfiltered questions in the text `content` of an answer, or the reason why there are none.

    `finish` is the finish reason that the API reports for the answer.

    Reasons are `too_long` (truncated at max_tokens), `content_filter`, `refusal`, `not_json` and `no_questions` (the
    JSON has no list of questions).
    """
    if finish in FINISHES:
        return FINISHES[finish]
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return "not_json"
    questions = answer.get("questions") if isinstance(answer, Mapping) else None
    return questions if isinstance(questions, list) and questions else "no_questions"


def filter_questions(questions: list[Any], document: str, n: int) -> tuple[list[str], Counter[str]]:
    """Return the `questions` about a `document` that pass the filters, at most `n`, and the dropped ones by reason.

    Reasons are `surplus` (more than the requested `n`), `empty` (no words), `copy` (at least four fifths of its words
    are consecutive in the document) and `unanswerable` (without an answer, with one that says so, or with one that
    shares no word but stop words with the document).
    """
    usable, dropped = list[str](), Counter({"surplus": len(questions) - n} if len(questions) > n else {})
    text = normalise(document)
    known = frozenset(text.split())
    for item in questions[:n]:
        question, answer = (_text(item, name) for name in ("question", "answer"))
        if not words(question):
            dropped["empty"] += 1
        elif _is_copied(words(question), text):
            dropped["copy"] += 1
        elif not _is_answered(answer, text, known):
            dropped["unanswerable"] += 1
        else:
            usable.append(question)
    return usable, dropped


def _text(item: Any, name: str) -> str:
    """Return a field as one line, "" if it is neither text nor a number; numbers are valid answers."""
    value = item.get(name) if isinstance(item, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())


def _is_copied(question: list[str], text: str) -> bool:
    length = math.ceil(_COPIED_SHARE * len(question))
    return any(" ".join(question[start : start + length]) in text for start in range(len(question) - length + 1))


def _is_answered(answer: str, text: str, known: frozenset[str]) -> bool:
    if normalise(answer) in _NO_ANSWER:
        return False
    content = [word for word in words(answer) if word not in _STOP_WORDS]
    # in scripts without spaces a word may be any part of the text
    return any(word in known or (not word.isascii() and word in text) for word in content)
