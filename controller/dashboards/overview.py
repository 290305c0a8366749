"""Overview: is all well, and if not, what is wrong, who is out, and what happened?"""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import Board, Row, link_to
from controller.dashboards.panels import About, Column, lines_panel, stat_panel, table_panel, timeline_panel
from controller.dashboards.queries import CONTROLLER, events, increase, of, prom, prom_now, total
from controller.dashboards.style import BLUE, GREEN, GREY, ORANGE, RED, steps
from metrics.export_catalogue import KPI_METRICS
from metrics.kpi import CATALOGUE, Side
from state.phase import Phase

LIMITED = tuple(name for name, kpi in CATALOGUE.items() if kpi.limit is not None)
_HEALTHY, _CRITICAL = "healthy limit", "critical limit"
_NODE_LINK = link_to("nodes", "&var-node=${__value.raw}")


def state_number() -> str:
    """The permanent number of the state that the controller is in, from the one-hot metric."""
    terms = (f"({_in_state(phase)} == 1) * {phase.number}" for phase in Phase)
    return f"max by (instance) ({' or '.join(terms)})"


def _in_state(phase: Phase) -> str:
    return of("iace_state", f'state="{phase.value}"')


def board() -> Board:
    """The overview."""
    return Board(
        name="overview",
        title="IACE / Overview",
        description="Is all well, and if not, what is wrong, who is out, and what happened?",
        rows=[
            Row(4, [(4, _state()), *((width, panel) for width, panel in _figures())]),
            Row(5, [(24, _states())]),
            Row(8, [(8, _verdicts()), (6, _isolated()), (10, _happened())]),
            Row(7, [(8, _kpi(name)) for name in LIMITED[:3]]),
            Row(7, [(8, _kpi(name)) for name in LIMITED[3:]]),
            Row(7, [(8, _scores()), (8, _anomalies()), (8, _actions())]),
        ],
    )


def _state() -> model.Panel:
    about = About(
        "State",
        "What the controller is doing now. GOVERNING is the normal state; SAFE_MODE means that it observes and alarms "
        "and changes nothing.",
        alerts=("IaceSafeMode",),
    )
    return stat_panel(about, prom(state_number()), steps=steps(GREY), mappings=style.phase_map())


def _figures() -> Iterator[tuple[int, model.Panel]]:
    yield (
        3,
        stat_panel(
            About("Nodes out", "Nodes that are held out of service now. Who they are stands below.", "short"),
            prom(total(of("iace_nodes", 'status=~"isolating|isolated"'))),
            steps=steps(GREEN, (1, ORANGE)),
        ),
    )
    yield (
        3,
        stat_panel(
            About(
                "Gravity wells",
                f"Active nodes with |g| above {style.GRAVITY_CRITICAL:g}, which drag the others down. For a few ticks "
                "that is normal: a well has to be confirmed before it is isolated.",
                "short",
                ("IaceGravityWell",),
            ),
            prom(of("iace_gravity_wells")),
            steps=steps(GREEN, (1, ORANGE)),
        ),
    )
    yield (
        3,
        stat_panel(
            About(
                "Blocked wells",
                "Confirmed gravity wells that a safety guard leaves in place. Somebody has to look: the guards protect "
                "the cluster from the controller, not from the wells.",
                "short",
                ("IaceIsolationBlocked",),
            ),
            prom(f"sum({of('iace_wells_blocked')}) or sum(0 * {of('iace_gravity_wells')})"),
            steps=steps(GREEN, (1, RED)),
        ),
    )
    yield (
        3,
        stat_panel(
            About(
                "Safe mode",
                "Whether the controller holds fail-static: it observes and alarms, and changes nothing.",
                "bool_yes_no",
                ("IaceSafeMode", "IaceStorm"),
            ),
            prom(f"max({of('iace_safe_mode')} or {of('iace_storm')})"),
            steps=steps(GREEN, (1, RED)),
            mappings=style.flag_map(("HOLDING", RED), ("off", GREEN)),
        ),
    )
    yield (
        2,
        stat_panel(
            About(
                "Plant",
                "Whether the governed system answered the last call.",
                "bool_yes_no",
                ("IacePlantDown",),
            ),
            prom(f"min({of('iace_plant_up')})"),
            steps=steps(RED, (1, GREEN)),
            mappings=style.flag_map(("up", GREEN), ("DOWN", RED)),
        ),
    )
    yield (
        3,
        stat_panel(
            About(
                "Observation age",
                "How old the newest observation of the plant is. What is decided on old evidence is decided blindly, "
                "so nothing is.",
                "s",
                ("IaceObservationStale",),
            ),
            prom(f"max({of('iace_observation_age_seconds')})"),
            steps=steps(GREEN, (5, ORANGE), (15, RED)),
            decimals=1,
        ),
    )
    yield (
        3,
        stat_panel(
            About("Anomalies", "Anomalies that began in the time range, of every KPI and severity.", "short"),
            prom_now(f"sum({increase('iace_anomalies_total', window='$__range')})"),
            steps=steps(BLUE),
            decimals=0,
        ),
    )


def _states() -> model.Panel:
    about = About(
        "State timeline",
        "The controller's states over time. Orange: an isolation or re-admission is not yet verified. Yellow: a "
        "parameter trial is under way. Red: fail-static.",
    )
    return timeline_panel(about, [prom(state_number(), "{{instance}}")], mappings=style.phase_map())


