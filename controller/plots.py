"""How did the KPIs move over a run, and what was done meanwhile? One picture, `kpis.png`.

Small multiples over plant time: each KPI with its limits and the region beyond them, the controller's states as a
ribbon and as shaded bands, and what was done as vertical lines. Equal histories give equal bytes on one machine.
Matplotlib is imported where it is used, because nothing but this picture needs it and its import takes half a second.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.record import KpiHistory, RunRecord
from controller.summary import limit_text
from metrics.kpi import Kpi, KpiStatus, Side
from state.event import EventKind
from state.phase import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTTED = ("coherence", "gas", "rsi", "action_cost", "delta_lambda", "delta_entropy", "gravity_wells")
LOG_FROM = 8.0  # a peak of that many times the limit would press everything else flat on a linear axis
LABEL_SHARE_MIN = 0.07  # a state shorter than this share of the run has no room for its name

_WIDTH_IN = 11.0
_ROW_IN = 1.3
_DPI = 110
_LEFT = 0.065
_NAMED_MAX = 8  # more names than that would hide the curve
_INK = "#24292f"
_SOFT = "#6e7781"
_LINE = "#0b5cad"
_HEALTHY_LIMIT = "#bf8700"
_CRITICAL_LIMIT = "#cf222e"

_RIBBON: Mapping[Phase, tuple[str, str]] = {
    Phase.PHASE_I: ("I", "#c6dbef"),
    Phase.PHASE_II: ("II", "#a6cde8"),
    Phase.PHASE_III: ("III", "#7fb8dd"),
    Phase.GOVERNING: ("GOVERNING", "#d9ead3"),
    Phase.ISOLATING: ("ISOLATING", "#f6c28b"),
    Phase.HEALING: ("HEALING", "#d9c2e9"),
    Phase.PHASE_IV: ("IV", "#a8d5ba"),
    Phase.SAFE_MODE: ("SAFE_MODE", "#f4a6a0"),
    Phase.PAUSED: ("PAUSED", "#d0d7de"),
}
_OTHER_STATE = ("", "#eaeef2")


@dataclass(frozen=True, slots=True)
class Mark:
    """How one kind of event is drawn."""

    label: str
    colour: str
    style: str


MARKS: Mapping[EventKind, Mark] = {
    EventKind.ISOLATION_VERIFIED: Mark("isolated", "#d55e00", "-"),
    EventKind.RESTORATION_VERIFIED: Mark("re-admitted", "#009e73", "-"),
    EventKind.ISOLATION_BLOCKED: Mark("isolation blocked", "#24292f", ":"),
    EventKind.TRIAL_APPLIED: Mark("trial applied", "#8250df", "-"),
    EventKind.TRIAL_KEPT: Mark("trial kept", "#8250df", "--"),
    EventKind.TRIAL_ROLLED_BACK: Mark("trial rolled back", "#bf3989", ":"),
    EventKind.STORM_DETECTED: Mark("storm", "#cf222e", "--"),
    EventKind.SENSORS_DOUBTED: Mark("sensors doubted", "#cf222e", ":"),
}


def kpis_png(record: RunRecord) -> bytes:
    """The picture as PNG bytes; a run that saw nothing gets one that says so."""
    import matplotlib as mpl  # noqa: PLC0415 - see the module's docstring
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - the same
    from matplotlib.figure import Figure  # noqa: PLC0415 - the same

    with mpl.rc_context():
        mpl.rcdefaults()  # nobody's matplotlibrc changes the picture
        mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK, "axes.edgecolor": _SOFT})
        height_in = 1.9 + _ROW_IN * len(PLOTTED)
        figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, record, height_in)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def spans(history: KpiHistory) -> Iterator[tuple[Phase, float, float]]:
    """The controller's states in order, each with the plant times at which it began and ended."""
    times, phases = history.plant_time_s, history.phases
    start = 0
    for tick in range(1, len(phases) + 1):
        if tick == len(phases) or phases[tick] is not phases[start]:
            yield phases[start], times[start], times[min(tick, len(times) - 1)]
            start = tick


