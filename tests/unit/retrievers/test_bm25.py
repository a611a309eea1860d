"""Words, BM25 and RankBM25: against the formula, against the bm25s and rank_bm25 packages, and at their edges."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import bm25s
import numpy as np
import pytest
import Stemmer
from rank_bm25 import BM25Okapi

from harness.errors import ConfigError
from harness.instrument import recording
from harness.retrievers.bm25 import BM25, RankBM25
from harness.search.postings import SparseRows
from harness.text import tokenizer
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Counters, Dataset, Queries, Run, StringColumn


def plain() -> Tokenizer:
    """Words as they are: no stemmer, no stop words."""
    return Tokenizer(stemmer=None, stop_words=None)


def corpus(*texts: str) -> Corpus:
    return Corpus([f"d{i}" for i in range(len(texts))], texts)


def queries(*texts: str) -> Queries:
    return Queries([f"q{i}" for i in range(len(texts))], texts)


def found(run: Run, query: int = 0) -> dict[str, float]:
    names, scores = run.hits(query)
    return dict(zip(names, scores.tolist(), strict=True))


def counted(tokenizer: Tokenizer, counts: SparseRows) -> list[dict[str, float]]:
    """The counts of each text by term."""
    vocabulary, rows = tokenizer.vocabulary, []
    for start, stop in zip(counts.starts[:-1], counts.starts[1:], strict=True):
        terms = [vocabulary[term] for term in counts.terms[start:stop]]
        assert len(set(terms)) == len(terms)
        rows.append(dict(zip(terms, counts.weights[start:stop].tolist(), strict=True)))
    return rows


def fitted(tokenizer: Tokenizer, *texts: str) -> list[dict[str, float]]:
    return counted(tokenizer, tokenizer.fit(StringColumn(texts)))


def transformed(tokenizer: Tokenizer, *texts: str) -> list[dict[str, float]]:
    return counted(tokenizer, tokenizer.transform(StringColumn(texts)))


# ------------------------------------------------------------------------------------------------------------- Words


def test_words_are_lower_cased_counted_and_numbered() -> None:
    tokenizer = plain()
    assert fitted(tokenizer, "Big dog, big CAT.", "dog") == [{"big": 2, "dog": 1, "cat": 1}, {"dog": 1}]
    assert sorted(tokenizer.vocabulary) == ["big", "cat", "dog"]


def test_the_default_pattern_drops_single_letters_and_keeps_numbers_and_underscores() -> None:
    assert fitted(plain(), "a I x86 42 7 snake_case vitamin-D don't") == [
        {"x86": 1, "42": 1, "snake_case": 1, "vitamin": 1, "don": 1}
    ]


def test_an_empty_text_has_no_words_and_keeps_its_row() -> None:
    assert fitted(plain(), "", "dog", " . ", "dog cat", "") == [{}, {"dog": 1}, {}, {"dog": 1, "cat": 1}, {}]
    assert fitted(plain(), "") == [{}]
    assert fitted(plain()) == []
    assert transformed(plain(), "dog", "") == [{}, {}]


def test_words_of_any_script_are_words() -> None:
    assert fitted(plain(), "Ünïcode ÜNÏCODE 文書検索 ДОМ дом naïve") == [
        {"ünïcode": 2, "文書検索": 1, "дом": 2, "naïve": 1}
    ]


def test_a_pattern_says_what_a_word_is() -> None:
    assert fitted(Tokenizer(stemmer=None, stop_words=None, pattern=r"[a-z]"), "a1b A") == [{"a": 2, "b": 1}]
    assert fitted(Tokenizer(stemmer=None, stop_words=None, pattern=r"\S+"), "vitamin-D, 7") == [
        {"vitamin-d,": 1, "7": 1}
    ]


def test_stop_words_are_dropped_before_stemming() -> None:
    # "running" stems to the stop word "run" and stays; "run" goes, also from queries
    tokenizer = Tokenizer(stop_words=["Run"])
    assert fitted(tokenizer, "running run runs") == [{"run": 2}]
    assert transformed(tokenizer, "RUN running") == [{"run": 1}]


def test_a_stop_word_that_no_document_has_is_dropped_from_a_query() -> None:
    tokenizer = Tokenizer(stop_words=["runs"])
    assert fitted(tokenizer, "running") == [{"run": 1}]
    assert transformed(tokenizer, "runs") == [{}]


def test_lucenes_stop_words_are_33_and_others_stay() -> None:
    lucene = (
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they"
    )
    tokenizer = Tokenizer(stemmer=None, pattern=r"\w+")
    assert fitted(tokenizer, f"{lucene} this to was will with were have I") == [{"were": 1, "have": 1, "i": 1}]


def test_english_words_are_stemmed_and_its_stop_words_dropped_by_default() -> None:
    assert fitted(Tokenizer(), "The cats, as they are jumping, and the cat jumped") == [{"cat": 2, "jump": 2}]


@pytest.mark.parametrize("language", ["german", "de"])
def test_german_has_its_stemmer_and_its_stop_words_by_either_name(language: str) -> None:
    assert fitted(Tokenizer(language), "Die Häuser und das Haus") == [{"haus": 2}]


def test_stemmer_and_stop_words_may_be_set_apart_from_the_language() -> None:
    assert fitted(Tokenizer(stemmer="german"), "the Häuser and und") == [{"haus": 1, "und": 1}]
    assert fitted(Tokenizer(stop_words="german"), "the houses und") == [{"the": 1, "hous": 1}]
    assert fitted(Tokenizer(stemmer="porter", stop_words=None), "generously") == [{"gener": 1}]  # English: "generous"
    assert fitted(Tokenizer("german", stemmer=None), "die Häuser") == [{"häuser": 1}]
    assert fitted(Tokenizer("german", stop_words=None), "die Häuser") == [{"die": 1, "haus": 1}]
    assert fitted(Tokenizer(stop_words=[]), "the cats") == [{"the": 1, "cat": 1}]


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
def test_a_setting_that_cannot_be_is_an_error_that_names_it(settings: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(start)}"):
        Tokenizer(**settings)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"stemmer": "klingon"}, ", turkish, yiddish, or null for none"),
        ({"stop_words": "klingon"}, ", vietnamese, a list of words, or null for none"),
    ],
)
def test_an_error_says_what_else_may_be_set(settings: dict[str, Any], end: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(end)}$"):
        Tokenizer(**settings)


def test_a_word_that_only_the_query_has_is_stemmed_to_a_term_of_the_documents() -> None:
    tokenizer = Tokenizer()
    assert fitted(tokenizer, "vasodilation") == [{"vasodil": 1}]
    assert transformed(tokenizer, "vasodilating", "vasodilation vasodilating") == [{"vasodil": 1}, {"vasodil": 2}]


def test_transform_never_learns() -> None:
    tokenizer = Tokenizer()
    fitted(tokenizer, "cats and dogs")
    before = tokenizer.vocabulary
    for _ in range(2):  # a second time as the first: nothing is remembered of a query's words either
        assert transformed(tokenizer, "cat bird and birds", "flying dog") == [{"cat": 1}, {"dog": 1}]
    assert tokenizer.vocabulary == before == ["cat", "dog"]


def test_fit_forgets_what_was_learned_before() -> None:
    tokenizer = plain()
    fitted(tokenizer, "dog cat")
    assert fitted(tokenizer, "bird") == [{"bird": 1}]
    assert tokenizer.vocabulary == ["bird"]
    assert transformed(tokenizer, "dog bird") == [{"bird": 1}]


TEXTS = ["big dog", "", "the dog and the cat", "cats", "", "bird dogs", "jumping", "jump big cats", "", "a flying bird"]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 10, 11])
def test_words_do_not_depend_on_where_a_block_of_texts_ends(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole = Tokenizer()
    expected, asked = fitted(whole, *TEXTS), transformed(whole, *TEXTS, "flies unknown")
    split = Tokenizer().split(StringColumn(TEXTS))
    monkeypatch.setattr(tokenizer, "_BLOCK", block)
    blocks = Tokenizer()
    assert fitted(blocks, *TEXTS) == expected
    assert transformed(blocks, *TEXTS, "flies unknown") == asked
    assert Tokenizer().split(StringColumn(TEXTS)) == split


def test_more_texts_than_a_block_holds_are_all_counted() -> None:
    texts = [f"number w{i % 97}" for i in range(16384 + 5)]
    rows = fitted(plain(), *texts)
    assert rows == [{"number": 1, f"w{i % 97}": 1} for i in range(16384 + 5)]


def test_split_gives_the_terms_in_order_and_as_often_as_they_stand() -> None:
    assert Tokenizer().split(StringColumn(["The cats jump, cats!", "", "and", "jumping dog"])) == [
        ["cat", "jump", "cat"],
        [],
        [],
        ["jump", "dog"],
    ]
    assert Tokenizer().split(StringColumn([])) == []


def test_a_slice_of_texts_is_counted_as_the_texts_alone() -> None:
    tokenizer = plain()
    assert counted(tokenizer, tokenizer.fit(StringColumn(TEXTS)[2:7])) == fitted(plain(), *TEXTS[2:7])


def test_texts_and_tokens_are_counted_for_the_record() -> None:
    with recording() as seen:
        Tokenizer().fit(StringColumn(["the cats jump", "", "cat"]))
    assert seen.phase().counters[""] == Counters(texts=3, tokens=3)


# -------------------------------------------------------------------------------------------------------------- BM25


def formula(documents: Sequence[Sequence[str]], query: Sequence[str], k1: float, b: float) -> dict[int, float]:
    """Lucene's BM25 of every document that has a word of the query, term by term."""
    average = sum(map(len, documents)) / len(documents)
    scores: dict[int, float] = {}
    for number, document in enumerate(documents):
        counts = Counter(document)
        for term in query:
            if counts[term]:
                df = sum(term in other for other in documents)
                idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * len(document) / average)
                scores[number] = scores.get(number, 0.0) + idf * counts[term] / (counts[term] + norm)
    return scores


