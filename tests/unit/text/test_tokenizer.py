"""Tests of the tokenizer: words, stop words, stemming, and counts by term."""

import re
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.instrument import recording
from harness.search.postings import SparseRows
from harness.text import tokenizer
from harness.text.tokenizer import Tokenizer
from harness.types import Counters, StringColumn


def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer without stemmer and stop words."""
    return Tokenizer(stemmer=None, stop_words=None)


def counts_by_term(tokenizer: Tokenizer, counts: SparseRows) -> list[dict[str, float]]:
    """Return the counts of each text by term."""
    vocabulary, rows = tokenizer.vocabulary, []
    for start, stop in zip(counts.starts[:-1], counts.starts[1:], strict=True):
        terms = [vocabulary[term] for term in counts.terms[start:stop]]
        assert len(set(terms)) == len(terms)
        rows.append(dict(zip(terms, counts.weights[start:stop].tolist(), strict=True)))
    return rows


def fit_counts(tokenizer: Tokenizer, *texts: str) -> list[dict[str, float]]:
    """Fit a tokenizer and return the counts of each text by term."""
    return counts_by_term(tokenizer, tokenizer.fit(StringColumn(texts)))


def transform_counts(tokenizer: Tokenizer, *texts: str) -> list[dict[str, float]]:
    """Return the counts of each text by term of a fitted tokenizer."""
    return counts_by_term(tokenizer, tokenizer.transform(StringColumn(texts)))


def test_words_are_lower_cased_and_counted() -> None:
    tokenizer = plain_tokenizer()
    assert fit_counts(tokenizer, "Big dog, big CAT.", "dog") == [{"big": 2, "dog": 1, "cat": 1}, {"dog": 1}]
    assert sorted(tokenizer.vocabulary) == ["big", "cat", "dog"]


def test_default_pattern_drops_single_letters_and_keeps_numbers_and_underscores() -> None:
    assert fit_counts(plain_tokenizer(), "a I x86 42 7 snake_case vitamin-D don't") == [
        {"x86": 1, "42": 1, "snake_case": 1, "vitamin": 1, "don": 1}
    ]


def test_empty_text_has_no_words_and_keeps_its_row() -> None:
    assert fit_counts(plain_tokenizer(), "", "dog", " . ", "dog cat", "") == [
        {},
        {"dog": 1},
        {},
        {"dog": 1, "cat": 1},
        {},
    ]
    assert fit_counts(plain_tokenizer(), "") == [{}]
    assert fit_counts(plain_tokenizer()) == []
    assert transform_counts(plain_tokenizer(), "dog", "") == [{}, {}]


def test_words_of_any_script_are_counted() -> None:
    assert fit_counts(plain_tokenizer(), "Ünïcode ÜNÏCODE 文書検索 ДОМ дом naïve") == [
        {"ünïcode": 2, "文書検索": 1, "дом": 2, "naïve": 1}
    ]


def test_pattern_defines_words() -> None:
    assert fit_counts(Tokenizer(stemmer=None, stop_words=None, pattern=r"[a-z]"), "a1b A") == [{"a": 2, "b": 1}]
    assert fit_counts(Tokenizer(stemmer=None, stop_words=None, pattern=r"\S+"), "vitamin-D, 7") == [
        {"vitamin-d,": 1, "7": 1}
    ]


def test_stop_words_are_dropped_before_stemming() -> None:
    # "running" stems to the stop word "run" and stays; "run" goes, also from queries
    tokenizer = Tokenizer(stop_words=["Run"])
    assert fit_counts(tokenizer, "running run runs") == [{"run": 2}]
    assert transform_counts(tokenizer, "RUN running") == [{"run": 1}]


def test_unseen_stop_word_is_dropped_from_a_query() -> None:
    tokenizer = Tokenizer(stop_words=["runs"])
    assert fit_counts(tokenizer, "running") == [{"run": 1}]
    assert transform_counts(tokenizer, "runs") == [{}]


def test_default_stop_words_are_those_of_lucene() -> None:
    lucene = (
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they"
    )
    tokenizer = Tokenizer(stemmer=None, pattern=r"\w+")
    assert fit_counts(tokenizer, f"{lucene} this to was will with were have I") == [{"were": 1, "have": 1, "i": 1}]


def test_english_stemmer_and_stop_words_are_the_default() -> None:
    assert fit_counts(Tokenizer(), "The cats, as they are jumping, and the cat jumped") == [{"cat": 2, "jump": 2}]


@pytest.mark.parametrize("language", ["german", "de"])
def test_german_stemmer_and_stop_words_have_two_names(language: str) -> None:
    assert fit_counts(Tokenizer(language), "Die Häuser und das Haus") == [{"haus": 2}]


def test_stemmer_and_stop_words_can_differ_from_the_language() -> None:
    assert fit_counts(Tokenizer(stemmer="german"), "the Häuser and und") == [{"haus": 1, "und": 1}]
    assert fit_counts(Tokenizer(stop_words="german"), "the houses und") == [{"the": 1, "hous": 1}]
    # the English stemmer gives "generous"
    assert fit_counts(Tokenizer(stemmer="porter", stop_words=None), "generously") == [{"gener": 1}]
    assert fit_counts(Tokenizer("german", stemmer=None), "die Häuser") == [{"häuser": 1}]
    assert fit_counts(Tokenizer("german", stop_words=None), "die Häuser") == [{"die": 1, "haus": 1}]
    assert fit_counts(Tokenizer(stop_words=[]), "the cats") == [{"the": 1, "cat": 1}]


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"language": "klingon"}, "no Snowball stemmer 'klingon'; choices: arabic, armenian, "),
        ({"stemmer": "klingon"}, "no Snowball stemmer 'klingon'; choices: arabic, armenian, "),
        ({"stop_words": "klingon"}, "no stop words for 'klingon'; choices: arabic, bulgarian, "),
        ({"language": "esperanto"}, "no stop words for 'esperanto'; choices: arabic, bulgarian, "),
        ({"pattern": "["}, "tokenizer.pattern='[' is not a regular expression: regex"),
        ({"pattern": r"(?=look)ahead"}, "tokenizer.pattern='(?=look)ahead' is not a regular expression: regex"),
    ],
)
def test_invalid_tokenizer_setting_is_named(settings: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(start)}"):
        Tokenizer(**settings)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"stemmer": "klingon"}, ", turkish, yiddish, or null for none"),
        ({"stop_words": "klingon"}, ", vietnamese, a list of words, or null for none"),
    ],
)
def test_tokenizer_error_lists_the_choices(settings: dict[str, Any], end: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(end)}$"):
        Tokenizer(**settings)


def test_query_word_is_stemmed_to_a_term_of_the_documents() -> None:
    tokenizer = Tokenizer()
    assert fit_counts(tokenizer, "vasodilation") == [{"vasodil": 1}]
    assert transform_counts(tokenizer, "vasodilating", "vasodilation vasodilating") == [{"vasodil": 1}, {"vasodil": 2}]


def test_transform_does_not_change_the_vocabulary() -> None:
    tokenizer = Tokenizer()
    fit_counts(tokenizer, "cats and dogs")
    before = tokenizer.vocabulary
    for _ in range(2):  # also a second time: words of queries are not added
        assert transform_counts(tokenizer, "cat bird and birds", "flying dog") == [{"cat": 1}, {"dog": 1}]
    assert tokenizer.vocabulary == before == ["cat", "dog"]


def test_fit_replaces_the_vocabulary() -> None:
    tokenizer = plain_tokenizer()
    fit_counts(tokenizer, "dog cat")
    assert fit_counts(tokenizer, "bird") == [{"bird": 1}]
    assert tokenizer.vocabulary == ["bird"]
    assert transform_counts(tokenizer, "dog bird") == [{"bird": 1}]


TEXTS = ["big dog", "", "the dog and the cat", "cats", "", "bird dogs", "jumping", "jump big cats", "", "a flying bird"]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 10, 11])
def test_words_do_not_depend_on_block_boundaries(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    tokenizer_of_one_block = Tokenizer()
    expected = fit_counts(tokenizer_of_one_block, *TEXTS)
    expected_queries = transform_counts(tokenizer_of_one_block, *TEXTS, "flies unknown")
    split = Tokenizer().split(StringColumn(TEXTS))
    monkeypatch.setattr(tokenizer, "_BLOCK", block)
    blocks = Tokenizer()
    assert fit_counts(blocks, *TEXTS) == expected
    assert transform_counts(blocks, *TEXTS, "flies unknown") == expected_queries
    assert Tokenizer().split(StringColumn(TEXTS)) == split


def test_texts_of_several_blocks_are_all_counted() -> None:
    texts = [f"number w{i % 97}" for i in range(16384 + 5)]
    rows = fit_counts(plain_tokenizer(), *texts)
    assert rows == [{"number": 1, f"w{i % 97}": 1} for i in range(16384 + 5)]


def test_split_returns_terms_in_order_with_repetitions() -> None:
    assert Tokenizer().split(StringColumn(["The cats jump, cats!", "", "and", "jumping dog"])) == [
        ["cat", "jump", "cat"],
        [],
        [],
        ["jump", "dog"],
    ]
    assert Tokenizer().split(StringColumn([])) == []


def test_slice_of_texts_is_counted_like_the_texts_alone() -> None:
    tokenizer = plain_tokenizer()
    assert counts_by_term(tokenizer, tokenizer.fit(StringColumn(TEXTS)[2:7])) == fit_counts(
        plain_tokenizer(), *TEXTS[2:7]
    )


def test_fit_counts_texts_and_tokens_for_the_record() -> None:
    with recording() as recorder:
        Tokenizer().fit(StringColumn(["the cats jump", "", "cat"]))
    assert recorder.phase().counters[""] == Counters(texts=3, tokens=3)


@pytest.mark.parametrize(
    "pattern", [r"\b(\w)\w+\b", r"\w*", r"(?:a|b)+", r"\w+(?:[.,]\d\w*)*", r"[a-z]+", r"\b\w\w+\b"]
)
def test_few_and_many_texts_are_tokenized_alike(pattern: str) -> None:
    texts = ["Some 1,000 plain words, a.b and abba_c", "", "don't stop-me now 3.5"]
    few, many = Tokenizer(pattern=pattern, stop_words=None), Tokenizer(pattern=pattern, stop_words=None)
    few.fit(StringColumn(texts * 10))
    many.fit(StringColumn(texts * 10))
    single = [few.transform(StringColumn([text])) for text in texts]
    batch = many.transform(StringColumn(texts * 10))
    for row, counts in enumerate(single):
        columns = slice(batch.starts[row], batch.starts[row + 1])
        assert counts.terms.tolist() == batch.terms[columns].tolist()
        assert counts.weights.tolist() == batch.weights[columns].tolist()
