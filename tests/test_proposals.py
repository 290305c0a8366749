"""Improvement proposals: what a run's evidence calls for."""

import copy
import errno
import hashlib
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from controller import proposals as module
from controller.config import load
from controller.proposals import ProposalFailedError, Situation, clear, digest, encode, propose, write, written
from controller.record import Recorded
from metrics.errors import NotPermittedError
from metrics.observation import Parameters
from state.event import Event, EventKind
from state.isolation import Refusal

TIP = (31, "ab" * 32)
SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "proposal.schema.json").read_text(encoding="utf-8"))
COMMAND = "iace run --seed 7"


def proposals(record, overrides=None, **options):
    config, tip, command = load(None, overrides or {}, {}), options.pop("tip", TIP), options.pop("command", COMMAND)
    return propose(record, Situation(600.0, tip, config, command, **options))


def of_kind(found, kind):
    return [item for item in found if item["kind"] == kind]


def add(record, kind, at_s, **data):
    record.events.append(Recorded(len(record.events) + 1, "0" * 64, Event(kind, at_s, data)))


def test_a_quiet_run_proposes_to_change_nothing_and_shows_the_margins(healthy_run):
    """One proposal says that nothing needs changing, with the distance of every KPI from its limit."""
    (found,) = proposals(healthy_run)
    assert (found["kind"], found["title"], found["commands"]) == ("none", "Change nothing", [])
    assert found["change"] == {"settings": {}, "parameters": {}}
    assert set(found["evidence"]["margins"]) == {
        "coherence",
        "gas",
        "rsi",
        "action_cost",
        "delta_lambda",
        "delta_entropy",
    }
    assert found["evidence"]["margins"]["coherence"] == pytest.approx(0.062, abs=0.001)
    assert "coherence +0.062" in found["summary"]


@pytest.mark.parametrize("name", ["healthy_run", "eventful_run"])
def test_proposals_follow_their_schema(name, request):
    """Every proposal is a document that the published schema accepts."""
    Draft202012Validator.check_schema(SCHEMA)
    record = request.getfixturevalue(name)
    add(record, EventKind.STORM_DETECTED, 400.0, bad=30, assessed=50, fraction=0.6)
    for found in proposals(record, parameters=Parameters(), unhealthy=("coherence", "rsi")):
        Draft202012Validator(SCHEMA).validate(json.loads(encode(found)))


def test_equal_runs_give_equal_ids_and_other_content_another(eventful_run):
    """The id is a hash of the content: a name or a time of the wall clock plays no part, the journal's tip does."""
    again = copy.deepcopy(eventful_run)
    again.run_id, again.wall_started = "other", "2031-01-01T00:00:00Z"
    first, second = proposals(eventful_run), proposals(again)
    assert first == second
    moved = proposals(eventful_run, tip=(32, "cd" * 32))
    assert {item["id"] for item in moved}.isdisjoint(item["id"] for item in first)
    content = {name: value for name, value in first[0].items() if name not in ("id", "commands")}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert first[0]["id"] == "p-" + hashlib.sha256(canonical).hexdigest()[:12]
    assert first[0]["anchor"] == {"seq": 31, "hash": "ab" * 32}


def test_a_node_that_keeps_coming_back_is_to_be_repaired(eventful_run):
    """Two isolations of one node are a finding, with a longer time out; a probe's isolation is none."""
    (found,) = of_kind(proposals(eventful_run), "node")
    assert found["title"] == "Repair or replace n07"
    assert "isolated 2 times and still out at the end" in found["summary"]
    assert found["change"]["settings"] == {"isolation.backoff_base_s": {"from": 60.0, "to": 120.0}}
    assert found["commands"][0]["command"] == f"IACE_ISOLATION__BACKOFF_BASE_S=120 {COMMAND}"
    assert [story["offence"] for story in found["evidence"]["isolations"]] == [1, 2]


def test_a_node_that_is_still_out_is_to_be_repaired(eventful_run):
    """One isolation that has not ended is a finding without a setting to change."""
    eventful_run.events = [item for item in eventful_run.events if item.event.data.get("key") != "isolate-9"]
    eventful_run.events = [item for item in eventful_run.events if item.event.data.get("key") != "restore-4"]
    (found,) = of_kind(proposals(eventful_run), "node")
    assert found["title"] == "Repair n07"
    assert "still out at the end, until 1230 s" in found["summary"]
    assert (found["change"]["settings"], found["commands"]) == ({}, [])


def test_a_budget_that_bound_is_raised_to_what_it_refused(eventful_run):
    """The proposed limit is the least that would have let it happen; one refusal by the rate limit is no finding."""
    (found,) = of_kind(proposals(eventful_run), "budget")
    assert found["change"]["settings"] == {"isolation.cluster_fraction_max": {"from": 1 / 3, "to": 0.4286}}
    assert "kept n08 from being isolated; the guard saw 0.4286" in found["summary"]
    assert [item["count"] for item in found["evidence"]["refusals"]] == [2]
    assert found["evidence"]["blocked"][0]["gravity"] == 1.9


