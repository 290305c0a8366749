"""How is the cluster doing? Its own key figures, from the totals of each tick.

A figure that averages over a window is NaN until the window has filled once (`WINDOW_TICKS`), because a half-filled one
would look like evidence. An exponential moving average counts as filled after its time constant. A figure that is
undefined at the moment (a cost per commit without commits) is NaN as well.

Source: docs/model.md section 2. Left out: what depends on the gravity field, which is not the plant's to judge.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.block import BlockKind, Header
from qecs.transactions import BURNED, SUCCESS_MAX

if TYPE_CHECKING:
    from qecs.parameters import Parameters

GAS_SAFE_MIN: Final = 0.90
"""Below this GAS the plant reports its own safe mode."""
RSI_SAFE_MIN: Final = 0.65
"""Below this RSI the plant reports its own safe mode."""

_SHORT_TICKS: Final = 15
_LONG_TICKS: Final = 30
_LAG_TICKS: Final = 10
_RSI_TICKS: Final = 60
_RSI_SCALE: Final = 0.20
_RETRY_COST: Final = 0.15
_COHERENCE_MIN: Final = 0.90
_GAS_MIN: Final = 0.95
_ENTROPY_WEIGHT: Final = 5.0
_TINY: Final = 1e-300

WINDOW_TICKS: Final[Mapping[str, int]] = {
    "coherence": _SHORT_TICKS,
    "gas": _SHORT_TICKS,
    "rsi": _RSI_TICKS,
    "action_cost": _SHORT_TICKS,
    "cost_effort": _SHORT_TICKS,
    "cost_retry": _SHORT_TICKS,
    "cost_shed": _SHORT_TICKS,
    "cost_invalid": _SHORT_TICKS,
    "lambda_opt": _LONG_TICKS,
    "delta_lambda": _LONG_TICKS + _LAG_TICKS,
    "entropy": _LONG_TICKS,
    "delta_entropy": _LONG_TICKS + _LAG_TICKS,
    "coherence_service": _SHORT_TICKS,
    "transaction_rate": _SHORT_TICKS,
    "governing_law": _LONG_TICKS + _LAG_TICKS,
    "objective": _LONG_TICKS + _LAG_TICKS,
    "gas_target": 1,
    "supply": 1,
    "emission": 1,
    "burned": 1,
    "committed": 1,
    "emission_total": 1,
    "burned_total": 1,
    "committed_total": 1,
}
"""Ticks after which each figure is first defined."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What one tick amounted to.

    Attributes:
        coherence: raw C, as the phase sensors see it.
        gas: raw GAS, likewise.
        contraction: raw λ_opt, K1 Σ n_c R_c²/n + K2 C².
        effort: Q·n, transaction-equivalents.
        commits: ΣY.
        retries: ΣF.
        shed: ΣX.
        invalid: ΣV.
        entropy: H.
        gas_target: GT.
        supply: S after the tick, tokens.
        emission: minted in the tick, tokens.
        burned: burned in the tick, tokens.
    """

    coherence: float
    gas: float
    contraction: float
    effort: float
    commits: int
    retries: int
    shed: int
    invalid: int
    entropy: float
    gas_target: float
    supply: int
    emission: int
    burned: int


@dataclass(frozen=True, slots=True)
class History:
    """Sums since genesis, up to the block at `height`.

    Attributes:
        height: latest block that is counted.
        emission: minted, tokens.
        burned: burned, tokens.
        committed: committed transactions, single ones included.
    """

    height: int = 0
    emission: int = 0
    burned: int = 0
    committed: int = 0

    def after(self, header: Header) -> History:
        """The sums after one more block."""
        commits = header.burn // BURNED if header.kind is BlockKind.TICK else 1
        return History(
            height=header.height,
            emission=self.emission + header.emission,
            burned=self.burned + header.burn,
            committed=self.committed + commits,
        )


def shannon_entropy(activity: NDArray[np.float64], active: int) -> float:
    """Entropy of the shares of `activity` (not negative, shape (N,)), relative to that of `active` equal shares."""
    total = float(activity.sum())
    if total <= 0.0 or active <= 1:
        return 0.0
    # x·ln x goes to 0 with x, where the bare formula would be 0·(−∞).
    terms = np.log(np.maximum(activity, _TINY))
    terms *= activity
    return (math.log(total) - float(terms.sum()) / total) / math.log(active)


class KpiTracker:
    """Turns the totals of each tick into the published figures, in time that does not depend on the nodes."""

    def __init__(self) -> None:
        self._ticks = 0
        self._short: dict[str, float] = {}
        self._contraction = math.nan
        self._lambda_opt: deque[float] = deque(maxlen=_LAG_TICKS + 1)
        self._entropy: deque[float] = deque(maxlen=_LAG_TICKS + 1)
        self._coherence: deque[float] = deque(maxlen=_RSI_TICKS)

    def update(self, totals: Totals, history: History, parameters: Parameters) -> dict[str, float]:
        """The figures after one more tick; keys are those of `WINDOW_TICKS`."""
        self._ticks += 1
        figures = self._short_averages(totals) | self._lagged(totals)
        self._coherence.append(totals.coherence)
        figures["rsi"] = _steadiness(self._coherence)
        figures["governing_law"] = (
            figures["action_cost"]
            + parameters.lambda1 * figures["delta_lambda"]
            + parameters.lambda2 * figures["delta_entropy"]
        )
        figures["objective"] = objective(figures)
        figures["gas_target"] = totals.gas_target
        figures["supply"] = float(totals.supply)
        figures["emission"] = float(totals.emission)
        figures["burned"] = float(totals.burned)
        figures["committed"] = float(totals.commits)
        figures["emission_total"] = float(history.emission)
        figures["burned_total"] = float(history.burned)
        figures["committed_total"] = float(history.committed)
        return {name: figures[name] if self._ticks >= window else math.nan for name, window in WINDOW_TICKS.items()}

    def _short_averages(self, totals: Totals) -> dict[str, float]:
        attempts = totals.commits + totals.retries
        served = totals.commits / attempts if attempts else 0.0
        raw = {
            "coherence": totals.coherence,
            "gas": totals.gas,
            "cost_effort": totals.effort,
            "cost_retry": _RETRY_COST * totals.retries,
            "cost_shed": float(totals.shed),
            "cost_invalid": float(totals.invalid),
            "coherence_service": 2.0 * (served / SUCCESS_MAX) ** (1.0 / 3.0) - 1.0,
            "transaction_rate": float(totals.commits),
        }
        for name, value in raw.items():
            last = self._short.get(name, value)
            self._short[name] = last + (value - last) / _SHORT_TICKS
        figures = dict(self._short)
        cost = figures["cost_effort"] + figures["cost_retry"] + figures["cost_shed"] + figures["cost_invalid"]
        commits = figures["transaction_rate"]
        figures["action_cost"] = cost / commits if commits > 0.0 else math.nan
        return figures

    def _lagged(self, totals: Totals) -> dict[str, float]:
        """Slow figures and how far they moved within the lag."""
        if math.isnan(self._contraction):
            self._contraction = totals.contraction
        self._contraction += (totals.contraction - self._contraction) / _LONG_TICKS
        self._lambda_opt.append(self._contraction)
        self._entropy.append(totals.entropy)
        return {
            "lambda_opt": self._contraction,
            "delta_lambda": abs(self._lambda_opt[-1] - self._lambda_opt[0]),
            "entropy": totals.entropy,
            "delta_entropy": abs(self._entropy[-1] - self._entropy[0]),
        }


def objective(figures: Mapping[str, float]) -> float:
    """J, by which tuners are judged: fixed weights, so that no tuner can win by changing them."""
    return (
        figures["action_cost"]
        + figures["delta_lambda"]
        + _ENTROPY_WEIGHT * figures["delta_entropy"]
        + max(_COHERENCE_MIN - figures["coherence"], 0.0)
        + max(_GAS_MIN - figures["gas"], 0.0)
    )


def _steadiness(coherence: Sequence[float]) -> float:
    """RSI of up to 60 raw values of C: 1 minus spread and trend, floored at 0."""
    values = list(coherence)
    count, half = len(values), len(values) // 2
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / count)
    trend = abs(sum(values[half:]) / (count - half) - sum(values[:half]) / max(half, 1))
    return max(0.0, 1.0 - (spread + trend) / _RSI_SCALE)
