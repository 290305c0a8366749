"""Many lives of a few seeds in a row, until the hours that were asked for are lived, or something does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from controller.simulation.runner import SOUND, Bug, Violation, run
from controller.simulation.schedule import LIGHT, Schedule
from controller.simulation.streams import share
from controller.simulation.swarm import draw

LIFE_HOURS = {"light": 30.0, "full": 5.0}
LEAST_HOURS = {"light": 4.0, "full": 1.0}  # half of them calm: with less, not everything has the time to come to rest
NODES = {"light": (4, 64), "full": (5, 12)}


@dataclass(slots=True)
class Tally:
    """What a campaign amounts to.

    Attributes:
        hours, lives, events, effects: simulated hours, lives of plants, durable events, requests that took effect.
        faults: how many of each kind have happened.
        violation: the first one, with the schedule that led to it.
    """

    hours: float = 0.0
    lives: int = 0
    events: int = 0
    effects: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violation: tuple[Schedule, Violation] | None = None


def schedules(seed: int, hours: float, nodes: int | None = None, world: str = LIGHT) -> Iterator[Schedule]:
    """Schedules of `hours` in all, for the seeds from `seed` on; plants of every size where `nodes` is None."""
    low, high = NODES[world]
    while hours > 0.0:
        length = LIFE_HOURS[world] if hours >= LIFE_HOURS[world] + LEAST_HOURS[world] else hours
        count = nodes if nodes is not None else low + int(share(seed, "nodes") * (high - low + 1))
        yield draw(seed, length, count, world=world)
        seed, hours = seed + 1, hours - length


def simulate(
    wanted: Sequence[Schedule] | Iterator[Schedule],
    bug: Bug = SOUND,
    told: Callable[[float], None] = lambda _hours: None,
) -> Tally:
    """Live schedules one after the other, up to the first violation.

    Args:
        wanted: the schedules.
        bug: planted.
        told: is told the simulated hours so far.
    """
    tally = Tally()
    for schedule in wanted:
        outcome = run(schedule, bug, partial(_add, told, tally.hours))
        tally.hours += outcome.hours
        tally.lives += 1
        tally.events += outcome.events
        tally.effects += outcome.effects
        tally.faults.update(outcome.spent)
        if outcome.violation is not None:
            tally.violation = schedule, outcome.violation
            break
    return tally


def _add(told: Callable[[float], None], before: float, hours: float) -> None:
    told(before + hours)
