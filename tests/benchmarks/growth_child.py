"""Index and search one corpus size in a separate process, and measure time, memory and the machine's peak rates.

    python tests/benchmarks/growth_child.py bm25 100000
    python tests/benchmarks/growth_child.py dense 100000

Prints one JSON object: seconds, bytes, bytes/s and operations/s.
"""

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from harness.environment import cores
from harness.instrument import recording
from harness.retrievers.bm25 import BM25
from harness.retrievers.dense import Dense
from harness.search.topk import run_in_blocks
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Queries

K = 100
QUERIES = 1_000
DIMENSIONS = 384
WORDS = 500_000
COMMON = 10  # the most frequent words, which no query contains
PER_DOCUMENT = 50
PER_QUERY = 8
BLOCK = 20_000


def memory(field: str) -> int:
    """Return the memory of this process in bytes: VmRSS is the current value, VmHWM the peak."""
    with contextlib.suppress(OSError):
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ids(n: int, letter: str) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(np.arange(n)).cast(pa.string()), "")


def zipf_texts(n: int, words: int, lowest: int, seed: int) -> pa.ChunkedArray:
    """Return texts of about `words` words; the frequency of rank r is proportional to 1 / r, from rank `lowest` on."""
    rng, vocabulary = np.random.default_rng(seed), pa.array([f"w{rank:x}" for rank in range(WORDS)])
    blocks = []
    for start in range(0, n, BLOCK):
        ends = np.cumsum(rng.poisson(words, min(BLOCK, n - start)))
        ranks = np.exp(rng.uniform(np.log(max(1, lowest)), np.log(WORDS), ends[-1])).astype(np.int32) - 1
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
        blocks.append(pc.binary_join(pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(ranks))), " "))
    return pa.chunked_array(blocks)


def best_rate(work: Callable[[], object], amount: float) -> float:
    """Return the amount per second of the fastest of five runs."""
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return amount / min(seconds)


def copy_bytes_per_s(n: int) -> float:
    """Return bytes read and written per second by numpy's copy on all cores; large n exceed the caches."""
    source = np.ones(min(1 << 26, 1000 * n), np.float32)
    target = np.zeros_like(source)

    def copy_part(start: int, stop: int) -> None:
        target[start:stop] = source[start:stop]

    return best_rate(lambda: run_in_blocks(copy_part, len(source), cores()), 2 * source.nbytes)


def gemm_flops(n: int) -> float:
    """Return float32 operations per second of a square matrix product on all cores."""
    side = min(2048, n // 4)
    matrix = torch.ones((side, side))
    out = torch.empty_like(matrix)
    return best_rate(lambda: torch.mm(matrix, matrix, out=out), 2 * side**3)


def disk_bytes_per_s(n: int) -> float:
    """Return bytes per second written to disk, including fsync."""
    block = os.urandom(min(1 << 26, 1000 * n))

    def write() -> None:
        with tempfile.TemporaryFile() as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())

    return best_rate(write, len(block))


def timed_search(retriever: BM25 | Dense, queries: Queries) -> float:
    """Return the seconds of the search stage, the median of three searches after a warm-up."""
    seconds = []
    for _ in range(4):
        with recording() as recorder:
            retriever.search(queries, K)
        seconds.append(recorder.phase().stages["search"])
    return float(np.median(seconds[1:]))


def bm25(n: int) -> dict[str, float]:
    """Index and search texts with Zipf-distributed words."""
    retriever = BM25(Tokenizer())
    retriever.index(Corpus(["d"], ["warm"]))
    base = memory("VmRSS")
    corpus = Corpus(ids(n, "d"), zipf_texts(n, PER_DOCUMENT, 1, seed=0))
    texts_rss, text_bytes = memory("VmRSS") - base, sum(chunk.nbytes for chunk in corpus.texts.arrow.chunks)
    queries = Queries(ids(QUERIES, "q"), zipf_texts(QUERIES, PER_QUERY, COMMON, seed=1))
    with recording() as recorder:
        retriever.index(corpus)
    phase = recorder.phase()
    search_s = timed_search(retriever, queries)
    query_rows = retriever._tokenizer.transform(queries.texts)
    postings_bytes = 8.0 * sum(retriever._postings.df(term) for term in query_rows.terms.tolist())
    peak = memory("VmHWM")
    return {
        "encode_s": phase.stages["encode"],
        "build_s": phase.stages["build"],
        "search_s": search_s,
        "index_cpu_s": phase.cpu_s,
        "index_bytes": retriever.nbytes(),
        "text_bytes": text_bytes,
        "texts_rss": texts_rss,
        "peak_rss": peak,
        "base_rss": base,
        "postings_bytes_per_s": postings_bytes / search_s,
        "copy_bytes_per_s": copy_bytes_per_s(n),
        "text_bytes_per_s": text_bytes / phase.stages["encode"],
        "disk_bytes_per_s": disk_bytes_per_s(n),
    }


class RandomEncoder:
    """An encoder of random unit vectors."""

    def encode(self, texts: object, side: str) -> torch.Tensor:
        """Return vectors, shape [texts, 384], generated in place."""
        generator = torch.Generator().manual_seed(len(side))
        vectors = torch.empty((len(texts), DIMENSIONS))  # type: ignore[arg-type]
        for block in torch.split(vectors, BLOCK):
            block.normal_(generator=generator)
            block /= block.norm(dim=1, keepdim=True)
        return vectors


def dense(n: int) -> dict[str, float]:
    """Search random vectors exactly."""
    retriever = Dense(RandomEncoder())
    retriever.index(Corpus(["d"], ["warm"]))
    base = memory("VmRSS")
    text = pa.array(["text"]).take(pa.array(np.zeros(n, np.int32)))
    corpus = Corpus(ids(n, "d"), text)
    retriever.index(corpus)
    search_s = timed_search(retriever, Queries(ids(QUERIES, "q"), text.slice(0, 1).take(pa.array([0] * QUERIES))))
    return {
        "search_s": search_s,
        "vector_bytes": retriever.nbytes(),
        "peak_rss": memory("VmHWM"),
        "base_rss": base,
        "beyond_vectors": memory("VmHWM") - retriever.nbytes(),
        "product_flops": 2.0 * QUERIES * n * DIMENSIONS / search_s,
        "gemm_flops": gemm_flops(n),
    }


if __name__ == "__main__":
    print(json.dumps({"bm25": bm25, "dense": dense}[sys.argv[1]](int(sys.argv[2]))))
