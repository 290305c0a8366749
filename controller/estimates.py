"""What would a change do to each KPI, how sure is that, and from where is it known?

Three sources, never mixed: the gray box, which predicts the KPIs under other couplings (docs/haru.md); trials of this
run in the same direction; and backtests of this run's own telemetry, for settings (docs/backtest.md). A KPI of which
the source says nothing is not estimated, and says so.

Assumptions behind the intervals: errors are normal, and KPIs that are smoothed over 15 ticks are worth one sample in
that time. What the model was off by of late may go away with the change, or stay, or anything between: where a plant
is out of lock the model says too little of it, and of what it will be like in lock again nearly the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np

from controller.record import RunRecord
from metrics.haru.plant_model import Environment
from metrics.haru.tuning import Outlook, outlook, regretted
from metrics.observation import Parameters
from state.trial_window import SMOOTHING_TICKS

Z_90 = 1.645  # of a normal distribution, for an interval that holds 90 %
LATE_TICKS = 30  # as long as a KPI has to be outside its limits before that counts as lasting
MODEL_ERROR = 0.003  # of a prediction in lock: docs/haru.md, "Plant model"
PREDICTED = ("coherence", "gas", "action_cost")
MEASURED = ("objective", "violation", "coherence", "action_cost")
REPLAYED = ("isolations", "blocked", "storms", "exposure_node_s", "collateral_node_s")
LEVELS = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Effect:
    """An expected change with its 90 % interval; without one where the source knows no error."""

    change: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Sure:
    """How much of something, "low", "medium" or "high", and why."""

    level: str
    because: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a change is expected to do.

    Attributes:
        method: "gray_box", "trials", "backtest" or "none".
        basis: what it stands on, for people; for "none" why nothing is estimated.
        effects: by KPI, or figure of a backtest.
        confidence: in the estimate.
        bias: by how much the model was off of late, by KPI; empty for other methods.
    """

    method: str
    basis: str
    effects: Mapping[str, Effect] = field(default_factory=dict)
    confidence: Sure = Sure("low", "nothing is known of it")
    bias: Mapping[str, float] = field(default_factory=dict)

    @property
    def worse(self) -> bool:
        """Whether the violation is expected to rise, and beyond the noise where that is known."""
        violation = self.effects.get("violation")
        return violation is not None and (violation.change if violation.low is None else violation.low) > 0.0

    def document(self, kpis: Iterable[str]) -> dict[str, object]:
        """As JSON values; each of `kpis` that is not estimated is null."""
        known = {name: asdict(effect) for name, effect in self.effects.items()}
        return {
            "estimated": self.method != "none",
            "method": self.method,
            "basis": self.basis,
            "effects": {**{name: known.get(name) for name in kpis}, **known},
            "bias": dict(self.bias),
            "confidence": asdict(self.confidence),
        }


def not_estimated(because: str = "nothing that this run saw tells its effect") -> Estimate:
    """That nothing is known, and why."""
    return Estimate("none", f"not estimated: {because}")


def predicted(
    environment: Environment, before: Parameters, after: Parameters, record: RunRecord, trust: float
) -> Estimate:
    """What the gray box expects of `after` instead of `before` in an environment."""
    present, expected = outlook(environment, before), outlook(environment, after)
    bias = asdict(environment.bias)
    effects = {}
    for name in PREDICTED:
        now, error = _of_late(record, name) or (_of(present, name), 0.0)
        half = abs(bias[name]) / 2.0 + MODEL_ERROR + Z_90 * math.sqrt(2.0) * error
        effects[name] = _within(_of(expected, name) - bias[name] / 2.0 - now, half)
    gain, errors = present.objective - expected.objective, sum(map(abs, bias.values()))
    effects["objective"] = _within(-gain, errors)
    beyond = regretted(environment, before, after)
    told = f"the gain of {gain:.4f} in the objective is {'' if beyond else 'not '}beyond the model's errors of late"
    level = LEVELS[int(beyond) + int(beyond and trust >= 1.0)]
    return Estimate(
        "gray_box",
        f"what the model predicts in the environment as identified, less the mean of the last {LATE_TICKS} ticks; from "
        f"the prediction without the model's error of late to that with all of it, and {MODEL_ERROR:g} and {Z_90} "
        "standard errors of a difference further each way",
        # Where the model expects that nothing commits, I_eff is infinite, and no change from it is a number.
        {name: item for name, item in effects.items() if math.isfinite(item.change)},
        Sure(level, f"{told} ({errors:.4f} in all); trust in it after earlier trials is {trust:g} of 1"),
        bias,
    )


def measured(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], basis: str) -> Estimate:
    """Mean change between pairs of windows, before and after a trial; at least one pair."""
    count = len(pairs)
    effects = {}
    for name in MEASURED:
        change = sum(after[name] - before[name] for before, after in pairs) / count
        errors = [window.get(f"{name}_se", math.nan) for pair in pairs for window in pair]
        spread = Z_90 * math.sqrt(sum(error**2 for error in errors)) / count
        effects[name] = _within(change, spread) if math.isfinite(spread) else Effect(change)
    found = Estimate("trials", basis, effects)
    high = effects["violation"].high
    if found.worse:
        level, told = "low", "rose beyond"
    elif high is not None and high < 0.0:
        level, told = "high", "fell beyond"
    else:
        level, told = "medium", "did not change beyond"
    return replace(found, confidence=Sure(level, f"the violation {told} the noise of {count} trial(s)"))


def replayed(now: Mapping[str, Any], then: Mapping[str, Any], basis: str) -> Estimate:
    """The difference between two outcomes of `backtest.judge`, with the settings in force and with others."""
    before, after = (cast("Mapping[str, float]", outcome["totals"]) for outcome in (now, then))
    return Estimate(
        "backtest",
        basis,
        {name: Effect(float(after[name] - before[name])) for name in REPLAYED},
        Sure("medium", "exact for what was recorded, but a recording cannot react to what would have been done"),
    )


def _of(seen: Outlook, name: str) -> float:
    return seen.as_dict()[name]


def _within(change: float, half: float) -> Effect:
    return Effect(change, change - half, change + half)


def _of_late(record: RunRecord, name: str) -> tuple[float, float] | None:
    """Mean of a KPI over its last known ticks, with its standard error; None where there are fewer than two."""
    known = [value for value in record.history.values.get(name, ()) if math.isfinite(value)][-LATE_TICKS:]
    if len(known) < 2:  # noqa: PLR2004 - a single value has no spread
        return None
    return float(np.mean(known)), float(np.std(known, ddof=1)) / math.sqrt(max(2.0, len(known) / SMOOTHING_TICKS))
