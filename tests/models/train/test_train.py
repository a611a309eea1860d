"""`harness train`, as a user types it, on a tiny model and a collection that it can learn."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.models import write_dense, write_masked
from support.trainable import write_ciphered
from transformers import BertConfig, BertForSequenceClassification

from harness import __main__
from harness.cli.tuned import EncoderLocation, configs
from harness.config import build
from harness.datasets import folder
from harness.metrics import parse, score
from harness.store import Store
from harness.train import outcome, trainers, triplets
from harness.train.triplets import Triplets

TRAIN = ["train", "dataset=folder", "dataset.path=made", "leaks.positives=allow", "negatives=random", "data_dir=null"]
TRAIN += ["training.device=cpu", "training.dtype=float32", "dev.queries=8", "training.evaluations=2"]
TRAIN += ["training.batch_size=16"]
LEARNS = [*TRAIN, "training.learning_rate=0.01", "training.epochs=25"]
SETTINGS = ["timing.latency_queries=1", "timing.warmup_documents=0", "timing.repeats=1", "dataset=folder"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"dense": write_dense(root / "dense"), "masked": write_masked(root / "masked")}


@pytest.fixture
def here(tmp_path, monkeypatch, models):
    """A working folder with the collection in `made`; gives what chooses the tiny dense model."""
    write_ciphered(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return [f"retriever.encoder.model={models['dense']}", "retriever.encoder.package=null"]


def harness(monkeypatch, *arguments):
    """Run the command in this process; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    return stop.value.code


def manifest(output="models/tuned"):
    return json.loads(Path(output, "manifest.json").read_text())


def ndcg(*overrides):
    """On the test split, by the ordinary configs."""
    retriever = build.construct(build.composed(overrides)["retriever"], "retriever")
    made = folder.load("made", **{key: COLUMNS[key] for key in COLUMNS})
    retriever.index(made.corpus)
    _, values = score(retriever.search(made.queries, 10), made.qrels, [parse("ndcg@10")])
    return float(values["ndcg@10"].mean())


COLUMNS = {
    "columns": {"id": "_id", "title": "title", "text": "text"},
    "query_columns": {"id": "_id", "text": "text"},
    "qrels_columns": {"query": "query-id", "document": "corpus-id", "grade": "score"},
}


def test_a_trained_model_answers_what_the_base_did_not(here, monkeypatch, capsys):
    assert harness(monkeypatch, *LEARNS, *here) == 0
    out, err = capsys.readouterr()
    tuned = ["retriever=minilm", "retriever.encoder.model=models/tuned", "retriever.encoder.package=null"]
    before, after = ndcg("retriever=minilm", *here), ndcg(*tuned)
    assert after > before + 0.2
    said = manifest()
    assert said["steps"] == 125
    assert said["data"]["rows"] == 72
    assert said["dev"] == {"queries": 8, "documents": 120}
    assert said["before"] < max(entry["ndcg@10"] for entry in said["curve"] if "ndcg@10" in entry)
    assert said["base"]["source"] == "folder"
    assert "harness finetuned models/tuned" in out
    assert "step 125 of 125: dev ndcg@10" in err
    assert not list(Path("models").rglob("*.bin"))
    assert not Path("models/tuned/.training").exists()


def test_the_ready_configs_measure_base_and_tuned_and_hybrids(here, monkeypatch, capsys):
    assert harness(monkeypatch, *LEARNS, *here) == 0
    sweep = ["~hydra.sweeper.params.dataset", "dataset.path=made", *SETTINGS]
    assert harness(monkeypatch, "finetuned", *sweep) == 0
    found = {record.retriever.name: record for record in Store(Path("results")).records()}
    assert sorted(found) == ["base", "bm25", "hybrid_base", "hybrid_tuned", "tuned"]
    assert found["tuned"].metrics["ndcg@10"] > found["base"].metrics["ndcg@10"]
    assert found["tuned"].command.startswith("harness --config-dir=")
    capsys.readouterr()
    assert harness(monkeypatch, "compare", "base", "tuned") == 0
    assert "tuned" in capsys.readouterr().out
    assert harness(monkeypatch, "compare", "hybrid_base", "hybrid_tuned") == 0


