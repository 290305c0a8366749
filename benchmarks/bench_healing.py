"""How fast does the gray-box tuner heal a drifted environment, beside no tuning and a fixed step?

The reference cluster runs 200 ticks in a healthy environment, then the environment steps and stays. A tuner is asked
once more than half of the last 10 (`--trigger`) ticks broke a limit; what it proposes runs as a trial by the rules of
docs/model.md section 6 (settle 10, measure 40, abort, keep or roll back). All tuners share these rules and seeds.

Printed for each: runs that recovered of those that became unhealthy, median and 90th percentile of the ticks from onset
to sustained recovery (from then on all limits hold in at least 57 of 60 ticks; a run that never does counts as the
length of the run), median over runs of the worst C and the worst I_eff, trials, and the mean of J over the run.

    python benchmarks/bench_healing.py [--nodes 5 50 1000] [--seeds 5] [--ticks 500] [--trigger 10]
        [--scenario omega mixed reversal w0 omega_cluster] [--tuner none "fixed step" gray-box]
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from metrics.haru.environment import EnvironmentIdentifier
from metrics.haru.tuning import propose, regretted, trust_after
from metrics.observation import PARAMETER_BOUNDS, SIGNAL_NAMES, NodeSignals, Observation, Parameters, Topology
from qecs.cluster import Cluster
from qecs.faults import Fault
from qecs.parameters import Parameters as PlantParameters

WARM_UP_TICKS = 200
TRIGGER_TICKS = 10
SETTLE_TICKS, MEASURE_TICKS, ABORT_TICKS = 10, 40, 5
BASELINE_TICKS = 10
COHERENCE_MIN, GAS_MIN, ACTION_COST_MAX = 0.90, 0.95, 0.05
SUSTAINED_TICKS, SUSTAINED_MISSES = 60, 3


@dataclass(frozen=True, slots=True)
class Scenario:
    """A step of the environment, and the couplings it finds."""

    channels: Mapping[str, float]
    start: Parameters = field(default_factory=Parameters)


SCENARIOS = {
    "omega": Scenario({"omega": 0.15}),
    "mixed": Scenario({"omega": 0.10, "omega_cluster": 0.03, "w0": 0.03, "demand": 1.2}),
    "reversal": Scenario({"sigma_m": 0.5}, Parameters(lambda1=0.6, lambda2=0.6)),
    "w0": Scenario({"w0": 0.06}),
    "omega_cluster": Scenario({"omega_cluster": 0.06}),
}


class Plant:
    """The reference cluster, observed."""

    def __init__(self, nodes: int, seed: int, parameters: Parameters) -> None:
        self._cluster = Cluster(nodes, seed=seed, parameters=PlantParameters(**parameters.as_dict()))
        self._topology = Topology(self._cluster.node_ids, self._cluster.cluster_ids, self._cluster.cluster_of)
        self.parameters = parameters

    def observe(self) -> Observation:
        """Live one tick."""
        snapshot = self._cluster.step()
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
        self._cluster.apply(PlantParameters(**parameters.as_dict()))

    def step_environment(self, channels: Mapping[str, float]) -> None:
        """Let the environment drift at once and for good."""
        self._cluster.inject(Fault(id="step", kind="drift", channels=channels))


class Tuner(Protocol):
    """What proposes couplings."""

    def observe(self, observation: Observation) -> None:
        """Take one tick in."""

    def propose(self, parameters: Parameters) -> Parameters | None:
        """Couplings worth a trial, asked while a limit is lastingly broken."""

    def closed(self, *, kept: bool) -> None:
        """The trial of the latest proposal is over."""

    def regrets(self, previous: Parameters, present: Parameters) -> bool:
        """Whether a rollback would make things worse, although the trial looks no better than the window before it."""


class NoTuning:
    """Proposes nothing."""

    def observe(self, observation: Observation) -> None:
        """Look away."""

    def propose(self, parameters: Parameters) -> Parameters | None:
        """Nothing."""
        del parameters
        return None

    def closed(self, *, kept: bool) -> None:
        """Never happens."""

    def regrets(self, previous: Parameters, present: Parameters) -> bool:
        """Knows no better than the window before."""
        del previous, present
        return False


class FixedStep(NoTuning):
    """Raises or lowers the couplings by a quarter, the next direction after one that failed."""

    DIRECTIONS = ((1, 1), (0, 1), (1, 0), (-1, -1))

    def __init__(self) -> None:
        self._next = 0

    def propose(self, parameters: Parameters) -> Parameters | None:
        """The next direction that changes anything."""
        for _ in self.DIRECTIONS:
            local, system = self.DIRECTIONS[self._next]
            changed = replace(
                parameters,
                lambda1=_bounded("lambda1", parameters.lambda1 * 1.25**local),
                lambda2=_bounded("lambda2", parameters.lambda2 * 1.25**system),
            )
            if changed != parameters:
                return changed
            self.closed(kept=False)
        return None

    def closed(self, *, kept: bool) -> None:
        """Go on in a direction that helped."""
        if not kept:
            self._next = (self._next + 1) % len(self.DIRECTIONS)


class GrayBox:
    """HARU's identification and model."""

    def __init__(self) -> None:
        self._identifier = EnvironmentIdentifier()
        self._trust = 1.0

    def observe(self, observation: Observation) -> None:
        """Identify."""
        self._identifier.update(observation)

    def propose(self, parameters: Parameters) -> Parameters | None:
        """What the model finds best within reach."""
        environment = self._identifier.environment()
        if environment is None:
            return None
        proposal = propose(environment, parameters, violating=True, trust=self._trust)
        return None if proposal is None else proposal.parameters

    def closed(self, *, kept: bool) -> None:
        """Trust more or less."""
        self._trust = trust_after(self._trust, kept=kept)

    def regrets(self, previous: Parameters, present: Parameters) -> bool:
        """Judge by the environment as it is now."""
        environment = self._identifier.environment()
        return environment is not None and regretted(environment, previous, present)


