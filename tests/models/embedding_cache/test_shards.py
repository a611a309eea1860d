"""Tests of shards: reading as memory maps, damaged files, atomic writes and the removal of old temporary files."""

import errno
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.embedding_shards import ARRAYS, COST, VECTORS, file_names, write_aged_file, write_shard

from harness import files
from harness.embedding_cache import shards
from harness.errors import StoreError


@pytest.fixture
def path(empty_cache: Path) -> Path:
    return shards.path_of({"encoder": "e"}, ["a", "b"])


def messages(caplog) -> list[str]:
    """Return the messages that the harness logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("harness")]


# --------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_bit_for_bit_as_views_of_the_file(path, name):
    arrays, cost, foreign_machine = shards.read(write_shard(path, ARRAYS[name]), "c")
    assert (cost.model_copy(update={"cached_since": None}), foreign_machine) == (COST, False)
    assert set(arrays) == set(ARRAYS[name])
    for key, array in arrays.items():
        first = ARRAYS[name][key]
        assert (array.dtype, array.shape) == (first.dtype, first.shape)
        assert array.tobytes() == first.tobytes()
        assert not array.flags.owndata, "the array is not a copy"
        assert array.flags.writeable, "torch warns about arrays that are read-only"
        assert array.flags.aligned
        if array.shape:
            torch.from_numpy(array)


def test_writing_into_an_array_does_not_change_the_file(path):
    arrays, *_ = shards.read(write_shard(path), "c")
    arrays["vectors"][:] = 0
    again, *_ = shards.read(path, "c")
    np.testing.assert_array_equal(again["vectors"], VECTORS["vectors"])


def test_an_array_remains_valid_after_its_file_is_deleted(path):
    arrays, *_ = shards.read(write_shard(path), "c")
    path.unlink()
    np.testing.assert_array_equal(arrays["vectors"], VECTORS["vectors"])


@pytest.mark.parametrize("name", ARRAYS)
def test_the_safetensors_library_reads_the_same_arrays(path, name):
    with safe_open(write_shard(path, ARRAYS[name]), framework="numpy") as file:
        for key, first in ARRAYS[name].items():
            assert file.get_tensor(key).tobytes() == first.tobytes()
        assert json.loads(file.metadata()["identity"]) == {"encoder": "e"}


def test_a_dtype_unknown_to_safetensors_is_a_warning_and_no_file(path, empty_cache, caplog):
    write_shard(path, {"vectors": np.zeros(2, "U3")})
    assert file_names(empty_cache) == []
    (line,) = messages(caplog)
    assert str(path.parent) in line
    assert "str96" in line


def test_a_dtype_unknown_to_numpy_is_a_warning(path, caplog):
    path.parent.mkdir(parents=True)
    assert "BF16" in refusal_message(path, with_header({"a": array(dtype="BF16", offsets=[0, 4])}, bytes(4)), caplog)


def test_a_shard_has_the_date_of_its_computation_unless_an_older_version_wrote_it(path, monkeypatch):
    before = datetime.now(UTC).replace(microsecond=0)
    _, cost, _ = shards.read(write_shard(path), "c")
    assert before <= cost.cached_since <= datetime.now(UTC)
    read_verified = shards.read_verified

    def without_date(path):
        metadata, arrays = read_verified(path)
        return {name: value for name, value in metadata.items() if name != "measured"}, arrays

    monkeypatch.setattr(shards, "read_verified", without_date)
    _, cost, _ = shards.read(path, "c")
    assert cost.cached_since is None


def test_big_endian_arrays_keep_their_values(path):
    arrays, *_ = shards.read(write_shard(path, {"vectors": np.arange(3, dtype=">f4")}), "c")
    assert arrays["vectors"].tolist() == [0, 1, 2]


def test_a_shard_has_the_permissions_of_a_new_file(path, tmp_path):
    (tmp_path / "file").touch()
    assert write_shard(path).stat().st_mode == (tmp_path / "file").stat().st_mode


WRITE_GROWTH = """
import resource, sys
from pathlib import Path
import numpy as np
from harness.embedding_cache import shards
from harness.types import Phase

