"""report.json, junit.xml and report.md of a run."""

import dataclasses
import errno
import json
import math
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from controller import files, report
from controller.cli import _parser
from controller.config import load
from controller.files import jsonable, write_atomically
from controller.junit import junit_xml
from controller.next_steps import NEXT_STEPS, next_step
from controller.proposals import Situation, propose
from controller.summary import ROWS_MAX, sparkline
from metrics.errors import NotPermittedError, StoreFailedError
from state.outcome import PRECEDENCE, ExitCode, Outcome
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult

TIP = (31, "ab" * 32)
SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "report.schema.json").read_text(encoding="utf-8"))


def document(record):
    proposals = propose(record, Situation(600.0, TIP, load(None, {}, {}), "iace run"))
    return report.document(record, journal_tip=TIP, proposals=proposals)


@pytest.fixture
def undrawn(monkeypatch):
    """The picture takes a second to draw and is tested elsewhere."""
    monkeypatch.setattr(report, "kpis_png", lambda _record: b"picture")


def cases(record):
    """Name of each JUnit case to the tag of its child, None where it passed."""
    root = ET.fromstring(junit_xml(record))  # noqa: S314 - our own bytes
    return {case.get("name"): (case[0].tag if len(case) else None) for case in root.iter("testcase")}


@pytest.mark.parametrize("name", ["healthy_run", "eventful_run"])
def test_the_report_follows_its_schema(name, request):
    """Both a quiet and an eventful run give a document that the published schema accepts."""
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(document(request.getfixturevalue(name)))


def test_the_schema_knows_every_exit_code():
    """Each code that a run can end with is in the schema and has a word on what to do next."""
    codes = {ExitCode.COHERENT_LOCK, *PRECEDENCE}
    assert set(SCHEMA["properties"]["exit_code"]["enum"]) == {int(code) for code in codes}
    assert set(SCHEMA["properties"]["exit_name"]["enum"]) == {code.name for code in codes}
    assert set(NEXT_STEPS) == codes


def test_the_report_tells_who_was_isolated_and_what_became_of_it(eventful_run):
    """Isolations, blocked wells, refusals, trials and what is still out are told with their values."""
    told = document(eventful_run)
    probe, first, second = told["isolations"]
    assert (probe["node"], probe["probe"], probe["restored_at_s"]) == ("n03", "dissonance", 181.0)
    assert (first["node"], first["verified"], first["verified_at_s"], first["restored_at_s"]) == ("n07", True, 331, 411)
    assert (second["offence"], second["restored_at_s"], second["until_s"]) == (2, None, 1430.0)
    assert first["components"] == {"h": 0.5, "q": 3.2, "k": 0.0}
    assert told["blocked"] == [
        {"subject": "n08", "gravity": 1.9, "guard": "budget_cluster", "observed": 3 / 7, "limit": 1 / 3, "at_s": 331.0}
    ]
    assert [(item["guard"], item["count"]) for item in told["refusals"]] == [("budget_cluster", 2), ("rate_limit", 1)]
    assert [trial["outcome"] for trial in told["healing"]] == ["kept", "rolled_back"]
    assert (told["healing"][0]["from"]["lambda2"], told["healing"][0]["to"]["lambda2"]) == (0.35, 0.4375)
    assert told["still_isolated"] == [{"node": "n07", "until_s": 1430.0}]
    assert told["journal_tip"] == {"seq": 31, "hash": "ab" * 32}
    assert told["events"]["count"] == len(eventful_run.events)


def test_anomalies_are_told_once_a_kind_with_their_worst_moment(eventful_run):
    """Repeated anomalies are counted, and score and reason are those of the worst."""
    coherence, gravity = document(eventful_run)["anomalies"]
    assert (coherence["count"], coherence["score"], coherence["first_s"], coherence["last_s"]) == (
        2,
        6.25,
        318.0,
        320.0,
    )
    assert coherence["reason"] == "6.25 deviations below its median"
    assert (gravity["node"], gravity["severity"], gravity["count"]) == ("n07", "critical", 1)


