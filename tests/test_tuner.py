"""What is tried next: couplings by the model or by the fixed step, and α where the supply asks for it."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from metrics.haru.costs import CostShares
from metrics.haru.plant_model import Bias, Environment
from metrics.kpi import KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import Parameters
from state.diagnosis import diagnose
from state.durable import ALPHA, GRAY_BOX, DurableState
from state.event import EventKind as E
from state.healing import Change, HealingPolicy
from state.isolation import Guard
from state.machine import PhaseMachine
from state.phase import Phase
from state.tuner import SupplyBalance, explained, next_change, out_of_reach

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
POLICY = HealingPolicy()
DETUNED = Environment(frequency_spread=0.15**2 + 0.0023, typical_spread=0.15**2 + 0.0023)
GENESIS = 50 * 500_000


def change(stage, *breached, parameters=Parameters(), **state):  # noqa: B008 - frozen
    durable = DurableState(PhaseMachine(daemon=False), **state)
    assessment = stage.assessment()
    return next_change(POLICY, durable, assessment, parameters, diagnose(assessment, breached, suspect=False))


def test_the_model_chooses_where_there_is_one():
    """An identified environment leads to a proposal with a reason that names what moved and what is expected."""
    stage = Stage(50, 7)
    stage.environment = DETUNED
    found = change(stage, "gas")
    assert found.direction == GRAY_BOX
    assert found.parameters.lambda1 > 0.45
    assert found.reason.startswith("gas outside limits; omega_rad_s 0.157 (usual 0.048); in the identified environment")


def test_trust_bounds_the_models_reach():
    """After failed trials the model may only take smaller steps."""
    stage = Stage(50, 7)
    stage.environment = DETUNED
    timid = change(stage, "gas", trust=0.125).parameters
    assert timid.lambda1 / 0.30 < 1.1
    assert change(stage, "gas").parameters.lambda1 / 0.30 > 1.5


def test_the_fixed_step_serves_plants_without_phases():
    """Without an identified environment the next direction of the rule is tried."""
    assert change(Stage(50, 7), "gas").direction == "both_up"
    assert change(Stage(50, 7), "gas", last_direction="both_up").direction == "global_up"


def test_no_parameter_that_can_help_no_change():
    """What the diagnosis has no parameters for is left alone."""
    stage = Stage(50, 7)
    stage.environment = DETUNED
    assert change(stage, "rsi") is None
    stage.disagreement = 0.1
    assert change(stage, "gas") is None


def test_an_effort_limit_beyond_the_budget_is_closed():
    """I_lim is a parameter like the couplings: one that starves them is opened, up to the budget."""
    stage = Stage(50, 7)
    stage.environment = DETUNED
    starved = Parameters(action_cost_limit=0.005)
    assert change(stage, "gas", parameters=starved).parameters.action_cost_limit == 0.05


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (None, False),
        (Environment(), False),
        (DETUNED, True),
        (replace(Environment(), bias=Bias(coherence=-0.03, gas=-0.03, action_cost=0.03)), False),
    ],
)
def test_what_the_environment_explains(environment, expected):
    """It explains a breach when its model leads beyond a limit by itself; the bias, whatever causes it, does not."""
    stage = Stage(50, 7)
    stage.environment = environment
    assert explained(stage.assessment(), Parameters()) is expected


def test_what_no_coupling_can_hold_is_told_with_what_can():
    """A demand beyond what the nodes can serve is a matter of capacity; where couplings might do, nothing is said."""
    stage = Stage(50, 7)
    assert out_of_reach(stage.assessment()) == ""
    stage.environment = DETUNED
    assert out_of_reach(stage.assessment()) == ""
    stage.environment = replace(Environment(), load=32.0, bias=Bias(action_cost=0.02))
    stage.costs = CostShares(effort=0.008, retries=0.01, shed=0.04, invalid=0.0)
    told = out_of_reach(stage.assessment())
    assert told.startswith("no couplings within their bounds are expected to hold the limits: at best C 0.9")
    assert told.endswith("; 32 transactions a second and node take more capacity, or less demand")


# --- α


def balance(supply, *, coherence=0.96, target=0.935, burned=3000.0, alpha=1.0):
    """The change of α after a while of the same figures."""
    one, stage = SupplyBalance.start(), Stage(50, 7)
    figures = {"burned": burned, "coherence": coherence, "gas_target": target, "supply": supply * GENESIS}
    kpis = {name: KpiVerdict(name, value, KpiStatus.HEALTHY, KpiStatus.HEALTHY) for name, value in figures.items()}
    for _ in range(5):
        one.count(replace(stage.assessment(), kpis=kpis))
    return one.next_alpha(POLICY, Parameters(alpha=alpha))


def test_alpha_follows_a_supply_that_has_moved():
    """A supply that lacks 5 % and a burn that α does not cover: α rises, by its largest step at most."""
    found = balance(0.95, burned=9000.0)
    assert (found.direction, found.parameters.alpha) == (ALPHA, 1.5)
    assert found.reason == "the supply is -5.0% off its start; α 2.00 would lead it back"
    assert found.parameters == Parameters(alpha=1.5)
    assert balance(1.05, burned=2000.0).parameters.alpha < 1.0


def test_alpha_stays_within_its_bounds():
    """A step ends at the bound, and from there it takes none."""
    assert balance(0.90, burned=9000.0, alpha=1.8).parameters.alpha == 2.0
    assert balance(0.90, burned=9000.0, alpha=2.0) is None


def test_alpha_goes_along_where_shedding_costs_most():
    """Who burns more than is minted grows poorer, and sheds more: there α rises beside the couplings."""
    one, stage = SupplyBalance.start(), Stage(50, 7)
    figures = {"burned": 8000.0, "coherence": 0.96, "gas_target": 0.935, "supply": 0.99 * GENESIS}
    kpis = {name: KpiVerdict(name, value, KpiStatus.HEALTHY, KpiStatus.HEALTHY) for name, value in figures.items()}
    one.count(replace(stage.assessment(), kpis=kpis))
    couplings = Change(GRAY_BOX, Parameters(lambda2=0.5), "because")
    stage.costs = CostShares(effort=0.01, retries=0.01, shed=0.03, invalid=0.0)
    along = one.beside(POLICY, couplings, stage.assessment())
    assert along.parameters == Parameters(lambda2=0.5, alpha=1.5)
    assert along.reason.startswith("because; α ")
    stage.costs = CostShares(effort=0.01, retries=0.03, shed=0.01, invalid=0.0)
    assert one.beside(POLICY, couplings, stage.assessment()) == couplings


@pytest.mark.parametrize(
    "figures",
    [
        {"supply": 0.98},  # near enough
        {"supply": 0.90, "coherence": 0.93},  # below its target nothing is minted, whatever α is
        {"supply": 0.90, "burned": float("nan")},
        {"supply": float("nan")},
        {"supply": 0.95, "burned": 1000.0},  # already led back, and by a smaller α still
    ],
)
def test_alpha_is_left_alone(figures):
    """Within the tolerance, without a say, without the figures, or where a step would lead away."""
    assert balance(**figures) is None


# --- on stage, with a model


def governed(**kpis):
    stage = Stage(50, 7).reach(Phase.GOVERNING)
    stage.kpis |= kpis
    return stage


def test_a_young_breach_is_enough_where_the_environment_explains_it():
    """More than half of the last ten ticks start a trial by the model, which is journaled with its diagnosis."""
    stage = governed()
    stage.tick(40)
    stage.environment = DETUNED
    stage.breached = ("gas",)
    stage.kpis["gas"] = 0.93
    assert stage.until(E.TRIAL_STARTED) == 6
    started = stage.of(E.TRIAL_STARTED)[0].data
    assert started["direction"] == GRAY_BOX
    assert started["diagnosis"]["cause"] == "environment"
    assert started["diagnosis"]["breached"] == ["gas"]
    assert started["tokens"] == 9.0


def test_closeness_is_enough_where_the_environment_leads_beyond():
    """KPIs still within their limits, but within the tuner's margins, in an environment that will break them."""
    stage = governed()
    stage.tick(40)
    stage.environment = DETUNED
    stage.kpis["gas"] = 0.955
    assert stage.until(E.TRIAL_STARTED) == 6
    diagnosis = stage.of(E.TRIAL_STARTED)[0].data["diagnosis"]
    assert (diagnosis["breached"], diagnosis["heading"]) == ([], ["gas"])


