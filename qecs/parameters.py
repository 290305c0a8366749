"""Which settings of the cluster may a governor change, and within which bounds?

A set of parameters is a value: it is checked as a whole when it is made, so that whatever holds one may use it unasked.
The environment (demand, prices, noise) is not here, since nobody governs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from qecs.errors import InvalidRequestError

BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "lambda1": (0.01, 1.0),
    "lambda2": (0.01, 1.0),
    "alpha": (0.0, 2.0),
    "action_cost_limit": (0.001, 1.0),
}
"""Inclusive bounds of each parameter. The limit of the action cost stays above zero: at zero all coupling ends."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The tunable parameters. Source: docs/model.md section 1.

    Attributes:
        lambda1: coupling of a node to its cluster, λ1.
        lambda2: coupling of a node to the system and its beacon, λ2.
        alpha: gain of the emission law (CAF), α.
        action_cost_limit: share of the offered load that synchronisation may cost, I_lim.

    Raises:
        InvalidRequestError: a value is no number or is out of `BOUNDS`; the message lists all of them.
    """

    lambda1: float = 0.30
    lambda2: float = 0.35
    alpha: float = 1.0
    action_cost_limit: float = 0.05

    def __post_init__(self) -> None:
        problems = [
            problem
            for field in fields(self)
            if (problem := _problem(field.name, getattr(self, field.name))) is not None
        ]
        if problems:
            raise InvalidRequestError("parameters: " + "; ".join(problems))

    def to_dict(self) -> dict[str, float]:
        """The parameters as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`; a missing key takes its default.

        Raises:
            InvalidRequestError: a key is unknown, or a value is refused.
        """
        unknown = sorted(set(data) - set(BOUNDS))
        if unknown:
            raise InvalidRequestError(f"parameters: unknown {', '.join(unknown)}; known are {', '.join(BOUNDS)}")
        return cls(**data)


def _problem(name: str, value: object) -> str | None:
    low, high = BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} must be a number, not {value!r}"
    # The comparison also refuses NaN, the infinities, and integers too large for a float.
    if not low <= value <= high:
        return f"{name} must be within {low} and {high}, not {value}"
    return None
