"""Who owns what, according to the record alone? Balances added up from blocks.

Recovery starts from these figures, and an audit compares them with what the cluster says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qecs.block import TickBody

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from qecs.block import Block
    from qecs.entry import CommitEntry


def after_ticks(balances: NDArray[np.int64], blocks: Iterable[Block]) -> NDArray[np.int64]:
    """Return the node balances after the ticks among `blocks` whose bodies are held, int64, shape (nodes,)."""
    balances = balances.copy()
    for block in blocks:
        if isinstance(block.body, TickBody):
            balances += block.body.balance_change()
    return balances


def after_commits(balances: NDArray[np.int64], entries: Iterable[CommitEntry]) -> NDArray[np.int64]:
    """Return the node balances after single transactions, int64, shape (nodes,)."""
    balances = balances.copy()
    for entry in entries:
        if entry.sender_node is not None:
            balances[entry.sender_node] -= entry.amount
        if entry.receiver_node is not None:
            balances[entry.receiver_node] += entry.credited
    return balances


def guests_after_commits(entries: Iterable[CommitEntry]) -> dict[str, int]:
    """Return the balance, in tokens, of every account that is not a node."""
    guests: dict[str, int] = {}
    for entry in entries:
        if entry.sender_node is None:
            guests[entry.sender] = guests.get(entry.sender, 0) - entry.amount
        if entry.receiver_node is None:
            guests[entry.receiver] = guests.get(entry.receiver, 0) + entry.credited
    return guests
