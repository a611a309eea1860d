"""Tests of the metrics against trec_eval's expected output, pytrec_eval, ir_measures and values calculated by hand."""

import math
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from ir_measures import AP, RR, Judged, P, R, Rprec, Success, nDCG
from support.errors import mentions

from harness.datasets import judgements
from harness.errors import ConfigError
from harness.metrics import NAMES, Metric, parse, score
from harness.types import Qrels, Run, StringColumn, trec

CUTS = [1, 3, 5, 10, 100, 1000, 1500]
PRINTED_PRECISION = 0.5e-4 + 1e-9  # trec_eval prints four digits

Grades = dict[str, dict[str, int]]
Hits = dict[str, dict[str, float]]


def run_of(hits: Hits, doc_ids: list[str] | None = None) -> Run:
    """Return a run from {query: {document: score}} with the documents in any order."""
    ids = doc_ids or sorted({doc for ranking in hits.values() for doc in ranking})
    number = {doc: i for i, doc in enumerate(ids)}
    shape = (len(hits), max(map(len, hits.values()), default=0))
    docs, scores = np.full(shape, -1), np.zeros(shape)
    for row, ranking in enumerate(hits.values()):
        docs[row, : len(ranking)] = [number[doc] for doc in ranking]
        scores[row, : len(ranking)] = list(ranking.values())
    return Run(list(hits), StringColumn(ids), docs, scores)


def by_query(run: Run, qrels: Qrels, names: list[str]) -> dict[str, dict[str, float]]:
    """Return {metric: {query: value}}."""
    queries, scores = score(run, qrels, [parse(name) for name in names])
    assert list(scores) == names
    assert all(values.shape == (len(queries),) for values in scores.values())
    return {name: dict(zip(queries, values.tolist(), strict=True)) for name, values in scores.items()}


def means(run: Run, qrels: Qrels, names: list[str]) -> dict[str, float]:
    """Return the mean of each metric over the queries with a relevant document."""
    return {name: float(np.mean(list(values.values()))) for name, values in by_query(run, qrels, names).items()}


# -------------------------------------------------------------------------------------- trec_eval's own expected output


def read_output(path: Path) -> dict[str, dict[str, float]]:
    """Return {measure: {query or "all": value}} from an output of trec_eval."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        measure, query, value = line.split(maxsplit=2)
        if re.fullmatch(r"-?[0-9.]+", value):
            values[measure][query] = float(value)
    return values


TREC_CUTS = [5, 10, 15, 20, 30, 100, 200, 500, 1000]
BINARY = {
    "map": "map@1000",  # the runs are no deeper than 500
    "recip_rank": "mrr@1000",
    "Rprec": "rprec",
    **{f"P_{k}": f"precision@{k}" for k in TREC_CUTS},
    **{f"recall_{k}": f"recall@{k}" for k in TREC_CUTS},
    **{f"map_cut_{k}": f"map@{k}" for k in TREC_CUTS},
    **{f"success_{k}": f"hit@{k}" for k in (1, 5, 10)},
}
GRADED = {f"ndcg_cut_{k}": f"ndcg@{k}" for k in TREC_CUTS}


@pytest.fixture(scope="module")
def trec_eval_tests(reference: Path) -> Path:
    return reference / "runs" / "trec_eval_tests"


@pytest.fixture
def read_qrels(trec_eval_tests: Path, tmp_path: Path) -> Callable[[str], Qrels]:
    """Return a function that reads a qrels file of trec_eval's tests, whose names lack the suffix of their format."""

    def read(name: str) -> Qrels:
        shutil.copy(trec_eval_tests / name, tmp_path / f"{name}.qrels")
        return judgements.read(tmp_path / f"{name}.qrels").qrels

    return read


def assert_equals_output(run: Run, qrels: Qrels, path: Path, measures: dict[str, str], per_query: bool = True) -> None:
    """Check values and means against an output of trec_eval; `measures` are its names and ours."""
    expected = read_output(path)
    values = by_query(run, qrels, [*dict.fromkeys(measures.values())])
    for measure, name in measures.items():
        actual = {**values[name], "all": float(np.mean(list(values[name].values())))}
        if not per_query:
            actual = {"all": actual["all"]}
        assert expected[measure] == pytest.approx(actual, abs=PRINTED_PRECISION, rel=0), (measure, name)
    assert expected["num_q"]["all"] == len(qrels.queries_with_relevant())


