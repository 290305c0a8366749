"""Who says that all is well? Every check, put together; it trusts nothing that the controller says of itself.

The world tells it what became durable, what was sent, what the plant did and what it showed; the process tells it when
it lives. It raises `ViolatedError` where something does not hold, and the simulation ends there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from controller.simulation.clock import SimClock
from controller.simulation.evidence import EvidenceBook, Sight
from controller.simulation.ground import Ground, ViolatedError
from controller.simulation.journal_checks import JournalChecks
from controller.simulation.message import Core, Effect, Message
from controller.simulation.plant_checks import PlantChecks
from metrics.observation import Observation, Topology
from state.durable import DurableState, NodeStatus
from state.governor import Governor
from state.isolation import IsolationPolicy
from state.phase import Phase

WAYS_BACK = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III, Phase.GOVERNING)
COMPARE_EVERY = 64  # turns after which the state's bytes are compared, with or without events
INTENT_TICKS = 4  # beyond the time for verification
TRIAL_TICKS = 300
VALUES = tuple(item.name for item in fields(DurableState) if item.name != "machine")


class Oracle:
    """Watches one simulation.

    Args:
        clock: true time.
        core: the plant.
        policy: in force at the start.
        key_prefix: of our own idempotency keys at the plant.
        tick_s: between the plant's ticks.

    Attributes:
        ground: the facts.
    """

    def __init__(self, clock: SimClock, core: Core, policy: IsolationPolicy, *, key_prefix: str, tick_s: float) -> None:
        self.ground = Ground(policy)
        self._clock, self._core, self._tick_s = clock, core, tick_s
        self._plant = PlantChecks(self.ground, core, key_prefix)
        self._journal = JournalChecks(self.ground, self._plant.durable)
        self._evidence = EvidenceBook()
        self._topology: Topology | None = None
        self._made_s: dict[int, float] = {}
        self._newest_s, self._newest_tick = 0.0, 0
        self._compared_at, self._idle_turns = -1, 0
        self._open_ticks: dict[str, int] = {}
        self._fresh = False

    @property
    def events(self) -> int:
        """How many events have become durable."""
        return self._journal.events

    @property
    def effects(self) -> int:
        """How many requests the plant has executed."""
        return self._plant.effects

    # What the world tells.

    def synced(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of the journal have become durable."""
        self.ground.now_s = self._clock.now_s
        self._journal.synced(rows, self._evidence, self._topology)

    def sent(self, message: Message) -> None:
        """The controller asks the plant for something."""
        self.ground.now_s = self._clock.now_s
        self._plant.sent(message, self._evidence, self._journal.epoch)

    def executed(self, effect: Effect) -> None:
        """The plant has done something."""
        self.ground.now_s = self._clock.now_s
        self._plant.executed(effect)

    def received(self, observations: Sequence[Observation]) -> None:
        """The controller has got these ticks."""
        for observation in observations:
            self._made_s[observation.tick] = observation.received_s
        self._newest_s, self._newest_tick = observations[-1].received_s, observations[-1].tick

    # What the process tells.

    def started(self, state: DurableState) -> None:
        """A process has replayed the journal; what it found is what was synced."""
        if state.snapshot() != self._journal.shadow.snapshot():
            raise ViolatedError("replay_gives_the_state", "recovery found another state than the synced events give")
        self._begin()

    def connected(self) -> None:
        """It has reached the plant, perhaps anew."""
        self._begin()

    def reconfigured(self, policy: IsolationPolicy) -> None:
        """Another policy is in force."""
        self.ground.policy = policy
        self._begin()

    def taken(self, sight: Sight) -> None:
        """A tick is about to be decided upon."""
        made_s = self._made_s[sight.tick]
        self.ground.tick_s = max(self.ground.tick_s or 0.0, made_s)
        self._topology = sight.topology
        # For as long as a plant stalls its own clock stands still, and nobody can tell that from here.
        lag_s = min(self._newest_s - made_s, (self._newest_tick - sight.tick) * self._tick_s)
        self._evidence.take(sight, lag_s, self.ground.spared)
        self._fresh = True

    def after_turn(self, governor: Governor) -> None:
        """The process has done what there was to do."""
        self._plant.forget_returned()
        self._replayed(governor)
        state = governor.state
        if state.phase is Phase.SAFE_MODE:
            way_back = state.machine.came_from in WAYS_BACK or not state.machine.daemon
            if not state.safe_mode or not way_back:
                raise ViolatedError("hold_has_a_way_out", f"{state.safe_mode!r}, from {state.machine.came_from}")
        if self._fresh:
            self._fresh = False
            self._bounded(state)
            self._made_s = {tick: at_s for tick, at_s in self._made_s.items() if at_s >= self._newest_s}

    def at_rest(self, state: DurableState) -> None:
        """Faults have been over for long enough: everything must have come to its end.

        Nodes that the faults have ruined serve badly for good; they may be taken out again and again.
        """
        ruined = self._core.ruined()
        rests = (Phase.GOVERNING, Phase.ISOLATING) if ruined else (Phase.GOVERNING,)
        nodes = {node: record for node, record in state.nodes.items() if node not in ruined}
        held = {node: record.status for node, record in nodes.items() if _is_out(record.status)}
        wrong = {
            "not governing": state.phase not in rests and state.phase,
            "intents open": sorted(key for key, intent in state.intents.items() if intent.node not in ruined),
            "a trial open": state.trial is not None and state.trial.key,
            "paused": state.pause is not None and state.pause.reason,
            "nodes held out": held,
            "nodes out at the plant": sorted(self._core.out - ruined),
            "wells left": sorted(state.wells - ruined),
        }
        found = [f"{name}: {value}" for name, value in wrong.items() if value]
        if not found:
            self._plant.at_rest()
        else:
            raise ViolatedError("all_comes_to_rest", "; ".join(found))

    def _begin(self) -> None:
        """Whatever was seen before does not count any more."""
        self._evidence = EvidenceBook()
        self._open_ticks.clear()

    def _replayed(self, governor: Governor) -> None:
        """The synced events, applied from the beginning, give the live state: value for value, at times in bytes."""
        self._idle_turns += 1
        due = self._idle_turns >= COMPARE_EVERY
        if self._compared_at == self._journal.events and not due:
            return
        self._compared_at = self._journal.events
        if due:
            self._idle_turns = 0
            same = governor.snapshot() == self._journal.shadow.snapshot()
        else:
            same = _same(governor.state, self._journal.shadow)
        if not same:
            raise ViolatedError("replay_gives_the_state", "the live state is not what the synced events give")

    def _bounded(self, state: DurableState) -> None:
        """No intent and no trial stays open for more ticks than it takes to settle it."""
        trial = None if state.trial is None else state.trial.key
        keys = [*state.intents, *([trial] if trial is not None else [])]
        if not keys and not self._open_ticks:
            return
        self._open_ticks = {key: self._open_ticks.get(key, 0) + 1 for key in keys}
        verify_ticks = math.ceil(self.ground.policy.verify_s / self._tick_s)
        for key, ticks in self._open_ticks.items():
            if ticks > (TRIAL_TICKS if key == trial else verify_ticks + INTENT_TICKS):
                raise ViolatedError("everything_is_settled", f"{key} is open after {ticks} ticks")


def _same(one: DurableState, other: DurableState) -> bool:
    """Whether two states have equal values; their bytes, which take longer to make, could still differ (1 and 1.0)."""
    values = all(getattr(one, name) == getattr(other, name) for name in VALUES)
    here, there = one.machine, other.machine
    return values and (here.phase, here.came_from) == (there.phase, there.came_from)


def _is_out(status: NodeStatus) -> bool:
    return status in (NodeStatus.ISOLATING, NodeStatus.ISOLATED)
