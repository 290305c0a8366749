"""Which faults does a run draw? Some kinds are on, each with a rate of its own, and the rest are off.

Runs in which everything goes wrong all the time explore less than runs in which a few things go wrong often: what one
fault hides, its absence shows. Source: Groce et al., "Swarm testing", ISSTA 2012.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from controller.simulation.schedule import FULL, LIGHT, Fault, FaultKind, Schedule
from controller.simulation.streams import stream

HOUR_S = 3600.0
CALM_S = {LIGHT: 5 * HOUR_S, FULL: 2 * HOUR_S}
SHARE_ON = 0.6
LATE_S_MAX = 8.0  # a request whose sender lives arrives before it is given up, or never: see docs/simulation.md
# Without sick nodes nothing is done that could go wrong, and some faults need an occasion that seldom comes.
OFTEN = (FaultKind.SICK, FaultKind.BLIND, FaultKind.PAUSE, FaultKind.COMMAND, FaultKind.DELAY)
SHARE_OFTEN, HASTE_OFTEN = 0.85, 4.0
MEAN_S_MIN = {LIGHT: 0.1 * HOUR_S, FULL: 120.0}
MEAN_S_MAX = {LIGHT: 2 * HOUR_S, FULL: 2 * HOUR_S}
# Where a process may die or stand still; "intent" are the writes to the journal that come before, or after, an action.
STEPS = ("before", "torn", "after")
PLACES = (*(f"{what}.{step}" for what in ("append", "intent") for step in STEPS), "plant.before", "plant.after", "turn")
COMMANDS = ("pause", "resume", "clear", "isolate", "restore", "exempt", "end_exemption", "proposal")
# Kinds that the full plant does not know, because its own model leaves them out.
LIGHT_ONLY = frozenset({FaultKind.JOIN, FaultKind.LEAVE})


class _Dice:
    """Draws of one fault kind."""

    def __init__(self, rng: np.random.Generator, world: str) -> None:
        self._rng = rng
        self._scale = 1.0 if world == LIGHT else 0.1

    def of(self, *choices: Any) -> Any:  # noqa: ANN401 - JSON values of any type
        return choices[int(self._rng.integers(len(choices)))]

    def chance(self, of: float) -> bool:
        return bool(self._rng.random() < of)

    def within(self, low: float, high: float) -> float:
        return round(float(self._rng.uniform(low, high)), 3)

    def lasting(self, low_s: float, high_s: float) -> float:
        """A length of time, drawn on a logarithmic scale; the full plant lives faster."""
        drawn = np.exp(self._rng.uniform(np.log(low_s), np.log(high_s)))
        return round(max(10.0, float(drawn) * self._scale), 1)

    def times(self, mean_s: float, end_s: float) -> Iterator[float]:
        at_s = float(self._rng.exponential(mean_s))
        while at_s < end_s:
            yield round(at_s, 1)
            at_s += float(self._rng.exponential(mean_s))


def draw(seed: int, hours: float, nodes: int, *, world: str = LIGHT, calm_s: float | None = None) -> Schedule:
    """The schedule of a seed: `hours` in all, of which the last are calm: `calm_s`, or as long as all takes to rest."""
    rng = stream(seed, "swarm")
    calm_s = min(CALM_S[world], hours * HOUR_S / 2) if calm_s is None else calm_s
    storm_s = hours * HOUR_S - calm_s
    faults: list[Fault] = []
    for kind in FaultKind:
        on = rng.random() < (SHARE_OFTEN if kind in OFTEN else SHARE_ON)
        mean_s = np.exp(rng.uniform(np.log(MEAN_S_MIN[world]), np.log(MEAN_S_MAX[world]))) / (
            HASTE_OFTEN if kind in OFTEN else 1.0
        )
        if not on or (world == FULL and kind in LIGHT_ONLY):
            continue
        dice = _Dice(stream(seed, "faults", kind), world)
        faults += [_fault(kind, at_s, dice, storm_s) for at_s in dice.times(float(mean_s), storm_s)]
    return Schedule(
        seed=seed,
        nodes=nodes,
        clusters=max(1, nodes // int(rng.integers(4, 13))),
        storm_s=storm_s,
        calm_s=calm_s,
        world=world,
        policy=policy(seed, world, nodes),
        faults=tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.kind))),
    )


def policy(seed: int, world: str, nodes: int) -> Mapping[str, Any]:
    """Settings of an isolation policy, as a person might choose them."""
    dice = _Dice(stream(seed, "policy"), LIGHT)
    ticks = (4, 60) if world == LIGHT else (30, 90)
    return {
        "confirm_ticks": dice.of(1, 2, 3, 3, 5),
        "probation_ticks": int(dice.within(*ticks)),
        "backoff_base_s": dice.of(60.0, 60.0, 120.0, 300.0),
        # The full plant is calm for too short a time to sit out a long one.
        "backoff_max_s": dice.of(600.0, 1800.0, 3600.0) if world == LIGHT else 600.0,
        "ttl_s": dice.of(300.0, 900.0, 1800.0),
        "quorum": dice.of(2, 3),
        "fraction_max": dice.of(0.2, 0.3, 0.34),
        "absolute_max": dice.of(None, None, 1, 3),
        "rate_per_minute": dice.of(1.0, 5.0),
        "burst": dice.of(1.0, 2.0, 5.0),
        "rate_share": dice.of(0.0, 0.1),
        "flap_offences": dice.of(3, 6),
        "forgive_s": dice.of(600.0, 1800.0),
        "evidence_nodes_min": min(nodes, dice.of(3, 5)),
        "storm_cooldown_s": dice.of(60.0, 300.0),
        "doubt_ticks": dice.of(5, 30),
    }


def _fault(kind: FaultKind, at_s: float, dice: _Dice, storm_s: float) -> Fault:
    for_s, args = _DRAWN[kind](dice)
    return Fault(at_s, kind, round(min(for_s, storm_s - at_s), 1), args)


def _crash(dice: _Dice) -> tuple[float, dict[str, Any]]:
    return 0.0, {"where": dice.of(*PLACES), "down_s": dice.lasting(1.0, 900.0)}


def _pause(dice: _Dice) -> tuple[float, dict[str, Any]]:
    return 0.0, {"where": dice.of(*PLACES), "pause_s": dice.lasting(4.0, 300.0)}


def _delay(dice: _Dice) -> tuple[float, dict[str, Any]]:
    """Late by seconds while its sender waits to see the effect, or by minutes where its sender has died."""
    if dice.chance(1 / 2):
        return 0.0, {"late_s": dice.lasting(20.0, 1800.0), "down_s": dice.lasting(1.0, 60.0)}
    return 0.0, {"late_s": dice.within(1.0, LATE_S_MAX), "down_s": None}


def _partition(dice: _Dice) -> tuple[float, dict[str, Any]]:
    return dice.lasting(20.0, 1800.0), {"way": dice.of("to", "from", "both")}


def _nodes(dice: _Dice, low_s: float, high_s: float) -> tuple[float, dict[str, Any]]:
    return dice.lasting(low_s, high_s), {"node": dice.within(0, 0.999), "gravity": dice.within(1.6, 6.0)}


def _command(dice: _Dice) -> tuple[float, dict[str, Any]]:
    name = dice.of(*COMMANDS)
    args: dict[str, Any] = {"name": name, "key": dice.of(None, "a", "b", "c", "new", "new", "new"), "node": 0.0}
    args["node"], args["for_s"] = dice.within(0, 0.999), dice.of(None, dice.lasting(60.0, 7200.0))
    args["kind"], args["in_s"] = dice.of("veto", "maintenance"), dice.of(0.0, 300.0)
    args["twice"] = dice.chance(1 / 3)
    return 0.0, args


_DRAWN: Mapping[FaultKind, Callable[[_Dice], tuple[float, dict[str, Any]]]] = {
    FaultKind.CRASH: _crash,
    FaultKind.PAUSE: _pause,
    FaultKind.STOP: lambda dice: (0.0, {"down_s": dice.lasting(1.0, 3600.0)}),
    FaultKind.DISK_FULL: lambda dice: (dice.lasting(30.0, 1800.0), {}),
    FaultKind.PARTITION: _partition,
    FaultKind.LOSE: lambda dice: (0.0, {"what": dice.of("request", "reply")}),
    FaultKind.DELAY: _delay,
    FaultKind.DUPLICATE: lambda dice: (0.0, {"late_s": dice.lasting(1.0, 1800.0)}),
    FaultKind.REFUSE: lambda _dice: (0.0, {}),
    FaultKind.STALL: lambda dice: (dice.lasting(30.0, 1800.0), {}),
    FaultKind.REPEAT: lambda dice: (dice.lasting(30.0, 900.0), {}),
    FaultKind.WALL_STEP: lambda dice: (0.0, {"step_s": dice.of(-7200.0, 7200.0)}),
    FaultKind.PLANT_CLOCK: lambda dice: (0.0, {"ahead_s": dice.of(None, 7200.0)}),
    FaultKind.PLANT_RESTART: lambda dice: (dice.lasting(1.0, 600.0), {"forgets": dice.chance(1 / 2)}),
    FaultKind.SICK: lambda dice: _nodes(dice, 120.0, 7200.0),
    FaultKind.FLAP: lambda dice: (
        dice.lasting(3600.0, 20000.0),
        {"node": dice.within(0, 0.999), "gravity": dice.within(1.6, 4.0), "period_s": dice.lasting(240.0, 3600.0)},
    ),
    FaultKind.MASS: lambda dice: (
        dice.lasting(60.0, 1800.0),
        {"share": dice.within(0.2, 1.0), "gravity": dice.within(1.6, 4.0)},
    ),
    FaultKind.BLIND: lambda dice: (
        dice.lasting(30.0, 1800.0),
        {"share": dice.of(0.05, 0.1, 0.2, 1.0), "how": dice.of("nan", "infinite", "untrusted")},
    ),
    FaultKind.SENSORS: lambda dice: (dice.lasting(60.0, 3600.0), {}),
    FaultKind.STRESS: lambda dice: (dice.lasting(1800.0, 14400.0), {"factor": dice.within(1.1, 2.2)}),
    FaultKind.JOIN: lambda dice: (0.0, {"count": dice.of(1, 2), "cluster": dice.within(0, 0.999)}),
    FaultKind.LEAVE: lambda dice: (0.0, {"node": dice.within(0, 0.999)}),
    FaultKind.OUTSIDER: lambda dice: (
        0.0,
        {"what": dice.of("isolate", "restore"), "node": dice.within(0, 0.999), "ttl_s": dice.lasting(60.0, 3600.0)},
    ),
    FaultKind.COMMAND: _command,
    FaultKind.RELOAD: lambda dice: (0.0, {"policy": int(dice.within(0, 1e6))}),
    FaultKind.PHASE: lambda dice: (0.0, {"verdict": dice.of("failed", "undecided")}),
}
