"""What a config may ask for by name: `${mteb_prompt:MODEL,TASK,query}`, `${mteb_instruction:TASK}`, `${said:TEXT}`."""

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig


def _prompt(model: str, task: str | None, side: str, *, _parent_: Any) -> str | None:
    from harness.errors import ConfigError
    from harness.interop.mteb.prompts import prompt  # imports mteb, which takes seconds
    from harness.weights import Package

    if task is None:
        raise ConfigError(
            "prompts=mteb takes a task's prompts, and this dataset is no task: dataset=mteb dataset.task=NAME"
        )
    held = _parent_.get("package") if isinstance(_parent_, DictConfig) else None
    told = {str(key): value for key, value in held.items() if key != "_target_"} if held else {}
    return prompt(model, task, side, Package(**told) if told else None)


def _instruction(task: str | None) -> str | None:
    from harness.interop.mteb.prompts import instruction

    return None if task is None else instruction(task)


def _said(instruction: str | None) -> str:
    if instruction is None:
        from harness.errors import ConfigError

        raise ConfigError(
            "this model reads an instruction before each query, and dataset.instruction is null; say what is asked: "
            "dataset.instruction='Given a question, retrieve passages that answer it'"
        )
    return instruction


RESOLVERS: Mapping[str, Callable[..., Any]] = {"mteb_prompt": _prompt, "mteb_instruction": _instruction, "said": _said}
