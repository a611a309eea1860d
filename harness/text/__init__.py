"""Tokenizers: texts to terms."""
