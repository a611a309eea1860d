"""Hybrid and reciprocal rank fusion: against the formula over plain dicts, and composed of stub retrievers."""

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clock import recording
from harness.encoders.words import Words
from harness.errors import ConfigError
from harness.retrievers.bm25 import BM25
from harness.retrievers.hybrid import Hybrid, rrf
from harness.types import Corpus, Queries, Run

Rankings = list[list[str]]


def run_of(rankings: Rankings, doc_ids: list[str], depth: int | None = None) -> Run:
    """A run that ranks the documents of each query as listed; more places than that stay empty."""
    depth = max(map(len, rankings), default=0) if depth is None else depth
    docs, scores = np.full((len(rankings), depth), -1), np.zeros((len(rankings), depth))
    for row, ranking in enumerate(rankings):
        docs[row, : len(ranking)] = [doc_ids.index(doc) for doc in ranking]
        scores[row, : len(ranking)] = -np.arange(len(ranking))
    return Run([f"q{row}" for row in range(len(rankings))], doc_ids, docs, scores)


def naive(rankings: Rankings, constant: float) -> list[tuple[str, float]]:
    """One query's fused list from its ranking in each run."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, doc in enumerate(ranking, start=1):
            scores[doc] = scores.get(doc, 0.0) + 1 / (constant + rank)
    rounded = {doc: float(np.float32(score)) for doc, score in scores.items()}
    return sorted(rounded.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)


def fused(run: Run, query: int = 0) -> list[tuple[str, float]]:
    names, scores = run.hits(query)
    return list(zip(names, scores.tolist(), strict=True))


# --------------------------------------------------------------------------------------------------------------- rrf

DOC_IDS = ["a", "B", "c", "10", "9", "é", "文"]


@st.composite
def several_runs(draw: st.DrawFn) -> list[tuple[Rankings, int]]:
    """One to four runs over the same queries: rankings of any length, and places enough for the longest."""
    queries = draw(st.integers(1, 3))
    rankings = st.lists(st.sampled_from(DOC_IDS), unique=True, max_size=len(DOC_IDS))
    found = draw(st.lists(st.lists(rankings, min_size=queries, max_size=queries), min_size=1, max_size=4))
    return [(run, max(map(len, run)) + draw(st.integers(0, 3))) for run in found]


@given(several_runs(), st.sampled_from([0, 1, 60, 0.5]))
@settings(deadline=None, max_examples=300)
def test_rrf_is_its_formula_over_plain_dicts(found: list[tuple[Rankings, int]], constant: float) -> None:
    run = rrf([run_of(rankings, DOC_IDS, depth) for rankings, depth in found], constant)
    assert len(run) == len(found[0][0])
    for query in range(len(run)):
        expected = naive([rankings[query] for rankings, _ in found], constant)
        assert [doc for doc, _ in fused(run, query)] == [doc for doc, _ in expected]
        assert dict(fused(run, query)) == pytest.approx(dict(expected), rel=1e-6)


def test_rrf_adds_one_over_sixty_plus_the_rank() -> None:
    # a: 1/61 + 1/62; b: 1/62; c: 1/61
    run = rrf([run_of([["a", "b"]], ["a", "b", "c"]), run_of([["c", "a"]], ["a", "b", "c"])])
    assert [doc for doc, _ in fused(run)] == ["a", "c", "b"]
    assert dict(fused(run)) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 61, "b": 1 / 62}, rel=1e-6)


def test_rrf_reads_ranks_and_not_scores() -> None:
    ids = ["a", "b"]
    near = Run(["q"], ids, np.array([[0, 1]]), np.array([[1.0, 0.999]]))
    far = Run(["q"], ids, np.array([[0, 1]]), np.array([[900.0, -900.0]]))
    assert fused(rrf([near])) == fused(rrf([far]))


def test_rrf_takes_the_canonical_rank_of_documents_that_tie() -> None:
    tied = Run(["q"], ["a", "b"], np.array([[0, 1]]), np.array([[1.0, 1.0]]))
    assert dict(fused(rrf([tied]))) == pytest.approx({"b": 1 / 61, "a": 1 / 62}, rel=1e-6)


def test_rrf_fuses_runs_of_different_depth() -> None:
    ids = ["a", "b", "c", "d"]
    run = rrf([run_of([["a"]], ids), run_of([["b", "c", "d", "a"]], ids)])
    assert dict(fused(run)) == pytest.approx({"a": 1 / 61 + 1 / 64, "b": 1 / 61, "c": 1 / 62, "d": 1 / 63}, rel=1e-6)
    assert run.depth == 5


def test_rrf_gives_an_empty_place_nothing() -> None:
    ids = ["a", "b"]
    run = rrf([run_of([[], ["b"]], ids, 3), run_of([[], ["b"]], ids, 2)])
    assert fused(run, 0) == []
    assert dict(fused(run, 1)) == pytest.approx({"b": 2 / 61}, rel=1e-6)
    assert (run.docs[1, 1:] == -1).all()


def test_rrf_of_nothing_found_is_nothing_found() -> None:
    assert fused(rrf([run_of([[]], ["a"], 0), run_of([[]], ["a"], 0)])) == []
    assert len(rrf([run_of([], ["a"], 0), run_of([], ["a"], 4)])) == 0


def test_rrf_does_not_depend_on_the_order_of_the_runs() -> None:
    ids = ["a", "b", "c"]
    runs = [run_of([["a", "b", "c"]], ids), run_of([["c", "a"]], ids), run_of([["b"]], ids)]
    assert fused(rrf(runs)) == fused(rrf(runs[::-1])) == fused(rrf([runs[1], runs[2], runs[0]]))


def test_documents_with_the_same_ranks_in_different_runs_tie() -> None:
    ids = ["a", "b", "c"]
    runs = [run_of([["a", "b", "c"]], ids), run_of([["b", "c", "a"]], ids), run_of([["c", "a", "b"]], ids)]
    assert [doc for doc, _ in fused(rrf(runs))] == ["c", "b", "a"]
    assert len({score for _, score in fused(rrf(runs))}) == 1


def test_a_constant_below_zero_is_an_error() -> None:
    message = re.escape("retriever.fusion.constant=-1 is below 0; 60 is usual")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        rrf([run_of([["a"]], ["a"])], constant=-1)


# ------------------------------------------------------------------------------------------------------------ Hybrid


class Stub:
    """Ranks the documents of the corpus in a fixed order for every query and remembers what it was asked."""

    def __init__(self, ranking: list[str], size: int = 0) -> None:
        self.ranking, self.size = ranking, size
        self.indexed: list[Corpus] = []
        self.asked: list[tuple[list[str], int]] = []

    def index(self, corpus: Corpus) -> None:
        self.indexed.append(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        self.asked.append((list(queries.texts), k))
        known = self.indexed[-1].ids
        rankings = [[doc for doc in self.ranking if doc in known][:k] for _ in queries.ids]
        run = run_of(rankings, list(known))
        return Run(list(queries.ids), known, run.docs, run.scores)

    def nbytes(self) -> int:
        return self.size


CORPUS = Corpus(["a", "b", "c", "d"], ["one", "two", "three", "four"])
QUERIES = Queries(["p", "q"], ["first", "second"])


def test_a_hybrid_fuses_what_its_retrievers_rank() -> None:
    one, two = Stub(["a", "b", "c"]), Stub(["c", "d"])
    hybrid = Hybrid({"one": one, "two": two}, rrf)
    hybrid.index(CORPUS)
    run = hybrid.search(QUERIES, 10)
    assert list(run.query_ids) == ["p", "q"]
    for query in range(2):
        assert [doc for doc, _ in fused(run, query)] == ["c", "a", "d", "b"]
        assert dict(fused(run, query)) == pytest.approx(dict(naive([["a", "b", "c"], ["c", "d"]], 60)), rel=1e-6)
    assert one.asked == two.asked == [(["first", "second"], 100)]


def test_a_hybrid_indexes_the_corpus_with_every_part() -> None:
    one, two = Stub(["a", "b"]), Stub(["b"])
    hybrid = Hybrid({"one": one, "two": two}, rrf)
    hybrid.index(CORPUS)
    assert one.indexed == two.indexed == [CORPUS]
    hybrid.index(CORPUS[1:])
    assert [doc for doc, _ in fused(hybrid.search(QUERIES, 10))] == ["b"]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_part_is_asked_for_its_depth_whatever_k_is(depth: int) -> None:
    one, two = Stub(["a", "b", "c"]), Stub(["c", "d", "a"])
    hybrid = Hybrid({"one": one, "two": two}, rrf, depth=depth)
    hybrid.index(CORPUS)
    expected = naive([["a", "b", "c"][:depth], ["c", "d", "a"][:depth]], 60)
    for k in (1, 2, 50):
        run = hybrid.search(QUERIES, k)
        assert [doc for doc, _ in fused(run)] == [doc for doc, _ in expected][:k]
        assert run.depth <= k
    assert {k for _, k in one.asked + two.asked} == {depth}


def test_a_document_that_both_parts_rank_low_may_beat_what_one_ranks_first() -> None:
    # within depth 2: b has 1/62 + 1/62 = .0323, a and c have 1/61 = .0164
    parts = {"one": Stub(["a", "b"]), "two": Stub(["c", "b"])}
    hybrid = Hybrid(parts, rrf, depth=2)
    hybrid.index(CORPUS)
    assert [doc for doc, _ in fused(hybrid.search(QUERIES, 1))] == ["b"]


def test_a_hybrid_uses_the_fusion_it_is_given() -> None:
    seen: list[int] = []

    def the_last(runs: list[Run]) -> Run:
        seen.append(len(runs))
        return runs[-1]

    for fusion, best in ((the_last, "d"), (partial(rrf, constant=0), "a")):
        hybrid = Hybrid({"one": Stub(["a", "b"]), "two": Stub(["d", "a"])}, fusion)
        hybrid.index(CORPUS)
        assert fused(hybrid.search(QUERIES, 2))[0][0] == best
    assert seen == [2]


def test_a_hybrid_of_one_ranks_as_that_one() -> None:
    hybrid = Hybrid({"only": Stub(["d", "a", "c"])}, rrf)
    hybrid.index(CORPUS)
    assert [doc for doc, _ in fused(hybrid.search(QUERIES, 10))] == ["d", "a", "c"]


def test_hybrids_can_be_parts_of_hybrids() -> None:
    inner = Hybrid({"one": Stub(["a", "b"], 1), "two": Stub(["b"], 2)}, rrf)
    outer = Hybrid({"inner": inner, "three": Stub(["c", "b"], 4)}, rrf)
    outer.index(CORPUS)
    assert [doc for doc, _ in fused(outer.search(QUERIES, 10))] == ["b", "c", "a"]  # b 1/61 + 1/62, c 1/61, a 1/62
    assert outer.nbytes() == 7


def test_a_hybrid_holds_the_bytes_of_all_its_parts() -> None:
    assert Hybrid({"one": Stub([], 30), "two": Stub([], 12)}, rrf).nbytes() == 42


def test_a_hybrid_names_its_own_stage() -> None:
    hybrid = Hybrid({"one": Stub(["a"])}, rrf)
    hybrid.index(CORPUS)
    with recording() as seen:
        hybrid.search(QUERIES, 1)
    assert list(seen.stages) == ["fuse"]


def test_a_hybrid_of_real_retrievers_answers_singly_as_in_a_batch_and_nothing_to_nothing() -> None:
    parts = {"stemmed": BM25(Words()), "plain": BM25(Words(stemmer=None, stop_words=None))}
    hybrid = Hybrid(parts, rrf, depth=3)
    hybrid.index(Corpus(["a", "b", "c", "d"], ["cats and dogs", "the cat", "", "dog cat"]))
    asked = Queries(["1", "2", "3", "4"], ["cat", "", "elephant", "the dogs"])
    run = hybrid.search(asked, 99)
    assert [bool(fused(run, row)) for row in range(4)] == [True, False, False, True]
    for row in range(4):
        assert fused(hybrid.search(asked[row : row + 1], 99)) == fused(run, row)


def test_a_hybrid_without_retrievers_is_an_error() -> None:
    message = "a hybrid needs at least one retriever, such as retriever@retriever.retrievers.lexical=bm25"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Hybrid({}, rrf)


@pytest.mark.parametrize("depth", [0, -5])
def test_a_depth_below_one_is_an_error(depth: int) -> None:
    with pytest.raises(ConfigError, match=f"^retriever.depth={depth} must be at least 1$"):
        Hybrid({"one": Stub([])}, rrf, depth=depth)
