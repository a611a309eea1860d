"""A retriever in shards over a Ray cluster gives the Run that it gives in one process, whatever is lost on the way.

What needs a cluster is asked of one child process, distributed_cluster.py, that starts two nodes on this machine.
"""

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import Stemmer
from hydra.errors import MissingConfigException
from support import ROOT
from support.datasets import write_beir

from harness import instrument
from harness.config import build
from harness.config.conf import options_of
from harness.config.wording import explain
from harness.distributed import Sharded
from harness.distributed.shipping import pack, process_environment, shard_edges, unpack
from harness.distributed.worker import WorkerResult
from harness.errors import ConfigError
from harness.retrievers.bm25 import BM25
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Counters, Phase, Queries, Run, StringColumn

FAMILIES = ("bm25", "splade", "dense", "colbert")


@pytest.fixture(scope="module")
def found(models, tmp_path_factory):
    """What the child process found out on its cluster."""
    scratch = tmp_path_factory.mktemp("cluster")
    script = ROOT / "tests" / "support" / "distributed_cluster.py"
    command = [sys.executable, str(script), str(models), str(scratch)]
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own:  # a short path, for sockets
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": own}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # Ray and the actors print nothing on stdout
    return json.loads(line)


@pytest.mark.parametrize("name", FAMILIES)
def test_two_nodes_give_the_run_of_one_process(found, name):
    assert found[name]["apart"] <= 1e-6
    assert found[name]["same"]
    assert found[name]["compared"] > 0.5
    assert found[name]["metadata"]["shards"] == found[name]["metadata"]["nodes"] == 2


