"""Hybrid and its fusions: against their formulas over plain dicts, against ranx, and composed of stub retrievers."""

import re
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.datasets import write_beir

from harness import __main__
from harness.errors import ConfigError
from harness.instrument import recording
from harness.retrievers.bm25 import BM25
from harness.retrievers.hybrid import Hybrid, convex, rrf
from harness.store import Store
from harness.text.tokenizer import Tokenizer
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
    message = re.escape("retriever.fusion.constant=-1 must be at least 0; the usual value is 60")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        rrf([run_of([["a"]], ["a"])], constant=-1)


@given(several_runs(), st.data())
@settings(deadline=None, max_examples=100)
def test_weighted_rrf_is_its_formula_over_plain_dicts(found: list[tuple[Rankings, int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.25, 1, 2.5]), min_size=len(found), max_size=len(found)))
    run = rrf([run_of(rankings, DOC_IDS, depth) for rankings, depth in found], 60, weights)
    for query in range(len(run)):
        expected: dict[str, float] = {}
        for weight, (rankings, _) in zip(weights, found, strict=True):
            for rank, doc in enumerate(rankings[query], start=1):
                expected[doc] = expected.get(doc, 0.0) + weight / (60 + rank)
        assert dict(fused(run, query)) == pytest.approx(expected, rel=1e-6)


def test_a_weight_multiplies_what_its_run_gives() -> None:
    # a: 1/61; b: 3/61; c: 1/62 + 3/62
    ids = ["a", "b", "c"]
    run = rrf([run_of([["a", "c"]], ids), run_of([["b", "c"]], ids)], weights=[1, 3])
    assert [doc for doc, _ in fused(run)] == ["c", "b", "a"]
    assert dict(fused(run)) == pytest.approx({"a": 1 / 61, "b": 3 / 61, "c": 4 / 62}, rel=1e-6)


# ------------------------------------------------------------------------------------------------------------ convex

Scored = list[dict[str, float]]


def scored_run(queries: Scored, doc_ids: list[str], depth: int | None = None) -> Run:
    """A run of the given scores; more places than the longest list needs stay empty."""
    depth = max(map(len, queries), default=0) if depth is None else depth
    docs, scores = np.full((len(queries), depth), -1), np.zeros((len(queries), depth), np.float32)
    for row, found in enumerate(queries):
        docs[row, : len(found)] = [doc_ids.index(doc) for doc in found]
        scores[row, : len(found)] = list(found.values())
    return Run([f"q{row}" for row in range(len(queries))], doc_ids, docs, scores)


def slow_min_max(found: dict[str, float]) -> tuple[dict[str, float], float]:
    least, greatest = min(found.values()), max(found.values())
    if least == greatest:
        return dict.fromkeys(found, 1.0), 0.0
    return {doc: (score - least) / (greatest - least) for doc, score in found.items()}, 0.0


def slow_z_score(found: dict[str, float]) -> tuple[dict[str, float], float]:
    mean, deviation = statistics.fmean(found.values()), statistics.pstdev(found.values())
    if len(set(found.values())) == 1:
        return dict.fromkeys(found, 0.0), 0.0
    values = {doc: (score - mean) / deviation for doc, score in found.items()}
    return values, min(values.values())


def slow_dbsf(found: dict[str, float]) -> tuple[dict[str, float], float]:
    mean, deviation = statistics.fmean(found.values()), statistics.pstdev(found.values())
    if len(set(found.values())) == 1:
        return dict.fromkeys(found, 0.5), 0.0
    low, high = mean - 3 * deviation, mean + 3 * deviation
    return {doc: min(1.0, max(0.0, (score - low) / (high - low))) for doc, score in found.items()}, 0.0


SLOW: dict[str, Callable[[dict[str, float]], tuple[dict[str, float], float]]] = {
    "min_max": slow_min_max,
    "z_score": slow_z_score,
    "dbsf": slow_dbsf,
}


def slow_convex(lists: Scored, normalize: str, weights: list[float]) -> dict[str, float]:
    """One query's fused scores: a list that lacks a document gives its floor, an empty one nothing."""
    total = sum(weights)
    normalised = [SLOW[normalize](found) if found else ({}, 0.0) for found in lists]
    return {
        doc: sum(
            weight / total * values.get(doc, floor) for weight, (values, floor) in zip(weights, normalised, strict=True)
        )
        for doc in {doc for found in lists for doc in found}
    }


