"""How is a point written as a line that InfluxDB and its kin read back exactly?

`measurement,tag=value field=1.5,other=2i,text="words" 1700000000000000000`: names are escaped with a backslash, numbers
are floats unless they end in `i`, times are nanoseconds UTC. Found by writing to the real parsers:

- No server can hold a name or tag value that ends in a backslash, breaks over a line, or is a measurement that begins
  with `#` (a comment: it vanishes without an error). These characters, and `%` that marks them, are percent-encoded;
  `decode_name` gives the name back. All other text goes in as it is.
- A field named `time` vanishes without an error, a tag of that name is refused: neither is encoded.
- NaN and infinities have no form at all. They, None, integers beyond 64 bits and values of another type than the
  field had before are left out and counted: a server refuses a whole line for one value that changed its type.

Left out: timestamps other than nanoseconds, and unsigned integers, which only some servers know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from typing import TypeAlias
from urllib.parse import unquote

import numpy as np

FieldValue: TypeAlias = float | int | bool | str | np.generic | None

TIME_MIN_NS, TIME_MAX_NS = -(2**63) + 2, 2**63 - 2  # what InfluxDB can hold

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_NAMES_REMEMBERED = 65_536
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\%\ud800-\udfff]")
_SPECIAL = re.compile(r"([,= ])")


class FieldType(StrEnum):
    """What a field holds, for ever."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"


class Encoder:
    r"""Encodes points; remembers the type of each field of each measurement. For use by one thread.

    Example:
        >>> encoder = Encoder()
        >>> encoder.line("iace node", {"node": "a,b"}, {"gravity": 0.5, "ticks": 3, "status": 'so "so"'}, 1)
        'iace\\ node,node=a\\,b gravity=0.5,ticks=3i,status="so \\"so\\"" 1'
        >>> encoder.line("iace node", {"node": "a,b"}, {"gravity": float("nan")}, 2) is None, encoder.omitted
        (True, 1)

    Attributes:
        omitted: how many values have been left out.
    """

    def __init__(self) -> None:
        self.omitted = 0
        self._fields: dict[str, dict[str, tuple[str, Callable[[FieldValue], str | None]]]] = {}
        self._keys: dict[tuple[str, ...], str] = {}

    def line(
        self, measurement: str, tags: Mapping[str, str], fields: Mapping[str, FieldValue], at_ns: int
    ) -> str | None:
        """One point; None where no value is left, or where the time is beyond what a server can hold.

        An integer goes into a float field as a float. Tags without a value are left out.

        Raises:
            ValueError: a name is empty, or "time".
            TypeError: a value is of a type that no field can hold.
        """
        known = self._fields.get(measurement)
        if known is None:
            known = self._fields[measurement] = {}
        written = []
        for name, value in fields.items():
            field = known.get(name)
            if field is None:
                if value is None:
                    continue
                field = known[name] = (f"{field_key(name)}=", _RENDER[field_type(value)])
            text = field[1](value)
            if text is not None:
                written.append(field[0] + text)
        if not TIME_MIN_NS <= at_ns <= TIME_MAX_NS:
            written.clear()
        self.omitted += len(fields) - len(written)
        if not written:
            return None
        known_as = (measurement, *tags, *tags.values())  # quicker than any key that nests
        key = self._keys.get(known_as)
        if key is None:
            if len(self._keys) >= _NAMES_REMEMBERED:
                self._keys.clear()
            key = self._keys[known_as] = series_key(measurement, tags)
        return f"{key} {','.join(written)} {at_ns}"


def series_key(measurement: str, tags: Mapping[str, str]) -> str:
    """Measurement and tags as a line begins with them; tags sorted by name, as servers like them best.

    Raises:
        ValueError: a name is empty, or "time".
    """
    name = _escaped(_named(measurement, "measurement"))
    if name.startswith("#"):
        name = _percent("#") + name[1:]
    pairs = ((_escaped(_named(key, "tag")), _escaped(value)) for key, value in sorted(tags.items()))
    return ",".join([name, *(f"{key}={value}" for key, value in pairs if value)])


def field_key(name: str) -> str:
    """The name of a field, escaped.

    Raises:
        ValueError: it is empty, or "time".
    """
    return _escaped(_named(name, "field"))


@lru_cache(maxsize=1024)
def text_value(text: str) -> str:
    """A text as the value of a field, quoted and escaped; remembered, for the few words that are written often."""
    return _quoted(text)


def field_type(value: FieldValue) -> FieldType:
    """The type of the field that `value` founds.

    Raises:
        TypeError: no field can hold it.
    """
    if isinstance(value, bool | np.bool_):
        return FieldType.BOOLEAN
    if isinstance(value, int | np.integer):
        return FieldType.INTEGER
    if isinstance(value, float | np.floating):
        return FieldType.FLOAT
    if isinstance(value, str):
        return FieldType.STRING
    raise TypeError(f"a field holds a number, a truth value or text, not {type(value).__name__}")


def encode_name(text: str) -> str:
    """A name or tag value as a server keeps it: what it could not keep is percent-encoded."""
    return _UNFIT.sub(lambda found: _percent(found.group()), text)


def decode_name(stored: str) -> str:
    """The name that `encode_name` made `stored` from."""
    return unquote(stored, errors="surrogatepass") if "%" in stored else stored


def _named(name: str, what: str) -> str:
    if name in {"", "time"}:
        raise ValueError(f"a {what} cannot be named {name!r}: servers lose it without an error")
    return name


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", encode_name(text))


def _percent(characters: str) -> str:
    return "".join(f"%{byte:02X}" for byte in characters.encode("utf-8", "surrogatepass"))


# Each of these sees mostly values of exactly the type in its first line, and has to be quick with them.


def _float(value: FieldValue) -> str | None:
    if type(value) is float:
        return repr(value) if isfinite(value) else None
    if value is None or field_type(value) not in {FieldType.FLOAT, FieldType.INTEGER}:
        return None
    try:
        return _float(float(value))
    except OverflowError:
        return None


def _integer(value: FieldValue) -> str | None:
    if type(value) is int:
        return f"{value}i" if _INT64_MIN <= value <= _INT64_MAX else None
    return _integer(int(value)) if isinstance(value, np.integer) else None


def _boolean(value: FieldValue) -> str | None:
    if not isinstance(value, bool | np.bool_):
        return None
    return "true" if value else "false"


def _string(value: FieldValue) -> str | None:
    return _quoted(value) if isinstance(value, str) else None


def _quoted(value: str) -> str:
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode()  # lone surrogates have no form
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


_RENDER: dict[FieldType, Callable[[FieldValue], str | None]] = {
    FieldType.FLOAT: _float,
    FieldType.INTEGER: _integer,
    FieldType.BOOLEAN: _boolean,
    FieldType.STRING: _string,
}
