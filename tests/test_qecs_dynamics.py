import math

import numpy as np
import pytest

from qecs.cluster import Cluster
from qecs.dynamics import Environment, limited_gains, order_parameters, wrap
from qecs.errors import InvalidRequestError
from qecs.membership import Membership, default_clusters
from qecs.noise import SEED_MAX, Noise, Stream
from qecs.parameters import Parameters
from qecs.transactions import _poisson

WARM_UP_TICKS = 150


def run(nodes, seed, ticks):
    """KPIs of the ticks after the warm-up, one array each."""
    cluster = Cluster(nodes, seed=seed)
    snapshots = [cluster.step() for _ in range(WARM_UP_TICKS + ticks)][WARM_UP_TICKS:]
    return {name: np.array([snapshot.kpis[name] for snapshot in snapshots]) for name in snapshots[0].kpis}


def pooled(nodes, seeds, ticks):
    runs = [run(nodes, seed, ticks) for seed in seeds]
    return {name: np.concatenate([found[name] for found in runs]) for name in runs[0]}


# Mean and band of each KPI, and the 99.9 % quantile that |ΔH| stays below: docs/model.md section 4.
HEALTHY = {
    5: (
        range(1, 7),
        300,
        {
            "coherence": (0.974, 0.005),
            "gas": (0.974, 0.005),
            "rsi": (0.887, 0.03),
            "action_cost": (0.026, 0.006),
            "delta_lambda": (0.0019, 0.0006),
        },
        0.0045,
    ),
    50: (
        range(1, 5),
        300,
        {
            "coherence": (0.962, 0.007),
            "gas": (0.974, 0.002),
            "rsi": (0.943, 0.02),
            "action_cost": (0.025, 0.004),
            "delta_lambda": (0.0007, 0.0003),
        },
        0.0009,
    ),
    1000: (
        range(1, 3),
        200,
        {
            "coherence": (0.963, 0.003),
            "gas": (0.970, 0.001),
            "rsi": (0.986, 0.005),
            "action_cost": (0.0215, 0.0005),
            "delta_lambda": (0.0002, 0.0001),
        },
        0.0003,
    ),
}


@pytest.mark.parametrize("nodes", HEALTHY)
def test_healthy_figures(nodes):
    """A healthy cluster shows the figures of the model, at every size."""
    seeds, ticks, expected, entropy_max = HEALTHY[nodes]
    found = pooled(nodes, seeds, ticks)
    for name, (mean, band) in expected.items():
        assert found[name].mean() == pytest.approx(mean, abs=band), name
    assert np.quantile(found["delta_entropy"], 0.999) < entropy_max
    # Coherence seen through service never exceeds the sensors' by more than noise.
    assert (found["coherence_service"] - found["coherence"]).max() < 0.002


@pytest.mark.parametrize("nodes", [50, 1000])
def test_healthy_never_breaches(nodes):
    """From 50 nodes on no tick of a healthy cluster has a KPI out of its limits."""
    found = pooled(nodes, HEALTHY[nodes][0], HEALTHY[nodes][1])
    assert found["coherence"].min() >= 0.90
    assert found["gas"].min() >= 0.95
    assert found["rsi"].min() >= 0.65
    assert found["action_cost"].max() <= 0.05
    assert found["delta_lambda"].max() <= 0.01


def test_supply_is_nearly_steady():
    """Emission and burn balance: 500 healthy ticks change the supply by less than 2 %."""
    found = run(50, 3, 500)
    assert found["supply"].min() > 0.98 * 25_000_000
    assert found["supply"].max() < 1.02 * 25_000_000


def test_gains_at_the_default():
    """Without a binding limit K1 = λ1, K2 = 0.6 λ2 and Q = κ (0.20 λ1 + 0.50 λ2)."""
    gains = limited_gains(Parameters(), Environment(), load_per_node=20.0)
    assert gains.k1 == pytest.approx(0.30)
    assert gains.k2 == pytest.approx(0.21)
    assert gains.effort == pytest.approx(0.235)


def test_effort_is_limited_to_its_share_of_the_load():
    """A price beyond the limit scales the coupling down until the effort is 5 % of the offered load."""
    gains = limited_gains(Parameters(), Environment(kappa=10.0), load_per_node=20.0)
    assert gains.effort == pytest.approx(1.0)
    assert gains.k1 == pytest.approx(0.30 / 2.35)
    assert gains.k2 == pytest.approx(0.21 / 2.35)


@pytest.mark.parametrize(
    ("nodes", "clusters"), [(1, 1), (5, 1), (9, 1), (10, 2), (50, 7), (1000, 32), (1_000_000, 1000)]
)
def test_number_of_clusters(nodes, clusters):
    """The default number of clusters follows max(1, min(⌊N/5⌋, round √N))."""
    assert default_clusters(nodes) == clusters


def test_clusters_are_contiguous_and_near_equal():
    """Cluster sizes differ by at most one node, and nodes are numbered through."""
    membership = Membership(53, 7)
    assert membership.sizes.sum() == 53
    assert set(membership.sizes.tolist()) == {7, 8}
    assert (np.diff(membership.cluster_of) >= 0).all()
    assert np.bincount(membership.cluster_of).tolist() == membership.sizes.tolist()