@pytest.mark.parametrize(("output", "per_query"), [("out.test.a", False), ("out.test.aq", True)])
def test_every_metric_equals_trec_eval_per_query_and_on_average(
    trec_eval_tests: Path, read_qrels: Callable[[str], Qrels], output: str, per_query: bool
) -> None:
    qrels = read_qrels("qrels.test")
    run = trec.read(trec_eval_tests / "results.test")
    assert_equals_output(run, qrels, trec_eval_tests / output, BINARY | GRADED, per_query)


def test_queries_missing_from_a_run_score_zero_as_with_flag_c_of_trec_eval(
    trec_eval_tests: Path, read_qrels: Callable[[str], Qrels]
) -> None:
    qrels = read_qrels("qrels.test")
    run = trec.read(trec_eval_tests / "results.trunc")
    assert set(run.query_ids) == {"301", "303"}
    assert_equals_output(run, qrels, trec_eval_tests / "out.test.aqc", BINARY | GRADED)


def test_the_top_100_of_a_run_score_as_with_flag_m_of_trec_eval(
    trec_eval_tests: Path, read_qrels: Callable[[str], Qrels]
) -> None:
    qrels = read_qrels("qrels.test")
    run = trec.read(trec_eval_tests / "results.trunc").top(100)
    assert_equals_output(run, qrels, trec_eval_tests / "out.test.aqcM", BINARY | GRADED)


def test_graded_qrels_and_a_relevance_level_of_two_score_as_with_trec_eval(
    trec_eval_tests: Path, read_qrels: Callable[[str], Qrels]
) -> None:
    qrels = read_qrels("qrels.rel_level")
    assert {grade for docs in qrels.values() for grade in docs.values()} == {-1, 0, 1, 2, 3, 4}
    run = trec.read(trec_eval_tests / "results.test")
    assert_equals_output(run, qrels, trec_eval_tests / "out.test.aql", GRADED)
    at_two = Qrels({query: {doc: int(grade >= 2) for doc, grade in docs.items()} for query, docs in qrels.items()})
    assert_equals_output(run, at_two, trec_eval_tests / "out.test.aql", BINARY)
    by_name = {measure: f"{name}(rel=2)" for measure, name in BINARY.items()}
    assert_equals_output(run, qrels, trec_eval_tests / "out.test.aql", by_name)


def test_judged_is_one_minus_unjudged_of_trec_eval(trec_eval_tests: Path, read_qrels: Callable[[str], Qrels]) -> None:
    qrels = read_qrels("qrels.test")
    run = trec.read(trec_eval_tests / "results.test")
    expected = read_output(trec_eval_tests / "out.test.aq")
    for k in (5, 10, 20):
        judged = by_query(run, qrels, [f"judged@{k}"])[f"judged@{k}"]
        unjudged = {query: value for query, value in expected[f"unj_{k}"].items() if query != "all"}
        assert unjudged == pytest.approx(
            {query: 1 - value for query, value in judged.items()}, abs=PRINTED_PRECISION, rel=0
        )


# ------------------------------------------------------------------------------------------- pytrec_eval, ir_measures

PYTREC = {
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in CUTS},
    **{f"map@{k}": f"map_cut_{k}" for k in CUTS},
    **{f"recall@{k}": f"recall_{k}" for k in CUTS},
    **{f"precision@{k}": f"P_{k}" for k in CUTS},
    **{f"hit@{k}": f"success_{k}" for k in CUTS},
    "rprec": "Rprec",
}


