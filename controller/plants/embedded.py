"""A QECS cluster in this process and in virtual time, adapted to the `Plant` protocol.

It is the very host that the HTTP server serves, so idempotency keys, epochs and time limits of isolations mean the same
here as over the network. Only its clock is ours: the cluster lives one tick with each `observe`, and in between nothing
moves. Deadlines are ignored, since nothing here waits for anybody.

This is where the governed system's own values and errors end: beyond it there are only those of `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from controller.clock import VirtualClock
from controller.plants.plant import CommitAnswer, LedgerState, LedgerTip, PlantInfo
from controller.plants.scenario import PlannedFault, Scenario
from metrics.errors import BadDataError, ConfigInvalidError, PlantRefusedError, PlantUnavailableError
from metrics.observation import Capability, ClusterId, NodeId, NodeSignals, Observation, Parameters, Topology
from qecs import parameters as qecs_parameters
from qecs import scenario as qecs_scenario
from qecs.block import Tip
from qecs.cluster import Cluster
from qecs.commits import Outcome
from qecs.errors import InvalidRequestError, QecsError, StaleEpochError
from qecs.faults import Fault
from qecs.fencing import KeyReusedError
from qecs.host import TTL_MAX_S, ClusterHost, TickRecord

_HTTP_STATUS: Final[Mapping[Outcome, int]] = {Outcome.APPROVED: 200, Outcome.REJECTED: 400, Outcome.CONFLICT: 409}


class EmbeddedPlant:
    """A `qecs.Cluster` of our own; implements `Plant`.

    Args:
        nodes: number of nodes.
        clusters: number of clusters; None takes the model's default for so many nodes.
        seed: equal seeds give equal lives, bit for bit.
        clock: is advanced to the plant's time with every tick, and times the receipt of observations.
        bodies_max: ticks whose transactions the ledger holds; None for the ledger's default, which is all of them in
            a small cluster, and too much for one that lives for days.

    Attributes:
        host: the cluster with its lock, for the routes that serve it.

    Raises:
        ConfigInvalidError: there can be no such cluster.
    """

    def __init__(
        self,
        nodes: int,
        clusters: int | None = None,
        seed: int = 0,
        *,
        clock: VirtualClock,
        bodies_max: int | None = None,
    ) -> None:
        try:
            cluster = Cluster(nodes, clusters=clusters, seed=seed, bodies_max=bodies_max)
        except InvalidRequestError as error:
            raise ConfigInvalidError("plant", [str(error)]) from error
        self.host = ClusterHost(cluster, allow_faults=True, ring_ticks=1)
        self._clock = clock
        self._topology = Topology(
            nodes=tuple(map(NodeId, cluster.node_ids)),
            clusters=tuple(map(ClusterId, cluster.cluster_ids)),
            cluster_of=cluster.cluster_of,
        )
        self._info = PlantInfo(
            name="embedded",
            system="qecs 1.5",
            capabilities=frozenset(Capability),
            seed=seed,
            real_time=False,
            interval_s=0.0,
        )

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can: everything."""
        return self._info

    def connect(self, deadline_s: float) -> PlantInfo:
        """There is nothing to be reached."""
        del deadline_s
        return self._info

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """Let the cluster live one tick and tell what it published."""
        del deadline_s
        with _translated("to live one tick"):
            record = self.host.tick()
        self._clock.advance_to(record.snapshot.time_s)
        return (self._observation(record),)

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the cluster holds isolated."""
        with self.host.lock:
            return frozenset(map(NodeId, self.host.cluster.isolated()))

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out for at most `ttl_s` of plant time; asking again under another key renews the limit."""
        if not 0.0 < ttl_s <= TTL_MAX_S:
            raise PlantRefusedError(f"to isolate {node!r}", f"ttl_s must be above 0 and at most {TTL_MAX_S:g} seconds")
        self._write(
            f"to isolate {node!r}", key, epoch, ("isolate", node, ttl_s), lambda: self.host.isolate(node, ttl_s)
        )

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again."""
        self._write(f"to restore {node!r}", key, epoch, ("restore", node), lambda: self.host.restore(node))

    def parameters(self) -> Parameters:
        """The parameters in force."""
        return _parameters(self.host.cluster.parameters)

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force, from the next tick on."""
        what = f"to apply {parameters}"
        with _translated(what):
            wanted = qecs_parameters.Parameters.from_dict(parameters.as_dict())
        self._write(what, key, epoch, ("parameters", wanted), lambda: self.host.cluster.apply(wanted))

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Start a fault, in the form of `POST /faults`."""
        what = f"to inject {dict(fault)}"
        with _translated(what):
            wanted = Fault.from_dict(fault)
        self._write(what, key, epoch, ("fault", wanted), lambda: self.host.cluster.inject(wanted))

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """End a fault."""
        self._write(
            f"to clear {fault_id!r}", key, epoch, ("clear", fault_id), lambda: self.host.cluster.clear(fault_id)
        )

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest epoch that the cluster has seen; a controller claims a higher one."""
        del deadline_s
        return self.host.gate.epoch

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip."""
        host, ledger = self.host, self.host.cluster.ledger
        with host.lock:
            tips = ledger.tips()
            distinct = [_tip(tip) for tip in tips.distinct]
            return LedgerState(
                tip=_tip(ledger.tip),
                supply=ledger.supply,
                supply_genesis=ledger.header(0).supply,
                balances_total=int(host.cluster.balances.sum()) + host.desk.guest_supply(),
                node_tips=dict(zip(self._topology.nodes, [distinct[i] for i in tips.of_node.tolist()], strict=True)),
            )

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Up to `limit` blocks from height `start` on, in the form of `GET /ledger/blocks`."""
        with self.host.lock:
            found = self.host.cluster.ledger.blocks(start, limit)
        return [block.to_dict() for block in found]

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Offer a transaction to the ledger; a refusal is an answer."""
        with self.host.lock, _translated("to commit a transaction"):
            answer = self.host.desk.commit(transaction)
        return CommitAnswer(_HTTP_STATUS[answer.outcome], answer.outcome.value, dict(answer.fields))

    def balance(self, account: str) -> int:
        """The balance of a node or another account, tokens."""
        with self.host.lock, _translated(f"to look up {account!r}"):
            return self.host.desk.balance(account)

    def close(self) -> None:
        """Nothing to let go of: the cluster lives in memory."""

    def _write(self, what: str, key: str, epoch: int, content: tuple[object, ...], act: Callable[[], object]) -> None:
        """Do something once, as the server does."""

        def answer() -> dict[str, Any]:
            act()
            return {}

        with self.host.lock, _translated(what):
            self.host.gate.once(key, epoch, content, answer)

    def _observation(self, record: TickRecord) -> Observation:
        snapshot, signals = record.snapshot, record.snapshot.signals
        return Observation(
            tick=snapshot.tick,
            plant_time_s=snapshot.time_s,
            received_s=self._clock.monotonic_s(),
            kpis=snapshot.kpis,
            topology=self._topology,
            signals=NodeSignals(
                phase=signals["phase"],
                participation=signals["participation"],
                arrivals=signals["arrivals"].astype(np.float64),
                commits=signals["commits"].astype(np.float64),
                retries=signals["retries"].astype(np.float64),
                shed=signals["shed"].astype(np.float64),
                invalid=signals["invalid"].astype(np.float64),
                queue=signals["queue"].astype(np.float64),
                balance=signals["balance"].astype(np.float64),
                active=signals["active"],
            ),
            parameters=_parameters(record.parameters),
            safe_mode=bool(snapshot.safe_mode),
        )


def load_scenario(name_or_path: str) -> Scenario:
    """The shipped scenario of that name, or the one in that file.

    Raises:
        BadDataError: there is none, or it cannot be read; the message names every problem.
    """
    try:
        found = qecs_scenario.load_scenario(name_or_path)
    except QecsError as error:
        raise BadDataError(str(error)) from error
    return Scenario(
        name=found.name,
        description=found.description,
        faults=tuple(
            PlannedFault(planned.phase, planned.after_ticks, planned.fault.to_dict()) for planned in found.faults
        ),
    )


def shipped_scenarios() -> Mapping[str, str]:
    """Names of the shipped scenarios with their descriptions, in alphabetical order."""
    return qecs_scenario.shipped()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Let the governed system's errors pass as those of a plant."""
    try:
        yield
    except (InvalidRequestError, StaleEpochError, KeyReusedError) as error:
        raise PlantRefusedError(what, str(error)) from error
    except QecsError as error:
        raise PlantUnavailableError(f"the embedded plant failed {what}: {error}") from error


def _parameters(parameters: qecs_parameters.Parameters) -> Parameters:
    return Parameters(**parameters.to_dict())


def _tip(tip: Tip) -> LedgerTip:
    return LedgerTip(tip.height, tip.hash)
