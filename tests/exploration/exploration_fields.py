"""Which fields of the governor a state is named by, and which are left out, and why.

A field that is in neither table fails `tests/test_exploration.py`: whoever adds one has to think about it.
"""

from __future__ import annotations

from collections.abc import Mapping

# "constant": never anything else in this exploration, which has no such input. "told": goes into events alone.
_NO_INPUT, _TOLD, _NEXT_TICK = "constant", "told", "the next tick overwrites it before it is read"
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "DurableState": {
        "epoch": "told, and compared by the journal alone",
        "blocked": _TOLD,
        "actions": "numbers keys",
        "trials": "numbers trials",
        "trust": _NO_INPUT,
        "exhaustions": "lengthens the back-off, which is capped at its base",
        "trial_tokens": "the bucket is never empty",
        "trial_tokens_at_s": "the bucket is never empty",
        "alpha_s": _NO_INPUT,
        "last_disturbance_s": "the hold-off is 0",
        "safe_mode": _TOLD,
        "commands": "no keys are given",
        "phase_failures": "lengthens the wait for the next attempt, which is capped at its base",
        "proposals": _NO_INPUT,
    },
    "NodeRecord": {"since_s": _TOLD, "backoff_s": "capped at its base, which is the same for all"},
    "Intent": {"at_s": _TOLD},
    "PauseRecord": {"by": _TOLD, "reason": _TOLD, "since_s": _TOLD},
    "Exemption": {"owner": "one person gives all orders", "reason": _TOLD, "from_s": "it begins at once"},
    "Trial": {
        "number": _TOLD,
        "started_s": _TOLD,
        "applied_s": _TOLD,
        "rollback_s": _TOLD,
        "proposal": _NO_INPUT,
    },
    "Governor": {
        "_lag_s": _NO_INPUT,
        "_capabilities": _NO_INPUT,
        "_closing": _NO_INPUT,
        "_corrections": _NO_INPUT,
        "_settings": _NO_INPUT,
        "_proposals": _NO_INPUT,
        "_desk": "holds the others",
        "_steps": "holds its own methods",
    },
    "NodeGovernance": {
        "_policy": _NO_INPUT,
        "_renewed_at": "a tick is as long as a renewal waits",
        "_dry_run": _NO_INPUT,
        "_spared": _NEXT_TICK,
        "_tick_s": _NEXT_TICK,
    },
    "WellWatch": {
        "_policy": _NO_INPUT,
        "_topology": _NO_INPUT,
        "clusters": "clusters never look bad",
        "sighted": _NEXT_TICK,
        "looking_bad": _NEXT_TICK,
        "_drift_ticks": _NO_INPUT,
    },
    "Confirmation": {"_critical": _NO_INPUT, "_clean_below": _NO_INPUT, "_bad_now": _NEXT_TICK},
    "ReadBack": {"_verify_s": _NO_INPUT, "_refused": "goes into events alone; that it was refused is the intent's"},
    "TrialGovernance": {
        "_policy": _NO_INPUT,
        "_dry_run": _NO_INPUT,
        "_gate": "its windows are of one tick",
        "_fading_ticks": "nothing has to settle",
        "_normal": "nothing has to settle",
        "_replaced_ticks": "nobody else sets parameters",
        "_supply": _NO_INPUT,
        "_improvements": "no environment is identified, without which it proposes nothing",
    },
}
NAMED: Mapping[str, frozenset[str]] = {
    "DurableState": frozenset(
        [
            "machine",
            "nodes",
            "intents",
            "wells",
            "tokens",
            "tokens_at_s",
            "trial",
            "failed_trials",
            "exhausted_until_s",
            "last_direction",
            "last_kept",
            "safe_mode_cause",
            "probes",
            "safe_mode_since_s",
            "pause",
            "exemptions",
        ]
    ),
    "NodeRecord": frozenset(["status", "isolated_s", "until_s", "offences", "by", "flapping"]),
    "Intent": frozenset(["key", "kind", "node", "until_s", "reply"]),
    "PauseRecord": frozenset(["until_s", "acknowledged"]),
    "Exemption": frozenset(["kind", "until_s"]),
    "Trial": frozenset(["key", "previous", "proposed", "direction", "baseline", "applied", "rollback_key", "fault"]),
    "Governor": frozenset(["state", "_nodes", "_trials", "_assessment", "_doubted_ticks", "_quiet_since_s"]),
    "NodeGovernance": frozenset(["_wells", "_in_flight", "_healthy", "_due", "_seen", "_latest"]),
    "WellWatch": frozenset(["nodes", "storm"]),
    "Confirmation": frozenset(["bad", "calm", "clean", "_blind"]),
    "ReadBack": frozenset(["_replied_at", "_first_look_s", "_uncertain"]),
    "TrialGovernance": frozenset(["_window", "_settled_ticks", "_idle_ticks", "_replied_at", "_first_look_s"]),
}
