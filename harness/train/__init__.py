"""Fine-tune retrievers, and synthesize training data from a corpus."""
