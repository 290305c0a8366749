"""How a check ended, and what its phase makes of it.

A phase takes the worst of its checks, passed < skipped < inconclusive < error < failed. A dry-run check is reported and
never counts. A *required* check must pass: skipped, inconclusive or in error it leaves the phase undecided, and an
undecided phase is never taken for a passed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from state.phase import Phase


class CheckStatus(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    SKIPPED = "skipped"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    FAILED = "failed"

    @property
    def rank(self) -> int:
        """Position from best (0) to worst (4)."""
        return tuple(CheckStatus).index(self)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check with its evidence.

    Attributes:
        name: permanent name, e.g. "ledger.chain".
        status: how it ended.
        message: a sentence for people, in the plant's own words where it refused something.
        observed: the value that was judged, or None.
        threshold: what it was judged against, or None.
        unit: unit of both.
        evidence: further values, JSON-able.
        required: True where the phase cannot pass without it.
        dry_run: True where it is only reported.
        duration_s: plant seconds that it took.
    """

    name: str
    status: CheckStatus
    message: str
    observed: float | str | None = None
    threshold: float | str | None = None
    unit: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    required: bool = True
    dry_run: bool = False
    duration_s: float = 0.0


class PhaseVerdict(StrEnum):
    """What a phase amounts to."""

    PASSED = "passed"
    UNDECIDED = "undecided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A phase and all its checks."""

    phase: Phase
    checks: tuple[CheckResult, ...]
    started_s: float = 0.0
    ended_s: float = 0.0

    @property
    def status(self) -> CheckStatus:
        """The worst status among the checks that count; a phase without any is inconclusive."""
        counted = [check.status for check in self.checks if not check.dry_run]
        return max(counted, key=lambda status: status.rank, default=CheckStatus.INCONCLUSIVE)

    @property
    def verdict(self) -> PhaseVerdict:
        """FAILED if any check failed, UNDECIDED if a required one has not passed, else PASSED."""
        if self.status is CheckStatus.FAILED:
            return PhaseVerdict.FAILED
        if self.undecided():
            return PhaseVerdict.UNDECIDED
        return PhaseVerdict.PASSED

    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed and count."""
        return tuple(c for c in self.checks if c.status is CheckStatus.FAILED and not c.dry_run)

    def undecided(self) -> tuple[CheckResult, ...]:
        """The required checks that neither passed nor failed."""
        open_statuses = (CheckStatus.SKIPPED, CheckStatus.INCONCLUSIVE, CheckStatus.ERROR)
        counted = [check for check in self.checks if not check.dry_run]
        undecided = tuple(c for c in counted if c.required and c.status in open_statuses)
        return undecided if counted else (_NO_CHECKS,)


_NO_CHECKS = CheckResult("none", CheckStatus.INCONCLUSIVE, "the phase made no check that counts")
