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
        subset: The subset; None: the task's only subset, or the one in `language`.
        split: The split; None: the only one that mteb evaluates on.
        language: Code of the subset's language (ISO 639-3), such as deu.
        folder: A copy of the task's repository or a folder in BEIR's layout, or a folder with such folders named after
            tasks; None: the hub.
        benchmark: A benchmark in which the subsets and splits of a task, or the parts of an aggregate, are one group.
        instruction: Instruction for models that take one; None: mteb's.

    Raises:
        ConfigError: No split matches, or several do, or there is no such folder.
        DataError: The data cannot be read.
    """
    mteb_task, task_split = registry.select(task, subset, split, language)
    group, parts = _group(task_split, benchmark)
    metadata = _metadata(mteb_task, task_split)
    local = _folder(folder, task_split.task)
    if local is not None and not (local / "README.md").is_file():
        dataset = _read_beir(mteb_task, task_split, local)
    else:
        dataset = _convert(mteb_task, task_split, _load_data(mteb_task, task_split, local), local)
    if local is not None:  # a local copy may differ from the pinned revision
        metadata |= {"path": "a local folder", "revision": f"local-{dataset.fingerprint[:12]}"}
    return replace(
        dataset,
        qrels=Qrels({query: dataset.qrels[query] for query in dataset.queries}),  # in the order of the queries
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
        dataset: Data to use in task_split of the task's.

    Raises:
        ConfigError: As `load`.
        DataError: As `load`.
    """
    mteb_task, task_split = registry.select(name)
    local = _folder(folder, task_split.task)
    if dataset is None and local is not None and not (local / "README.md").is_file():
        dataset = _read_beir(mteb_task, task_split, local)
    data = _load_data(mteb_task, task_split, local) if dataset is None else texts.to_split(dataset)
    mteb_task.dataset, mteb_task.data_loaded = {task_split.subset: {task_split.split: data}}, True
    return mteb_task


def _group(task_split: TaskSplit, benchmark: str | None) -> tuple[str | None, int]:
    """Return the task that a split is a part of in a benchmark, and the number of its parts."""
    if benchmark is None:
        return None, 1
    for task in registry.benchmark(benchmark).tasks:
        parts = registry.splits(task)
        if task_split in parts:
            return (task.metadata.name, len(parts)) if len(parts) > 1 else (None, 1)
    raise ConfigError(f"{task_split} is not part of mteb's benchmark {benchmark!r}; leave dataset.benchmark out")


def _folder(name: str | None, task: str) -> Path | None:
    """Return the local folder of a task's data: the given folder, or the folder of the task's name in it."""
    if name is None:
        return None
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  # keeps the name of a user who does not exist
    if not name or not folder.is_dir():
        raise ConfigError(f"no folder {name!r}; dataset.folder names a copy of the task's data, or is null for the hub")
    inner = folder / task
    return (inner if inner.is_dir() else folder).resolve()


def _load_data(task: Any, task_split: TaskSplit, folder: Path | None) -> Mapping[str, Any]:
    """Return a split as mteb loads it. Raises `DataError` for any error of mteb's loader."""
    usual = task.metadata.eval_splits
    if folder is not None:
        task.metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "path": str(folder)}})
    try:
        with stage(f"load {task_split.task}"), registry.quiet(), _conversions_of(folder):
            if task_split.split not in usual:
                registry.check_split(task, task_split.split)
            task.load_data()
            task.convert_v1_dataset_format_to_v2(None)
        data: Mapping[str, Any] = task.dataset.get(task_split.subset, task.dataset)[
            task_split.split
        ]  # as mteb evaluates it
    except Exception as error:  # the loaders of 500 tasks raise many types
        source = folder or f"{task.metadata.dataset['path']} at revision {task.metadata.revision}"
        hint = (
            "where the hub is out of reach, name a copy of the task's repository, or a folder of such copies by the "
            "tasks' names: dataset.folder=FOLDER"
        )
        if task_split.split not in usual:
            hint = f"mteb evaluates it on {', '.join(usual)}: dataset.split={usual[0]}"
        message = " ".join(str(error).split())[:300]
        raise DataError(
            f"mteb's {task_split} cannot be loaded from {source}: {type(error).__name__}: {message}; {hint}"
        ) from error
    return data


