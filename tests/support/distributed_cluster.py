"""Run by test_distributed.py in a process of its own: a Ray cluster of two nodes on this machine, and what it gives.

python tests/distributed_cluster.py FOLDER_OF_MODELS SCRATCH_FOLDER    prints one line of JSON
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from harness.config import build
from harness.datasets import stdlib
from harness.distributed import Sharded, cluster, sharded
from harness.encoders.dense import DenseEncoder
from harness.encoders.multi_vector import MultiVectorEncoder
from harness.errors import HarnessError
from harness.instrument import recording
from harness.retrievers.bm25 import BM25
from harness.retrievers.colbert import ColBERT
from harness.retrievers.dense import Dense
from harness.text.tokenizer import Tokenizer

K = 20
CONFIG = BertConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


class Watched(BM25):
    """Notes who indexes what; dies once, half way, in the shard whose first document is `victim`."""

    def __init__(self, folder: Path, dies: str = "never", always: bool = False) -> None:
        super().__init__(Tokenizer())
        self.folder, self.dies, self.always = folder, dies, always

    def index(self, corpus):
        with (self.folder / "indexed").open("a") as file:
            file.write(f"{os.getpid()} {id(self)} {len(corpus)}\n")
        self.first = corpus.ids[0]
        if self.dies == "index":
            super().index(corpus[: len(corpus) // 2])
            self.die()
        if self.dies == "refuse":
            raise HarnessError("this shard is refused")
        super().index(corpus)

    def search(self, queries, k):
        if self.dies == "search":
            super().search(queries[: len(queries) // 2], k)
            self.die()
        return super().search(queries, k)

    def die(self):
        mark = self.folder / f"died in {self.dies}"
        if self.always or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def tiny(models: Path, folder: Path) -> str:
    torch.manual_seed(0)
    BertModel(CONFIG).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2").save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "saved"))
    return str(folder / "saved")


def compared(expected, run, slack: float = 1e-6) -> dict:
    """The greatest difference of a score, and whether the order is the same wherever scores differ by more than it."""
    hit = expected.docs >= 0
    apart = float(np.abs(np.where(hit, expected.scores, 0) - np.where(run.docs >= 0, run.scores, 0)).max())
    clear = np.ones(hit.shape, bool)
    near = np.abs(np.diff(np.where(hit, expected.scores, -1e9), axis=1)) <= slack * np.maximum(
        1, expected.scores[:, 1:]
    )
    clear[:, 1:] &= ~near
    clear[:, :-1] &= ~near
    clear[:, -1] = False  # what was cut off may be as good
    return {
        "apart": apart / max(1.0, float(expected.scores[hit].max())),
        "same": bool((expected.docs == run.docs)[clear | ~hit].all()),
        "equal": bool((expected.docs == run.docs).all()),
        "compared": float(clear.mean()),
    }


def families(model: str):
    yield "bm25", lambda: BM25(Tokenizer())
    short = ["retriever=splade_tiny", "retriever.encoder.max_length=32", "retriever.encoder.cache=false"]
    yield "splade", lambda: build.construct(build.composed(short)["retriever"], "retriever")
    yield "dense", lambda: Dense(DenseEncoder(model, device="cpu", cache=False))
    encoder = {"projection": "none", "storage_dtype": "float32", "device": "cpu", "cache": False}
    yield "colbert", lambda: ColBERT(MultiVectorEncoder(model, **encoder))


def error_of(work) -> str:
    try:
        work()
    except HarnessError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(models: Path, folder: Path, two: Cluster) -> dict:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cluster._join(two.address)  # by the first node, before there is another that may be lost
    found: dict = {"sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_IGN}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    other = two.add_node(num_cpus=1)
    data, model = stdlib.load(documents=400, queries=60), tiny(models, folder)

    def made(retriever, **settings):
        return Sharded(retriever, address=two.address, **settings)

    watched = made(Watched(folder))
    watched.index(data.corpus[:64])
    before = list(cluster.worker_pool(two.address, 1.0, 0.0).slots)
    watched.index(data.corpus)
    found["indexed"] = [line.split() for line in (folder / "indexed").read_text().splitlines()]
    found["same actors"] = before == list(cluster.worker_pool(two.address, 1.0, 0.0).slots)
    for name, make in families(model):
        one, many = make(), made(make())
        one.index(data.corpus)
        with recording() as seen:
            many.index(data.corpus)
        expected = one.search(data.queries, K)
        with recording() as searching:
            run = many.search(data.queries, K)
        found[name] = {
            **compared(expected, run),
            "metadata": {key: value for key, value in seen.metadata.items() if key in ("shards", "nodes")},
            "texts": seen.counters[""]["texts"],
            "cpu_s": seen.cpu_s,
            "stages": sorted(searching.stages),
            "bytes": [one.nbytes(), many.nbytes()],
        }
        if name == "dense":
            found["score"] = float(
                np.abs(one.score(data.queries, expected.docs) - many.score(data.queries, expected.docs)).max()
            )
    expected = BM25(Tokenizer())
    expected.index(data.corpus)
    expected = expected.search(data.queries, K)
    more = made(BM25(Tokenizer()), shards=5)
    more.index(data.corpus)
    found["five shards on two actors"] = compared(expected, more.search(data.queries, K))
    for when in ("index", "search"):
        dying = made(Watched(folder, when))
        dying.index(data.corpus)
        found[f"killed in {when}"] = compared(expected, dying.search(data.queries, K))
        found[f"killed in {when}"]["died"] = (folder / f"died in {when}").exists()
    found["refused"] = error_of(lambda: made(Watched(folder, "refuse")).index(data.corpus))
    two.remove_node(other)
    cluster.FREE_TIMEOUT_S = 3.0
    found["node lost"] = compared(expected, more.search(data.queries, K))
    sharded._MAX_LOSSES = 1
    found["always killed"] = error_of(lambda: made(Watched(folder, "index", always=True)).index(data.corpus))
    found["no room"] = error_of(lambda: Sharded(BM25(Tokenizer()), address=two.address, cpus=64).index(data.corpus))
    found["elsewhere"] = error_of(lambda: Sharded(BM25(Tokenizer())).index(data.corpus))
    return found


if __name__ == "__main__":
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    said = json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), two))
    ray.shutdown()
    two.shutdown()
    print(said)
