"""Text to word counts: lower case, a word pattern, stop words, a Snowball stemmer."""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import Stemmer
from numpy.typing import NDArray
from stop_words import AVAILABLE_LANGUAGES, LANGUAGE_MAPPING, get_stop_words

from harness.environment import threads
from harness.errors import ConfigError
from harness.instrument import count
from harness.search.postings import SparseRows
from harness.types import StringColumn
from harness.types.protocols import Component

# The list of Apache Lucene's EnglishAnalyzer: 33 words. The stop-words package, which has the other languages, drops
# 1,333 words of English, "system", "run" and "test" among them.
ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with"
)
"""Stop words, a blank between each two."""
_BLOCK = 16384
_LEAST = 1024  # texts of a block where there are several threads
# Few plain ASCII texts are split by Python, which finds the same there in patterns of such parts: the other engine
# compiles its pattern at each call, which takes longer than a query's search.
_FEW = 16
_SIMPLE = re.compile(r"(?:\\[bwdBWD.,-]|\[(?:\\[wd]|[\w.,'])+\]|\(\?:|\((?!\?)|[\w)+*?])+")


class Tokenizer(Component):
    """Splits texts into terms and numbers them.

    `pattern` is matched against the lower-cased text (Rust regex syntax: Unicode, no look-around). `language` names the
    stemmer and the stop words; `stemmer` and `stop_words` set one of them apart: a name, None for none, or for stop
    words also a list. English has Lucene's 33 stop words. They are dropped before stemming.
    """

    def __init__(
        self,
        language: str = "english",
        pattern: str = r"\b\w\w+\b",
        stemmer: str | None = "language",
        stop_words: str | Sequence[str] | None = "language",
    ) -> None:
        self._pattern = _checked_pattern(pattern)
        plain = re.compile(pattern) if _SIMPLE.fullmatch(pattern) else None
        self._plain = plain if plain and not plain.match("") else None  # of empty words the engines find different ones
        self._stemmer_name = language if stemmer == "language" else stemmer
        self._stemmer = _stemmer(self._stemmer_name)
        self._stop_words = _stop_words(language if stop_words == "language" else stop_words)
        self._terms: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # word of the fitted texts -> term, -1 for a stop word

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_stemmer"}  # it is sent by its name

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_stemmer": _stemmer(state["_stemmer_name"])}

    @property
    def vocabulary(self) -> list[str]:
        """Terms by number."""
        return list(self._terms)

    def fit(self, texts: StringColumn) -> SparseRows:
        """Count the terms of every text and forget what was learned before; weights are counts."""
        self._terms, self._numbers = {}, {}
        return self._count(texts, learn=True)

    def transform(self, texts: StringColumn) -> SparseRows:
        """Count the terms that `fit` has seen."""
        if len(texts) <= _FEW and self._plain:
            few: list[str] = texts.arrow.to_pylist()
            if all(map(str.isascii, few)):
                return self._count_few(few, self._plain)
        return self._count(texts, learn=False)

    def split(self, texts: StringColumn) -> list[list[str]]:
        """The terms of each text in order, for engines that count themselves. Learns new terms."""
        vocabulary: list[str] = []
        split = []
        for lengths, numbers in self._numbered(texts, learn=True):
            vocabulary += self.vocabulary[len(vocabulary) :]
            for own in np.split(numbers, np.cumsum(lengths)[:-1]):
                split.append([vocabulary[number] for number in own.tolist() if number >= 0])
        return split

    def _count_few(self, texts: list[str], pattern: re.Pattern[str]) -> SparseRows:
        starts, terms, weights = [0], [], []
        for text in texts:
            numbers = self._numbers_of([found[0] for found in pattern.finditer(text.lower())], learn=False)
            counts = sorted(Counter(number for number in numbers if number >= 0).items())
            terms += [term for term, _ in counts]
            weights += [times for _, times in counts]
            starts.append(len(terms))
        count("tokens", sum(weights))
        count("texts", len(texts))
        return SparseRows(np.array(starts, np.int64), np.array(terms, np.int32), np.array(weights, np.float32))

    def _count(self, texts: StringColumn, learn: bool) -> SparseRows:
        per_row, terms, weights = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        for lengths, numbers in self._numbered(texts, learn):
            rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
            known = numbers >= 0
            pairs, counts = np.unique((rows[known] << 32) | numbers[known], return_counts=True)
            per_row.append(np.bincount(pairs >> 32, minlength=len(lengths)))
            terms.append((pairs & 0xFFFFFFFF).astype(np.int32))
            weights.append(counts.astype(np.float32))
            count("tokens", int(known.sum()))
        count("texts", len(texts))
        return SparseRows(np.cumsum(np.concatenate(per_row)), np.concatenate(terms), np.concatenate(weights))

    def _numbered(self, texts: StringColumn, learn: bool) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each block of texts: how many words each has, and the term number of each word (-1: dropped)."""
        for lengths, encoded in self._split(texts):
            found = encoded.dictionary.to_pylist()
            numbers = np.array(self._numbers_of(found, learn), np.int64)
            indices = encoded.indices.to_numpy(zero_copy_only=False)
            yield lengths, numbers[indices] if len(found) else indices.astype(np.int64)

    def _split(self, texts: StringColumn) -> Iterator[tuple[NDArray[np.int64], pa.DictionaryArray]]:
        """`_words` of block after block, which other threads make while those before them are numbered."""
        n = threads()
        size = _BLOCK if n == 1 else min(max(_LEAST, len(texts) // (2 * n)), _BLOCK)
        blocks = (texts.arrow.slice(start, size) for start in range(0, len(texts), size))
        if n == 1 or len(texts) <= size:
            yield from map(self._words, blocks)
            return
        with ThreadPoolExecutor(n, thread_name_prefix="words") as pool:
            ahead = deque(pool.submit(self._words, block) for block in islice(blocks, n + 1))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(self._words, block) for block in islice(blocks, 1))

    def _words(self, texts: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.DictionaryArray]:
        """How many words each text has, and all words one after another."""
        block = pl.Series("text", texts, dtype=pl.String).to_frame()
        words = block.select(pl.col("text").str.to_lowercase().str.extract_all(self._pattern)).to_series().to_arrow()
        lengths = words.value_lengths().to_numpy().astype(np.int64)
        return lengths, words.flatten().cast(pa.large_string()).dictionary_encode()

    def _numbers_of(self, words: list[str], learn: bool) -> list[int]:
        """Term number of each word, -1 for a stop word and for a term that is not to be learned."""
        new = [word for word in words if word not in self._numbers]
        kept = [word for word in new if word not in self._stop_words]
        stems = self._stemmer.stemWords(kept) if self._stemmer else kept
        if learn:
            self._numbers.update(dict.fromkeys(new, -1))
            terms = [self._terms.setdefault(stem, len(self._terms)) for stem in stems]
            self._numbers.update(zip(kept, terms, strict=True))
            return [self._numbers[word] for word in words]
        other = {word: self._terms.get(stem, -1) for word, stem in zip(kept, stems, strict=True)}
        return [self._numbers.get(word, other.get(word, -1)) for word in words]


def _checked_pattern(pattern: str) -> str:
    try:
        pl.Series([""]).str.extract_all(pattern)
    except pl.exceptions.ComputeError as error:
        raise ConfigError(
            f"tokenizer.pattern={pattern!r} is no regular expression: {str(error).partition(chr(10) * 2)[0]}"
        ) from None
    return pattern


def _stemmer(name: str | None) -> "Stemmer.Stemmer | None":
    if name is None:
        return None
    try:
        return Stemmer.Stemmer(name)
    except KeyError:
        raise ConfigError(
            f"no Snowball stemmer {name!r}; choices: {', '.join(Stemmer.algorithms())}, or null for none"
        ) from None


def _stop_words(chosen: str | Sequence[str] | None) -> frozenset[str]:
    if chosen is None:
        return frozenset()
    if chosen == "english":
        return frozenset(ENGLISH.split())
    if not isinstance(chosen, str):
        return frozenset(word.lower() for word in chosen)
    if chosen not in AVAILABLE_LANGUAGES and chosen not in LANGUAGE_MAPPING:
        raise ConfigError(
            f"no stop words for {chosen!r}; choices: {', '.join(sorted(AVAILABLE_LANGUAGES))}, a list of words, "
            "or null for none"
        )
    return frozenset(get_stop_words(chosen))
