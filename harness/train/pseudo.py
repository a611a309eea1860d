"""Pseudo-queries without a language model: titles or sentences of the documents."""

import hashlib
import re
from collections.abc import Iterator

import numpy as np

from harness.errors import ConfigError
from harness.train.candidates import Candidate, Generated, Task
from harness.train.words import words

# ends at punctuation followed by a space, at an empty line, or at the end of the text
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s|\Z)|[。！？]+|(?=\n\s*\n)|\Z)", re.DOTALL)  # noqa: RUF001


class Titles:
    """Titles as queries; the positive is the document's text without a leading title.

    Titles are removed from negatives too: otherwise the model could tell negatives by their titles alone.
    """

    def generate(self, task: Task) -> Generated:
        """Generate a candidate for each document. Raises `ConfigError` for a corpus without separate titles."""
        if task.titles is None:
            raise ConfigError(f"{task.name} has no separate titles; use sentences as queries: generator=sentences")
        numbers = np.array(task.sample, np.int64)
        titles, texts = task.titles(), task.corpus.texts

        def texts_of() -> Iterator[str]:
            return (_body(title, text) or text for title, text in zip(titles, texts, strict=True))

        generated = Generated(texts_of=texts_of)
        for doc, title, text in zip(task.sample, titles.take(numbers), texts.take(numbers), strict=True):
            body = _body(title, text)
            if not words(title) or not words(body):
                generated.unusable["no_title" if not words(title) else "no_text"] += 1
                continue
            generated.generated += 1
            generated.candidates.append(Candidate(doc, " ".join(title.split()), body))
        return generated


def _body(title: str, text: str) -> str:
    """Return a document's text without the title at its beginning, even if it is repeated."""
    title, body = title.strip(), text
    while title and body.startswith(title):
        body = body.removeprefix(title).strip()
    return body


class Sentences:
    """Sentences as queries, with the rest of the document as the positive: the inverse cloze task (Lee et al., 2019).

    Args:
        words: Minimum and maximum number of words of a sentence.
        keep: Probability of keeping the sentence in the positive, so that lexical overlap is learned too (paper: 0.1).
        seed: Seed of the draw, which is made for each document separately.
    """

    def __init__(self, words: list[int], keep: float = 0.1, seed: int = 0) -> None:
        if len(words) != 2 or not 1 <= words[0] <= words[1]:
            raise ConfigError(f"generator.words={words} must be two numbers, minimum and maximum, such as [5,40]")
        if not 0 <= keep <= 1:
            raise ConfigError(f"generator.keep={keep} must be a share from 0 to 1")
        self._min_words, self._max_words = words
        self._keep, self._seed = keep, seed

    def generate(self, task: Task) -> Generated:
        """Generate up to `per_document` candidates for each document."""
        numbers = np.array(task.sample, np.int64)
        generated = Generated()
        rows = zip(task.sample, task.corpus.ids.take(numbers), task.corpus.texts.take(numbers), strict=True)
        for doc, key, text in rows:
            sentences = [span for span in _SENTENCE.finditer(text) if words(span[0])]
            eligible = [span for span in sentences if self._min_words <= len(words(span[0])) <= self._max_words]
            if not eligible or len(sentences) < 2:
                generated.unusable["no_sentence"] += 1
                continue
            rng = np.random.default_rng(_document_seed(self._seed, key))
            for position in np.sort(rng.choice(len(eligible), min(task.per_document, len(eligible)), replace=False)):
                anchor, positive = (
                    " ".join(eligible[position][0].split()),
                    self._positive(text, eligible[position], rng),
                )
                generated.generated += 1
                generated.candidates.append(Candidate(doc, anchor, positive))
        return generated

    def _positive(self, text: str, sentence: re.Match[str], rng: np.random.Generator) -> str:
        if rng.random() < self._keep:
            return text
        return f"{text[: sentence.start()].rstrip()} {text[sentence.end() :].lstrip()}".strip()


def _document_seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest(), "big")
