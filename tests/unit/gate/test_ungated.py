"""Tests of the warnings of metrics that are not gated, and of metrics of the default policy that are not measured."""

import numpy as np
import pytest
from support.gate import BASE, make_evaluations, run_gate, shifted

from harness.errors import ConfigError
from harness.gate import policy
from harness.types import PerQuery

NDCG = policy.validate({"metrics": ["ndcg@10"]}, "p")


def gate_metrics(changes, rules=NDCG):
    """Return the verdict on {retriever: {metric: (values before, values after)}} on one dataset."""
    sides = []
    for side in (0, 1):
        values = {(name, "x"): metrics["ndcg@10"][side] for name, metrics in changes.items()}
        records, scores = make_evaluations(values, side)
        for record, metrics in zip(records, changes.values(), strict=True):
            path = record.files.per_query
            scores[path] = PerQuery(scores[path].query_ids, {name: pair[side] for name, pair in metrics.items()})
        sides += [records, scores]
    return run_gate(*sides, rules)


def changed(**fallen):
    """Return metrics of which those in `fallen` changed by that amount; `_` stands for `@`."""
    metrics = {"ndcg@10": (BASE, BASE), "mrr@10": (BASE, BASE), "judged@10": (BASE, BASE)}
    return {**metrics, **{name.replace("_", "@"): (BASE, shifted(by)) for name, by in fallen.items()}}


def test_a_significant_drop_of_a_metric_that_is_not_gated_is_a_warning():
    verdict = gate_metrics({"a": changed(mrr_10=-0.02)})
    (warning,) = verdict.with_status("warn")
    assert (warning.check, warning.message, verdict.exit_code) == ("mrr@10", "not gated", 0)
    assert warning.difference.delta == pytest.approx(-0.02)
    assert gate_metrics({"a": changed(mrr_10=-0.02)}, policy.validate({"metrics": ["mrr@10"]}, "p")).exit_code == 1


def test_a_metric_has_one_warning_that_names_its_evaluations():
    changes = {name: changed(mrr_10=-0.02 - number / 1000) for number, name in enumerate("abcdef")}
    (warning,) = gate_metrics({**changes, "g": changed()}).with_status("warn")
    assert warning.retriever == "f"
    assert warning.message == "not gated; fell on 6 of 7 evaluations: also a/x, b/x, c/x and 2 more"


@pytest.mark.parametrize("fallen", [{"mrr_10": -0.004}, {"mrr_10": 0.02}, {"judged_10": -0.02}])
def test_small_drops_gains_and_the_share_of_judged_documents_are_no_warnings(fallen):
    assert not gate_metrics({"a": changed(**fallen)}).with_status("warn")


def test_at_most_five_percent_of_changes_without_an_effect_warn():
    rng, warned, changes = np.random.default_rng(0), 0, 100
    for _ in range(changes):
        metrics = {
            name: {
                "ndcg@10": (BASE, BASE),
                **{f"mrr@{k}": (BASE, np.clip(BASE + rng.normal(0, 0.1, 300), 0.01, 1)) for k in range(1, 6)},
            }
            for name in "abc"
        }
        warned += bool(gate_metrics(metrics).with_status("warn"))
    assert warned <= 0.05 * changes, f"{warned} of {changes}"


def test_the_share_of_judged_documents_cannot_be_gated():
    message = "p: judged@10 is the share of the documents that are judged, which does not measure quality"
    with pytest.raises(ConfigError, match=message):
        policy.validate({"metrics": ["judged@10"]}, "p")


def test_a_default_metric_without_scores_is_noted_and_a_requested_one_is_undecided():
    verdict = gate_metrics({"a": changed()}, policy.Policy())
    assert verdict.exit_code == 0
    note = "recall@100: neither the baseline nor the newest record has it (1 of 1 evaluations)"
    assert note in verdict.notes
    requested = gate_metrics({"a": changed()}, policy.validate({"metrics": ["recall@100", "ndcg@10"]}, "p"))
    assert requested.exit_code == 3
    one_side = {**changed(), "recall@100": (BASE, BASE)}
    assert gate_metrics({"a": one_side}, policy.Policy()).exit_code == 0
