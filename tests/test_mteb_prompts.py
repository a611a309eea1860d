"""mteb's prompts word for word: in the config, in the record, before the texts."""

import json

import pytest
from mteb_tasks import rows_of, write
from tiny_models import write_dense

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
            *("Qwen/Qwen3-Embedding-0.6B", "scifact"),
            "Instruct: Given a scientific claim, retrieve documents that support or refute the claim\nQuery:",
            "",
        ),
    ],
)
def test_the_registrys_prompts_are_given_word_for_word(model, task, query, document):
    assert prompt(model, task, "query") == query
    assert prompt(f"{model}@revision", task, "document") == document


def test_an_instruction_is_what_mtebs_own_wrapper_makes_of_the_task():
    """Of every task that ranks texts, with a model whose registered template holds the instruction."""
    mteb = pytest.importorskip("mteb")
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel as Wrapper
    from mteb.types import PromptType

    name = "intfloat/multilingual-e5-large-instruct"
    own = object.__new__(Wrapper)
    own.instruction_template = mteb.get_model_meta(name).loader_kwargs["instruction_template"]
    own.prompts_dict = None
    for task in registry.tasks()[::25]:
        if not task.is_aggregate:
            with registry.quiet():
                assert prompt(name, task.metadata.name, "query") == own.get_task_instruction(
                    task.metadata, PromptType.query
                )


def test_prompts_that_the_model_itself_names_by_type_of_task_are_used(tmp_path, monkeypatch):
    """As EmbeddingGemma's: the registry has none, the model's own config has them by name."""
    folder = write_dense(tmp_path)
    config = folder / "config_sentence_transformers.json"
    told = json.loads(config.read_text())
    told["prompts"] = {"query": "q: ", "document": "d: ", "Retrieval-query": "find: ", "ArguAna": "refute: "}
    config.write_text(json.dumps(told))
    from harness import weights

    monkeypatch.setattr(prompts.weights, "find", lambda *_: weights.Weights(folder, "folder", "x"))
    name = "google/embeddinggemma-300m"
    assert prompt(name, "SciFact", "query") == "find: "
    assert prompt(name, "SciFact", "document") == "d: "
    assert prompt(name, "ArguAna", "query") == "refute: "
    assert prompt(name, "AskUbuntuDupQuestions", "query") == "q: "


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/none", "mteb's registry has no model 'org/none', so there are no prompts of its for it"),
        ("nvidia/NV-Embed-v2", "mteb runs 'nvidia/NV-Embed-v2' with code of its own"),
    ],
)
def test_a_model_without_prompts_that_can_be_known_is_an_error(model, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        prompt(model, "SciFact", "query")


def test_a_config_that_asks_for_them_has_them_in_it():
    words = ["retriever=bge_small", "prompts=mteb", "dataset=mteb", "dataset.task=SciFact"]
    encoder = build.composed(words)["retriever"]["encoder"]
    assert encoder["query_prompt"] == "Represent this sentence for searching relevant passages: "
    assert encoder["document_prompt"] == ""
    part = "prompts@retriever.retrievers.dense.encoder=mteb"
    inner = ["retriever=hybrid", "retriever@retriever.retrievers.dense=bge_base", f"+{part}", "dataset=scifact"]
    assert build.composed(inner)["retriever"]["retrievers"]["dense"]["encoder"]["query_prompt"].startswith("Represent")
    assert build.composed(["retriever=bge_small", "dataset=scifact"])["retriever"]["encoder"]["document_prompt"] is None


def test_the_literal_strings_are_in_the_record_and_the_label_says_where_they_are_from(tmp_path, collection):
    """A tiny model under a registered name's prompts: `model` is set after the prompts were chosen by name."""
    folder = write(tmp_path / "repo", {part: rows[:20] for part, rows in rows_of(collection("xquad/en")).items()})
    model = write_dense(tmp_path / "tiny")
    words = ["retriever=bge_small", "prompts=mteb", "dataset=mteb", "dataset.task=SciFact", f"dataset.folder={folder}"]
    named = 'query_prompt="${mteb_prompt:BAAI/bge-small-en-v1.5,SciFact,query}"'
    own = [f"retriever.encoder.model={model}", f"retriever.encoder.{named}", "retriever.encoder.document_prompt=''"]
    assert run([*words, *own, f"results_dir={tmp_path / 'results'}", "timing.latency_queries=0"]) == 0
    (record,) = Store(tmp_path / "results").records()
    said = "Represent this sentence for searching relevant passages: "
    assert record.retriever.config["encoder"]["query_prompt"] == said
    assert record.facts["prompts"] == {"query": said, "document": ""}
    assert record.retriever.differences["prompts"] == "mteb"


def test_a_dataset_that_is_no_task_has_no_prompts(tmp_path, capsys):
    words = ["retriever=bge_small", "prompts=mteb", "dataset=folder", f"dataset.path={tmp_path}"]
    assert run([*words, f"results_dir={tmp_path}"]) == 1
    assert "prompts=mteb takes a task's prompts, and this dataset is no task" in capsys.readouterr().err


def test_a_tasks_own_instruction_stands_in_a_config_that_names_it():
    words = ["retriever=e5_instruct", "dataset=mteb", "dataset.task=ArguAna"]
    assert build.composed(words)["retriever"]["encoder"]["query_prompt"] == (
        "Instruct: Given a claim, find documents that refute the claim\nQuery: "
    )


def test_a_task_that_says_nothing_is_asked_as_mteb_asks_tasks_of_its_kind():
    words = ["retriever=e5_instruct", "dataset=mteb", "dataset.task=GermanQuAD-Retrieval"]
    assert build.composed(words)["retriever"]["encoder"]["query_prompt"] == (
        "Instruct: Retrieve text based on user query.\nQuery: "
    )


def test_an_instruction_that_is_null_is_asked_for(tmp_path, capsys):
    words = ["retriever=e5_instruct", "dataset=irds", "dataset.id=beir/scifact/test"]
    assert run([*words, f"results_dir={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "dataset.instruction is null; say what is asked: dataset.instruction='Given" in said
    assert "Traceback" not in said
    encoder = build.composed([*words, "dataset.instruction='Find it'"])["retriever"]["encoder"]
    assert encoder["query_prompt"] == "Instruct: Find it\nQuery: "
