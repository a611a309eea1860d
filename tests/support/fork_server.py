"""A fork server: imports everything once and forks a process for each command, which starts within milliseconds.

A process that is killed at a random moment is then killed during its work and not during its imports. The file is also
the program of the server.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

SHARD_SIZE = 128
TEXTS = [f"text {number} of many" for number in range(5 * SHARD_SIZE)]
SHARD_DELAY_S = 0.05
"""Seconds that are added to each shard, so that a process can be killed between two of them."""
OUTPUT = "output.txt"
"""The file with what a process prints."""
ENCODED_SHARDS = "encoded_shards.txt"
"""The file with a line for each shard that a process encoded."""


class ForkServer:
    """Starts processes that encode texts or run the command line, each in a folder and with a cache of its own.

    The work of a process is given as `encode=MODEL_FOLDER` or `harness=ARGUMENTS`.
    """

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(model)],
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
        """Start a process in `folder` and return its id. It writes to the files `OUTPUT` and `ENCODED_SHARDS` there."""
        folder.mkdir(exist_ok=True)
        return self._request({"folder": str(folder), **work})

    def wait(self, process: int) -> int:
        """Wait for a process to end and return its exit code, -9 where it was killed."""
        return self._request({"wait": process})

    def run(self, folder: Path, **work: Any) -> float:
        """Run a process that must succeed, and return the seconds that it took."""
        start = time.perf_counter()
        code = self.wait(self.start(folder, **work))
        assert code == 0, (folder / OUTPUT).read_text()
        return time.perf_counter() - start

    def _request(self, request: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


# ---- inside the server's process


def _encode(model: str) -> int:
    from harness.encoders.dense import DenseEncoder
    from harness.types import StringColumn

    vectors = DenseEncoder(model, device="cpu").encode(StringColumn(TEXTS), "document")
    np.save("vectors.npy", vectors.numpy())
    return 0


def _harness(arguments: list[str]) -> int:
    from harness.cli import run

    return run.main(arguments)


def _delay_and_log_shards() -> None:
    """Make shards small, add a delay to each, and log each to a file."""
    from harness.embedding_cache import cache
    from harness.encoders.dense import DenseEncoder

    assert cache.encoded.__kwdefaults__ is not None
    cache.encoded.__kwdefaults__["shard"] = SHARD_SIZE
    join = DenseEncoder._join

    def join_with_delay(self: Any, parts: Any, n: int) -> Any:
        if n == SHARD_SIZE:
            with Path(ENCODED_SHARDS).open("a") as log:
                log.write("x\n")
            time.sleep(SHARD_DELAY_S)
        return join(self, parts, n)

    DenseEncoder._join = join_with_delay  # type: ignore[method-assign]


def _run_child(request: Mapping[str, Any]) -> None:
    code = 1
    try:
        os.chdir(request["folder"])
        os.environ["HARNESS_CACHE"] = "cache"
        output = os.open(OUTPUT, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (0, 1, 2):
            os.dup2(output, stream)
        work: Callable[[Any], int]
        work, argument = (_encode, request["encode"]) if "encode" in request else (_harness, request["harness"])
        code = work(argument)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import harness.retrievers.bm25
    import harness.retrievers.dense  # noqa: F401
    from harness.config import build
    from harness.encoders.dense import DenseEncoder
    from harness.types import StringColumn

    _delay_and_log_shards()
    build.composed(["retriever=bm25", "dataset=folder", "dataset.path=x"])
    DenseEncoder(sys.argv[1], device="cpu", cache=False).encode(StringColumn(TEXTS[:2]), "document")
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        elif process := os.fork():
            print(process, flush=True)
        else:
            _run_child(request)
    os._exit(0)


if __name__ == "__main__":
    _serve()
