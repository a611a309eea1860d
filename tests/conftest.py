"""What the tests share: the folders of real data, one loaded MiniLM, one index of each real collection.

HARNESS_DATA, HARNESS_REFERENCE and HARNESS_MODELS name the folders. In CI a missing one is a failure; elsewhere the
tests that need it are skipped.
"""

import contextlib
import os

os.environ["COLUMNS"] = "120"  # of the terminal, whoever runs the tests
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client, which reads it once

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from harness import instrument, weights
from harness.config import build
from harness.datasets import folder, stdlib
from harness.environment import cache_dir
from harness.retrievers.dense import Dense
from harness.types import Dataset

_MANY = 2000
_LONG = (
    *("test_gate_breaks.py", "test_train.py", "test_published.py", "test_conformance.py", "test_cli.py"),
    *("test_wheel.py", "test_rerank.py", "test_distributed.py", "test_failures.py", "test_mteb_results.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


def _folder(variable: str) -> Path:
    named = os.environ.get(variable)
    path = Path(named) if named else None
    if path is not None and path.is_dir():
        return path.resolve()
    said = f"{variable} names no folder of test material ({named!r})"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One embedding cache for the whole run, empty at its start; downloads and conversions are the user's own."""
    own = _whole_runs_folder(tmp_path_factory) / "cache"
    for kept in ("weights", "datasets", "texts"):
        (cache_dir() / kept).mkdir(parents=True, exist_ok=True)
        own.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another worker was first
            (own / kept).symlink_to(cache_dir() / kept, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(own))
        yield


@pytest.fixture(scope="session", autouse=True)
def kernels_measured_once() -> Iterator[None]:
    """Time the machine's reference kernels once per process; an evaluation repeats them after every search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instrument, "reference_kernels", cache(instrument.reference_kernels))
        yield


@pytest.fixture(scope="session", autouse=True)
def standard_library_read_once() -> Iterator[None]:
    """Parse the standard library, of which `dataset=stdlib` is a sample, once per process."""
    read = cache(lambda library: tuple(definitions(library)))
    definitions = stdlib._definitions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdlib, "_definitions", read)
        yield


def _whole_runs_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of a run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def data() -> Path:
    """Real collections in BEIR's layout: scifact, nfcorpus, cranfield, xquad/en."""
    return _folder("HARNESS_DATA")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Published scores, trec_eval's own test files, real runs."""
    return _folder("HARNESS_REFERENCE")


@pytest.fixture(scope="session")
def models() -> Path:
    """Real weights; all-MiniLM-L6-v2 is put there from its pinned package when it is missing."""
    folder = _folder("HARNESS_MODELS")
    minilm = folder / "all-MiniLM-L6-v2"
    if not minilm.is_dir():
        with FileLock(folder / ".lock"):
            if not minilm.is_dir():  # another worker was not first
                minilm.unlink(missing_ok=True)  # a link to what is gone
                minilm.symlink_to(_minilm_weights().path.resolve(), target_is_directory=True)
    return folder


def _minilm_weights() -> weights.Weights:
    encoder = build.composed(["retriever=minilm"])["retriever"]["encoder"]
    return weights.find(encoder["model"], build.construct(encoder["package"], "package"))


@pytest.fixture(scope="session")
def collection(data: Path) -> Callable[[str], Dataset]:
    """A real collection by its folder's name, read once."""

    @cache
    def read(name: str) -> Dataset:
        return folder.read(data / name, name, "test")

    return read


@pytest.fixture(scope="session")
def minilm() -> Dense:
    """The dense retriever of conf/retriever/minilm.yaml with its weights loaded, for encoding small things."""
    return _minilm()


def _minilm(*overrides: str) -> Dense:
    retriever: Dense = build.construct(build.composed(["retriever=minilm", *overrides])["retriever"], "retriever")
    return retriever


@pytest.fixture(scope="session")
def minilm_index(
    collection: Callable[[str], Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Dense]:
    """MiniLM with a real collection indexed; each is encoded once in a test run, by the worker that asks first.

    In bfloat16 where the processor multiplies it in tiles, which takes a third of the time. Without them a large one
    takes seven minutes of a core, and is encoded only where HARNESS_WHOLE is set; the committed board has its figures.
    """
    folder = _whole_runs_folder(tmp_path_factory)

    @cache
    def index(name: str) -> Dense:
        tiles = torch.cpu._is_amx_tile_supported()
        if not tiles and "HARNESS_WHOLE" not in os.environ and len(collection(name).corpus) > _MANY:
            pytest.skip(f"{name} takes minutes to encode without AMX; HARNESS_WHOLE=1 does it all the same")
        dtype = "bfloat16" if tiles else "float32"
        retriever = _minilm(f"retriever.encoder.dtype={dtype}")
        with FileLock(folder / f"{name.replace('/', '-')}.lock"):
            retriever.index(collection(name).corpus)
        return retriever

    return index


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
