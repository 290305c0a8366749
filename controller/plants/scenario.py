"""What goes wrong in a run, and when: plain values, whichever plant is to suffer it.

A fault is kept in the JSON form that plants take, so that nothing here needs to know the governed system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault and when it begins.

    Attributes:
        phase: name of the controller's phase in which it begins, e.g. "PHASE_II" or "GOVERNING".
        after_ticks: ticks from the start of that phase.
        fault: what `Plant.inject` is given; its "id" is what `Plant.clear` takes.
    """

    phase: str
    after_ticks: int
    fault: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Scenario:
    """The faults of a run.

    Attributes:
        name: short name.
        description: one sentence for people.
        faults: in the order of the file.
    """

    name: str
    description: str
    faults: tuple[PlannedFault, ...]
