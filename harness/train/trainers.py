"""Set up sentence-transformers' trainers: their arguments, progress messages and checkpoints."""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from harness import instrument
from harness.errors import ConfigError
from harness.train.families import Family
from harness.train.plan import TrainingPlan

Result = TypeVar("Result")
_LIBRARY = "sentence_transformers"


def check_packages() -> None:
    """Raise `ConfigError` if a package for training is missing."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"training needs more packages ({error}):  pip install 'retrieval-harness[train]'") from None


def device(plan: TrainingPlan) -> str:
    """Return the device that this process trains on."""
    if plan.device == "auto" and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if plan.device == "auto" and torch.backends.mps.is_available() else "cpu"


def run_main_first(plan: TrainingPlan, work: Callable[[], Result]) -> Result:
    """Run `work` in the main process and then in the others that torchrun started; return this process's result.

    The main process prints errors and fills the embedding cache; if it fails, the others exit silently. `plan`
    chooses the device of each process.
    """
    from accelerate import PartialState

    state = PartialState(cpu=device(plan) == "cpu")
    if state.num_processes == 1:
        return work()
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    failed = [True]
    try:
        result = work() if state.is_main_process else None
        failed = [False]
    finally:
        torch.distributed.broadcast_object_list(failed, 0, group)
    if failed[0]:
        raise SystemExit(1)
    return work() if result is None else result


def uses_bfloat16(plan: TrainingPlan) -> bool:
    """Return True if matrix products use bfloat16: by the plan, or on a device that is faster with it."""
    device_name = device(plan)
    if plan.dtype != "auto":
        return plan.dtype == "bfloat16"
    if device_name.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device_name == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def steps(rows: int, plan: TrainingPlan) -> int:
    """Return the number of training steps over all epochs.

    Args:
        rows: Number of rows of an epoch, for all processes together.
        plan: The trainer's settings.

    Raises:
        ConfigError: A process has less than one batch.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rows_per_step = plan.batch_size * processes
    steps_per_epoch = (
        math.ceil(rows / rows_per_step) if processes == 1 else rows // rows_per_step
    )  # with several processes an incomplete batch is dropped
    if not steps_per_epoch:
        raise ConfigError(
            f"{rows} rows are fewer than {processes} batches of training.batch_size={plan.batch_size}, one for each "
            f"process; try training.batch_size={max(1, rows // processes)}"
        )
    return math.ceil(steps_per_epoch * plan.epochs)


def make_trainer(
    family: Family,
    model: Any,
    columns: Mapping[str, Any],
    loss: torch.nn.Module,
    evaluator: Any,
    plan: TrainingPlan,
    seed: int,
    work: Path,
) -> Any:
    """Return the trainer of `family` that trains `model` with `loss` on `columns`, by the settings of `plan`.

    `evaluator` chooses the best checkpoint, `seed` determines the order of rows, and `work` is the checkpoints' folder.
    """
    from datasets import Dataset

    module = importlib.import_module(_LIBRARY)
    arguments = getattr(module, family.trainer.replace("Trainer", "TrainingArguments"))(
        **_arguments(plan, steps(len(columns["label"]), plan), evaluator.primary_metric),
        learning_rate=plan.learning_rate or family.learning_rate,
        output_dir=str(work),
        seed=seed,
        data_seed=seed,
        prompts=family.prompts(model, columns) or None,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process uses one GPU; torchrun starts a process for each
    instance = _without_extras(getattr(module, family.trainer))(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(columns)),
        loss=loss,
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(plan.patience)] if plan.patience else [],
    )
    instance.remove_callback(PrinterCallback)
    return instance


def _arguments(plan: TrainingPlan, total: int, metric: str) -> dict[str, Any]:
    cpu, eval_steps = device(plan) == "cpu", math.ceil(total / plan.evaluations)
    return {
        "num_train_epochs": plan.epochs,
        "per_device_train_batch_size": plan.batch_size,
        "warmup_steps": plan.warmup,
        "weight_decay": plan.weight_decay,
        "bf16": uses_bfloat16(plan),
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "eval_strategy": "steps",
        "eval_steps": eval_steps,
        "save_strategy": "steps",
        "save_steps": eval_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{metric}",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": plan.patience is not None,
        "logging_steps": max(1, eval_steps // 5),
        "disable_tqdm": True,
        "report_to": [],
    }


def _without_extras(kind: Any) -> Any:
    """Return a subclass of a trainer that writes no model card and no pickled arguments."""

    class PlainTrainer(kind):  # type: ignore[misc]
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            pass

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)

    return PlainTrainer


class Progress(TrainerCallback):
    """A callback that counts steps, prints the dev metric, and evaluates after the last step too."""

    def __init__(self, metric: str, say: Callable[[str], None], step: instrument.Advance) -> None:
        self._metric, self._say, self._step, self._done = metric, say, step, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the steps of `state` since the last call, and evaluate after the last step by setting `control`.

        After resuming, the steps of the checkpoint are counted at once. `args` is not used.
        """
        self._step(state.global_step - self._done)
        self._done = state.global_step
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print the dev metric in `kwargs` and the step of `state`; `args` and `control` are not used."""
        value = kwargs["metrics"][f"eval_{self._metric}"]
        self._say(f"  step {state.global_step:,} of {state.max_steps:,}: dev {self._metric} {value:.4f}")


@contextmanager
def quiet() -> Iterator[None]:
    """Disable the progress bars of the libraries during the block; they would interfere with the harness's."""
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    before = are_progress_bars_disabled()
    disable_progress_bars()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warning about a new head is expected
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        datasets.enable_progress_bars()
        if not before:
            enable_progress_bars()