def _draw(figure: Figure, record: RunRecord, height_in: float) -> None:
    _title(figure, record, height_in)
    times = record.history.plant_time_s
    if not times:
        figure.text(0.5, 0.5, "nothing was observed", ha="center", va="center", fontsize=14, color=_SOFT)
        return
    grid = figure.add_gridspec(
        len(PLOTTED) + 1,
        1,
        height_ratios=[0.2] + [1.0] * len(PLOTTED),
        left=_LEFT,
        right=0.925,
        top=1 - 0.78 / height_in,
        bottom=1.0 / height_in,
        hspace=0.36,
    )
    ribbon = figure.add_subplot(grid[0])
    _ribbon(ribbon, record.history)
    limits = _time_limits(times)
    ribbon.set_xlim(*limits)
    for row, name in enumerate(PLOTTED, start=1):
        axes = figure.add_subplot(grid[row])
        axes.set_xlim(*limits)
        _kpi(axes, record, name)
        if row < len(PLOTTED):
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("plant time, s", color=_SOFT)
        if row == 1:
            _names(axes, record)
    _legend(figure, record, height_in)


def _title(figure: Figure, record: RunRecord, height_in: float) -> None:
    outcome = record.outcome
    verdict = "running" if outcome is None else f"{outcome.code.name}, exit code {int(outcome.code)}"
    colour = "#1a7f37" if outcome is not None and outcome.coherent else _CRITICAL_LIMIT
    figure.text(_LEFT, 1 - 0.28 / height_in, verdict, fontsize=14, fontweight="bold", color=colour, va="center")
    nodes = f"{record.nodes} nodes in {record.clusters} clusters · " if record.nodes else ""
    told = f"{record.system} · {nodes}seed {record.seed} · scenario {record.scenario}"
    figure.text(_LEFT, 1 - 0.53 / height_in, told.replace("$", r"\$"), fontsize=9.5, color=_SOFT, va="center")


def _time_limits(times: Sequence[float]) -> tuple[float, float]:
    low, high = times[0], times[-1]
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ribbon(axes: Axes, history: KpiHistory) -> None:
    low, high = _time_limits(history.plant_time_s)
    _bands(axes, history, alpha=1.0)
    for phase, start, end in spans(history):
        label = _RIBBON.get(phase, _OTHER_STATE)[0]
        if end - start >= LABEL_SHARE_MIN * (high - low) or (len(label) <= 3 and end - start >= 0.015 * (high - low)):  # noqa: PLR2004 - roman numerals need little room
            axes.text((start + end) / 2, 0.47, label, ha="center", va="center", fontsize=7.5, color=_INK)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bands(axes: Axes, history: KpiHistory, *, alpha: float) -> None:
    """Shade the controller's states. One artist a state, not one a span: there are hundreds after an hour."""
    drawn: dict[Phase, list[tuple[float, float]]] = {}
    for phase, start, end in spans(history):
        drawn.setdefault(phase, []).append((start, end - start))
    for phase, parts in drawn.items():
        colour = _RIBBON.get(phase, _OTHER_STATE)[1]
        axes.broken_barh(parts, (0, 1), transform=axes.get_xaxis_transform(), color=colour, alpha=alpha, lw=0)


def _kpi(axes: Axes, record: RunRecord, name: str) -> None:
    history, kpi = record.history, record.catalogue[name]
    values = history.values.get(name, [])
    known = [value for value in values if math.isfinite(value)]
    _bands(axes, history, alpha=0.2)
    _marks(axes, record)
    _style(axes, kpi)
    if not known:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=_SOFT)
        return
    _scale(axes, kpi, known)
    _limits(axes, kpi)
    style = "steps-post" if name == "gravity_wells" else "default"
    axes.plot(history.plant_time_s, values, color=_LINE, lw=1.4, drawstyle=style, zorder=4)
    _last(axes, kpi, values)


