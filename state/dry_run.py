"""Whom would a controller that acts on nothing have taken out by now?

Budgets, the rate and the second look bite only on what is out. A dry run takes nobody out, so it has to reckon with the
nodes that it would have: out they stay until they are clean and a first back-off is over, and the tokens are spent.
Left out: what their isolation would have done to the others, which only the plant can tell.

Volatile: after a restart it reckons afresh.
"""

from __future__ import annotations

from collections.abc import Callable

from state.isolation import IsolationPolicy, Standing


class DryRun:
    """The nodes of one plant that would be out.

    Args:
        policy: the numbers.
    """

    def __init__(self, policy: IsolationPolicy) -> None:
        self._policy = policy
        self._out_since_s: dict[str, float] = {}
        self._tokens: tuple[float, float] | None = None  # left, at a plant time

    def stand(self, standing: Standing, clean: Callable[[int], bool]) -> None:
        """Count whoever would be out as out, and what was spent as spent; whoever is `clean` would come back."""
        policy, index = self._policy, standing.topology.index
        for node, since_s in list(self._out_since_s.items()):
            at = index.get(node)
            back = at is not None and clean(at) and standing.at_s - since_s >= policy.backoff_s(node, 1)
            if at is None or back:
                del self._out_since_s[node]
            elif not standing.out[at]:
                standing.take_out(at)
        if self._tokens is not None:
            left, at_s = self._tokens
            standing.tokens = policy.tokens(left, standing.at_s - at_s, len(standing.topology.nodes))

    def take_out(self, standing: Standing, node: int) -> None:
        """Node `node` (its index) would have been isolated now."""
        standing.take_out(node)
        self._out_since_s[standing.topology.nodes[node]] = standing.at_s
        self._tokens = standing.tokens, standing.at_s
