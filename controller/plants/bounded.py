"""A plant whose calls end in time, whatever the adapter does: a hung call costs its deadline and not the clock.

Every call runs in a worker thread. One that has not ended `GRACE_S` after its deadline is given up as unavailable (its
effect is unknown), and until it does end no other call is made: two at once would race each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TypeVar

from controller.plants.plant import CommitAnswer, LedgerState, Plant, PlantInfo
from metrics.errors import PlantUnavailableError
from metrics.observation import NodeId, Observation, Parameters

GRACE_S = 1.0  # adapters keep their own deadlines; this is for those that fail to
T = TypeVar("T")


class BoundedPlant:
    """Implements `Plant` by another one.

    Args:
        plant: the plant.
        deadline_s: for calls that name none of their own.
    """

    def __init__(self, plant: Plant, deadline_s: float) -> None:
        self._plant = plant
        self._deadline_s = deadline_s
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._serve, name="iace-plant", daemon=True)
        self._thread.start()

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can."""
        return self._plant.info

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the plant."""
        return self._bounded(lambda: self._plant.connect(deadline_s), deadline_s)

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest epoch that the plant has seen."""
        return self._bounded(lambda: self._plant.epoch_seen(deadline_s), deadline_s)

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks since the last call."""
        return self._bounded(lambda: self._plant.observe(deadline_s), deadline_s)

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the plant holds isolated."""
        return self._bounded(self._plant.isolated)

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out."""
        self._bounded(lambda: self._plant.isolate(node, key=key, epoch=epoch, ttl_s=ttl_s))

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again."""
        self._bounded(lambda: self._plant.restore(node, key=key, epoch=epoch))

    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self._bounded(self._plant.parameters)

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force."""
        self._bounded(lambda: self._plant.apply(parameters, key=key, epoch=epoch))

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Start a fault."""
        self._bounded(lambda: self._plant.inject(fault, key=key, epoch=epoch))

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """End a fault."""
        self._bounded(lambda: self._plant.clear(fault_id, key=key, epoch=epoch))

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip."""
        return self._bounded(self._plant.ledger)

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Blocks of the chain."""
        return self._bounded(lambda: self._plant.blocks(start, limit))

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Offer a transaction to the live ledger."""
        return self._bounded(lambda: self._plant.commit(transaction))

    def balance(self, account: str) -> int:
        """The balance of an account."""
        return self._bounded(lambda: self._plant.balance(account))

    def close(self) -> None:
        """Let go of the plant, unless a call hangs in it."""
        self._work.put(None)
        if self._idle.is_set():
            self._thread.join(GRACE_S)
            self._plant.close()

    def _bounded(self, call: Callable[[], T], deadline_s: float | None = None) -> T:
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        if not self._idle.is_set():
            raise PlantUnavailableError("an earlier call to the plant still hangs")
        answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        done = threading.Event()

        def work() -> None:
            try:
                answers.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                answers.put((None, error))
            self._idle.set()
            done.set()

        self._idle.clear()
        self._work.put(work)
        if not done.wait(deadline_s + GRACE_S):
            raise PlantUnavailableError(f"the plant did not answer within {deadline_s + GRACE_S:g} s, the call hangs")
        answer, error = answers.get()
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]  # without an error it is what the call gave

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
