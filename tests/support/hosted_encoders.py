"""Encoders of the API providers, and what their tests compare their embeddings with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from harness import instrument
from harness.providers import api
from harness.types import StringColumn

TEXTS = [
    "Cats purr.",
    "",
    "Dogs bark at the moon.",
    "日本語の文書です。",
    "Bread is baked from flour, water and salt.",
    " ",
]
URL_PATHS = {"openai": "/v1", "cohere": ""}
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY"}
"""The environment variable with the API key, by provider."""
ENCODER_CLASSES = {"openai": api.OpenAIEncoder, "cohere": api.CohereEncoder}


def numbered_texts(n: int) -> list[str]:
    """Return `n` different texts."""
    return [f"text number {number} of many" for number in range(n)]


def minilm_vectors(minilm: Any, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors of texts by the model that the server answers with."""
    return minilm._encoder.encode(StringColumn(texts), "query").numpy()


def assert_minilm_vectors(embeddings: Any, minilm: Any, texts: Sequence[str] = TEXTS) -> None:
    """Check that embeddings are float32 on the CPU and equal MiniLM's vectors of the texts."""
    assert isinstance(embeddings, torch.Tensor)
    assert embeddings.dtype == torch.float32
    assert embeddings.device.type == "cpu"
    np.testing.assert_allclose(embeddings.numpy(), minilm_vectors(minilm, texts), atol=1e-6)


def record_counters(work: Callable[[], Any]) -> tuple[dict[str, int], Any]:
    """Call `work`, and return the counters and the encoder's metadata that it recorded."""
    with instrument.recording() as recorder:
        work()
    return recorder.phase().counters[""].model_dump(), recorder.encoders[""]
