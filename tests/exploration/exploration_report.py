"""What an exploration has found, as lines for people; a violation with the way there, told step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from exploration_scopes import Choice, Scope, make
from exploration_world import ViolationError, World

from metrics.errors import InvariantBreachError


def line(scope: Scope, size: int, found: Any) -> str:
    """How much there was, whether that is all, and how long it took."""
    how = "complete" if found.complete else "bounded"
    much = f"{found.states:>7} states  {found.transitions:>8} transitions"
    return f"{scope.name:>10}  N={size}  {much}  {how:<8}  {found.seconds:6.1f} s of CPU"


def lines(scope: Scope, size: int, clusters: int, found: Any) -> Iterator[str]:
    """The same, with the shortest way to a violation, if there is one."""
    yield line(scope, size, found)
    if found.violation:
        yield f"violation: {found.violation}"
        yield from story(scope, size, clusters, found.path)


def story(scope: Scope, size: int, clusters: int, path: tuple[Choice, ...]) -> Iterator[str]:
    """Every step of a path: what happened, the events that the governor recorded, and the phase after it."""
    world = scope.world(size, clusters)
    for number, choice in enumerate(path, start=1):
        text, world.heard = described(world, choice), []
        try:
            make(world, choice)
        except (InvariantBreachError, ViolationError) as violation:
            yield f"{number:5}. {text}  ->  {violation}"
            return
        heard = ", ".join(kind.value for kind in world.heard) or "nothing"
        yield f"{number:5}. {text}  ->  {heard}  ({world.governor.state.phase})"


def described(world: World, choice: Choice) -> str:
    """A choice in words."""
    kind, *rest = choice
    if kind == "look":
        evidence, kpis, doubted = rest
        unlike = [f"{node} {what}" for node, what in zip(world.topology.nodes, evidence, strict=True) if what != "good"]
        said = [", ".join(unlike) or "all good"]
        said += [f"KPIs {kpis}"] if world.healing else []
        said += ["sensors contradict service"] if doubted else []
        return f"a tick: {'; '.join(said)}"
    if kind == "react":
        index, reaction = rest
        action = world.plant.asked[index]
        return f"{action.key} {getattr(action, 'node', '')}: {reaction}".replace(" :", ":")
    if kind == "restart":
        return f"the controller restarts, {rest[0]} ticks later"
    if kind == "command":
        command: Any = rest[0]
        values = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(command).items())
        return f"operator: {type(command).__name__} {values}".rstrip()
    return " ".join(str(part) for part in choice)