# float32 values, so that what goes in is what is computed with
values_ = st.one_of(st.sampled_from([-2.0, 0.0, 0.5, 3.0]), st.floats(-100, 100, width=32).map(lambda v: round(v, 2)))
lists_ = st.dictionaries(st.sampled_from(DOC_IDS), values_.map(lambda v: float(np.float32(v))), max_size=len(DOC_IDS))


@st.composite
def several_scored(draw: st.DrawFn) -> list[tuple[Scored, int]]:
    """One to four runs over the same queries: lists of any length, empty and constant ones among them."""
    queries = draw(st.integers(1, 3))
    found = draw(st.lists(st.lists(lists_, min_size=queries, max_size=queries), min_size=1, max_size=4))
    return [(run, max(map(len, run)) + draw(st.integers(0, 3))) for run in found]


@pytest.mark.parametrize("normalize", SLOW)
@given(found=several_scored(), data=st.data())
@settings(deadline=None, max_examples=150)
def test_convex_is_its_formula_over_plain_dicts(
    normalize: str, found: list[tuple[Scored, int]], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=len(found), max_size=len(found)))
    run = convex([scored_run(scores, DOC_IDS, depth) for scores, depth in found], normalize, weights)
    for query in range(len(run)):
        expected = slow_convex([scores[query] for scores, _ in found], normalize, weights)
        assert dict(fused(run, query)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        # x: a 3, b 1, c 2, d in y alone; y: d 9, b 9, each of the same score
        ("min_max", {"a": 0.5, "b": 0.5, "c": 0.25, "d": 0.5}),
        # x: a +1.2247, b -1.2247, c 0; d has the lowest of x; y: all 0, and 0 for those it does not hold
        ("z_score", {"a": 0.6124, "b": -0.6124, "c": 0.0, "d": -0.6124}),
        # x: (s - 2 + 3 * .8165) / (6 * .8165); y: all .5
        ("dbsf", {"a": 0.3521, "b": 0.3979, "c": 0.25, "d": 0.25}),
    ],
)
def test_a_list_of_equal_scores_and_a_document_that_a_list_lacks_have_their_rule(
    normalize: str, expected: dict[str, float]
) -> None:
    ids = ["a", "b", "c", "d"]
    run = convex([scored_run([{"a": 3, "c": 2, "b": 1}], ids), scored_run([{"d": 9, "b": 9}], ids)], normalize)
    assert dict(fused(run)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("normalize", "value"), [("min_max", 1.0), ("z_score", 0.0), ("dbsf", 0.5)])
def test_a_single_hit_counts_as_a_list_of_equal_scores(normalize: str, value: float) -> None:
    assert fused(convex([scored_run([{"a": -7.5}], ["a"])], normalize)) == [("a", value)]


def test_dbsf_holds_what_lies_beyond_three_deviations_to_one() -> None:
    ids = [f"d{n}" for n in range(30)]
    found = dict.fromkeys(ids, 1.0) | {"d7": 500.0}
    run = convex([scored_run([found], ids)], "dbsf")
    assert fused(run)[0] == ("d7", 1.0)
    assert dict(fused(run)) == pytest.approx(slow_convex([found], "dbsf", [1]), rel=1e-5)
    below = {doc: -score for doc, score in found.items()}
    assert fused(convex([scored_run([below], ids)], "dbsf"))[-1] == ("d7", 0.0)


@pytest.mark.parametrize("normalize", SLOW)
def test_scores_that_nearly_tie_are_no_constant_list(normalize: str) -> None:
    near = float(np.nextafter(np.float32(1), np.float32(2)))
    run = convex([scored_run([{"a": near, "b": 1.0}], ["a", "b"])], normalize)
    expected = slow_convex([{"a": near, "b": 1.0}], normalize, [1])
    assert dict(fused(run)) == pytest.approx(expected, abs=1e-4)
    assert expected["a"] > expected["b"]


@pytest.mark.parametrize("normalize", SLOW)
def test_a_list_that_found_nothing_leaves_the_order_of_the_other(normalize: str) -> None:
    ids = ["a", "b", "c"]
    empty = scored_run([{}, {}], ids, 2)
    run = convex([empty, scored_run([{"b": 5, "a": 4, "c": 1}, {}], ids)], normalize)
    assert [doc for doc, _ in fused(run, 0)] == ["b", "a", "c"]
    assert fused(run, 1) == []
    assert fused(convex([scored_run([{}], ids, 0), scored_run([{}], ids, 0)], normalize)) == []


