"""Simulated lives of the real controller: nothing ever gives, and what is planted is found."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from controller.cli import main
from controller.simulation import campaign
from controller.simulation import shrink as shrinking
from controller.simulation.campaign import schedules, simulate
from controller.simulation.planted import BUGS
from controller.simulation.runner import run
from controller.simulation.schedule import load
from controller.simulation.shrink import shrink
from controller.simulation.swarm import draw

LIGHT_HOURS, LIGHT_PARTS = 10_000, 8
FULL_HOURS, FULL_PARTS = 100, 10
DAY_HOURS = 24.0
LIFE_HOURS = 3.0
FOUND_BY = {
    "stale_epoch_accepted": {"stale_epochs_are_fenced"},
    "no_budget_check": {"budgets_hold"},
    "nan_counted": {"evidence_counts"},
    "pause_ignored": {"pause_is_kept"},
    "wall_clock_timer": {"no_clock_moves_a_timer", "time_goes_on"},
    "check_then_act": {"evidence_is_fresh"},
}
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))


def told(tally):
    """The violation with what it takes to see it again; None where everything held."""
    if tally.violation is None:
        return None
    schedule, violation = tally.violation
    return f"{violation}; seed {schedule.seed}, {schedule.nodes} nodes, {schedule.hours:g} h of {schedule.world}"


def a_day():
    """Schedules of 24 h in all, without calm."""
    return [draw(seed, LIFE_HOURS, 12, calm_s=0.0) for seed in range(21, 21 + int(DAY_HOURS / LIFE_HOURS))]


@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(LIGHT_PARTS))
def test_nothing_gives_in_the_light_world(part, record_property):
    """Over its share of 10,000 simulated hours of faults every invariant holds, and afterwards all comes to rest."""
    tally = simulate(schedules(1_000 * part + 1, LIGHT_HOURS / LIGHT_PARTS))
    assert told(tally) is None
    assert tally.hours == pytest.approx(LIGHT_HOURS / LIGHT_PARTS)
    assert tally.effects > 100
    record_property("simulated_light_hours", tally.hours)


@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(FULL_PARTS))
def test_nothing_gives_with_the_full_plant(part, record_property):
    """Over its share of 100 simulated hours with the real plant and the real field every invariant holds."""
    tally = simulate(schedules(1_000 * part + 1, FULL_HOURS / FULL_PARTS, world="full"))
    assert told(tally) is None
    assert tally.hours == pytest.approx(FULL_HOURS / FULL_PARTS)
    record_property("simulated_full_hours", tally.hours)


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found_within_a_day(name, record_property):
    """Each of the six planted bugs is found within one simulated day."""
    tally = simulate(a_day(), BUGS[name])
    assert tally.violation is not None
    schedule, violation = tally.violation
    assert violation.invariant in FOUND_BY[name]
    record_property("planted", f"{name}: {violation.invariant} after {tally.hours:.1f} h, seed {schedule.seed}")


def test_equal_schedules_give_equal_lives():
    """The same schedule gives the same journal, hash for hash; another seed gives another one."""
    first, again, other = (run(draw(seed, 12.0, 16)) for seed in (5, 5, 6))
    assert first.events > 20
    assert (first.digest, first.events, first.effects) == (again.digest, again.events, again.effects)
    assert first.digest != other.digest


def test_a_violation_is_shrunk_to_what_matters():
    """Of all that went wrong, what remains still breaks the same invariant, and without any of it nothing breaks."""
    bug = BUGS["wall_clock_timer"]
    tally = simulate(a_day(), bug)
    schedule, violation = tally.violation
    minimal = shrink(schedule, violation, bug)
    assert 0 < len(minimal.faults) < len(schedule.faults)
    assert "wall_step" in {fault.kind for fault in minimal.faults}
    assert run(minimal, bug).violation.invariant == violation.invariant
    for left_out in minimal.faults:
        rest = minimal.only([fault for fault in minimal.faults if fault is not left_out])
        after = run(rest, bug).violation
        assert after is None or after.invariant != violation.invariant


def test_the_command_tells_and_saves_a_violation(monkeypatch, tmp_path, capsys):
    """It leaves with 1, the whole schedule is saved before the search for what matters, and the smallest after it."""
    bug = BUGS["nan_counted"]
    monkeypatch.setattr(campaign, "simulate", lambda wanted, told: simulate(wanted, bug, told=told))
    monkeypatch.setattr(shrinking, "shrink", partial(shrink, bug=bug, runs_max=6))
    assert main(["simulate", "--hours", "24", "--seed", "21", "--nodes", "12", "--save", str(tmp_path)]) == 1
    (saved,) = tmp_path.iterdir()
    told_to = capsys.readouterr()
    assert told_to.err.count(f"written to {saved}") == 2
    assert " faults left" in told_to.err
    assert "VIOLATED with seed 21, 12 nodes: evidence_counts" in told_to.out
    assert len(load(saved).faults) < len(draw(load(saved).seed, 24.0, 12).faults)


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_was_found_once_stays_mended(path):
    """Each schedule that once led to a violation does so no more."""
    assert run(load(path)).violation is None


def test_schedules_survive_a_file(tmp_path):
    """A schedule that was written to a file and read again is the same one."""
    schedule = draw(9, 6.0, 8)
    path = tmp_path / "schedule.json"
    path.write_text(schedule.to_json(), encoding="utf-8")
    assert load(path) == replace(schedule, faults=tuple(load(path).faults))
    assert json.loads(path.read_text(encoding="utf-8"))["faults"][0]["kind"] == schedule.faults[0].kind
    assert load(path).faults == schedule.faults
