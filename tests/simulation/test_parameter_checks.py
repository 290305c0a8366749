"""The oracle's book of the parameters: what it lets pass, and what it does not."""

from types import SimpleNamespace

import pytest

from controller.simulation.ground import ViolatedError
from controller.simulation.parameter_checks import ParameterChecks
from metrics.observation import Parameters
from state.event import Event
from state.event import EventKind as E
from state.healing import HealingPolicy

BEFORE = Parameters()
AFTER = Parameters(lambda1=BEFORE.lambda1 * 1.5)


class Stage:
    """A plant with parameters, and the checks that watch it."""

    def __init__(self):
        self.core = SimpleNamespace(parameters=BEFORE, life=0)
        self.checks = ParameterChecks(self.core, HealingPolicy())
        self.trials = 0

    def start(self, before=BEFORE, after=AFTER, at_s=0.0):
        self.trials += 1
        data = {"key": f"apply-{self.trials}", "from": before.as_dict(), "to": after.as_dict()}
        self.checks.durable(Event(E.TRIAL_STARTED, at_s, data))

    def roll_back(self, to):
        self.checks.durable(Event(E.ROLLBACK_INTENDED, 0.0, {"key": "rollback-2", "to": to.as_dict()}))

    def end(self, kind):
        self.checks.durable(Event(kind, 0.0, {"trial": 1}))

    def finds(self, act, *args, **named):
        with pytest.raises(ViolatedError) as found:
            act(*args, **named)
        return found.value.invariant


@pytest.fixture
def stage():
    return Stage()


def test_a_trial_that_is_kept_becomes_what_is_good(stage):
    """The next trial has to begin with what the last one left."""
    stage.start()
    stage.core.parameters = AFTER
    stage.end(E.TRIAL_KEPT)
    stage.checks.at_rest()
    assert stage.finds(stage.start) == "last_good_is_known"
    stage.start(AFTER, BEFORE)


def test_a_trial_that_is_rolled_back_leaves_what_was_good(stage):
    """The end of a rollback means that the plant has the old values."""
    stage.start()
    stage.core.parameters = AFTER
    stage.roll_back(BEFORE)
    assert stage.finds(stage.end, E.TRIAL_ROLLED_BACK) == "last_good_is_known"
    stage.core.parameters = BEFORE
    stage.end(E.TRIAL_ROLLED_BACK)
    stage.checks.at_rest()


def test_a_rollback_leads_nowhere_else(stage):
    """A rollback to other values than the trial began with is found, and so is a plant that is left with others."""
    stage.start()
    assert stage.finds(stage.roll_back, AFTER) == "last_good_comes_back"
    stage.core.parameters = AFTER
    assert stage.finds(stage.checks.at_rest) == "last_good_comes_back"


def test_only_what_was_intended_is_asked_for(stage):
    """Values under a key that is not on record, or others than it names, are found."""
    stage.start()
    stage.checks.sent("apply-1", AFTER)
    stage.checks.sent("isolate-7", None)
    assert stage.finds(stage.checks.sent, "apply-1", BEFORE) == "intents_come_first"
    assert stage.finds(stage.checks.sent, "apply-9", AFTER) == "intents_come_first"


def test_nothing_moves_far_at_a_time(stage):
    """A coupling by more than a factor of 2.02, or α by more than 0.5, is found."""
    for far in (
        Parameters(lambda1=BEFORE.lambda1 * 2.1),
        Parameters(lambda2=BEFORE.lambda2 / 2.1),
        Parameters(alpha=1.6),
    ):
        assert stage.finds(stage.start, BEFORE, far) == "steps_are_small"


def test_trials_have_a_rate(stage):
    """Ten at once are within the bucket, an eleventh is not."""
    for _ in range(10):
        stage.start()
        stage.end(E.TRIAL_ROLLED_BACK)
    assert stage.finds(stage.start) == "rate_is_kept"


def test_a_plant_that_starts_again_may_have_other_values(stage):
    """After a restart of the plant, or a rollback that failed, what is found there is where the next trial begins."""
    stage.start()
    stage.end(E.ROLLBACK_FAILED)
    stage.start(AFTER, BEFORE)
    stage.core.life, stage.core.parameters = 1, Parameters(lambda2=1.0)
    stage.checks.at_rest()
    stage.start(stage.core.parameters, stage.core.parameters)
