"""Arrays to top-k: exact dense, quantised and approximate search, sparse postings, MaxSim. No models, no text."""
