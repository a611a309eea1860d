"""Generate questions for documents with a language model, with concurrent requests and a journal of all answers.

OPENAI_API_KEY=... harness synthesize generator.model=gpt-4o-mini dataset=scifact
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np

from harness import instrument
from harness.errors import ConfigError
from harness.providers.batching import estimate_tokens, run_concurrently
from harness.providers.client import OpenAIClient, without_none
from harness.providers.retries import Call, RequestError
from harness.train import journal, questions
from harness.train.candidates import Candidate, Generated, Task

_MAX_CONSECUTIVE_FAILURES = 10  # after this many, all other requests are expected to fail


@dataclass(frozen=True)
class _Document:
    """A document of the sample; `number` is its index in the corpus."""

    number: int
    id: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.id, hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()


class LLM(OpenAIClient):
    """A language model behind an OpenAI-compatible chat completions API in JSON mode: OpenAI, Groq, vLLM, Ollama.

    Args:
        model: The model's name on the server.
        prompt: The prompt, with {document} for the text and {n} for the number of questions.
        temperature: Sampling temperature; None for the server's default.
        max_tokens: Maximum number of tokens of an answer; None for the server's default.
        characters: Maximum number of characters of a document that are sent; None sends all.
        input_price_per_million_tokens: Price in USD. The cost is reported if both prices are given.
        output_price_per_million_tokens: Price in USD.
        **settings: Settings of the connection; see `OpenAIClient`.
    """

    config_key = "generator"
    answer_setting = "model"
    request_settings = ".max_tokens, .temperature, .extra_body and, for documents that are too long, .characters"

    def __init__(
        self,
        model: str | None,
        *,
        prompt: str,
        temperature: float | None = None,
        max_tokens: int | None = None,
        characters: int | None = None,
        input_price_per_million_tokens: float | None = None,
        output_price_per_million_tokens: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        if not model:
            raise ConfigError(
                f"generator.model is not set; set generator.model=NAME to one of {self._url}/models, or use a "
                "generator without a model: generator=sentences or generator=titles"
            )
        prices = {
            "input_price_per_million_tokens": input_price_per_million_tokens,
            "output_price_per_million_tokens": output_price_per_million_tokens,
        }
        self._require_at_least(1, characters=characters, max_tokens=max_tokens)
        self._require_at_least(0, temperature=temperature, **prices)
        if "{document}" not in prompt:
            raise ConfigError(f"generator.prompt={prompt[:60]!r} has no {{document}}; add it where the text belongs")
        self._prompt, self._characters, self._prices = prompt, characters, list(prices.values())
        self._sampling = without_none(temperature=temperature, max_tokens=max_tokens)

    def generate(self, task: Task) -> Generated:
        """Generate candidates, with a request for every document without an answer in the journal.

        Raises:
            ApiError: The server rejects every request.
            ConfigError: The journal has answers to requests with other settings.
        """
        numbers = np.array(task.sample, np.int64)
        rows = zip(task.sample, task.corpus.ids.take(numbers), task.corpus.texts.take(numbers), strict=True)
        documents = [_Document(*row) for row in rows]
        with journal.open_journal(task.journal, self._settings(task.per_document), task.resume) as opened:
            missing = [document for document in documents if document.key not in opened.answers]
            before = opened.tokens_in, opened.tokens_out
            failures = self._complete_all(missing, task.per_document, opened)
            generated = _read(documents, opened.answers, task.per_document)
            now = opened.tokens_in - before[0], opened.tokens_out - before[1]
            generated.cost = {**self._cost(opened.tokens_in, opened.tokens_out), "now": self._cost(*now)}
        generated.documents = {
            "requested": len(missing),
            "from_journal": len(documents) - len(missing),
            "truncated": sum(len(document.text) > (self._characters or len(document.text)) for document in documents),
            "failed": dict(Counter(_failure_reason(call) for call in failures.values())),
            "failures": [{"id": key, "message": call.problem} for key, call in sorted(failures.items())],
        }
        return generated

    def _settings(self, per_document: int) -> dict[str, Any]:
        """Return the settings that an answer depends on."""
        return {
            "base_url": self._url,
            "model": self._model,
            "prompt": self._prompt,
            "temperature": self._sampling.get("temperature"),
            "max_tokens": self._sampling.get("max_tokens"),
            "characters": self._characters,
            "per_document": per_document,
            "extra_body": self._extra_hash,
        }

    def _complete_all(self, documents: Sequence[_Document], n: int, opened: journal.Journal) -> dict[str, Call]:
        """Send a request for every document; return the failed calls by id.

        Raises:
            RequestError: The other requests are expected to fail too.
        """
        if not documents:
            return {}
        self._connect()
        failures, consecutive = dict[str, Call](), 0

        def work(document: _Document, stop: Event) -> tuple[Call, RequestError | None]:
            return self._complete(document, n, opened, stop)

        results = run_concurrently(work, documents, self._concurrency, self.provider)
        with instrument.stage("generate", total=len(documents)) as advance, closing(results):
            for document, (call, error) in results:
                advance(1)
                instrument.count("requests", call.attempts)
                instrument.count("retries", call.attempts - 1)
                if error is None:
                    consecutive = 0
                    continue
                failures[document.id] = call
                consecutive += 1
                # a rate limit that the SDK stops retrying: the quota is used up, or the wait is too long
                gave_up = call.status == 429 and call.attempts <= self._retries
                if gave_up or call.status in (401, 403, 404) or consecutive == _MAX_CONSECUTIVE_FAILURES:
                    raise error
        return failures

    def _complete(
        self, document: _Document, n: int, opened: journal.Journal, stop: Event
    ) -> tuple[Call, RequestError | None]:
        """Request the answer for a document and write it, or its failure, to the journal."""
        prompt = self._prompt.replace("{n}", str(n)).replace("{document}", document.text[: self._characters])
        key, text = document.key
        try:
            entry, call = self._request(partial(self._send, prompt), self._read, estimate_tokens(prompt), stop)
        except RequestError as error:
            call = error.call
            opened.append(
                journal.Entry(id=key, text=text, status="failed", message=call.problem, tokens_in=call.tokens)
            )
            return call, error
        opened.append(journal.Entry(id=key, text=text, status="answered", tokens_in=call.tokens, **entry))
        return call, None

    def _send(self, prompt: str) -> Any:
        return self._sdk.client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            response_format={"type": "json_object"},
            extra_body=self._extra or None,
            **self._sampling,
        )

    def _tokens(self, answer: Any) -> int | None:
        return getattr(getattr(answer, "usage", None), "prompt_tokens", None)

    def _read(self, answer: Any) -> dict[str, Any]:
        """Return an answer's fields for the journal, as valid UTF-8 and with any echo of the API key masked."""
        choice = answer.choices[0]
        refusal = getattr(choice.message, "refusal", None)
        content = (choice.message.content or refusal or "").encode("utf-8", "replace").decode()
        content = content.replace(self._key, "***") if self._key else content
        tokens = getattr(getattr(answer, "usage", None), "completion_tokens", None) or estimate_tokens(content)
        finish = "refusal" if refusal else str(choice.finish_reason)
        return {"content": content, "finish": finish, "tokens_out": int(tokens)}

    def _cost(self, tokens_in: int, tokens_out: int) -> dict[str, Any]:
        prices = [price for price in self._prices if price is not None]
        usd = sum(n * price for n, price in zip((tokens_in, tokens_out), prices, strict=False)) / 1e6
        return {"tokens_in": tokens_in, "tokens_out": tokens_out, "usd": usd if len(prices) == 2 else None}


def _read(documents: Sequence[_Document], answers: dict[tuple[str, str], journal.Entry], n: int) -> Generated:
    """Return the candidates of all answers, with at most `n` for each document, and the counts of the dropped ones."""
    generated = Generated()
    for document in documents:
        entry = answers.get(document.key)
        if entry is None:
            continue
        parsed = questions.parse_questions(entry.content, entry.finish)
        if isinstance(parsed, str):
            generated.unusable[parsed] += 1
            continue
        usable, dropped = questions.filter_questions(parsed, document.text, n)
        generated.generated += len(parsed)
        generated.dropped += dropped
        generated.candidates += [Candidate(document.number, question, document.text) for question in usable]
    return generated


def _failure_reason(call: Call) -> str:
    """Return the reason under which a failed call is counted."""
    if call.status is None:
        return "no answer"
    return "invalid answer" if call.status == 200 else f"HTTP {call.status}"
