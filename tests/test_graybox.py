"""The gray-box model: what it predicts of the plant, what it identifies of the environment, and what it proposes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metrics.haru.environment import EnvironmentIdentifier
from metrics.haru.noise_split import NoiseSplit
from metrics.haru.plant_model import Bias, Environment, limited_gains, predict
from metrics.haru.tuning import (
    TuningPolicy,
    balancing_alpha,
    outlook,
    propose,
    regretted,
    trust_after,
)
from metrics.observation import SIGNAL_NAMES, NodeSignals, Observation, Parameters, Topology
from qecs.cluster import Cluster
from qecs.dynamics import Environment as PlantEnvironment
from qecs.dynamics import limited_gains as plant_gains
from qecs.faults import Fault
from qecs.parameters import Parameters as PlantParameters

HEALTHY_1000 = Environment(nodes=1000, clusters=32, cluster_spread=0.0002 + 0.0023 / 31)
DETUNED = Environment(frequency_spread=0.0225)


class Plant:
    """The reference cluster, observed."""

    def __init__(self, nodes, seed, **parameters):
        self.cluster = Cluster(nodes, seed=seed, parameters=PlantParameters(**parameters))
        self.topology = Topology(self.cluster.node_ids, self.cluster.cluster_ids, self.cluster.cluster_of)

    def observe(self, **changes):
        snapshot = self.cluster.step()
        signals = {name: np.asarray(snapshot.signals[name], np.float64) for name in SIGNAL_NAMES}
        signals |= {"active": snapshot.signals["active"]} | changes
        parameters = Parameters(**self.cluster.parameters.to_dict())
        return Observation(
            snapshot.tick, snapshot.time_s, 0.0, snapshot.kpis, self.topology, NodeSignals(**signals), parameters
        )

    def drift(self, **channels):
        self.cluster.inject(Fault(id="drift", kind="drift", channels=channels))

    def mean_kpis(self, ticks):
        rows = [self.cluster.step().kpis for _ in range(ticks)]
        return {name: float(np.mean([row[name] for row in rows])) for name in ("coherence", "gas", "action_cost")}


def identified(plant, ticks, identifier=None):
    identifier = identifier or EnvironmentIdentifier()
    for _ in range(ticks):
        identifier.update(plant.observe())
    return identifier


# The plant model against the plant: two independent implementations of docs/model.md.


@pytest.mark.parametrize(("lambda1", "lambda2", "kappa"), [(0.3, 0.35, 1.0), (1.0, 1.0, 2.5), (0.01, 0.01, 4.0)])
def test_gains_are_those_of_the_plant(lambda1, lambda2, kappa):
    """Couplings and effort, limiter included, agree with the plant's own."""
    parameters = PlantParameters(lambda1=lambda1, lambda2=lambda2)
    theirs = plant_gains(parameters, PlantEnvironment(kappa=kappa), load_per_node=20.0)
    ours = limited_gains(lambda1, lambda2, price=kappa, load=20.0, action_cost_limit=0.05)
    assert (float(ours.k1), float(ours.k2), float(ours.effort)) == pytest.approx((theirs.k1, theirs.k2, theirs.effort))


def test_healthy_values_are_those_of_the_specification():
    """At N = 1000 the model says what docs/model.md section 4 measured: GAS .970, C .963, I_eff .0215."""
    said = predict(HEALTHY_1000, Parameters())
    assert float(said.gas) == pytest.approx(0.9703, abs=0.001)
    assert float(said.coherence) == pytest.approx(0.963, abs=0.003)
    assert float(said.action_cost) == pytest.approx(0.0215, abs=0.0015)


def test_model_agrees_with_the_plant_at_other_couplings():
    """In a drifted environment and under stronger couplings, the model is within .003 of the plant's C and GAS."""
    plant = Plant(1000, 3, lambda1=0.45, lambda2=0.7)
    plant.drift(omega=0.15)
    for _ in range(100):
        plant.cluster.step()
    measured = plant.mean_kpis(150)
    spread = (0.05**2 + 0.15**2) * 0.92
    said = predict(replace(HEALTHY_1000, frequency_spread=spread), Parameters(lambda1=0.45, lambda2=0.7))
    assert float(said.gas) == pytest.approx(measured["gas"], abs=0.003)
    assert float(said.coherence) == pytest.approx(measured["coherence"], abs=0.003)
    assert float(said.action_cost) == pytest.approx(measured["action_cost"], abs=0.003)


