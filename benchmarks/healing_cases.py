"""One case of the healing benchmark: the same plant in the same scenario under every way to tune it.

The cluster runs 200 ticks in a healthy environment, then the scenario begins. Every method drives the same loop: the
cluster lives a tick, it is assessed, the governor decides and isolates as it would in a run. What differs is who tunes.
The optimum knows the future: it is the best of 16 constant pairs of couplings, in force from the onset on, and it
isolates the faulty node at once; where even that violates the limits, other values of α and I_lim are tried as well.

Methods that change nothing while the cluster is healthy share its first 200 ticks. All randomness is the cluster's,
named by seed and tick, so that the runs of a case differ by what is done in them alone.
"""

from __future__ import annotations

import copy
import copyreg
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from sweep import Case
from tuners import ConstantTuner, ExtremumSeeking, OneOneCma, Pid, Tuner

from metrics.assessment import Assessor
from metrics.observation import SIGNAL_NAMES, Capability, NodeSignals, Observation, Parameters, Topology
from qecs.cluster import Cluster
from qecs.faults import Fault
from qecs.parameters import Parameters as PlantParameters
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.event import EventKind
from state.governor import Governor, GovernorSettings
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.phase import Phase
from state.stimulus import Assessed, PhaseEnded, Replied, Started
from state.trial_window import ACTION_COST_MAX, COHERENCE_MIN, GAS_MIN
from state.verdict import CheckResult, CheckStatus, PhaseResult

WARM_UP_TICKS = 200
SUSTAINED_TICKS, SUSTAINED_MISSES = 60, 3
SETTLED_TICKS = 150
FAULT_AFTER_TICKS = 40
COUPLINGS = (0.15, 0.28, 0.52, 0.95)
ALPHAS, EFFORT_LIMITS = (0.0, 2.0), (0.005, 0.02)
CYCLE_TICKS, CYCLE_STEP_TICKS = 200, 10
OURS, UNTUNED, OPTIMUM, FIXED_STEP = "ours", "none", "optimum", "fixed step"

# A loop that has warmed up is copied; among what it holds are views of mappings, which are not copied by themselves.
copyreg.pickle(MappingProxyType, lambda view: (MappingProxyType, (dict(view),)))

TUNERS: Mapping[str, type[Tuner]] = {
    UNTUNED: ConstantTuner,
    FIXED_STEP: ConstantTuner,
    "PID": Pid,
    "extremum seeking": ExtremumSeeking,
    "CMA": OneOneCma,
    OURS: ConstantTuner,
}
GOVERNED = frozenset({FIXED_STEP, OURS})
METHODS = (*TUNERS, OPTIMUM)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What becomes of the environment, and the couplings that this finds."""

    channels: Mapping[str, float]
    ramp_ticks: int = 0
    cyclic: bool = False
    node_fault: bool = False
    start: Parameters = field(default_factory=Parameters)


SCENARIOS = {
    "healthy": Scenario({}),
    "step": Scenario({"omega": 0.15}),
    "fast": Scenario({"omega": 0.15}, ramp_ticks=60),
    "slow": Scenario({"omega": 0.15, "omega_cluster": 0.02}, ramp_ticks=300),
    "cyclic": Scenario({"omega": 0.15}, cyclic=True),
    "surge": Scenario({"demand": 1.6}),
    "combined": Scenario({"omega": 0.10, "omega_cluster": 0.03, "w0": 0.03, "demand": 1.2}, node_fault=True),
    "reversal": Scenario({"sigma_m": 0.5}, start=Parameters(lambda1=0.6, lambda2=0.6)),
    "w0": Scenario({"w0": 0.06}),
}


def run(case: Case, methods: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    """The figures of each method, by name; that of no tuning is always among them.

    Each: `recovery`, ticks from the first breach to sustained recovery, None without one; `broken`, ticks in which a
    limit was broken; `violation`, the worst in a tick, and `mean_violation`; J as `objective` and, over the last 150
    ticks, `settled`; `changes` of parameters; and `harm`, the violation beyond the untuned run's in the same tick, mean
    over the run.
    """
    start = _Loop(case, healing=False, model=False)
    start.warm_up()
    traces = {method: _traced(case, method, start) for method in dict.fromkeys((UNTUNED, *methods))}
    untuned = traces[UNTUNED].violation
    return {
        method: {
            "recovery": trace.recovery(),
            "broken": int(trace.broken.sum()),
            "violation": float(trace.violation.max()),
            "mean_violation": float(trace.violation.mean()),
            "objective": float(trace.objective.mean()),
            "settled": float(trace.objective[-SETTLED_TICKS:].mean()),
            "changes": trace.changes,
            "harm": float(np.maximum(trace.violation - untuned, 0.0).mean()),
        }
        for method, trace in traces.items()
    }


def _traced(case: Case, method: str, start: _Loop) -> Trace:
    if method == OPTIMUM:
        return _optimum(case, start.plant)
    if method in GOVERNED:
        loop = _Loop(case, healing=True, model=method == OURS)
        loop.warm_up()
    else:
        loop = copy.deepcopy(start)
    return loop.run(case.ticks, TUNERS[method]())


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One run, tick by tick from the onset: float64[T] each, and how often parameters were changed."""

    objective: np.ndarray[Any, np.dtype[np.float64]]
    violation: np.ndarray[Any, np.dtype[np.float64]]
    broken: np.ndarray[Any, np.dtype[np.bool_]]
    changes: int

    @classmethod
    def of(cls, rows: list[tuple[float, float, float, float]], changes: int) -> Trace:
        """From (C, GAS, I_eff, J) of each tick."""
        c, gas, cost, objective = np.array(rows).T
        missed = np.maximum(COHERENCE_MIN - c, 0) + np.maximum(GAS_MIN - gas, 0) + np.maximum(cost - ACTION_COST_MAX, 0)
        return cls(objective, missed, missed > 0.0, changes)

    def recovery(self) -> int | None:
        """Ticks from the first breach to the first healthy tick from which the limits hold, None without one."""
        missed = np.concatenate([[0], np.cumsum(self.broken)])
        first = int(np.argmax(self.broken))
        for tick in range(first, len(self.broken) - SUSTAINED_TICKS):
            if not self.broken[tick] and missed[tick + SUSTAINED_TICKS] - missed[tick] <= SUSTAINED_MISSES:
                return tick - first
        return None


