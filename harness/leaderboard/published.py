"""Published scores next to measured ones, each with its source and the difference to ours.

published.tsv has nDCG@10 by the retriever's name and the dataset's config name, our config with the same model and
settings (empty for none), and the publication. Imported scores are shown next to the row whose weights have the same
hub id.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import ConfigError
from harness.leaderboard.model import Leaderboard, Row
from harness.types import PublishedFigures

_FILE = Path(__file__).parent.parent / "published.tsv"
METRIC = "ndcg@10"


@dataclass(frozen=True)
class PublishedScore:
    """One published score of the table."""

    retriever: str
    dataset: str
    value: float
    config: str
    """Name of the config with the same model and settings; empty for none."""
    source: str


@dataclass(frozen=True)
class PublishedRow:
    """A retriever's published scores on the datasets of a leaderboard."""

    retriever: str
    values: dict[str, float]
    """By dataset."""
    differences: dict[str, float]
    """Measured minus published, where the leaderboard has both."""
    measured_label: str | None
    """Label of the row that the differences are to."""
    sources: list[str]


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Return every score of published.tsv."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedScore(line["retriever"], line["dataset"], float(line[METRIC]), line["config"], line["source"])
            for line in csv.DictReader(file, delimiter="\t")
        )


def published_rows(
    leaderboard: Leaderboard, imported: Iterable[PublishedFigures] = (), table: bool = True
) -> list[PublishedRow]:
    """Return the published rows for the datasets of a leaderboard, sorted by name.

    Args:
        leaderboard: The leaderboard.
        imported: Scores that a user imported; they come first.
        table: Include published.tsv, which has only nDCG@10.

    Raises:
        ConfigError: The table is requested for another metric and nothing was imported.
    """
    rows = _imported_rows(leaderboard, imported)
    if not table or (leaderboard.metric != METRIC and rows):
        return rows
    if leaderboard.metric != METRIC:
        raise ConfigError(
            f"published scores are {METRIC}, this leaderboard is {leaderboard.metric}: harness report --published"
        )
    by_retriever: dict[str, list[PublishedScore]] = {}
    for score in published_scores():
        if score.dataset in leaderboard.datasets:  # a column of other content or another split has a longer name
            by_retriever.setdefault(score.retriever, []).append(score)
    measured = {row.label: row for row in leaderboard.rows}  # a row with overrides is another retriever
    for name, scores in sorted(by_retriever.items()):
        values = {score.dataset: score.value for score in scores}
        rows.append(_published_row(name, values, measured.get(scores[0].config), [score.source for score in scores]))
    return rows


def _imported_rows(leaderboard: Leaderboard, imported: Iterable[PublishedFigures]) -> list[PublishedRow]:
    models: dict[tuple[str, str, str], dict[str, PublishedFigures]] = {}
    for figures in imported:
        dataset = next((name for name in figures.datasets if name in leaderboard.datasets), None)
        if dataset is not None and leaderboard.metric in figures.metrics:
            models.setdefault((figures.model, figures.revision, figures.family), {})[dataset] = figures
    rows = []
    for (model, revision, family), by_dataset in sorted(models.items()):
        row = _row_of_model(leaderboard, model, revision, family)
        values = {dataset: figures.metrics[leaderboard.metric] for dataset, figures in by_dataset.items()}
        sources = [figures.source + _revision_note(row, name, figures) for name, figures in by_dataset.items()]
        rows.append(_published_row(model, values, row, sources))
    return rows


def _row_of_model(leaderboard: Leaderboard, model: str, revision: str, family: str) -> Row | None:
    """Return the row of a family whose only weights are a model's; of several, the one with the fewest overrides."""
    weights = {frozenset({(model, revision)}), frozenset({(model, "")})}
    rows = [
        row
        for row in leaderboard.rows
        if row.records and row.records[0].retriever.weights in weights and family in ("", row.family)
    ]
    return min(rows, key=lambda row: (len(row.records[0].retriever.differences), row.label), default=None)


def _revision_note(row: Row | None, dataset: str, figures: PublishedFigures) -> str:
    """Return a note where ours was measured on another revision of the dataset."""
    records = row.evaluations[dataset].records if row and dataset in row.evaluations else ()
    revisions = {revision for record in records if (revision := record.dataset.metadata.revision)}
    revisions -= {figures.dataset_revision}
    return f" (ours: revision {', '.join(sorted(name[:18] for name in revisions))})" if revisions else ""


def _published_row(name: str, values: dict[str, float], row: Row | None, sources: Iterable[str]) -> PublishedRow:
    evaluations = row.evaluations if row else {}
    differences = {
        dataset: evaluations[dataset].value - value for dataset, value in values.items() if dataset in evaluations
    }
    return PublishedRow(name, values, differences, row.label if row else None, sorted({*sources}))