def test_order_falls_with_every_disturbance():
    """More noise, more spread, more drift each make the prediction worse."""
    healthy = predict(Environment(), Parameters())
    worse = {"phase_noise": 0.1, "sensing_noise": 0.3, "frequency_spread": 0.02, "cluster_spread": 0.003, "drift": 0.06}
    for name, value in worse.items():
        said = predict(replace(Environment(), **{name: value}), Parameters())
        assert said.coherence <= healthy.coherence
        assert said.success < healthy.success


def test_uneven_loads_shed_first():
    """A demand that all together can serve is shed where some are offered more than others; less so in better phase."""
    even = replace(Environment(), load=30.0, load_spread=0.0)
    uneven = replace(even, load_spread=0.15**2)
    assert float(predict(even, Parameters()).action_cost) < 0.025
    cost = float(predict(uneven, Parameters()).action_cost)
    assert cost == pytest.approx(0.04, abs=0.015)
    assert float(predict(uneven, Parameters(lambda1=0.3, lambda2=0.6)).action_cost) < cost


def test_the_spread_of_loads_is_identified():
    """Arrivals that differ from node to node by more than chance are told as that, and chance alone is not."""
    plant = Plant(50, seed=3)
    environment = identified(plant, 200).environment()
    loads = np.mean([plant.observe().signals.arrivals for _ in range(100)], axis=0)
    truth = (loads.std() / loads.mean()) ** 2
    assert environment.load_spread == pytest.approx(truth, rel=0.5)


def test_lost_lock_is_a_number_not_an_error():
    """Couplings far too weak for the drift give a high cost, without warnings or NaN."""
    said = predict(Environment(drift=1.0, frequency_spread=1.0), Parameters(lambda1=0.01, lambda2=0.01))
    assert np.isfinite([said.coherence, said.gas, said.action_cost]).all()
    assert said.action_cost > 1.0


def test_candidates_are_judged_elementwise():
    """A grid of candidates gives what each candidate gives alone."""
    lambda1, lambda2 = np.array([[0.2], [0.5]]), np.array([[0.3, 0.6, 0.9]])
    grid = predict(DETUNED, Parameters(), lambda1, lambda2)
    assert grid.gas.shape == (2, 3)
    single = predict(DETUNED, Parameters(lambda1=0.5, lambda2=0.9))
    assert grid.action_cost[1, 2] == pytest.approx(float(single.action_cost), rel=1e-12)


# Identification.


@pytest.fixture(scope="module")
def healthy_1000():
    return identified(Plant(1000, 5), 120)


def test_identifies_the_healthy_environment(healthy_1000):
    """Noise, spreads, load and price of a healthy plant of 1000 nodes come out as they were put in."""
    found = healthy_1000.environment()
    assert (found.nodes, found.clusters) == (1000, 32)
    assert found.phase_noise + 0.134 * found.sensing_noise == pytest.approx(0.0324 + 0.134 * 0.04, rel=0.08)
    assert found.frequency_spread == pytest.approx(0.0023, abs=0.0008)
    assert found.cluster_noise == pytest.approx(0.0009, abs=0.0004)
    assert found.drift == pytest.approx(0.0, abs=0.012)
    assert found.load == pytest.approx(20.0, abs=0.3)
    assert found.price == pytest.approx(1.0, abs=0.001)
    assert abs(found.bias.gas) < 0.004


def test_prediction_from_what_was_identified_meets_the_kpis(healthy_1000):
    """Identified environment and model together say what the plant's KPIs are."""
    said = predict(healthy_1000.environment(), Parameters())
    assert float(said.gas) == pytest.approx(0.970, abs=0.003)
    assert float(said.action_cost) == pytest.approx(0.0215, abs=0.002)


@pytest.mark.parametrize(
    ("channel", "to", "field", "expected", "tolerance"),
    [
        ("omega", 0.15, "frequency_spread", 0.0225, 0.007),
        ("w0", 0.06, "drift", 0.06, 0.015),
        ("kappa", 2.0, "price", 2.0, 0.15),
        ("demand", 1.3, "load", 26.0, 0.8),
    ],
)
def test_identifies_a_step_within_40_ticks(channel, to, field, expected, tolerance):
    """Forty ticks after a step of one channel its value is known, and the others are not blamed."""
    plant = Plant(200, 11)
    identifier = identified(plant, 60)
    plant.drift(**{channel: to})
    found = identified(plant, 40, identifier).environment()
    assert getattr(found, field) == pytest.approx(expected, abs=tolerance)
    assert found.phase_noise == pytest.approx(0.0324, abs=0.008)


