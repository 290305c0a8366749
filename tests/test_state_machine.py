"""The machine: where it comes back to, and how it says no."""

from state.event import EventKind as E
from state.machine import PhaseMachine
from state.phase import Phase


def moved(*events, daemon=False, phase=Phase.IDLE):
    machine = PhaseMachine(daemon=daemon, phase=phase)
    for event in events:
        assert machine.fire(event) is None, event
    return machine


def test_isolating_returns_to_where_it_came_from():
    """From Phase III back to Phase III, from GOVERNING back to GOVERNING."""
    for origin in (Phase.PHASE_III, Phase.GOVERNING):
        assert moved(E.ISOLATION_INTENDED, E.RESTORATION_INTENDED, E.ACTIONS_SETTLED, phase=origin).phase is origin


def test_healing_returns_to_where_it_came_from():
    """From Phase IV back to Phase IV, from GOVERNING back to GOVERNING, kept or rolled back."""
    for origin in (Phase.PHASE_IV, Phase.GOVERNING):
        for end in (E.TRIAL_KEPT, E.TRIAL_ROLLED_BACK):
            assert moved(E.TRIAL_STARTED, end, phase=origin).phase is origin


def test_safe_mode_returns_past_the_excursion():
    """A hold that began during an isolation leads to where that had begun."""
    path = (E.ISOLATION_INTENDED, E.STORM_DETECTED, E.SAFE_MODE_LEFT)
    assert moved(*path, phase=Phase.PHASE_III).phase is Phase.PHASE_III
    assert moved(*path, phase=Phase.GOVERNING).phase is Phase.GOVERNING


def test_a_phase_that_passes_in_safe_mode_moves_the_return():
    """After Phase III has passed in a hold, the hold leads to GOVERNING."""
    machine = moved(E.STORM_DETECTED, E.PHASE_PASSED, phase=Phase.PHASE_III)
    assert machine.phase is Phase.SAFE_MODE
    assert machine.fire(E.SAFE_MODE_LEFT) is None
    assert machine.phase is Phase.GOVERNING


def test_a_phase_that_passes_during_its_isolation_moves_the_return():
    """Phase III may pass while an action is in flight: what comes after it is GOVERNING."""
    machine = moved(E.ISOLATION_INTENDED, E.PHASE_PASSED, phase=Phase.PHASE_III)
    assert machine.phase is Phase.ISOLATING
    assert machine.fire(E.PHASE_PASSED) is not None
    assert machine.fire(E.ACTIONS_SETTLED) is None
    assert machine.phase is Phase.GOVERNING


def test_refusals_explain_themselves():
    """An unknown pair is named as such, a guarded one with the guards that said no."""
    machine = PhaseMachine(daemon=False)
    assert str(machine.fire(E.TRIAL_KEPT)) == "TRIAL_KEPT is not in the table for IDLE"
    machine = PhaseMachine(daemon=False, phase=Phase.HEALING, came_from=Phase.IDLE)
    assert str(machine.fire(E.TRIAL_KEPT)) == (
        "TRIAL_KEPT in HEALING was refused by came_from_governing, came_from_phase_iv"
    )


def test_coherence_is_asked_anew_each_time():
    """A coherent end that was refused does not make a later, dissonant one coherent."""
    machine = PhaseMachine(daemon=False, phase=Phase.PHASE_I)
    assert machine.fire(E.RUN_ENDED, coherent=True) is not None
    assert machine.fire(E.RUN_ENDED) is None
    assert machine.phase is Phase.CRITICAL_DISSONANCE
