"""kpis.png, the picture of a run."""

import io
import math

import numpy as np
from matplotlib.image import imread

from controller.plots import MARKS, PLOTTED, kpis_png, spans
from controller.record import KpiHistory
from metrics.kpi import CATALOGUE
from state.phase import Phase


def pixels(png):
    return imread(io.BytesIO(png), format="png")


def test_the_picture_shows_what_happened(healthy_run, eventful_run):
    """An eventful run's picture has the colours of isolations and trials, a quiet one's has not."""

    def has(picture, colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return bool(np.any(np.all(np.abs(picture[..., :3] - (red, green, blue)) < 0.02, axis=-1)))

    quiet, eventful = pixels(kpis_png(healthy_run)), pixels(kpis_png(eventful_run))
    assert quiet.shape[1] == eventful.shape[1] == 1210
    isolated = next(mark.colour for mark in MARKS.values() if mark.label == "isolated")
    assert has(eventful, isolated)
    assert not has(quiet, isolated)


def test_a_run_without_a_tick_or_with_one_still_gives_a_picture(healthy_run):
    """No history, one tick and nothing but NaN are drawn without a complaint."""
    healthy_run.history = KpiHistory()
    assert kpis_png(healthy_run).startswith(b"\x89PNG")
    healthy_run.history = KpiHistory([0.0], [Phase.PHASE_I], {name: [math.nan] for name in PLOTTED})
    assert kpis_png(healthy_run).startswith(b"\x89PNG")


def test_peaks_far_beyond_a_limit_and_odd_names_are_drawn(healthy_run):
    """A peak of many times the limit, zeros below a logarithm, and a scenario name that looks like mathematics."""
    healthy_run.history.values["action_cost"] = [0.0, 50.0] * 280
    healthy_run.scenario = "$x_{"
    healthy_run.outcome = None
    assert kpis_png(healthy_run).startswith(b"\x89PNG")


def test_what_is_plotted_is_in_the_catalogue():
    """Every plotted KPI exists, and every one with a limit is plotted."""
    assert set(PLOTTED) <= set(CATALOGUE)
    assert {name for name, kpi in CATALOGUE.items() if kpi.limit is not None} <= set(PLOTTED)


def test_spans_are_the_states_in_order():
    """Neighbouring ticks of one state are one span, which ends where the next begins."""
    history = KpiHistory([0.0, 1.0, 2.0, 3.0], [Phase.IDLE, Phase.PHASE_I, Phase.PHASE_I, Phase.GOVERNING])
    assert list(spans(history)) == [
        (Phase.IDLE, 0.0, 1.0),
        (Phase.PHASE_I, 1.0, 3.0),
        (Phase.GOVERNING, 3.0, 3.0),
    ]
