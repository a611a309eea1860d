"""Records as results of mteb: what `mteb.ResultCache` and `BenchmarkResults` read, and its files of predictions.

    DIR/results/<model>/<revision>/<Task>.json   model_meta.json beside them
    DIR/predictions/<model>/<revision>/<Task>_predictions.json

A model is called harness/<label>, and its revision is a hash of its config and weights: two settings are two models.
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
from harness.interop.mteb.registry import Place, library, quiet
from harness.metrics import parse
from harness.types import Record, trec

_BEIR = "harness.datasets.beir.load"
_FROM_DATASET = {"query_prompt", "document_prompt", "task", "subset", "split", "language"}
_KINDS = {"dense": "dense", "bm25": "sparse", "splade": "sparse", "colbert": "late-interaction"}


@dataclass
class Model:
    """What one retriever gave on mteb's tasks."""

    name: str
    revision: str
    record: Record
    places: dict[Place, Record] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)
    """mteb's TaskResults, those of aggregates too where all of their parts are there."""


@dataclass(frozen=True)
class Found:
    """Models, and what was left out and why."""

    models: list[Model]
    left: list[str]


def of(records: Iterable[Record]) -> Found:
    """The newest good records of mteb's tasks, and of BEIR's sets under our configs' names, by model."""
    models: dict[tuple[str, str], Model] = {}
    left: list[str] = []
    for record in sorted(records, key=lambda own: own.started):
        if record.status != "ok":
            continue
        try:
            place = place_of(record)
            lacking = "it is no task of mteb's" if place is None else _lacks(record, place)
        except ConfigError as error:  # a task that this version of mteb does not have
            place, lacking = None, str(error)
        if place is None or lacking:
            left.append(f"{record.retriever.label} on {record.dataset.label}: {lacking}")
            continue
        key = (f"harness/{names.slug(record.retriever.label)}", _revision(record))
        own = models.setdefault(key, Model(*key, record)).places
        if (older := own.get(place)) is not None:
            left.append(
                f"{older.retriever.label} on {older.dataset.label}: {record.dataset.label} is newer, and the same task"
            )
        own[place] = record
    found = [own for _, own in sorted(models.items())]
    aggregates = [own for own in registry.tasks() if own.is_aggregate] if found else []
    for model in found:
        identities = {record.retriever.identity for record in model.places.values()}
        if len(identities) == 1 and (identity := identities.pop()) is not None:
            model.revision = identity  # that of the retriever inside `SearchModel`
        model.results = _results(model.places, aggregates)
    return Found(found, list(dict.fromkeys(left)))


def place_of(record: Record) -> Place | None:
    """Which split of which of mteb's tasks a record is of; None where it is of none."""
    about = record.dataset.metadata
    if about.source == "mteb":
        return Place(about.task or "", about.subset or "", about.split or "")
    own = record.dataset
    same = names.task_of(own.name)
    public = own.config.get("_target_") == _BEIR and own.differences.keys() <= {"data_dir"}
    if same is None or not public:
        return None
    splits = registry.task(same[0]).metadata.eval_splits
    return Place(*same, splits[0]) if len(splits) == 1 else None


def _lacks(record: Record, place: Place) -> str | None:
    """Why a record cannot be a result: its task's main score is not among its metrics."""
    main = _main(place)
    if main in record.metrics:
        return None
    k = main.rpartition("@")[2]
    deep = f"k={k} " if k.isdigit() and int(k) > record.k else ""
    return f"its main score {main} was not measured; measure again with: {deep}metrics=[{main}]"


def _main(place: Place) -> str:
    return names.ours(registry.task(place.task).metadata.main_score)


def _revision(record: Record) -> str:
    """Hash of a retriever's config and of the weights that it says it had, 16 hex digits.

    What the config takes from the dataset, such as an instruction in a prompt, is no other model.
    """
    own = record.retriever
    held = {name: encoder.weights.identity for name, encoder in record.encoders.items() if encoder.weights}
    differences = {key: value for key, value in own.differences.items() if key not in own.hidden}
    config = {key: value for key, value in own.config.items() if key not in own.hidden}
    told = json.dumps([own.name, differences, _without(config), held], sort_keys=True, default=str)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _without(config: Any) -> Any:
    """A config without the keys that may be filled in from the dataset; where a user sets one, it is a difference."""
    if isinstance(config, Mapping):
        return {key: _without(inner) for key, inner in config.items() if key not in _FROM_DATASET}
    return [_without(inner) for inner in config] if isinstance(config, list) else config


