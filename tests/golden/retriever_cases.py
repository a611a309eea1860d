"""The retrievers that have golden rankings: every config that can be built offline, and its overrides.

Encoders whose weights are only on the hub get tiny ones (stand_ins.py), and so do variations of a config, which would
take seconds each. Providers of embeddings are replaced by a server on the loopback.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

from differences import DEPTH, DIGITS, ranking_difference
from golden_dataset import RUN, corpus_rows, query_rows
from golden_file import FindDifference, Values
from hydra.utils import get_object

from harness.config import build
from harness.types import Corpus, Queries, Retriever

FAMILIES = {
    "DenseEncoder": "dense",
    "SparseEncoder": "splade",
    "TokenWeights": "token_weights",
    "MultiVectorEncoder": "colbert",
    "CrossEncoder": "cross_encoder",
    "OpenAIEncoder": "openai",
    "CohereEncoder": "cohere",
    "MtebRetriever": "mteb",
}
"""The family in versions.EMBEDDINGS by the class of an encoder, and by MtebRetriever for mteb's models."""
_STATIC = "retriever.encoder.model='{static}'"
CASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bm25", "bm25_anserini", "bm25_mteb", "bm25_rank_bm25"), ()),
    **dict.fromkeys(("minilm", "splade_tiny", "colbert_minilm"), ()),
    **dict.fromkeys(("minilm_binary", "minilm_hnsw", "minilm_int8", "minilm_ivf"), (_STATIC,)),
    "static_mrl": (_STATIC, "retriever.encoder.dimensions=48"),
    "splade_doc": ("retriever.encoder.model='{masked}'",),
    "hybrid": ("retriever.retrievers.dense.encoder.model='{static}'",),
    "hybrid_three": (
        "retriever.retrievers.dense.encoder.model='{static}'",
        "retriever.retrievers.sparse.encoder.model='{masked}'",
    ),
    "rerank": ("retriever.scorer.encoder.model='{cross_encoder}'",),
    "rerank_colbert_minilm": ("retriever.scorer.encoder.model='{masked}'",),
    "run_file": (f"retriever.path='{RUN}'",),
    "openai_small": ("retriever.encoder.base_url='{provider}/v1'",),
    "cohere_v3": ("retriever.encoder.base_url='{provider}'",),
    "mteb": ("retriever.model=mteb/baseline-random-encoder",),
}
"""Overrides by the name of a config; braces name a stand-in. One encoder of each family keeps its real weights."""
LEFT_OUT = {
    "sharded": "returns the run of its retriever, which tests/models/test_distributed.py compares on a cluster",
    **dict.fromkeys(
        (
            *("answerai_colbert_small", "colbertv2", "gte_moderncolbert"),
            *("bge_base", "bge_large", "bge_small", "e5_instruct", "mpnet", "static_potion"),
            *("rerank_bge_m3", "rerank_mxbai"),
            *("splade_cocondenser", "splade_distil", "splade_v3"),
            *("cohere_v4", "openai_ada", "openai_compatible", "openai_large"),
        ),
        "the code of another case with weights that are only on the hub or behind an API",
    ),
}
"""Configs without a golden ranking, and the reason."""
_DEFAULTS = {
    "bm25": (),
    "bm25_rank_bm25": (),
    "minilm": (_STATIC,),
    **{name: CASES[name] for name in ("minilm_binary", "minilm_hnsw", "minilm_int8", "minilm_ivf")},
    "splade_tiny": ("retriever.encoder.model='{masked}'",),
    "splade_doc": CASES["splade_doc"],
    "colbert_minilm": ("retriever.encoder.model='{masked}'",),
    "hybrid": CASES["hybrid"],
    "rerank": CASES["rerank"],
    "openai_small": CASES["openai_small"],
    "cohere_v3": CASES["cohere_v3"],
}
"""Configs that are also built without the keys that have a default in their constructor."""
_MARK = " by constructor defaults"
ALL_CASES = {**CASES, **{f"{name}{_MARK}": overrides for name, overrides in _DEFAULTS.items()}}
_TOLERANCES = {
    **dict.fromkeys(("colbert_minilm", "rerank_colbert_minilm"), 2e-4),
    **dict.fromkeys(("minilm_binary", "minilm_int8"), 1e-3),
}
"""Tolerances for embeddings stored in two bytes or one, which a last bit may round the other way."""


def corpus() -> Corpus:
    rows = corpus_rows()
    return Corpus([row["_id"] for row in rows], [f"{row['title']} {row['text']}".strip() for row in rows])


def queries() -> Queries:
    return Queries([row["_id"] for row in query_rows()], [row["text"] for row in query_rows()])


def config_of(case: str, stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """Return the retriever's config of a case, on the CPU."""
    name = case.removesuffix(_MARK)
    overrides = [override.format(**stand_ins) for override in ALL_CASES[case]]
    config = build.composed([f"retriever={name}", *overrides, f"k={DEPTH}"])["retriever"]
    for part in targets(config):
        if "device" in part:
            part["device"] = "cpu"
    return config if case == name else required_only(config)


def compare(case: str, versions: Collection[str]) -> FindDifference:
    """Return the comparison of a case's rankings; without embeddings the order must be the same on every processor."""
    tolerance = _TOLERANCES.get(case.removesuffix(_MARK), 2e-5)
    return partial(ranking_difference, tolerance=tolerance, strict_order=set(versions) == {"RANKING"})


def targets(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that a config describes, the outer ones first."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config
        for inner in config.values():
            yield from targets(inner)


def required_only(config: Any) -> Any:
    """Return a config without the keys that have a default in their constructor, those of `_ALWAYS_KEPT` excepted."""
    if not isinstance(config, Mapping):
        return config
    if "_target_" not in config or config.get("_partial_"):
        return {key: required_only(value) for key, value in config.items()}
    parameters = inspect.signature(get_object(config["_target_"])).parameters.values()
    keys = {*_ALWAYS_KEPT, *(parameter.name for parameter in parameters if parameter.default is parameter.empty)}
    return {key: required_only(value) for key, value in config.items() if key in keys}


_ALWAYS_KEPT = ("_target_", "package", "device", "index", "query_encoder", "base_url", "projection")


def versions_of(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the versions that a ranking depends on."""
    encoders = [part["_target_"] for part in targets(config) if part["_target_"].startswith(_ENCODERS)]
    families = dict.fromkeys(FAMILIES[target.rpartition(".")[2]] for target in encoders)
    return ["RANKING", *(f"EMBEDDINGS[{family!r}]" for family in families)]


_ENCODERS = ("harness.encoders.", "harness.providers.", "harness.interop.mteb.")


def rank(retriever: Retriever) -> Values:
    """Return the DEPTH best documents of each query with their rounded scores."""
    retriever.index(corpus())
    run = retriever.search(queries(), DEPTH)
    values: Values = {}
    for row, query in enumerate(run.query_ids):
        docs, scores = run.hits(row)
        values[query] = [[doc, round(score, DIGITS)] for doc, score in zip(docs, scores.tolist(), strict=True)]
    return values
