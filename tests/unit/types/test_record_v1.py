"""Tests of reading records of version 1: some that were measured then, and one with every renamed field."""

import json
from pathlib import Path

import pytest

from harness.store import read_record
from harness.types import Counters, EncoderInfo, RecallOfExact, Record
from harness.types.record import EncoderWeights

MEASURED = sorted((Path(__file__).parent / "records_v1").glob("*.json"))


def record_v1(**changes):
    """Return the JSON of a record of version 1 that has every field which version 2 renamed."""
    phase = {"wall_s": 2.0, "cpu_s": 1.0, "stages": {"first_stage/search": 1.0}, "counts": {}}
    counts = {"texts": 4, "tokens": 90, "scorer/texts": 8, "scorer/truncated": 2, "scorer/tokens": 60}
    counts |= {"scorer/padding": 20, "scorer/flops": 30, "scorer/gemm_flops": 40}
    index = {**phase, "counts": counts, "earlier_s": 0.5, "elsewhere": False, "gemm_share": 0.75}
    return {
        **{"version": 1, "cell": "0123456789abcdef", "started": "2026-01-02T03:04:05Z", "status": "ok"},
        "retriever": {"name": "rerank"},
        "dataset": {
            "name": "SciFact",
            "about": {"source": "mteb", "task": "SciFact", "ids": "quoted as in a web address", "type": "Retrieval"},
        },
        **{"k": 10, "seed": 0, "metric_version": 1, "metrics": {"ndcg@10": 0.5}},
        "timing": {
            **{"warmup": phase, "index": index, "searches": [{**phase, "elsewhere": True}], "latencies_s": [0.5]},
            **{"documents": 4, "queries": 2, "index_bytes": 9, "threads": 1},
        },
        "facts": {
            "depth": 100,
            "device": "cpu",
            "scorer/weights": {"model": "a/b", "source": "hub", "identity": "ffff"},
            "scorer/batch_tokens_that_fit": 512,
            "scorer/max_length": {"query": 32, "document": 300},
            "first_stage/recall@100_of_exact": 0.99,
            "latency.first_stage/micro_usd": 7,
        },
        **{"environment": "e", "harness": "1", "code": "c", "command": "harness"},
        "files": {"record": "records/a.json", "ranked": "rankings/a.parquet", "asked": "queries/a.parquet"},
        **changes,
    }


def test_every_field_of_version_1_is_read_under_its_new_name():
    record = Record.model_validate_json(json.dumps(record_v1()))
    assert (record.version, record.id) == (2, "0123456789abcdef")
    assert record.encoders == {
        "": EncoderInfo(device="cpu"),
        "scorer": EncoderInfo(
            weights=EncoderWeights(model="a/b", source="hub", identity="ffff"),
            max_batch_tokens=512,
            max_length={"query": 32, "document": 300},
        ),
    }
    assert record.recall_of_exact == {"first_stage": RecallOfExact(k=100, recall=0.99)}
    assert record.metadata == {"depth": 100}
    assert record.files.paths() == {
        "record": "records/a.json",
        "rankings": "rankings/a.parquet",
        "queries": "queries/a.parquet",
    }
    metadata = record.dataset.metadata
    assert (metadata.source, metadata.task, metadata.quotes_ids, metadata.type) == (
        "mteb",
        "SciFact",
        True,
        "Retrieval",
    )


def test_counters_and_times_of_version_1_give_the_same_shares():
    timing = Record.model_validate_json(json.dumps(record_v1())).timing
    assert timing.index.counters[""] == Counters(texts=4, tokens=90)
    assert timing.index.counters["scorer"].truncated == 2
    assert (timing.index.cached_s, timing.index.foreign_machine) == (0.5, False)
    assert timing.searches[0].foreign_machine
    assert (timing.index.truncated_share, timing.index.padding_share, timing.index.mfu) == (0.25, 0.25, 0.75)
    assert timing.latency_counters == {"first_stage": Counters(micro_usd=7)}


def test_a_record_survives_a_round_trip_through_json():
    record = Record.model_validate_json(json.dumps(record_v1()))
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("field", ["record", "ranked", "asked", "run"])
def test_a_path_outside_the_results_folder_is_refused(field):
    with pytest.raises(ValueError, match="leads out of the results folder"):
        Record.model_validate(record_v1(files={field: "../../etc/passwd"}))


def test_measured_records_give_the_figures_stored_with_them():
    compared = 0
    for path in MEASURED:
        old, record = json.loads(path.read_bytes()), read_record(path)
        assert old["version"] == 1
        assert (record.id, record.metrics) == (old["cell"], old["metrics"])
        assert set(record.files.paths().values()) == set(old["files"].values())
        timing = record.timing
        for name in ("docs_per_s", "tokens_per_s", "queries_per_s"):
            assert getattr(timing, name) == pytest.approx(old["timing"][name]), (path, name)
        shown = {name: value for name, value in old["timing"]["latency_ms"].items() if name != "p99"}
        expected = {**shown, "p99": None} if shown else {}  # a hundred queries do not carry a 99th percentile
        assert timing.latency_ms == pytest.approx(expected), path
        for phase, stored in zip(
            [timing.index, *timing.searches], [old["timing"]["index"], *old["timing"]["searches"]], strict=True
        ):
            assert phase.truncated_share == stored["truncated_share"], path
            if "gemm_share" in stored:
                assert (phase.padding_share, phase.mfu) == (stored["padding_share"], stored["gemm_share"]), path
            assert sum(len(counters.model_dump()) for counters in phase.counters.values()) == len(stored["counts"])
        compared += 1
    assert compared == 8
