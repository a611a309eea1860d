"""What the tests share: the folders of real data, one loaded MiniLM, one index of each real collection.

HARNESS_DATA, HARNESS_REFERENCE and HARNESS_MODELS name the folders. In CI a missing one is a failure; elsewhere the tests
that need it are skipped.
"""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


def _folder(variable: str) -> Path:
    named = os.environ.get(variable)
    path = Path(named) if named else None
    if path is not None and path.is_dir():
        return path.resolve()
    said = f"{variable} names no folder of test material ({named!r})"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


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
    """Real weights: all-MiniLM-L6-v2 as a folder of that name."""
    return _folder("HARNESS_MODELS")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
