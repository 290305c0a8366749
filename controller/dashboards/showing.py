"""How does a value look: its text in its unit, and its colour, by a field's configuration in a dashboard's file?

Knows the units, mappings and thresholds that the generated files use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controller.dashboards.asking import Value

COLOURS: Mapping[str, str] = {
    "green": "#73bf69",
    "dark-green": "#37872d",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "super-light-blue": "#c0d8ff",
    "light-blue": "#8ab8ff",
    "blue": "#5794f2",
    "dark-blue": "#1f60c4",
    "purple": "#b877d9",
    "text": "#d8d9da",
    "transparent": "none",
}
_BRIGHT = 0.55
_THOUSANDS = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
_SUFFIXES = {"s": " s", "ops": " ops/s", "wps": " writes/s"}
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Field:
    """What a field's configuration says of its values.

    Attributes:
        unit: Grafana's unit.
        decimals: None for as many as are needed.
        steps: value and colour of each threshold, ascending; the first has no value.
        mappings: value to text and colour.
        fixed: a fixed colour, or "".
        dashed: it is drawn as a bound.
        painted: its cells have a coloured ground.
        width: of its column in a table, 0 for a share of what is left.
        overrides: name of a series or column to its properties.
    """

    unit: str
    decimals: int | None
    steps: tuple[tuple[float, str], ...]
    mappings: Mapping[str, tuple[str, str]]
    fixed: str = ""
    dashed: bool = False
    painted: bool = False
    width: float = 0.0
    overrides: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, panel: Mapping[str, Any]) -> Field:
        """The default field of a panel, with its overrides."""
        defaults = panel["fieldConfig"]["defaults"]
        overrides: dict[str, dict[str, Any]] = {}
        for override in panel["fieldConfig"]["overrides"]:
            properties = {item["id"]: item["value"] for item in override["properties"]}
            overrides.setdefault(override["matcher"]["options"], {}).update(properties)
        return cls(
            unit=defaults.get("unit", ""),
            decimals=defaults.get("decimals"),
            steps=_steps(defaults.get("thresholds")),
            mappings=_mappings(defaults.get("mappings")),
            overrides=overrides,
        )

    def named(self, name: str) -> Field:
        """The field with the overrides for `name`."""
        own: dict[str, Any] = {}
        for matcher, properties in (self.overrides or {}).items():
            pattern = matcher[1:-1] if matcher.startswith("/") else re.escape(matcher)
            if re.fullmatch(pattern, name):
                own |= properties
        return replace(
            self,
            unit=own.get("unit", self.unit),
            decimals=own.get("decimals", self.decimals),
            steps=_steps(own["thresholds"]) if "thresholds" in own else self.steps,
            mappings=_mappings(own["mappings"]) if "mappings" in own else self.mappings,
            fixed=own.get("color", {}).get("fixedColor", ""),
            dashed="custom.lineStyle" in own,
            painted="custom.cellOptions" in own,
            width=float(own.get("custom.width", 0)),
        )

    def text(self, value: Value) -> str:
        """A value as people read it."""
        mapped = self.mappings.get(_key(value))
        return mapped[0] if mapped else shown(value, self.unit, self.decimals)

    def colour(self, value: Value) -> str:
        """Grafana's name of the colour of a value."""
        mapped = self.mappings.get(_key(value))
        if mapped:
            return mapped[1]
        if isinstance(value, str) or value is None:
            return "text"
        return next((name for bound, name in reversed(self.steps) if value >= bound), "text")


def shown(value: Value, unit: str, decimals: int | None) -> str:
    """A value in its unit."""
    if value is None or isinstance(value, str):
        return value or "-"
    if unit.startswith("dateTime"):
        return f"{datetime.fromtimestamp(value, UTC):%H:%M:%S}"
    if unit == "percentunit":
        return f"{_plain(100 * value, 1 if decimals is None else decimals)} %"
    if unit == "s":
        return _duration(value, decimals)
    if unit == "short":
        scale, letter = next(((scale, letter) for scale, letter in _THOUSANDS if abs(value) >= scale), (1.0, ""))
        return f"{_plain(value / scale, decimals)}{letter}"
    suffix = unit.partition(":")[2] if unit.startswith("suffix:") else _SUFFIXES.get(unit, "")
    return f"{_plain(value, decimals)}{suffix}"


def colour(name: str) -> str:
    """A colour as matplotlib knows it."""
    return COLOURS.get(name, name)


def text_colour(ground: str) -> str:
    """Black or white, whichever is read better on `ground`."""
    if not ground.startswith("#"):
        return "#ffffff"
    red, green, blue = (int(ground[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return "#111217" if 0.299 * red + 0.587 * green + 0.114 * blue > _BRIGHT else "#ffffff"


def grounds(steps: Sequence[tuple[float, str]], low: float, high: float) -> Iterator[tuple[float, float, str]]:
    """The parts of an axis from `low` to `high` that thresholds colour: start, end, colour."""
    ends = [*(bound for bound, _ in steps[1:]), math.inf]
    for (start, name), end in zip(steps, ends, strict=True):
        if end > low and start < high:
            yield max(start, low), min(end, high), name


def _steps(thresholds: Any) -> tuple[tuple[float, str], ...]:  # noqa: ANN401 - JSON
    steps = (thresholds or {}).get("steps") or ()
    return tuple((-math.inf if step["value"] is None else float(step["value"]), step["color"]) for step in steps)


def _mappings(mappings: Any) -> Mapping[str, tuple[str, str]]:  # noqa: ANN401 - JSON
    return {
        value: (result["text"], result["color"])
        for mapping in mappings or ()
        for value, result in mapping["options"].items()
    }


def _key(value: Value) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _plain(value: float, decimals: int | None) -> str:
    text = f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def _duration(value_s: float, decimals: int | None) -> str:
    for scale, unit in ((_DAY_S, "days"), (_HOUR_S, "hours"), (_MINUTE_S, "min")):
        if abs(value_s) >= scale:
            return f"{value_s / scale:.3g} {unit}"
    if 0 < abs(value_s) < 1:
        return f"{_plain(1000 * value_s, decimals)} ms"
    return f"{_plain(value_s, decimals)} s"
