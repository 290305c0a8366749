"""What a phase makes of its checks."""

import itertools

import pytest

from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult, PhaseVerdict

S, V = CheckStatus, PhaseVerdict


def check(status, name="a.check", **options):
    return CheckResult(name, status, "it was tried", **options)


def result(*checks):
    return PhaseResult(Phase.PHASE_II, checks)


def test_statuses_are_ordered_from_best_to_worst():
    """Passed < skipped < inconclusive < error < failed."""
    assert [status.value for status in sorted(S, key=lambda status: status.rank)] == [
        "passed",
        "skipped",
        "inconclusive",
        "error",
        "failed",
    ]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(S, S)))
def test_a_phase_takes_the_worst(one, other):
    """The order of the checks does not matter, only the worst of them."""
    assert result(check(one), check(other)).status is max(one, other, key=lambda status: status.rank)


@pytest.mark.parametrize(
    ("status", "required", "verdict"),
    [
        (S.PASSED, True, V.PASSED),
        (S.SKIPPED, True, V.UNDECIDED),
        (S.INCONCLUSIVE, True, V.UNDECIDED),
        (S.ERROR, True, V.UNDECIDED),
        (S.FAILED, True, V.FAILED),
        (S.PASSED, False, V.PASSED),
        (S.SKIPPED, False, V.PASSED),
        (S.INCONCLUSIVE, False, V.PASSED),
        (S.ERROR, False, V.PASSED),
        (S.FAILED, False, V.FAILED),
    ],
)
def test_only_a_required_check_leaves_a_phase_undecided(status, required, verdict):
    """A required check must pass, an optional one must not fail."""
    phase = result(check(S.PASSED), check(status, "b.check", required=required))
    assert phase.verdict is verdict
    assert [c.name for c in phase.undecided()] == (["b.check"] if verdict is V.UNDECIDED else [])
    assert [c.name for c in phase.failed()] == (["b.check"] if verdict is V.FAILED else [])


def test_a_failed_check_outranks_an_undecided_one():
    """Failed is failed, whatever else is not known."""
    assert result(check(S.ERROR), check(S.FAILED)).verdict is V.FAILED


@pytest.mark.parametrize("status", list(S))
def test_a_dry_run_check_never_counts(status):
    """It is reported beside the others and changes nothing."""
    phase = result(check(S.PASSED), check(status, dry_run=True))
    assert (phase.status, phase.verdict, phase.failed(), phase.undecided()) == (S.PASSED, V.PASSED, (), ())


@pytest.mark.parametrize("checks", [(), (check(S.PASSED, dry_run=True),)], ids=["none", "dry runs only"])
def test_a_phase_without_checks_that_count_is_undecided(checks):
    """Nothing checked is never taken for passed."""
    phase = result(*checks)
    assert (phase.status, phase.verdict) == (S.INCONCLUSIVE, V.UNDECIDED)
    assert [c.message for c in phase.undecided()] == ["the phase made no check that counts"]
