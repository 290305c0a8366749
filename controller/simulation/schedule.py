"""What goes wrong, and when: the list of injected faults that, with the seed, decides everything in a simulation.

A schedule is plain data. It can be written to a file, played again, and shrunk by leaving faults out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from metrics.errors import BadDataError

LIGHT, FULL = "light", "full"
TICK_S: Mapping[str, float] = {LIGHT: 30.0, FULL: 1.0}


class FaultKind(StrEnum):
    """What can go wrong; `swarm.py` tells how each is drawn."""

    CRASH = "crash"
    PAUSE = "pause"
    STOP = "stop"
    DISK_FULL = "disk_full"
    PARTITION = "partition"
    LOSE = "lose"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    REFUSE = "refuse"
    STALL = "stall"
    REPEAT = "repeat"
    WALL_STEP = "wall_step"
    PLANT_CLOCK = "plant_clock"
    PLANT_RESTART = "plant_restart"
    SICK = "sick"
    FLAP = "flap"
    MASS = "mass"
    BLIND = "blind"
    SENSORS = "sensors"
    STRESS = "stress"
    JOIN = "join"
    LEAVE = "leave"
    OUTSIDER = "outsider"
    COMMAND = "command"
    RELOAD = "reload"
    PHASE = "phase"


@dataclass(frozen=True, slots=True)
class Fault:
    """One injected fault.

    Attributes:
        at_s: true time at which it begins, or from which it waits for its occasion.
        kind: what happens.
        for_s: how long it lasts; 0 for what happens once.
        args: what the kind needs to know, as plain JSON values.
    """

    at_s: float
    kind: FaultKind
    for_s: float = 0.0
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def until_s(self) -> float:
        """True time at which it has passed."""
        return self.at_s + self.for_s


@dataclass(frozen=True, slots=True)
class Schedule:
    """One simulated life.

    Attributes:
        seed: of the world, and of the delays.
        nodes, clusters: the plant's size at the start.
        storm_s: true time at which all faults have ended.
        calm_s: how long it goes on from there.
        world: "light" or "full".
        policy: settings of the isolation policy that differ from the defaults.
        faults: in order of time.
    """

    seed: int
    nodes: int
    clusters: int
    storm_s: float
    calm_s: float
    world: str = LIGHT
    policy: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @property
    def tick_s(self) -> float:
        """Time between the plant's ticks."""
        return TICK_S[self.world]

    @property
    def hours(self) -> float:
        """Its whole length."""
        return (self.storm_s + self.calm_s) / 3600.0

    def only(self, faults: Sequence[Fault]) -> Schedule:
        """The same life with these faults alone."""
        return replace(self, faults=tuple(faults))

    def to_json(self) -> str:
        """As the text of a file."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


def from_json(text: str, source: str) -> Schedule:
    """The schedule of a file's text.

    Raises:
        BadDataError: it is none.
    """
    try:
        raw = json.loads(text)
        faults = tuple(Fault(**{**fault, "kind": FaultKind(fault["kind"])}) for fault in raw.pop("faults"))
        schedule = Schedule(**raw, faults=faults)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{source} is no schedule of a simulation: {error!r}") from error
    if schedule.world not in TICK_S:
        raise BadDataError(f"{source}: there is no world {schedule.world!r}; there are {', '.join(TICK_S)}")
    return schedule


def load(path: Path) -> Schedule:
    """The schedule in a file.

    Raises:
        BadDataError: it cannot be read, or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataError(f"{path} cannot be read: {error}") from error
    return from_json(text, str(path))
