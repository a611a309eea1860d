"""Records on disk: an append-only results folder, with the files that belong to each record."""

from harness.files import inside, write_atomic
from harness.store.folder import Store, read_record

__all__ = ["Store", "inside", "read_record", "write_atomic"]
