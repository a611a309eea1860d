"""Locate the encoder in a retriever's config, and write configs that evaluate a fine-tuned model."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from harness.config import build
from harness.encoders.model import Model
from harness.errors import ConfigError

NAMES = ("base", "tuned", "hybrid_base", "hybrid_tuned")
"""Retrievers whose configs a training run writes."""
_HYBRID = """\
# BM25 and the {which} model, fused.
defaults:
  - /retriever@retrievers.lexical: bm25
  - /retriever@retrievers.{which}: {which}
  - /fusion@fusion: rrf
_target_: harness.retrievers.hybrid.Hybrid
depth: ${{k}}
"""


@dataclass(frozen=True)
class EncoderLocation:
    """The encoder in a retriever's config: its keys, its config, and for a reranker the config of the first stage."""

    keys: tuple[str, ...]
    encoder: Mapping[str, Any]
    first_stage: Mapping[str, Any] | None


def locate_encoder(retriever: Mapping[str, Any]) -> EncoderLocation:
    """Locate the encoder of a retriever. Raises `ConfigError` if the retriever has no model, or several."""
    encoders = list(_encoders(retriever, ()))
    if not encoders:
        raise ConfigError(
            "this retriever has no model to train; choose one that has, such as retriever=minilm, splade_tiny, "
            "colbert_minilm or rerank"
        )
    if len(encoders) > 1:
        names = ", ".join(".".join(keys) for keys, _ in encoders)
        raise ConfigError(f"this retriever has several models ({names}); train them one at a time: retriever=minilm")
    keys, encoder = encoders[0]
    return EncoderLocation(keys, encoder, retriever.get("first_stage"))


def _encoders(config: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(config, Mapping):
        return
    if "model" in config and issubclass(get_class(config["_target_"]), Model):
        yield keys, config
        return
    for key, inner in config.items():
        if key == "first_stage":  # a reranker's scorer is trained, not its first stage
            continue
        yield from _encoders(inner, (*keys, str(key)))


def configs(config: DictConfig, located: EncoderLocation, changes: Mapping[str, Any], output: Path) -> dict[str, str]:
    """Return the YAML of each of `NAMES`: the base model, the tuned model, and BM25 fused with each.

    Args:
        config: The config of the training command.
        located: The encoder in its retriever.
        changes: Encoder settings that differ after training.
        output: The folder of the tuned model.
    """
    base = build.mask_secrets(config.retriever)
    tuned = deepcopy(base)
    inner = tuned
    for key in located.keys:
        inner = inner[key]
    inner.update({"model": str(output.resolve()), "package": None, **changes})
    command = f"harness --config-dir={output}/conf retriever=tuned dataset=NAME"
    return {
        "base": f"# The model before training.\n{OmegaConf.to_yaml(base)}",
        "tuned": f"# The fine-tuned model.   {command}\n{OmegaConf.to_yaml(tuned)}",
        **{f"hybrid_{which}": _HYBRID.format(which=which) for which in ("base", "tuned")},
    }
