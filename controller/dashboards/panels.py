"""Panels of each kind, finished but for their place: title, description, queries, unit, colours.

Ids and places are given by the board, refIds here. Every panel says in its description what it shows and what to make
of it, so that nobody has to look that up at night.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from controller.dashboards import style

Steps: TypeAlias = Sequence[model.Threshold]
Mappings: TypeAlias = Sequence[model.ValueMapping]


@dataclass(frozen=True, slots=True)
class About:
    """What a panel says of itself.

    Attributes:
        title: a few words.
        description: what it shows, and what to make of it.
        unit: Grafana's unit of its values.
        alerts: alerts whose runbooks it links to.
    """

    title: str
    description: str
    unit: str = "none"
    alerts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        field: the field's name before it is renamed, such as a label or "Value #A".
        title: what the column is called.
        unit: Grafana's unit, or "" for the table's.
        steps: colours of its cells by value.
        mappings: texts of its cells by value.
        width: in pixels; 0 shares what is left.
        link: where a click leads; `${__value.raw}` is the cell.
        decimals: of its numbers.
    """

    field: str
    title: str
    unit: str = ""
    steps: Steps = ()
    mappings: Mappings = ()
    width: int = 0
    link: str = ""
    decimals: int | None = None


def stat_panel(
    about: About,
    query: Dataquery,
    *,
    steps: Steps,
    mappings: Mappings = (),
    decimals: int | None = None,
    spark: bool = False,
) -> model.Panel:
    """One figure on a coloured ground; `spark` draws its course behind it."""
    builder = (
        stat.Panel()
        .unit(about.unit)
        .thresholds(_thresholds(steps))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.BACKGROUND if not spark else common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA if spark else common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE)
        .reduce_options(_last())
    )
    if mappings:
        builder = builder.mappings(list(mappings))
    if decimals is not None:
        builder = builder.decimals(decimals)
    return _finished(builder.build(), about, [query])


def timeline_panel(
    about: About, queries: Iterable[Dataquery], *, mappings: Mappings, steps: Steps = (), legend: bool = True
) -> model.Panel:
    """States over time, one row a series."""
    builder = (
        statetimeline.Panel()
        .unit(about.unit)
        .mappings(list(mappings))
        .thresholds(_thresholds(steps or style.steps(style.GREY)))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .merge_values(True)  # noqa: FBT003 - the library's setters take their value so
        .show_value(common.VisibilityMode.AUTO)
        .row_height(0.85)
        .line_width(0)
        .fill_opacity(85)
        .legend(_legend(shown=legend))
    )
    return _finished(builder.build(), about, queries)


def lines_panel(
    about: About,
    queries: Iterable[Dataquery],
    *,
    steps: Steps = (),
    colours: Mapping[str, str] | None = None,
    dashed: Iterable[str] = (),
    stacked: bool = False,
    bars: bool = False,
    low: float | None = None,
    high: float | None = None,
    decimals: int | None = None,
) -> model.Panel:
    """Values over time.

    Args:
        about: what it says of itself.
        queries: what it shows.
        steps: thresholds; beyond the healthy ones the ground is coloured.
        colours: series name, or names as a pattern between slashes, to fixed colour.
        dashed: names of series that are bounds: dashed, thin and unfilled.
        stacked: on top of one another.
        bars: bars instead of lines, for counts in an interval.
        low: soft lower bound of the axis.
        high: its soft upper bound.
        decimals: of the values.
    """
    builder = (
        timeseries.Panel()
        .unit(about.unit)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .line_width(0 if bars else 2)
        .fill_opacity(80 if bars else 55 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(common_builder.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if steps:
        area = common_builder.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.AREA)
        builder = builder.thresholds(_thresholds(steps)).thresholds_style(area)
    if stacked or bars:
        builder = builder.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if low is not None:
        builder = builder.axis_soft_min(low)
    if high is not None:
        builder = builder.axis_soft_max(high)
    if decimals is not None:
        builder = builder.decimals(decimals)
    for name, colour in (colours or {}).items():
        override = builder.override_by_regexp if name.startswith("/") else builder.override_by_name
        builder = override(name, [_fixed(colour)])
    for name in dashed:
        builder = builder.override_by_name(name, _dashes())
    return _finished(builder.build(), about, queries)


def table_panel(
    about: About, queries: Iterable[Dataquery], columns: Sequence[Column], *, sort: tuple[str, bool] | None = None
) -> model.Panel:
    """Rows merged by their labels, with `columns` only and in their order; `sort` is a column and whether downwards."""
    builder = table.Panel().unit(about.unit).show_header(True).cell_height(common.TableCellHeight.SM)  # noqa: FBT003 - as above
    builder = builder.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    order = {column.field: place for place, column in enumerate(columns)}
    names = {column.field: column.title for column in columns}
    wanted = {"include": {"names": list(order)}}
    builder = builder.with_transformation(model.DataTransformerConfig(id_val="filterFieldsByName", options=wanted))
    builder = builder.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": {}, "indexByName": order, "renameByName": names},
        )
    )
    for column in columns:
        properties = list(_cell(column))
        if properties:
            builder = builder.override_by_name(column.title, properties)
    if sort is not None:
        by, descending = sort
        builder = builder.sort_by([common_builder.TableSortByFieldState().display_name(by).desc(descending)])
    return _finished(builder.build(), about, queries)


