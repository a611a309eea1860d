"""Train a base model with evaluations and checkpoints; an interrupted training continues from its last checkpoint.

A checkpoint is complete if it has trainer_state.json, which is written last.
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
from harness.train.losses import KnownPositives
from harness.train.plan import LossPlan, TrainingPlan
from harness.train.trainers import Progress, device, make_trainer, quiet, steps, uses_bfloat16

_STATE = "trainer_state.json"


@dataclass(frozen=True)
class FitResult:
    """The result of a training run."""

    model: Any
    before: float
    """The dev metric of the base model."""
    curve: list[dict[str, float]]
    """Entries in order of time: a step with its training loss, or a step with its dev metric."""
    best_step: int
    steps: int
    resumed_at: int
    """The step of the checkpoint that training continued from; 0 without one."""


def is_main_process() -> bool:
    """Return True in the only process, or in the main one of several that torchrun started."""
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
) -> FitResult:
    """Train a model and return it with the weights of its best checkpoint.

    Args:
        family: The training recipe.
        base: The folder of the base model.
        examples: The training examples.
        evaluator: Evaluates checkpoints on the dev split.
        plan: The trainer's settings.
        loss: The loss's settings.
        seed: Seed of new weights and of the order of examples.
        work: The folder of checkpoints.
        say: Prints a line of progress.
    """
    metric = evaluator.metric
    with quiet(), ExitStack() as stack:
        model = _open_model(family, base, plan, seed)
        stack.enter_context(family.encoder.truncated_to(model, plan.max_length))
        before = evaluator(model)[metric]
        say(f"  before: dev {metric} {before:.4f}")
        columns, known = family.columns(examples), KnownPositives(examples.known, len(examples.documents))
        trainer = make_trainer(family, model, columns, family.loss(model, known, loss), evaluator, plan, seed, work)
        resumed = _last_checkpoint(work)
        with instrument.stage("train", total=steps(len(columns["label"]), plan)) as step:
            trainer.add_callback(Progress(metric, say, step))
            trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    state = trainer.state
    return FitResult(
        model,
        before,
        [entry for log in state.log_history if len(entry := _entry(log, metric)) > 1],
        int(state.best_global_step or state.global_step),
        int(state.global_step),
        0 if resumed is None else _step_of(resumed),
    )


def _open_model(family: Family, base: Path, plan: TrainingPlan, seed: int) -> Any:
    """Load the model on its device in float32; new weights are drawn from the seed."""
    trusted, attention, device_name = family.encoder.trusted, family.encoder.attention, device(plan)
    network: dict[str, Any] = {"dtype": torch.float32}
    if attention in ("eager", "sdpa") or (
        device_name.startswith("cuda") and uses_bfloat16(plan) and attention != "auto"
    ):
        network["attn_implementation"] = attention
    settings = {"device": device_name, "model_kwargs": network, "trust_remote_code": trusted}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return family.open(base, {**settings, "local_files_only": not trusted})
        except (ValueError, ImportError) as error:  # transformers' errors for an attention that is not supported
            if "attn_implementation" not in network:
                raise
            raise ConfigError(f"encoder.attention={attention!r}: {error}; auto chooses a supported one") from None


def _last_checkpoint(work: Path) -> Path | None:
    """Return the last complete checkpoint in a folder, or None."""
    folders = [path.parent for path in work.glob(f"checkpoint-*/{_STATE}") if _is_complete(path)]
    return max(folders, key=_step_of, default=None)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _is_complete(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return False


def _entry(log: Mapping[str, Any], metric: str) -> dict[str, float]:
    keys = {"step": "step", "loss": "loss", f"eval_{metric}": metric}
    return {name: log[key] for key, name in keys.items() if key in log}
