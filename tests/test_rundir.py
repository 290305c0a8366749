"""Run directories: numbered once, and open until nothing of a run is left at its plant; and how that is cleared up."""

import pytest

from controller import rundir
from controller.aftermath import clear_up
from metrics.errors import BadDataError, PlantRefusedError, PlantUnavailableError
from state.event import Event, EventKind
from state.journal import Journal

E = EventKind
STARTED = {"epoch": 1, "plant": "http://127.0.0.1:1", "real_time": True}


def left_by(data_dir, *events, started=STARTED):
    """A run of which the journal holds `events`; its number."""
    number, path = rundir.make(data_dir)
    journal = Journal(path / rundir.JOURNAL)
    journal.note("run_name", f"run-{number}")
    journal.append([Event(E.RUN_STARTED, 0.0, started), *events], epoch=1, wall_time="2030-01-01T00:00:00Z")
    journal.close()
    return number


def probe(name):
    return Event(E.PROBE_INTENDED, 5.0, {"probe": name, "undo": {"clear": name}})


ENDED = Event(E.RUN_ENDED, 9.0, {"exit_code": 143, "name": "TERMINATED", "causes": []})


def test_numbers_rise_and_are_never_used_again(tmp_path):
    """Each run gets the next number, whatever else lies there."""
    assert rundir.numbers(tmp_path) == []
    assert [rundir.make(tmp_path)[0] for _ in range(3)] == [1, 2, 3]
    (tmp_path / "runs" / "notes").mkdir()
    rundir.directory(tmp_path, 2).joinpath("open").unlink()
    assert rundir.make(tmp_path)[0] == 4
    assert rundir.numbers(tmp_path) == [1, 2, 3, 4]


def test_a_run_that_is_not_there_is_told_by_its_number(tmp_path):
    """With the numbers there are; where none was asked for, none is named."""
    with pytest.raises(BadDataError, match=r"^no run under \S+/runs \(there is none yet: start one with iace run\)$"):
        rundir.journal_path(tmp_path, None)
    rundir.make(tmp_path)
    with pytest.raises(BadDataError, match=r"^no run 7 under \S+/runs \(runs there: 1 to 1\)$"):
        rundir.journal_path(tmp_path, 7)


def test_a_run_that_died_with_a_fault_in_force_is_left_over(tmp_path):
    """What a dead run has to have undone is found with its plant and its name."""
    number = left_by(tmp_path, probe("slow-1"))
    (left,) = rundir.leftovers(tmp_path)
    assert (left.number, left.plant, left.run_name) == (number, "http://127.0.0.1:1", f"run-{number}")
    assert left.state.probes == {"slow-1": {"probe": "slow-1", "undo": {"clear": "slow-1"}}}


def test_a_run_that_was_stopped_with_a_fault_in_force_is_left_over_too(tmp_path):
    """An orderly stop leaves the plant as it is: the fault is still to be ended."""
    left_by(tmp_path, probe("slow-1"), ENDED)
    assert [left.number for left in rundir.leftovers(tmp_path)] == [1]


@pytest.mark.parametrize(
    "events",
    [
        (),
        (ENDED,),
        (probe("slow-1"), Event(E.PROBE_ENDED, 6.0, {"probe": "slow-1", "result": {}}), ENDED),
    ],
)
def test_a_run_that_left_nothing_is_settled(tmp_path, events):
    """Where nothing is in force the run is closed and not looked at again."""
    number = left_by(tmp_path, *events)
    assert rundir.leftovers(tmp_path) == []
    assert not (rundir.directory(tmp_path, number) / rundir.OPEN).exists()


def test_what_happened_on_a_virtual_plant_died_with_it(tmp_path):
    """Nothing is left of an embedded cluster."""
    left_by(tmp_path, probe("slow-1"), started={**STARTED, "real_time": False})
    assert rundir.leftovers(tmp_path) == []


def test_leftovers_stay_until_they_are_settled_the_latest_first(tmp_path):
    """Later runs do not make an earlier one forgotten."""
    for name in ("a", "b"):
        left_by(tmp_path, probe(name))
    left_by(tmp_path, ENDED)
    rundir.make(tmp_path)  # a run that never got as far as a journal
    assert [left.number for left in rundir.leftovers(tmp_path)] == [2, 1]
    rundir.settle(tmp_path, 2)
    rundir.settle(tmp_path, 2)
    assert [left.number for left in rundir.leftovers(tmp_path)] == [1]


