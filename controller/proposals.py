"""What should be changed, going by what this run saw? The improvement proposals of Phase IV and of the daemon.

Each proposal stands on evidence of its own run: KPI values against their limits, what was isolated, blocked or refused
and why, and what the trials measured. What a change would do is estimated by the gray box, by trials of this run, or
by a backtest of its telemetry, and says by which; otherwise it says that it is not estimated. A run without findings
gives one proposal, which says so and shows the margins.

A proposal's id is a hash of its content, and it is anchored to the journal's tip: equal runs give equal proposals, and
none passes for another run's. The schema is docs/proposal.schema.json.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from controller.anomalies import grouped
from controller.budgets import budget_findings
from controller.carrying_out import ID, TRIAL, Way, way
from controller.config import DEFAULT_FILE
from controller.estimates import Estimate, Sure, not_estimated, replayed
from controller.files import jsonable, unwritable, write_atomically
from controller.findings import Finding, kept_finding, sensor_findings
from controller.record import RunRecord
from controller.rehearsal import NotRehearsedError, Outcome, Rehearsal
from controller.repairs import node_findings
from controller.settings import Config
from controller.steps import step_finding
from controller.thresholds import threshold_findings
from controller.timeline import Timeline, timeline
from controller.trends import Trend, margins, trends
from metrics.errors import IaceError
from metrics.haru.plant_model import Environment
from metrics.observation import Parameters
from state.stimulus import ProposalWritten

SCHEMA_VERSION = 2
LISTED_MAX = 20  # anomalies, isolations, refusals and trials that every proposal carries
TRIAL_LIFETIME_S = 24 * 3600.0  # an environment that was identified yesterday is none to act upon
LIFETIME_S = 7 * 24 * 3600.0
_ID_CHARACTERS = 12
_FILE = re.compile(rf"p-[0-9a-f]{{{_ID_CHARACTERS}}}\.json")


class ProposalFailedError(IaceError):
    """The proposals could not be written: Phase IV has failed; free space or give permission, then run again."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known at the moment of proposing.

    Attributes:
        now_s: plant time.
        journal_tip: sequence and hash of the journal's last event.
        config: the settings in force.
        command: the command line that started a run, `iace govern` for the daemon.
        config_file: where settings are to be changed.
        parameters: those in force; None for a plant that does not show them.
        settable: whether the plant lets them be changed.
        unhealthy: KPIs that are persistently outside their limits.
        environment: as identified; None where it is not.
        trust: in the gray box.
        rehearsal: replays this run under other settings; None where there is nothing to replay.
        told: kind and subject of what has been proposed already and need not be again.
        since_s: kind and subject of settings that were proposed and applied, to the plant time since which they are in
            force: what was seen before tells nothing of them.
    """

    now_s: float
    journal_tip: tuple[int, str]
    config: Config
    command: str
    config_file: str = str(DEFAULT_FILE)
    parameters: Parameters | None = None
    settable: bool = True
    unhealthy: Sequence[str] = ()
    environment: Environment | None = None
    trust: float = 1.0
    rehearsal: Rehearsal | None = None
    told: frozenset[tuple[str, str]] = frozenset()
    since_s: Mapping[tuple[str, str], float] = field(default_factory=dict)


def propose(
    record: RunRecord, situation: Situation, wanted: Callable[[Finding], bool] = lambda _: True
) -> list[dict[str, object]]:
    """The proposals that follow from a run, the most pressing first; at least one, unless none is wanted.

    Args:
        record: the run so far.
        situation: where it stands.
        wanted: which findings are worth a document.
    """
    found = trends(record)
    stories = timeline(item.event for item in record.events)
    findings = list(_findings(record, stories, situation)) or [_nothing_to_change(found)]
    seen = {
        "kpis": {name: asdict(trend) for name, trend in found.items()},
        "anomalies": grouped(record.anomalies)[:LISTED_MAX],
        "isolations": [asdict(story) for story in stories.isolations[-LISTED_MAX:]],
        "blocked": [asdict(item) for item in stories.blocked[-LISTED_MAX:]],
        "refusals": [
            item.as_dict() for item in sorted(record.refusals.values(), key=lambda item: -item.count)[:LISTED_MAX]
        ],
        "trials": [asdict(story) for story in stories.trials[-LISTED_MAX:]],
    }
    fresh = (
        finding for finding in findings if not {(finding.kind, name) for name in finding.subjects} <= situation.told
    )
    return [_proposal(finding, record, seen, situation) for finding in fresh if wanted(finding)]


def encode(proposal: Mapping[str, object]) -> bytes:
    """The bytes of a proposal's file; its keys are sorted, so that a copy in any order gives the same bytes again."""
    return (json.dumps(proposal, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def digest(proposal: Mapping[str, object]) -> str:
    """SHA-256 (hex) of a proposal, as it is journaled: of the bytes of its file."""
    return hashlib.sha256(encode(proposal)).hexdigest()


def id_of(proposal: Mapping[str, object]) -> str:
    """The id that a proposal's content gives: a hash of all but the id itself, and the commands, which name it."""
    content = {name: value for name, value in proposal.items() if name not in ("id", "commands")}
    return f"p-{hashlib.sha256(_canonical(content)).hexdigest()[:_ID_CHARACTERS]}"


def written(proposal: Mapping[str, object]) -> ProposalWritten:
    """What the governor is told of a proposal that is on disk."""
    document = json.loads(encode(proposal))
    change, tried = document["change"], document["carried_out_by"] == TRIAL
    return ProposalWritten(
        document["id"],
        digest(proposal),
        document["expires_s"],
        parameters={name: item["to"] for name, item in change["parameters"].items()} if tried else None,
        previous=document["conditions"],
        direction=document["direction"] if tried else "",
        settings={path: item["to"] for path, item in change["settings"].items()} or None,
    )


def write(proposals: Sequence[Mapping[str, object]], directory: Path) -> list[Path]:
    """Write each proposal to `<directory>/<id>.json`, atomically, and return the paths.

    Raises:
        ProposalFailedError: a file cannot be written.
    """
    try:
        return [write_atomically(directory / f"{proposal['id']}.json", encode(proposal)) for proposal in proposals]
    except OSError as error:
        raise ProposalFailedError(f"proposals cannot be written to {directory}: {error.strerror or error}") from error


def clear(directory: Path, but: Collection[str]) -> None:
    """Remove the proposals of earlier runs from `directory`, all `but` those of these ids; leave other files alone.

    Raises:
        NotPermittedError, StoreFailedError: one cannot be removed.
    """
    try:
        files = [path for path in directory.iterdir() if _FILE.fullmatch(path.name) and path.stem not in but]
    except OSError:
        return  # there is none, or none that can be seen: whoever writes there is told
    try:
        for path in files:
            path.unlink()
    except OSError as error:
        raise unwritable("the proposals of an earlier run cannot be removed from", directory, error) from error


def _canonical(document: Mapping[str, object]) -> bytes:
    """Sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _findings(record: RunRecord, stories: Timeline, situation: Situation) -> Iterator[Finding]:
    config, environment = situation.config, situation.environment
    model = None if environment is None else (environment, situation.trust)
    yield from sensor_findings(record)
    yield from node_findings(
        stories.isolations,
        config,
        frozenset(name for kind, name in situation.told if kind == "node"),
        _since_s(situation, "node"),
    )
    refused = record.under_present_limits()
    yield from budget_findings(stories.blocked, refused, config, record.nodes, _since_s(situation, "budget"))
    yield from step_finding(
        record,
        config,
        situation.parameters,
        situation.unhealthy,
        model,
        situation.now_s,
        settable=situation.settable,
    )
    yield from kept_finding(record, stories.trials, situation.parameters)
    yield from threshold_findings(record, config, situation.unhealthy)


def _since_s(situation: Situation, kind: str) -> dict[str, float]:
    return {name: at_s for (of, name), at_s in situation.since_s.items() if of == kind}


def _nothing_to_change(found: Mapping[str, Trend]) -> Finding:
    told = ", ".join(f"{name} {margin:+.3g}" for name, margin in margins(found).items()) or "none is known"
    return Finding(
        kind="none",
        title="Change nothing",
        summary="Nothing that this run saw calls for a change: nobody keeps falling out, no budget bound, and no KPI "
        f"ended outside its limits. Margins over the last ticks: {told}.",
        subjects=("nothing",),
        evidence={"margins": margins(found)},
    )


def _replay(rehearsal: Rehearsal | None, settings: Mapping[str, object]) -> tuple[Outcome, Outcome, str]:
    if rehearsal is None:
        raise NotRehearsedError("there is no telemetry of this run to replay")
    return rehearsal.compare(settings)


def _rehearsed(finding: Finding, rehearsal: Rehearsal | None) -> Finding:
    """The finding with what its settings, or others by way of comparison, would have done to this run."""
    settings = {path: new for path, (_, new) in finding.settings.items()} or finding.what_if
    if not settings:
        return finding
    try:
        now, then, basis = _replay(rehearsal, settings)
    except NotRehearsedError as why:
        return replace(
            finding,
            estimate=not_estimated(str(why)) if finding.settings else finding.estimate,
            evidence={**finding.evidence, "rehearsal": {"settings": settings, "skipped": str(why)}},
        )
    told = {"settings": settings, "basis": basis, "in_force": now["totals"], "changed": then["totals"]}
    if finding.instead is not None and now["totals"] == then["totals"]:
        return replace(finding.instead, evidence={**finding.instead.evidence, "rehearsal": told})
    estimate = replayed(now, then, basis) if finding.settings else finding.estimate
    return replace(finding, estimate=estimate, evidence={**finding.evidence, "rehearsal": told})


def _proposal(found: Finding, record: RunRecord, seen: Mapping[str, object], situation: Situation) -> dict[str, object]:
    finding = _rehearsed(found, situation.rehearsal)
    how = way(finding, situation.config, situation.command, situation.config_file)
    kpis = [kpi.name for kpi in record.catalogue.values() if kpi.limit is not None]
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": finding.kind,
        "title": finding.title,
        "summary": finding.summary,
        "subjects": list(finding.subjects),
        "carried_out_by": how.by,
        "written_s": situation.now_s,
        "expires_s": situation.now_s + (TRIAL_LIFETIME_S if how.by == TRIAL else LIFETIME_S),
        "change": {
            "settings": {path: {"from": old, "to": new} for path, (old, new) in finding.settings.items()},
            "parameters": {name: {"from": old, "to": new} for name, (old, new) in finding.parameters.items()},
        },
        "conditions": None if finding.conditions is None else finding.conditions.as_dict(),
        "direction": finding.direction,
        "optimisation": list(_vector(finding, how, kpis)),
        "expectation": finding.estimate.document(kpis),
        "evidence": finding.evidence,
        "seen": seen,
        "run": record.where(),
        "anchor": {"seq": situation.journal_tip[0], "hash": situation.journal_tip[1]},
    }
    plain = {name: jsonable(value) for name, value in content.items()}
    name = id_of(plain)
    commands = [{"command": command.replace(ID, name), "does": does} for command, does in how.commands]
    return {"id": name, **plain, "commands": commands}


def _vector(finding: Finding, how: Way, kpis: Sequence[str]) -> Iterator[dict[str, object]]:
    """Every setting and parameter that would change, with what that alone is expected to do."""
    for kind, changed in (("setting", finding.settings), ("parameter", finding.parameters)):
        for name, (old, new) in changed.items():
            alone = finding.each.get(name) or (finding.estimate if len(changed) == 1 else _together())
            yield {
                "target": kind,
                "name": name,
                "from": old,
                "to": new,
                "estimate": alone.document(kpis),
                "risk": asdict(finding.risk),
                "verification": how.verification,
                "rollback": how.rollback,
            }


def _together() -> Estimate:
    return replace(not_estimated("only the effect of all changes together is known"), confidence=Sure("low", "see all"))
