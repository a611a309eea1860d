"""A retriever sharded over machines: `harness retriever=sharded dataset=scifact`. Needs the extra `ray`."""

from harness.distributed.sharded import Sharded

__all__ = ["Sharded"]
