"""Questions that a language model writes for documents: several requests at a time, every answer kept once it came.

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
from harness.providers.requests import Failure, Outcome, concurrently, repeated
from harness.train import journal, questions
from harness.train.candidates import Candidate, Generated, Task
from harness.train.chat import Chat, Reply

_IN_A_ROW = 10  # so many documents that fail one after another: so will all others


@dataclass(frozen=True)
class _Document:
    number: int
    id: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.id, hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()


class LLM(Chat):
    """The settings of `Chat`, and `prompt`, which has {document} in it and {n}, the number of questions.

    `characters` of a document are sent, all where it is None. `concurrency` bounds the requests in flight; one that
    fails is repeated `retries` times. The prices are in USD.
    """

    def __init__(
        self,
        model: str | None,
        *,
        prompt: str,
        api_key_env: str = "OPENAI_API_KEY",
        characters: int | None = None,
        concurrency: int = 4,
        retries: int = 6,
        input_price_per_million_tokens: float | None = None,
        output_price_per_million_tokens: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, api_key_env=api_key_env, **settings)
        if not model:
            raise ConfigError(
                f"generator.model is not set; generator.model=NAME, one of {self._url}/models; without a model: "
                "generator=sentences, or titles"
            )
        prices = {
            "input_price_per_million_tokens": input_price_per_million_tokens,
            "output_price_per_million_tokens": output_price_per_million_tokens,
        }
        self._at_least(1, {"characters": characters, "concurrency": concurrency})
        self._at_least(0, {"retries": retries, **prices})
        if "{document}" not in prompt:
            raise ConfigError(f"generator.prompt={prompt[:60]!r} has no {{document}} in it, for the text to stand")
        self._prompt, self._characters, self._concurrency, self._retries = prompt, characters, concurrency, retries
        self._prices = list(prices.values())
        self._jitter = np.random.default_rng(0)

    def generate(self, task: Task) -> Generated:
        """Candidates, in as many requests as documents have no answer yet.

        Raises `ApiError` where the server refuses every request, `ConfigError` for a journal of other settings.
        """
        numbers = np.array(task.sample, np.int64)
        rows = zip(task.sample, task.corpus.ids.take(numbers), task.corpus.texts.take(numbers), strict=True)
        documents = [_Document(*row) for row in rows]
        with journal.opened(task.answers, self._settings(task.per_document), task.resume) as kept:
            missing = [document for document in documents if document.key not in kept.answers]
            before = kept.tokens_in, kept.tokens_out
            failures = self._ask_all(missing, task.per_document, kept)
            made = _read(documents, kept.answers, task.per_document)
            now = kept.tokens_in - before[0], kept.tokens_out - before[1]
            made.cost = {**self._cost(kept.tokens_in, kept.tokens_out), "now": self._cost(*now)}
        made.documents = {
            "asked": len(missing),
            "from_journal": len(documents) - len(missing),
            "truncated": sum(len(document.text) > (self._characters or len(document.text)) for document in documents),
            "failed": dict(Counter(_reason(failure) for failure in failures.values())),
            "failures": [{"id": key, "said": failure.said} for key, failure in sorted(failures.items())],
        }
        return made

    def _settings(self, per_document: int) -> dict[str, Any]:
        """What an answer depends on."""
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

    def _ask_all(self, documents: Sequence[_Document], n: int, kept: journal.Journal) -> dict[str, Failure]:
        """Ask for every document; the failures by id. Raises `ApiError` where no more need be asked."""
        if not documents:
            return {}
        self._connect()
        failures, in_a_row = dict[str, Failure](), 0

        def answer(document: _Document, stop: Event) -> Outcome[Reply]:
            return self._answer(document, n, kept, stop)

        answers = concurrently(answer, documents, self._concurrency, self.provider)
        with instrument.stage("generate", total=len(documents)) as step, closing(answers) as asked:
            for document, outcome in asked:
                step(1)
                instrument.count("requests", 1 + outcome.retries)
                instrument.count("retries", outcome.retries)
                if not isinstance(outcome.found, Failure):
                    in_a_row = 0
                    continue
                failures[document.id] = outcome.found
                in_a_row += 1
                refused = outcome.found.lasting or outcome.found.status in (401, 403, 404)
                if refused or in_a_row == _IN_A_ROW:
                    raise self._error(outcome.found, outcome.retries)
        return failures

    def _answer(self, document: _Document, n: int, kept: journal.Journal, stop: Event) -> Outcome[Reply]:
        prompt = self._prompt.replace("{n}", str(n)).replace("{document}", document.text[: self._characters])
        outcome = repeated(partial(self.ask, prompt), self._name, self._retries, self._jitter, stop)
        key, text = document.key
        found = outcome.found
        if isinstance(found, Failure):
            entry = journal.Entry(id=key, text=text, status="failed", said=found.said, tokens_in=outcome.tokens)
        else:
            entry = journal.Entry(
                id=key,
                text=text,
                status="answered",
                content=found.content,
                finish=found.finish,
                tokens_in=outcome.tokens - found.tokens_out,  # with those of answers that could not be used
                tokens_out=found.tokens_out,
            )
        kept.append(entry)
        return outcome

    def _cost(self, tokens_in: int, tokens_out: int) -> dict[str, Any]:
        prices = [price for price in self._prices if price is not None]
        usd = sum(n * price for n, price in zip((tokens_in, tokens_out), prices, strict=False)) / 1e6
        return {"tokens_in": tokens_in, "tokens_out": tokens_out, "usd": usd if len(prices) == 2 else None}


def _read(documents: Sequence[_Document], answers: dict[tuple[str, str], journal.Entry], n: int) -> Generated:
    made = Generated()
    for document in documents:
        entry = answers.get(document.key)
        if entry is None:
            continue
        listed = questions.listed(entry.content, entry.finish)
        if isinstance(listed, str):
            made.unusable[listed] += 1
            continue
        kept, dropped = questions.usable(listed, document.text, n)
        made.given += len(listed)
        made.dropped += dropped
        made.candidates += [Candidate(document.number, question, document.text) for question in kept]
    return made


def _reason(failure: Failure) -> str:
    if failure.status is None:
        return "no answer"
    return "unusable answer" if failure.status == 200 else f"HTTP {failure.status}"
