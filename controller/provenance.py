"""Where does a proposal come from? Proven from its document and the journal alone, offline.

The journal's chain must be whole; the id must be that of the content; the journal's event at the anchor must have the
anchor's hash; and after it, one event must say that a document of this id and these bytes was written. Whoever would
forge a proposal has to forge the journal up to its tip, which reports and whoever has kept a hash would contradict.

A document that came through the API is the same with where it stands added, which is taken off first; its file's bytes
follow from its content. Source: docs/proposals.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.api.strict_json import parse_object
from controller.daemon_view import STANDING
from controller.proposals import digest, id_of
from metrics.errors import BadDataError
from state.event import EventKind
from state.journal import Journal


@dataclass(frozen=True, slots=True)
class Proven:
    """A proposal that is what the journal says.

    Attributes:
        id, sha256: of the document.
        anchor: sequence of the event up to which the journal stood when it was made.
        seq, hash: of the event that says it was written.
        at_s: plant time of that.
        events: length of the chain that was checked.
    """

    id: str
    sha256: str
    anchor: int
    seq: int
    hash: str
    at_s: float
    events: int


class NotProvenError(BadDataError):
    """The chain is whole, and the document is not what it says was written."""


def load(path: Path) -> dict[str, Any]:
    """The proposal in a file, as it was written or as the API gave it, without where it stands.

    Raises:
        BadDataError: there is none, or it is not plain JSON.
    """
    try:
        document = parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadDataError(f"{path} is no proposal: {error}") from error
    if isinstance(document.get("proposal"), dict):
        document = document["proposal"]
    if "id" not in document:
        raise BadDataError(f"{path} is no proposal: it has no id")
    return bare(document)


def bare(document: Mapping[str, Any]) -> dict[str, Any]:
    """A proposal without where it stands."""
    return {name: value for name, value in document.items() if name not in STANDING}


def prove(document: Mapping[str, Any], journal: Journal) -> Proven:
    """That `document` was written by the controller whose journal this is.

    Raises:
        NotProvenError: it was not; the message says what contradicts what.
        BadDataError: the journal's chain is broken; the message names the event.
    """
    name, sha256, anchor = str(document["id"]), digest(document), document.get("anchor")
    anchor = anchor if isinstance(anchor, dict) else {}
    written, count, anchored = None, 0, anchor.get("seq") == 0
    for entry in journal.entries():
        count += 1
        anchored = anchored or (entry.seq == anchor.get("seq") and entry.hash == anchor.get("hash"))
        if entry.event.kind is EventKind.PROPOSAL_WRITTEN and entry.event.data["id"] == name:
            written = entry
    if id_of(document) != name:
        raise NotProvenError(f"proposal {name} was changed: its content has the id {id_of(document)}")
    if written is None:
        raise NotProvenError(f"{journal.path} knows no proposal {name}: it is another run's, or none of ours")
    if written.event.data["sha256"] != sha256:
        raise NotProvenError(
            f"proposal {name} was changed: it has SHA-256 {sha256}, event {written.seq} of the journal says "
            f"{written.event.data['sha256']}"
        )
    if not anchored or written.seq <= int(anchor["seq"]):
        raise NotProvenError(
            f"proposal {name} is anchored at event {anchor.get('seq')}, which {journal.path} contradicts"
        )
    return Proven(name, sha256, int(anchor["seq"]), written.seq, written.hash, written.event.at_s, count)
