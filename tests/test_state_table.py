"""Every state with every event: the table says what happens, and the machine does exactly that."""

import itertools

import pytest

from state.diagram import mermaid
from state.event import EventKind
from state.machine import TRIGGERS, Facts, PhaseMachine
from state.phase import Phase
from state.table import PAUSABLE, TABLE, Guard

P, E = Phase, EventKind

# What a reader of the document expects, for a run that came from GOVERNING and ends coherently.
EXPECTED = {
    P.IDLE: {E.RUN_STARTED: P.PHASE_I},
    P.PHASE_I: {
        E.PHASE_PASSED: P.PHASE_II,
        E.PHASE_FAILED: P.CRITICAL_DISSONANCE,
        E.PHASE_UNDECIDED: P.CRITICAL_DISSONANCE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
    },
    P.PHASE_II: {
        E.PHASE_PASSED: P.PHASE_III,
        E.PHASE_FAILED: P.CRITICAL_DISSONANCE,
        E.PHASE_UNDECIDED: P.CRITICAL_DISSONANCE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
    },
    P.PHASE_III: {
        E.PHASE_PASSED: P.GOVERNING,
        E.PHASE_FAILED: P.CRITICAL_DISSONANCE,
        E.PHASE_UNDECIDED: P.CRITICAL_DISSONANCE,
        E.ISOLATION_INTENDED: P.ISOLATING,
        E.RENEWAL_INTENDED: P.ISOLATING,
        E.RESTORATION_INTENDED: P.ISOLATING,
        E.STORM_DETECTED: P.SAFE_MODE,
        E.SENSORS_DOUBTED: P.SAFE_MODE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
    },
    P.GOVERNING: {
        E.ISOLATION_INTENDED: P.ISOLATING,
        E.RENEWAL_INTENDED: P.ISOLATING,
        E.RESTORATION_INTENDED: P.ISOLATING,
        E.TRIAL_STARTED: P.HEALING,
        E.STORM_DETECTED: P.SAFE_MODE,
        E.SENSORS_DOUBTED: P.SAFE_MODE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
        E.WINDOW_ENDED: P.PHASE_IV,
    },
    P.ISOLATING: {
        E.ISOLATION_INTENDED: P.ISOLATING,
        E.RENEWAL_INTENDED: P.ISOLATING,
        E.RESTORATION_INTENDED: P.ISOLATING,
        E.ACTIONS_SETTLED: P.GOVERNING,
        E.ISOLATION_FAILED: P.SAFE_MODE,
        E.STORM_DETECTED: P.SAFE_MODE,
        E.SENSORS_DOUBTED: P.SAFE_MODE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
        E.PHASE_FAILED: P.CRITICAL_DISSONANCE,
        E.PHASE_UNDECIDED: P.CRITICAL_DISSONANCE,
    },
    P.HEALING: {
        E.TRIAL_KEPT: P.GOVERNING,
        E.TRIAL_ROLLED_BACK: P.GOVERNING,
        E.ROLLBACK_FAILED: P.SAFE_MODE,
        E.RENEWAL_INTENDED: P.HEALING,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
    },
    P.PHASE_IV: {
        E.TRIAL_STARTED: P.HEALING,
        E.RENEWAL_INTENDED: P.PHASE_IV,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
        E.RUN_ENDED: P.COHERENT_LOCK,
    },
    P.SAFE_MODE: {
        E.SAFE_MODE_LEFT: P.GOVERNING,
        E.PHASE_PASSED: P.SAFE_MODE,
        E.PHASE_FAILED: P.CRITICAL_DISSONANCE,
        E.PHASE_UNDECIDED: P.CRITICAL_DISSONANCE,
        E.ISOLATION_FAILED: P.SAFE_MODE,
        E.TRIAL_ROLLED_BACK: P.SAFE_MODE,
        E.ROLLBACK_FAILED: P.SAFE_MODE,
        E.RENEWAL_INTENDED: P.SAFE_MODE,
        E.INVARIANT_BREACHED: P.SAFE_MODE,
    },
    P.PAUSED: {
        E.RESUMED: P.GOVERNING,
        E.RENEWAL_INTENDED: P.PAUSED,
        E.ISOLATION_FAILED: P.PAUSED,
        E.INVARIANT_BREACHED: P.PAUSED,
    },
}
for pausable in PAUSABLE:
    EXPECTED[pausable] |= {E.PAUSED: P.PAUSED}