def test_a_young_breach_alone_is_not():
    """Without an environment that explains it, it takes the lasting verdict."""
    stage = governed()
    stage.tick(40)
    stage.environment = Environment()
    stage.breached = ("gas",)
    stage.kpis["gas"] = 0.93
    stage.tick(40)
    assert stage.of(E.TRIAL_STARTED) == []


def on_trial():
    stage = governed(gas=0.93)
    stage.environment = DETUNED
    stage.unhealthy = ("gas",)
    stage.until(E.TRIAL_APPLIED)
    return stage


def test_trust_is_durable():
    """A rolled-back proposal halves the trust, a kept one restores it, and a restart forgets neither."""
    stage = on_trial()
    stage.environment = Environment()  # which speaks for no regret
    stage.kpis["gas"] = 0.90
    stage.until(E.TRIAL_ROLLED_BACK)
    assert stage.state.trust == 0.5
    stage.restart()
    assert stage.state.trust == 0.5
    stage.environment = DETUNED
    stage.kpis["gas"] = 0.93
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["gas"] = 0.97
    stage.until(E.TRIAL_KEPT)
    assert stage.state.trust == 1.0


def test_a_trial_is_kept_in_hindsight():
    """Things got worse, but would be worse still without it: it is kept, and counts as no success."""
    stage = on_trial()
    stage.kpis["gas"] = 0.91
    stage.until(E.TRIAL_KEPT)
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert (kept["healed"], kept["improved"]) == (False, False)
    assert kept["reason"] == "it made things worse, but in the environment as it is now going back would be worse"
    assert stage.state.failed_trials == 1


