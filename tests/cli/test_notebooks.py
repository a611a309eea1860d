"""Tests of the notebooks: each runs offline from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support import ROOT

pytestmark = pytest.mark.slow

NOTEBOOKS = ROOT / "notebooks"


def run(name: str, folder: Path) -> list[dict]:
    """Run a notebook in a new kernel and return the outputs of its code cells."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(outputs: list[dict], kind: str) -> str:
    """Return the outputs of a media type, joined by line breaks."""
    return "\n".join(output["data"][kind] for output in outputs if kind in output.get("data", {}))


@pytest.fixture(autouse=True)
def importable_harness(monkeypatch):
    """Let the notebooks' kernels import this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))


def test_notebook_compares_retrievers(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    outputs = run("compare_retrievers.ipynb", tmp_path)
    html = texts(outputs, "text/html")
    assert "bm25, short" in html
    assert "best of its column" in html
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    assert "delta=-" in texts(outputs, "text/plain")


def test_notebook_watches_checkpoints(tmp_path, monkeypatch, models):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MODEL", str(models / "all-MiniLM-L6-v2"))
    outputs = run("watch_checkpoints.ipynb", tmp_path)
    html = texts(outputs, "text/html")
    for column in ("eval_held out_ndcg@10", "eval_held out_ndcg@10_change_low"):
        assert column in html
    assert "trained" in html
