"""The user's own dataset: `dataset=folder dataset.path=FOLDER`.

A folder in BEIR's layout needs no other settings. Otherwise name the files (jsonl, csv, tsv or parquet) and their
columns:

    harness retriever=bm25 dataset=folder dataset.path=FOLDER dataset.corpus=docs.parquet dataset.queries=q.csv \
        dataset.qrels=judged.csv dataset.columns.id=docno dataset.columns.text=body
"""

import os
from collections.abc import Mapping
from pathlib import Path

from harness.datasets import judgements, texts
from harness.errors import ConfigError, DataError
from harness.types import Corpus, Dataset, Queries

QUERY_COLUMNS = {"id": "_id", "text": "text"}
COLUMNS = {**QUERY_COLUMNS, "title": "title"}


def load(
    path: str,
    columns: Mapping[str, str | None],
    query_columns: Mapping[str, str | None],
    qrels_columns: Mapping[str, str],
    name: str | None = None,
    split: str = "test",
    corpus: str | None = None,
    queries: str | None = None,
    qrels: str | None = None,
    drop_self_hits: bool = False,
    instruction: str | None = None,
) -> Dataset:
    """Load a dataset from a folder in BEIR's layout, or from three named files in it.

    Args:
        path: The folder.
        columns: Columns of the corpus by role: ``id``, ``text`` and ``title``.
        query_columns: Columns of the queries by role.
        qrels_columns: Columns of the qrels by role: ``query``, ``document`` and ``grade``.
        name: Name of the dataset; None for the folder's.
        split: Split of the qrels.
        corpus: File of the corpus.
        queries: File of the queries.
        qrels: File of the qrels.
        drop_self_hits: Drop a query's own document from its ranking.
        instruction: Instruction for models that take one.

    Raises:
        ConfigError: The folder does not exist, or only some of the files are named.
        DataError: A file is absent or malformed.
    """
    folder = Path(os.path.expanduser(path))  # noqa: PTH111  # leaves ~name of an unknown user as it is
    if not path or not folder.is_dir():
        raise ConfigError(f"no folder {path!r}; give one: dataset.path=FOLDER")
    name = name or folder.resolve().name
    files = {"corpus": corpus, "queries": queries, "qrels": qrels}
    named = {role: file for role, file in files.items() if file is not None}
    if not named:
        if not (folder / "corpus.jsonl").is_file():
            raise DataError(
                f"{folder} is not in BEIR's layout (no corpus.jsonl); name its files: "
                "dataset.corpus=FILE dataset.queries=FILE dataset.qrels=FILE"
            )
        return read(
            folder,
            name,
            split,
            columns=columns,
            query_columns=query_columns,
            drop_self_hits=drop_self_hits,
            instruction=instruction,
        )
    if missing := [f"dataset.{role}" for role in files if role not in named]:
        raise ConfigError(f"{folder}: {', '.join(missing)} is not set; name all three files or none")
    judged = judgements.read(folder / named["qrels"], qrels_columns)
    return Dataset(
        name,
        split,
        texts.read(Corpus, folder / named["corpus"], columns),
        texts.read(Queries, folder / named["queries"], query_columns),
        judged.qrels,
        drop_self_hits,
        instruction=instruction,
        load_titles=texts.title_loader(folder / named["corpus"], columns),
    ).validated(str(judged.path), judged.place)


def read(
    folder: Path,
    name: str,
    split: str,
    *,
    columns: Mapping[str, str | None] = COLUMNS,
    query_columns: Mapping[str, str | None] = QUERY_COLUMNS,
    drop_self_hits: bool = False,
    group: str | None = None,
    parts: int = 1,
    instruction: str | None = None,
) -> Dataset:
    """Read a folder in BEIR's layout.

    Args:
        folder: The folder.
        name: Name of the dataset.
        split: Split of the qrels.
        columns: Columns of the corpus by role: ``id``, ``text`` and ``title``.
        query_columns: Columns of the queries by role.
        drop_self_hits: Drop a query's own document from its ranking.
        group: Name of the dataset that this one is a part of.
        parts: Number of parts of the group.
        instruction: Instruction for models that take one.

    Raises:
        ConfigError: The split does not exist.
        DataError: A file is absent or malformed.
    """
    files = sorted((folder / "qrels").glob("*.tsv"))
    if split not in [file.stem for file in files]:
        choices = ", ".join(file.stem for file in files) or f"none, {folder / 'qrels'} has no .tsv file"
        raise ConfigError(f"{name} has no split {split!r}; choices: {choices}")
    judged = judgements.read(folder / "qrels" / f"{split}.tsv")
    return Dataset(
        name,
        split,
        texts.read(Corpus, folder / "corpus.jsonl", columns),
        texts.read(Queries, folder / "queries.jsonl", query_columns),
        judged.qrels,
        drop_self_hits,
        group,
        parts,
        instruction,
        texts.title_loader(folder / "corpus.jsonl", columns),
    ).validated(str(judged.path), judged.place)
