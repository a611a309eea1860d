"""Tests of the configs in conf/: each composes, constructs its object, and opens with a comment and a command."""

import re

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from harness.cli import tuned
from harness.cli.train import TrainConfig
from harness.cli.validate import validate_all
from harness.config import build, wording
from harness.config.conf import CONF, options_of
from harness.config.evaluation import validate_evaluation_config
from harness.config.keys import check_keys
from harness.config.wording import RENAMED_KEYS
from harness.errors import ConfigError
from harness.evaluation.timing import TimingPlan
from harness.metrics import parse
from harness.train.plan import DevPlan, LeakPlan, LossPlan, TrainingPlan
from harness.types import Retriever

FILES = sorted(CONF.rglob("*.yaml"))
REQUIRED = {"mteb": ["retriever.model=org/name"], "run_file": [f"retriever.path={CONF / 'run.yaml'}"]}
"""Overrides of the keys that have no default."""
BEIR = [
    *("msmarco", "trec-covid", "nfcorpus", "nq", "hotpotqa", "fiqa", "arguana", "webis-touche2020"),
    *("quora", "dbpedia-entity", "scidocs", "fever", "climate-fever", "scifact"),
]


@pytest.mark.parametrize(("old", "new"), wording.MOVED_TARGETS.items())
def test_moved_target_is_refused_with_its_new_name(old, new):
    assert callable(get_object(new))
    with pytest.raises(ConfigError, match=f"_target_: {new}"):
        build.construct({"_target_": old}, "retriever")


OWNERS = {
    "provides": "harness.weights.Package",
    "recall_sample": "harness.retrievers.dense.Dense",
    "storage_dtype": "harness.encoders.multi_vector.MultiVectorEncoder",
    **dict.fromkeys(("M", "nlist", "nprobe"), "harness.search.ann.Faiss"),
}
"""Classes of the renamed arguments."""


@pytest.mark.parametrize(("old", "new"), [pair for pair in RENAMED_KEYS.items() if pair[1] in OWNERS])
def test_renamed_argument_is_refused_with_its_new_name(old, new):
    with pytest.raises(ConfigError, match=rf"retriever has no key '{old}'.*write: {new}"):
        check_keys({"_target_": OWNERS[new], old: 1}, "retriever")


@pytest.mark.parametrize(("old", "new"), [("enough_s", "max_search_s"), ("least_s", "min_search_s")])
def test_renamed_timing_key_is_refused_with_its_new_name(old, new):
    with pytest.raises(ConfigError, match=rf"timing has no key '{old}'.*write: {new}"):
        build.composed(["retriever=bm25", f"timing.{old}=1"])
    config = build.compose_config(["retriever=bm25", f"+timing.{old}=1"])
    with pytest.raises(ConfigError, match=rf"timing.{old}=1.*write: {new}"):
        validate_evaluation_config(config)


@pytest.mark.slow
def test_validate_accepts_every_config():
    findings = validate_all()
    assert [finding for finding in findings if not finding["ok"]] == []
    assert len(findings) == sum(len(options_of(group)) for group in ("retriever", "dataset", "experiment"))


