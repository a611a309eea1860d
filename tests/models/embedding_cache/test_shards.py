"""Shards: atomic, memory-mapped and verified; listing and pruning the cache; atomic writes of files in general."""

import errno
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from harness import __main__, files
from harness.embedding_cache import shards
from harness.errors import StoreError
from harness.types import Phase

COST = Phase(wall_s=1.5, cpu_s=2.0, stages={"encode": 1.5}, counts={"tokens": 7})
VECTORS = {"vectors": np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)}
ARRAYS = {
    "dense": VECTORS,
    "sparse": {
        "counts": np.full(5, 2, np.int32),
        "terms": np.arange(10, dtype=np.int64),
        "weights": np.linspace(0, 1, 10, dtype=np.float16),
        "seen": np.array([True, False, True]),
    },
    "fortran": {"vectors": np.arange(12, dtype=np.float16).reshape(3, 4).T},
    "strided": {"vectors": np.arange(24, dtype=np.int16).reshape(4, 6)[:, ::2]},
    "empty": {"counts": np.zeros(4, np.int64), "vectors": np.empty((0, 4), np.float16)},
    "nothing at all": {},
    "a number": {"width": np.array(30522)},
    "odd values": {"vectors": np.array([[np.nan, np.inf, -0.0, 1e-45]], np.float32)},
}


@pytest.fixture
def path(empty_cache: Path) -> Path:
    return shards.path_of({"encoder": "e"}, ["a", "b"])


def written(path: Path, arrays=VECTORS, conditions="c", identity=None, **settings) -> Path:
    shards.write(path, identity or {"encoder": "e"}, arrays, COST, conditions, **settings)
    return path


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("harness")]


# --------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_bit_for_bit_as_views_of_the_file(path, name):
    arrays, cost, foreign_machine = shards.read(written(path, ARRAYS[name]), "c")
    assert (cost, foreign_machine) == (COST, False)
    assert set(arrays) == set(ARRAYS[name])
    for key, array in arrays.items():
        first = ARRAYS[name][key]
        assert (array.dtype, array.shape) == (first.dtype, first.shape)
        assert array.tobytes() == first.tobytes()
        assert not array.flags.owndata, "it is no copy"
        assert array.flags.writeable, "torch warns of an array that it may not write"
        assert array.flags.aligned
        if array.shape:
            torch.from_numpy(array)


def test_what_is_written_into_an_array_does_not_reach_the_file(path):
    arrays, *_ = shards.read(written(path), "c")
    arrays["vectors"][:] = 0
    again, *_ = shards.read(path, "c")
    np.testing.assert_array_equal(again["vectors"], VECTORS["vectors"])


def test_an_array_outlives_its_file(path):
    arrays, *_ = shards.read(written(path), "c")
    path.unlink()
    np.testing.assert_array_equal(arrays["vectors"], VECTORS["vectors"])


@pytest.mark.parametrize("name", ARRAYS)
def test_the_formats_own_library_reads_the_same(path, name):
    with safe_open(written(path, ARRAYS[name]), framework="numpy") as file:
        for key, first in ARRAYS[name].items():
            assert file.get_tensor(key).tobytes() == first.tobytes()
        assert json.loads(file.metadata()["identity"]) == {"encoder": "e"}


def test_a_dtype_that_the_format_lacks_is_a_warning_and_no_file(path, empty_cache, caplog):
    written(path, {"vectors": np.zeros(2, "U3")})
    assert everything(empty_cache) == []
    (line,) = said(caplog)
    assert line.startswith(f"vectors cannot be cached in {path.parent}: ")
    assert "str96" in line


def test_a_dtype_that_numpy_lacks_is_a_warning(path, caplog):
    path.parent.mkdir(parents=True)
    assert "BF16" in refused(path, with_header({"a": array(dtype="BF16", offsets=[0, 4])}, bytes(4)), caplog)


def test_big_endian_arrays_come_back_with_their_values(path):
    arrays, *_ = shards.read(written(path, {"vectors": np.arange(3, dtype=">f4")}), "c")
    assert arrays["vectors"].tolist() == [0, 1, 2]


def test_a_shard_has_the_permissions_of_any_new_file(path, tmp_path):
    (tmp_path / "file").touch()
    assert written(path).stat().st_mode == (tmp_path / "file").stat().st_mode


