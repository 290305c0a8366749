"""What is tried while the limits hold: margins that are being lost, much cost saved, and never for noise's sake."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from metrics.haru.plant_model import Bias, Environment
from metrics.observation import Parameters
from state.durable import GRAY_BOX, IMPROVEMENT, DurableState
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.improvement import AVERAGED, LOOK_TICKS, ImprovementWatch
from state.machine import PhaseMachine
from state.phase import Phase
from state.trial_window import Effect, Measured, compare_objective, detectable

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
CALM = Environment()
DETUNED = replace(CALM, frequency_spread=0.15**2 + 0.0023, typical_spread=0.15**2 + 0.0023)
UNEVEN = replace(CALM, frequency_spread=0.12**2, typical_spread=0.12**2)
LAVISH = Parameters(lambda1=0.8, lambda2=0.8)


def found(*environments, parameters, noise=0.0, trust=1.0, tick=LOOK_TICKS, looks=AVERAGED):
    """What the watch finds in the last of the environments, each of which it has seen for so many looks."""
    watch, stage = ImprovementWatch(HealingPolicy()), Stage(50, 7)
    for environment in environments:
        stage.environment = environment
        for _ in range(looks):
            watch.count(replace(stage.assessment(), tick=LOOK_TICKS))
    state = DurableState(PhaseMachine(daemon=False), trust=trust)
    assessment = replace(stage.assessment(), tick=tick)
    return watch.next_change(state, assessment, parameters, noise) if watch.due(assessment) else None


def test_couplings_that_waste_are_worth_a_trial():
    """Far stronger couplings than a healthy cluster needs cost much, and that is worth saving."""
    change = found(CALM, parameters=LAVISH)
    assert change.direction == IMPROVEMENT
    assert change.parameters.lambda2 < 0.65
    assert change.reason.startswith("nothing is wrong; in the identified environment the model expects")


def test_good_couplings_are_left_alone():
    """The default is as good as the optimum: what is left to gain is not worth a change."""
    assert found(CALM, parameters=Parameters()) is None


@pytest.mark.parametrize(
    "hindrance",
    [
        {"noise": 0.05},
        {"tick": LOOK_TICKS + 1},
        {"looks": AVERAGED - 1},
    ],
)
def test_a_saving_must_be_seen_and_told_from_noise(hindrance):
    """Nothing is tried for what a trial could not show, between two looks, or on too few of them."""
    assert found(CALM, parameters=LAVISH, **hindrance) is None


def test_the_models_errors_count_against_a_saving():
    """A model that was off by as much as it promises is not believed."""
    assert found(replace(CALM, bias=Bias(action_cost=-0.012)), parameters=LAVISH) is None


def test_a_single_estimate_is_not_acted_on():
    """Two looks at an environment in which nothing is to be gained outweigh one in which some is."""
    wasteful = Parameters(lambda1=0.6, lambda2=0.6)
    assert found(CALM, parameters=wasteful) is not None
    assert found(UNEVEN, UNEVEN, CALM, parameters=wasteful, looks=1) is None


def test_what_a_storm_has_asked_for_is_not_given_up_in_the_lull():
    """Couplings that a detuned environment of the last ten minutes needs stay, although less would do now."""
    strong = Parameters(lambda1=0.6, lambda2=0.6)
    assert found(CALM, parameters=strong).direction == IMPROVEMENT
    assert found(DETUNED, CALM, parameters=strong) is None


def test_lost_margins_are_answered_before_a_limit_is_broken():
    """An environment that takes the margins asks for stronger couplings, and more surely so after failed trials."""
    change = found(DETUNED, parameters=Parameters())
    assert change.direction == GRAY_BOX
    assert change.parameters.lambda1 > 0.45
    assert change.reason.startswith("the margins are being lost")
    assert found(UNEVEN, parameters=Parameters()).direction == GRAY_BOX
    assert found(UNEVEN, parameters=Parameters(), trust=0.25) is None


# --- The verdict on a saving


def measured(objective, violation=0.0, error=0.001, ticks=40):
    return Measured(objective, error, violation, 0.0, 0.96, 0.97, objective, ticks)


@pytest.mark.parametrize(
    ("objective", "violation", "effect"),
    [
        (0.030, 0.0, Effect.HEALED),
        (0.039, 0.0, Effect.INCONCLUSIVE),
        (0.041, 0.0, Effect.INCONCLUSIVE),
        (0.050, 0.0, Effect.WORSE),
        (0.030, 0.01, Effect.WORSE),
    ],
)
def test_a_saving_is_kept_only_where_it_shows(objective, violation, effect):
    """The objective must fall beyond the noise, and no violation may be the price."""
    before = measured(0.040).as_dict()
    verdict = compare_objective(before, measured(objective, violation), level=0.05, min_effect=0.002)
    assert verdict.effect is effect
    assert verdict.beyond == pytest.approx(0.0032, abs=0.0002)


def test_what_is_detectable_is_what_the_verdict_takes():
    """The least saving worth a trial is the least that the trial's verdict would accept."""
    before = measured(0.040)
    verdict = compare_objective(before.as_dict(), before, level=0.05, min_effect=0.002)
    assert detectable(before, 0.05) == pytest.approx(verdict.beyond)


