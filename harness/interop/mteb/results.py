"""Convert records to mteb's results, as `mteb.ResultCache` and `BenchmarkResults` read them, and to prediction files.

    DIR/results/<model>/<revision>/<Task>.json   model_meta.json beside them
    DIR/predictions/<model>/<revision>/<Task>_predictions.json

A model is called harness/<label>. Its revision is the retriever's identity, by which `SearchModel` finds the results.
If the identity differs between tasks, as with prompts for each task, the revision is a hash of config and weights.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from harness.errors import ConfigError
from harness.files import write_atomic
from harness.interop.mteb import names, registry
from harness.interop.mteb.registry import TaskSplit, library, quiet
from harness.metrics import parse
from harness.types import Record, trec

_BEIR = "harness.datasets.beir.load"
_FROM_DATASET = {"query_prompt", "document_prompt", "task", "subset", "split", "language"}
_KINDS = {"dense": "dense", "bm25": "sparse", "splade": "sparse", "colbert": "late-interaction"}


@dataclass
class ModelResults:
    """A retriever's results on mteb's tasks."""

    name: str
    revision: str
    record: Record
    """The record that the model is described by."""
    records: dict[TaskSplit, Record] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)
    """mteb's TaskResults, including those of aggregates whose parts were all measured."""


@dataclass(frozen=True)
class Conversion:
    """Models, and a message for each record that was left out."""

    models: list[ModelResults]
    left_out: list[str]


@dataclass(frozen=True)
class Aggregate:
    """One retriever's aggregates of a benchmark, by mteb's name, such as `Mean(Task)`."""

    label: str
    scores: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """The tasks that were not measured."""


def from_records(records: Iterable[Record]) -> Conversion:
    """Convert the newest successful records of mteb's tasks, and of BEIR datasets, which are tasks of mteb too."""
    models: dict[tuple[str, str], ModelResults] = {}
    left_out: list[str] = []
    for record in sorted(records, key=lambda record: record.started):
        if record.status != "ok":
            continue
        try:
            task_split = split_of(record)
            reason = "it is not a task of mteb" if task_split is None else _without_main_score(record, task_split)
        except ConfigError as error:  # a task that this version of mteb does not have
            task_split, reason = None, str(error)
        if task_split is None or reason:
            left_out.append(f"{record.retriever.label} on {record.dataset.label}: {reason}")
            continue
        key = (f"harness/{names.slug(record.retriever.label)}", _revision(record))
        by_split = models.setdefault(key, ModelResults(*key, record)).records
        if (older := by_split.get(task_split)) is not None:
            left_out.append(
                f"{older.retriever.label} on {older.dataset.label}: {record.dataset.label} is newer, and the same task"
            )
        by_split[task_split] = record
    aggregates = [task for task in registry.tasks() if task.is_aggregate] if models else []
    for model in models.values():
        identities = {record.retriever.identity for record in model.records.values()}
        if len(identities) == 1 and (identity := identities.pop()) is not None:
            model.revision = identity
        model.results = _task_results(model.records, aggregates)
    return Conversion([model for _, model in sorted(models.items())], list(dict.fromkeys(left_out)))


def aggregates(benchmark: str, records: Iterable[Record]) -> list[Aggregate]:
    """Return a benchmark's aggregates of each retriever, best first.

    Args:
        benchmark: Name of the benchmark in mteb.
        records: Records of any retrievers and datasets. A retriever without records of every task has no scores, and
            does not count for mteb's rank.
    """
    from mteb.results import BenchmarkResults, ModelResult

    mteb_benchmark, needed = registry.benchmark(benchmark), set(registry.benchmark_splits(benchmark))
    complete, rows = {}, []
    for model in from_records(records).models:
        missing = sorted({task_split.task for task_split in needed - model.records.keys()})
        if not missing:
            complete[f"{model.name}@{model.revision}"] = model
        elif needed & model.records.keys():
            rows.append(Aggregate(model.record.retriever.label, missing=missing))
    results = [
        ModelResult(model_name=key, model_revision=model.revision, task_results=model.results)
        for key, model in complete.items()
    ]
    with quiet():
        scores = mteb_benchmark.get_score(BenchmarkResults(model_results=results)) if results else {}
    for key, values in scores.items():
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        rows.append(Aggregate(complete[key].record.retriever.label, numbers))
    return sorted(rows, key=lambda row: (-next(iter(row.scores.values()), -1.0), row.label))


