"""Which choices there are: what plant, evidence, operators, phases and crashes may do in each state of a scope."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import permutations

from exploration_evidence import RANKS, is_storm
from exploration_settings import AWAY_TICKS, FLAP_OFFENCES, TICK_S
from exploration_world import CHECKED, World

from state import command as asked
from state.action import ApplyParameters
from state.command import ExemptionKind
from state.durable import SELF_ENDING, NodeStatus
from state.phase import Phase
from state.stimulus import ProbeEnded, ProbeIntended, ProbeUndone
from state.verdict import CheckStatus

Choice = tuple[object, ...]
REACTIONS = ("applied", "refused", "lost after", "lost before", "crash after", "crash before")


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
        probes: whether these make a node ill, to see it isolated.
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
    probes: bool = False
    healing: bool = False
    reactions: tuple[str, ...] = REACTIONS

    def world(self, size: int, clusters: int) -> World:
        """Where the exploration begins."""
        world = World(
            size,
            clusters,
            healing=self.healing,
            by_hand="isolate" in self.commands,
            blind="blind" in self.evidence,
        )
        for _ in () if self.phases else CHECKED:
            world.end_phase(CheckStatus.PASSED)
        return world


SIZES = ((3, 1), (4, 1), (5, 1), (6, 2))
SCOPES = (
    Scope("nodes", SIZES, reactions=("applied", "refused", "lost before"), commands=("clear", "restore")),
    Scope("blindness", SIZES, evidence=("good", "bad", "blind"), reactions=("applied",), commands=("restore",)),
    Scope("crashes", SIZES, reactions=("applied", "crash after", "crash before"), crashes=True, commands=("restore",)),
    Scope(
        "operators",
        SIZES,
        reactions=("applied", "lost after"),
        commands=("pause", "resume", "clear", "isolate", "restore"),
    ),
    Scope("vetoes", SIZES, reactions=("applied",), commands=("isolate", "restore", "veto")),
    Scope("doubts", SIZES, doubts=True, reactions=("applied",), commands=("clear", "restore")),
    Scope("phases", SIZES, reactions=("applied",), commands=("clear", "restore"), phases=True, probes=True),
    Scope("pauses", SIZES, reactions=("applied",), commands=("pause", "resume", "clear", "restore"), phases=True),
    Scope(
        "probes",
        SIZES,
        reactions=("applied",),
        commands=("pause", "resume", "clear", "restore"),
        phases=True,
        probes=True,
    ),
    # Nodes are well in these two, however many there are.
    Scope(
        "healing",
        ((3, 1),),
        evidence=("good",),
        kpis=("well", "ill", "worse"),
        reactions=("applied", "refused", "lost before"),
        commands=("pause", "resume", "clear"),
        healing=True,
    ),
    Scope(
        "interrupted",
        ((3, 1),),
        evidence=("good",),
        kpis=("well", "ill", "unknown"),
        reactions=("applied", "crash after", "crash before"),
        crashes=True,
        commands=("clear",),
        healing=True,
    ),
)


def choices(scope: Scope, world: World) -> Iterator[tuple[Choice, bool]]:
    """Every choice in the present state, and whether it is a well-behaved one."""
    names = world.node_names()
    if world.plant.asked:
        for index in _distinct(world, names):
            for reaction in scope.reactions:
                yield ("react", index, reaction), reaction == "applied"
        return
    classes = _classes(world, names)
    for evidence in _evidence(scope, world, classes, names):
        all_good = set(evidence) == {"good"}
        for kpis in scope.kpis:
            yield ("look", evidence, kpis, False), all_good and kpis == "well"
            if scope.doubts:
                yield ("look", evidence, kpis, True), False
    if scope.crashes:
        yield ("restart", 0), False
        yield ("restart", AWAY_TICKS), False
    yield from _commands(scope, world, classes)
    if scope.phases:
        yield from _checks(scope, world, classes)


def make(world: World, choice: Choice) -> None:
    """Make a choice.

    Raises:
        ViolationError, InvariantBreachError: something does not hold then.
    """
    kind, *rest = choice
    acts: dict[object, Callable[..., object]] = {
        "react": world.react,
        "look": lambda evidence, kpis, doubted: world.look(evidence, kpis, doubted=doubted),
        "restart": lambda away: world.restart(away_ticks=away),
        "command": world.command,
        "had offended more often": world.offend,
        "phase": world.end_phase,
        "probe": lambda node: world.tell(ProbeIntended("p", {}, node)),
        "probe undone": lambda: world.tell(ProbeUndone("p")),
        "probe ended": lambda: world.tell(ProbeEnded("p")),
    }
    acts[kind](*rest)


def is_home(world: World) -> bool:
    """Whether it governs, with nothing out, in flight or held."""
    state = world.governor.state
    under_way = world.plant.asked or state.intents or state.out_of_service() or state.trial or state.probes
    return state.phase is Phase.GOVERNING and not under_way and state.pause is None and state.safe_mode is None


def _distinct(world: World, names: list[tuple[object, ...]]) -> Iterator[int]:
    """Actions whose nodes can be told apart: the plant may answer any of them first."""
    seen: set[Hashable] = set()
    for index, action in enumerate(world.plant.asked):
        node = None if isinstance(action, ApplyParameters) else world.topology.index[action.node]
        what = index if node is None else (int(world.topology.cluster_of[node]), names[node])
        if what not in seen:
            seen.add(what)
            yield index


def _classes(world: World, names: list[tuple[object, ...]]) -> list[list[int]]:
    """The nodes that cannot be told apart."""
    classes: dict[Hashable, list[int]] = {}
    for index, name in enumerate(names):
        classes.setdefault((int(world.topology.cluster_of[index]), name), []).append(index)
    return list(classes.values())


def _evidence(
    scope: Scope, world: World, classes: list[list[int]], names: list[tuple[object, ...]]
) -> Iterator[tuple[str, ...]]:
    """What all nodes may look like, and where it matters which of the bad ones is worst, every order of them."""
    nodes = range(len(world.topology.nodes))
    out_after_s = world.now_s + TICK_S
    active = [world.plant.out.get(name, 0.0) <= out_after_s for name in world.topology.nodes]
    policy = world.policy
    for dealt in multisets(classes, scope.evidence):
        evidence = tuple(dealt[index] for index in nodes)
        bad = [index for index in nodes if evidence[index] == "bad" and active[index]]
        if len(bad) < 2 or is_storm(evidence, active, policy.evidence_nodes_min, policy.storm_fraction):
            yield evidence
            continue
        kinds = [(int(world.topology.cluster_of[index]), names[index]) for index in bad]
        orders = {tuple(kinds[at] for at in order): order for order in permutations(range(len(bad)))}
        for order in orders.values():
            ranks = {bad[at]: RANKS[rank] for rank, at in enumerate(order)}
            yield tuple(ranks.get(index, what) for index, what in enumerate(evidence))


def _commands(scope: Scope, world: World, classes: list[list[int]]) -> Iterator[tuple[Choice, bool]]:
    state, names = world.governor.state, world.topology.nodes
    if "pause" in scope.commands and state.pause is None:
        yield ("command", asked.Pause(2 * TICK_S)), False
    if "resume" in scope.commands and state.pause is not None:
        yield ("command", asked.Resume()), True
    if "clear" in scope.commands and state.phase is Phase.SAFE_MODE:
        yield ("command", asked.ClearSafeMode()), True
    for members in classes:
        node = names[members[0]]
        record = state.nodes.get(node)
        if record is not None and record.status is NodeStatus.HEALTHY and record.offences == FLAP_OFFENCES - 1:
            yield ("had offended more often", node), False
        if "isolate" in scope.commands and node not in state.out_of_service():
            yield ("command", asked.Isolate(node, 2 * TICK_S)), False
        if "restore" in scope.commands and record is not None and record.status is NodeStatus.ISOLATED:
            yield ("command", asked.Restore(node)), True
        if "veto" in scope.commands and not state.exemptions:
            yield ("command", asked.Exempt(node, ExemptionKind.VETO, 2 * TICK_S)), False


def _checks(scope: Scope, world: World, classes: list[list[int]]) -> Iterator[tuple[Choice, bool]]:
    state = world.governor.state
    phase = state.machine.came_from if state.phase in (Phase.ISOLATING, Phase.SAFE_MODE) else state.phase
    held = state.phase is Phase.SAFE_MODE and state.safe_mode_cause not in SELF_ENDING
    if state.probes:
        yield ("probe undone",), False
        yield ("probe ended",), True
    elif phase in CHECKED and not held and state.pause is None:
        yield ("phase", CheckStatus.PASSED), True
        yield ("phase", CheckStatus.FAILED), False
        if scope.probes and state.phase is Phase.PHASE_III:
            for members in classes:
                yield ("probe", world.topology.nodes[members[0]]), False


def multisets(classes: list[list[int]], alphabet: tuple[str, ...]) -> Iterator[dict[int, str]]:
    """Every way to deal letters to nodes, where the nodes of a class cannot be told apart."""
    if not classes:
        yield {}
        return
    first, *rest = classes
    for dealt in _dealt(len(first), alphabet):
        for others in multisets(rest, alphabet):
            yield dict(zip(first, dealt, strict=True)) | others


def _dealt(count: int, alphabet: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if count == 0:
        yield ()
        return
    for at, letter in enumerate(alphabet):
        for rest in _dealt(count - 1, alphabet[at:]):
            yield (letter, *rest)
