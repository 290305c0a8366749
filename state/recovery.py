"""Where was the controller when it stopped? The durable state, rebuilt from the journal and checked on the way.

Every entry is checked against the chain, and every snapshot against the state that the events before it give: a journal
that is not whole, or not ours, is refused, and the message names the event. A snapshot that another version has taken
is believed for the chain's sake: what its events give today need not be what they gave then.
"""

from __future__ import annotations

from dataclasses import dataclass

from metrics.errors import BadDataError
from state.durable import STATE_VERSION, DurableState
from state.event import EventKind
from state.journal import Journal
from state.machine import PhaseMachine
from state.restore import restored


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the journal tells.

    Attributes:
        state: the durable state after its last event.
        at_s: the governor's time of that event, s; None where there is none.
        snapshots: sequences of the snapshots in it, ascending.
    """

    state: DurableState
    at_s: float | None
    snapshots: tuple[int, ...]


def recover(journal: Journal, *, daemon: bool) -> Recovered:
    """Replay the journal from its first entry that is kept.

    Raises:
        BadDataError: it is broken, contradicts itself, or begins in the middle without a snapshot.
    """
    state, at_s, snapshots = DurableState(PhaseMachine(daemon=daemon)), None, []
    for entry in journal.entries():
        event = entry.event
        if event.kind is EventKind.SNAPSHOT:
            kept = restored(event.data.get("state", {}), daemon=daemon)  # type: ignore[arg-type]  # checked there
            ours = event.data.get("version") == STATE_VERSION
            if ours and at_s is not None and kept.snapshot() != state.snapshot():
                raise BadDataError(f"{journal.path}: event {entry.seq}: the snapshot is not what its events give")
            state = kept
            snapshots.append(entry.seq)
        elif at_s is None and entry.seq > 1:
            raise BadDataError(
                f"{journal.path}: event {entry.seq}: the events before it are gone, and it is no snapshot"
            )
        else:
            state.apply(event)
        at_s = event.at_s
    return Recovered(state, at_s, tuple(snapshots))
