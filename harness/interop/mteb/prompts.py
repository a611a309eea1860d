"""The prompts that mteb gives a model for a task: `prompts=mteb` puts them into a retriever's config, word for word.

mteb's registry has them as a model's `model_prompts`, or as an `instruction_template` round the task's own instruction;
the prompts that a model's own config names by task or by type of task count too.
"""

import functools
import json
import types
from collections.abc import Mapping
from typing import Any

from harness import weights
from harness.errors import ConfigError
from harness.interop.mteb import names, registry
from harness.interop.mteb.registry import library, quiet

_SIDES = ("query", "document")


def prompt(model: str, task: str, side: str, package: weights.Package | None = None) -> str | None:
    """What mteb puts before a query or a document; None where that is the model's own prompt for that side.

    `task` is mteb's name or that of a BEIR set. Raises `ConfigError` for a model that the registry does not have, and
    for one that mteb runs with code of its own.
    """
    if side not in _SIDES:
        raise ConfigError(f"a prompt is for a {' or a '.join(_SIDES)}, not a {side!r}")
    same = names.task_of(task)
    about = registry.task(same[0] if same else task.partition(":")[0]).metadata
    loader, settings = _loader(model)
    with quiet():
        if _is(loader, "instruct_wrapper", "InstructSentenceTransformerModel"):
            return _instruction(loader, settings, about, side)
        for kind in ("SentenceTransformerEncoderWrapper", "SparseEncoderWrapper", "MultiVectorWrapper"):
            if _is(loader, "sentence_transformer_wrapper", kind):
                return _named(settings.get("model_prompts"), model, about, side, package)
    raise ConfigError(
        f"mteb runs {model.partition('@')[0]!r} with code of its own ({_called(loader)}), so its prompts are in no "
        "table; set query_prompt and document_prompt, or take the model as mteb has it: retriever=mteb "
        f"retriever.model={model}"
    )


def instruction(task: str) -> str | None:
    """What a task of mteb says is asked of a query; where it says nothing, what mteb says for tasks of its kind."""
    own = registry.task(task.partition(":")[0])
    return names.instruction(own.metadata) or getattr(own, "abstask_prompt", None) or None


def _loader(model: str) -> tuple[Any, Mapping[str, Any]]:
    """The class or function that loads a model for mteb, and the settings that it is given."""
    library()
    from mteb.models.model_implementations import MODEL_REGISTRY

    name = model.partition("@")[0]
    about = MODEL_REGISTRY.get(name)
    if about is None or about.loader is None:
        raise ConfigError(
            f"mteb's registry has no model {name!r}, so there are no prompts of its for it; set query_prompt and "
            "document_prompt, or leave prompts=mteb out"
        )
    loader: Any = about.loader
    settings = dict(about.loader_kwargs)
    while isinstance(loader, functools.partial):
        loader, settings = loader.func, {**loader.keywords, **settings}
    return _within(loader, name, settings) or (loader, settings)


class _MadeError(Exception):
    """A loader has come to the point where it makes a model."""


def _within(loader: Any, name: str, settings: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]] | None:
    """The class that a loading function makes a model of first of all, and the settings that it gives it.

    A copy of the function is called in which the class' name stands for one that makes nothing.
    """
    if not isinstance(loader, types.FunctionType) or not loader.__code__.co_names:
        return None
    kind = loader.__globals__.get(loader.__code__.co_names[0])
    if not isinstance(kind, type):
        return None
    given: dict[str, Any] = {}

    def record(*_: Any, **own: Any) -> None:
        given.update(own)
        raise _MadeError

    replaced = {**loader.__globals__, kind.__name__: record}
    copy = types.FunctionType(loader.__code__, replaced, loader.__name__, loader.__defaults__, loader.__closure__)
    copy.__kwdefaults__ = loader.__kwdefaults__
    try:
        copy(name, revision=None, **settings)
    except _MadeError:
        return kind, given
    except TypeError:  # it is called some other way
        return None
    return None


def _is(loader: Any, module: str, name: str) -> bool:
    """Whether a loader is that class of mteb's, and reads its prompts as the class does."""
    import importlib

    kind = getattr(importlib.import_module(f"mteb.models.{module}"), name)
    if not isinstance(loader, type) or not issubclass(loader, kind):
        return False
    return all(getattr(loader, own, None) is getattr(kind, own, None) for own in ("encode", "_encode", "__init__"))


def _called(loader: Any) -> str:
    return str(getattr(loader, "__name__", loader))


def _instruction(loader: Any, settings: Mapping[str, Any], about: Any, side: str) -> str:
    from mteb.models.abs_encoder import PromptSource
    from mteb.types import PromptType

    if side == "document" and not settings.get("apply_instruction_to_passages", True):
        return ""
    without_weights = object.__new__(loader)
    without_weights.instruction_template = settings.get("instruction_template")
    without_weights.prompts_dict = settings.get("prompts_dict")
    if settings.get("prompt_priority") is not None:
        without_weights.prompt_priority = [PromptSource.from_str(source) for source in settings["prompt_priority"]]
    return str(without_weights.get_task_instruction(about, PromptType(side)))


def _named(
    prompts: Mapping[str, str] | None, model: str, about: Any, side: str, package: weights.Package | None
) -> str | None:
    """The prompt of that name among the registry's for the model; of the model's own where the registry has none."""
    from mteb.models.abs_encoder import get_prompt_name
    from mteb.types import PromptType

    own = dict(prompts) if prompts else _own(model, package)
    name = get_prompt_name(own, about, PromptType(side))
    if name is not None:
        return own[name]
    return "" if prompts else None


def _own(model: str, package: weights.Package | None) -> dict[str, str]:
    """The prompts in the model's own config."""
    path = weights.find(model, package).path / "config_sentence_transformers.json"
    if not path.is_file():
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")).get("prompts") or {}
    return found
