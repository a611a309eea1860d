"""A whole cell against mteb.evaluate, each a process of its own from start to score: wall seconds and peak memory.

make bench      or this file alone: pytest tests/benchmarks/test_mteb_cells.py --benchmark-enable (an hour)
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from support.mteb_tasks import dataset_rows, write_repository

from harness import weights
from harness.config import build
from harness.errors import WeightsError

CHILD = Path(__file__).with_name("mteb_child.py")
PUBLISHED = {("minilm", "SciFact"): 0.64508}


def weights_of(retriever):
    encoder = build.composed([f"retriever={retriever}"])["retriever"].get("encoder")
    if encoder is None:
        return []
    try:
        return [str(weights.find(encoder["model"], build.construct(encoder["package"], "package")).path)]
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.mark.benchmark(group="whole process")
@pytest.mark.parametrize(
    ("retriever", "task", "how"),
    [
        ("bm25_mteb", "NFCorpus", "baseline-bm25s"),
        ("splade_tiny", "NFCorpus", "SparseEncoder of the same weights"),
        ("minilm", "SciFact", "SentenceTransformer of the same weights"),
    ],
)
def test_a_whole_cell_against_mteb(versus, measuring, benchmark, real_dataset, tmp_path, retriever, task, how):
    if not measuring:
        pytest.skip("takes minutes: make bench")
    dataset = real_dataset(task.lower())
    folder = write_repository(tmp_path / task, dataset_rows(dataset))
    found = {"ours": [], "mteb": []}

    def run(side):
        words = [sys.executable, str(CHILD), side, retriever, task, str(folder), *weights_of(retriever)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found[side].append(json.loads(done.stdout.splitlines()[-1]))
        return found[side][-1]["ndcg@10"]

    size = f"{task}: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries"
    own, theirs = versus(lambda: run("ours"), lambda: run("mteb"), 5, of="mteb", how=how, size=size, warm=False)
    peaks = {side: median(one["peak_mb"] for one in told) for side, told in found.items()}
    benchmark.extra_info.update(ours_mb=peaks["ours"], peer_mb=peaks["mteb"], runs=found)
    assert abs(own - theirs) < (0.003 if retriever == "bm25_mteb" else 0.0005)
    if published := PUBLISHED.get((retriever, task)):
        assert abs(own - published) <= 0.001
