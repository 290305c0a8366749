"""The way to the plant and back: requests and replies get lost, late, doubled and overtaken.

A request that was lost has no effect; one whose reply was lost has, and nobody knows. A late one arrives when its time
has come, though whoever sent it may be dead by then. A restart of the plant breaks its connections, and with them goes
whatever was still on its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn, Protocol

from controller.plants.plant import CommitAnswer, LedgerState, PlantInfo
from controller.simulation.clock import SimClock
from controller.simulation.message import Core, Message
from controller.simulation.schedule import FaultKind
from controller.simulation.weather import CrashedError, Weather
from metrics.errors import PlantRefusedError, PlantUnavailableError, UnsupportedError
from metrics.observation import NodeId, Observation, Parameters

DEADLINE_S = 2.0  # what a call costs that nobody answers


class Witness(Protocol):
    """Who watches the controller's end of the network."""

    def sent(self, message: Message) -> None:
        """The controller asks for this."""
        ...

    def received(self, observations: Sequence[Observation]) -> None:
        """The controller gets these ticks, stamped with the true time at which they were made."""
        ...


class Network:
    """What is on its way to the plant; it outlives the processes at its end."""

    def __init__(self, core: Core, weather: Weather) -> None:
        self._core, self._weather = core, weather
        self._late: list[tuple[float, int, Message]] = []
        self._life = core.life

    def live_to(self, now_s: float) -> None:
        """Let the plant live, and deliver what is due."""
        core = self._core
        while self._late and self._late[0][0] <= now_s:
            due_s, life, message = self._late.pop(0)
            core.live_to(due_s)
            if life == core.life:
                try:
                    core.execute(message)
                except PlantRefusedError:
                    continue  # nobody waits for the answer any more
        core.live_to(now_s)

    def deliver_later(self, message: Message, due_s: float) -> None:
        """Let a request arrive when its time has come."""
        self._late.append((due_s, self._core.life, message))
        self._late.sort(key=lambda item: item[0])


class Link:
    """One process's connection; implements `Plant`."""

    def __init__(self, core: Core, network: Network, weather: Weather, clock: SimClock, witness: Witness) -> None:
        self._core, self._network, self._weather, self._clock, self._witness = core, network, weather, clock, witness
        self._life = -1
        self._last_tick = -1
        self._latest: Sequence[Observation] = ()

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can."""
        return self._core.info

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the plant; its latest tick is the first that is observed."""
        del deadline_s
        self._go()
        shown = self._core.shown(-1)
        self._life, self._latest = self._core.life, ()
        self._last_tick = shown[-1].tick - 1 if shown else -1
        self._come_back()
        return self._core.info

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest epoch that the plant has seen."""
        del deadline_s
        self._go()
        self._come_back()
        return self._core.epoch

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks since the last call, or the latest once more from a plant that repeats itself."""
        del deadline_s
        self._go()
        if self._life != self._core.life:
            raise PlantUnavailableError("the plant was restarted: connect again")
        seen = self._core.shown(self._last_tick)
        if self._weather.lasting(FaultKind.REPEAT) and self._latest:
            seen = self._latest
        self._come_back()
        if seen:
            self._last_tick, self._latest = seen[-1].tick, seen[-1:]
            self._witness.received(seen)
        now_s = self._clock.now_s
        return [tick if tick.received_s == now_s else replace(tick, received_s=now_s) for tick in seen]

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the plant holds isolated."""
        self._go()
        self._come_back()
        return self._core.out

    def parameters(self) -> Parameters:
        """The parameters in force."""
        self._go()
        self._come_back()
        return self._core.parameters

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out."""
        self._write(Message("isolate", key, epoch, node=node, ttl_s=ttl_s))

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again."""
        self._write(Message("restore", key, epoch, node=node))

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force."""
        self._write(Message("apply", key, epoch, parameters=parameters))

    def close(self) -> None:
        """Let go of the plant."""

    def _write(self, message: Message) -> None:
        """Ask for a change, through whatever happens on the way."""
        take, now_s = self._weather.take, self._clock.now_s
        self._witness.sent(message)
        lost = take(FaultKind.LOSE)
        late = take(FaultKind.DELAY)
        doubled = take(FaultKind.DUPLICATE)
        self._go()
        if late is not None:
            self._network.deliver_later(message, now_s + float(late.args["late_s"]))
            if late.args["down_s"] is not None:
                raise CrashedError(float(late.args["down_s"]))
            self._unanswered("the answer is late")
        if lost is not None and lost.args["what"] == "request":
            self._unanswered("the request was lost")
        if take(FaultKind.REFUSE) is not None:
            # Neither is a copy executed later: a plant gives the same key the same answer.
            raise PlantRefusedError(message.what, "not now")
        if doubled is not None:
            self._network.deliver_later(message, now_s + float(doubled.args["late_s"]))
        self._core.execute(message)
        if lost is not None:
            self._unanswered("the reply was lost")
        self._come_back()

    def _go(self) -> None:
        """The way there."""
        self._weather.point("plant.before")
        if self._parted("to"):
            self._unanswered("no route to the plant")
        if self._weather.lasting(FaultKind.PLANT_RESTART):
            self._unanswered("connection refused")

    def _come_back(self) -> None:
        """The way back."""
        self._weather.point("plant.after")
        if self._parted("from"):
            self._unanswered("no answer")

    def _parted(self, way: str) -> bool:
        partitions = self._weather.lasting(FaultKind.PARTITION)
        return bool(partitions) and any(fault.args["way"] in (way, "both") for fault in partitions)

    def _unanswered(self, why: str) -> NoReturn:
        self._clock.advance_to(self._clock.now_s + DEADLINE_S)
        raise PlantUnavailableError(why)

    # What no decision of a daemon asks for.

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Not offered."""
        del fault, key, epoch
        raise UnsupportedError("faults")

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """Not offered."""
        del fault_id, key, epoch
        raise UnsupportedError("faults")

    def ledger(self) -> LedgerState:
        """Not offered."""
        raise UnsupportedError("ledger")

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Not offered."""
        del start, limit
        raise UnsupportedError("ledger")

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Not offered."""
        del transaction
        raise UnsupportedError("commit")

    def balance(self, account: str) -> int:
        """Not offered."""
        del account
        raise UnsupportedError("ledger")
