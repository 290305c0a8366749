"""What is told about a run on standard error."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from controller.console import LINES, REDRAW_S, SIGN_OF_LIFE_S, RunConsole
from controller.display import PLAIN_WIDTH, Glance, live_view, rich_console, summary
from controller.record import KpiHistory
from metrics.kpi import CATALOGUE
from state.event import Event, EventKind
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, _text):
        raise BrokenPipeError(32, "Broken pipe")


class Clock:
    """Time that passes by `step_s` at every look."""

    def __init__(self, step_s):
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self):
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    """The terminal of whoever runs the tests plays no part."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def history(ticks):
    series = {name: [0.96] * ticks for name in ("coherence", "gas", "rsi")}
    return KpiHistory([float(tick) for tick in range(ticks)], [Phase.GOVERNING] * ticks, series)


def play(console, record, ticks=40):
    """A short run as the loop tells it."""
    with console:
        console.phase_started(Phase.PHASE_I, 10)
        console.phase_ended(record.phases[0])
        console.phase_started(Phase.GOVERNING, ticks)
        for tick in range(1, ticks + 1):
            console.tick(history(tick), ["n07"])
        for item in record.events:
            console.event(item.event)
        console.finish(record, [Path("reports/report.json")])


def text(renderable):
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, markup=False, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def test_a_pipe_gets_one_line_for_each_milestone(eventful_run):
    """Without a terminal there are lines and a summary, and no escape sequence."""
    stream = io.StringIO()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(0.001)), eventful_run)
    told = stream.getvalue()
    assert "\x1b" not in told
    lines = told.splitlines()
    assert lines[0] == "PHASE_I: core system initialisation, 10 ticks"
    assert lines[1] == "PHASE_I passed: 2 of 2 checks passed"
    assert "[331 s] n07 is isolated, as the plant shows" in lines
    assert "[470 s] trial 1 is kept: objective 0.05, violation 0.005" in lines
    assert not any("the plant applied" in line for line in lines)
    assert "200_COHERENT_LOCK  COHERENT_LOCK, exit code 0" in told
    assert "report in reports: report.json" in told


def test_a_pipe_hears_a_sign_of_life_now_and_then(healthy_run):
    """A long window is not silent: one line every thirty seconds."""
    stream = io.StringIO()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(SIGN_OF_LIFE_S / 10)), healthy_run, ticks=41)
    signs = [line for line in stream.getvalue().splitlines() if line.startswith("GOVERNING: tick")]
    assert signs[0] == "GOVERNING: tick 11 of 41, coherence 0.960, gas 0.960, rsi 0.960"
    assert len(signs) == 4


def test_a_terminal_gets_a_live_view_and_is_left_whole(eventful_run):
    """On a terminal the view is redrawn in place, and the cursor is back at the end."""
    stream = Terminal()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(0.01)), eventful_run)
    told = stream.getvalue()
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1
    assert "\x1b[32m" in told
    assert "PHASE_I: core system initialisation, 10 ticks" not in told


def test_the_live_view_is_not_redrawn_faster_than_eight_times_a_second(healthy_run):
    """Ticks that come faster than the eye are not drawn."""
    drawn = []
    console = RunConsole(CATALOGUE, stream=Terminal(), clock=Clock(REDRAW_S / 50))
    with console:
        console.phase_started(Phase.GOVERNING, 500)
        console._live.update = lambda *_args, **_options: drawn.append(1)
        for _ in range(500):
            console.tick(healthy_run.history)
    assert len(drawn) == 10