def test_a_well_ends_a_trial_that_would_be_missed_by_keeping_it():
    """Where going back would be worse, a well ends the trial at its new values, at once, and as no failure."""
    stage = on_trial()
    stage.make_bad("n0", gravity=4.0)
    stage.until(E.ISOLATION_VERIFIED)
    assert stage.of(E.ROLLBACK_INTENDED) == []
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert kept["interrupted"]
    assert kept["reason"].startswith("a gravity well was confirmed during the trial, and in the environment")
    assert stage.state.failed_trials == 0


def test_running_out_of_ideas_is_told_once():
    """Lastingly unhealthy, and the model expects nothing within reach to help: that is told, and waited out."""
    stage = on_trial()
    stage.kpis["gas"] = 0.90
    stage.environment = replace(DETUNED, frequency_spread=0.5**2)
    stage.until(E.HEALING_EXHAUSTED, ticks_max=600)
    [told] = stage.of(E.HEALING_EXHAUSTED)
    assert told.data["reason"] == (
        "nothing within reach is expected to help; no couplings within their bounds are expected to hold the limits: "
        "at best C 0.895, GAS 0.903, I_eff 0.0650; nothing is tried for 600 s"
    )
    assert not stage.of(E.TRIAL_KEPT)[-1].data["healed"]
    stage.tick(100)
    assert len(stage.of(E.HEALING_EXHAUSTED)) == 1


def test_alpha_is_changed_as_a_trial_of_its_own_and_seldom():
    """A supply off its start leads to a trial of α alone, kept if it harms nothing, and not again for five minutes."""
    stage = governed(burned=9000.0, gas_target=0.935, supply=0.95 * GENESIS)
    stage.until(E.TRIAL_STARTED)
    started = stage.of(E.TRIAL_STARTED)[0]
    assert started.data["direction"] == ALPHA
    assert started.data["to"] == Parameters(alpha=1.5).as_dict()
    stage.until(E.TRIAL_KEPT)
    stage.until(E.TRIAL_STARTED)
    assert stage.now_s - started.at_s == 300.0
    assert stage.state.failed_trials == 0


def test_alpha_makes_way_for_the_couplings():
    """KPIs that ask for the couplings end a trial of α: it goes back, and that is nobody's fault."""
    stage = governed(burned=9000.0, gas_target=0.935, supply=0.95 * GENESIS)
    stage.until(E.TRIAL_APPLIED)
    stage.environment = DETUNED
    stage.kpis["gas"], stage.breached = 0.93, ("gas",)
    stage.until(E.ROLLBACK_INTENDED)
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "the couplings come first"
    stage.until(E.TRIAL_STARTED)
    assert stage.of(E.TRIAL_STARTED)[-1].data["direction"] == GRAY_BOX
    assert (stage.state.failed_trials, stage.state.trust) == (0, 1.0)


def test_alpha_waits_for_everything_else():
    """While a KPI is outside its limits, or something forbids trials, α stays."""
    stage = governed(burned=9000.0, gas_target=0.935, supply=0.95 * GENESIS)
    stage.kpis["rsi"], stage.unhealthy = 0.5, ("rsi",)
    stage.tick(100)
    assert stage.of(E.TRIAL_STARTED) == []
    assert stage.guards("heal") == set()
    doubted = governed(burned=9000.0, gas_target=0.935, supply=0.95 * GENESIS)
    doubted.disagreement = 0.1
    doubted.tick(20)
    assert doubted.of(E.TRIAL_STARTED) == []
    assert Guard.SENSORS not in doubted.guards("heal")
