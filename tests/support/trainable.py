"""A collection that a tiny model learns: documents are letters, queries the digits that stand for them."""

import itertools
import json
import random
import string
from pathlib import Path

DOCUMENTS, QUERIES = 120, 80
_PAIRS = dict(zip(string.ascii_lowercase[:10], string.digits, strict=True))


def write_ciphered(folder: Path) -> Path:
    """In BEIR's layout, with a training split of 80 queries and a test split of 40 others; gives the folder."""
    rng = random.Random(0)
    words = rng.sample(list(itertools.combinations(_PAIRS, 4)), DOCUMENTS)
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as queries:
        for number, letters in enumerate(words):
            corpus.write(json.dumps({"_id": f"d{number}", "title": "", "text": " ".join(letters)}) + "\n")
            asked = " ".join(_PAIRS[letter] for letter in letters)
            queries.write(json.dumps({"_id": f"q{number}", "text": asked}) + "\n")
    for split, numbers in (("train", range(QUERIES)), ("test", range(QUERIES, DOCUMENTS))):
        lines = "".join(f"q{number}\td{number}\t1\n" for number in numbers)
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder
