"""Tests of README.md and of the generated blocks: they are what the code and the committed results give."""

import re
import shlex
from operator import attrgetter

import benchmark_tables
import generated_blocks
import growth_report
import pytest
import yaml
from generated_blocks import BLOCKS, README, block
from support import ROOT

from harness.cli import read
from harness.config import build
from harness.config.conf import CONF
from harness.gate.baseline import read as read_baseline
from harness.metrics import parse
from harness.store import Store

TEXT = README.read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DEMO = ROOT / "results" / "demo"
MAX_LINES = 160


def demo_fingerprint() -> str:
    """Return the fingerprint of `dataset=stdlib` in the demo's records; it depends on Python's version."""
    return next(record.dataset.fingerprint for record in Store(DEMO).latest() if record.dataset.name == "stdlib")


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "python"])
def test_a_generated_block_is_current(name):
    path, make = BLOCKS[name]
    assert block(name, path.read_text(encoding="utf-8")) == make(), f"run: python scripts/generated_blocks.py {name}"


@pytest.mark.slow
def test_the_python_example_prints_what_the_readme_shows():
    from harness import load_dataset

    if load_dataset("stdlib").fingerprint != demo_fingerprint():
        pytest.skip("another version of Python has another standard library, and other scores")
    content = block("python", TEXT)
    assert content == generated_blocks.python_example(), "run: python scripts/generated_blocks.py python"


def test_replacing_a_block_keeps_everything_else():
    text = "a\n<!-- begin: x -->\n<!-- end: x -->\nb\n<!-- begin: y -->\n<!-- end: y -->\n"
    changed = generated_blocks.replace("y", "new\n", text)
    assert changed == "a\n<!-- begin: x -->\n<!-- end: x -->\nb\n<!-- begin: y -->\nnew\n<!-- end: y -->\n"
    assert generated_blocks.replace("y", "", changed) == text
    with pytest.raises(ValueError, match="no block 'z'"):
        block("z", text)


def quickstart_retrievers() -> list[str]:
    """Return the retrievers of `experiment=quickstart`."""
    text = (CONF / "experiment" / "quickstart.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["sweeper"]["params"]["retriever"].split(",")


def test_the_quickstart_table_has_every_row_of_its_experiment():
    rows = re.findall(r"^(\w+) +0\.\d{4}", block("quickstart", TEXT), re.MULTILINE)
    assert sorted(rows) == sorted(quickstart_retrievers())


def test_demo_and_baseline_have_equal_scores_where_both_have_an_evaluation():
    """The gate compares the baseline with the present code, and so indirectly the demo and the quickstart's table."""
    key = attrgetter("retriever.label", "dataset.label", "dataset.fingerprint", "k")
    demo = {key(record): record.metrics for record in Store(DEMO).latest()}
    baseline = {key(record): record.metrics for record in read_baseline(ROOT / "results" / "baseline").records}
    assert len(demo.keys() & baseline.keys()) >= 6
    for evaluation in demo.keys() & baseline.keys():
        assert demo[evaluation]["ndcg@10"] == pytest.approx(baseline[evaluation]["ndcg@10"], abs=5e-5), evaluation


def test_the_workflow_runs_commands_that_there_are():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "retrieval.yml").read_text(encoding="utf-8"))
    runs = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    (measure,) = [shlex.split(run)[1:] for run in runs if "experiment=" in run]
    assert build.composed(measure[:1])["k"]
    (gate,) = [shlex.split(run)[1:] for run in runs if " gate " in run]
    assert read.parser().parse_args(gate).annotations
    assert any(run == "make .venv/.installed PYTHON=python" for run in runs)
    assert "$(VENV)/.installed" in MAKEFILE


@pytest.mark.parametrize("target", ["quickstart", "test", "check", "docs", "bench", "demo", "lint", "gate"])
def test_the_makefile_has_the_targets_that_the_documentation_names(target):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_published_scores_in_the_docs_are_those_of_the_test():
    source = (ROOT / "tests" / "models" / "test_published.py").read_text(encoding="utf-8")
    scores = {f"{float(score):.4f}" for score in re.findall(r"0\.\d+", source)}
    page = (ROOT / "docs" / "explanation" / "measuring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*(?:MTEB|Anserini).*$", page, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        assert set(re.findall(r"0\.\d{4}", row)) <= scores


def test_the_metrics_that_the_docs_name_are_known():
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `([^`]+)` ", page, re.MULTILINE)
    assert len(names) > 5
    for name in names:
        assert str(parse(name.replace("@k", "@10"))) == name.replace("@k", "@10")


def test_every_row_of_speed_is_a_benchmark_that_there_is():
    rows = benchmark_tables.read(benchmark_tables.RATIOS)["rows"]
    assert len(rows) >= 10
    for row in rows:
        path, _, name = row["test"].partition("::")
        assert path.startswith("tests/benchmarks/")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), row["test"]
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])


def test_a_missing_row_of_speed_is_named():
    with pytest.raises(ValueError, match="has 0 rows of 'whole evaluation' against 'mteb'"):
        benchmark_tables.readme_table({"machines": [], "rows": []})


def test_the_plot_of_growth_has_a_line_for_each_term():
    picture = benchmark_tables.PLOT.read_text(encoding="utf-8")
    growth = benchmark_tables.read(benchmark_tables.GROWTH)
    for term in growth_report.TERMS:
        label = f"{term} ({growth_report.series(growth, term).exponent:.2f})"
        assert label in picture, "run: python scripts/benchmark_tables.py"


def test_the_picture_of_the_leaderboard_page_is_a_png_of_its_size():
    picture = (ROOT / "docs" / "images" / "leaderboard.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") >= 1000, "pixels wide"
    assert len(picture) < 400_000
    assert "docs/images/leaderboard.png" in TEXT


def test_the_capacity_page_uses_the_measured_encoding_rate():
    page = (ROOT / "docs" / "explanation" / "capacity.md").read_text(encoding="utf-8")
    records = Store(DEMO).latest()
    (record,) = [each for each in records if (each.retriever.label, each.dataset.name) == ("minilm", "scifact")]
    per_core = record.timing.docs_per_s / record.timing.threads
    assert f"| {per_core:.1f} docs/s a core | measured: {record.timing.docs_per_s:.1f} on SciFact" in page
    for documents, cores, shown in ((10_000_000, 64, "2.8 h"), (1_000_000_000, 1024, "17.4 h")):
        assert f"{documents / (cores * per_core) / 3600:.1f} h" == shown
        assert f" {shown} |" in page
