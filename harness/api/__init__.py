"""The public functions: evaluate and compare retrievers, load datasets, open results, score runs."""

from harness.api.folder import open_results
from harness.api.load import load_dataset, load_retriever
from harness.api.results import Results
from harness.api.run import compare, evaluate
from harness.api.scoring import score

__all__ = ["Results", "compare", "evaluate", "load_dataset", "load_retriever", "open_results", "score"]
