"""Tests of peak memory at 30,000 documents and its growth per document, each retriever in a separate process."""

import json
import subprocess
import sys
from statistics import median

import pytest

RETRIEVERS = ("bm25", "minilm", "splade_tiny", "colbert_minilm", "hybrid_three", "rerank_colbert_minilm")
FEW, MANY = 10_000, 30_000
CHILD = """
import contextlib, json, resource, sys
from harness.config import build
from harness.embedding_cache import cache
from harness.types import Corpus, Queries
name, n = sys.argv[1], int(sys.argv[2])
corpus = Corpus(
    [f"d{i}" for i in range(n)],
    [f"term{i} the quick brown fox jumps over a lazy dog near the river bank word{i % 997}" for i in range(n)],
)
retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
with cache.using("off"):
    retriever.index(corpus)
retriever.search(Queries(["q"], ["term7 fox near the bank"]), 100)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with contextlib.suppress(OSError):  # ru_maxrss includes the memory of the parent process
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024
print(json.dumps({"peak": peak, "index": retriever.nbytes()}))
"""


def measure_memory(name, n):
    done = subprocess.run([sys.executable, "-c", CHILD, name, str(n)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", RETRIEVERS)
def test_memory_growth_is_limited_by_the_growth_of_the_index(name, measuring, models, capsys):
    if not measuring:
        pytest.skip("only with --benchmark-enable: it encodes 40,000 documents")
    few, many = [], []
    for _ in range(3):  # peaks vary by more than 100 MB between runs: repeat if the growth is too high
        few.append(measure_memory(name, FEW))
        many.append(measure_memory(name, MANY))
        growth, index = (difference(few, many, key) / (MANY - FEW) for key in ("peak", "index"))
        if growth < 3 * index + 4_000:
            break
    with capsys.disabled():
        peak, whole = (median(run[key] for run in many) / 1e6 for key in ("peak", "index"))
        print(f"\n{name}: peak {peak:,.0f} MB at 30,000 documents, {growth:,.0f} bytes more per document; ")
        print(f"  index {whole:,.0f} MB, {index:,.0f} bytes per document; {len(many)} runs")
    assert growth < 3 * index + 4_000


def difference(few, many, key):
    """Return the difference of the medians of the runs so far."""
    return median(run[key] for run in many) - median(run[key] for run in few)
