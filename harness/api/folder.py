"""Open a results folder as `Results`. It needs no torch."""

from os import PathLike
from pathlib import Path

from harness.api.results import Results
from harness.api.sources import default_metric
from harness.errors import ConfigError
from harness.store import Store


def open_results(
    path: str | PathLike[str] = "results", metric: str | None = None, baseline: str | None = None
) -> Results:
    """Open a results folder written by the command line or by `evaluate`.

    Args:
        path: The results folder.
        metric: The metric that orders the table; computed from the stored runs where it was not measured. By default
            ndcg@10 or, if no evaluation has it, the first metric that was measured.
        baseline: The row to compare the other rows with.

    Raises:
        ConfigError: The folder does not exist or holds no record, or the metric is unknown.
        UndecidedError: No evaluation has the metric; the message says how to measure it.
    """
    root = Path(path).expanduser()
    latest = [record for record in Store(root).latest() if record.status == "ok"] if root.is_dir() else []
    latest.sort(key=lambda record: record.started)
    records = list({(record.retriever.label, record.dataset.label): record for record in latest}.values())
    if not records:
        raise ConfigError(f"no records in {str(path)!r}; name a results folder, or measure: harness retriever=bm25")
    store, metric = Store(root), metric or default_metric(records)
    shown = {id(record) for record in records}
    older = [record for record in latest if id(record) not in shown]
    return Results(records, store.scores(latest), store=store, metric=metric, baseline=baseline, superseded=older)
