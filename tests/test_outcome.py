"""From facts to the exit code, by one precedence."""

import itertools

import pytest

from metrics.errors import (
    BadDataError,
    ConfigInvalidError,
    IaceError,
    InvariantBreachError,
    NotLeaderError,
    NotPermittedError,
    PlantRefusedError,
    PlantUnavailableError,
    RequestRefusedError,
    StoreFailedError,
    UnsupportedError,
)
from state.outcome import PRECEDENCE, ExitCode, Facts, code_of, decide
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult


def phase(which, status):
    return PhaseResult(which, (CheckResult("a.check", status, "it was tried"),))


# One way to reach each code, in the order of precedence.
REASONS = {
    70: {"errors": (InvariantBreachError("budgets_hold", "3 of 5"),)},
    74: {"errors": (StoreFailedError("disk full"),)},
    75: {"errors": (NotLeaderError("held by 12"),)},
    77: {"errors": (NotPermittedError("read-only"),)},
    78: {"errors": (ConfigInvalidError("iace.toml", ["a: b"]),)},
    65: {"errors": (BadDataError("broken"),)},
    69: {"errors": (PlantUnavailableError("no answer"),)},
    130: {"signal": ExitCode.INTERRUPTED},
    143: {"signal": ExitCode.TERMINATED},
    10: {"phases": (phase(Phase.PHASE_I, CheckStatus.FAILED),)},
    20: {"phases": (phase(Phase.PHASE_II, CheckStatus.FAILED),)},
    30: {"phases": (phase(Phase.PHASE_III, CheckStatus.FAILED),)},
    61: {"undecided": ("the deadline has passed",)},
    60: {"safe_mode": "storm"},
    51: {"blocked": ("n1 (budget_cluster)",)},
    50: {"unhealthy": ("gas",)},
    40: {"phases": (phase(Phase.PHASE_IV, CheckStatus.FAILED),)},
}


def test_precedence_is_a_contract():
    """The order of the codes is what docs and pipelines rely on."""
    assert [int(code) for code in PRECEDENCE] == list(REASONS)


@pytest.mark.parametrize("code", REASONS)
def test_each_code_is_reached_by_its_own_reason(code):
    """One reason alone gives its code and one cause, and is dissonant."""
    outcome = decide(Facts(**REASONS[code]))
    assert (int(outcome.code), len(outcome.causes)) == (code, 1)
    assert not outcome.coherent
    assert outcome.status_code == "500_CRITICAL_DISSONANCE"


# Every pair but the two signals: a run is stopped by one of them.
PAIRS = [pair for pair in itertools.combinations(REASONS, 2) if pair != (130, 143)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_earlier_reason_decides_and_both_are_told(first, second):
    """Of any two reasons the one that stands first decides, and no cause is lost."""
    one, other = REASONS[first], REASONS[second]
    both = {name: one.get(name, ()) + other.get(name, ()) for name in one.keys() & other.keys()}
    outcome = decide(Facts(**(other | one | both)))
    assert int(outcome.code) == first
    assert outcome.causes == decide(Facts(**one)).causes + decide(Facts(**other)).causes


def test_no_reason_is_coherent_lock():
    """Nothing wrong up to the end of Phase IV is 0, with a sentence."""
    outcome = decide(
        Facts(phases=(phase(Phase.PHASE_I, CheckStatus.PASSED), phase(Phase.PHASE_IV, CheckStatus.PASSED)))
    )
    assert (int(outcome.code), outcome.coherent, outcome.status_code) == (0, True, "200_COHERENT_LOCK")
    assert outcome.causes == ("every phase passed and the KPIs are within limits",)


@pytest.mark.parametrize("phases", [(), (phase(Phase.PHASE_I, CheckStatus.PASSED),)])
def test_a_run_that_stopped_short_is_never_coherent(phases):
    """Without Phase IV there is no verdict, even where nothing is known to be wrong."""
    assert decide(Facts(phases=phases)).code is ExitCode.INCONCLUSIVE


def test_causes_are_sentences_with_their_values():
    """A cause names check, guard, KPI or error in words."""
    facts = Facts(
        phases=(phase(Phase.PHASE_II, CheckStatus.FAILED), phase(Phase.PHASE_III, CheckStatus.ERROR)),
        errors=(ZeroDivisionError("division by zero"),),
        safe_mode="storm: 30 of 50",
        blocked=("n1 (quorum)", "c2 (budget_cluster)"),
        unhealthy=("gas", "coherence"),
    )
    assert decide(facts).causes == (
        "ZeroDivisionError: division by zero",
        "PHASE_II failed: a.check: it was tried",
        "PHASE_III is undecided: a.check error: it was tried",
        "holding fail-static: storm: 30 of 50",
        "gravity wells left in place: n1 (quorum), c2 (budget_cluster)",
        "outside limits at the end: gas, coherence",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PlantRefusedError("isolate", "no"), 69),
        (UnsupportedError("nodes"), 69),
        (IaceError("unspecific"), 70),
        (KeyError("n1"), 70),
        (MemoryError(), 70),
        (KeyboardInterrupt(), 70),
        (RequestRefusedError("too many requests"), 1),
    ],
)
def test_errors_have_their_code(error, code):
    """Subclasses count as their family, and what is not of the family is a bug."""
    assert int(code_of(error)) == code


def test_every_exit_code_has_its_number():
    """Exit codes are permanent."""
    assert {code.name: int(code) for code in ExitCode} == {
        "COHERENT_LOCK": 0,
        "FINDING": 1,
        "USAGE": 2,
        "PHASE_I_FAILED": 10,
        "PHASE_II_FAILED": 20,
        "PHASE_III_FAILED": 30,
        "PHASE_IV_FAILED": 40,
        "CRITICAL_DISSONANCE": 50,
        "ISOLATION_BLOCKED": 51,
        "SAFE_MODE": 60,
        "INCONCLUSIVE": 61,
        "BAD_DATA": 65,
        "PLANT_UNAVAILABLE": 69,
        "INTERNAL_ERROR": 70,
        "STORE_FAILED": 74,
        "NOT_LEADER": 75,
        "NOT_PERMITTED": 77,
        "CONFIG_INVALID": 78,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }
