"""Build a leaderboard from records: select the records, name rows and columns, compute costs, test differences.

An evaluation is the newest successful record of a retriever on a dataset. Datasets with the same name and different
content have separate columns. A dataset in parts (CQADupStack's forums) has one column, the unweighted mean of its
parts, which is empty until all parts are measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from harness.errors import ConfigError
from harness.leaderboard.costs import add_costs, mark_fronts
from harness.leaderboard.model import EvaluationSummary, Leaderboard, Row, Scores
from harness.leaderboard.significance import mark_significance
from harness.types import Record


@dataclass(frozen=True)
class CollectedEvaluations:
    """Evaluations by row and column, before any test."""

    evaluations: dict[str, dict[str, EvaluationSummary]]
    """By label and dataset."""
    failed: dict[str, frozenset[str]]
    """By label, datasets on which every record failed."""
    datasets: list[str]
    common: list[str]
    """Datasets that every row with an evaluation has."""
    cautions: list[str]
    """Records that were left out, and settings that differ between the shown records."""


def build(
    records: Iterable[Record], metric: str = "ndcg@10", scores: Scores | None = None, baseline: str | None = None
) -> Leaderboard:
    """Build the leaderboard of one metric from the newest records.

    Args:
        records: Records of any number of retrievers and datasets.
        metric: The metric's name.
        scores: Per-query scores; without them nothing is tested.
        baseline: Label of a row, or the name of a config that only one row has.

    Raises:
        ConfigError: There is no such row; the message names the rows.
    """
    collected = collect(records, metric)
    rows = [_row(label, collected) for label in collected.evaluations]
    rows.sort(key=lambda row: (-(row.mean if row.mean is not None else -1.0), row.label))
    leaderboard = Leaderboard(
        metric,
        collected.datasets,
        collected.common,
        mark_fronts(rows),
        sorted({record.environment for row in rows for record in row.records}),
        _remarks(rows),
        baseline=None if baseline is None else find_row(rows, baseline).label,
        cautions=collected.cautions,
    )
    # a single row without scores has nothing to be compared with
    return mark_significance(leaderboard, scores) if scores or len(rows) > 1 else leaderboard


def find_row(rows: Sequence[Row], name: str) -> Row:
    """Return the row with the label `name`, or else the only one of the `rows` whose config has it.

    Raises:
        ConfigError: There is no such row, or there are several.
    """
    matches = [row for row in rows if row.label == name] or [row for row in rows if row.name == name]
    if len(matches) != 1:
        problem = "several rows are" if matches else "no row is"
        choices = ", ".join(repr(row.label) for row in matches or rows)
        raise ConfigError(f"{problem} called {name!r}; choices: {choices}")
    return matches[0]


def _row(label: str, collected: CollectedEvaluations) -> Row:
    evaluations = collected.evaluations[label]
    row = Row(label, evaluations, collected.failed[label])
    if not collected.common or any(name not in evaluations for name in collected.common):
        return row
    common = [evaluations[name] for name in collected.common]
    records = tuple(record for evaluation in common for record in evaluation.records)
    mean = sum(evaluation.value for evaluation in common) / len(common)
    return add_costs(replace(row, overall=EvaluationSummary(mean, records)), records)


def _remarks(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the encoders' remarks and the recall of approximate search, each with the labels of its rows."""
    rows_by_remark: dict[str, list[str]] = {}
    for row in rows:
        encoders = [encoder for record in row.records for encoder in record.encoders.values()]
        remarks = {encoder.remark for encoder in encoders if encoder.remark}
        recalls: dict[str, list[str]] = {}
        for record in row.records:
            for component, recall in record.recall_of_exact.items():
                name = f"{component}: recall@{recall.k}" if component else f"recall@{recall.k}"
                recalls.setdefault(name, []).append(f"{recall.recall:.1%} on {record.dataset.name}")
        remarks |= {f"Approximate search, {name} of exact search: {', '.join(on)}" for name, on in recalls.items()}
        for remark in sorted(remarks):
            rows_by_remark.setdefault(remark, []).append(row.label)
    return rows_by_remark


