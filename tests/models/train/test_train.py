"""Tests of `harness train` and `harness finetuned` on a tiny model and a dataset that it can learn."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.command_line import harness, wait_until
from support.datasets import write_cipher
from support.models import write_dense, write_masked
from transformers import BertConfig, BertForSequenceClassification

from harness.cli.tuned import EncoderLocation, configs
from harness.config import build
from harness.datasets import folder
from harness.metrics import parse, score
from harness.store import Store
from harness.train import outcome, trainers, triplets
from harness.train.triplets import Triplets

TRAIN = [
    "train",
    "dataset=folder",
    "dataset.path=ciphered",
    "leaks.positives=allow",
    "negatives=random",
    "data_dir=null",
]
TRAIN += ["training.device=cpu", "training.dtype=float32", "dev.queries=8", "training.evaluations=2"]
TRAIN += ["training.batch_size=16"]
TRAIN_WELL = [*TRAIN, "training.learning_rate=0.01", "training.epochs=25"]
EVALUATE = ["timing.latency_queries=1", "timing.warmup_documents=0", "timing.repeats=1", "dataset=folder"]

COLUMNS = {
    "columns": {"id": "_id", "title": "title", "text": "text"},
    "query_columns": {"id": "_id", "text": "text"},
    "qrels_columns": {"query": "query-id", "document": "corpus-id", "grade": "score"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Write a tiny dense model and a tiny masked language model; return their folders."""
    root = tmp_path_factory.mktemp("models")
    return {"dense": write_dense(root / "dense"), "masked": write_masked(root / "masked")}


@pytest.fixture
def base_model(tmp_path, monkeypatch, models):
    """Run in a folder with the dataset `ciphered`; return the arguments that choose the tiny dense model."""
    write_cipher(tmp_path / "ciphered")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return [f"retriever.encoder.model={models['dense']}", "retriever.encoder.package=null"]


def manifest(output="models/tuned"):
    """Return the manifest of a trained model."""
    return json.loads(Path(output, "manifest.json").read_text())


def ndcg(*overrides):
    """Return nDCG@10 on the test split of a retriever from the configs."""
    retriever = build.construct(build.composed(overrides)["retriever"], "retriever")
    dataset = folder.load("ciphered", **COLUMNS)
    retriever.index(dataset.corpus)
    _, values = score(retriever.search(dataset.queries, 10), dataset.qrels, [parse("ndcg@10")])
    return float(values["ndcg@10"].mean())


@pytest.mark.slow
def test_training_improves_ndcg(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN_WELL, *base_model) == 0
    out, err = capsys.readouterr()
    tuned = ["retriever=minilm", "retriever.encoder.model=models/tuned", "retriever.encoder.package=null"]
    before, after = ndcg("retriever=minilm", *base_model), ndcg(*tuned)
    assert after > before + 0.2
    content = manifest()
    assert content["steps"] == 125
    assert content["data"]["rows"] == 72
    assert content["dev"] == {"queries": 8, "documents": 120}
    assert content["before"] < max(entry["ndcg@10"] for entry in content["curve"] if "ndcg@10" in entry)
    assert content["base"]["source"] == "folder"
    assert "harness finetuned models/tuned" in out
    assert "step 125 of 125: dev ndcg@10" in err
    assert not list(Path("models").rglob("*.bin"))
    assert not Path("models/tuned/.training").exists()


@pytest.mark.slow
def test_finetuned_evaluates_base_tuned_and_hybrids(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN_WELL, *base_model) == 0
    sweep = ["~hydra.sweeper.params.dataset", "dataset.path=ciphered", *EVALUATE]
    assert harness(monkeypatch, "finetuned", *sweep) == 0
    stored = {record.retriever.name: record for record in Store(Path("results")).records()}
    assert sorted(stored) == ["base", "bm25", "hybrid_base", "hybrid_tuned", "tuned"]
    assert stored["tuned"].metrics["ndcg@10"] > stored["base"].metrics["ndcg@10"]
    assert stored["tuned"].command.startswith("harness --config-dir=")
    capsys.readouterr()
    assert harness(monkeypatch, "compare", "base", "tuned") == 0
    assert "tuned" in capsys.readouterr().out
    assert harness(monkeypatch, "compare", "hybrid_base", "hybrid_tuned") == 0


