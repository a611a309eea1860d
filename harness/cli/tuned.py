"""The configs around a trained model: where in a retriever's config its encoder is, and those that measure it."""

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
"""The retrievers that a training leaves configs of."""
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
class Place:
    """The encoder in a retriever's config: its keys, its own config, and that of the first stage before a reranker."""

    keys: tuple[str, ...]
    encoder: Mapping[str, Any]
    first_stage: Mapping[str, Any] | None


def place_of(retriever: Mapping[str, Any]) -> Place:
    """Raises `ConfigError` for a retriever that has no model, or several."""
    found = list(_encoders(retriever, ()))
    if not found:
        raise ConfigError(
            "this retriever has no model of its own to train; choose one that has, such as retriever=minilm, "
            "splade_tiny, colbert_minilm or rerank"
        )
    if len(found) > 1:
        named = ", ".join(".".join(keys) for keys, _ in found)
        raise ConfigError(f"this retriever has several models ({named}); train them one at a time: retriever=minilm")
    keys, encoder = found[0]
    return Place(keys, encoder, retriever.get("first_stage"))


def _encoders(config: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(config, Mapping):
        return
    if "model" in config and issubclass(get_class(config["_target_"]), Model):
        yield keys, config
        return
    for key, inner in config.items():
        if key == "first_stage":  # of a reranker, whose scorer is trained
            continue
        yield from _encoders(inner, (*keys, str(key)))


def configs(config: DictConfig, place: Place, after: Mapping[str, Any], output: Path) -> dict[str, str]:
    """Yaml by name: `base` and `tuned`, as the command's config has the retriever, and BM25 fused with each."""
    base = build.masked(config.retriever)
    tuned = deepcopy(base)
    inner = tuned
    for key in place.keys:
        inner = inner[key]
    inner.update({"model": str(output.resolve()), "package": None, **after})
    command = f"harness --config-dir={output}/conf retriever=tuned dataset=NAME"
    return {
        "base": f"# What was trained.\n{OmegaConf.to_yaml(base)}",
        "tuned": f"# What the training made.   {command}\n{OmegaConf.to_yaml(tuned)}",
        **{f"hybrid_{which}": _HYBRID.format(which=which) for which in ("base", "tuned")},
    }