def split_of(record: Record) -> TaskSplit | None:
    """Return the split of an mteb task that a record measures; None if it measures another dataset."""
    metadata = record.dataset.metadata
    if metadata.source == "mteb":
        return TaskSplit(metadata.task or "", metadata.subset or "", metadata.split or "")
    dataset = record.dataset
    same = names.task_of(dataset.name)
    is_public = dataset.config.get("_target_") == _BEIR and dataset.differences.keys() <= {"data_dir"}
    if same is None or not is_public:
        return None
    splits = registry.task(same[0]).metadata.eval_splits
    return TaskSplit(*same, splits[0]) if len(splits) == 1 else None


def _without_main_score(record: Record, task_split: TaskSplit) -> str | None:
    """Return a message if a record lacks its task's main score, without which mteb has no result; otherwise None."""
    main = _main_metric(task_split)
    if main in record.metrics:
        return None
    k = main.rpartition("@")[2]
    depth = f"k={k} " if k.isdigit() and int(k) > record.k else ""
    return f"its main score {main} was not measured; measure again with: {depth}metrics=[{main}]"


def _main_metric(task_split: TaskSplit) -> str:
    return names.to_metric(registry.task(task_split.task).metadata.main_score)


def _revision(record: Record) -> str:
    """Return a hash of a retriever's config and weights, 16 hex digits.

    Settings that the config takes from the dataset, such as an instruction in a prompt, are not part of it.
    """
    retriever = record.retriever
    weights = {name: encoder.weights.identity for name, encoder in record.encoders.items() if encoder.weights}
    differences = {key: value for key, value in retriever.differences.items() if key not in retriever.hidden}
    config = {key: value for key, value in retriever.config.items() if key not in retriever.hidden}
    content = json.dumps([retriever.name, differences, _without_dataset(config), weights], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _without_dataset(config: Any) -> Any:
    """Return a config without the keys that a dataset may set; values that a user sets are in `differences`."""
    if isinstance(config, Mapping):
        return {key: _without_dataset(inner) for key, inner in config.items() if key not in _FROM_DATASET}
    return [_without_dataset(inner) for inner in config] if isinstance(config, list) else config


def _task_results(records: Mapping[TaskSplit, Record], aggregates: Sequence[Any]) -> list[Any]:
    """Return mteb's results of the tasks, and of aggregate tasks (CQADupStack) with all parts measured."""
    from mteb.results import TaskResult

    by_task: dict[str, dict[TaskSplit, Record]] = {}
    for task_split, record in sorted(records.items(), key=lambda item: str(item[0])):
        by_task.setdefault(task_split.task, {})[task_split] = record
    results: dict[str, Any] = {}
    for name, parts in by_task.items():
        scores: dict[str, dict[str, dict[str, float]]] = {}
        for task_split, record in parts.items():
            scores.setdefault(task_split.split, {})[task_split.subset] = _scores(record, _main_metric(task_split))
        measured = list(parts.values())
        with quiet():
            result = TaskResult.from_task_results(registry.task(name), scores, 0.0, date=measured[-1].started)
        update = {"dataset_revision": _dataset_revision(measured), "evaluation_time": _seconds(measured)}
        results[name] = result.model_copy(update=update)
    for task in aggregates:
        parts_of_task = [part.metadata.name for part in task.tasks]
        if results.keys() >= set(parts_of_task):
            with quiet():
                whole = task.combine_task_results([results[name] for name in parts_of_task])
            seconds = whole.evaluation_time if whole.evaluation_time == whole.evaluation_time else None  # NaN
            update = {"kg_co2_emissions": None, "evaluation_time": seconds}
            results[task.metadata.name] = whole.model_copy(update=update)
    return list(results.values())


def _scores(record: Record, main: str) -> dict[str, float]:
    """Return means as mteb defines them: over all queries, including those without a relevant document."""
    n, without_relevant = record.dataset.queries or 1, record.dataset.metadata.queries_without_relevant
    share = n / (n + without_relevant)
    means = {name: value * (share if _is_metric(name) else 1) for name, value in record.metrics.items()}
    accuracy = {"accuracy": means["recall@1"]} if "recall@1" in means else {}
    return {**{names.to_score(name): value for name, value in means.items()}, **accuracy, "main_score": means[main]}


def _is_metric(name: str) -> bool:
    """Return True if a name is one of the harness's metrics; the task's own measures have other names."""
    try:
        return str(parse(name)) == name
    except ConfigError:
        return False


def _seconds(records: Sequence[Record]) -> float | None:
    """Return the seconds of indexing and of one search of all queries; None if a record is not timed."""
    timings = [record.timing for record in records if record.timing is not None]
    if len(timings) < len(records):
        return None
    return sum(
        timing.index.wall_s + float(np.median([search.wall_s for search in timing.searches])) for timing in timings
    )


def _dataset_revision(records: Sequence[Record]) -> str:
    """Return the pinned revision of a dataset, or the hash of its content where it has no revision."""
    datasets = [record.dataset for record in records]
    revisions = [each.metadata.revision or f"content-{(each.fingerprint or '')[:12]}" for each in datasets]
    return ",".join(dict.fromkeys(revisions))


def write(models: Iterable[ModelResults], target: Path, results: Path) -> list[Path]:
    """Write the models' results, descriptions and runs (as predictions), and return the paths.

    Args:
        models: The models.
        target: Folder for `mteb.ResultCache`.
        results: The results folder that holds the records' runs.
    """
    written = []
    cache = library().ResultCache(cache_path=target)
    for model in models:
        meta = _model_meta(model)
        for result in model.results:
            path = cache.get_task_result_path(result.task_name, meta)
            path.unlink(missing_ok=True)  # mteb would merge the result into the existing file
            cache.save_to_cache(result, meta)
            written.append(path)
        folder = target / "predictions" / path.parent.relative_to(target / "results")
        written += _write_predictions(model, folder, results)
    return written


def _model_meta(model: ModelResults) -> Any:
    from mteb.models import ModelMeta

    record = model.record
    module = str(record.retriever.config.get("_target_", "")).split(".")[-2:-1]
    hub = sorted({name for name, _ in record.retriever.weights if name.count("/") == 1 and name[0] not in "./~"})
    encoder = record.encoders.get("")
    length = encoder.max_length if encoder else None
    described = {
        "name": model.name,
        "revision": model.revision,
        "model_type": [_KINDS.get("".join(module), "hybrid")],
        "max_tokens": length.get("document") if isinstance(length, Mapping) else length,
        "adapted_from": hub[0] if len(hub) == 1 else None,
    }
    with quiet():
        return ModelMeta.create_empty(overwrites=described)


def _write_predictions(model: ModelResults, folder: Path, results: Path) -> list[Path]:
    """Write a file for each task with stored runs; only one task is in memory at a time."""
    runs: dict[str, list[tuple[TaskSplit, Record]]] = {}
    for task_split, record in model.records.items():
        if record.files.run and (results / record.files.run).is_file():
            runs.setdefault(task_split.task, []).append((task_split, record))
    written = []
    for task, parts in runs.items():
        content: dict[str, Any] = {"mteb_model_meta": {"model_name": model.name, "revision": model.revision}}
        for task_split, record in parts:
            scores = trec.read(results / (record.files.run or "")).to_dict()
            if record.dataset.metadata.quotes_ids:
                scores = {unquote(q): {unquote(doc): s for doc, s in docs.items()} for q, docs in scores.items()}
            content.setdefault(task_split.subset, {})[task_split.split] = scores
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / f"{task}_predictions.json")
        write_atomic(written[-1], json.dumps(content, allow_nan=False).encode())
    return written
