"""How much of the nodes' noise is their own, and how much comes with the coupling?

The variance of a node's noise is σ² + g σm² with g = K1² + K2². At one setting of the couplings only the sum shows; a
Kalman filter with the two as states learns the rest from every change of g, and is torn between two explanations only
as far as its memory of other settings has faded. Its prior is the healthy plant, and that σm² changes more easily.

Assumptions: both change slowly, or now and then by a step, which the filter notices by its own errors.
"""

from __future__ import annotations

import numpy as np

PRIOR = (0.18**2, 0.20**2)  # σ², σm² of the healthy plant
WANDER = (0.02, 0.10)  # standard deviation of what either changes by in a tick, as a share of its prior
DOUBT = (0.5, 2.0)  # the same of the prior itself
ERROR_TICKS = 5.0  # smoothing of the normalised squared error; a step raises it at once
ERROR_USUAL = 2.0  # up to which it is noise


class NoiseSplit:
    """The two variances.

    Attributes:
        state: float64[2], σ² and σm², never negative.
    """

    def __init__(self) -> None:
        prior = np.array(PRIOR)
        self.state = prior.copy()
        self._wander = np.diag((np.array(WANDER) * prior) ** 2)
        self._covariance = np.diag((np.array(DOUBT) * prior) ** 2)
        self._error = 1.0

    def total(self, g: float) -> float:
        """Variance of a node's noise at g = K1² + K2²."""
        return float(self.state[0] + g * self.state[1])

    def learn(self, variance: float, g: float, freedom: float) -> None:
        """Take in the variance of one tick, measured at `g` with so many degrees of freedom.

        The variance is half the mean square of differences of successive ticks; as each tick takes part in two
        differences, it is worth a third of its degrees of freedom.
        """
        regressor = np.array([1.0, g])
        wander = self._wander * max(1.0, self._error / ERROR_USUAL) ** 2
        covariance = self._covariance + wander
        along = covariance @ regressor
        expected = float(regressor @ self.state)
        doubt = float(regressor @ along) + 3.0 * max(expected, 1e-6) ** 2 / freedom
        error = variance - expected
        self._error += (error**2 / doubt - self._error) / ERROR_TICKS
        gain = along / doubt
        self.state = np.maximum(self.state + gain * error, 0.0)
        # Joseph's form stays symmetric and positive definite whatever rounding does.
        left = np.eye(2) - np.outer(gain, regressor)
        self._covariance = left @ covariance @ left.T + np.outer(gain, gain) * (doubt - float(regressor @ along))
