"""Why was something not done? The latest refusals, each explanation once, bounded, and found by whom they are about.

A refusal that repeats tick after tick is one explanation with a count, the first and the last time, and the values of
the last time. Beyond the bound those that were not repeated for longest are forgotten; the journal keeps the decisions
that matter for good (ISOLATION_BLOCKED).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from controller.record import Refused
from state.isolation import Refusal

EXPLANATIONS_MAX = 10_000


class Explanations:
    """The latest explanations; safe to share between threads: the loop adds, whoever asks reads."""

    def __init__(self, limit: int = EXPLANATIONS_MAX) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Refusal, Refused] = OrderedDict()
        self.totals: dict[tuple[str, str], int] = {}

    def add(self, refusals: Iterable[Refusal]) -> None:
        """Take refusals in; `totals` counts all of them by rule and guard."""
        with self._lock:
            for refusal in refusals:
                kind = (refusal.rule, refusal.guard)
                self.totals[kind] = self.totals.get(kind, 0) + 1
                known = self._kept.get(refusal) or Refused(refusal, refusal.at_s)
                self._kept[refusal] = known.again(refusal)
                self._kept.move_to_end(refusal)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)

    def about(self, subject: str) -> list[Refused]:
        """Those about a node, cluster or KPI, the latest first."""
        with self._lock:
            found = [item for item in self._kept.values() if item.latest.subject == subject]
        return sorted(found, key=lambda item: -item.latest.at_s)
