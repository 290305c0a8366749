"""The tool that tries a change of settings on what was recorded: what would have been different?

It runs on this machine, on the daemon's telemetry in the data directory or on the recording that the server was
started with, and acts on nothing. Agents name settings, never files: what is read here was chosen by whoever started
the server. One backtest at a time, over a bounded number of samples.

Left out: parameters of the plant. A recording cannot react to them.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio.from_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from controller import backtest, recording_source, recording_store, rundir
from controller import config as configuration
from controller.agents import answers
from controller.agents.daemon import in_words, seconds
from controller.agents.read_tools import Duration
from controller.evidence import Evidence
from controller.recording import Recording
from controller.settings import Config
from metrics.errors import BadDataError, IaceError
from metrics.store.protocol import Aggregate
from metrics.store.sqlite import SqliteStore
from state.event import EventKind
from state.journal import Journal

SECTIONS = ("gravity", "isolation", "healing", "kpi")
SETTINGS_MAX = 20
DECISIONS_TOLD = 20
SAMPLES_MAX = 1_000_000  # about 100 MB while they are read
TICKS_MAX = 20_000
LAST_MAX_S = 1e9  # nothing was recorded longer ago, and its nanoseconds are still a number that SQLite knows
TOLD_EVERY_TICKS = 100
_ALL_NS = 2**62

Settings = Annotated[
    dict[str, bool | int | float | str],
    Field(
        min_length=1,
        max_length=SETTINGS_MAX,
        description='Settings by path, e.g. {"gravity.critical": 1.8, "isolation.confirm_ticks": 5} or '
        '{"kpi.coherence.healthy": 0.92}; only the sections gravity, isolation, healing and kpi.',
    ),
]


@dataclass(frozen=True, slots=True)
class Bench:
    """What backtests run on.

    Attributes:
        config_file: the configuration to start from; None: where the daemon looks for it as well.
        data_dir: of the daemon.
        source: a recording as `iace backtest --from` takes it; None: the daemon's own telemetry.
    """

    config_file: Path | None
    data_dir: Path
    source: str | None


class BacktestTool:
    """Backtests on one bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._turn = threading.Lock()

    def backtest_change(
        self, settings: Settings, context: Context[Any, Any], last: Duration = "15m"
    ) -> answers.Backtest:
        """What would have been different with these settings: the recorded past under both configurations.

        Use it before you recommend or approve a change of settings, with the `to` values of a proposal's
        `change.settings`. It tells which isolations, blocks and trials would have been dropped or added and what each
        configuration costs (`exposure_node_s`: bad nodes in service; `collateral_node_s`: other nodes out). It cannot
        show how the plant would have reacted, and a quiet recording proves nothing: look at the totals first. Changes
        of the plant's parameters cannot be backtested. It changes nothing; the longer the past, the longer it takes.
        """
        if not self._turn.acquire(blocking=False):
            raise ToolError("another backtest is running here: wait for its answer, then try again")
        try:
            with in_words():
                return self._tried(settings, min(seconds(last), LAST_MAX_S), context)
        finally:
            self._turn.release()

    def _tried(self, settings: Mapping[str, object], last_s: float, context: Context[Any, Any]) -> answers.Backtest:
        before = configuration.load(self._bench.config_file)
        after = configuration.load(self._bench.config_file, _nested(settings), overridden="from `settings`")
        changed = {path: _change(path, before, after) for path in settings}
        if configuration.fingerprint(before) == configuration.fingerprint(after):
            raise ToolError("these settings are in force already: there is nothing to compare")
        recording = self._recording(before, last_s)
        evidence, progress = Evidence(recording), _Progress(context, 3 * len(recording.times_s))
        evidence.run(progress=progress.tick)
        judged = [
            {
                "name": name,
                **backtest.judge(
                    recording, evidence, config, reference_g=before.gravity.critical, progress=progress.tick
                ),
            }
            for name, config in (("before", before), ("after", after))
        ]
        return _told(recording, judged, changed, self._as_daemon(before))

    def _recording(self, config: Config, last_s: float) -> Recording:
        if self._bench.source is None:
            path = self._bench.data_dir / rundir.DAEMON / rundir.TELEMETRY
            if not path.exists():
                raise BadDataError(
                    f"no telemetry at {path}: start iace mcp with the --data-dir of the daemon, or with --from"
                )
            with closing(SqliteStore(path)) as store:
                _check_size(store, last_s)
                recording = recording_store.recorded(store, str(path), last_s=last_s)
        else:
            source = recording_source.located(self._bench.source, self._bench.data_dir)
            recording = recording_source.take(source, config, last_s=last_s)
        ticks = len(recording.times_s)
        if not ticks:
            raise BadDataError(f"{recording.source} holds nothing yet")
        if ticks > TICKS_MAX:
            raise ToolError(f"{ticks} ticks are more than {TICKS_MAX}: ask with a shorter `last`")
        return recording

    def _as_daemon(self, config: Config) -> bool | None:
        """Whether the daemon runs with `config`, by what it journaled last; None where that is not known."""
        if self._bench.source is not None:
            return None
        known: object = None
        try:
            with closing(Journal(self._bench.data_dir / rundir.DAEMON / rundir.JOURNAL, read_only=True)) as journal:
                for entry in journal.entries():
                    data = entry.event.data
                    reloaded = entry.event.kind is EventKind.CONFIG_RELOADED
                    known = data.get("sha256" if reloaded else "config_sha256", known)
        except IaceError:
            return None
        return None if known is None else known == configuration.fingerprint(config)


