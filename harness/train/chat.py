"""A language model behind a server that speaks OpenAI's chat completions, asked in JSON mode: Groq, vLLM, Ollama."""

from dataclasses import dataclass
from typing import Any

from harness.providers.requests import Failure, estimated, masked
from harness.providers.server import OpenAIServer


@dataclass(frozen=True)
class Reply:
    """What the model wrote, and why it ended: `stop`, `length`, `content_filter`, `refusal`, ..."""

    content: str
    finish: str
    tokens_in: int
    tokens_out: int

    @property
    def tokens(self) -> int:
        """What it cost, both ways."""
        return self.tokens_in + self.tokens_out


class Chat(OpenAIServer):
    """The model's settings; None for `temperature` or `max_tokens` is the server's own, and is not sent."""

    key = "generator"
    about_answers = "model"
    about_requests = ".max_tokens, .temperature, .extra_body and, for documents that are too long, .characters"

    def __init__(
        self, model: str | None, *, temperature: float | None = None, max_tokens: int | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        self._at_least(1, {"max_tokens": max_tokens})
        self._at_least(0, {"temperature": temperature})
        given = {"temperature": temperature, "max_tokens": max_tokens}
        self._sampling = {name: value for name, value in given.items() if value is not None}

    def ask(self, prompt: str) -> Reply | Failure:
        """One answer to one question, in one try. Tokens are estimated where the server does not count them."""
        tokens_in = estimated(prompt)
        try:
            answer = self._created(
                self._client.chat.completions.create,
                model=self._model,
                messages=[{"role": "user", "content": prompt}],
                response_format={"type": "json_object"},
                **self._sampling,
            )
            if isinstance(answer, Failure):
                return answer
            choice, usage = answer.choices[0], getattr(answer, "usage", None)
            tokens_in = int(getattr(usage, "prompt_tokens", None) or tokens_in)
            refusal = getattr(choice.message, "refusal", None)
            content = self._storable(choice.message.content or refusal or "")
            tokens_out = int(getattr(usage, "completion_tokens", None) or estimated(content))
            return Reply(content, "refusal" if refusal else str(choice.finish_reason), tokens_in, tokens_out)
        except (AttributeError, TypeError, IndexError) as error:
            said = f"no message in it ({error})"
        except ValueError as error:  # no JSON
            said = str(error)
        return Failure(masked(f"an answer that cannot be used: {said}", self._key), 200, tokens=tokens_in)

    def _storable(self, text: str) -> str:
        """A text without the key, should the server repeat it, and without halves of surrogate pairs."""
        text = text.encode("utf-8", "replace").decode()
        return text.replace(self._key, "***") if self._key else text
