"""Messages for Hydra's errors and for unknown keys and options."""

import difflib
import re
from collections.abc import Sequence

from hydra.errors import MissingConfigException

from harness.commands import COMMANDS
from harness.config.conf import options_of

_LAUNCHERS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray-launcher"}
"""Launchers in other packages, and the extras that install them."""
RENAMED_KEYS = {
    "carries": "provides",
    "checked": "recall_sample",
    "enough_s": "max_search_s",
    "least_s": "min_search_s",
    "links": "M",
    "lists": "nlist",
    "probes": "nprobe",
    "stored": "storage_dtype",
}
"""Keys of older configs and the names that they have now."""
MOVED_TARGETS = {
    "harness.encoders.words.Words": "harness.text.tokenizer.Tokenizer",
    "harness.retrievers.rerank.Cross": "harness.retrievers.rerank.CrossEncoderScorer",
    "harness.encoders.api.OpenAIEncoder": "harness.providers.api.OpenAIEncoder",
    "harness.encoders.api.CohereEncoder": "harness.providers.api.CohereEncoder",
    "harness.interop.mteb.Retriever": "harness.interop.mteb.MtebRetriever",
    "harness.interop.beir.Retriever": "harness.interop.beir.BeirRetriever",
}
"""Targets in older configs, and their present names."""


def unknown_key(where: str, key: str, known: Sequence[str]) -> str:
    """Return the message for an unknown key.

    Args:
        where: Dotted key of the config that has the unknown key; "" for the top level.
        key: The unknown key.
        known: The valid keys.
    """
    if (new := RENAMED_KEYS.get(key)) in known:
        return f"{where or 'the config'} has no key {key!r}; it was renamed; write: {new}"
    matches = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {f'{where}.' if where else ''}{matches[0]}?" if matches else ""
    return f"{where or 'the config'} has no key {key!r}; choices: {', '.join(known)}{hint}; see: harness --cfg job"


def explain(error: BaseException) -> str:
    """Return an error's message without frames, file names and OmegaConf's details."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        if group == "hydra":  # its groups have two parts
            (kind, _, name), group = name.partition("/"), error.missing_cfg_file.rpartition("/")[0]
            if kind == "launcher" and name in _LAUNCHERS:
                extra = _LAUNCHERS[name]
                return f"the launcher {name!r} needs a package: pip install 'retrieval-harness[{extra}]'"
        return _unknown_option(group, name, error.options or [])
    if match := re.search(r"You must specify '([^']+)'", str(error)):
        group = match[1].partition("@")[0]
        return f"{group!r} is not set; add {match[1]}=NAME; {_choices(group)}"
    if match := re.search(r"Ambiguous value for argument '(([^=]+)=(.*))'", str(error)):
        override, key, values = match.groups()
        return f"{override!r} gives several values: one after another with harness -m, a list as {key}=[{values}]"
    message = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error))
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    message_lines = [
        line for line in lines if not line.lstrip().startswith(("full_key:", "object_type=", "reference_type="))
    ]
    cause = error.__cause__
    message = "\n".join(message_lines) or type(error).__name__
    return f"{message}\n{explain(cause)}" if cause is not None and str(cause) and str(cause) not in message else message


def _unknown_option(group: str, name: str, options: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, [*options, *(known for known, _ in options_of(group))], n=1)
    return f"no {group} {name!r}; {_choices(group, options)}" + (f"; did you mean {matches[0]}?" if matches else "")


def _choices(group: str, options: Sequence[str] = ()) -> str:
    names = sorted({*options, *(name for name, _ in options_of(group))})
    command = f"; see: harness list {group}s" if group in ("retriever", "dataset", "experiment") else ""
    return f"choices: {', '.join(names)}{command}"


def invalid_override(word: str) -> str:
    """Return the message for a word of a command line that Hydra cannot read."""
    key, _, value = word.partition("=")
    if key == "metrics" and "(" in value:
        return f"{word!r} cannot be read: quote each name with parentheses, \"metrics=['map@100(rel=2)']\""
    if value:
        return f"{word!r} cannot be read: quote its value, \"{key}='...'\", or see: harness --help"
    matches = difflib.get_close_matches(word.split()[0] if word.split() else "", COMMANDS, n=1)
    hint = f"did you mean the command {matches[0]!r}?" if matches else "write KEY=VALUE, such as retriever=bm25"
    return f"{word!r} is not a command or a setting; {hint}; see: harness --help"
