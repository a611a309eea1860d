"""Evaluate retrievers on datasets from Python."""

import shlex
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api import load
from harness.api.results import Results
from harness.api.retrievers import RetrieverDescription, describe_all, refuse_duplicates
from harness.config import build
from harness.config.evaluation import Composition, dataset_info
from harness.config.keys import check_keys
from harness.console import listener
from harness.errors import ConfigError, HarnessError
from harness.evaluation.evaluate import DEFAULT_METRICS, Evaluated, Evaluation, Settings
from harness.evaluation.plan import TimingPlan
from harness.instrument import listening
from harness.metrics import override
from harness.store import Store
from harness.types import Dataset, DatasetInfo, Retriever, RetrieverInfo
from harness.types.protocols import TaskPrompted
from harness.types.record import DEFAULT_K

if TYPE_CHECKING:
    from harness.leaderboard.compare import Comparison

AnyDataset = str | PathLike[str] | Dataset
Timing = TimingPlan | str | None


def evaluate(
    retrievers: Any,
    datasets: AnyDataset | Sequence[AnyDataset],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    k: int = DEFAULT_K,
    baseline: str | None = None,
    timing: TimingPlan | Literal["default"] | str | None = "default",
    seed: int = 0,
    results_dir: str | PathLike[str] | None = None,
    resume: bool = True,
    names: Mapping[Any, str] | None = None,
    progress: bool = False,
) -> Results:
    """Evaluate retrievers on datasets.

    Args:
        retrievers: One retriever, a list, or ``{name: retriever}``. A retriever is a config's name with settings
            (``"bm25 k1=0.9"``), an object with ``index``, ``search`` and ``nbytes``, a function
            ``(queries, k) -> hits``, a SentenceTransformer, SparseEncoder, MultiVectorEncoder or CrossEncoder, a model
            of mteb or beir, a `Run`, or the path of a TREC run file.
        datasets: One dataset or a list: a `Dataset`, or a name as for `load_dataset`.
        metrics: Metric names; the first one orders the table.
        k: Documents retrieved for each query.
        baseline: The row to compare the other rows with.
        timing: A `TimingPlan`, the name of a config (``"default"``, ``"gpu"``), or None to score without timing.
        seed: Seed for drawing the queries whose latency is measured.
        results_dir: Folder in which evaluations are stored and looked up; None writes nothing.
        resume: Reuse stored evaluations and cached embeddings.
        names: Row names by position in ``retrievers``, or by the name of a config.
        progress: Show progress on stderr.

    Returns:
        The evaluations as `Results`: a table, a DataFrame, comparisons and plots.

    Raises:
        ConfigError: A name, a key, the type of a value or a metric is invalid; nothing has been measured yet.
        HarnessError: Every evaluation failed. If only some failed, a warning names them, and the others are returned.
            A retriever from a config is constructed just before its evaluation, and may fail then.
    """
    plan = _timing_plan(timing)
    settings = Settings(k=k, metrics=tuple([metrics] if isinstance(metrics, str) else metrics), timing=plan, seed=seed)
    settings = settings.checked()
    descriptions = describe_all(retrievers, names)
    is_sequence = isinstance(datasets, Sequence) and not isinstance(datasets, str)
    dataset_list: list[AnyDataset] = list(datasets) if is_sequence else [datasets]  # type: ignore[list-item, arg-type]
    if not dataset_list:
        raise ConfigError("no dataset is given; give a Dataset or a name such as 'scifact'; see: harness list datasets")
    store = None if results_dir is None else Store(Path(results_dir).expanduser())
    session = _Session(settings, timing, store, resume)
    plans = [[_prepare(description, dataset, session) for description in descriptions] for dataset in dataset_list]
    for dataset_plans in plans:
        _check_labels([plan.evaluation.retriever for plan in dataset_plans], baseline)
    session.frees_frames = len(dataset_list) * len(descriptions) > 1
    with ExitStack() as stack:
        if progress:
            stack.enter_context(listening(listener()))
        finished = [plan.run(session) for dataset_plans in plans for plan in dataset_plans]
    return _results(finished, session, settings.metrics[0], baseline)


def compare(
    a: Any, b: Any, datasets: AnyDataset | Sequence[AnyDataset], *, metric: str = "ndcg@10", **settings: Any
) -> "Comparison":
    """Evaluate two retrievers and return their comparison, query by query.

    Args:
        a: The retriever that differences are relative to.
        b: The other retriever; differences are b - a.
        datasets: As for `evaluate`.
        metric: The metric to compare.
        **settings: Further arguments of `evaluate`.

    Raises:
        HarnessError: An evaluation failed.
    """
    results = evaluate([a, b], datasets, metrics=settings.pop("metrics", (metric,)), **settings)
    if len(results.labels) < 2:
        raise HarnessError(f"one of the two retrievers failed: only {results.labels[0]!r} was evaluated")
    first, second = results.labels
    return results.compare(first, second, metric=metric)


@dataclass
class _Session:
    """Settings and loaded datasets shared by the evaluations of one call."""

    settings: Settings
    timing: Timing
    store: Store | None
    resume: bool

    def __post_init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.frees_frames = False
        """Free the frames of errors, which hold indexes; not for a single evaluation: a debugger may need them."""


