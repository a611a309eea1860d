"""The training itself: a base model, evaluated and saved as it goes, continued after a kill.

A checkpoint is whole when its trainer_state.json is there, which is written last.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness import instrument
from harness.errors import ConfigError
from harness.train.dev import Evaluator
from harness.train.examples import Examples
from harness.train.families import Family
from harness.train.losses import Known
from harness.train.plan import LossPlan, TrainingPlan
from harness.train.trainers import Progress, device, in_bfloat16, quiet, steps, trainer

_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Fitted:
    """What a training gave."""

    model: Any
    before: float
    """The dev metric of the model that was given."""
    curve: list[dict[str, float]]
    """Entries have a step and a loss, or a step and the dev metric."""
    best_step: int
    steps: int
    resumed_at: int
    """The step of the checkpoint that it went on from; 0: from the beginning."""


def on_main() -> bool:
    """Whether this process writes and speaks: the first of those that torchrun starts, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def fit(
    family: Family,
    base: Path,
    examples: Examples,
    evaluator: Evaluator,
    plan: TrainingPlan,
    loss: LossPlan,
    seed: int,
    work: Path,
    say: Callable[[str], None],
) -> Fitted:
    """Train the model in the folder `base`; the best checkpoint by the evaluator is given back. `say`: one line."""
    metric = evaluator.metric
    with quiet(), ExitStack() as meanwhile:
        model = _opened(family, base, plan, seed)
        meanwhile.enter_context(family.encoder.truncated_to(model, plan.max_length))
        before = evaluator(model)[metric]
        say(f"  before: dev {metric} {before:.4f}")
        columns, known = family.columns(examples), Known(examples.known, len(examples.documents))
        running = trainer(family, model, columns, family.loss(model, known, loss), evaluator, plan, seed, work)
        last = checkpoint(work)
        with instrument.stage("train", total=steps(len(columns["label"]), plan)) as step:
            running.add_callback(Progress(metric, say, step))
            running.train(resume_from_checkpoint=None if last is None else str(last))
    state = running.state
    return Fitted(
        model,
        before,
        [entry for logged in state.log_history if len(entry := _entry(logged, metric)) > 1],
        int(state.best_global_step or state.global_step),
        int(state.global_step),
        0 if last is None else _number(last),
    )


def _opened(family: Family, base: Path, plan: TrainingPlan, seed: int) -> Any:
    """The model on its device with its weights in float32, new ones drawn from the seed."""
    trusted, attention, where = family.encoder.trusted, family.encoder.attention, device(plan)
    network: dict[str, Any] = {"dtype": torch.float32}
    if attention in ("eager", "sdpa") or (where.startswith("cuda") and in_bfloat16(plan) and attention != "auto"):
        network["attn_implementation"] = attention
    settings = {"device": where, "model_kwargs": network, "trust_remote_code": trusted}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return family.open(base, {**settings, "local_files_only": not trusted})
        except (ValueError, ImportError) as error:  # how transformers says that a model or machine has it not
            if "attn_implementation" not in network:
                raise
            raise ConfigError(f"encoder.attention={attention!r}: {error}; auto takes what there is") from None


def checkpoint(work: Path) -> Path | None:
    """The last whole checkpoint in a working folder."""
    found = [path.parent for path in work.glob(f"checkpoint-*/{_STATE}") if _whole(path)]
    return max(found, key=_number, default=None)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _whole(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return False


def _entry(logged: Mapping[str, Any], metric: str) -> dict[str, float]:
    keys = {"step": "step", "loss": "loss", f"eval_{metric}": metric}
    return {name: logged[key] for key, name in keys.items() if key in logged}
