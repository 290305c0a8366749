"""The machine: where it comes back to, and how it says no."""

from state.event import EventKind as E
from state.machine import Facts, PhaseMachine
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


def test_a_hold_skips_no_phase():
    """A phase that passes in a hold leads on to the next one, not past those that were never made."""
    for phase, following in ((Phase.PHASE_I, Phase.PHASE_II), (Phase.PHASE_II, Phase.PHASE_III)):
        machine = moved(E.INVARIANT_BREACHED, E.PHASE_PASSED, E.SAFE_MODE_LEFT, phase=phase)
        assert machine.phase is following


def test_a_phase_that_fails_in_a_daemon_s_hold_keeps_the_hold():
    """A daemon makes the phase again later; a run ends."""
    for event in (E.PHASE_FAILED, E.PHASE_UNDECIDED):
        machine = moved(E.STORM_DETECTED, event, daemon=True, phase=Phase.PHASE_III)
        assert machine.phase is Phase.SAFE_MODE
        assert machine.came_from is Phase.PHASE_III
        assert moved(E.STORM_DETECTED, event, phase=Phase.PHASE_III).phase is Phase.CRITICAL_DISSONANCE


def test_a_pause_returns_to_what_it_interrupted():
    """To the phase, to what is in flight, or to the hold, whichever there is when it ends."""
    for origin in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III, Phase.GOVERNING):
        for facts, destination in (
            (Facts(), origin),
            (Facts(in_flight=True), Phase.ISOLATING),
            (Facts(held=True, in_flight=True), Phase.SAFE_MODE),
        ):
            machine = moved(E.PAUSED, phase=origin)
            assert machine.fire(E.RESUMED, facts) is None
            assert (machine.phase, machine.came_from) == (destination, origin)


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
    assert machine.fire(E.RUN_ENDED, Facts(coherent=True)) is not None
    assert machine.fire(E.RUN_ENDED) is None
    assert machine.phase is Phase.CRITICAL_DISSONANCE
