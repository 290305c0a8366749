"""What goes wrong in the cluster, said as a value: a kind, its targets and its strength over time.

Faults arrive from scenario files and over HTTP, so everything about them is checked here, strictly, and every problem
is named at once. `qecs.effects` says what a fault does to the phases, `qecs.cluster` lets it begin and end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from qecs.errors import InvalidRequestError
from qecs.fault_kinds import CHANNELS, RULES, FaultKind, KindRules, Targets

FLAPPING_PERIOD_TICKS: Final = 20
TICKS_MAX: Final = 10**9

_FLAPPING_SILENT_TICKS: Final = 10
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TARGET_KEYS: Final = ("nodes", "count", "fraction", "cluster")
_ALLOWED_TARGET_KEYS: Final[Mapping[Targets, tuple[str, ...]]] = {
    Targets.NODES: _TARGET_KEYS,
    Targets.ALL_NODES: _TARGET_KEYS,
    Targets.CLUSTER: ("cluster",),
    Targets.NONE: (),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    At most one of `nodes`, `count`, `fraction` and `cluster` says what it is aimed at. A count or fraction is drawn
    from the seed and the fault's id, over as many clusters as possible.

    Attributes:
        id: names it while it is active.
        kind: what goes wrong, one of `FaultKind`.
        nodes: ids of the nodes it hits.
        count: number of nodes it hits.
        fraction: share of the nodes it hits (at least one node).
        cluster: id of the cluster it hits.
        magnitude: how strong it is, in the kind's unit; None stands for the kind's default.
        channels: for a drift, where each channel moves to.
        duration_ticks: how long it lasts; 0 means until it is cleared.
        ramp_ticks: how long it takes to reach its full strength.

    Raises:
        InvalidRequestError: something in it contradicts the kind's rules; the message lists every problem.
    """

    id: str
    kind: str
    nodes: tuple[str, ...] = ()
    count: int | None = None
    fraction: float | None = None
    cluster: str | None = None
    magnitude: float | None = None
    channels: Mapping[str, float] = field(default_factory=dict, hash=False)
    duration_ticks: int = 0
    ramp_ticks: int = 0

    def __post_init__(self) -> None:
        problems = fault_problems(self._stated())
        if problems:
            raise InvalidRequestError(f"fault {self.id!r}: " + "; ".join(problems))

    @property
    def strength(self) -> float:
        """The magnitude, or the kind's default where none is stated (0 where the kind has none)."""
        return self.magnitude if self.magnitude is not None else RULES[self.kind].magnitude or 0.0

    def level(self, age_ticks: int) -> float:
        """How much of its strength a fault of that age has, 0 to 1; its first tick is age 1."""
        if self.kind == FaultKind.FLAPPING:
            return float((age_ticks - 1) % FLAPPING_PERIOD_TICKS < _FLAPPING_SILENT_TICKS)
        return min(1.0, age_ticks / self.ramp_ticks) if self.ramp_ticks else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The fault as a JSON object, without what is left at its default."""
        found = self._stated()
        found["kind"] = str(self.kind)
        if "nodes" in found:
            found["nodes"] = list(self.nodes)
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`, strict: nothing is guessed or converted.

        Raises:
            InvalidRequestError: a key is unknown or missing, or a value is refused; the message lists every problem.
        """
        problems = fault_problems(data)
        if problems:
            raise InvalidRequestError(f"fault {data.get('id', '?')!r}: " + "; ".join(problems))
        values = dict(data)
        values["nodes"] = tuple(values.get("nodes", ()))
        return cls(**values)

    def _stated(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        defaults: dict[str, object] = {spec.name: spec.default for spec in fields(self)} | {"channels": {}}
        return {
            name: dict(value) if name == "channels" else value
            for name, default in defaults.items()
            if (value := getattr(self, name)) != default
        }


def fault_problems(data: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a fault given as a JSON object; empty if it is fine."""
    known = {spec.name for spec in fields(Fault)}
    problems = [f"unknown key {key!r} (known are {', '.join(sorted(known))})" for key in data if key not in known]
    if not (isinstance(data.get("id"), str) and _ID.fullmatch(data["id"])):
        problems.append(f"id must be 1 to 64 letters, digits, '.', '_' or '-', not {data.get('id')!r}")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in set(FaultKind):
        problems.append(f"kind must be one of {', '.join(FaultKind)}, not {kind!r}")
        return problems
    rules = RULES[kind]
    problems += _target_problems(data, kind, rules)
    problems += _magnitude_problems(data, kind, rules)
    problems += _channel_problems(data.get("channels"), kind)
    problems += _time_problems(data, kind, rules)
    return problems


def _target_problems(data: Mapping[str, Any], kind: str, rules: KindRules) -> Iterator[str]:
    stated = [key for key in _TARGET_KEYS if key in data]
    allowed = _ALLOWED_TARGET_KEYS[rules.targets]
    if len(stated) > 1:
        yield f"only one of {', '.join(stated)} can say what it is aimed at"
    for key in stated:
        if key not in allowed:
            yield f"{key} cannot be given for {kind}" + (f", only {allowed[0]}" if allowed else "")
    nodes, count, fraction = data.get("nodes", ["any"]), data.get("count", 1), data.get("fraction", 1.0)
    if not isinstance(nodes, list | tuple) or not nodes or not all(isinstance(node, str) for node in nodes):
        yield f"nodes must be a list of node ids, not {nodes!r}"
    elif len(set(nodes)) < len(nodes):
        yield "nodes must not name a node twice"
    if not _is_whole(count) or count < 1:
        yield f"count must be a whole number from 1 on, not {count!r}"
    if not _is_number(fraction) or not 0.0 < fraction <= 1.0:
        yield f"fraction must be above 0 and at most 1, not {fraction!r}"
    if not isinstance(data.get("cluster", ""), str):
        yield f"cluster must be a cluster id, not {data['cluster']!r}"


def _magnitude_problems(data: Mapping[str, Any], kind: str, rules: KindRules) -> Iterator[str]:
    if "magnitude" not in data:
        return
    value = data["magnitude"]
    if rules.magnitude is None:
        yield f"magnitude cannot be given for {kind}"
    elif not _is_number(value) or not rules.low <= value <= rules.high:
        yield f"magnitude must be within {rules.low:g} and {rules.high:g} for {kind}, not {value!r}"
    elif rules.whole and value != int(value):
        yield f"magnitude must be a whole number for {kind}, not {value!r}"


def _channel_problems(channels: object, kind: str) -> Iterator[str]:
    if (kind == FaultKind.DRIFT) != bool(channels):
        names = ", ".join(CHANNELS)
        yield f"channels ({names}) must say where a drift moves to, and cannot be given for any other kind"
    if channels is None:
        return
    if not isinstance(channels, Mapping):
        yield f"channels must map names to values, not {channels!r}"
        return
    for name, value in channels.items():
        if name not in CHANNELS:
            yield f"unknown channel {name!r} (known are {', '.join(CHANNELS)})"
            continue
        low, high = CHANNELS[name]
        if not _is_number(value) or not low <= value <= high:
            yield f"channels.{name} must be within {low:g} and {high:g}, not {value!r}"


def _time_problems(data: Mapping[str, Any], kind: str, rules: KindRules) -> Iterator[str]:
    allowed = {"duration_ticks": not rules.lasting, "ramp_ticks": rules.ramps}
    for key, fits in allowed.items():
        value = data.get(key, 0)
        if not _is_whole(value) or not 0 <= value <= TICKS_MAX:
            yield f"{key} must be a whole number from 0 to {TICKS_MAX}, not {value!r}"
        elif value and not fits:
            yield f"{key} cannot be given for {kind}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # An integer is finite, and isfinite would fail on one that is too large for a float.
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))
