"""Names of the commands, known without loading any of them."""

JOBS = ("run", "quickstart", "mteb", "finetuned", "train", "synthesize")
"""The commands that are Hydra jobs; settings without a command are `run`, nothing at all is `quickstart`."""
READS = (
    *("report", "compare", "recommend", "gate", "accept", "export", "import"),
    *("explain", "list", "cache", "validate", "env"),
)
COMMANDS = (*JOBS, *READS)