def evaluate_with_pytrec_eval(hits: Hits, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Return {metric: {query: value}} by pytrec_eval; queries that it leaves out score 0."""
    cuts = ",".join(map(str, CUTS))
    measures = {f"{name}.{cuts}" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")}
    graded = {query: dict(docs) for query, docs in qrels.items()}
    results = pytrec_eval.RelevanceEvaluator(graded, measures | {"Rprec", "recip_rank"}).evaluate(hits)
    scores = {
        metric: {query: results.get(query, {}).get(measure, 0.0) for query in qrels.queries_with_relevant()}
        for metric, measure in PYTREC.items()
    }
    for k in CUTS:  # pytrec_eval has no cutoff for the reciprocal rank
        reciprocal_ranks = {
            query: results.get(query, {}).get("recip_rank", 0.0) for query in qrels.queries_with_relevant()
        }
        scores[f"mrr@{k}"] = {query: value if value >= 1 / k else 0.0 for query, value in reciprocal_ranks.items()}
    return scores


def evaluate_with_ir_measures(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Return {metric: {query: value}} by ir_measures, scored by rank because it breaks ties by another rule."""
    names: dict[object, str] = {Rprec: "rprec"}
    for k in CUTS:
        at_k = {nDCG: "ndcg", AP: "map", R: "recall", P: "precision", RR: "mrr", Success: "hit", Judged: "judged"}
        names |= {measure @ k: f"{name}@{k}" for measure, name in at_k.items()}
    by_rank = {
        q: {doc: -float(rank) for rank, doc in enumerate(run.hits(row)[0])} for row, q in enumerate(run.query_ids)
    }
    by_rank = {query: docs for query, docs in by_rank.items() if docs}
    scores = {name: dict.fromkeys(qrels.queries_with_relevant(), 0.0) for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), {q: dict(docs) for q, docs in qrels.items()}, by_rank):
        if metric.query_id in scores[names[metric.measure]]:
            scores[names[metric.measure]][metric.query_id] = metric.value
    return scores


def assert_equal(actual: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    """Check that {metric: {query: value}} are equal to six digits."""
    assert actual.keys() == expected.keys()
    for name in actual:
        assert actual[name] == pytest.approx(expected[name], abs=1e-6, rel=0), name


def random_case(seed: int) -> tuple[Hits, Qrels, list[str]]:
    """Return a run with many ties, qrels and ids; some queries lack hits, judgements or relevant documents."""
    rng = np.random.default_rng(seed)
    ids = [f"{'dDé'[i % 3]}{i}" for i in range(1600 if seed % 5 == 0 else 40)]
    is_deep = len(ids) > 1000
    hits, grades = {}, {}
    for i in range(12):
        depth = int(rng.integers(1001, 1500)) if is_deep else int(rng.integers(1, 30))
        levels = rng.integers(1, 6)  # the number of different scores
        ranked = rng.choice(ids, depth, replace=False).tolist()
        if i not in (3, 4):
            hits[f"q{i}"] = {doc: float(s) - 2.0 for doc, s in zip(ranked, rng.integers(0, levels, depth), strict=True)}
        judged = [*rng.choice(ids, int(rng.integers(1, 25)), replace=False).tolist(), "not in the run"]
        low, high = (-2, 1) if i == 5 else (-2, 4)
        if i not in (4, 6):
            grades[f"q{i}"] = {
                doc: int(grade) for doc, grade in zip(judged, rng.integers(low, high, len(judged)), strict=True)
            }
    return hits, Qrels(grades), [*ids, "never ranked"]


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_pytrec_eval_and_ir_measures(seed: int) -> None:
    hits, qrels, ids = random_case(seed)
    run = run_of(hits, ids)
    assert "q3" in qrels
    assert "q3" not in run.query_ids  # without hits, but in the mean
    assert "q5" not in qrels.queries_with_relevant()  # judged, but without a relevant document
    expected = evaluate_with_pytrec_eval(hits, qrels)
    assert_equal(by_query(run, qrels, list(expected)), expected)
    expected = evaluate_with_ir_measures(run, qrels)
    assert_equal(by_query(run, qrels, list(expected)), expected)


def test_scores_are_compared_as_float32_as_in_pytrec_eval() -> None:
    hits = {"q": {"a": 1.0 + 1e-9, "b": 1.0, "c": 1.0 - 1e-9, "d": 5.0}}
    qrels = Qrels({"q": {"a": 3, "b": 1, "c": 2}})
    expected = evaluate_with_pytrec_eval(hits, qrels)
    assert_equal(by_query(run_of(hits), qrels, list(expected)), expected)
    assert run_of(hits).hits(0)[0] == ["d", "c", "b", "a"]


@pytest.mark.parametrize("suffix", ["trec", "trec.gz"])
def test_an_exported_run_scores_the_same_in_pytrec_eval(tmp_path: Path, suffix: str) -> None:
    hits, qrels, ids = random_case(11)
    hits = {query: {doc: value / 3 for doc, value in docs.items()} for query, docs in hits.items()}
    run = run_of(hits, ids)
    trec.write(run, tmp_path / f"run.{suffix}", "tag")
    with trec.open_text(tmp_path / f"run.{suffix}") as lines:
        exported = pytrec_eval.parse_run(lines)
    expected = evaluate_with_pytrec_eval(exported, qrels)
    assert_equal(by_query(run, qrels, list(expected)), expected)


def test_a_published_run_with_large_grades_scores_as_in_ir_measures(reference: Path) -> None:
    folder = reference / "runs" / "ir_measures_compat"
    qrels = judgements.read(folder / "compat.qrels").qrels
    run = trec.read(folder / "compat.run")
    assert max(grade for docs in qrels.values() for grade in docs.values()) == 50
    expected = evaluate_with_ir_measures(run, qrels)
    assert_equal(by_query(run, qrels, list(expected)), expected)
    run_lines = [*ir_measures.read_trec_run(str(folder / "compat.run"))]
    expected_mean = ir_measures.calc_aggregate(
        [nDCG @ 10], ir_measures.read_trec_qrels(str(folder / "compat.qrels")), run_lines
    )
    assert means(run, qrels, ["ndcg@10"])["ndcg@10"] == pytest.approx(expected_mean[nDCG @ 10], abs=1e-6)


# ------------------------------------------------------------------------------------------------------------- parse


@pytest.mark.parametrize("name", [*(name.replace("@k", f"@{k}") for name in NAMES for k in (1, 10, 1000))])
def test_the_name_of_a_metric_is_parsed_to_that_metric(name: str) -> None:
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("ndcg@10", Metric("ndcg", 10)),
        ("nDCG@10", Metric("ndcg", 10)),
        (" MRR@5 ", Metric("mrr", 5)),
        ("recall@0100", Metric("recall", 100)),
        ("RPrec", Metric("rprec")),
    ],
)
def test_metric_names_are_parsed_in_any_case(text: str, metric: Metric) -> None:
    assert parse(text) == metric
    assert parse(str(metric)) == metric


