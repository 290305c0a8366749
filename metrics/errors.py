"""The `IaceError` family: what went wrong, named by what the caller should do next.

Every error of the three governing packages descends from `IaceError`, carries its values as attributes, and says what
was expected, what came and what to do. Which exit code an error means is decided in one place, `state/outcome.py`.
"""

from __future__ import annotations

from collections.abc import Sequence


class IaceError(Exception):
    """Root of the family: an error that was foreseen and can be explained without a traceback."""


class ConfigInvalidError(IaceError):
    """The configuration cannot be used; `problems` lists every fault at once, each with its path."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{source}: {len(self.problems)} problem(s):\n{listed}")


class BadDataError(IaceError):
    """A file that was handed to us (scenario, replay, journal) cannot be read; repair or replace it."""


class RecordingEndedError(IaceError):
    """A recorded plant has no further tick: what is not known by now stays unknown."""


class PlantError(IaceError):
    """Something between us and the governed system."""


class PlantUnavailableError(PlantError):
    """The plant did not answer, or not in time, or not intelligibly: try again later; the effect is unknown."""


class PlantRefusedError(PlantError):
    """The plant answered no, in `reason`: repeating the same request cannot succeed."""

    def __init__(self, request: str, reason: str) -> None:
        self.request = request
        self.reason = reason
        super().__init__(f"the plant refused {request}: {reason}")


class UnsupportedError(PlantError):
    """The plant lacks the capability that was asked for: skip, and say so."""

    def __init__(self, capability: str) -> None:
        self.capability = capability
        super().__init__(f"the plant does not offer {capability}")


class StoreFailedError(IaceError):
    """The journal or a time-series store cannot be read or written: free space or repair it, then start again."""


class RequestRefusedError(IaceError):
    """A running daemon said no to what it was asked, or told, to do: read why."""


class NotPermittedError(IaceError):
    """The operating system or the API refused permission."""


class NotLeaderError(IaceError):
    """Another controller holds the lease or the data directory: stop acting."""


class InvariantBreachError(IaceError):
    """Something that must always hold did not: a bug. `invariant` is the function's name, `detail` the values."""

    def __init__(self, invariant: str, detail: str) -> None:
        self.invariant = invariant
        self.detail = detail
        super().__init__(f"invariant {invariant} does not hold: {detail}")
