"""Which faults happen in a run, and when? Scenario files: shipped ones by name, a user's own by path.

A scenario is a TOML file with a `description` and one `[[fault]]` table for each fault. A fault carries the keys of
`qecs.faults.Fault` and, besides, `phase` and `after_ticks`, which say when it begins. Files are judged as a whole:
one error names every problem in them.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from qecs.errors import ScenarioError, UnknownTargetError
from qecs.fault_kinds import FaultKind
from qecs.faults import TICKS_MAX, Fault, fault_problems

PHASES: Final = ("PHASE_I", "PHASE_II", "PHASE_III", "GOVERNING")
"""Phases of the governor in which a fault can begin."""

_KEYS: Final = ("name", "description", "fault")
_PLAN_KEYS: Final = ("phase", "after_ticks")
_LEDGER_KINDS: Final = (FaultKind.TAMPERING, FaultKind.FORK, FaultKind.INFLATION, FaultKind.ENTROPY_SPIKE)
_DELAY_TICKS: Final = 60
_SUFFIX: Final = ".toml"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault and when it begins.

    Attributes:
        phase: the governor's phase, one of `PHASES`.
        after_ticks: ticks from the start of that phase.
        fault: what goes wrong then.
    """

    phase: str
    after_ticks: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Scenario:
    """The faults of a run.

    Attributes:
        name: short name, of the file unless the file says otherwise.
        description: one sentence for people.
        faults: what goes wrong, in the order of the file.
    """

    name: str
    description: str
    faults: tuple[PlannedFault, ...]


@cache
def shipped() -> dict[str, str]:
    """Names of the shipped scenarios, in alphabetical order, with their descriptions."""
    return {name: _parse(text, name).description for name, text in sorted(_shipped_texts().items())}


def load_scenario(name_or_path: str) -> Scenario:
    """The shipped scenario of that name, or the one in that file.

    Args:
        name_or_path: what contains a path separator or ends in ".toml" is a path.

    Raises:
        UnknownTargetError: there is no such scenario or file; the message lists the shipped names.
        ScenarioError: the file cannot be read, or something in it is wrong; the message names every problem and its
            key.
    """
    if not (name_or_path.endswith(_SUFFIX) or "/" in name_or_path or "\\" in name_or_path):
        text = _shipped_texts().get(name_or_path)
        if text is None:
            raise UnknownTargetError(_unknown(name_or_path))
        return _parse(text, name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise UnknownTargetError(
            f"no scenario file {name_or_path!r}; shipped scenarios are {', '.join(_shipped_texts())}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"scenario {name_or_path}: cannot be read: {error}") from error
    return _parse(text, name_or_path)


def _parse(text: str, source: str) -> Scenario:
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"scenario {source}: not a TOML file: {error}") from error
    tables = data.get("fault", [])
    problems = list(_file_problems(data))
    if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
        tables = [_completed(table, number) for number, table in enumerate(tables, start=1)]
        problems += _fault_problems(tables)
    if problems:
        raise ScenarioError(f"scenario {source}: " + "; ".join(problems))
    return Scenario(
        name=data.get("name", Path(source).stem),
        description=data.get("description", ""),
        faults=tuple(_planned(table) for table in tables),
    )


def _file_problems(data: Mapping[str, Any]) -> Iterator[str]:
    for key in data:
        if key not in _KEYS:
            yield f"unknown key {key!r} (known are {', '.join(_KEYS)})"
    for key in ("name", "description"):
        if not isinstance(data.get(key, ""), str):
            yield f"{key} must be a text, not {data[key]!r}"
    tables = data.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        yield "fault must be given as [[fault]] tables"


def _fault_problems(tables: list[dict[str, Any]]) -> Iterator[str]:
    for number, table in enumerate(tables, start=1):
        where = f"fault {number}"
        if table["phase"] not in PHASES:
            yield f"{where}: phase must be one of {', '.join(PHASES)}, not {table['phase']!r}"
        ticks = table["after_ticks"]
        if not isinstance(ticks, int) or isinstance(ticks, bool) or not 0 <= ticks <= TICKS_MAX:
            yield f"{where}: after_ticks must be a whole number from 0 to {TICKS_MAX}, not {ticks!r}"
        for problem in fault_problems(_without_plan(table)):
            yield f"{where}: {problem}"
    ids = Counter(table["id"] for table in tables if isinstance(table["id"], str))
    for name, count in ids.items():
        if count > 1:
            yield f"{count} faults have the id {name!r}"


def _completed(table: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The table with the defaults of what only a scenario says."""
    kind = table.get("kind")
    on_ledger = isinstance(kind, str) and kind in _LEDGER_KINDS
    defaults = {
        "id": f"{kind}-{number}",
        "phase": "PHASE_II" if on_ledger else "GOVERNING",
        "after_ticks": 0 if on_ledger else _DELAY_TICKS,
    }
    return defaults | dict(table)


def _planned(table: Mapping[str, Any]) -> PlannedFault:
    return PlannedFault(
        phase=table["phase"], after_ticks=table["after_ticks"], fault=Fault.from_dict(_without_plan(table))
    )


def _without_plan(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in _PLAN_KEYS}


@cache
def _shipped_texts() -> dict[str, str]:
    folder = files("qecs") / "scenarios"
    return {
        entry.name.removesuffix(_SUFFIX): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(_SUFFIX)
    }


def _unknown(name: str) -> str:
    names = list(_shipped_texts())
    close = get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"no scenario {name!r}{hint}; shipped are {', '.join(names)}; a file is given by its path, ending in .toml"
