"""Tests of harness/interop/mteb/prompts.py: prompts equal mteb's, in the config, in the record and before the texts."""

import json

import pytest
from support.models import write_dense
from support.mteb_tasks import dataset_rows, write_repository

from harness.cli.run import main as run
from harness.config import build
from harness.errors import ConfigError
from harness.interop.mteb import prompts, registry
from harness.interop.mteb.prompts import prompt
from harness.store import Store


@pytest.mark.parametrize(
    ("model", "task", "query", "document"),
    [
        ("intfloat/e5-base-v2", "SciFact", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "ArguAna", "Represent this sentence for searching relevant passages: ", ""),
        (
            *("intfloat/multilingual-e5-large-instruct", "ArguAna"),
            *("Instruct: Given a claim, find documents that refute the claim\nQuery: ", ""),
        ),
        (
            *("intfloat/multilingual-e5-large-instruct", "scifact"),
            *("Instruct: Given a scientific claim, retrieve documents that support or refute the claim\nQuery: ", ""),
        ),
    ],
)
def test_prompts_equal_those_of_the_registry(model, task, query, document):
    assert prompt(model, task, "query") == query
    assert prompt(f"{model}@revision", task, "document") == document


@pytest.mark.parametrize(
    "model",
    [
        "intfloat/multilingual-e5-large-instruct",  # a template in words
        "BidirLM/BidirLM-0.6B-Embedding",  # a template as a function, and prompts by task type
    ],
)
def test_an_instruction_equals_that_of_mtebs_wrapper(model):
    """For a sample of all ranking tasks; the wrapper is constructed around an empty model."""
    import mteb
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.types import PromptType
    from torch import nn

    loader_kwargs = mteb.get_model_meta(model).loader_kwargs
    names = ("instruction_template", "prompts_dict", "prompt_priority")
    settings = {name: loader_kwargs[name] for name in names if name in loader_kwargs}
    wrapper = InstructSentenceTransformerModel(None, None, modules=[nn.Identity()], **settings)
    for task in registry.tasks()[::25]:
        if not task.is_aggregate:
            with registry.quiet():
                expected = wrapper.get_task_instruction(task.metadata, PromptType.query)
            assert prompt(model, task.metadata.name, "query") == expected


@pytest.mark.parametrize(
    "name",
    [
        "google/embeddinggemma-300m",  # its loader is a wrapper class of mteb
        "zeroentropy/zembed-1",  # its loader is mteb's function for sentence-transformers
    ],
)
def test_prompts_of_the_models_config_are_used_where_the_registry_has_none(tmp_path, monkeypatch, name):
    folder = write_dense(tmp_path)
    config = folder / "config_sentence_transformers.json"
    settings = json.loads(config.read_text())
    settings["prompts"] = {"query": "q: ", "document": "d: ", "Retrieval-query": "find: ", "ArguAna": "refute: "}
    config.write_text(json.dumps(settings))
    from harness import weights

    monkeypatch.setattr(prompts.weights, "find", lambda *_: weights.Weights(folder, "folder", "x"))
    assert prompt(name, "SciFact", "query") == "find: "
    assert prompt(name, "SciFact", "document") == "d: "
    assert prompt(name, "ArguAna", "query") == "refute: "
    assert prompt(name, "AskUbuntuDupQuestions", "query") == "q: "


@pytest.mark.parametrize("model", ["Qwen/Qwen3-Embedding-0.6B", "nvidia/NV-Embed-v2"])
def test_prompts_known_only_to_the_loaded_model_are_an_error_that_names_mtebs_wrapper(model):
    """A loader function with a template inside it, and a wrapper class of the model's authors."""
    with pytest.raises(ConfigError) as raised:
        prompt(f"{model}@revision", "SciFact", "query")
    for part in (repr(model), f"retriever=mteb retriever.model={model}@revision", "query_prompt and document_prompt"):
        assert part in str(raised.value)