def test_order_parameters_by_hand():
    """Fields are means over active nodes; a participation below 1 shortens them."""
    membership = Membership(4, 2)
    phase = np.array([0.0, math.pi / 2, 0.3, 0.3])
    weight = np.array([1.0, 1.0, 1.0, 0.0])
    membership.set_active(3, active=False)
    fields = order_parameters(np.cos(phase), np.sin(phase), weight, membership, np.empty(4))
    assert fields.of_cluster[0] == pytest.approx(0.5 + 0.5j)
    assert abs(fields.of_cluster[1]) == pytest.approx(1.0)
    assert fields.system == pytest.approx((1.0 + 1.0j + np.exp(0.3j)) / 3)


def test_wrap():
    """Phases are brought into [−π, π] without a change of direction."""
    phase = np.array([0.1, 3.2, -3.2, 7.0, 100.0])
    wrapped = wrap(phase.copy(), np.empty(5))
    assert np.abs(wrapped).max() <= math.pi
    assert np.exp(1j * wrapped) == pytest.approx(np.exp(1j * phase))


@pytest.mark.parametrize("rate", [3.0, 7.0, 20.0, 45.0])
def test_arrivals_are_poisson(rate):
    """Arrivals by inversion have the probabilities of the Poisson distribution, to half a percent in all."""
    size = 400_000
    normal = np.random.default_rng(1).standard_normal(size)
    found = _poisson(np.full(size, rate), normal, np.empty(size)).astype(int)
    counts = np.arange(150)
    exact = np.exp(counts * math.log(rate) - rate - np.array([math.lgamma(count + 1.0) for count in counts]))
    distance = 0.5 * np.abs(np.bincount(found, minlength=150) / size - exact).sum()
    assert distance < 0.005
    assert found.mean() == pytest.approx(rate, rel=0.002)
    assert found.var() == pytest.approx(rate, rel=0.02)


def test_no_rate_no_arrivals():
    """A rate of zero stays finite whatever the draw; the caller masks such nodes."""
    found = _poisson(np.zeros(5), np.array([-6.0, -1.0, 0.0, 1.0, 6.0]), np.empty(5))
    assert np.isfinite(found).all()


def test_draws_are_named_not_sequential():
    """A draw depends on seed, stream and index only, not on what was drawn before."""
    noise, other = Noise(7), Noise(7)
    first = noise.normal(Stream.ARRIVALS, 3, np.empty(4)).copy()
    other.uniform(Stream.COMMITS, 9, np.empty(100))
    assert (other.normal(Stream.ARRIVALS, 3, np.empty(4)) == first).all()
    assert (noise.normal(Stream.ARRIVALS, 4, np.empty(4)) != first).all()
    assert (noise.normal(Stream.NODE_PHASE, 3, np.empty(4)) != first).all()
    assert (Noise(8).normal(Stream.ARRIVALS, 3, np.empty(4)) != first).all()


@pytest.mark.parametrize("seed", [-1, SEED_MAX + 1])
def test_seed_out_of_range(seed):
    """A seed that no key can hold is refused."""
    with pytest.raises(InvalidRequestError, match="seed must be within 0 and 2"):
        Noise(seed)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lambda1": 0.001}, "lambda1 must be within 0.01 and 1.0, not 0.001"),
        ({"lambda2": 1.5}, "lambda2 must be within"),
        ({"alpha": -0.1}, "alpha must be within 0.0 and 2.0"),
        ({"action_cost_limit": 0.0}, "action_cost_limit must be within"),
        ({"alpha": math.nan}, "alpha must be within"),
        ({"alpha": math.inf}, "alpha must be within"),
        ({"alpha": True}, "alpha must be a number, not True"),
        ({"alpha": "1"}, "alpha must be a number, not '1'"),
        ({"alpha": 10**400}, "alpha must be within"),
        ({"lambda3": 0.1}, "unknown lambda3"),
        ({"lambda1": 5, "lambda2": 5}, "lambda1 .*; lambda2 "),
    ],
)
def test_parameters_refused(values, message):
    """Parameters out of bounds, of the wrong type or unknown are refused, all of them named."""
    with pytest.raises(InvalidRequestError, match=message):
        Parameters.from_dict(values)


def test_parameters_round_trip():
    """Parameters survive the way through JSON, and missing ones take their defaults."""
    parameters = Parameters(lambda1=0.4, alpha=0.0)
    assert Parameters.from_dict(parameters.to_dict()) == parameters
    assert Parameters.from_dict({"lambda1": 0.4}) == Parameters(lambda1=0.4)


def test_stronger_coupling_costs_more_and_holds_better():
    """Raising λ1 and λ2 raises both coherence and effort."""
    weak, strong = Cluster(50, seed=2), Cluster(50, seed=2, parameters=Parameters(lambda1=0.6, lambda2=0.7))
    for _ in range(150):
        low, high = weak.step().kpis, strong.step().kpis
    assert high["coherence"] > low["coherence"]
    assert high["cost_effort"] == pytest.approx(2 * low["cost_effort"])
