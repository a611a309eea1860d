"""Leaderboards as data: a tidy DataFrame, also as CSV, and nested JSON. Nothing is rounded; a missing value is null."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.leaderboard.compare import Comparison
from harness.leaderboard.costs import add_costs
from harness.leaderboard.model import AXES, MEANS, EvaluationSummary, Leaderboard, Row
from harness.leaderboard.published import PublishedRow
from harness.leaderboard.recommend import Recommendation
from harness.stats import ALPHA

if TYPE_CHECKING:
    import polars as pl

_TIMED_AXES = [axis for axis in AXES if axis != "index_mb"]
"""Costs that have an interval."""
_SCHEMA: dict[str, type] = {
    **dict.fromkeys(("retriever", "family", "dataset", "split", "metric"), str),
    **dict.fromkeys(("value", "low", "high"), float),
    **{"best": bool, "best_share": float, "tied_with_best": bool, "comparisons": int, "baseline": str},
    **dict.fromkeys(("delta", "delta_low", "delta_high", "p"), float),
    **{"won": int, "tied": int, "lost": int, "effect": float, "queries": int},
    **dict.fromkeys(AXES, float),
    **dict.fromkeys((f"{axis}_{end}" for axis in _TIMED_AXES for end in ("low", "high")), float),
    "busy": str,
    **dict.fromkeys(("environment", "status", "record", "source"), str),
    "ours_minus_published": float,
}


def to_frame(leaderboards: Mapping[str, Leaderboard], published: Sequence[PublishedRow] = ()) -> "pl.DataFrame":
    """Return a row for each metric, retriever and dataset, followed by published scores.

    Args:
        leaderboards: Leaderboards by metric.
        published: Published scores of the first metric.

    Returns:
        A frame whose `status` is `ok`, `failed`, `published` or `mean`. A row of status `mean` has the mean over
        datasets, no dataset, and the retriever's costs.
    """
    import polars as pl

    rows = [row for leaderboard in leaderboards.values() for row in _frame_rows(leaderboard)]
    metric = next(iter(leaderboards))
    for model in published:
        for dataset, value in model.values.items():
            names = {"retriever": model.retriever, "dataset": dataset, "metric": metric, "value": value}
            rows.append({**names, "status": "published", "source": "; ".join(model.sources)})
            rows[-1]["ours_minus_published"] = model.differences.get(dataset)
    return pl.DataFrame(rows, _SCHEMA, orient="row")


def to_csv(table: "pl.DataFrame") -> str:
    """Write a frame as CSV with 0 and 1 for booleans; a text that looks like a formula gets a leading apostrophe."""
    import polars.selectors as cs

    texts = cs.string().str.replace(r"^([=+\-@\t\r])", "'${1}").str.replace_all(r"\p{Cc}", " ")
    return table.with_columns(texts, cs.boolean().cast(int)).write_csv()


def to_json(value: Any) -> str:
    """Write strict JSON with sorted keys; a dataclass becomes an object of its fields."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=vars) + "\n"


