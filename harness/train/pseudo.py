"""Queries without a language model, from the documents themselves: their titles, or sentences taken out of them."""

import hashlib
import re
from collections.abc import Iterator

import numpy as np

from harness.errors import ConfigError
from harness.train.candidates import Candidate, Generated, Task
from harness.train.words import words

# ends at a mark with a blank behind it, at an empty line, or with the text
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s|\Z)|[。！？]+|(?=\n\s*\n)|\Z)", re.DOTALL)  # noqa: RUF001


class Titles:
    """A document's title for a query; the positive is its text without the title, wherever it begins with it.

    Negatives are without theirs too: what has a title would else be told apart by that alone.
    """

    def generate(self, task: Task) -> Generated:
        """Candidates, one a document. Raises `ConfigError` where titles are not kept apart from texts."""
        if task.titles is None:
            raise ConfigError(
                f"{task.name} has no titles apart from its texts; take sentences for queries: generator=sentences"
            )
        numbers = np.array(task.sample, np.int64)
        titles, texts = task.titles(), task.corpus.texts

        def texts_of() -> Iterator[str]:
            return (_body(title, text) or text for title, text in zip(titles, texts, strict=True))

        made = Generated(texts_of=texts_of)
        for doc, title, text in zip(task.sample, titles.take(numbers), texts.take(numbers), strict=True):
            body = _body(title, text)
            if not words(title) or not words(body):
                made.unusable["no_title" if not words(title) else "no_text"] += 1
                continue
            made.given += 1
            made.candidates.append(Candidate(doc, " ".join(title.split()), body))
        return made


def _body(title: str, text: str) -> str:
    """A document's text without its title at the beginning, be it there once or twice."""
    title, body = title.strip(), text
    while title and body.startswith(title):
        body = body.removeprefix(title).strip()
    return body


class Sentences:
    """A sentence of a document for a query; the positive is the rest of it: the inverse cloze task.

    With probability `keep` the sentence stays, so that words in common count too (Lee et al., 2019: 0.1). Only
    sentences of `words` (least, most) words are taken, seeded by document.
    """

    def __init__(self, words: list[int], keep: float = 0.1, seed: int = 0) -> None:
        if len(words) != 2 or not 1 <= words[0] <= words[1]:
            raise ConfigError(f"generator.words={words} must be two numbers, the least and the most; such as [5,40]")
        if not 0 <= keep <= 1:
            raise ConfigError(f"generator.keep={keep} must be a share from 0 to 1")
        self._least, self._most = words
        self._keep, self._seed = keep, seed

    def generate(self, task: Task) -> Generated:
        """Candidates, up to `per_document` a document."""
        numbers = np.array(task.sample, np.int64)
        made = Generated()
        rows = zip(task.sample, task.corpus.ids.take(numbers), task.corpus.texts.take(numbers), strict=True)
        for doc, key, text in rows:
            found = [span for span in _SENTENCE.finditer(text) if words(span[0])]
            fit = [span for span in found if self._least <= len(words(span[0])) <= self._most]
            if not fit or len(found) < 2:
                made.unusable["no_sentence"] += 1
                continue
            rng = np.random.default_rng(_seed(self._seed, key))
            for place in np.sort(rng.choice(len(fit), min(task.per_document, len(fit)), replace=False)):
                anchor, positive = " ".join(fit[place][0].split()), self._rest(text, fit[place], rng)
                made.given += 1
                made.candidates.append(Candidate(doc, anchor, positive))
        return made

    def _rest(self, text: str, sentence: re.Match[str], rng: np.random.Generator) -> str:
        if rng.random() < self._keep:
            return text
        return f"{text[: sentence.start()].rstrip()} {text[sentence.end() :].lstrip()}".strip()


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest(), "big")
