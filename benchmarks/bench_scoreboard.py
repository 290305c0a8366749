"""Who finds the bad nodes, how soon, and at whose expense? This controller beside three others, over all faults.

Every contestant governs its own copy of the reference cluster, from the same seed and with the same fault, because
isolating changes the plant: Envoy's success-rate ejection, a fixed threshold and a φ accrual failure detector (see
competitors.py). Ours is the real assessor and governor with default settings, healing included. Beside them nobody
governs ("nobody"), and all four watch that one recording: what they would have flagged is the pure detection.

Printed for each size, scenario and contestant:

- delay: median over the faulty nodes of the ticks from the onset to their first isolation; one that was never isolated
  counts as the whole run (">"). For a drift, a surge, bad sensors and a bad cluster no node is to be isolated.
- missed: share of the faulty nodes that were never isolated.
- wrong: isolations of nodes that had no fault, a node-day (a bad cluster's own nodes count neither way).
- recovery: median ticks from the onset to sustained coherence (from then on C, GAS and I_eff hold in at least 57 of 60
  ticks), over the runs that break these limits while nobody governs; a run that never recovers counts as the whole.
- breaches: isolations beyond 30 % of all nodes, a third of a cluster or its quorum of 3.
- flagged: median delay on the recording, and wrong flags a node-day there.

    python benchmarks/bench_scoreboard.py [--nodes 5 50 1000] [--seeds 20] [--first-seed 0] [--ticks 240]
        [--scenario ...] [--jobs 2]

Without arguments it is quick: 5 and 50 nodes, one seed. Seeds from 9000 on are kept for checking: nothing is tuned on
them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from competitors import Competitor, FailurePercentageEjection, PhiAccrual, SuccessRateEjection
from numpy.typing import NDArray

from controller.clock import VirtualClock
from controller.plants.embedded import EmbeddedPlant
from metrics.assessment import Assessor
from metrics.observation import Capability, NodeSignals, Observation, Topology
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.event import Event, EventKind
from state.governor import Governor, GovernorSettings
from state.healing import HealingPolicy
from state.isolation import ROUNDING, IsolationPolicy
from state.phase import Phase
from state.stimulus import Assessed, PhaseEnded, Replied, Started
from state.trial_window import ACTION_COST_MAX, COHERENCE_MIN, GAS_MIN
from state.verdict import CheckResult, CheckStatus, PhaseResult

Bools = NDArray[np.bool_]

WARM_UP_TICKS = 120
SUSTAINED_TICKS, SUSTAINED_MISSES = 60, 3
DAY_S = 86_400.0
FOREVER_S = 86_000.0  # an isolation that whoever asked for it ends
POLICY = IsolationPolicy()
OURS, NOBODY = "ours", "nobody"
COMPETITORS: Mapping[str, type[SuccessRateEjection | FailurePercentageEjection | PhiAccrual]] = {
    "Envoy success rate": SuccessRateEjection,
    "fixed threshold": FailurePercentageEjection,
    "phi accrual": PhiAccrual,
}
CONTESTANTS = (OURS, *COMPETITORS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault.

    Attributes:
        fault: kind and magnitude, in the form of `POST /faults`; empty where nothing goes wrong.
        share: of the nodes that it hits, at least one; 0 where it is not a matter of nodes.
        whole_cluster: whether the nodes that it hits are neither to be isolated nor healthy.
    """

    fault: Mapping[str, object] = field(default_factory=dict)
    share: float = 0.0
    whole_cluster: bool = False


def _nodes(kind: str, share: float = 0.02, **options: object) -> Scenario:
    return Scenario({"kind": kind, **options}, share)


