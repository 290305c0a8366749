"""The transition table made to move, by the `transitions` library; it knows the table and nothing of nodes.

`transitions` raises on a pair that is not in the table; here that becomes a `Refusal` with the guards that said no,
because a refused transition is something to journal and explain, not a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transitions import Machine

from state.event import EventKind
from state.phase import Phase
from state.table import TABLE, Guard

TRIGGERS: frozenset[EventKind] = frozenset(row.event for row in TABLE)
EXCURSIONS = frozenset({Phase.ISOLATING, Phase.HEALING, Phase.SAFE_MODE, Phase.PAUSED})
FOLLOWING = {Phase.PHASE_I: Phase.PHASE_II, Phase.PHASE_II: Phase.PHASE_III, Phase.PHASE_III: Phase.GOVERNING}


@dataclass(frozen=True, slots=True)
class Facts:
    """What guards ask for and the machine does not know itself.

    Attributes:
        coherent: the run's outcome is COHERENT_LOCK.
        held: there is a reason for SAFE_MODE.
        in_flight: an action on a node is not verified yet.
    """

    coherent: bool = False
    held: bool = False
    in_flight: bool = False


@dataclass(frozen=True, slots=True)
class TransitionRefusal:
    """Why `event` changed nothing in `phase`: no row, or only rows whose guards said no."""

    phase: Phase
    event: EventKind
    guards: tuple[Guard, ...]

    def __str__(self) -> str:
        if not self.guards:
            return f"{self.event} is not in the table for {self.phase}"
        return f"{self.event} in {self.phase} was refused by {', '.join(self.guards)}"


class PhaseMachine:
    """The controller's state, moved only along the rows of the table.

    `came_from` is the state to which ISOLATING, HEALING, SAFE_MODE and PAUSED return; it is remembered when the first
    of them is entered, and moves on where a phase passes meanwhile.

    Args:
        daemon: True under `iace govern`, where a failed phase is retried from SAFE_MODE instead of ending.
    """

    def __init__(self, *, daemon: bool, phase: Phase = Phase.IDLE, came_from: Phase = Phase.IDLE) -> None:
        self.daemon = daemon
        self.came_from = came_from
        self._facts = Facts()
        self.state: str = phase.value  # the attribute that `transitions` moves

    @property
    def phase(self) -> Phase:
        """The present state."""
        return _PHASES[self.state]

    def fire(self, event: EventKind, facts: Facts = Facts()) -> TransitionRefusal | None:
        """Move along the row for `event`, given what the guards ask for; None if it moved, else why not."""
        source = self.phase
        rows = _ROWS.get((source, event), ())
        self._facts = facts
        # `rows` is asked first because `transitions` raises on a pair that it does not know.
        if not rows or not _ENGINE.events[event.value].trigger(self):
            return TransitionRefusal(source, event, tuple(row.guard for row in rows))
        if self.phase in EXCURSIONS and source not in EXCURSIONS:
            self.came_from = source
        elif event is EventKind.PHASE_PASSED and self.phase in EXCURSIONS:
            self.came_from = FOLLOWING.get(self.came_from, self.came_from)
        return None

    def _always(self, _event: Any) -> bool:  # noqa: ANN401 - the library's own event type, unused
        return True

    def _as_daemon(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.daemon

    def _as_run(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return not self.daemon

    def _held(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self._facts.held

    def _in_flight(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self._facts.in_flight

    def _came_from_phase_i(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.came_from is Phase.PHASE_I

    def _came_from_phase_ii(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.came_from is Phase.PHASE_II

    def _came_from_phase_iii(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.came_from is Phase.PHASE_III

    def _came_from_governing(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.came_from is Phase.GOVERNING

    def _came_from_phase_iv(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self.came_from is Phase.PHASE_IV

    def _coherent_outcome(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return self._facts.coherent

    def _dissonant_outcome(self, _event: Any) -> bool:  # noqa: ANN401 - as above
        return not self._facts.coherent


_PHASES = {phase.value: phase for phase in Phase}
_ROWS = {(row.source, row.event): tuple(r for r in TABLE if r[:2] == row[:2]) for row in TABLE}
# One engine moves every machine: it holds the table and no state, and building it costs more than a tick.
_ENGINE = Machine(
    model=None,
    states=list(_PHASES),
    initial=Phase.IDLE.value,
    transitions=[
        {
            "trigger": row.event.value,
            "source": row.source.value,
            "dest": row.destination.value,
            "conditions": [f"_{row.guard.value}"],
        }
        for row in TABLE
    ],
    auto_transitions=False,
    ignore_invalid_triggers=False,
    send_event=True,
)
