"""What may enter the ledger at all? Only what is well formed and creates or loses no token.

These are the refusals that keep the ledger's own identity, `supply' = supply + emission - burn`. The protocol's laws
of burn and emission are not enforced here: a ledger records what happened, and `qecs.audit` judges it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qecs.block import FLOW_COLUMNS
from qecs.errors import InvalidRequestError

if TYPE_CHECKING:
    from qecs.block import GenesisBody, TickBody
    from qecs.entry import CommitEntry
    from qecs.flows import TickFlows


def require_genesis(body: GenesisBody) -> None:
    """Refuse a genesis without nodes, with negative balances, or with bounds that do not cover its nodes.

    Raises:
        InvalidRequestError: it is no genesis.
    """
    balances, bounds = body.balances, body.bounds
    if balances.ndim != 1 or bounds.ndim != 1 or len(balances) == 0 or len(bounds) == 0:
        raise InvalidRequestError("a genesis needs one balance a node and the bounds of its clusters")
    if bounds[0] != 0 or bounds[-1] != len(balances) or bool((np.diff(bounds) < 1).any()):
        raise InvalidRequestError("cluster bounds must rise from 0 to the number of nodes")
    if bool((balances < 0).any()):
        raise InvalidRequestError("genesis balances must not be negative")


def require_flows(flows: TickFlows, *, nodes: int, last_tick: int) -> None:
    """Refuse flows of the wrong type or shape, or of a tick that is not a later one.

    Raises:
        InvalidRequestError: they cannot be recorded.
    """
    for name in FLOW_COLUMNS:
        column = getattr(flows, name)
        if column.shape != (nodes,) or column.dtype != np.int64:
            raise InvalidRequestError(f"{name} must be int64 of shape ({nodes},), not {column.dtype} of {column.shape}")
    if flows.tick <= last_tick:
        raise InvalidRequestError(f"tick {flows.tick} cannot follow tick {last_tick}")


def conserved_totals(body: TickBody, tick: int) -> tuple[int, int]:
    """Return (emission, burn), tokens, of flows that conserve.

    Raises:
        InvalidRequestError: a flow is negative, or payments do not add up.
    """
    _, paid, received, emission, burn = (int(total) for total in body.columns.sum(axis=1))
    if int(body.columns.min()) < 0:
        raise InvalidRequestError(f"tick {tick}: flows must not be negative")
    if received != paid - burn:
        raise InvalidRequestError(f"tick {tick}: {paid} paid - {burn} burned is not the {received} received")
    return emission, burn


def require_conserving(entry: CommitEntry) -> None:
    """Refuse a transaction whose parts are negative or do not add up to its amount.

    Raises:
        InvalidRequestError: it does not conserve.
    """
    parts = (entry.burned, entry.credited)
    if min(parts) < 0 or sum(parts) != entry.amount:
        raise InvalidRequestError(
            f"transaction {entry.id!r}: {entry.burned} burned + {entry.credited} credited "
            f"is not the amount {entry.amount}"
        )
