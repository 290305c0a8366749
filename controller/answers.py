"""What does a daemon answer those who ask? Always what its last turn has left behind, so that nobody holds a tick up.

Assumed: a turn replaces what it leaves behind as a whole and never changes it, so any thread may read it at any time.
Left out: whatever has an effect, which is the daemon's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from controller import daemon_view, rundir
from controller.daemon_view import View
from controller.explanations import Explanations
from controller.port import Json
from controller.record import RunRecord
from metrics.export_snapshot import ExportSnapshot
from metrics.kpi import Kpi
from metrics.store.protocol import Store
from metrics.store.sqlite import SqliteStore
from metrics.telemetry import Telemetry
from state.command import Command, DecideProposal
from state.journal import Journal


class Answers:
    """The half of `controller.port.Port` that asks.

    Args:
        record: what has happened.
        explanations: what has not, and why.
        journal: the decisions.
        directory: of the journal, the telemetry and the proposals.

    The daemon sets `_view`, `_metrics` and `_base_time_s` at the end of every turn.
    """

    _view: View
    _metrics: ExportSnapshot
    _base_time_s: float

    def __init__(self, record: RunRecord, explanations: Explanations, journal: Journal, directory: Path) -> None:
        self._record = record
        self._explanations = explanations
        self._journal = journal
        self._directory = directory
        self._telemetry = Telemetry()

    @property
    def telemetry(self) -> Telemetry:
        """The stream of frames, one per tick."""
        return self._telemetry

    @property
    def catalogue(self) -> Mapping[str, Kpi]:
        """The KPIs with the limits in force."""
        return self._record.catalogue

    def history(self) -> Store:
        """A store to read history from."""
        return SqliteStore(self._directory / rundir.TELEMETRY)

    def metrics(self) -> ExportSnapshot:
        """Everything that /metrics shows, of one instant."""
        return self._metrics

    def base_time_s(self) -> float:
        """Unix time at the governor's plant time 0."""
        return self._base_time_s

    def state(self) -> Json:
        """Where it stands."""
        return daemon_view.state(self._view, self._explanations.about)

    def nodes(self) -> Sequence[Json]:
        """Each node, the worst first."""
        return daemon_view.nodes(self._view)

    def explain(self, subject: str) -> Json | None:
        """Why a node or cluster is, or is not, isolated, or an event happened."""
        events = [item for item in list(self._record.events) if subject in daemon_view.subjects(item.event)]
        found = daemon_view.explained(self._view, subject, self._explanations.about(subject), events)
        if found is None and subject.isdecimal():  # nobody is called so, hence it is the number of an event
            around = self.journal(max(0, int(subject) - 1), 1)
            return daemon_view.event(around[0]) if around and around[0]["seq"] == int(subject) else None
        return found

    def journal(self, after: int, limit: int) -> Sequence[Json]:
        """Up to `limit` events with a sequence beyond `after`, oldest first."""
        reading = Journal(self._journal.path, read_only=True)
        try:
            return [daemon_view.entry(entry) for entry in islice(reading.entries(after + 1), limit)]
        finally:
            reading.close()

    def proposals(self) -> Sequence[Json]:
        """The improvement proposals with their status, the newest first."""
        return list(self._each_proposal())

    def _each_proposal(self) -> Iterator[Json]:
        """The same, one at a time: months of them together take tens of megabytes."""
        return daemon_view.proposals(self._view, self._directory / rundir.PROPOSALS)

    def _objection(self, command: Command) -> str | None:
        """What stands against a command that only files tell: what is approved must be what was written."""
        if isinstance(command, DecideProposal):
            return daemon_view.damage(self._view, self._directory / rundir.PROPOSALS, command.proposal)
        return None

    def not_ready(self) -> Sequence[str]:
        """What is missing before it governs."""
        return daemon_view.not_ready(self._view)