def leaderboards_data(
    leaderboards: Mapping[str, Leaderboard], published: Sequence[PublishedRow] | None = None
) -> dict[str, Any]:
    """Return all `leaderboards` by metric, for `to_json`; the first includes the `published` scores, unless None."""
    data = {metric: _leaderboard(leaderboard) for metric, leaderboard in leaderboards.items()}
    if published is not None:
        data[next(iter(leaderboards))]["published"] = published
    return data


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison for `to_json`."""
    names = ("a", "b", "changed", "slices", "config", "unpaired", "overall")
    return {
        **{name: getattr(comparison, name) for name in names},
        "records": [[record.files.record for record in side] for side in comparison.records],
        "leaderboard": _leaderboard(comparison.leaderboard),
        "differences": {name: comparison.difference(name) for name in comparison.leaderboard.common},
    }


def recommendation_data(recommendation: Recommendation) -> dict[str, Any]:
    """Return a recommendation and the datasets and environments that it is based on, for `to_json`."""
    leaderboard = recommendation.leaderboard
    difference, runner_up = recommendation.difference, recommendation.runner_up
    return {
        "metric": leaderboard.metric,
        "datasets": leaderboard.common,
        "best": _recommended(recommendation.best),
        "runner_up": None if runner_up is None else _recommended(runner_up),
        "difference": difference,
        "significant": None if difference is None else difference.p < ALPHA,
        "excluded": recommendation.excluded,
        "uncertain": recommendation.uncertain,
        "environments": leaderboard.environments,
    }


def _recommended(row: Row) -> dict[str, Any]:
    return {"label": row.label, **_costs(row), "mean": row.mean}


def _frame_rows(leaderboard: Leaderboard) -> Iterator[dict[str, Any]]:
    for row in leaderboard.rows:
        names = {"retriever": row.label, "family": row.family, "metric": leaderboard.metric}
        for dataset in leaderboard.datasets:
            if (evaluation := row.evaluations.get(dataset)) is not None:
                yield {**names, "dataset": dataset, **_scores(leaderboard, dataset, evaluation), **_source(evaluation)}
            elif dataset in row.failed:
                yield {**names, "dataset": dataset, "status": "failed"}
        if row.overall is not None and len(leaderboard.datasets) > 1:
            costs = _costs(row)
            scores = _scores(leaderboard, MEANS, row.overall)
            yield {**names, **scores, **costs, "environment": row.environment, "status": "mean"}


def _scores(leaderboard: Leaderboard, dataset: str, evaluation: EvaluationSummary) -> dict[str, Any]:
    low, high = evaluation.interval or (None, None)
    queries = sum(record.dataset.queries or 0 for record in evaluation.records)
    marks = {name: getattr(evaluation, name) for name in ("best", "best_share", "tied_with_best")}
    scores = {"value": evaluation.value, "low": low, "high": high, **marks, "queries": queries}
    scores["comparisons"] = leaderboard.comparisons(dataset)
    if evaluation.versus is None:
        return scores
    versus = asdict(evaluation.versus)
    ends = {"delta_low": versus.pop("low"), "delta_high": versus.pop("high")}
    return {**scores, "baseline": leaderboard.baseline, **versus, **ends}


def _source(evaluation: EvaluationSummary) -> dict[str, Any]:
    """Return the split and, unless the dataset is a group of several, the record and its costs."""
    record, *parts = evaluation.records
    source = {"split": record.dataset.split, "status": "ok"}
    if parts:
        return source
    source["record"] = record.files.record
    if record.timing is None:
        return source
    costs = add_costs(Row("", {}, frozenset()), [record])
    return {**source, **_costs(costs), "environment": record.environment}


def _leaderboard(leaderboard: Leaderboard) -> dict[str, Any]:
    names = ("metric", "datasets", "common", "baseline", "environments", "remarks", "detectable", "tests", "judged")
    families = [str(family) for family in (leaderboard.family, leaderboard.means_family) if family]
    return {
        "families": families,
        **{name: getattr(leaderboard, name) for name in names},
        "rows": list(map(_row, leaderboard.rows)),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        **_costs(row),
        "samples": dict(row.samples),
        "gaps": dict(row.gaps),
        "busy_reasons": dict(row.busy),
        "refresh": row.refresh,
        "name": row.name,
        "family": row.family,
        "mean": None if row.overall is None else _summary(row.overall),
        "evaluations": {name: _summary(each) | _records(each) for name, each in row.evaluations.items()},
        "failed": sorted(row.failed),
        "front": sorted(row.front),
        "environment": row.environment,
    }


def _costs(row: Row) -> dict[str, Any]:
    """Return the costs with the ends of their intervals; `busy` names those that were measured on a busy machine."""
    ends = {axis: row.intervals.get(axis, (None, None)) for axis in _TIMED_AXES}
    intervals = {
        f"{axis}_{end}": value for axis in ends for end, value in zip(("low", "high"), ends[axis], strict=True)
    }
    return {**{axis: getattr(row, axis) for axis in AXES}, **intervals, "busy": ", ".join(row.busy)}


def _summary(evaluation: EvaluationSummary) -> dict[str, Any]:
    names = ("value", "interval", "best", "best_share", "tied_with_best", "versus")
    return {name: getattr(evaluation, name) for name in names}


def _records(evaluation: EvaluationSummary) -> dict[str, Any]:
    return {
        "records": [record.files.record for record in evaluation.records],
        "commands": [record.command for record in evaluation.records],
        "split": evaluation.records[0].dataset.split,
        "fingerprints": [record.dataset.fingerprint for record in evaluation.records],
    }
