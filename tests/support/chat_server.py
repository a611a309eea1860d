"""The server of api_server.py with a language model behind it: it writes questions in JSON, or misbehaves on demand.

A document of `zoo` says who keeps which animal; the model's questions name the animal and are answered by the keeper.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.api_server import Handler, Provider, refusing, tokens_of, too_late

ANIMALS = [f"{first}{last}" for first in ("wob", "tam", "gri", "lun", "fex") for last in ("bat", "ara", "oll", "ink")]


def zoo(animal: str) -> str:
    return f"The {animal} is kept by Mr {animal[::-1].title()} in the old house. Visitors feed it hay and turnips."


def good(animal: str, n: int = 2) -> list[dict[str, str]]:
    """Questions that can all be kept."""
    templates = ("Who looks after the {}?", "Whom would I ask about a {}?", "Which person does a {} belong to?")
    return [{"question": question.format(animal), "answer": animal[::-1].title()} for question in templates[:n]]


class Model:
    """The answers for an animal, one after another, then valid ones; and the counts of what was answered in full."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.script: dict[str, list[Callable[[Handler], None]]] = {}
        self.answered: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.tokens = [0, 0]
        self.pause_s = pause_s
        self.lock = threading.Lock()

    def __call__(self, handler: Handler) -> None:
        animal = animal_of(handler.body)
        with self.lock:
            self.requests[animal] += 1
            own = self.script.get(animal)
            answer = own.pop(0) if own else writing({"questions": good(animal)})
        time.sleep(self.pause_s)
        answer(handler)

    def sent(self, handler: Handler, tokens: tuple[int, int]) -> None:
        with self.lock:
            self.answered[animal_of(handler.body)] += 1
            self.tokens = [self.tokens[0] + tokens[0], self.tokens[1] + tokens[1]]


def animal_of(body: dict[str, Any]) -> str:
    match = re.search(r"The (\w+) is kept", body["messages"][0]["content"])
    assert match is not None
    return match[1]


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": content, **message}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": whole, "finish_reason": finish}],
    }


def writing(content: Any, finish: str = "stop", usage: bool = True, **message: Any) -> Callable[[Handler], None]:
    """An answer with this content, as JSON where it is no text."""

    def answer(handler: Handler) -> None:
        assert handler.path.endswith("/chat/completions"), handler.path
        assert handler.body["response_format"] == {"type": "json_object"}
        text = content if isinstance(content, str | None) else json.dumps(content)
        tokens = (tokens_of([handler.body["messages"][0]["content"]]), tokens_of([text or ""]))
        body = completion(text, finish, **message)
        if usage:
            body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        handler.send(200, body)
        model: Model = handler.served.after  # type: ignore[assignment]
        model.sent(handler, tokens)

    return answer


def repeating_the_key(handler: Handler) -> None:
    """A good answer that has the key in it."""
    key = handler.headers["Authorization"].removeprefix("Bearer ")
    writing({"questions": [*good(animal_of(handler.body)), {"question": f"Is {key} it?", "answer": key}]})(handler)


def cut_off_body(handler: Handler) -> None:
    """HTTP that says JSON and is none."""
    handler.send(200, b'{"choices": [{"mess')


@contextmanager
def chatting(model: Model) -> Iterator[Provider]:
    provider = Provider(lambda texts: [])
    provider.after = model
    try:
        yield provider
    finally:
        provider.close()


HANG, BUSY, BROKEN = too_late, refusing(429, "slow down"), refusing(500, "oh no")


def corpus_lines(animals: Sequence[str]) -> str:
    return "".join(json.dumps({"_id": animal, "title": "", "text": zoo(animal)}) + "\n" for animal in animals)
