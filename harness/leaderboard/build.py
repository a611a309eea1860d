"""Build a leaderboard from records: select the records, name rows and columns, compute costs, test differences.

An evaluation is the newest successful record of a retriever on a dataset. Datasets with the same name and different
content have separate columns. A dataset in parts (CQADupStack's forums) has one column, the unweighted mean of its
parts, which is empty until all parts are measured.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, isnan, nan
from textwrap import shorten

from harness.errors import ConfigError
from harness.leaderboard.columns import DatasetColumns
from harness.leaderboard.costs import add_costs, cost_remarks, mark_fronts
from harness.leaderboard.marks import mark
from harness.leaderboard.model import MEANS, EvaluationSummary, Leaderboard, Row, Scores
from harness.leaderboard.significance import ComparisonFamily, test_family
from harness.metrics import is_coverage
from harness.types import Record

_JUDGED = "judged@10"
_ERROR_LENGTH = 100
"""Characters of a failure's message."""


Selection = Callable[[Record], bool]


@dataclass(frozen=True)
class CollectedEvaluations:
    """Evaluations by row and column, before any test."""

    evaluations: dict[str, dict[str, EvaluationSummary]]
    """By label and dataset."""
    failures: dict[tuple[str, str], Record]
    """The newest failure by label and dataset, where every record failed."""
    newer_versions: dict[str, str]
    """By the column of an older version of a dataset, the column of the newest one."""
    cautions: list[str]
    """Records that were left out."""

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets that any row has. A failure alone adds none."""
        return sorted({name for columns in self.evaluations.values() for name in columns})

    def failed(self, label: str) -> frozenset[str]:
        """Return the datasets of other rows on which every record of a row failed."""
        return frozenset(name for row, name in self.failures if row == label and name in self.datasets)

    @cached_property
    def common(self) -> list[str]:
        """Datasets that every row with an evaluation has, in their newest version."""
        rows = [columns for columns in self.evaluations.values() if columns]
        names = [name for name in self.datasets if self.newer_versions.get(name) not in self.datasets]
        return [name for name in names if rows and all(name in columns for columns in rows)]

    def select(self, is_shown: Selection) -> "CollectedEvaluations":
        """Return only the evaluations and failures of the selected records."""
        evaluations = {
            label: {name: each for name, each in columns.items() if any(map(is_shown, each.records))}
            for label, columns in self.evaluations.items()
        }
        failures = {key: record for key, record in self.failures.items() if is_shown(record)}
        labels = {label for label, columns in evaluations.items() if columns} | {label for label, _ in failures}
        shown = {label: columns for label, columns in evaluations.items() if label in labels}
        return replace(self, evaluations=shown, failures=failures)


def build(
    records: Iterable[Record],
    metric: str = "ndcg@10",
    scores: Scores | None = None,
    baseline: str | None = None,
    is_shown: Selection | None = None,
) -> Leaderboard:
    """Build the leaderboard of one metric from the newest records.

    Args:
        records: Records of any number of retrievers and datasets, all of which are compared.
        metric: The metric's name.
        scores: Per-query scores; without them nothing is tested.
        baseline: Label of a row, or the name of a config that only one row has.
        is_shown: Returns True for the records to show. The others are still part of the family of comparisons, so that
            hiding rows or datasets changes no verdict. By default all are shown.

    Raises:
        ConfigError: There is no such row; the message names the rows.
    """
    everything = collect(records, metric)
    shown = everything if is_shown is None else everything.select(is_shown)
    family, means_family = _families(everything, shown, metric, scores)
    rows = [_row(label, shown) for label in shown.evaluations]
    rows.sort(key=lambda row: (-(row.mean if row.mean is not None else -1.0), row.label))
    leaderboard = Leaderboard(
        metric,
        shown.datasets,
        shown.common,
        rows if is_coverage(metric) else mark_fronts(rows),
        sorted({record.environment for row in rows for record in row.records}),
        {**_remarks(rows), **cost_remarks(rows)},
        baseline=None if baseline is None else find_row(rows, baseline).label,
        cautions=[*shown.cautions, *_failures(shown.failures), *_differing_settings(shown.evaluations)],
        judged=_judged(shown),
        family=family,
        means_family=means_family,
    )
    return mark(leaderboard, scores)


def _judged(shown: CollectedEvaluations) -> dict[str, float]:
    """Return the share of judged documents among the first ten by label, of the rows that have it."""
    shares = {}
    for label, columns in shown.evaluations.items():
        means = [
            sum(record.metrics.get(_JUDGED, nan) for record in columns[name].records) / len(columns[name].records)
            for name in shown.common
            if name in columns
        ]
        if means and not isnan(sum(means)):
            shares[label] = sum(means) / len(means)
    return shares


def _families(
    everything: CollectedEvaluations, shown: CollectedEvaluations, metric: str, scores: Scores | None
) -> tuple[ComparisonFamily | None, ComparisonFamily | None]:
    """Return the family of all comparisons and, where the shown means cover other datasets, a family of theirs."""
    if scores is None or is_coverage(metric):
        return None, None
    columns = {name: [name] for name in everything.datasets}
    means = {MEANS: everything.common} if len(everything.common) > 1 else {}
    family = test_family(everything.evaluations, columns | means, metric, scores)
    if shown.common == everything.common or len(shown.common) < 2:
        return family, None
    return family, test_family(shown.evaluations, {MEANS: shown.common}, metric, scores)


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
    row = Row(label, evaluations, collected.failed(label))
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
    failed: dict[tuple[str, str], Record] = {}
    ordered = sorted(records, key=lambda record: record.started)
    version = max((record.metric_version for record in ordered), default=0)
    n_outdated = sum(record.metric_version != version for record in ordered)
    ordered = [record for record in ordered if record.metric_version == version]
    columns = DatasetColumns([record for record in ordered if record.status == "ok" and metric in record.metrics])
    for record in ordered:
        key = (record.retriever.label, columns.name(record))
        if record.status == "ok" and isfinite(record.metrics.get(metric, nan)):
            newest.setdefault(key, {})[record.dataset.name] = record
        elif record.status == "failed":
            failed[key] = record
    evaluations: dict[str, dict[str, EvaluationSummary]] = {label: {} for label in sorted({row for row, _ in newest})}
    for (label, name), parts in sorted(newest.items()):
        if (evaluation := _summarize(parts, metric)) is not None:
            evaluations[label][name] = evaluation
    datasets = {name for by_dataset in evaluations.values() for name in by_dataset}
    failures = {(row, name): record for (row, name), record in failed.items() if name not in evaluations.get(row, {})}
    evaluations |= {label: {} for label, name in sorted(failures) if name in datasets and label not in evaluations}
    cautions = [f"{n_outdated} records of older definitions of the metrics are left out"] if n_outdated else []
    cautions += [*_not_finite(ordered, metric), *columns.cautions(datasets)]
    return CollectedEvaluations(evaluations, failures, columns.newer_versions, cautions)


def _not_finite(records: Sequence[Record], metric: str) -> list[str]:
    """Name the records whose `metric` is not a finite number."""
    return [
        f"left out: {record.retriever.label} on {record.dataset.label}, {record.started.date()}: {metric} is not finite"
        for record in records
        if record.status == "ok" and not isfinite(record.metrics.get(metric, 0.0))
    ]


def _failures(failed: Mapping[tuple[str, str], Record]) -> list[str]:
    """Describe evaluations of which every record failed."""
    return [
        f"failed: {label} on {name}: {shorten((record.error or 'unknown error').partition(chr(10))[0], _ERROR_LENGTH)}"
        for (label, name), record in sorted(failed.items())
    ]


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