# --- On stage


def lavish(**options):
    """A governed, healthy plant whose couplings waste, after its first ticks of warm-up."""
    stage = Stage(50, 7, **options).reach(Phase.GOVERNING)
    stage.plant.parameters = LAVISH
    stage.environment = CALM
    stage.kpis |= {"coherence": 0.975, "gas": 0.98, "action_cost": 0.03}
    return stage


def test_a_saving_waits_until_all_has_been_calm_and_is_kept_where_it_shows():
    """The first trial for mere saving comes two minutes after the start, and less cost is reason to keep it."""
    stage = lavish()
    assert stage.until(E.TRIAL_STARTED) == 120
    assert stage.of(E.TRIAL_STARTED)[0].data["direction"] == IMPROVEMENT
    assert stage.of(E.TRIAL_STARTED)[0].data["baseline"]["ticks"] == 40
    stage.kpis["action_cost"] = 0.024
    stage.until(E.TRIAL_KEPT)
    assert stage.plant.parameters != LAVISH


def test_a_saving_that_does_not_show_is_rolled_back_and_no_failure_to_heal():
    """Trust halves and the next one waits twice as long, but nothing counts towards exhaustion."""
    stage = lavish()
    stage.until(E.TRIAL_APPLIED)
    stage.environment = replace(CALM, bias=Bias(action_cost=0.02))  # which speaks for no regret
    stage.until(E.TRIAL_ROLLED_BACK)
    assert stage.plant.parameters == LAVISH
    assert (stage.state.trust, stage.state.failed_trials) == (0.5, 0)
    stage.environment = CALM
    started_s = stage.of(E.TRIAL_STARTED)[0].at_s
    stage.until(E.TRIAL_STARTED)
    assert stage.of(E.TRIAL_STARTED)[1].at_s - started_s == 240.0


def test_a_saving_makes_way_for_healing():
    """Limits that are broken while a saving is tried end it at once, without a mark against anything."""
    stage = lavish()
    stage.until(E.TRIAL_APPLIED)
    stage.tick(12)
    stage.environment = replace(CALM, bias=Bias(action_cost=0.02))  # which speaks for no regret
    stage.unhealthy = ("gas",)
    stage.kpis["gas"] = 0.93
    stage.tick()
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "the couplings come first"
    assert (stage.state.trust, stage.state.failed_trials) == (1.0, 0)


@pytest.mark.parametrize("trouble", [{"unhealthy": ("rsi",)}, {"disagreement": 0.1}, {"shows_parameters": False}])
def test_nothing_is_saved_while_anything_is_wrong(trouble):
    """A KPI that is unhealthy, doubted sensors or unknown parameters: no time to save."""
    stage = lavish()
    stage.kpis["rsi"] = 0.6
    for name, value in trouble.items():
        setattr(stage, name, value)
    stage.tick(200)
    assert stage.of(E.TRIAL_STARTED) == []


def test_an_environment_that_overtakes_a_trial_gets_the_next_one_early():
    """Where the model would keep a trial whatever is measured, and knows the next step, it does not wait."""
    stage = Stage(50, 7).reach(Phase.GOVERNING)
    stage.kpis["gas"] = 0.945
    stage.breached = ("gas",)
    stage.tick(40)
    stage.environment = replace(CALM, frequency_spread=0.12**2, typical_spread=0.12**2)
    stage.until(E.TRIAL_APPLIED)
    stage.environment = replace(CALM, frequency_spread=0.2**2, typical_spread=0.2**2)
    assert stage.until(E.TRIAL_KEPT) == 25
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert kept["reason"].startswith("the environment has overtaken it")
    assert kept["interrupted"]
    assert stage.kinds()[-2:] == [E.TRIAL_STARTED, E.ACTION_APPLIED]