TUNERS: Mapping[str, type[Tuner]] = {
    "none": NoTuning,
    "fixed step": FixedStep,
    "gray-box": GrayBox,
}


@dataclass(frozen=True, slots=True)
class Means:
    """KPIs averaged over some ticks."""

    coherence: float
    action_cost: float
    violation: float
    objective: float
    error: float

    @classmethod
    def of(cls, samples: list[tuple[float, float, float, float]]) -> Means:
        """Of (C, GAS, I_eff, ΔH) of some ticks."""
        c, gas, cost, entropy = np.array(samples).T
        missed = np.maximum(COHERENCE_MIN - c, 0.0) + np.maximum(GAS_MIN - gas, 0.0)
        objective = cost + 5.0 * entropy + missed
        violation = missed + np.maximum(cost - ACTION_COST_MAX, 0.0)
        error = float(objective.std()) / math.sqrt(max(2.0, len(samples) / 15.0))
        return cls(float(c.mean()), float(cost.mean()), float(violation.mean()), float(objective.mean()), error)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: `recovery_ticks` is None where it never recovered; `unhealthy` is False where nothing was to heal."""

    unhealthy: bool
    recovery_ticks: int | None
    coherence_min: float
    action_cost_max: float
    trials: int
    objective: float


class Trials:
    """The trial rules of docs/model.md section 6, around any tuner."""

    def __init__(self, plant: Plant, tuner: Tuner, trigger_ticks: int) -> None:
        self._plant, self._tuner, self._trigger_ticks = plant, tuner, trigger_ticks
        self._recent: deque[tuple[float, float, float, float]] = deque(maxlen=MEASURE_TICKS)
        self._age = -1
        self._quiet = 0
        self._before: Means | None = None
        self._previous = plant.parameters
        self.count = 0

    def tick(self, observation: Observation) -> None:
        """Observe, then carry the open trial on or begin one."""
        kpis = observation.kpis
        self._recent.append((kpis["coherence"], kpis["gas"], kpis["action_cost"], kpis["delta_entropy"]))
        self._tuner.observe(observation)
        if self._before is not None:
            self._carry_on(self._before)
        elif self._quiet > 0:
            self._quiet -= 1
        else:
            self._begin()

    def _begin(self) -> None:
        last = list(self._recent)[-self._trigger_ticks :]
        lasting = 2 * sum(_broken(*sample[:3]) for sample in last) > self._trigger_ticks
        changed = self._tuner.propose(self._plant.parameters) if lasting else None
        if changed is None:
            return
        self._before, self._age = Means.of(list(self._recent)[-BASELINE_TICKS:]), 0
        self._previous = self._plant.parameters
        self._plant.apply(changed)
        self.count += 1

    def _carry_on(self, before: Means) -> None:
        self._age += 1
        last = list(self._recent)[-ABORT_TICKS:]
        worse_c = all(c < min(0.88, before.coherence - 0.02) for c, *_ in last)
        worse_i = all(cost > max(0.10, 1.6 * before.action_cost) for _, _, cost, _ in last)
        if self._age >= SETTLE_TICKS and (worse_c or worse_i):
            # A tuner that regrets the rollback of an aborted trial ends it all the same, and may propose anew.
            self._close(kept=False)
        elif self._age == SETTLE_TICKS + MEASURE_TICKS:
            after = Means.of(list(self._recent))
            less = before.violation - after.violation > 0.002
            no_worse = after.violation <= before.violation and after.objective <= before.objective + before.error
            self._close(kept=less or no_worse)

    def _close(self, *, kept: bool) -> None:
        kept = kept or self._tuner.regrets(self._previous, self._plant.parameters)
        if not kept:
            self._plant.apply(self._previous)
            self._quiet = SETTLE_TICKS
        self._tuner.closed(kept=kept)
        self._before = None


def run(
    scenario: Scenario, nodes: int, seed: int, ticks: int, tuner: Tuner, trigger_ticks: int = TRIGGER_TICKS
) -> Outcome:
    """One seed of one scenario under one tuner."""
    plant = Plant(nodes, seed, scenario.start)
    for _ in range(WARM_UP_TICKS):
        tuner.observe(plant.observe())
    plant.step_environment(scenario.channels)
    trials = Trials(plant, tuner, trigger_ticks)
    rows = []
    for _ in range(ticks):
        observation = plant.observe()
        trials.tick(observation)
        kpis = observation.kpis
        rows.append([kpis[name] for name in ("coherence", "gas", "action_cost", "objective")])
    table = np.array(rows)
    broken = np.array([_broken(*row[:3]) for row in rows])
    return Outcome(
        unhealthy=bool(broken.sum() > SUSTAINED_MISSES),
        recovery_ticks=_recovery(broken),
        coherence_min=float(table[:, 0].min()),
        action_cost_max=float(table[:, 2].max()),
        trials=trials.count,
        objective=float(table[:, 3].mean()),
    )


def _recovery(broken: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int | None:
    """First healthy tick after the first breach from which the limits hold."""
    missed = np.concatenate([[0], np.cumsum(broken)])
    for tick in range(int(np.argmax(broken)), len(broken) - SUSTAINED_TICKS):
        if not broken[tick] and missed[tick + SUSTAINED_TICKS] - missed[tick] <= SUSTAINED_MISSES:
            return tick + 1
    return None


def _broken(coherence: float, gas: float, action_cost: float) -> bool:
    return coherence < COHERENCE_MIN or gas < GAS_MIN or action_cost > ACTION_COST_MAX


def _bounded(name: str, value: float) -> float:
    low, high = PARAMETER_BOUNDS[name]
    return min(high, max(low, value))


def report(name: str, outcomes: list[Outcome], ticks: int, spent_s: float) -> None:
    """Print a tuner's row."""
    unhealthy = [outcome for outcome in outcomes if outcome.unhealthy]
    recovered = [outcome for outcome in unhealthy if outcome.recovery_ticks is not None]
    times = [float(ticks if one.recovery_ticks is None else one.recovery_ticks) for one in unhealthy]
    share = f"{len(recovered)}/{len(unhealthy)}"
    speed = f"{np.median(times):.0f}/{np.quantile(times, 0.9):.0f}" if times else "-"
    print(
        f"  {name:22s} {share:>6s} {speed:>9s}"
        f" {np.median([one.coherence_min for one in outcomes]):8.3f}"
        f" {np.median([one.action_cost_max for one in outcomes]):8.3f}"
        f" {np.mean([one.trials for one in outcomes]):7.1f}"
        f" {np.mean([one.objective for one in outcomes]):8.4f} {spent_s:6.1f}"
    )


def main() -> None:
    """Print a table for each scenario and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[5, 50, 1000])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (a third of them, at least 2, at N = 1000)")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=500)
    parser.add_argument("--trigger", type=int, default=TRIGGER_TICKS, help="ticks that lasting trouble is judged by")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=["omega", "mixed", "reversal"])
    parser.add_argument("--tuner", nargs="+", choices=TUNERS, default=list(TUNERS))
    chosen = parser.parse_args()
    for nodes in chosen.nodes:
        count = max(2, chosen.seeds // 3) if nodes >= 1000 else chosen.seeds
        for name in chosen.scenario:
            print(f"{name}, N = {nodes}, {count} seeds")
            print(
                f"  {'tuner':22s} {'healed':>6s} {'ticks':>9s} {'worst C':>8s} {'worst I':>8s} {'trials':>7s} {'J':>8s}"
            )
            for tuner in chosen.tuner:
                began = time.process_time()
                outcomes = [
                    run(SCENARIOS[name], nodes, chosen.first_seed + seed, chosen.ticks, TUNERS[tuner](), chosen.trigger)
                    for seed in range(count)
                ]
                report(tuner, outcomes, chosen.ticks, time.process_time() - began)


if __name__ == "__main__":
    main()
