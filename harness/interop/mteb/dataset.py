"""A task of mteb as a Dataset: `dataset=mteb dataset.task=SciFact`.

The data are read by mteb's own loader at the revision that the task is pinned to, or from a local folder: a copy of
the task's repository, which has its README.md, or a folder in BEIR's layout.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.datasets.folder import read as read_layout
from harness.datasets.texts import from_stream
from harness.environment import cache_dir
from harness.errors import ConfigError, DataError
from harness.instrument import stage
from harness.interop.mteb import names, registry, texts
from harness.interop.mteb.registry import TaskSplit
from harness.types import Corpus, Dataset, DatasetMetadata, Qrels, Queries, Run

log = logging.getLogger(__name__)


def load(
    task: str,
    subset: str | None = None,
    split: str | None = None,
    language: str | None = None,
    folder: str | None = None,
    benchmark: str | None = None,
    instruction: str | None = None,
) -> Dataset:
    """Load one split of one subset of an mteb task.

    Args:
        task: The task's name, or NAME:SUBSET:SPLIT.
        subset: As for `registry.select`; so are `split` and `language`.
        split: The split.
        language: The subset's language.
        folder: A copy of the task's repository or a folder in BEIR's layout, or a folder of such folders by the tasks'
            names; None: the hub.
        benchmark: A benchmark in which the subsets and splits of a task, or the parts of an aggregate, are a group.
        instruction: The task in words; None: as mteb has it.

    Raises:
        ConfigError: No split matches, or several do, or there is no such folder.
        DataError: The data cannot be read.
    """
    mteb_task, place = registry.select(task, subset, split, language)
    group, parts = _group(place, benchmark)
    metadata = _metadata(mteb_task, place)
    local = _folder(folder, place.task)
    if local is not None and not (local / "README.md").is_file():
        dataset = _read_beir(mteb_task, place, local)
    else:
        dataset = _convert(mteb_task, place, _load_data(mteb_task, place, local), local)
    if local is not None:  # the content stands for the revision, which nobody vouches for
        metadata |= {"path": "a local folder", "revision": f"local-{dataset.fingerprint[:12]}"}
    return replace(
        dataset,
        qrels=Qrels({query: dataset.qrels[query] for query in dataset.queries}),  # mteb's loader has them in no order
        group=group,
        parts=parts,
        metadata=DatasetMetadata(**{**dataset.metadata.model_dump(), **metadata}),
        instruction=instruction or names.instruction(mteb_task.metadata),
    )


def task_of(name: str, folder: str | None = None, dataset: Dataset | None = None) -> Any:
    """Return an mteb task with its data loaded, for `mteb.evaluate`.

    Args:
        name: The task's name, or NAME:SUBSET:SPLIT.
        folder: A local folder, as for `load`.
        dataset: Data to use in place of the task's.

    Raises:
        ConfigError: As `load`.
        DataError: As `load`.
    """
    mteb_task, place = registry.select(name)
    local = _folder(folder, place.task)
    if dataset is None and local is not None and not (local / "README.md").is_file():
        dataset = _read_beir(mteb_task, place, local)
    data = _load_data(mteb_task, place, local) if dataset is None else texts.to_split(dataset)
    mteb_task.dataset, mteb_task.data_loaded = {place.subset: {place.split: data}}, True
    return mteb_task


def _group(place: TaskSplit, benchmark: str | None) -> tuple[str | None, int]:
    """Return the task that a split is a part of in a benchmark, and the number of its parts."""
    if benchmark is None:
        return None, 1
    for task in registry.benchmark(benchmark).tasks:
        parts = registry.splits(task)
        if place in parts:
            return (task.metadata.name, len(parts)) if len(parts) > 1 else (None, 1)
    raise ConfigError(f"{place} is no part of mteb's benchmark {benchmark!r}; leave dataset.benchmark out")


def _folder(name: str | None, task: str) -> Path | None:
    """Return the local folder of a task's data, which may lie under the task's name in the folder that is given."""
    if name is None:
        return None
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  # keeps the name of a user who does not exist
    if not name or not folder.is_dir():
        raise ConfigError(f"no folder {name!r}; dataset.folder names a copy of the task's data, or is null for the hub")
    inner = folder / task
    return (inner if inner.is_dir() else folder).resolve()


def _load_data(task: Any, place: TaskSplit, folder: Path | None) -> Mapping[str, Any]:
    """Return a split as mteb loads it, and raise `DataError` for whatever its loader raises."""
    usual = task.metadata.eval_splits
    if folder is not None:
        task.metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "path": str(folder)}})
    try:
        with stage(f"load {place.task}"), registry.quiet(), _conversions_of(folder):
            if place.split not in usual:
                registry.check_split(task, place.split)
            task.load_data()
            task.convert_v1_dataset_format_to_v2(None)
        data: Mapping[str, Any] = task.dataset.get(place.subset, task.dataset)[place.split]  # as mteb evaluates it
    except Exception as error:  # the loaders of 500 tasks fail in many ways
        source = folder or f"{task.metadata.dataset['path']} at revision {task.metadata.revision}"
        hint = (
            "where the hub is out of reach, name a copy of the task's repository, or a folder of such copies by the "
            "tasks' names: dataset.folder=FOLDER"
        )
        if place.split not in usual:
            hint = f"mteb evaluates it on {', '.join(usual)}: dataset.split={usual[0]}"
        message = " ".join(str(error).split())[:300]
        raise DataError(
            f"mteb's {place} cannot be loaded from {source}: {type(error).__name__}: {message}; {hint}"
        ) from error
    return data


@contextmanager
def _conversions_of(folder: Path | None) -> Iterator[None]:
    """Key the conversions that the library datasets keeps of a local folder by the state of the folder's files.

    It keys them by the folder's name, and would return the content from before a change.
    """
    if folder is None:
        yield
        return
    import datasets

    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    home = cache_dir() / "mteb" / _hash(str(folder))
    current = home / _hash(json.dumps(state))
    for outdated in set(home.glob("*")) - {current}:
        shutil.rmtree(outdated, ignore_errors=True)
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, current
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _convert(task: Any, place: TaskSplit, data: Mapping[str, Any], folder: Path | None) -> Dataset:
    """Return mteb's data of a split as a dataset."""
    quoted = texts.has_spaces(data)
    key = texts.quote if quoted else str
    searched = set(data["queries"]["id"])
    grades = {
        key(query): {key(doc): int(grade) for doc, grade in docs.items()}
        for query, docs in data["relevant_docs"].items()
        if docs and query in searched  # the queries that mteb scores
    }
    dataset = Dataset(
        _name(task, place),
        place.split,
        from_stream(Corpus, ((key(doc), text) for doc, text in texts.documents(data["corpus"]))),
        from_stream(Queries, ((key(query), text) for query, text in texts.queries(data["queries"]))),
        Qrels(grades),
        bool(task.ignore_identical_ids),
    ).validated(f"mteb's {place}")
    if data.get("top_ranked") is not None:
        candidates = {key(query): list(dict.fromkeys(map(key, docs))) for query, docs in data["top_ranked"].items()}
        dataset = dataset.with_candidates(candidates)
    without_relevant = len(grades) - len(dataset.queries)
    return replace(
        dataset,
        metadata=DatasetMetadata(quotes_ids=quoted, queries_without_relevant=without_relevant),
        extra_metrics=_extra_metrics(task, place, grades, folder) if _has_extra_metrics(task) else None,
    )


