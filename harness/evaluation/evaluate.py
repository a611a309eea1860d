"""Evaluate one retriever on one dataset: reuse a stored record, or measure and store a new one.

    evaluate(BM25(), dataset, store=Store(Path("results")))

Failures are recorded too: an exception, a `sys.exit` inside a retriever and, by means of a file that marks an
evaluation in progress, the death of the process.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

import harness
from harness import environment, versions
from harness.embedding_cache import cache
from harness.errors import ConfigError, HarnessError, RunError, TargetError
from harness.evaluation import identity
from harness.evaluation.plan import TimingPlan
from harness.evaluation.timing import Measurement, measure, parse_metrics
from harness.machine import peak_memory
from harness.store import Store, tables
from harness.store.pending import Pending
from harness.types import Dataset, DatasetInfo, PerQuery, Record, Retriever, RetrieverInfo, Run

DEFAULT_METRICS = ("ndcg@10", "map@100", "recall@100", "mrr@10", "precision@10", "hit@10", "judged@10")

Resume = bool | Literal["same_code"]
"""Values of the setting `resume`."""


class Settings(BaseModel):
    """Settings of an evaluation: k, metrics, timing plan and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=100, ge=1)
    """Documents retrieved for each query."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    timing: TimingPlan | None = TimingPlan()
    """None: score the rankings without timing."""
    seed: int = Field(default=0, ge=0)

    def checked(self) -> "Settings":
        """Return the settings with the metrics' canonical names. Raises `ConfigError` for an invalid metric."""
        return self.model_copy(update={"metrics": tuple(map(str, parse_metrics(self.metrics, self.k)))})


@dataclass(frozen=True)
class Evaluated:
    """An evaluation's record and what was measured for it."""

    record: Record
    run: Run | None = None
    """None where the record was reused from a store, which has the run."""
    per_query: PerQuery | None = None
    reused: bool = False


