"""Which node belongs to which cluster, and who takes part at the moment?

Clusters are contiguous and near-equal, so that a sum over a cluster is one `reduceat` and a gather is one `repeat`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qecs.errors import InvalidRequestError


def default_clusters(nodes: int) -> int:
    """Number of clusters for `nodes` nodes, M. Source: docs/model.md section 1."""
    return max(1, min(nodes // 5, round(math.sqrt(nodes))))


class Membership:
    """Nodes, clusters and who is isolated.

    Attributes:
        nodes: number of nodes, N.
        clusters: number of clusters, M.
        bounds: int64, shape (M + 1,): cluster c owns the nodes `bounds[c] : bounds[c + 1]`.
        sizes: int64, shape (M,): nodes of each cluster, isolated ones included.
        cluster_of: int32, shape (N,): cluster of each node.
        active: bool, shape (N,): False while isolated.
        active_of_cluster: float64, shape (M,): active nodes of each cluster, n_c.
        active_nodes: number of active nodes, n.

    Raises:
        InvalidRequestError: no node, no cluster, or more clusters than nodes.
    """

    def __init__(self, nodes: int, clusters: int | None = None) -> None:
        if nodes < 1:
            raise InvalidRequestError(f"a cluster needs at least one node, not {nodes}")
        count = default_clusters(nodes) if clusters is None else clusters
        if not 1 <= count <= nodes:
            raise InvalidRequestError(f"the number of clusters must be within 1 and {nodes} (the nodes), not {count}")
        self.nodes = nodes
        self.clusters = count
        self.bounds: NDArray[np.int64] = np.arange(count + 1, dtype=np.int64) * nodes // count
        self.sizes = np.diff(self.bounds)
        self.cluster_of = np.repeat(np.arange(count, dtype=np.int32), self.sizes)
        self.cluster_of.flags.writeable = False
        self.active = np.ones(nodes, dtype=np.bool_)
        self.active_of_cluster = self.sizes.astype(np.float64)
        self.active_nodes = nodes

    def set_active(self, node: int, *, active: bool) -> bool:
        """Lets node number `node` take part, or not; returns whether that changed anything."""
        if bool(self.active[node]) == active:
            return False
        self.active[node] = active
        change = 1 if active else -1
        self.active_of_cluster[self.cluster_of[node]] += change
        self.active_nodes += change
        return True

    def peers(self, node: int) -> NDArray[np.int64]:
        """Indices of the active nodes of the same cluster, without the node itself."""
        start, end = self.bounds[self.cluster_of[node]], self.bounds[self.cluster_of[node] + 1]
        found: NDArray[np.int64] = np.flatnonzero(self.active[start:end]) + start
        others: NDArray[np.int64] = found[found != node]
        return others

    def spread(self, of_cluster: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gives each node the value of its cluster: shape (M,) to shape (N,)."""
        return np.repeat(of_cluster, self.sizes)

    def total(self, of_node: NDArray[np.float64]) -> NDArray[np.float64]:
        """Adds up each cluster: shape (N,) to shape (M,)."""
        return np.add.reduceat(of_node, self.bounds[:-1])
