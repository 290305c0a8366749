"""What did the controller really have before its eyes? The oracle's own book of the evidence.

It is kept from what the plant showed, not from what the controller made of it: only finite |g| that the field trusts,
of ticks that are news, is evidence. Every life of the process starts with an empty book.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.gravity import FieldReading
from metrics.observation import Topology

KEPT_TICKS = 64
BLIND_TICKS_MAX = 10  # so many ticks without evidence of a node may lie between two of it that count as consecutive


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What one tick showed of the nodes: as the light world made it, or as the real field reads it."""

    tick: int
    received_s: float
    topology: Topology
    reading: FieldReading
    active: NDArray[np.bool_]


class EvidenceBook:
    """The evidence of one life of the process.

    Attributes:
        received_s: true time at which the latest tick was received.
        lag_s: plant time by which it was older than the newest one received.
    """

    def __init__(self) -> None:
        self.received_s = -math.inf
        self.lag_s = math.inf
        self._spared: Mapping[str, tuple[float, float]] = {}
        self._kept: deque[Sight] = deque(maxlen=KEPT_TICKS)

    def take(self, sight: Sight, lag_s: float, spared: Mapping[str, tuple[float, float]]) -> None:
        """Note what one tick showed, and who was under maintenance from when to when as far as was known then."""
        self.received_s, self.lag_s, self._spared = sight.received_s, lag_s, dict(spared)
        self._kept.append(sight)

    def bad_ticks(self, node: str, critical: float) -> int:
        """For how many ticks of evidence in a row `node` has looked bad, the latest tick being one of them."""
        bad = blind = 0
        for sight in reversed(self._kept):
            value = _evidence(sight, node)
            if value is None:
                blind += 1
                if bad == 0 or blind > BLIND_TICKS_MAX:
                    break
            elif value > critical:
                bad, blind = bad + 1, 0
            else:
                break
        return bad

    def storm(self, critical: float, share: float, nodes_min: int, at_s: float) -> bool:
        """Whether so large a share of the nodes that the latest tick gave evidence of looked bad at once.

        Nodes under maintenance at the governor's time `at_s` do not count, if that was known when the tick came: who is
        put under maintenance between two ticks changes what the next one is taken for.
        """
        if not self._kept:
            return False
        sight = self._kept[-1]
        reading, topology = sight.reading, sight.topology
        assessed = sight.active & reading.trusted
        spared = [node for node, (from_s, until_s) in self._spared.items() if from_s <= at_s < until_s]
        assessed[[topology.index[node] for node in spared if node in topology.index]] = False
        bad = assessed & np.isfinite(reading.gravity) & (reading.gravity > critical)
        count = int(assessed.sum())
        return count >= nodes_min and int(bad.sum()) >= share * count - 1e-9

    def shows_active(self, node: str) -> bool:
        """Whether the latest tick showed `node` taking part."""
        if not self._kept:
            return False
        sight = self._kept[-1]
        return node in sight.topology.index and bool(sight.active[sight.topology.index[node]])


def _evidence(sight: Sight, node: str) -> float | None:
    index = sight.topology.index.get(node)
    if index is None:
        return None
    value = float(sight.reading.gravity[index])
    return value if bool(sight.reading.trusted[index]) and math.isfinite(value) else None
