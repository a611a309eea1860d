"""Tests of the fusions rrf and convex: against their formulas computed over dicts, and against ranx."""

import statistics
import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fusion import Rankings, fuse_rankings, hits_of, run_of_rankings

from harness.errors import ConfigError
from harness.retrievers.hybrid import convex, rrf
from harness.types import Run

# --------------------------------------------------------------------------------------------------------------- rrf

DOC_IDS = ["a", "B", "c", "10", "9", "é", "文"]


@st.composite
def ranked_runs(draw: st.DrawFn) -> list[tuple[Rankings, int]]:
    """Draw one to four runs over the same queries: rankings of any length, and a depth for the longest or more."""
    queries = draw(st.integers(1, 3))
    rankings = st.lists(st.sampled_from(DOC_IDS), unique=True, max_size=len(DOC_IDS))
    runs = draw(st.lists(st.lists(rankings, min_size=queries, max_size=queries), min_size=1, max_size=4))
    return [(run, max(map(len, run)) + draw(st.integers(0, 3))) for run in runs]


@pytest.mark.slow
@given(ranked_runs(), st.sampled_from([0, 1, 60, 0.5]))
@settings(deadline=None, max_examples=300)
def test_rrf_equals_its_formula(runs: list[tuple[Rankings, int]], constant: float) -> None:
    run = rrf([run_of_rankings(rankings, DOC_IDS, depth) for rankings, depth in runs], constant)
    assert len(run) == len(runs[0][0])
    for query in range(len(run)):
        expected = fuse_rankings([rankings[query] for rankings, _ in runs], constant)
        assert [doc for doc, _ in hits_of(run, query)] == [doc for doc, _ in expected]
        assert dict(hits_of(run, query)) == pytest.approx(dict(expected), rel=1e-6)


def test_rrf_adds_1_over_60_plus_rank() -> None:
    # a: 1/61 + 1/62; b: 1/62; c: 1/61
    run = rrf([run_of_rankings([["a", "b"]], ["a", "b", "c"]), run_of_rankings([["c", "a"]], ["a", "b", "c"])])
    assert [doc for doc, _ in hits_of(run)] == ["a", "c", "b"]
    assert dict(hits_of(run)) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 61, "b": 1 / 62}, rel=1e-6)


def test_rrf_ignores_the_size_of_scores() -> None:
    ids = ["a", "b"]
    close_scores = Run(["q"], ids, np.array([[0, 1]]), np.array([[1.0, 0.999]]))
    distant_scores = Run(["q"], ids, np.array([[0, 1]]), np.array([[900.0, -900.0]]))
    assert hits_of(rrf([close_scores])) == hits_of(rrf([distant_scores]))


def test_rrf_ranks_tied_documents_in_canonical_order() -> None:
    tied = Run(["q"], ["a", "b"], np.array([[0, 1]]), np.array([[1.0, 1.0]]))
    assert dict(hits_of(rrf([tied]))) == pytest.approx({"b": 1 / 61, "a": 1 / 62}, rel=1e-6)


def test_rrf_fuses_runs_of_different_depth() -> None:
    ids = ["a", "b", "c", "d"]
    run = rrf([run_of_rankings([["a"]], ids), run_of_rankings([["b", "c", "d", "a"]], ids)])
    assert dict(hits_of(run)) == pytest.approx({"a": 1 / 61 + 1 / 64, "b": 1 / 61, "c": 1 / 62, "d": 1 / 63}, rel=1e-6)
    assert run.depth == 5


def test_rrf_ignores_padding() -> None:
    ids = ["a", "b"]
    run = rrf([run_of_rankings([[], ["b"]], ids, 3), run_of_rankings([[], ["b"]], ids, 2)])
    assert hits_of(run, 0) == []
    assert dict(hits_of(run, 1)) == pytest.approx({"b": 2 / 61}, rel=1e-6)
    assert (run.docs[1, 1:] == -1).all()


def test_rrf_of_empty_runs_is_empty() -> None:
    assert hits_of(rrf([run_of_rankings([[]], ["a"], 0), run_of_rankings([[]], ["a"], 0)])) == []
    assert len(rrf([run_of_rankings([], ["a"], 0), run_of_rankings([], ["a"], 4)])) == 0


def test_rrf_is_independent_of_the_order_of_the_runs() -> None:
    ids = ["a", "b", "c"]
    runs = [run_of_rankings([["a", "b", "c"]], ids), run_of_rankings([["c", "a"]], ids), run_of_rankings([["b"]], ids)]
    assert hits_of(rrf(runs)) == hits_of(rrf(runs[::-1])) == hits_of(rrf([runs[1], runs[2], runs[0]]))


