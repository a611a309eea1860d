"""Conversions to and from mteb, BEIR and ir_datasets: of datasets, models and results."""
