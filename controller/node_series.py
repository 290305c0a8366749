"""Which nodes have series of their own, and where does each node stand? What a scrape and the stores tell of nodes.

Series are bounded whatever the size of the plant: the worst nodes by |g|, and all that the plant holds out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from state.durable import DurableState, NodeStatus
from state.view import NodeView

STATUSES = tuple(NodeStatus)
_CODE = {status: code for code, status in enumerate(STATUSES)}


def worst_nodes(seen: NodeView, series_max: int) -> NDArray[np.intp]:
    """intp, ascending: positions of the `series_max` nodes with the highest |g|, and of all that are out."""
    gravity = seen.reading.gravity
    isolated = np.flatnonzero(~seen.active)
    worst = np.arange(len(gravity))
    if len(worst) > series_max:
        known = np.where(np.isnan(gravity), -1.0, gravity)  # what is not known is no worse than anything
        worst = np.argpartition(-known, series_max)[:series_max]
    return np.union1d(worst, isolated)


def statuses(seen: NodeView, state: DurableState | None, gravity_critical: float) -> NDArray[np.int8]:
    """int8[N], each node's position in `STATUSES`: as the controller has it on record, else as this tick shows it.

    Args:
        seen: the nodes of the tick.
        state: the governor's; None where nothing is governed yet.
        gravity_critical: |g| beyond which a node is suspect.
    """
    codes = np.full(len(seen.topology.nodes), _CODE[NodeStatus.HEALTHY], dtype=np.int8)
    codes[seen.assessed() & (seen.reading.gravity > gravity_critical)] = _CODE[NodeStatus.SUSPECT]
    codes[~seen.active] = _CODE[NodeStatus.ISOLATED]
    for name, record in ({} if state is None else state.nodes).items():
        index = seen.topology.index.get(name)
        if index is not None and record.status is not NodeStatus.HEALTHY:
            codes[index] = _CODE[record.status]
    return codes
