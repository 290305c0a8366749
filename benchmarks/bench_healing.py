"""How well does the healing of this controller do, beside other ways to tune, and beside hindsight?

The reference cluster runs 200 ticks in a healthy environment, then a scenario begins. Every method drives the same
loop: the cluster lives a tick, it is assessed, the governor decides and isolates as it would in a run. What differs is
who tunes: nobody; the governor itself, with its model or, as on a plant without phases, with its fixed step; a PID on
the worst KPI, extremum seeking, or a (1+1)-CMA-ES, each with a rollback of its own. The optimum knows the future: it is
the best of 16 constant pairs of couplings, in force from the onset on, and it isolates the faulty node at once.

Printed for each method, over the runs in which the untuned cluster became unhealthy: how many recovered; median and
90th percentile of the ticks from the first breach to sustained recovery (from then on all limits hold in at least 57 of
60 ticks; a run that never does counts as its full length); median over the runs of the worst violation in a tick; mean
regret, J beyond that of the optimum, over the run and over its last 150 ticks; changes of parameters; and harm, the
violation beyond the untuned run's in the same tick, mean over the run: what wrong trials cost.

    python benchmarks/bench_healing.py [--nodes 5 50 1000] [--seeds 20] [--ticks 400] [--first-seed 100]
        [--scenario healthy step fast slow cyclic surge combined reversal w0] [--method ...] [--jobs 2]

Without arguments it is quick: 50 nodes, 2 seeds, 300 ticks. Nothing was tuned on seeds from 9000 on.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
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
CYCLE_TICKS, CYCLE_STEP_TICKS = 200, 10
OURS, UNTUNED, OPTIMUM = "ours", "none", "optimum"


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


class GovernorTunes:
    """The governor and its assessor around one plant, with or without healing."""

    def __init__(self, plant: Plant, *, healing: bool, model: bool) -> None:
        self._plant, self._model = plant, model
        self._assessor = Assessor()
        self._governor = Governor(GovernorSettings(IsolationPolicy(), HealingPolicy(enabled=healing)))
        capabilities = frozenset({Capability.NODES, Capability.ISOLATE, Capability.PARAMETERS})
        self._governor.step(Started(1, capabilities, {}), 0.0)
        passed = (CheckResult("bench", CheckStatus.PASSED, "assumed"),)
        for phase in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            self._governor.step(PhaseEnded(PhaseResult(phase, passed)), 0.0)
        self.trials = 0

    def tick(self, observation: Observation) -> None:
        """Assess, decide, act."""
        assessment = self._assessor.assess(observation)
        if not self._model:
            assessment = replace(assessment, environment=None)
        now_s = observation.plant_time_s
        decisions = [self._governor.step(Assessed(assessment, observation.parameters), now_s)]
        while decisions:
            decision = decisions.pop()
            self.trials += sum(event.kind is EventKind.TRIAL_STARTED for event in decision.events)
            for action in decision.actions:
                replied = Replied(action.key, self._plant.carry_out(action), "", now_s)
                decisions.append(self._governor.step(replied, now_s))


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


def _figures(observation: Observation) -> tuple[float, float, float, float]:
    kpis = observation.kpis
    return kpis["coherence"], kpis["gas"], kpis["action_cost"], kpis["objective"]


def governed(name: str, nodes: int, seed: int, ticks: int, method: str) -> Trace:
    """One run of a scenario under one method."""
    plant = Plant(nodes, seed, SCENARIOS[name])
    tuner = TUNERS[method]()
    governor = GovernorTunes(plant, healing=method in GOVERNED, model=method == OURS)
    rows = []
    for tick in range(WARM_UP_TICKS + ticks):
        observation = plant.live()
        governor.tick(observation)
        changed = tuner.tick(observation.kpis, plant.parameters) if tick >= WARM_UP_TICKS else None
        if changed is not None:
            plant.apply(changed)
        if tick >= WARM_UP_TICKS:
            rows.append(_figures(observation))
    return Trace.of(rows, governor.trials + tuner.changes)


def optimum(name: str, nodes: int, seed: int, ticks: int) -> Trace:
    """The best of the constant couplings, by J over the whole run."""
    plant = Plant(nodes, seed, SCENARIOS[name])
    for _ in range(WARM_UP_TICKS):
        plant.live()
    traces = []
    for lambda1, lambda2 in itertools.product(COUPLINGS, COUPLINGS):
        one = copy.deepcopy(plant)
        one.apply(replace(one.parameters, lambda1=lambda1, lambda2=lambda2))
        rows = []
        for tick in range(ticks):
            if SCENARIOS[name].node_fault and tick == FAULT_AFTER_TICKS + 1:
                one.cluster.isolate(one.faulty_node())
            rows.append(_figures(one.live()))
        traces.append(Trace.of(rows, 1))
    return min(traces, key=lambda trace: float(trace.objective.mean()))


TUNERS: Mapping[str, type[Tuner]] = {
    UNTUNED: ConstantTuner,
    "fixed step": ConstantTuner,
    "PID": Pid,
    "extremum seeking": ExtremumSeeking,
    "CMA": OneOneCma,
    OURS: ConstantTuner,
}
GOVERNED = frozenset({"fixed step", OURS})


def _one(job: tuple[str, int, int, int, str]) -> Trace:
    name, nodes, seed, ticks, method = job
    return optimum(name, nodes, seed, ticks) if method == OPTIMUM else governed(*job)


@dataclass(frozen=True, slots=True)
class Row:
    """A method's figures in one scenario; see the module's docstring."""

    method: str
    healed: int
    unhealthy: int
    median_ticks: float
    p90_ticks: float
    violation: float
    regret: float
    settled_regret: float
    settled_objective: float
    changes: float
    harm: float


def row(method: str, traces: list[Trace], untuned: list[Trace], best: list[Trace], *, always: bool) -> Row:
    """The figures over the runs whose untuned twin became unhealthy, or `always` over all."""
    chosen = [i for i, trace in enumerate(untuned) if int(trace.broken.sum()) > SUSTAINED_MISSES or always]
    ticks = len(untuned[0].broken)
    recoveries = [traces[i].recovery() for i in chosen]
    times = [float(ticks if one is None else one) for one in recoveries] or [math.nan]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else math.nan

    last = slice(-SETTLED_TICKS, None)
    return Row(
        method=method,
        healed=sum(one is not None for one in recoveries),
        unhealthy=len(chosen),
        median_ticks=float(np.median(times)),
        p90_ticks=float(np.quantile(times, 0.9)),
        violation=float(np.median([traces[i].violation.max() for i in chosen])) if chosen else math.nan,
        regret=mean([float((traces[i].objective - best[i].objective).mean()) for i in chosen]),
        settled_regret=mean([float((traces[i].objective - best[i].objective)[last].mean()) for i in chosen]),
        settled_objective=mean([float(best[i].objective[last].mean()) for i in chosen]),
        changes=mean([float(traces[i].changes) for i in chosen]),
        harm=mean([float(np.maximum(traces[i].violation - untuned[i].violation, 0.0).mean()) for i in chosen]),
    )


def behind(rows: list[Row]) -> list[str]:
    """Where ours is not ahead of each online method, or worse than no tuning, in words."""
    ours = next((one for one in rows if one.method == OURS), None)
    if ours is None or not ours.unhealthy:
        return []
    told = []
    for other in rows:
        if other.method in (OURS, OPTIMUM):
            continue
        if other.median_ticks < ours.median_ticks:
            told.append(f"{other.method} recovers sooner ({other.median_ticks:.0f} to {ours.median_ticks:.0f} ticks)")
        if other.violation < ours.violation:
            told.append(f"{other.method} violates less at worst ({other.violation:.3f} to {ours.violation:.3f})")
    if ours.settled_regret > 0.1 * ours.settled_objective:
        told.append(f"settled J is {ours.settled_regret / ours.settled_objective:.0%} above the optimum's")
    return told


def show(rows: list[Row]) -> None:
    """Print a scenario's table."""
    heads = f"{'method':18s} {'healed':>7s} {'ticks':>9s} {'worst':>7s} {'regret':>8s} {'settled':>8s} {'changes':>8s}"
    print(f"  {heads} harm")
    for one in rows:
        healed = f"{one.healed}/{one.unhealthy}"
        print(
            f"  {one.method:18s} {healed:>7s} {one.median_ticks:4.0f}/{one.p90_ticks:<4.0f} {one.violation:7.3f}"
            f" {one.regret:8.4f} {one.settled_regret:8.4f} {one.changes:8.1f} {one.harm:.5f}"
        )
    for words in behind(rows):
        print(f"  ! {words}")


def main() -> None:
    """Print a table for each scenario and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50])
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=300)
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--method", nargs="+", choices=[*TUNERS, OPTIMUM], default=[*TUNERS, OPTIMUM])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args()
    methods = list(dict.fromkeys((UNTUNED, *chosen.method)))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for nodes, name in itertools.product(chosen.nodes, chosen.scenario):
            jobs = [(name, nodes, seed, chosen.ticks, method) for method in methods for seed in seeds]
            traces = list(pool.map(_one, jobs))
            of = {m: traces[i * len(seeds) : (i + 1) * len(seeds)] for i, m in enumerate(methods)}
            print(f"{name}, N = {nodes}, {len(seeds)} seeds from {chosen.first_seed}, {chosen.ticks} ticks")
            best = of.get(OPTIMUM, of[UNTUNED])
            show([row(method, of[method], of[UNTUNED], best, always=name == "healthy") for method in methods])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