def test_a_damaged_journal_is_not_passed_over(tmp_path):
    """A journal that is no journal stops the search, by name."""
    number, path = rundir.make(tmp_path)
    (path / rundir.JOURNAL).write_bytes(b"not a database at all, but long enough to be taken for one" * 20)
    with pytest.raises(BadDataError, match=rf"runs/{number}/journal.db"):
        rundir.leftovers(tmp_path)


def test_the_latest_journal_is_the_default(tmp_path):
    """Without a number the latest run is meant; an unknown one is named with those that there are."""
    with pytest.raises(BadDataError, match="there is none yet: start one with iace run"):
        rundir.journal_path(tmp_path, None)
    for _ in range(2):
        rundir.make(tmp_path)
    assert rundir.journal_path(tmp_path, None) == tmp_path / "runs" / "2" / "journal.db"
    assert rundir.journal_path(tmp_path, 1) == tmp_path / "runs" / "1" / "journal.db"
    with pytest.raises(BadDataError, match=r"no run 7 .*runs there: 1 to 2"):
        rundir.journal_path(tmp_path, 7)


class Plant:
    """Takes note of what it is asked; what stands in `errors` it answers with."""

    def __init__(self, *, out=(), **errors):
        self.calls, self._out, self._errors = [], out, errors

    def _do(self, verb, what, key):
        self.calls.append((verb, what, key))
        if verb in self._errors:
            raise self._errors[verb]

    def clear(self, fault, *, key, epoch):
        assert epoch == 7
        self._do("clear", fault, key)

    def restore(self, node, *, key, epoch):
        assert epoch == 7
        self._do("restore", node, key)

    def apply(self, parameters, *, key, epoch):
        assert epoch == 7
        self._do("apply", parameters.lambda2, key)

    def isolated(self):
        self._do("isolated", "", "")
        return frozenset(self._out)


LAMBDAS = {"lambda1": 0.3, "lambda2": 0.35, "alpha": 1.0, "action_cost_limit": 0.05}
DISSONANCE = Event(E.PROBE_INTENDED, 5.0, {"probe": "d", "node": "n3", "undo": {"clear": "d", "restore": "n3"}})
PASSED = [Event(E.PHASE_PASSED, float(i), {"phase": phase, "checks": {}}) for i, phase in enumerate(("I", "II", "III"))]
TRIAL = Event(
    E.TRIAL_STARTED,
    20.0,
    {
        "trial": 1,
        "key": "apply-1",
        "from": LAMBDAS,
        "to": {**LAMBDAS, "lambda2": 0.4375},
        "direction": "both_up",
        "reason": "",
        "baseline": {},
        "tokens": 9.0,
    },
)


def cleared(tmp_path, plant, *events):
    left_by(tmp_path, *events)
    (left,) = rundir.leftovers(tmp_path)
    return clear_up(left, plant, epoch=7, name="new/after-1")


def test_a_probe_is_undone_as_it_was_written_down(tmp_path):
    """The fault is ended and its node let back in, each under a key of its own."""
    plant = Plant()
    after = cleared(tmp_path, plant, DISSONANCE)
    assert plant.calls == [("clear", "d", "new/after-1/clear-d"), ("restore", "n3", "new/after-1/restore-d")]
    assert after.told == ["fault d ended", "n3 let back in"]
    assert after.settled


def test_an_open_trial_goes_back_to_the_last_good_value(tmp_path):
    """Parameters on trial are not left in force."""
    plant = Plant()
    after = cleared(tmp_path, plant, *PASSED, TRIAL)
    assert plant.calls == [("apply", 0.35, "new/after-1/parameters")]
    assert after.told == ["parameters back to the last good value"]


def test_a_refusal_is_final_and_silence_is_not(tmp_path):
    """What the plant refuses needs no undoing; what it did not answer has to be tried again."""
    refusing = Plant(clear=PlantRefusedError("to clear", "there is no fault 'd'"))
    after = cleared(tmp_path / "a", refusing, DISSONANCE)
    assert after.told[0] == "not needed or refused: fault d ended (there is no fault 'd')"
    assert after.settled
    silent = Plant(restore=PlantUnavailableError("no answer"))
    after = cleared(tmp_path / "b", silent, DISSONANCE)
    assert after.told == ["fault d ended", "failed: n3 let back in (no answer)"]
    assert not after.settled
