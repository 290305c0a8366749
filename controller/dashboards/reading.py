"""What does a dashboard's file ask for? Its panels and their queries, with Grafana's variables filled in.

Reads the JSON that Grafana reads, so that what is checked and drawn is what is shipped. Of Grafana's variables those
are known that the dashboards use; one that is left over is an error, not a query that finds nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRAPE_INTERVAL_S = 2.0  # as prometheus/prometheus.yml has it, and the provisioned data source says
POINTS_MAX = 400

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """What is looked at.

    Attributes:
        start_s: Unix time.
        end_s: Unix time.
    """

    start_s: float
    end_s: float

    @property
    def step_s(self) -> float:
        """Time between two points, as Grafana chooses it: by the points that fit, not below the scrape interval."""
        return max(SCRAPE_INTERVAL_S, round((self.end_s - self.start_s) / POINTS_MAX))

    def builtins(self) -> Mapping[str, str]:
        """Grafana's own variables."""
        times = f"time >= {self.start_s * 1000:.0f}ms AND time <= {self.end_s * 1000:.0f}ms"
        return {
            "__interval": f"{self.step_s:.0f}s",
            "__rate_interval": f"{max(self.step_s + SCRAPE_INTERVAL_S, 4 * SCRAPE_INTERVAL_S):.0f}s",
            "__range": f"{self.end_s - self.start_s:.0f}s",
            "timeFilter": times,
        }


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel.

    Attributes:
        ref: its letter.
        source: "prometheus" or "influxdb".
        query: with Grafana's variables in it.
        legend: how a series is named, "" for Grafana's choice.
        instant: it asks for one instant, the end of the range.
        table: its answer is rows, not series over time.
    """

    ref: str
    source: str
    query: str
    legend: str
    instant: bool
    table: bool


@dataclass(frozen=True, slots=True)
class PanelFile:
    """One panel as it is in the file.

    Attributes:
        kind: Grafana's type of panel.
        title: as it is shown, variables unfilled.
        place: x, y, width and height on the grid.
        targets: its queries.
        raw: all of it.
    """

    kind: str
    title: str
    place: tuple[int, int, int, int]
    targets: tuple[Target, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BoardFile:
    """One dashboard as it is in the file."""

    uid: str
    title: str
    panels: tuple[PanelFile, ...]
    annotations: tuple[Target, ...]
    raw: Mapping[str, Any]


def read(path: Path) -> BoardFile:
    """The dashboard in a file that was generated here."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    panels = tuple(
        PanelFile(panel["type"], panel["title"], _place(panel["gridPos"]), tuple(_targets(panel["targets"])), panel)
        for panel in raw["panels"]
    )
    annotations = tuple(_targets(annotation["target"] for annotation in raw["annotations"].get("list", ())))
    return BoardFile(raw["uid"], raw["title"], panels, annotations, raw)


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with its variables filled in.

    Raises:
        KeyError: a variable that has no value.
    """
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def _place(grid: Mapping[str, int]) -> tuple[int, int, int, int]:
    return grid["x"], grid["y"], grid["w"], grid["h"]


def _targets(raw: Any) -> Iterator[Target]:  # noqa: ANN401 - JSON
    for target in raw:
        prometheus = target["datasource"]["type"] == "prometheus"
        yield Target(
            ref=target["refId"],
            source=target["datasource"]["type"],
            query=target["expr"] if prometheus else target["query"],
            legend=target.get("legendFormat" if prometheus else "alias", ""),
            instant=bool(target.get("instant")),
            table=target.get("format" if prometheus else "resultFormat") == "table",
        )
