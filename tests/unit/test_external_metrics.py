"""Tests of measures against ir_measures, pytrec_eval and trec_eval's expected output: ties, grades, empty queries."""

import shutil
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from ir_measures import AP, ERR, Bpref, Compat, IPrec, Measure, NumRel, SetAP, SetF, SetP, infAP, nDCG
from test_metrics import PRINTED_PRECISION, by_query, means, random_case, read_output, run_of

from harness.datasets import judgements
from harness.errors import ConfigError, RunError
from harness.metrics import parse, score
from harness.types import Qrels, Run, trec

TREC_EVAL = {
    "bpref": "bpref",
    "infAP": "infap",
    "set_P": "setp",
    "set_recall": "recall",
    "set_F": "setf",
    "set_map": "setap",
    "set_relative_P": "setp(relative=True)",
    "num_ret": "numret",
    "num_rel_ret": "numret(rel=1)",
    "ndcg": "ndcg",
    "map": "map",
    "recip_rank": "mrr",
    **{f"iprec_at_recall_{level / 10:.2f}": f"iprec(recall={level / 10})" for level in (0, 2, 3, 4, 5, 7, 8, 9, 10)},
}
"""Measures of trec_eval that its expected output has. pytrec_eval rounds recall 0.1 and 0.6 to another document."""


@pytest.fixture
def trec_eval_tests(reference: Path) -> Path:
    return reference / "runs" / "trec_eval_tests"


def read_qrels(path: Path, folder: Path) -> Qrels:
    shutil.copy(path, folder / f"{path.name}.qrels")
    return judgements.read(folder / f"{path.name}.qrels").qrels


@pytest.mark.parametrize("measure", TREC_EVAL)
def test_measures_equal_the_expected_output_of_trec_eval(measure: str, trec_eval_tests: Path, tmp_path: Path) -> None:
    qrels = read_qrels(trec_eval_tests / "qrels.test", tmp_path)
    run = trec.read(trec_eval_tests / "results.test")
    expected = read_output(trec_eval_tests / "out.test.aq")[measure]
    actual = by_query(run, qrels, [TREC_EVAL[measure]])[TREC_EVAL[measure]]
    assert str(parse(measure)) == TREC_EVAL[measure]
    assert {query: value for query, value in expected.items() if query != "all"} == pytest.approx(
        actual, abs=PRINTED_PRECISION, rel=0
    )


@pytest.mark.parametrize("measure", ["bpref", "set_P", "set_map", "Rprec", "map", "recip_rank"])
def test_a_relevance_level_equals_the_expected_output_of_trec_eval(
    measure: str, trec_eval_tests: Path, tmp_path: Path
) -> None:
    qrels = read_qrels(trec_eval_tests / "qrels.rel_level", tmp_path)
    run = trec.read(trec_eval_tests / "results.test")
    expected = read_output(trec_eval_tests / "out.test.aql")[measure]
    name = str(parse(f"{measure}(rel=2)"))
    actual = by_query(run, qrels, [name])[name]
    assert {query: value for query, value in expected.items() if query != "all"} == pytest.approx(
        actual, abs=PRINTED_PRECISION, rel=0
    )


PYTREC_AT_LEVEL = {
    "map@10(rel=2)": "map_cut_10",
    "recall@5(rel=2)": "recall_5",
    "precision@10(rel=2)": "P_10",
    "hit@3(rel=2)": "success_3",
    "rprec(rel=2)": "Rprec",
    "mrr(rel=2)": "recip_rank",
    "map(rel=2)": "map",
}


@pytest.mark.parametrize("seed", range(10))
def test_relevance_levels_equal_pytrec_eval(seed: int) -> None:
    hits, qrels, ids = random_case(seed)
    graded = {query: dict(docs) for query, docs in qrels.items()}
    measures = {"map_cut.10", "recall.5", "P.10", "success.3", "Rprec", "recip_rank", "map"}
    results = pytrec_eval.RelevanceEvaluator(graded, measures, relevance_level=2).evaluate(hits)
    actual = by_query(run_of(hits, ids), qrels, list(PYTREC_AT_LEVEL))
    for name, measure in PYTREC_AT_LEVEL.items():
        expected = {query: results.get(query, {}).get(measure, 0.0) for query in qrels.queries_with_relevant()}
        assert actual[name] == pytest.approx(expected, abs=1e-6, rel=0), name


def numbered(hits: dict[str, dict[str, float]], qrels: Qrels) -> tuple[dict[str, dict[str, float]], Qrels]:
    """Return a case with numbers as query ids, as gdeval needs, and ids of documents without other letters."""
    return (
        {query[1:]: {doc.replace("é", "e"): value for doc, value in docs.items()} for query, docs in hits.items()},
        Qrels(
            {
                query[1:]: {doc.replace("é", "e").replace(" ", "_"): grade for doc, grade in docs.items()}
                for query, docs in qrels.items()
            }
        ),
    )


