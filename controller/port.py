"""What people and programs may ask of a running daemon: the one door through which the HTTP API gets at it.

Every method is safe from any thread and answers with plain JSON values or with the values of the packages below. None
of them delays a tick: questions are answered from what the last tick left behind, and a command waits for its turn
between two ticks, for at most `COMMAND_WAIT_S`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from metrics.export_snapshot import ExportSnapshot
from metrics.kpi import Kpi
from metrics.store.protocol import Store
from metrics.telemetry import Telemetry
from state.command import Command
from state.decision import Answer

COMMAND_WAIT_S = 5.0
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Commanded:
    """What became of a command: the answer, and the journal's sequence and hash after it."""

    answer: Answer
    seq: int
    hash: str


class TurnError(Exception):
    """What was wanted from the daemon did not come about."""


class BusyError(TurnError):
    """The daemon is in the middle of something for longer than a command waits: nothing was done, try again."""


class FailedError(TurnError):
    """Something went wrong in the middle of it: only the journal knows what was done."""


class Port(Protocol):
    """A running daemon, as seen from outside."""

    @property
    def telemetry(self) -> Telemetry:
        """The stream of frames, one per tick."""
        ...

    @property
    def catalogue(self) -> Mapping[str, Kpi]:
        """The KPIs with the limits in force."""
        ...

    def history(self) -> Store:
        """A store to read history from, for the calling thread; the caller closes it."""
        ...

    def metrics(self) -> ExportSnapshot:
        """Everything that /metrics shows, of one instant."""
        ...

    def base_time_s(self) -> float:
        """Unix time at the governor's plant time 0: turns plant times into wall times for people."""
        ...

    def state(self) -> Json:
        """Where it stands.

        `phase`, `phase_number`, `meaning`, `safe_mode` (null, or `reason` and `way_out`), `pause`, `trial`,
        `in_flight`, `wells`, `blocked`, `exemptions`, `isolation_tokens`, `epoch`, `plant`, `tick`, `journal` (`seq`,
        `hash`), `version`, and more.
        """
        ...

    def nodes(self) -> Sequence[Json]:
        """Each node.

        `node`, `cluster`, `gravity` (null if unknown), `components`, `status`, `until_s` (plant time; null where
        nothing ends by itself), `offences`, `exemption`, `why` (a sentence), and more.
        """
        ...

    def explain(self, subject: str) -> Json | None:
        """Why a node or cluster is, or is not, isolated, or an event (by its sequence) happened; None if unknown.

        `subject`, and whatever is known of it: `node`, `cluster`, `blocked_by`, `not_done`, `events`, or the `event`.
        """
        ...

    def journal(self, after: int, limit: int) -> Sequence[Json]:
        """Up to `limit` events with a sequence beyond `after`, oldest first.

        `seq`, `hash`, `at_s`, `kind`, `text` (a sentence) and `data`.
        """
        ...

    def proposals(self) -> Sequence[Json]:
        """The improvement proposals (docs/proposal.schema.json) with their `status`, the newest first."""
        ...

    def command(self, command: Command, *, by: str, reason: str, key: str | None) -> Commanded:
        """Let an operator's command be decided, journaled and begun.

        Raises:
            BusyError: its turn did not come in time; nothing was done.
            FailedError: it went wrong on the way.
        """
        ...

    def reload(self, *, by: str) -> Answer:
        """Read the configuration again; an invalid one changes nothing and is reported.

        Raises:
            BusyError, FailedError: as for `command`.
        """
        ...

    def refuse_request(self, why: str) -> None:
        """Count a request that was turned away; the counts go into the journal once a minute."""
        ...

    def live(self) -> bool:
        """Whether ticks are being made."""
        ...

    def not_ready(self) -> Sequence[str]:
        """What is missing before it governs (plant, phases, journal); empty when ready."""
        ...
