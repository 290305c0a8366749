"""A run has ended with this exit code, or a daemon would if it ended now: what should its owner do next?"""

from __future__ import annotations

from collections.abc import Mapping

from state.outcome import ExitCode


def next_step(code: ExitCode, *, daemon: bool) -> str:
    """What to do; a daemon goes on by itself, where a run has to be made again."""
    return _GOVERNED.get(code, NEXT_STEPS[code]) if daemon else NEXT_STEPS[code]


NEXT_STEPS: Mapping[ExitCode, str] = {
    ExitCode.COHERENT_LOCK: "Nothing has to be done for this verdict; the proposals say what would help the cluster.",
    ExitCode.PHASE_I_FAILED: "Mend what the failed check of Phase I names (the plant, its telemetry, its KPIs), then "
    "run again.",
    ExitCode.PHASE_II_FAILED: "Do not trust this ledger. Stop whoever commits to it, compare it with a copy from "
    "before what the failed check names, and restore that copy.",
    ExitCode.PHASE_III_FAILED: "The field cannot be governed safely. See which check of Phase III failed, and leave "
    "this plant alone until it passes.",
    ExitCode.PHASE_IV_FAILED: "A proposal or a correction could not be carried out. See the cause above, then run "
    "again.",
    ExitCode.CRITICAL_DISSONANCE: "Isolation and healing were not enough. Look at the KPIs outside their limits and at "
    "what changed in the plant's environment; a longer window (`--ticks`) gives healing more trials.",
    ExitCode.ISOLATION_BLOCKED: "A guard kept gravity wells in place, so that those that stay keep working. Repair the "
    "nodes named as blocked, or add healthy ones; raise a budget only if you know that the rest carries the load.",
    ExitCode.SAFE_MODE: "The evidence contradicts itself, so nothing more was changed. Check the sensors (the "
    "reported phases) of the plant first, the nodes afterwards.",
    ExitCode.INCONCLUSIVE: "There is no verdict. See which evidence was missing, provide it (time, permission for "
    "probes, a capability of the plant), and run again.",
    ExitCode.BAD_DATA: "Repair or replace the file that the cause names.",
    ExitCode.PLANT_UNAVAILABLE: "Start the plant or correct its address, then run again.",
    ExitCode.INTERNAL_ERROR: "This is a bug in IACE. Keep this directory and the run's journal, and report it.",
    ExitCode.STORE_FAILED: "Free space or repair the disk under the data directory, then run again.",
    ExitCode.NOT_LEADER: "Another controller holds this data directory. Stop it, or use another with `--data-dir`.",
    ExitCode.NOT_PERMITTED: "Give the user of IACE the permission that the cause names.",
    ExitCode.CONFIG_INVALID: "Mend every problem that the cause lists; `iace config check` tells whether any is left.",
    ExitCode.INTERRUPTED: "Stopped by hand; run again for a verdict.",
    ExitCode.TERMINATED: "Stopped by a signal; run again for a verdict.",
}

_GOVERNED: Mapping[ExitCode, str] = {
    ExitCode.PHASE_I_FAILED: "Mend what the failed check of Phase I names (the plant, its telemetry, its KPIs). The "
    "phase is tried again by itself, and at once by `iace safe-mode clear --reason TEXT`.",
    ExitCode.CRITICAL_DISSONANCE: "Isolation and healing have not been enough so far. Look at the KPIs outside their "
    "limits and at what changed in the plant's environment, and decide on the proposals.",
    ExitCode.INCONCLUSIVE: "There is no verdict yet. See which evidence is missing, and provide it (time, permission "
    "for probes, a capability of the plant).",
}
