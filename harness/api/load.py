"""Datasets and retrievers by name, as the configs have them."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, cast

from harness.config import build
from harness.config.conf import CONF
from harness.config.evaluation import Composition, dataset_info, retriever_info
from harness.errors import ConfigError, TargetError
from harness.evaluation import values
from harness.types import Dataset, DatasetInfo, Retriever, RetrieverInfo

_SCHEMES = {"mteb": ("mteb", "task"), "irds": ("irds", "id")}
_INFO = "_harness_info"


def load_dataset(name: str | PathLike[str], /, **settings: Any) -> Dataset:
    """Load a dataset.

    Args:
        name: A config's name, with settings where there are any (``"scifact"``, ``"nfcorpus split=dev"``);
            ``"mteb:SciFact"``, ``"irds:beir/scifact/test"``; or a folder (see `dataset=folder`).
        **settings: Keys of the dataset's config, such as ``split="dev"``.

    Raises:
        ConfigError: There is no such dataset or setting.
        DataError: The dataset cannot be read.
    """
    composition = compose("retriever=bm25", *dataset_overrides(name, **settings))
    return construct_dataset(composition)


def load_retriever(name: str, /, *, dataset: str | Dataset = "stdlib", k: int = 100, **settings: Any) -> Retriever:
    """Construct a retriever from its config.

    Args:
        name: A config's name, with settings where there are any (``"bm25"``, ``"bm25 k1=0.9"``).
        dataset: Gives the prompts of retrievers that take them from the dataset.
        k: Documents that will be retrieved for each query; the depth of hybrids and rerankers follows it.
        **settings: Keys of the retriever's config, such as ``k1=0.9``.

    Raises:
        ConfigError: There is no such retriever or setting.
    """
    words = [*retriever_overrides(name), *(f"retriever.{key}={build.quoted(value)}" for key, value in settings.items())]
    return construct_retriever(compose(*words, *dataset_words(dataset), f"k={k}"))


def compose(*overrides: str) -> Composition:
    """Compose the config of one evaluation. Raises `ConfigError`."""
    config, options = build.chosen(list(overrides))
    return Composition(config, build.public(config), options, overrides, ())


def dataset_overrides(name: str | PathLike[str], /, **settings: Any) -> list[str]:
    """Return the overrides that choose a dataset by its name, path or scheme."""
    words = shlex.split(name) if isinstance(name, str) and not _is_folder(name) else [str(name)]
    chosen = [f"dataset.{word}" for word in words[1:]]
    chosen += [f"dataset.{key}={build.quoted(value)}" for key, value in settings.items()]
    scheme, colon, rest = words[0].partition(":")
    if colon and scheme in _SCHEMES:
        option, key = _SCHEMES[scheme]
        return [f"dataset={option}", f"dataset.{key}={build.quoted(rest)}", *chosen]
    if not isinstance(name, str) or _is_folder(words[0]):
        return ["dataset=folder", f"dataset.path={build.quoted(words[0])}", *chosen]
    return [f"dataset={words[0]}", *chosen]


def dataset_words(dataset: str | PathLike[str] | Dataset) -> list[str]:
    """Return the overrides of a dataset; for one in memory, those that give retrievers its instruction and task."""
    if not isinstance(dataset, Dataset):
        return dataset_overrides(dataset)
    task = mteb_task(dataset.metadata.model_dump())
    keys = {**task, "instruction": dataset.instruction}
    option = "dataset=mteb" if task else "dataset=stdlib"
    return [option, *(f"dataset.{key}={build.quoted(value)}" for key, value in keys.items())]


def mteb_task(description: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the keys of a dataset's config or metadata that name its mteb task; empty for other datasets."""
    if description.get("source") != "mteb" and description.get("_target_") != "harness.interop.mteb.load":
        return {}
    return {key: description.get(key) for key in ("task", "subset", "split", "language")}


def retriever_overrides(name: str) -> list[str]:
    """Return the overrides of ``"bm25 k1=0.9"``. Words with a group or a dotted config key are taken as they stand."""
    words = shlex.split(name)
    if not words:
        raise ConfigError("a retriever's name is empty; see: harness list retrievers")
    chosen = [
        word if re.match(r"\+*(retriever|fusion|prompts)[@.=]", word) else f"retriever.{word}" for word in words[1:]
    ]
    return [f"retriever={words[0]}", *chosen]


def construct_dataset(composition: Composition) -> Dataset:
    """Construct a composition's dataset, which remembers how the config calls it."""
    dataset = cast("Dataset", build.construct(build.plain(composition.config["dataset"], "dataset"), "dataset"))
    vars(dataset)[_INFO] = dataset_info(composition)
    return dataset


def describe_retriever(composition: Composition, row: str | None = None) -> RetrieverInfo:
    """Return the description of a composition's retriever, without constructing it.

    Raises:
        ConfigError: A key or the type of a value cannot be. A class that cannot be imported is no error yet.
    """
    with suppress(TargetError, SystemExit):  # raised again when it is constructed
        build.check_keys(build.plain(composition.config["retriever"], "retriever"), "retriever")
    return retriever_info(composition, row)


def construct_retriever(composition: Composition) -> Retriever:
    """Construct a composition's retriever, which remembers how the config calls it."""
    config = build.plain(composition.config["retriever"], "retriever")
    retriever = cast("Retriever", build.construct(config, "retriever"))
    values.infos.set(retriever, retriever_info(composition))
    return retriever


def remembered_info(dataset: Dataset) -> DatasetInfo:
    """Return how a dataset's config calls it, or its own name."""
    info: DatasetInfo | None = vars(dataset).get(_INFO)
    return info or DatasetInfo(name=dataset.name)


def _is_folder(name: str) -> bool:
    """Return whether a name is that of a folder, and not of a config, which wins over a folder of the same name."""
    is_config = not name.startswith((".", "/", "~")) and (CONF / "dataset" / f"{name}.yaml").is_file()
    return not is_config and Path(name).expanduser().is_dir()