def collect(records: Iterable[Record], metric: str) -> CollectedEvaluations:
    """Select the newest successful record of each evaluation.

    Args:
        records: Any records; those of older versions of the metrics' definitions are left out.
        metric: The metric's name.
    """
    newest: dict[tuple[str, str], dict[str, Record]] = {}  # (row, column) -> part -> record
    failed: set[tuple[str, str]] = set()
    ordered = sorted(records, key=lambda record: record.started)
    version = max((record.metric_version for record in ordered), default=0)
    n_outdated = sum(record.metric_version != version for record in ordered)
    ordered = [record for record in ordered if record.metric_version == version]
    column_of = _column_namer(ordered)
    for record in ordered:
        key = (record.retriever.label, column_of(record))
        if record.status == "ok" and metric in record.metrics:
            newest.setdefault(key, {})[record.dataset.name] = record
        elif record.status == "failed":
            failed.add(key)
    labels = sorted({label for label, _ in [*newest, *failed]})
    datasets = sorted({name for _, name in [*newest, *failed]})
    evaluations: dict[str, dict[str, EvaluationSummary]] = {label: {} for label in labels}
    for (label, name), parts in sorted(newest.items()):
        if (evaluation := _summarize(parts, metric)) is not None:
            evaluations[label][name] = evaluation
    failed_by_label = {
        label: frozenset(name for row, name in failed - set(newest) if row == label and name not in evaluations[label])
        for label in labels
    }
    shown = [label for label in labels if evaluations[label]]
    common = [name for name in datasets if shown and all(name in evaluations[label] for label in shown)]
    outdated = [f"{n_outdated} records of older definitions of the metrics are left out"] if n_outdated else []
    cautions = [*outdated, *_differing_settings(evaluations)]
    return CollectedEvaluations(evaluations, failed_by_label, datasets, common, cautions)


def _differing_settings(evaluations: dict[str, dict[str, EvaluationSummary]]) -> list[str]:
    """Describe the settings that differ between the records, with the rows of each value."""
    cautions = []
    settings: dict[str, Callable[[Record], int | None]] = {
        "k": lambda record: record.k,
        "threads": lambda record: record.timing.threads if record.timing else None,
    }
    for name, get in settings.items():
        labels_by_value: dict[int, set[str]] = {}
        for label, columns in evaluations.items():
            for record in (record for evaluation in columns.values() for record in evaluation.records):
                if (value := get(record)) is not None:
                    labels_by_value.setdefault(value, set()).add(label)
        if len(labels_by_value) > 1:
            values = "; ".join(f"{value}: {', '.join(sorted(rows))}" for value, rows in sorted(labels_by_value.items()))
            cautions.append(f"{name} differs ({values})")
    return cautions


def _summarize(parts: dict[str, Record], metric: str) -> EvaluationSummary | None:
    """Return the mean over a dataset's parts; None where a part is missing."""
    n_parts = max(parts.values(), key=lambda record: record.started).dataset.parts
    records = tuple(record for _, record in sorted(parts.items()) if record.dataset.parts == n_parts)
    if len(records) != n_parts:
        return None
    return EvaluationSummary(sum(record.metrics[metric] for record in records) / len(records), records)


def _column_namer(records: Sequence[Record]) -> Callable[[Record], str]:
    """Return a function that names a record's column.

    If datasets of one name have different contents, all but the newest have a hash in their column's name. The parts of
    a group share a column; parts with other content share another one.
    """
    newest = {
        (record.dataset.label, record.dataset.name): record.dataset.fingerprint
        for record in records
        if record.dataset.fingerprint is not None
    }

    def column_of(record: Record) -> str:
        info = record.dataset
        label = info.label if info.group is None else info.label.replace(info.name, info.group, 1)
        fingerprint = info.fingerprint
        if fingerprint is None or fingerprint == newest.get((info.label, info.name)):
            return label
        return f"{label} ({fingerprint[:6]})"

    return column_of
