"""Unit tests run no Hydra job and import no torch, so that `make check` is fast."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_torch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a unit test that imports torch. In a run that has other tests too, these may have imported it before."""
    was_loaded = "torch" in sys.modules
    if was_loaded and all(item.path.is_relative_to(UNIT) for item in request.session.items):
        pytest.fail("collecting tests/unit imported torch: move the file that imports it to tests/models")
    yield
    if not was_loaded and "torch" in sys.modules:
        pytest.fail("this test imported torch: move it to tests/models")
