"""What does a server say of every node, tick by tick? Each tick is seen once, in order, however unsteadily we ask.

The server keeps its last ticks; asking for those after the last one seen leaves none out unless we stay away for longer
than it keeps them. Nodes and clusters must stay what they were at the connection. Evidence that is missing or no number
is NaN; an answer whose arrays do not fit the nodes is unintelligible as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from controller.plants.client import Client, Deadline
from controller.plants.wire import TICK_MAX, TIME_MAX_S, Fields, as_fields
from metrics.errors import BadDataError, PlantUnavailableError
from metrics.observation import SIGNAL_NAMES, ClusterId, NodeId, NodeSignals, Observation, Parameters, Topology

NODES_MAX: Final = 1_000_000
PAGE_TICKS: Final = 512
_FIGURES_MAX: Final = 1000
_FLOAT_SIGNALS: Final = tuple(name for name in SIGNAL_NAMES if name != "active")


class FieldNodes:
    """Reads ticks with all node signals; one for each connection.

    Args:
        client: reaches the server.
        monotonic_s: the controller's monotonic clock, s.
    """

    def __init__(self, client: Client, monotonic_s: Callable[[], float]) -> None:
        self._client = client
        self._monotonic_s = monotonic_s
        self._topology: Topology | None = None
        self._last_tick = 0
        self._last_time_s = -1.0

    @property
    def topology(self) -> Topology:
        """Nodes and clusters as of the connection.

        Raises:
            PlantUnavailableError: there was no connection yet.
        """
        if self._topology is None:
            raise PlantUnavailableError("the plant's nodes are not known yet: connect first")
        return self._topology

    def connect(self, deadline: Deadline) -> None:
        """Learn the nodes, and let the latest tick be the first that is observed.

        Raises:
            PlantError: no intelligible answer in time.
        """
        answer = self._client.get("/nodes", deadline, offers="nodes")
        self._topology = _topology(answer)
        self._last_tick = answer.whole("tick", 1, TICK_MAX) - 1
        self._last_time_s = -1.0

    def isolated(self, deadline: Deadline) -> frozenset[NodeId]:
        """The nodes that the plant holds isolated now.

        Raises:
            PlantError: no intelligible answer in time.
        """
        topology = self.topology
        answer = self._client.get("/isolations", deadline, offers="isolate")
        names = answer.fields("isolations").values
        unknown = [name for name in names if name not in topology.index]
        if unknown:
            raise answer.unintelligible("isolations", "about the nodes there are", unknown)
        return frozenset(map(NodeId, names))

    def observe(self, deadline: Deadline) -> Sequence[Observation]:
        """The ticks since the last call, oldest first.

        Raises:
            PlantUnavailableError: no intelligible answer in time, other nodes, or time that went backwards.
            UnsupportedError: the route is missing.
        """
        topology = self.topology
        route = f"/observations?after={self._last_tick}&limit={PAGE_TICKS}"
        answer = self._client.get(route, deadline, offers="observations")
        received_s = self._monotonic_s()
        _require_same(topology, answer)
        latest = answer.whole("latest_tick", 0, TICK_MAX)
        if latest < self._last_tick:
            raise PlantUnavailableError(
                f"{answer.where}: expected ticks after {self._last_tick}, but the plant is at tick {latest}; "
                "see whether it was restarted, and connect again"
            )
        raw = answer.array("observations", PAGE_TICKS)
        seen = [_observation(as_fields(entry, answer.where), topology, received_s) for entry in raw]
        self._accept(seen, answer)
        return seen

    def _accept(self, seen: Sequence[Observation], answer: Fields) -> None:
        """Remember where we are, if time went on from one observation to the next."""
        tick, time_s = self._last_tick, self._last_time_s
        for observation in seen:
            if observation.tick <= tick or observation.plant_time_s <= time_s:
                raise PlantUnavailableError(
                    f"{answer.where}: expected time to go on from tick {tick} at {time_s:g} s, but tick "
                    f"{observation.tick} at {observation.plant_time_s:g} s came; see whether the plant was restarted"
                )
            tick, time_s = observation.tick, observation.plant_time_s
        self._last_tick, self._last_time_s = tick, time_s


def _topology(answer: Fields) -> Topology:
    nodes = answer.texts("nodes", NODES_MAX)
    clusters = answer.texts("clusters", NODES_MAX)
    if not nodes or "" in nodes:
        raise answer.unintelligible("nodes", "at least one name, and none empty", list(nodes))
    return Topology(
        nodes=tuple(map(NodeId, nodes)),
        clusters=tuple(map(ClusterId, clusters)),
        cluster_of=answer.indices("cluster_of", len(nodes), len(clusters)),
    )


def _require_same(topology: Topology, answer: Fields) -> None:
    """Raise where the nodes or their clusters are others than at the connection."""
    names = answer.array("nodes", NODES_MAX), answer.array("clusters", NODES_MAX)
    same = tuple(names[0]) == topology.nodes and tuple(names[1]) == topology.clusters
    if not same or answer.array("cluster_of", NODES_MAX) != topology.cluster_of.tolist():
        raise PlantUnavailableError(
            f"{answer.where}: expected the {len(topology.nodes)} nodes of the connection, but other nodes or clusters "
            "came; see whether the plant was replaced, and connect again"
        )


def _observation(tick: Fields, topology: Topology, received_s: float) -> Observation:
    count = len(topology.nodes)
    signals = tick.fields("signals")
    figures = tick.fields("kpis")
    if len(figures.values) > _FIGURES_MAX:
        raise tick.unintelligible("kpis", f"at most {_FIGURES_MAX} figures", len(figures.values))
    return Observation(
        tick=tick.whole("tick", 1, TICK_MAX),
        plant_time_s=tick.finite("plant_time_s", 0.0, TIME_MAX_S),
        received_s=received_s,
        kpis={name: figures.number(name) for name in figures.values},
        topology=topology,
        signals=NodeSignals(
            **{name: signals.floats(name, count) for name in _FLOAT_SIGNALS}, active=signals.flags("active", count)
        ),
        parameters=read_parameters(tick),
        safe_mode=tick.flag("safe_mode"),
    )


def read_parameters(answer: Fields) -> Parameters:
    """The parameters in the field of that name.

    Raises:
        PlantUnavailableError: they are missing or out of bounds.
    """
    try:
        return Parameters.parse(answer.fields("parameters").values)
    except BadDataError as error:
        raise PlantUnavailableError(f"{answer.where}: expected the four parameters, but {error}") from error