@pytest.mark.parametrize("normalize", SLOW)
@pytest.mark.parametrize("change", [lambda s: s * 7, lambda s: s * 8 - 100], ids=["times seven", "and shifted"])
def test_convex_does_not_see_the_scale_of_a_run(normalize: str, change: Callable[[float], float]) -> None:
    rng = np.random.default_rng(0)
    ids = [f"d{n}" for n in range(30)]
    one, two = ([dict(zip(rng.permutation(ids)[:20], rng.normal(size=20), strict=True)) for _ in "ab"] for _ in "ab")
    other = [{doc: change(score) for doc, score in found.items()} for found in two]
    plain = convex([scored_run(one, ids), scored_run(two, ids)], normalize, [1, 2])
    scaled = convex([scored_run(one, ids), scored_run(other, ids)], normalize, [1, 2])
    np.testing.assert_array_equal(plain.docs, scaled.docs)
    np.testing.assert_allclose(plain.scores[plain.docs >= 0], scaled.scores[scaled.docs >= 0], atol=1e-5)


def test_only_the_ratio_of_the_weights_counts() -> None:
    ids = ["a", "b", "c"]
    runs = [scored_run([{"a": 3, "b": 2, "c": 1}], ids), scored_run([{"c": 9, "a": 1}], ids)]
    assert fused(convex(runs, "min_max", [1, 3])) == fused(convex(runs, "min_max", [0.25, 0.75]))
    assert fused(convex(runs, "min_max", [1, 1])) == fused(convex(runs, "min_max"))
    assert fused(convex(runs, "min_max", [1, 3])) != fused(convex(runs, "min_max", [3, 1]))


