"""How does a proposal read? The same few lines on a terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.wording import quantity

Json = Mapping[str, Any]


def expected(estimate: Json) -> str:
    """What an estimate says, e.g. "coherence +0.02 (+0.01 to +0.03); gray box, confidence high"."""
    if not estimate.get("estimated"):
        return str(estimate.get("basis", "not estimated"))
    effects = estimate.get("effects") or {}
    told = ", ".join(f"{name} {_effect(effect)}" for name, effect in effects.items() if effect is not None)
    method = str(estimate.get("method", "")).replace("_", " ")
    confidence = (estimate.get("confidence") or {}).get("level", "unknown")
    return f"{told}; by {method}, confidence {confidence}"


def lines(proposal: Json) -> Iterator[str]:
    """What it would change, what is expected of that, how it is verified and taken back."""
    for entry in proposal.get("optimisation") or ():
        yield f"{entry.get('name')}: {_value(entry.get('from'))} → {_value(entry.get('to'))}"
        yield f"  expected: {expected(entry.get('estimate') or {})}"
        risk = entry.get("risk") or {}
        yield f"  risk: {risk.get('level')}, {risk.get('because')}"
        yield f"  verified by {entry.get('verification')}"
        yield f"  rolled back: {entry.get('rollback')}"
    if len(proposal.get("optimisation") or ()) > 1:
        yield f"all together: {expected(proposal.get('expectation') or {})}"


def standing(proposal: Json) -> str:
    """Where it stands, and by whom and why."""
    told, approved_by = str(proposal.get("status", "proposed")), proposal.get("approved_by")
    if proposal.get("by"):
        told += f" by {proposal['by']}"
    if approved_by and approved_by != proposal.get("by"):
        told += f", approved by {approved_by}"
    if proposal.get("reason"):
        told += f": {proposal['reason']}"
    return told + (f" (trial {proposal['trial']})" if proposal.get("trial") else "")


def _effect(effect: Json) -> str:
    low, high = effect.get("low"), effect.get("high")
    interval = "" if low is None or high is None else f" ({low:+.3g} to {high:+.3g})"
    return f"{effect['change']:+.3g}{interval}"


def _value(value: object) -> str:
    return quantity(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