def test_rrf_ties_documents_with_the_same_ranks_in_different_runs() -> None:
    ids = ["a", "b", "c"]
    runs = [
        run_of_rankings([["a", "b", "c"]], ids),
        run_of_rankings([["b", "c", "a"]], ids),
        run_of_rankings([["c", "a", "b"]], ids),
    ]
    assert [doc for doc, _ in hits_of(rrf(runs))] == ["c", "b", "a"]
    assert len({score for _, score in hits_of(rrf(runs))}) == 1


def test_a_negative_rrf_constant_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"retriever\.fusion\.constant=-1 must be at least 0.*60"):
        rrf([run_of_rankings([["a"]], ["a"])], constant=-1)


@given(ranked_runs(), st.data())
@settings(deadline=None, max_examples=100)
def test_weighted_rrf_equals_its_formula(runs: list[tuple[Rankings, int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.25, 1, 2.5]), min_size=len(runs), max_size=len(runs)))
    run = rrf([run_of_rankings(rankings, DOC_IDS, depth) for rankings, depth in runs], 60, weights)
    for query in range(len(run)):
        expected: dict[str, float] = {}
        for weight, (rankings, _) in zip(weights, runs, strict=True):
            for rank, doc in enumerate(rankings[query], start=1):
                expected[doc] = expected.get(doc, 0.0) + weight / (60 + rank)
        assert dict(hits_of(run, query)) == pytest.approx(expected, rel=1e-6)


def test_rrf_weights_multiply_the_scores_of_their_run() -> None:
    # a: 1/61; b: 3/61; c: 1/62 + 3/62
    ids = ["a", "b", "c"]
    run = rrf([run_of_rankings([["a", "c"]], ids), run_of_rankings([["b", "c"]], ids)], weights=[1, 3])
    assert [doc for doc, _ in hits_of(run)] == ["c", "b", "a"]
    assert dict(hits_of(run)) == pytest.approx({"a": 1 / 61, "b": 3 / 61, "c": 4 / 62}, rel=1e-6)


# ------------------------------------------------------------------------------------------------------------ convex

Scored = list[dict[str, float]]


def scored_run(queries: Scored, doc_ids: list[str], depth: int | None = None) -> Run:
    """Return a run with the given scores of each query, padded to `depth`."""
    depth = max(map(len, queries), default=0) if depth is None else depth
    docs, scores = np.full((len(queries), depth), -1), np.zeros((len(queries), depth), np.float32)
    for row, scored in enumerate(queries):
        docs[row, : len(scored)] = [doc_ids.index(doc) for doc in scored]
        scores[row, : len(scored)] = list(scored.values())
    return Run([f"q{row}" for row in range(len(queries))], doc_ids, docs, scores)


def min_max(scored: dict[str, float]) -> tuple[dict[str, float], float]:
    """Return the normalised scores, and the score of documents outside the list."""
    low, high = min(scored.values()), max(scored.values())
    if low == high:
        return dict.fromkeys(scored, 1.0), 0.0
    return {doc: (score - low) / (high - low) for doc, score in scored.items()}, 0.0


def z_score(scored: dict[str, float]) -> tuple[dict[str, float], float]:
    mean, deviation = statistics.fmean(scored.values()), statistics.pstdev(scored.values())
    if len(set(scored.values())) == 1:
        return dict.fromkeys(scored, 0.0), 0.0
    values = {doc: (score - mean) / deviation for doc, score in scored.items()}
    return values, min(values.values())


def dbsf(scored: dict[str, float]) -> tuple[dict[str, float], float]:
    mean, deviation = statistics.fmean(scored.values()), statistics.pstdev(scored.values())
    if len(set(scored.values())) == 1:
        return dict.fromkeys(scored, 0.5), 0.0
    low, high = mean - 3 * deviation, mean + 3 * deviation
    return {doc: min(1.0, max(0.0, (score - low) / (high - low))) for doc, score in scored.items()}, 0.0


NORMALISATIONS: dict[str, Callable[[dict[str, float]], tuple[dict[str, float], float]]] = {
    "min_max": min_max,
    "z_score": z_score,
    "dbsf": dbsf,
}


def convex_scores(lists: Scored, normalize: str, weights: list[float]) -> dict[str, float]:
    """Return one query's fused scores; a document outside a list gets its floor, or 0 where the list is empty."""
    total = sum(weights)
    normalised = [NORMALISATIONS[normalize](scored) if scored else ({}, 0.0) for scored in lists]
    return {
        doc: sum(
            weight / total * values.get(doc, floor) for weight, (values, floor) in zip(weights, normalised, strict=True)
        )
        for doc in {doc for scored in lists for doc in scored}
    }


