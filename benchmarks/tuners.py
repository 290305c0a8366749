"""Other ways to tune the couplings online, as the healing benchmark sets them beside ours.

Each sees the published KPIs and sets λ1 and λ2; none knows a model. All wait for the same trigger, more than half of
the last ten ticks beyond a limit, and stop once the limits have held for as long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from metrics.observation import PARAMETER_BOUNDS, Parameters
from state.trial_window import ACTION_COST_MAX, COHERENCE_MIN, GAS_MIN

TRIGGER_TICKS = 10


class Tuner:
    """Watches the KPIs, and tunes while they ask for it; the public part is `tick` and `changes`."""

    def __init__(self) -> None:
        self.changes = 0
        self._broken: deque[bool] = deque(maxlen=TRIGGER_TICKS)
        self._active = False

    def tick(self, kpis: Mapping[str, float], parameters: Parameters) -> Parameters | None:
        """Take one tick in; the parameters to be put into force, None to leave them."""
        loss, violation = losses(kpis)
        self._broken.append(violation > 0.0)
        count = sum(self._broken)
        if not self._active and 2 * count > TRIGGER_TICKS:
            self._active = True
            self._begin(parameters, violation)
        elif self._active and count == 0:
            self._active = False
            return self._changed(parameters, self._rest(parameters))
        return self._changed(parameters, self._step(kpis, parameters, loss, violation)) if self._active else None

    def _changed(self, parameters: Parameters, wanted: Parameters | None) -> Parameters | None:
        if wanted is None or wanted == parameters:
            return None
        self.changes += 1
        return wanted

    def _begin(self, parameters: Parameters, violation: float) -> None:
        """The limits are broken from now on."""

    def _rest(self, parameters: Parameters) -> Parameters | None:
        """What to leave in force now that the limits hold; None for what is."""
        del parameters
        return None

    def _step(
        self, kpis: Mapping[str, float], parameters: Parameters, loss: float, violation: float
    ) -> Parameters | None:
        """What to put into force while they are broken."""
        raise NotImplementedError


class ConstantTuner(Tuner):
    """Leaves everything as it is."""

    def _step(
        self, kpis: Mapping[str, float], parameters: Parameters, loss: float, violation: float
    ) -> Parameters | None:
        del kpis, parameters, loss, violation
        return None


class Pid(Tuner):
    """A PI law in velocity form on the worst relative miss of a limit, for both couplings alike, with a rollback.

    It takes for granted that stronger coupling helps. If the violation is larger than at the start after a while, it
    goes back to where it came from, and waits.
    """

    PROPORTIONAL, INTEGRAL = 4.0, 0.25
    PATIENCE_TICKS, PAUSE_TICKS = 60, 60

    def __init__(self) -> None:
        super().__init__()
        self._error = 0.0
        self._good = Parameters()
        self._worse_than = math.inf
        self._age = self._pause = 0

    def _begin(self, parameters: Parameters, violation: float) -> None:
        self._good, self._worse_than, self._age, self._error = parameters, violation, 0, 0.0

    def _step(
        self, kpis: Mapping[str, float], parameters: Parameters, loss: float, violation: float
    ) -> Parameters | None:
        del loss
        self._age += 1
        if self._pause > 0:
            self._pause -= 1
            return None
        if self._age > self.PATIENCE_TICKS and violation > self._worse_than:
            self._age, self._pause, self._error = 0, self.PAUSE_TICKS, 0.0
            return self._good
        error = max(0.912 - kpis["coherence"], 0.959 - kpis["gas"], kpis["action_cost"] - 0.045)
        moved = self.PROPORTIONAL * (error - self._error) + self.INTEGRAL * error
        self._error = error
        return _scaled(parameters, moved, moved)


class ExtremumSeeking(Tuner):
    """Sinusoidal dither on the logarithms of both couplings, demodulated from the loss without its slow part."""

    AMPLITUDE, GAIN = 0.15, 4.0
    PERIODS_TICKS = (24.0, 36.0)
    WASHOUT_TICKS = 20.0
    LAG_TICKS = 8.0  # of the averaged KPIs behind the couplings
    STEP_MAX = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._centre = np.zeros(2)
        self._mean = 0.0
        self._age = 0

    def _begin(self, parameters: Parameters, violation: float) -> None:
        del violation
        self._centre = np.log([parameters.lambda1, parameters.lambda2])
        self._mean, self._age = math.nan, 0

    def _rest(self, parameters: Parameters) -> Parameters | None:
        return _at(parameters, self._centre)

    def _step(
        self, kpis: Mapping[str, float], parameters: Parameters, loss: float, violation: float
    ) -> Parameters | None:
        del kpis, violation
        self._age += 1
        self._mean = loss if math.isnan(self._mean) else self._mean + (loss - self._mean) / self.WASHOUT_TICKS
        waves = 2.0 * np.pi / np.array(self.PERIODS_TICKS)
        slope = (loss - self._mean) * np.sin(waves * (self._age - self.LAG_TICKS)) / self.AMPLITUDE
        self._centre -= np.clip(self.GAIN * slope / max(loss, 0.02) * 0.05, -self.STEP_MAX, self.STEP_MAX)
        self._centre = np.clip(self._centre, np.log(0.05), 0.0)
        return _at(parameters, self._centre + self.AMPLITUDE * np.sin(waves * self._age))


class OneOneCma(Tuner):
    """The (1+1)-CMA-ES on the logarithms of both couplings; each offspring settles, is measured, and is kept if better.

    Source: Igel, Suttorp and Hansen, "A computational efficient covariance matrix update and a (1+1)-CMA for evolution
    strategies", GECCO 2006.
    """

    SETTLE_TICKS, MEASURE_TICKS = 10, 15
    TARGET = 2.0 / 11.0
    DAMPING, SMOOTHING, PATH, LEARNING, THRESHOLD = 2.0, 1.0 / 12.0, 0.5, 0.25, 0.44

    def __init__(self) -> None:
        super().__init__()
        self._rng = np.random.default_rng(1)
        self._reset(np.zeros(2))

    def _reset(self, centre: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        self._parent = self._child = centre
        self._parent_loss = math.inf
        self._sigma, self._success = 0.35, self.TARGET
        self._covariance, self._evolution = np.eye(2), np.zeros(2)
        self._losses: list[float] = []
        self._age = 0

    def _begin(self, parameters: Parameters, violation: float) -> None:
        del violation
        self._reset(np.log([parameters.lambda1, parameters.lambda2]))
        self._age = self.SETTLE_TICKS

    def _rest(self, parameters: Parameters) -> Parameters | None:
        self._parent = self._child
        del parameters
        return None

    def _step(
        self, kpis: Mapping[str, float], parameters: Parameters, loss: float, violation: float
    ) -> Parameters | None:
        del kpis, violation
        self._age += 1
        if self._age > self.SETTLE_TICKS:
            self._losses.append(loss)
        if len(self._losses) < self.MEASURE_TICKS:
            return None
        self._judge(float(np.mean(self._losses)))
        self._child = np.clip(
            self._parent + self._sigma * np.linalg.cholesky(self._covariance) @ self._rng.standard_normal(2),
            np.log(0.05),
            0.0,
        )
        self._losses, self._age = [], 0
        return _at(parameters, self._child)

    def _judge(self, loss: float) -> None:
        better = loss <= self._parent_loss
        first = math.isinf(self._parent_loss)
        self._success += self.SMOOTHING * (float(better) - self._success)
        self._sigma *= math.exp((self._success - self.TARGET) / (1.0 - self.TARGET) / self.DAMPING)
        if better and not first:
            step = (self._child - self._parent) / self._sigma
            self._evolution = (1.0 - self.PATH) * self._evolution
            if self._success < self.THRESHOLD:
                self._evolution = self._evolution + math.sqrt(self.PATH * (2.0 - self.PATH)) * step
            self._covariance = (1.0 - self.LEARNING) * self._covariance + self.LEARNING * np.outer(
                self._evolution, self._evolution
            )
            self._covariance += 1e-6 * np.eye(2)
        if better:
            self._parent, self._parent_loss = self._child, loss


def losses(kpis: Mapping[str, float]) -> tuple[float, float]:
    """J without ΔΛ, which a change of the couplings moves by itself; and how far the limits are missed."""
    coherence, gas, cost = kpis["coherence"], kpis["gas"], kpis["action_cost"]
    missed = max(0.0, COHERENCE_MIN - coherence) + max(0.0, GAS_MIN - gas)
    return cost + 5.0 * abs(kpis["delta_entropy"]) + missed, missed + max(0.0, cost - ACTION_COST_MAX)


def _scaled(parameters: Parameters, local: float, system: float) -> Parameters:
    return _at(parameters, np.log([parameters.lambda1, parameters.lambda2]) + np.array([local, system]))


def _at(parameters: Parameters, logarithms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Parameters:
    lambda1, lambda2 = (
        float(np.clip(math.exp(value), *PARAMETER_BOUNDS[name]))
        for name, value in zip(("lambda1", "lambda2"), logarithms.tolist(), strict=True)
    )
    return replace(parameters, lambda1=lambda1, lambda2=lambda2)