def test_an_unknown_normalisation_is_an_error() -> None:
    message = re.escape("retriever.fusion.normalize='softmax'; choices: min_max, z_score, dbsf")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        convex([run_of([["a"]], ["a"])], "softmax")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1], "[1] has 1 numbers for 2 retrievers; give one for each, in their order"),
        ([1, 2, 3], "[1, 2, 3] has 3 numbers for 2 retrievers; give one for each, in their order"),
        ([], "[] has 0 numbers for 2 retrievers; give one for each, in their order"),
        ([1, -1], "[1, -1] must be numbers of 0 or more, and not all 0"),
        ([1, float("nan")], "[1, nan] must be numbers of 0 or more, and not all 0"),
        ([float("inf"), 1], "[inf, 1] must be numbers of 0 or more, and not all 0"),
        ([0, 0.0], "[0, 0.0] must be numbers of 0 or more, and not all 0"),
        (["a", 1], "['a', 1] must be numbers of 0 or more, and not all 0"),
    ],
)
@pytest.mark.parametrize("fusion", [rrf, convex])
def test_weights_that_cannot_be_are_an_error(fusion: Callable[..., Run], weights: list[float], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        fusion([run_of([["a"]], ["a"])] * 2, weights=weights)
    assert str(error.value) == f"retriever.fusion.weights={said}"


@pytest.mark.parametrize("fusion", [rrf, convex])
def test_weights_that_cannot_be_are_refused_when_the_hybrid_is_made(fusion: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"weights=\[1\] has 1 numbers for 2 retrievers"):
        Hybrid({"one": Stub(["a"]), "two": Stub(["b"])}, partial(fusion, weights=[1]))


# ------------------------------------------------------------------------------------------------------ against ranx


def ranx_fuse(runs: list[Scored], **how: object) -> Scored:
    """ranx's fusion of runs over the queries q0, q1, ..."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own and its dependencies'
        ranx = pytest.importorskip("ranx")
        theirs = [ranx.Run({f"q{row}": dict(found) for row, found in enumerate(run)}) for run in runs]
        merged = ranx.fuse(runs=theirs, **how)
    found = merged.to_dict()
    return [found[f"q{row}"] for row in range(len(runs[0]))]


def random_scored(rng: np.random.Generator, queries: int, ids: list[str], n: int) -> Scored:
    """Lists of n different documents, no two of the same score."""
    return [
        dict(zip(rng.permutation(ids)[:n].tolist(), sorted(rng.normal(10, 4, n).tolist())[::-1], strict=True))
        for _ in range(queries)
    ]


def assert_same_as_ranx(ours: Run, theirs: Scored) -> None:
    for query, expected in enumerate(theirs):
        found = fused(ours, query)
        assert dict(found) == pytest.approx(expected, abs=1e-6)
        scores = [expected[doc] for doc, _ in found]
        assert all(first > second - 1e-7 for first, second in pairwise(scores))


@pytest.mark.parametrize("parts", [2, 3])
def test_rrf_is_ranxs(parts: int) -> None:
    rng = np.random.default_rng(parts)
    ids = [f"d{n}" for n in range(60)]
    runs = [random_scored(rng, 25, ids, n) for n in (40, 25, 30)[:parts]]
    theirs = ranx_fuse(runs, norm=None, method="rrf", params={"k": 60})
    assert_same_as_ranx(rrf([scored_run(run, ids) for run in runs]), theirs)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.8)])
def test_convex_over_min_max_is_ranxs_weighted_sum(weights: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    ids = [f"d{n}" for n in range(60)]
    runs = [random_scored(rng, 25, ids, 40), random_scored(rng, 25, ids, 25)]
    theirs = ranx_fuse(runs, norm="min-max", method="wsum", params={"weights": weights})
    assert_same_as_ranx(convex([scored_run(run, ids) for run in runs], "min_max", weights), theirs)


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
    for k in (1, depth, 50):
        run = hybrid.search(QUERIES, k)
        assert [doc for doc, _ in fused(run)] == [doc for doc, _ in expected][:k]
        assert run.depth <= k
    assert {k for _, k in one.asked + two.asked} == {depth}


def test_the_one_place_more_for_a_querys_own_document_is_asked_of_the_parts_too() -> None:
    one, two = Stub(["a", "b", "c"]), Stub(["c", "d", "a"])
    hybrid = Hybrid({"one": one, "two": two}, rrf, depth=2)
    hybrid.index(CORPUS)
    hybrid.search(QUERIES, 3)
    assert {k for _, k in one.asked + two.asked} == {3}


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
    assert seen == [2, 2]  # tried once on empty runs when the hybrid is made


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
    parts = {"stemmed": BM25(Tokenizer()), "plain": BM25(Tokenizer(stemmer=None, stop_words=None))}
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


# -------------------------------------------------------------------------------------------------- the command line

FUSED = ["retriever=hybrid", "retriever@retriever.retrievers.dense=bm25_mteb"]


@pytest.fixture
def command(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The real command in this process, over a small collection; gives its exit code."""
    write_beir(tmp_path / "made")
    monkeypatch.chdir(tmp_path)

    def give(*arguments: str) -> int:
        rest = ["dataset=folder", "dataset.path=made", "timing.latency_queries=2", "timing.repeats=1"]
        monkeypatch.setattr(sys, "argv", ["harness", *arguments, *rest])
        with pytest.raises(SystemExit) as stop:
            __main__.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return give


@pytest.mark.parametrize("name", ["rrf", "min_max", "z_score", "dbsf"])
def test_a_fusion_is_chosen_by_name_and_is_what_the_label_says(command: Callable[..., int], name: str) -> None:
    assert command(*FUSED, f"fusion@retriever.fusion={name}") == 0
    (record,) = Store(Path("results")).records()
    swapped = [*([] if name == "rrf" else [f"fusion={name}"]), "retrievers.dense=bm25_mteb"]
    assert record.retriever.label == f"hybrid [{', '.join(swapped)}]"
    if name != "rrf":
        assert record.retriever.config["fusion"]["normalize"] == name
    assert record.status == "ok"
    assert record.metrics["ndcg@10"] == 1.0


def test_weights_are_swept_from_the_command_line_and_are_in_the_labels(command: Callable[..., int]) -> None:
    assert command("-m", *FUSED, "retriever.fusion.weights=[1,1],[1,2]") == 0
    records = list(Store(Path("results")).records())
    assert sorted(record.retriever.label for record in records) == [
        "hybrid [retrievers.dense=bm25_mteb, fusion.weights=[1, 1]]",
        "hybrid [retrievers.dense=bm25_mteb, fusion.weights=[1, 2]]",
    ]
    assert len({record.id for record in records}) == 2
