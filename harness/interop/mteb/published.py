"""Read published results in mteb's format."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.interop.mteb import names, registry
from harness.interop.mteb.registry import library, quiet
from harness.types.scores import PublishedFigures

_FAMILIES = {"dense": "dense", "sparse": "splade", "late-interaction": "colbert"}


@dataclass(frozen=True)
class Imported:
    """Published figures, the names of skipped tasks, which do not rank texts, and the files that could not be read."""

    figures: list[PublishedFigures]
    left_out: list[str]
    unreadable: list[str]


def read(folder: Path) -> Imported:
    """Read every result below a folder: mteb's cache, a copy of its results repository, or one model's folder.

    Results in folders named `experiments` are skipped.

    Raises:
        DataError: There is no result of a task that ranks texts.
    """
    library()
    from mteb.results import TaskResult

    figures: list[PublishedFigures] = []
    left_out, unreadable = set(), []
    for path in _files(folder):
        try:
            with quiet():
                result = TaskResult.from_disk(path)
                is_ranking = registry.ranks_texts(result.task)
        except Exception as error:  # files in old or other formats raise many types
            unreadable.append(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if is_ranking:
            figures += _figures(result, *_model(path))
        else:
            left_out.add(result.task_name)
    if not figures:
        detail = f"; no results are in {unreadable[0]}" if unreadable else ""
        raise DataError(
            f"no results of tasks that rank texts in {folder}: give a folder that mteb wrote, results/ or "
            f"<model>/<revision>/ in it{detail}"
        )
    return Imported(figures, sorted(left_out), unreadable)


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; give one with results in mteb's format")
    for path in sorted(folder.rglob("*.json")):
        is_other = path.name == "model_meta.json" or path.name.endswith("_predictions.json")
        if not is_other and "experiments" not in path.relative_to(folder).parts:
            yield path


def _model(path: Path) -> tuple[str, str]:
    """Return name and revision of a result's model, from model_meta.json beside it or the names of its folders."""
    file = path.parent / "model_meta.json"
    meta = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if meta.get("name"):
        return str(meta["name"]), str(meta.get("revision") or path.parent.name)
    return path.parent.parent.name.replace("__", "/"), path.parent.name


def _figures(result: Any, model: str, revision: str) -> Iterator[PublishedFigures]:
    """Yield a figure for each subset of each split that the task is evaluated on."""
    metadata = result.task.metadata
    for split in metadata.eval_splits:
        suffix = "" if len(metadata.eval_splits) == 1 else f"/{split}"
        for scores in result.scores.get(split, []):
            yield PublishedFigures(
                model=model,
                revision=revision,
                family=_family(model),
                datasets=[f"{name}{suffix}" for name in names.datasets_of(metadata.name, scores["hf_subset"])],
                dataset_revision=str(result.dataset_revision),
                metrics={
                    names.to_metric(name): float(value)
                    for name, value in scores.items()
                    if names.is_number(value) and not name.lower().startswith("nauc") and name != "main_score"
                },
                source=f"MTEB results, {model}@{revision[:8]}, {result.task_name} at revision "
                f"{str(result.dataset_revision)[:8]}, mteb {result.mteb_version}",
            )


def _family(model: str) -> str:
    """Return the retriever family of a model in mteb's registry; "" for other models."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    meta = MODEL_REGISTRY.get(model)
    kinds = meta.model_type if meta else []
    return _FAMILIES.get(kinds[0], "") if len(kinds) == 1 else ""
