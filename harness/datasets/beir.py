"""The public BEIR datasets, from a folder in BEIR's layout or downloaded: `dataset=scifact`.

A folder has corpus.jsonl, queries.jsonl and qrels/<split>.tsv. It is searched for in `data_dir` and then in the cache,
which holds the downloads.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.datasets.download import fetch, unpack
from harness.datasets.folder import read
from harness.environment import cache_dir
from harness.errors import ConfigError, DataError
from harness.files import exclusive
from harness.types import Dataset


def load(
    name: str,
    split: str,
    url: str | None,
    md5: str | None,
    documents: int | None = None,
    queries: Mapping[str, int] | None = None,
    data_dir: str | None = None,
    drop_self_hits: bool = False,
    group: str | None = None,
    parts: int = 1,
    instruction: str | None = None,
) -> Dataset:
    """Load a BEIR dataset.

    Args:
        name: Name of the dataset and its folder.
        split: Split of the qrels.
        url: Archive to download; None reads existing folders only.
        md5: Checksum of the archive.
        documents: Published number of documents, which the folder must have.
        queries: Published numbers of queries by split.
        data_dir: Folder of datasets that is searched before the cache; None: only the cache.
        drop_self_hits: Drop a query's own document from its ranking.
        group: Name of the dataset that this one is a part of, such as ``cqadupstack``.
        parts: Number of parts of the group.
        instruction: Instruction for models that take one.

    Raises:
        ConfigError: ``data_dir`` or the split does not exist.
        DataError: The dataset is absent or malformed, or its counts differ from the published ones.
        DownloadError: The download failed.
    """
    folder = _folder(name, url, md5, data_dir)
    dataset = read(
        folder, name, split, drop_self_hits=drop_self_hits, group=group, parts=parts, instruction=instruction
    )
    for noun, count, expected in (
        ("documents", len(dataset.corpus), documents),
        ("queries", len(dataset.queries), (queries or {}).get(split)),
    ):
        if expected is not None and count != expected:
            raise DataError(
                f"{folder}: {count} {noun} in split {split!r}, the published {name} has {expected}; "
                f"to evaluate a dataset of your own: dataset=folder dataset.path={folder}"
            )
    return dataset


def _folder(name: str, url: str | None, md5: str | None, data_dir: str | None) -> Path:
    roots = [Path(data_dir).expanduser()] if data_dir else []
    if roots and not roots[0].is_dir():
        raise ConfigError(f"data_dir={data_dir!r} is not a folder; give a folder of datasets, or data_dir=null")
    roots.append(cache_dir() / "datasets")
    if folder := _existing(roots, name):
        return folder
    if url is None or md5 is None:
        where = " or ".join(str(root / name) for root in roots)
        raise DataError(
            f"{name} is not downloaded: put it in BEIR's layout in {where}, or give another folder: "
            "HARNESS_DATA=FOLDER, or data_dir=FOLDER"
        )
    archive = roots[-1] / url.rsplit("/", 1)[-1]
    with exclusive(cache_dir() / "locks" / f"{archive.name}.lock", f"downloading {url}"):
        if not _existing(roots, name):  # another process may have downloaded it
            fetch(url, archive, md5)
            try:
                unpack(archive, roots[-1])
            finally:
                archive.unlink()
    folder = _existing(roots, name)
    if folder is None:
        raise DataError(f"{url} has no {name}/corpus.jsonl")
    return folder


def _existing(roots: Iterable[Path], name: str) -> Path | None:
    return next((root / name for root in roots if (root / name / "corpus.jsonl").is_file()), None)
