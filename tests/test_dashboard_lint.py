"""The rules of Grafana's dashboard-linter, which is no package here: each rule, on every dashboard.

An exclusion names its rule, its place and its reason; one that excludes nothing is an error itself.
Source: the rules' documentation at github.com/grafana/dashboard-linter.
"""

import re
from pathlib import Path

import promql_parser
import pytest
from grafana_foundation_sdk.models import units

from controller.dashboards import reading

ROOT = Path(__file__).resolve().parents[1]
BOARDS = [reading.read(path) for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json"))]
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}

EXCLUDED = {
    ("template-instance", "IACE / CI runs"): "what a Pushgateway shows has no instance",
    ("target-instance", "IACE / CI runs"): "what a Pushgateway shows has no instance",
    ("target-rate-interval", "[$__range]"): "the figure is of the whole range, not of an interval",
    (
        "target-counter-agg",
        "IACE / CI runs: What the last run did",
    ): "a run's counters start with it and are pushed once",
}


def variables(board, kind):
    return [variable for variable in board.raw["templating"]["list"] if variable["type"] == kind]


def promql(board):
    for panel in board.panels:
        for target in panel.targets:
            if target.source == "prometheus":
                yield panel, target


def nodes(query):
    """All nodes of the syntax tree of a query."""
    when = reading.TimeRange(0.0, 3600.0)
    values = dict.fromkeys(("job", "instance", "plant", "cluster", "node"), ".+")
    found = []
    tree = promql_parser.parse(reading.filled(query, {**when.builtins(), **values}))
    promql_parser.walk(tree, found.append)
    return found


def template_datasource(board):
    for variable in variables(board, "datasource"):
        kind = variable["query"]
        if (variable["name"], variable["label"].lower()) != (f"{kind}_datasource", f"{kind} data source"):
            yield board.title


def template_label(board, name):
    found = [v for v in variables(board, "query") if v["name"] == name]
    good = found and found[0]["label"] == name.title() and found[0]["multi"] and found[0]["allValue"] == ".+"
    if not good or found[0]["datasource"]["uid"] != "${prometheus_datasource}":
        yield board.title


def template_on_time_change_reload(board):
    yield from (f"{board.title}: {v['name']}" for v in variables(board, "query") if v["refresh"] != 2)


def template_label_promql(board):
    for variable in variables(board, "query"):
        if variable["datasource"]["type"] == "prometheus":
            series = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
            try:
                promql_parser.parse(series[1].replace("$job", ".+"))
            except (TypeError, ValueError):
                yield f"{board.title}: {variable['name']}"


def panel_datasource(board):
    allowed = {"${prometheus_datasource}", "${influxdb_datasource}"}
    for panel in board.panels:
        sources = [panel.raw["datasource"], *(target["datasource"] for target in panel.raw["targets"])]
        if not {source["uid"] for source in sources} <= allowed:
            yield f"{board.title}: {panel.title}"


def panel_title_description(board):
    for panel in board.panels:
        if not panel.title or len(panel.raw.get("description", "")) < 20:
            yield f"{board.title}: {panel.title}"


def panel_units(board):
    for panel in board.panels:
        unit = panel.raw["fieldConfig"]["defaults"].get("unit", "")
        if unit not in UNITS and not re.fullmatch(r"suffix: \S.*|suffix: /s", unit):
            yield f"{board.title}: {panel.title}: {unit!r}"


def panel_no_targets(board):
    yield from (f"{board.title}: {panel.title}" for panel in board.panels if not panel.targets)


def target_rate_interval(board):
    for panel, target in promql(board):
        for window in re.findall(r"\[[^\]]+\]", target.query):
            if window != "[$__rate_interval]":
                yield window if window == "[$__range]" else f"{board.title}: {panel.title} {window}"


def target_label(board, name):
    for panel, target in promql(board):
        for node in nodes(target.query):
            if isinstance(node, promql_parser.VectorSelector):
                matchers = {matcher.name: matcher.value for matcher in node.matchers.matchers}
                if name not in matchers:
                    yield board.title if name == "instance" else f"{board.title}: {panel.title}"


def target_counter_agg(board):
    for panel, target in promql(board):
        bare = re.sub(r"(rate|increase)\((\w+)\{[^}]*\}\[", "", target.query)
        if re.search(r"\w+_total\b", bare):
            yield f"{board.title}: {panel.title}"


def uneditable(board):
    if board.raw["editable"]:
        yield board.title


RULES = {
    "template-datasource": template_datasource,
    "template-job": lambda board: template_label(board, "job"),
    "template-instance": lambda board: template_label(board, "instance"),
    "template-on-time-change-reload": template_on_time_change_reload,
    "template-label-promql": template_label_promql,
    "panel-datasource": panel_datasource,
    "panel-title-description": panel_title_description,
    "panel-units": panel_units,
    "panel-no-targets": panel_no_targets,
    "target-rate-interval": target_rate_interval,
    "target-job": lambda board: target_label(board, "job"),
    "target-instance": lambda board: target_label(board, "instance"),
    "target-counter-agg": target_counter_agg,
    "uneditable": uneditable,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule):
    """Every dashboard keeps the rule, but for what is excluded with a reason, each of which excludes something."""
    found = {place for board in BOARDS for place in RULES[rule](board)}
    assert found == {place for excluded, place in EXCLUDED if excluded == rule}


def test_every_exclusion_has_a_rule_and_a_reason():
    """No exclusion is of a rule that does not exist."""
    assert {rule for rule, _ in EXCLUDED} <= set(RULES)
    assert all(len(reason) > 20 for reason in EXCLUDED.values())
