"""Tests of BM25 and RankBM25 against the formula and against the packages bm25s and rank_bm25."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import bm25s
import numpy as np
import pytest
import Stemmer
from rank_bm25 import BM25Okapi

from harness.errors import ConfigError
from harness.retrievers.bm25 import BM25, RankBM25
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Queries, Run, StringColumn


def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer without stemmer and stop words."""
    return Tokenizer(stemmer=None, stop_words=None)


def corpus(*texts: str) -> Corpus:
    """Return a corpus with the ids d0, d1, ..."""
    return Corpus([f"d{i}" for i in range(len(texts))], texts)


def queries(*texts: str) -> Queries:
    """Return queries with the ids q0, q1, ..."""
    return Queries([f"q{i}" for i in range(len(texts))], texts)


def scores_by_id(run: Run, query: int = 0) -> dict[str, float]:
    """Return the scores of a query's hits by document id, in rank order."""
    ids, scores = run.hits(query)
    return dict(zip(ids, scores.tolist(), strict=True))


def formula(documents: Sequence[Sequence[str]], query: Sequence[str], k1: float, b: float) -> dict[int, float]:
    """Return Lucene's BM25 scores of the documents that share a term with the query."""
    average = sum(map(len, documents)) / len(documents)
    scores: dict[int, float] = {}
    for number, document in enumerate(documents):
        counts = Counter(document)
        for term in query:
            if counts[term]:
                df = sum(term in words for words in documents)
                idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * len(document) / average)
                scores[number] = scores.get(number, 0.0) + idf * counts[term] / (counts[term] + norm)
    return scores