CHOICES = "ndcg@k, map@k, recall@k, precision@k, mrr@k, hit@k, judged@k, recall_cap@k, err@k, rbp@k, rprec; "


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("elephant", None),
        ("", None),
        ("recal@10", "recall@10"),
        ("rpre", "rprec"),
        ("ndcg@ten", "ndcg@10"),
        ("ndcg@-1", "ndcg@10"),
        ("ndcg@1.5", "ndcg@10"),
        ("bprf", "bpref"),
        ("recal_cap@5", "recall_cap@10"),
    ],
)
def test_the_error_about_an_unknown_metric_names_choices_and_a_similar_one(text: str, suggestion: str | None) -> None:
    with pytest.raises(ConfigError, match=mentions(repr(text), f"choices: {CHOICES}")) as error:
        parse(text)
    assert str(error.value).partition("did you mean ")[2] == (f"{suggestion}?" if suggestion else "")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("precision", ("'precision'", "at least 1", "precision@10")),
        ("map@0", ("'map@0'", "at least 1", "map@10")),
        ("rprec@10", ("'rprec@10'", "no cutoff", "rprec")),
    ],
)
def test_the_error_about_an_invalid_cutoff_names_a_valid_one(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=mentions(*parts)):
        parse(text)


# ----------------------------------------------------------------------------------------------------------- by hand