# float32 values, as a run stores them
score_values = st.one_of(
    st.sampled_from([-2.0, 0.0, 0.5, 3.0]), st.floats(-100, 100, width=32).map(lambda v: round(v, 2))
)
score_lists = st.dictionaries(
    st.sampled_from(DOC_IDS), score_values.map(lambda v: float(np.float32(v))), max_size=len(DOC_IDS)
)


@st.composite
def scored_runs(draw: st.DrawFn) -> list[tuple[Scored, int]]:
    """Draw one to four runs over the same queries: lists of any length, including empty and constant lists."""
    queries = draw(st.integers(1, 3))
    runs = draw(st.lists(st.lists(score_lists, min_size=queries, max_size=queries), min_size=1, max_size=4))
    return [(run, max(map(len, run)) + draw(st.integers(0, 3))) for run in runs]


@pytest.mark.parametrize("normalize", NORMALISATIONS)
@given(runs=scored_runs(), data=st.data())
@settings(deadline=None, max_examples=150)
def test_convex_equals_its_formula(normalize: str, runs: list[tuple[Scored, int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=len(runs), max_size=len(runs)))
    run = convex([scored_run(scores, DOC_IDS, depth) for scores, depth in runs], normalize, weights)
    for query in range(len(run)):
        expected = convex_scores([scores[query] for scores, _ in runs], normalize, weights)
        assert dict(hits_of(run, query)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        # first list: a 3, b 1, c 2, without d; second list: d 9, b 9, which tie
        ("min_max", {"a": 0.5, "b": 0.5, "c": 0.25, "d": 0.5}),
        # first list: a +1.2247, b -1.2247, c 0, and d gets the minimum; second list: all 0, and 0 for a and c
        ("z_score", {"a": 0.6124, "b": -0.6124, "c": 0.0, "d": -0.6124}),
        # first list: (score - 2 + 3 * .8165) / (6 * .8165); second list: all .5
        ("dbsf", {"a": 0.3521, "b": 0.3979, "c": 0.25, "d": 0.25}),
    ],
)
def test_convex_handles_constant_lists_and_missing_documents(normalize: str, expected: dict[str, float]) -> None:
    ids = ["a", "b", "c", "d"]
    run = convex([scored_run([{"a": 3, "c": 2, "b": 1}], ids), scored_run([{"d": 9, "b": 9}], ids)], normalize)
    assert dict(hits_of(run)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("normalize", "value"), [("min_max", 1.0), ("z_score", 0.0), ("dbsf", 0.5)])
def test_convex_treats_a_single_hit_as_a_constant_list(normalize: str, value: float) -> None:
    assert hits_of(convex([scored_run([{"a": -7.5}], ["a"])], normalize)) == [("a", value)]


def test_dbsf_clips_scores_beyond_three_deviations() -> None:
    ids = [f"d{n}" for n in range(30)]
    scored = dict.fromkeys(ids, 1.0) | {"d7": 500.0}
    run = convex([scored_run([scored], ids)], "dbsf")
    assert hits_of(run)[0] == ("d7", 1.0)
    assert dict(hits_of(run)) == pytest.approx(convex_scores([scored], "dbsf", [1]), rel=1e-5)
    negated = {doc: -score for doc, score in scored.items()}
    assert hits_of(convex([scored_run([negated], ids)], "dbsf"))[-1] == ("d7", 0.0)


@pytest.mark.parametrize("normalize", NORMALISATIONS)
def test_convex_distinguishes_scores_that_nearly_tie(normalize: str) -> None:
    above_1 = float(np.nextafter(np.float32(1), np.float32(2)))
    run = convex([scored_run([{"a": above_1, "b": 1.0}], ["a", "b"])], normalize)
    expected = convex_scores([{"a": above_1, "b": 1.0}], normalize, [1])
    assert dict(hits_of(run)) == pytest.approx(expected, abs=1e-4)
    assert expected["a"] > expected["b"]


@pytest.mark.parametrize("normalize", NORMALISATIONS)
def test_convex_with_an_empty_list_keeps_the_order_of_the_other(normalize: str) -> None:
    ids = ["a", "b", "c"]
    empty = scored_run([{}, {}], ids, 2)
    run = convex([empty, scored_run([{"b": 5, "a": 4, "c": 1}, {}], ids)], normalize)
    assert [doc for doc, _ in hits_of(run, 0)] == ["b", "a", "c"]
    assert hits_of(run, 1) == []
    assert hits_of(convex([scored_run([{}], ids, 0), scored_run([{}], ids, 0)], normalize)) == []