def test_kpis_are_told_with_range_and_limit(eventful_run):
    """First and last known value, range, and how many ticks were outside the limit."""
    coherence = document(eventful_run)["kpis"]["coherence"]
    values = [value for value in eventful_run.history.values["coherence"] if not math.isnan(value)]
    assert (coherence["first"], coherence["last"]) == (values[0], values[-1])
    assert (coherence["min"], coherence["max"]) == (min(values), max(values))
    assert coherence["limit"] == {"side": "at_least", "healthy": 0.9, "critical": 0.85}
    assert coherence["ticks_outside"] == sum(value < 0.9 for value in values) > 0
    assert coherence["status"] == "healthy"
    unseen = document(eventful_run)["kpis"]["supply"]
    assert (unseen["first"], unseen["last"], unseen["limit"], unseen["status"]) == (None, None, None, None)


def test_a_value_that_is_not_known_is_null_and_never_nan(healthy_run):
    """NaN in a KPI, a check or its evidence becomes null; NumPy values become plain ones."""
    healthy_run.history.values["coherence"][-1] = math.nan
    check = CheckResult(
        "odd", CheckStatus.PASSED, "m", math.nan, math.inf, evidence={"a": np.float64(2.5), "b": {3}, "c": (math.nan,)}
    )
    healthy_run.phases.append(PhaseResult(Phase.PHASE_IV, (check,)))
    told = document(healthy_run)
    assert told["kpis"]["coherence"]["last"] is None
    assert told["kpis"]["coherence"]["status"] == "unknown"
    (odd,) = told["phases"][-1]["checks"]
    assert (odd["observed"], odd["threshold"], odd["evidence"]) == (None, None, {"a": 2.5, "b": ["3"], "c": [None]})
    json.dumps(told, allow_nan=False)


