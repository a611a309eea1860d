"""Score an existing run."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from harness.datasets import judgements
from harness.errors import ConfigError, DataError
from harness.metrics import parse
from harness.metrics import score as score_run
from harness.types import Dataset, Qrels, Run, trec


def score(
    run: Run | Mapping[str, Mapping[str, float]] | str | PathLike[str],
    qrels: Qrels | Dataset | Mapping[str, Mapping[str, int]] | str | PathLike[str],
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    per_query: bool = False,
) -> dict[str, Any]:
    """Score a run as trec_eval does.

    Args:
        run: A `Run`, ``{query: {document: score}}``, or the path of a TREC run file.
        qrels: `Qrels`, ``{query: {document: grade}}``, a `Dataset`, or the path of a qrels file.
        metrics: Metric names such as ``ndcg@10``, ``map@100`` or ``recall@1000``.
        per_query: Return every query's value instead of the mean.

    Returns:
        By metric the mean over the queries with a relevant document, or ``{query: value}``.

    Raises:
        ConfigError: A metric is unknown.
        DataError: A file cannot be read, or the run and the qrels have no query in common.
    """
    if isinstance(metrics, str):
        raise ConfigError(f"metrics={metrics!r} is a string; give a list: metrics=[{metrics!r}]")
    ranking, judgements_by_query = _run(run), _qrels(qrels)
    if not judgements_by_query.queries_with_relevant():
        raise DataError("no query of the qrels has a relevant document (a grade above 0)")
    if not {*ranking.query_ids} & {*judgements_by_query}:
        raise DataError(
            f"the run and the qrels have no query in common: the run has {next(iter(ranking.query_ids), None)!r}, the "
            f"qrels {next(iter(judgements_by_query))!r}"
        )
    query_ids, values = score_run(ranking, judgements_by_query, [parse(name) for name in metrics])
    if per_query:
        return {name: dict(zip(query_ids, column.tolist(), strict=True)) for name, column in values.items()}
    return {name: float(column.mean()) for name, column in values.items()}


def _run(run: Any) -> Run:
    if isinstance(run, Run):
        return run
    return Run.from_dict(run) if isinstance(run, Mapping) else trec.read(Path(run).expanduser())


def _qrels(qrels: Any) -> Qrels:
    if isinstance(qrels, Dataset):
        return qrels.qrels
    if isinstance(qrels, Qrels):
        return qrels
    return Qrels(qrels) if isinstance(qrels, Mapping) else judgements.read(Path(qrels).expanduser()).qrels
