"""How does the daemon look from outside? JSON for status, nodes, explanations and events, made from what a turn left.

A view is never changed once it is made, so it can be read by any thread while the next turn goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from controller.carrying_out import PEOPLE, RELOAD, TRIAL
from controller.record import Recorded, Refused
from controller.wording import sentence
from metrics.assessment import Assessment
from metrics.observation import Parameters
from state.durable import POLICY
from state.event import Event
from state.isolation import Guard, IsolationPolicy
from state.journal import Entry
from state.phase import Phase
from state.proposal_record import ProposalStatus
from state.view import NodeView, view

WAYS_OUT: Mapping[str, str] = {
    "STORM_DETECTED": "ends by itself once the field has been calm for isolation.storm_cooldown_s",
    "SENSORS_DOUBTED": "ends by itself once sensors and service have agreed for isolation.storm_cooldown_s",
    "PHASE_FAILED": "the phase is tried again by itself; iace safe-mode clear tries it now",
    "PHASE_UNDECIDED": "the phase is tried again by itself; iace safe-mode clear tries it now",
}
BY_HAND = "see to the cause, then iace safe-mode clear --reason TEXT"
EVENTS_TOLD = 20
OUT_ELSEWHERE = "out, not by us"  # status of a node that the plant holds out and this controller does not
_KEPT = ("status", "by", "reason", "trial", "approved_by")
STANDING = (*_KEPT, "intact")  # what is told of a proposal beside its document


@dataclass(frozen=True, slots=True)
class View:
    """What a turn left behind.

    Attributes:
        plain: the durable state as JSON values.
        tip: sequence and hash of the journal's last event.
        now_s: the governor's time.
        base_time_s: Unix time at its zero.
        looked_s: monotonic time at which this was made.
        connected: whether a plant is being governed.
        plant, system: its names.
        assessment, parameters: of the latest tick.
        policy: the isolation policy in force.
        dry_run: whether nothing is acted upon.
        refusals: decisions not to act, by rule and guard.
    """

    plain: Mapping[str, Any]
    tip: tuple[int, str]
    now_s: float
    base_time_s: float
    looked_s: float
    connected: bool
    plant: str
    system: str
    assessment: Assessment | None
    parameters: Parameters | None
    policy: IsolationPolicy
    dry_run: bool
    refusals: Mapping[tuple[str, str], int]


def state(seen: View, about: Callable[[str], Sequence[Refused]]) -> dict[str, Any]:
    """Where it stands; `about` finds what has held back whatever it is asked about, the latest first."""
    plain, phase = seen.plain, Phase(seen.plain["phase"])
    held = plain["safe_mode"] is not None
    nodes = None if seen.assessment is None else view(seen.assessment)
    policy, total = seen.policy, 0 if nodes is None else len(nodes.topology.nodes)
    tokens = policy.tokens(plain["tokens"], seen.now_s - plain["tokens_at_s"], total)
    return {
        "version": version("iace"),
        "phase": phase.value,
        "phase_number": phase.number,
        "meaning": phase.meaning,
        "came_from": plain["came_from"],
        "connected": seen.connected,
        "plant": seen.plant,
        "system": seen.system,
        "dry_run": seen.dry_run,
        "epoch": plain["epoch"],
        "tick": None if seen.assessment is None else seen.assessment.tick,
        "plant_time_s": seen.now_s,
        "time": seen.base_time_s + seen.now_s,
        "safe_mode": {
            "reason": plain["safe_mode"],
            "cause": plain["safe_mode_cause"],
            "since_s": plain["safe_mode_since_s"],
            "way_out": WAYS_OUT.get(str(plain["safe_mode_cause"]), BY_HAND),
        }
        if held
        else None,
        "pause": plain["pause"],
        "trial": plain["trial"],
        "in_flight": list(plain["intents"].values()),
        "wells": plain["wells"],
        "blocked": [{"subject": subject, "guard": guard} for subject, guard in sorted(plain["blocked"].items())],
        "exemptions": [{"node": node, **exemption} for node, exemption in sorted(plain["exemptions"].items())],
        "isolation_tokens": tokens,
        "nodes": total,
        "out": 0 if nodes is None else int(np.count_nonzero(~nodes.active)),
        "unhealthy": [] if seen.assessment is None else list(seen.assessment.unhealthy()),
        "parameters": None if seen.parameters is None else seen.parameters.as_dict(),
        "waiting": [_waiting(seen, record, about(record["id"])) for record in plain["proposals"] if _waits(record)],
        "trials": {"started": plain["trials"], "failed_in_a_row": plain["failed_trials"]},
        "refusals": [
            {"rule": rule, "guard": guard, "count": count} for (rule, guard), count in sorted(seen.refusals.items())
        ],
        "journal": {"seq": seen.tip[0], "hash": seen.tip[1]},
    }


def nodes(seen: View) -> list[dict[str, Any]]:
    """Each node, the worst first."""
    there = None if seen.assessment is None else view(seen.assessment)
    if there is None:
        return []
    order = np.argsort(-np.nan_to_num(there.reading.gravity, nan=-1.0), kind="stable")
    return [_node(seen, there, index) for index in order.tolist()]


def _node(seen: View, there: NodeView, index: int) -> dict[str, Any]:
    name, gravity = there.topology.nodes[index], float(there.reading.gravity[index])
    record = seen.plain["nodes"].get(name)
    status = "healthy" if record is None else record["status"]
    suspect = gravity > seen.policy.gravity_critical
    if status == "healthy" and suspect:
        status = "suspect"
    active = bool(there.active[index])
    h, q, k = (_number(value) for value in there.reading.components[index].tolist())
    return {
        "node": name,
        "cluster": there.topology.clusters[there.topology.cluster_of[index]],
        "gravity": _number(gravity),
        "components": {"coherence": h, "direction": q, "service": k},
        "trusted": bool(there.reading.trusted[index]),
        "active": active,
        "status": status if active or record is not None else OUT_ELSEWHERE,
        "since_s": None if record is None else record["since_s"],
        "until_s": record["until_s"] if record is not None and record["status"] == "isolated" else None,
        "offences": 0 if record is None else record["offences"],
        "flapping": record is not None and record["flapping"],
        "by": None if record is None else record["by"],
        "exemption": seen.plain["exemptions"].get(name),
        "why": _why(seen, name, gravity, record, trusted=bool(there.reading.trusted[index]), active=active),
    }


def _why(
    seen: View, name: str, gravity: float, record: Mapping[str, Any] | None, *, trusted: bool, active: bool
) -> str:
    limit, known = seen.policy.gravity_critical, record or {"status": ""}
    status = known["status"]
    if status == "isolated":
        offence = f", offence {known['offences']}" if known["by"] == POLICY else ""
        return f"isolated by {known['by']}{offence}"
    if status in ("isolating", "probation"):
        return f"{status} since {known['since_s']:.0f} s"
    answers = (
        (not active, "the plant holds it out, this controller does not"),
        (not trusted or not math.isfinite(gravity), "its evidence is not trusted: nothing is decided on it"),
        (
            name in seen.plain["blocked"],
            f"|g| {gravity:.2f}, but guard {seen.plain['blocked'].get(name)} forbids its isolation",
        ),
        (gravity > limit, f"|g| {gravity:.2f} above {limit:g}: being confirmed, or held back"),
    )
    return next((text for holds, text in answers if holds), f"|g| {gravity:.2f} within {limit:g}")


def explained(
    seen: View, subject: str, refusals: Sequence[Refused], events: Sequence[Recorded]
) -> dict[str, Any] | None:
    """Why a node or cluster is, or is not, isolated; None for a subject of which nothing is known."""
    there = None if seen.assessment is None else view(seen.assessment)
    node = None
    if there is not None and subject in there.topology.index:
        node = _node(seen, there, there.topology.index[subject])
    cluster = None
    if there is not None and subject in there.topology.clusters:
        gravity = float(there.reading.cluster_gravity[there.topology.clusters.index(subject)])
        cluster = {"cluster": subject, "gravity": _number(gravity), "limit": seen.policy.gravity_critical}
    if node is None and cluster is None and not refusals and not events:
        return None
    return {
        "subject": subject,
        "node": node,
        "cluster": cluster,
        "well": subject in seen.plain["wells"],
        "blocked_by": seen.plain["blocked"].get(subject),
        "not_done": [
            {
                "rule": item.latest.rule,
                "guard": item.latest.guard,
                "observed": _number(item.latest.observed),
                "limit": _number(item.latest.limit),
                "first_s": item.first_s,
                "last_s": item.latest.at_s,
                "count": item.count,
            }
            for item in refusals
        ],
        "events": [
            {"seq": item.seq, "at_s": item.event.at_s, "kind": item.event.kind.value, "text": sentence(item.event)}
            for item in events[-EVENTS_TOLD:]
        ],
    }


def event(told: Mapping[str, Any]) -> dict[str, Any]:
    """Why an event happened: the event itself carries its reason, evidence and values."""
    return {"subject": str(told["seq"]), "event": dict(told)}


def entry(of: Entry) -> dict[str, Any]:
    """A journal entry as JSON values, with its sentence."""
    return {
        "seq": of.seq,
        "epoch": of.epoch,
        "hash": of.hash,
        "at_s": of.event.at_s,
        "kind": of.event.kind.value,
        "text": sentence(of.event),
        "data": dict(of.event.data),
    }


def subjects(of: Event) -> set[str]:
    """Whom an event is about."""
    return {str(of.data[name]) for name in ("node", "subject", "cluster") if name in of.data}


def proposals(seen: View, directory: Path) -> Iterator[dict[str, Any]]:
    """The improvement proposals with where they stand, the newest first, each read from its file when its turn comes.

    Of one whose file is not what was journaled only what the journal knows is told, and that it is not intact.
    """
    for record in reversed(seen.plain["proposals"]):
        content, damage = _content(record, directory)
        document = json.loads(content) if damage is None else _journaled(record, damage)
        yield {**document, **{name: record[name] for name in _KEPT}, "intact": damage is None}


def damage(seen: View, directory: Path, proposal: str) -> str | None:
    """What is wrong with the file of a proposal; None where it is intact, or there is no such proposal."""
    return next((_content(one, directory)[1] for one in seen.plain["proposals"] if one["id"] == proposal), None)


def _content(record: Mapping[str, Any], directory: Path) -> tuple[bytes, str | None]:
    """The bytes of a proposal's file, and in what they are not those that were journaled."""
    try:
        content = (directory / f"{record['id']}.json").read_bytes()
    except OSError:
        return b"", "its file is gone"
    same = hashlib.sha256(content).hexdigest() == record["sha256"]
    return content, None if same else "its file has been changed since it was written"


