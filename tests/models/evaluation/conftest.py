"""A project of a user's with several modules, for tests of what identifies user code."""

import sys

import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write a package and modules beside it into a folder on the import path, and return the folder."""
    package = tmp_path / "package_of_user"
    (package / "inner").mkdir(parents=True)
    files = {
        "package_of_user/__init__.py": "",
        "package_of_user/search.py": "import sibling_of_user\nfrom .inner import deep\nfrom . import lazy_user\n",
        "package_of_user/lazy_user.py": "def f():\n    from computed_user import value\n    return value\n",
        "package_of_user/inner/__init__.py": "from package_of_user.inner.deep import value\n",
        "package_of_user/inner/deep.py": "value = 1\n",
        "sibling_of_user.py": "import importlib\nmodule = importlib.import_module('named_' + 'user')\n",
        "computed_user.py": "import importlib\nimportlib.import_module('constant_user')\nvalue = 1\n",
        "constant_user.py": "",
        "named_user.py": "",
        "unrelated_user.py": "",
    }
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if "_user" in name]:
        sys.modules.pop(name)
