"""OmegaConf resolvers: `mteb_prompt:MODEL,TASK,query`, `mteb_instruction:TASK`, `required_instruction:TEXT`."""

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig


def _prompt(model: str, task: str | None, side: str, *, _parent_: Any) -> str | None:
    from harness.errors import ConfigError
    from harness.interop.mteb.prompts import prompt  # imports mteb, which takes seconds
    from harness.weights import Package

    if task is None:
        raise ConfigError(
            "prompts=mteb needs an mteb task, and this dataset is not one; choose one: dataset=mteb dataset.task=NAME"
        )
    package = _parent_.get("package") if isinstance(_parent_, DictConfig) else None
    arguments = {str(key): value for key, value in package.items() if key != "_target_"} if package else {}
    return prompt(model, task, side, Package(**arguments) if arguments else None)


def _instruction(task: str | None) -> str | None:
    from harness.interop.mteb.prompts import instruction

    return None if task is None else instruction(task)


def _required_instruction(instruction: str | None) -> str:
    if instruction is None:
        from harness.errors import ConfigError

        raise ConfigError(
            "this model reads an instruction before each query, and the dataset has none; set one, for example: "
            "++dataset.instruction='Given a question, retrieve passages that answer it'"
        )
    return instruction


RESOLVERS: Mapping[str, Callable[..., Any]] = {
    "mteb_prompt": _prompt,
    "mteb_instruction": _instruction,
    "required_instruction": _required_instruction,
    "said": _required_instruction,  # its name in configs that older versions wrote
}
