"""Evaluate one retriever on one dataset: identity, timing and the stored record."""
