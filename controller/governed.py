"""One stay at a plant: from reaching it until it is lost or the daemon stops.

The durable state, the stores and the stream outlive it; the assessor, the loop and the checks under way are its own, so
that coming back to a plant and starting again after a crash are one and the same path: look first, settle what was in
flight, undo what a probe had begun, and go on where the journal ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controller.aftermath import undo_probes
from controller.loop import Loop, Seen
from controller.phases.field import field as field_security
from controller.phases.initialization import initialization
from controller.phases.transactions import transactions
from controller.session import Session, Ticking
from controller.settings import Config
from metrics.assessment import Assessor
from metrics.errors import PlantError
from state.isolation import IsolationPolicy
from state.phase import Phase
from state.stimulus import PhaseEnded, ProbeEnded
from state.verdict import CheckResult, CheckStatus, PhaseResult

CHECKS = {
    Phase.PHASE_I: initialization,
    Phase.PHASE_II: transactions,
    Phase.PHASE_III: field_security,
}

_log = logging.getLogger(f"iace.{__name__}")


@dataclass(slots=True)
class Governed:
    """A plant that is being governed.

    Attributes:
        session: what its phases share.
        checks: the checks under way; None while nothing may be touched.
    """

    session: Session
    checks: Ticking[None] | None = None

    @property
    def loop(self) -> Loop:
        """Its loop."""
        return self.session.loop

    def reconfigure(self, config: Config, assessor: Assessor, policy: IsolationPolicy) -> None:
        """Measure, check and decide by another configuration from the next tick on."""
        self.session = replace(self.session, config=config)
        self.loop.reassess(assessor, policy)

    def advance(self, seen: Seen) -> None:
        """Carry the checks on by a tick that has been taken in; an operator's pause ends them where they are."""
        if self.loop.governor.state.pause is not None:
            self.abandon()
        elif self.checks is None:
            self.checks = self._lifecycle()
            next(self.checks)
        else:
            self._carry_on(self.checks, seen)

    def abandon(self) -> None:
        """End the checks under way, and undo what they have begun; they are made from the beginning later."""
        if self.checks is not None:
            self.checks.close()
            self.checks = None
        self.undo_probes()

    def undo_probes(self) -> None:
        """Take back what probes have left at the plant; what cannot be is tried again at the next tick.

        A dry run leaves it there.
        """
        state = self.loop.governor.state
        if self.session.dry_run or not state.probes:
            return
        after = undo_probes(state, self.session.plant, epoch=state.epoch, name=f"{self.session.run_id}/undo")
        for text in after.told:
            self.session.console.say(text)
        if after.settled:
            for probe in list(state.probes):
                self.loop.tell(ProbeEnded(probe, {"undone": list(after.told)}))

    def _carry_on(self, checks: Ticking[None], seen: Seen) -> None:
        phase = self.loop.governor.state.phase
        try:
            checks.send(seen)
        except PlantError as error:
            # The plant answers ticks but not this check: that is an outcome of the phase, not the end of the daemon.
            self.abandon()
            if phase in CHECKS:
                self._ended(_unanswered(phase, self.loop.now_s, error))

    def _lifecycle(self) -> Ticking[None]:
        """The checks of whatever phase it is in; while it governs, the loop does everything."""
        while True:
            phase = self.loop.governor.state.phase
            checks = CHECKS.get(phase)
            if checks is None:
                yield
                continue
            self.session.console.phase_started(phase)
            # What an earlier attempt sent must not be taken for a repetition of it: each attempt has keys of its own.
            attempt = replace(self.session, run_id=f"{self.session.run_id}/{self.loop.journal_tip[0]}")
            result = yield from checks(attempt)
            self._ended(result)

    def _ended(self, result: PhaseResult) -> None:
        self.session.record.phases.append(result)
        self.session.console.phase_ended(result)
        self.loop.tell(PhaseEnded(result))
        phase = self.loop.governor.state.phase
        if phase is Phase.GOVERNING:
            self.session.console.phase_started(phase)
        _log.info("%s has ended: %s", result.phase, result.verdict)


def _unanswered(phase: Phase, now_s: float, error: PlantError) -> PhaseResult:
    check = CheckResult("plant.answers", CheckStatus.ERROR, str(error))
    return PhaseResult(phase, (check,), now_s, now_s)


def facts(session: Session, config_sha256: str, *, reason: str) -> Mapping[str, object]:
    """What the journal keeps about where and with what a stay began."""
    return {
        "plant": session.info.name,
        "system": session.info.system,
        "real_time": session.info.real_time,
        "config_sha256": config_sha256,
        "dry_run": session.dry_run,
        "reason": reason,
    }
