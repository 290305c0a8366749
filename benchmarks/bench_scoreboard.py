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
        [--scenario ...] [--jobs 2] [--results FILE [--no-runs]] [--markdown]

With --results every finished case is a line of that file at once, and what the file has is not run again: a sweep that
was interrupted goes on where it was. --no-runs prints what is there, of the seeds that are complete. Progress goes to
stderr. Without arguments it is quick: 5 and 50 nodes, one seed. Seeds from 9000 on are kept for checking: nothing is
tuned on them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sweep
from competitors import Competitor, FailurePercentageEjection, PhiAccrual, SuccessRateEjection
from numpy.typing import NDArray
from scoreboard_table import COMPETITOR_NAMES, CONTESTANTS, NOBODY, OURS, Result, Row, markdown, show
from sweep import Case

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
BODIES_MAX = 64  # ticks that the ledger holds whole: nobody here asks for more
POLICY = IsolationPolicy()
COMPETITORS: Mapping[str, type[SuccessRateEjection | FailurePercentageEjection | PhiAccrual]] = {
    COMPETITOR_NAMES[0]: SuccessRateEjection,
    COMPETITOR_NAMES[1]: FailurePercentageEjection,
    COMPETITOR_NAMES[2]: PhiAccrual,
}


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


class Plant:
    """The reference cluster, embedded, with the scenario's fault after the warm-up."""

    def __init__(self, case: Case) -> None:
        self.scenario = SCENARIOS[case.scenario]
        self.embedded = EmbeddedPlant(case.nodes, seed=case.seed, clock=VirtualClock(), bodies_max=BODIES_MAX)
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


class Seat:
    """A contestant's own copy of the plant, and what becomes of it."""

    def __init__(self, case: Case) -> None:
        self.plant, self.watched = Plant(case), _prepared(case)
        self._case, self._held = case, list[bool]()

    def live(self) -> Observation:
        """Live one tick."""
        observation = self.plant.live()
        self._held.append(_holds(observation))
        return observation

    def took(self, taken: list[int], observation: Observation) -> None:
        """Keep account of the nodes just isolated; after the warm-up the fault begins."""
        topology, signals = _nodes_of(observation)
        tick, out = len(self._held), ~signals.active
        for node in taken:
            self.watched.take(node, tick)
            out[node] = True
        if taken:
            self.watched.check_budgets(topology, out)
        if tick == WARM_UP_TICKS:
            _mark(self.watched, self.plant.begin_fault(), self.plant.scenario)

    def result(self) -> Result:
        """What became of it."""
        return _judged(self._case, self.watched, self._held[WARM_UP_TICKS:])


def competing(case: Case, name: str) -> Result:
    """A run in which a competitor has its way."""
    seat, competitor = Seat(case), COMPETITORS[name](case.nodes)
    for _ in range(WARM_UP_TICKS + case.ticks):
        observation = seat.live()
        topology, signals = _nodes_of(observation)
        seat.took(_switch(competitor, seat.plant, observation, topology, signals), observation)
    return seat.result()


def ours_and_nobody(case: Case) -> dict[str, dict[str, Result]]:
    """A run that ours governs, beside one that nobody governs and what each contestant would have flagged in it."""
    governed, alone, ours, dry = Seat(case), Seat(case), Ours(), Ours(dry_run=True)
    competitors = {name: made(case.nodes) for name, made in COMPETITORS.items()}
    watched = {name: _prepared(case) for name in CONTESTANTS}
    flagged = {name: np.zeros(case.nodes, dtype=bool) for name in COMPETITORS}
    for tick in range(1, WARM_UP_TICKS + case.ticks + 1):
        theirs, observation = governed.live(), alone.live()
        topology, signals = _nodes_of(observation)
        events = ours.tick(theirs, governed.plant)
        governed.took(_isolated_by(events, topology, EventKind.ISOLATION_INTENDED, "node"), theirs)
        for node in _isolated_by(
            dry.tick(observation, alone.plant), topology, EventKind.GRAVITY_WELL_CONFIRMED, "subject"
        ):
            watched[OURS].take(node, tick)
        for name, competitor in competitors.items():
            now = competitor.tick(observation.plant_time_s, signals)
            for node in np.flatnonzero(now & ~flagged[name]).tolist():
                watched[name].take(node, tick)
            flagged[name] = now
        alone.took([], observation)
        if tick == WARM_UP_TICKS:
            for one in watched.values():
                one.faulty, one.neutral = alone.watched.faulty, alone.watched.neutral
    length = [True] * case.ticks  # whether the limits hold is asked of plants, not of flags
    flags = {name: _judged(case, one, length) for name, one in watched.items()}
    return {"governed": {OURS: governed.result()}, "flagged": flags, "alone": {NOBODY: alone.result()}}


