"""What a state is called: everything that can still matter, and nothing else. States of one name have equal futures.

An abstraction must only merge what the real code treats alike, whatever comes next. So nothing is left out unless one
of these says why:

- Times count relative to now, in ticks, and only as far as a rule still asks: nothing is decided between ticks but what
  people and phases want, so that a limit which the next tick passes anyway has been passed.
- Counters count as far as the largest threshold, and only where the next tick does not overwrite what they say.
- Keys, epochs, event texts and who gave an order decide nothing; an action is named by its node.
- Nodes of a cluster, and clusters of a size, are interchangeable: names are sorted. Where the code goes by the order of
  the nodes (of two equally bad ones the first is taken, actions are sent in order), the choices allow every order.

`exploration_fields.py` lists the fields that are left out altogether, each with the reason; one that is forgotten fails
a test, and so does a pair of states of one name whose successors differ (`exploration_soundness.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from exploration_settings import CONFIRM_TICKS, DOUBT_TICKS, FLAP_OFFENCES, TICK_S

from metrics.observation import Topology
from state.action import Action, ApplyParameters, IsolateNode
from state.durable import POLICY, RETRIED, SELF_ENDING, Exemption, Intent, NodeRecord, NodeStatus
from state.governor import Governor
from state.isolation import IsolationPolicy
from state.machine import EXCURSIONS
from state.phase import Phase

HOLDS = frozenset({Phase.SAFE_MODE, Phase.PAUSED})
OUT = frozenset({NodeStatus.ISOLATING, NodeStatus.ISOLATED})
_BLIND_TICKS = 4  # the longest that a trial waits for its windows
_LAST_WAIT_TICKS = 1  # with one tick behind it, every wait of two ends at the next tick
_RUNS_OUT_TICKS = 2  # with two ticks left, a time limit has to be renewed at the next tick


class Namer:
    """Names the states of one scope.

    Args:
        topology, policy: of the world.
        blind: whether evidence may be missing; where it never is, counters other than of bad ticks say nothing.
        by_hand: whether nodes may be isolated by hand, for which it matters what was seen last.
        healing: whether parameters are tried.
    """

    def __init__(
        self, topology: Topology, policy: IsolationPolicy, *, blind: bool, by_hand: bool, healing: bool
    ) -> None:
        self._topology = topology
        self._policy = policy
        self._blind = blind
        self._by_hand = by_hand
        self._healing = healing

    def name(self, governor: Governor, plant: Any, now_s: float) -> Hashable:
        """The name of the governor's state, and of the plant's, at `now_s`."""
        nodes = self.nodes(governor, plant, now_s)
        size = len(nodes) // len(self._topology.clusters)
        clusters = tuple(sorted(tuple(sorted(nodes[at : at + size])) for at in range(0, len(nodes), size)))
        return clusters, self._common(governor, now_s), self._trial(governor, plant, now_s)

    def nodes(self, governor: Governor, plant: Any, now_s: float) -> list[tuple[Any, ...]]:
        """What is known of each node, without its own name."""
        state, watch, topology = governor.state, governor._nodes._wells, self._topology
        intents = {intent.node: intent for intent in state.intents.values()}
        asked = {action.node: action for action in plant.asked if not isinstance(action, ApplyParameters)}
        probed = {probe.get("node") for probe in state.probes.values()}
        seen = governor._nodes._seen if self._by_hand else None
        bad = watch.nodes.bad.tolist() or [0] * len(topology.nodes)
        # A hold isolates nobody, and all counters start afresh when it is left; only trials ask for wells meanwhile.
        afresh = state.phase in HOLDS and not self._healing
        names = []
        for index, node in enumerate(topology.nodes):
            record, out_s = state.nodes.get(node), plant.out.get(node)
            out = record is not None and record.status is NodeStatus.ISOLATED
            names.append(
                (
                    0 if out or afresh else min(CONFIRM_TICKS, bad[index]),  # who is out starts afresh when back
                    () if record is None else _record(record, now_s),
                    -1 if out_s is None else round((out_s - now_s) / TICK_S),
                    _intent(intents[node], governor, now_s) if node in intents else (),
                    _asked(asked[node]) if node in asked else (),
                    _exemption(state.exemptions[node], now_s) if node in state.exemptions else (),
                    node in probed,
                    () if seen is None else (bool(seen.active[index]), bool(seen.reading.trusted[index])),
                    self._calm(governor, index, record, afresh=afresh) if self._blind and not out else (),
                    self._healing and node in state.wells,
                    record is not None and record.status in OUT and node in governor._nodes._due,
                )
            )
        return names

    def _calm(self, governor: Governor, index: int, record: NodeRecord | None, *, afresh: bool) -> tuple[int, ...]:
        """Counters that last over a tick without evidence; any other tick says anew what they would say."""
        counters = governor._nodes._wells.nodes
        if index >= len(counters.bad):
            return (0, 0, 0)
        clean = unforgiven = 0
        if record is not None:
            calm, healthy = int(counters.calm[index]), governor._nodes._healthy
            unforgiven = max(-1, min(1, calm - healthy.get(self._topology.nodes[index], (0, 0.0))[0]))
            clean = min(1, int(counters.clean[index])) if record.status is NodeStatus.PROBATION else 0
        calm = min(1, int(counters.calm[index])) if self._healing else 0
        bad = 0 if afresh else int(counters.bad[index])
        counted = bad or unforgiven or clean or calm
        return clean, unforgiven, calm, min(2, int(counters._blind[index])) if counted else 0

    def _common(self, governor: Governor, now_s: float) -> tuple[Any, ...]:
        state, assessment = governor.state, governor._assessment
        phase, pause = state.phase, state.pause
        # Whoever leaves a hold starts counting afresh; only one that ends by itself asks for how long it is quiet.
        doubted = 0 if phase in HOLDS else min(DOUBT_TICKS, governor._doubted_ticks)
        ending = phase is Phase.SAFE_MODE and state.safe_mode_cause in SELF_ENDING
        quiet_s = governor._quiet_since_s if doubted or ending else None
        retried = state.safe_mode_cause in RETRIED
        tokens = self._policy.tokens(state.tokens, now_s - state.tokens_at_s, len(self._topology.nodes))
        return (
            phase.value,
            state.machine.came_from.value if phase in EXCURSIONS else "",
            round(tokens, 3),
            str(state.safe_mode_cause),
            _since(state.safe_mode_since_s, now_s) if retried else -1,
            () if pause is None else (pause.acknowledged, _until(pause.until_s, now_s)),
            -1 if quiet_s is None else _since(quiet_s, now_s),
            doubted,
            governor._nodes.storm is not None,
            governor._nodes._latest is None,
            str(assessment and assessment.sensors_doubted),
            len(state.probes),
        )

    def _trial(self, governor: Governor, plant: Any, now_s: float) -> Hashable:
        if not self._healing:
            return ()
        state, trials = governor.state, governor._trials
        trial, window = state.trial, trials._window
        ages = (min(_BLIND_TICKS, window._tick - at) for at in window._taken_at)
        samples = tuple(zip(ages, window._samples, strict=True))
        found: tuple[Any, ...] = ()
        if trial is not None and trial.rollback_key is not None:
            found = (
                "back",
                *_sent(trials, trial.rollback_key),
                trial.direction,
                str(trial.fault),
                _flat(trial.previous),
            )
        elif trial is not None:
            found = (
                *(
                    ("applied", min(_BLIND_TICKS, trials._settled_ticks))
                    if trial.applied
                    else ("sent", *_sent(trials, trial.key))
                ),
                trial.direction,
                _flat(trial.previous),
                _flat(trial.proposed),
                _flat(trial.baseline),
            )
        measuring = trial is not None and trial.applied and trial.rollback_key is None
        return (
            found,
            # The window is measured as a whole while a trial is judged, and else in its last tick.
            samples if measuring else samples[-1:],
            _flat(plant.parameters.as_dict()),
            tuple(_flat(a.parameters.as_dict()) for a in plant.asked if isinstance(a, ApplyParameters)),
            state.failed_trials,
            _until(state.exhausted_until_s, now_s),
            state.last_direction,
            state.last_kept,
            trials._idle_ticks,
        )


def _record(record: NodeRecord, now_s: float) -> tuple[Any, ...]:
    status, offences = record.status, min(FLAP_OFFENCES, record.offences)
    if status not in OUT:
        return (status.value, offences)
    if record.by != POLICY:
        return (status.value, offences, "by hand")
    if record.flapping:
        return (status.value, offences, "flapping", _left(record.until_s, now_s))
    return (status.value, offences, "", _left(record.until_s, now_s), _since(record.isolated_s, now_s))


def _intent(intent: Intent, governor: Governor, now_s: float) -> tuple[Any, ...]:
    flight, key = governor._nodes._in_flight, intent.key
    return (
        intent.kind.value,
        str(intent.reply),
        key in flight._replied_at,
        key in flight._first_look_s,
        key in flight._uncertain,
        max(0, round((intent.until_s - now_s) / TICK_S)),
    )


def _asked(action: Action) -> tuple[Any, ...]:
    return type(action).__name__, action.ttl_s if isinstance(action, IsolateNode) else 0.0


def _exemption(exemption: Exemption, now_s: float) -> tuple[Any, ...]:
    return exemption.kind.value, round((exemption.until_s - now_s) / TICK_S)


def _sent(trials: Any, key: str) -> tuple[bool, bool]:
    return key in trials._replied_at, key in trials._first_look_s


def _flat(values: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(values[name] for name in sorted(values))


def _since(at_s: float, now_s: float) -> int:
    return min(_LAST_WAIT_TICKS, round((now_s - at_s) / TICK_S))


def _until(at_s: float, now_s: float) -> int:
    """Ticks until something ends at a tick; what ends at the next one ends there if it has ended already."""
    return max(1, round((at_s - now_s) / TICK_S))


def _left(at_s: float, now_s: float) -> int:
    return max(_RUNS_OUT_TICKS, round((at_s - now_s) / TICK_S))
