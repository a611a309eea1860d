"""Batching, prefetch, storage and CPU kernels under the encoders."""
