"""Records, scores and verdicts for tests of the gate."""

import numpy as np

from harness.environment import code_hash
from harness.gate import Baseline, Policy, gate, match_records
from harness.store import Store
from harness.types import PerQuery, Phase
from support.records import make_record, make_timing

RULES = Policy()
KERNELS = {"dict_loop": 0.004, "blas_product": 0.004, "random_gather": 0.004}


def gate_timing(
    cpu=1.0,
    unit=1.0,
    threads=1,
    size=1000,
    memory=10**8,
    cached=0.0,
    queries=100,
    wall=None,
    search=(1, 1, 1),
    alone=(),
):
    """Return a timing whose phases took `cpu` seconds on a machine whose kernels take `unit` times the usual time.

    The wall seconds are `wall`, or equal to the CPU seconds. The repeats of the search took `search` times these
    seconds, and the queries that were searched alone took the seconds `alone`.
    """
    wall = cpu if wall is None else wall
    phase = Phase(wall_s=wall, cpu_s=cpu, cached_s=cached)
    return make_timing(
        warmup=phase,
        index=phase,
        searches=[Phase(wall_s=wall * factor, cpu_s=cpu * factor) for factor in search],
        latencies_s=list(alone),
        queries=queries,
        index_bytes=size,
        peak_memory_bytes=memory,
        threads=threads,
        references=[{name: seconds * unit for name, seconds in KERNELS.items()}] * (len(search) + 2),
    )


def gate_record(retriever, dataset, minutes=0, mean=0.5, **changes):
    """Return a record with a path of per-query scores and a timing that the gate can compare."""
    files = {"per_query": f"{retriever} {dataset} {minutes}", "record": "r"}
    defaults = {"fingerprint": "f" * 32, "timing": gate_timing(), "files": files, "id": "c" * 16, "code": code_hash({})}
    return make_record(retriever, dataset, mean, minutes, **{**defaults, **changes})


def query_ids(n):
    """Return `n` ids: q0, q1, ..."""
    return [f"q{number}" for number in range(n)]


def make_evaluations(values, minutes=0):
    """Return records and per-query scores for {(retriever, dataset): values by query}."""
    records = [gate_record(*key, minutes, float(np.mean(by_query))) for key, by_query in values.items()]
    scores = {
        record.files.per_query: PerQuery(query_ids(len(by_query)), {"ndcg@10": np.asarray(by_query, float)})
        for record, by_query in zip(records, values.values(), strict=True)
    }
    return records, scores


def run_gate(accepted, accepted_scores, records, scores, rules=RULES, lenient=False, repeats=()):
    """Return the verdict on records and their scores against accepted ones."""
    matched = match_records(accepted, records)
    return gate(Baseline(accepted, accepted_scores), matched, scores, rules, lenient, repeats)


def gate_values(before, after, rules=RULES, lenient=False):
    """Return the verdict on {(retriever, dataset): values by query} against accepted ones."""
    return run_gate(*make_evaluations(before), *make_evaluations(after, 1), rules, lenient)


def statuses(verdict, check="ndcg@10"):
    """Return the status of each finding of a check by retriever and dataset."""
    return {(each.retriever, each.dataset): each.status for each in verdict.findings if each.check == check}


BASE = np.random.default_rng(0).uniform(0.2, 0.9, 300)
"""The accepted values by query."""


def shifted(by, queries=300, seed=1, share=1.0):
    """Return BASE with a share of the values shifted so that the mean shifts by `by`."""
    positions = np.random.default_rng(seed).permutation(300)[: int(share * 300)]
    values = BASE[:queries].copy()
    values[positions] += by / share
    return values


def store_evaluations(root, values, minutes=0, **changed):
    """Store records and scores for {(retriever, dataset): values by query}, and return the store."""
    store = Store(root)
    for (retriever, dataset), by_query in values.items():
        record = gate_record(retriever, dataset, minutes, float(np.mean(by_query)), **changed)
        store.append(record, {}, per_query=PerQuery(query_ids(len(by_query)), {"ndcg@10": np.asarray(by_query)}))
    return store