WRITES = """
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


def test_writing_makes_no_copy_of_the_arrays(path):
    done = subprocess.run([sys.executable, "-c", WRITES, str(path)], capture_output=True, text=True, check=True)
    assert path.stat().st_size > 1 << 26
    assert float(done.stdout) < 0.5, "growth of the peak memory in sizes of the array"


def test_reading_maps_the_file_into_memory(path):
    written(path, {"vectors": np.ones((1 << 20, 8), np.float32)})
    tracemalloc.start()
    arrays, *_ = shards.read(path, "c")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["vectors"].nbytes == 1 << 25
    assert peak < 1 << 20


def test_what_was_read_was_used(path):
    os.utime(written(path), (1, 1))
    shards.read(path, "other conditions")
    assert path.stat().st_mtime == 1
    shards.read(path, "c")
    assert time.time() - path.stat().st_mtime < 60


def test_names_for_people_change_no_key(path, empty_cache):
    written(path, about={"model": "org/name"})
    assert json.loads(shards.read_header(path).metadata["about"]) == {"model": "org/name"}
    assert shards.read(path, "c")


def test_what_is_not_there_is_no_damage(path, empty_cache, caplog):
    assert shards.read(path, "c") is None
    empty_cache.write_text("a file")
    assert shards.read(path, "c") is None
    assert said(caplog) == []


# ------------------------------------------------------------------------------------------------------------- damage


def refused(path: Path, content: bytes, caplog) -> str:
    """What is said of a shard with this content."""
    path.write_bytes(content)
    caplog.clear()
    assert shards.read(path, "c") is None
    (line,) = said(caplog)
    assert line.startswith(f"cached vectors {path} are damaged and are encoded again: ")
    return line.rpartition("again: ")[2]


def test_every_truncation_and_every_flipped_bit_of_a_file_is_found(path, caplog):
    whole = written(path, {"vectors": np.arange(6, dtype=np.float32)}).read_bytes()
    rng = random.Random(0)
    for length in [0, 1, 7, 8, 9, len(whole) - 1, *rng.choices(range(len(whole)), k=60)]:
        assert refused(path, whole[:length], caplog)
    assert refused(path, whole + b"\0", caplog)
    for place in range(len(whole)):
        bit = 1 << rng.randrange(8)
        flipped = whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
        header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
        if 8 + len(header.rstrip()) <= place < 8 + len(header) and flipped[place : place + 1] in b"\t\n\r ":
            continue  # one blank for another behind the header
        assert refused(path, flipped, caplog)


def with_header(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def array(shape=(2,), offsets=(0, 8), dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


HOSTILE = {
    "a header of all memory": with_header({}, length=2**63),
    "a header of a gigabyte": with_header({}, length=1 << 30),
    "a header over the limit": with_header(b"{}" + b" " * (1 << 20)),
    "no JSON": with_header(b"\xff\xfe{"),
    "no object": with_header([]),
    "nested deeply": with_header(b'{"a":' + b"[" * 100_000),
    "a number of many digits": with_header(b'{"a":' + b"9" * 10_000 + b"}"),
    "metadata that are a list": with_header({"__metadata__": []}),
    "metadata that are numbers": with_header({"__metadata__": {"checksum": 1}}),
    "an array that is a number": with_header({"a": 1}),
    "an array without offsets": with_header({"a": {"dtype": "F32", "shape": [2]}}),
    "an array with more": with_header({"a": array(more=1)}, bytes(8)),
    "an unknown dtype": with_header({"a": array(dtype="BF16", offsets=[0, 4])}, bytes(4)),
    "a dtype that is a list": with_header({"a": array(dtype=["F32"])}, bytes(8)),
    "a negative size": with_header({"a": array(shape=[-2])}, bytes(8)),
    "two negative sizes": with_header({"a": array(shape=[-1, -2])}, bytes(8)),
    "a size that is true": with_header({"a": array(shape=[True, 2])}, bytes(8)),
    "a size with a fraction": with_header({"a": array(shape=[2.0])}, bytes(8)),
    "a size beyond memory": with_header({"a": array(shape=[2**62, 2**62])}, bytes(8)),
    "sizes that wrap around": with_header({"a": array(shape=[2**47, 2**47, 2**47], offsets=[0, 0])}),
    "no rows of a size beyond memory": with_header({"a": array(shape=[0, 2**47, 2**47, 2**47], offsets=[0, 0])}),
    "many dimensions": with_header({"a": array(shape=[1] * 100 + [2])}, bytes(8)),
    "negative offsets": with_header({"a": array(offsets=[-8, 0])}, bytes(8)),
    "offsets backwards": with_header({"a": array(offsets=[8, 0])}, bytes(8)),
    "offsets beyond the file": with_header({"a": array(offsets=[8, 16])}, bytes(8)),
    "three offsets": with_header({"a": array(offsets=[0, 8, 8])}, bytes(8)),
    "a shape that is none": with_header({"a": array(shape=None)}, bytes(8)),
    "a gap": with_header({"a": array(), "b": array(offsets=[12, 20])}, bytes(20)),
    "an overlap": with_header({"a": array(), "b": array(offsets=[4, 12])}, bytes(12)),
    "bytes that nobody names": with_header({"a": array()}, bytes(9)),
    "a name that is no text": with_header(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "nothing of ours": with_header({"a": array()}, bytes(8)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_malformed_file_is_a_warning(path, caplog, name):
    path.parent.mkdir(parents=True)
    assert refused(path, HOSTILE[name], caplog)


def test_a_file_with_a_true_checksum_and_false_contents_is_a_warning(path, caplog):
    path.parent.mkdir(parents=True)
    for metadata in ({}, {"cost": "{}"}, {"cost": "[" * 5000}, {"cost": "\ud800"}, {"cost": COST.model_dump_json()}):
        checksum = shards._checksum({}, metadata)
        assert refused(path, with_header({"__metadata__": {**metadata, "checksum": checksum}}), caplog)


def test_mixed_up_bytes_never_end_in_anything_but_a_warning(path, caplog):
    """Pieces of a good header put together at random, with the file's length made to fit or not."""
    whole = written(path, ARRAYS["sparse"]).read_bytes()
    words = [b'"F32"', b"-1", b"0", b"[", b"]", b"{", b"}", b":", b",", b"1e400", b"null", b'"__metadata__"', b"\xff"]
    rng = random.Random(1)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            begin = rng.randrange(len(content))
            content[begin : begin + rng.randrange(6)] = rng.choice(words)
        if rng.random() < 0.5:
            length = max(len(content) - 8 - rng.randrange(100), 0)
            content[:8] = length.to_bytes(8, "little")
        assert refused(path, bytes(content), caplog)


