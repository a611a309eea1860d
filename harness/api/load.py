"""Load datasets and retrievers by the names of their configs."""

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
from harness.config.keys import check_keys
from harness.errors import ConfigError, TargetError
from harness.evaluation import values
from harness.types import Dataset, DatasetInfo, Retriever, RetrieverInfo
from harness.types.record import DEFAULT_K

_SCHEMES = {"mteb": ("mteb", "task"), "irds": ("irds", "id")}
_INFO = "_harness_info"


def load_dataset(name: str | PathLike[str], /, **settings: Any) -> Dataset:
    """Load a dataset.

    Args:
        name: A config's name, optionally with settings (``"scifact"``, ``"nfcorpus split=dev"``);
            ``"mteb:SciFact"``, ``"irds:beir/scifact/test"``; or a folder (see `dataset=folder`).
        **settings: Keys of the dataset's config, such as ``split="dev"``.

    Raises:
        ConfigError: There is no such dataset or setting.
        DataError: The dataset cannot be read.
    """
    composition = compose("retriever=bm25", *dataset_overrides(name, **settings))
    return construct_dataset(composition)


def load_retriever(
    name: str, /, *, dataset: str | Dataset = "stdlib", k: int = DEFAULT_K, **settings: Any
) -> Retriever:
    """Construct a retriever from its config.

    Args:
        name: A config's name, optionally with settings (``"bm25"``, ``"bm25 k1=0.9"``).
        dataset: The dataset from which some retrievers take their prompts.
        k: Documents that will be retrieved for each query; also the depth of hybrids and rerankers.
        **settings: Keys of the retriever's config, such as ``k1=0.9``.

    Raises:
        ConfigError: There is no such retriever or setting.
    """
    overrides = [
        *retriever_overrides(name),
        *(f"retriever.{key}={build.quote(value)}" for key, value in settings.items()),
    ]
    return construct_retriever(compose(*overrides, *overrides_of_dataset(dataset), f"k={k}"))


def compose(*overrides: str) -> Composition:
    """Compose the config of one evaluation. Raises `ConfigError`."""
    config, options = build.compose_with_choices(list(overrides))
    return Composition(config, build.public_config(config), options, overrides, ())


def dataset_overrides(name: str | PathLike[str], /, **settings: Any) -> list[str]:
    """Return the Hydra overrides of the dataset `name` with `settings`; the arguments are those of `load_dataset`."""
    words = shlex.split(name) if isinstance(name, str) and not _is_folder(name) else [str(name)]
    settings_overrides = [f"dataset.{word}" for word in words[1:]]
    settings_overrides += [f"dataset.{key}={build.quote(value)}" for key, value in settings.items()]
    scheme, colon, rest = words[0].partition(":")
    if colon and scheme in _SCHEMES:
        option, key = _SCHEMES[scheme]
        return [f"dataset={option}", f"dataset.{key}={build.quote(rest)}", *settings_overrides]
    if not isinstance(name, str) or _is_folder(words[0]):
        return ["dataset=folder", f"dataset.path={build.quote(words[0])}", *settings_overrides]
    return [f"dataset={words[0]}", *settings_overrides]


def overrides_of_dataset(dataset: str | PathLike[str] | Dataset) -> list[str]:
    """Return the overrides of a dataset; for one in memory, those that give retrievers its instruction and task."""
    if not isinstance(dataset, Dataset):
        return dataset_overrides(dataset)
    task = mteb_task(dataset.metadata.model_dump())
    keys = {**task, "instruction": dataset.instruction}
    option = "dataset=mteb" if task else "dataset=stdlib"
    return [option, *(f"dataset.{key}={build.quote(value)}" for key, value in keys.items())]


def mteb_task(description: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the keys of a dataset's config or metadata that name its mteb task; empty for other datasets."""
    if description.get("source") != "mteb" and description.get("_target_") != "harness.interop.mteb.load":
        return {}
    return {key: description.get(key) for key in ("task", "subset", "split", "language")}


def retriever_overrides(name: str) -> list[str]:
    """Return the overrides of ``"bm25 k1=0.9"``. Words with a group or a dotted config key are kept unchanged."""
    words = shlex.split(name)
    if not words:
        raise ConfigError("a retriever's name is empty; see: harness list retrievers")
    overrides = [
        word if re.match(r"\+*(retriever|fusion|prompts)[@.=]", word) else f"retriever.{word}" for word in words[1:]
    ]
    return [f"retriever={words[0]}", *overrides]


def construct_dataset(composition: Composition) -> Dataset:
    """Construct a composition's dataset, and attach its description."""
    dataset = cast("Dataset", build.construct(build.resolve(composition.config["dataset"], "dataset"), "dataset"))
    vars(dataset)[_INFO] = dataset_info(composition)
    return dataset


def describe_retriever(composition: Composition, row: str | None = None) -> RetrieverInfo:
    """Return the description of a composition's retriever, without constructing it.

    Args:
        composition: The config of one evaluation.
        row: The row's name on the leaderboard; None: the config's name and the values that differ from it.

    Raises:
        ConfigError: A key or the type of a value is invalid. A class that cannot be imported is not an error yet.
    """
    with suppress(TargetError, SystemExit):  # raised again when it is constructed
        check_keys(build.resolve(composition.config["retriever"], "retriever"), "retriever")
    return retriever_info(composition, row)


def construct_retriever(composition: Composition) -> Retriever:
    """Construct a composition's retriever, and attach its description."""
    config = build.resolve(composition.config["retriever"], "retriever")
    retriever = cast("Retriever", build.construct(config, "retriever"))
    values.infos.set(retriever, retriever_info(composition))
    return retriever


def info_of_dataset(dataset: Dataset) -> DatasetInfo:
    """Return the description that a dataset's config gives, or one with its name only."""
    info: DatasetInfo | None = vars(dataset).get(_INFO)
    return info or DatasetInfo(name=dataset.name)


def _is_folder(name: str) -> bool:
    """Return True if a name is a folder. A config takes precedence over a folder of the same name."""
    is_config = not name.startswith((".", "/", "~")) and (CONF / "dataset" / f"{name}.yaml").is_file()
    return not is_config and Path(name).expanduser().is_dir()