class _Progress:
    """Tells a client that asked for it how far a backtest is, so that it goes on waiting."""

    def __init__(self, context: Context[Any, Any], total: int) -> None:
        self._context = context
        self._total = total
        self._done = 0

    def tick(self, _row: int) -> None:
        """One row is done. Runs in the tool's own thread."""
        self._done += 1
        if self._done % TOLD_EVERY_TICKS == 0:
            anyio.from_thread.run(self._context.report_progress, self._done, self._total)


def _nested(settings: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The settings by section, as `configuration.load` takes them.

    Raises:
        ToolError: a section is not one of `SECTIONS`.
    """
    nested: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, *keys = path.split(".")
        if section not in SECTIONS or len(keys) != (2 if section == "kpi" else 1):
            raise ToolError(
                f"{path[:80]!r} is no setting that a backtest can try: write section.key, or kpi.NAME.healthy, with a "
                f"section out of {', '.join(SECTIONS)}"
            )
        table = nested.setdefault(section, {})
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = value
    return nested


def _change(path: str, before: Config, after: Config) -> answers.Change:
    return answers.Change(before=_value(before, path), after=_value(after, path))


def _value(config: Config, path: str) -> object:
    """A setting's value; limits that are not configured are those of the catalogue."""
    section, *keys = path.split(".")
    if section == "kpi":
        kpi = config.catalogue()[keys[0]]
        return None if kpi.limit is None else getattr(kpi.limit, keys[1])
    return configuration.values(config)[section][keys[0]]


def _check_size(store: SqliteStore, last_s: float) -> None:
    """Refuse what would take too much memory before it is read.

    Raises:
        ToolError: it would.
    """
    names = store.series()
    kpi = next((name for name in names if name.startswith("kpi.")), None)
    newest = None if kpi is None else store.latest(kpi)
    if kpi is None or newest is None:
        return
    start_ns = max(0, newest.at_ns - round(last_s * 1e9) + 1)
    counted = store.aggregate(kpi, start_ns, newest.at_ns + 1, _ALL_NS, Aggregate.COUNT)
    samples = round(sum(sample.value for sample in counted)) * len(names)
    if samples > SAMPLES_MAX:
        raise ToolError(f"about {samples} samples are more than {SAMPLES_MAX}: ask with a shorter `last`")


def _told(
    recording: Recording,
    judged: list[dict[str, Any]],
    changed: dict[str, answers.Change],
    same: bool | None,  # noqa: FBT001 - a third value is part of the answer
) -> answers.Backtest:
    held: Any = backtest.described(recording)["recording"]
    compared: Any = backtest.compared(judged)
    decisions = [judgement["decisions"] for judgement in judged]
    dropped, added = _without(decisions[0], decisions[1]), _without(decisions[1], decisions[0])
    return answers.Backtest(
        recording=answers.Recorded(**{name: held[name] for name in answers.Recorded.model_fields}),
        changed=changed,
        verdict=compared["verdict"],
        cost_node_s_before=compared["sides"][0]["cost_node_s"],
        cost_node_s_after=compared["sides"][1]["cost_node_s"],
        totals_before=judged[0]["totals"],
        totals_after=judged[1]["totals"],
        only_before=[_decision(one) for one in dropped[:DECISIONS_TOLD]],
        only_before_total=len(dropped),
        only_after=[_decision(one) for one in added[:DECISIONS_TOLD]],
        only_after_total=len(added),
        same_configuration_as_daemon=same,
        not_applied=list(backtest.NOT_APPLIED),
    )


def _without(decisions: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `decisions` that are not among `others`, which are taken one for one."""
    left = Counter(map(_identity, others))
    kept = []
    for decision in decisions:
        identity = _identity(decision)
        if left[identity]:
            left[identity] -= 1
        else:
            kept.append(decision)
    return kept


def _identity(decision: Mapping[str, Any]) -> tuple[float, str, str]:
    return decision["at_s"], decision["kind"], decision["subject"]


def _decision(decision: Mapping[str, Any]) -> answers.Decision:
    data = decision["data"]
    reason = data.get("reason") or data.get("guard") or data.get("direction") or ""
    return answers.Decision(
        at_s=decision["at_s"],
        kind=decision["kind"],
        subject=decision["subject"],
        reason=reason if isinstance(reason, str) else json.dumps(reason),
    )