def test_finetuned_without_a_training_names_the_command(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, "finetuned", "elsewhere") == 2
    err = capsys.readouterr().err
    assert "'elsewhere' has no conf/retriever" in err
    assert "harness train dataset=NAME output=elsewhere" in err


FAMILIES = {
    "splade": (["retriever=splade_tiny"], "masked", []),
    "colbert": (["retriever=colbert_minilm"], "dense", ["retriever.encoder.projection=own"]),
    "cross": (["retriever=rerank", "retriever@retriever.first_stage=minilm"], "dense", []),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_family_is_trained_and_evaluated(family, base_model, models, monkeypatch):
    arguments, base, evaluate_arguments = FAMILIES[family]
    encoder = "retriever.scorer.encoder" if family == "cross" else "retriever.encoder"
    untrained = [f"{encoder}.model={models[base]}", f"{encoder}.package=null"]
    if family == "cross":
        first_stage = [argument.replace("encoder", "first_stage.encoder") for argument in base_model]
        arguments = [*arguments, *first_stage]
    assert harness(monkeypatch, *TRAIN, *arguments, *untrained, "training.learning_rate=0.01", "training.epochs=8") == 0
    assert manifest()["steps"] == (72 if family == "cross" else 40), "the rows of a cross-encoder are pairs"
    losses = [entry["loss"] for entry in manifest()["curve"] if "loss" in entry]
    assert losses[-1] < losses[0]
    trained = [f"{encoder}.model=models/tuned", f"{encoder}.package=null"]
    expected = ndcg(*arguments, *trained, *evaluate_arguments)
    assert (
        harness(monkeypatch, "--config-dir=models/tuned/conf", "retriever=tuned", "dataset.path=ciphered", *EVALUATE)
        == 0
    )
    (record,) = Store(Path("results")).records()
    assert record.metrics["ndcg@10"] == pytest.approx(expected, abs=1e-6)
    assert 0 < expected <= 1


@pytest.mark.slow
def test_matryoshka_mini_batches_and_bfloat16_are_trained(base_model, monkeypatch):
    settings = ["positives=nearest", "training.epochs=4", "training.dtype=bfloat16", "training.patience=1"]
    settings += ["loss.matryoshka=[8,4]", "loss.mini_batch=4"]
    assert harness(monkeypatch, *TRAIN, *base_model, *settings, "training.learning_rate=0.01") == 0
    assert ndcg("retriever=minilm", "retriever.encoder.model=models/tuned", "retriever.encoder.dimensions=4") > 0


@pytest.mark.slow
def test_repeated_training_is_reused_and_another_is_refused(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *base_model) == 0
    first = manifest()
    assert harness(monkeypatch, *TRAIN, *base_model) == 0
    assert "models/tuned is already trained; to train again, add resume=false" in capsys.readouterr().err
    assert manifest() == first
    assert harness(monkeypatch, *TRAIN, *base_model, "seed=1") == 2
    err = capsys.readouterr().err
    assert "models/tuned has the model of another training" in err
    assert "output=FOLDER" in err
    assert harness(monkeypatch, *TRAIN, *base_model, "seed=1", "resume=false") == 0
    assert manifest()["plan"] != first["plan"]


def test_folder_of_other_files_is_not_changed(base_model, monkeypatch, capsys):
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("years of work")
    for resume in ("resume=true", "resume=false"):
        assert harness(monkeypatch, *TRAIN, *base_model, "output=other", resume) == 2
        assert "other is not empty and is not the output of a training" in capsys.readouterr().err
    assert Path("other/thesis.txt").read_text() == "years of work"


def test_training_killed_before_its_plan_was_written_starts_again(tmp_path):
    (tmp_path / ".training").mkdir()
    (tmp_path / ".training" / ".harness-0123.tmp").write_bytes(b"{")
    assert outcome.claim(tmp_path, "plan", restart=False) is None
    assert (tmp_path / ".training" / "plan.json").read_text() == '{"plan": "plan"}'


def kill_after_a_checkpoint(arguments):
    """Start `harness train` and kill it as soon as it has written a checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "harness", *arguments], stderr=subprocess.DEVNULL)

    def has_checkpoint():
        assert process.poll() is None, "it ended before it could be killed"
        return any(Path("models/tuned/.training").glob("checkpoint-*/trainer_state.json"))

    wait_until(has_checkpoint, timeout_s=300)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_training_resumes_from_its_checkpoint(base_model, monkeypatch, capsys):
    arguments = [*TRAIN, *base_model, "training.epochs=16", "training.evaluations=8"]
    arguments += ["training.learning_rate=0.003"]
    kill_after_a_checkpoint(arguments)
    assert not Path("models/tuned/manifest.json").exists()
    broken = Path("models/tuned/.training/checkpoint-9999")
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_step"')  # as if killed while writing it
    assert harness(monkeypatch, *arguments) == 0
    resumed = manifest()
    assert harness(monkeypatch, *arguments, "output=undisturbed") == 0
    whole = manifest("undisturbed")
    assert 0 < resumed["resumed_at"] < resumed["steps"] == whole["steps"] == 80
    assert whole["resumed_at"] == 0
    assert [entry["step"] for entry in resumed["curve"]] == [entry["step"] for entry in whole["curve"]]
    measured = [[entry["ndcg@10"] for entry in content["curve"] if "ndcg@10" in entry] for content in (resumed, whole)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-3)
    assert resumed["best_step"] == whole["best_step"]


@pytest.mark.slow
def test_patience_is_counted_across_an_interruption(base_model, monkeypatch, capsys):
    arguments = [*TRAIN, *base_model, "training.epochs=16", "training.evaluations=8", "training.patience=3"]
    arguments += ["training.learning_rate=1e-9"]  # no evaluation is better than the first
    on_evaluate = trainers.Progress.on_evaluate

    def interrupt(self, args, state, control, **more):
        on_evaluate(self, args, state, control, **more)
        if state.global_step == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainers.Progress, "on_evaluate", interrupt)
        assert harness(monkeypatch, *arguments) == 130
    assert harness(monkeypatch, *arguments) == 0
    assert manifest()["resumed_at"] == 20
    assert manifest()["steps"] == 40, "the first evaluation and three that are not better"


@pytest.mark.slow
def test_torchrun_with_two_processes_trains_one_model(base_model, monkeypatch):
    arguments = [*TRAIN, *base_model, "training.epochs=2", "training.batch_size=8"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness"]
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("before: dev ndcg@10") == 1, "only one process prints"
    assert done.stdout.count("* saved: models/tuned") == 1
    assert manifest()["steps"] == 8, "each step is a batch of each process"
    assert 0 < ndcg("retriever=minilm", "retriever.encoder.model=models/tuned") <= 1
    leaking = [*launch, *arguments, "leaks.positives=refuse", "leaks.queries=refuse", "split=test", "output=leaks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    failed = subprocess.run(leaking, capture_output=True, text=True, env=environment, timeout=600)  # no process hangs
    assert failed.returncode != 0
    assert failed.stderr.count("error: the training data contain 40 of 40 queries of ciphered test") == 1
    assert failed.stderr.count("Traceback") == 1, "from torchrun"


def test_triplets_file_is_trained_on(base_model, monkeypatch):
    rows = [json.loads(line) for line in Path("ciphered/corpus.jsonl").read_text().splitlines()]
    queries = [json.loads(line)["text"] for line in Path("ciphered/queries.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows]
    triplets.write(Path("triplets.jsonl"), Triplets(queries[:40], texts[:40], [[text] for text in texts[40:80]]))
    assert (
        harness(monkeypatch, "train", "triplets=triplets.jsonl", "dev.queries=4", "training.device=cpu", *base_model)
        == 0
    )
    assert manifest()["data"]["source"] == "triplets.jsonl"
    assert manifest()["data"]["rows"] == 36


def test_missing_package_is_named_first(base_model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert harness(monkeypatch, *TRAIN, *base_model) == 2
    assert "pip install 'retrieval-harness[train]'" in capsys.readouterr().err
    assert not Path("models").exists()


@pytest.mark.slow
def test_other_files_in_the_output_folder_are_kept(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *base_model) == 0
    Path("models/tuned/notes.txt").write_text("my notes")
    assert harness(monkeypatch, *TRAIN, *base_model, "seed=1", "resume=false") == 0
    assert Path("models/tuned/notes.txt").read_text() == "my notes"
    shutil.copytree("models/tuned", "models/copied")
    capsys.readouterr()
    assert harness(monkeypatch, "finetuned", "models/copied") == 2
    assert "'models/copied' was moved or copied" in capsys.readouterr().err


def test_written_configs_contain_no_secret(base_model, monkeypatch):
    config = build.compose_config(["retriever=rerank", "+retriever.first_stage.api_key=sk-not-to-be-seen"])
    texts = configs(config, EncoderLocation(("scorer", "encoder"), {}, None), {}, Path("out"))
    assert "sk-not-to-be-seen" not in "".join(texts.values())
    assert "depth: ${k}" in texts["base"]


@pytest.mark.slow
def test_results_of_another_training_are_not_mixed(base_model, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *base_model) == 0
    assert harness(monkeypatch, *TRAIN, *base_model, "seed=1", "output=models/other") == 0
    sweep = [
        "~hydra.sweeper.params.dataset",
        "hydra.sweeper.params.retriever=tuned",
        "dataset.path=ciphered",
        *EVALUATE,
    ]
    assert harness(monkeypatch, "finetuned", *sweep) == 0
    other = ["finetuned", "models/other", *sweep]
    capsys.readouterr()
    assert harness(monkeypatch, *other) == 2
    err = capsys.readouterr().err
    assert "results has rows called base and tuned of another training" in err
    assert "harness finetuned models/other results_dir=results/other" in err
    assert harness(monkeypatch, *other, "results_dir=results/other") == 0
    assert (
        harness(monkeypatch, *TRAIN, *base_model, "seed=1", "output=models/other", "resume=false", "training.epochs=2")
        == 0
    )
    assert harness(monkeypatch, *other, "results_dir=results/other") == 2, "the folder has another model"


MISTAKES = {
    "unused setting": (
        [*TRAIN, "retriever=splade_tiny", "loss.matryoshka=[8]"],
        "SparseEncoder is trained without this setting",
    ),
    "several labels": (
        [*TRAIN, "retriever=rerank", "retriever.scorer.encoder.model=./labels", "positives=nearest"],
        "labels has a head of 3 labels",
    ),
    "dev split is the test split": ([*TRAIN, "dev.split=test"], "dev.split='test' is the training or test split"),
    "too many dimensions": ([*TRAIN, "loss.matryoshka=[17]"], "17 is more than the model's 16 dimensions"),
    "zero dimensions": (
        [*TRAIN, "loss.matryoshka=[0]"],
        "loss.matryoshka.0=0: Input should be greater than or equal to 1",
    ),
    "no negatives": (
        [*TRAIN, "retriever=rerank", "negatives=none", "retriever@retriever.first_stage=bm25"],
        "a cross-encoder cannot be trained on positives alone; choose negatives=mined",
    ),
    "no data": (["train"], "nothing to train on; give dataset=NAME with a training split, or triplets=FILE"),
    "retriever without a model": ([*TRAIN, "retriever=bm25"], "this retriever has no model to train"),
    "several models": ([*TRAIN, "retriever=hybrid_three"], "this retriever has several models"),
    "unknown key": ([*TRAIN, "training.epoch=3"], "did you mean training.epochs?"),
    "invalid value": (
        [*TRAIN, "training.batch_size=0"],
        "training.batch_size=0: Input should be greater than or equal to 1",
    ),
    "unknown split": ([*TRAIN, "split=dev"], "has no split 'dev'; choices: test, train"),
    "missing file": (["train", "triplets=none.jsonl"], "none.jsonl: no such file"),
    "unknown metric": ([*TRAIN, "dev.metric=ndcg@ten"], "unknown metric 'ndcg@ten'"),
    "missing model": ([*TRAIN, "retriever.encoder.model=./nowhere"], "no folder './nowhere'"),
    "no training split": (
        ["train", "dataset=stdlib"],
        "has no split 'train' to train on; make triplets from it: harness synthesize",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named_with_the_remedy(name, base_model, monkeypatch, capsys):
    arguments, message = MISTAKES[name]
    if name == "too many dimensions":
        arguments = [*arguments, *base_model]
    if name == "several labels":
        config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
        BertForSequenceClassification(config).save_pretrained("labels")
        arguments = [*arguments, "retriever@retriever.first_stage=bm25"]
    if name == "no negatives":
        arguments = [*arguments, base_model[0].replace("encoder", "scorer.encoder")]
    assert harness(monkeypatch, *arguments) == (1 if name in ("missing file", "missing model") else 2)
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_trains_in_bfloat16(base_model, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    arguments = [word for word in TRAIN_WELL if not word.startswith(("training.device", "training.dtype"))]
    assert harness(monkeypatch, *arguments, *base_model) == 0
    assert manifest()["before"] < max(entry["ndcg@10"] for entry in manifest()["curve"] if "ndcg@10" in entry)
