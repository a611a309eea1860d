"""Tests of the results folder: records are appended completely or not at all and read back exactly."""

import gzip
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.records import make_record

from harness.errors import StoreError
from harness.store import Store, read_record, write_atomic
from harness.types import DatasetInfo, PerQuery, Phase, RetrieverInfo, Run, Timing

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def bm25_record(**changed):
    """Return a record of bm25 with stages, counters and latencies; `changed` replaces its fields."""
    timing = Timing(
        warmup=Phase(wall_s=1.0, cpu_s=1.0),
        index=Phase(wall_s=2.0, cpu_s=3.0, stages={"encode": 1.5}, counts={"tokens": 100}),
        searches=[Phase(wall_s=0.5, cpu_s=0.5), Phase(wall_s=0.25, cpu_s=0.5)],
        latencies_s=[0.001, 0.002],
        documents=10,
        queries=5,
        index_bytes=1000,
        threads=2,
    )
    defaults = {
        "retriever": RetrieverInfo(name="bm25", config={"k1": 1.2}),
        "dataset": "cqadupstack/tex",
        "id": "0123456789abcdef",
        "started": START,
        "timing": timing,
        "environment": "fedcba9876543210",
    }
    return make_record(**{**defaults, **changed})


def test_a_record_is_read_back_as_it_was_appended(tmp_path):
    run = Run(["q"], ["a", "b"], np.array([[0, 1]]), np.array([[2.0, 1.0]]))
    scores = {"ndcg@10": np.array([0.5]), "map@10": np.array([0.25])}
    written = Store(tmp_path).append(bm25_record(), {"cpu": "x"}, run, PerQuery(["q"], scores))
    assert list(Store(tmp_path).records()) == [written]
    assert written.files.record == "records/cqadupstack/tex/bm25/20260102T030405.678901Z-01234567.json"
    assert gzip.decompress((tmp_path / written.files.run).read_bytes()) == b"q Q0 a 1 2.0 bm25\nq Q0 b 2 1.0 bm25\n"
    table = pq.read_table(tmp_path / written.files.per_query).to_pylist()
    assert table == [
        {"query_id": "q", "metric": "ndcg@10", "value": 0.5},
        {"query_id": "q", "metric": "map@10", "value": 0.25},
    ]
    assert (tmp_path / written.files.environment).read_text() == '{\n  "cpu": "x"\n}\n'
    assert (tmp_path / written.files.environment).name == "fedcba98.json"


def test_the_json_has_the_figures_derived_from_the_samples(tmp_path):
    written = Store(tmp_path).append(bm25_record(), {})
    text = (tmp_path / written.files.record).read_text()
    for figure in ("docs_per_s", "tokens_per_s", "queries_per_s", "latency_ms"):
        assert f'"{figure}"' in text


def test_the_latest_record_of_an_evaluation_is_its_newest_successful_one(tmp_path):
    store = Store(tmp_path)
    for minutes, status in ((0, "ok"), (1, "ok"), (2, "failed")):
        store.append(bm25_record(started=START + timedelta(minutes=minutes), status=status), {})
    store.append(bm25_record(id="f" * 16, status="failed"), {})
    latest = {record.id: record for record in store.latest()}
    assert latest["0123456789abcdef"].started == START + timedelta(minutes=1)
    assert latest["f" * 16].status == "failed"
    assert len(list(store.records())) == 4, "no record is removed"


def test_an_evaluation_under_two_dataset_names_has_a_latest_record_for_each(tmp_path):
    store = Store(tmp_path)
    for minutes, name in enumerate(("SciFact", "scifact")):
        record = bm25_record(started=START + timedelta(minutes=minutes))
        store.append(record.model_copy(update={"dataset": record.dataset.model_copy(update={"name": name})}), {})
    assert sorted(record.dataset.label for record in store.latest()) == ["SciFact", "scifact"]


def test_find_needs_the_same_id_names_and_environment(tmp_path):
    store = Store(tmp_path)
    stored = store.append(bm25_record(), {})
    assert store.find(bm25_record(started=START + timedelta(days=1))) == stored
    changes = [
        {"environment": "another"},
        {"id": "0123456700000000"},
        {"retriever": RetrieverInfo(name="bm25", differences={"k1": 2}, config={})},
        {"dataset": DatasetInfo(name="renamed", split="test", fingerprint="f")},
    ]
    for changed in changes:
        assert store.find(bm25_record(**changed)) is None
    assert store.find(bm25_record(code="changed")) == stored, "the code version is not compared"
    store.append(bm25_record(id="e" * 16, status="failed"), {})
    assert store.find(bm25_record(id="e" * 16)) is None


def test_the_error_about_a_folder_that_cannot_be_written_names_it(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StoreError, match=r"results.* cannot be written: (Not a directory|File exists)"):
        Store(tmp_path / "results").append(bm25_record(), {})


def test_a_name_cannot_leave_the_results_folder(tmp_path):
    info = RetrieverInfo(name="../../evil name", config={})
    written = Store(tmp_path / "results").append(bm25_record(retriever=info), {})
    path = (tmp_path / "results" / written.files.record).resolve()
    assert path.is_relative_to((tmp_path / "results" / "records").resolve())
    assert path.is_file()


def test_the_error_about_a_file_that_is_not_a_record_names_it(tmp_path):
    path = tmp_path / "records" / "x.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"x\.json is not a record of this version: Field required; move it away"):
        list(Store(tmp_path).records())
    path.write_text('{"version": 2}')
    with pytest.raises(StoreError, match=r"not a record of this version"):
        read_record(path)


def test_a_file_is_replaced_atomically(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.slow
def test_a_killed_process_leaves_only_complete_files(tmp_path):
    program = (
        "import sys; from pathlib import Path; from harness.store import write_atomic\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; write_atomic(Path(sys.argv[1]) / f'{sys.argv[2]}-{n}', b'x' * 3_000_000 + b'end')\n"
        "    print(n, flush=True)\n"
    )
    for attempt in range(8):
        command = [sys.executable, "-c", program, str(tmp_path), str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()  # a file is written
            time.sleep(0.003 * attempt)
            process.send_signal(signal.SIGKILL)
    temporary = set(tmp_path.glob(".harness-*.tmp"))
    assert len(temporary) <= 8, "each kill leaves at most the file that was being written"
    files = set(tmp_path.iterdir()) - temporary
    assert len(files) >= 8
    for path in files:
        assert path.stat().st_size == 3_000_003
    for path in temporary:
        os.utime(path, (0, 0))
    write_atomic(tmp_path / "next", b"")
    assert set(tmp_path.iterdir()) == {*files, tmp_path / "next"}
