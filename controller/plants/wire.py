"""What did the server say, to the letter? Strict reading of JSON that nobody has vouched for.

A value of the wrong kind never passes for another: "0.97" and true are not numbers. Where a number is evidence, what
is not a finite number is NaN, "not known"; where the answer cannot be used without it, the answer is unintelligible and
the plant unavailable. `json.loads` alone would let duplicate keys pass and raise RecursionError on deep nesting.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metrics.errors import PlantUnavailableError

WHOLE_MAX: Final = 2**63 - 1
TICK_MAX: Final = 2**53
"""No plausible plant has ticked more often, and every tick up to here is exact as a float."""
TIME_MAX_S: Final = 9e9
"""Plant time beyond this does not fit into 64-bit nanoseconds, in which it is stored."""
_NUMERIC: Final = frozenset({int, float, NoneType})


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object, and where it came from, so that every complaint can name the place.

    Each reader raises `PlantUnavailableError` where the field is missing or of another kind.
    """

    where: str
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A string."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self.unintelligible(name, "a string", value)
        return value

    def whole(self, name: str, low: int = 0, high: int = WHOLE_MAX) -> int:
        """A whole number within `low` and `high`."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.unintelligible(name, f"a whole number from {low} to {high}", value)
        return value

    def finite(self, name: str, low: float, high: float) -> float:
        """A number within `low` and `high`."""
        number = self.number(name)
        if not low <= number <= high:
            raise self.unintelligible(name, f"a number from {low:g} to {high:g}", self.values.get(name))
        return number

    def number(self, name: str) -> float:
        """A finite number, or NaN for anything else: evidence that is not known."""
        return as_number(self.values.get(name))

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.unintelligible(name, "true or false", value)
        return value

    def fields(self, name: str) -> Fields:
        """A nested object."""
        return as_fields(self.values.get(name), f"{self.where}, {name}")

    def array(self, name: str, count_max: int) -> list[Any]:
        """A list of at most `count_max` entries."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > count_max:
            raise self.unintelligible(name, f"a list of at most {count_max} entries", value)
        return value

    def texts(self, name: str, count_max: int) -> tuple[str, ...]:
        """A list of different strings."""
        found = self.array(name, count_max)
        if not set(map(type, found)) <= {str} or len(set(found)) < len(found):
            raise self.unintelligible(name, "a list of different strings", found)
        return tuple(found)

    def floats(self, name: str, count: int) -> NDArray[np.float64]:
        """float64[count]: one number an entry, NaN for each that is not a finite number."""
        found = self._exactly(name, count)
        if not set(map(type, found)) <= _NUMERIC:
            found = [as_number(value) for value in found]
        try:
            numbers = np.array(found, dtype=np.float64)
        except OverflowError:  # a whole number beyond all floats
            numbers = np.array([as_number(value) for value in found], dtype=np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        return numbers

    def flags(self, name: str, count: int) -> NDArray[np.bool_]:
        """bool[count]."""
        found = self._exactly(name, count)
        if not set(map(type, found)) <= {bool}:
            raise self.unintelligible(name, f"a list of {count} times true or false", found)
        return np.array(found, dtype=np.bool_)

    def indices(self, name: str, count: int, below: int) -> NDArray[np.int32]:
        """int32[count], each from 0 to below `below`."""
        found = self._exactly(name, count)
        if not set(map(type, found)) <= {int} or (found and not 0 <= min(found) <= max(found) < below):
            raise self.unintelligible(name, f"{count} whole numbers from 0 to below {below}", found)
        return np.array(found, dtype=np.int32)

    def unintelligible(self, name: str, expected: str, came: object) -> PlantUnavailableError:
        """The error for a field that cannot be used."""
        came_text = excerpt(reprlib.repr(came)) if name in self.values else "nothing"
        return PlantUnavailableError(
            f"{self.where}: expected {name} to be {expected}, but {came_text} came; "
            "see whether that server is a QECS plant of a version we know"
        )

    def _exactly(self, name: str, count: int) -> list[Any]:
        found = self.array(name, count)
        if len(found) != count:
            raise self.unintelligible(name, f"a list of {count} entries", found)
        return found


def parse_fields(body: bytes, where: str) -> Fields:
    """The JSON object in an answer's body.

    Raises:
        PlantUnavailableError: it is not UTF-8, not JSON, has a key twice, is nested too deeply, or is not an object.
    """
    try:
        # NaN and the infinities are no JSON, but servers that write them mean "not known".
        value = json.loads(body.decode("utf-8"), parse_constant=lambda _: None, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PlantUnavailableError(
            f"{where}: expected JSON, but {excerpt(body[:1000].decode('utf-8', 'replace'))!r} came "
            f"({excerpt(str(error))}); see what listens there"
        ) from error
    return as_fields(value, where)


def as_fields(value: object, where: str) -> Fields:
    """`value` as an object.

    Raises:
        PlantUnavailableError: it is something else.
    """
    if not isinstance(value, dict):
        raise PlantUnavailableError(
            f"{where}: expected a JSON object, but {excerpt(reprlib.repr(value))} came; see what listens there"
        )
    return Fields(where, value)


def as_number(value: object) -> float:
    """A finite number as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def excerpt(text: str, characters: int = 200) -> str:
    """The beginning of foreign text, safe to print on a terminal: control characters become blanks."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:characters])
    return printable + "…" if len(text) > characters else printable


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found
