"""Tests of encodes that are killed with SIGKILL, and of two processes that share one embedding cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import ForkServer
from support.killed_processes import assert_shards_intact, count_encoded_shards, encode_uninterrupted, kill_encodes
from support.models import write_dense

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dense(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ForkServer]:
    with ForkServer(model) as server:
        yield server


def test_a_killed_encode_continues_at_the_next_shard(server: ForkServer, model: Path, tmp_path: Path):
    assert kill_encodes(server, tmp_path, model, times=4) == 4


def test_two_processes_can_encode_into_one_cache(server: ForkServer, model: Path, tmp_path: Path):
    vectors, shard_names = encode_uninterrupted(server, tmp_path / "alone", model)
    (tmp_path / "cache").mkdir()
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "cache").symlink_to(tmp_path / "cache")
    processes = [server.start(folder, encode=str(model)) for folder in folders]
    assert [server.wait(process) for process in processes] == [0, 0]
    for folder in folders:
        assert (folder / "vectors.npy").read_bytes() == vectors
    assert len(shard_names) <= sum(map(count_encoded_shards, folders)) <= 2 * len(shard_names)
    assert_shards_intact(tmp_path / "cache", shard_names)