@pytest.mark.parametrize(
    ("guard", "observed", "limit", "change"),
    [
        ("budget_cluster", 1.0, 1 / 3, {}),
        ("budget_fraction", 0.32, 0.3, {"isolation.fraction_max": {"from": 0.3, "to": 0.32}}),
        ("budget_absolute", 3.0, 2.0, {"isolation.absolute_max": {"from": 2, "to": 3}}),
        ("quorum", 2.0, 3.0, {}),
        ("evidence_nodes", 4.0, 5.0, {}),
        ("rate_limit", 0.4, 1.0, {"isolation.rate_share": {"from": 0.25, "to": 0.5}}),
    ],
)
def test_each_budget_is_raised_only_where_a_number_mends_it(healthy_run, guard, observed, limit, change):
    """No budget is raised beyond half of the nodes, and a lack of nodes is not argued away."""
    for at_s in range(12):
        healthy_run.history.plant_time_s[-2:] = [at_s - 1.0, float(at_s)]
        healthy_run.refuse([Refusal("isolate", guard, "n01", observed, limit, float(at_s))])
    (found,) = proposals(healthy_run, {"isolation": {"absolute_max": 2}})
    assert (found["kind"], found["change"]["settings"]) == ("budget", change)
    assert bool(found["commands"]) is bool(change)


def test_holds_that_pass_by_themselves_are_no_findings(healthy_run):
    """Looking again, a closing window and a moment's wait for a token call for no change."""
    for guard in ("look_again", "window_closing", "state", "rate_limit"):
        healthy_run.refuse([Refusal("isolate", guard, "n01", 1.0, 2.0, 5.0)])
    (found,) = proposals(healthy_run)
    assert found["kind"] == "none"


def test_kept_trials_become_a_vector_with_what_they_measured(eventful_run):
    """From the first value to the last, with the measured effect and its standard error."""
    in_force = Parameters(lambda2=0.4375)
    (found,) = of_kind(proposals(eventful_run, parameters=in_force), "parameters")
    assert found["conditions"] == in_force.as_dict()
    assert found["title"] == "Keep lambda2 0.35 → 0.4375"
    assert found["change"]["parameters"] == {"lambda2": {"from": 0.35, "to": 0.4375}}
    assert found["expectation"]["estimated"] is True
    assert found["expectation"]["basis"] == (
        "measured before and after trial(s) 1 of this run, whatever else changed meanwhile included"
    )
    effects = found["expectation"]["effects"]
    assert effects["objective"]["change"] == pytest.approx(-0.04)
    half = 1.645 * 0.002 * 2**0.5
    assert [effects["objective"]["low"], effects["objective"]["high"]] == pytest.approx([-0.04 - half, -0.04 + half])
    assert effects["violation"] == {"change": pytest.approx(-0.035), "low": None, "high": None}
    assert effects["rsi"] is None
    assert found["carried_out_by"] == "people"  # it is in force already: there is nothing to try
    assert written(found).parameters is None


def test_an_unhealthy_end_proposes_the_next_step_without_guessing_its_effect(healthy_run):
    """No trial of this run went that way, so nothing is estimated; the command lets the next run try it."""
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))
    assert found["change"]["parameters"] == {
        "lambda1": {"from": 0.3, "to": 0.45},
        "lambda2": {"from": 0.35, "to": 0.525},
    }
    assert found["expectation"]["estimated"] is False
    assert found["expectation"]["basis"] == "not estimated: no trial of this run went that way"
    assert set(found["expectation"]["effects"].values()) == {None}
    assert found["carried_out_by"] == "trial"
    command = found["commands"][0]["command"]
    assert command == f"IACE_HEALING__AUTO_APPLY=true {COMMAND} --ticks 600"


def test_an_unhealthy_end_after_a_trial_that_way_estimates_from_it(eventful_run):
    """A trial that was kept deserves another step, and the trials of that direction tell what to expect."""
    eventful_run.events = [item for item in eventful_run.events if item.event.data.get("trial") != 2]
    found = proposals(eventful_run, parameters=Parameters(lambda2=0.4375), unhealthy=("action_cost",))
    step = next(item for item in of_kind(found, "parameters") if item["title"].startswith("Try"))
    assert step["expectation"]["basis"] == "mean of 1 trial(s) of this run in the same direction"
    assert step["expectation"]["effects"]["objective"]["change"] == pytest.approx(-0.04)


def test_a_kpi_that_no_step_acts_on_is_left_to_people(healthy_run):
    """RSI is no KPI of the couplings, and a plant may not show its parameters at all."""
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("rsi",))
    assert (found["kind"], found["change"]["parameters"]) == ("kpi", {})
    assert "because no coupling acts on them" in found["summary"]
    (found,) = proposals(healthy_run, unhealthy=("coherence",))
    assert "the plant does not show its parameters" in found["summary"]


