"""The governed system as a whole: one call of `step` is one second of its life.

A tick reads: faults begin and end, phases move, demand is served, money changes hands, the ledger records it, the
figures are taken. Money moves only as the ledger accepts it, hence the balances always are what it has recorded.

From a ledger with a history balances, tick and emission are resumed; phases, queues and averages start anew.

One seed, one history: each draw is named by (seed, stream, tick), see `qecs.noise`. Not thread-safe: whoever shares a
cluster between threads brings the lock.

Source: docs/model.md sections 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from qecs.dynamics import OFFERED_LOAD, PhaseField, limited_gains
from qecs.emission import Emission, mint
from qecs.errors import InvalidRequestError
from qecs.fault_kinds import FaultKind
from qecs.fault_plan import FaultPlan
from qecs.flows import TickFlows
from qecs.kpis import GAS_SAFE_MIN, RSI_SAFE_MIN, History, KpiTracker, Totals, shannon_entropy
from qecs.ledger import Ledger
from qecs.membership import Membership
from qecs.names import Names
from qecs.noise import Noise
from qecs.parameters import Parameters
from qecs.sensors import Sensors
from qecs.standing import Standing
from qecs.transactions import AMOUNT, BURNED, PAID_OUT, Transactions
from qecs.wash import WashTrading

if TYPE_CHECKING:
    from qecs.dynamics import Gains, OrderParameters
    from qecs.effects import Effects
    from qecs.faults import Fault
    from qecs.sensors import Reading
    from qecs.transactions import Trades

GENESIS_BALANCE: Final = 500_000
"""Tokens that each node starts with."""
TICK_S: Final = 1.0
"""Length of a tick in seconds."""

_DEFAULTS: Final = Parameters()


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What the cluster publishes after a tick; nothing in it changes any more.

    Attributes:
        tick: which tick.
        time_s: the plant's time, seconds.
        kpis: figures by the names of `qecs.kpis.WINDOW_TICKS`; NaN until a window has filled.
        signals: read-only arrays of shape (N,): phase (reported, rad), participation, arrivals, commits, retries, shed,
            invalid, queue (transactions), balance (tokens), active (bool).
        safe_mode: whether the plant says of itself that it is in trouble (GAS below 0.90 or RSI below 0.65).
    """

    tick: int
    time_s: float
    kpis: dict[str, float]
    signals: dict[str, NDArray[Any]]
    safe_mode: bool


