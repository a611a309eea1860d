"""Kill encodings and sweeps with SIGKILL at random moments, and check that the same command completes them."""

import os
import random
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.embedding_cache import shards
from harness.store import Store
from support.datasets import write_random_beir
from support.fork_server import ENCODED_SHARDS, OUTPUT, SHARD_DELAY_S, SHARD_SIZE, TEXTS, ForkServer

_SWEEP = ["-m", "retriever=bm25,tiny", "dataset=folder", "timing.threads=1", "timing.repeats=1"]
_SWEEP += ["timing.latency_queries=1", "timing.warmup_documents=0", "metrics=[ndcg@10]"]


def run_and_kill(server: ForkServer, folder: Path, delay_s: float, n_shards: int = 0, **work: Any) -> bool:
    """Kill a process `delay_s` seconds after it encoded `n_shards` shards; return True if it had not ended before."""
    process = server.start(folder, **work)
    while count_encoded_shards(folder) < n_shards:
        time.sleep(0.005)
    time.sleep(delay_s)
    os.kill(process, signal.SIGKILL)  # a process that has ended exists until it is waited for
    return server.wait(process) == -signal.SIGKILL


def files_below(folder: Path) -> list[str]:
    """Return the relative path of every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def complete_files(folder: Path) -> list[str]:
    """Return the files below a folder that are not temporary, and make the temporary ones old enough to be removed."""
    names = files_below(folder)
    temporary = [name for name in names if Path(name).match(shards.TEMPORARIES)]
    for name in temporary:
        os.utime(folder / name, (0, 0))
    return [name for name in names if name not in temporary]


def count_encoded_shards(folder: Path) -> int:
    """Return the number of shards that processes have encoded in this folder."""
    path = folder / ENCODED_SHARDS
    return len(path.read_text().split()) if path.exists() else 0


def encode_uninterrupted(server: ForkServer, folder: Path, model: Path) -> tuple[bytes, list[str]]:
    """Return the vectors, as the bytes of an .npy file, and the shards of an encoding that is not killed."""
    server.run(folder, encode=str(model))
    shard_files = files_below(folder / "cache")
    assert len(shard_files) == count_encoded_shards(folder) == len(TEXTS) // SHARD_SIZE
    return (folder / "vectors.npy").read_bytes(), shard_files


def kill_encodes(server: ForkServer, root: Path, model: Path, times: int) -> int:
    """Kill an encoding at random moments, check that the next one resumes it, and return how many resumed.

    The next one must give the vectors of an uninterrupted encoding and encode no stored shard again.
    """
    work = {"encode": str(model)}
    vectors, shard_files = encode_uninterrupted(server, root / "uninterrupted", model)
    rng, resumed = random.Random(0), 0
    for number in range(times):
        folder = root / str(number)
        delay_s = rng.uniform(0, 1.2 * SHARD_DELAY_S)  # the next shard may or may not have begun by then
        assert run_and_kill(server, folder, delay_s, rng.randrange(len(shard_files) - 1), **work)
        stored = complete_files(folder / "cache")
        assert set(stored) <= set(shard_files), "only complete shards have their final names"
        n_encoded = count_encoded_shards(folder)
        assert n_encoded - len(stored) in (0, 1), "at most one shard is lost"
        server.run(folder, **work)
        n_missing = len(shard_files) - len(stored)
        assert count_encoded_shards(folder) == n_encoded + n_missing, "no stored shard is encoded again"
        assert (folder / "vectors.npy").read_bytes() == vectors
        assert_shards_intact(folder / "cache", shard_files)
        resumed += 1
    return resumed


def assert_shards_intact(cache: Path, names: list[str]) -> None:
    """Check that the cache holds these shards, each with the right checksum, and nothing else."""
    assert files_below(cache) == names
    for name in names:
        shards.read_verified(cache / name)


@dataclass(frozen=True)
class Sweep:
    """A sweep of two retrievers over two datasets, and the results of an uninterrupted run of it."""

    arguments: list[str]
    seconds: float
    results: dict[str, Any]
    shard_files: list[str]


def run_uninterrupted(server: ForkServer, root: Path, model: Path) -> Sweep:
    """Write the sweep's datasets and its config into `root` and run it."""
    write_random_beir(root / "a", 2 * SHARD_SIZE, 5)
    write_random_beir(root / "b", 3 * SHARD_SIZE, 7)
    (root / "conf" / "retriever").mkdir(parents=True)
    (root / "conf" / "retriever" / "tiny.yaml").write_text(
        f"defaults: [minilm, _self_]\nencoder: {{model: {model}, package: null, device: cpu}}\n"
    )
    arguments = [f"--config-dir={root / 'conf'}", *_SWEEP, f"dataset.path={root / 'a'},{root / 'b'}"]
    folder = root / "uninterrupted"
    seconds = server.run(folder, harness=arguments)
    return Sweep(arguments, seconds, metrics_and_runs(folder), files_below(folder / "cache"))


def metrics_and_runs(folder: Path) -> dict[str, Any]:
    """Return the metrics and the bytes of the run file of each evaluation, by the record's id."""
    root = folder / "results"
    all_records = list(Store(root).records())
    records = [record for record in all_records if record.status == "ok"]
    assert all(record.error.startswith("ProcessDied") for record in all_records if record.status != "ok")
    results = {record.id: (record.metrics, (root / record.files.run).read_bytes()) for record in records}
    assert len(results) == len(records), "no evaluation is stored twice"
    return results


def kill_sweeps(server: ForkServer, root: Path, model: Path, times: int) -> int:
    """Kill a sweep at random moments, check that the same command completes it, and return how many were still running.

    The command must run only the missing evaluations and give the results of an uninterrupted sweep.
    """
    sweep = run_uninterrupted(server, root, model)
    assert len(sweep.results) == 4
    assert len(sweep.shard_files) == 5
    rng, n_killed = random.Random(1), 0
    for number in range(times):
        folder = root / str(number)
        n_killed += run_and_kill(server, folder, rng.uniform(0, 0.8 * sweep.seconds), harness=sweep.arguments)
        complete_files(folder / "results")
        stored = metrics_and_runs(folder)
        n_lost = count_encoded_shards(folder) - len(complete_files(folder / "cache"))
        assert stored.items() <= sweep.results.items()
        assert n_lost in (0, 1), "at most one shard is lost"
        server.run(folder, harness=sweep.arguments)
        assert_completed(folder, sweep, n_stored=len(stored), n_lost=n_lost)
    return n_killed


def assert_completed(folder: Path, sweep: Sweep, n_stored: int, n_lost: int) -> None:
    """Check that a resumed sweep has every result, and repeated none of the `n_stored` evaluations or other shards."""
    assert metrics_and_runs(folder) == sweep.results
    reused = (folder / OUTPUT).read_text().count("to measure again, add resume=false")
    assert reused == n_stored, "no stored evaluation is measured again"
    assert count_encoded_shards(folder) == n_lost + len(sweep.shard_files), "no other shard is encoded again"
    assert_shards_intact(folder / "cache", sweep.shard_files)
    assert unreferenced_files(folder / "results") == []


def unreferenced_files(results: Path) -> list[str]:
    """Return the files of a results folder that no record names, the logs of sweeps left out."""
    named = {path for record in Store(results).records() for path in record.files.paths().values()}
    unnamed = [name for name in files_below(results) if name not in named]
    return [name for name in unnamed if not re.fullmatch(r"logs/\w+/(multirun\.yaml|\d+\.record)", name)]
