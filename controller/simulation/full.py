"""The full plant: the governed system itself, tick by tick, with its own faults, behind the same network.

It lives in this process and in true time. What a sick node looks like is its own business; keys, epochs and time limits
are fenced by the very code that its server runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from controller.clock import VirtualClock
from controller.plants.embedded import EmbeddedPlant
from controller.plants.plant import PlantInfo
from controller.simulation.message import Effect, Message
from controller.simulation.schedule import TICK_S, Fault, FaultKind, Schedule
from controller.simulation.streams import share
from controller.simulation.weather import Weather
from metrics.detector import DetectorScores
from metrics.observation import NodeId, NodeSignals, Observation, Parameters

KEPT_TICKS = 64
DRIFT = 0.06  # rad/s by which a stress of 1 spreads the natural frequencies
SICKNESSES = ("detuned", "slow", "silent", "byzantine")
OUTSIDER_TTL_S_MIN = 10.0
BODIES_MAX = 600  # ticks whose transactions the ledger holds: nobody asks for them here


class NoDetector:
    """Stands in for the detector of anomalies, which tells people and decides nothing, where time matters more."""

    def __init__(self, series: int) -> None:
        self.score, self.onset = np.zeros(series), np.zeros(series, dtype=np.bool_)

    def update(self, t: float, values: NDArray[np.float64], /) -> DetectorScores:
        """Nothing is strange."""
        del t, values
        return self

    def reason(self, index: int, /) -> str:
        """Nothing to be said of any series."""
        del index
        return "not watched"


RUINED = 0.3  # of the mean balance: below it a node cannot pay for what arrives


class FullWorld:
    """Implements `Core` by an embedded plant.

    Args:
        schedule: seed and size.
        weather: the faults.
    """

    def __init__(self, schedule: Schedule, weather: Weather) -> None:
        self.life = 0
        self.on_effect: Callable[[Effect], None] = lambda _effect: None
        self._seed, self._weather, self._tick_s = schedule.seed, weather, TICK_S["full"]
        self._nodes = schedule.nodes
        self._plant = self._new_plant()
        self._kept: deque[Observation] = deque(maxlen=KEPT_TICKS)
        self._next_s = self._tick_s
        self._stepped_s = 0.0
        self._acting: dict[str, tuple[float, Mapping[str, object]]] = {}  # faults of nodes, with the time of their end
        self._done: set[str] = set()
        self._faults = 0
        first = self._plant.observe(0.0)[0]
        if first.topology is None:
            raise TypeError("the full plant shows its nodes")
        self._topology = first.topology
        self._lived_s = first.plant_time_s
        self._info = replace(self._plant.info, name="full", real_time=True, interval_s=self._tick_s)

    @property
    def info(self) -> PlantInfo:
        """Everything that the embedded plant can do."""
        return self._info

    @property
    def out(self) -> frozenset[NodeId]:
        """The nodes that it holds isolated."""
        return self._plant.isolated()

    @property
    def parameters(self) -> Parameters:
        """Those in force."""
        return self._plant.parameters()

    @property
    def epoch(self) -> int:
        """The highest seen."""
        return self._plant.epoch_seen(0.0)

    @property
    def nodes(self) -> Sequence[NodeId]:
        """All nodes there are."""
        return self._topology.nodes

    @property
    def cluster_of(self) -> Mapping[NodeId, int]:
        """The cluster of each node."""
        return {node: int(self._topology.cluster_of[index]) for node, index in self._topology.index.items()}

    def live_to(self, now_s: float) -> None:
        """Make the ticks that are due."""
        while self._next_s <= now_s:
            at_s = self._next_s
            self._next_s += self._tick_s
            self._weather.turn_to(at_s)
            for name in [name for name, (until_s, _) in self._acting.items() if until_s <= at_s]:
                del self._acting[name]
                self._plant.clear(name, key=f"clear/{name}", epoch=self.epoch)
            if not (self._weather.lasting(FaultKind.STALL) or self._weather.lasting(FaultKind.PLANT_RESTART)):
                made = self._plant.observe(0.0)[0]
                self._kept.append(self._blinded(replace(made, received_s=at_s)))

    def shown(self, after: int) -> Sequence[Observation]:
        """The ticks after tick `after` that are still kept."""
        if not self._kept or self._kept[-1].tick <= after:
            return ()
        return [observation for observation in self._kept if observation.tick > after]

    def execute(self, message: Message) -> None:
        """Do what a request says."""
        plant, key, epoch, before = self._plant, message.key, message.epoch, self.epoch
        out = self.out
        if message.parameters is not None:
            plant.apply(message.parameters, key=key, epoch=epoch)
        elif message.what == "isolate":
            plant.isolate(message.node, key=key, epoch=epoch, ttl_s=message.ttl_s)
        else:
            plant.restore(message.node, key=key, epoch=epoch)
        if key not in self._done:
            self._done.add(key)
            self.on_effect(Effect(message, self.out != out, self.life, before))

    def ruined(self) -> frozenset[NodeId]:
        """Nodes that can serve as much as their peers no more, though no fault lasts."""
        balances = self._plant.host.cluster.balances
        poor = np.flatnonzero(balances < RUINED * balances.mean())
        return frozenset(self.nodes[int(index)] for index in poor)

    def befall(self, fault: Fault) -> None:
        """Let a fault begin, and note its end."""
        match fault.kind:
            case FaultKind.PLANT_CLOCK:
                ahead_s = fault.args["ahead_s"]
                self._stepped_s = self._lived_s if ahead_s is None else self._stepped_s - float(ahead_s)
            case FaultKind.PLANT_RESTART:
                self._restart(forgets=bool(fault.args["forgets"]))
            case FaultKind.OUTSIDER:
                self._meddle(fault)
            case FaultKind.SICK:
                kind = SICKNESSES[int(share(self._seed, "sickness", fault.at_s) * len(SICKNESSES))]
                self._begin(fault, {"kind": kind, "nodes": [self._node(fault)]})
            case FaultKind.FLAP:
                self._begin(fault, {"kind": "flapping", "nodes": [self._node(fault)]})
            case FaultKind.MASS:
                wanted = float(fault.args["share"])
                hit = [node for node in self.nodes if share(self._seed, fault.at_s, node) < wanted]
                if hit:
                    self._begin(fault, {"kind": "detuned", "nodes": hit})
            case FaultKind.SENSORS:
                self._begin(fault, {"kind": "sensor-noise", "nodes": list(self.nodes)})
            case FaultKind.STRESS:
                self._begin(fault, {"kind": "drift", "channels": {"omega": DRIFT * float(fault.args["factor"])}})
            case _:
                pass  # what lasts is asked for at every tick

    def _begin(self, fault: Fault, what: Mapping[str, object]) -> None:
        self._faults += 1
        name = f"sim-{self._faults}"
        self._acting[name] = (fault.until_s, what)
        self._inject(name, what)

    def _inject(self, name: str, what: Mapping[str, object]) -> None:
        self._plant.inject({"id": name, **what}, key=f"inject/{name}", epoch=self.epoch)

    def _new_plant(self) -> EmbeddedPlant:
        return EmbeddedPlant(self._nodes, seed=self._seed, clock=VirtualClock(), bodies_max=BODIES_MAX)

    def _restart(self, *, forgets: bool) -> None:
        """The system starts afresh among the same faults; isolations and parameters are forgotten, or were kept."""
        before, self._plant = self._plant, self._new_plant()
        self.life += 1
        self._stepped_s = self._lived_s = 0.0
        self._kept.clear()
        self._done.clear()
        old, new = before.host, self._plant.host
        if not forgets:
            new.cluster.apply(old.cluster.parameters)
            for node in old.cluster.isolated():
                limit_s = old.limit_s(node)
                new.isolate(node, None if limit_s is None else max(1.0, limit_s - old.cluster.tick * TICK_S["full"]))
        for name, (_, what) in self._acting.items():
            self._inject(name, what)

    def _meddle(self, fault: Fault) -> None:
        """Somebody else does something to a node, and says so to nobody."""
        node, host = self._node(fault), self._plant.host
        with host.lock:
            if fault.args["what"] == "restore":
                host.restore(node)
            elif node not in self._plant.host.cluster.isolated():
                host.isolate(node, max(OUTSIDER_TTL_S_MIN, float(fault.args["ttl_s"])))

    def _node(self, fault: Fault) -> NodeId:
        return self.nodes[int(float(fault.args["node"]) * len(self.nodes))]

    def _blinded(self, made: Observation) -> Observation:
        """A tick as it is shown: some nodes send no numbers, and the clock may have been set back."""
        self._lived_s = made.plant_time_s
        if self._stepped_s:
            made = replace(made, plant_time_s=made.plant_time_s - self._stepped_s)
        signals = made.signals
        for fault in self._weather.lasting(FaultKind.BLIND):
            if signals is not None:
                signals = self._without(signals, fault)
        return made if signals is made.signals else replace(made, signals=signals)

    def _without(self, signals: NodeSignals, fault: Fault) -> NodeSignals:
        phase = signals.phase.copy()
        for index, node in enumerate(self.nodes):
            if share(self._seed, fault.at_s, fault.kind, node) < float(fault.args["share"]):
                phase[index] = float("inf" if fault.args["how"] == "infinite" else "nan")
        return replace(signals, phase=phase)