class Cluster:
    """A reference QECS cluster.

    Args:
        nodes: number of nodes, N.
        clusters: number of clusters, M; None takes the model's default for N.
        seed: names all randomness, 0 to 2^64 − 1.
        parameters: the tunable settings at the start.
        ledger: where to record; balances and tick are resumed from it. None makes one in memory.
        bodies_max: ticks whose transactions a ledger made here holds; None for the ledger's default.

    Attributes:
        node_ids: ids of the nodes, "node-0000" and so on.
        cluster_ids: ids of the clusters, "cluster-00" and so on.
        cluster_of: int32, shape (N,), read-only: cluster of each node.
        seed: as given.
        tick: ticks lived so far.
        snapshot: what the latest tick published, None before the first.
        parameters: the settings in force.
        ledger: the record.
        balances: int64, shape (N,), tokens. Single transactions change it in place between ticks.

    Raises:
        InvalidRequestError: no node, more clusters than nodes, a seed out of range, or a ledger of other nodes.
    """

    def __init__(
        self,
        nodes: int,
        *,
        clusters: int | None = None,
        seed: int = 0,
        parameters: Parameters = _DEFAULTS,
        ledger: Ledger | None = None,
        bodies_max: int | None = None,
    ) -> None:
        self._membership = membership = Membership(nodes, clusters)
        self._names = Names(nodes, membership.clusters)
        self._noise = noise = Noise(seed)
        self.seed = seed
        self.parameters = parameters
        self.ledger = _genesis(membership, bodies_max) if ledger is None else ledger
        if not np.array_equal(self.ledger.cluster_bounds, membership.bounds):
            raise InvalidRequestError(
                f"the ledger belongs to another cluster: it has {self.ledger.nodes} nodes in "
                f"{self.ledger.cluster_bounds.size - 1} clusters, asked for are {nodes} in {membership.clusters}"
            )
        self.balances: NDArray[np.int64] = self.ledger.balances()
        self.tick = self.ledger.last_tick
        self.snapshot: Snapshot | None = None
        self._supply_genesis = self.ledger.header(0).supply
        self._field = PhaseField(membership, noise)
        self._sensors = Sensors(membership, noise)
        self._transactions = Transactions(nodes, noise)
        self._wash = WashTrading()
        self._emission = Emission(self._supply_genesis)
        self._kpis = KpiTracker()
        self._history = History()
        self._resume_emission()
        self._plan = FaultPlan(membership, self._names, noise)
        self._standing: Standing | None = None
        self._fields: OrderParameters | None = None

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Ids of the nodes, in the order of every array."""
        return self._names.nodes

    @property
    def cluster_ids(self) -> tuple[str, ...]:
        """Ids of the clusters, in order."""
        return self._names.clusters

    @property
    def cluster_of(self) -> NDArray[np.int32]:
        """Cluster of each node, int32, shape (N,), read-only."""
        return self._membership.cluster_of

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The active faults, in the order of their injection."""
        return self._plan.active

    def isolated(self) -> frozenset[str]:
        """Ids of the nodes that are isolated."""
        return frozenset(self.node_ids[node] for node in np.flatnonzero(~self._membership.active))

    def isolate(self, node: str) -> bool:
        """Takes a node out: its balance is frozen, its queue goes to its peers, it goes on listening and reporting.

        Returns:
            whether that changed anything.

        Raises:
            UnknownTargetError: there is no such node.
        """
        index = self._names.node(node)
        if not self._membership.set_active(index, active=False):
            return False
        self._transactions.hand_over(index, self._membership.peers(index))
        self._standing = None
        return True

    def restore(self, node: str) -> bool:
        """Lets an isolated node take part again.

        Returns:
            whether that changed anything.

        Raises:
            UnknownTargetError: there is no such node.
        """
        if not self._membership.set_active(self._names.node(node), active=True):
            return False
        self._standing = None
        return True

    def apply(self, parameters: Parameters) -> None:
        """Puts other settings into force, from the next tick on."""
        self.parameters = parameters

    def inject(self, fault: Fault) -> None:
        """Lets a fault act from the next tick on; damage to the ledger is done at once, and for good.

        Raises:
            InvalidRequestError: a fault of that id is active, or it cannot be placed on this cluster.
            UnknownTargetError: it names a node or cluster that does not exist.
        """
        targets = self._plan.inject(fault, first_tick=self.tick + 1)
        try:
            self._damage_ledger(fault, targets)
        except InvalidRequestError:
            self._plan.clear(fault.id)
            raise

    def clear(self, fault_id: str) -> bool:
        """Ends a fault from the next tick on; returns whether it was active. A damaged ledger stays damaged."""
        return self._plan.clear(fault_id)

    def step(self) -> Snapshot:
        """Lives one tick and returns what it publishes.

        Raises:
            LedgerWriteError: the tick could not be recorded. No money has moved and `tick` is as before: it can be
                tried again.
        """
        tick = self.tick + 1
        effects, changed = self._plan.effects(tick)
        standing, fields = self._standing, self._fields
        if standing is None or fields is None or changed:
            standing = Standing.of(self._membership, effects)
            fields = self._field.measure(standing.weight)
        gains = limited_gains(self.parameters, effects.environment, load_per_node=self._load(effects))
        self._move(tick, fields, gains, effects)
        fields = self._field.measure(standing.weight)
        self._standing, self._fields = standing, fields
        reading = self._sensors.read(tick, self._field, fields, standing, effects)
        trades = self._transactions.step(
            tick,
            demand=effects.environment.demand,
            balances=self.balances,
            cosine=self._field.cosine,
            standing=standing,
            effects=effects,
        )
        flows = self._settle(tick, trades, reading, standing, effects)
        self.tick = tick
        self._follow_history()
        totals = self._totals(reading, gains, trades, flows, standing)
        kpis = self._kpis.update(totals, self._history, self.parameters)
        self.snapshot = self._publish(kpis, reading, trades, flows, effects)
        return self.snapshot

    def _resume_emission(self) -> None:
        """Takes up the emission where the ledger left off."""
        for height in range(self.ledger.height, 0, -1):
            header = self.ledger.header(height)
            if header.inputs is not None:
                self._emission.record(header.inputs, header.emission)
                return

    def _follow_history(self) -> None:
        """Adds up what the ledger has recorded since the last look, single transactions included."""
        while self._history.height < self.ledger.height:
            self._history = self._history.after(self.ledger.header(self._history.height + 1))

    def _load(self, effects: Effects) -> float:
        """Transactions offered per active node and second."""
        membership = self._membership
        return OFFERED_LOAD * effects.environment.demand * membership.nodes / max(membership.active_nodes, 1)

    def _move(self, tick: int, fields: OrderParameters, gains: Gains, effects: Effects) -> None:
        field = self._field
        field.advance(tick, fields, gains, effects.environment, coupling=effects.coupling, shift=effects.shift)
        if effects.held is not None:
            held = np.flatnonzero(~np.isnan(effects.held))
            directions = np.angle(fields.of_cluster)[self.cluster_of[held]]
            field.hold(held, directions + effects.held[held])
        field.refresh()

    def _settle(self, tick: int, trades: Trades, reading: Reading, standing: Standing, effects: Effects) -> TickFlows:
        """Moves the money of a tick: first in the ledger, then in the balances."""
        paid_out = self._transactions.pay_out(tick, PAID_OUT * int(trades.commits.sum()), standing)
        committed = trades.commits
        washed = self._wash.step(self.balances, committed, standing, effects)
        if washed is not None:
            committed = committed + washed
            paid_out += PAID_OUT * washed
        inputs = self._emission.inputs(reading.fields.coherence, self.parameters.alpha)
        weights = np.maximum(self._field.cosine, 0.0)
        weights *= standing.eligible
        flows = TickFlows(
            tick=tick,
            committed=_frozen(committed),
            paid=_frozen(AMOUNT * committed),
            received=_frozen(paid_out),
            emitted=_frozen(mint(inputs, weights)),
            burned=_frozen(BURNED * committed),
            inputs=inputs,
        )
        header = self.ledger.append(flows)
        self._emission.record(inputs, header.emission)
        self.balances -= flows.paid
        self.balances += flows.received
        self.balances += flows.emitted
        return flows

    def _totals(self, reading: Reading, gains: Gains, trades: Trades, flows: TickFlows, standing: Standing) -> Totals:
        membership, fields = self._membership, reading.fields
        active = standing.active_nodes
        share = membership.active_of_cluster / max(active, 1)
        radius = np.abs(fields.of_cluster)
        supply = self.ledger.supply
        activity = self._transactions.activity * standing.active
        if self._wash.activity is not None:
            activity += self._wash.activity * standing.active
        growth = math.log(max(supply, 1) / max(self._supply_genesis, 1))
        return Totals(
            coherence=fields.coherence,
            gas=float((share * radius).sum()),
            contraction=gains.k1 * float((share * radius * radius).sum()) + gains.k2 * fields.coherence**2,
            effort=gains.effort * active,
            commits=int(flows.committed.sum()),
            retries=int(trades.retries.sum()),
            shed=int(trades.shed.sum()),
            invalid=int(trades.invalid.sum()),
            entropy=shannon_entropy(activity, active) + growth,
            gas_target=flows.inputs.gas_target,
            supply=supply,
            emission=int(flows.emitted.sum()),
            burned=int(flows.burned.sum()),
        )

    def _publish(
        self, kpis: dict[str, float], reading: Reading, trades: Trades, flows: TickFlows, effects: Effects
    ) -> Snapshot:
        nodes = self._membership.nodes
        participation = np.ones(nodes) if effects.participation is None else effects.participation.copy()
        signals: dict[str, NDArray[Any]] = {
            "phase": reading.reported,
            "participation": participation,
            "arrivals": trades.arrivals,
            "commits": flows.committed,
            "retries": trades.retries,
            "shed": trades.shed,
            "invalid": trades.invalid,
            "queue": trades.queue,
            "balance": self.balances.copy(),
            "active": self._membership.active.copy(),
        }
        for signal in signals.values():
            signal.flags.writeable = False
        return Snapshot(
            tick=self.tick,
            time_s=self.tick * TICK_S,
            kpis=kpis,
            signals=signals,
            safe_mode=kpis["gas"] < GAS_SAFE_MIN or kpis["rsi"] < RSI_SAFE_MIN,
        )

    def _damage_ledger(self, fault: Fault, targets: NDArray[np.int64]) -> None:
        amount = int(fault.strength)
        match fault.kind:
            case FaultKind.TAMPERING:
                self.ledger.tamper()
            case FaultKind.FORK:
                self.ledger.fork(targets.tolist(), amount)
            case FaultKind.INFLATION:
                share, rest = divmod(amount, targets.size)
                self.balances[targets] += share
                self.balances[targets[:rest]] += 1
                self.ledger.inflate(amount)
            case _:
                pass


def _genesis(membership: Membership, bodies_max: int | None) -> Ledger:
    balances = np.full(membership.nodes, GENESIS_BALANCE, dtype=np.int64)
    return Ledger.genesis(balances, membership.bounds, bodies_max=bodies_max)


def _frozen(column: NDArray[np.int64]) -> NDArray[np.int64]:
    column.flags.writeable = False
    return column
