"""Tests that every metric's values for a fixed run and qrels change only together with versions.METRICS."""

import pytest
from differences import numeric_difference
from golden_dataset import RUN, qrels
from golden_file import FOLDER, Entry, GoldenFile, current_versions

from harness.metrics import NAMES, parse, score
from harness.types import Qrels, trec

METRICS = FOLDER / "metrics.json"
CUTOFFS = (1, 3, 10, 100)


def values_of(name):
    """Return the metric's values by query, at every cutoff if it has one."""
    metrics = [parse(name.replace("@k", f"@{k}")) for k in (CUTOFFS if "@k" in name else CUTOFFS[:1])]
    queries, scores = score(trec.read(RUN), Qrels(qrels()), metrics)
    return {
        metric: {query: round(value, 9) for query, value in zip(queries, values.tolist(), strict=True)}
        for metric, values in scores.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_changes_only_with_its_version(name, regenerate):
    current = Entry(current_versions(["METRICS"]), values_of(name))
    GoldenFile(METRICS, NAMES, regenerate).check(name, current, numeric_difference)
