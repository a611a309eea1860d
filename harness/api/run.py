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
from harness.api.retrievers import Described, describe_all, refuse_duplicates
from harness.config import build
from harness.config.evaluation import Composition, dataset_info
from harness.console import listener
from harness.errors import ConfigError, HarnessError
from harness.evaluation.evaluate import DEFAULT_METRICS, Evaluated, Evaluation, Settings
from harness.evaluation.timing import TimingPlan
from harness.instrument import listening
from harness.store import Store
from harness.types import Dataset, DatasetInfo, Retriever, RetrieverInfo
from harness.types.protocols import TaskPrompted

if TYPE_CHECKING:
    from harness.leaderboard.compare import Comparison

AnyDataset = str | PathLike[str] | Dataset
Timing = TimingPlan | str | None


def evaluate(
    retrievers: Any,
    datasets: AnyDataset | Sequence[AnyDataset],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    k: int = 100,
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
        datasets: One dataset or a list: a `Dataset`, or a name as `load_dataset` takes it.
        metrics: Metric names; the first one orders the table.
        k: Documents retrieved for each query.
        baseline: The row that the others are compared to.
        timing: A `TimingPlan`, the name of a config (``"default"``, ``"gpu"``), or None to score without timing.
        seed: Draws the queries that are timed one by one.
        results_dir: Where evaluations are stored and looked for; None writes nothing.
        resume: Reuse stored evaluations and cached embeddings.
        names: Row names by position in ``retrievers``, or by the name of a config.
        progress: Show progress on stderr.

    Returns:
        The evaluations as `Results`: a table, a DataFrame, comparisons and plots.

    Raises:
        ConfigError: A name, a key, the type of a value or a metric cannot be; nothing has been measured then.
        HarnessError: Every evaluation failed. Where only some did, a warning says which, and the others are returned.
            A retriever that is constructed from a config is constructed when its turn comes, and may fail then.
    """
    plan = _plan(timing)
    settings = Settings(k=k, metrics=tuple([metrics] if isinstance(metrics, str) else metrics), timing=plan, seed=seed)
    settings = settings.checked()
    described = describe_all(retrievers, names)
    several = isinstance(datasets, Sequence) and not isinstance(datasets, str)
    listed: list[AnyDataset] = list(datasets) if several else [datasets]  # type: ignore[list-item, arg-type]
    if not listed:
        raise ConfigError("no dataset is given; give a Dataset or a name such as 'scifact'; see: harness list datasets")
    store = None if results_dir is None else Store(Path(results_dir).expanduser())
    session = _Session(settings, timing, store, resume)
    plans = [[_prepared(each, dataset, session) for each in described] for dataset in listed]
    for of_dataset in plans:
        _check_labels([plan.evaluation.retriever for plan in of_dataset], baseline)
    session.frees = len(listed) * len(described) > 1
    with ExitStack() as stack:
        if progress:
            stack.enter_context(listening(listener()))
        done = [plan.run(session) for of_dataset in plans for plan in of_dataset]
    return _results(done, session, settings.metrics[0], baseline)


def compare(
    a: Any, b: Any, datasets: AnyDataset | Sequence[AnyDataset], *, metric: str = "ndcg@10", **settings: Any
) -> "Comparison":
    """Evaluate two retrievers and compare them query by query.

    Args:
        a: The one that is compared to.
        b: The other; differences are b - a.
        datasets: As for `evaluate`.
        metric: The metric that is compared.
        **settings: Further arguments of `evaluate`.
    """
    results = evaluate([a, b], datasets, metrics=settings.pop("metrics", (metric,)), **settings)
    if len(results.labels) < 2:
        raise HarnessError(f"one of the two failed: only {results.labels[0]!r} was evaluated")
    first, second = results.labels
    return results.compare(first, second, metric=metric)


@dataclass
class _Session:
    """Settings and loaded datasets that the evaluations of one call share."""

    settings: Settings
    timing: Timing
    store: Store | None
    resume: bool

    def __post_init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.frees = False
        """Free the frames of errors, which hold retrievers and their indexes; a debugger may want those of the one."""


@dataclass
class _Plan:
    """One evaluation that can be carried out: everything in it was checked."""

    evaluation: Evaluation
    construct: Callable[[], Retriever]
    dataset: Dataset | None
    composition: "Composition | None"
    outcome: Evaluated | None = None
    error: Exception | None = None

    def run(self, session: _Session) -> "_Plan":
        """Carry out the evaluation; an error is kept, so that the other evaluations are not lost."""
        try:
            self.outcome = self.evaluation.run(self.construct, lambda: self._loaded(session))
        except Exception as error:
            if session.frees:
                traceback.clear_frames(error.__traceback__)
            self.error = error
        return self

    def _loaded(self, session: _Session) -> Dataset:
        if self.dataset is None:
            assert self.composition is not None  # noqa: S101  # a dataset by name has one
            key = repr(self.composition.public["dataset"])
            if key not in session.datasets:
                session.datasets[key] = load.construct_dataset(self.composition)
            self.dataset = session.datasets[key]
        return self.dataset


def _prepared(described: Described, dataset: AnyDataset, session: _Session) -> _Plan:
    """Compose and check everything that one evaluation needs; construct and load nothing yet."""
    in_memory = dataset if isinstance(dataset, Dataset) else None
    composition, command = None, ""
    if described.construct is None or in_memory is None:
        words = ["retriever=bm25"] if described.construct else load.retriever_overrides(described.name)
        words += load.dataset_words(dataset)
        composition = load.compose(*words, f"k={session.settings.k}")  # a hybrid's and a reranker's depth follow it
        if described.construct is None and in_memory is None:
            command = shlex.join(["harness", *words, *_settings_words(session, described.row)])
    construct, info = described.construct, described.info
    if construct is None or info is None:
        assert composition is not None  # noqa: S101  # a config was composed above
        construct, info = (
            partial(load.construct_retriever, composition),
            load.describe_retriever(composition, described.row),
        )
    elif task := _task(in_memory, composition):
        construct = partial(_for_task, construct, task)
    data_info = load.remembered_info(in_memory) if in_memory is not None else _info(composition)
    evaluation = Evaluation(info, data_info, session.settings, session.store, session.resume, command)
    return _Plan(evaluation, construct, in_memory, composition)


def _task(dataset: Dataset | None, composition: "Composition | None") -> dict[str, Any]:
    """Return the arguments that name the mteb task of a dataset, in memory or by name; empty where it is of none."""
    by_name = composition.public["dataset"] if composition else {}
    return load.mteb_task(by_name if dataset is None else dataset.metadata.model_dump())


def _for_task(construct: Callable[[], Retriever], task: Mapping[str, Any]) -> Retriever:
    """Construct a retriever; one that reads its prompts from an mteb task gets the dataset's."""
    retriever = construct()
    return retriever.for_task(**task) if isinstance(retriever, TaskPrompted) else retriever


def _info(composition: "Composition | None") -> DatasetInfo:
    assert composition is not None  # noqa: S101  # a dataset by name has one
    build.check_keys(composition.public["dataset"], "dataset")
    return dataset_info(composition)


def _settings_words(session: _Session, row: str | None) -> list[str]:
    """Return the overrides of settings that are not the command line's defaults."""
    usual, settings = Settings(), session.settings
    words = [f"k={settings.k}"] if settings.k != usual.k else []
    words += [f"metrics=[{','.join(settings.metrics)}]"] if settings.metrics != usual.metrics else []
    words += _timing_words(session.timing)
    words += [f"seed={settings.seed}"] if settings.seed else []
    return [*words, *([f"name={build.quoted(row)}"] if row else [])]


def _timing_words(timing: Timing) -> list[str]:
    """Return the overrides of a timing plan; none for scores alone, which the command line always times too."""
    if not isinstance(timing, TimingPlan):
        return [f"timing={timing}"] if timing not in (None, "default") else []
    usual = TimingPlan().model_dump()
    return [f"timing.{key}={build.quoted(value)}" for key, value in timing.model_dump().items() if value != usual[key]]


def _check_labels(retrievers: Sequence[RetrieverInfo], baseline: str | None) -> None:
    """Raise `ConfigError` for two rows of one name, and for a baseline that is no row."""
    labels = [retriever.label for retriever in retrievers]
    refuse_duplicates(labels)
    if baseline is not None and baseline not in {*labels, *(retriever.name for retriever in retrievers)}:
        raise ConfigError(f"baseline={baseline!r} is none of the retrievers; choices: {', '.join(labels)}")


def _plan(timing: Timing) -> TimingPlan | None:
    if not isinstance(timing, str):
        return timing
    config = build.composed(["retriever=bm25", f"timing={timing}"])["timing"]
    return TimingPlan(**config)


def _results(plans: Sequence[_Plan], session: _Session, metric: str, baseline: str | None) -> Results:
    done = [plan for plan in plans if plan.outcome is not None]
    failed = [plan for plan in plans if plan.error is not None]
    if failed and not done:
        raise failed[0].error or HarnessError("every evaluation failed")
    for plan in failed:
        title = f"{plan.evaluation.retriever.label} on {plan.evaluation.dataset.name}"
        baseline = None if baseline in (plan.evaluation.retriever.label, plan.evaluation.retriever.name) else baseline
        warnings.warn(f"{title} failed: {type(plan.error).__name__}: {plan.error}", RuntimeWarning, stacklevel=3)
    return Results.of(
        [plan.outcome for plan in done if plan.outcome],
        datasets=[plan.dataset for plan in done if plan.dataset is not None],
        store=session.store,
        metric=metric,
        baseline=baseline,
    )
