"""The server of api_server.py with a language model behind it: it writes questions as JSON, or fails on demand.

Each document says who keeps which animal. The model's questions name the animal, and their answer is the keeper.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.api_server import Handler, Provider, count_tokens, http_error, no_answer

ANIMALS = [f"{first}{last}" for first in ("wob", "tam", "gri", "lun", "fex") for last in ("bat", "ara", "oll", "ink")]


def document_about(animal: str) -> str:
    return f"The {animal} is kept by Mr {animal[::-1].title()} in the old house. Visitors feed it hay and turnips."


def valid_questions(animal: str, n: int = 2) -> list[dict[str, str]]:
    """Return `n` questions with answers, none of which the harness drops."""
    templates = ("Who looks after the {}?", "Whom would I ask about a {}?", "Which person does a {} belong to?")
    return [{"question": question.format(animal), "answer": animal[::-1].title()} for question in templates[:n]]


class ChatModel:
    """Answers requests about an animal from its script and then with valid questions, and counts answers and tokens.

    Args:
        pause_s: Seconds that the model waits before each answer.
    """

    def __init__(self, pause_s: float = 0.0) -> None:
        self.script: dict[str, list[Callable[[Handler], None]]] = {}
        """The first answers by animal."""
        self.requests: Counter[str] = Counter()
        """The number of requests by animal."""
        self.answered: Counter[str] = Counter()
        """The number of requests by animal that were answered in full."""
        self.tokens = [0, 0]
        """The tokens of prompts and of answers."""
        self.pause_s = pause_s
        self.lock = threading.Lock()

    def __call__(self, handler: Handler) -> None:
        animal = animal_of(handler.body)
        with self.lock:
            self.requests[animal] += 1
            answers = self.script.get(animal)
            answer = answers.pop(0) if answers else chat_answer({"questions": valid_questions(animal)})
        time.sleep(self.pause_s)
        answer(handler)

    def count_answer(self, handler: Handler, tokens: tuple[int, int]) -> None:
        with self.lock:
            self.answered[animal_of(handler.body)] += 1
            self.tokens = [self.tokens[0] + tokens[0], self.tokens[1] + tokens[1]]


def animal_of(body: dict[str, Any]) -> str:
    """Return the animal that a request's document is about."""
    match = re.search(r"The (\w+) is kept", body["messages"][0]["content"])
    assert match is not None
    return match[1]


def completion_body(content: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """Return the body of a chat completion with one choice; `message` are further fields of its message."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
    }


def chat_answer(content: Any, finish: str = "stop", usage: bool = True, **message: Any) -> Callable[[Handler], None]:
    """Return an answer with this content, which is written as JSON unless it is text or None."""

    def answer(handler: Handler) -> None:
        assert handler.path.endswith("/chat/completions"), handler.path
        assert handler.body["response_format"] == {"type": "json_object"}
        text = content if isinstance(content, str | None) else json.dumps(content)
        tokens = (count_tokens([handler.body["messages"][0]["content"]]), count_tokens([text or ""]))
        body = completion_body(text, finish, **message)
        if usage:
            body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        handler.send(200, body)
        model: ChatModel = handler.provider.default_answer  # type: ignore[assignment]
        model.count_answer(handler, tokens)

    return answer


def answer_with_key(handler: Handler) -> None:
    """Answer with valid questions and one more that repeats the request's API key."""
    key = handler.headers["Authorization"].removeprefix("Bearer ")
    question = {"question": f"Is {key} it?", "answer": key}
    chat_answer({"questions": [*valid_questions(animal_of(handler.body)), question]})(handler)


def truncated_json(handler: Handler) -> None:
    """Answer with a complete HTTP body whose JSON breaks off."""
    handler.send(200, b'{"choices": [{"mess')


@contextmanager
def serving_chat(model: ChatModel) -> Iterator[Provider]:
    """Run a server with this model behind it for a while."""
    provider = Provider(lambda texts: [])
    provider.default_answer = model
    try:
        yield provider
    finally:
        provider.close()


HANG, BUSY, BROKEN = no_answer, http_error(429, "slow down"), http_error(500, "oh no")


def corpus_lines(animals: Sequence[str]) -> str:
    """Return a corpus.jsonl with one document for each animal."""
    rows = ({"_id": animal, "title": "", "text": document_about(animal)} for animal in animals)
    return "".join(json.dumps(row) + "\n" for row in rows)