def random_texts(seed: int, n: int, longest: int) -> list[list[str]]:
    """Return the words of `n` random texts of fewer than `longest` words."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"word{i}" for i in range(25)])
    skewed = 1 / np.arange(1, 26)
    return [rng.choice(vocabulary, rng.integers(0, longest), p=skewed / skewed.sum()).tolist() for _ in range(n)]


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (0.0, 0.5), (1.5, 0.0), (2.0, 1.0)])
def test_bm25_equals_its_formula(k1: float, b: float) -> None:
    documents, query_words = random_texts(1, 60, 30), random_texts(2, 15, 6)
    retriever = BM25(plain_tokenizer(), k1, b)
    retriever.index(corpus(*map(" ".join, documents)))
    run = retriever.search(queries(*map(" ".join, query_words)), 60)
    for row, query in enumerate(query_words):
        expected = {f"d{number}": value for number, value in formula(documents, query, k1, b).items()}
        assert scores_by_id(run, row) == pytest.approx(expected, rel=1e-5)
        assert run.scores[row, : len(expected)].tolist() == sorted(scores_by_id(run, row).values(), reverse=True)


def test_bm25_of_one_term_equals_the_value_computed_by_hand() -> None:
    # "cat": N = 3, df = 1, idf = ln(1 + 2.5/1.5) = .980829; tf = 2, |d| = 4, average 3; k1 1.2, b .75:
    # norm = 1.2 * (.25 + .75 * 4/3) = 1.5; score = .980829 * 2 / 3.5 = .560474
    retriever = BM25(plain_tokenizer())
    retriever.index(corpus("cat cat dog bird", "dog bird", "bird dog fish"))
    assert scores_by_id(retriever.search(queries("cat"), 3)) == pytest.approx({"d0": 0.560474}, abs=1e-6)


def test_term_of_every_document_has_a_positive_score() -> None:
    retriever = BM25(plain_tokenizer())
    retriever.index(corpus(*["same"] * 1000))
    run = retriever.search(queries("same"), 1000)
    assert len(scores_by_id(run)) == 1000
    assert min(scores_by_id(run).values()) > 0


def test_bm25_equals_the_bm25s_package_on_scifact(real_dataset: Callable[[str], Dataset]) -> None:
    real = real_dataset("scifact")
    real_queries = real.queries[:40]
    tokenizer = Tokenizer()
    retriever = BM25(tokenizer, k1=1.5, b=0.75)
    retriever.index(real.corpus)
    run = retriever.search(real_queries, len(real.corpus))

    settings = {"stopwords": "english", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    bm25s_documents = bm25s.tokenize(list(real.corpus.texts), return_ids=False, **settings)
    bm25s_queries = bm25s.tokenize(list(real_queries.texts), return_ids=False, **settings)
    engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    engine.index(bm25s_documents, show_progress=False)

    words = tokenizer.split(real.corpus.texts)
    same_words = np.array([a == b for a, b in zip(words, bm25s_documents, strict=True)])
    assert same_words.mean() > 0.99
    compared = 0
    for row, (terms, bm25s_terms) in enumerate(zip(tokenizer.split(real_queries.texts), bm25s_queries, strict=True)):
        if terms != bm25s_terms:
            continue
        known = [term for term in terms if term in engine.vocab_dict]
        expected = engine.get_scores(known)
        scores = np.zeros(len(real.corpus))
        hits = run.docs[row][run.docs[row] >= 0]
        scores[hits] = run.scores[row, : len(hits)]
        np.testing.assert_allclose(scores[same_words], expected[same_words], rtol=1e-3)
        compared += 1
    assert compared > 30


def test_document_without_a_query_term_is_not_returned() -> None:
    retriever = BM25(Tokenizer())
    retriever.index(corpus("cats", "dogs", "", "the and"))
    run = retriever.search(queries("a cat and the birds", "elephant", "", "the"), 4)
    assert [list(scores_by_id(run, row)) for row in range(4)] == [["d0"], [], [], []]


def test_stemmed_query_word_retrieves_another_word_form() -> None:
    for words in (Tokenizer(), Tokenizer("german", stemmer="english")):
        for retriever in (BM25(words), RankBM25(words)):
            retriever.index(corpus("heart", "nitric oxide causes vasodilation", "lung"))
            assert list(scores_by_id(retriever.search(queries("vasodilating drugs"), 3))) == ["d1"]


def test_repeated_query_term_is_counted_repeatedly() -> None:
    retriever = BM25(plain_tokenizer())
    retriever.index(corpus("cat dog", "dog bird fish", "bird"))
    run = retriever.search(queries("cat", "dog", "cat dog", "cat cat cat dog", "cat CAT"), 3)
    cat, dog, both, thrice, twice = (scores_by_id(run, row)["d0"] for row in range(5))
    assert both == pytest.approx(cat + dog)
    assert thrice == pytest.approx(3 * cat + dog)
    assert twice == pytest.approx(2 * cat)


def test_equal_scores_are_ordered_by_descending_id_before_the_cutoff() -> None:
    retriever = BM25(plain_tokenizer())
    retriever.index(Corpus(["9", "é", "10", "a", "Z"], ["cat"] * 5))
    assert list(scores_by_id(retriever.search(queries("cat"), 5))) == ["é", "a", "Z", "9", "10"]
    assert list(scores_by_id(retriever.search(queries("cat"), 2))) == ["é", "a"]


RETRIEVERS = {"bm25": lambda: BM25(Tokenizer()), "rank_bm25": lambda: RankBM25(Tokenizer())}
both_retrievers = pytest.mark.parametrize("make", RETRIEVERS.values(), ids=RETRIEVERS.keys())
DOCUMENTS = ["big dog", "", "the dog and the cat", "cats", "bird dogs", "jumping", "jump big cats", "a flying bird"]


@both_retrievers
def test_batch_of_queries_equals_single_queries(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus(*DOCUMENTS))
    batch = queries("big cat", "", "dog", "unknown", "jump jump bird", "the")
    run = retriever.search(batch, 5)
    assert list(run.query_ids) == list(batch.ids)
    for row in range(len(batch)):
        alone = retriever.search(batch[row : row + 1], 5)
        assert alone.docs[0].tolist() == run.docs[row].tolist()
        assert alone.scores[0].tolist() == run.scores[row].tolist()


@both_retrievers
def test_repeated_search_gives_the_same_run(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus(*DOCUMENTS))
    first, second = (retriever.search(queries("big dog", "birds fly"), 4) for _ in range(2))
    assert (first.docs.tolist(), first.scores.tolist()) == (second.docs.tolist(), second.scores.tolist())


@both_retrievers
def test_index_replaces_the_previous_corpus(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever, fresh = make(), make()
    retriever.index(corpus("elephant dog", "elephant", "cat", "cat bird"))
    for texts in (["cat", "dog mouse", "fish", "bird", "worm"], [""], []):
        retriever.index(corpus(*texts))
        fresh.index(corpus(*texts))
        batch = queries("elephant", "cat", "mouse")
        run, expected = retriever.search(batch, 9), fresh.search(batch, 9)
        assert [scores_by_id(run, row) for row in range(3)] == [scores_by_id(expected, row) for row in range(3)]
        assert scores_by_id(run, 0) == {}
        assert len(run.doc_ids) == len(texts)


@both_retrievers
def test_empty_corpus_and_empty_queries_are_allowed(make: Callable[[], BM25 | RankBM25]) -> None:
    retriever = make()
    retriever.index(corpus())
    assert scores_by_id(retriever.search(queries("cat"), 3)) == {}
    retriever.index(corpus("", " ", "the"))
    assert scores_by_id(retriever.search(queries("cat the"), 3)) == {}
    retriever.index(corpus("cat", "dog", "bird"))
    assert len(retriever.search(queries(), 3)) == 0
    assert list(scores_by_id(retriever.search(queries("cat"), 1000))) == ["d0"]


@both_retrievers
def test_index_size_grows_with_the_corpus(make: Callable[[], BM25 | RankBM25]) -> None:
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
def test_invalid_k1_and_b_are_refused(
    retriever: type[BM25] | type[RankBM25], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        retriever(Tokenizer(), **settings)


@pytest.mark.parametrize("retriever", [BM25, RankBM25])
@pytest.mark.parametrize("name", ["k1", "b"])
def test_nan_k1_and_b_are_refused(retriever: type[BM25] | type[RankBM25], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=nan "):
        retriever(Tokenizer(), **{name: math.nan})


def test_bounds_of_k1_and_b_are_allowed() -> None:
    for k1, b in ((0, 0), (0, 1), (100, 1)):
        retriever = BM25(plain_tokenizer(), k1, b)
        retriever.index(corpus("cat", "dog"))
        assert list(scores_by_id(retriever.search(queries("cat"), 2))) == ["d0"]


def assert_equals_rank_bm25(texts: Sequence[str], query_texts: Sequence[str], k: int, **settings: float) -> Run:
    """Check a search against the rank_bm25 package and return its run."""
    retriever = RankBM25(Tokenizer(), **settings)
    documents = corpus(*texts)
    retriever.index(documents)
    run = retriever.search(queries(*query_texts), k)
    model = BM25Okapi(Tokenizer().split(documents.texts), **settings)
    for row, terms in enumerate(Tokenizer().split(StringColumn(query_texts))):
        scores = model.get_scores(terms).astype(np.float32) if terms else np.zeros(len(texts), np.float32)
        hits = {f"d{i}": float(scores[i]) for i in range(len(texts)) if scores[i]}
        best = sorted(hits.items(), key=lambda hit: (hit[1], hit[0].encode()), reverse=True)[:k]
        assert list(scores_by_id(run, row).items()) == best
    return run


@pytest.mark.parametrize("settings", [{}, {"k1": 0.9, "b": 0.4}, {"epsilon": 0.5}])
def test_rank_bm25_equals_the_rank_bm25_package(
    real_dataset: Callable[[str], Dataset], settings: dict[str, float]
) -> None:
    real = real_dataset("scifact")
    run = assert_equals_rank_bm25(list(real.corpus.texts[:150]), list(real.queries.texts[:25]), 150, **settings)
    assert (run.docs >= 0).sum() > 200


def test_rank_bm25_returns_the_k_best() -> None:
    assert_equals_rank_bm25(DOCUMENTS, ["big cat", "dogs", "", "elephant", "bird jump cat"], 2)


def test_rank_bm25_returns_documents_of_negative_score() -> None:
    # the idf of a word in 2 of 3 documents is negative, also after the package's floor: the documents with the word
    # score below the one without it, and are still the only ones that share a term with the query
    run = assert_equals_rank_bm25(["apple pear", "apple pear", "plum"], ["apple"], 1)
    assert list(scores_by_id(run)) == ["d1"]
    assert scores_by_id(run)["d1"] < 0
