"""The facts that the checks stand on: what has become durable, what has been sent, and what the plant has done.

Everything is told by the world (the disk, the network, the plant), nothing by the controller.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from state.event import Event, EventKind
from state.isolation import IsolationPolicy

INTENTS = {
    EventKind.ISOLATION_INTENDED: "isolate",
    EventKind.RENEWAL_INTENDED: "renew",
    EventKind.RESTORATION_INTENDED: "restore",
    EventKind.TRIAL_STARTED: "apply",
    EventKind.ROLLBACK_INTENDED: "rollback",
}


class ViolatedError(Exception):
    """An invariant does not hold; `invariant` names it, `detail` tells the values."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Intended:
    """A durable intent.

    Attributes:
        what: "isolate", "renew", "restore", "apply" or "rollback".
        node: of an action on a node.
        nodes, members: how many nodes there were in all, and in its cluster, when it was intended.
        policy: what was in force then.
    """

    what: str
    node: str
    nodes: int
    members: int
    policy: IsolationPolicy


@dataclass(slots=True)
class Ground:
    """The facts so far.

    Attributes:
        policy: in force.
        now_s: true time.
        tick_s: true time at which the tick taken in last was made; None before the first.
        intents: by idempotency key, since the beginning.
        isolations: the latest intent to isolate each node.
        paused: whether a pause is acknowledged.
        commands: names of the operator's commands so far.
        spared: nodes under maintenance with the governor's times of its begin and end.
    """

    policy: IsolationPolicy
    now_s: float = 0.0
    tick_s: float | None = None
    intents: dict[str, Intended] = field(default_factory=dict)
    isolations: dict[str, Intended] = field(default_factory=dict)
    paused: bool = False
    commands: list[str] = field(default_factory=list)
    spared: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, event: Event, sizes: tuple[int, dict[str, int]]) -> None:
        """Take a durable event in; `sizes` are the nodes in all and in the cluster of each."""
        data: Any = event.data
        match event.kind:
            case EventKind.PAUSED:
                self.paused = True
            case EventKind.RESUMED:
                self.paused = False
            case EventKind.NODE_EXEMPTED:
                self.spared.pop(data["node"], None)
                if data["kind"] == "maintenance":
                    self.spared[data["node"]] = (data["from_s"], data["until_s"])
            case EventKind.EXEMPTION_ENDED:
                self.spared.pop(data["node"], None)
        what = INTENTS.get(event.kind)
        if what is not None:
            node = str(data.get("node", ""))
            key = str(data["key"])
            if key in self.intents:
                raise ViolatedError("one_intent_a_key", f"{key} is intended twice")
            intended = Intended(what, node, sizes[0], sizes[1].get(node, 0), self.policy)
            if what == "isolate":
                self.isolations[node] = intended
            elif what == "renew":
                # It keeps what was, so what held when the node was taken out is what it has to keep to.
                intended = replace(self.isolations[node], what=what)
            self.intents[key] = intended