def test_a_file_that_may_not_be_read_is_a_warning(path, caplog, monkeypatch):
    written(path)

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shards, "read_verified", denied)
    assert shards.read(path, "c") is None
    assert said(caplog) == [f"cached vectors {path} cannot be read and are encoded again: Permission denied"]


# -------------------------------------------------------------------------------------------------------------- write


@pytest.fixture(autouse=True)
def first_write() -> None:
    """As in a new process, the first write to a folder removes its leftovers."""
    files._remove_leftovers.cache_clear()


def aged(path: Path, days: float = 2) -> Path:
    """Create a file that was not written to for some days."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("renewed", [False, True])
def test_a_write_that_fails_leaves_what_was_there(path, empty_cache, monkeypatch, caplog, error, renewed):
    if renewed:
        written(path)

    def failing(*_):
        raise error

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", failing)
        if isinstance(error, OSError):
            written(path, {"vectors": np.zeros(1)})
            assert said(caplog) == [f"vectors cannot be cached in {path.parent}: No space left on device"]
        else:
            with pytest.raises(KeyboardInterrupt):
                written(path, {"vectors": np.zeros(1)})
    assert everything(empty_cache) == [path.name] * renewed
    if renewed:
        np.testing.assert_array_equal(shards.read(path, "c")[0]["vectors"], VECTORS["vectors"])


def test_a_shard_is_renewed_in_one_step_and_nothing_else_is_left(path, empty_cache):
    before = written(path).stat().st_ino
    renewed = {"vectors": np.ones((2, 2), np.float32)}
    assert written(path, renewed).stat().st_ino != before
    assert everything(empty_cache) == [path.name]
    np.testing.assert_array_equal(shards.read(path, "c")[0]["vectors"], renewed["vectors"])


def test_a_folder_in_the_place_of_a_shard_is_a_warning_and_no_stray_file(path, empty_cache, caplog):
    path.mkdir(parents=True)
    written(path)
    assert said(caplog) == [f"vectors cannot be cached in {path.parent}: Is a directory"]
    assert everything(empty_cache) == []


def test_a_cache_that_is_a_file_is_a_warning(path, empty_cache, caplog):
    empty_cache.write_text("a file")
    written(path)
    assert said(caplog) == [f"vectors cannot be cached in {path.parent}: Not a directory"]


def test_the_next_write_removes_what_killed_processes_left_days_ago_and_nothing_of_a_live_one(path, empty_cache):
    for name in (".harness-0123.tmp", ".tmpA1b2C3"):  # ours, and the safetensors library's
        aged(path.with_name(name))
    live = aged(path.with_name(".harness-4567.tmp"), days=0.5)
    written(path)
    assert everything(empty_cache) == sorted([live.name, path.name])


def test_a_write_to_a_folder_of_the_user_removes_leftovers_and_nothing_else(tmp_path):
    kept = [aged(tmp_path / name) for name in (".tmp", ".tmpA1b2C3", ".notes.tmp", "harness-1.tmp", "report.html")]
    aged(tmp_path / ".harness-0123.tmp")
    files.write_atomic(tmp_path / "README.md", b"text")
    assert everything(tmp_path) == sorted([*(path.name for path in kept), "README.md"])


def test_files_that_belong_together_are_there_together_or_not_at_all(tmp_path, monkeypatch):
    contents = {tmp_path / "a" / "one": b"1", tmp_path / "b" / "other": b"2", tmp_path / "a" / "last": b"3"}
    sync, synced = os.fsync, []

    def full(handle):
        synced.append(handle)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="last cannot be written: No space left on device"):
            files.write_together(contents)
    assert everything(tmp_path) == []
    files.write_together(contents)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents


# ------------------------------------------------------------------------------------------------------ list and prune


def harness(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["harness", "cache", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    return stop.value.code


DAY = 86_400


@pytest.fixture
def kept(empty_cache, monkeypatch) -> dict[str, Path]:
    """Three shards of two models; one was made on another machine, and they were used 1, 2 and 3 days ago."""
    dense = {"encoder": "DenseEncoder", "weights": "ab" * 16, "dtype": "torch.float32", "prompt": "say: ", "side": "x"}
    sparse = {"encoder": "SparseEncoder", "weights": "cd" * 16, "max_length": 7, "prompt": "", "side": "document"}
    made = {}
    with monkeypatch.context() as there:
        there.setattr(shards, "fingerprint", lambda: "another machine")
        made["elsewhere"] = written(shards.path_of(dense, ["a"]), identity=dense, about={"model": "org/Dense"})
    made["here"] = written(shards.path_of(dense, ["b"]), identity=dense, about={"model": "org/Dense"})
    made["sparse"] = written(shards.path_of(sparse, ["a"]), ARRAYS["sparse"], identity=sparse)
    for age, path in enumerate(made.values(), start=1):
        os.utime(path, (time.time() - age * DAY,) * 2)
    return made


def test_list_tells_what_is_kept_by_what_made_it(kept, empty_cache, monkeypatch, capsys):
    assert harness(monkeypatch, "list", "--json") == 0
    dense, sparse = json.loads(capsys.readouterr().out)
    assert (dense["model"], dense["encoder"], dense["dtype"]) == ("org/Dense", "DenseEncoder", "float32")
    assert (dense["side"], dense["prompt"], dense["weights"]) == ("x", "say: ", "ab" * 16)
    assert (dense["shards"], dense["texts"], dense["environment"]) == (2, 400, "both")
    assert dense["bytes"] == sum(kept[name].stat().st_size for name in ("here", "elsewhere"))
    assert (sparse["model"], sparse["shards"], sparse["texts"]) == ("weights cdcdcdcdcdcd", 1, 5)
    assert (sparse["environment"], sparse["folder"]) == ("here", kept["sparse"].parent.name)
    assert dense["last_used"] > sparse["last_used"]
    assert harness(monkeypatch, "list") == 0
    heading, first, second, _, total = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == "model encoder side dtype settings shards texts MB last used made"
    assert first.startswith('org/Dense             DenseEncoder   x         float32  prompt="say: "')
    assert second.split()[-9:-4] == ["document", "-", "max_length=7", "1", "5"]
    assert total == f"3 shards, 0.01 MB in {empty_cache}/embeddings"


def test_list_of_an_empty_cache_and_of_files_that_are_none_of_it(empty_cache, monkeypatch, capsys):
    assert harness(monkeypatch, "list") == 0
    assert capsys.readouterr() == ("", f"no embeddings in {empty_cache}/embeddings\n")
    (empty_cache / "embeddings" / "empty").mkdir(parents=True)
    (empty_cache / "embeddings" / "note.txt").write_text("")
    assert harness(monkeypatch, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_counts_what_it_cannot_read_and_says_how_to_remove_it(kept, monkeypatch, capsys):
    kept["sparse"].write_bytes(b"")
    assert harness(monkeypatch, "list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 cannot be read: harness cache prune --damaged"


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--all"], ["elsewhere", "here", "sparse"]),
        (["--older-than", "1.5"], ["here", "sparse"]),
        (["--older-than", "2.5"], ["sparse"]),
        (["--model", "dense"], ["elsewhere", "here"]),
        (["--model", "CDCD"], ["sparse"]),
        (["--model", "e"], ["elsewhere", "here"]),
        (["--elsewhere"], ["elsewhere"]),
        (["--damaged"], []),
        (["--model", "dense", "--older-than", "1.5"], ["here"]),
        (["--max-gb", "0"], ["elsewhere", "here", "sparse"]),
        (["--max-gb", "1"], []),
        (["--max-gb", "0.0000065"], ["sparse"]),
        (["--max-gb", "0", "--elsewhere"], ["elsewhere"]),
    ],
)
def test_prune_removes_that_to_which_all_that_is_given_applies(kept, empty_cache, monkeypatch, capsys, arguments, gone):
    before = {name: path.stat().st_size for name, path in kept.items()}
    assert harness(monkeypatch, "prune", *arguments, "--dry-run", "--json") == 0
    foretold = json.loads(capsys.readouterr().out)
    assert foretold["dry_run"]
    assert all(path.exists() for path in kept.values())
    assert harness(monkeypatch, "prune", *arguments) == 0
    assert [name for name, path in kept.items() if not path.exists()] == gone
    assert sorted(foretold["removed"]) == sorted(str(kept[name]) for name in gone)
    assert foretold["bytes"] == sum(before[name] for name in gone)
    assert foretold["kept_bytes"] == sum(before.values()) - foretold["bytes"]
    word = "shard" if len(gone) == 1 else "shards"
    assert capsys.readouterr().out.startswith(f"removed: {len(gone)} {word}, {foretold['bytes'] / 1e6:.2f} MB; kept: ")
    left = {path.parent for path in kept.values() if path.exists()}
    assert set((empty_cache / "embeddings").iterdir()) == left, "no empty folder stays"


def test_prune_finds_what_is_damaged_by_its_checksum(kept, monkeypatch, capsys):
    content = bytearray(kept["here"].read_bytes())
    content[-1] ^= 1
    kept["here"].write_bytes(content)
    kept["sparse"].write_bytes(b"short")
    assert harness(monkeypatch, "prune", "--damaged") == 0
    assert [name for name, path in kept.items() if path.exists()] == ["elsewhere"]


def test_prune_removes_the_files_of_killed_processes_and_none_of_a_writing_one(kept, empty_cache, monkeypatch, capsys):
    folder = kept["here"].parent
    aged(folder / ".harness-0123.tmp")
    aged(folder / ".tmpA1b2C3")
    live = aged(folder / ".harness-4567.tmp", days=0.5)
    assert harness(monkeypatch, "prune", "--damaged") == 0
    assert "removed: 2 unfinished files of processes that were killed" in capsys.readouterr().out
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == [live]


def test_prune_with_nothing_chosen_names_the_choices(kept, monkeypatch, capsys):
    assert harness(monkeypatch, "prune") == 2
    assert capsys.readouterr().err == (
        "error: choose which embeddings to remove: --older-than DAYS, --max-gb N, --model TEXT, --damaged, "
        "--elsewhere, --all; to list them: harness cache list\n"
    )
    assert harness(monkeypatch, "prune", "--older-than", "-1") == 2
    assert "-1 must be a number of 0 or more" in capsys.readouterr().err
    assert all(path.exists() for path in kept.values())


@pytest.mark.parametrize("arguments", [["list"], ["prune", "--damaged", "--dry-run"]])
def test_the_cache_is_listed_and_pruned_without_torch(kept, arguments):
    program = (
        "import sys\nfrom harness import __main__\n"
        f"sys.argv = ['harness', 'cache', *{arguments!r}]\n"
        "try: __main__.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'hydra', 'numba', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("model ", "would be removed: 0"))
