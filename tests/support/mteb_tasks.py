"""Collections in the layouts that mteb's loaders read, and mteb's own evaluation of a model on one of its tasks."""

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from harness.types import Dataset


def evaluated(model: Any, task: Any, **settings: Any) -> Any:
    """mteb's result of a model on a task."""
    import mteb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = {"cache": None, "show_progress_bar": False, "overwrite_strategy": "always"}
        return mteb.evaluate(model, task, **{**usual, **settings}).task_results[0]


def scores(result: Any) -> dict[str, float]:
    """Every score of a result of one split and subset."""
    ((own,),) = result.scores.values()
    return own


def rows_of(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """A Dataset as the rows of mteb's parts; titles are empty."""
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


def write(
    folder: Path, rows: dict[str, list[dict[str, Any]]], split: str = "test", subset: str = "", kind: str = "jsonl"
) -> Path:
    """A repository of mteb's layout, or one subset more in it: README.md names the files of each part."""
    folder.mkdir(parents=True, exist_ok=True)
    readme = folder / "README.md"
    configs = yaml.safe_load(readme.read_text().strip("-\n"))["configs"] if readme.exists() else []
    for part, own in rows.items():
        name = f"{subset}-{part}" if subset else {"qrels": "default"}.get(part, part)
        path = folder / name / f"{split}.{kind}"
        path.parent.mkdir(exist_ok=True)
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(own), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
        configs.append({"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}.{kind}"}]})
    readme.write_text(f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n")
    return folder
