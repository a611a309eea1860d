"""The public BEIR sets, from a folder in BEIR's layout or downloaded: `dataset=scifact`.

A folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv. It is looked for in `data_dir` and in the cache, where
a download goes.
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
    """A BEIR set; `documents` and, by split, `queries` are the published counts. Without `url` it is only looked for.

    Raises `DataError`, `DownloadError`.
    """
    folder = _folder(name, url, md5, data_dir)
    dataset = read(
        folder, name, split, drop_self_hits=drop_self_hits, group=group, parts=parts, instruction=instruction
    )
    for noun, found, expected in (
        ("documents", len(dataset.corpus), documents),
        ("queries", len(dataset.queries), (queries or {}).get(split)),
    ):
        if expected is not None and found != expected:
            raise DataError(
                f"{folder}: {found} {noun} in split {split!r}, the published {name} has {expected}; "
                f"measure a collection of your own with: dataset=folder dataset.path={folder}"
            )
    return dataset


def _folder(name: str, url: str | None, md5: str | None, data_dir: str | None) -> Path:
    roots = [Path(data_dir).expanduser()] if data_dir else []
    if roots and not roots[0].is_dir():
        raise ConfigError(f"data_dir={data_dir!r} is no folder; name one that holds collections, or data_dir=null")
    roots.append(cache_dir() / "datasets")
    if found := _there(roots, name):
        return found
    if url is None or md5 is None:
        where = " or ".join(str(root / name) for root in roots)
        raise DataError(
            f"{name} is not downloaded: put it in BEIR's layout in {where}, or name another folder: "
            "HARNESS_DATA=FOLDER, or data_dir=FOLDER"
        )
    archive = roots[-1] / url.rsplit("/", 1)[-1]
    with exclusive(cache_dir() / "locks" / f"{archive.name}.lock", f"downloading {url}"):
        if not _there(roots, name):  # another process was not first
            fetch(url, archive, md5)
            try:
                unpack(archive, roots[-1])
            finally:
                archive.unlink()
    found = _there(roots, name)
    if found is None:
        raise DataError(f"{url}: no {name}/corpus.jsonl in it")
    return found


def _there(roots: Iterable[Path], name: str) -> Path | None:
    return next((root / name for root in roots if (root / name / "corpus.jsonl").is_file()), None)
