"""The transition table as a Mermaid state diagram, for the documentation and `iace diagram`."""

from __future__ import annotations

from collections import defaultdict

from state.phase import Phase
from state.table import TABLE, Guard


def mermaid() -> str:
    """The diagram as Mermaid text: an arrow for each pair of states, labelled with the events that lead along it."""
    labels: dict[tuple[Phase, Phase], list[str]] = defaultdict(list)
    for row in TABLE:
        guard = "" if row.guard is Guard.ALWAYS else f" [{row.guard}]"
        labels[row.source, row.destination].append(f"{row.event}{guard}")
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.IDLE}"]
    lines += [f"    {a} --> {b}: {'<br/>'.join(events)}" for (a, b), events in labels.items()]
    lines += [f"    {phase} --> [*]" for phase in Phase if phase.final]
    return "\n".join(lines) + "\n"
