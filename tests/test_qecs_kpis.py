import math

import numpy as np
import pytest

from qecs.kpis import WINDOW_TICKS, History, KpiTracker, Totals, objective, shannon_entropy
from qecs.parameters import Parameters


def totals(**changed):
    values = {
        "coherence": 0.96,
        "gas": 0.97,
        "contraction": 0.5,
        "effort": 10.0,
        "commits": 1000,
        "retries": 100,
        "shed": 2,
        "invalid": 1,
        "entropy": 0.99,
        "gas_target": 0.93,
        "supply": 25_000_000,
        "emission": 5000,
        "burned": 5005,
    }
    return Totals(**(values | changed))


def feed(tracker, ticks, **changed):
    for _ in range(ticks):
        figures = tracker.update(totals(**changed), History(emission=7, burned=8, committed=9), Parameters())
    return figures


def test_steady_input_by_hand():
    """With constant totals every figure is what its formula says."""
    figures = feed(KpiTracker(), 60)
    assert figures["coherence"] == pytest.approx(0.96)
    assert figures["action_cost"] == pytest.approx((10.0 + 15.0 + 2.0 + 1.0) / 1000.0)
    assert figures["cost_retry"] == pytest.approx(15.0)
    assert figures["lambda_opt"] == pytest.approx(0.5)
    assert figures["delta_lambda"] == pytest.approx(0.0)
    assert figures["rsi"] == pytest.approx(1.0)
    assert figures["coherence_service"] == pytest.approx(2 * ((1000 / 1100) / 0.995) ** (1 / 3) - 1)
    assert figures["transaction_rate"] == pytest.approx(1000.0)
    assert figures["governing_law"] == pytest.approx(0.028)
    assert (figures["emission_total"], figures["burned_total"], figures["committed_total"]) == (7, 8, 9)


@pytest.mark.parametrize("name", sorted(WINDOW_TICKS))
def test_undefined_until_the_window_has_filled(name):
    """A figure is NaN up to the tick before its window has filled, and a number from then on."""
    tracker = KpiTracker()
    if WINDOW_TICKS[name] > 1:
        assert math.isnan(feed(tracker, WINDOW_TICKS[name] - 1)[name])
    assert math.isfinite(feed(tracker, 1)[name])


def test_windows():
    """The windows are those that the controller's warm-up counts on."""
    assert {name: WINDOW_TICKS[name] for name in ("coherence", "rsi", "delta_lambda", "delta_entropy")} == {
        "coherence": 15,
        "rsi": 60,
        "delta_lambda": 40,
        "delta_entropy": 40,
    }


def test_step_responses():
    """An average of 15 ticks takes a fifteenth of a step at once; lagged figures compare with 10 ticks ago."""
    tracker = KpiTracker()
    feed(tracker, 100)
    figures = feed(tracker, 1, coherence=0.81, contraction=0.8, entropy=0.97)
    assert figures["coherence"] == pytest.approx(0.95)
    assert figures["delta_lambda"] == pytest.approx(0.01)
    assert figures["delta_entropy"] == pytest.approx(0.02)
    figures = feed(tracker, 9, coherence=0.81, contraction=0.8, entropy=0.97)
    assert figures["delta_entropy"] == pytest.approx(0.02)
    assert feed(tracker, 1, entropy=0.97)["delta_entropy"] == pytest.approx(0.0)


def test_rsi_by_hand():
    """RSI takes spread and trend of the last 60 raw values of C."""
    tracker = KpiTracker()
    feed(tracker, 30, coherence=0.96)
    figures = feed(tracker, 30, coherence=0.94)
    assert figures["rsi"] == pytest.approx(1 - (0.01 + 0.02) / 0.20)
    feed(tracker, 30, coherence=0.3)
    assert feed(tracker, 1, coherence=0.1)["rsi"] == 0.0


def test_no_commits_no_cost():
    """A cost per commit is undefined without commits, and service then shows no coherence."""
    figures = feed(KpiTracker(), 20, commits=0, retries=0)
    assert math.isnan(figures["action_cost"])
    assert figures["coherence_service"] == pytest.approx(-1.0)


def test_objective_weighs_what_is_out_of_limits():
    """J adds cost, unsteadiness and what coherence and GAS lack."""
    figures = {"action_cost": 0.03, "delta_lambda": 0.002, "delta_entropy": 0.001, "coherence": 0.85, "gas": 0.94}
    assert objective(figures) == pytest.approx(0.03 + 0.002 + 0.005 + 0.05 + 0.01)
    assert objective(figures | {"coherence": 0.95, "gas": 0.97}) == pytest.approx(0.037)


def test_entropy():
    """Equal shares have entropy 1, a monopoly 0, and nothing at all 0."""
    assert shannon_entropy(np.full(8, 3.0), 8) == pytest.approx(1.0)
    assert shannon_entropy(np.array([5.0, 0.0, 0.0]), 3) == pytest.approx(0.0)
    assert shannon_entropy(np.zeros(3), 3) == 0.0
    assert shannon_entropy(np.array([5.0]), 1) == 0.0
    assert shannon_entropy(np.array([2.0, 2.0, 0.0]), 2) == pytest.approx(1.0)