def random_texts(seed: int, n: int, longest: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"word{i}" for i in range(25)])
    skewed = 1 / np.arange(1, 26)
    return [rng.choice(vocabulary, rng.integers(0, longest), p=skewed / skewed.sum()).tolist() for _ in range(n)]


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (0.0, 0.5), (1.5, 0.0), (2.0, 1.0)])
def test_bm25_is_its_formula(k1: float, b: float) -> None:
    documents, asked = random_texts(1, 60, 30), random_texts(2, 15, 6)
    retriever = BM25(plain(), k1, b)
    retriever.index(corpus(*map(" ".join, documents)))
    run = retriever.search(queries(*map(" ".join, asked)), 60)
    for row, query in enumerate(asked):
        expected = {f"d{number}": value for number, value in formula(documents, query, k1, b).items()}
        assert found(run, row) == pytest.approx(expected, rel=1e-5)
        assert run.scores[row, : len(expected)].tolist() == sorted(found(run, row).values(), reverse=True)


def test_bm25_of_one_term_is_the_number_worked_by_hand() -> None:
    # "cat": N = 3, df = 1, idf = ln(1 + 2.5/1.5) = .980829; tf = 2, |d| = 4, average 3; k1 1.2, b .75:
    # norm = 1.2 * (.25 + .75 * 4/3) = 1.5; score = .980829 * 2 / 3.5 = .560474
    retriever = BM25(plain())
    retriever.index(corpus("cat cat dog bird", "dog bird", "bird dog fish"))
    assert found(retriever.search(queries("cat"), 3)) == pytest.approx({"d0": 0.560474}, abs=1e-6)


