"""A plant whose calls are timed: how long does it take to answer, and did it answer at all?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.clock import Clock
from controller.meter import Meter
from controller.plants.plant import CommitAnswer, LedgerState, Plant, PlantInfo
from metrics.observation import NodeId, Observation, Parameters


class MeteredPlant:
    """A plant whose calls are timed; everything else is the plant's own.

    Args:
        plant: the plant.
        meter: where the times go.
        clock: the machine's clock, also for a virtual plant.
    """

    def __init__(self, plant: Plant, meter: Meter, clock: Clock) -> None:
        self._plant = plant
        self._meter = meter
        self._clock = clock

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can."""
        return self._plant.info

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the plant and learn its capabilities."""
        with self._meter.calling(self._clock):
            return self._plant.connect(deadline_s)

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest fencing epoch that the plant has seen so far."""
        with self._meter.calling(self._clock):
            return self._plant.epoch_seen(deadline_s)

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks that have come since the last call."""
        with self._meter.calling(self._clock):
            return self._plant.observe(deadline_s)

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the plant itself holds isolated."""
        with self._meter.calling(self._clock):
            return self._plant.isolated()

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out."""
        with self._meter.calling(self._clock):
            self._plant.isolate(node, key=key, epoch=epoch, ttl_s=ttl_s)

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again."""
        with self._meter.calling(self._clock):
            self._plant.restore(node, key=key, epoch=epoch)

    def parameters(self) -> Parameters:
        """The parameters in force."""
        with self._meter.calling(self._clock):
            return self._plant.parameters()

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force."""
        with self._meter.calling(self._clock):
            self._plant.apply(parameters, key=key, epoch=epoch)

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Start a fault."""
        with self._meter.calling(self._clock):
            self._plant.inject(fault, key=key, epoch=epoch)

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """End a fault."""
        with self._meter.calling(self._clock):
            self._plant.clear(fault_id, key=key, epoch=epoch)

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip."""
        with self._meter.calling(self._clock):
            return self._plant.ledger()

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Blocks of the chain."""
        with self._meter.calling(self._clock):
            return self._plant.blocks(start, limit)

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Offer a transaction to the live ledger."""
        with self._meter.calling(self._clock):
            return self._plant.commit(transaction)

    def balance(self, account: str) -> int:
        """The balance of a node or another account."""
        with self._meter.calling(self._clock):
            return self._plant.balance(account)

    def close(self) -> None:
        """Let go of the plant."""
        self._plant.close()