def test_a_model_that_is_not_registered_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError) as raised:
        prompt("intfloat/e5-base-v22", "SciFact", "query")
    for part in ("'intfloat/e5-base-v22'", "'intfloat/e5-base-v2'", "leave prompts=mteb out"):
        assert part in str(raised.value)


def test_prompts_mteb_sets_the_prompts_in_the_config():
    overrides = ["retriever=bge_small", "prompts=mteb", "dataset=mteb", "dataset.task=SciFact"]
    encoder = build.composed(overrides)["retriever"]["encoder"]
    assert encoder["query_prompt"] == "Represent this sentence for searching relevant passages: "
    assert encoder["document_prompt"] == ""
    group = "+prompts@retriever.retrievers.dense.encoder=mteb"
    hybrid = ["retriever=hybrid", "retriever@retriever.retrievers.dense=bge_base", group, "dataset=scifact"]
    assert build.composed(hybrid)["retriever"]["retrievers"]["dense"]["encoder"]["query_prompt"].startswith("Represent")
    assert build.composed(["retriever=bge_small", "dataset=scifact"])["retriever"]["encoder"]["document_prompt"] is None


@pytest.mark.slow
def test_the_record_holds_the_prompts_and_the_label_names_their_source(tmp_path, real_dataset):
    """A tiny model with the prompts of a registered one: `model` is overridden, `query_prompt` names the other."""
    folder = write_repository(
        tmp_path / "repo", {part: rows[:20] for part, rows in dataset_rows(real_dataset("xquad/en")).items()}
    )
    model = write_dense(tmp_path / "tiny")
    task = ["dataset=mteb", "dataset.task=SciFact", f"dataset.folder={folder}"]
    query_prompt = 'query_prompt="${mteb_prompt:BAAI/bge-small-en-v1.5,SciFact,query}"'
    encoder = [f"model={model}", query_prompt, "document_prompt=''"]
    overrides = ["retriever=bge_small", "prompts=mteb", *task, *(f"retriever.encoder.{value}" for value in encoder)]
    assert run([*overrides, f"results_dir={tmp_path / 'results'}", "timing.latency_queries=0"]) == 0
    (record,) = Store(tmp_path / "results").records()
    expected = "Represent this sentence for searching relevant passages: "
    assert record.retriever.config["encoder"]["query_prompt"] == expected
    assert record.encoders[""].prompts == {"query": expected, "document": ""}
    assert record.retriever.differences["prompts"] == "mteb"


def test_prompts_mteb_needs_a_dataset_that_is_a_task(tmp_path, capsys):
    overrides = ["retriever=bge_small", "prompts=mteb", "dataset=folder", f"dataset.path={tmp_path}"]
    assert run([*overrides, f"results_dir={tmp_path}"]) == 2
    assert "prompts=mteb needs an mteb task, and this dataset is not one" in capsys.readouterr().err


def test_a_config_can_name_the_tasks_instruction():
    overrides = ["retriever=e5_instruct", "dataset=mteb", "dataset.task=ArguAna"]
    assert build.composed(overrides)["retriever"]["encoder"]["query_prompt"] == (
        "Instruct: Given a claim, find documents that refute the claim\nQuery: "
    )


def test_a_task_without_an_instruction_has_mtebs_instruction_for_its_kind():
    overrides = ["retriever=e5_instruct", "dataset=mteb", "dataset.task=GermanQuAD-Retrieval"]
    assert build.composed(overrides)["retriever"]["encoder"]["query_prompt"] == (
        "Instruct: Retrieve text based on user query.\nQuery: "
    )


def test_a_null_instruction_is_an_error_that_names_the_override(tmp_path, capsys):
    overrides = ["retriever=e5_instruct", "dataset=irds", "dataset.id=beir/scifact/test"]
    assert run([*overrides, f"results_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert "dataset.instruction='Given" in message
    assert "Traceback" not in message
    encoder = build.composed([*overrides, "dataset.instruction='Find it'"])["retriever"]["encoder"]
    assert encoder["query_prompt"] == "Instruct: Find it\nQuery: "