def test_bm25_of_the_shards_is_that_of_the_whole_to_the_last_bit(found):
    assert found["bm25"]["apart"] == 0
    assert found["bm25"]["equal"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_driver_is_billed_for_what_the_actors_did(found, name):
    assert found[name]["texts"] == 400
    assert found[name]["cpu_s"] > 0
    assert found[name]["stages"] == ["merge", "search"]
    one, many = found[name]["bytes"]
    assert one <= many < 2 * one


@pytest.mark.parametrize("when", ["killed in index", "killed in search", "node lost"])
def test_a_loss_changes_nothing(found, when):
    assert found[when].get("died", True)
    assert found[when]["apart"] == 0
    assert found[when]["equal"]


def test_there_may_be_more_shards_than_actors(found):
    assert found["five shards on two actors"]["equal"]
    assert found["five shards on two actors"]["apart"] == 0


def test_the_actors_of_the_warm_up_index_the_whole_with_the_same_retriever(found):
    assert found["same actors"]
    small, whole = found["indexed"][:2], found["indexed"][2:]
    assert [n for *_, n in small] == ["32", "32"]
    assert [n for *_, n in whole] == ["200", "200"]
    assert {(pid, own) for pid, own, _ in small} == {(pid, own) for pid, own, _ in whole}


def test_scores_of_given_documents_come_from_the_shards_that_have_them(found):
    assert found["score"] <= 1e-6


def test_an_error_in_an_actor_is_told_as_it_was_there(found):
    assert found["refused"] == "HarnessError: this shard is refused"


def test_this_process_keeps_what_it_does_at_sigterm(found):
    assert found["sigterm"]


def test_a_shard_that_is_lost_again_and_again_is_an_error_that_names_it(found):
    said = found["always killed"]
    assert said.startswith("ShardError: shard ")
    assert "(documents 0 to 200) lost its worker" in said or "(documents 200 to 400) lost its worker" in said
    assert "worker process has died" in said


def test_a_cluster_without_room_or_a_second_one_is_refused(found):
    assert "retriever.cpus=64" in found["no room"]
    assert "ray status" in found["no room"]
    assert "retriever.address='local': this process is already connected to the cluster" in found["elsewhere"]


# ------------------------------------------------------------------------------------------------------ without Ray


@pytest.fixture(scope="module")
def data():
    """300 texts of which many tie, and queries, of words whose frequency falls with their rank."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{rank}" for rank in rng.zipf(1.3, rng.integers(0, 30)).tolist()) for _ in range(340)]
    ids = [f"d{n}" for n in range(300)]
    return SimpleNamespace(corpus=Corpus(ids, texts[:300]), queries=Queries(ids[:40], texts[300:]))


def in_parts(data, n, k):
    """BM25 over n parts with the statistics of the whole, each part's run moved to its place and all put together."""
    cuts = shard_edges(len(data.corpus), n)
    parts = [data.corpus[start:stop] for start, stop in pairwise(cuts)]
    retrievers = [BM25(Tokenizer()) for _ in parts]
    first, *others = [one.corpus_statistics(part) for one, part in zip(retrievers, parts, strict=True)]
    docs, scores = [], []
    for start, one, part in zip(cuts[:-1], retrievers, parts, strict=True):
        one.use_statistics(first.merged(others))
        one.index(part)
        run = one.search(data.queries, k)
        docs.append(np.where(run.docs >= 0, run.docs + start, -1))
        scores.append(run.scores)
    return Run(data.queries.ids, data.corpus.ids, np.hstack(docs), np.hstack(scores)).top(k)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_parts_with_the_statistics_of_the_whole_score_as_the_whole(data, n):
    whole = BM25(Tokenizer())
    whole.index(data.corpus)
    expected, run = whole.search(data.queries, 10), in_parts(data, n, 10)
    np.testing.assert_array_equal(run.docs, expected.docs)
    np.testing.assert_array_equal(run.scores, expected.scores)


def test_parts_with_statistics_of_their_own_do_not(data):
    half = data.corpus[: len(data.corpus) // 2]
    alone, whole = BM25(Tokenizer()), BM25(Tokenizer())
    alone.index(half)
    whole.use_statistics(whole.corpus_statistics(data.corpus))
    whole.index(half)
    assert (alone.search(data.queries, 5).scores != whole.search(data.queries, 5).scores).any()


def test_merged_statistics_are_those_of_the_whole_in_the_same_order(data):
    whole = BM25(Tokenizer()).corpus_statistics(data.corpus)
    cuts = shard_edges(len(data.corpus), 4)
    first, *others = [BM25(Tokenizer()).corpus_statistics(data.corpus[a:b]) for a, b in pairwise(cuts)]
    merged = first.merged(others)
    assert merged.terms.equals(whole.terms)
    np.testing.assert_array_equal(merged.df, whole.df)
    assert (merged.documents, merged.words) == (whole.documents, whole.words)


def test_words_counted_for_the_statistics_are_not_counted_again(data, monkeypatch):
    retriever, calls = BM25(Tokenizer()), []
    fit = Tokenizer.fit
    monkeypatch.setattr(Tokenizer, "fit", lambda self, texts: (calls.append(len(texts)), fit(self, texts))[1])
    retriever.use_statistics(retriever.corpus_statistics(data.corpus))
    retriever.index(data.corpus)
    assert calls == [300]
    retriever.index(data.corpus[:10])
    assert calls == [300, 10]


COMPARABLE = {
    **dict.fromkeys(["bm25", "bm25_anserini", "minilm", "static_potion", "splade_tiny", "colbert_minilm"], True),
    **dict.fromkeys(["bm25_rank_bm25", "minilm_int8", "minilm_hnsw", "hybrid", "rerank"], False),
}


@pytest.mark.parametrize("name", COMPARABLE)
def test_what_does_not_compare_across_shards_is_refused_with_what_to_write_instead(name):
    config = build.composed(["retriever=sharded", f"retriever@retriever.retriever={name}"])["retriever"]
    if COMPARABLE[name]:
        assert build.construct(config, "retriever").nbytes() == 0
        return
    with pytest.raises(
        ConfigError, match=r"are not comparable across shards; choices .*index=null.*candidates=null.*=sharded"
    ):
        build.construct(config, "retriever")


def test_candidates_chosen_by_a_shards_own_centroids_are_refused():
    overrides = ["retriever@retriever.retriever=colbert_minilm", "retriever.retriever.candidates=50"]
    with pytest.raises(ConfigError, match="ColBERT are not comparable"):
        build.construct(build.composed(["retriever=sharded", *overrides])["retriever"], "retriever")


def test_a_hybrid_may_have_sharded_parts():
    parts = [f"retriever@retriever.retrievers.{part}=sharded" for part in ("lexical", "dense")]
    inner = "retriever@retriever.retrievers.lexical.retriever=bm25"
    config = build.composed(["retriever=hybrid", *parts, inner])["retriever"]
    assert config["retrievers"]["lexical"]["retriever"]["_target_"].endswith("BM25")
    assert config["retrievers"]["dense"]["retriever"]["_target_"].endswith("Dense")
    assert callable(build.construct(config, "retriever").search)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shards": 0}, "retriever.shards=0 must be at least 1"),
        ({"cpus": 0}, "retriever.cpus=0 and retriever.gpus=0: a worker needs CPUs or GPUs"),
        ({"gpus": -1.0}, "retriever.gpus=-1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Sharded(BM25(Tokenizer()), **settings)


def test_without_ray_the_extra_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'retrieval-harness\[ray\]'"):
        Sharded(BM25(Tokenizer())).index(data.corpus)


def test_a_part_is_sent_without_the_rest_of_its_memory():
    corpus = Corpus([f"d{n}" for n in range(10_000)], [f"{n} " + "word " * 200 for n in range(10_000)])
    part = corpus[5000:5010]
    sent = pack(part)
    assert sum(buffer.size for buffer in sent) < 20_000
    assert len(pickle.dumps(part, protocol=5)) > 1_000_000  # why it is packed
    back = unpack(Corpus, sent)
    assert (list(back.ids), list(back.texts)) == (list(part.ids), list(part.texts))


def test_beside_its_text_a_document_takes_24_bytes_on_the_way():
    """An id of eight letters and two offsets: the README's model counts on it."""
    corpus = Corpus([f"d{i:07d}" for i in range(20_000)], ["some words of a text"] * 20_000)
    sent = sum(buffer.size for buffer in pack(corpus))
    assert sent / len(corpus) - len("some words of a text") == pytest.approx(24, abs=0.5)


def test_an_empty_set_of_queries_can_be_sent():
    assert len(unpack(Queries, pack(Queries([], [])))) == 0


def test_a_tokenizer_is_sent_with_its_stemmer_and_its_terms():
    words = StringColumn(["running houses possibilities", "häuser città nations дома", "abandonnées lopende"])
    for algorithm in Stemmer.algorithms():
        own = Tokenizer(stemmer=algorithm, stop_words=None)
        own.fit(words)
        back = pickle.loads(pickle.dumps(own))
        assert back.vocabulary == own.vocabulary
        assert back.fit(words).terms.tolist() == own.fit(words).terms.tolist()
        assert back.vocabulary == own.vocabulary


def test_a_retriever_is_sent_as_it_was_built_without_weights(monkeypatch):
    monkeypatch.setattr("harness.weights.find", lambda *_: pytest.fail("weights were looked for"))
    for name in (name for name, comparable in COMPARABLE.items() if comparable):
        retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
        assert len(pickle.dumps(retriever)) < 10_000


def test_no_key_is_sent_along_with_the_variables(monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "CO_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HARNESS_CACHE", "/cache")
    sent = process_environment().variables
    assert sent["HARNESS_CACHE"] == "/cache"
    assert sent["HF_HUB_OFFLINE"] == "1"
    assert "secret" not in sent.values()


def phase(wall_s, cached_s=0.0, foreign_machine=False):
    return Phase(
        wall_s=wall_s, cpu_s=wall_s, counters={"": {"texts": 5}}, cached_s=cached_s, foreign_machine=foreign_machine
    )


def billed(*phases):
    """What a driver that waited no time is billed for these phases, of an actor each."""
    sharded = Sharded(BM25(Tokenizer()))
    sharded._workers = {shard: f"actor {shard}" for shard in range(len(phases))}
    with instrument.recording() as seen:
        sharded._add_costs([WorkerResult(None, one, {}, {}) for one in phases], "encode")
    return seen.phase()


def test_cached_vectors_cost_what_the_slowest_actor_would_have_taken():
    seen = billed(phase(101, cached_s=100), phase(50))
    assert seen.cached_s == 51  # 50 seconds were waited for, and 101 would have been
    assert seen.wall_s == pytest.approx(51, abs=0.1)
    assert seen.cpu_s == pytest.approx(151, abs=0.1)
    assert seen.counters == {"": Counters(texts=10)}
    assert billed(phase(7), phase(9)).cached_s == 0


def test_vectors_encoded_on_another_machine_leave_no_throughput():
    assert billed(phase(1), phase(1, foreign_machine=True)).foreign_machine
    assert not billed(phase(1), phase(1)).foreign_machine


# --------------------------------------------------------------------------------------------------------- launchers

PRESETS = {"cores": "JoblibLauncher", "slurm": "SlurmLauncher", "ray_cluster": "RayLauncher"}
EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray-launcher"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_launcher_with_settings(name):
    if name == "ray_cluster" and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("hydra-ray-launcher holds cloudpickle below 3, so it is in no environment with joblib 1.6")
    found = build.compose_config(["retriever=bm25", f"hydra/launcher={name}"], hydra_too=True).hydra.launcher
    assert found._target_.endswith(f".{PRESETS[name]}")


def test_every_preset_is_tested_and_has_a_name_of_its_own():
    named = {name for name, _ in options_of("hydra/launcher")}
    assert named == set(PRESETS)
    assert not named & set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(name):
    error = MissingConfigException("not found", f"hydra/launcher/{name}", ["basic"])
    assert explain(error) == f"the launcher {name!r} needs a package: pip install 'retrieval-harness[{EXTRAS[name]}]'"


def test_a_launcher_that_nobody_knows_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"no hydra/launcher 'core'; choices: .*cores.*; did you mean cores\?"):
        build.compose_config(["retriever=bm25", "hydra/launcher=core"])


def test_cells_that_submitit_runs_end_in_one_table(tmp_path):
    cells = ["retriever=bm25,bm25_mteb", "dataset=folder", f"dataset.path={write_beir(tmp_path / 'made')}"]
    where = [f"results_dir={tmp_path}", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    command = [sys.executable, "-P", "-m", "harness", "-m", *cells, *where, "timing.latency_queries=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(bm25\w*) +[01]\.\d{4}", done.stdout, re.MULTILINE) == ["bm25", "bm25_mteb"]