path, cost, vectors = Path(sys.argv[1]), Phase(wall_s=1, cpu_s=1), np.ones(1 << 23)
shards.write(path, {}, {"vectors": vectors[:1000]}, cost, "c")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shards.write(path, {}, {"vectors": vectors}, cost, "c")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / vectors.nbytes)
"""


def test_writing_does_not_copy_the_arrays(path):
    done = subprocess.run([sys.executable, "-c", WRITE_GROWTH, str(path)], capture_output=True, text=True, check=True)
    assert path.stat().st_size > 1 << 26
    assert float(done.stdout) < 0.5, "growth of peak memory relative to the array"


def test_reading_maps_the_file_into_memory(path):
    write_shard(path, {"vectors": np.ones((1 << 20, 8), np.float32)})
    tracemalloc.start()
    arrays, *_ = shards.read(path, "c")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["vectors"].nbytes == 1 << 25
    assert peak < 1 << 20


def test_reading_a_shard_updates_its_time_of_last_use(path):
    os.utime(write_shard(path), (1, 1))
    shards.read(path, "other conditions")
    assert path.stat().st_mtime == 1
    before = time.time()
    shards.read(path, "c")
    assert path.stat().st_mtime > before - 60


def test_the_description_of_a_shard_is_not_part_of_its_key(path, empty_cache):
    write_shard(path, about={"model": "org/name"})
    assert json.loads(shards.read_header(path).metadata["about"]) == {"model": "org/name"}
    assert shards.read(path, "c")


def test_a_missing_shard_is_not_warned_of(path, empty_cache, caplog):
    assert shards.read(path, "c") is None
    empty_cache.write_text("a file")
    assert shards.read(path, "c") is None
    assert messages(caplog) == []


# ------------------------------------------------------------------------------------------------------------- damage


def refusal_message(path: Path, content: bytes, caplog) -> str:
    """Write `content` as a shard, read it, and return the reason in the warning."""
    path.write_bytes(content)
    caplog.clear()
    assert shards.read(path, "c") is None
    (line,) = messages(caplog)
    assert f"{path} are damaged and are encoded again: " in line
    return line.rpartition("again: ")[2]


def test_truncations_and_flipped_bits_are_detected(path, caplog):
    content = write_shard(path, {"vectors": np.arange(6, dtype=np.float32)}).read_bytes()
    rng = random.Random(0)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *rng.choices(range(len(content)), k=60)]:
        assert refusal_message(path, content[:length], caplog)
    assert refusal_message(path, content + b"\0", caplog)
    for position in range(len(content)):
        bit = 1 << rng.randrange(8)
        flipped = content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        if 8 + len(header.rstrip()) <= position < 8 + len(header) and flipped[position : position + 1] in b"\t\n\r ":
            continue  # whitespace replaced by whitespace after the header
        assert refusal_message(path, flipped, caplog)


def with_header(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Return the content of a safetensors file with this header; `length` replaces the header's length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def array(shape=(2,), offsets=(0, 8), dtype="F32", **fields):
    """Return an array's entry in the header, by default of two float32 values."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **fields}


MALFORMED = {
    "a header length beyond memory": with_header({}, length=2**63),
    "a header length of a gigabyte": with_header({}, length=1 << 30),
    "a header over the limit": with_header(b"{}" + b" " * (1 << 20)),
    "not JSON": with_header(b"\xff\xfe{"),
    "not an object": with_header([]),
    "deeply nested": with_header(b'{"a":' + b"[" * 100_000),
    "a number of many digits": with_header(b'{"a":' + b"9" * 10_000 + b"}"),
    "metadata as a list": with_header({"__metadata__": []}),
    "metadata values as numbers": with_header({"__metadata__": {"checksum": 1}}),
    "an array as a number": with_header({"a": 1}),
    "an array without offsets": with_header({"a": {"dtype": "F32", "shape": [2]}}),
    "an array with an extra field": with_header({"a": array(more=1)}, bytes(8)),
    "an unknown dtype": with_header({"a": array(dtype="BF16", offsets=[0, 4])}, bytes(4)),
    "a dtype as a list": with_header({"a": array(dtype=["F32"])}, bytes(8)),
    "a negative size": with_header({"a": array(shape=[-2])}, bytes(8)),
    "two negative sizes": with_header({"a": array(shape=[-1, -2])}, bytes(8)),
    "a boolean size": with_header({"a": array(shape=[True, 2])}, bytes(8)),
    "a float size": with_header({"a": array(shape=[2.0])}, bytes(8)),
    "a size beyond memory": with_header({"a": array(shape=[2**62, 2**62])}, bytes(8)),
    "sizes that wrap around": with_header({"a": array(shape=[2**47, 2**47, 2**47], offsets=[0, 0])}),
    "no rows of a size beyond memory": with_header({"a": array(shape=[0, 2**47, 2**47, 2**47], offsets=[0, 0])}),
    "many dimensions": with_header({"a": array(shape=[1] * 100 + [2])}, bytes(8)),
    "negative offsets": with_header({"a": array(offsets=[-8, 0])}, bytes(8)),
    "descending offsets": with_header({"a": array(offsets=[8, 0])}, bytes(8)),
    "offsets beyond the file": with_header({"a": array(offsets=[8, 16])}, bytes(8)),
    "three offsets": with_header({"a": array(offsets=[0, 8, 8])}, bytes(8)),
    "a null shape": with_header({"a": array(shape=None)}, bytes(8)),
    "a gap between arrays": with_header({"a": array(), "b": array(offsets=[12, 20])}, bytes(20)),
    "overlapping arrays": with_header({"a": array(), "b": array(offsets=[4, 12])}, bytes(12)),
    "trailing bytes": with_header({"a": array()}, bytes(9)),
    "a name that is not valid text": with_header(
        b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)
    ),
    "no checksum": with_header({"a": array()}, bytes(8)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_shard_is_a_warning(path, caplog, name):
    path.parent.mkdir(parents=True)
    assert refusal_message(path, MALFORMED[name], caplog)


def test_a_valid_checksum_over_invalid_metadata_is_a_warning(path, caplog):
    path.parent.mkdir(parents=True)
    for metadata in ({}, {"cost": "{}"}, {"cost": "[" * 5000}, {"cost": "\ud800"}, {"cost": COST.model_dump_json()}):
        checksum = shards._checksum({}, metadata)
        assert refusal_message(path, with_header({"__metadata__": {**metadata, "checksum": checksum}}), caplog)


def test_randomly_edited_shards_are_warnings(path, caplog):
    """Replace random pieces of a valid shard, and in half of the cases set the header's length to a random one."""
    valid = write_shard(path, ARRAYS["sparse"]).read_bytes()
    pieces = [b'"F32"', b"-1", b"0", b"[", b"]", b"{", b"}", b":", b",", b"1e400", b"null", b'"__metadata__"', b"\xff"]
    rng = random.Random(1)
    for _ in range(400):
        content = bytearray(valid)
        for _ in range(rng.randint(1, 4)):
            begin = rng.randrange(len(content))
            content[begin : begin + rng.randrange(6)] = rng.choice(pieces)
        if rng.random() < 0.5:
            length = max(len(content) - 8 - rng.randrange(100), 0)
            content[:8] = length.to_bytes(8, "little")
        assert refusal_message(path, bytes(content), caplog)


def test_a_shard_without_read_permission_is_a_warning(path, caplog, monkeypatch):
    write_shard(path)

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shards, "read_verified", denied)
    assert shards.read(path, "c") is None
    (line,) = messages(caplog)
    assert f"{path} cannot be read and are encoded again: Permission denied" in line


