"""Which settings differ between two configurations, and which of them only a restart can change?

Policies, limits and the log may change while it governs. What it is built upon (which plant, which files, which ports)
may not: pretending that it had changed would be worse than saying no.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.settings import Config

CHANGEABLE = frozenset({"isolation", "healing", "gravity", "kpi", "log"})


def changed(before: Config, after: Config) -> tuple[str, ...]:
    """Paths of the settings that differ, sorted, such as "isolation.quorum"."""
    return tuple(sorted(_differences(before.model_dump(), after.model_dump(), "")))


def fixed(path: str) -> bool:
    """Whether a setting is fixed for as long as the daemon lives."""
    return path.partition(".")[0] not in CHANGEABLE


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}"
