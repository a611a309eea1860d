"""Names of the commands. This module imports none of them, so that listing the names is fast."""

JOBS = ("run", "quickstart", "mteb", "finetuned", "train", "synthesize")
"""Commands that are Hydra jobs. Settings without a command mean `run`; no arguments mean `quickstart`."""
READS = (
    *("report", "compare", "recommend", "gate", "accept", "forget", "export", "import"),
    *("explain", "list", "cache", "validate", "env"),
)
"""Commands that read records and configs."""
COMMANDS = (*JOBS, *READS)
