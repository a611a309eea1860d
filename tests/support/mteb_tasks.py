"""Datasets in the layouts that mteb's loaders read, and mteb's own evaluation of a model on one of its tasks."""

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from harness.types import Dataset


def evaluate_with_mteb(model: Any, task: Any, **settings: Any) -> Any:
    """Return mteb's result of a model on a task; `settings` are further arguments of `mteb.evaluate`."""
    import mteb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defaults = {"cache": None, "show_progress_bar": False, "overwrite_strategy": "always"}
        return mteb.evaluate(model, task, **{**defaults, **settings}).task_results[0]


def scores_of(result: Any) -> dict[str, float]:
    """Return every score of an mteb result that has one split and one subset."""
    ((scores,),) = result.scores.values()
    return scores


def dataset_rows(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """Return a dataset as rows by the name of mteb's part: corpus, queries, qrels, top_ranked. Titles are empty."""
    corpus = zip(dataset.corpus.ids, dataset.corpus.texts, strict=True)
    queries = zip(dataset.queries.ids, dataset.queries.texts, strict=True)
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": key, "title": "", "text": text} for key, text in corpus],
        "queries": [{"_id": key, "text": text} for key, text in queries],
        "qrels": [
            {"query-id": query, "corpus-id": doc, "score": grade}
            for query, docs in dataset.qrels.items()
            for doc, grade in docs.items()
        ],
    }
    if dataset.candidates is not None:
        rows["top_ranked"] = [{"query-id": q, "corpus-ids": list(docs)} for q, docs in dataset.candidates.items()]
    return rows


def write_repository(
    folder: Path, rows: dict[str, list[dict[str, Any]]], split: str = "test", subset: str = "", kind: str = "jsonl"
) -> Path:
    """Write rows in the layout of mteb's repositories on the hub, and return the folder.

    Args:
        folder: The folder; a subset is added where it is such a repository already.
        rows: Rows by the name of the part, as `dataset_rows` returns them.
        split: The split that they are of.
        subset: The subset, such as a language.
        kind: "jsonl" or "parquet".
    """
    folder.mkdir(parents=True, exist_ok=True)
    readme = folder / "README.md"  # names the files of each part
    configs = yaml.safe_load(readme.read_text().strip("-\n"))["configs"] if readme.exists() else []
    for part, part_rows in rows.items():
        name = f"{subset}-{part}" if subset else {"qrels": "default"}.get(part, part)
        path = folder / name / f"{split}.{kind}"
        path.parent.mkdir(exist_ok=True)
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(part_rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in part_rows), encoding="utf-8")
        configs.append({"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}.{kind}"}]})
    readme.write_text(f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n")
    return folder