def test_an_exception_leaves_the_terminal_whole():
    """The cursor comes back whatever ends the run."""
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), RunConsole(CATALOGUE, stream=stream):
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_no_color_is_honoured(eventful_run, monkeypatch):
    """With NO_COLOR set a terminal gets no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(0.01)), eventful_run)
    for colour in ("\x1b[32m", "\x1b[31m", "\x1b[33m"):
        assert colour not in stream.getvalue()


def test_a_dumb_terminal_gets_lines(healthy_run, monkeypatch):
    """A terminal that cannot redraw is told in lines."""
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(0.001)), healthy_run)
    assert "PHASE_I passed: 2 of 2 checks passed" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_reader_that_has_gone_does_not_stop_the_run(eventful_run):
    """A broken or closed standard error is ignored."""
    play(RunConsole(CATALOGUE, stream=Broken(), clock=Clock(0.01)), eventful_run)
    closed = io.StringIO()
    closed.close()
    play(RunConsole(CATALOGUE, stream=closed, clock=Clock(0.01)), eventful_run)


def test_the_live_view_shows_where_it_stands(eventful_run):
    """Phases, KPIs with limits, the state, who is out and the latest events."""
    glance = Glance(
        CATALOGUE,
        stage=Phase.GOVERNING,
        done=150,
        total=300,
        results={Phase.PHASE_I: eventful_run.phases[0]},
        state=Phase.ISOLATING,
        history=eventful_run.history,
        isolated=["n07"],
        lines=["[331 s] n07 is isolated"],
    )
    told = text(live_view(glance))
    assert "✔ PHASE_I    2 of 2 checks passed" in told
    assert "▶ GOVERNING  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ tick 150 of 300 · gravity-well daemon" in told
    assert "· PHASE_IV   improvement proposal and corrections" in told
    assert "coherence    0.977   ≥ 0.9" in told
    assert "ISOLATING  isolated 1: n07" in told
    assert "[331 s] n07 is isolated" in told
    empty = text(live_view(Glance(CATALOGUE)))
    assert "coherence    unknown ≥ 0.9" in empty


def test_only_the_latest_events_are_kept_for_the_view():
    """The view never grows."""
    console = RunConsole(CATALOGUE, stream=Terminal())
    for number in range(20):
        console.event(Event(EventKind.SAFE_MODE_LEFT, float(number), {"reason": "quiet"}))
    assert len(console._glance.lines) == LINES
    assert console._glance.lines[-1] == "[19 s] SAFE_MODE left: quiet"


def test_words_of_a_plant_are_neither_markup_nor_commands(healthy_run):
    """Markup stays text and escape sequences are taken out, in lines and in the summary."""
    evil = "[bold]\x1b[2J[/nonsense]"
    check = CheckResult("a", CheckStatus.FAILED, evil)
    healthy_run.phases = [PhaseResult(Phase.PHASE_I, (check,))]
    healthy_run.outcome = Outcome(ExitCode.PHASE_I_FAILED, (f"PHASE_I failed: a: {evil}",))
    stream = io.StringIO()
    play(RunConsole(CATALOGUE, stream=stream, clock=Clock(0.001)), healthy_run)
    assert "\x1b" not in stream.getvalue()
    assert "  a failed: [bold] [2J[/nonsense]" in stream.getvalue().splitlines()
    assert "PHASE_I failed: a: [bold] [2J[/nonsense]" in stream.getvalue()


def test_the_summary_counts_checks_and_names_the_verdict(eventful_run):
    """Phases with their checks, KPIs with their limits, isolations, what was blocked, and the verdict."""
    told = text(summary(eventful_run, []))
    rows = [line.split() for line in told.splitlines()]
    assert ["PHASE_III", "field", "security", "2", "0", "1", "0", "✔", "passed"] in rows
    assert any(row[:4] == ["coherence", "0.9766", "≥", "0.9"] for row in rows)
    assert "n03 of c1 at 165 s (probe dissonance): |g| 3.25 above 1.5 for 3 ticks; verified; back at 181 s" in told
    assert "n07 of c1 at 530 s: |g| 3.25 above 1.5 for 3 ticks; verified; still out" in told
    assert "n08 blocked at 331 s by budget_cluster: 0.4286, the limit is 0.3333" in told


def test_a_pipe_is_a_hundred_columns_wide():
    """A summary in a CI log does not depend on where it was run."""
    assert rich_console(io.StringIO()).width == PLAIN_WIDTH


def test_importing_the_console_does_not_import_rich():
    """`iace --help` must not wait for rich."""
    code = "import sys, controller.console; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
