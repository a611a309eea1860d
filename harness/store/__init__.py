"""Records on disk: a results folder that is only ever added to, and what is kept beside a record."""

from harness.files import inside, write_atomic
from harness.store.folder import Store, read_record
from harness.store.tables import asked, ranked

__all__ = ["Store", "asked", "inside", "ranked", "read_record", "write_atomic"]
