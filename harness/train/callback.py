"""Evaluate a model while sentence-transformers trains it.

trainer = SentenceTransformerTrainer(..., callbacks=[harness.EvaluationCallback(dataset, every_n_steps=500)])
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback

from harness.errors import ConfigError
from harness.evaluation.timing import measure, parse_metrics
from harness.retrievers import in_memory
from harness.simultaneous import compare_all
from harness.types import Dataset


class EvaluationCallback(TrainerCallback):
    """A trainer callback that logs a retrieval metric and its change since the start of training.

    It logs ``eval_<dataset>_<metric>`` and, from the second evaluation on, ``..._change`` (mean of the per-query
    differences to the start) with ``..._change_low`` and ``..._change_high``, the ends of its 95 % interval by paired
    randomisation.
    `history` holds the same values by step.

    Args:
        dataset: Corpus, queries and qrels; use a sample of the corpus to keep evaluations short.
        every_n_steps: Optimizer steps between evaluations; also before the first and after the last step.
        metric: The metric to log.
        k: Documents retrieved for each query; by default the metric's cutoff.
    """

    def __init__(
        self, dataset: Dataset, every_n_steps: int = 500, metric: str = "ndcg@10", k: int | None = None
    ) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"every_n_steps={every_n_steps} must be at least 1")
        (parsed,) = parse_metrics([metric], k or 10**9)
        self._dataset, self._every, self._metric = dataset, every_n_steps, str(parsed)
        self._k = k or parsed.k or 100
        self._start: NDArray[np.float64] | None = None
        self.history: dict[int, dict[str, float]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate `model` before training, at the step of `state`; `args` and `control` are not used."""
        self._evaluate(state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate `model` after every `every_n_steps` steps of `state`; `args` and `control` are not used."""
        if state.global_step % self._every == 0:
            self._evaluate(state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate `model` unless the last step of `state` is evaluated already; `args` and `control` are not used."""
        if state.global_step not in self.history:
            self._evaluate(state, model)

    def _evaluate(self, state: Any, model: Any) -> None:
        if not state.is_world_process_zero:
            return
        was_training = model.training
        model.eval()
        try:
            retriever = in_memory.wrap_model(model)
            evaluation = measure(retriever, self._dataset, k=self._k, metrics=[self._metric], plan=None)
        finally:
            model.train(was_training)
        values = evaluation.scores[self._metric]
        name = f"eval_{self._dataset.name}_{self._metric}"
        logs = {name: float(values.mean())}
        if self._start is None:
            self._start = values
        else:
            difference = values - self._start
            pair = np.column_stack([self._start, values])
            (tests,) = compare_all([[(1.0, pair)]], [[0]])
            logs |= {f"{name}_change": float(difference.mean())}
            low, high = tests.interval(0, 1)
            logs |= {f"{name}_change_low": low, f"{name}_change_high": high}
        self.history[state.global_step] = logs
        state.log_history.append({**logs, "step": state.global_step, "epoch": state.epoch})