# Ranks 1 to 4: d (-1), a (3), x (unjudged), b (1); e (2) is not ranked. R = 3.
GRADES = {"q": {"a": 3, "b": 1, "c": 0, "d": -1, "e": 2}}
RANKED = {"q": {"d": 9.0, "a": 8.0, "x": 7.0, "b": 6.0}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # DCG = 0/1 + 3/log2(3) + 0/2 + 1/log2(5) = 1.892789 + .430677; ideal = 3/1 + 2/log2(3) + 1/2 = 4.761860
        ("ndcg@10", 2.323466 / 4.761860),
        # DCG = 1.892789; ideal = 3/1 + 2/log2(3) = 4.261860
        ("ndcg@2", 1.892789 / 4.261860),
        ("ndcg@1", 0.0),
        ("map@10", (1 / 2 + 2 / 4) / 3),  # a at 2, b at 4, e never; over R
        ("map@3", (1 / 2) / 3),
        ("recall@1", 0.0),
        ("recall@2", 1 / 3),
        ("recall@10", 2 / 3),
        ("precision@2", 1 / 2),
        ("precision@4", 2 / 4),
        ("precision@10", 2 / 10),  # divided by k, although there are only four hits
        ("mrr@10", 1 / 2),
        ("mrr@2", 1 / 2),
        ("mrr@1", 0.0),
        ("hit@1", 0.0),
        ("hit@2", 1.0),
        ("judged@2", 1.0),  # d counts: it is judged as not relevant
        ("judged@3", 2 / 3),
        ("judged@10", 3 / 4),  # divided by the four hits
        ("rprec", 1 / 3),  # R = 3: a alone is in the top 3
        ("recall_cap@2", 1 / 2),  # a of min(R, k) = 2
        ("recall_cap@10", 2 / 3),  # of min(R, k) = 3
        # stop at a with 7/16, at b with 1/16
        ("err@10", 7 / 16 / 2 + 9 / 16 * 1 / 16 / 4),
        ("err@3", 7 / 16 / 2),
        ("rbp@10", 0.2 * (0.8 + 0.8**3)),  # relevant at ranks 2 and 4
        ("rbp@10(p=0.5)", 0.5 * (0.5 + 0.125)),
        ("rbp@10(p=0.5,rel=2)", 0.5 * 0.5),
        # gains 7, 3, 1: (7/log2(3) + 1/log2(5)) / (7 + 3/log2(3) + 1/2)
        ("ndcg@10(dcg=exp-log2)", 4.847185 / 9.392789),
        # two documents of grade 2 or more: a at rank 2, e never
        ("map@10(rel=2)", (1 / 2) / 2),
        ("recall@10(rel=2)", 1 / 2),
        ("recall_cap@1(rel=2)", 0.0),
        ("precision@4(rel=2)", 1 / 4),
        ("mrr@10(rel=3)", 1 / 2),
        ("hit@2(rel=3)", 1.0),
        ("hit@10(rel=4)", 0.0),  # no document has the grade
        ("map@10(rel=4)", 0.0),
        ("rprec(rel=2)", 1 / 2),
        # without a cutoff: all four hits
        ("ndcg", 2.323466 / 4.761860),
        ("map", (1 / 2 + 2 / 4) / 3),
        ("recall", 2 / 3),
        ("mrr", 1 / 2),
        ("judged", 3 / 4),
    ],
)
def test_a_small_ranking_has_the_score_calculated_by_hand(name: str, value: float) -> None:
    assert means(run_of(RANKED), Qrels(GRADES), [name])[name] == pytest.approx(value, abs=1e-6)


def test_a_perfect_ranking_scores_one() -> None:
    perfect = {"q": {"a": 3.0, "e": 2.0, "b": 1.0}}
    names = ["ndcg@3", "ndcg@10", "map@10", "recall@3", "precision@3", "mrr@1", "hit@1", "judged@3", "rprec"]
    assert means(run_of(perfect), Qrels(GRADES), names) == pytest.approx(dict.fromkeys(names, 1.0))


def test_gain_is_linear_and_the_discount_is_log2_of_the_rank_plus_one() -> None:
    # 1 before 3: (1 + 3/log2(3)) / (3 + 1/log2(3)); an exponential gain would give .7098 instead of .7967
    value = means(run_of({"q": {"a": 2.0, "b": 1.0}}), Qrels({"q": {"a": 1, "b": 3}}), ["ndcg@10"])["ndcg@10"]
    assert value == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert value == pytest.approx(0.7967, abs=1e-4)


def test_a_negative_grade_counts_as_zero() -> None:
    names = ["ndcg@10", "map@10", "rprec"]
    grades = {"q": {"a": 2, "b": -3, "c": 1}}
    without = {"q": {"a": 2, "c": 1}}
    run = run_of({"q": {"b": 3.0, "a": 2.0, "c": 1.0}})
    assert means(run, Qrels(grades), names) == means(run, Qrels(without), names)
    # (2/log2(3) + 1/2) / (2 + 1/log2(3))
    assert means(run, Qrels(grades), names)["ndcg@10"] == pytest.approx(0.6697, abs=1e-4)


