"""Retrievers, one family per file: an encoder with a search, or a combination of other retrievers."""