def test_equal_runs_differ_in_run_id_and_wall_alone(eventful_run, tmp_path):
    """Another id and other wall-clock times leave every other byte of the four files as it was."""
    other = dataclasses.replace(eventful_run, run_id="b", wall_started="2031-01-01T00:00:00Z", wall_s=99.0)
    one, two = tmp_path / "one", tmp_path / "two"
    for record, directory in ((eventful_run, one), (other, two)):
        report.write(record, directory, journal_tip=TIP, proposals=())
    left, right = (json.loads((directory / "report.json").read_text(encoding="utf-8")) for directory in (one, two))
    assert {key for key in left if left[key] != right[key]} == {"run_id", "wall"}
    for name in ("junit.xml", "kpis.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    pages = [(directory / "report.md").read_text(encoding="utf-8").splitlines() for directory in (one, two)]
    assert [line for line, other_line in zip(*pages, strict=True) if line != other_line] == [pages[0][-1]]


@pytest.mark.usefixtures("undrawn")
def test_writing_replaces_an_older_report_and_leaves_nothing_else(healthy_run, tmp_path):
    """The four files are there, whole, and no temporary file is left."""
    (tmp_path / "report.json").write_text("old", encoding="utf-8")
    paths = report.write(healthy_run, tmp_path, journal_tip=TIP, proposals=())
    assert [path.name for path in paths] == ["report.json", "junit.xml", "report.md", "kpis.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junit.xml", "kpis.png", "report.json", "report.md"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["exit_code"] == 0


@pytest.mark.usefixtures("undrawn")
def test_a_report_that_cannot_be_written_says_what_to_do(healthy_run, tmp_path, monkeypatch):
    """A file in the way is a failed store, a read-only file system is a missing permission."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreFailedError, match="choose another directory with --report"):
        report.write(healthy_run, tmp_path / "file", journal_tip=TIP, proposals=())

    def read_only(_path, _content):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(report, "write_atomically", read_only)
    with pytest.raises(NotPermittedError, match="Read-only file system"):
        report.write(healthy_run, tmp_path / "x", journal_tip=TIP, proposals=())


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    """When the disk fills up in the middle, the old content stands and the temporary file is gone."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_run_without_an_outcome_has_no_report(healthy_run):
    """A run that has not ended is refused instead of reported as something."""
    healthy_run.outcome = None
    for make in (document, junit_xml):
        with pytest.raises(ValueError, match="no report"):
            make(healthy_run)


def test_junit_shows_no_check_greener_than_it_is(healthy_run):
    """Failed is a failure; inconclusive, error and a required skipped check are errors; dry runs only skip."""
    checks = [
        CheckResult("ok", CheckStatus.PASSED, "fine"),
        CheckResult("bad", CheckStatus.FAILED, "wrong", 3, 2, "token"),
        CheckResult("unclear", CheckStatus.INCONCLUSIVE, "too little"),
        CheckResult("broken", CheckStatus.ERROR, "no answer"),
        CheckResult("left", CheckStatus.SKIPPED, "not offered", required=False),
        CheckResult("needed", CheckStatus.SKIPPED, "not offered"),
        CheckResult("dry", CheckStatus.FAILED, "wrong", dry_run=True),
    ]
    healthy_run.phases = [PhaseResult(Phase.PHASE_II, tuple(checks), 100.0, 140.0)]
    assert cases(healthy_run) == {
        "ok": None,
        "bad": "failure",
        "unclear": "error",
        "broken": "error",
        "left": "skipped",
        "needed": "error",
        "dry": "skipped",
        "outcome": None,
    }
    root = ET.fromstring(junit_xml(healthy_run))  # noqa: S314 - our own bytes
    phase, run = root
    assert phase.attrib == {
        "name": "iace.PHASE_II",
        "tests": "7",
        "failures": "1",
        "errors": "3",
        "skipped": "2",
        "time": "40.000",
    }
    assert run.get("name") == "iace.run"
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("8", "1", "3")
    failure = phase.find("testcase/failure")
    assert failure.get("message") == "failed: wrong"
    assert failure.text == "wrong\nobserved: 3 token\nthreshold: 2 token"


def test_junit_fails_with_the_run(healthy_run):
    """A run whose checks all passed and that still ended badly is red, with its causes."""
    healthy_run.outcome = Outcome(ExitCode.ISOLATION_BLOCKED, ("gravity wells left in place: n1 (quorum)",))
    root = ET.fromstring(junit_xml(healthy_run))  # noqa: S314 - our own bytes
    failure = root.find("testsuite[@name='iace.run']/testcase/failure")
    assert failure.get("message") == "exit code 51 ISOLATION_BLOCKED"
    assert failure.text == "gravity wells left in place: n1 (quorum)"


def test_junit_carries_whatever_words_a_plant_uses(healthy_run):
    """Control characters, lone surrogates and markup in a message still give well-formed XML."""
    message = "\x00\x1b[2J \ud800 <&> ]]> ✔"
    healthy_run.phases = [PhaseResult(Phase.PHASE_I, (CheckResult("a", CheckStatus.FAILED, message),))]
    root = ET.fromstring(junit_xml(healthy_run))  # noqa: S314 - our own bytes
    assert root.find(".//failure").text == "\ufffd\ufffd[2J \ufffd <&> ]]> ✔"


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_verdict_causes_and_what_to_do(eventful_run, tmp_path):
    """report.md leads with the verdict and ends with what to do and how to verify."""
    eventful_run.outcome = Outcome(ExitCode.ISOLATION_BLOCKED, ("first cause", "second | cause"))
    report.write(eventful_run, tmp_path, journal_tip=TIP, proposals=())
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.startswith(
        "# ISOLATION_BLOCKED (exit code 51)\n\n**500_CRITICAL_DISSONANCE**: first cause\n- second | cause"
    )
    assert "| n07 | c1 | 3.25 | \\|g\\| 3.25 above 1.5 for 3 ticks | 330 | 331 | 411 |" in page
    assert "made ill by probe dissonance" in page
    assert "| n08 | 1.90 | budget_cluster | 0.4286 | 0.3333 | 331 |" in page
    assert "Still isolated: n07 (until 1430 s)" in page
    assert "rolled back: no improvement" in page
    assert NEXT_STEPS[ExitCode.ISOLATION_BLOCKED] in page
    assert f"It must end at event 31 with hash `{'ab' * 32}`" in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("run", "data_dir", "options"),
    [
        (3, Path(".iace"), "--run 3"),
        (3, Path("my data"), "--run 3 --data-dir 'my data'"),
        ("govern", Path(".iace"), "--run govern"),
    ],
)
def test_the_last_line_has_commands_that_find_the_journal(healthy_run, tmp_path, run, data_dir, options):
    """Whichever run is the latest meanwhile; they are the line in which equal runs differ."""
    report.write(healthy_run, tmp_path, journal_tip=TIP, proposals=(), run=run, data_dir=data_dir)
    *page, last = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    commands = re.findall(r"`(iace [^`]*)`", last)
    assert commands == [
        f"iace journal verify {options}",
        f"iace journal export {options}",
        f"iace proposals verify FILE {options}",
    ]
    for command in commands:
        asked = _parser().parse_args(shlex.split(command)[1:])
        assert (asked.run, asked.data_dir) == (run, data_dir)
    assert not [line for line in page if options in line]


@pytest.mark.usefixtures("undrawn")
def test_a_daemons_page_speaks_of_a_daemon(healthy_run, tmp_path):
    """Its journal goes on after the report, and it has no window to be lengthened and need not be run again."""
    healthy_run.outcome = Outcome(ExitCode.CRITICAL_DISSONANCE, ("gas is outside its limits",))
    report.write(healthy_run, tmp_path, journal_tip=TIP, proposals=(), run="govern")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"It must hold event 31 with hash `{'ab' * 32}`" in page
    assert "--ticks" not in page
    assert "--ticks" in next_step(ExitCode.CRITICAL_DISSONANCE, daemon=False)
    for code in (0, 10, 20, 30, 50, 51, 60, 61):
        assert not re.search(r"--ticks|run\s+again", next_step(ExitCode(code), daemon=True))


@pytest.mark.usefixtures("undrawn")
def test_the_page_stays_a_page(eventful_run, tmp_path):
    """A long list is cut, with a word on how much was left out."""
    (refusal,) = [item for _, item in eventful_run.refusals if item.guard == "rate_limit"]
    eventful_run.refuse(dataclasses.replace(refusal, subject=f"m{number}") for number in range(100))
    report.write(eventful_run, tmp_path, journal_tip=TIP, proposals=())
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"and {102 - ROWS_MAX} more, all in report.json" in page
    assert len(re.findall(r"^\| isolate \|", page, re.MULTILINE)) == ROWS_MAX


@pytest.mark.usefixtures("undrawn")
def test_the_page_stays_a_page_with_hundreds_of_nodes_out(healthy_run, tmp_path):
    """Nodes, causes and checks that failed are each cut with a count, and a long sentence with its length."""
    names = [f"rack-{number:03d}" for number in range(300)]
    failed = tuple(CheckResult(f"field.{name}", CheckStatus.FAILED, f"{name} is gone") for name in names)
    out = dataclasses.replace(
        healthy_run,
        phases=[PhaseResult(Phase.PHASE_II, failed, 0.0, 9.0)],
        still_isolated=tuple((name, 900.0) for name in names),
        outcome=Outcome(ExitCode.ISOLATION_BLOCKED, ("left in place: " + ", ".join(names), *names)),
    )
    report.write(out, tmp_path, journal_tip=TIP, proposals=())
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("Still isolated: ")]
    assert line.startswith("Still isolated: rack-000 (until 900 s), rack-001 (until 900 s), ")
    assert line.endswith("rack-009 (until 900 s) and 290 more, all in report.json")
    assert " rack-047, rack-… and 2513 more characters, all in report.json" in page
    assert page.count("\n- rack-") == page.count("\n- `field.rack-") == ROWS_MAX
    assert page.count("\n\nand 290 more, all in report.json\n") == 2
    assert max(map(len, page.splitlines())) < 600
    assert len(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["still_isolated"]) == 300


