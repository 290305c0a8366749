"""A governor as it is now, kept and given back: there is only one of it, and every explored state goes through it.

`CHANGING` names whatever of the governor can change besides the durable state and the trials.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np

from state.confirmation import Confirmation
from state.durable import DurableState, Exemption, Intent, NodeRecord, PauseRecord, Trial
from state.event import EventKind
from state.governor import Governor
from state.machine import Facts, PhaseMachine, TransitionRefusal
from state.phase import Phase

OF_GOVERNOR = ("_assessment", "_lag_s", "_capabilities", "_closing", "_corrections", "_doubted_ticks", "_quiet_since_s")
OF_NODES = ("_healthy", "_renewed_at", "_due", "_seen", "_latest", "_tick_s")
OF_WATCH = ("_topology", "nodes", "clusters", "storm", "sighted", "_drift_ticks")
OF_FLIGHT = ("_replied_at", "_first_look_s", "_refused", "_uncertain")
CHANGING = (OF_GOVERNOR, OF_NODES, OF_WATCH, OF_FLIGHT)
DURABLE = tuple(item.name for item in dataclasses.fields(DurableState) if item.name != "machine")


def keep(governor: Governor, *, trials: bool) -> tuple[Any, ...]:
    """The governor's state as it is; the governor must not be used again before another one has been given back."""
    parts = tuple(
        tuple([getattr(owner, name) for name in names])
        for owner, names in zip(_owners(governor), CHANGING, strict=True)
    )
    return governor.state, parts, governor._trials if trials else None


def give_back(governor: Governor, kept: tuple[Any, ...]) -> None:
    """Let the governor be in a kept state, on copies."""
    state, parts, trials = kept
    governor.state = state_copy(state)
    for owner, names, values in zip(_owners(governor), CHANGING, parts, strict=True):
        for name, value in zip(names, values, strict=True):
            setattr(owner, name, _copied(value))
    if trials is not None:
        policy = trials._policy
        fresh = copy.deepcopy(trials, {id(policy): policy})
        governor._trials = governor._desk._trials = governor._proposals._trials = fresh


def state_copy(state: DurableState) -> DurableState:
    """A copy of the durable state that shares nothing which can change."""
    clone = object.__new__(DurableState)
    for name in DURABLE:
        value = getattr(state, name)
        setattr(clone, name, value if type(value) in _PLAIN else _copied(value))
    clone.machine = LightMachine(state.machine)
    return clone


class LightMachine(PhaseMachine):
    """A phase machine that borrows the library's machine, which is dear to make, only while it moves."""

    _shared = PhaseMachine(daemon=True)

    def __init__(self, like: PhaseMachine) -> None:
        self.daemon, self.came_from, self.state = like.daemon, like.came_from, like.state

    @property
    def phase(self) -> Phase:
        """The present state; asked so often that making it anew is dear."""
        return _PHASES[self.state]

    def fire(self, event: EventKind, facts: Facts = Facts()) -> TransitionRefusal | None:  # noqa: B008 - frozen
        """Move along the table, by the real machine."""
        shared = LightMachine._shared
        shared.daemon, shared.came_from, shared.state = self.daemon, self.came_from, self.state
        refusal = shared.fire(event, facts)
        self.came_from, self.state = shared.came_from, shared.state
        return refusal


def _owners(governor: Governor) -> tuple[object, ...]:
    nodes = governor._nodes
    return governor, nodes, nodes._wells, nodes._in_flight


_RECORDS = frozenset({NodeRecord, Intent, PauseRecord, Exemption, Trial})
_PHASES = {phase.value: phase for phase in Phase}
_PLAIN = frozenset({int, float, str, bool, type(None)})


def _copied(value: Any) -> Any:
    """A copy of what can change; the records in a dict, too."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: _copied(entry) for key, entry in value.items()} if value else {}
    if kind is set:
        return set(value)
    if kind in _RECORDS:
        clone = object.__new__(kind)
        for slot in kind.__slots__:
            setattr(clone, slot, getattr(value, slot))
        return clone
    if kind is Confirmation:
        clone = object.__new__(kind)
        clone.__dict__.update({n: v.copy() if type(v) is np.ndarray else v for n, v in value.__dict__.items()})
        return clone
    return value
