"""Do states of one name have equal futures? Asked of pairs of states that an exploration took for the same.

Two states are told apart by what follows from them: every choice that either has, the events that the governor then
records, and the name of the state after it. The nodes of the two may stand in another order, so a choice is written
with the names of the nodes that it concerns. What is equal for one step, for all states, is equal for every number of
steps.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable
from typing import Any

from exploration_scopes import Choice, Scope, choices, make
from exploration_world import World

from state.action import ApplyParameters
from state.event import EventKind

# What only tells of fields that decide nothing.
UNHEARD = frozenset({EventKind.ISOLATION_BLOCKED, EventKind.GRAVITY_WELL_CONFIRMED, EventKind.GRAVITY_WELL_GONE})


def difference(scope: Scope, world: World, one: Any, other: Any) -> str | None:
    """What follows from one of two saved states and not from the other, or None where their futures are equal."""
    first, second = futures(scope, world, one), futures(scope, world, other)
    if first == second:
        return None
    only = [("the first", first - second), ("the second", second - first)]
    return "\n".join(f"only {which}: {next(iter(what))}" for which, what in only if what)


def futures(scope: Scope, world: World, saved: Any) -> Counter[Hashable]:
    """Every choice in a saved state with the events and the name of the state that it leads to."""
    found: Counter[Hashable] = Counter()
    world.restore(saved)
    names = world.node_names()
    for choice, good in list(choices(scope, world)):
        world.restore(saved)
        called = _called(world, choice, names)
        make(world, choice)
        heard = tuple(sorted(kind.value for kind in world.heard if kind not in UNHEARD))
        found[(called, good, heard, world.name())] += 1
    return found


def _called(world: World, choice: Choice, names: list[tuple[Any, ...]]) -> Hashable:
    """A choice by the names of its nodes' states instead of by those of the nodes."""
    kind, *rest = choice
    if kind == "look":
        evidence, *others = rest
        return (kind, tuple(sorted(zip(names, evidence, strict=True))), *others)
    if kind == "react":
        index, reaction = rest
        action = world.plant.asked[index]
        return (
            kind,
            index if isinstance(action, ApplyParameters) else names[world.topology.index[action.node]],
            reaction,
        )
    return (kind, *(_by_name(world, part, names) for part in rest))


def _by_name(world: World, part: Any, names: list[tuple[Any, ...]]) -> Hashable:
    if dataclasses.is_dataclass(part) and hasattr(part, "node"):
        plain = dataclasses.asdict(part)
        return (type(part).__name__, names[world.topology.index[plain.pop("node")]], tuple(plain.values()))
    return names[world.topology.index[part]] if part in world.topology.index else part