def test_noise_of_the_coupling_is_told_apart_by_changing_the_coupling():
    """After σm rises, a change of λ shows how much of the noise comes with the coupling."""
    plant = Plant(200, 4, lambda1=0.6, lambda2=0.6)
    identifier = identified(plant, 60)
    plant.drift(sigma_m=0.5)
    identified(plant, 30, identifier)
    plant.cluster.apply(PlantParameters(lambda1=0.2, lambda2=0.3))
    found = identified(plant, 30, identifier).environment()
    assert found.sensing_noise == pytest.approx(0.25, abs=0.06)
    assert found.phase_noise == pytest.approx(0.0324, abs=0.01)


def test_noise_split_is_never_negative():
    """No sequence of measurements drives a variance below 0."""
    split = NoiseSplit()
    for variance, g in [(0.0, 0.5), (0.0, 0.01), (0.3, 0.01), (0.0, 0.8)] * 20:
        split.learn(variance, g, freedom=43.0)
        assert (split.state >= 0.0).all()
    assert split.total(0.5) >= 0.0


def test_missing_phases_and_isolated_nodes_teach_nothing():
    """Nodes without a phase, and isolated ones with absurd phases, leave the identification as sound as it was."""
    plant, identifier = Plant(200, 6), EnvironmentIdentifier()
    for node in plant.cluster.node_ids[:3]:
        plant.cluster.isolate(node)
    for _ in range(80):
        observation = plant.observe()
        phase = observation.signals.phase.copy()
        phase[:3] = 2.5
        phase[10:15] = np.nan
        identifier.update(replace(observation, signals=replace(observation.signals, phase=phase)))
    found = identifier.environment()
    assert found.nodes == 192
    assert found.frequency_spread < 0.006
    assert found.phase_noise == pytest.approx(0.0324, abs=0.008)


def test_nothing_is_told_without_evidence():
    """Before enough ticks, without nodes, after a gap or a topology of other nodes, there is no environment."""
    plant = Plant(50, 1)
    identifier = identified(plant, 15)
    assert identifier.environment() is None
    identifier.update(plant.observe())
    assert identifier.environment() is not None
    identifier.update(Plant(40, 1).observe())
    assert identifier.environment() is None


def test_ticks_after_a_gap_and_repeated_ticks_are_no_evidence():
    """Only two successive ticks show how phases moved."""
    plant, identifier = Plant(50, 2), EnvironmentIdentifier()
    for _ in range(30):
        observation = plant.observe()
        identifier.update(observation)
        identifier.update(observation)
        plant.observe()
    assert identifier.environment() is None


# Tuning.


def test_tuning_comes_to_rest():
    """In an unchanging environment a few moves lead to couplings from which no move is worth a trial."""
    parameters, moves = Parameters(lambda1=0.6, lambda2=0.6), 0
    while (proposal := propose(HEALTHY_1000, parameters, violating=False)) is not None and moves < 10:
        parameters, moves = proposal.parameters, moves + 1
    assert 1 <= moves <= 3
    assert outlook(HEALTHY_1000, parameters).shortfall == 0.0
    assert proposal is None


def test_detuned_nodes_are_answered_by_stronger_coupling():
    """For spread frequencies within clusters the model raises the local coupling, foresees the gain, and says so."""
    proposal = propose(DETUNED, Parameters(), violating=True)
    assert proposal.parameters.lambda1 > 0.45
    assert proposal.parameters.lambda2 >= 0.35
    assert proposal.expected.gas > proposal.present.gas
    assert proposal.expected.objective < 0.985 * proposal.present.objective
    assert "GAS 0.931 -> 0.960" in proposal.reason


def test_noise_of_the_coupling_is_answered_by_weaker_coupling():
    """Where the coupling itself is noisy, the couplings go down: the gain's sign is reversed."""
    proposal = propose(Environment(sensing_noise=0.25), Parameters(lambda1=0.6, lambda2=0.6), violating=True)
    assert proposal.parameters.lambda1 < 0.45


def test_common_drift_is_answered_by_the_global_coupling():
    """Against a drift of the whole system only λ2 helps."""
    proposal = propose(Environment(drift=0.06), Parameters(), violating=True)
    assert proposal.parameters.lambda2 > 0.6
    assert proposal.parameters.lambda1 < 0.3


