"""How are nodes and clusters called? By zero-padded numbers, so that names sort as the nodes stand.

A look-up parses the name: a dictionary of a million names would take more memory than all dynamics together.
"""

from __future__ import annotations

from typing import Final

from qecs.errors import UnknownTargetError

_NODE_DIGITS_MIN: Final = 4
_CLUSTER_DIGITS_MIN: Final = 2


class Names:
    """The ids of a cluster's nodes ("node-0000") and clusters ("cluster-00").

    Attributes:
        nodes: ids of the nodes, in order.
        clusters: ids of the clusters, in order.
    """

    def __init__(self, nodes: int, clusters: int) -> None:
        self.nodes = _numbered("node", nodes, _NODE_DIGITS_MIN)
        self.clusters = _numbered("cluster", clusters, _CLUSTER_DIGITS_MIN)

    def node(self, name: str) -> int:
        """Index of a node.

        Raises:
            UnknownTargetError: there is no such node; the message says which there are.
        """
        return _index(name, self.nodes, "node")

    def cluster(self, name: str) -> int:
        """Index of a cluster.

        Raises:
            UnknownTargetError: there is no such cluster; the message says which there are.
        """
        return _index(name, self.clusters, "cluster")


def _numbered(prefix: str, count: int, digits_min: int) -> tuple[str, ...]:
    digits = max(digits_min, len(str(count - 1)))
    return tuple(f"{prefix}-{index:0{digits}d}" for index in range(count))


def _index(name: str, names: tuple[str, ...], prefix: str) -> int:
    digits = name.removeprefix(f"{prefix}-")
    # The length is bounded by the longest id, hence the conversion cannot be made to take long.
    if digits.isascii() and digits.isdigit() and len(name) == len(names[0]):
        index = int(digits)
        if index < len(names) and names[index] == name:
            return index
    raise UnknownTargetError(f"no {prefix} {name!r}; there are {names[0]} to {names[-1]}")
