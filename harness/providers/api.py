"""Text to one dense vector by a server, paid or one's own: OpenAI's protocol and Cohere's, through their own packages.

OPENAI_API_KEY=... harness retriever=openai_small dataset=scifact
"""

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

from harness.encoders.transformer import Side
from harness.providers.hosted import HostedEncoder
from harness.providers.requests import refused, unanswered
from harness.providers.server import NO_KEY, OpenAIServer


class OpenAIEncoder(OpenAIServer, HostedEncoder):
    """OpenAI's embeddings, or those of any server that speaks its protocol: vLLM, TEI, Ollama, ...

    The settings of `HostedEncoder` and of `OpenAIServer`.
    """

    family: ClassVar[str] = "openai"

    most_texts = 2048

    def __init__(
        self,
        model: str | None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        batch_texts: int = 2048,
        batch_tokens: int = 200_000,
        **settings: Any,
    ) -> None:
        super().__init__(model, api_key_env=api_key_env, batch_texts=batch_texts, batch_tokens=batch_tokens, **settings)

    def _identity(self, side: Side) -> dict[str, Any]:
        return {**super()._identity(side), "extra_body": self._extra_hash}

    def _post(self, texts: list[str], side: Side) -> Any:
        asked: dict[str, Any] = {"model": self._model, "input": texts, "encoding_format": "float"}
        if self._dimensions is not None:
            asked["dimensions"] = self._dimensions
        return self._created(self._client.embeddings.create, **asked)

    def _read(self, answer: Any) -> tuple[list[Any], Any]:
        found = sorted(answer.data, key=lambda one: one.index)
        if [one.index for one in found] != list(range(len(found))):
            raise ValueError("vectors whose index does not count from 0 on")
        return [one.embedding for one in found], getattr(getattr(answer, "usage", None), "total_tokens", None)


class CohereEncoder(HostedEncoder):
    """Cohere's embeddings, v3 and v4, each side with its own `input_type`; the settings of `HostedEncoder`.

    The server cuts what is over the model's length, or over `max_tokens`.
    """

    family: ClassVar[str] = "cohere"

    provider = "cohere"
    official = "https://api.cohere.com"
    most_texts = 96
    server_cuts = True

    def __init__(
        self,
        model: str | None,
        *,
        api_key_env: str = "CO_API_KEY",
        batch_texts: int = 96,
        batch_tokens: int = 128_000,
        **settings: Any,
    ) -> None:
        super().__init__(model, api_key_env=api_key_env, batch_texts=batch_texts, batch_tokens=batch_tokens, **settings)

    def _open(self, package: Any, own: bool) -> tuple[Any, Callable[[], None]]:
        httpx = importlib.import_module("httpx")  # comes with the package
        http = httpx.Client(timeout=self._timeout_s, follow_redirects=True, trust_env=not own)
        client = package.ClientV2(
            api_key=self._key or NO_KEY, base_url=self._url, timeout=self._timeout_s, httpx_client=http
        )
        self._broken, self._refusing = httpx.RequestError, package.core.api_error.ApiError
        return client, http.close

    def _post(self, texts: list[str], side: Side) -> Any:
        asked: dict[str, Any] = {"model": self._model, "texts": texts, "input_type": f"search_{side}"}
        if self._dimensions is not None:
            asked["output_dimension"] = self._dimensions
        if self._max_tokens is not None:
            asked["max_tokens"] = self._max_tokens
        try:
            return self._client.embed(
                **asked, embedding_types=["float"], truncate="END", request_options={"max_retries": 0}
            )
        except self._refusing as error:
            return refused(error.status_code, error.headers, error.body, self._key)
        except self._broken as error:
            return unanswered(error, self._key)

    def _read(self, answer: Any) -> tuple[list[Any], Any]:
        billed = getattr(getattr(answer, "meta", None), "billed_units", None)
        return answer.embeddings.float_, getattr(billed, "input_tokens", None)