def test_queries_without_hits_score_zero_and_count_in_the_mean() -> None:
    qrels = Qrels({"ranked": {"a": 1}, "left out": {"a": 1}, "no hits": {"a": 1}, "irrelevant": {"a": 0}, "none": {}})
    run = run_of({"ranked": {"a": 1.0}, "no hits": {}, "unjudged": {"a": 1.0}, "irrelevant": {"a": 1.0}})
    for name in ("ndcg@10", "map@10", "recall@10", "mrr@10", "hit@1", "rprec", "judged@10", "precision@1"):
        assert by_query(run, qrels, [name])[name] == {"ranked": 1.0, "left out": 0.0, "no hits": 0.0}
        assert means(run, qrels, [name])[name] == pytest.approx(1 / 3)


def test_a_run_without_hits_scores_zero() -> None:
    names = [name.replace("@k", "@5") for name in NAMES]
    without_queries = Run([], ["a"], np.zeros((0, 0), int), np.zeros((0, 0)))
    assert means(without_queries, Qrels({"q": {"a": 1}}), names) == dict.fromkeys(names, 0.0)
    assert means(Run(["q"], [], np.full((1, 4), -1), np.zeros((1, 4))), Qrels({"q": {"a": 1}}), names) == dict.fromkeys(
        names, 0.0
    )


def test_without_relevant_documents_there_are_no_scores() -> None:
    queries, scores = score(run_of(RANKED), Qrels({"q": {"a": 0}}), [parse(name.replace("@k", "@5")) for name in NAMES])
    assert queries == []
    assert all(len(values) == 0 for values in scores.values())


def test_scores_are_in_the_order_of_the_qrels() -> None:
    run = run_of({"z": {"a": 1.0}, "b": {"x": 1.0}, "m": {"a": 1.0}})
    queries, scores = score(run, Qrels({"m": {"a": 1}, "z": {"a": 1}, "b": {"a": 1}}), [parse("hit@1")])
    assert (queries, scores["hit@1"].tolist()) == (["m", "z", "b"], [1.0, 1.0, 0.0])


def test_judgements_apply_to_their_own_query_only() -> None:
    qrels = Qrels({"p": {"a": 3}, "q": {"b": 1}})
    run = run_of({"p": {"b": 2.0, "a": 1.0}, "q": {"a": 2.0, "b": 1.0}})
    assert by_query(run, qrels, ["mrr@10"])["mrr@10"] == {"p": 0.5, "q": 0.5}
    assert by_query(run, qrels, ["judged@1"])["judged@1"] == {"p": 0.0, "q": 0.0}


def test_padding_is_not_taken_for_the_last_document() -> None:
    # "b" is the last id and judged; padding is -1, which as an index would be "b"
    run = run_of({"p": {"a": 1.0, "b": 2.0}, "q": {"a": 1.0}}, ["a", "b"])
    qrels = Qrels({"p": {"b": 1, "a": 1}, "q": {"b": 1}})
    assert by_query(run, qrels, ["precision@2"])["precision@2"] == {"p": 1.0, "q": 0.0}
    assert by_query(run, qrels, ["recall@2"])["recall@2"] == {"p": 1.0, "q": 0.0}


@pytest.mark.parametrize("convert", [list, StringColumn])
def test_document_ids_may_be_a_list_or_a_string_column(convert: Callable[[list[str]], object]) -> None:
    run = Run(["q"], convert(["x", "a", "d", "b"]), np.array([[2, 1, 0, 3]]), np.array([[9.0, 8.0, 7.0, 6.0]]))
    assert means(run, Qrels(GRADES), ["map@10"])["map@10"] == pytest.approx(1 / 3)


def test_a_metric_reads_up_to_its_cutoff_whichever_metrics_are_computed_with_it() -> None:
    hits, qrels, ids = random_case(1)
    run = run_of(hits, ids)
    names = ["ndcg@3", "map@5", "judged@5", "precision@1000", "rprec"]
    together = by_query(run, qrels, names)
    assert together == {name: by_query(run, qrels, [name])[name] for name in names}
    assert together["map@5"] == by_query(run.top(5), qrels, ["map@5"])["map@5"]


def test_equal_scores_are_ranked_in_descending_order_of_id() -> None:
    tied = run_of({"q": {"a": 1.0, "b": 1.0, "c": 1.0}})
    assert means(tied, Qrels({"q": {"c": 1}}), ["mrr@10"])["mrr@10"] == 1.0
    assert means(tied, Qrels({"q": {"a": 1}}), ["mrr@10"])["mrr@10"] == pytest.approx(1 / 3)