def heat_panel(about: About, queries: Iterable[Dataquery], *, high: float) -> model.Panel:
    """One row a series, coloured by value from 0 (green) to `high` (red): Grafana turns this scheme round by itself."""
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("RdYlGn").steps(64).min(0).max(high)
    builder = (
        heatmap.Panel()
        .unit(about.unit)
        .calculate(False)  # noqa: FBT003 - as above
        .color(colours)
        .cell_gap(0)
        .show_legend()
    )
    return _finished(builder.build(), about, queries)


def _finished(panel: model.Panel, about: About, queries: Iterable[Dataquery]) -> model.Panel:
    panel.title, panel.description = about.title, about.description
    panel.targets = list(queries)
    for letter, target in zip(ascii_uppercase, panel.targets, strict=False):
        target.ref_id = letter  # type: ignore[attr-defined]  # the library's base class does not say that all have one
    panel.datasource = panel.targets[0].to_json()["datasource"]  # type: ignore[attr-defined]  # the same
    panel.links = [runbook(alert) for alert in about.alerts] or None
    return panel


def runbook(alert: str) -> model.DashboardLink:
    """A link to the runbook of an alert, on the server that the dashboard's variable names."""
    return model.DashboardLink(
        title=f"Runbook: {alert}",
        type_val=model.DashboardLinkType.LINK,
        icon="doc",
        tooltip="What it means, and what to do",
        url=f"${{runbooks}}/{alert}.md",
        tags=[],
        target_blank=True,
    )


def _thresholds(steps: Steps) -> build.ThresholdsConfig:
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(list(steps))


def _last() -> common_builder.ReduceDataOptions:
    return common_builder.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")  # noqa: FBT003 - as above


def _legend(*, shown: bool = True) -> common_builder.VizLegendOptions:
    legend = common_builder.VizLegendOptions().show_legend(shown).calcs([])
    return legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)


def _fixed(colour: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _dashes() -> list[model.DynamicConfigValue]:
    return [
        model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]}),
        model.DynamicConfigValue("custom.lineWidth", 1),
        model.DynamicConfigValue("custom.fillOpacity", 0),
    ]


def _cell(column: Column) -> Iterable[model.DynamicConfigValue]:
    if column.unit:
        yield model.DynamicConfigValue("unit", column.unit)
    if column.decimals is not None:
        yield model.DynamicConfigValue("decimals", column.decimals)
    if column.width:
        yield model.DynamicConfigValue("custom.width", column.width)
    if column.mappings:
        yield model.DynamicConfigValue("mappings", list(column.mappings))
    if column.steps:
        yield model.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": list(column.steps)})
    if column.steps or column.mappings:
        yield model.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"})
    if column.link:
        yield model.DynamicConfigValue("links", [{"title": "Open", "url": column.link}])