def contested(case: Case) -> dict[str, dict[str, Result]]:
    """Everything about one scenario, size and seed."""
    results = ours_and_nobody(case)
    results["governed"] |= {name: competing(case, name) for name in COMPETITORS}
    return results


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
    competitor: Competitor, plant: Plant, observation: Observation, topology: Topology, signals: NodeSignals
) -> list[int]:
    """Let a competitor have its way; indices of the nodes that it newly isolates."""
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


Outcome = dict[str, dict[str, Result]]


def plainly_contested(case: Case) -> dict[str, dict[str, dict[str, Any]]]:
    """Run a case; its outcome as plain JSON."""
    return {kind: {name: asdict(one) for name, one in part.items()} for kind, part in contested(case).items()}


def outcome_of(plain: Mapping[str, Mapping[str, dict[str, Any]]]) -> Outcome:
    """The outcome that was written down."""
    return {
        kind: {name: Result(**{**one, "delays": tuple(one["delays"])}) for name, one in part.items()}
        for kind, part in plain.items()
    }


def rows_of(outcomes: Sequence[Outcome], ticks: int) -> dict[str, Row]:
    """A row for each contestant from these outcomes."""
    nobody = [outcome["alone"][NOBODY] for outcome in outcomes]
    return {
        name: Row.of(
            [outcome["governed"][name] for outcome in outcomes],
            [outcome["flagged"][name] for outcome in outcomes],
            nobody,
            ticks,
        )
        for name in CONTESTANTS
    }


def main() -> None:
    """Print a table for each size and scenario, and one over all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ticks", type=int, default=240, help="from the onset on")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--results", type=Path, help="file that keeps every finished case, one a line")
    parser.add_argument("--no-runs", action="store_true", help="print only what the file has")
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/scoreboard.md")
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    wanted = [
        Case(name, nodes, seed, chosen.ticks) for nodes in chosen.nodes for seed in seeds for name in chosen.scenario
    ]
    plain = sweep.read(chosen.results)
    if not chosen.no_runs:
        missing = [case for case in wanted if case not in plain]
        plain |= dict(sweep.run(plainly_contested, missing, jobs=chosen.jobs, path=chosen.results))
    done = {case: outcome_of(results) for case, results in plain.items()}
    for nodes in chosen.nodes:
        complete = [
            seed
            for seed in seeds
            if all(Case(scenario, nodes, seed, chosen.ticks) in done for scenario in chosen.scenario)
        ]
        if complete:
            title = f"N = {nodes}, {len(complete)} seeds from {complete[0]}"
            print_tables(title, done, chosen.scenario, nodes, complete, chosen.ticks, as_markdown=chosen.markdown)


def print_tables(
    title: str,
    done: Mapping[Case, Outcome],
    scenarios: Sequence[str],
    nodes: int,
    seeds: Sequence[int],
    ticks: int,
    *,
    as_markdown: bool,
) -> None:
    """Print the tables of one size."""
    of = {name: [done[Case(name, nodes, seed, ticks)] for seed in seeds] for name in scenarios}
    tables = {name: rows_of(outcomes, ticks) for name, outcomes in of.items()}
    tables["**all**"] = rows_of([outcome for outcomes in of.values() for outcome in outcomes], ticks)
    if as_markdown:
        print(f"{title}\n")
        markdown(tables, ticks)
        print()
    else:
        for name, rows in tables.items():
            show(f"{name.strip('*')}, {title}, {ticks} ticks", rows, ticks)


if __name__ == "__main__":
    main()