def _journaled(record: Mapping[str, Any], damage: str) -> dict[str, Any]:
    settings, parameters, previous = record["settings"] or {}, record["parameters"] or {}, record["previous"] or {}
    title = damage[0].upper() + damage[1:]
    return {
        "id": record["id"],
        "kind": "unknown",
        "title": title,
        "summary": f"{title}: this is what the journal knows of it. It cannot be approved.",
        "carried_out_by": TRIAL if parameters else RELOAD if settings else PEOPLE,
        "written_s": record["written_s"],
        "expires_s": record["expires_s"],
        "change": {
            "settings": {path: {"from": None, "to": value} for path, value in settings.items()},
            "parameters": {name: {"from": previous.get(name), "to": value} for name, value in parameters.items()},
        },
    }


def _waits(record: Mapping[str, Any]) -> bool:
    return record["status"] == ProposalStatus.APPROVED and bool(record["parameters"] or record["settings"])


def _waiting(seen: View, record: Mapping[str, Any], held: Sequence[Refused]) -> dict[str, Any]:
    """What an approved proposal waits for: a reload, or the guard that held its trial back at the latest tick."""
    refusal = held[0].latest if held and held[0].latest.at_s >= seen.now_s else None
    phase, guard, text = Phase(seen.plain["phase"]), None, "its turn"
    if record["parameters"] is None:
        text = "the reload that brings its settings"
    elif refusal is not None:
        guard = str(refusal.guard)
        text = f"guard {guard}: {refusal.observed:.3g}, limit {refusal.limit:.3g}"
    elif phase is not Phase.GOVERNING:
        guard = {Phase.PAUSED: Guard.PAUSED, Phase.HEALING: Guard.TRIAL_OPEN}.get(phase, Guard.STATE).value
        text = f"guard {guard}: no trial begins in {phase}"
    return {"proposal": record["id"], "waits_for": text, "guard": guard}


def not_ready(seen: View) -> list[str]:
    """What is missing before it governs."""
    missing = [] if seen.connected else ["the plant is not connected"]
    phase = Phase(seen.plain["phase"])
    if phase in (Phase.IDLE, Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
        missing.append(f"{phase} is not over")
    if seen.plain["safe_mode"] is not None:
        missing.append(f"holding in SAFE_MODE: {seen.plain['safe_mode']}")
    return missing


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
