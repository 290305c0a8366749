"""The KPI catalogue: names, limits and what a value means."""

from __future__ import annotations

import math

import pytest

from metrics.kpi import CATALOGUE, KpiStatus, Limit, Side, with_limits


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("coherence", 0.90, KpiStatus.HEALTHY),
        ("coherence", 0.899, KpiStatus.WARNING),
        ("coherence", 0.849, KpiStatus.CRITICAL),
        ("gas", 0.949, KpiStatus.WARNING),
        ("gas", 0.899, KpiStatus.CRITICAL),
        ("rsi", 0.0, KpiStatus.WARNING),
        ("action_cost", 0.05, KpiStatus.HEALTHY),
        ("action_cost", 0.051, KpiStatus.WARNING),
        ("action_cost", 0.101, KpiStatus.CRITICAL),
        ("delta_entropy", 0.0021, KpiStatus.WARNING),
        ("coherence", math.nan, KpiStatus.UNKNOWN),
        ("action_cost", math.inf, KpiStatus.UNKNOWN),
    ],
)
def test_status(name, value, expected):
    """A value on the limit is healthy, beyond it is not, and what is not finite is unknown."""
    limit = CATALOGUE[name].limit
    assert limit is not None
    assert limit.status(value) is expected


def test_catalogue_keys_are_the_names():
    """A KPI is found under its own name, and no alias collides with a name."""
    assert all(kpi.name == name for name, kpi in CATALOGUE.items())
    aliases = [alias for kpi in CATALOGUE.values() for alias in kpi.aliases]
    assert not set(aliases) & set(CATALOGUE)


def test_with_limits_replaces_only_what_is_asked_for():
    """An override of one bound keeps the side, the other bound, the other KPIs and the catalogue itself."""
    moved = with_limits({"coherence": {"healthy": 0.92}})
    assert moved["coherence"].limit == Limit(Side.AT_LEAST, 0.92, 0.85)
    assert moved["gas"] is CATALOGUE["gas"]
    assert CATALOGUE["coherence"].limit == Limit(Side.AT_LEAST, 0.90, 0.85)


@pytest.mark.parametrize("name", ["nonsense", "supply"])
def test_with_limits_refuses_what_has_no_limit(name):
    """An unknown KPI, or one that is only watched, has no limit that could be moved."""
    with pytest.raises(KeyError):
        with_limits({name: {"healthy": 1.0}})


def test_a_limit_reads_as_people_write_it():
    """Reasons and reports show a limit by its sign and numbers."""
    assert str(CATALOGUE["coherence"].limit) == "≥ 0.9, critical 0.85"
    assert str(CATALOGUE["delta_lambda"].limit) == "≤ 0.01"
