"""An encode and a sweep, killed twenty times each: `make bench`. tests/test_kill.py does the same four times."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import ForkServer
from support.killed_processes import kill_encodes, kill_sweeps
from support.models import write_dense

TIMES = 20


@pytest.fixture
def nursery(model: Path) -> Iterator[ForkServer]:
    with ForkServer(model) as found:
        yield found


@pytest.fixture
def model(measuring: bool, tmp_path: Path) -> Path:
    if not measuring:
        pytest.skip("tests/test_kill.py kills fewer")
    return write_dense(tmp_path / "model")


def test_twenty_killed_encodes_go_on_at_the_next_shard(nursery: ForkServer, model: Path, tmp_path: Path):
    assert kill_encodes(nursery, tmp_path, model, TIMES) == TIMES


def test_twenty_killed_sweeps_go_on_at_the_next_cell(nursery: ForkServer, model: Path, tmp_path: Path):
    assert kill_sweeps(nursery, tmp_path, model, TIMES) > 0, "they were killed while they worked"