class Plant:
    """The reference cluster in a scenario, observed."""

    def __init__(self, nodes: int, seed: int, scenario: Scenario) -> None:
        self.cluster = Cluster(nodes, seed=seed, parameters=PlantParameters(**scenario.start.as_dict()))
        self.parameters = scenario.start
        self._scenario = scenario
        self._age = -WARM_UP_TICKS
        self._topology = Topology(self.cluster.node_ids, self.cluster.cluster_ids, self.cluster.cluster_of)

    def live(self) -> Observation:
        """Live one tick."""
        self._follow_scenario()
        self._age += 1
        snapshot = self.cluster.step()
        signals: dict[str, Any] = {
            name: np.asarray(snapshot.signals[name], dtype=np.float64) for name in SIGNAL_NAMES if name != "active"
        }
        return Observation(
            snapshot.tick,
            snapshot.time_s,
            snapshot.time_s,
            snapshot.kpis,
            self._topology,
            NodeSignals(active=snapshot.signals["active"], **signals),
            self.parameters,
        )

    def apply(self, parameters: Parameters) -> None:
        """Put parameters into force from the next tick on."""
        self.parameters = parameters
        self.cluster.apply(PlantParameters(**parameters.as_dict()))

    def carry_out(self, action: Action) -> Reply:
        """Do what the governor says."""
        if isinstance(action, IsolateNode):
            self.cluster.isolate(action.node)
        elif isinstance(action, RestoreNode):
            self.cluster.restore(action.node)
        elif isinstance(action, ApplyParameters):
            self.apply(action.parameters)
        return Reply.APPLIED

    def faulty_node(self) -> str:
        """The node that the combined scenario makes ill."""
        return self.cluster.node_ids[0]

    def _follow_scenario(self) -> None:
        scenario, age = self._scenario, self._age
        if scenario.cyclic and age >= 0 and age % CYCLE_STEP_TICKS == 0:
            share = 0.5 - 0.5 * math.cos(2 * math.pi * (age + CYCLE_STEP_TICKS) / CYCLE_TICKS)
            channels = {name: share * value for name, value in scenario.channels.items()}
            self.cluster.clear("drift")
            self.cluster.inject(Fault(id="drift", kind="drift", channels=channels))
        elif age == 0 and scenario.channels:
            fault = Fault(id="drift", kind="drift", channels=scenario.channels, ramp_ticks=scenario.ramp_ticks)
            self.cluster.inject(fault)
        if scenario.node_fault and age == FAULT_AFTER_TICKS:
            self.cluster.inject(Fault(id="node", kind="byzantine", nodes=(self.faulty_node(),)))


