"""Records that other code than the present one measured say nothing about it.

The present code is the harness that runs the gate, its configs, and the user's modules that a record's config names. A
record of the baseline is never stale: it was accepted.
"""

import importlib.util
import sys

from harness import environment
from harness.types import Record


def stale_reason(record: Record) -> str | None:
    """Return the reason why a record was not measured with the present code; None where it was."""
    if record.code == environment.code_hash(record.retriever.config):
        return None
    if missing := [
        module for module in sorted(environment.user_modules(record.retriever.config)) if _is_missing(module)
    ]:
        return f"its code cannot be compared, since {missing[0]} cannot be imported here: set PYTHONPATH"
    return "measured with other code than the present"


def _is_missing(module: str) -> bool:
    """Return True for a module that this process cannot import, such as a notebook's `__main__`."""
    top_level = module.partition(".")[0]
    if top_level == "__main__":
        return True
    return top_level not in sys.modules and importlib.util.find_spec(top_level) is None