def test_without_a_training_the_experiment_says_what_to_do(here, monkeypatch, capsys):
    assert harness(monkeypatch, "finetuned", "elsewhere") == 2
    err = capsys.readouterr().err
    assert "'elsewhere' has no conf/retriever" in err
    assert "harness train dataset=NAME output=elsewhere" in err


FAMILIES = {
    "splade": (["retriever=splade_tiny"], "masked", []),
    "colbert": (["retriever=colbert_minilm"], "dense", ["retriever.encoder.projection=own"]),
    "cross": (["retriever=rerank", "retriever@retriever.first_stage=minilm"], "dense", []),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_families_are_trained_and_loaded_by_the_ordinary_configs(family, here, models, monkeypatch):
    chosen, base, after = FAMILIES[family]
    encoder = "retriever.scorer.encoder" if family == "cross" else "retriever.encoder"
    started = [f"{encoder}.model={models[base]}", f"{encoder}.package=null"]
    if family == "cross":
        chosen = [*chosen, *(word.replace("encoder", "first_stage.encoder") for word in here)]
    assert harness(monkeypatch, *TRAIN, *chosen, *started, "training.learning_rate=0.01", "training.epochs=8") == 0
    assert manifest()["steps"] == (72 if family == "cross" else 40), "a cross-encoder's rows are pairs"
    losses = [entry["loss"] for entry in manifest()["curve"] if "loss" in entry]
    assert losses[-1] < losses[0]
    trained = [f"{encoder}.model=models/tuned", f"{encoder}.package=null"]
    ready = ndcg(*chosen, *trained, *after)
    assert (
        harness(monkeypatch, "--config-dir=models/tuned/conf", "retriever=tuned", "dataset.path=made", *SETTINGS) == 0
    )
    (record,) = Store(Path("results")).records()
    assert record.metrics["ndcg@10"] == pytest.approx(ready, abs=1e-6)
    assert 0 < ready <= 1


def test_matryoshka_and_cached_gradients_and_bfloat16_train_too(here, monkeypatch):
    more = ["positives=nearest", "training.epochs=4", "training.dtype=bfloat16", "training.patience=1"]
    more += ["loss.matryoshka=[8,4]", "loss.mini_batch=4"]
    assert harness(monkeypatch, *TRAIN, *here, *more, "training.learning_rate=0.01") == 0
    assert ndcg("retriever=minilm", "retriever.encoder.model=models/tuned", "retriever.encoder.dimensions=4") > 0


def test_the_same_command_again_finds_it_trained_and_another_is_refused(here, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *here) == 0
    first = manifest()
    assert harness(monkeypatch, *TRAIN, *here) == 0
    assert "models/tuned is already trained; to train again, add resume=false" in capsys.readouterr().err
    assert manifest() == first
    assert harness(monkeypatch, *TRAIN, *here, "seed=1") == 2
    err = capsys.readouterr().err
    assert "models/tuned has the model of another training" in err
    assert "output=FOLDER" in err
    assert harness(monkeypatch, *TRAIN, *here, "seed=1", "resume=false") == 0
    assert manifest()["plan"] != first["plan"]


def test_a_folder_that_no_training_wrote_is_not_touched(here, monkeypatch, capsys):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    for again in ("resume=true", "resume=false"):
        assert harness(monkeypatch, *TRAIN, *here, "output=mine", again) == 2
        assert "mine is not empty and is not the output of a training" in capsys.readouterr().err
    assert Path("mine/thesis.txt").read_text() == "years of work"


def test_a_training_that_was_killed_before_its_plan_was_written_begins_again(tmp_path):
    (tmp_path / ".training").mkdir()
    (tmp_path / ".training" / ".harness-0123.tmp").write_bytes(b"{")
    assert outcome.claim(tmp_path, "plan", restart=False) is None
    assert (tmp_path / ".training" / "plan.json").read_text() == '{"plan": "plan"}'


def killed_after_a_checkpoint(words):
    """Start the command, kill it when a checkpoint is whole, and say at which step that was."""
    process = subprocess.Popen([sys.executable, "-m", "harness", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("models/tuned/.training").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_model(here, monkeypatch, capsys):
    words = [*TRAIN, *here, "training.epochs=16", "training.evaluations=8"]
    words += ["training.learning_rate=0.003"]
    killed_after_a_checkpoint(words)
    assert not Path("models/tuned/manifest.json").exists()
    broken = Path("models/tuned/.training/checkpoint-9999")
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_step"')  # killed while it was written
    assert harness(monkeypatch, *words) == 0
    resumed = manifest()
    assert harness(monkeypatch, *words, "output=undisturbed") == 0
    whole = manifest("undisturbed")
    assert 0 < resumed["resumed_at"] < resumed["steps"] == whole["steps"] == 80
    assert whole["resumed_at"] == 0
    assert [entry["step"] for entry in resumed["curve"]] == [entry["step"] for entry in whole["curve"]]
    measured = [[entry["ndcg@10"] for entry in said["curve"] if "ndcg@10" in entry] for said in (resumed, whole)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-3)
    assert resumed["best_step"] == whole["best_step"]


def test_patience_counts_on_after_an_interruption(here, monkeypatch, capsys):
    words = [*TRAIN, *here, "training.epochs=16", "training.evaluations=8", "training.patience=3"]
    words += ["training.learning_rate=1e-9"]  # never better than the first time
    measured = trainers.Progress.on_evaluate

    def interrupted(self, args, state, control, **more):
        measured(self, args, state, control, **more)
        if state.global_step == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainers.Progress, "on_evaluate", interrupted)
        assert harness(monkeypatch, *words) == 130
    assert harness(monkeypatch, *words) == 0
    assert manifest()["resumed_at"] == 20
    assert manifest()["steps"] == 40, "the first measurement and three that are not better"


def test_two_processes_of_torchrun_train_one_model(here, monkeypatch):
    words = [*TRAIN, *here, "training.epochs=2", "training.batch_size=8"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness"]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("before: dev ndcg@10") == 1, "one of them speaks"
    assert done.stdout.count("* saved: models/tuned") == 1
    assert manifest()["steps"] == 8, "each step is a batch of each process"
    assert 0 < ndcg("retriever=minilm", "retriever.encoder.model=models/tuned") <= 1
    leaking = [*launch, *words, "leaks.positives=refuse", "leaks.queries=refuse", "split=test", "output=leaks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    failed = subprocess.run(leaking, capture_output=True, text=True, env=environment, timeout=600)  # none waits on
    assert failed.returncode != 0
    assert failed.stderr.count("error: the training data contain 40 of 40 queries of made test") == 1
    assert failed.stderr.count("Traceback") == 1, "torchrun's own"


def test_a_file_of_triplets_is_trained_on(here, monkeypatch):
    rows = [json.loads(line) for line in Path("made/corpus.jsonl").read_text().splitlines()]
    asked = [json.loads(line)["text"] for line in Path("made/queries.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows]
    triplets.write(Path("own.jsonl"), Triplets(asked[:40], texts[:40], [[text] for text in texts[40:80]]))
    assert harness(monkeypatch, "train", "triplets=own.jsonl", "dev.queries=4", "training.device=cpu", *here) == 0
    assert manifest()["data"]["source"] == "own.jsonl"
    assert manifest()["data"]["rows"] == 36


def test_a_missing_package_is_named_before_anything_is_done(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert harness(monkeypatch, *TRAIN, *here) == 2
    assert "pip install 'retrieval-harness[train]'" in capsys.readouterr().err
    assert not Path("models").exists()


def test_what_else_lies_in_a_trainings_folder_stays_there(here, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *here) == 0
    Path("models/tuned/notes.txt").write_text("what I thought of it")
    assert harness(monkeypatch, *TRAIN, *here, "seed=1", "resume=false") == 0
    assert Path("models/tuned/notes.txt").read_text() == "what I thought of it"
    shutil.copytree("models/tuned", "models/copied")
    capsys.readouterr()
    assert harness(monkeypatch, "finetuned", "models/copied") == 2
    assert "'models/copied' was moved or copied" in capsys.readouterr().err


def test_no_secret_of_a_part_is_in_the_ready_configs(here, monkeypatch):
    config = build.compose_config(["retriever=rerank", "+retriever.first_stage.api_key=sk-not-to-be-seen"])
    found = configs(config, EncoderLocation(("scorer", "encoder"), {}, None), {}, Path("out"))
    assert "sk-not-to-be-seen" not in "".join(found.values())
    assert "depth: ${k}" in found["base"]


def test_rows_of_another_training_are_not_mixed_with_these(here, monkeypatch, capsys):
    assert harness(monkeypatch, *TRAIN, *here) == 0
    assert harness(monkeypatch, *TRAIN, *here, "seed=1", "output=models/other") == 0
    sweep = ["~hydra.sweeper.params.dataset", "hydra.sweeper.params.retriever=tuned", "dataset.path=made", *SETTINGS]
    assert harness(monkeypatch, "finetuned", *sweep) == 0
    other = ["finetuned", "models/other", *sweep]
    capsys.readouterr()
    assert harness(monkeypatch, *other) == 2
    err = capsys.readouterr().err
    assert "results has rows called base and tuned of another training" in err
    assert "harness finetuned models/other results_dir=results/other" in err
    assert harness(monkeypatch, *other, "results_dir=results/other") == 0
    assert (
        harness(monkeypatch, *TRAIN, *here, "seed=1", "output=models/other", "resume=false", "training.epochs=2") == 0
    )
    assert harness(monkeypatch, *other, "results_dir=results/other") == 2, "the folder has another model now"


WRONG = {
    "unread": (
        [*TRAIN, "retriever=splade_tiny", "loss.matryoshka=[8]"],
        "SparseEncoder is trained without this setting",
    ),
    "labels": (
        [*TRAIN, "retriever=rerank", "retriever.scorer.encoder.model=./labels", "positives=nearest"],
        "labels has a head of 3 labels",
    ),
    "dev": ([*TRAIN, "dev.split=test"], "dev.split='test' is the training or test split"),
    "wide": ([*TRAIN, "loss.matryoshka=[17]"], "17 is more than the model's 16 dimensions"),
    "none": ([*TRAIN, "loss.matryoshka=[0]"], "loss.matryoshka.0=0: Input should be greater than or equal to 1"),
    "pairs": (
        [*TRAIN, "retriever=rerank", "negatives=none", "retriever@retriever.first_stage=bm25"],
        "a cross-encoder cannot be trained on positives alone; choose negatives=mined",
    ),
    "nothing": (["train"], "nothing to train on; give dataset=NAME with a training split, or triplets=FILE"),
    "bm25": ([*TRAIN, "retriever=bm25"], "this retriever has no model to train"),
    "three": ([*TRAIN, "retriever=hybrid_three"], "this retriever has several models"),
    "key": ([*TRAIN, "training.epoch=3"], "did you mean training.epochs?"),
    "value": ([*TRAIN, "training.batch_size=0"], "training.batch_size=0: Input should be greater than or equal to 1"),
    "split": ([*TRAIN, "split=dev"], "has no split 'dev'; choices: test, train"),
    "file": (["train", "triplets=none.jsonl"], "none.jsonl: no such file"),
    "metric": ([*TRAIN, "dev.metric=ndcg@ten"], "unknown metric 'ndcg@ten'"),
    "model": ([*TRAIN, "retriever.encoder.model=./nowhere"], "no folder './nowhere'"),
    "stdlib": (
        ["train", "dataset=stdlib"],
        "has no split 'train' to train on; make triplets from it: harness synthesize",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_with_what_to_do(name, here, monkeypatch, capsys):
    words, said = WRONG[name]
    if name == "wide":
        words = [*words, *here]
    if name == "labels":
        config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
        BertForSequenceClassification(config).save_pretrained("labels")
        words = [*words, "retriever@retriever.first_stage=bm25"]
    if name == "pairs":
        words = [*words, here[0].replace("encoder", "scorer.encoder")]
    assert harness(monkeypatch, *words) == (1 if name in ("file", "model") else 2)
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_trains_in_bfloat16(here, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    words = [word for word in LEARNS if not word.startswith(("training.device", "training.dtype"))]
    assert harness(monkeypatch, *words, *here) == 0
    assert manifest()["before"] < max(entry["ndcg@10"] for entry in manifest()["curve"] if "ndcg@10" in entry)
