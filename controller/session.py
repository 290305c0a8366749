"""What the phases of a run share, and how a check waits for the plant.

A phase is a generator: it yields whenever it needs the plant's next tick and is sent what was seen. So the phases do
not know who drives the loop: the virtual clock as fast as it can, or the scheduler in real time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from controller.console import RunConsole
from controller.loop import Loop, Seen
from controller.plants.plant import Plant, PlantInfo
from controller.record import RunRecord
from controller.settings import Config
from metrics.observation import Capability, NodeId
from metrics.store.protocol import Store
from metrics.store_writer import StoreWriter

Result = TypeVar("Result")
Ticking = Generator[None, Seen, Result]
CATCH_UP_TICKS = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """One run on one plant.

    Attributes:
        config: the configuration in force.
        plant, info: the governed system and what it said of itself.
        loop: observes, decides, acts.
        record: what the report is made from.
        store, writer: where telemetry goes.
        console: who is told about progress.
        dry_run: assess and report, act on nothing.
        run_id: names this run's traces at the plant.
        recovering: True where something that an earlier run had left at the plant has just been undone.
        turn_s: how long a check may work, by our own clock, before it lets a tick pass: a daemon has commands waiting.
    """

    config: Config
    plant: Plant
    info: PlantInfo
    loop: Loop
    record: RunRecord
    store: Store
    writer: StoreWriter
    console: RunConsole
    dry_run: bool
    run_id: str
    recovering: bool = False
    turn_s: float = math.inf

    def offers(self, capability: Capability) -> bool:
        """Whether the plant has a capability."""
        return capability in self.info.capabilities

    def serving(self) -> list[NodeId]:
        """The nodes that neither the plant nor this run holds out, in the plant's order; none where it shows none."""
        topology, assessment = self.loop.topology, self.loop.assessment
        if topology is None or assessment is None or assessment.active is None:
            return []
        out = self.loop.governor.state.out_of_service()
        return [
            node for node, active in zip(topology.nodes, assessment.active, strict=True) if active and node not in out
        ]

    @property
    def probing(self) -> bool:
        """Whether live transactions may be made."""
        return self.config.plant.probes_allowed and not self.dry_run

    @property
    def injecting(self) -> bool:
        """Whether faults may be injected."""
        return self.config.plant.fault_injection_allowed and not self.dry_run


def ticks(count: int) -> Ticking[list[Seen]]:
    """Wait for `count` ticks; what was seen in them."""
    seen = []
    for _ in range(count):
        seen.append((yield))  # noqa: PERF401 - a comprehension cannot wait
    return seen


class Freshness:
    """Whether the loop has caught up with a real plant, which goes on while a check or a slow machine holds it up.

    Where two looks in a row brought one tick each, nothing is left behind. A machine too slow for that must do without
    after a while; a virtual plant waits, so it is always fresh.
    """

    def __init__(self, session: Session) -> None:
        self._loop = session.loop
        self._single_looks = 0
        self._patience_ticks = CATCH_UP_TICKS if session.info.real_time else 0

    @property
    def reached(self) -> bool:
        """True from the moment on at which the loop had caught up since this was made."""
        return self._single_looks > 1 or self._patience_ticks <= 0

    def after_tick(self) -> None:
        """Take note of one more tick."""
        if not self.reached:
            self._single_looks = self._single_looks + 1 if self._loop.backlog == 0 else 0
            self._patience_ticks -= 1


def until(session: Session, reached: Callable[[], bool], ticks_max: int) -> Ticking[int | None]:
    """Wait until `reached` says yes; after how many ticks, or None if it did not within `ticks_max` fresh ones."""
    freshness, waited, fresh = Freshness(session), 0, 0
    while not reached():
        if fresh >= ticks_max:
            return None
        yield
        waited += 1
        freshness.after_tick()
        fresh += freshness.reached
    return waited


def caught_up(session: Session) -> Ticking[None]:
    """Wait until what the loop sees is what is."""
    freshness = Freshness(session)
    while not freshness.reached:
        yield
        freshness.after_tick()
