"""Tests of the wheel: its files and its declared dependencies, and the command installed from it."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import packages_distributions

import pytest
from support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel and return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_contains_every_config_the_types_marker_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"harness/conf/{name}" for name in configs} <= set(names)
    assert "harness/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "results")) or name.endswith(".pyc")]


@pytest.mark.slow
def test_wheel_runs_in_an_environment_without_the_checkout(wheel, tmp_path):
    """Install the wheel alone; its dependencies are read from this environment through a .pth file."""
    binaries = tmp_path / "venv" / "bin"
    venv.create(tmp_path / "venv", with_pip=False)
    install = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean["NUMBA_DISABLE_JIT"] = "1"  # compiling the kernels takes longer than a small dataset

    def harness(*arguments):
        done = subprocess.run(
            [binaries / "harness", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(packages) in subprocess.check_output(
        [binaries / "python", "-c", "import harness; print(harness.__file__)"], cwd=tmp_path, env=clean, text=True
    )
    assert "minilm" in harness("list", "retrievers")
    small = ["dataset.documents=100", "dataset.queries=20"]
    assert "bm25" in harness("retriever=bm25", "dataset=stdlib", *small).splitlines()[1]
    assert "FAIL" not in harness("validate")
    assert "100 documents, 20 queries" in harness("validate", "dataset=stdlib", *small)
    assert (tmp_path / "results" / "records").is_dir()


def declared_packages(wheel, extras):
    """Return the names of the wheel's dependencies, with `extras` those of its extras for users too."""
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = HeaderParser().parsestr(archive.read(path).decode()).get_all("Requires-Dist")
    selected = [line for line in requirements if "extra ==" not in line or (extras and "'dev'" not in line)]
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in selected}


def _is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_packages(path):
    """Yield the top-level packages that a file imports, and whether lazily: in a function or for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) or _is_type_checking(node)]
    inside = {id(node) for block in lazy for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], id(node) in inside


def test_imports_are_declared_and_optional_ones_are_lazy(wheel):
    packages = packages_distributions()
    always, with_extras = declared_packages(wheel, extras=False), declared_packages(wheel, extras=True)
    undeclared = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "harness").rglob("*.py")
        for name, lazily in imported_packages(path)
        if name not in sys.stdlib_module_names and name != "harness"
        if not {re.sub(r"[-_.]+", "-", package).lower() for package in packages.get(name, [name])}
        & (with_extras if lazily else always)
    }
    assert not undeclared
