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

_WANDERED = tuple((share * prior) ** 2 for share, prior in zip(WANDER, PRIOR, strict=True))


class NoiseSplit:
    """The two variances.

    Attributes:
        state: float64[2], σ² and σm², never negative.
    """

    def __init__(self) -> None:
        self.state = np.array(PRIOR)
        self._variances = tuple((share * prior) ** 2 for share, prior in zip(DOUBT, PRIOR, strict=True))
        self._covariance = 0.0
        self._error = 1.0

    def total(self, g: float) -> float:
        """Variance of a node's noise at g = K1² + K2²."""
        return float(self.state[0] + g * self.state[1])

    def learn(self, variance: float, g: float, freedom: float) -> None:
        """Take in the variance of one tick, measured at `g` with so many degrees of freedom.

        The variance is half the mean square of differences of successive ticks; as each tick takes part in two
        differences, it is worth a third of its degrees of freedom.
        """
        own, coupled = self.state.tolist()
        faster = max(1.0, self._error / ERROR_USUAL) ** 2
        p_own, p_coupled = (known + faster * wander for known, wander in zip(self._variances, _WANDERED, strict=True))
        p_both = self._covariance
        # What the measurement, own + g · coupled, has in common with either.
        with_own, with_coupled = p_own + g * p_both, p_both + g * p_coupled
        expected = own + g * coupled
        noise = 3.0 * max(expected, 1e-6) ** 2 / freedom
        doubt = with_own + g * with_coupled + noise
        error = variance - expected
        self._error += (error**2 / doubt - self._error) / ERROR_TICKS
        gain_own, gain_coupled = with_own / doubt, with_coupled / doubt
        self.state = np.array([max(own + gain_own * error, 0.0), max(coupled + gain_coupled * error, 0.0)])
        # Joseph's form, (I − k hᵀ) P (I − k hᵀ)ᵀ + k kᵀ noise, stays positive definite whatever rounding does.
        left_own, left_both = p_own - gain_own * with_own, p_both - gain_own * with_coupled
        right_both, left_coupled = p_both - gain_coupled * with_own, p_coupled - gain_coupled * with_coupled
        of_own, of_coupled = left_own + g * left_both, right_both + g * left_coupled
        self._variances = (
            left_own - gain_own * of_own + gain_own**2 * noise,
            left_coupled - gain_coupled * of_coupled + gain_coupled**2 * noise,
        )
        self._covariance = left_both - gain_coupled * of_own + gain_own * gain_coupled * noise
