"""The transition table: every state change there is, as data that reads like the document.

The machine, the diagram and the exhaustive tests are built from these rows and from nothing else. A pair of state and
event that is not here is refused. Guards are named questions about where the controller came from or how it was
started; they are answered in `machine.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from state.event import EventKind as E
from state.phase import Phase as P  # noqa: N817 - sixty rows read better short


class Guard(StrEnum):
    """A question whose answer must be yes for the row to apply."""

    ALWAYS = "always"
    AS_RUN = "as_run"
    AS_DAEMON = "as_daemon"
    HELD = "held"
    IN_FLIGHT = "in_flight"
    CAME_FROM_PHASE_I = "came_from_phase_i"
    CAME_FROM_PHASE_II = "came_from_phase_ii"
    CAME_FROM_PHASE_III = "came_from_phase_iii"
    CAME_FROM_GOVERNING = "came_from_governing"
    CAME_FROM_PHASE_IV = "came_from_phase_iv"
    COHERENT = "coherent_outcome"
    DISSONANT = "dissonant_outcome"


class Row(NamedTuple):
    """In `source`, when `event` has happened and `guard` says yes, go to `destination`; the first such row applies."""

    source: P
    event: E
    guard: Guard
    destination: P


def _phase_rows(phase: P, following: P) -> tuple[Row, ...]:
    return (
        Row(phase, E.PHASE_PASSED, Guard.ALWAYS, following),
        Row(phase, E.PHASE_FAILED, Guard.AS_RUN, P.CRITICAL_DISSONANCE),
        Row(phase, E.PHASE_FAILED, Guard.AS_DAEMON, P.SAFE_MODE),
        Row(phase, E.PHASE_UNDECIDED, Guard.AS_RUN, P.CRITICAL_DISSONANCE),
        Row(phase, E.PHASE_UNDECIDED, Guard.AS_DAEMON, P.SAFE_MODE),
    )


def _safe_mode_rows(phase: P, *causes: E) -> tuple[Row, ...]:
    return tuple(Row(phase, cause, Guard.ALWAYS, P.SAFE_MODE) for cause in causes)


PAUSABLE = (P.PHASE_I, P.PHASE_II, P.PHASE_III, P.GOVERNING, P.ISOLATING, P.SAFE_MODE)
_IN_PAUSE = (E.RENEWAL_INTENDED, E.ISOLATION_FAILED, E.INVARIANT_BREACHED)
_NOT_PASSED = (E.PHASE_FAILED, E.PHASE_UNDECIDED)
_RETURNS = (
    (Guard.CAME_FROM_PHASE_I, P.PHASE_I),
    (Guard.CAME_FROM_PHASE_II, P.PHASE_II),
    (Guard.CAME_FROM_PHASE_III, P.PHASE_III),
    (Guard.CAME_FROM_GOVERNING, P.GOVERNING),
)

TABLE: tuple[Row, ...] = (
    Row(P.IDLE, E.RUN_STARTED, Guard.ALWAYS, P.PHASE_I),
    *_phase_rows(P.PHASE_I, P.PHASE_II),
    *_phase_rows(P.PHASE_II, P.PHASE_III),
    *_phase_rows(P.PHASE_III, P.GOVERNING),
    # Phase III proves gravity gating with the real policy, so it isolates and re-admits like the daemon does.
    Row(P.PHASE_III, E.ISOLATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.PHASE_III, E.RESTORATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.PHASE_III, E.RENEWAL_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.GOVERNING, E.ISOLATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.GOVERNING, E.RESTORATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.GOVERNING, E.RENEWAL_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.ISOLATING, E.ISOLATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.ISOLATING, E.RESTORATION_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.ISOLATING, E.RENEWAL_INTENDED, Guard.ALWAYS, P.ISOLATING),
    Row(P.ISOLATING, E.ACTIONS_SETTLED, Guard.CAME_FROM_PHASE_III, P.PHASE_III),
    Row(P.ISOLATING, E.ACTIONS_SETTLED, Guard.CAME_FROM_GOVERNING, P.GOVERNING),
    Row(P.GOVERNING, E.TRIAL_STARTED, Guard.ALWAYS, P.HEALING),
    Row(P.PHASE_IV, E.TRIAL_STARTED, Guard.ALWAYS, P.HEALING),
    Row(P.HEALING, E.TRIAL_KEPT, Guard.CAME_FROM_GOVERNING, P.GOVERNING),
    Row(P.HEALING, E.TRIAL_KEPT, Guard.CAME_FROM_PHASE_IV, P.PHASE_IV),
    Row(P.HEALING, E.TRIAL_ROLLED_BACK, Guard.CAME_FROM_GOVERNING, P.GOVERNING),
    Row(P.HEALING, E.TRIAL_ROLLED_BACK, Guard.CAME_FROM_PHASE_IV, P.PHASE_IV),
    *_safe_mode_rows(P.PHASE_I, E.INVARIANT_BREACHED),
    *_safe_mode_rows(P.PHASE_II, E.INVARIANT_BREACHED),
    *_safe_mode_rows(P.PHASE_III, E.STORM_DETECTED, E.SENSORS_DOUBTED, E.INVARIANT_BREACHED),
    *_safe_mode_rows(P.GOVERNING, E.STORM_DETECTED, E.SENSORS_DOUBTED, E.INVARIANT_BREACHED),
    *_safe_mode_rows(P.ISOLATING, E.STORM_DETECTED, E.SENSORS_DOUBTED, E.ISOLATION_FAILED, E.INVARIANT_BREACHED),
    # A storm during a trial rolls the trial back first: SAFE_MODE changes nothing, and a trial must not outlive it.
    *_safe_mode_rows(P.HEALING, E.ROLLBACK_FAILED, E.INVARIANT_BREACHED),
    *_safe_mode_rows(P.PHASE_IV, E.INVARIANT_BREACHED),
    # A phase may end while its own isolation is still in flight, or after it has led to a hold.
    Row(P.ISOLATING, E.PHASE_PASSED, Guard.CAME_FROM_PHASE_III, P.ISOLATING),
    *(Row(P.ISOLATING, event, Guard.AS_RUN, P.CRITICAL_DISSONANCE) for event in _NOT_PASSED),
    *(Row(P.ISOLATING, event, Guard.AS_DAEMON, P.SAFE_MODE) for event in _NOT_PASSED),
    *(Row(P.SAFE_MODE, event, Guard.AS_RUN, P.CRITICAL_DISSONANCE) for event in _NOT_PASSED),
    *(Row(P.SAFE_MODE, event, Guard.AS_DAEMON, P.SAFE_MODE) for event in _NOT_PASSED),
    *_safe_mode_rows(P.SAFE_MODE, E.PHASE_PASSED),
    # What was in flight when SAFE_MODE began is still read back there.
    *_safe_mode_rows(P.SAFE_MODE, E.ISOLATION_FAILED, E.TRIAL_ROLLED_BACK, E.ROLLBACK_FAILED, E.INVARIANT_BREACHED),
    # In these states nobody is taken out or let in, and static means that who is out stays out: limits are renewed.
    *(Row(phase, E.RENEWAL_INTENDED, Guard.ALWAYS, phase) for phase in (P.SAFE_MODE, P.HEALING, P.PHASE_IV)),
    # A phase whose checks are still being made goes on where it was; a daemon makes those of a failed one again.
    Row(P.SAFE_MODE, E.SAFE_MODE_LEFT, Guard.IN_FLIGHT, P.ISOLATING),
    *(Row(P.SAFE_MODE, E.SAFE_MODE_LEFT, guard, phase) for guard, phase in _RETURNS),
    # Pause: nothing is started, what was in flight is read back, and who is out stays out.
    *(Row(phase, E.PAUSED, Guard.ALWAYS, P.PAUSED) for phase in PAUSABLE),
    *(Row(P.PAUSED, event, Guard.ALWAYS, P.PAUSED) for event in _IN_PAUSE),
    Row(P.PAUSED, E.RESUMED, Guard.HELD, P.SAFE_MODE),
    Row(P.PAUSED, E.RESUMED, Guard.IN_FLIGHT, P.ISOLATING),
    *(Row(P.PAUSED, E.RESUMED, guard, phase) for guard, phase in _RETURNS),
    Row(P.GOVERNING, E.WINDOW_ENDED, Guard.ALWAYS, P.PHASE_IV),
    Row(P.PHASE_IV, E.RUN_ENDED, Guard.COHERENT, P.COHERENT_LOCK),
    *(Row(phase, E.RUN_ENDED, Guard.DISSONANT, P.CRITICAL_DISSONANCE) for phase in P if phase is not P.COHERENT_LOCK),
)