def _style(axes: Axes, kpi: Kpi) -> None:
    unit = "" if kpi.unit in ("1", "node") else f", {kpi.unit}"
    axes.set_title(f"{kpi.name}{unit}", loc="left", fontsize=9.5, fontweight="bold", color=_INK, pad=4)
    axes.set_title(f"healthy {limit_text(kpi)}" if kpi.limit else "", loc="right", fontsize=8, color=_SOFT, pad=4)
    axes.tick_params(colors=_SOFT, labelsize=7.5, length=2.5)
    axes.grid(visible=True, axis="y", color="white", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _scale(axes: Axes, kpi: Kpi, known: Sequence[float]) -> None:
    bounds = [] if kpi.limit is None else [kpi.limit.healthy]
    if kpi.limit is None:
        axes.set_ylim(min(0.0, *known), max(1.0, *known) * 1.15)
        axes.locator_params(axis="y", integer=True, nbins=4)
        return
    if kpi.limit.side is Side.AT_MOST:
        peak = max([*known, *bounds])
        if peak > LOG_FROM * kpi.limit.healthy:
            positive = [value for value in known if value > 0]
            axes.set_yscale("log")
            axes.set_ylim(min([*positive, *bounds]) / 1.5, peak * 1.6)
        else:
            axes.set_ylim(min(0.0, *known), peak * 1.18)
        return
    low, high = min([*known, *bounds]), max([*known, *bounds])
    pad = 0.14 * max(high - low, 0.01)
    axes.set_ylim(low - pad, min(high + pad, max(1.0, high) + 0.01))


def _limits(axes: Axes, kpi: Kpi) -> None:
    if kpi.limit is None:
        return
    low, high = axes.get_ylim()
    beyond = (low, kpi.limit.healthy) if kpi.limit.side is Side.AT_LEAST else (kpi.limit.healthy, high)
    axes.axhspan(*beyond, color=_CRITICAL_LIMIT, alpha=0.055, lw=0, zorder=1)
    axes.axhline(kpi.limit.healthy, color=_HEALTHY_LIMIT, lw=1.1, ls=(0, (5, 2)), zorder=2)
    if kpi.limit.critical is not None and low < kpi.limit.critical < high:
        axes.axhline(kpi.limit.critical, color=_CRITICAL_LIMIT, lw=1.1, ls=(0, (1.5, 1.5)), zorder=2)


def _last(axes: Axes, kpi: Kpi, values: Sequence[float]) -> None:
    last = values[-1]
    if not math.isfinite(last):
        return
    outside = kpi.limit is not None and kpi.limit.status(last) is not KpiStatus.HEALTHY
    axes.annotate(
        f"{last:.3g}",
        (1.0, last),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        fontweight="bold",
        color=_CRITICAL_LIMIT if outside else _LINE,
        annotation_clip=False,
    )


def _marks(axes: Axes, record: RunRecord) -> None:
    for kind, mark in MARKS.items():
        times = [item.event.at_s for item in record.events if item.event.kind is kind]
        across = axes.get_xaxis_transform()
        axes.vlines(times, 0, 1, transform=across, color=mark.colour, ls=mark.style, lw=0.9, alpha=0.75, zorder=3)


def _names(axes: Axes, record: RunRecord) -> None:
    """Who was isolated, beside the line of it, as long as there are few."""
    isolated = [item.event for item in record.events if item.event.kind is EventKind.ISOLATION_VERIFIED]
    for event in isolated if len(isolated) <= _NAMED_MAX else ():
        axes.annotate(
            str(event.data["node"]).replace("$", r"\$"),
            (event.at_s, 0.04),
            xycoords=("data", "axes fraction"),
            xytext=(2.5, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=MARKS[EventKind.ISOLATION_VERIFIED].colour,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
            zorder=5,
        )


def _legend(figure: Figure, record: RunRecord, height_in: float) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - see the module's docstring
    from matplotlib.patches import Patch  # noqa: PLC0415 - the same

    present = {item.event.kind for item in record.events}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_HEALTHY_LIMIT, ls="--", label="healthy limit"),
        Line2D([], [], color=_CRITICAL_LIMIT, ls=":", label="critical limit"),
    ]
    handles += [
        Line2D([], [], color=mark.colour, ls=mark.style, label=mark.label)
        for kind, mark in MARKS.items()
        if kind in present
    ]
    short = (Phase.ISOLATING, Phase.HEALING, Phase.SAFE_MODE)
    handles += [Patch(color=_RIBBON[phase][1], label=phase.value) for phase in short if phase in record.history.phases]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.52, 0.08 / height_in),
        ncol=min(6, len(handles)),
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        handlelength=1.8,
        columnspacing=1.6,
    )
