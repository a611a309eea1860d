"""Text to vectors: words for BM25, dense embeddings."""
