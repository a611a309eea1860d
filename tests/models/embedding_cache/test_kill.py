"""Whenever a process is killed, the same command gives the numbers of an undisturbed one, and cleans up in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import ForkServer
from support.killed_processes import assert_shards_intact, count_encoded_shards, encode_uninterrupted, kill_encodes
from support.models import write_dense


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dense(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def nursery(model: Path) -> Iterator[ForkServer]:
    with ForkServer(model) as found:
        yield found


def test_a_killed_encode_goes_on_at_the_next_shard(nursery: ForkServer, model: Path, tmp_path: Path):
    assert kill_encodes(nursery, tmp_path, model, times=4) == 4


def test_two_processes_share_one_cache(nursery: ForkServer, model: Path, tmp_path: Path):
    vectors, whole = encode_uninterrupted(nursery, tmp_path / "alone", model)
    (tmp_path / "cache").mkdir()
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "cache").symlink_to(tmp_path / "cache")
    processes = [nursery.start(folder, encode=str(model)) for folder in folders]
    assert [nursery.wait(process) for process in processes] == [0, 0]
    for folder in folders:
        assert (folder / "vectors.npy").read_bytes() == vectors
    assert len(whole) <= sum(map(count_encoded_shards, folders)) <= 2 * len(whole)
    assert_shards_intact(tmp_path / "cache", whole)
