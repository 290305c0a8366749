"""How do the dashboards look? One colour, unit and threshold for each thing, on all of them.

Thresholds come from the KPI catalogue and from the policies' defaults, state colours stand beside the state machine's
names, and a colour means the same everywhere: green is fine, orange asks for attention, red is broken, blue is work
under way, purple is somebody's doing. Left out: where a panel stands, and what it asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grafana_foundation_sdk.models import dashboard as model

from controller.alerting.kpi_alerts import kpi_alerts
from controller.settings import GravitySettings, IsolationSettings
from metrics.kpi import CATALOGUE, Limit, Side
from state.durable import NodeStatus
from state.outcome import ExitCode
from state.phase import Phase
from state.verdict import PhaseVerdict

GREEN, ORANGE, RED, BLUE, PURPLE, GREY = "green", "orange", "red", "blue", "purple", "#8e8e8e"
YELLOW, DARK_RED, DARK_GREEN, LIGHT_BLUE = "yellow", "dark-red", "dark-green", "light-blue"

GRAVITY_CRITICAL: float = GravitySettings().critical
GRAVITY_CLEAN: float = IsolationSettings().readmit_gravity

PHASE_COLOURS: Mapping[Phase, str] = {
    Phase.IDLE: GREY,
    Phase.PHASE_I: "super-light-blue",
    Phase.PHASE_II: LIGHT_BLUE,
    Phase.PHASE_III: BLUE,
    Phase.GOVERNING: GREEN,
    Phase.ISOLATING: ORANGE,
    Phase.HEALING: YELLOW,
    Phase.PHASE_IV: "dark-blue",
    Phase.SAFE_MODE: RED,
    Phase.PAUSED: PURPLE,
    Phase.COHERENT_LOCK: DARK_GREEN,
    Phase.CRITICAL_DISSONANCE: DARK_RED,
}
STATUS_COLOURS: Mapping[NodeStatus, str] = {
    NodeStatus.HEALTHY: GREEN,
    NodeStatus.SUSPECT: YELLOW,
    NodeStatus.ISOLATING: ORANGE,
    NodeStatus.ISOLATED: RED,
    NodeStatus.PROBATION: LIGHT_BLUE,
}
VERDICTS: Mapping[int, tuple[str, str]] = {  # iace_phase_result
    1: (PhaseVerdict.PASSED.value, GREEN),
    0: (PhaseVerdict.FAILED.value, RED),
    -1: (PhaseVerdict.UNDECIDED.value, ORANGE),
}
_KPI_UNITS = {"1": "none", "1/s": "suffix: /s", "nat": "suffix: nat", "token": "suffix: tokens"}
_TITLES = {
    "coherence": "Coherence C_S",
    "gas": "Alignment GAS",
    "rsi": "Stability RSI",
    "action_cost": "Action cost I_eff",
    "delta_lambda": "Change of contraction ΔΛ",
    "delta_entropy": "Change of entropy ΔH",
}


def kpi_title(name: str) -> str:
    """The title of a KPI's panel."""
    return _TITLES[name]


def kpi_unit(name: str) -> str:
    """Grafana's unit for a KPI."""
    return _KPI_UNITS[CATALOGUE[name].unit]


def kpi_runbooks(name: str) -> tuple[str, ...]:
    """The alerts on a KPI."""
    return tuple(alert.name for alert in kpi_alerts() if alert.labels["kpi"] == name)


def kpi_limit(name: str) -> Limit:
    """The limit of a KPI that has one.

    Raises:
        KeyError: it has none.
    """
    limit = CATALOGUE[name].limit
    if limit is None:
        raise KeyError(name)
    return limit


def limit_steps(limit: Limit) -> list[model.Threshold]:
    """The catalogue's limit as colours along the value: green where it is healthy."""
    if limit.side is Side.AT_MOST:
        worse = [] if limit.critical is None else [model.Threshold(limit.critical, RED)]
        return [model.Threshold(None, GREEN), model.Threshold(limit.healthy, ORANGE), *worse]
    if limit.critical is None:
        return [model.Threshold(None, ORANGE), model.Threshold(limit.healthy, GREEN)]
    return [
        model.Threshold(None, RED),
        model.Threshold(limit.critical, ORANGE),
        model.Threshold(limit.healthy, GREEN),
    ]


def steps(base: str, *rising: tuple[float, str]) -> list[model.Threshold]:
    """Colours along the value: `base`, then each colour from its value on."""
    return [model.Threshold(None, base), *(model.Threshold(value, colour) for value, colour in rising)]


def gravity_steps() -> list[model.Threshold]:
    """|g|: clean, then unclean, then critical."""
    return steps(GREEN, (GRAVITY_CLEAN, YELLOW), (GRAVITY_CRITICAL, RED))


def value_map(texts: Iterable[tuple[str, str, str]]) -> list[model.ValueMapping]:
    """Value, text and colour of each as Grafana's value mapping."""
    results = {
        value: model.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, text, colour) in enumerate(texts)
    }
    return [model.ValueMap(options=results)]


def phase_map() -> list[model.ValueMapping]:
    """The permanent numbers of the states as their names."""
    return value_map((str(phase.number), phase.value, colour) for phase, colour in PHASE_COLOURS.items())


def status_map() -> list[model.ValueMapping]:
    """The statuses of nodes, which are texts, in their colours."""
    return value_map((status.value, status.value, colour) for status, colour in STATUS_COLOURS.items())


def verdict_map() -> list[model.ValueMapping]:
    """How a phase ended."""
    return value_map((str(number), text, colour) for number, (text, colour) in VERDICTS.items())


def flag_map(yes: tuple[str, str], no: tuple[str, str]) -> list[model.ValueMapping]:
    """1 and 0 as text and colour."""
    return value_map([("1", *yes), ("0", *no)])


def exit_map() -> list[model.ValueMapping]:
    """Exit codes as their names, in the colour of what they mean."""
    return value_map((str(int(code)), f"{int(code)} {code.name}", _exit_colour(code)) for code in ExitCode)


def _exit_colour(code: ExitCode) -> str:
    if code is ExitCode.COHERENT_LOCK:
        return GREEN
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        return GREY
    return ORANGE if code in (ExitCode.INCONCLUSIVE, ExitCode.ISOLATION_BLOCKED, ExitCode.SAFE_MODE) else RED
