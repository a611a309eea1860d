"""Tests of an encode and a sweep that are each killed twenty times; test_kill.py kills an encode four times."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import ForkServer
from support.killed_processes import kill_encodes, kill_sweeps
from support.models import write_dense

TIMES = 20

pytestmark = pytest.mark.slow


@pytest.fixture
def server(model: Path) -> Iterator[ForkServer]:
    with ForkServer(model) as server:
        yield server


@pytest.fixture
def model(measuring: bool, tmp_path: Path) -> Path:
    if not measuring:
        pytest.skip("only with --benchmark-enable: test_kill.py kills fewer processes")
    return write_dense(tmp_path / "model")


def test_twenty_killed_encodes_continue_at_the_next_shard(server: ForkServer, model: Path, tmp_path: Path):
    assert kill_encodes(server, tmp_path, model, TIMES) == TIMES


def test_twenty_killed_sweeps_continue_at_the_next_evaluation(server: ForkServer, model: Path, tmp_path: Path):
    assert kill_sweeps(server, tmp_path, model, TIMES) > 0, "some sweeps were killed before they ended"
