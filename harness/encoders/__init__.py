"""Encoders: texts to dense, sparse and token embeddings; cross-encoders that score pairs."""
