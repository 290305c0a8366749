"""What has moved, minted and burned, in an order that nobody can change unnoticed?

An append-only chain of blocks (`qecs.block` says what they hold, byte for byte), kept in memory and, if a directory
is given, on disk (`qecs.chain_file`). The ledger accepts only what conserves: `supply' = supply + emission - burn`.
Whether emission and burn follow the protocol's laws is for an auditor to recompute (`qecs.audit`).

Above `BODIES_ALL_NODES_MAX` nodes only the last bodies of tick blocks are held; headers (`qecs.block_log`), the genesis
body and commit blocks are kept for good, and `balances` stays exact because a body is added up before it is dropped.

Not thread-safe: whoever shares a ledger between threads brings the lock.

Three methods exist to be caught: `tamper`, `fork` and `inflate` damage the ledger on purpose. Tampering and forks
live in memory only, an inflated supply is recorded like any other header, hence a ledger that was inflated is
refused by `recover`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from qecs.audit import integrity_findings
from qecs.block import (
    FLOW_COLUMNS,
    NO_HASH,
    Block,
    BlockKind,
    CommitBody,
    GenesisBody,
    Header,
    TickBody,
    Tip,
    body_root,
)
from qecs.block_log import BlockLog
from qecs.chain_file import ChainFile
from qecs.chain_recovery import StoredChain
from qecs.conservation import conserved_totals, require_conserving, require_flows, require_genesis
from qecs.entry import CommitEntry
from qecs.errors import InvalidRequestError, LedgerCorruptError, UnknownTargetError
from qecs.fork import Fork, NodeTips
from qecs.holdings import after_commits, after_ticks, guests_after_commits
from qecs.merkle import InclusionProof, audit_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from qecs.flows import TickFlows

BODIES_ALL_NODES_MAX = 10_000
_BODIES_DEFAULT_MAX = 64
_BODIES_DEFAULT_BYTES_MAX = 256 * 1024 * 1024
_BODY_BYTES_A_NODE = 40


class Ledger:
    """The chain of one cluster; made by `genesis` or `recover`, never directly."""

    def __init__(self, genesis: Block, *, bodies_max: int | None, file: ChainFile | None) -> None:
        if not isinstance(genesis.body, GenesisBody):
            raise LedgerCorruptError("height 0: a ledger starts with a genesis block and its body")
        self._blocks = BlockLog(genesis)
        self._genesis = genesis.body
        self._bodies_max = bodies_max
        self._file = file
        self._held_ticks: deque[int] = deque()
        # Genesis balances plus every tick whose body was dropped.
        self._base_balances = genesis.body.balances.copy()
        self._fork: Fork | None = None
        self._inflation = 0
        self._last_tick_emission = 0

    # --- making one ---------------------------------------------------------------------------------------

    @classmethod
    def genesis(
        cls,
        balances: NDArray[np.int64],
        cluster_bounds: NDArray[np.int64],
        *,
        directory: Path | None = None,
        bodies_max: int | None = None,
    ) -> Ledger:
        """Return a new ledger that starts with `balances`.

        Args:
            balances: int64, shape (nodes,), tokens, none negative.
            cluster_bounds: int64, shape (clusters + 1,), cluster c owns `bounds[c] : bounds[c + 1]`.
            directory: where to persist it; must not hold a chain yet.
            bodies_max: tick bodies to hold. None holds all up to 10,000 nodes, and above that the last 64 or as
                many as fit into 256 MiB.

        Raises:
            InvalidRequestError: the arguments are no genesis, or `directory` already holds a chain.
            LedgerWriteError: it cannot be written, or another process has it open.
        """
        body = GenesisBody(np.array(balances, dtype="<i8"), np.array(cluster_bounds, dtype="<i8"))
        require_genesis(body)
        bodies_max = _bodies_default(len(body.balances)) if bodies_max is None else bodies_max
        if bodies_max is not None and bodies_max < 1:
            raise InvalidRequestError(f"bodies_max must be at least 1, not {bodies_max}")
        header = Header(
            height=0,
            kind=BlockKind.GENESIS,
            previous_hash=NO_HASH,
            root=body_root(body),
            supply=int(body.balances.sum()),
            emission=0,
            burn=0,
            tick=0,
            inputs=None,
        )
        block = Block(header, header.hash(), body)
        file = None if directory is None else ChainFile.create(directory, block, bodies_max=bodies_max)
        return cls(block, bodies_max=bodies_max, file=file)

    @classmethod
    def recover(cls, directory: Path) -> Ledger:
        """Return the ledger persisted in `directory`, verified, its torn tail cut off.

        Raises:
            LedgerCorruptError: damaged elsewhere than in an incomplete last record; names file or height.
            UnknownTargetError: there is no chain in `directory`.
            LedgerWriteError: another process has it open.
        """
        stored = StoredChain(directory)
        try:
            return cls._rebuild(stored)
        except BaseException:
            stored.file.close()
            raise

    @classmethod
    def _rebuild(cls, stored: StoredChain) -> Ledger:
        blocks = stored.blocks()
        genesis = next(blocks, None)
        if genesis is None:
            raise LedgerCorruptError("height 0: there is no genesis block")
        _require_intact(genesis, None)
        ledger = cls(genesis, bodies_max=stored.bodies_max, file=stored.file)
        for block in blocks:
            _require_intact(block, ledger.block(ledger.height))
            ledger._remember(block)
        ledger._base_balances += stored.archived_change()
        ledger._require_sums()
        return ledger

    # --- writing ------------------------------------------------------------------------------------------

    def append(self, flows: TickFlows) -> Header:
        """Record the flows of one tick and return the new header.

        Raises:
            InvalidRequestError: the flows do not conserve, are negative, have the wrong shape, or repeat a tick.
            LedgerWriteError: the block could not be persisted; the ledger is unchanged.
        """
        require_flows(flows, nodes=self.nodes, last_tick=self.last_tick)
        body = TickBody.of(flows, self._genesis.bounds)
        emission, burn = conserved_totals(body, flows.tick)
        header = Header(
            height=self.height + 1,
            kind=BlockKind.TICK,
            previous_hash=self.tip.hash,
            root=body_root(body),
            supply=self.supply + emission - burn + self._inflation,
            emission=emission,
            burn=burn,
            tick=flows.tick,
            inputs=flows.inputs,
        )
        self._add(Block(header, header.hash(), body), durable=False)
        self._inflation = 0
        return header

    def append_commit(self, entry: CommitEntry) -> Header:
        """Record one transaction and return the new header; on return it is safe on disk, if there is one.

        Raises:
            InvalidRequestError: the entry does not conserve.
            LedgerWriteError: the block could not be persisted; the ledger is unchanged.
        """
        require_conserving(entry)
        body = CommitBody(entry.to_text())
        header = Header(
            height=self.height + 1,
            kind=BlockKind.COMMIT,
            previous_hash=self.tip.hash,
            root=body_root(body),
            supply=self.supply - entry.burned,
            emission=0,
            burn=entry.burned,
            tick=self.last_tick,
            inputs=None,
        )
        self._add(Block(header, header.hash(), body), durable=True)
        return header

    def close(self) -> None:
        """Bring everything to disk and release the directory; the ledger can still be read."""
        if self._file is not None:
            self._file.close()

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def tip(self) -> Tip:
        """The end of the chain."""
        return Tip(self.height, self._blocks[-1].hash)

    @property
    def height(self) -> int:
        """Height of the latest block."""
        return len(self._blocks) - 1

    @property
    def supply(self) -> int:
        """Tokens in existence, as the latest header states."""
        return self._blocks[-1].header.supply

    @property
    def last_tick(self) -> int:
        """The latest tick that was recorded, 0 before the first."""
        return self._blocks[-1].header.tick

    @property
    def last_emission(self) -> int:
        """Tokens that the latest tick minted, 0 before the first."""
        return self._last_tick_emission

    @property
    def cluster_bounds(self) -> NDArray[np.int64]:
        """int64, shape (clusters + 1,): cluster c owns the nodes `bounds[c] : bounds[c + 1]`."""
        return self._genesis.bounds

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self._genesis.balances)

    def header(self, height: int) -> Header:
        """Return the header at `height`.

        Raises:
            UnknownTargetError: there is no such block.
        """
        return self.block(height).header

    def block(self, height: int) -> Block:
        """Return the block at `height`; its body is None if no longer held.

        Raises:
            UnknownTargetError: there is no such block.
        """
        if not 0 <= height <= self.height:
            raise UnknownTargetError(f"no block at height {height}; the tip is {self.height}")
        return self._blocks[height]

    def blocks(self, start: int, limit: int) -> list[Block]:
        """Return up to `limit` blocks from height `start` on; empty beyond the tip."""
        return self._blocks.between(max(0, start), max(0, start) + max(0, limit))

    def proof(self, height: int, leaf: int = 0) -> InclusionProof:
        """Return the proof that leaf `leaf` is part of the block at `height`.

        Raises:
            UnknownTargetError: no such block or leaf, or its body is no longer held.
        """
        block = self.block(height)
        if block.body is None:
            raise UnknownTargetError(f"the body of block {height} is no longer held")
        hashes = block.body.leaf_hashes()
        if not 0 <= leaf < len(hashes):
            raise UnknownTargetError(f"block {height} has {len(hashes)} leaves, there is no leaf {leaf}")
        path = tuple(sibling.hex() for sibling in audit_path(hashes, leaf))
        return InclusionProof(height, leaf, len(hashes), hashes[leaf].hex(), path, block.header.root)

    def tips(self) -> NodeTips:
        """Return the tip that each node holds; all are equal unless there is a fork."""
        if self._fork is None:
            return NodeTips((self.tip,), np.zeros(self.nodes, dtype=np.int64))
        of_node = np.zeros(self.nodes, dtype=np.int64)
        of_node[self._fork.nodes] = 1
        return NodeTips((self.tip, self._fork.tip), of_node)

    def entry(self, height: int) -> CommitEntry:
        """Return the transaction that the block at `height` records.

        Raises:
            UnknownTargetError: there is no such block, or it records something else.
        """
        body = self.block(height).body
        if not isinstance(body, CommitBody):
            raise UnknownTargetError(f"block {height} records no transaction")
        return CommitEntry.from_text(body.entry)

    def entries(self) -> Iterator[tuple[int, CommitEntry]]:
        """Yield (height, entry) of every recorded transaction, oldest first."""
        for block in self._blocks.with_bodies():
            if isinstance(block.body, CommitBody):
                yield block.header.height, CommitEntry.from_text(block.body.entry)

    def balances(self) -> NDArray[np.int64]:
        """Return the balance of every node recomputed from genesis and all blocks, int64, shape (nodes,)."""
        return after_commits(self._tick_balances(), (entry for _, entry in self.entries()))

    def guest_balances(self) -> dict[str, int]:
        """Return the balance of every account that is not a node, recomputed from all blocks."""
        return guests_after_commits(entry for _, entry in self.entries())

    # --- faults, to be caught -----------------------------------------------------------------------------

    def tamper(self, height: int | None = None) -> int:
        """Alter the recorded body of a block (the latest tick by default), its header unchanged.

        Returns:
            the height that was altered.

        Raises:
            UnknownTargetError: there is no such tick block with a body.
        """
        if height is None:
            height = self._held_ticks[-1] if self._held_ticks else 0
        block = self.block(height)
        if not isinstance(block.body, TickBody):
            raise UnknownTargetError(f"block {height} holds no tick body that could be altered")
        columns = block.body.columns.copy()
        columns[FLOW_COLUMNS.index("received"), 0] += 1
        self._blocks.replace(Block(block.header, block.hash, TickBody(columns, block.body.bounds)))
        return height

    def fork(self, nodes: Sequence[int], depth: int = 3) -> Tip:
        """Let `nodes` (indices) hold another, internally valid chain that parts `depth` blocks below the tip.

        The other chain goes on from then on, block by block, and never meets this one again. A second fork
        replaces the first.

        Raises:
            InvalidRequestError: no node, an unknown node, or no tick with payments deep enough to differ in.
        """
        if not nodes or not all(0 <= node < self.nodes for node in nodes):
            raise InvalidRequestError(f"a fork needs nodes within 0..{self.nodes - 1}")
        self._fork = Fork.branch(self._blocks, list(nodes), depth)
        return self._fork.tip

    def inflate(self, tokens: int) -> None:
        """Let the supply jump by `tokens` in the next tick's header, without emission."""
        self._inflation += tokens

    # --- inside -------------------------------------------------------------------------------------------

    def _add(self, block: Block, *, durable: bool) -> None:
        if self._file is not None:
            self._file.append(block, durable=durable, checkpoint=self._tick_balances)
        self._remember(block)
        if self._fork is not None:
            self._fork.extend(block)

    def _remember(self, block: Block) -> None:
        """Take a valid block into memory and drop the oldest tick body beyond the limit."""
        self._blocks.append(block)
        if block.header.kind is not BlockKind.TICK:
            return
        self._last_tick_emission = block.header.emission
        self._held_ticks.append(block.header.height)
        if self._bodies_max is None or len(self._held_ticks) <= self._bodies_max:
            return
        oldest = self._blocks[self._held_ticks.popleft()]
        if isinstance(oldest.body, TickBody):
            self._base_balances += oldest.body.balance_change()
        self._blocks.replace(Block(oldest.header, oldest.hash, None))

    def _tick_balances(self) -> NDArray[np.int64]:
        """Return the genesis balances plus all ticks, commits left out (their blocks are kept for good)."""
        return after_ticks(self._base_balances, (self._blocks[height] for height in self._held_ticks))

    def _require_sums(self) -> None:
        """Refuse recovered balances that do not add up, the last thing that a checkpoint could be wrong in."""
        total = int(self.balances().sum()) + sum(self.guest_balances().values())
        if total != self.supply:
            raise LedgerCorruptError(f"height {self.height}: balances add up to {total}, supply is {self.supply}")


def _bodies_default(nodes: int) -> int | None:
    if nodes <= BODIES_ALL_NODES_MAX:
        return None
    return max(1, min(_BODIES_DEFAULT_MAX, _BODIES_DEFAULT_BYTES_MAX // (_BODY_BYTES_A_NODE * nodes)))


def _require_intact(block: Block, previous: Block | None) -> None:
    for finding in integrity_findings(block, previous):
        raise LedgerCorruptError(f"height {finding.height}: {finding.reason}")
