"""How does a run look to a CI system? A JUnit file: a suite for each phase, a case for each check, one for the outcome.

CI systems know passed, failed, error and skipped, and take skipped for green. So a check that is inconclusive is an
error, and so is a required one that was skipped, because its phase is undecided then. A dry-run check never counts:
whatever it found, it is skipped there. Times are plant seconds, and no wall-clock time is written, so that equal runs
give equal files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from controller.record import RunRecord
from state.outcome import Outcome
from state.verdict import CheckResult, CheckStatus, PhaseResult

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def junit_xml(record: RunRecord) -> bytes:
    """The file's bytes, UTF-8.

    Raises:
        ValueError: the run has not ended.
    """
    if record.outcome is None:
        raise ValueError("a run without an outcome has no report")
    suites = [_suite(f"iace.{result.phase}", map(_case, _named(result)), _length(result)) for result in record.phases]
    suites.append(_suite("iace.run", [_outcome(record.outcome)], 0.0))
    root = ET.Element("testsuites", name="iace")
    for attribute in ("tests", "failures", "errors", "skipped"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode").encode() + b"\n"


def _named(result: PhaseResult) -> Sequence[tuple[str, CheckResult]]:
    return [(f"iace.{result.phase}", check) for check in result.checks]


def _length(result: PhaseResult) -> float:
    return max(0.0, result.ended_s - result.started_s)


def _suite(name: str, cases: Iterable[ET.Element], time_s: float) -> ET.Element:
    suite = ET.Element("testsuite", name=name)
    suite.extend(cases)
    suite.set("tests", str(len(suite)))
    for tag, attribute in _COUNTED.items():
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", f"{time_s:.3f}")
    return suite


def _case(named: tuple[str, CheckResult]) -> ET.Element:
    suite, check = named
    case = ET.Element("testcase", classname=suite, name=_clean(check.name), time=f"{check.duration_s:.3f}")
    tag = _tag(check)
    if tag is not None:
        prefix = "dry run, would be " if check.dry_run else ""
        child = ET.SubElement(case, tag, message=_clean(f"{prefix}{check.status}: {check.message}"))
        if tag != "skipped":
            child.set("type", check.status.value)
        child.text = _clean(_detail(check))
    return case


def _tag(check: CheckResult) -> str | None:
    if check.status is CheckStatus.PASSED:
        return None
    if check.dry_run or (check.status is CheckStatus.SKIPPED and not check.required):
        return "skipped"
    return "failure" if check.status is CheckStatus.FAILED else "error"


def _detail(check: CheckResult) -> str:
    lines = [check.message]
    if check.observed is not None:
        lines.append(f"observed: {check.observed} {check.unit}".rstrip())
    if check.threshold is not None:
        lines.append(f"threshold: {check.threshold} {check.unit}".rstrip())
    lines += [f"{name}: {value}" for name, value in check.evidence.items()]
    return "\n".join(lines)


def _outcome(outcome: Outcome) -> ET.Element:
    case = ET.Element("testcase", classname="iace.run", name="outcome", time="0.000")
    if not outcome.coherent:
        message = f"exit code {int(outcome.code)} {outcome.code.name}"
        failure = ET.SubElement(case, "failure", message=message, type=outcome.code.name)
        failure.text = _clean("\n".join(outcome.causes))
    return case


def _clean(text: str) -> str:
    """`text` without the characters that XML cannot carry; a plant's own words may hold any."""
    return _NOT_XML.sub("\ufffd", text)
