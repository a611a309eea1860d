"""Published figures beside a board's, each with its source, and ours minus theirs.

published.tsv has nDCG@10 by the retriever's name and the dataset as the configs name it, the config of ours that stands
for the same model and settings (empty for none), and where the figure was published. Figures that a user imported stand
beside the row whose weights have the same hub id.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import ConfigError
from harness.leaderboard.model import Board, Row
from harness.types import PublishedFigures

_FILE = Path(__file__).parent.parent / "published.tsv"
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Published:
    """One published figure."""

    retriever: str
    dataset: str
    value: float
    ours: str
    """The config that stands for the same model and settings; empty for none."""
    source: str


@dataclass(frozen=True)
class Beside:
    """A retriever's published figures on a board's datasets."""

    retriever: str
    values: dict[str, float]
    """By dataset."""
    differences: dict[str, float]
    """Ours minus the published figure, where the board has both."""
    ours: str | None
    """Label of the row that the differences are to."""
    sources: list[str]


@cache
def figures() -> tuple[Published, ...]:
    """Every published figure of the table."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(line["retriever"], line["dataset"], float(line[METRIC]), line["ours"], line["source"])
            for line in csv.DictReader(file, delimiter="\t")
        )


def beside(board: Board, imported: Iterable[PublishedFigures] = (), table: bool = True) -> list[Beside]:
    """The published rows for the board's datasets, by name: those that were imported, and those of the `table`.

    The table has only nDCG@10: raises `ConfigError` for a board of another metric that has nothing else to show.
    """
    brought = _imported(board, imported)
    if not table or (board.metric != METRIC and brought):
        return brought
    if board.metric != METRIC:
        raise ConfigError(f"published figures are {METRIC}, this board is {board.metric}: harness report --published")
    found: dict[str, list[Published]] = {}
    for figure in figures():
        if figure.dataset in board.datasets:  # a column of other content or another split has a longer name
            found.setdefault(figure.retriever, []).append(figure)
    rows = {row.label: row for row in board.rows}  # a row with differences to its config is another retriever
    for name, published in sorted(found.items()):
        values = {figure.dataset: figure.value for figure in published}
        brought.append(_beside(name, values, rows.get(published[0].ours), [figure.source for figure in published]))
    return brought


def _imported(board: Board, imported: Iterable[PublishedFigures]) -> list[Beside]:
    models: dict[tuple[str, str, str], dict[str, PublishedFigures]] = {}
    for one in imported:
        shown = next((name for name in one.datasets if name in board.datasets), None)
        if shown is not None and board.metric in one.metrics:
            models.setdefault((one.model, one.revision, one.family), {})[shown] = one
    found = []
    for (model, revision, family), figures in sorted(models.items()):
        row = _of_model(board, model, revision, family)
        values = {dataset: one.metrics[board.metric] for dataset, one in figures.items()}
        sources = [one.source + _other_revision(row, name, one) for name, one in figures.items()]
        found.append(_beside(model, values, row, sources))
    return found


def _of_model(board: Board, model: str, revision: str, family: str) -> Row | None:
    """The row of that family whose only weights are that model's, with the fewest differences to its config."""
    wanted = {frozenset({(model, revision)}), frozenset({(model, "")})}
    own = [
        row
        for row in board.rows
        if row.records and row.records[0].retriever.weights in wanted and family in ("", row.family)
    ]
    return min(own, key=lambda row: (len(row.records[0].retriever.differences), row.label), default=None)


def _other_revision(row: Row | None, dataset: str, one: PublishedFigures) -> str:
    """What to say where ours was measured on another revision of the collection."""
    records = row.cells[dataset].records if row and dataset in row.cells else ()
    other = {revision for own in records if (revision := own.dataset.metadata.revision)}
    other -= {one.dataset_revision}
    return f" (ours: revision {', '.join(sorted(name[:18] for name in other))})" if other else ""


def _beside(name: str, values: dict[str, float], row: Row | None, sources: Iterable[str]) -> Beside:
    cells = row.cells if row else {}
    differences = {dataset: cells[dataset].value - value for dataset, value in values.items() if dataset in cells}
    return Beside(name, values, differences, row.label if row else None, sorted({*sources}))