@pytest.mark.parametrize("normalize", NORMALISATIONS)
@pytest.mark.parametrize("change", [lambda s: s * 7, lambda s: s * 8 - 100], ids=["scaled", "scaled and shifted"])
def test_convex_is_independent_of_the_scale_of_a_run(normalize: str, change: Callable[[float], float]) -> None:
    rng = np.random.default_rng(0)
    ids = [f"d{n}" for n in range(30)]
    first, second = (
        [dict(zip(rng.permutation(ids)[:20], rng.normal(size=20), strict=True)) for _ in "ab"] for _ in "ab"
    )
    changed = [{doc: change(score) for doc, score in scored.items()} for scored in second]
    plain = convex([scored_run(first, ids), scored_run(second, ids)], normalize, [1, 2])
    scaled = convex([scored_run(first, ids), scored_run(changed, ids)], normalize, [1, 2])
    np.testing.assert_array_equal(plain.docs, scaled.docs)
    np.testing.assert_allclose(plain.scores[plain.docs >= 0], scaled.scores[scaled.docs >= 0], atol=1e-5)


def test_convex_depends_on_the_ratio_of_the_weights_only() -> None:
    ids = ["a", "b", "c"]
    runs = [scored_run([{"a": 3, "b": 2, "c": 1}], ids), scored_run([{"c": 9, "a": 1}], ids)]
    assert hits_of(convex(runs, "min_max", [1, 3])) == hits_of(convex(runs, "min_max", [0.25, 0.75]))
    assert hits_of(convex(runs, "min_max", [1, 1])) == hits_of(convex(runs, "min_max"))
    assert hits_of(convex(runs, "min_max", [1, 3])) != hits_of(convex(runs, "min_max", [3, 1]))


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"retriever\.fusion\.normalize='softmax'; choices: min_max, z_score, dbsf"):
        convex([run_of_rankings([["a"]], ["a"])], "softmax")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([1], "2 retrievers"),
        ([1, 2, 3], "2 retrievers"),
        ([], "2 retrievers"),
        ([1, -1], "0 or more, and not all 0"),
        ([1, float("nan")], "0 or more, and not all 0"),
        ([float("inf"), 1], "0 or more, and not all 0"),
        ([0, 0.0], "0 or more, and not all 0"),
        (["a", 1], "0 or more, and not all 0"),
    ],
)
@pytest.mark.parametrize("fusion", [rrf, convex])
def test_invalid_weights_are_refused(fusion: Callable[..., Run], weights: list[float], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        fusion([run_of_rankings([["a"]], ["a"])] * 2, weights=weights)
    assert f"retriever.fusion.weights={weights}" in str(error.value)
    assert reason in str(error.value)


# ------------------------------------------------------------------------------------------------------ against ranx


def fuse_with_ranx(runs: list[Scored], **options: object) -> Scored:
    """Fuse runs over the queries q0, q1, ... with ranx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from ranx and its dependencies
        ranx = pytest.importorskip("ranx")
        ranx_runs = [ranx.Run({f"q{row}": dict(scored) for row, scored in enumerate(run)}) for run in runs]
        merged = ranx.fuse(runs=ranx_runs, **options).to_dict()
    return [merged[f"q{row}"] for row in range(len(runs[0]))]


def random_lists(rng: np.random.Generator, queries: int, ids: list[str], n: int) -> Scored:
    """Return lists of n distinct documents with distinct scores."""
    return [
        dict(zip(rng.permutation(ids)[:n].tolist(), sorted(rng.normal(10, 4, n).tolist())[::-1], strict=True))
        for _ in range(queries)
    ]


def assert_same_as_ranx(run: Run, expected: Scored) -> None:
    for query, expected_scores in enumerate(expected):
        hits = hits_of(run, query)
        assert dict(hits) == pytest.approx(expected_scores, abs=1e-6)
        scores = [expected_scores[doc] for doc, _ in hits]
        assert all(first > second - 1e-7 for first, second in pairwise(scores))


@pytest.mark.slow
@pytest.mark.parametrize("n_runs", [2, 3])
def test_rrf_equals_ranx(n_runs: int) -> None:
    rng = np.random.default_rng(n_runs)
    ids = [f"d{n}" for n in range(60)]
    runs = [random_lists(rng, 25, ids, n) for n in (40, 25, 30)[:n_runs]]
    expected = fuse_with_ranx(runs, norm=None, method="rrf", params={"k": 60})
    assert_same_as_ranx(rrf([scored_run(run, ids) for run in runs]), expected)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.8)])
def test_convex_with_min_max_equals_the_weighted_sum_of_ranx(weights: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    ids = [f"d{n}" for n in range(60)]
    runs = [random_lists(rng, 25, ids, 40), random_lists(rng, 25, ids, 25)]
    expected = fuse_with_ranx(runs, norm="min-max", method="wsum", params={"weights": weights})
    assert_same_as_ranx(convex([scored_run(run, ids) for run in runs], "min_max", weights), expected)