@dataclass(frozen=True, slots=True, eq=False)
class _Unmoved:
    """A detector of anomalies that finds none, and its own scores: no decision here hangs on them."""

    score: np.ndarray[Any, np.dtype[np.float64]]
    onset: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def by(cls, series: int) -> _Unmoved:
        """For so many series."""
        return cls(np.zeros(series), np.zeros(series, dtype=np.bool_))

    def update(self, _time_s: float, _values: np.ndarray[Any, np.dtype[np.float64]], /) -> _Unmoved:
        """Whatever happens, nothing is unusual."""
        return self

    def reason(self, _index: int, /) -> str:
        """Nothing is to be said of any series."""
        return ""


class _Loop:
    """The governor and its assessor around one plant, with or without healing."""

    def __init__(self, case: Case, *, healing: bool, model: bool) -> None:
        self.plant = Plant(case.nodes, case.seed, SCENARIOS[case.scenario])
        self._model = model
        self._assessor = Assessor(detector=_Unmoved.by)
        self._governor = Governor(GovernorSettings(IsolationPolicy(), HealingPolicy(enabled=healing)))
        capabilities = frozenset({Capability.NODES, Capability.ISOLATE, Capability.PARAMETERS})
        self._governor.step(Started(1, capabilities, {}), 0.0)
        passed = (CheckResult("bench", CheckStatus.PASSED, "assumed"),)
        for phase in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            self._governor.step(PhaseEnded(PhaseResult(phase, passed)), 0.0)
        self._trials = 0

    def warm_up(self) -> None:
        """Live until the scenario begins."""
        for _ in range(WARM_UP_TICKS):
            self._tick()

    def run(self, ticks: int, tuner: Tuner) -> Trace:
        """Live through the scenario, with a tuner beside the governor."""
        rows = []
        for _ in range(ticks):
            observation = self._tick()
            rows.append(_figures(observation))
            changed = tuner.tick(observation.kpis, self.plant.parameters)
            if changed is not None:
                self.plant.apply(changed)
        return Trace.of(rows, self._trials + tuner.changes)

    def _tick(self) -> Observation:
        """Live, assess, decide, act."""
        observation = self.plant.live()
        assessment = self._assessor.assess(observation)
        if not self._model:
            assessment = replace(assessment, environment=None)
        now_s = observation.plant_time_s
        decisions = [self._governor.step(Assessed(assessment, observation.parameters), now_s)]
        while decisions:
            decision = decisions.pop()
            self._trials += sum(event.kind is EventKind.TRIAL_STARTED for event in decision.events)
            for action in decision.actions:
                replied = Replied(action.key, self.plant.carry_out(action), "", now_s)
                decisions.append(self._governor.step(replied, now_s))
        return observation


def _optimum(case: Case, start: Plant) -> Trace:
    """The best of the constant parameters, by J over the whole run, from a plant that has warmed up."""
    pairs = (
        replace(start.parameters, lambda1=lambda1, lambda2=lambda2)
        for lambda1, lambda2 in itertools.product(COUPLINGS, COUPLINGS)
    )
    traces = [(parameters, _constant(case, start, parameters)) for parameters in pairs]
    parameters, best = min(traces, key=_objective)
    if best.violation[-SETTLED_TICKS:].any():
        traces = [(one, _constant(case, start, one)) for one in _further(parameters)]
        best = min([(parameters, best), *traces], key=_objective)[1]
    return best


def _objective(traced: tuple[Parameters, Trace]) -> float:
    return float(traced[1].objective.mean())


def _further(parameters: Parameters) -> Iterator[Parameters]:
    yield from (replace(parameters, alpha=alpha) for alpha in ALPHAS)
    yield from (replace(parameters, action_cost_limit=limit) for limit in EFFORT_LIMITS)


def _constant(case: Case, start: Plant, parameters: Parameters) -> Trace:
    plant = copy.deepcopy(start)
    plant.apply(parameters)
    rows = []
    for tick in range(case.ticks):
        if SCENARIOS[case.scenario].node_fault and tick == FAULT_AFTER_TICKS + 1:
            plant.cluster.isolate(plant.faulty_node())
        rows.append(_figures(plant.live()))
    return Trace.of(rows, 1)


def _figures(observation: Observation) -> tuple[float, float, float, float]:
    kpis = observation.kpis
    return kpis["coherence"], kpis["gas"], kpis["action_cost"], kpis["objective"]
