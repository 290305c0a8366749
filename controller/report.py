"""What is left of a run for machines and people: report.json, junit.xml, report.md and kpis.png.

`report.json` follows docs/report.schema.json. Two runs with the same command line and configuration differ there in
"run_id" and "wall" alone, in report.md in its last line, and in junit.xml and kpis.png not at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from controller.anomalies import grouped
from controller.files import json_bytes, jsonable, unwritable, write_atomically
from controller.junit import junit_xml
from controller.places import DATA_DIR
from controller.plots import kpis_png
from controller.proposal_text import expected
from controller.record import RunRecord
from controller.rundir import DAEMON, PROPOSALS, options
from controller.summary import markdown
from controller.timeline import Isolation, TrialStory, timeline
from metrics.kpi import Kpi, KpiStatus
from state.verdict import CheckResult, PhaseResult

SCHEMA_VERSION = 1


def write(
    record: RunRecord,
    directory: Path,
    *,
    journal_tip: tuple[int, str],
    proposals: Sequence[Mapping[str, object]],
    proposals_dir: Path | None = None,
    run: int | str | None = None,
    data_dir: Path = DATA_DIR,
) -> list[Path]:
    """Write the four files, each atomically, and return their paths.

    Args:
        record: a run that has ended.
        directory: made if missing; an older report in it is replaced.
        journal_tip: sequence and hash of the journal's last event.
        proposals: the improvement proposals of the run.
        proposals_dir: where they are whole; None for the folder "proposals" beside the report.
        run: number of the run, or "govern" for the daemon; None for the latest.
        data_dir: where its journal is.

    Raises:
        NotPermittedError: the operating system forbids it.
        StoreFailedError: the disk is full or failed.
    """
    report = document(record, journal_tip=journal_tip, proposals=proposals)
    where = str(proposals_dir or PROPOSALS)
    page = markdown(record, report, where, journal=options(data_dir, run), daemon=run == DAEMON)
    try:
        return [
            write_atomically(directory / "report.json", json_bytes(report)),
            write_atomically(directory / "junit.xml", junit_xml(record)),
            write_atomically(directory / "report.md", page.encode()),
            write_atomically(directory / "kpis.png", kpis_png(record)),
        ]
    except OSError as error:
        raise unwritable("the report cannot be written to", directory, error) from error


def document(
    record: RunRecord, *, journal_tip: tuple[int, str], proposals: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """The report as plain JSON values, as `iace run --format json` prints it.

    Raises:
        ValueError: the run has not ended.
    """
    outcome = record.outcome
    if outcome is None:
        raise ValueError("a run without an outcome has no report")
    stories = timeline(item.event for item in record.events)
    report = {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "wall": {"started": record.wall_started, "duration_s": record.wall_s},
        "status_code": outcome.status_code,
        "exit_code": int(outcome.code),
        "exit_name": outcome.code.name,
        "causes": outcome.causes,
        "run": {**record.where(), "ticks": record.ticks, "dry_run": record.dry_run},
        "phases": [_phase(result) for result in record.phases],
        "kpis": {name: kpi_summary(kpi, record.history.values.get(name, ())) for name, kpi in record.catalogue.items()},
        "anomalies": grouped(record.anomalies),
        "isolations": [_isolation(story) for story in stories.isolations],
        "blocked": [asdict(story) for story in stories.blocked],
        "refusals": _refusals(record),
        "healing": [_trial(story) for story in stories.trials],
        "proposals": [_proposal(proposal) for proposal in proposals],
        "still_isolated": [{"node": node, "until_s": until_s} for node, until_s in record.still_isolated],
        "events": {
            "count": len(record.events),
            "by_kind": dict(sorted(Counter(item.event.kind.value for item in record.events).items())),
        },
        "journal_tip": {"seq": journal_tip[0], "hash": journal_tip[1]},
    }
    return {name: jsonable(value) for name, value in report.items()}


def kpi_summary(kpi: Kpi, values: Sequence[float]) -> dict[str, object]:
    """First, last, least and greatest known value, and what the last one means; null where nothing is known."""
    known = [value for value in values if math.isfinite(value)]
    last = values[-1] if values else math.nan
    limit = kpi.limit
    return {
        "unit": kpi.unit,
        "first": known[0] if known else None,
        "last": last,
        "min": min(known, default=None),
        "max": max(known, default=None),
        "limit": None if limit is None else asdict(limit),
        "status": None if limit is None else limit.status(last),
        "ticks_outside": 0 if limit is None else sum(limit.status(value) is not KpiStatus.HEALTHY for value in known),
    }


def _phase(result: PhaseResult) -> dict[str, object]:
    return {
        "phase": result.phase,
        "meaning": result.phase.meaning,
        "status": result.status,
        "verdict": result.verdict,
        "started_s": result.started_s,
        "ended_s": result.ended_s,
        "checks": [_check(check) for check in result.checks],
    }


def _check(check: CheckResult) -> dict[str, object]:
    return {
        "name": check.name,
        "status": check.status,
        "message": check.message,
        "observed": check.observed,
        "threshold": check.threshold,
        "unit": check.unit,
        "evidence": check.evidence,
        "required": check.required,
        "dry_run": check.dry_run,
        "duration_s": check.duration_s,
    }


def _isolation(story: Isolation) -> dict[str, object]:
    return {**asdict(story), "verified": story.verified}


def _trial(story: TrialStory) -> dict[str, object]:
    told = asdict(story)
    return {
        **{name: value for name, value in told.items() if name not in ("before", "after")},
        "from": story.before,
        "to": story.after,
    }


def _refusals(record: RunRecord) -> list[dict[str, object]]:
    return [refused.as_dict() for refused in record.refusals.values()]


def _proposal(proposal: Mapping[str, object]) -> dict[str, object]:
    expectation = cast("Mapping[str, Any]", proposal["expectation"])
    changed = bool(proposal["optimisation"])
    return {
        **{name: proposal[name] for name in ("id", "kind", "title", "summary", "carried_out_by", "commands")},
        "expected": expected(expectation) if changed else None,
    }
