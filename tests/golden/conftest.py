"""The option `--regenerate`, which rewrites the golden files."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the golden files where a version was raised")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--regenerate", default=False) and config.getoption("numprocesses", default=None):
        raise pytest.UsageError("--regenerate writes files that all tests share: leave out -n/--numprocesses")


@pytest.fixture(scope="session")
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Return True if golden values are written instead of compared."""
    return bool(request.config.getoption("--regenerate", default=False))