def _results(places: Mapping[Place, Record], aggregates: Sequence[Any]) -> list[Any]:
    from mteb.results import TaskResult

    by_task: dict[str, dict[Place, Record]] = {}
    for place, record in sorted(places.items(), key=lambda own: str(own[0])):
        by_task.setdefault(place.task, {})[place] = record
    found = []
    for name, own in by_task.items():
        scores: dict[str, dict[str, dict[str, float]]] = {}
        for place, record in own.items():
            scores.setdefault(place.split, {})[place.subset] = _scores(record, _main(place))
        records = list(own.values())
        with quiet():
            result = TaskResult.from_task_results(registry.task(name), scores, 0.0, date=records[-1].started)
        told = {"dataset_revision": _dataset_revision(records), "evaluation_time": _seconds(records)}
        found.append(result.model_copy(update=told))
    return found + _aggregated(found, aggregates)


def _scores(record: Record, main: str) -> dict[str, float]:
    """Means as mteb takes them: a query without a relevant document, which we leave out, counts as 0."""
    asked, silent = record.dataset.queries or 1, record.dataset.metadata.queries_without_relevant
    share = asked / (asked + silent)
    means = {name: value * (share if _is_ours(name) else 1) for name, value in record.metrics.items()}
    found = {names.theirs(name): value for name, value in means.items()}
    if "recall@1" in means:
        found["accuracy"] = means["recall@1"]
    return {**found, "main_score": means[main]}


def _is_ours(name: str) -> bool:
    """Whether a measure is one of ours, and not one that the task defines itself."""
    try:
        parse(name)
    except ConfigError:
        return False
    return True


def _seconds(records: Sequence[Record]) -> float | None:
    """Of indexing and of one search of all queries; None where a run was made elsewhere."""
    timings = [own.timing for own in records]
    if any(own is None for own in timings):
        return None
    return sum(own.index.wall_s + float(np.median([one.wall_s for one in own.searches])) for own in timings if own)


def _dataset_revision(records: Sequence[Record]) -> str:
    """The pinned one; of other data, which mteb does not vouch for, their content."""
    found = [own.dataset.metadata.revision or f"content-{(own.dataset.fingerprint or '')[:12]}" for own in records]
    return ",".join(dict.fromkeys(found))


def _aggregated(results: Sequence[Any], aggregates: Sequence[Any]) -> list[Any]:
    """Results of aggregated tasks (CQADupStack) whose parts are all there."""
    there = {own.task_name: own for own in results}
    found = []
    for own in aggregates:
        if {part.metadata.name for part in own.tasks} <= there.keys():
            with quiet():
                whole = own.combine_task_results([there[part.metadata.name] for part in own.tasks])
            seconds = whole.evaluation_time if whole.evaluation_time == whole.evaluation_time else None
            found.append(whole.model_copy(update={"kg_co2_emissions": None, "evaluation_time": seconds}))
    return found


def write(models: Iterable[Model], target: Path, results: Path) -> list[Path]:
    """Write models' results, what is known of them, and their runs as predictions; `results` has the records' files."""
    mteb = library()
    written = []
    cache = mteb.ResultCache(cache_path=target)
    for model in models:
        meta = _meta(model)
        for result in model.results:
            path = cache.get_task_result_path(result.task_name, meta)
            path.unlink(missing_ok=True)  # mteb writes into what is there
            cache.save_to_cache(result, meta)
            written.append(path)
        folder = target / "predictions" / path.parent.relative_to(target / "results")
        written += _predictions(model, folder, results)
    return written


def _meta(model: Model) -> Any:
    from mteb.models import ModelMeta

    record = model.record
    module = str(record.retriever.config.get("_target_", "")).split(".")[-2:-1]
    hub = sorted({name for name, _ in record.retriever.weights if name.count("/") == 1 and name[0] not in "./~"})
    encoder = record.encoders.get("")
    length = encoder.max_length if encoder else None
    about = {
        "name": model.name,
        "revision": model.revision,
        "model_type": [_KINDS.get("".join(module), "hybrid")],
        "max_tokens": length.get("document") if isinstance(length, Mapping) else length,
        "adapted_from": hub[0] if len(hub) == 1 else None,
    }
    with quiet():
        return ModelMeta.create_empty(overwrites=about)


def _predictions(model: Model, folder: Path, results: Path) -> list[Path]:
    """A file for each task whose runs are kept, one task in memory at a time."""
    runs: dict[str, list[tuple[Place, Record]]] = {}
    for place, record in model.places.items():
        if record.files.run and (results / record.files.run).is_file():
            runs.setdefault(place.task, []).append((place, record))
    written = []
    for task, own in runs.items():
        content: dict[str, Any] = {"mteb_model_meta": {"model_name": model.name, "revision": model.revision}}
        for place, record in own:
            scores = trec.read(results / (record.files.run or "")).to_dict()
            if record.dataset.metadata.quotes_ids:
                scores = {
                    unquote(q): {unquote(doc): value for doc, value in told.items()} for q, told in scores.items()
                }
            content.setdefault(place.subset, {})[place.split] = scores
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / f"{task}_predictions.json")
        write_atomic(written[-1], json.dumps(content, allow_nan=False).encode())
    return written
