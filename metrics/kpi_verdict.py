"""Is a KPI within its limits, now and lastingly? A healthy system breaches them for single ticks, not half a window.

Source: docs/model.md section 4: at N = 5 a KPI is unhealthy in 1 % of all ticks.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from metrics.kpi import Kpi, KpiStatus


@dataclass(frozen=True, slots=True)
class KpiVerdict:
    """One KPI in one tick.

    Attributes:
        name: of the KPI.
        value: NaN where it is not known.
        status: of this value alone.
        persistent: of the last values together.
    """

    name: str
    value: float
    status: KpiStatus
    persistent: KpiStatus


class Persistence:
    """The lasting status of one KPI, from its last `window` finite values.

    Critical or a warning is what more than half of them are. Missing values are skipped, up to as many as the window is
    long: beyond that too little is known of the present, and the status is unknown until the window has filled again.
    A KPI without limit is healthy while it is known.

    >>> from metrics.kpi import CATALOGUE
    >>> coherence = Persistence(CATALOGUE["coherence"], window=3)
    >>> [coherence.update(value).persistent.value for value in (0.95, 0.89, 0.95, 0.88, 0.84, 0.84)]
    ['unknown', 'unknown', 'healthy', 'warning', 'warning', 'critical']
    """

    def __init__(self, kpi: Kpi, window: int) -> None:
        self._kpi = kpi
        self._window = window
        self._recent: deque[tuple[int, KpiStatus]] = deque()
        self._count = dict.fromkeys(KpiStatus, 0)
        self._updates = 0

    def update(self, value: float) -> KpiVerdict:
        """The verdict with `value` as the newest."""
        self._updates += 1
        limit = self._kpi.limit
        if limit is None:
            status = lasting = KpiStatus.HEALTHY if math.isfinite(value) else KpiStatus.UNKNOWN
            return KpiVerdict(self._kpi.name, value, status, lasting)
        status = limit.status(value)
        if status is not KpiStatus.UNKNOWN:
            self._forget_oldest()
            self._recent.append((self._updates, status))
            self._count[status] += 1
        return KpiVerdict(self._kpi.name, value, status, self._lasting())

    def _forget_oldest(self) -> None:
        if len(self._recent) == self._window:
            _, status = self._recent.popleft()
            self._count[status] -= 1

    def _lasting(self) -> KpiStatus:
        if len(self._recent) < self._window or self._recent[0][0] <= self._updates - 2 * self._window:
            return KpiStatus.UNKNOWN
        critical = self._count[KpiStatus.CRITICAL]
        if 2 * critical > self._window:
            return KpiStatus.CRITICAL
        breaches = critical + self._count[KpiStatus.WARNING]
        return KpiStatus.WARNING if 2 * breaches > self._window else KpiStatus.HEALTHY
