"""Upgrade of version 1 records, which had other field names, and keys of the form `component/name`."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

_ENCODER_FIELDS = {
    **{name: name for name in ("weights", "task", "device", "dtype", "max_length", "batch_tokens", "backend")},
    **{name: name for name in ("attention", "optimize_cpu", "linear_layers", "prompts", "remark")},
    **{name: name for name in ("provider", "model", "base_url", "dimensions", "price_per_million_tokens")},
    "batch_tokens_that_fit": "max_batch_tokens",
}
_RECALL = re.compile(r"recall@(\d+)_of_exact")
_LATENCY = "latency."


def upgrade(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the data of a version 1 record to version 2."""
    data = dict(record)
    data |= {"version": 2, "id": data.pop("cell", None)}
    data["files"] = _renamed(data.get("files", {}), ranked="rankings", asked="queries")
    data["dataset"] = _renamed(data.get("dataset", {}), about="metadata")
    metadata = dict(data["dataset"].get("metadata") or {})
    if metadata.get("source") == "mteb" and metadata.pop("ids", None):  # recorded how ids were spelled
        metadata["quotes_ids"] = True
    data["dataset"]["metadata"] = metadata
    parts = _parts(data.pop("facts", {}))
    data |= {key: dict(parts[key]) for key in ("encoders", "recall_of_exact", "metadata")}
    if isinstance(data.get("timing"), Mapping):
        data["timing"] = {**data["timing"], "latency_counters": dict(parts["latency_counters"])}
    return data


def upgrade_phase(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a phase's data to version 2; version 1 had all counters in one dict, keyed `component/name`."""
    counters: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for key, n in data["counts"].items():
        component, _, name = key.rpartition("/")
        counters[component][name] = n
    renamed = _renamed(data, earlier_s="cached_s", elsewhere="foreign_machine")
    return {**renamed, "counters": dict(counters)}


def _parts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Distribute the `facts` of version 1 over the fields of version 2."""
    parts: defaultdict[str, Any] = defaultdict(lambda: defaultdict(dict))
    for key, value in facts.items():
        component, _, name = key.rpartition("/")
        if name in _ENCODER_FIELDS:
            parts["encoders"][component][_ENCODER_FIELDS[name]] = value
        elif match := _RECALL.fullmatch(name):
            parts["recall_of_exact"][component] = {"k": int(match[1]), "recall": value}
        elif key.startswith(_LATENCY):
            component, _, name = key.removeprefix(_LATENCY).rpartition("/")
            parts["latency_counters"][component][name] = value
        else:
            parts["metadata"][key] = value
    return parts


def _renamed(data: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in data.items()}
