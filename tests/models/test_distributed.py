"""Tests of harness/distributed: sharded retrievers return the run of one process, even after workers or nodes are lost.

The tests that need a cluster read the results of one process, tests/support/distributed_cluster.py, which starts two
Ray nodes on this machine.
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
def results(models, tmp_path_factory):
    """Return the results of distributed_cluster.py."""
    scratch = tmp_path_factory.mktemp("cluster")
    script = ROOT / "tests" / "support" / "distributed_cluster.py"
    command = [sys.executable, "-P", str(script), str(models), str(scratch)]
    with tempfile.TemporaryDirectory(
        prefix="ray-", ignore_cleanup_errors=True
    ) as ray_folder:  # a short path, as sockets need one
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": ray_folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # Ray and the actors print nothing on stdout
    return json.loads(line)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_two_nodes_return_the_run_of_one_process(results, name):
    assert results[name]["score_difference"] <= 1e-6
    assert results[name]["same_order"]
    assert results[name]["compared"] > 0.5
    assert results[name]["metadata"]["shards"] == results[name]["metadata"]["nodes"] == 2


@pytest.mark.slow
def test_sharded_bm25_scores_exactly_as_one_process(results):
    assert results["bm25"]["score_difference"] == 0
    assert results["bm25"]["same_documents"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_driver_records_the_work_of_the_workers(results, name):
    assert results[name]["texts"] == 400
    assert results[name]["cpu_s"] > 0
    assert results[name]["stages"] == ["merge", "search"]
    single_bytes, sharded_bytes = results[name]["bytes"]
    assert single_bytes <= sharded_bytes < 2 * single_bytes


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["killed_in_index", "killed_in_search", "node_lost"])
def test_a_lost_worker_or_node_changes_no_result(results, loss):
    assert results[loss].get("killed", True)
    assert results[loss]["score_difference"] == 0
    assert results[loss]["same_documents"]


@pytest.mark.slow
def test_five_shards_on_two_workers_return_the_run_of_one_process(results):
    assert results["five_shards"]["same_documents"]
    assert results["five_shards"]["score_difference"] == 0


@pytest.mark.slow
def test_the_workers_of_the_warm_up_index_the_whole_corpus_with_the_same_retriever(results):
    assert results["workers_reused"]
    warm_up, full = results["indexed"][:2], results["indexed"][2:]
    assert [n for *_, n in warm_up] == ["32", "32"]
    assert [n for *_, n in full] == ["200", "200"]
    assert {(process, retriever) for process, retriever, _ in warm_up} == {
        (process, retriever) for process, retriever, _ in full
    }


@pytest.mark.slow
def test_candidates_are_scored_by_the_shards_that_hold_them(results):
    assert results["candidate_score_difference"] <= 1e-6


@pytest.mark.slow
def test_an_error_in_a_worker_has_the_same_type_and_message_in_the_driver(results):
    assert results["worker_error"] == "HarnessError: this shard is refused"


@pytest.mark.slow
def test_joining_a_cluster_leaves_the_sigterm_handler_unchanged(results):
    assert results["sigterm_handler_unchanged"]


@pytest.mark.slow
def test_a_shard_that_always_loses_its_worker_is_an_error_that_names_it(results):
    message = results["always_killed"]
    assert message.startswith("ShardError: shard ")
    assert "(documents 0 to 200) lost its worker" in message or "(documents 200 to 400) lost its worker" in message
    assert "worker process has died" in message


@pytest.mark.slow
def test_too_many_cpus_and_a_second_cluster_are_errors(results):
    assert "retriever.cpus=64" in results["too_many_cpus"]
    assert "ray status" in results["too_many_cpus"]
    assert "retriever.address='local': this process is already connected to the cluster" in results["other_cluster"]


# ---- without Ray


@pytest.fixture(scope="module")
def data():
    """Return 300 documents, many with equal scores, and 40 queries, of words with Zipf's frequencies."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{rank}" for rank in rng.zipf(1.3, rng.integers(0, 30)).tolist()) for _ in range(340)]
    ids = [f"d{n}" for n in range(300)]
    return SimpleNamespace(corpus=Corpus(ids, texts[:300]), queries=Queries(ids[:40], texts[300:]))


def search_shards(data, n, k):
    """Search `n` shards with BM25 and the statistics of the whole corpus, and merge their runs."""
    cuts = shard_edges(len(data.corpus), n)
    shards = [data.corpus[start:stop] for start, stop in pairwise(cuts)]
    retrievers = [BM25(Tokenizer()) for _ in shards]
    first, *rest = [retriever.corpus_statistics(shard) for retriever, shard in zip(retrievers, shards, strict=True)]
    docs, scores = [], []
    for start, retriever, shard in zip(cuts[:-1], retrievers, shards, strict=True):
        retriever.use_statistics(first.merged(rest))
        retriever.index(shard)
        run = retriever.search(data.queries, k)
        docs.append(np.where(run.docs >= 0, run.docs + start, -1))
        scores.append(run.scores)
    return Run(data.queries.ids, data.corpus.ids, np.hstack(docs), np.hstack(scores)).top(k)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_shards_with_the_statistics_of_the_corpus_score_as_one_index(data, n):
    whole = BM25(Tokenizer())
    whole.index(data.corpus)
    expected, run = whole.search(data.queries, 10), search_shards(data, n, 10)
    np.testing.assert_array_equal(run.docs, expected.docs)
    np.testing.assert_array_equal(run.scores, expected.scores)