def test_a_term_that_every_document_has_still_scores_above_zero() -> None:
    retriever = BM25(plain())
    retriever.index(corpus(*["same"] * 1000))
    run = retriever.search(queries("same"), 1000)
    assert len(found(run)) == 1000
    assert min(found(run).values()) > 0


def test_bm25_is_that_of_the_bm25s_package_on_real_text(real_dataset: Callable[[str], Dataset]) -> None:
    real = real_dataset("scifact")
    asked = real.queries[:40]
    tokenizer = Tokenizer()
    retriever = BM25(tokenizer, k1=1.5, b=0.75)
    retriever.index(real.corpus)
    run = retriever.search(asked, len(real.corpus))

    settings = {"stopwords": "english", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    theirs = bm25s.tokenize(list(real.corpus.texts), return_ids=False, **settings)
    asked_theirs = bm25s.tokenize(list(asked.texts), return_ids=False, **settings)
    engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    engine.index(theirs, show_progress=False)

    alike = np.array([a == b for a, b in zip(tokenizer.split(real.corpus.texts), theirs, strict=True)])
    assert alike.mean() > 0.99
    compared = 0
    for row, (own, other) in enumerate(zip(tokenizer.split(asked.texts), asked_theirs, strict=True)):
        if own != other:
            continue
        known = [term for term in other if term in engine.vocab_dict]
        expected = engine.get_scores(known)
        ours = np.zeros(len(real.corpus))
        hits = run.docs[row][run.docs[row] >= 0]
        ours[hits] = run.scores[row, : len(hits)]
        np.testing.assert_allclose(ours[alike], expected[alike], rtol=1e-3)
        compared += 1
    assert compared > 30


def test_a_document_that_shares_no_term_is_not_returned() -> None:
    retriever = BM25(Tokenizer())
    retriever.index(corpus("cats", "dogs", "", "the and"))
    run = retriever.search(queries("a cat and the birds", "elephant", "", "the"), 4)
    assert [list(found(run, row)) for row in range(4)] == [["d0"], [], [], []]


def test_the_query_word_vasodilating_finds_a_document_that_has_only_vasodilation() -> None:
    for words in (Tokenizer(), Tokenizer("german", stemmer="english")):
        for retriever in (BM25(words), RankBM25(words)):
            retriever.index(corpus("heart", "nitric oxide causes vasodilation", "lung"))
            assert list(found(retriever.search(queries("vasodilating drugs"), 3))) == ["d1"]


def test_a_term_counts_as_often_as_the_query_has_it() -> None:
    retriever = BM25(plain())
    retriever.index(corpus("cat dog", "dog bird fish", "bird"))
    run = retriever.search(queries("cat", "dog", "cat dog", "cat cat cat dog", "cat CAT"), 3)
    cat, dog, both, more, twice = (found(run, row)["d0"] for row in range(5))
    assert both == pytest.approx(cat + dog)
    assert more == pytest.approx(3 * cat + dog)
    assert twice == pytest.approx(2 * cat)


def test_documents_of_equal_score_come_in_descending_order_of_id_also_at_the_cut() -> None:
    retriever = BM25(plain())
    retriever.index(Corpus(["9", "é", "10", "a", "Z"], ["cat"] * 5))
    assert list(found(retriever.search(queries("cat"), 5))) == ["é", "a", "Z", "9", "10"]
    assert list(found(retriever.search(queries("cat"), 2))) == ["é", "a"]


RETRIEVERS = {"bm25": lambda: BM25(Tokenizer()), "rank_bm25": lambda: RankBM25(Tokenizer())}
either = pytest.mark.parametrize("make", RETRIEVERS.values(), ids=RETRIEVERS.keys())
DOCUMENTS = ["big dog", "", "the dog and the cat", "cats", "bird dogs", "jumping", "jump big cats", "a flying bird"]


@either
def test_a_batch_of_queries_gives_what_each_alone_gives(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus(*DOCUMENTS))
    asked = queries("big cat", "", "dog", "unknown", "jump jump bird", "the")
    run = retriever.search(asked, 5)
    assert list(run.query_ids) == list(asked.ids)
    for row in range(len(asked)):
        alone = retriever.search(asked[row : row + 1], 5)
        assert alone.docs[0].tolist() == run.docs[row].tolist()
        assert alone.scores[0].tolist() == run.scores[row].tolist()


@either
def test_the_same_search_gives_the_same_run(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus(*DOCUMENTS))
    one, two = (retriever.search(queries("big dog", "birds fly"), 4) for _ in range(2))
    assert (one.docs.tolist(), one.scores.tolist()) == (two.docs.tolist(), two.scores.tolist())


@either
def test_an_index_forgets_the_old_corpus(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever, fresh = make(), make()
    retriever.index(corpus("elephant dog", "elephant", "cat", "cat bird"))
    for texts in (["cat", "dog mouse", "fish", "bird", "worm"], [""], []):
        retriever.index(corpus(*texts))
        fresh.index(corpus(*texts))
        asked = queries("elephant", "cat", "mouse")
        again, once = retriever.search(asked, 9), fresh.search(asked, 9)
        assert [found(again, row) for row in range(3)] == [found(once, row) for row in range(3)]
        assert found(again, 0) == {}
        assert len(again.doc_ids) == len(texts)


@either
def test_nothing_to_search_and_nothing_to_ask_are_no_errors(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus())
    assert found(retriever.search(queries("cat"), 3)) == {}
    retriever.index(corpus("", " ", "the"))
    assert found(retriever.search(queries("cat the"), 3)) == {}
    retriever.index(corpus("cat", "dog", "bird"))
    assert len(retriever.search(queries(), 3)) == 0
    assert list(found(retriever.search(queries("cat"), 1000))) == ["d0"]


@either
def test_an_index_has_a_size(make: Callable[[], BM25 | RankBM25]) -> None:
    small, large = make(), make()
    small.index(corpus(*DOCUMENTS))
    large.index(corpus(*DOCUMENTS, *[f"{text} more words" for text in DOCUMENTS]))
    assert 0 < small.nbytes() < large.nbytes()


@pytest.mark.parametrize("retriever", [BM25, RankBM25])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k1": -0.1}, "k1=-0.1 must be 0 or more; usual values are 0.9 to 2.0"),
        ({"b": 1.01}, "b=1.01 must be between 0 and 1; usual values are 0.4 to 0.75"),
        ({"b": -0.01}, "b=-0.01 must be between 0 and 1; usual values are 0.4 to 0.75"),
    ],
)
def test_k1_and_b_that_cannot_be_are_errors(
    retriever: type[BM25] | type[RankBM25], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        retriever(Tokenizer(), **settings)


@pytest.mark.parametrize("retriever", [BM25, RankBM25])
@pytest.mark.parametrize("name", ["k1", "b"])
def test_k1_and_b_that_are_no_numbers_are_errors(retriever: type[BM25] | type[RankBM25], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=nan "):
        retriever(Tokenizer(), **{name: math.nan})


def test_the_bounds_of_k1_and_b_are_allowed() -> None:
    for k1, b in ((0, 0), (0, 1), (100, 1)):
        retriever = BM25(plain(), k1, b)
        retriever.index(corpus("cat", "dog"))
        assert list(found(retriever.search(queries("cat"), 2))) == ["d0"]


# ---------------------------------------------------------------------------------------------------------- RankBM25


def assert_okapi(texts: Sequence[str], asked: Sequence[str], k: int, **settings: float) -> Run:
    retriever = RankBM25(Tokenizer(), **settings)
    documents = corpus(*texts)
    retriever.index(documents)
    run = retriever.search(queries(*asked), k)
    model = BM25Okapi(Tokenizer().split(documents.texts), **settings)
    for row, terms in enumerate(Tokenizer().split(StringColumn(asked))):
        scores = model.get_scores(terms).astype(np.float32) if terms else np.zeros(len(texts), np.float32)
        hits = {f"d{i}": float(scores[i]) for i in range(len(texts)) if scores[i]}
        best = sorted(hits.items(), key=lambda hit: (hit[1], hit[0].encode()), reverse=True)[:k]
        assert list(found(run, row).items()) == best
    return run


@pytest.mark.parametrize("settings", [{}, {"k1": 0.9, "b": 0.4}, {"epsilon": 0.5}])
def test_rank_bm25_is_that_package_called_directly(
    real_dataset: Callable[[str], Dataset], settings: dict[str, float]
) -> None:
    real = real_dataset("scifact")
    run = assert_okapi(list(real.corpus.texts[:150]), list(real.queries.texts[:25]), 150, **settings)
    assert (run.docs >= 0).sum() > 200


def test_rank_bm25_keeps_the_k_best() -> None:
    assert_okapi(DOCUMENTS, ["big cat", "dogs", "", "elephant", "bird jump cat"], 2)


def test_rank_bm25_finds_documents_of_negative_score_before_it_gives_up() -> None:
    # idf of a word in 2 of 3 documents is below zero and stays so after the package's repair: the documents that have
    # the word score below the one that has not, and are still the only ones that share a term with the query
    run = assert_okapi(["apple pear", "apple pear", "plum"], ["apple"], 1)
    assert list(found(run)) == ["d1"]
    assert found(run)["d1"] < 0


@pytest.mark.parametrize(
    "pattern", [r"\b(\w)\w+\b", r"\w*", r"(?:a|b)+", r"\w+(?:[.,]\d\w*)*", r"[a-z]+", r"\b\w\w+\b"]
)
def test_few_texts_are_split_as_many_are(pattern: str) -> None:
    texts = ["Some 1,000 plain words, a.b and abba_c", "", "don't stop-me now 3.5"]
    few, many = Tokenizer(pattern=pattern, stop_words=None), Tokenizer(pattern=pattern, stop_words=None)
    few.fit(StringColumn(texts * 10))
    many.fit(StringColumn(texts * 10))
    alone = [few.transform(StringColumn([text])) for text in texts]
    together = many.transform(StringColumn(texts * 10))
    for row, one in enumerate(alone):
        own = slice(together.starts[row], together.starts[row + 1])
        assert one.terms.tolist() == together.terms[own].tolist()
        assert one.weights.tolist() == together.weights[own].tolist()
