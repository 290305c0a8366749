"""What does a forked ledger look like? Some nodes hold another chain, whole in itself, beside the main one.

The other chain parts from the main one at a tick in which one token of payments went to another node. It conserves
and verifies by itself, so that only comparing the nodes' tips tells that they disagree. Afterwards it takes every
new block of the main chain, linked to its own tip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qecs.block import FLOW_COLUMNS, Block, TickBody, Tip, body_root
from qecs.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qecs.block_log import BlockLog

_RECEIVED = FLOW_COLUMNS.index("received")


@dataclass(frozen=True, slots=True, eq=False)
class NodeTips:
    """The tip that each node holds.

    Attributes:
        distinct: the different tips, the main chain's first.
        of_node: int64, shape (nodes,): index into `distinct`.
    """

    distinct: tuple[Tip, ...]
    of_node: NDArray[np.int64]


class Fork:
    """The nodes that disagree, and their chain from the branching block on (`blocks`)."""

    def __init__(self, nodes: Sequence[int], blocks: list[Block]) -> None:
        self.nodes = list(nodes)
        self.blocks = blocks

    @classmethod
    def branch(cls, chain: BlockLog, nodes: Sequence[int], depth: int) -> Fork:
        """Return a fork of `chain` that parts `depth` blocks below its tip.

        It parts lower where no tick at that height was paid in, and right after genesis in a shorter chain.

        Raises:
            InvalidRequestError: there is no such tick.
        """
        tip = len(chain) - 1
        for height in range(min(tip, max(1, tip + 1 - depth)), 0, -1):
            body = chain[height].body
            if isinstance(body, TickBody) and _can_differ(body):
                first = _rebuild(chain[height], chain[height - 1].hash, _other_payee(body))
                fork = cls(nodes, [first])
                for block in chain.between(height + 1, len(chain)):
                    fork.extend(block)
                return fork
        raise InvalidRequestError(f"no tick with payments {depth} blocks below the tip to fork at")

    @property
    def tip(self) -> Tip:
        """The end of the other chain."""
        return Tip(self.blocks[-1].header.height, self.blocks[-1].hash)

    def extend(self, block: Block) -> None:
        """Take over a block of the main chain; only its header, since the body is the same."""
        self.blocks.append(replace(_rebuild(block, self.tip.hash, None), body=None))


def _rebuild(block: Block, previous_hash: str, body: TickBody | None) -> Block:
    root = block.header.root if body is None else body_root(body)
    header = replace(block.header, previous_hash=previous_hash, root=root)
    return Block(header, header.hash(), body)


def _can_differ(body: TickBody) -> bool:
    received = body.columns[_RECEIVED]
    return len(received) > 1 and bool(received.max() > 0)


def _other_payee(body: TickBody) -> TickBody:
    columns = body.columns.copy()
    payee = int(columns[_RECEIVED].argmax())
    columns[_RECEIVED, payee] -= 1
    columns[_RECEIVED, (payee + 1) % columns.shape[1]] += 1
    return TickBody(columns, body.bounds)
