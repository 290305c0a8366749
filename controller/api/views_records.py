"""The routes that tell what is known and what has happened: nodes, explanations, proposals, the journal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from controller.api import models
from controller.api.access import Rule
from controller.api.errors import ApiError
from controller.api.routing import Call, Json, Routes
from controller.api.telemetry import timestamp
from controller.api.views_control import ordered
from controller.port import Port
from state.command import DecideProposal

_NODES, _PROPOSALS, _JOURNAL = "nodes", "proposals", "journal"
_SUBJECT_MAX = 200


def add(routes: Routes, port: Port) -> None:
    """Add the routes of this module."""
    _add_nodes(routes, port)
    _add_proposals(routes, port)

    @routes.get(
        "/api/journal",
        rule=Rule.READ,
        tag=_JOURNAL,
        answer=models.JournalAnswer,
        query=models.JournalQuery,
        errors=(HTTPStatus.SERVICE_UNAVAILABLE,),
    )
    def journal(call: Call) -> Json:
        """The hash-chained journal, page by page."""
        events = [dict(event) for event in port.journal(call.query.after, call.query.limit)]
        following = events[-1]["seq"] if len(events) == call.query.limit else None
        return {"events": events, "next": following}


def _add_nodes(routes: Routes, port: Port) -> None:
    @routes.get("/api/nodes", rule=Rule.READ, tag=_NODES, answer=models.NodesAnswer, query=models.NodesQuery)
    def nodes(call: Call) -> Json:
        """Each node with its gravity, where it stands and why, the worst first."""
        asked: models.NodesQuery = call.query
        fitting = [
            node
            for node in port.nodes()
            if asked.status in ("", node.get("status")) and asked.cluster in ("", node.get("cluster"))
        ]
        fitting.sort(key=_gravity, reverse=True)
        base_s = port.base_time_s()
        return {"total": len(fitting), "nodes": [_dated(node, base_s) for node in fitting[: asked.limit]]}

    @routes.get(
        "/api/explain/<path:subject>",
        rule=Rule.READ,
        tag=_NODES,
        answer=models.ExplainAnswer,
        errors=(HTTPStatus.NOT_FOUND,),
    )
    def explain(call: Call) -> Json:
        """Why a node or cluster is, or is not, isolated, or why an event, by its sequence, happened."""
        subject = call.path["subject"]
        found = port.explain(subject) if len(subject) <= _SUBJECT_MAX else None
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "nothing is known of that node, cluster or event; see /api/nodes")
        return {"data": dict(found)}


def _add_proposals(routes: Routes, port: Port) -> None:
    @routes.get("/api/proposals", rule=Rule.READ, tag=_PROPOSALS, answer=models.ProposalsAnswer)
    def proposals(_call: Call) -> Json:
        """The improvement proposals, the newest first."""
        return {"proposals": [dict(proposal) for proposal in port.proposals()]}

    @routes.get(
        "/api/proposals/<proposal_id>",
        rule=Rule.READ,
        tag=_PROPOSALS,
        answer=models.ProposalAnswer,
        errors=(HTTPStatus.NOT_FOUND,),
    )
    def proposal(call: Call) -> Json:
        """One improvement proposal."""
        return {"proposal": dict(_proposal(port, call.path["proposal_id"]))}

    def decide(call: Call, *, approve: bool) -> Json:
        found = _proposal(port, call.path["proposal_id"])
        return ordered(port, call, DecideProposal(str(found["id"]), approve))

    decision: dict[str, Any] = {
        "rule": Rule.CONTROL,
        "tag": _PROPOSALS,
        "answer": models.CommandAnswer,
        "body": models.ReasonBody,
        "headers": models.IdempotencyHeaders,
        "errors": (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
    }

    @routes.post("/api/proposals/<proposal_id>/approve", **decision)
    def proposal_approve(call: Call) -> Json:
        """Approve a proposal."""
        return decide(call, approve=True)

    @routes.post("/api/proposals/<proposal_id>/reject", **decision)
    def proposal_reject(call: Call) -> Json:
        """Reject a proposal."""
        return decide(call, approve=False)


def _proposal(port: Port, wanted: str) -> Mapping[str, Any]:
    for proposal in port.proposals():
        if proposal.get("id") == wanted:
            return proposal
    raise ApiError(HTTPStatus.NOT_FOUND, "there is no such proposal; see /api/proposals")


def _gravity(node: Mapping[str, Any]) -> float:
    gravity = node.get("gravity")
    return -math.inf if gravity is None else float(gravity)


def _dated(node: Mapping[str, Any], base_s: float) -> dict[str, Any]:
    """A node with the wall time, for people, beside the plant time of its time limit."""
    until_s = node.get("until_s")
    return {**node, "until": None if until_s is None else timestamp(base_s + float(until_s))}
