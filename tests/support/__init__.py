"""Factories and servers that the tests share. `pythonpath` in pyproject.toml makes it importable as `support`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository's top folder."""