def test_a_shard_with_its_own_statistics_scores_differently(data):
    half = data.corpus[: len(data.corpus) // 2]
    shard_statistics, corpus_statistics = BM25(Tokenizer()), BM25(Tokenizer())
    shard_statistics.index(half)
    corpus_statistics.use_statistics(corpus_statistics.corpus_statistics(data.corpus))
    corpus_statistics.index(half)
    runs = [retriever.search(data.queries, 5) for retriever in (shard_statistics, corpus_statistics)]
    assert (runs[0].scores != runs[1].scores).any()


def test_merged_statistics_equal_those_of_the_corpus_in_the_same_order(data):
    whole = BM25(Tokenizer()).corpus_statistics(data.corpus)
    cuts = shard_edges(len(data.corpus), 4)
    first, *rest = [BM25(Tokenizer()).corpus_statistics(data.corpus[a:b]) for a, b in pairwise(cuts)]
    merged = first.merged(rest)
    assert merged.terms.equals(whole.terms)
    np.testing.assert_array_equal(merged.df, whole.df)
    assert (merged.documents, merged.words) == (whole.documents, whole.words)


def test_a_corpus_is_tokenized_once_for_its_statistics_and_its_index(data, monkeypatch):
    retriever, calls = BM25(Tokenizer()), []
    fit = Tokenizer.fit
    monkeypatch.setattr(Tokenizer, "fit", lambda self, texts: (calls.append(len(texts)), fit(self, texts))[1])
    retriever.use_statistics(retriever.corpus_statistics(data.corpus))
    retriever.index(data.corpus)
    assert calls == [300]
    retriever.index(data.corpus[:10])
    assert calls == [300, 10]


SCORES_ARE_COMPARABLE = {
    **dict.fromkeys(["bm25", "bm25_anserini", "minilm", "static_potion", "splade_tiny", "colbert_minilm"], True),
    **dict.fromkeys(["bm25_rank_bm25", "minilm_int8", "minilm_hnsw", "hybrid", "rerank"], False),
}


@pytest.mark.parametrize("name", SCORES_ARE_COMPARABLE)
def test_scores_that_are_not_comparable_across_shards_are_an_error_with_the_choices(name):
    config = build.composed(["retriever=sharded", f"retriever@retriever.retriever={name}"])["retriever"]
    if SCORES_ARE_COMPARABLE[name]:
        assert build.construct(config, "retriever").nbytes() == 0
        return
    with pytest.raises(
        ConfigError, match=r"are not comparable across shards; choices .*index=null.*candidates=null.*=sharded"
    ):
        build.construct(config, "retriever")


def test_colbert_candidates_by_centroids_of_each_shard_are_an_error():
    overrides = ["retriever@retriever.retriever=colbert_minilm", "retriever.retriever.candidates=50"]
    with pytest.raises(ConfigError, match="ColBERT are not comparable"):
        build.construct(build.composed(["retriever=sharded", *overrides])["retriever"], "retriever")


def test_a_hybrid_may_have_sharded_retrievers():
    sharded = [f"retriever@retriever.retrievers.{name}=sharded" for name in ("lexical", "dense")]
    inner = "retriever@retriever.retrievers.lexical.retriever=bm25"
    config = build.composed(["retriever=hybrid", *sharded, inner])["retriever"]
    assert config["retrievers"]["lexical"]["retriever"]["_target_"].endswith("BM25")
    assert config["retrievers"]["dense"]["retriever"]["_target_"].endswith("Dense")
    assert callable(build.construct(config, "retriever").search)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 0}, "retriever.shards=0 must be at least 1"),
        ({"cpus": 0}, "retriever.cpus=0 and retriever.gpus=0: a worker needs CPUs or GPUs"),
        ({"gpus": -1.0}, "retriever.gpus=-1"),
    ],
)
def test_invalid_settings_are_an_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        Sharded(BM25(Tokenizer()), **settings)


def test_a_missing_ray_is_named_with_its_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'retrieval-harness\[ray\]'"):
        Sharded(BM25(Tokenizer())).index(data.corpus)


def test_a_slice_is_packed_without_the_rest_of_its_corpus():
    corpus = Corpus([f"d{n}" for n in range(10_000)], [f"{n} " + "word " * 200 for n in range(10_000)])
    shard = corpus[5000:5010]
    buffers = pack(shard)
    assert sum(buffer.size for buffer in buffers) < 20_000
    assert len(pickle.dumps(shard, protocol=5)) > 1_000_000  # the reason for packing
    unpacked = unpack(Corpus, buffers)
    assert (list(unpacked.ids), list(unpacked.texts)) == (list(shard.ids), list(shard.texts))


