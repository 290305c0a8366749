"""What travels from the controller to the plant, and what a plant must offer to be simulated with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.plants.plant import PlantInfo
from controller.simulation.schedule import Fault
from metrics.observation import NodeId, Observation, Parameters


@dataclass(frozen=True, slots=True)
class Message:
    """A request to change something.

    Attributes:
        what: "isolate", "restore" or "apply".
        key: idempotency key.
        epoch: of its author.
        node: of an isolation or a restoration.
        ttl_s: time limit of an isolation.
        parameters: to be applied.
    """

    what: str
    key: str
    epoch: int
    node: NodeId = ""
    ttl_s: float = 0.0
    parameters: Parameters | None = None

    @property
    def content(self) -> tuple[object, ...]:
        """What it is about, without who asks and under which key."""
        return self.what, self.node, self.ttl_s, self.parameters


@dataclass(frozen=True, slots=True)
class Effect:
    """A request that the plant has executed.

    Attributes:
        message: the request.
        changed: True where the plant is another than before (a time limit that was moved is no change).
        life: which life of the plant it was, since keys and epochs do not outlive one.
        epoch_before: the highest epoch that the plant had seen until then.
    """

    message: Message
    changed: bool
    life: int
    epoch_before: int


class Core(Protocol):
    """A plant without a network: it lives, shows itself, and does what a request says.

    Attributes:
        life: counts restarts.
        on_effect: is told of each request when it is executed.
    """

    life: int
    on_effect: Callable[[Effect], None]

    @property
    def info(self) -> PlantInfo:
        """What it says of itself."""
        ...

    @property
    def out(self) -> frozenset[NodeId]:
        """The nodes that it holds isolated."""
        ...

    @property
    def parameters(self) -> Parameters:
        """Those in force."""
        ...

    @property
    def epoch(self) -> int:
        """The highest seen in this life."""
        ...

    @property
    def nodes(self) -> Sequence[NodeId]:
        """All nodes there are."""
        ...

    @property
    def cluster_of(self) -> Mapping[NodeId, int]:
        """The index of each node's cluster."""
        ...

    def live_to(self, now_s: float) -> None:
        """Make the ticks that are due."""
        ...

    def shown(self, after: int) -> Sequence[Observation]:
        """The ticks after tick `after` that are still kept, oldest first."""
        ...

    def execute(self, message: Message) -> None:
        """Do what a request says.

        Raises:
            PlantRefusedError: no.
        """
        ...

    def ruined(self) -> frozenset[NodeId]:
        """Nodes that can serve as much as their peers no more, though no fault lasts."""
        ...

    def befall(self, fault: Fault) -> None:
        """Let a fault of the nodes, or of the plant, begin."""
        ...
