"""Published nDCG@10 beside a board's: facts from published.tsv, each with its source, and ours minus theirs.

The table has the retriever's name, the dataset as the configs name it, the figure, the config of ours that stands for
the same model and settings (empty for none), and where the figure was published.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.board.nouns import Board, Row
from harness.errors import ConfigError

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


def beside(board: Board) -> list[Beside]:
    """The published rows for the board's datasets, by name. Raises `ConfigError` for another metric than nDCG@10."""
    if board.metric != METRIC:
        raise ConfigError(f"published figures are {METRIC}, this board is {board.metric}: harness report --published")
    found: dict[str, list[Published]] = {}
    for figure in figures():
        if figure.dataset in board.datasets:  # a column of other content or another split has a longer name
            found.setdefault(figure.retriever, []).append(figure)
    return [_beside(name, own, board) for name, own in sorted(found.items())]


def _beside(name: str, own: list[Published], board: Board) -> Beside:
    row = _row(own[0].ours, board)
    values = {figure.dataset: figure.value for figure in own}
    differences = {
        dataset: row.cells[dataset].value - value
        for dataset, value in values.items()
        if row is not None and dataset in row.cells
    }
    sources = sorted({figure.source for figure in own})
    return Beside(name, values, differences, row.label if row else None, sources)


def _row(name: str, board: Board) -> Row | None:
    """The row of that config as it stands; one with differences is another retriever."""
    return next((row for row in board.rows if name and row.label == name), None)