def _named(name: str) -> str:
    return f'label_replace({of(KPI_METRICS[name])}, "kpi", "{name}", "", "")'


def _values(side: Side | None = None) -> str:
    names = [name for name in LIMITED if side in (None, style.kpi_limit(name).side)]
    return f"max by (kpi) ({' or '.join(_named(name) for name in names)})"


def _limit(level: str) -> str:
    return f'max by (kpi) (iace_kpi_limit{{{CONTROLLER},level="{level}"}})'


def _verdicts() -> model.Panel:
    margin = (
        f"({_values(Side.AT_LEAST)} / on (kpi) {_limit('healthy')} - 1) or "
        f"(1 - {_values(Side.AT_MOST)} / on (kpi) {_limit('healthy')})"
    )
    about = About(
        "KPIs against their limits",
        "Each KPI that has a limit, the worst first. The margin is the way to its healthy limit as a share of that "
        "limit: negative is beyond it. The limits are those in force.",
    )
    return table_panel(
        about,
        [prom_now(_values()), prom_now(_limit("healthy")), prom_now(_limit("critical")), prom_now(margin)],
        [
            Column("kpi", "KPI", width=130),
            Column("Value #A", "Now", decimals=4),
            Column("Value #B", "Healthy", decimals=3),
            Column("Value #C", "Critical", decimals=3),
            Column("Value #D", "Margin", "percentunit", steps(RED, (0, GREEN)), decimals=0),
        ],
        sort=("Margin", False),
    )


def _isolated() -> model.Panel:
    about = About(
        "Who is isolated",
        "The nodes that the plant holds out of service now, with their |g|: one that works against its cluster keeps a "
        "high one, one that has been cured comes down and is let in again. Nobody is out where there are no rows.",
        alerts=("IaceNodeIsolated",),
    )
    out = f"{of('iace_node_isolated')} == 1"
    return table_panel(
        about,
        [prom_now(f"max by (node, cluster) ({of('iace_node_gravity')} and on (node, cluster, instance) ({out}))")],
        [
            Column("node", "Node", link=_NODE_LINK),
            Column("cluster", "Cluster"),
            Column("Value", "|g|", steps=style.gravity_steps(), decimals=2, width=80),
        ],
        sort=("|g|", True),
    )


def _happened() -> model.Panel:
    about = About(
        "What happened",
        "The journal's newest events, in words. `iace explain SEQ` tells more of each.",
    )
    return table_panel(
        about,
        [events()],
        [
            Column("Time", "Time", "dateTimeAsLocalNoDateIfToday", width=95),
            Column("state", "State", mappings=_state_names(), width=110),
            Column("text", "Event"),
        ],
    )


def _state_names() -> list[model.ValueMapping]:
    return style.value_map((phase.value, phase.value, colour) for phase, colour in style.PHASE_COLOURS.items())


def _kpi(name: str) -> model.Panel:
    kpi, limit = CATALOGUE[name], style.kpi_limit(name)
    labels = f'kpi="{name}",level='
    queries: list[Dataquery] = [
        prom(of(KPI_METRICS[name]), name),
        prom(of("iace_kpi_limit", f'{labels}"healthy"'), _HEALTHY),
    ]
    if limit.critical is not None:
        queries.append(prom(of("iace_kpi_limit", f'{labels}"critical"'), _CRITICAL))
    about = About(
        style.kpi_title(name),
        f"{kpi.help} Healthy {limit} by default, which the ground shows; the dashed lines are the limits in force.",
        style.kpi_unit(name),
        style.kpi_runbooks(name),
    )
    return lines_panel(
        about,
        queries,
        steps=style.limit_steps(limit),
        colours={name: "text", _HEALTHY: ORANGE, _CRITICAL: RED},
        dashed=(_HEALTHY, _CRITICAL),
        low=0.0 if limit.side is Side.AT_MOST else None,
        high=1.0 if limit.side is Side.AT_LEAST else None,
        decimals=3,
    )


def _scores() -> model.Panel:
    about = About(
        "Anomaly scores",
        "How unusual each KPI with a limit is now, by the streaming detector: the higher, the rarer in a healthy "
        "system. A score is evidence and never acts by itself.",
    )
    limited = "|".join(LIMITED)
    query = prom(of("iace_anomaly_score", f'kpi=~"{limited}"'), "{{kpi}}")
    return lines_panel(about, [query], low=0.0, decimals=1)


def _anomalies() -> model.Panel:
    about = About(
        "Anomalies that began",
        "Anomalies by severity, in each interval. Several at once are usually one incident.",
        "short",
        ("IaceAnomaly",),
    )
    return lines_panel(
        about,
        [prom(f"sum by (severity) ({increase('iace_anomalies_total')})", "{{severity}}")],
        bars=True,
        colours={"warning": ORANGE, "critical": RED},
        low=0.0,
    )


def _actions() -> model.Panel:
    about = About(
        "Isolations and re-admissions",
        "What was done to nodes, verified by the plant, and what a safety guard forbade, in each interval.",
        "short",
        ("IaceIsolationBlocked",),
    )
    return lines_panel(
        about,
        [
            prom(f"sum({increase('iace_isolations_total')})", "isolated"),
            prom(f"sum({increase('iace_restorations_total')})", "let in again"),
            prom(f"sum({increase('iace_isolations_blocked_total')})", "forbidden by a guard"),
        ],
        bars=True,
        colours={"isolated": ORANGE, "let in again": GREEN, "forbidden by a guard": RED},
        low=0.0,
    )
