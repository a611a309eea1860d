"""Loaders of datasets, one file per source; each `load` returns a Dataset."""
