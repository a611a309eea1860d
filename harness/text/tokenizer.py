"""Tokenizer of texts into terms and term counts: lower case, a word pattern, stop words, and a Snowball stemmer."""

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
ENGLISH_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with"
)
"""Separated by spaces."""
_BLOCK = 16384
_MIN_BLOCK = 1024  # minimum texts in a block when there are several threads
# Up to 16 ASCII texts are split by Python's re if the pattern is simple enough to match the same words: polars compiles
# the pattern in each call, which takes longer than the search of a query.
_MAX_TEXTS_FOR_RE = 16
_SIMPLE = re.compile(r"(?:\\[bwdBWD.,-]|\[(?:\\[wd]|[\w.,'])+\]|\(\?:|\((?!\?)|[\w)+*?])+")


class Tokenizer(Component):
    """A tokenizer that splits texts into terms and assigns an integer to each.

    Args:
        language: Language of the stemmer and the stop words; English has Lucene's 33 stop words.
        pattern: Matches words of the lower-cased text (Rust regex syntax: Unicode, no look-around).
        stemmer: Name of a Snowball stemmer; `language` for the language's, None for none.
        stop_words: `language` for the language's, another language's name, a list, or None for none; dropped before
            stemming.

    Raises:
        ConfigError: The pattern is invalid, or there is no such stemmer or list of stop words.
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
        self._plain = plain if plain and not plain.match("") else None  # re and polars differ in empty matches
        self._stemmer_name = language if stemmer == "language" else stemmer
        self._stemmer = _stemmer(self._stemmer_name)
        self._stop_words = _stop_words(language if stop_words == "language" else stop_words)
        self._terms: dict[str, int] = {}
        self._term_of_word: dict[str, int] = {}  # words of the fitted texts; -1 for a stop word

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_stemmer"}  # created again from its name

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_stemmer": _stemmer(state["_stemmer_name"])}

    @property
    def vocabulary(self) -> list[str]:
        """The terms, in the order of their integers."""
        return list(self._terms)

    def fit(self, texts: StringColumn) -> SparseRows:
        """Learn a new vocabulary from the texts, and return the term counts of each."""
        self._terms, self._term_of_word = {}, {}
        return self._count(texts, learn=True)

    def transform(self, texts: StringColumn) -> SparseRows:
        """Return the counts of known terms in each text."""
        if len(texts) <= _MAX_TEXTS_FOR_RE and self._plain:
            few: list[str] = texts.arrow.to_pylist()
            if all(map(str.isascii, few)):
                return self._count_few(few, self._plain)
        return self._count(texts, learn=False)

    def split(self, texts: StringColumn) -> list[list[str]]:
        """Return the terms of each text in order, for engines that count terms; adds new terms to the vocabulary."""
        vocabulary: list[str] = []
        split = []
        for lengths, terms in self._terms_of_words(texts, learn=True):
            vocabulary += self.vocabulary[len(vocabulary) :]
            for text_terms in np.split(terms, np.cumsum(lengths)[:-1]):
                split.append([vocabulary[term] for term in text_terms.tolist() if term >= 0])
        return split

    def _count_few(self, texts: list[str], pattern: re.Pattern[str]) -> SparseRows:
        starts, terms, weights = [0], [], []
        for text in texts:
            all_terms = self._lookup([match[0] for match in pattern.finditer(text.lower())], learn=False)
            counts = sorted(Counter(term for term in all_terms if term >= 0).items())
            terms += [term for term, _ in counts]
            weights += [tf for _, tf in counts]
            starts.append(len(terms))
        count("tokens", sum(weights))
        count("texts", len(texts))
        return SparseRows(np.array(starts, np.int64), np.array(terms, np.int32), np.array(weights, np.float32))

    def _count(self, texts: StringColumn, learn: bool) -> SparseRows:
        per_row, terms, weights = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        for lengths, term_of_word in self._terms_of_words(texts, learn):
            rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
            known = term_of_word >= 0
            pairs, counts = np.unique((rows[known] << 32) | term_of_word[known], return_counts=True)
            per_row.append(np.bincount(pairs >> 32, minlength=len(lengths)))
            terms.append((pairs & 0xFFFFFFFF).astype(np.int32))
            weights.append(counts.astype(np.float32))
            count("tokens", int(known.sum()))
        count("texts", len(texts))
        return SparseRows(np.cumsum(np.concatenate(per_row)), np.concatenate(terms), np.concatenate(weights))

    def _terms_of_words(
        self, texts: StringColumn, learn: bool
    ) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield, for each block of texts, the number of words of each, and the term of each word (-1: dropped)."""
        for lengths, encoded in self._split(texts):
            words = encoded.dictionary.to_pylist()
            terms = np.array(self._lookup(words, learn), np.int64)
            indices = encoded.indices.to_numpy(zero_copy_only=False)
            yield lengths, terms[indices] if len(words) else indices.astype(np.int64)

    def _split(self, texts: StringColumn) -> Iterator[tuple[NDArray[np.int64], pa.DictionaryArray]]:
        """Yield the results of `_words` for blocks of texts; threads prepare the next blocks in advance."""
        n = threads()
        size = _BLOCK if n == 1 else min(max(_MIN_BLOCK, len(texts) // (2 * n)), _BLOCK)
        blocks = (texts.arrow.slice(start, size) for start in range(0, len(texts), size))
        if n == 1 or len(texts) <= size:
            yield from map(self._words, blocks)
            return
        with ThreadPoolExecutor(n, thread_name_prefix="words") as pool:
            pending = deque(pool.submit(self._words, block) for block in islice(blocks, n + 1))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(self._words, block) for block in islice(blocks, 1))

    def _words(self, texts: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.DictionaryArray]:
        """Return the number of words of each text, and all words in order."""
        block = pl.Series("text", texts, dtype=pl.String).to_frame()
        words = block.select(pl.col("text").str.to_lowercase().str.extract_all(self._pattern)).to_series().to_arrow()
        lengths = words.value_lengths().to_numpy().astype(np.int64)
        return lengths, words.flatten().cast(pa.large_string()).dictionary_encode()

    def _lookup(self, words: list[str], learn: bool) -> list[int]:
        """Return the term of each word, -1 for a stop word and, unless `learn`, for an unknown term."""
        new = [word for word in words if word not in self._term_of_word]
        content = [word for word in new if word not in self._stop_words]
        stems = self._stemmer.stemWords(content) if self._stemmer else content
        if learn:
            self._term_of_word.update(dict.fromkeys(new, -1))
            terms = [self._terms.setdefault(stem, len(self._terms)) for stem in stems]
            self._term_of_word.update(zip(content, terms, strict=True))
            return [self._term_of_word[word] for word in words]
        new_terms = {word: self._terms.get(stem, -1) for word, stem in zip(content, stems, strict=True)}
        return [self._term_of_word.get(word, new_terms.get(word, -1)) for word in words]


def _checked_pattern(pattern: str) -> str:
    try:
        pl.Series([""]).str.extract_all(pattern)
    except pl.exceptions.ComputeError as error:
        raise ConfigError(
            f"tokenizer.pattern={pattern!r} is not a regular expression: {str(error).partition(chr(10) * 2)[0]}"
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


def _stop_words(setting: str | Sequence[str] | None) -> frozenset[str]:
    if setting is None:
        return frozenset()
    if setting == "english":
        return frozenset(ENGLISH_STOP_WORDS.split())
    if not isinstance(setting, str):
        return frozenset(word.lower() for word in setting)
    if setting not in AVAILABLE_LANGUAGES and setting not in LANGUAGE_MAPPING:
        raise ConfigError(
            f"no stop words for {setting!r}; choices: {', '.join(sorted(AVAILABLE_LANGUAGES))}, a list of words, "
            "or null for none"
        )
    return frozenset(get_stop_words(setting))
