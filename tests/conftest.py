"""Fixtures shared by all tests: the folders of real data, one embedding cache, one loaded MiniLM and its indexes.

The environment variables HARNESS_DATA, HARNESS_REFERENCE and HARNESS_MODELS name the folders. In CI a missing folder is
a failure; elsewhere the tests that need it are skipped. Nothing here imports torch before a fixture needs it.
"""

import contextlib
import os

os.environ["COLUMNS"] = "120"  # the terminal's width, whoever runs the tests
os.environ["HF_HUB_OFFLINE"] = "1"  # set before anything imports the hub's client, which reads it once

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

from harness.environment import cache_dir

if TYPE_CHECKING:
    from harness.retrievers.dense import Dense
    from harness.types import Dataset
    from harness.weights import Weights

hypothesis.settings.register_profile("no_deadline", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("no_deadline")

MAX_DOCUMENTS_WITHOUT_AMX = 2000
SLOWEST_FIRST = (
    *("test_gate_breaks.py", "test_train.py", "test_published.py", "test_conformance.py", "test_cli.py"),
    *("test_wheel.py", "test_rerank.py", "test_distributed.py", "test_failures.py", "test_mteb_results.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow files first, so that no worker is left alone with one at the end."""
    order = {name: position for position, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def _material(variable: str) -> Path:
    """Return the folder that an environment variable names; without it fail in CI and skip elsewhere."""
    value = os.environ.get(variable)
    path = Path(value) if value else None
    if path is not None and path.is_dir():
        return path.resolve()
    message = f"{variable} names no folder of test material ({value!r})"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use one embedding cache for the whole test run, empty at its start; downloads stay in the user's cache."""
    folder = _run_folder(tmp_path_factory) / "cache"
    for name in ("weights", "datasets", "texts"):
        (cache_dir() / name).mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another worker was first
            (folder / name).symlink_to(cache_dir() / name, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_measurements_on_an_idle_machine() -> Iterator[None]:
    """Repeat few searches, time the reference kernels once per process, and hide the load of the machine."""
    from harness import machine
    from harness.evaluation import searches

    measured = cache(machine.reference_kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searches, "_MAX_REPEATS", 5)
        patch.setattr(machine, "reference_kernels", lambda: machine.KernelTimes(measured().cpu_s, measured().cpu_s))
        patch.setattr(machine, "run_delay", lambda: 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def standard_library_read_once() -> Iterator[None]:
    """Parse the standard library, of which `dataset=stdlib` is a sample, once per process."""
    from harness.datasets import stdlib

    definitions = stdlib._definitions
    read = cache(lambda library: tuple(definitions(library)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdlib, "_definitions", read)
        yield


def _run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder that all workers of a test run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real datasets in BEIR's layout: scifact, nfcorpus, cranfield, xquad."""
    return _material("HARNESS_DATA")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Return the folder of published scores, trec_eval's test files and real runs."""
    return _material("HARNESS_REFERENCE")


@pytest.fixture(scope="session")
def models() -> Path:
    """Return the folder of real weights; all-MiniLM-L6-v2 is linked there from its pinned package if it is missing."""
    folder = _material("HARNESS_MODELS")
    minilm = folder / "all-MiniLM-L6-v2"
    if not minilm.is_dir():
        with FileLock(folder / ".lock"):
            if not minilm.is_dir():  # no other worker was first
                minilm.unlink(missing_ok=True)  # a broken link
                minilm.symlink_to(_minilm_weights().path.resolve(), target_is_directory=True)
    return folder


def _minilm_weights() -> "Weights":
    from harness import weights
    from harness.config import build

    encoder = build.composed(["retriever=minilm"])["retriever"]["encoder"]
    return weights.find(encoder["model"], build.construct(encoder["package"], "package"))


@pytest.fixture(scope="session")
def real_dataset(data: Path) -> "Callable[[str], Dataset]":
    """Return a function that loads the test split of a real dataset by its folder's name, once."""
    from harness.datasets import folder

    @cache
    def read(name: str) -> "Dataset":
        return folder.read(data / name, name, "test")

    return read


@pytest.fixture(scope="session")
def minilm() -> "Dense":
    """Return the dense retriever of conf/retriever/minilm.yaml with its weights loaded, for encoding a few texts."""
    return _minilm()


def _minilm(*overrides: str) -> "Dense":
    from harness.config import build
    from harness.retrievers.dense import Dense

    retriever = build.construct(build.composed(["retriever=minilm", *overrides])["retriever"], "retriever")
    assert isinstance(retriever, Dense)
    return retriever


@pytest.fixture(scope="session")
def minilm_index(
    real_dataset: "Callable[[str], Dataset]", tmp_path_factory: pytest.TempPathFactory
) -> "Callable[[str], Dense]":
    """Return a function that indexes a real dataset with MiniLM, each once per test run by the worker that is first.

    It encodes in bfloat16 where the processor multiplies that in tiles (AMX), in a third of the time. Without AMX a
    large corpus takes seven minutes of a core: it is encoded only where HARNESS_WHOLE is set. The committed leaderboard
    has its figures.
    """
    folder = _run_folder(tmp_path_factory)

    @cache
    def index(name: str) -> "Dense":
        import torch

        has_amx = torch.cpu._is_amx_tile_supported()
        is_slow = not has_amx and len(real_dataset(name).corpus) > MAX_DOCUMENTS_WITHOUT_AMX
        if is_slow and "HARNESS_WHOLE" not in os.environ:
            pytest.skip(f"{name} takes minutes to encode without AMX; set HARNESS_WHOLE=1 to encode it all the same")
        dtype = "bfloat16" if has_amx else "float32"
        retriever = _minilm(f"retriever.encoder.dtype={dtype}")
        with FileLock(folder / f"{name.replace('/', '-')}.lock"):
            retriever.index(real_dataset(name).corpus)
        return retriever

    return index


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder for one test, and return it."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
