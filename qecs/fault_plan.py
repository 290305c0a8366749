"""Which faults are active, on which nodes, since when, and how strong are they at a tick?

Targets are drawn from the seed and the fault's id, hence the same in every run and independent of all other randomness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qecs.effects import Effects, Placed, combined, fault_index
from qecs.errors import InvalidRequestError
from qecs.fault_kinds import RULES, Targets
from qecs.noise import Noise, Stream

if TYPE_CHECKING:
    from qecs.faults import Fault
    from qecs.membership import Membership
    from qecs.names import Names


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    fault: Fault
    targets: NDArray[np.int64]
    first_tick: int

    def age(self, tick: int) -> int:
        """1 in its first tick."""
        return tick - self.first_tick + 1


class FaultPlan:
    """The faults of one cluster."""

    def __init__(self, membership: Membership, names: Names, noise: Noise) -> None:
        self._membership = membership
        self._names = names
        self._noise = noise
        self._entries: dict[str, _Entry] = {}
        self._effects = Effects()
        self._levels: tuple[tuple[Fault, float], ...] = ()

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults that have not ended, in the order of their injection."""
        return tuple(entry.fault for entry in self._entries.values())

    def inject(self, fault: Fault, *, first_tick: int) -> NDArray[np.int64]:
        """Lets a fault act from `first_tick` on and returns the indices of the nodes it hits, int64.

        Raises:
            InvalidRequestError: a fault of that id is active, or it asks for more nodes than there are.
            UnknownTargetError: it names a node or cluster that does not exist.
        """
        if fault.id in self._entries:
            raise InvalidRequestError(f"a fault {fault.id!r} is active already; clear it first")
        targets = self._targets(fault)
        self._entries[fault.id] = _Entry(fault, targets, first_tick)
        return targets

    def clear(self, fault_id: str) -> bool:
        """Ends a fault; returns whether it was active."""
        return self._entries.pop(fault_id, None) is not None

    def effects(self, tick: int) -> tuple[Effects, bool]:
        """The effects at a tick, and whether they differ from those of the tick before; ends what is over."""
        for entry in list(self._entries.values()):
            if 0 < entry.fault.duration_ticks < entry.age(tick):
                del self._entries[entry.fault.id]
        entries = tuple(self._entries.values())
        levels = tuple((entry.fault, entry.fault.level(entry.age(tick))) for entry in entries)
        if levels == self._levels:
            return self._effects, False
        placed = (Placed(fault, entry.targets, level) for entry, (fault, level) in zip(entries, levels, strict=True))
        self._effects = combined(placed, self._membership.nodes, self._noise)
        self._levels = levels
        return self._effects, True

    def _targets(self, fault: Fault) -> NDArray[np.int64]:
        nodes = self._membership.nodes
        rules = RULES[fault.kind]
        if fault.nodes:
            return np.array([self._names.node(name) for name in fault.nodes], dtype=np.int64)
        if rules.targets is Targets.CLUSTER or fault.cluster is not None:
            return self._cluster_targets(fault)
        if fault.count is not None:
            if fault.count > nodes:
                raise InvalidRequestError(f"fault {fault.id!r} asks for {fault.count} nodes, there are {nodes}")
            return self._drawn(fault, fault.count)
        fraction = fault.fraction if fault.fraction is not None else rules.fraction
        if fraction is not None:
            return self._drawn(fault, max(1, round(fraction * nodes)))
        if rules.targets is Targets.ALL_NODES:
            return np.arange(nodes, dtype=np.int64)
        return self._drawn(fault, 1 if rules.targets is Targets.NODES else 0)

    def _cluster_targets(self, fault: Fault) -> NDArray[np.int64]:
        if fault.cluster is not None:
            cluster = self._names.cluster(fault.cluster)
        else:
            draw = self._noise.generator(Stream.TARGETS, fault_index(fault.id)).random()
            cluster = int(draw * self._membership.clusters)
        start, end = self._membership.bounds[cluster : cluster + 2]
        return np.arange(start, end, dtype=np.int64)

    def _drawn(self, fault: Fault, count: int) -> NDArray[np.int64]:
        """`count` nodes, one of each cluster before a second one of any."""
        membership = self._membership
        generator = self._noise.generator(Stream.TARGETS, fault_index(fault.id))
        cluster_key = generator.random(membership.clusters)
        node_key = generator.random(membership.nodes)
        shuffled = np.lexsort((node_key, membership.cluster_of))
        place = np.empty(membership.nodes, dtype=np.int64)
        place[shuffled] = np.arange(membership.nodes) - membership.bounds[membership.cluster_of[shuffled]]
        return np.sort(np.lexsort((cluster_key[membership.cluster_of], place))[:count])