@pytest.mark.skipif(shutil.which("perl") is None, reason="ir_measures runs TREC's gdeval.pl")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_err_and_exponential_gain_equal_gdeval(seed: int) -> None:
    hits, qrels = numbered(*random_case(seed)[:2])
    run = run_of(hits)
    ranked = {query: {doc: -float(rank) for rank, doc in enumerate(run[query])} for query in run if run[query]}
    graded = {query: dict(qrels[query]) for query in qrels.queries_with_relevant()}
    pairs = {"err@5": ERR @ 5, "err@20": ERR @ 20, "ndcg@10(dcg=exp-log2)": nDCG(dcg="exp-log2") @ 10}
    for name, measure in pairs.items():
        expected = dict.fromkeys(graded, 0.0)
        for metric in ir_measures.gdeval.iter_calc([measure], graded, ranked):
            expected[metric.query_id] = metric.value
        assert by_query(run, qrels, [name])[name] == pytest.approx(expected, abs=0.6e-5, rel=0), name


@pytest.mark.parametrize("seed", range(5))
def test_capped_recall_and_rank_biased_precision_equal_plain_python(seed: int) -> None:
    hits, qrels, ids = random_case(seed)
    run = run_of(hits, ids)
    actual = by_query(run, qrels, ["recall_cap@5", "rbp@20(p=0.7)"])
    for query in qrels.queries_with_relevant():
        ranked = list(run[query]) if query in run else []
        relevant = {doc for doc, grade in qrels[query].items() if grade > 0}
        capped = len(relevant & {*ranked[:5]}) / min(len(relevant), 5)
        assert actual["recall_cap@5"][query] == pytest.approx(capped)
        rbp = sum(0.3 * 0.7**rank for rank, doc in enumerate(ranked[:20]) if doc in relevant)
        assert actual["rbp@20(p=0.7)"][query] == pytest.approx(rbp)


EXTERNAL = [
    *(Bpref, Bpref(rel=2), infAP, SetP, SetF, SetF(beta=0.5), SetAP, IPrec @ 0.1, Compat(p=0.8), NumRel),
    *(nDCG(judged_only=True) @ 10, AP(judged_only=True, rel=2) @ 10, nDCG(gains={1: 10, 2: 1}) @ 10),
]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("measure", EXTERNAL, ids=str)
def test_other_measures_equal_ir_measures_on_the_order_of_the_harness(measure: Measure, seed: int) -> None:
    hits, qrels, ids = random_case(seed)
    run = run_of(hits, ids)
    graded = {query: dict(qrels[query]) for query in qrels.queries_with_relevant()}
    ranked = {query: {doc: 1 / rank for rank, doc in enumerate(run[query], start=1)} for query in run if run[query]}
    expected = dict.fromkeys(graded, 0.0)
    for metric in measure.iter_calc(graded, ranked):
        expected[metric.query_id] = metric.value
    name = str(parse(str(measure)))
    assert expected["q3"] == 0.0, "a query without hits"
    assert by_query(run, qrels, [name])[name] == pytest.approx(expected, abs=1e-9, rel=0)


def test_measures_computed_together_are_those_computed_alone() -> None:
    hits, qrels, ids = random_case(2)
    run = run_of(hits, ids)
    names = [str(parse(str(name))) for name in [*EXTERNAL, "ndcg@3", "err@5", "SetF(beta=2)"]]
    assert by_query(run, qrels, names) == {name: by_query(run, qrels, [name])[name] for name in names}


def test_ties_are_in_the_order_of_the_run_for_other_measures() -> None:
    tied = run_of({"q": {"a": 1.0, "b": 1.0, "c": 1.0}})
    assert means(tied, Qrels({"q": {"c": 1, "a": 0}}), ["bpref"])["bpref"] == 1.0
    assert means(tied, Qrels({"q": {"a": 1, "c": 0}}), ["bpref"])["bpref"] == 0.0


def test_a_run_without_hits_scores_zero_in_other_measures() -> None:
    run = Run(["q"], [], np.full((1, 4), -1), np.zeros((1, 4)))
    assert means(run, Qrels({"q": {"a": 1}}), ["bpref", "setf"]) == {"bpref": 0.0, "setf": 0.0}


@pytest.mark.parametrize(("name", "grade"), [("err@10", 5), ("ndcg@10(dcg=exp-log2)", 2000)])
def test_grades_that_a_measure_is_not_defined_for_are_an_error(name: str, grade: int) -> None:
    with pytest.raises(ConfigError, match=rf"takes grades up to \d+, and the qrels have {grade}; choose ndcg@10"):
        score(run_of({"q": {"a": 1.0}}), Qrels({"q": {"a": grade}}), [parse(name)])


def test_an_error_of_ir_measures_names_the_measure() -> None:
    run = run_of({"q": {"a": 1.0}})  # no document that is not relevant: accuracy divides by their number
    with pytest.raises(RunError, match="ir_measures cannot compute accuracy@10 for this run"):
        score(run, Qrels({"q": {"a": 1}}), [parse("Accuracy@10")])
