"""From what happened to the exit code: one pure function, by one precedence.

Exit codes are permanent contracts with scripts and pipelines. `decide` is given facts and answers with the first cause
in the order of docs/exit-codes.md: a bug outranks a failed store, that outranks a broken configuration, and so on down
to the findings about the governed system itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from metrics.errors import (
    BadDataError,
    ConfigInvalidError,
    IaceError,
    InvariantBreachError,
    NotLeaderError,
    NotPermittedError,
    PlantError,
    RequestRefusedError,
    StoreFailedError,
)
from state.phase import Phase
from state.verdict import PhaseResult, PhaseVerdict


class ExitCode(IntEnum):
    """The permanent exit codes of `iace run` and, when it ends, `iace govern`."""

    COHERENT_LOCK = 0
    FINDING = 1
    USAGE = 2
    PHASE_I_FAILED = 10
    PHASE_II_FAILED = 20
    PHASE_III_FAILED = 30
    PHASE_IV_FAILED = 40
    CRITICAL_DISSONANCE = 50
    ISOLATION_BLOCKED = 51
    SAFE_MODE = 60
    INCONCLUSIVE = 61
    BAD_DATA = 65
    PLANT_UNAVAILABLE = 69
    INTERNAL_ERROR = 70
    STORE_FAILED = 74
    NOT_LEADER = 75
    NOT_PERMITTED = 77
    CONFIG_INVALID = 78
    INTERRUPTED = 130
    TERMINATED = 143


PRECEDENCE: tuple[ExitCode, ...] = (
    ExitCode.INTERNAL_ERROR,
    ExitCode.STORE_FAILED,
    ExitCode.NOT_LEADER,
    ExitCode.NOT_PERMITTED,
    ExitCode.CONFIG_INVALID,
    ExitCode.BAD_DATA,
    ExitCode.PLANT_UNAVAILABLE,
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.PHASE_I_FAILED,
    ExitCode.PHASE_II_FAILED,
    ExitCode.PHASE_III_FAILED,
    ExitCode.INCONCLUSIVE,
    ExitCode.SAFE_MODE,
    ExitCode.ISOLATION_BLOCKED,
    ExitCode.CRITICAL_DISSONANCE,
    ExitCode.PHASE_IV_FAILED,
)

_FAILED_PHASE = {
    Phase.PHASE_I: ExitCode.PHASE_I_FAILED,
    Phase.PHASE_II: ExitCode.PHASE_II_FAILED,
    Phase.PHASE_III: ExitCode.PHASE_III_FAILED,
    Phase.PHASE_IV: ExitCode.PHASE_IV_FAILED,
}

# The first class that fits wins, so a subclass stands before its base.
_ERROR_CODES: tuple[tuple[type[IaceError], ExitCode], ...] = (
    (InvariantBreachError, ExitCode.INTERNAL_ERROR),
    (StoreFailedError, ExitCode.STORE_FAILED),
    (NotLeaderError, ExitCode.NOT_LEADER),
    (NotPermittedError, ExitCode.NOT_PERMITTED),
    (ConfigInvalidError, ExitCode.CONFIG_INVALID),
    (BadDataError, ExitCode.BAD_DATA),
    (PlantError, ExitCode.PLANT_UNAVAILABLE),
    (RequestRefusedError, ExitCode.FINDING),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the outcome of a run depends on.

    Attributes:
        phases: results of the phases that were run, in order.
        errors: what stopped the run, if anything did; an exception outside the family is a bug.
        signal: the code of the signal that asked for a stop, or None.
        undecided: reasons that leave the run without a verdict (deadline, an isolation that never verified, ...).
        safe_mode: why SAFE_MODE held at the end, or None.
        blocked: wells that a guard still forbade to isolate at the end, each as "node: guard".
        unhealthy: KPIs persistently outside their limits at the end.
    """

    phases: tuple[PhaseResult, ...] = ()
    errors: tuple[BaseException, ...] = ()
    signal: ExitCode | None = None
    undecided: tuple[str, ...] = ()
    safe_mode: str | None = None
    blocked: tuple[str, ...] = ()
    unhealthy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: the exit code.
        causes: every cause found, the deciding one first, each a sentence.
    """

    code: ExitCode
    causes: tuple[str, ...]

    @property
    def coherent(self) -> bool:
        """True for exit code 0 alone."""
        return self.code is ExitCode.COHERENT_LOCK

    @property
    def status_code(self) -> str:
        """The status that QECS clients know."""
        return "200_COHERENT_LOCK" if self.coherent else "500_CRITICAL_DISSONANCE"


def code_of(error: BaseException) -> ExitCode:
    """The exit code that an error means by itself; what is not of the family is a bug."""
    for kind, code in _ERROR_CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL_ERROR


def decide(facts: Facts) -> Outcome:
    """The outcome that the facts amount to: the cause that comes first in `PRECEDENCE` decides, all are told."""
    causes = sorted(_causes(facts), key=lambda cause: PRECEDENCE.index(cause[0]))
    if not causes and not any(result.phase is Phase.PHASE_IV for result in facts.phases):
        return Outcome(ExitCode.INCONCLUSIVE, ("the run did not get as far as Phase IV",))
    if not causes:
        return Outcome(ExitCode.COHERENT_LOCK, ("every phase passed and the KPIs are within limits",))
    return Outcome(causes[0][0], tuple(text for _, text in causes))


def _causes(facts: Facts) -> list[tuple[ExitCode, str]]:
    causes = [(code_of(error), _sentence(error)) for error in facts.errors]
    if facts.signal is not None:
        causes.append((facts.signal, f"stopped by signal ({facts.signal.name})"))
    for result in facts.phases:
        if result.verdict is PhaseVerdict.FAILED:
            texts = "; ".join(f"{check.name}: {check.message}" for check in result.failed())
            causes.append((_FAILED_PHASE[result.phase], f"{result.phase} failed: {texts}"))
        elif result.verdict is PhaseVerdict.UNDECIDED:
            texts = "; ".join(f"{check.name} {check.status}: {check.message}" for check in result.undecided())
            causes.append((ExitCode.INCONCLUSIVE, f"{result.phase} is undecided: {texts}"))
    causes += [(ExitCode.INCONCLUSIVE, reason) for reason in facts.undecided]
    if facts.safe_mode is not None:
        causes.append((ExitCode.SAFE_MODE, f"holding fail-static: {facts.safe_mode}"))
    if facts.blocked:
        causes.append((ExitCode.ISOLATION_BLOCKED, f"gravity wells left in place: {', '.join(facts.blocked)}"))
    if facts.unhealthy:
        causes.append((ExitCode.CRITICAL_DISSONANCE, f"outside limits at the end: {', '.join(facts.unhealthy)}"))
    return causes


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, IaceError) else f"{type(error).__name__}: {error}"
