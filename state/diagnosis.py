"""Whose fault is it that KPIs are outside their limits, and which parameters can help?

A node fault is not answered with parameters, since isolation comes first; a contradiction of the sensors with neither.
What is left is the environment. The answer names the KPIs, what costs most where the action cost is one of them, what
in the environment differs from a healthy one, and the parameters that can move the KPIs: that is its evidence.

Pure: an assessment and the thresholds in, a value out. Left out: which values the parameters should take (`tuner.py`).
Source: docs/model.md sections 2, 5 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from metrics.assessment import Assessment
from metrics.haru.plant_model import Environment
from metrics.kpi import KpiStatus
from state.wells import DRIFT_SPREAD

_COUPLINGS = ("lambda1", "lambda2")
# Which parameters move a KPI. The others follow from these, or from what nobody tunes.
HELPING: Mapping[str, tuple[str, ...]] = {
    "coherence": _COUPLINGS,
    "gas": _COUPLINGS,
    "action_cost": (*_COUPLINGS, "action_cost_limit"),
}
SUSPECT_SHARE = 0.75  # of the critical gravity, from which a node may be the cause before it is confirmed
MOVED_FACTOR = 1.5  # by which a part of the environment differs from the healthy one to be told
_HEALTHY = Environment()
_LIMITED_DRIFT = 0.01  # rad/s, drift of the system up to which it is nothing


class Cause(StrEnum):
    """Whose fault it is."""

    ENVIRONMENT = "environment"
    NODES = "nodes"
    SENSORS = "sensors"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong, and what can help.

    Attributes:
        cause: whose fault it is.
        breached: tuned KPIs outside their limits.
        heading: tuned KPIs within their limits that are close to them, or forecast to leave them.
        parameters: names of those that can help; empty where none can.
        costliest: component of the action cost that costs most, where the budget is breached; else "".
        evidence: the figures behind it, by name.
        moved: what in the environment differs from a healthy one, in words.
    """

    cause: Cause
    breached: tuple[str, ...]
    heading: tuple[str, ...]
    parameters: tuple[str, ...]
    costliest: str
    evidence: Mapping[str, float]
    moved: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """JSON values, for the journal."""
        plain = asdict(self)
        return plain | {name: list(plain[name]) for name in ("breached", "heading", "parameters", "moved")}

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{', '.join(self.breached)} outside limits"] if self.breached else []
        parts += [f"{', '.join(self.heading)} about to leave the limits"] if self.heading else []
        parts += [f"{self.costliest} costs most"] if self.costliest else []
        return "; ".join([*parts, *self.moved]) or "nothing is wrong"


def diagnose(
    assessment: Assessment, breached: tuple[str, ...], heading: tuple[str, ...] = (), *, suspect: bool
) -> Diagnosis:
    """What is wrong, for the KPIs that are held to be breached, or about to be.

    Args:
        assessment: the tick's.
        breached: KPIs that are outside their limits by whatever persistence the caller asks for.
        heading: KPIs that are about to leave them.
        suspect: single nodes stand out that may be the cause.
    """
    tuned = tuple(sorted(name for name in breached if name in HELPING))
    heading = tuple(sorted(name for name in heading if name in HELPING and name not in tuned))
    costliest = _costliest(assessment) if "action_cost" in tuned else ""
    if assessment.sensors_doubted:
        cause = Cause.SENSORS
    elif suspect or (tuned == ("action_cost",) and costliest == "invalid"):
        cause = Cause.NODES
    elif tuned or heading:
        cause = Cause.ENVIRONMENT
    else:
        cause = Cause.UNKNOWN
    helping = {name for kpi in (*tuned, *heading) for name in HELPING[kpi]} if cause is Cause.ENVIRONMENT else set()
    evidence = _evidence(assessment, (*tuned, *heading))
    return Diagnosis(
        cause=cause,
        breached=tuned,
        heading=heading,
        parameters=tuple(sorted(helping)),
        costliest=costliest,
        evidence={name: value for name, value in evidence if math.isfinite(value)},
        moved=tuple(_moved(assessment.environment)) if assessment.environment is not None else (),
    )


def drifting(assessment: Assessment) -> tuple[str, ...]:
    """Tuned KPIs within their limits now whose whole forecast interval lies beyond them."""
    beyond = {KpiStatus.WARNING, KpiStatus.CRITICAL}
    return tuple(
        name
        for name, forecast in sorted(assessment.forecasts.items())
        if forecast.limit is not None
        and name in HELPING
        and assessment.kpis[name].status is KpiStatus.HEALTHY
        and {forecast.limit.status(forecast.low), forecast.limit.status(forecast.high)} <= beyond
    )


def drifted(assessment: Assessment) -> bool:
    """Whether all nodes together spread more than healthy ones: the environment has moved, not a node."""
    return assessment.reading is not None and assessment.reading.spread >= DRIFT_SPREAD


def stands_out(assessment: Assessment, gravity_critical: float) -> bool:
    """Whether a node may be the cause before it is confirmed to be a well."""
    return _worst(assessment) > SUSPECT_SHARE * gravity_critical


def gravity_of(assessment: Assessment, node: str) -> float:
    """|g| of a node now; infinite for one that is not there, or not a node."""
    if assessment.reading is None or assessment.topology is None or node not in assessment.topology.index:
        return math.inf
    return float(assessment.reading.gravity[assessment.topology.index[node]])


def _worst(assessment: Assessment) -> float:
    """Largest |g| of an active node with trusted evidence; 0 without one."""
    reading, active = assessment.reading, assessment.active
    if reading is None or active is None:
        return 0.0
    gravity = reading.gravity[active & reading.trusted]
    return float(gravity[np.isfinite(gravity)].max(initial=0.0))


def _costliest(assessment: Assessment) -> str:
    shares = assessment.costs
    return "" if shares is None else max(shares.as_dict().items(), key=lambda item: item[1])[0]


def _evidence(assessment: Assessment, kpis: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    for name in kpis:
        yield name, assessment.kpis[name].value
        if name in assessment.forecasts:
            yield f"{name}_forecast", assessment.forecasts[name].mean
    if assessment.reading is not None:
        yield "gravity_max", _worst(assessment)
        yield "spread", assessment.reading.spread
    if assessment.costs is not None:
        yield from ((f"cost_{name}", value) for name, value in assessment.costs.as_dict().items())
    if assessment.environment is not None:
        yield from ((f"environment_{name}", value) for name, value in environment_figures(assessment.environment))


def environment_figures(environment: Environment) -> Iterator[tuple[str, float]]:
    """The identified environment in the units of docs/model.md section 1."""
    yield "omega_rad_s", environment.frequency_spread**0.5
    yield "omega_cluster_rad_s", environment.cluster_spread**0.5
    yield "w0_rad_s", environment.drift
    yield "sigma", environment.phase_noise**0.5
    yield "sigma_m", environment.sensing_noise**0.5
    yield "load_per_s", environment.load
    yield "kappa", environment.price


def _moved(environment: Environment) -> Iterator[str]:
    usual = dict(environment_figures(_HEALTHY))
    for name, value in environment_figures(environment):
        if name == "w0_rad_s":
            moved = abs(value) > _LIMITED_DRIFT
        else:
            moved = value > MOVED_FACTOR * usual[name] or value * MOVED_FACTOR < usual[name]
        if moved and name != "omega_cluster_rad_s":
            yield f"{name} {value:.3g} (usual {usual[name]:.3g})"
