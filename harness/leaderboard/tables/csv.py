"""A Board as CSV, long: one line for each retriever, dataset and metric. Numbers are not rounded."""

import csv
import io
from collections.abc import Mapping, Sequence

from harness.leaderboard import AXES, Board, Cell, Row
from harness.leaderboard.published import METRIC, Beside

_COLUMNS = (
    *("retriever", "family", "dataset", "split", "metric", "value", "low", "high", "best", "close"),
    *("baseline", "delta", "delta_low", "delta_high", "p", "won", "tied", "lost", "effect", "queries"),
    *(*AXES, "environment", "status", "record", "source", "ours_minus_published"),
)


def render(boards: Mapping[str, Board], published: Sequence[Beside] = ()) -> str:
    """Every board's cells and means, then published figures; an empty field is a gap.

    A mean's dataset is empty and its costs are the row's.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for board in boards.values():
        for row in board.rows:
            for name in board.datasets:
                if name in row.cells:
                    writer.writerow(_line(board, row, name, row.cells[name]))
                elif name in row.failed:
                    writer.writerow(_names(board, row, name) | {"status": "failed"})
            if row.overall is not None and len(board.datasets) > 1:
                writer.writerow(_mean(board, row, row.overall))
    for one in published:
        for name, value in one.values.items():
            named = {"retriever": _safe(one.retriever), "dataset": _safe(name), "metric": METRIC, "value": value}
            told = {"source": "; ".join(one.sources), "ours_minus_published": one.differences.get(name, "")}
            writer.writerow(named | told | {"status": "published"})
    return out.getvalue()


def _names(board: Board, row: Row, dataset: str) -> dict[str, object]:
    return {"retriever": _safe(row.label), "family": row.family, "dataset": _safe(dataset), "metric": board.metric}


def _mean(board: Board, row: Row, cell: Cell) -> dict[str, object]:
    told = _names(board, row, "") | _figures(board, cell) | {axis: getattr(row, axis) for axis in AXES}
    told |= {"status": "mean", "environment": row.environment}
    return {key: "" if value is None else value for key, value in told.items()}


def _line(board: Board, row: Row, dataset: str, cell: Cell) -> dict[str, object]:
    record, timing, one = cell.records[0], cell.records[0].timing, len(cell.records) == 1
    told: dict[str, object] = {
        **_names(board, row, dataset),
        **_figures(board, cell),
        "split": record.dataset.split,
        "status": "ok",
        "record": record.files.get("record", "") if one else "",
    }
    if timing is not None and one:
        told |= {
            "queries_per_s": timing.queries_per_s,
            "docs_per_s": timing.docs_per_s,
            "environment": record.environment,
        }
        told |= {"latency_ms": timing.latency_ms.get("p95", ""), "index_mb": timing.index_bytes / 1e6}
    return {key: "" if value is None else value for key, value in told.items()}


def _figures(board: Board, cell: Cell) -> dict[str, object]:
    versus = cell.versus
    told: dict[str, object] = {
        "value": cell.value,
        "best": int(cell.best),
        "close": "" if cell.close is None else int(cell.close),
        "queries": sum(own.dataset.queries or 0 for own in cell.records),
    }
    if cell.interval is not None:
        told |= dict(zip(("low", "high"), cell.interval, strict=True))
    if versus is not None:
        told |= {"baseline": _safe(board.baseline or ""), "delta": versus.delta, "delta_low": versus.low}
        told |= {"delta_high": versus.high, "p": versus.p, "won": versus.won, "tied": versus.tied, "lost": versus.lost}
        told |= {"effect": "" if versus.effect is None else versus.effect}
    return told


def _safe(text: str) -> str:
    """A name that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