def test_no_step_is_proposed_on_evidence_that_says_nothing_of_the_couplings(healthy_run):
    """With a well left in place, or sensors in doubt, KPIs outside limits are no reason to turn a coupling."""
    add(healthy_run, EventKind.GRAVITY_WELL_CONFIRMED, 300.0, subject="c3", gravity=2.0, components={}, ticks=3)
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))
    assert (found["kind"], found["change"]["parameters"], found["commands"]) == ("kpi", {}, [])
    assert "because c3 still pull(s) as gravity well" in found["summary"]
    add(healthy_run, EventKind.GRAVITY_WELL_GONE, 310.0, subject="c3")
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))
    assert found["kind"] == "parameters"
    add(healthy_run, EventKind.STORM_DETECTED, 320.0, bad=30, assessed=50, fraction=0.6)
    sensors, found = proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))
    assert (sensors["kind"], found["kind"]) == ("sensors", "kpi")
    add(healthy_run, EventKind.SAFE_MODE_LEFT, 400.0, reason="quiet")
    assert proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))[1]["kind"] == "parameters"


def test_several_kept_trials_are_measured_from_first_to_last(eventful_run):
    """The vector of two kept trials has the effect between the first window and the last."""
    for number, item in enumerate(eventful_run.events):
        if item.event.kind is EventKind.ROLLBACK_INTENDED:
            measured = {**item.event.data["measured"], "objective": 0.03}
            kept = Event(EventKind.TRIAL_KEPT, 525.0, {"trial": 2, "measured": measured, "healed": True})
            eventful_run.events[number] = Recorded(item.seq, item.hash, kept)
    eventful_run.events = [item for item in eventful_run.events if item.event.kind is not EventKind.TRIAL_ROLLED_BACK]
    (found,) = of_kind(proposals(eventful_run, parameters=Parameters(lambda2=0.546875)), "parameters")
    assert found["change"]["parameters"] == {"lambda2": {"from": 0.35, "to": 0.546875}}
    assert found["expectation"]["effects"]["objective"]["change"] == pytest.approx(0.03 - 0.09)


def test_doubted_sensors_come_first(eventful_run):
    """Where the evidence contradicted itself, that is told before anything that rests on it."""
    add(eventful_run, EventKind.SENSORS_DOUBTED, 300.0, disagreement=0.12, ticks=30)
    found = proposals(eventful_run)
    assert found[0]["kind"] == "sensors"
    assert found[0]["evidence"]["moments"][0]["disagreement"] == 0.12


def test_every_command_sets_settings_that_exist(eventful_run):
    """The variables of each command are accepted by the configuration and have the proposed values."""
    eventful_run.refuse(Refusal("isolate", "rate_limit", "n09", 0.1, 1.0, float(at_s)) for at_s in range(20))
    for found in proposals(eventful_run, parameters=Parameters(), unhealthy=("coherence",)):
        for item in found["commands"]:
            words = item["command"].split()
            environ = dict(word.split("=") for word in words if word.startswith("IACE_"))
            config = load(None, {}, environ)
            for path, change in found["change"]["settings"].items():
                section, key = path.split(".")
                assert getattr(getattr(config, section), key) == change["to"]
            assert COMMAND in item["command"]


def test_proposals_are_written_whole_under_their_ids(eventful_run, tmp_path):
    """One file a proposal, whose bytes have the digest that is journaled."""
    found = proposals(eventful_run)
    paths = write(found, tmp_path / "proposals")
    assert [path.name for path in paths] == [f"{item['id']}.json" for item in found]
    for path, item in zip(paths, found, strict=True):
        assert json.loads(path.read_bytes()) == item
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest(item) == written(item).sha256
        assert list(json.loads(path.read_bytes())) == sorted(item)
    assert sorted((tmp_path / "proposals").iterdir()) == sorted(paths)


def test_proposals_that_cannot_be_written_fail_the_phase(healthy_run, tmp_path, monkeypatch):
    """A full disk is an error of the family that says what to do."""

    def full(_path, _content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(ProposalFailedError, match=r"cannot be written to .*: No space left on device"):
        write(proposals(healthy_run), tmp_path)


def test_the_proposals_of_earlier_runs_are_removed(tmp_path):
    """Only they: neither this run's, nor what somebody else has put there."""
    names = {"p-0123456789ab.json", "p-00000000000f.json", "p-mine.json", "notes.txt", "p-0123456789ab.json.orig"}
    for name in names:
        (tmp_path / name).write_text("{}")
    clear(tmp_path, but={"p-00000000000f"})
    assert {path.name for path in tmp_path.iterdir()} == names - {"p-0123456789ab.json"}
    clear(tmp_path / "missing", but=())
    clear(tmp_path / "notes.txt", but=())


def test_a_proposal_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    """It would pass for one of this run."""
    (tmp_path / "p-0123456789ab.json").write_text("{}")

    def refuse(_path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NotPermittedError, match=r"of an earlier run cannot be removed from .*another directory with"):
        clear(tmp_path, but=())


def test_a_run_that_saw_no_kpi_says_so(healthy_run):
    """Without values there are no margins, and that is told."""
    healthy_run.history.values = {}
    (found,) = proposals(healthy_run)
    assert found["summary"].endswith("Margins over the last ticks: none is known.")
