"""The wheel carries all that the command needs: installed where nothing else of ours is, it lists and measures."""

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
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_config_the_types_marker_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"harness/conf/{name}" for name in configs} <= set(names)
    assert "harness/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "results")) or name.endswith(".pyc")]


def test_the_wheel_runs_in_an_environment_without_the_checkout(wheel, tmp_path):
    """Other packages are those of this environment, which `make` filled from the same declarations."""
    binaries = tmp_path / "venv" / "bin"
    venv.create(tmp_path / "venv", with_pip=False)
    install = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean["NUMBA_DISABLE_JIT"] = "1"  # nothing is compiled here yet, and the collection is small

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


def declared(wheel, extras):
    """Names of the packages that the wheel asks for, always or, with `extras`, for one of a user's extras."""
    whole = zipfile.ZipFile(wheel)
    (path,) = (name for name in whole.namelist() if name.endswith(".dist-info/METADATA"))
    asked = HeaderParser().parsestr(whole.read(path).decode()).get_all("Requires-Dist")
    kept = [line for line in asked if "extra ==" not in line or (extras and "'dev'" not in line)]
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in kept}


def _is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(path):
    """Top names that a file imports: each, and whether that is inside a function or for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = [own for own in ast.walk(tree) if isinstance(own, ast.FunctionDef) or _is_for_types(own)]
    inside = {id(node) for own in lazy for node in ast.walk(own)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], id(node) in inside


def test_what_is_imported_is_declared_and_what_an_extra_brings_is_imported_where_it_is_used(wheel):
    packages = packages_distributions()
    always, with_extras = declared(wheel, extras=False), declared(wheel, extras=True)
    lacking = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "harness").rglob("*.py")
        for name, lazily in imported(path)
        if name not in sys.stdlib_module_names and name != "harness"
        if not {re.sub(r"[-_.]+", "-", own).lower() for own in packages.get(name, [name])}
        & (with_extras if lazily else always)
    }
    assert not lacking