def test_a_run_that_saw_nothing_is_reported_all_the_same(healthy_run, tmp_path):
    """Without a tick, a phase or an event the report is whole and says so."""
    empty = dataclasses.replace(
        healthy_run,
        phases=[],
        history=type(healthy_run.history)(),
        events=[],
        nodes=0,
        clusters=0,
        outcome=Outcome(ExitCode.PLANT_UNAVAILABLE, ("the plant does not answer",)),
    )
    report.write(empty, tmp_path, journal_tip=(0, ""), proposals=())
    Draft202012Validator(SCHEMA).validate(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "without nodes" in page
    assert "Nobody was isolated." in page


def test_a_sparkline_shows_the_course():
    """Low is low, high is high, unknown is blank, and a flat course sits in the middle."""
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([math.nan, 0.0, 0.5, 1.0], 4) == " ▁▅█"
    assert sparkline([2.0, 2.0, 2.0]) == "▅▅▅"
    assert sparkline([math.nan]) == ""
    assert len(sparkline([float(tick) for tick in range(1000)], 24)) == 24


def test_values_become_plain_json():
    """Arrays, sets and what JSON does not know become lists and text."""
    assert jsonable({"a": np.array([1.0, np.nan]), 2: {"y", "x"}, "p": Path("/x")}) == {
        "a": [1.0, None],
        "2": ["x", "y"],
        "p": "/x",
    }
