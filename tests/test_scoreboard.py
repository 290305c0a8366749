"""The scoreboard's benchmark: its detectors do as documented, sweeps go on where they were, and figures are fair."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from metrics.observation import SIGNAL_NAMES, NodeSignals

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a script of the benchmarks by name; they are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def signals_of(commits, retries=0.0):
    """Signals of nodes of which only the outcome of requests counts."""
    n = len(commits)
    plain = {name: np.zeros(n) for name in SIGNAL_NAMES} | {"active": np.ones(n, dtype=np.bool_)}
    outcome = {"commits": np.asarray(commits, dtype=float), "retries": np.broadcast_to(retries, n).astype(float)}
    return NodeSignals(**(plain | {"arrivals": np.full(n, 20.0)} | outcome))


def results_of(table, delays, *, wrong=0, breaches=0, recovery=10):
    missed = sum(delay == 240 for delay in delays)
    return table.Result(tuple(delays), missed, len(delays), wrong, 2.0, breaches, recovery)


def test_phi_accrual_suspects_in_the_fifth_tick_without_work(load):
    """With a second between heartbeats and 3 s of acceptable pause, φ is beyond 8 after 5 s and not after 4."""
    detector = load("competitors").PhiAccrual(3)
    for tick in range(100):
        assert not detector.tick(float(tick), signals_of([20, 20, 20])).any()
    suspected = [detector.tick(float(tick), signals_of([20, 9, 20])).tolist() for tick in range(100, 105)]
    assert suspected[3] == [False, False, False]
    assert suspected[4] == [False, True, False]


def test_success_rate_ejection_keeps_to_a_tenth(load):
    """Of ten hosts of which three fail, Envoy's sweep every 10 s ejects one and lets it back after 30 s."""
    detector = load("competitors").SuccessRateEjection(10)
    sick = signals_of([20.0] * 9 + [0.0], [0.0] * 9 + [20.0])
    out = [detector.tick(float(tick), sick) for tick in range(11)]
    assert not any(ejected.any() for ejected in out[:10])
    assert np.flatnonzero(out[10]).tolist() == [9]
    well = [detector.tick(float(tick), signals_of([20.0] * 10)) for tick in range(11, 41)]
    assert all(ejected[9] for ejected in well[:-1])
    assert not well[-1].any()


def test_recovery_asks_for_lasting_limits(load):
    """A run has recovered at the first tick from which the limits hold in 57 of 60 ticks."""
    recovery = load("bench_scoreboard")._recovery
    held = np.ones(240, dtype=bool)
    assert recovery(held) is None
    held[5:30] = False
    held[40:42] = False
    assert recovery(held) == 30
    held[:] = False
    assert recovery(held) == 240


def test_a_row_counts_what_was_missed_as_the_whole_run(load):
    """Delay is the median over nodes, missed a share of them, wrong a rate; runs that held all along have none."""
    table = load("scoreboard_table")
    runs = [results_of(table, [4, 6], wrong=3, breaches=1), results_of(table, [5, 240], recovery=None)]
    alone = [results_of(table, [], recovery=240), results_of(table, [], recovery=None)]
    row = table.Row.of(runs, runs, alone, 240)
    assert (row.delay, row.missed, row.wrong, row.recovery, row.breaches) == (5.5, 0.25, 0.75, 10.0, 1)


def test_where_ours_is_behind_is_said(load):
    """Every column in which a competitor has the smaller figure is named, and no other."""
    table = load("scoreboard_table")
    alone = [results_of(table, [], recovery=240)]

    def row(delays, **figures):
        runs = [results_of(table, delays, **figures)]
        return table.Row.of(runs, runs, alone, 240)

    rows = {name: row([7], wrong=4) for name in table.CONTESTANTS}
    rows["ours"] = row([6])
    assert table.behind(rows) == []
    rows["phi accrual"] = row([5], wrong=4)
    assert table.behind(rows) == ["delay: phi accrual 5, ours 6", "flagged: phi accrual 5, ours 6"]


def test_a_sweep_goes_on_where_it_was(load, tmp_path, monkeypatch, capsys):
    """Finished cases are read from the file and not run again; a torn line counts as unfinished."""
    bench = load("bench_scoreboard")
    monkeypatch.setattr(bench, "WARM_UP_TICKS", 30)
    path = tmp_path / "results.jsonl"
    common = ["bench", "--nodes", "5", "--scenario", "silent", "healthy", "--ticks", "12", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", [*common, "--results", str(path), "--markdown"])
    bench.main()
    first = capsys.readouterr()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["case"]["scenario"] for line in lines] == ["silent", "healthy"]
    assert first.err.count("2/2 ") == 1
    assert "| silent | 4 / " in first.out
    path.write_text(lines[0] + "\n" + lines[1][:40], encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*common, "--results", str(path), "--no-runs"])
    bench.main()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", [*common, "--results", str(path), "--markdown"])
    bench.main()
    second = capsys.readouterr()
    assert second.err.count("1/1 ") == 1
    assert second.out == first.out
