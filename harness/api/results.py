"""Results: evaluations as a table, DataFrames, comparisons and plots. Reading stored ones needs no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api import frames
from harness.api.sources import DEFAULT_METRIC, Sources, collect, with_metric
from harness.errors import ConfigError
from harness.leaderboard import AXES, Leaderboard, Scores, build
from harness.leaderboard.compare import Comparison, compare
from harness.leaderboard.recommend import Recommendation, recommend
from harness.metrics import parse
from harness.store import Store
from harness.store.rescore import merge
from harness.types import Dataset, Excerpt, Record, Run

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from matplotlib.figure import Figure

    from harness.evaluation.evaluate import Evaluated

Level = Literal["evaluation", "query", "hit"]
_LIMITS = {f"{'min' if more else 'max'}_{axis}": axis for axis, more in AXES.items()}
"""Costs by the name of their limit."""


class Results:
    """Evaluations of retrievers on datasets.

    Printed, or displayed by a notebook, they are the leaderboard.

    Args:
        records: One record for each evaluation.
        scores: Per-query scores by the path that a record names in ``files.per_query``.
        runs: Runs by record id; other runs are read from the store.
        datasets: Datasets in memory by fingerprint; they provide the texts of `worst` and the grades of hits.
        store: The results folder of the records.
        metric: The metric that orders the table; computed from the runs where it was not measured.
        baseline: The row to compare the other rows with.
        superseded: Older records, which the leaderboard shows where they are of an older version of a dataset.
    """

    def __init__(
        self,
        records: Sequence[Record],
        scores: Scores,
        *,
        runs: Mapping[str, Run] | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        store: Store | None = None,
        metric: str = DEFAULT_METRIC,
        baseline: str | None = None,
        superseded: Sequence[Record] = (),
    ) -> None:
        self.records, self.scores, self.baseline = list(records), dict(scores), baseline
        self._superseded, self._store = list(superseded), store
        self._sources = Sources(dict(runs or {}), dict(datasets or {}), store)
        self.metric = self._with_metric(metric, required=())

    @classmethod
    def from_evaluations(
        cls, evaluated: "Iterable[Evaluated]", *, datasets: Iterable[Dataset], store: Store | None, **settings: Any
    ) -> "Results":
        """Return the results of evaluations of this process.

        Args:
            evaluated: Evaluations with their runs and per-query scores, which need not be stored.
            datasets: The datasets in memory.
            store: Store of the records; None: nothing was stored.
            **settings: `metric` and `baseline`.
        """
        memory = collect(evaluated)
        scores = dict(memory.scores)
        if store is not None:
            scores |= store.scores(record for record in memory.records if record.files.per_query not in scores)
        datasets_by_fingerprint = {dataset.fingerprint: dataset for dataset in datasets}
        return cls(memory.records, scores, runs=memory.runs, datasets=datasets_by_fingerprint, store=store, **settings)

    @property
    def labels(self) -> list[str]:
        """The rows' names, in the order in which they were evaluated."""
        return list(dict.fromkeys(record.retriever.label for record in self.records))

    @property
    def metrics(self) -> list[str]:
        """The metrics that any evaluation has."""
        return list(dict.fromkeys(name for record in self.records for name in record.metrics))

    @cached_property
    def leaderboard(self) -> Leaderboard:
        """The leaderboard of `metric`: rows best first, intervals, significance and cost."""
        return self._build_leaderboard(self.metric)

    def leaderboards(self) -> dict[str, Leaderboard]:
        """Return the leaderboard of every metric, the table's first."""
        return {name: self._build_leaderboard(name) for name in dict.fromkeys([self.metric, *self.metrics])}

    def _build_leaderboard(self, metric: str) -> Leaderboard:
        having = [record.retriever for record in self.records if metric in record.metrics]
        has_baseline = any(self.baseline in (retriever.label, retriever.name) for retriever in having)
        baseline = self.baseline if has_baseline or metric == self.metric else None
        leaderboard = build([*self.records, *self._superseded], metric, self.scores, baseline)
        return replace(leaderboard, machines=self._store.machines(self.records)) if self._store else leaderboard

    def _with_metric(self, metric: str, required: Sequence[str] | None = None) -> str:
        """Compute a metric where it was not measured; return its canonical name. Rows without it: `with_metric`."""
        name = metric if metric in self.metrics else str(parse(metric))
        required = self.labels if required is None else required
        self.records, scores = with_metric(self.records, name, self._sources, required)
        for path, computed in scores.items():
            self.scores[path] = merge(self.scores.get(path), computed)
        return name

    def to_pandas(self, level: Level = "evaluation", metric: str | None = None) -> "pd.DataFrame":
        """Return a tidy DataFrame.

        Args:
            level: ``"evaluation"``: a row for each retriever and dataset. ``"query"``: a row for
                each query and metric. ``"hit"``: a row for each ranked document.
            metric: Only this metric, which is computed from the runs if it was not measured; None: all measured ones.

        Raises:
            ConfigError: The metric is unknown.
            UndecidedError: No evaluation has the metric; the message says how to measure it.
        """
        import pandas as pd

        return pd.DataFrame(frames.columns(self, level, metric and self._with_metric(metric)))

    def to_polars(self, level: Level = "evaluation", metric: str | None = None) -> "pl.DataFrame":
        """Return the DataFrame of `to_pandas` as a polars DataFrame.

        Args:
            level: As for `to_pandas`.
            metric: As for `to_pandas`.
        """
        import polars as pl

        return pl.DataFrame(frames.columns(self, level, metric and self._with_metric(metric)), strict=False)

    def run(self, retriever: str, dataset: str | None = None) -> Run:
        """Return the run of a `retriever` (a row or a config's name) on a `dataset`, which may be omitted if only one.

        Raises:
            ConfigError: There is no such evaluation, or its run is not stored.
        """
        return self.run_of(self._record(retriever, dataset))

    def run_of(self, record: Record) -> Run:
        """Return the run of one record. Raises `ConfigError` if it is not stored."""
        if (run := self._sources.run(record)) is None:
            name, dataset = record.retriever.label, record.dataset.label
            raise ConfigError(f"the run of {name!r} on {dataset!r} is not stored; evaluate it again")
        return run

    def compare(self, a: str, b: str, metric: str | None = None) -> Comparison:
        """Compare two rows query by query; differences are b - a.

        Args:
            a: The row to compare with.
            b: The other row.
            metric: The metric, which is computed from the runs if it was not measured; by default the table's.
        """
        labels = [self._row_records(row)[0].retriever.label for row in (a, b)]
        name = self._with_metric(metric or self.metric, labels)
        sides = [self._row_records(label) for label in labels]
        return compare(sides[0], sides[1], name, self.scores, self.table, among=[*self.records, *self._superseded])

    def recommend(self, **limits: float) -> Recommendation:
        """Return the best row within limits, the runner-up, and whether they differ significantly.

        Args:
            **limits: Any of ``max_latency_ms`` (95th percentile), ``max_index_mb``, ``min_docs_per_s`` and
                ``min_queries_per_s``.
        """
        if unknown := [name for name in limits if name not in _LIMITS]:
            raise self._unknown_error("limit", unknown[0], list(_LIMITS))
        return recommend(self.leaderboard, {_LIMITS[name]: value for name, value in limits.items()})

    def plot_pareto(self, x: str = "queries_per_s") -> "Figure":
        """Plot the metric's mean against a timing or size and return the matplotlib figure.

        Args:
            x: ``"queries_per_s"``, ``"docs_per_s"``, ``"latency_p95_ms"`` or ``"index_mb"``.
        """
        from harness.api import plots

        return plots.pareto(self, x)

    def plot_differences(self, a: str, b: str, metric: str | None = None) -> "Figure":
        """Plot the sorted per-query differences `b` - `a` in a `metric` (default: the table's); return the figure."""
        from harness.api import plots

        return plots.differences(self, a, b, metric or self.metric)

    def paired(self, a: str, b: str, metric: str | None = None) -> "pd.DataFrame":
        """Return the scores in a `metric` (default: the table's) of the queries that rows `a` and `b` both have.

        The columns are dataset, query_id, a, b and difference (b - a).
        """
        labels = [self._row_records(name)[0].retriever.label for name in (a, b)]
        return frames.paired(self.to_pandas("query", metric or self.metric), *labels)

    def worst(self, retriever: str, n: int = 10, dataset: str | None = None) -> "pd.DataFrame":
        """Return a retriever's queries of lowest score.

        Args:
            retriever: The row.
            n: Number of queries.
            dataset: The dataset; may be omitted if there is only one.

        Returns:
            Columns query_id, query (text), score, first (the text ranked first), and relevant: for each relevant
            document its id, grade, rank (None below the run's depth) and, if the dataset is in memory, text.
        """
        from harness.api import worst

        return worst.queries(self, self._record(retriever, dataset), n)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the leaderboard to a file; its suffix gives the format: .csv, .md, .tex or .html.

        A bare format name (``"csv"``, ``"md"``, ``"latex"``, ``"html"``) writes ``leaderboard.<suffix>`` into the
        results folder, or into the working directory without one.
        """
        from harness.api import formats

        return formats.save(self, path, self._store.root if self._store else Path())

    def __repr__(self) -> str:
        from harness.api import formats

        return formats.terminal(self)

    def _repr_html_(self) -> str:
        from harness.api import formats

        return formats.html(self)

    def __len__(self) -> int:
        return len(self.records)

    def _record(self, retriever: str, dataset: str | None) -> Record:
        records = self._row_records(retriever)
        matches = [record for record in records if dataset in (None, record.dataset.label, record.dataset.name)]
        if not matches:
            raise self._unknown_error("dataset", str(dataset), [record.dataset.label for record in records])
        if len(matches) > 1:
            names = ", ".join(record.dataset.label for record in matches)
            raise ConfigError(f"{retriever!r} was evaluated on several datasets; name one: dataset=... ({names})")
        return matches[0]

    def _row_records(self, retriever: str) -> list[Record]:
        """Return a row's records, by its label, its config's name, or its config with settings ("bm25 k1=0.9")."""
        records = [record for record in self.records if record.retriever.label == retriever]
        records = records or [record for record in self.records if record.retriever.name == retriever]
        records = records or [record for record in self.records if frames.has_settings(record, retriever)]
        if len({record.retriever.label for record in records}) != 1:
            raise self._unknown_error("row" if not records else "single row", retriever, self.labels)
        return records

    def _unknown_error(self, kind: str, name: str, choices: Sequence[str]) -> ConfigError:
        return ConfigError(f"no {kind} is called {name!r}; choices: {', '.join(map(repr, choices))}")

    def dataset_of(self, record: Record) -> Dataset | None:
        """Return a record's dataset if it is in memory."""
        return self._sources.dataset(record)

    def table(self, record: Record, kind: Excerpt) -> "pa.Table | None":
        """Return the table of a `record` by its `kind`: the queries, or the first hits. None if it is not stored."""
        return self._sources.table(record, kind)