def _read_beir(task: Any, place: TaskSplit, folder: Path) -> Dataset:
    """Return a folder in BEIR's layout as the data of a task. Raises `ConfigError` for a task that needs more."""
    if task.metadata.type != "Retrieval" or _has_extra_metrics(task):
        raise ConfigError(
            f"{folder} is in BEIR's layout, which has no candidates, instructions or measures of a task's own, and "
            f"mteb's {place.task} is of type {task.metadata.type}; name a copy of its repository, with its README.md"
        )
    return read_layout(folder, _name(task, place), place.split, drop_self_hits=bool(task.ignore_identical_ids))


def _name(task: Any, place: TaskSplit) -> str:
    """Return the task's name, with the subset and the split where the task has more than these."""
    subset = [] if place.subset == registry.DEFAULT else [place.subset]
    split = [] if task.metadata.eval_splits == [place.split] else [place.split]
    return "/".join([place.task, *subset, *split])


def _metadata(task: Any, place: TaskSplit) -> dict[str, Any]:
    """Return the description of a task that mteb has."""
    metadata = task.metadata
    return {
        "source": "mteb",
        "task": place.task,
        "subset": place.subset,
        "split": place.split,
        "type": metadata.type,
        "path": metadata.dataset["path"],
        "revision": metadata.revision,
        "main_score": names.to_metric(metadata.main_score),
        "languages": list(metadata.hf_subsets_to_langscripts[place.subset]),
        "licence": metadata.license,
        "reference": metadata.reference,
        "citation": metadata.bibtex_citation,
    }


def _extra_metrics(
    task: Any, place: TaskSplit, grades: Mapping[str, Mapping[str, int]], folder: Path | None
) -> Callable[[Run], Mapping[str, float]]:
    """Return a function that computes the task's own measures (p-MRR, robustness@10, ...) by mteb's code."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    def compute(run: Run) -> dict[str, float]:
        results = run.to_dict()
        judged = {query: docs for query, docs in grades.items() if query in results}
        try:
            with registry.quiet(), _conversions_of(folder):
                by_query = calculate_retrieval_scores(results, judged, task.k_values).all_scores
                scores = task.task_specific_scores(
                    by_query, judged, results, hf_split=place.split, hf_subset=place.subset
                )
        except Exception as error:  # some fetch more data only now: the other metrics are not lost for it
            log.warning("mteb's own measures of %s cannot be had: %s: %s", place, type(error).__name__, error)
            return {}
        return {names.to_metric(name): float(value) for name, value in scores.items() if names.is_number(value)}

    return compute


def _has_extra_metrics(task: Any) -> bool:
    from mteb.abstasks import AbsTaskRetrieval

    return type(task).task_specific_scores is not AbsTaskRetrieval.task_specific_scores
