"""How many tokens does a tick mint, and who gets them? The coherence augmentation function (CAF).

Emission rewards coherence above a slow target. It is proportional to the *initial* supply: in proportion to the present
one it would grow exponentially. What flooring does not mint is carried to the next tick, never lost.

Source: docs/model.md section 1.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qecs.flows import EmissionInputs
from qecs.transactions import floor_shares

GOLDEN_RATIO: Final = (1.0 + math.sqrt(5.0)) / 2.0
EMISSION_RATE: Final = 0.0103
"""Share of the initial supply that a CAF of 1 mints in a second."""
TARGET_INITIAL: Final = 0.935

_COHERENCE_TICKS: Final = 30
_TARGET_TICKS: Final = 300
_TARGET_MARGIN: Final = 0.03
_TARGET_MIN: Final = 0.90
_TARGET_MAX: Final = 0.99


def wanted_emission(inputs: EmissionInputs) -> float:
    """Tokens that a tick should mint, the carry included; whole tokens of it are minted where nodes are eligible."""
    if inputs.coherence_30 <= inputs.gas_target:
        return inputs.carry
    reward = inputs.alpha * math.log(inputs.coherence_30 / inputs.gas_target) / GOLDEN_RATIO
    return EMISSION_RATE * reward * inputs.supply_genesis + inputs.carry


class Emission:
    """The CAF's memory: smoothed coherence, target and carry.

    Args:
        supply_genesis: S0, tokens.
    """

    def __init__(self, supply_genesis: int) -> None:
        self._supply_genesis = supply_genesis
        self._coherence_30 = math.nan
        self._target = TARGET_INITIAL
        self._carry = 0.0

    def inputs(self, coherence: float, alpha: float) -> EmissionInputs:
        """What the emission of a tick with this raw coherence follows from."""
        smoothed = coherence
        if not math.isnan(self._coherence_30):
            smoothed = self._coherence_30 + (coherence - self._coherence_30) / _COHERENCE_TICKS
        return EmissionInputs(
            coherence_30=smoothed,
            gas_target=self._target,
            supply_genesis=self._supply_genesis,
            alpha=alpha,
            carry=self._carry,
        )

    def record(self, inputs: EmissionInputs, minted: int) -> None:
        """Goes on from a tick that had these inputs and has minted that many tokens."""
        self._coherence_30 = inputs.coherence_30
        goal = min(max(inputs.coherence_30 - _TARGET_MARGIN, _TARGET_MIN), _TARGET_MAX)
        self._target = inputs.gas_target + (goal - inputs.gas_target) / _TARGET_TICKS
        self._carry = wanted_emission(inputs) - minted


def mint(inputs: EmissionInputs, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Splits the wanted emission in floors.

    Args:
        inputs: those of the tick.
        weights: float64, shape (N,), not negative: max(0, cos θ) of the eligible nodes, else 0.

    Returns:
        int64, shape (N,): tokens minted for each node.
    """
    return floor_shares(wanted_emission(inputs), weights)
