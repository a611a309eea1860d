"""Tests of document ids that turned over: samples of ids, and what the gate says about them."""

import numpy as np
import pytest
from support.gate import BASE, make_evaluations, shifted

from harness.gate import MACRO, Baseline, Policy, gate, match_records
from harness.gate.ci import text
from harness.gate.turnover import SAMPLE, describe_turnover, sample_ids


def write_run(path, docs):
    """Write a TREC run of lists of documents and return its path."""
    lines = [
        f"q{query} Q0 {doc} {rank + 1} {-rank} t" for query, hits in enumerate(docs) for rank, doc in enumerate(hits)
    ]
    path.write_text("\n".join([*lines, ""]))
    return path


def rankings(corpus, queries=50, depth=30, seed=0):
    """Return random documents of a corpus for each query."""
    rng = np.random.default_rng(seed)
    return [rng.choice(corpus, depth, replace=False).tolist() for _ in range(queries)]


CORPUS = [f"d{number}" for number in range(2000)]


def test_the_sample_is_of_the_first_ten_documents_and_does_not_depend_on_their_order(tmp_path):
    docs = rankings(CORPUS)
    sample = sample_ids(write_run(tmp_path / "run.trec", docs))
    assert len(sample) == SAMPLE
    assert set(sample) <= {doc for hits in docs for doc in hits[:10]}
    reordered = [hits[:10][::-1] + hits[10:] for hits in docs[::-1]]
    assert sample_ids(write_run(tmp_path / "other.trec", reordered)) == sample


@pytest.mark.parametrize(
    ("after", "is_turned_over"),
    [
        (rankings(CORPUS, seed=1), False),  # random documents of the same corpus
        (rankings([f"chunk{number}" for number in range(2000)]), True),
        (rankings(CORPUS[:20], depth=10), False),  # always the same few documents
        ([[], []], False),  # nothing is ranked
    ],
)
def test_worse_rankings_of_the_same_corpus_are_not_taken_for_other_ids(tmp_path, after, is_turned_over):
    sample = sample_ids(write_run(tmp_path / "before.trec", rankings(CORPUS)))
    message = describe_turnover(sample, write_run(tmp_path / "after.trec", after))
    assert (message is not None) == is_turned_over
    if message:
        assert message.startswith("document ids differ: 0% of the baseline's ranked ids occur in the new rankings; re-")
        assert message.endswith(': harness accept --reason "..."')


def test_without_a_sample_or_a_run_nothing_is_said(tmp_path):
    run = write_run(tmp_path / "run.trec", rankings(CORPUS))
    assert describe_turnover([], run) is None
    assert describe_turnover(sample_ids(run), tmp_path / "missing.trec") is None


def test_other_ids_on_the_same_dataset_are_said_in_place_of_the_drop():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE, ("b", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): shifted(-0.1), ("b", "x"): BASE}, 1)
    verdict = gate(
        Baseline(accepted, accepted_scores),
        match_records(accepted, records),
        scores,
        Policy(),
        turnover=lambda _: "others",
    )
    assert verdict.exit_code == 1
    of_scores = {(each.retriever, each.check): each.status for each in verdict.findings if not each.is_cost}
    assert of_scores == {("a", "evaluation"): "fail", ("b", "ndcg@10"): "identical"}
    assert verdict.findings[0].message == "others"


@pytest.mark.parametrize("retrievers", [["a"], ["a", "b"]])
def test_the_mean_leaves_out_evaluations_whose_ids_turned_over(retrievers):
    before = {(name, data): BASE for name in retrievers for data in "xyz"}
    after = {**before, ("a", "x"): shifted(-0.1), ("a", "y"): shifted(-0.002)}
    accepted, accepted_scores = make_evaluations(before)
    records, scores = make_evaluations(after, 1)
    verdict = gate(
        Baseline(accepted, accepted_scores),
        match_records(accepted, records),
        scores,
        Policy(),
        turnover=lambda record: "others" if record.dataset.name == "x" else None,
    )
    assert [text.line(each) for each in verdict.with_status("fail")] == ["FAIL a/x - others"]
    (mean,) = [each for each in verdict.findings if (each.retriever, each.dataset) == ("a", MACRO)]
    assert mean.status == "pass"
    assert mean.difference.delta == pytest.approx(-0.001)
    assert mean.message == "over y, z alone"
    assert verdict.tests == 2, "of a/y and the mean"
    assert verdict.with_status("fail")[0].measured is not None
