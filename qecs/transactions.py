"""What becomes of a tick's demand? Arrivals, attempts, commits, retries, invalid and shed transactions, payments.

Transactions are counted, not represented: one integer queue a node. A commit succeeds the likelier the nearer the
node's phase is to 0. Money is integer throughout; what flooring leaves over goes to one random node, so that nothing is
lost.

Source: docs/model.md section 1. Arrivals are Poisson by inversion of a normal (M. Giles, "Algorithm 955", ACM TOMS 42,
2016, first-order Cornish-Fisher terms): one normal for each node whatever its rate, which a rejection sampler cannot
offer. The total variation distance to the exact distribution is 2e-4 at rate 20 and 2e-3 at rate 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.dynamics import OFFERED_LOAD
from qecs.noise import Noise, Stream

if TYPE_CHECKING:
    from qecs.effects import Effects
    from qecs.standing import Standing

AMOUNT: Final = 1000
"""Tokens that a commit debits, its fee included."""
BURNED: Final = 5
"""Tokens of the fee that are burned by each commit."""
PAID_OUT: Final = AMOUNT - BURNED
"""Tokens that each commit pays out."""
SUCCESS_MAX: Final = 0.995
"""Probability that an attempt at phase 0 commits."""

ACTIVITY_TICKS: Final = 30
"""Time constant of a node's activity, by which payments are shared out."""

_QUEUE_MAX: Final = 108
_SPENDABLE_PERCENT: Final = 7
_RATE_MIN: Final = 1e-6
_SHARE_SCALE: Final = 1.0 - 2.0**-46


@dataclass(frozen=True, slots=True)
class Trades:
    """The transactions of one tick, int64, shape (N,) each.

    Attributes:
        arrivals: newly offered.
        commits: committed, Y.
        retries: attempted, not committed, still queued: F.
        invalid: attempted and refused for good, V.
        shed: dropped because the queue was full, X.
        queue: left in the queue.
    """

    arrivals: NDArray[np.int64]
    commits: NDArray[np.int64]
    retries: NDArray[np.int64]
    invalid: NDArray[np.int64]
    shed: NDArray[np.int64]
    queue: NDArray[np.int64]