@dataclass
class _PlannedEvaluation:
    """An evaluation whose config and settings are valid, and its outcome or error once it has run."""

    evaluation: Evaluation
    construct: Callable[[], Retriever]
    dataset: Dataset | None
    composition: "Composition | None"
    outcome: Evaluated | None = None
    error: Exception | None = None

    def run(self, session: _Session) -> "_PlannedEvaluation":
        """Run the evaluation; keep an error, so that the other evaluations are not lost."""
        try:
            self.outcome = self.evaluation.run(self.construct, lambda: self._load(session))
        except Exception as error:
            if session.frees_frames:
                traceback.clear_frames(error.__traceback__)
            self.error = error
        return self

    def _load(self, session: _Session) -> Dataset:
        if self.dataset is None:
            assert self.composition is not None  # noqa: S101  # a dataset by name has one
            key = repr(self.composition.public["dataset"])
            if key not in session.datasets:
                session.datasets[key] = load.construct_dataset(self.composition)
            self.dataset = session.datasets[key]
        return self.dataset


def _prepare(description: RetrieverDescription, dataset: AnyDataset, session: _Session) -> _PlannedEvaluation:
    """Compose and check the config of one evaluation, without constructing or loading anything."""
    in_memory = dataset if isinstance(dataset, Dataset) else None
    composition, command = None, ""
    if description.construct is None or in_memory is None:
        overrides = ["retriever=bm25"] if description.construct else load.retriever_overrides(description.name)
        overrides += load.overrides_of_dataset(dataset)
        composition = load.compose(*overrides, f"k={session.settings.k}")  # also the depth of hybrids and rerankers
        if description.construct is None and in_memory is None:
            command = shlex.join(["harness", *overrides, *_settings_overrides(session, description.row)])
    construct, info = description.construct, description.info
    if construct is None or info is None:
        assert composition is not None  # noqa: S101  # a config was composed above
        construct, info = (
            partial(load.construct_retriever, composition),
            load.describe_retriever(composition, description.row),
        )
    elif task := _task(in_memory, composition):
        construct = partial(_construct_for_task, construct, task)
    data_info = load.info_of_dataset(in_memory) if in_memory is not None else _info(composition)
    evaluation = Evaluation(info, data_info, session.settings, session.store, session.resume, command)
    return _PlannedEvaluation(evaluation, construct, in_memory, composition)


def _task(dataset: Dataset | None, composition: "Composition | None") -> dict[str, Any]:
    """Return the arguments that name the mteb task of a dataset; empty for other datasets."""
    dataset_config = composition.public["dataset"] if composition else {}
    return load.mteb_task(dataset_config if dataset is None else dataset.metadata.model_dump())


def _construct_for_task(construct: Callable[[], Retriever], task: Mapping[str, Any]) -> Retriever:
    """Construct a retriever; set the mteb task of one that takes its prompts from a task."""
    retriever = construct()
    return retriever.for_task(**task) if isinstance(retriever, TaskPrompted) else retriever


def _info(composition: "Composition | None") -> DatasetInfo:
    assert composition is not None  # noqa: S101  # a dataset by name has one
    check_keys(composition.public["dataset"], "dataset")
    return dataset_info(composition)


def _settings_overrides(session: _Session, row: str | None) -> list[str]:
    """Return command-line overrides for the settings that differ from the defaults."""
    defaults, settings = Settings(), session.settings
    overrides = [f"k={settings.k}"] if settings.k != defaults.k else []
    overrides += [override(settings.metrics)] if settings.metrics != defaults.metrics else []
    overrides += _timing_overrides(session.timing)
    overrides += [f"seed={settings.seed}"] if settings.seed else []
    return [*overrides, *([f"name={build.quote(row)}"] if row else [])]


def _timing_overrides(timing: Timing) -> list[str]:
    """Return the overrides of a timing plan; none if `timing` is None, because the command line always times."""
    if not isinstance(timing, TimingPlan):
        return [f"timing={timing}"] if timing not in (None, "default") else []
    defaults = TimingPlan().model_dump()
    return [
        f"timing.{key}={build.quote(value)}" for key, value in timing.model_dump().items() if value != defaults[key]
    ]


def _check_labels(retrievers: Sequence[RetrieverInfo], baseline: str | None) -> None:
    """Raise `ConfigError` for two rows with the same name, and for a baseline that is not a row."""
    labels = [retriever.label for retriever in retrievers]
    refuse_duplicates(labels)
    if baseline is not None and baseline not in {*labels, *(retriever.name for retriever in retrievers)}:
        raise ConfigError(f"baseline={baseline!r} is not one of the retrievers; choices: {', '.join(labels)}")


def _timing_plan(timing: Timing) -> TimingPlan | None:
    if not isinstance(timing, str):
        return timing
    config = build.composed(["retriever=bm25", f"timing={timing}"])["timing"]
    return TimingPlan(**config)


def _results(plans: Sequence[_PlannedEvaluation], session: _Session, metric: str, baseline: str | None) -> Results:
    finished = [plan for plan in plans if plan.outcome is not None]
    failed = [plan for plan in plans if plan.error is not None]
    if failed and not finished:
        raise failed[0].error or HarnessError("every evaluation failed")
    for plan in failed:
        title = f"{plan.evaluation.retriever.label} on {plan.evaluation.dataset.name}"
        baseline = None if baseline in (plan.evaluation.retriever.label, plan.evaluation.retriever.name) else baseline
        warnings.warn(f"{title} failed: {type(plan.error).__name__}: {plan.error}", RuntimeWarning, stacklevel=3)
    return Results.from_evaluations(
        [plan.outcome for plan in finished if plan.outcome],
        datasets=[plan.dataset for plan in finished if plan.dataset is not None],
        store=session.store,
        metric=metric,
        baseline=baseline,
    )