@dataclass
class Evaluation:
    """One retriever on one dataset, before it is measured.

    `retriever` and `dataset` describe the two by name and config; `run` adds the identity and the fingerprint.
    """

    retriever: RetrieverInfo
    dataset: DatasetInfo
    settings: Settings = field(default_factory=Settings)
    store: Store | None = None
    resume: Resume = True
    """Reuse a stored record and cached embeddings; `same_code`: no record that other code measured."""
    command: str = ""
    """Command that repeats the evaluation; empty where none does."""
    whole_process: bool = False
    """True if this process runs nothing else: its peak memory is then stored as the evaluation's."""
    notify: Callable[[str], None] = lambda line: None
    """Called with lines about the progress."""

    def run(self, construct: Callable[[], Retriever], load: Callable[[], Dataset]) -> Evaluated:
        """Construct the retriever, load the dataset, and reuse the stored record or measure.

        Args:
            construct: Returns the retriever.
            load: Returns the dataset.

        Raises:
            Exception: Whatever the retriever or the dataset raises, after a record of the failure is stored. A
                `ConfigError` before the dataset is loaded is not recorded.
        """
        self.settings = self.settings.checked()
        started = datetime.now(UTC)
        with self._failures_recorded(started) as pending, cache.using("reuse" if self.resume else "refresh"):
            retriever = construct()
            with identity.in_use(retriever) as known:
                self.retriever = self.retriever.model_copy(update={"identity": known})
                dataset = load()
                self.dataset = _with_loaded(self.dataset, dataset)
                if record := self._stored_record(started):
                    return Evaluated(record, reused=True)
                if pending:
                    pending.update(self._record(started))
                return self._store_result(started, dataset, self._measure(retriever, dataset))
        raise AssertionError  # the block returns or raises

    def _stored_record(self, started: datetime) -> Record | None:
        """Return the stored record of this evaluation, if it may be reused."""
        if not self.resume or self.store is None:
            return None
        like = self._record(started)
        record = self.store.find(like)
        if record is None and self.settings.timing is None:
            record = self.store.find_scores(like)
        is_stale = self.resume == "same_code" and record is not None and record.code != like.code
        return None if is_stale else record

    def _measure(self, retriever: Retriever, dataset: Dataset) -> Measurement:
        settings = self.settings
        if not dataset.extra_metrics:  # the names of extra metrics are known only after measuring
            self._warn_without_main_score(dataset, settings.metrics)
        self.notify(f"{len(dataset.corpus):,} documents, {len(dataset.queries):,} queries")
        measured = measure(
            retriever,
            dataset,
            k=settings.k,
            metrics=settings.metrics,
            plan=settings.timing,
            seed=settings.seed,
        )
        if dataset.extra_metrics:
            self._warn_without_main_score(dataset, measured.means)
        return measured

    def _warn_without_main_score(self, dataset: Dataset, metrics: Collection[str]) -> None:
        """Report that the dataset's main score, which publications use, is not measured."""
        main = dataset.metadata.main_score
        if main is None or main in metrics:
            return
        depth = main.rpartition("@")[2]
        k = f" k={depth}" if depth.isdigit() and int(depth) > self.settings.k else ""
        self.notify(f"the dataset's main score is {main}, which is not measured; add:{k} metrics=[{main}]")

    def _record_failure(self, started: datetime, error: str) -> None:
        """Store a record of a failure with its error message."""
        if self.store:
            self.store.append(
                self._record(started).model_copy(update={"status": "failed", "error": error}), environment.manifest()
            )

    @contextmanager
    def _failures_recorded(self, started: datetime) -> "Iterator[Pending | None]":
        """Store a record of a failure in the block, including the death of the process."""
        if self.store is None:
            try:
                yield None
            except SystemExit as error:
                raise RunError(f"the retriever or the dataset called sys.exit({error.code!r})") from error
            return
        with self.store.pending(self._record(started)) as pending:
            try:
                yield pending
            except SystemExit as error:
                self._record_failure(started, f"SystemExit: {error.code}")
                raise RunError(f"the retriever or the dataset called sys.exit({error.code!r})") from error
            except Exception as error:
                is_invalid_setting = isinstance(error, ConfigError) and not isinstance(error, TargetError)
                if not is_invalid_setting or self.dataset.fingerprint:
                    self._record_failure(started, f"{type(error).__name__}: {error}")
                    if isinstance(error, HarnessError):
                        error.is_recorded = True
                raise

    def _store_result(self, started: datetime, dataset: Dataset, measured: Measurement) -> Evaluated:
        timing = measured.timing
        if timing and self.whole_process and not timing.index.cached_s:  # with cached embeddings less memory is used
            timing = timing.model_copy(update={"peak_memory_bytes": peak_memory()})
        result = {"metrics": measured.means, "timing": timing, **measured.description._asdict()}
        record = self._record(started).model_copy(update=result)
        per_query = PerQuery(measured.query_ids, measured.scores)
        if self.store:
            excerpts = tables.excerpts(measured.run, dataset)
            record = self.store.append(record, environment.manifest(), measured.run, per_query, excerpts)
        return Evaluated(record, measured.run, per_query)

    def _record(self, started: datetime) -> Record:
        settings = self.settings
        retriever = self.retriever.identity or identity.config_identity(self.retriever.config)
        dataset = self.dataset.fingerprint or identity.config_identity(self.dataset.config)
        identity_for = partial(
            identity.evaluation_identity, retriever, dataset, k=settings.k, metrics=settings.metrics, seed=settings.seed
        )
        return Record(
            id=identity_for(timing=settings.timing.model_dump() if settings.timing else None),
            scores_id=identity_for(timing=None),
            started=started,
            status="ok",
            retriever=self.retriever,
            dataset=self.dataset,
            k=settings.k,
            seed=settings.seed,
            metric_version=versions.METRICS,
            environment=environment.fingerprint(),
            harness=harness.__version__,
            code=environment.code_hash(self.retriever.config),
            revision=environment.revision(),
            command=self.command,
        )


def evaluate(
    retriever: Retriever,
    dataset: Dataset,
    *,
    name: str | None = None,
    settings: Settings | None = None,
    store: Store | None = None,
    resume: Resume = True,
) -> Record:
    """Evaluate a retriever on a dataset and return the record.

    Args:
        retriever: Any object of the retriever protocol.
        dataset: Corpus, queries and qrels.
        name: The row's name; by default the class's.
        settings: k, metrics, timing plan and seed.
        store: Store that the record is read from and written to; None: nothing is stored.
        resume: Reuse a stored record of the same evaluation, and cached embeddings; `same_code`: no record that other
            code measured.

    Raises:
        ConfigError: A setting is invalid.
        RunError: The retriever's run cannot be scored.
    """
    kind = type(retriever)
    info = RetrieverInfo(name=name or kind.__name__, config={"_target_": f"{kind.__module__}.{kind.__qualname__}"})
    evaluation = Evaluation(info, DatasetInfo(name=dataset.name), settings or Settings(), store, resume)
    return evaluation.run(lambda: retriever, lambda: dataset).record


def _with_loaded(info: DatasetInfo, dataset: Dataset) -> DatasetInfo:
    """Return the description with the names, counts and fingerprint of the loaded dataset."""
    return info.model_copy(
        update={
            "name": dataset.name,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "group": dataset.group,
            "parts": dataset.parts,
            "documents": len(dataset.corpus),
            "queries": len(dataset.queries),
            "metadata": dataset.metadata,
        }
    )
