"""What does the cluster know of its own phases? What its sensors read, faults included.

The published figures follow from the readings; the dynamics, being physics, from the true phases. A node's own report
adds a little telemetry noise to its reading. A stealthy node lies in its report only: the fields still contain its true
phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.dynamics import OrderParameters, PhaseField, order_parameters, wrap
from qecs.noise import Noise, Stream

if TYPE_CHECKING:
    from qecs.effects import Effects
    from qecs.membership import Membership
    from qecs.standing import Standing

_REPORT_NOISE: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What is known of the phases after a tick.

    Attributes:
        reported: float64, shape (N,), rad within [−π, π]: what the nodes report, isolated ones included.
        fields: mean fields as the sensors see them.
    """

    reported: NDArray[np.float64]
    fields: OrderParameters


class Sensors:
    """The phase sensors of all nodes."""

    def __init__(self, membership: Membership, noise: Noise) -> None:
        self._membership = membership
        self._noise = noise
        self._scratch = np.empty(membership.nodes)

    def read(
        self, tick: int, field: PhaseField, fields: OrderParameters, standing: Standing, effects: Effects
    ) -> Reading:
        """Reads all phases.

        Args:
            tick: names the noise.
            field: the true phases.
            fields: their mean fields.
            standing: weights of the nodes in the fields.
            effects: errors of the sensors, and who lies.
        """
        reported = self._noise.normal(Stream.REPORT, tick, np.empty_like(field.phase))
        reported *= _REPORT_NOISE
        error = self._error(tick, effects)
        if error is None:
            reported += field.phase
            seen = fields
        else:
            error += field.phase
            reported += error
            seen = order_parameters(np.cos(error), np.sin(error), standing.weight, self._membership, self._scratch)
        if effects.lying is not None:
            noise = self._noise.normal(Stream.REPORT, tick, self._scratch)
            aligned = self._membership.spread(np.angle(fields.of_cluster)) + _REPORT_NOISE * noise
            np.copyto(reported, aligned, where=effects.lying)
        return Reading(reported=wrap(reported, self._scratch), fields=seen)

    def _error(self, tick: int, effects: Effects) -> NDArray[np.float64] | None:
        """Errors of the sensors in rad, a new array, or None where all are sound."""
        if effects.sensor_noise is None:
            return None if effects.sensor_offset is None else effects.sensor_offset.copy()
        error = self._noise.normal(Stream.SENSOR_NOISE, tick, np.empty_like(effects.sensor_noise))
        error *= effects.sensor_noise
        if effects.sensor_offset is not None:
            error += effects.sensor_offset
        return error
