"""Measures how well and how fast text retrievers work on test collections: `harness --help`."""

__version__ = "0.1.0"