@pytest.mark.parametrize("name", [name for name, _ in options_of("retriever")])
def test_retriever_is_constructed_without_loading_weights(name, monkeypatch):
    monkeypatch.setattr("harness.weights.find", lambda *_: pytest.fail("weights were loaded"))
    retriever: Retriever = build.construct(
        build.composed([f"retriever={name}", *REQUIRED.get(name, [])])["retriever"], "retriever"
    )
    assert callable(retriever.index)
    assert callable(retriever.search)
    assert callable(retriever.nbytes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_config_opens_with_a_comment_and_a_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    group = path.relative_to(CONF).parts[0]
    if group in ("retriever", "dataset", "experiment"):
        assert "harness" in "".join(line for line in lines if line.startswith("#")), "no command to run it"


@pytest.mark.slow
def test_every_public_beir_dataset_has_a_config_with_a_checksum_and_counts():
    forums = [name for name, _ in options_of("dataset") if name.startswith("cqadupstack/")]
    assert len(BEIR) + 1 == 15
    assert len(forums) == 12
    for name in [*BEIR, *forums]:
        config = build.composed(["retriever=bm25", f"dataset={name}"])["dataset"]
        assert config["name"] == name
        assert re.fullmatch(r"[0-9a-f]{32}", config["md5"])
        assert config["url"].endswith(f"/{name.split('/')[0]}.zip")
        assert config["documents"] > 1000
        assert config["queries"][config["split"]] > 0
        assert config["drop_self_hits"] is (name in ("arguana", "quora"))
        assert (config.get("group"), config.get("parts")) == (("cqadupstack", 12) if "/" in name else (None, None))
    assert build.composed(["retriever=bm25", "dataset=msmarco"])["dataset"]["split"] == "dev"


def test_beir_experiment_sweeps_every_beir_dataset():
    text = (CONF / "experiment" / "beir.yaml").read_text(encoding="utf-8")
    swept = yaml.safe_load(text)["hydra"]["sweeper"]["params"]["dataset"].split(",")
    assert sorted(swept) == sorted([*BEIR, *(name for name, _ in options_of("dataset") if name.startswith("cqa"))])


@pytest.mark.parametrize("name", [name for name, _ in options_of("experiment")])
def test_experiment_names_existing_retrievers_datasets_and_metrics(name):
    config = build.composed([f"experiment={name}"])
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    for group in ("retriever", "dataset"):
        choices = {option for option, _ in options_of(group)}
        written_by_train = set(tuned.NAMES) if name == "finetune" else set()
        assert set(params[group].split(",")) <= choices | written_by_train
    for metric in config["metrics"]:
        assert (parse(metric).k or 0) <= config["k"]


@pytest.mark.parametrize("name", [name for name, _ in options_of("timing")])
def test_timing_config_is_a_valid_plan(name):
    plan = TimingPlan.model_validate(build.composed(["retriever=bm25", f"timing={name}"])["timing"])
    assert plan.repeats >= 1
    if name == "cpu1":
        assert plan.threads == 1
        assert plan.isolate


def test_hub_models_are_pinned_to_a_revision():
    for name in ("minilm", "mpnet", "bge_small", "bge_base", "bge_large"):
        encoder = build.composed([f"retriever={name}"])["retriever"]["encoder"]
        assert re.fullmatch(r"[\w-]+/[\w.-]+@[0-9a-f]{40}", encoder["model"])
        if name.startswith("bge"):
            assert encoder["query_prompt"] == "Represent this sentence for searching relevant passages: "
            assert encoder["document_prompt"] is None


def test_retriever_of_a_hybrid_can_be_swapped_by_name():
    config = build.composed(["retriever=hybrid", "retriever@retriever.retrievers.dense=bge_small"])["retriever"]
    assert config["retrievers"]["dense"]["encoder"]["model"].startswith("BAAI/bge-small")
    assert config["retrievers"]["lexical"]["_target_"].endswith("BM25")


def test_unknown_nested_key_is_refused_with_a_suggestion():
    config = build.composed(["retriever=hybrid"])["retriever"]
    config["retrievers"]["dense"]["encoder"]["devise"] = "cpu"
    with pytest.raises(ConfigError, match=r"retriever\.retrievers\.dense\.encoder has no key 'devise'.*did you mean"):
        build.construct(config, "retriever")


@pytest.mark.parametrize("generator", [name for name, _ in options_of("generator")])
@pytest.mark.parametrize("negatives", [name for name, _ in options_of("negatives")])
def test_synthesis_composes_with_every_generator_and_negatives(generator, negatives):
    config = build.composed([f"generator={generator}", f"negatives={negatives}"], name="synthesize")
    for group in ("generator", "negatives"):
        check_keys(config[group], group)


@pytest.mark.parametrize("negatives", [name for name, _ in options_of("negatives")])
def test_training_composes_with_every_kind_of_negatives(negatives):
    config = build.composed(["dataset=nfcorpus", f"negatives={negatives}"], name="train")
    check_keys(config["negatives"], "negatives")
    settings = build.validate_config(TrainConfig, OmegaConf.create(config), "harness train")
    assert settings.training == TrainingPlan()
    assert settings.loss == LossPlan()
    assert settings.dev == DevPlan()
    assert settings.leaks == LeakPlan()
