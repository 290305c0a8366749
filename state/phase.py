"""The states of the controller, each with a number that never changes its meaning.

Dashboards and alerts store the numbers: a number is never reused, a new state takes a new one.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where the controller stands."""

    IDLE = "IDLE"
    PHASE_I = "PHASE_I"
    PHASE_II = "PHASE_II"
    PHASE_III = "PHASE_III"
    GOVERNING = "GOVERNING"
    ISOLATING = "ISOLATING"
    HEALING = "HEALING"
    PHASE_IV = "PHASE_IV"
    SAFE_MODE = "SAFE_MODE"
    PAUSED = "PAUSED"
    COHERENT_LOCK = "COHERENT_LOCK"
    CRITICAL_DISSONANCE = "CRITICAL_DISSONANCE"

    @property
    def number(self) -> int:
        """The permanent number of the state."""
        return _NUMBERS[self]

    @property
    def meaning(self) -> str:
        """What the state is about, for people."""
        return _MEANINGS[self]

    @property
    def final(self) -> bool:
        """True where a run has ended."""
        return self in (Phase.COHERENT_LOCK, Phase.CRITICAL_DISSONANCE)


_NUMBERS = {
    Phase.IDLE: 0,
    Phase.PHASE_I: 1,
    Phase.PHASE_II: 2,
    Phase.PHASE_III: 3,
    Phase.GOVERNING: 4,
    Phase.ISOLATING: 5,
    Phase.HEALING: 6,
    Phase.PHASE_IV: 7,
    Phase.SAFE_MODE: 8,
    Phase.PAUSED: 9,
    Phase.COHERENT_LOCK: 200,
    Phase.CRITICAL_DISSONANCE: 500,
}

_MEANINGS = {
    Phase.IDLE: "nothing governed yet",
    Phase.PHASE_I: "core system initialisation",
    Phase.PHASE_II: "transaction security",
    Phase.PHASE_III: "field security",
    Phase.GOVERNING: "gravity-well daemon",
    Phase.ISOLATING: "an isolation or re-admission is not yet verified",
    Phase.HEALING: "a parameter trial is under way",
    Phase.PHASE_IV: "improvement proposal and corrections",
    Phase.SAFE_MODE: "fail-static: observe and alarm, change nothing",
    Phase.PAUSED: "held by an operator",
    Phase.COHERENT_LOCK: "all phases passed, KPIs within limits",
    Phase.CRITICAL_DISSONANCE: "a phase failed or KPIs stay outside limits",
}
