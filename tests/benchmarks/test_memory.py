"""Peak memory of each family at 50,000 documents, and its growth per document, each in a process of its own."""

import json
import subprocess
import sys

import pytest

FAMILIES = ("bm25", "minilm", "splade_tiny", "colbert_minilm", "hybrid_three", "rerank_colbert_minilm")
CHILD = """
import json, resource, sys
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
print(json.dumps({"peak": peak, "index": retriever.nbytes()}))
"""


def held(name, n):
    done = subprocess.run([sys.executable, "-c", CHILD, name, str(n)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_memory_grows_by_little_more_than_the_index(name, measuring, models, capsys):
    if not measuring:
        pytest.skip("only with make bench: it encodes 75,000 documents")
    few, many = held(name, 25_000), held(name, 50_000)
    growth, index = (many["peak"] - few["peak"]) / 25_000, (many["index"] - few["index"]) / 25_000
    with capsys.disabled():
        print(f"\n{name}: peak {many['peak'] / 1e6:,.0f} MB at 50,000 documents, {growth:,.0f} bytes a document more; ")
        print(f"  index {many['index'] / 1e6:,.0f} MB, {index:,.0f} bytes a document")
    assert growth < 3 * index + 4_000
