"""Processes to be killed with `kill -9`, and what must be true afterwards.

A nursery imports everything once and forks a process for each piece of work, which is then at it within milliseconds:
a moment at random falls into the work and not into the imports.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.embedding_cache import shards
from harness.store import Store

SHARD = 128
TEXTS = [f"text {number} of many" for number in range(5 * SHARD)]
SLOWED_S = 0.05
"""How much longer each shard takes, so that there is time between two of them."""
_SWEEP = ["-m", "retriever=bm25,tiny", "dataset=folder", "timing.threads=1", "timing.repeats=1"]
_SWEEP += ["timing.latency_queries=1", "timing.warmup_documents=0", "metrics=[ndcg@10]"]


class Nursery:
    """Starts processes that do `encode(...)` or `harness ...`, each in a working folder and with a cache of its own."""

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, folder: Path, **work: Any) -> int:
        """The number of a new process; what it says is in `said`, the shards that it encodes in `encoded`."""
        folder.mkdir(exist_ok=True)
        return self._asked({"folder": str(folder), **work})

    def end(self, process: int) -> int:
        """Wait for a process; its exit code, -9 when it was killed."""
        return self._asked({"wait": process})

    def done(self, folder: Path, **work: Any) -> float:
        """Let a process end well; the seconds that it took."""
        start = time.perf_counter()
        code = self.end(self.start(folder, **work))
        assert code == 0, (folder / "said").read_text()
        return time.perf_counter() - start

    def _asked(self, order: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def killed(nursery: Nursery, folder: Path, after_s: float, shards: int = 0, **work: Any) -> bool:
    """Start a process and kill it a while after it encoded so many shards; whether it was still at work."""
    process = nursery.start(folder, **work)
    while encoded(folder) < shards:
        time.sleep(0.005)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)  # one that has ended is there until it is waited for
    return nursery.end(process) == -signal.SIGKILL


def kept(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def complete(folder: Path) -> list[str]:
    """Every file below a folder that is not temporary; what a killed process left grows old enough to be removed."""
    names = kept(folder)
    temporary = [name for name in names if Path(name).match(shards.TEMPORARIES)]
    for name in temporary:
        os.utime(folder / name, (0, 0))
    return [name for name in names if name not in temporary]


def encoded(folder: Path) -> int:
    """How many shards the process in this folder has encoded."""
    return len((folder / "encoded").read_text().split()) if (folder / "encoded").exists() else 0


def encode_alone(nursery: Nursery, folder: Path, model: Path) -> tuple[bytes, list[str]]:
    """The vectors and the shards of an undisturbed encode."""
    nursery.done(folder, encode=str(model))
    whole = kept(folder / "cache")
    assert len(whole) == encoded(folder) == len(TEXTS) // SHARD
    return (folder / "vectors.npy").read_bytes(), whole


def kill_encodes(nursery: Nursery, root: Path, model: Path, times: int) -> int:
    """Kill an encode at random moments. Each then goes on where it was and gives the vectors of an undisturbed one.

    How many did.
    """
    work = {"encode": str(model)}
    vectors, whole = encode_alone(nursery, root / "undisturbed", model)
    rng, went_on = random.Random(0), 0
    for number in range(times):
        folder = root / str(number)
        moment = rng.uniform(0, 1.2 * SLOWED_S)  # the next shard has begun by then, or not
        assert killed(nursery, folder, moment, rng.randrange(len(whole) - 1), **work)
        before = complete(folder / "cache")
        assert set(before) <= set(whole), "only whole shards under their own names"
        begun = encoded(folder)
        assert begun - len(before) in (0, 1), "at most one shard is lost"
        nursery.done(folder, **work)
        assert encoded(folder) == begun + len(whole) - len(before), "none that was kept is encoded again"
        assert (folder / "vectors.npy").read_bytes() == vectors
        assert_whole(folder / "cache", whole)
        went_on += 1
    return went_on


def assert_whole(cache: Path, names: list[str]) -> None:
    """Every shard is there and intact, and nothing else."""
    assert kept(cache) == names
    for name in names:
        shards.read_verified(cache / name)


@dataclass(frozen=True)
class Sweep:
    """A real command over four cells, and what an undisturbed run of it gave."""

    arguments: list[str]
    took_s: float
    numbers: dict[str, Any]
    shards: list[str]


def undisturbed(nursery: Nursery, root: Path, model: Path) -> Sweep:
    """Two collections, two retrievers."""
    write_numbered(root / "a", 2 * SHARD, 5)
    write_numbered(root / "b", 3 * SHARD, 7)
    (root / "conf" / "retriever").mkdir(parents=True)
    (root / "conf" / "retriever" / "tiny.yaml").write_text(
        f"defaults: [minilm, _self_]\nencoder: {{model: {model}, package: null, device: cpu}}\n"
    )
    arguments = [f"--config-dir={root / 'conf'}", *_SWEEP, f"dataset.path={root / 'a'},{root / 'b'}"]
    took = nursery.done(root / "undisturbed", harness=arguments)
    return Sweep(arguments, took, numbers(root / "undisturbed"), kept(root / "undisturbed" / "cache"))


def write_numbered(folder: Path, documents: int, queries: int) -> None:
    """A collection in BEIR's layout of short documents that have a few words in common."""
    rng = random.Random(documents)
    words = [f"word{number}" for number in range(40)]
    (folder / "qrels").mkdir(parents=True)
    for name, n, length in (("corpus", documents, 9), ("queries", queries, 3)):
        rows = ({"_id": f"{name[0]}{number}", "text": " ".join(rng.choices(words, k=length))} for number in range(n))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{number}\tc{rng.randrange(documents)}\t1\n" for number in range(queries) for _ in range(4))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")


