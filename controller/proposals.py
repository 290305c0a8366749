"""What should be changed, going by what this run saw? The improvement proposals of Phase IV.

Each proposal stands on evidence of its own run: KPI values against their limits, what was isolated, blocked or refused
and why, and what the trials measured. An effect is only expected where a trial of this run measured it; otherwise the
proposal says "not estimated". A run without findings gives one proposal, which says so and shows the margins.

A proposal's id is a hash of its content, and it is anchored to the journal's tip: equal runs give equal proposals, and
none passes for another run's. The schema is docs/proposal.schema.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from controller.anomalies import grouped
from controller.files import json_bytes, jsonable, write_atomically
from controller.findings import Finding, budget_findings, kept_finding, node_findings, sensor_findings, step_finding
from controller.record import RunRecord
from controller.settings import Config
from controller.timeline import timeline
from controller.trends import Trend, margins, trends
from metrics.errors import IaceError
from metrics.observation import Parameters

SCHEMA_VERSION = 1
ANOMALIES_MAX = 20
_ID_CHARACTERS = 12


class ProposalFailedError(IaceError):
    """The proposals could not be written: Phase IV has failed; free space or give permission, then run again."""


def propose(
    record: RunRecord,
    *,
    journal_tip: tuple[int, str],
    config: Config,
    command: str,
    parameters: Parameters | None = None,
    unhealthy: Sequence[str] = (),
) -> list[dict[str, object]]:
    """The proposals that follow from a run, the most pressing first; at least one.

    Args:
        record: the run so far.
        journal_tip: sequence and hash of the journal's last event.
        config: the settings in force.
        command: the command line that started this run.
        parameters: those in force at the end; None for a plant that does not show them.
        unhealthy: KPIs that are persistently outside their limits at the end.
    """
    found = trends(record)
    findings = list(_findings(record, config, parameters, unhealthy)) or [_nothing_to_change(found)]
    shared = {
        "anchor": {"seq": journal_tip[0], "hash": journal_tip[1]},
        "run": {
            "plant": record.plant,
            "system": record.system,
            "nodes": record.nodes,
            "clusters": record.clusters,
            "seed": record.seed,
            "scenario": record.scenario,
        },
        "kpis": {name: asdict(trend) for name, trend in found.items()},
        "anomalies": grouped(record.anomalies)[:ANOMALIES_MAX],
    }
    return [_proposal(finding, shared, command) for finding in findings]


def encode(proposal: Mapping[str, object]) -> bytes:
    """The bytes of a proposal's file."""
    return json_bytes(proposal)


def digest(proposal: Mapping[str, object]) -> str:
    """SHA-256 (hex) of a proposal's file, as it is journaled."""
    return hashlib.sha256(encode(proposal)).hexdigest()


def write(proposals: Sequence[Mapping[str, object]], directory: Path) -> list[Path]:
    """Write each proposal to `<directory>/<id>.json`, atomically, and return the paths.

    Raises:
        ProposalFailedError: a file cannot be written.
    """
    try:
        return [write_atomically(directory / f"{proposal['id']}.json", encode(proposal)) for proposal in proposals]
    except OSError as error:
        raise ProposalFailedError(f"proposals cannot be written to {directory}: {error.strerror or error}") from error


def _findings(
    record: RunRecord, config: Config, parameters: Parameters | None, unhealthy: Sequence[str]
) -> Iterator[Finding]:
    stories = timeline(item.event for item in record.events)
    yield from sensor_findings(record)
    yield from node_findings(stories.isolations, config)
    yield from budget_findings(stories.blocked, record.refusals, config)
    yield from step_finding(record, config, parameters, unhealthy)
    yield from kept_finding(stories.trials)


def _nothing_to_change(found: Mapping[str, Trend]) -> Finding:
    told = ", ".join(f"{name} {margin:+.3g}" for name, margin in margins(found).items()) or "none is known"
    return Finding(
        kind="none",
        title="Change nothing",
        summary="Nothing that this run saw calls for a change: nobody keeps falling out, no budget bound, and no KPI "
        f"ended outside its limits. Margins over the last ticks: {told}.",
        evidence={"margins": margins(found)},
    )


def _proposal(finding: Finding, shared: Mapping[str, object], command: str) -> dict[str, object]:
    content = {
        name: jsonable(value)
        for name, value in {
            "schema_version": SCHEMA_VERSION,
            "kind": finding.kind,
            "title": finding.title,
            "summary": finding.summary,
            "change": {
                "settings": {path: {"from": old, "to": new} for path, (old, new) in finding.settings.items()},
                "parameters": {name: {"from": old, "to": new} for name, (old, new) in finding.parameters.items()},
            },
            "expectation": finding.expectation,
            "commands": []
            if finding.command is None
            else [{"command": finding.command.format(run=command), "does": finding.does}],
            "evidence": {**finding.evidence, "kpis": shared["kpis"], "anomalies": shared["anomalies"]},
            "run": shared["run"],
            "anchor": shared["anchor"],
        }.items()
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return {"id": f"p-{hashlib.sha256(canonical).hexdigest()[:_ID_CHARACTERS]}", **content}
