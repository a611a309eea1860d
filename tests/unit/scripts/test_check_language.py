"""Tests that the language check reports each planted fault, and nothing in code without faults."""

import subprocess
import sys

import pytest
from check_language import check
from support import ROOT

SCRIPT = ROOT / "scripts" / "check_language.py"

GOOD = '''
"""Score documents."""

LIMIT = 3
"""The largest number of hits."""


class Scorer:
    """A scorer of documents."""

    def score(self, queries, documents):
        """Return the scores.

        Args:
            queries: The texts.
            documents: The texts that are scored.
        """
        owned = found_at = queries.own(documents)
        return [owned, found_at]

    def rank(self, queries, k=10):
        """Return the `k` best documents of each of the `queries`."""


def load(path):
    """Load a scorer."""


def _helper(a, b):
    """Add two numbers."""
'''


@pytest.fixture
def findings(tmp_path):
    """Write sources to a package, as many as there are arguments, and return its findings as (rule, word, line)."""

    def write(*sources, folder="harness"):
        for number, source in enumerate(sources):
            path = tmp_path / folder / f"module{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return [(finding.rule, finding.word, finding.line) for finding in check([tmp_path], tmp_path)]

    return write


def test_code_without_faults_has_no_findings(findings):
    assert findings(GOOD) == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("found = 1", "found"),
        ("own: int = 1", "own"),
        ("def f(said): ...", "said"),
        ("def f(*, told=1): ...", "told"),
        ("def f(*others): ...", "others"),
        ("def asked(): ...", "asked"),
        ("def _made(): ...", "made"),
        ("class C:\n    held = 1", "held"),
        ("def _f(x):\n    x.mine = 1", "mine"),
        ("rows = [1 for one in ()]", "one"),
        ("for _, his in (): ...", "his"),
        ("import json as kept", "kept"),
        ("with open('f') as what: ...", "what"),
        ("try: ...\nexcept OSError as some: ...", "some"),
        ("if (of := 1): ...", "of"),
        ("match 1:\n    case theirs: ...", "theirs"),
    ],
)
def test_a_banned_identifier_is_reported_wherever_it_is_bound(findings, source, word):
    assert [(rule, name) for rule, name, _ in findings(source)] == [("identifier", word)]


@pytest.mark.parametrize("opening", ["What", "Whether", "How"])
@pytest.mark.parametrize(
    "place",
    ['"""{}."""', 'def f():\n    """{}."""', 'class C:\n    """{}."""', 'class C:\n    x: int = 1\n    """{}."""'],
)
def test_a_docstring_that_begins_with_a_question_word_is_reported(findings, opening, place):
    assert [finding[:2] for finding in findings(place.format(f"{opening} an evaluation costs"))] == [
        ("opening", opening)
    ]


def test_a_longer_word_is_not_a_question_word(findings):
    assert findings('"""However it is called."""') == []


@pytest.mark.parametrize(
    "source",
    [
        'def f(a, b):\n    """Add."""',
        'def f(a, *, b):\n    """Add `a`."""',
        'class C:\n    def f(self, a, b):\n        """Add."""',
        'class C:\n    @classmethod\n    def f(cls, a, **b):\n        """Add a and b."""',
        "def f(a, b): ...",
    ],
)
def test_a_public_function_with_undocumented_arguments_is_reported(findings, source):
    assert [finding[:2] for finding in findings(source)] == [("arguments", "f")]


@pytest.mark.parametrize("folder", ["harness/cli", "tests"])
def test_undocumented_arguments_are_reported_in_the_library_only(findings, folder):
    assert findings('def f(a, b):\n    """Add."""', folder=folder) == []


def test_a_method_may_be_documented_by_its_protocol(findings):
    protocol = 'class P(Protocol):\n    def f(self, a, b):\n        """Add `a` and `b`."""'
    assert findings(protocol, 'class C:\n    def f(self, a, b):\n        """Add."""') == []
    assert findings(protocol, 'class C:\n    def f(self, a, c):\n        """Add."""') == [("arguments", "f", 2)]


def test_a_class_name_defined_twice_is_reported(findings):
    assert findings("class C: ...", "\nclass C: ...") == [("class", "C", 2)]


def test_the_command_prints_file_line_and_message_and_the_counts(tmp_path):
    (tmp_path / "planted.py").write_text('def _f():\n    """What it costs."""\n    found = 1\n', encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True)
    opening, identifier, counts, words = process.stdout.splitlines()
    assert process.returncode == 1
    assert opening.startswith(f"{tmp_path}/planted.py:2: ")
    assert identifier.startswith(f"{tmp_path}/planted.py:3: ")
    assert "'found'" in identifier
    assert counts == "identifier: 1, opening: 1, arguments: 0, class: 0"
    assert words == "identifiers: found 1"
    (tmp_path / "planted.py").write_text(GOOD, encoding="utf-8")
    assert subprocess.run(command, capture_output=True).returncode == 0