def answers(*, daemon, came_from, facts):
    """The guards that say yes."""
    origins = {
        P.PHASE_I: Guard.CAME_FROM_PHASE_I,
        P.PHASE_II: Guard.CAME_FROM_PHASE_II,
        P.PHASE_III: Guard.CAME_FROM_PHASE_III,
        P.GOVERNING: Guard.CAME_FROM_GOVERNING,
        P.PHASE_IV: Guard.CAME_FROM_PHASE_IV,
    }
    return {
        Guard.ALWAYS,
        Guard.AS_DAEMON if daemon else Guard.AS_RUN,
        Guard.COHERENT if facts.coherent else Guard.DISSONANT,
        origins[came_from],
        *([Guard.HELD] if facts.held else []),
        *([Guard.IN_FLIGHT] if facts.in_flight else []),
    }


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("came_from", [P.PHASE_I, P.PHASE_II, P.PHASE_III, P.GOVERNING, P.PHASE_IV])
@pytest.mark.parametrize("daemon", [False, True], ids=["run", "daemon"])
def test_every_event_moves_or_is_refused_as_the_table_says(phase, came_from, daemon):
    """Each cell of state × event leads where its row says, or is refused with the guards that said no."""
    machine = PhaseMachine(daemon=daemon)
    for event, facts in itertools.product(
        EventKind, itertools.starmap(Facts, itertools.product((False, True), repeat=3))
    ):
        yes = answers(daemon=daemon, came_from=came_from, facts=facts)
        rows = [row for row in TABLE if row.source is phase and row.event is event]
        wanted = [row.destination for row in rows if row.guard in yes][:1]
        machine.state, machine.came_from = phase.value, came_from
        refusal = machine.fire(event, facts)
        if wanted:
            assert refusal is None
            assert [machine.phase] == wanted
        else:
            assert machine.phase is phase
            assert (refusal.phase, refusal.event) == (phase, event)
            assert refusal.guards == tuple(row.guard for row in rows)


@pytest.mark.parametrize("phase", Phase)
def test_table_reads_like_the_document(phase):
    """For a run the whole table is what the document says, cell by cell."""
    machine = PhaseMachine(daemon=False)
    for event in EventKind:
        machine.state, machine.came_from = phase.value, P.GOVERNING
        wanted = EXPECTED.get(phase, {}).get(event)
        refusal = machine.fire(event, Facts(coherent=True))
        assert (machine.phase if refusal is None else None) is wanted, event


def test_only_events_of_the_table_move_anything():
    """Events that merely tell are no triggers."""
    assert EventKind.GRAVITY_WELL_CONFIRMED not in TRIGGERS
    assert EventKind.ROLLBACK_INTENDED not in TRIGGERS
    assert {row.event for row in TABLE} == TRIGGERS


def test_a_run_ends_from_everywhere_but_the_lock():
    """Whatever state an error finds, the run can be ended; only Phase IV locks."""
    ending = [row for row in TABLE if row.event is E.RUN_ENDED]
    assert {row.source for row in ending if row.guard is Guard.DISSONANT} == set(Phase) - {P.COHERENT_LOCK}
    assert [row.source for row in ending if row.guard is Guard.COHERENT] == [P.PHASE_IV]


def test_final_states_are_final():
    """Nothing leads out of COHERENT_LOCK, and out of CRITICAL_DISSONANCE only into itself."""
    assert {row.destination for row in TABLE if row.source is P.CRITICAL_DISSONANCE} == {P.CRITICAL_DISSONANCE}
    assert not [row for row in TABLE if row.source is P.COHERENT_LOCK]


def test_rows_are_unique():
    """No row stands in the table twice."""
    assert len(set(TABLE)) == len(TABLE)


def test_phase_numbers_are_permanent():
    """Dashboards store these numbers."""
    assert {phase.value: phase.number for phase in Phase} == {
        "IDLE": 0,
        "PHASE_I": 1,
        "PHASE_II": 2,
        "PHASE_III": 3,
        "GOVERNING": 4,
        "ISOLATING": 5,
        "HEALING": 6,
        "PHASE_IV": 7,
        "SAFE_MODE": 8,
        "PAUSED": 9,
        "COHERENT_LOCK": 200,
        "CRITICAL_DISSONANCE": 500,
    }
    assert [phase for phase in Phase if phase.final] == [P.COHERENT_LOCK, P.CRITICAL_DISSONANCE]
    assert all(phase.meaning for phase in Phase)


def test_diagram_shows_every_transition():
    """The diagram is made from the table: every row's event stands on the arrow between its states."""
    text = mermaid()
    for row in TABLE:
        arrow = next(line for line in text.splitlines() if line.startswith(f"    {row.source} --> {row.destination}:"))
        assert row.event in arrow
    assert text.startswith("stateDiagram-v2\n    [*] --> IDLE\n")