SCENARIOS: Mapping[str, Scenario] = {
    "healthy": Scenario(),
    "detuned .4": _nodes("detuned", magnitude=0.4),
    "detuned .6": _nodes("detuned", magnitude=0.6),
    "byzantine": _nodes("byzantine"),
    "stealth": _nodes("stealth"),
    "slow": _nodes("slow"),
    "silent": _nodes("silent"),
    "flapping": _nodes("flapping"),
    "detuned .6, a tenth": _nodes("detuned", 0.1, magnitude=0.6),
    "byzantine, a tenth": _nodes("byzantine", 0.1),
    "silent, a tenth": _nodes("silent", 0.1),
    "byzantine, a quarter": _nodes("byzantine", 0.25),
    "cluster": Scenario({"kind": "cluster"}, whole_cluster=True),
    "sensor noise": Scenario({"kind": "sensor-noise"}),
    "sensor static": Scenario({"kind": "sensor-static"}),
    "drift": Scenario({"kind": "drift", "channels": {"omega": 0.15}, "ramp_ticks": 60}),
    "surge": Scenario({"kind": "surge", "duration_ticks": 120}),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be made."""

    scenario: str
    nodes: int
    seed: int
    ticks: int
    contestant: str


@dataclass(slots=True)
class Watched:
    """Who was isolated, or flagged, when: what a contestant is judged by.

    Attributes:
        onset: ticks before it are warm-up.
        faulty: bool[N], who is to be isolated from then on.
        neutral: bool[N], who counts neither way.
        delays: of the faulty nodes so far, by index.
        wrong: isolations of others.
        breaches: isolations beyond a budget.
    """

    onset: int
    faulty: Bools
    neutral: Bools
    delays: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    breaches: int = 0

    def take(self, node: int, tick: int) -> None:
        """A node is isolated, or flagged."""
        if tick > self.onset and self.faulty[node]:
            self.delays.setdefault(node, tick - self.onset)
        elif tick <= self.onset or not self.neutral[node]:
            self.wrong += 1

    def check_budgets(self, topology: Topology, out: Bools) -> None:
        """Judge who is out right after an isolation."""
        gone = np.bincount(topology.cluster_of[out], minlength=len(topology.clusters))
        beyond = out.sum() > POLICY.fraction_max * len(out) + ROUNDING
        beyond |= bool((gone > POLICY.cluster_fraction_max * topology.sizes + ROUNDING).any())
        beyond |= bool(((topology.sizes - gone < POLICY.quorum) & (gone > 0)).any())
        self.breaches += bool(beyond)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one run.

    Attributes:
        delays: ticks for each faulty node; the run's length where it was never isolated.
        missed: faulty nodes that never were.
        faulty: faulty nodes.
        wrong: isolations of others.
        node_days: of nodes without a fault.
        breaches: isolations beyond a budget.
        recovery: ticks to sustained coherence, the run's length without one; None where the limits always held.
    """

    delays: tuple[int, ...]
    missed: int
    faulty: int
    wrong: int
    node_days: float
    breaches: int
    recovery: int | None = None


class Plant:
    """The reference cluster, embedded, with the scenario's fault after the warm-up."""

    def __init__(self, case: Case) -> None:
        self.scenario = SCENARIOS[case.scenario]
        self.embedded = EmbeddedPlant(case.nodes, seed=case.seed, clock=VirtualClock())
        self._writes = 0
        self._hit = np.zeros(case.nodes, dtype=bool)
        self._rng = np.random.default_rng(case.seed)

    def live(self) -> Observation:
        """Live one tick."""
        return self.embedded.observe(1.0)[0]

    def begin_fault(self) -> Bools:
        """Let the fault begin with the next tick; bool[N], the nodes that it hits."""
        scenario, cluster = self.scenario, self.embedded.host.cluster
        target: dict[str, object] = {}
        if scenario.share:
            self._hit[self._drawn(max(1, round(scenario.share * len(self._hit))))] = True
            target["nodes"] = [cluster.node_ids[node] for node in np.flatnonzero(self._hit)]
        elif scenario.whole_cluster:
            chosen = int(self._rng.integers(len(cluster.cluster_ids)))
            self._hit |= cluster.cluster_of == chosen
            target["cluster"] = cluster.cluster_ids[chosen]
        if scenario.fault:
            self.embedded.inject({"id": "bench", **scenario.fault, **target}, key="bench", epoch=1)
        return self._hit

    def _drawn(self, count: int) -> NDArray[np.intp]:
        """`count` nodes, one of each cluster before a second one of any."""
        cluster_of = self.embedded.host.cluster.cluster_of
        order = self._rng.permutation(len(cluster_of))
        place = np.empty(len(order))
        for cluster in range(int(cluster_of.max()) + 1):
            members = order[cluster_of[order] == cluster]
            place[members] = np.arange(len(members))
        chosen: NDArray[np.intp] = order[np.argsort(place[order], kind="stable")][:count]
        return chosen

    def carry_out(self, action: Action) -> None:
        """Do it, as the effector would."""
        self._writes += 1
        key = f"bench-{self._writes}"
        if isinstance(action, IsolateNode):
            self.embedded.isolate(action.node, key=key, epoch=1, ttl_s=action.ttl_s)
        elif isinstance(action, RestoreNode):
            self.embedded.restore(action.node, key=key, epoch=1)
        elif isinstance(action, ApplyParameters):
            self.embedded.apply(action.parameters, key=key, epoch=1)


class Ours:
    """The assessor and the governor, in GOVERNING."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self._assessor = Assessor()
        self._governor = Governor(GovernorSettings(POLICY, HealingPolicy(), dry_run=dry_run))
        capabilities = frozenset({Capability.NODES, Capability.ISOLATE, Capability.PARAMETERS})
        self._governor.step(Started(1, capabilities, {}), 0.0)
        passed = (CheckResult("bench", CheckStatus.PASSED, "assumed"),)
        for phase in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            self._governor.step(PhaseEnded(PhaseResult(phase, passed)), 0.0)

    def tick(self, observation: Observation, plant: Plant) -> list[Event]:
        """Assess, decide, act; what was decided."""
        now_s = observation.plant_time_s
        assessed = Assessed(self._assessor.assess(observation), observation.parameters)
        decisions = [self._governor.step(assessed, now_s)]
        events: list[Event] = []
        while decisions:
            decision = decisions.pop()
            events += decision.events
            for action in decision.actions:
                plant.carry_out(action)
                decisions.append(self._governor.step(Replied(action.key, Reply.APPLIED, "", now_s), now_s))
        return events


def governed(case: Case) -> Result:
    """A run in which the contestant has its way."""
    plant = Plant(case)
    ours = Ours() if case.contestant == OURS else None
    competitor = None if ours else COMPETITORS[case.contestant](case.nodes)
    watched, held = _prepared(case), []
    for tick in range(1, WARM_UP_TICKS + case.ticks + 1):
        observation = plant.live()
        topology, signals = _nodes_of(observation)
        out = ~signals.active
        if ours is not None:
            taken = _isolated_by(ours.tick(observation, plant), topology, EventKind.ISOLATION_INTENDED, "node")
        else:
            taken = _switch(competitor, plant, observation, topology, signals)
        for node in taken:
            watched.take(node, tick)
            out[node] = True
        if taken:
            watched.check_budgets(topology, out)
        held.append(_holds(observation))
        if tick == WARM_UP_TICKS:
            _mark(watched, plant.begin_fault(), plant.scenario)
    return _judged(case, watched, held[WARM_UP_TICKS:])


def recorded(case: Case) -> dict[str, Result]:
    """A run that nobody governs, under `NOBODY`, and what each contestant would have flagged in it."""
    plant, ours = Plant(case), Ours(dry_run=True)
    competitors = {name: made(case.nodes) for name, made in COMPETITORS.items()}
    watched = {name: _prepared(case) for name in (NOBODY, *CONTESTANTS)}
    flagged = {name: np.zeros(case.nodes, dtype=bool) for name in COMPETITORS}
    held = []
    for tick in range(1, WARM_UP_TICKS + case.ticks + 1):
        observation = plant.live()
        topology, signals = _nodes_of(observation)
        events = ours.tick(observation, plant)
        for node in _isolated_by(events, topology, EventKind.GRAVITY_WELL_CONFIRMED, "subject"):
            watched[OURS].take(node, tick)
        for name, competitor in competitors.items():
            now = competitor.tick(observation.plant_time_s, signals)
            for node in np.flatnonzero(now & ~flagged[name]).tolist():
                watched[name].take(node, tick)
            flagged[name] = now
        held.append(_holds(observation))
        if tick == WARM_UP_TICKS:
            hit = plant.begin_fault()
            for one in watched.values():
                _mark(one, hit, plant.scenario)
    return {name: _judged(case, one, held[WARM_UP_TICKS:]) for name, one in watched.items()}


def _prepared(case: Case) -> Watched:
    nobody = np.zeros(case.nodes, dtype=bool)
    return Watched(WARM_UP_TICKS, nobody, nobody)


def _mark(watched: Watched, hit: Bools, scenario: Scenario) -> None:
    nobody = np.zeros_like(hit)
    watched.faulty = hit if scenario.share else nobody
    watched.neutral = hit if scenario.whole_cluster else nobody


def _nodes_of(observation: Observation) -> tuple[Topology, NodeSignals]:
    if observation.topology is None or observation.signals is None:
        raise ValueError("the benchmark needs nodes")
    return observation.topology, observation.signals


def _isolated_by(events: Iterable[Event], topology: Topology, kind: EventKind, name: str) -> list[int]:
    """Indices of the nodes of which these events speak; clusters are not nodes."""
    subjects = (str(event.data[name]) for event in events if event.kind is kind)
    return [topology.index[subject] for subject in subjects if subject in topology.index]


def _switch(
    competitor: Competitor | None, plant: Plant, observation: Observation, topology: Topology, signals: NodeSignals
) -> list[int]:
    """Let a competitor have its way; indices of the nodes that it newly isolates."""
    if competitor is None:
        return []
    wanted = competitor.tick(observation.plant_time_s, signals)
    for node in np.flatnonzero(~wanted & ~signals.active).tolist():
        plant.carry_out(RestoreNode("", topology.nodes[node]))
    new: list[int] = np.flatnonzero(wanted & signals.active).tolist()
    for node in new:
        plant.carry_out(IsolateNode("", topology.nodes[node], FOREVER_S))
    return new


def _holds(observation: Observation) -> bool:
    """Whether coherence, alignment and action cost are within their limits."""
    kpis = observation.kpis
    return kpis["coherence"] >= COHERENCE_MIN and kpis["gas"] >= GAS_MIN and not kpis["action_cost"] > ACTION_COST_MAX


def _judged(case: Case, watched: Watched, held: list[bool]) -> Result:
    faulty = int(watched.faulty.sum())
    missed = faulty - len(watched.delays)
    well = case.nodes - faulty - int(watched.neutral.sum())
    node_ticks = well * case.ticks + case.nodes * WARM_UP_TICKS
    return Result(
        delays=(*watched.delays.values(), *[case.ticks] * missed),
        missed=missed,
        faulty=faulty,
        wrong=watched.wrong,
        node_days=node_ticks / DAY_S,
        breaches=watched.breaches,
        recovery=_recovery(np.array(held)),
    )


def _recovery(held: Bools) -> int | None:
    """Ticks to the first from which the limits hold lastingly; the length without one, None where they always did."""
    broken = ~held
    if int(broken.sum()) <= SUSTAINED_MISSES:
        return None
    so_far = np.concatenate([[0], np.cumsum(broken)])
    for tick in range(int(np.argmax(broken)), len(held) - SUSTAINED_TICKS):
        if held[tick] and so_far[tick + SUSTAINED_TICKS] - so_far[tick] <= SUSTAINED_MISSES:
            return tick
    return len(held)


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's figures; see the module's docstring. NaN where there is nothing to be measured."""

    delay: float
    missed: float
    wrong: float
    recovery: float
    breaches: int
    flagged: float
    flagged_wrong: float

    @classmethod
    def of(cls, runs: list[Result], flags: list[Result], nobody: list[Result], ticks: int) -> Row:
        """From the contestant's runs, its flags on the recordings, and the recordings themselves."""
        delays = [delay for run in runs for delay in run.delays]
        faulty = sum(run.faulty for run in runs)
        # Where nobody's run broke the limits the contestant's may not have: then it had recovered at once.
        recoveries = [
            (run.recovery or 0) if alone.recovery is not None else ticks * (run.recovery is not None)
            for run, alone in zip(runs, nobody, strict=True)
            if alone.recovery is not None or run.recovery is not None
        ]
        return cls(
            delay=_median(delays),
            missed=sum(run.missed for run in runs) / faulty if faulty else np.nan,
            wrong=sum(run.wrong for run in runs) / sum(run.node_days for run in runs),
            recovery=_median(recoveries),
            breaches=sum(run.breaches for run in runs),
            flagged=_median([delay for run in flags for delay in run.delays]),
            flagged_wrong=sum(run.wrong for run in flags) / sum(run.node_days for run in flags),
        )


COLUMNS = ("delay", "missed", "wrong", "recovery", "breaches", "flagged", "flagged_wrong")


def _median(values: list[int]) -> float:
    return float(np.median(values)) if values else np.nan


def behind(rows: Mapping[str, Row]) -> list[str]:
    """Where a competitor is ahead of ours, in words."""
    told = []
    for column in COLUMNS:
        best = getattr(rows[OURS], column)
        ahead = [
            f"{name} {getattr(rows[name], column):.3g}" for name in COMPETITORS if getattr(rows[name], column) < best
        ]
        if ahead:
            told.append(f"{column}: {', '.join(ahead)}, ours {best:.3g}")
    return told


def show(title: str, rows: Mapping[str, Row], ticks: int) -> None:
    """Print one table."""
    print(title)
    heads = f"{'delay':>6s} {'missed':>7s} {'wrong':>7s} {'recovery':>8s} {'breaches':>8s} {'flagged':>8s}  wrong"
    print(f"  {'':19s} {heads}")
    for name, row in rows.items():
        delay, recovery, flagged = (_ticks(value, ticks) for value in (row.delay, row.recovery, row.flagged))
        missed = "-" if np.isnan(row.missed) else f"{row.missed:.1%}"
        print(
            f"  {name:19s} {delay:>6s} {missed:>7s} {row.wrong:7.1f} {recovery:>8s} {row.breaches:8d}"
            f" {flagged:>8s} {row.flagged_wrong:6.1f}"
        )
    for words in behind(rows):
        print(f"  ! behind in {words}")
    sys.stdout.flush()


def _ticks(value: float, ticks: int) -> str:
    return "-" if np.isnan(value) else f">{ticks}" if value >= ticks else f"{value:.0f}"


def _one(case: Case) -> dict[str, Result]:
    return recorded(case) if case.contestant == NOBODY else {case.contestant: governed(case)}


def main() -> None:
    """Print a table for each size and scenario, and one over all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ticks", type=int, default=240, help="from the onset on")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for nodes in chosen.nodes:
            title = f"N = {nodes}, {len(seeds)} seeds from {chosen.first_seed}, {chosen.ticks} ticks"
            whole: dict[str, list[list[Result]]] = {name: [[], []] for name in CONTESTANTS}
            alone: list[Result] = []
            for scenario in chosen.scenario:
                cases = [
                    Case(scenario, nodes, seed, chosen.ticks, who) for who in (NOBODY, *CONTESTANTS) for seed in seeds
                ]
                done = list(pool.map(_one, cases))
                recordings = done[: len(seeds)]
                nobody = [recording[NOBODY] for recording in recordings]
                rows = {}
                for place, name in enumerate(CONTESTANTS, start=1):
                    runs = [run[name] for run in done[place * len(seeds) : (place + 1) * len(seeds)]]
                    flags = [recording[name] for recording in recordings]
                    rows[name] = Row.of(runs, flags, nobody, chosen.ticks)
                    whole[name][0] += runs
                    whole[name][1] += flags
                alone += nobody
                show(f"{scenario}, {title}", rows, chosen.ticks)
            overall = {name: Row.of(runs, flags, alone, chosen.ticks) for name, (runs, flags) in whole.items()}
            show(f"ALL SCENARIOS, {title}", overall, chosen.ticks)


if __name__ == "__main__":
    main()