def numbers(folder: Path) -> dict[str, Any]:
    """By cell: the metrics and the run to the last bit."""
    root = folder / "results"
    everything = list(Store(root).records())
    records = [record for record in everything if record.status == "ok"]
    assert all(record.error.startswith("ProcessDied") for record in everything if record.status != "ok")
    found = {record.id: (record.metrics, (root / record.files.run).read_bytes()) for record in records}
    assert len(found) == len(records), "no cell twice"
    return found


def kill_sweeps(nursery: Nursery, root: Path, model: Path, times: int) -> int:
    """Kill a sweep at random moments. The same command then measures what is missing and gives the same numbers.

    How many were at work then.
    """
    sweep = undisturbed(nursery, root, model)
    assert len(sweep.numbers) == 4
    assert len(sweep.shards) == 5
    rng, hit = random.Random(1), 0
    for number in range(times):
        folder = root / str(number)
        hit += killed(nursery, folder, rng.uniform(0, 0.8 * sweep.took_s), harness=sweep.arguments)
        complete(folder / "results")
        before, shards_before, begun = numbers(folder), complete(folder / "cache"), encoded(folder)
        assert before.items() <= sweep.numbers.items()
        lost = begun - len(shards_before)
        assert lost in (0, 1), "at most one shard is lost"
        nursery.done(folder, harness=sweep.arguments)
        assert numbers(folder) == sweep.numbers
        assert (folder / "said").read_text().count("to measure again, add resume=false") == len(before), (
            "none is measured again"
        )
        assert encoded(folder) == lost + len(sweep.shards), "no other shard is encoded again"
        assert_whole(folder / "cache", sweep.shards)
        assert not (found := stray(folder / "results")), found
    return hit


def stray(results: Path) -> list[str]:
    """Files of a results folder that no record names, and that are no sweep's own notes."""
    named = {path for record in Store(results).records() for path in record.files.paths().values()}
    others = [name for name in kept(results) if name not in named]
    return [name for name in others if not re.fullmatch(r"logs/\w+/(multirun\.yaml|\d+\.record)", name)]


# --------------------------------------------------------------------------------------- inside the nursery's process


def _encode(model: str) -> int:
    from harness.encoders.dense import DenseEncoder
    from harness.types import StringColumn

    vectors = DenseEncoder(model, device="cpu").encode(StringColumn(TEXTS), "document")
    np.save("vectors.npy", vectors.numpy())
    return 0


def _harness(arguments: list[str]) -> int:
    from harness.cli import run

    return run.main(arguments)


def _slowed() -> None:
    """Small shards, each of which is noted and takes a while longer."""
    from harness.embedding_cache import cache
    from harness.encoders.dense import DenseEncoder

    assert cache.encoded.__kwdefaults__ is not None
    cache.encoded.__kwdefaults__["shard"] = SHARD
    join = DenseEncoder._join

    def slowed(self: Any, found: Any, n: int) -> Any:
        if n == SHARD:
            with Path("encoded").open("a") as log:
                log.write("x\n")
            time.sleep(SLOWED_S)
        return join(self, found, n)

    DenseEncoder._join = slowed  # type: ignore[method-assign]


def _child(order: Mapping[str, Any]) -> None:
    code = 1
    try:
        os.chdir(order["folder"])
        os.environ["HARNESS_CACHE"] = "cache"
        said = os.open("said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (0, 1, 2):
            os.dup2(said, stream)
        work: Callable[[Any], int]
        work, given = (_encode, order["encode"]) if "encode" in order else (_harness, order["harness"])
        code = work(given)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _nurse() -> None:
    import harness.retrievers.bm25
    import harness.retrievers.dense  # noqa: F401
    from harness.config import build
    from harness.encoders.dense import DenseEncoder
    from harness.types import StringColumn

    _slowed()
    build.composed(["retriever=bm25", "dataset=folder", "dataset.path=x"])
    DenseEncoder(sys.argv[1], device="cpu", cache=False).encode(StringColumn(TEXTS[:2]), "document")
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        elif process := os.fork():
            print(process, flush=True)
        else:
            _child(order)
    os._exit(0)


if __name__ == "__main__":
    _nurse()
