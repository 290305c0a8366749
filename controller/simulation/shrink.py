"""Which of a schedule's faults are to blame? As few of them as still lead to the same violation.

Delta debugging over the list of faults. It works because a fault that is left out changes no draw of any other. The
result is minimal in the sense that leaving out any single one of its faults makes the violation go away.

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from controller.simulation.runner import SOUND, Bug, Outcome, Violation, run
from controller.simulation.schedule import Fault, Schedule

RUNS_MAX = 400


def shrink(
    schedule: Schedule,
    violation: Violation,
    bug: Bug = SOUND,
    *,
    runs_max: int = RUNS_MAX,
    told: Callable[[int], None] = lambda _faults: None,
) -> Schedule:
    """The smallest schedule found that violates the same invariant.

    Args:
        schedule: that of the violation.
        violation: what it led to.
        bug: planted, if one was.
        runs_max: how many lives may be spent on it.
        told: is told how many faults are left.
    """
    if violation.at_s < schedule.storm_s:
        # What would have come later had no part in it.
        faults = tuple(fault for fault in schedule.faults if fault.at_s <= violation.at_s)
        schedule = replace(schedule, faults=faults)
    search = _Search(schedule, violation.invariant, bug, runs_max, told)
    return schedule.only(search.minimal(schedule.faults))


class _Search:
    def __init__(
        self, schedule: Schedule, invariant: str, bug: Bug, runs_left: int, told: Callable[[int], None]
    ) -> None:
        self._schedule, self._invariant, self._bug = schedule, invariant, bug
        self._runs_left, self._told = runs_left, told

    def minimal(self, faults: Sequence[Fault]) -> Sequence[Fault]:
        """`ddmin`: leave out ever smaller parts, as long as what is left still fails."""
        parts = 2
        while len(faults) > 0 and self._runs_left > 0:
            size = -(-len(faults) // parts)
            for start in range(0, len(faults), size):
                rest = [*faults[:start], *faults[start + size :]]
                if self._fails(rest):
                    faults, parts = rest, max(parts - 1, 2)
                    self._told(len(faults))
                    break
            else:
                if size == 1:
                    break
                parts = min(len(faults), 2 * parts)
        return faults

    def _fails(self, faults: Sequence[Fault]) -> bool:
        if self._runs_left <= 0:
            return False
        self._runs_left -= 1
        outcome: Outcome = run(self._schedule.only(faults), self._bug)
        return outcome.violation is not None and outcome.violation.invariant == self._invariant
