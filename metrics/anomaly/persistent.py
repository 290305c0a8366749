"""How does a learned state survive a restart? As plain named arrays, copied out and copied back bit for bit.

Assumptions: everything an object learns is a numpy array (or an object that keeps to this rule) in a public attribute;
everything else follows from its constructor's arguments.
Leaves out: where the arrays are kept (``numpy.savez`` or a store's blob will do) and migrations between layouts.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[Any]]


class StateMismatchError(ValueError):
    """A saved state does not fit the object that should take it over.

    Attributes:
        field: name of the first array that does not fit.
    """

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(
            f"saved state does not fit: {field!r} should be {expected}, got {got}; "
            "restore into a detector of the same number of series, or start afresh"
        )
        self.field = field


class Persistent:
    """Gives ``state()`` and ``restore()`` to a class whose learned state is in public array attributes."""

    def state(self) -> Arrays:
        """A copy of every learned array, nested ones under ``outer.inner``."""
        out: Arrays = {}
        for name, value in self._learned():
            if isinstance(value, Persistent):
                out.update({f"{name}.{inner}": array for inner, array in value.state().items()})
            else:
                out[name] = value.copy()
        return out

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continues from ``state`` exactly as the object that gave it would have.

        Raises:
            StateMismatchError: an array is missing, unknown, or of another shape or type; nothing is changed then.
        """
        own = self.state()
        for name in own.keys() ^ state.keys():
            raise StateMismatchError(name, *(("absent", "an array") if name in state else ("an array", "nothing")))
        for name, array in own.items():
            expected, got = _describe(array), _describe(np.asarray(state[name]))
            if expected != got:
                raise StateMismatchError(name, expected, got)
        self._take(state, "")

    def _learned(self) -> list[tuple[str, Any]]:
        return [
            (name, value)
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, Persistent | np.ndarray)
        ]

    def _take(self, state: Mapping[str, NDArray[Any]], prefix: str) -> None:
        for name, value in self._learned():
            if isinstance(value, Persistent):
                value._take(state, f"{prefix}{name}.")  # noqa: SLF001 - the same family of objects
            else:
                value[...] = state[prefix + name]


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype}{array.shape}"
