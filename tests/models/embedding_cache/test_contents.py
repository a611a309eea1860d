"""Tests of `harness cache list` and `harness cache prune`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command_line import harness
from support.embedding_shards import ARRAYS, DAY, write_aged_file, write_shard

from harness.embedding_cache import shards


@pytest.fixture
def cached_shards(empty_cache, monkeypatch) -> dict[str, Path]:
    """Write three shards of two models, one as on another machine, last used 1, 2 and 3 days ago."""
    dense = {"encoder": "DenseEncoder", "weights": "ab" * 16, "dtype": "torch.float32", "prompt": "say: ", "side": "x"}
    sparse = {"encoder": "SparseEncoder", "weights": "cd" * 16, "max_length": 7, "prompt": "", "side": "document"}
    paths = {}
    with monkeypatch.context() as patch:
        patch.setattr(shards, "fingerprint", lambda: "another machine")
        paths["foreign"] = write_shard(shards.path_of(dense, ["a"]), identity=dense, about={"model": "org/Dense"})
    paths["local"] = write_shard(shards.path_of(dense, ["b"]), identity=dense, about={"model": "org/Dense"})
    paths["sparse"] = write_shard(shards.path_of(sparse, ["a"]), ARRAYS["sparse"], identity=sparse)
    for age, path in enumerate(paths.values(), start=1):
        os.utime(path, (time.time() - age * DAY,) * 2)
    return paths


def test_list_groups_shards_by_model_and_settings(cached_shards, empty_cache, monkeypatch, capsys):
    assert harness(monkeypatch, "cache", "list", "--json") == 0
    dense, sparse = json.loads(capsys.readouterr().out)
    assert (dense["model"], dense["encoder"], dense["dtype"]) == ("org/Dense", "DenseEncoder", "float32")
    assert (dense["side"], dense["prompt"], dense["weights"]) == ("x", "say: ", "ab" * 16)
    assert (dense["shards"], dense["texts"], dense["environment"]) == (2, 400, "both")
    assert dense["bytes"] == sum(cached_shards[name].stat().st_size for name in ("local", "foreign"))
    assert (sparse["model"], sparse["shards"], sparse["texts"]) == ("weights cdcdcdcdcdcd", 1, 5)
    assert (sparse["environment"], sparse["folder"]) == ("here", cached_shards["sparse"].parent.name)
    assert dense["last_used"] > sparse["last_used"]
    assert harness(monkeypatch, "cache", "list") == 0
    heading, first, second, _, *total = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == "model encoder side dtype settings shards texts MB last used made"
    assert first.startswith('org/Dense             DenseEncoder   x         float32  prompt="say: "')
    assert second.split()[-9:-4] == ["document", "-", "max_length=7", "1", "5"]
    assert "".join(total).replace(" ", "") == f"3shards,0.01MBin{empty_cache}/embeddings", "a long path may be folded"


def test_list_of_an_empty_cache_and_of_unrelated_files(empty_cache, monkeypatch, capsys):
    assert harness(monkeypatch, "cache", "list") == 0
    assert capsys.readouterr() == ("", f"no embeddings in {empty_cache}/embeddings\n")
    (empty_cache / "embeddings" / "empty").mkdir(parents=True)
    (empty_cache / "embeddings" / "note.txt").write_text("")
    assert harness(monkeypatch, "cache", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_counts_unreadable_shards_and_names_the_command_to_remove_them(cached_shards, monkeypatch, capsys):
    cached_shards["sparse"].write_bytes(b"")
    assert harness(monkeypatch, "cache", "list") == 0
    message = capsys.readouterr().out.splitlines()[-1]
    assert message.startswith("1 cannot be read")
    assert "harness cache prune --damaged" in message


@pytest.mark.parametrize(
    ("arguments", "removed"),
    [
        (["--all"], ["foreign", "local", "sparse"]),
        (["--older-than", "1.5"], ["local", "sparse"]),
        (["--older-than", "2.5"], ["sparse"]),
        (["--model", "dense"], ["foreign", "local"]),
        (["--model", "CDCD"], ["sparse"]),
        (["--model", "e"], ["foreign", "local"]),
        (["--elsewhere"], ["foreign"]),
        (["--damaged"], []),
        (["--model", "dense", "--older-than", "1.5"], ["local"]),
        (["--max-gb", "0"], ["foreign", "local", "sparse"]),
        (["--max-gb", "1"], []),
        (["--max-gb", "0.0000065"], ["sparse"]),
        (["--max-gb", "0", "--elsewhere"], ["foreign"]),
    ],
)
def test_prune_removes_shards_that_match_all_options(
    cached_shards, empty_cache, monkeypatch, capsys, arguments, removed
):
    before = {name: path.stat().st_size for name, path in cached_shards.items()}
    assert harness(monkeypatch, "cache", "prune", *arguments, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"]
    assert all(path.exists() for path in cached_shards.values())
    assert harness(monkeypatch, "cache", "prune", *arguments) == 0
    assert [name for name, path in cached_shards.items() if not path.exists()] == removed
    assert sorted(planned["removed"]) == sorted(str(cached_shards[name]) for name in removed)
    assert planned["bytes"] == sum(before[name] for name in removed)
    assert planned["kept_bytes"] == sum(before.values()) - planned["bytes"]
    noun = "shard" if len(removed) == 1 else "shards"
    assert capsys.readouterr().out.startswith(
        f"removed: {len(removed)} {noun}, {planned['bytes'] / 1e6:.2f} MB; kept: "
    )
    remaining = {path.parent for path in cached_shards.values() if path.exists()}
    assert set((empty_cache / "embeddings").iterdir()) == remaining, "empty folders are removed"


def test_prune_damaged_removes_shards_with_a_wrong_checksum(cached_shards, monkeypatch, capsys):
    content = bytearray(cached_shards["local"].read_bytes())
    content[-1] ^= 1
    cached_shards["local"].write_bytes(content)
    cached_shards["sparse"].write_bytes(b"short")
    assert harness(monkeypatch, "cache", "prune", "--damaged") == 0
    assert [name for name, path in cached_shards.items() if path.exists()] == ["foreign"]


def test_prune_removes_old_temporary_files_and_keeps_recent_ones(cached_shards, empty_cache, monkeypatch, capsys):
    folder = cached_shards["local"].parent
    write_aged_file(folder / ".harness-0123.tmp")
    write_aged_file(folder / ".tmpA1b2C3")
    recent = write_aged_file(folder / ".harness-4567.tmp", days=0.5)
    assert harness(monkeypatch, "cache", "prune", "--damaged") == 0
    assert "removed: 2 unfinished files of processes that were killed" in capsys.readouterr().out
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == [recent]


def test_prune_without_options_is_refused_with_the_choices(cached_shards, monkeypatch, capsys):
    assert harness(monkeypatch, "cache", "prune") == 2
    message = capsys.readouterr().err
    for option in ("--older-than DAYS", "--max-gb N", "--model TEXT", "--damaged", "--elsewhere", "--all"):
        assert option in message
    assert "harness cache list" in message
    assert harness(monkeypatch, "cache", "prune", "--older-than", "-1") == 2
    assert "-1 must be a number of 0 or more" in capsys.readouterr().err
    assert all(path.exists() for path in cached_shards.values())


@pytest.mark.parametrize("arguments", [["list"], ["prune", "--damaged", "--dry-run"]])
def test_the_cache_is_listed_and_pruned_without_torch(cached_shards, arguments):
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