def test_a_packed_document_takes_24_bytes_beside_its_text():
    """An id of eight letters and two offsets, as docs/explanation/capacity.md calculates."""
    corpus = Corpus([f"d{i:07d}" for i in range(20_000)], ["some words of a text"] * 20_000)
    n_bytes = sum(buffer.size for buffer in pack(corpus))
    assert n_bytes / len(corpus) - len("some words of a text") == pytest.approx(24, abs=0.5)


def test_no_queries_can_be_packed():
    assert len(unpack(Queries, pack(Queries([], [])))) == 0


def test_a_tokenizer_is_pickled_with_its_stemmer_and_its_terms():
    words = StringColumn(["running houses possibilities", "häuser città nations дома", "abandonnées lopende"])
    for algorithm in Stemmer.algorithms():
        tokenizer = Tokenizer(stemmer=algorithm, stop_words=None)
        tokenizer.fit(words)
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.vocabulary == tokenizer.vocabulary
        assert copy.fit(words).terms.tolist() == tokenizer.fit(words).terms.tolist()
        assert copy.vocabulary == tokenizer.vocabulary


def test_a_retriever_is_pickled_without_loading_weights(monkeypatch):
    monkeypatch.setattr("harness.weights.find", lambda *_: pytest.fail("weights were loaded"))
    for name in (name for name, comparable in SCORES_ARE_COMPARABLE.items() if comparable):
        retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
        assert len(pickle.dumps(retriever)) < 10_000


def test_no_api_key_is_among_the_variables_of_a_worker(monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "CO_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HARNESS_CACHE", "/cache")
    variables = process_environment().variables
    assert variables["HARNESS_CACHE"] == "/cache"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert "secret" not in variables.values()


def make_phase(wall_s, cached_s=0.0, foreign_machine=False):
    return Phase(
        wall_s=wall_s, cpu_s=wall_s, counters={"": {"texts": 5}}, cached_s=cached_s, foreign_machine=foreign_machine
    )


def driver_phase(*phases):
    """Return the phase that a driver records for the phases of its workers, if it waited no time itself."""
    sharded = Sharded(BM25(Tokenizer()))
    sharded._workers = {shard: f"worker {shard}" for shard in range(len(phases))}
    with instrument.recording() as recorder:
        sharded._add_costs([WorkerResult(None, phase, {}, {}) for phase in phases], "encode")
    return recorder.phase()


def test_cached_time_is_what_the_slowest_worker_would_have_taken_longer():
    phase = driver_phase(make_phase(101, cached_s=100), make_phase(50))
    assert phase.cached_s == 51  # it took 50 seconds and would have taken 101
    assert phase.wall_s == pytest.approx(51, abs=0.9)
    assert phase.cpu_s == pytest.approx(151, abs=0.1)
    assert phase.counters == {"": Counters(texts=10)}
    assert driver_phase(make_phase(7), make_phase(9)).cached_s == 0


def test_embeddings_of_a_foreign_machine_mark_the_drivers_phase():
    assert driver_phase(make_phase(1), make_phase(1, foreign_machine=True)).foreign_machine
    assert not driver_phase(make_phase(1), make_phase(1)).foreign_machine


# ---- launchers

PRESETS = {"cores": "JoblibLauncher", "slurm": "SlurmLauncher", "ray_cluster": "RayLauncher"}
EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray-launcher"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_configures_its_launcher(name):
    if name == "ray_cluster" and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("hydra-ray-launcher needs cloudpickle below 3, so it cannot be installed together with joblib 1.6")
    launcher = build.compose_config(["retriever=bm25", f"hydra/launcher={name}"], hydra_too=True).hydra.launcher
    assert launcher._target_.endswith(f".{PRESETS[name]}")


def test_every_preset_is_tested_and_is_named_unlike_a_launcher():
    names = {name for name, _ in options_of("hydra/launcher")}
    assert names == set(PRESETS)
    assert not names & set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_launcher_is_named_with_its_extra(name):
    error = MissingConfigException("not found", f"hydra/launcher/{name}", ["basic"])
    assert repr(name) in explain(error)
    assert explain(error).endswith(f"pip install 'retrieval-harness[{EXTRAS[name]}]'")


def test_an_unknown_launcher_is_an_error_with_the_choices():
    with pytest.raises(ConfigError, match=r"no hydra/launcher 'core'; choices: .*cores.*; did you mean cores\?"):
        build.compose_config(["retriever=bm25", "hydra/launcher=core"])


@pytest.mark.slow
def test_evaluations_run_by_submitit_are_in_one_table(tmp_path):
    sweep = ["retriever=bm25,bm25_mteb", "dataset=folder", f"dataset.path={write_beir(tmp_path / 'tiny')}"]
    launcher = [f"results_dir={tmp_path}", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    command = [sys.executable, "-P", "-m", "harness", "-m", *sweep, *launcher, "timing.latency_queries=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(bm25\w*) +[01]\.\d{4}", done.stdout, re.MULTILINE) == ["bm25", "bm25_mteb"]
