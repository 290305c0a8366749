"""Draws dashboards from their files and real answers, in their own layout: what a reviewer sees without a Grafana.

It is no Grafana: it knows the kinds of panels, the options and the units that the generated files use, and draws those
as Grafana would, one page a dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from controller.dashboards.arrays import (
    DAY_S,
    broken,
    dates,
    floats,
    last_value,
    merged,
    on_grid,
    sort_key,
    stretches,
)
from controller.dashboards.asking import Answer, Servers
from controller.dashboards.page import FAINT, GRID, GROUND, INK, PANEL, Box, Page, time_axis, write_legend
from controller.dashboards.reading import BoardFile, PanelFile, TimeRange, filled
from controller.dashboards.showing import Field, colour, grounds, shown, text_colour

COLUMN_PX, ROW_PX, GAP_PX, HEAD_PX, DPI = 60, 38, 8, 44, 100
PALETTE = ("#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300")
_TITLE_PX = 26
_TABLE_ROW_PX = 24.0
_READABLE_PX = 14

mpl.rcParams["font.family"] = ["DejaVu Sans"]


def draw(board: BoardFile, servers: Servers, when: TimeRange, path: Path) -> None:
    """Draw a dashboard as `servers` answer now, into a PNG.

    Raises:
        QueryFailedError: a server did not answer, or refused.
    """
    width = 24 * COLUMN_PX
    height = HEAD_PX + ROW_PX * max(y + h for _, y, _, h in (panel.place for panel in board.panels))
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)
    page = Page(figure, width, height)
    page.write(GAP_PX, height - 28, board.title, size=13, weight="bold")
    span = " to ".join(f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}" for at_s in (when.start_s, when.end_s))
    page.write(width - GAP_PX, height - 28, f"{span} UTC", size=9, colour=FAINT, align="right")
    marks = [
        (float(row["Time"] or 0.0), str(annotation["iconColor"]))
        for annotation, target in zip(board.raw["annotations"].get("list", ()), board.annotations, strict=True)
        for row in servers.rows(target, when)
    ]
    for panel in board.panels:
        x, y, w, h = panel.place
        box = (x * COLUMN_PX, height - HEAD_PX - (y + h) * ROW_PX, w * COLUMN_PX, h * ROW_PX)
        _panel(page, box, panel, servers, when, marks)
    figure.savefig(path, facecolor=GROUND, metadata={"Software": None})


def _panel(
    page: Page, box: Box, panel: PanelFile, servers: Servers, when: TimeRange, marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    inner = (left + GAP_PX / 2, bottom + GAP_PX / 2, width - GAP_PX, height - GAP_PX)
    page.paint(inner, PANEL)
    page.write(left + 14, bottom + height - 22, filled(panel.title, servers.values), size=8.5, weight="bold")
    answer = servers.ask(panel, when)
    content = (left + 14, bottom + 12, width - 28, height - 12 - _TITLE_PX - 8)
    if all(answer.empty(target.ref) for target in panel.targets):
        page.write(left + width / 2, bottom + height / 2 - 8, "No data", size=10, colour=FAINT, align="center")
        return
    _DRAWN[panel.kind](page, content, panel, answer, when, marks)


def _stat(
    page: Page, box: Box, panel: PanelFile, answer: Answer, _when: TimeRange, _marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    field = Field.of(panel.raw)
    figures = [(series.name, last_value(series)) for series in answer.series]
    figures += [("", value) for _, row in answer.rows for name, value in row.items() if name.startswith("Value")]
    spark = panel.raw["options"]["graphMode"] == "area"
    share = width / len(figures)
    for place, (name, value) in enumerate(figures):
        fill = colour(field.colour(value))
        tile = (left - 10 + place * share, bottom - 8, share + 20, height + 4)
        if not spark:
            page.paint(tile, fill)
        text = field.text(value)
        size = min(26.0, 1.35 * (share - 10) / max(4, len(text)) * 72 / DPI * 1.0)
        ink = fill if spark else text_colour(fill)
        page.write(
            left + (place + 0.5) * share,
            bottom + height / 2 - size / 2,
            text,
            size=size,
            colour=ink,
            align="center",
            weight="bold",
        )
        if len(figures) > 1:
            page.write(left + (place + 0.5) * share, bottom + 4, name, size=8, colour=ink, align="center")
    if spark and answer.series:
        axes = page.axes((left, bottom - 6, width, height * 0.45))
        series = answer.series[0]
        axes.fill_between(dates(series.times_s), floats(series.values), color=fill, alpha=0.25, lw=0)
        axes.set_axis_off()
        values = floats(series.values)
        axes.set_ylim(np.nanmin(values) - 1e-9, np.nanmax(values) + 1e-9)


def _timeline(
    page: Page, box: Box, panel: PanelFile, answer: Answer, when: TimeRange, _marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    field = Field.of(panel.raw)
    legend = panel.raw["options"]["legend"]["showLegend"]
    rows = sorted(answer.series, key=lambda series: series.name, reverse=True)
    names = 0.055 * width + 6 * max(len(series.name) for series in rows) if any(series.name for series in rows) else 0
    foot = 34 if legend else 18
    axes = page.axes((left + names, bottom + foot, width - names, height - foot))
    seen: dict[str, str] = {}
    for place, series in enumerate(rows):
        for start_s, end_s, value in stretches(series, when.step_s):
            text, fill = field.text(value), colour(field.colour(value))
            seen[text] = fill
            begin, length = dates([start_s])[0], dates([end_s])[0] - dates([start_s])[0]
            axes.add_patch(Rectangle((begin, place - 0.42), length, 0.84, facecolor=fill, edgecolor="none"))
            room_px = (end_s - start_s) / (when.end_s - when.start_s) * (width - names)
            if room_px > 7 * len(text) + 6 and height / len(rows) > _READABLE_PX:
                axes.text(
                    begin + length / 2,
                    place,
                    text,
                    color=text_colour(fill),
                    fontsize=7,
                    ha="center",
                    va="center",
                    clip_on=True,
                )
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), [series.name for series in rows])
    time_axis(axes, when)
    if legend:
        write_legend(page, left, bottom, width, list(seen.items()))


def _lines(
    page: Page, box: Box, panel: PanelFile, answer: Answer, when: TimeRange, marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    field = Field.of(panel.raw)
    custom = panel.raw["fieldConfig"]["defaults"]["custom"]
    labels = 46 + 5 * len(shown(0.0, field.unit, 0).lstrip("0"))
    axes = page.axes((left + labels, bottom + 36, width - labels - 4, height - 36))
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    bars = custom.get("drawStyle") == "bars"
    base: Any = 0.0
    named: list[tuple[str, str]] = []
    for place, series in enumerate(sorted(answer.series, key=lambda series: series.ref)):
        own = field.named(series.name)
        ink = colour(own.fixed or PALETTE[place % len(PALETTE)])
        named.append((series.name, ink))
        times, values = dates(series.times_s), floats(series.values)
        if bars or stacked:
            times, values, base = on_grid(series, when, base)
        if bars:
            some = np.nan_to_num(values) > 0
            axes.bar(times[some], values[some], bottom=base[some], width=when.step_s / DAY_S * 0.9, color=ink)
        elif stacked:
            axes.fill_between(times, base, base + np.nan_to_num(values), color=ink, alpha=0.55, lw=0.6, step="post")
        else:
            times, values = broken(series, when.step_s)
            axes.plot(times, values, color=ink, lw=1.0 if own.dashed else 1.4, ls=(0, (5, 4)) if own.dashed else "-")
        if bars or stacked:
            base = base + np.nan_to_num(values)
    _y_range(axes, custom)
    low, high = axes.get_ylim()
    if custom.get("thresholdsStyle", {}).get("mode") == "area":
        for start, end, fill in grounds(field.steps, low, high):
            axes.axhspan(start, end, color=colour(fill), alpha=0.10, lw=0, zorder=0)
    for at_s, ink in marks:
        axes.axvline(dates([at_s])[0], color=colour(ink), lw=0.6, ls=(0, (2, 3)), alpha=0.8, zorder=0)
    axes.set_ylim(low, high)
    axes.grid(visible=True, color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, field.unit, None)))
    time_axis(axes, when)
    write_legend(page, left, bottom, width, named)


def _heat(
    page: Page, box: Box, panel: PanelFile, answer: Answer, when: TimeRange, _marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    options = panel.raw["options"]["color"]
    rows = sorted(answer.series, key=lambda series: series.name)
    axes = page.axes((left + 70, bottom + 18, width - 120, height - 20))
    grid = np.arange(when.start_s, when.end_s + when.step_s, when.step_s)
    cells = np.full((len(rows), len(grid)), np.nan)
    for place, series in enumerate(rows):
        at = np.rint((np.array(series.times_s) - when.start_s) / when.step_s).astype(int)
        cells[place, at] = floats(series.values)
    scheme = options["scheme"] + ("" if options.get("reverse") else "_r")  # Grafana turns diverging schemes round
    mesh = axes.pcolormesh(
        dates(grid),
        np.arange(len(rows)),
        cells,
        cmap=scheme,
        vmin=options["min"],
        vmax=options["max"],
        shading="nearest",
    )
    every = max(1, len(rows) // 30)
    axes.set_yticks(range(0, len(rows), every), [series.name for series in rows[::every]])
    axes.invert_yaxis()
    time_axis(axes, when)
    bar = page.figure.colorbar(mesh, cax=page.axes((left + width - 40, bottom + 18, 10, height - 20)))
    bar.ax.tick_params(colors=FAINT, labelsize=7, length=0)
    bar.outline.set_visible(False)


def _table(
    page: Page, box: Box, panel: PanelFile, answer: Answer, _when: TimeRange, _marks: Sequence[tuple[float, str]]
) -> None:
    left, bottom, width, height = box
    organised = panel.raw["transformations"][-1]["options"]
    order = sorted(organised["indexByName"], key=organised["indexByName"].__getitem__)
    titles = organised["renameByName"]
    rows = merged(answer.rows)
    for key in reversed(panel.raw["options"].get("sortBy") or []):
        column = next(name for name, title in titles.items() if title == key["displayName"])
        rows.sort(key=lambda row, column=column: sort_key(row.get(column)), reverse=bool(key.get("desc")))  # type: ignore[misc]
    fields = [Field.of(panel.raw).named(titles[name]) for name in order]
    fixed = sum(field.width for field in fields)
    share = (width - fixed) / max(1, sum(not field.width for field in fields))
    starts = np.cumsum([0.0, *(field.width or share for field in fields)])
    top = bottom + height
    room = int((height - _TABLE_ROW_PX) // _TABLE_ROW_PX) + 1
    for place, name in enumerate(order):
        page.write(left + starts[place] + 4, top - 12, titles[name], size=7.5, colour="#6e9fff", weight="bold")
    for line, row in enumerate(rows[: room - 1]):
        y = top - 14 - (line + 1) * _TABLE_ROW_PX
        for place, (name, field) in enumerate(zip(order, fields, strict=True)):
            value = row.get(name)
            wide = (field.width or share) - 8
            painted = field.painted and value is not None
            fill = colour(field.colour(value)) if painted else PANEL
            if painted and fill != "none":
                page.paint((left + starts[place] + 1, y - 6, wide + 4, _TABLE_ROW_PX - 3), fill)
            text = "" if value is None else field.text(value)
            fits = int(wide / 5.9)
            cut = text if len(text) <= fits else text[: max(0, fits - 1)] + "…"
            ink = text_colour(fill) if painted and fill != "none" else INK
            page.write(left + starts[place] + 4, y, cut, size=7.5, colour=ink)
    if len(rows) > room - 1:
        page.write(left + width, bottom - 6, f"{len(rows) - room + 1} more", size=7, colour=FAINT, align="right")


_DRAWN: Mapping[str, Callable[..., None]] = {
    "stat": _stat,
    "state-timeline": _timeline,
    "timeseries": _lines,
    "heatmap": _heat,
    "table": _table,
}


def _y_range(axes: Axes, custom: Mapping[str, Any]) -> None:
    low, high = axes.get_ylim()
    if "axisSoftMin" in custom and axes.dataLim.ymin >= custom["axisSoftMin"]:
        low = custom["axisSoftMin"]
    if "axisSoftMax" in custom:
        high = max(high, custom["axisSoftMax"])
    axes.set_ylim(low, high if high > low else low + 1.0)