@pytest.mark.parametrize("trust", [1.0, 0.5, 0.125])
def test_moves_stay_within_the_trust_region_and_bounds(trust):
    """No coupling moves by more than its share of the reach, nor beyond its bounds; nothing else is touched."""
    start = Parameters(lambda1=0.7, lambda2=0.8, alpha=1.3, action_cost_limit=0.04)
    environment = replace(DETUNED, drift=0.2, frequency_spread=0.05)
    proposal = propose(environment, start, violating=True, trust=trust)
    for name in ("lambda1", "lambda2"):
        value = getattr(proposal.parameters, name)
        assert abs(math.log(value / getattr(start, name))) <= 0.7 * trust + 1e-12
        assert 0.01 <= value <= 1.0
    assert (proposal.parameters.alpha, proposal.parameters.action_cost_limit) == (1.3, 0.04)


def test_reach_is_shorter_while_the_limits_hold():
    """Without a broken limit, now or expected, the trust region is half as large."""
    environment = Environment(frequency_spread=0.0005, phase_noise=0.01)
    proposal = propose(environment, Parameters(lambda1=0.9, lambda2=0.9), violating=False)
    assert proposal.parameters.lambda2 == pytest.approx(0.9 * math.exp(-0.35))


def test_rollback_is_regretted_where_the_environment_has_moved():
    """If the environment is now such that the old couplings would break the limits, going back is known to be wrong."""
    stronger = Parameters(lambda1=0.5, lambda2=0.6)
    assert regretted(DETUNED, Parameters(), stronger)
    assert not regretted(DETUNED, stronger, Parameters())
    assert not regretted(Environment(), Parameters(), Parameters(lambda1=0.31, lambda2=0.36))


def test_model_that_is_far_off_regrets_nothing():
    """A model that does not account for what is measured has no say in a rollback."""
    wrong = replace(DETUNED, bias=Bias(coherence=0.03, gas=0.03, action_cost=0.03))
    assert not regretted(wrong, Parameters(), Parameters(lambda1=0.5, lambda2=0.6))


def test_trust_halves_and_recovers():
    """Failed trials halve the trust down to a floor, kept ones restore it."""
    assert trust_after(1.0, kept=False) == 0.5
    assert trust_after(0.125, kept=False) == 0.125
    assert trust_after(0.5, kept=True) == 1.0
    assert trust_after(1.0, kept=True) == 1.0


def test_outlook_counts_margins():
    """Limits in the outlook are stricter than the real ones by the margins, and missing them costs."""
    said = outlook(DETUNED, Parameters())
    assert said.shortfall == pytest.approx(
        max(0.912 - said.coherence, 0.0) + max(0.959 - said.gas, 0.0) + max(said.action_cost - 0.045, 0.0)
    )
    assert said.objective == pytest.approx(said.action_cost + said.shortfall)
    assert outlook(DETUNED, Parameters(), TuningPolicy(gas_min=0.0, coherence_min=0.0)).shortfall == 0.0
    assert said.as_dict()["gas"] == said.gas


@pytest.mark.parametrize(
    ("supply", "coherence", "expected"),
    [
        # 5000 tokens against .0103 · 25e6 · ln(.962/.932)/φ = 5044 tokens for each unit of α.
        (25e6, 0.962, 0.991),
        (24e6, 0.962, 1.070),
        (25e6, 0.93, 2.0),
        (25e6, 0.9321, 2.0),
    ],
)
def test_alpha_balances_the_burn(supply, coherence, expected):
    """α mints what is burned, a little more where supply is short, and no coherence above target means all it can."""
    alpha = balancing_alpha(burn=5000.0, supply=supply, supply_genesis=25e6, coherence=coherence, gas_target=0.932)
    assert alpha == pytest.approx(expected, abs=0.002)


def test_heals_a_detuned_plant():
    """End to end on the reference cluster: step, identify, propose, apply; the limits hold again and stay so."""
    plant = Plant(50, 21)
    identifier = identified(plant, 100)
    plant.drift(omega=0.15)
    identified(plant, 25, identifier)
    proposal = propose(identifier.environment(), Parameters(), violating=True)
    plant.cluster.apply(PlantParameters(**proposal.parameters.as_dict()))
    plant.mean_kpis(60)
    healed = plant.mean_kpis(60)
    assert healed["coherence"] > 0.92
    assert healed["gas"] > 0.955
    assert healed["action_cost"] < 0.045
