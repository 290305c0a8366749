"""Which of the schedule's faults are at work now? They wait, they begin, they have their occasion, they pass.

A fault either lasts for a while, or waits from its time on for the first occasion that fits (the next write to the
journal, say) and is spent there, or happens at its time by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from controller.simulation.clock import SimClock
from controller.simulation.schedule import Fault, FaultKind

WAITING = frozenset(
    {
        FaultKind.CRASH,
        FaultKind.PAUSE,
        FaultKind.LOSE,
        FaultKind.DELAY,
        FaultKind.DUPLICATE,
        FaultKind.REFUSE,
        FaultKind.PHASE,
    }
)
LASTING = frozenset(
    {
        FaultKind.DISK_FULL,
        FaultKind.PARTITION,
        FaultKind.STALL,
        FaultKind.REPEAT,
        FaultKind.PLANT_RESTART,
        FaultKind.SICK,
        FaultKind.FLAP,
        FaultKind.MASS,
        FaultKind.BLIND,
        FaultKind.SENSORS,
        FaultKind.STRESS,
    }
)


class CrashedError(BaseException):
    """The process is dead; no handler of the controller's may catch this."""

    def __init__(self, down_s: float) -> None:
        super().__init__(f"crashed, down for {down_s} s")
        self.down_s = down_s


class Weather:
    """The faults of one schedule.

    Attributes:
        spent: how many faults of each kind have happened.
    """

    def __init__(self, faults: Sequence[Fault], clock: SimClock) -> None:
        self._ahead = sorted(faults, key=lambda fault: fault.at_s, reverse=True)
        self._clock = clock
        self._armed: list[Fault] = []
        self._places: Counter[str] = Counter()  # of those of them that wait for the process to be somewhere
        self._first_end_s = math.inf
        self._lasting: dict[FaultKind, list[Fault]] = {}
        self._due: list[Fault] = []
        self.spent: dict[FaultKind, int] = {}

    def turn_to(self, now_s: float) -> None:
        """Let begin what begins, and pass what has passed."""
        while self._ahead and self._ahead[-1].at_s <= now_s:
            fault = self._ahead.pop()
            self.spent[fault.kind] = self.spent.get(fault.kind, 0) + 1
            if fault.kind in WAITING:
                self._armed.append(fault)
                self._places[fault.args.get("where", "")] += 1
            elif fault.kind in LASTING:
                self._lasting.setdefault(fault.kind, []).append(fault)
                self._first_end_s = min(self._first_end_s, fault.until_s)
            if fault.kind not in WAITING:
                self._due.append(fault)
        if self._first_end_s <= now_s:
            left = {kind: [f for f in faults if f.until_s > now_s] for kind, faults in self._lasting.items()}
            self._lasting = {kind: faults for kind, faults in left.items() if faults}
            ends_s = (fault.until_s for faults in self._lasting.values() for fault in faults)
            self._first_end_s = min(ends_s, default=math.inf)

    def due(self) -> list[Fault]:
        """The faults that have begun since this was asked last, without those that wait for an occasion."""
        due, self._due = self._due, []
        return due

    def lasting(self, kind: FaultKind) -> Sequence[Fault]:
        """The faults of this kind that are at work."""
        return self._lasting.get(kind, ())

    def take(self, kind: FaultKind) -> Fault | None:
        """Spend the first fault of this kind that waits for an occasion."""
        for fault in self._armed:
            if fault.kind is kind:
                self._armed.remove(fault)
                self._places[fault.args.get("where", "")] -= 1
                return fault
        return None

    def waits(self, *where: str) -> bool:
        """Whether a fault waits for the process to be at one of these places."""
        return any(self._places.get(place) for place in where)

    def point(self, *where: str) -> None:
        """Here the process may stand still, or die; a place may have several names.

        Raises:
            CrashedError: it dies.
        """
        if not self.waits(*where):
            return
        for fault in list(self._armed):
            if fault.args.get("where") not in where:
                continue
            self._armed.remove(fault)
            self._places[fault.args["where"]] -= 1
            if fault.kind is FaultKind.CRASH:
                raise CrashedError(float(fault.args["down_s"]))
            self._clock.advance_to(self._clock.now_s + float(fault.args["pause_s"]))

    def clear_up(self) -> None:
        """Forget what still waits for an occasion."""
        self._armed.clear()
        self._places.clear()
