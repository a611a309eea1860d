"""Fine-tuning of retrievers, and training data made from a corpus."""
