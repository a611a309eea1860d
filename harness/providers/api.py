"""Encoders of hosted APIs through their SDKs: OpenAI or any server with its protocol, and Cohere.

OPENAI_API_KEY=... harness retriever=openai_small dataset=scifact
"""

import importlib
from typing import Any, ClassVar

from harness.encoders.transformer import Side
from harness.providers import retries
from harness.providers.client import NO_KEY, OpenAIClient, Sdk, without_none
from harness.providers.hosted import HostedEncoder


class OpenAIEncoder(OpenAIClient, HostedEncoder):
    """OpenAI's embeddings, or those of any server that speaks its protocol: vLLM, TEI, Ollama, ...

    The settings are those of `HostedEncoder` and `OpenAIClient`.
    """

    family: ClassVar[str] = "openai"

    max_texts = 2048
    max_batch_tokens = 200_000

    def _identity(self, side: Side) -> dict[str, Any]:
        return {**super()._identity(side), "extra_body": self._extra_hash}

    def _send(self, texts: list[str], side: Side) -> Any:
        return self._sdk.client.embeddings.create(
            **without_none(model=self._model, dimensions=self._dimensions, extra_body=self._extra or None),
            input=texts,
            encoding_format="float",
        )

    def _vectors(self, answer: Any) -> list[Any]:
        embeddings = sorted(answer.data, key=lambda embedding: embedding.index)
        if [embedding.index for embedding in embeddings] != list(range(len(embeddings))):
            raise ValueError("vectors whose index does not count from 0 on")
        return [embedding.embedding for embedding in embeddings]

    def _tokens(self, answer: Any) -> int | None:
        return getattr(getattr(answer, "usage", None), "total_tokens", None)


class CohereEncoder(HostedEncoder):
    """Cohere's embeddings, v3 and v4, each side with its own `input_type`; the settings are those of `HostedEncoder`.

    The server truncates texts over the model's length, or over `max_tokens`.
    """

    family: ClassVar[str] = "cohere"

    provider = "cohere"
    default_url = "https://api.cohere.com"
    max_texts = 96
    max_batch_tokens = 128_000
    server_truncates = True

    def __init__(self, model: str | None, *, api_key_env: str = "CO_API_KEY", **settings: Any) -> None:
        super().__init__(model, api_key_env=api_key_env, **settings)

    def _open(self, package: Any, local: bool) -> Sdk:
        httpx = importlib.import_module("httpx")  # a dependency of the SDK

        class Client(httpx.Client):  # type: ignore[misc, name-defined]
            def send(self, request: Any, **options: Any) -> Any:
                try:
                    return super().send(request, **options)
                except httpx.TransportError as error:  # ConnectError is the only transport error that the SDK retries
                    raise httpx.ConnectError(str(error), request=request) from error

        http = Client(timeout=self._timeout_s, follow_redirects=True, trust_env=not local, event_hooks=retries.HOOKS)
        client = package.ClientV2(
            api_key=self._key or NO_KEY, base_url=self._url, timeout=self._timeout_s, httpx_client=http
        )
        return Sdk(client, http.close, httpx.RequestError, package.core.api_error.ApiError)

    def _send(self, texts: list[str], side: Side) -> Any:
        return self._sdk.client.embed(
            **without_none(model=self._model, output_dimension=self._dimensions, max_tokens=self._max_tokens),
            texts=texts,
            input_type=f"search_{side}",
            embedding_types=["float"],
            truncate="END",
            request_options={"max_retries": self._retries},
        )

    def _vectors(self, answer: Any) -> list[Any]:
        return list(answer.embeddings.float_)

    def _tokens(self, answer: Any) -> int | None:
        return getattr(getattr(getattr(answer, "meta", None), "billed_units", None), "input_tokens", None)
