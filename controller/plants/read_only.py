"""How does a dry run see its plant? As it is, and without any way to act on it.

Assumed: whoever knows of the dry run does not try to act in the first place; this is for those who have forgotten it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from controller.plants.plant import CommitAnswer, LedgerState, Plant, PlantInfo
from metrics.errors import UnsupportedError
from metrics.observation import NodeId, Observation, Parameters


class ReadOnlyPlant:
    """Implements `Plant` by another one, of which every call that would change something is refused here.

    Args:
        plant: the plant, which gets to see the reading calls only.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can."""
        return self._plant.info

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the plant and learn its capabilities."""
        return self._plant.connect(deadline_s)

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest fencing epoch that the plant has seen so far."""
        return self._plant.epoch_seen(deadline_s)

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks that have come since the last call."""
        return self._plant.observe(deadline_s)

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the plant itself holds isolated."""
        return self._plant.isolated()

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Refused."""
        del key, epoch, ttl_s
        _refuse(f"the isolation of {node}")

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Refused."""
        del key, epoch
        _refuse(f"the restoration of {node}")

    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self._plant.parameters()

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Refused."""
        del parameters, key, epoch
        _refuse("other parameters")

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Refused."""
        del fault, key, epoch
        _refuse("faults")

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """Refused."""
        del key, epoch
        _refuse(f"the end of fault {fault_id}")

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip."""
        return self._plant.ledger()

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Blocks of the chain."""
        return self._plant.blocks(start, limit)

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Refused."""
        del transaction
        _refuse("transactions")

    def balance(self, account: str) -> int:
        """The balance of a node or another account."""
        return self._plant.balance(account)

    def close(self) -> None:
        """Let go of the plant."""
        self._plant.close()


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(f"{what} to a dry run, which acts on nothing")
