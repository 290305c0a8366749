"""What has happened: the durable facts that the journal keeps and from which the state is rebuilt.

An event is a past fact and carries plant time only, so that the same run gives the same journal. Everything that the
durable state needs is in `data` as plain JSON values; applying the same events again gives the same state.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """Every durable fact."""

    RUN_STARTED = "RUN_STARTED"
    RESTARTED = "RESTARTED"
    PLANT_LOST = "PLANT_LOST"
    PHASE_PASSED = "PHASE_PASSED"
    PHASE_FAILED = "PHASE_FAILED"
    PHASE_UNDECIDED = "PHASE_UNDECIDED"
    GRAVITY_WELL_CONFIRMED = "GRAVITY_WELL_CONFIRMED"
    GRAVITY_WELL_GONE = "GRAVITY_WELL_GONE"
    ISOLATION_BLOCKED = "ISOLATION_BLOCKED"
    ISOLATION_INTENDED = "ISOLATION_INTENDED"
    RENEWAL_INTENDED = "RENEWAL_INTENDED"
    RESTORATION_INTENDED = "RESTORATION_INTENDED"
    ACTION_APPLIED = "ACTION_APPLIED"
    ACTION_REFUSED = "ACTION_REFUSED"
    ACTION_UNKNOWN = "ACTION_UNKNOWN"
    ISOLATION_VERIFIED = "ISOLATION_VERIFIED"
    RENEWAL_VERIFIED = "RENEWAL_VERIFIED"
    RESTORATION_VERIFIED = "RESTORATION_VERIFIED"
    ISOLATION_FAILED = "ISOLATION_FAILED"
    RENEWAL_FAILED = "RENEWAL_FAILED"
    ACTION_ABANDONED = "ACTION_ABANDONED"
    ISOLATION_EXPIRED = "ISOLATION_EXPIRED"
    ACTIONS_SETTLED = "ACTIONS_SETTLED"
    NODE_READMITTED = "NODE_READMITTED"
    OFFENCE_FORGIVEN = "OFFENCE_FORGIVEN"
    NODE_FLAPPING = "NODE_FLAPPING"
    TRIAL_STARTED = "TRIAL_STARTED"
    TRIAL_APPLIED = "TRIAL_APPLIED"
    TRIAL_KEPT = "TRIAL_KEPT"
    ROLLBACK_INTENDED = "ROLLBACK_INTENDED"
    TRIAL_ROLLED_BACK = "TRIAL_ROLLED_BACK"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"
    HEALING_EXHAUSTED = "HEALING_EXHAUSTED"
    STORM_DETECTED = "STORM_DETECTED"
    SENSORS_DOUBTED = "SENSORS_DOUBTED"
    INVARIANT_BREACHED = "INVARIANT_BREACHED"
    SAFE_MODE_LEFT = "SAFE_MODE_LEFT"
    PAUSE_REQUESTED = "PAUSE_REQUESTED"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    COMMANDED = "COMMANDED"
    COMMAND_REFUSED = "COMMAND_REFUSED"
    REQUESTS_REFUSED = "REQUESTS_REFUSED"
    CONFIG_RELOADED = "CONFIG_RELOADED"
    NODE_EXEMPTED = "NODE_EXEMPTED"
    EXEMPTION_ENDED = "EXEMPTION_ENDED"
    PROPOSAL_DECIDED = "PROPOSAL_DECIDED"
    PROBE_INTENDED = "PROBE_INTENDED"
    PROBE_ENDED = "PROBE_ENDED"
    WINDOW_ENDED = "WINDOW_ENDED"
    PROPOSAL_WRITTEN = "PROPOSAL_WRITTEN"
    RUN_ENDED = "RUN_ENDED"
    STOPPED = "STOPPED"
    SNAPSHOT = "SNAPSHOT"


@dataclass(frozen=True, slots=True)
class Event:
    """One durable fact.

    Attributes:
        kind: what happened.
        at_s: plant time, s.
        data: JSON values only; numbers are finite.
    """

    kind: EventKind
    at_s: float
    data: Mapping[str, object] = field(default_factory=dict)

    def canonical(self) -> bytes:
        """The one byte form that is hashed: sorted keys, no spaces, UTF-8, shortest floats.

        Raises:
            ValueError: a number is NaN or infinite, which JSON cannot carry.
        """
        if not math.isfinite(self.at_s):
            raise ValueError(f"event time must be finite, not {self.at_s}")
        body = {"kind": self.kind.value, "at_s": self.at_s, "data": self.data}
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
