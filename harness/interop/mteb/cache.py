"""A results folder as mteb's cache: `mteb.evaluate(SearchModel(retriever), task, cache=ResultCache("results"))`."""

from pathlib import Path
from typing import Any

from harness.interop.mteb.registry import library
from harness.interop.mteb.results import from_records
from harness.store import Store


class ResultCache(library().ResultCache):  # type: ignore[misc]  # mteb is imported without its warnings
    """mteb's cache of results, which also has the evaluations of a results folder.

    A result that the cache lacks is converted from the stored record of the same retriever on the same task, so that
    `mteb.evaluate` does not repeat evaluations. New results of mteb are written to the cache and not to the folder.

    Args:
        results_dir: The results folder, as for `harness.evaluate`.
        cache_path: Folder of mteb's results; None: mteb's default.
    """

    def __init__(self, results_dir: str | Path, cache_path: str | Path | None = None) -> None:
        super().__init__(cache_path)
        self._store = Store(Path(results_dir).expanduser())

    def load_task_result(self, task_name: str, model_name: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or one converted from a record whose retriever's identity is the model's revision.

        Args:
            task_name: The task.
            model_name: mteb's `ModelMeta`, or a name followed by the revision.
            *args: Further arguments of `mteb.ResultCache.load_task_result`.
            **kwargs: The same by keyword.
        """
        result = super().load_task_result(task_name, model_name, *args, **kwargs)
        revision = getattr(model_name, "revision", None) or next(iter(args), kwargs.get("model_revision"))
        if result is not None or revision is None:
            return result
        records = [record for record in self._store.latest() if record.retriever.identity == revision]
        results = [each for model in from_records(records).models for each in model.results]
        return next((each for each in results if each.task_name == task_name), None)
