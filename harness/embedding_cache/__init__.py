"""Embedding cache: shards of embeddings on disk, keyed by a hash of everything that they depend on."""
