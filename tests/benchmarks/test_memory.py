"""Peak memory of each family at 30,000 documents, and its growth per document, each in a process of its own."""

import json
import subprocess
import sys
from statistics import median

import pytest

FAMILIES = ("bm25", "minilm", "splade_tiny", "colbert_minilm", "hybrid_three", "rerank_colbert_minilm")
FEW, MANY = 10_000, 30_000
CHILD = """
import contextlib, json, resource, sys
from harness.cli import build
from harness.encoders import cache
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
with contextlib.suppress(OSError):  # Linux counts what the parent held before this program began
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024
print(json.dumps({"peak": peak, "index": retriever.nbytes()}))
"""


def held(name, n):
    done = subprocess.run([sys.executable, "-c", CHILD, name, str(n)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_memory_grows_by_little_more_than_the_index(name, measuring, models, capsys):
    if not measuring:
        pytest.skip("only with make bench: it encodes 40,000 documents")
    few, many = [], []
    for _ in range(3):  # a peak differs by more than 100 MB from run to run: one that is too high is measured again
        few.append(held(name, FEW))
        many.append(held(name, MANY))
        growth, index = (difference(few, many, key) / (MANY - FEW) for key in ("peak", "index"))
        if growth < 3 * index + 4_000:
            break
    with capsys.disabled():
        peak, whole = (median(own[key] for own in many) / 1e6 for key in ("peak", "index"))
        print(f"\n{name}: peak {peak:,.0f} MB at 30,000 documents, {growth:,.0f} bytes a document more; ")
        print(f"  index {whole:,.0f} MB, {index:,.0f} bytes a document; {len(many)} runs")
    assert growth < 3 * index + 4_000


def difference(few, many, key):
    """Of the medians of the runs so far."""
    return median(own[key] for own in many) - median(own[key] for own in few)
