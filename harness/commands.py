"""Names of the commands, so that listing them loads none of them."""

JOBS = ("run", "quickstart", "mteb", "finetuned", "train", "synthesize")
"""Commands that are Hydra jobs. Settings without a command mean `run`; no arguments mean `quickstart`."""
READS = (
    *("report", "compare", "recommend", "gate", "accept", "export", "import"),
    *("explain", "list", "cache", "validate", "env"),
)
COMMANDS = (*JOBS, *READS)
