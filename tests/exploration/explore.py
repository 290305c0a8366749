"""Every state that the real governor can reach in a small world, and what must hold in each of them.

    python tests/exploration/explore.py [--seconds 180] [--jobs 2] [--scope NAME] [--nodes N]

Breadth first from the start of governing: in every state, every choice that plant, evidence, operators and crashes
have. In every state the invariants are asked; at the end, whether a path of well-behaved choices leads from each state
back to GOVERNING with nothing out, in flight or held. A violation is printed with the shortest path that leads to it.

Without --nodes the smallest plant comes first and the next larger one follows while there is time, which the scopes
share evenly. "complete" is said of a scope of which every reachable state has been seen, "bounded" of one where time
ended first. Ends in 1 where a violation was found, and in 2 where the time did not suffice for even the smallest plant.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from exploration_report import line, lines
from exploration_scopes import SCOPES, Choice, Scope, choices, is_home, make
from exploration_settings import shorten_constants
from exploration_world import ViolationError, World

from metrics.errors import InvariantBreachError
from state.phase import Phase

PROGRESS_S = 20.0  # of CPU, between two lines of progress


@dataclass(slots=True)
class Found:
    """What an exploration has found.

    Attributes:
        states, transitions, seconds: how much there was, and how much CPU time it took.
        complete: whether every reachable state has been seen.
        violation: what does not hold, if anything.
        path: the choices that lead there.
        phases: how many states of each phase.
        merged: pairs of saved states that were taken for the same.
    """

    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    complete: bool = False
    violation: str | None = None
    path: tuple[Choice, ...] = ()
    phases: dict[Phase, int] = field(default_factory=dict)
    merged: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Graph:
    """The states seen, by number, with how each was reached and where well-behaved choices lead."""

    numbers: dict[Hashable, int] = field(default_factory=dict)
    parents: list[tuple[int, Choice]] = field(default_factory=list)
    home: set[int] = field(default_factory=set)
    before: list[list[int]] = field(default_factory=list)

    def number(self, name: Hashable, parent: int, choice: Choice) -> tuple[int, bool]:
        """The state's number, and whether it is new."""
        known = self.numbers.get(name)
        if known is not None:
            return known, False
        self.numbers[name] = len(self.parents)
        self.parents.append((parent, choice))
        self.before.append([])
        return len(self.parents) - 1, True

    def path(self, number: int) -> tuple[Choice, ...]:
        """The choices that lead to a state."""
        choices: list[Choice] = []
        while number > 0:
            number, choice = self.parents[number]
            choices.append(choice)
        return tuple(reversed(choices))

    def stuck(self) -> int | None:
        """A state, the nearest to the start, from which nothing well-behaved leads home."""
        reached, todo = set(self.home), list(self.home)
        while todo:
            for number in self.before[todo.pop()]:
                if number not in reached:
                    reached.add(number)
                    todo.append(number)
        return next((number for number in range(len(self.parents)) if number not in reached), None)


def explore(
    scope: Scope,
    size: int,
    clusters: int,
    *,
    seconds: float = math.inf,
    states_max: float = math.inf,
    merged_every: int = 0,
    progress: Callable[[Found, int], None] | None = None,
) -> Found:
    """Every state of a scope, or as many as are asked for and the time allows.

    With `merged_every` every so-manieth state is kept, with the first one that is taken for the same.
    """
    shorten_constants()
    world, graph, found = scope.world(size, clusters), _Graph(), Found()
    sample = _Sample(merged_every, found.merged)
    began_s, ends_s = time.process_time(), time.monotonic() + seconds
    start, _ = graph.number(world.name(), 0, ())
    todo = deque([(start, world.save())])
    while todo and time.monotonic() < ends_s and len(graph.parents) < states_max:
        number, saved = todo.popleft()
        world.restore(saved)
        phase = world.governor.state.phase
        found.phases[phase] = found.phases.get(phase, 0) + 1
        if is_home(world):
            graph.home.add(number)
        for choice, good in list(choices(scope, world)):
            world.restore(saved)
            found.transitions += 1
            try:
                make(world, choice)
            except (InvariantBreachError, ViolationError) as violation:
                found.violation, found.path = str(violation), (*graph.path(number), choice)
                todo.clear()
                break
            after, new = graph.number(world.name(), number, choice)
            graph.before[after] += [number] if good else []
            todo += [(after, world.save())] if new else []
            sample.take(after, world, new=new)
        found.states, found.seconds = len(graph.parents), time.process_time() - began_s
        if progress is not None:
            progress(found, len(todo))
    found.complete = not todo and found.violation is None
    # Of a state that was not gone on from nothing is known; whether it leads home is left open.
    graph.home.update(number for number, _ in todo)
    if found.violation is None and (stuck := graph.stuck()) is not None:
        found.violation, found.path = "no well-behaved way leads home", graph.path(stuck)
    return found


@dataclass(slots=True)
class _Sample:
    """Pairs of states that were taken for the same: every so-manieth, with the first that bears its name, too."""

    every: int
    pairs: list[tuple[Any, Any]]
    kept: dict[int, Any] = field(default_factory=dict)

    def take(self, number: int, world: World, *, new: bool) -> None:
        """A state has been reached."""
        if self.every and new and number % self.every == 0:
            self.kept[number] = world.save()
        elif not new and number in self.kept:
            self.pairs.append((self.kept.pop(number), world.save()))


def main(arguments: list[str]) -> int:
    """Explore, and tell."""
    parser = argparse.ArgumentParser(description="explore every state of the governor in small worlds")
    parser.add_argument("--seconds", type=float, default=180.0, help="time limit for everything (default 180)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--scope", choices=[scope.name for scope in SCOPES], help="only this one")
    parser.add_argument("--nodes", type=int, help="only this number of nodes")
    options = parser.parse_args(arguments)
    chosen = [scope for scope in SCOPES if options.scope in (None, scope.name)]
    share_s = options.seconds * min(options.jobs, len(chosen)) / len(chosen)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        asked = [pool.submit(_grow, scope.name, options.nodes, share_s) for scope in chosen]
        return max(done.result() for done in asked)


def _grow(name: str, nodes: int | None, seconds: float) -> int:
    """Explore a scope with ever more nodes while there is time; 1 for a violation, 2 where not even the least ended."""
    scope, code = next(scope for scope in SCOPES if scope.name == name), 2
    ends_s = time.monotonic() + seconds
    for size, clusters in scope.sizes:
        if nodes not in (None, size):
            continue
        found = explore(scope, size, clusters, seconds=ends_s - time.monotonic(), progress=_Progress(scope, size))
        _print(lines(scope, size, clusters, found))
        if found.violation:
            return 1
        if not found.complete:
            return code
        code = 0
    return code


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, scope: Scope, size: int) -> None:
        self._scope, self._size, self._told_s = scope, size, 0.0

    def __call__(self, found: Found, waiting: int) -> None:
        if found.seconds - self._told_s >= PROGRESS_S:
            self._told_s = found.seconds
            _print([f"{line(self._scope, self._size, found)}, {waiting} states to go on from"])


def _print(texts: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{text}\n" for text in texts))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
