"""A page to draw on, in pixels from its lower left corner, and in the colours of Grafana's dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from controller.dashboards.arrays import dates
from controller.dashboards.reading import TimeRange

GROUND, PANEL, INK, FAINT, GRID = "#111217", "#181b1f", "#d8d9da", "#8e8e8e", "#2c3235"

Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, width, height in pixels


class Page:
    """A figure in pixels from its lower left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        colour: str = INK,
        align: str = "left",
        weight: str = "normal",
    ) -> None:
        """Text with its base line at y."""
        self.figure.text(
            x / self.width, y / self.height, text, fontsize=size, color=colour, ha=align, weight=weight, va="baseline"
        )

    def paint(self, box: Box, fill: str) -> None:
        """A filled rectangle behind all axes."""
        left, bottom, width, height = box
        size = (width / self.width, height / self.height)
        place = (left / self.width, bottom / self.height)
        patch = Rectangle(place, *size, facecolor=fill, edgecolor="none", zorder=-1, transform=self.figure.transFigure)
        self.figure.add_artist(patch)

    def axes(self, box: Box) -> Axes:
        """Axes in a place, in the page's colours."""
        left, bottom, width, height = box
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes: Axes = self.figure.add_axes(place, facecolor="none")
        axes.tick_params(colors=FAINT, labelsize=7, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes


def time_axis(axes: Axes, when: TimeRange) -> None:
    """The time range along the axis below."""
    axes.set_xlim(*dates([when.start_s, when.end_s]))
    locator = AutoDateLocator(maxticks=9)  # type: ignore[no-untyped-call]  # matplotlib has no types there
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]  # likewise


def write_legend(page: Page, left: float, bottom: float, width: float, entries: Sequence[tuple[str, str]]) -> None:
    """Names in their colours in one line, as many as there is room for."""
    x = left + 4
    for name, ink in entries:
        needed = 24 + 6.4 * len(name)
        if x + needed > left + width:
            page.write(x, bottom, "…", size=7, colour=FAINT)
            return
        page.paint((x, bottom + 2, 10, 3), ink)
        page.write(x + 14, bottom, name, size=7)
        x += needed
