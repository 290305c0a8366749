"""What would each cluster gain without this node? The arithmetic of the gravity field, and the averages it keeps.

`LeaveOneOut` holds the moving averages of one topology's nodes and clusters, and the evidence against each node's
service. A tick runs `sum_vectors`, `weigh`, `smooth`, `smooth_clusters`, `count_shortfall` and `service_deficit`, in
this order; `gravity.py` turns them into |g|. Every method is a fixed number of passes over the nodes.

Source: docs/model.md section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metrics.observation import NodeSignals, Topology
from metrics.smoothing import gap_weight

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
Weight = float | Floats

COUNT_MAX = 1e15  # more transactions in a tick than this are garbage, and would drown the sums
ARRIVALS_MIN = 0.5  # below half an arrival a tick the ratio of commits to arrivals says nothing
_ONE = np.ones(1)
_TINY = float(np.finfo(np.float64).tiny)  # keeps 0/0 at 0 where a node has nobody to compare with

SHORTFALL_ALLOWED = 0.3  # of a tick's work: healthy nodes fall that far behind their peers in 1 tick of 50
SHORTFALL_MAX = 3.0  # more evidence than that is not kept, so that a node that recovers is not blamed for long
_AVERAGES = ("h", "q", "commits", "arrivals")
_SERVICE = ("shortfall", "usual_shortfall", "standing_out")
_NODE_STATE = (*_AVERAGES, *_SERVICE, "samples", "seen_tick")
_CLUSTER_STATE = ("cluster_h", "cluster_q")


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSums:
    """What the counted nodes (active, with usable signals) of each cluster add up to in one tick.

    Attributes:
        outside: positions of the nodes that are not counted.
        count: float64[M], counted nodes n_c.
        re: float64[M], real part of Z = Σ y.
        im: float64[M], its imaginary part.
    """

    outside: Indices
    count: Floats
    re: Floats
    im: Floats

    def order(self) -> Floats:
        """float64[M]: the order parameter R_c = |Z|/n_c, NaN where nobody is counted."""
        return np.asarray(np.hypot(self.re, self.im) / np.where(self.count > 0, self.count, np.nan))

    def mean_field(self) -> complex:
        """Z over n of the whole system, NaN where nobody is counted."""
        count = self.count.sum()
        return complex(self.re.sum() / count, self.im.sum() / count) if count else complex(np.nan, np.nan)


class LeaveOneOut:
    """Moving averages of h, q, commits and arrivals of every node, and of h and q of every cluster.

    Attributes:
        shortfall: float64[N], S: by how many ticks' work the node has lately served worse than its peers, beyond what
            is allowed for and usual with it.
        usual_shortfall: float64[N], the average shortfall of a tick.
        standing_out: bool[N], whose shortfall made it a well when the field was read last.

    Args:
        topology: the nodes and clusters.
        tick: the tick of the first observation.
        tau_ticks: time constant of the averages.
        usual_ticks: that of the usual shortfall.
        gap_max_ticks: a node unseen for longer starts afresh: its one new value would outweigh all the rest.
    """

    def __init__(
        self, topology: Topology, tick: int, *, tau_ticks: float, usual_ticks: float, gap_max_ticks: int
    ) -> None:
        nodes, clusters = len(topology.nodes), len(topology.clusters)
        self.topology = topology
        self.h, self.q, self.commits, self.arrivals = np.zeros((4, nodes))
        self.shortfall, self.usual_shortfall = np.zeros((2, nodes))
        self.standing_out = np.zeros(nodes, dtype=np.bool_)
        self.samples = np.zeros(nodes, dtype=np.int32)
        self.seen_tick = np.full(nodes, tick - 1, dtype=np.int64)
        self.cluster_h, self.cluster_q = np.zeros((2, clusters))
        self.cluster_tick = tick - 1
        self._tau_ticks, self._usual_ticks = tau_ticks, usual_ticks
        self._gap_max_ticks = gap_max_ticks
        self._cluster_of: Indices = topology.cluster_of.astype(np.intp)
        # The arrays of a tick live as long as the topology: allocating them anew costs as much as filling them.
        self._y_re, self._y_im, self._zeta_re, self._zeta_im, self._a, self._b, self._c = np.empty((7, nodes))

    def moved_to(self, topology: Topology, tick: int) -> Self:
        """The averages under another topology: nodes and clusters that stay keep theirs, new ones start afresh."""
        moved = type(self)(
            topology,
            tick,
            tau_ticks=self._tau_ticks,
            usual_ticks=self._usual_ticks,
            gap_max_ticks=self._gap_max_ticks,
        )
        moved.cluster_tick = self.cluster_tick
        for names, before, now in (
            (_NODE_STATE, self.topology.nodes, topology.nodes),
            (_CLUSTER_STATE, self.topology.clusters, topology.clusters),
        ):
            source, target = in_both(before, now)
            for name in names:
                getattr(moved, name)[target] = getattr(self, name)[source]
        return moved

    def sum_vectors(self, signals: NodeSignals, usable: Bools) -> ClusterSums:
        """Form y = a·e^{iθ} of every node (0 where unusable, a clipped to 0..1); add up the counted ones by cluster."""
        phase = signals.phase
        amplitude = np.clip(signals.participation, 0.0, 1.0, out=self._a)
        if not usable.all():
            phase = np.where(usable, phase, 0.0)
            amplitude[~usable] = 0.0
        np.multiply(np.cos(phase, out=self._y_re), amplitude, out=self._y_re)
        np.multiply(np.sin(phase, out=self._y_im), amplitude, out=self._y_im)
        outside = np.flatnonzero(~(signals.active & usable))
        left_out = np.bincount(self._cluster_of[outside], minlength=len(self.topology.clusters))
        count = (self.topology.sizes - left_out).astype(np.float64)
        return ClusterSums(outside, count, self._by_cluster(self._y_re, outside), self._by_cluster(self._y_im, outside))

    def weigh(self, usable: Bools, sums: ClusterSums, tick: int) -> tuple[Bools, Weight, Weight]:
        """Who gives new evidence in this tick, and its weight in the averages and in the usual shortfall (else 0).

        New evidence is a usable signal of a later tick, from a node that has a counted peer to be compared with.
        """
        gap = tick - self.seen_tick
        fresh = usable & (gap > 0)
        if sums.count.min(initial=2.0) < 2.0:  # noqa: PLR2004 - a node and its one peer: fewer leave somebody alone
            fresh &= self._others(sums.count, _ONE, sums, self._b) > 0
        stale = np.flatnonzero(fresh & (gap > self._gap_max_ticks))
        if stale.size:
            for name in (*_AVERAGES, *_SERVICE, "samples"):
                getattr(self, name)[stale] = 0
            gap[stale] = 1
        self.samples += fresh
        np.copyto(self.seen_tick, tick, where=fresh)
        if fresh.all() and (gap == gap[0]).all():
            ticks = int(gap[0])
            return fresh, gap_weight(ticks, self._tau_ticks), gap_weight(ticks, self._usual_ticks)
        lasting, usual = (
            np.where(fresh, 1.0 - np.power(1.0 - 1.0 / tau, gap), 0.0) for tau in (self._tau_ticks, self._usual_ticks)
        )
        return fresh, lasting, usual

    def smooth(self, signals: NodeSignals, sums: ClusterSums, weight: Weight) -> None:
        """Move the averages of h, q, commits and arrivals towards this tick's values."""
        y_re, y_im, a, b, c = self._y_re, self._y_im, self._a, self._b, self._c
        zeta_re = self._others(sums.re, y_re, sums, self._zeta_re)
        zeta_im = self._others(sums.im, y_im, sums, self._zeta_im)
        zeta = _magnitude(zeta_re, zeta_im, out=a, scratch=b)
        pull = np.multiply(y_im, zeta_re, out=c)
        pull -= np.multiply(y_re, zeta_im, out=b)
        zeta_re += y_re
        zeta_im += y_im
        whole = _magnitude(zeta_re, zeta_im, out=b, scratch=zeta_re)
        peers = self._others(sums.count, _ONE, sums, self._zeta_re)
        share = np.divide(peers, np.add(peers, 1.0, out=self._zeta_im), out=self._zeta_im)
        whole *= share
        gain = np.subtract(zeta, whole, out=whole)
        pull *= np.sqrt(share, out=share)
        pull /= np.maximum(zeta, _TINY, out=zeta)
        values = (gain, pull, signals.commits, signals.arrivals)
        for name, value in zip(_AVERAGES, values, strict=True):
            _move(getattr(self, name), value, weight, scratch=a)

    def smooth_clusters(self, sums: ClusterSums, tick: int) -> None:
        """Leave each cluster out of the system, as if it were one node that points to its mean; move its averages."""
        gap = tick - self.cluster_tick
        self.cluster_tick = tick
        here = sums.count > 0
        count = np.where(here, sums.count, 1.0)
        re, im = sums.re / count, sums.im / count
        peers = np.maximum(here.sum() - 1.0, 0.0)
        zeta_re, zeta_im = re.sum() - re, im.sum() - im
        zeta, share = np.hypot(zeta_re, zeta_im), peers / (peers + 1.0)
        weight = np.where(here & (peers > 0), gap_weight(gap, self._tau_ticks), 0.0)
        self.cluster_h += weight * (zeta - np.hypot(re.sum(), im.sum()) * share - self.cluster_h)
        pull = (im * zeta_re - re * zeta_im) / np.maximum(zeta, _TINY) * np.sqrt(share)
        self.cluster_q += weight * (pull - self.cluster_q)

    def count_shortfall(self, signals: NodeSignals, fresh: Bools, sums: ClusterSums, weight: Weight) -> None:
        """Add up by how much worse each node has served in this tick than the others of its cluster (a CUSUM).

        Service is the share of a tick's work that is committed. The work is what was attempted or what arrived,
        whichever is more: neither failing, nor being slow, nor doing nothing at all escapes. An isolated node has no
        work; it starts afresh when it is back. Counts that cannot be counts say nothing, for or against.
        """
        a, b, c = self._a, self._b, self._c
        known, work = _work(signals, fresh, out=c)
        outside = sums.outside if known.all() else np.union1d(sums.outside, np.flatnonzero(~known))
        served = np.minimum(signals.commits, work, out=self._y_re)
        if outside.size:
            served[outside] = work[outside] = 0.0
        peers = ClusterSums(outside, sums.count, sums.re, sums.im)
        others = self._others(self._by_cluster(served, outside), served, peers, a)
        theirs = self._others(self._by_cluster(work, outside), work, peers, b)
        comparable = (theirs >= ARRIVALS_MIN) & (work >= ARRIVALS_MIN)
        others /= np.maximum(theirs, ARRIVALS_MIN, out=theirs)
        worse = np.subtract(others, np.divide(served, np.maximum(work, ARRIVALS_MIN, out=b), out=b), out=a)
        worse *= comparable
        surplus = np.maximum(self.usual_shortfall, 0.0, out=b)
        np.subtract(worse, surplus, out=surplus)
        surplus -= SHORTFALL_ALLOWED
        surplus += self.shortfall
        np.clip(surplus, 0.0, SHORTFALL_MAX, out=surplus)
        np.copyto(self.shortfall, surplus, where=known)
        _move(self.usual_shortfall, worse, weight if known.all() else np.where(known, weight, 0.0), scratch=b)
        isolated = ~signals.active
        if isolated.any():
            self.shortfall[isolated] = self.usual_shortfall[isolated] = 0.0

    def service_deficit(self, sums: ClusterSums, out: Floats) -> Floats:
        """k₊ into `out`: by how much less a node commits of what arrives than the others of its cluster do together."""
        a, b = self._a, self._b
        arrivals = self._others(self._by_cluster(self.arrivals, sums.outside), self.arrivals, sums, a)
        comparable = (arrivals >= ARRIVALS_MIN) & (self.arrivals >= ARRIVALS_MIN)
        others = self._others(self._by_cluster(self.commits, sums.outside), self.commits, sums, b)
        others /= np.maximum(arrivals, ARRIVALS_MIN, out=a)
        own = np.divide(self.commits, np.maximum(self.arrivals, ARRIVALS_MIN, out=a), out=a)
        np.subtract(np.minimum(others, 1.0, out=b), np.minimum(own, 1.0, out=a), out=out)
        out *= comparable
        return np.maximum(out, 0.0, out=out)

    def _by_cluster(self, values: Floats, outside: Indices) -> Floats:
        """float64[M]: sums over the counted nodes."""
        if outside.size:
            values = values.copy()
            values[outside] = 0.0
        sums = np.bincount(self._cluster_of, weights=values, minlength=len(self.topology.clusters))
        return sums.astype(np.float64, copy=False)

    def _others(self, totals: Floats, own: Floats, sums: ClusterSums, out: Floats) -> Floats:
        """The cluster's total for each node, without its own share where the node is counted in it."""
        np.take(totals, self._cluster_of, out=out, mode="clip")  # "raise" would buffer a second array
        out -= own
        out[sums.outside] = totals[self._cluster_of[sums.outside]]
        return out


