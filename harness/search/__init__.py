"""Top-k search over arrays: exact, quantised and approximate dense search, inverted index, MaxSim."""