@contextmanager
def _conversions_of(folder: Path | None) -> Iterator[None]:
    """Give the `datasets` package a cache folder of its own for each state of a local folder's files.

    The package caches by the folder's name, and would return the content from before a change.
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


def _convert(task: Any, task_split: TaskSplit, data: Mapping[str, Any], folder: Path | None) -> Dataset:
    """Return mteb's data of a split as a dataset."""
    quoted = texts.has_spaces(data)
    key = texts.quote if quoted else str
    searched = set(data["queries"]["id"])
    grades = {
        key(query): {key(doc): int(grade) for doc, grade in docs.items()}
        for query, docs in data["relevant_docs"].items()
        if docs and query in searched  # as mteb does
    }
    dataset = Dataset(
        _name(task, task_split),
        task_split.split,
        from_stream(Corpus, ((key(doc), text) for doc, text in texts.documents(data["corpus"]))),
        from_stream(Queries, ((key(query), text) for query, text in texts.queries(data["queries"]))),
        Qrels(grades),
        bool(task.ignore_identical_ids),
    ).validated(f"mteb's {task_split}")
    if data.get("top_ranked") is not None:
        candidates = {key(query): list(dict.fromkeys(map(key, docs))) for query, docs in data["top_ranked"].items()}
        dataset = dataset.with_candidates(candidates)
    without_relevant = len(grades) - len(dataset.queries)
    return replace(
        dataset,
        metadata=DatasetMetadata(quotes_ids=quoted, queries_without_relevant=without_relevant),
        extra_metrics=_extra_metrics(task, task_split, grades, folder) if _has_extra_metrics(task) else None,
    )


def _read_beir(task: Any, task_split: TaskSplit, folder: Path) -> Dataset:
    """Return a folder in BEIR's layout as the data of a task. Raises `ConfigError` for a task that needs more."""
    if task.metadata.type != "Retrieval" or _has_extra_metrics(task):
        raise ConfigError(
            f"{folder} is in BEIR's layout, which has no candidates, instructions or measures of a task's own, and "
            f"mteb's {task_split.task} is of type {task.metadata.type}; name a copy of its repository, with README.md"
        )
    return read_layout(
        folder, _name(task, task_split), task_split.split, drop_self_hits=bool(task.ignore_identical_ids)
    )


def _name(task: Any, task_split: TaskSplit) -> str:
    """Return the task's name, with the subset and the split unless they are the only ones."""
    subset = [] if task_split.subset == registry.DEFAULT else [task_split.subset]
    split = [] if task.metadata.eval_splits == [task_split.split] else [task_split.split]
    return "/".join([task_split.task, *subset, *split])


def _metadata(task: Any, task_split: TaskSplit) -> dict[str, Any]:
    """Return mteb's metadata of a task's split."""
    metadata = task.metadata
    return {
        "source": "mteb",
        "task": task_split.task,
        "subset": task_split.subset,
        "split": task_split.split,
        "type": metadata.type,
        "path": metadata.dataset["path"],
        "revision": metadata.revision,
        "main_score": names.to_metric(metadata.main_score),
        "languages": list(metadata.hf_subsets_to_langscripts[task_split.subset]),
        "licence": metadata.license,
        "reference": metadata.reference,
        "citation": metadata.bibtex_citation,
    }


def _extra_metrics(
    task: Any, task_split: TaskSplit, grades: Mapping[str, Mapping[str, int]], folder: Path | None
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
                    by_query, judged, results, hf_split=task_split.split, hf_subset=task_split.subset
                )
        except Exception as error:  # may download more data; a failure must not lose the other metrics
            log.warning("mteb's own measures of %s cannot be computed: %s: %s", task_split, type(error).__name__, error)
            return {}
        return {names.to_metric(name): float(value) for name, value in scores.items() if names.is_number(value)}

    return compute


def _has_extra_metrics(task: Any) -> bool:
    from mteb.abstasks import AbsTaskRetrieval

    return type(task).task_specific_scores is not AbsTaskRetrieval.task_specific_scores
