"""What may come in as JSON? Only what has one meaning.

`json.loads` takes NaN, Infinity, 1e999 and a key that occurs twice, lets lone surrogates pass that fail wherever the
text is written later, and answers deep nesting with a RecursionError. Here all of that is one plain refusal.
"""

from __future__ import annotations

import json
import math
from typing import Any

DEPTH_MAX = 32  # no request of ours is nested deeper than two, no proposal deeper than ten


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that `data` holds.

    Raises:
        ValueError: it is anything else, or is ambiguous; the message says what.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on the lone surrogates that an escape can make
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it is not valid UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004 - to callers it is one kind of refusal
    if _depth(value) > DEPTH_MAX:
        raise ValueError("the JSON is nested too deeply")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of a double")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:  # noqa: PLR2004 - digits of a 64-bit number with its sign; longer ones are slow to convert
        raise ValueError("a whole number is beyond 64 bits")
    return int(text)


def _depth(value: object) -> int:
    """How deep containers are nested; what came through the parser is shallow enough to descend into."""
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0
