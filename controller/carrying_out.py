"""How is a proposal carried out, verified and taken back? By a trial, by a reload, or by people.

The commands differ between a daemon, which goes on, and a run, which is over and has to be made again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.findings import Finding
from controller.settings import Config
from controller.wording import quantity

TRIAL, RELOAD, PEOPLE = "trial", "reload", "people"
ID = "{id}"  # stands for the proposal's own id, which is only known once everything else is
GOVERN = "iace govern"


@dataclass(frozen=True, slots=True)
class Way:
    """How a finding is carried out.

    Attributes:
        by: `TRIAL`, `RELOAD` or `PEOPLE`.
        verification, rollback: for people.
        commands: what to type, each with what it does.
    """

    by: str
    verification: str
    rollback: str
    commands: tuple[tuple[str, str], ...] = ()


def way(finding: Finding, config: Config, command: str, config_file: str) -> Way:
    """How `finding` is carried out where `command` started the controller, and `config_file` holds the settings."""
    if finding.tried:
        return _trial(finding, config, command)
    if finding.settings:
        return _reload(finding, command, config_file)
    commands = tuple(_nodes(finding.nodes)) if command == GOVERN else ()
    return Way(
        PEOPLE, "the next report tells whether it is still called for", "by people, to what it is from", commands
    )


def _trial(finding: Finding, config: Config, command: str) -> Way:
    healing = config.healing
    old = ", ".join(f"{name} {quantity(before)}" for name, (before, _) in finding.parameters.items())
    verification = (
        f"a trial: read back, {healing.settle_ticks} ticks to settle, then {healing.measure_ticks} ticks against the "
        f"{healing.baseline_ticks} before it; kept where the limits hold at no greater objective, or the violation has "
        f"fallen beyond the noise (one-sided t-test at {quantity(healing.level)}, at least "
        f"{quantity(healing.min_effect)}); measured once more where that is open"
    )
    rollback = f"back to {old} by itself unless it is kept, and read back; one that fails is SAFE_MODE"
    if command == GOVERN:
        commands: tuple[tuple[str, str], ...] = (
            (f'iace proposals approve {ID} --reason "as proposed"', "begins the trial as soon as nothing forbids it"),
            (f"iace proposals show {ID}", "tells where it stands: applied, then verified or rolled_back"),
        )
    else:
        enabled = "" if healing.enabled else "IACE_HEALING__ENABLED=true "
        again = (
            "runs again, with healing allowed and twice the window: healing tries what it finds best then, which need "
            "not be these values, and keeps it or rolls it back"
        )
        commands = ((f"{enabled}IACE_HEALING__AUTO_APPLY=true {command} --ticks {2 * config.schedule.ticks}", again),)
    return Way(TRIAL, verification, rollback, commands)


def _reload(finding: Finding, command: str, config_file: str) -> Way:
    lines = "; ".join(_lines({path: new for path, (_, new) in finding.settings.items()}))
    old = "; ".join(_lines({path: before for path, (before, _) in finding.settings.items()}))
    if command != GOVERN:
        variables = " ".join(_variable(path, new) for path, (_, new) in finding.settings.items())
        told = "the report of the run that is made again with it, beside this one's"
        return Way(
            RELOAD, told, f"by running without it, with {old}", ((f"{variables} {command}", "runs again with it"),)
        )
    return Way(
        RELOAD,
        "the reload that brings exactly these settings marks it applied; a backtest of the telemetry since then "
        "(iace backtest --against) compares it with what was",
        f"another reload with {old}",
        (
            (f'iace proposals approve {ID} --reason "as proposed"', "takes note of the decision"),
            (f'iace reload --reason "proposal {ID}"', f"puts it in force once {config_file} has {lines}"),
        ),
    )


def _nodes(nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What helps while people work on nodes, spelled out for the first of them."""
    if not nodes:
        return
    name, more = shlex.quote(nodes[0]), len(nodes) - 1
    others = f"; the same with each of the {more} other name(s)" if more else ""
    yield (
        f'iace exempt {name} --kind maintenance --for 2h --reason "under repair"',
        f"leaves it alone while somebody works on it, for two hours or as long as --for says{others}",
    )
    yield (
        f'iace restore {name} --reason "repaired"',
        f"lets it in again, on probation, without waiting until it has looked clean for long enough{others}",
    )


def _lines(settings: Mapping[str, object]) -> Iterator[str]:
    for path, value in settings.items():
        section, _, name = path.partition(".")
        yield f"[{section}] {name} = {json.dumps(value)}" if value is not None else f"no {name} in [{section}]"


def _variable(path: str, value: object) -> str:
    text = str(value).removesuffix(".0")  # of a float the shortest digits that give it again
    return f"IACE_{path.upper().replace('.', '__')}={text}"