def _work(signals: NodeSignals, fresh: Bools, out: Floats) -> tuple[Bools, Floats]:
    """bool[N], whose counts are known, and their work in this tick into `out`: 0 where it is not known."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out in the next lines
        np.add(signals.commits, signals.retries, out=out)
        out += signals.invalid
    known = fresh & (signals.retries >= 0.0) & (signals.invalid >= 0.0) & (out <= COUNT_MAX)
    np.maximum(out, signals.arrivals, out=out)
    if not known.all():
        out[~known] = 0.0
    return known, out


def _magnitude(re: Floats, im: Floats, out: Floats, scratch: Floats) -> Floats:
    """|re + i·im|; `scratch` may be `re`, never `im`. Half the time of hypot, whose range nobody needs here."""
    np.multiply(re, re, out=out)
    out += np.multiply(im, im, out=scratch)
    return np.sqrt(out, out=out)


def _move(average: Floats, value: Floats, weight: Weight, scratch: Floats) -> None:
    """Do average += weight · (value − average); values of weight 0 are not looked at, as they may be NaN."""
    step = np.subtract(value, average, out=scratch)
    if isinstance(weight, np.ndarray):
        step[weight == 0.0] = 0.0
    step *= weight
    average += step


def in_both(before: Sequence[str], now: Sequence[str]) -> tuple[Indices, Indices]:
    """Positions before and now of the names that are in both."""
    place = {name: i for i, name in enumerate(before)}
    pairs = [(place[name], i) for i, name in enumerate(now) if name in place]
    source, target = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return source, target
