"""Vectors to top-k: exact dense search and impact-scored postings. Arrays only: no models, no text, no disks."""
