"""Whose fault it is that KPIs are outside their limits, and which parameters can help."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from metrics.haru.ahead import KpiForecast
from metrics.haru.costs import CostShares
from metrics.haru.plant_model import Environment
from metrics.kpi import CATALOGUE
from state.diagnosis import Cause, diagnose, drifted, drifting, gravity_of, stands_out

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]


def stage():
    one = Stage(50, 7)
    one.costs = CostShares(effort=0.011, retries=0.03, shed=0.02, invalid=0.0)
    return one


def diagnosis(one, *breached, suspect=False):
    return diagnose(one.assessment(), breached, suspect=suspect)


def forecast(name, low, high):
    return {name: KpiForecast(15, (low + high) / 2, low, high, CATALOGUE[name].limit)}


@pytest.mark.parametrize(
    ("breached", "helping"),
    [
        (("coherence",), ("lambda1", "lambda2")),
        (("gas", "coherence"), ("lambda1", "lambda2")),
        (("action_cost",), ("action_cost_limit", "lambda1", "lambda2")),
        (("rsi",), ()),
        (("delta_entropy", "delta_lambda"), ()),
    ],
)
def test_each_kpi_has_the_parameters_that_move_it(breached, helping):
    """Coherence and alignment follow the couplings, the cost also its own limit; what else there is, nobody tunes."""
    assert diagnosis(stage(), *breached).parameters == helping


def test_what_costs_most_is_named_where_the_budget_is_breached():
    """The components of the action cost are compared only where it is the matter."""
    found = diagnosis(stage(), "action_cost")
    assert (found.cause, found.costliest) == (Cause.ENVIRONMENT, "retries")
    assert found.evidence["cost_shed"] == 0.02
    assert str(found) == "action_cost outside limits; retries costs most"
    assert diagnosis(stage(), "gas").costliest == ""


def test_invalid_work_is_somebodys_doing():
    """Where invalid transactions cost most, no parameter helps: nodes are the matter."""
    one = stage()
    one.costs = CostShares(effort=0.01, retries=0.01, shed=0.0, invalid=0.2)
    found = diagnosis(one, "action_cost")
    assert (found.cause, found.parameters) == (Cause.NODES, ())
    assert diagnosis(one, "action_cost", "gas").cause is Cause.ENVIRONMENT


def test_a_node_fault_is_not_answered_with_parameters():
    """While single nodes stand out, isolation comes first."""
    found = diagnosis(stage(), "coherence", "gas", suspect=True)
    assert (found.cause, found.parameters) == (Cause.NODES, ())


def test_a_sensor_fault_is_answered_with_nothing():
    """Contradicted sensors outrank every other explanation."""
    one = stage()
    one.disagreement = 0.1
    found = diagnosis(one, "coherence", suspect=True)
    assert (found.cause, found.parameters) == (Cause.SENSORS, ())


def test_nothing_is_wrong():
    """Without a KPI there is no cause, and it says so."""
    found = diagnosis(stage())
    assert (found.cause, str(found)) == (Cause.UNKNOWN, "nothing is wrong")


def test_a_forecast_counts_by_its_whole_interval():
    """A KPI is heading out of its limits when even the better end of the interval is beyond; a breached one is not."""
    one = stage()
    one.forecasts = forecast("gas", 0.93, 0.96)
    assert drifting(one.assessment()) == ()
    one.forecasts = forecast("gas", 0.93, 0.945)
    assert drifting(one.assessment()) == ("gas",)
    one.breached = ("gas",)
    assert drifting(one.assessment()) == ()


def test_what_is_heading_out_of_its_limits_is_answered_like_what_is_out():
    """A KPI about to leave its limits is the environment's matter too; what is breached already is not told twice."""
    one = stage()
    one.forecasts = forecast("gas", 0.93, 0.945)
    found = diagnose(one.assessment(), (), ("gas",), suspect=False)
    assert (found.cause, found.heading, found.parameters) == (Cause.ENVIRONMENT, ("gas",), ("lambda1", "lambda2"))
    assert found.evidence["gas_forecast"] == pytest.approx(0.9375)
    assert str(found) == "gas about to leave the limits"
    assert diagnose(one.assessment(), ("gas",), ("gas", "rsi"), suspect=False).heading == ()


def test_what_moved_in_the_environment_is_told():
    """Parts of the identified environment that differ from a healthy one are named with what is usual."""
    one = stage()
    one.environment = replace(Environment(), frequency_spread=0.16**2, drift=0.05)
    found = diagnosis(one, "gas")
    assert found.moved == ("omega_rad_s 0.16 (usual 0.048)", "w0_rad_s 0.05 (usual 0)")
    assert found.evidence["environment_omega_rad_s"] == pytest.approx(0.16)
    one.environment = Environment()
    assert diagnosis(one, "gas").moved == ()


def test_what_is_not_known_is_no_evidence():
    """Figures that are not finite are left out: the diagnosis is journaled."""
    one = stage()
    one.kpis["coherence"] = float("nan")
    one.gravity[:] = float("nan")
    found = diagnosis(one, "coherence")
    assert "coherence" not in found.evidence
    assert found.evidence["gravity_max"] == 0.0


def test_nodes_stand_out_by_trusted_evidence_only():
    """Three quarters of the critical gravity make a suspect, unless the node is not trusted."""
    one = stage()
    one.make_bad("n3", gravity=1.2)
    assert stands_out(one.assessment(), 1.5)
    one.trusted[3] = False
    assert not stands_out(one.assessment(), 1.5)
    assert gravity_of(one.assessment(), "n3") == 1.2
    assert gravity_of(one.assessment(), "c0") == float("inf")


def test_a_drift_is_the_spread_of_all():
    """From 15 % more spread than usual the environment has drifted."""
    one = stage()
    assert not drifted(one.assessment())
    one.spread = 1.15
    assert drifted(one.assessment())
