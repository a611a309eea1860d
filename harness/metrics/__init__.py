"""Per-query scores of a Run against Qrels: `score(run, qrels, [parse("ndcg@10")])`.

`names` reads the name of a metric in any spelling, `scores` computes the measures that the harness has itself, and
`external` those of ir_measures.
"""

from harness.metrics.names import NAMES, Metric, is_coverage, override, parse
from harness.metrics.scores import check, score

__all__ = ["NAMES", "Metric", "check", "is_coverage", "override", "parse", "score"]
