"""What may come in over HTTP, and in which form does it go out? Strict JSON, both ways.

`json.loads` takes NaN, Infinity, `1e999`, duplicate keys and lone surrogates, and answers deep nesting with a
RecursionError. None of that gets past `parse_object`. Outgoing, NaN becomes null, because JSON has no NaN.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qecs.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data` holds.

    Raises:
        InvalidRequestError: it is anything else, or is ambiguous; the message says what.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        # Escaped lone surrogates pass the decoder and would fail wherever the text is written later.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise InvalidRequestError("the JSON is nested too deeply") from None
    except UnicodeError:
        raise InvalidRequestError("the body is not valid UTF-8 text") from None
    except ValueError as error:
        raise InvalidRequestError(f"the body is no valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def require_keys(data: Mapping[str, Any], required: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    """Refuse an object that lacks a required key or holds an unknown one.

    Raises:
        InvalidRequestError: names all such keys.
    """
    problems = [f"missing {key!r}" for key in sorted(required - data.keys())]
    problems += [f"unknown {key!r}" for key in sorted(data.keys() - required - optional)]
    if problems:
        raise InvalidRequestError("the body is wrong: " + ", ".join(problems))


def encode(value: object) -> str:
    """Return `value` as compact JSON.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return _ENCODER.encode(value)


def nullable(value: float) -> float | None:
    """Return a figure for JSON, None where it is not finite."""
    return value if math.isfinite(value) else None


def column(values: NDArray[Any]) -> list[Any]:
    """Return an array for JSON, None where a float is not finite."""
    items: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not bool(np.isfinite(values).all()):
        return [nullable(item) for item in items]
    return items


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of a double")
    return value
