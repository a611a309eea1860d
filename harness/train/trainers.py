"""sentence-transformers' trainers as they are used here: their arguments, what is said meanwhile, what is saved."""

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

Some = TypeVar("Some")
_LIBRARY = "sentence_transformers"


def check_packages() -> None:
    """Raises `ConfigError` where a package that trains is missing."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"training takes more packages ({error}): pip install 'retrieval-harness[train]'") from None


def device(plan: TrainingPlan) -> str:
    """Where this process trains."""
    if plan.device == "auto" and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if plan.device == "auto" and torch.backends.mps.is_available() else "cpu"


def in_turn(plan: TrainingPlan, work: Callable[[], Some]) -> Some:
    """What `work` gives to this process: to the first that torchrun started, then to the others.

    The first says what is wrong and leaves vectors in the cache; where it fails the others end without a word.
    """
    from accelerate import PartialState

    state = PartialState(cpu=device(plan) == "cpu")
    if state.num_processes == 1:
        return work()
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    failed = [True]
    try:
        found = work() if state.is_main_process else None
        failed = [False]
    finally:
        torch.distributed.broadcast_object_list(failed, 0, group)
    if failed[0]:
        raise SystemExit(1)
    return work() if found is None else found


def in_bfloat16(plan: TrainingPlan) -> bool:
    """Whether products are made in bfloat16: as the plan says, else where the device is faster at it."""
    where = device(plan)
    if plan.dtype != "auto":
        return plan.dtype == "bfloat16"
    if where.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return where == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def steps(rows: int, plan: TrainingPlan) -> int:
    """How many steps a training takes, over all its processes. Raises `ConfigError` for fewer rows than a batch."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    together = plan.batch_size * world
    epoch = math.ceil(rows / together) if world == 1 else rows // together  # several leave the last, smaller batch out
    if not epoch:
        raise ConfigError(
            f"{rows} rows are fewer than {world} batches of training.batch_size={plan.batch_size}, one for each "
            f"process; try training.batch_size={max(1, rows // world)}"
        )
    return math.ceil(epoch * plan.epochs)


def trainer(
    family: Family,
    model: Any,
    columns: Mapping[str, Any],
    loss: torch.nn.Module,
    evaluator: Any,
    plan: TrainingPlan,
    seed: int,
    work: Path,
) -> Any:
    """The family's trainer, its checkpoints in the folder `work`."""
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
    arguments._n_gpu = min(arguments.n_gpu, 1)  # of several GPUs one process takes one; torchrun takes them all
    made = _plain(getattr(module, family.trainer))(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(columns)),
        loss=loss,
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(plan.patience)] if plan.patience else [],
    )
    made.remove_callback(PrinterCallback)
    return made


def _arguments(plan: TrainingPlan, total: int, metric: str) -> dict[str, Any]:
    cpu, every = device(plan) == "cpu", math.ceil(total / plan.evaluations)
    return {
        "num_train_epochs": plan.epochs,
        "per_device_train_batch_size": plan.batch_size,
        "warmup_steps": plan.warmup,
        "weight_decay": plan.weight_decay,
        "bf16": in_bfloat16(plan),
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{metric}",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": plan.patience is not None,
        "logging_steps": max(1, every // 5),
        "disable_tqdm": True,
        "report_to": [],
    }


def _plain(kind: Any) -> Any:
    """The trainer, which writes no model card and, into a checkpoint, no pickled arguments, which nothing reads."""

    class Plain(kind):  # type: ignore[misc]
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            pass

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)

    return Plain


class Progress(TrainerCallback):
    """Counts the steps, says what dev gave, and has it measured after the last step too."""

    def __init__(self, metric: str, say: Callable[[str], None], step: instrument.Advance) -> None:
        self._metric, self._say, self._step, self._done = metric, say, step, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step more, or all those of the checkpoint at once."""
        self._step(state.global_step - self._done)
        self._done = state.global_step
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """One line."""
        value = more["metrics"][f"eval_{self._metric}"]
        self._say(f"  step {state.global_step:,} of {state.max_steps:,}: dev {self._metric} {value:.4f}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of the libraries below, which know nothing of ours."""
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    before = are_progress_bars_disabled()
    disable_progress_bars()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # a new head is expected to be new
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        datasets.enable_progress_bars()
        if not before:
            enable_progress_bars()
