"""Linear regression that learns from one row at a time and forgets, for many series at once, without ever blowing up.

Kept are the normal equations in information form, R θ = b, where each row adds to R and b and everything older fades:

    R ← f R + φ φᵀ + (1 − f) R₀,   b ← f b + φ y,   f = 1 − 1/memory.

R₀, the regularisation, is let in again as fast as the data fade. R therefore never falls below R₀, in no direction,
however long nothing excites it, and nothing is ever subtracted: the equations stay solvable and rounding errors fade
like data do. This is what plain recursive least squares lacks, whose covariance grows without bound where a regressor
stands still ("wind-up"). Coefficients that nothing supports fade to 0.

Source: L. Ljung, T. Söderström, "Theory and Practice of Recursive Identification", 1983, section 5.6 (regularisation);
R. M. Johnstone et al., "Exponential convergence of recursive least squares with exponential forgetting factor", 1982.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]


class ForgettingRegression(Persistent):
    """One regression for each of `series` series, of the same number of features.

    Args:
        series: K.
        features: d.
        ridge: weight of the regularisation in rows: so many rows of unit features count as much as it does.

    Attributes:
        information: float64[K, d, d], R.
        moment: float64[K, d], b.
        coefficients: float64[K, d], θ.

    >>> regression = ForgettingRegression(series=1, features=1, ridge=1e-6)
    >>> for x in (1.0, 2.0, 3.0):
    ...     regression.learn(np.array([[x]]), np.array([2.0 * x]), np.array([1.0]), np.array([100.0]))
    >>> regression.coefficients.round(3)
    array([[2.]])
    """

    def __init__(self, series: int, features: int, *, ridge: float) -> None:
        self._ridge = ridge * np.eye(features)
        self.information = np.repeat(self._ridge[np.newaxis], series, axis=0)
        self.moment = np.zeros((series, features))
        self.coefficients = np.zeros((series, features))

    def predict(self, features: Floats) -> Floats:
        """float64[K], φᵀθ for features float64[K, d]."""
        said: Floats = np.einsum("kd,kd->k", features, self.coefficients)
        return said

    def learn(self, features: Floats, target: Floats, weight: Floats, memory: Floats) -> None:
        """Take in a row for each series.

        Args:
            features: float64[K, d], φ.
            target: float64[K], y; finite.
            weight: float64[K], 0 to 1; a series of weight 0 neither learns nor forgets.
            memory: float64[K], rows after which one has faded to 1/e.
        """
        fade = np.where(weight > 0.0, 1.0 / memory, 0.0)
        kept = 1.0 - fade
        weighted = weight[:, np.newaxis] * features
        self.information *= kept[:, np.newaxis, np.newaxis]
        self.information += weighted[:, :, np.newaxis] * features[:, np.newaxis, :]
        self.information += fade[:, np.newaxis, np.newaxis] * self._ridge
        self.moment *= kept[:, np.newaxis]
        self.moment += weighted * target[:, np.newaxis]
        self.coefficients[...] = np.linalg.solve(self.information, self.moment[:, :, np.newaxis])[:, :, 0]

    def forget(self, series: NDArray[np.intp], features: slice) -> None:
        """Start some series' coefficients of some features afresh, because the features mean something else now."""
        for k in series:
            self.information[k, features, :] = 0.0
            self.information[k, :, features] = 0.0
            self.information[k, features, features] = self._ridge[features, features]
            self.moment[k, features] = 0.0
            self.coefficients[k, features] = 0.0