class Transactions:
    """Queues, and who has been committing how much.

    Attributes:
        queue: int64, shape (N,): B.
        activity: float64, shape (N,): EWMA_30 of the commits.
    """

    def __init__(self, nodes: int, noise: Noise) -> None:
        self.queue = np.zeros(nodes, dtype=np.int64)
        self.activity = np.zeros(nodes)
        self._started = False
        self._noise = noise
        self._rate = np.empty(nodes)
        self._draw = np.empty(nodes)
        self._scratch = np.empty(nodes)

    def step(
        self,
        tick: int,
        *,
        demand: float,
        balances: NDArray[np.int64],
        cosine: NDArray[np.float64],
        standing: Standing,
        effects: Effects,
    ) -> Trades:
        """Serves one second of demand.

        Args:
            tick: names the noise.
            demand: D.
            balances: int64, shape (N,), tokens; not changed here.
            cosine: float64, shape (N,): cos θ.
            standing: who takes part, and how many attempts each may make.
            effects: for the share of invalid attempts.
        """
        arrivals = self._arrivals(tick, demand, balances, standing)
        queue = self.queue
        queue += arrivals
        attempts = balances * _SPENDABLE_PERCENT
        attempts //= 100 * AMOUNT
        np.minimum(attempts, standing.attempts_max, out=attempts)
        np.minimum(attempts, queue, out=attempts)
        invalid = self._invalid(tick, attempts, effects)
        attempts -= invalid
        commits = self._commits(tick, attempts, cosine)
        attempts -= commits
        queue -= commits
        queue -= invalid
        shed = np.maximum(queue - _QUEUE_MAX, 0)
        queue -= shed
        self._remember(commits)
        return Trades(arrivals, commits, retries=attempts, invalid=invalid, shed=shed, queue=queue.copy())

    def pay_out(self, tick: int, tokens: int, standing: Standing) -> NDArray[np.int64]:
        """Splits `tokens` among the eligible nodes in proportion to their activity, to the last token.

        Returns:
            int64, shape (N,): what each node receives. All zero where nobody is eligible, which only happens without
            commits, hence without tokens to pay out.
        """
        weights = np.multiply(self.activity, standing.eligible, out=self._scratch)
        shares = floor_shares(tokens, weights)
        if standing.eligible_nodes.size:
            draw = self._noise.generator(Stream.REMAINDER, tick).random()
            lucky = standing.eligible_nodes[int(draw * standing.eligible_nodes.size)]
            shares[lucky] += tokens - int(shares.sum())
        return shares

    def hand_over(self, node: int, peers: NDArray[np.int64]) -> None:
        """Moves the queue of `node` to its peers, as evenly as integers allow; without peers it waits."""
        if not peers.size:
            return
        share, rest = divmod(int(self.queue[node]), peers.size)
        self.queue[peers] += share
        self.queue[peers[:rest]] += 1
        self.queue[node] = 0

    def _arrivals(self, tick: int, demand: float, balances: NDArray[np.int64], standing: Standing) -> NDArray[np.int64]:
        """Poisson arrivals, richer nodes being asked more often (between 0.5 and 1.5 of the mean)."""
        rate, draw, scratch = self._rate, self._draw, self._scratch
        count = standing.active_nodes
        # A sum instead of a dot product: BLAS splits those over threads, which changes their last bits.
        mean = float(np.multiply(balances, standing.active, out=rate).sum()) / max(count, 1)
        np.multiply(balances, 1.0 / max(mean, 1.0), out=rate)
        np.clip(rate, 0.5, 1.5, out=rate)
        rate *= standing.active
        total = float(rate.sum())
        if total > 0.0:
            rate *= OFFERED_LOAD * demand * rate.size / total
        self._noise.normal(Stream.ARRIVALS, tick, draw)
        arrivals = _poisson(rate, draw, scratch)
        arrivals *= standing.active
        return arrivals.astype(np.int64)

    def _invalid(self, tick: int, attempts: NDArray[np.int64], effects: Effects) -> NDArray[np.int64]:
        """V: attempts of bad nodes that can never commit."""
        if effects.bad is None:
            return np.zeros_like(attempts)
        share = np.multiply(attempts, effects.bad, out=self._draw)
        share += self._noise.uniform(Stream.INVALID, tick, self._scratch)
        # A node without bad attempts must stay at zero: x + U of x = 0 floors to 0, since U < 1.
        return np.minimum(share.astype(np.int64), attempts)

    def _commits(self, tick: int, attempts: NDArray[np.int64], cosine: NDArray[np.float64]) -> NDArray[np.int64]:
        """Y, by stochastic rounding of attempts × success probability."""
        half = np.multiply(cosine, 0.5, out=self._draw)
        half += 0.5
        expected = np.multiply(half, half, out=self._scratch)
        expected *= half
        expected *= attempts
        expected *= SUCCESS_MAX
        expected += self._noise.uniform(Stream.COMMITS, tick, self._draw)
        return expected.astype(np.int64)

    def _remember(self, commits: NDArray[np.int64]) -> None:
        if not self._started:
            np.copyto(self.activity, commits)
            self._started = True
            return
        change = np.subtract(commits, self.activity, out=self._scratch)
        change /= ACTIVITY_TICKS
        self.activity += change


def floor_shares(tokens: float, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """⌊tokens · weight / Σ weights⌋ of each node, int64; all zero where no weight is positive.

    Shares are computed smaller by 2^-46, more than rounding can make them larger: they never sum to more than `tokens`.
    """
    total = float(weights.sum())
    factor = tokens / total * _SHARE_SCALE if total > 0.0 else 0.0
    return (weights * factor).astype(np.int64)


def _poisson(
    rate: NDArray[np.float64], normal: NDArray[np.float64], scratch: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Poisson variates (whole numbers from 0 on) with mean `rate` (overwritten) from standard normals w.

    ⌊λ + √λ w + 1/3 + w²/6 − (w/36 + w³/72)/√λ⌋, by Horner's rule.
    """
    root = np.sqrt(np.maximum(rate, _RATE_MIN, out=scratch), out=scratch)
    inverse = np.divide(-1.0 / 72.0, root)
    cubic = inverse * normal
    cubic += 1.0 / 6.0
    cubic *= normal
    cubic += root
    inverse *= 2.0
    cubic += inverse
    cubic *= normal
    cubic += rate
    cubic += 1.0 / 3.0
    np.floor(cubic, out=cubic)
    return np.maximum(cubic, 0.0, out=cubic)
