"""Every state that the real governor can reach in a small world, and what must hold in each of them.

    python tests/exploration/explore.py [--seconds 90] [--scope NAME] [--nodes N]

Breadth first from the start of governing: in every state, every choice that plant, evidence, operators and crashes
have. In every state the invariants are asked; at the end, whether a path of well-behaved choices leads from each state
back to GOVERNING with nothing out, in flight or held. A violation is printed with the shortest path that leads to it.

Without --nodes the smallest plant comes first and the next larger one follows while there is time. Ends in 1 where a
violation was found, and in 2 where the time did not suffice for even the smallest.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from exploration_world import REACTIONS, TICK_S, ViolationError, World, multisets, shorten_constants

from metrics.errors import InvariantBreachError
from state import command as asked
from state.command import ExemptionKind
from state.durable import NodeStatus
from state.phase import Phase
from state.stimulus import ProbeEnded, ProbeIntended, ProbeUndone
from state.verdict import CheckStatus

Choice = tuple[object, ...]
CHECKED = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which choices there are.

    Attributes:
        name: of the scope.
        sizes: nodes and clusters, the smallest first.
        evidence: what a node may look like.
        kpis: what the KPIs may look like.
        doubts: whether the sensors may contradict service.
        crashes: whether controller and plant may be away.
        commands: what operators may want.
        phases: whether it begins with the phases, instead of in GOVERNING.
        healing: whether parameters are tried.
        reactions: how the plant may react.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    evidence: tuple[str, ...] = ("good", "bad")
    kpis: tuple[str, ...] = ("well",)
    doubts: bool = False
    crashes: bool = False
    commands: tuple[str, ...] = ()
    phases: bool = False
    healing: bool = False
    reactions: tuple[str, ...] = REACTIONS


SIZES = ((3, 1), (4, 1), (5, 1), (6, 2))
SCOPES = (
    Scope("nodes", SIZES, reactions=("applied", "refused", "lost before"), commands=("clear", "restore")),
    Scope("blindness", SIZES, evidence=("good", "bad", "blind"), reactions=("applied",), commands=("restore",)),
    Scope("crashes", SIZES, reactions=("applied", "crash after", "crash before"), crashes=True, commands=("restore",)),
    Scope(
        "operators",
        SIZES,
        reactions=("applied", "lost after"),
        commands=("pause", "resume", "clear", "isolate", "restore", "veto"),
    ),
    Scope(
        "phases",
        SIZES,
        doubts=True,
        reactions=("applied", "refused"),
        commands=("pause", "resume", "clear", "restore"),
        phases=True,
    ),
    Scope(
        "healing",
        SIZES,
        evidence=("good",),
        kpis=("well", "ill", "worse", "unknown"),
        reactions=("applied", "refused", "lost before", "crash after"),
        crashes=True,
        commands=("pause", "resume", "clear"),
        healing=True,
    ),
)


@dataclass(slots=True)
class Found:
    """What an exploration has found.

    Attributes:
        states, transitions, seconds: how much there was, and how long it took.
        complete: whether every reachable state has been seen.
        violation: what does not hold, if anything.
        path: the choices that lead there.
        phases: how many states of each phase.
    """

    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    complete: bool = False
    violation: str | None = None
    path: tuple[Choice, ...] = ()
    phases: dict[Phase, int] = field(default_factory=dict)


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
    scope: Scope, size: int, clusters: int, *, seconds: float = math.inf, states_max: float = math.inf
) -> Found:
    """Every state of a scope, or as many as are asked for and the time allows."""
    shorten_constants()
    by_hand = "isolate" in scope.commands
    world, graph, found = World(size, clusters, healing=scope.healing, by_hand=by_hand), _Graph(), Found()
    if not scope.phases:
        for _ in CHECKED:
            world.end_phase(CheckStatus.PASSED)
    began_s = time.perf_counter()
    start, _ = graph.number(world.name(), 0, ())
    todo = deque([(start, world.save())])
    while todo and time.perf_counter() - began_s < seconds and len(graph.parents) < states_max:
        number, saved = todo.popleft()
        world.restore(saved)
        found.phases[world.governor.state.phase] = found.phases.get(world.governor.state.phase, 0) + 1
        if _is_home(world):
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
            if good:
                graph.before[after].append(number)
            if new:
                todo.append((after, world.save()))
    found.states, found.seconds = len(graph.parents), time.perf_counter() - began_s
    found.complete = not todo and found.violation is None
    # Of a state that was not gone on from nothing is known; whether it leads home is left open.
    graph.home.update(number for number, _ in todo)
    if found.violation is None and (stuck := graph.stuck()) is not None:
        found.violation, found.path = "no well-behaved way leads home", graph.path(stuck)
    return found


def choices(scope: Scope, world: World) -> Iterator[tuple[Choice, bool]]:
    """Every choice in the present state, and whether it is a well-behaved one."""
    if world.plant.asked:
        for reaction in scope.reactions:
            yield ("react", reaction), reaction == "applied"
        return
    classes = list(_classes(world).values())
    for dealt in multisets(classes, scope.evidence):
        evidence = tuple(dealt[index] for index in range(len(world.topology.nodes)))
        all_good = set(evidence) == {"good"}
        for kpis in scope.kpis:
            yield ("look", evidence, kpis, False), all_good and kpis == "well"
            if scope.doubts:
                yield ("look", evidence, kpis, True), False
    if scope.crashes:
        yield ("restart", 0), False
        yield ("restart", 4), False
    yield from _commands(scope, world, classes)
    if scope.phases:
        yield from _checks(world, classes)


def _commands(scope: Scope, world: World, classes: list[list[int]]) -> Iterator[tuple[Choice, bool]]:
    state, names = world.governor.state, world.topology.nodes
    if "pause" in scope.commands and state.pause is None:
        yield ("command", asked.Pause(TICK_S)), False
    if "resume" in scope.commands and state.pause is not None:
        yield ("command", asked.Resume()), True
    if "clear" in scope.commands and state.phase is Phase.SAFE_MODE:
        yield ("command", asked.ClearSafeMode()), True
    for members in classes:
        node = names[members[0]]
        record = state.nodes.get(node)
        if "isolate" in scope.commands and node not in state.out_of_service():
            yield ("command", asked.Isolate(node, 2 * TICK_S)), False
        if "restore" in scope.commands and record is not None and record.status is NodeStatus.ISOLATED:
            yield ("command", asked.Restore(node)), True
        if "veto" in scope.commands and not state.exemptions:
            yield ("command", asked.Exempt(node, ExemptionKind.VETO, TICK_S)), False


def _checks(world: World, classes: list[list[int]]) -> Iterator[tuple[Choice, bool]]:
    state = world.governor.state
    phase = state.machine.came_from if state.phase in (Phase.ISOLATING, Phase.SAFE_MODE) else state.phase
    held = state.phase is Phase.SAFE_MODE and state.safe_mode_cause not in ("STORM_DETECTED", "SENSORS_DOUBTED")
    if state.probes:
        yield ("probe undone",), False
        yield ("probe ended",), True
    elif phase in CHECKED and not held and state.pause is None:
        yield ("phase", CheckStatus.PASSED), True
        if state.phase_failures == 0:
            yield ("phase", CheckStatus.FAILED), False
        if state.phase is Phase.PHASE_III:
            for members in classes:
                yield ("probe", world.topology.nodes[members[0]]), False


def make(world: World, choice: Choice) -> None:
    """Make a choice.

    Raises:
        ViolationError, InvariantBreachError: something does not hold then.
    """
    kind, *rest = choice
    acts: dict[object, Callable[..., None]] = {
        "react": world.react,
        "look": lambda evidence, kpis, doubted: world.look(evidence, kpis, doubted=doubted),
        "restart": lambda away: world.restart(away_ticks=away),
        "command": world.command,
        "phase": world.end_phase,
        "probe": lambda node: world.tell(ProbeIntended("p", {}, node)),
        "probe undone": lambda: world.tell(ProbeUndone("p")),
        "probe ended": lambda: world.tell(ProbeEnded("p")),
    }
    acts[kind](*rest)


def _classes(world: World) -> dict[Hashable, list[int]]:
    classes: dict[Hashable, list[int]] = {}
    for index, node in enumerate(world.topology.nodes):
        name = (int(world.topology.cluster_of[index]), world._node_name(index, node))
        classes.setdefault(name, []).append(index)
    return classes


def _is_home(world: World) -> bool:
    state = world.governor.state
    under_way = world.plant.asked or state.intents or state.out_of_service() or state.trial or state.probes
    return state.phase is Phase.GOVERNING and not under_way and state.pause is None and state.safe_mode is None


def main(arguments: list[str]) -> int:
    """Explore, and tell."""
    parser = argparse.ArgumentParser(description="explore every state of the governor in a small world")
    parser.add_argument("--seconds", type=float, default=90.0, help="for all scopes together (default 90)")
    parser.add_argument("--scope", choices=[scope.name for scope in SCOPES])
    parser.add_argument("--nodes", type=int, help="only this number of nodes")
    options = parser.parse_args(arguments)
    scopes = [scope for scope in SCOPES if options.scope in (None, scope.name)]
    left_s, code = options.seconds, 0
    for at, scope in enumerate(scopes):
        share_s = left_s / (len(scopes) - at)
        for size, clusters in scope.sizes:
            if options.nodes not in (None, size):
                continue
            found = explore(scope, size, clusters, seconds=share_s)
            tell(scope, size, found)
            share_s, left_s = share_s - found.seconds, left_s - found.seconds
            if found.violation:
                code = 1
            elif not found.complete and (size, clusters) == scope.sizes[0]:
                code = code or 2
            if not found.complete:
                break
    return code


def tell(scope: Scope, size: int, found: Found) -> None:
    """Print what was found."""
    how = "all" if found.complete else "not all"
    line = f"{scope.name:>10}  N={size}  {found.states:>7} states ({how})  {found.transitions:>8} transitions"
    sys.stdout.write(f"{line}  {found.seconds:6.1f} s\n")
    if found.violation:
        sys.stdout.write(f"violation: {found.violation}\n")
        for step, choice in enumerate(found.path, start=1):
            sys.stdout.write(f"  {step:3}. {' '.join(str(part) for part in choice)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