# -------------------------------------------------------------------------------------------------------------- write


@pytest.fixture(autouse=True)
def forget_cleaned_folders() -> None:
    """Forget which folders were cleaned, so that the next write removes leftovers, as in a new process."""
    files._remove_leftovers.cache_clear()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("has_previous", [False, True])
def test_a_failed_write_keeps_the_previous_shard(path, empty_cache, monkeypatch, caplog, error, has_previous):
    if has_previous:
        write_shard(path)

    def failing(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        if isinstance(error, OSError):
            write_shard(path, {"vectors": np.zeros(1)})
            assert messages(caplog) == [f"vectors cannot be cached in {path.parent}: No space left on device"]
        else:
            with pytest.raises(KeyboardInterrupt):
                write_shard(path, {"vectors": np.zeros(1)})
    assert file_names(empty_cache) == [path.name] * has_previous
    if has_previous:
        np.testing.assert_array_equal(shards.read(path, "c")[0]["vectors"], VECTORS["vectors"])


def test_rewriting_a_shard_replaces_the_file_and_leaves_no_other(path, empty_cache):
    before = write_shard(path).stat().st_ino
    arrays = {"vectors": np.ones((2, 2), np.float32)}
    assert write_shard(path, arrays).stat().st_ino != before
    assert file_names(empty_cache) == [path.name]
    np.testing.assert_array_equal(shards.read(path, "c")[0]["vectors"], arrays["vectors"])


def test_a_folder_at_the_path_of_a_shard_is_a_warning(path, empty_cache, caplog):
    path.mkdir(parents=True)
    write_shard(path)
    assert messages(caplog) == [f"vectors cannot be cached in {path.parent}: Is a directory"]
    assert file_names(empty_cache) == []


def test_a_cache_folder_that_is_a_file_is_a_warning(path, empty_cache, caplog):
    empty_cache.write_text("a file")
    write_shard(path)
    assert messages(caplog) == [f"vectors cannot be cached in {path.parent}: Not a directory"]


def test_a_write_removes_old_temporary_files_and_keeps_recent_ones(path, empty_cache):
    for name in (".harness-0123.tmp", ".tmpA1b2C3"):  # of the harness, and of the safetensors library
        write_aged_file(path.with_name(name))
    recent = write_aged_file(path.with_name(".harness-4567.tmp"), days=0.5)
    write_shard(path)
    assert file_names(empty_cache) == sorted([recent.name, path.name])


def test_a_write_to_a_user_folder_removes_only_temporary_files_of_the_harness(tmp_path):
    user_files = [
        write_aged_file(tmp_path / name)
        for name in (".tmp", ".tmpA1b2C3", ".notes.tmp", "harness-1.tmp", "report.html")
    ]
    write_aged_file(tmp_path / ".harness-0123.tmp")
    files.write_atomic(tmp_path / "README.md", b"text")
    assert file_names(tmp_path) == sorted([*(path.name for path in user_files), "README.md"])


def test_write_together_writes_all_files_or_none(tmp_path, monkeypatch):
    contents = {tmp_path / "a" / "one": b"1", tmp_path / "b" / "other": b"2", tmp_path / "a" / "last": b"3"}
    sync, synced = os.fsync, []

    def fsync_failing_third(handle):
        synced.append(handle)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync_failing_third)
        with pytest.raises(StoreError, match="last cannot be written: No space left on device"):
            files.write_together(contents)
    assert file_names(tmp_path) == []
    files.write_together(contents)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents
