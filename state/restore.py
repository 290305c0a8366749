"""The way back from a snapshot in the journal: the durable state from the JSON values that `as_plain` gave.

A replay that begins at a snapshot ends in the same bytes as one that begins with the first event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metrics.errors import BadDataError
from state.action import Reply
from state.command import ExemptionKind
from state.durable import (
    DurableState,
    Exemption,
    Intent,
    IntentKind,
    NodeRecord,
    NodeStatus,
    PauseRecord,
    RollbackFault,
    Trial,
)
from state.event import EventKind
from state.machine import PhaseMachine
from state.phase import Phase
from state.proposal_record import ProposalRecord, ProposalStatus


def restored(plain: Mapping[str, Any], *, daemon: bool) -> DurableState:
    """The state that `plain` was taken of.

    Raises:
        BadDataError: it is not what `DurableState.as_plain` gives in this version.
    """
    values = dict(plain)
    try:
        machine = PhaseMachine(
            daemon=daemon, phase=Phase(values.pop("phase")), came_from=Phase(values.pop("came_from"))
        )
        values["nodes"] = {name: _node(raw) for name, raw in values["nodes"].items()}
        values["intents"] = {key: _intent(raw) for key, raw in values["intents"].items()}
        values["wells"] = set(values["wells"])
        values["trial"] = _trial(values["trial"]) if values["trial"] else None
        values["safe_mode_cause"] = EventKind(values["safe_mode_cause"]) if values["safe_mode_cause"] else None
        values["pause"] = PauseRecord(**values["pause"]) if values["pause"] else None
        values["exemptions"] = {node: _exemption(raw) for node, raw in values["exemptions"].items()}
        values["commands"] = {raw["key"]: {k: v for k, v in raw.items() if k != "key"} for raw in values["commands"]}
        values["proposals"] = {raw["id"]: _proposal(raw) for raw in values["proposals"]}
        return DurableState(machine, **values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadDataError(f"a snapshot in the journal cannot be read: {error!r}") from error


def _node(raw: Mapping[str, Any]) -> NodeRecord:
    return NodeRecord(**{**raw, "status": NodeStatus(raw["status"])})


def _intent(raw: Mapping[str, Any]) -> Intent:
    reply = None if raw["reply"] is None else Reply(raw["reply"])
    return Intent(**{**raw, "kind": IntentKind(raw["kind"]), "reply": reply})


def _trial(raw: Mapping[str, Any]) -> Trial:
    fault = None if raw["fault"] is None else RollbackFault(raw["fault"])
    return Trial(**{**raw, "fault": fault})


def _proposal(raw: Mapping[str, Any]) -> ProposalRecord:
    return ProposalRecord(**{**raw, "status": ProposalStatus(raw["status"])})


def _exemption(raw: Mapping[str, Any]) -> Exemption:
    return Exemption(**{**raw, "kind": ExemptionKind(raw["kind"])})
