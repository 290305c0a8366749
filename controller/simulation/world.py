"""A light plant: nodes whose health gives |g| and its trust directly, so that an hour is 120 cheap ticks.

It isolates, restores and takes parameters as the governed system does: keys and epochs are fenced by the same rules,
time limits end by themselves, and neither keys nor epoch outlive a restart. What it leaves out is how a sick node comes
to show |g|, which is the business of the field and of the full plant.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from controller.plants.plant import PlantInfo
from controller.simulation.light import LightObservation, reading_of
from controller.simulation.message import Effect, Message
from controller.simulation.schedule import TICK_S, Fault, FaultKind, Schedule
from controller.simulation.streams import share, stream
from controller.simulation.weather import Weather
from metrics.errors import PlantRefusedError
from metrics.observation import Capability, NodeId, Observation, Parameters, Topology

KEPT_TICKS = 16  # a process that stays away for longer misses some
KEYS_KEPT = 10_000
NODES_MAX = 96
NOISE_ROWS = 1021
HEALTHY_GRAVITY, NOISE_GRAVITY = 0.15, 0.12  # healthy nodes stay far below the critical value, and re-admission
CLUSTER_MIN = 3
CALM_COHERENCE, STRESSED_COHERENCE = 0.96, 0.86
_CALM = Parameters()
_INFO = PlantInfo("light", "light 1", frozenset(Capability), seed=None, real_time=True, interval_s=TICK_S["light"])


class LightWorld:
    """Implements `Core`.

    Args:
        schedule: seed and size.
        weather: the faults.
    """

    def __init__(self, schedule: Schedule, weather: Weather) -> None:
        self.life = 0
        self.on_effect: Callable[[Effect], None] = lambda _effect: None
        self._seed, self._tick_s, self._weather = schedule.seed, schedule.tick_s, weather
        self._noise = stream(schedule.seed, "noise").random((NOISE_ROWS, NODES_MAX))
        self._names = [f"n{i}" for i in range(schedule.nodes)]
        self._cluster = [i * schedule.clusters // schedule.nodes for i in range(schedule.nodes)]
        self._clusters = tuple(f"c{i}" for i in range(schedule.clusters))
        self._first_nodes = self._born = schedule.nodes
        self._topology = self._drawn_topology()
        self._hits: dict[tuple[float, FaultKind, Topology], NDArray[np.bool_]] = {}
        self._limits_s: dict[NodeId, float] = {}
        self._parameters = Parameters()
        self._kept: deque[LightObservation] = deque(maxlen=KEPT_TICKS)
        self._next_s = self._tick_s
        self._now_s = self._began_s = self._stepped_s = 0.0
        self._tick = 0
        self._missed_ticks = 0
        self._down_until_s = 0.0
        self._epoch, self._answers = 0, OrderedDict[str, object]()

    @property
    def info(self) -> PlantInfo:
        """It can do everything that nodes can."""
        return _INFO

    @property
    def out(self) -> frozenset[NodeId]:
        """The nodes that it holds isolated."""
        return frozenset(self._limits_s)

    @property
    def parameters(self) -> Parameters:
        """Those in force."""
        return self._parameters

    @property
    def epoch(self) -> int:
        """The highest seen in this life."""
        return self._epoch

    @property
    def nodes(self) -> Sequence[NodeId]:
        """All nodes there are."""
        return self._names

    @property
    def cluster_of(self) -> Mapping[NodeId, int]:
        """The cluster of each node."""
        return dict(zip(self._names, self._cluster, strict=True))

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self._now_s >= self._down_until_s

    def live_to(self, now_s: float) -> None:
        """Make the ticks that are due; a plant that is down, or stands still, makes none."""
        while self._next_s <= now_s:
            self._now_s = self._next_s
            self._next_s += self._tick_s
            self._weather.turn_to(self._now_s)
            if self.up and not self._weather.lasting(FaultKind.STALL):
                self._make_tick()
        self._now_s = now_s

    def shown(self, after: int) -> Sequence[Observation]:
        """The ticks after tick `after` that are still kept."""
        kept = self._kept
        if not kept or kept[-1].tick <= after:
            return ()
        return [observation for observation in kept if observation.tick > after]

    def execute(self, message: Message) -> None:
        """Do what a request says, once, if no higher epoch was seen."""
        before = self._epoch
        self._fence(message)
        if message.key in self._answers:
            if self._answers[message.key] != message.content:
                raise PlantRefusedError(message.what, f"key {message.key} was used before for something else")
            return
        changed = self._do(message)
        self._answers[message.key] = message.content
        if len(self._answers) > KEYS_KEPT:
            self._answers.popitem(last=False)
        self.on_effect(Effect(message, changed, self.life, before))

    def ruined(self) -> frozenset[NodeId]:
        """Nodes that can serve as much as their peers no more, though no fault lasts."""
        return frozenset()  # nobody here has money to lose

    def befall(self, fault: Fault) -> None:
        """Let what happens by itself happen."""
        match fault.kind:
            case FaultKind.PLANT_CLOCK:
                ahead_s = fault.args["ahead_s"]
                self._stepped_s = self._now_s if ahead_s is None else self._stepped_s - float(ahead_s)
            case FaultKind.PLANT_RESTART:
                self._restart(fault)
            case FaultKind.JOIN:
                self._join(int(fault.args["count"]), float(fault.args["cluster"]))
            case FaultKind.LEAVE:
                self._leave(float(fault.args["node"]))
            case FaultKind.OUTSIDER:
                node = self._names[int(float(fault.args["node"]) * len(self._names))]
                if fault.args["what"] == "restore":
                    self._limits_s.pop(node, None)
                else:
                    self._limits_s.setdefault(node, self._now_s + float(fault.args["ttl_s"]))
            case _:
                pass  # what lasts is asked for at every tick

    def _fence(self, message: Message) -> None:
        if message.epoch < self._epoch:
            raise PlantRefusedError(message.what, f"epoch {message.epoch} is stale, {self._epoch} has been seen")
        self._epoch = message.epoch

    def _do(self, message: Message) -> bool:
        if message.parameters is not None:
            changed = self._parameters != message.parameters
            self._parameters = message.parameters
            return changed
        if message.node not in self._topology.index:
            raise PlantRefusedError(message.what, f"there is no node {message.node}")
        changed = (message.node in self._limits_s) is (message.what == "restore")
        if message.what == "restore":
            self._limits_s.pop(message.node, None)
        else:
            self._limits_s[message.node] = self._now_s + message.ttl_s
        return changed

    def _restart(self, fault: Fault) -> None:
        """Everything starts from zero; isolations are forgotten, or were kept on disk."""
        self.life += 1
        self._began_s = self._stepped_s = self._now_s + fault.for_s
        self._down_until_s = self._began_s
        self._tick = 0
        self._kept.clear()
        self._epoch, self._answers = 0, OrderedDict()
        if fault.args["forgets"]:
            self._limits_s.clear()

    def _join(self, count: int, cluster: float) -> None:
        for _ in range(min(count, NODES_MAX - len(self._names))):
            self._names.append(f"n{self._born}")
            self._cluster.append(int(cluster * len(self._clusters)))
            self._born += 1
        self._topology = self._drawn_topology()

    def _leave(self, node: float) -> None:
        at = int(node * len(self._names))
        if self._cluster.count(self._cluster[at]) > CLUSTER_MIN:
            self._limits_s.pop(self._names.pop(at), None)
            self._cluster.pop(at)
            self._topology = self._drawn_topology()

    def _drawn_topology(self) -> Topology:
        return Topology(tuple(self._names), self._clusters, np.array(self._cluster, dtype=np.int32))

    def _make_tick(self) -> None:
        if self._limits_s:
            self._limits_s = {node: limit_s for node, limit_s in self._limits_s.items() if limit_s > self._now_s}
        self._tick += 1
        gravity, trusted = self._evidence()
        active = np.ones(len(self._names), dtype=np.bool_)
        for node in self._limits_s:
            active[self._topology.index[node]] = False
        lasting = self._weather.lasting
        self._kept.append(
            LightObservation(
                tick=self._tick,
                plant_time_s=self._now_s - self._stepped_s,
                received_s=self._now_s,
                kpis={"coherence": self._coherence(), "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005},
                topology=self._topology,
                parameters=self._parameters,
                safe_mode=False,
                reading=reading_of(self._tick, gravity, trusted, len(self._clusters)),
                active=active,
                disagreement=0.1 if lasting(FaultKind.SENSORS) else 0.0,
            )
        )

    def _evidence(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """|g| and its trust of each node in this tick."""
        count, index, now_s = len(self._names), self._topology.index, self._now_s
        drawn = self._noise[int(now_s / self._tick_s) % NOISE_ROWS, :count]
        gravity = HEALTHY_GRAVITY + NOISE_GRAVITY * drawn
        trusted = np.ones(count, dtype=np.bool_)
        lasting = self._weather.lasting
        for fault in (*lasting(FaultKind.SICK), *lasting(FaultKind.FLAP)):
            period_s = float(fault.args.get("period_s", np.inf))
            node = self.sick_node(fault)
            if node in index and (now_s - fault.at_s) % period_s < period_s / 2:
                gravity[index[node]] = float(fault.args["gravity"]) + 0.1 * drawn[index[node]]
        for fault in lasting(FaultKind.MASS):
            gravity[self._hit(fault)] = float(fault.args["gravity"])
        for fault in lasting(FaultKind.BLIND):
            hit = self._hit(fault)
            if fault.args["how"] == "untrusted":
                trusted[hit] = False
                gravity[hit] = 9.0
            else:
                gravity[hit] = np.nan if fault.args["how"] == "nan" else np.inf
        return gravity, trusted

    def sick_node(self, fault: Fault) -> NodeId:
        """The node that a fault of one node hits: always the same one, whoever joins or leaves."""
        return f"n{int(float(fault.args['node']) * self._first_nodes)}"

    def _hit(self, fault: Fault) -> NDArray[np.bool_]:
        """bool[N]: each node is hit, or not, by a draw of its own."""
        key = (fault.at_s, fault.kind, self._topology)
        if key not in self._hits:
            wanted = float(fault.args["share"])
            hit = [share(self._seed, fault.at_s, fault.kind, node) < wanted for node in self._names]
            self._hits[key] = np.array(hit)
        return self._hits[key]

    def _coherence(self) -> float:
        """Low under stress, until the couplings are strong enough for it."""
        stresses = self._weather.lasting(FaultKind.STRESS)
        if not stresses:
            return CALM_COHERENCE
        wanted = max(float(fault.args["factor"]) for fault in stresses)
        strong = self._parameters.lambda2 >= wanted * _CALM.lambda2
        return CALM_COHERENCE if strong else STRESSED_COHERENCE
