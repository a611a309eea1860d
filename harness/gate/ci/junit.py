"""A verdict as JUnit XML: a suite for each retriever, a case for each dataset and check.

The time of a case is that of its evaluation; the time of a suite counts each of its evaluations once.
"""

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET  # writes only; nothing is parsed

from harness.gate import Finding, Verdict
from harness.gate.ci import text

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(verdict: Verdict) -> str:
    """Return XML 1.0: a failed check is a failure, an undecided one an error, or skipped if the gate is lenient."""
    suites: dict[str, list[Finding]] = {}
    for finding in verdict.findings:
        suites.setdefault(finding.retriever, []).append(finding)
    root = ET.Element("testsuites", {"name": "harness gate", **_counts(verdict.findings, verdict)})
    for retriever, findings in sorted(suites.items()):
        attributes = {"name": _to_legal_xml(retriever), **_counts(findings, verdict), **_times(findings)}
        suite = ET.SubElement(root, "testsuite", attributes)
        properties = ET.SubElement(suite, "properties")
        ET.SubElement(properties, "property", name="adjusted_over_tests", value=str(verdict.tests))
        for finding in findings:
            _case(suite, finding, verdict)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(findings: Sequence[Finding], verdict: Verdict) -> dict[str, str]:
    kinds = [_kind(finding, verdict) for finding in findings]
    count = {"tests": len(findings), "failures": kinds.count("failure"), "errors": kinds.count("error")}
    return {key: str(n) for key, n in (count | {"skipped": kinds.count("skipped")}).items()}


def _times(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the seconds of the findings' evaluations and the time at which the first one was measured.

    A part of a dataset is not counted beside the whole dataset.
    """
    origins = {(each.retriever, each.dataset): each.measured for each in findings if each.measured}
    measured = {
        key: measurement for key, measurement in origins.items() if (key[0], measurement.part_of) not in origins
    }
    seconds = {"time": f"{sum(each.seconds or 0.0 for each in measured.values()):.3f}"}
    first = min((each.started for each in measured.values()), default=None)
    return seconds if first is None else {**seconds, "timestamp": first}


def _kind(finding: Finding, verdict: Verdict) -> str | None:
    if finding.status == "fail":
        return "failure"
    if finding.status == "undecided":
        return "skipped" if verdict.lenient else "error"
    return "skipped" if finding.status == "new" else None


def _case(suite: ET.Element, finding: Finding, verdict: Verdict) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_to_legal_xml(finding.retriever),
        name=_to_legal_xml(f"{finding.dataset} {finding.check}"),
        time=f"{finding.measured.seconds or 0.0:.3f}" if finding.measured else "0",
    )
    if (kind := _kind(finding, verdict)) is not None:
        element = ET.SubElement(case, kind, message=_to_legal_xml(text.details(finding).removeprefix("- ")))
        if kind != "skipped":
            element.set("type", finding.status)
            advice = f"\nmeasure it again: {finding.command}" if finding.command else ""
            element.text = _to_legal_xml(f"{text.line(finding)}{advice}")
    else:
        ET.SubElement(case, "system-out").text = _to_legal_xml(text.line(finding))


def _to_legal_xml(value: str) -> str:
    """Replace the characters that XML 1.0 does not allow."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", value)
