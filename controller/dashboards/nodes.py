"""Nodes: which node is worst, since when, by which variable, and what was done about it?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import Board, Row, influx_variable, link_to, with_all
from controller.dashboards.panels import About, Column, heat_panel, lines_panel, table_panel, timeline_panel
from controller.dashboards.queries import increase, influx, of, prom, prom_now
from controller.dashboards.style import GREEN, ORANGE, RED
from metrics.observation import SIGNAL_NAMES

GRAVITY = "gravity"
VARIABLES = (GRAVITY, *SIGNAL_NAMES)
WORST = 10
_IN_CLUSTER = 'cluster=~"$cluster"'
_NODES = '"cluster" =~ /^$cluster$/'
_CHOSEN = '"node" =~ /^$node$/'


def board() -> Board:
    """The nodes."""
    return Board(
        name="nodes",
        title="IACE / Nodes",
        description="Which node is worst, since when, by which variable, and what was done about it?",
        variables=_variables(),
        rows=[
            Row(11, [(24, _heat())]),
            Row(9, [(9, _worst()), (15, _timeline())]),
            Row(8, [(12, _history()), (12, _status())]),
            Row(7, [(8, _standing()), (8, _clusters()), (8, _reasons())]),
        ],
    )


def _variables() -> list[build.QueryVariable | build.CustomVariable]:
    of_plant = 'WHERE "plant" =~ /^$plant$/'
    clusters = f'SHOW TAG VALUES FROM "iace_node" WITH KEY = "cluster" {of_plant}'
    nodes = f'SHOW TAG VALUES FROM "iace_node" WITH KEY = "node" {of_plant} AND {_NODES}'
    return [
        with_all(influx_variable("cluster", "Cluster", "Whose nodes are shown.", clusters), ".*"),
        influx_variable("node", "Node", "Whose history is shown.", nodes),
        build.CustomVariable("signal")
        .label("Variable")
        .description("What of each node the history shows.")
        .values(",".join(VARIABLES))
        .current(model.VariableOption(text=GRAVITY, value=GRAVITY, selected=True)),
    ]


def _heat() -> model.Panel:
    about = About(
        "Gravity |g| of each node",
        f"One row a node: green is clean (below {style.GRAVITY_CLEAN:g}), yellow to red drags its cluster down "
        f"(critical above {style.GRAVITY_CRITICAL:g}). A red stripe is one bad node; a red block is a bad cluster or "
        "sensors that lie. Shown are the worst nodes and all that are isolated.",
        alerts=("IaceGravityWell",),
    )
    return heat_panel(
        about,
        [prom(f"max by (node) ({of('iace_node_gravity', _IN_CLUSTER)})", "{{node}}")],
        high=2 * style.GRAVITY_CRITICAL,
    )


def _worst() -> model.Panel:
    about = About(
        "Worst nodes",
        f"The {WORST} nodes with the highest |g| now, and whether they are held out. A click on a node shows its "
        "history.",
        alerts=("IaceGravityWell", "IaceNodeIsolated"),
    )
    gravity = f"max by (node, cluster) ({of('iace_node_gravity', _IN_CLUSTER)})"
    worst = f"topk({WORST}, {gravity})"
    return table_panel(
        about,
        [
            prom_now(worst),
            prom_now(
                f"max by (node, cluster) ({of('iace_node_isolated', _IN_CLUSTER)}) and on (node, cluster) {worst}"
            ),
        ],
        [
            Column("node", "Node", link=link_to("nodes", "&var-node=${__value.raw}")),
            Column("cluster", "Cluster"),
            Column("Value #A", "|g|", steps=style.gravity_steps(), decimals=2, width=80),
            Column("Value #B", "Status", mappings=style.flag_map(("isolated", RED), ("in", GREEN)), width=90),
        ],
        sort=("|g|", True),
    )


def _timeline() -> model.Panel:
    about = About(
        "Isolation timeline",
        "Every node that was held out at some time in the range, and when. A node that comes and goes is flapping.",
        alerts=("IaceNodeIsolated",),
    )
    series = of("iace_node_isolated", _IN_CLUSTER)
    # Who was out at any time of the range, looked at from its end: a row is whole then, and not only from there on.
    ever = f"max by (node) (max_over_time({series}[$__range] @ end())) == 1"
    return timeline_panel(
        about,
        [prom(f"max by (node) ({series}) and on (node) ({ever})", "{{node}}")],
        mappings=style.flag_map(("isolated", RED), ("in service", GREEN)),
        legend=False,
    )


def _history() -> model.Panel:
    about = About(
        "History of the chosen nodes: ${signal}",
        "The variable of each chosen node over time, from InfluxDB. For gravity, above "
        f"{style.GRAVITY_CRITICAL:g} is critical.",
    )
    query = influx('mean("$signal")', "iace_node", where=f"{_NODES} AND {_CHOSEN}", by='"node"', alias="$tag_node")
    return lines_panel(about, [query])


def _status() -> model.Panel:
    about = About(
        "Status of the chosen nodes",
        "Where each chosen node stood with the controller: healthy, suspect, isolating, isolated, on probation.",
    )
    query = influx(
        'last("status")', "iace_node", where=f"{_NODES} AND {_CHOSEN}", by='"node"', fill="none", alias="$tag_node"
    )
    return timeline_panel(about, [query], mappings=style.status_map(), legend=False)


def _standing() -> model.Panel:
    about = About(
        "Nodes by status",
        "How many nodes stand where with the controller.",
        "short",
    )
    return lines_panel(
        about,
        [prom(f"sum by (status) ({of('iace_nodes')})", "{{status}}")],
        stacked=True,
        colours={status.value: colour for status, colour in style.STATUS_COLOURS.items()},
        low=0.0,
    )


def _clusters() -> model.Panel:
    about = About(
        "Mean |g| by cluster",
        "A whole cluster that rises is no matter of single nodes: no policy may isolate all of it.",
    )
    query = influx('mean("gravity")', "iace_node", where=_NODES, by='"cluster"', alias="$tag_cluster")
    return lines_panel(about, [query], steps=style.gravity_steps(), low=0.0, decimals=2)


def _reasons() -> model.Panel:
    about = About(
        "Isolations by reason, and what was forbidden",
        "Verified isolations by the component of gravity that weighed most, and isolations that a guard forbade, in "
        "each interval.",
        "short",
        ("IaceIsolationBlocked",),
    )
    return lines_panel(
        about,
        [
            prom(f"sum by (reason) ({increase('iace_isolations_total')})", "isolated: {{reason}}"),
            prom(f"sum by (guard) ({increase('iace_isolations_blocked_total')}) > 0", "forbidden: {{guard}}"),
        ],
        bars=True,
        colours={"isolated: coherence": ORANGE, "/^forbidden: .*/": RED},
        low=0.0,
    )
