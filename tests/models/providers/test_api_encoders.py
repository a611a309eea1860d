"""Tests of harness/providers/api.py: the requests of both protocols, and their configs and settings."""

import subprocess
import sys

import pytest
from hydra.utils import get_object
from support.api_server import KEY, reversed_order
from support.hosted_encoders import ENCODER_CLASSES, KEY_VARIABLES, TEXTS, assert_minilm_vectors

from harness.config import build
from harness.config.conf import options_of
from harness.errors import ConfigError
from harness.providers import api
from harness.retrievers.dense import Dense
from harness.types import StringColumn
from harness.types.protocols import parameters


def test_an_openai_request_has_only_model_input_and_format(make_encoder, server):
    make_encoder("openai").encode(StringColumn(["a text"]), "query")
    assert server.requests == [{"model": "minilm", "input": ["a text"], "encoding_format": "float"}]


def test_a_cohere_request_has_the_input_type(make_encoder, server):
    for side in ("query", "document"):
        make_encoder("cohere").encode(StringColumn(["a text"]), side)
        fields = {"model": "minilm", "texts": ["a text"], "embedding_types": ["float"], "truncate": "END"}
        assert server.requests.pop() == {**fields, "input_type": f"search_{side}"}


def test_dimensions_length_and_extra_body_are_sent_if_set(make_encoder, server):
    text = StringColumn(["a text"])
    make_encoder("openai", dimensions=384, extra_body={"truncate_prompt_tokens": -1}).encode(text, "query")
    make_encoder("cohere", dimensions=384, max_tokens=100).encode(text, "query")
    assert server.requests[0]["dimensions"] == 384
    assert server.requests[0]["truncate_prompt_tokens"] == -1
    assert (server.requests[1]["output_dimension"], server.requests[1]["max_tokens"]) == (384, 100)


def test_vectors_are_sorted_by_their_index(make_encoder, server, minilm):
    server.default_answer = reversed_order
    assert_minilm_vectors(make_encoder("openai").encode(StringColumn(TEXTS), "document"), minilm)


# ---- Configs and settings

CONFIGS = ["openai_small", "openai_large", "openai_ada", "openai_compatible", "cohere_v3", "cohere_v4"]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_has_every_key_and_is_built_without_api_key_package_or_network(name, monkeypatch):
    for variable in (*KEY_VARIABLES.values(), "EMBEDDINGS_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for package in ENCODER_CLASSES:
        monkeypatch.setitem(sys.modules, package, None)
    config = build.composed([f"retriever={name}"])["retriever"]
    assert isinstance(build.construct(config, "retriever"), Dense)
    target = config["encoder"].pop("_target_")
    assert set(config["encoder"]) == set(parameters(get_object(target)))
    assert dict(options_of("retriever"))[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_encodes_with_the_server_of_its_base_url(name, server, minilm, empty_cache, monkeypatch):
    config = build.composed([f"retriever={name}"])["retriever"]
    config["encoder"] |= {"model": "minilm", "base_url": server.address + ("" if "cohere" in name else "/v1")}
    assert_minilm_vectors(build.construct(config, "retriever")._encoder.encode(StringColumn(TEXTS), "document"), minilm)


def test_a_missing_package_is_named_with_its_extra(protocol, monkeypatch):
    monkeypatch.setitem(sys.modules, protocol, None)
    monkeypatch.setenv(KEY_VARIABLES[protocol], KEY)
    with pytest.raises(ConfigError) as error:
        ENCODER_CLASSES[protocol]("model").encode(StringColumn(["a"]), "query")
    message = str(error.value)
    assert message.startswith(f"the package {protocol} is needed (")
    assert message.endswith(f"): pip install 'retrieval-harness[{protocol}]'")


def test_importing_the_module_imports_neither_sdk():
    code = "import sys, harness.providers.api; print([name for name in ('openai', 'cohere') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_model_is_an_error_before_any_request(server, empty_cache):
    encoder = api.OpenAIEncoder(None, base_url=f"{server.address}/v1")
    with pytest.raises(ConfigError) as error:
        encoder.encode(StringColumn(["a"]), "query")
    assert "encoder.model is not set; retriever.encoder.model=NAME" in str(error.value)
    assert f"{server.address}/v1/models" in str(error.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"batch_texts": 0}, "at least 1"),
        ({"batch_texts": 2049}, "2048"),
        ({"batch_tokens": 0}, "at least 1"),
        ({"max_tokens": 0}, "at least 1"),
        ({"dimensions": 0}, "at least 1"),
        ({"concurrency": 0}, "at least 1"),
        ({"retries": -1}, "at least 0"),
        ({"price_per_million_tokens": -0.1}, "at least 0"),
        ({"timeout_s": 0}, "more than 0"),
    ],
)
def test_an_invalid_setting_is_an_error_with_its_value_and_limit(settings, limit):
    with pytest.raises(ConfigError) as error:
        api.OpenAIEncoder("model", **settings)
    ((name, value),) = settings.items()
    assert f"encoder.{name}={value}" in str(error.value)
    assert limit in str(error.value)
