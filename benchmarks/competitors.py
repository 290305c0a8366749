"""Other ways to find and take out bad nodes, each as its documentation says, on the signals that this controller sees.

Each is told one tick after the other and answers with the nodes that are to be out of service. A *request* is an
attempted transaction: commits are its successes; retries, invalid and shed transactions its failures. A node that is
out gets no requests, so nobody learns anything about it until it is back.

- `SuccessRateEjection`: Envoy's success-rate outlier detection with its documented defaults. All nodes are one upstream
  cluster, since the demand is spread over all of them.
- `FailurePercentageEjection`: Envoy's failure-percentage detection, which is a fixed threshold. The documented one is
  85 % failures; what it is set to instead, and why, stands beside `FAILURE_PERCENTAGE`.
- `PhiAccrual`: the failure detector of Hayashibara et al. (2004) with the defaults of Akka Cluster.

Sources: Envoy's documentation, "Outlier detection" and `config.cluster.v3.OutlierDetection`; N. Hayashibara, X. Défago,
R. Yared, T. Katayama, "The φ accrual failure detector", SRDS 2004; Akka's documentation of `PhiAccrualFailureDetector`
and `akka.cluster.failure-detector`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metrics.observation import NodeSignals

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Envoy's defaults.
INTERVAL_S = 10.0
BASE_EJECTION_S = 30.0
MAX_EJECTION_S = 300.0
MAX_EJECTION_SHARE = 0.10
STDEV_FACTOR = 1.9
SUCCESS_RATE_MINIMUM_HOSTS = 5
SUCCESS_RATE_REQUEST_VOLUME = 100
FAILURE_PERCENTAGE_MINIMUM_HOSTS = 5
FAILURE_PERCENTAGE_REQUEST_VOLUME = 50
# Half of the requests. In a healthy cluster (seeds 0 to 40) a node fails that often in 10 s once in 10,000 times at 50
# nodes and never at 1000; a lower threshold errs more often, and the documented 85 % hardly ever finds anything.
FAILURE_PERCENTAGE = 50.0

# Akka Cluster's defaults; a heartbeat is expected with every tick.
PHI_THRESHOLD = 8.0
HEARTBEAT_S = 1.0
SAMPLES_MAX = 1000
STDEV_MIN_S = 0.1
ACCEPTABLE_PAUSE_S = 3.0
HEARTBEAT_SHARE = 0.5  # of a tick's arrivals that have to be committed


class Competitor(Protocol):
    """Whoever decides which nodes are out."""

    def tick(self, now_s: float, signals: NodeSignals) -> Bools:
        """bool[N], the nodes that are to be out from now on."""


class Ejection:
    """Envoy's ejection algorithm: a sweep every 10 s, at most 10 % out, 30 s × ejections in a row.

    At least one host may be ejected whatever the percentage says, as the documentation had it up to version 1.13 and
    still has it as an option: without that nothing could ever be ejected of five.
    """

    def __init__(self, nodes: int) -> None:
        self._successes, self._failures = np.zeros((2, nodes))
        self._ejected = np.zeros(nodes, dtype=bool)
        self._until_s = np.zeros(nodes)
        self._times = np.zeros(nodes, dtype=np.int64)
        self._sweep_s: float | None = None

    def tick(self, now_s: float, signals: NodeSignals) -> Bools:
        """bool[N], the ejected nodes."""
        self._successes += signals.commits
        self._failures += signals.retries + signals.invalid + signals.shed
        if self._sweep_s is None:
            self._sweep_s = now_s
        if now_s - self._sweep_s >= INTERVAL_S:
            self._sweep_s = now_s
            self._sweep(now_s)
        return self._ejected.copy()

    def outliers(self, rate: Floats, volume: Floats) -> Bools:
        """bool[N], the hosts that stick out, from the share of successes and the number of requests of each."""
        raise NotImplementedError

    def _sweep(self, now_s: float) -> None:
        volume = self._successes + self._failures
        rate = self._successes / np.maximum(volume, 1.0)
        back = self._ejected & (self._until_s <= now_s)
        healthy = ~self._ejected
        self._ejected[back] = False
        outliers = self.outliers(rate, np.where(healthy, volume, 0.0))
        self._times[healthy & ~outliers & (self._times > 0)] -= 1
        for host in np.flatnonzero(outliers & healthy).tolist():
            if self._room():
                self._ejected[host] = True
                self._times[host] += 1
                self._until_s[host] = now_s + min(MAX_EJECTION_S, BASE_EJECTION_S * int(self._times[host]))
        self._successes[:] = self._failures[:] = 0.0

    def _room(self) -> bool:
        out = int(np.count_nonzero(self._ejected))
        return out == 0 or out + 1 <= MAX_EJECTION_SHARE * len(self._ejected)


class SuccessRateEjection(Ejection):
    """Ejects hosts below mean − 1.9 σ of the success rates of all hosts with at least 100 requests."""

    def outliers(self, rate: Floats, volume: Floats) -> Bools:
        """bool[N], those below the threshold; nobody where fewer than 5 hosts have enough requests."""
        counted = volume >= SUCCESS_RATE_REQUEST_VOLUME
        if np.count_nonzero(counted) < SUCCESS_RATE_MINIMUM_HOSTS:
            return np.zeros_like(counted)
        threshold = rate[counted].mean() - STDEV_FACTOR * rate[counted].std()
        below: Bools = counted & (rate < threshold)
        return below


class FailurePercentageEjection(Ejection):
    """Ejects hosts that fail in more than a fixed percentage of at least 50 requests."""

    def outliers(self, rate: Floats, volume: Floats) -> Bools:
        """bool[N], those beyond the threshold; nobody where fewer than 5 hosts have enough requests."""
        counted = volume >= FAILURE_PERCENTAGE_REQUEST_VOLUME
        if np.count_nonzero(counted) < FAILURE_PERCENTAGE_MINIMUM_HOSTS:
            return np.zeros_like(counted)
        beyond: Bools = counted & (100.0 * (1.0 - rate) >= FAILURE_PERCENTAGE)
        return beyond


class PhiAccrual:
    """Takes out whoever is suspected: φ, minus the logarithm of the chance that the next heartbeat is merely late.

    Every node's report arrives with every tick whatever ails it, so that its arrival is no sign of life. The heartbeat
    is work instead: a tick in which the node commits at least half of what arrived, or had nothing to do. A node that
    is out commits nothing and so has no heartbeat any more; a person would have to let it in again.
    """

    def __init__(self, nodes: int) -> None:
        first = np.array([[0.75], [1.25]]) * HEARTBEAT_S  # what is assumed before anything is known
        self._intervals = np.full((SAMPLES_MAX, nodes), np.nan)
        self._intervals[:2] = first
        self._count = np.full(nodes, 2)
        self._sum, self._squares = first.sum(0) + np.zeros(nodes), (first**2).sum(0) + np.zeros(nodes)
        self._beat_s = np.full(nodes, np.nan)

    def tick(self, now_s: float, signals: NodeSignals) -> Bools:
        """bool[N], the suspected nodes."""
        beating = signals.active & (signals.commits >= HEARTBEAT_SHARE * signals.arrivals)
        since_s = np.where(np.isnan(self._beat_s), 0.0, now_s - self._beat_s)
        suspected: Bools = self._phi(since_s) >= PHI_THRESHOLD
        # The first heartbeat after a failure is no sample of the usual intervals.
        self._learn(np.flatnonzero(beating & ~suspected & ~np.isnan(self._beat_s)), since_s)
        self._beat_s[beating] = now_s
        return suspected & ~beating

    def _phi(self, since_s: Floats) -> Floats:
        """float64[N], by the logistic approximation of the normal distribution's tail."""
        samples = np.minimum(self._count, SAMPLES_MAX)
        mean = self._sum / samples
        deviation = np.sqrt(np.maximum(self._squares / samples - mean**2, STDEV_MIN_S**2))
        y = np.minimum((since_s - mean - ACCEPTABLE_PAUSE_S) / deviation, 20.0)  # beyond it the tail is no float
        exponent = y * (1.5976 + 0.070566 * y**2)
        return np.asarray(np.logaddexp(0.0, exponent) / np.log(10.0))

    def _learn(self, nodes: NDArray[np.intp], since_s: Floats) -> None:
        place = self._count[nodes] % SAMPLES_MAX
        oldest = np.nan_to_num(self._intervals[place, nodes])
        new = since_s[nodes]
        self._intervals[place, nodes] = new
        self._sum[nodes] += new - oldest
        self._squares[nodes] += new**2 - oldest**2
        self._count[nodes] += 1
