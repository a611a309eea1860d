"""Tests of records that other code measured, and of what counts as code."""

import shutil
from pathlib import Path

import pytest
from support.command_line import harness
from support.gate import gate_record, shifted, store_evaluations

import harness as package
from harness import environment
from harness.gate.matching import match_records
from harness.gate.stale import stale_reason


def test_a_stale_record_is_undecided_and_with_lenient_compared_too(accepted_results, monkeypatch, capsys):
    changed = {"code": "0" * 16, "revision": "0123456789ab", "command": "harness retriever=a dataset=x resume=true"}
    store_evaluations(accepted_results, {("a", "x"): shifted(-0.02)}, 5, **changed)
    assert harness(monkeypatch, "gate") == 3
    line = (
        "UNDECIDED a/x - measured with other code than the present (revision 0123456789ab, 2026-01-01 00:05 UTC); "
        "measure again: harness retriever=a dataset=x resume=same_code"
    )
    out = capsys.readouterr().out
    assert out.splitlines()[0] == line
    assert "a/x ndcg@10" not in out
    assert harness(monkeypatch, "gate", "--lenient") == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL a/x ndcg@10 ")
    assert line in out


def test_accepted_records_of_older_code_are_never_stale():
    accepted = [gate_record("a", "x", code="0" * 16)]
    assert match_records(accepted, [gate_record("a", "x", 1)], stale_reason).pairs


def test_code_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    record = gate_record("a", "x", code="0" * 16)
    config = {"_target_": "module_that_is_gone.Retriever"}
    moved = record.model_copy(update={"retriever": record.retriever.model_copy(update={"config": config})})
    message = "its code cannot be compared, since module_that_is_gone cannot be imported here: set PYTHONPATH"
    assert stale_reason(moved) == message
    assert "__main__ cannot be imported" in stale_reason(
        record.model_copy(
            update={"retriever": record.retriever.model_copy(update={"config": {"_target_": "__main__.Retriever"}})}
        )
    )
    (tmp_path / "module_that_is_here.py").write_text("class Retriever: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"_target_": "module_that_is_here.Retriever"}
    here = record.model_copy(update={"retriever": record.retriever.model_copy(update={"config": config})})
    assert stale_reason(here) == "measured with other code than the present"
    assert stale_reason(here.model_copy(update={"code": environment.code_hash(config)})) is None


@pytest.mark.parametrize(
    ("path", "is_code"),
    [
        ("harness/stats.py", True),
        ("conf/retriever/bm25.yaml", True),
        ("conf/gate.yaml", False),
        ("conf/experiment/ci.yaml", False),
    ],
)
def test_the_code_is_that_of_the_package_and_its_configs_of_retrievers(tmp_path, monkeypatch, path, is_code):
    root = Path(package.__file__).parent.parent
    for name in ("harness", "conf"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(package, "__file__", str(tmp_path / "harness" / "__init__.py"))
    environment._harness_sources.cache_clear()
    try:
        before = environment.code_hash()
        (tmp_path / path).write_text((tmp_path / path).read_text() + "# a comment\n")
        environment._harness_sources.cache_clear()
        assert (environment.code_hash() != before) == is_code
    finally:
        monkeypatch.undo()
        environment._harness_sources.cache_clear()
