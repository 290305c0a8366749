"""What calls for a proposal: values that hold, limits that bind, nodes with one cause; nothing twice, what to type."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from controller import cli, govern, report, run
from controller.carrying_out import way
from controller.config import load
from controller.daemon_report import new_proposals
from controller.estimates import measured
from controller.findings import Finding
from controller.proposals import Situation, encode, propose
from controller.record import Recorded
from controller.rehearsal import NotRehearsedError, Rehearsal
from controller.summary import PROPOSALS_MAX
from metrics.observation import Parameters
from state.event import Event, EventKind
from state.isolation import Refusal

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "proposal.schema.json").read_text(encoding="utf-8"))
KEPT = Parameters(lambda2=0.4375)  # what the kept trial of `eventful_run` led to
DAEMON = "iace govern"


def situation(overrides=None, **options):
    command = options.pop("command", "iace run")
    return Situation(600.0, (31, "ab" * 32), load(None, overrides or {}, {}), command, **options)


def proposals(record, overrides=None, **options):
    found = propose(record, situation(overrides, **options))
    for item in found:
        Draft202012Validator(SCHEMA).validate(json.loads(encode(item)))
    return found


def of_kind(found, kind):
    return [item for item in found if item["kind"] == kind]


def add(record, kind, at_s, **data):
    record.events.append(Recorded(len(record.events) + 1, "0" * 64, Event(kind, at_s, data)))


def isolate(record, node, at_s=300.0, *, verified=True, **components):
    key = f"isolate-{node}-{at_s:g}"
    data = {"key": key, "node": node, "cluster": "c1", "gravity": 2.0, "until_s": at_s + 900.0, "offence": 1}
    components = {"h": 0.1, "q": 0.2, "k": 1.9, **components}
    add(record, EventKind.ISOLATION_INTENDED, at_s, **data, components=components, reason="|g| 2.00 above 1.5")
    if verified:
        add(record, EventKind.ISOLATION_VERIFIED, at_s + 1.0, key=key, node=node)


def kept(record, **word):
    """The first trial of `eventful_run`, ended otherwise."""
    for number, item in enumerate(record.events):
        if item.event.kind is EventKind.TRIAL_KEPT:
            told = Event(EventKind.TRIAL_KEPT, item.event.at_s, {**item.event.data, **word})
            record.events[number] = Recorded(item.seq, item.hash, told)


class Replayed(Rehearsal):
    """Totals that do, or do not, differ with the settings."""

    def __init__(self, isolations):
        super().__init__(None, load(None, {}, {}), nodes=50, tick_s=1.0)
        self.isolations = isolations

    def compare(self, settings):
        assert settings
        names = ("isolations", "blocked", "storms", "exposure_node_s", "collateral_node_s")
        now = {"totals": dict.fromkeys(names, 3.0)}
        return now, {"totals": {**now["totals"], "isolations": self.isolations}}, "a replay"


# --- what trials have changed


def test_only_a_trial_that_healed_or_improved_is_to_be_kept(eventful_run):
    """A trial that was kept because it was interrupted, or because going back was worse, is no recommendation."""
    assert [item["title"] for item in of_kind(proposals(eventful_run, parameters=KEPT), "parameters")] == [
        "Keep lambda2 0.35 → 0.4375"
    ]
    kept(eventful_run, healed=False, improved=False, interrupted=True)
    assert of_kind(proposals(eventful_run, parameters=KEPT), "parameters") == []


@pytest.mark.parametrize("parameters", [None, Parameters(), Parameters(lambda1=0.4, lambda2=0.4375)])
def test_only_what_is_in_force_is_to_be_kept(eventful_run, parameters):
    """Values that somebody has changed since, or that the plant does not show, are not called in force."""
    assert of_kind(proposals(eventful_run, parameters=parameters), "parameters") == []


def test_what_was_measured_to_be_worse_is_not_to_be_kept(eventful_run):
    """Where the violation rose beyond the noise nothing is recommended, whatever the verdict of the trial was."""
    worse = {"objective": 0.3, "objective_se": 0.002, "violation": 0.338, "coherence": 0.6, "action_cost": 0.04}
    kept(eventful_run, measured=worse)
    assert of_kind(proposals(eventful_run, parameters=KEPT), "parameters") == []


@pytest.mark.parametrize(
    ("violation", "level", "told"),
    [(0.0, "high", "fell beyond"), (0.1, "medium", "did not change beyond"), (0.4, "low", "rose beyond")],
)
def test_an_estimate_from_trials_tells_a_rise_from_a_fall(violation, level, told):
    """Confidence says whether the violation fell, stayed or rose, each against the noise of the windows."""
    before = {"objective": 0.1, "violation": 0.1, "violation_se": 0.01, "coherence": 0.9, "action_cost": 0.04}
    found = measured([(before, {**before, "violation": violation})], "trial 1")
    assert (found.confidence.level, found.confidence.because) == (
        level,
        f"the violation {told} the noise of 1 trial(s)",
    )
    assert found.worse == (level == "low")


# --- budgets


def held(record, guard, subjects, values, times_s):
    """The guard holds all of these at each of these times, one tick after the other."""
    lived_s = record.history.plant_time_s
    for at_s in times_s:
        record.history.plant_time_s = [at_s - 1.0, at_s]
        record.refuse([Refusal("isolate", guard, subject, *values, at_s) for subject in subjects])
    record.history.plant_time_s = lived_s


def waiting(record, count=12):
    held(record, "rate_limit", ["n01"], (0.4, 1.0), [float(at_s) for at_s in range(count)])


@pytest.mark.parametrize(
    ("settings", "change", "told"),
    [
        ({"rate_share": 0.12}, ("rate_share", 0.12, 0.24), "isolation.rate_share (0.12, at 50 nodes 6 isolations"),
        ({"rate_share": 0.05}, ("rate_per_minute", 5.0, 10.0), "isolation.rate_per_minute (5, at 50 nodes 5 isol"),
        ({"rate_share": 0.6}, None, "isolation.rate_share (0.6, at 50 nodes 30 isolations a minute) let n01 wait"),
    ],
)
def test_the_setting_that_binds_the_rate_is_named_and_raised(healthy_run, settings, change, told):
    """Of rate and share the one that gives the higher rate binds; a share of all nodes is as far as it goes."""
    waiting(healthy_run)
    (found,) = of_kind(proposals(healthy_run, {"isolation": settings}), "budget")
    assert found["summary"].startswith(told)
    name, old, new = change or ("", 0, 0)
    assert found["change"]["settings"] == ({f"isolation.{name}": {"from": old, "to": new}} if change else {})


def test_a_limit_whose_replay_shows_no_difference_is_left_to_people(healthy_run):
    """No setting, no claim that it would have helped, and the replay stands in the evidence; else it is proposed."""
    waiting(healthy_run)
    (found,) = of_kind(proposals(healthy_run, rehearsal=Replayed(3.0)), "budget")
    assert (found["carried_out_by"], found["change"]["settings"], found["commands"]) == ("people", {}, [])
    assert found["title"] == "Repair n01, which isolation.rate_share lets wait"
    assert "came out the same, so nothing shows that raising it would help" in found["summary"]
    assert found["evidence"]["rehearsal"]["settings"] == {"isolation.rate_share": 0.5}
    assert found["expectation"]["estimated"] is False
    (found,) = of_kind(proposals(healthy_run, rehearsal=Replayed(5.0)), "budget")
    assert found["carried_out_by"] == "reload"
    assert found["expectation"]["effects"]["isolations"]["change"] == 2.0


def test_separate_waits_are_not_one(healthy_run):
    """Twelve waits of a tick each, hours apart, are no wait of twelve ticks."""
    held(healthy_run, "rate_limit", ["n01"], (0.4, 1.0), [7200.0 * number for number in range(1, 13)])
    assert of_kind(proposals(healthy_run), "budget") == []


def test_a_budget_is_raised_for_all_that_it_held_at_once(healthy_run):
    """Two are out of fifty, and three more held by it: it takes .1; after one another .06 would have done."""
    limits = {"isolation": {"fraction_max": 0.05}}
    for name in ("n01", "n02", "n03"):
        held(healthy_run, "budget_fraction", [name], (0.06, 0.05), [1.0])
    (found,) = of_kind(proposals(healthy_run, limits), "budget")
    assert found["change"]["settings"] == {"isolation.fraction_max": {"from": 0.05, "to": 0.06}}
    held(healthy_run, "budget_fraction", ["n01", "n02", "n03"], (0.06, 0.05), [2.0])
    (found,) = of_kind(proposals(healthy_run, limits), "budget")
    assert found["change"]["settings"] == {"isolation.fraction_max": {"from": 0.05, "to": 0.1}}
    assert "At 0.1 this guard lets them go" in found["summary"]


def test_a_budget_of_clusters_is_raised_for_the_next_one_of_each(healthy_run):
    """How many clusters those are that it held is not known, and it does not claim to let all of them go."""
    held(healthy_run, "budget_cluster", ["n01", "n02"], (3 / 7, 1 / 3), [1.0])
    (found,) = of_kind(proposals(healthy_run), "budget")
    assert found["change"]["settings"] == {"isolation.cluster_fraction_max": {"from": 1 / 3, "to": 0.4286}}
    assert "this guard lets one more of a cluster go" in found["summary"]


@pytest.mark.parametrize("share", [0.07, 0.14, 0.28, 0.34])
def test_a_share_that_needs_no_rounding_is_not_rounded(healthy_run, share):
    """7 of 100 is .07, whatever a float makes of it."""
    held(healthy_run, "budget_fraction", ["n01"], (share, 0.05), [1.0])
    (found,) = of_kind(proposals(healthy_run, {"isolation": {"fraction_max": 0.05}}), "budget")
    assert found["change"]["settings"]["isolation.fraction_max"]["to"] == share


def test_what_is_refused_under_other_limits_is_counted_by_itself(healthy_run):
    """After a reload a refusal has the new limit; it binds or does not by what was refused since."""
    held(healthy_run, "budget_fraction", ["n01"], (0.06, 0.05), [float(at_s) for at_s in range(100)])
    healthy_run.new_limits()
    assert of_kind(proposals(healthy_run, {"isolation": {"fraction_max": 0.06}}), "budget") == []
    held(healthy_run, "budget_fraction", ["n01"], (0.08, 0.06), [float(at_s) for at_s in range(100, 5100)])
    (found,) = of_kind(proposals(healthy_run, {"isolation": {"fraction_max": 0.06}}), "budget")
    assert found["change"]["settings"] == {"isolation.fraction_max": {"from": 0.06, "to": 0.08}}
    assert [(item["limit"], item["count"]) for item in found["evidence"]["refusals"]] == [(0.06, 5000)]
    assert [(item.latest.limit, item.count) for item in healthy_run.refusals.values()] == [(0.05, 100), (0.06, 5000)]


def test_a_budget_of_clusters_is_not_rehearsed():
    """A replay counts all nodes as one cluster, so that it would say nothing of that budget."""
    with pytest.raises(NotRehearsedError, match="a replay knows no clusters"):
        Rehearsal(None, load(None, {}, {}), nodes=50, tick_s=1.0).compare({"isolation.cluster_fraction_max": 0.4})


def test_a_limit_that_is_in_force_no_more_is_no_finding(healthy_run):
    """Refusals under a limit that a reload has taken away or changed say nothing of the one in force."""
    healthy_run.refuse([Refusal("isolate", "budget_absolute", "n01", 3.0, 2.0, 5.0)])
    assert [item["kind"] for item in proposals(healthy_run)] == ["none"]
    assert [item["kind"] for item in proposals(healthy_run, {"isolation": {"absolute_max": 4}})] == ["none"]
    (found,) = proposals(healthy_run, {"isolation": {"absolute_max": 2}})
    assert found["change"]["settings"] == {"isolation.absolute_max": {"from": 2, "to": 3}}


# --- nodes


def test_nodes_with_the_same_cause_are_one_proposal(healthy_run):
    """Thirty nodes that serve badly are one piece of work, a node that pulls in another direction is another."""
    for number in range(30):
        isolate(healthy_run, f"n{number:02}")
    isolate(healthy_run, "n77", k=0.0, q=2.5)
    service, direction = of_kind(proposals(healthy_run), "node")
    assert service["title"] == "Repair n00, n01, n02, n03, n04 and 25 more"
    assert service["summary"].startswith("30 nodes were isolated, each most for its service (|g| 2: n00, n01")
    assert [item["node"] for item in service["evidence"]["isolations"]] == [f"n{number:02}" for number in range(30)]
    assert direction["title"] == "Repair n77"


def test_nodes_that_keep_coming_back_are_one_proposal(healthy_run):
    """One longer least time out is proposed for all of them; where a replay shows no difference, only the repair."""
    for node in ("n01", "n02"):
        for at_s in (300.0, 400.0):
            isolate(healthy_run, node, at_s)
    (found,) = of_kind(proposals(healthy_run), "node")
    assert found["title"] == "Repair or replace n01, n02"
    assert "n01, n02 were isolated 2 times each, and 2 of 2 still out at the end" in found["summary"]
    assert found["change"]["settings"] == {"isolation.backoff_base_s": {"from": 60.0, "to": 120.0}}
    (found,) = of_kind(proposals(healthy_run, rehearsal=Replayed(3.0)), "node")
    assert (found["change"]["settings"], found["title"]) == ({}, "Repair or replace n01, n02")


def test_work_on_nodes_comes_with_commands_for_a_daemon(healthy_run):
    """They are commands of ours, spelled out for the first node; after a run there is no daemon to be asked."""
    for node in ("node 0007", "node-0008"):
        isolate(healthy_run, node)
    (found,) = of_kind(proposals(healthy_run, command=DAEMON), "node")
    exempt, restore = (cli._parser().parse_args(shlex.split(item["command"])[1:]) for item in found["commands"])
    assert (exempt.node, exempt.kind, exempt.for_s, exempt.reason) == (
        "node 0007",
        "maintenance",
        7200.0,
        "under repair",
    )
    assert (restore.node, restore.reason) == ("node 0007", "repaired")
    assert "the same with each of the 1 other name(s)" in found["commands"][0]["does"]
    assert of_kind(proposals(healthy_run), "node")[0]["commands"] == []


# --- healing that has given up, and what is only under way


def exhausted(record, at_s=500.0):
    reason = "6 trials in a row did not heal; at best I_eff 0.2797; nothing is tried for 600 s"
    add(record, EventKind.HEALING_EXHAUSTED, at_s, failed=6, exhaustions=1, until_s=at_s + 600.0, reason=reason)


def test_healing_that_has_given_up_is_told_with_its_reason(healthy_run):
    """Its own word, until when nothing is tried, and no second proposal of the same KPIs beside it."""
    exhausted(healthy_run)
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("rsi",))
    assert (found["kind"], found["title"]) == ("kpi", "Help where healing has given up")
    assert "at best I_eff 0.2797" in found["summary"]
    assert "It tries nothing before 1100 s" in found["summary"]
    assert found["evidence"]["moments"][0]["until_s"] == 1100.0
    add(healthy_run, EventKind.TRIAL_KEPT, 590.0, trial=9, measured={}, healed=True)
    assert [item["title"] for item in proposals(healthy_run, parameters=Parameters(), unhealthy=("rsi",))] == [
        "rsi outside limits"
    ]


def test_an_exhaustion_of_long_ago_is_over_with_its_back_off(healthy_run):
    """Where all is well and the back-off is over, there is nothing to be done; while it is bad, there is."""
    exhausted(healthy_run, at_s=-60.0)
    assert [item["kind"] for item in proposals(healthy_run)] == ["none"]
    (found,) = proposals(healthy_run, unhealthy=("rsi",))
    assert "It may try again" in found["summary"]


def open_trial(record):
    lambdas = Parameters().as_dict()
    data = {"trial": 1, "key": "apply-1", "from": lambdas, "to": lambdas, "direction": "both_up"}
    add(record, EventKind.TRIAL_STARTED, 580.0, **data, reason="r", baseline={})


def in_flight(record):
    isolate(record, "n01", 590.0, verified=False)


@pytest.mark.parametrize("begin", [open_trial, in_flight])
def test_what_is_under_way_is_no_proposal_of_a_daemon(healthy_run, begin):
    """A moment later the KPIs tell more; a run that ends with it still says why it proposes no step."""
    begin(healthy_run)
    (found,) = proposals(healthy_run, parameters=Parameters(), unhealthy=("coherence",))
    assert "is under way" in found["summary"]
    now = situation(command=DAEMON, parameters=Parameters(), unhealthy=("coherence",))
    assert new_proposals(healthy_run, now, ()) == []


# --- nothing twice


def again(record, earlier, status="proposed", **options):
    told = [{**item, "status": status} for item in earlier]
    return new_proposals(record, situation(command=DAEMON, **options), told)


def test_other_values_of_the_same_thing_are_not_proposed_beside_it(healthy_run):
    """Whichever KPIs are outside, and however far a budget is missed, one open proposal of it is enough."""
    first = again(healthy_run, [], unhealthy=("coherence",))
    assert [item["title"] for item in first] == ["coherence outside limits"]
    assert again(healthy_run, first, unhealthy=("coherence", "rsi")) == []
    assert [item["kind"] for item in again(healthy_run, first, "expired", unhealthy=("rsi",))] == ["kpi"]
    healthy_run.refuse([Refusal("isolate", "budget_fraction", "n01", 0.4, 0.3, 5.0)])
    first = again(healthy_run, [])
    assert [item["title"] for item in first] == ["Raise isolation.fraction_max to 0.4, or add nodes"]
    healthy_run.refuse([Refusal("isolate", "budget_fraction", "n02", 0.7, 0.3, 5.0)])
    assert again(healthy_run, first) == []
    assert again(healthy_run, first, "rejected") == []


def test_a_rejected_step_does_not_come_back_with_other_values(healthy_run):
    """The same couplings in the same direction are the same thing; others are not."""
    first = again(healthy_run, [], parameters=Parameters(), unhealthy=("coherence",))
    assert first[0]["subjects"] == ["lambda1 up", "lambda2 up"]
    assert again(healthy_run, first, "rejected", parameters=Parameters(lambda1=0.31), unhealthy=("coherence",)) == []


def test_only_nodes_that_are_new_are_proposed_to_be_repaired(healthy_run):
    """What is told already is left out; one that has come back meanwhile is another matter."""
    isolate(healthy_run, "n01")
    first = again(healthy_run, [])
    assert [item["title"] for item in first] == ["Repair n01"]
    assert again(healthy_run, first) == []
    isolate(healthy_run, "n02", 350.0)
    (second,) = again(healthy_run, first)
    assert second["title"] == "Repair n02"
    isolate(healthy_run, "n01", 500.0)
    (third,) = again(healthy_run, [*first, second])
    assert third["title"] == "Repair or replace n01"
    assert again(healthy_run, [*first, second, third]) == []


def decided(record, proposal, status, at_s):
    add(record, EventKind.PROPOSAL_DECIDED, at_s, id=proposal["id"], status=status, by="ann", reason="reloaded")


@pytest.mark.parametrize("status", ["applied", "verified"])
def test_what_led_to_settings_in_force_does_not_lead_to_others(healthy_run, status):
    """Isolations and waits of before a change was applied call for no further one; a node that goes on does."""
    for at_s in (300.0, 500.0):
        isolate(healthy_run, "n01", at_s)
    held(healthy_run, "rate_limit", ["n09"], (0.4, 1.0), [310.0 + number for number in range(12)])
    told = again(healthy_run, [])
    assert [list(item["change"]["settings"]) for item in told] == [
        ["isolation.backoff_base_s"],
        ["isolation.rate_share"],
    ]
    isolate(healthy_run, "n01", 610.0)  # after it was proposed, and before it was applied
    for item in told:
        decided(healthy_run, item, "applied", 620.0)
    changed = {"isolation": {"backoff_base_s": 120.0, "rate_share": 0.5}}
    assert again(healthy_run, told, status, overrides=changed) == []
    isolate(healthy_run, "n01", 700.0)
    (single,) = again(healthy_run, told, status, overrides=changed)
    assert (single["title"], single["change"]["settings"]) == ("Repair n01", {})
    isolate(healthy_run, "n01", 900.0)
    held(healthy_run, "rate_limit", ["n08"], (0.4, 1.0), [910.0 + number for number in range(12)])
    nodes, rate = again(healthy_run, told, status, overrides=changed)
    assert nodes["title"] == "Repair or replace n01"
    assert nodes["change"]["settings"] == {"isolation.backoff_base_s": {"from": 120.0, "to": 240.0}}
    assert [story["intended_at_s"] for story in nodes["evidence"]["isolations"]] == [700.0, 900.0]
    assert [refusal["subject"] for refusal in rate["evidence"]["refusals"]] == ["n08"]


def test_a_change_of_settings_that_is_forgotten_came_after_its_proposal(healthy_run):
    """Where the record no longer has the moment at which it was applied, what was proposed from counts for nothing."""
    isolate(healthy_run, "n01", 300.0)
    isolate(healthy_run, "n01", 500.0)
    told = again(healthy_run, [])
    assert again(healthy_run, told, "verified") == []


def test_another_node_does_not_double_what_was_just_applied(healthy_run):
    """A node that came back before the longer time was in force is work for people, and no reason for a longer one."""
    for at_s in (300.0, 500.0):
        isolate(healthy_run, "n01", at_s)
    told = again(healthy_run, [])
    for at_s in (605.0, 610.0):
        isolate(healthy_run, "n02", at_s)
    decided(healthy_run, told[0], "applied", 620.0)
    (other,) = again(healthy_run, told, "applied", overrides={"isolation": {"backoff_base_s": 120.0}})
    assert (other["title"], other["change"]["settings"]) == ("Repair or replace n02", {})


# --- the page


def test_the_page_has_so_many_proposals_and_tells_where_the_rest_is(healthy_run, tmp_path, monkeypatch):
    """A long list is cut, and the folder is named where the proposals are: beside the report unless told otherwise."""
    monkeypatch.setattr(report, "kpis_png", lambda _record: b"picture")
    found = proposals(healthy_run, unhealthy=("rsi",)) * (PROPOSALS_MAX + 3)
    report.write(healthy_run, tmp_path, journal_tip=(1, "00"), proposals=found, proposals_dir=tmp_path / "kept")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.count("- **rsi outside limits**") == PROPOSALS_MAX
    assert f"- and 3 more in `{tmp_path}/kept`" in page
    assert f"Each is whole in `{tmp_path}/kept/<id>.json`" in page
    report.write(healthy_run, tmp_path, journal_tip=(1, "00"), proposals=found[:1])
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Each is whole in `proposals/<id>.json`" in page
    assert "more in" not in page


# --- what to type


class StoppedError(Exception):
    """Ends a command where its job is known."""


def asked_of(monkeypatch, module, name, *words):
    """The job that a command line comes to."""
    jobs = []

    def stop(job, _console):
        jobs.append(job)
        raise StoppedError

    monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr(cli, "_crash_file", lambda _error: "")
    assert cli.main(words) == 70
    return jobs[0]


def test_a_run_is_made_again_by_the_command_line_that_made_it(tmp_path, monkeypatch):
    """Every option as it was given, file names quoted, but for the report's directory, which is another one."""
    config, scenario = tmp_path / "my file.toml", tmp_path / "mass.toml"
    config.write_text("[isolation]\nrate_share = 0.12\n")
    scenario.write_text('name = "mass"\ndescription = "none"\n')
    words = ["run", "--config", str(config), "--scenario", str(scenario), "--nodes", "15", "--allow-probes"]
    words += ["--data-dir", str(tmp_path / "d"), "--report", str(tmp_path / "r"), "--interval", "0.5"]
    job = asked_of(monkeypatch, run, "execute", *words)
    assert f"--config '{config}' --scenario {scenario} " in job.command
    program, *typed = shlex.split(job.command)
    assert (program, typed[-1]) == ("iace", f"--report={tmp_path / 'r'}-again")
    assert typed[:-1] == [word for word in words if word not in ("--report", str(tmp_path / "r"))]
    again = asked_of(monkeypatch, run, "execute", *typed)
    assert replace(again, report_dir=job.report_dir, command=job.command) == job


def test_a_step_after_a_run_promises_no_values(healthy_run):
    """The run that is made again heals by itself, with what it finds best then."""
    (found,) = proposals(
        healthy_run, command="iace run --config 'a b.toml'", parameters=Parameters(), unhealthy=("gas",)
    )
    (command,) = found["commands"]
    assert command["command"] == "IACE_HEALING__AUTO_APPLY=true iace run --config 'a b.toml' --ticks 600"
    assert "which need not be these values" in command["does"]


def test_the_commands_of_a_real_run_can_be_typed(iace, tmp_path):
    """With a configuration and a scenario of one's own, what is printed runs the same thing again with the change."""
    cwd = tmp_path / "run"
    cwd.mkdir()
    (cwd / "my file.toml").write_text("[isolation]\nfraction_max = 0.1\n")
    bad = '["node-0001", "node-0009", "node-0013"]'
    faults = f'[[fault]]\nkind = "byzantine"\nmagnitude = 2.0\nnodes = {bad}\nphase = "GOVERNING"\nafter_ticks = 5\n'
    (cwd / "mass.toml").write_text(f'description = "Bad nodes."\n{faults}')
    options = ("--nodes", 20, "--ticks", 60, "--seed", 5)
    done = iace("run", "--config", "my file.toml", "--scenario", "mass.toml", *options, cwd=cwd)
    found = [item for item in done.report["proposals"] if item["title"].startswith("Raise isolation.fraction_max")]
    assert found, [item["title"] for item in done.report["proposals"]]
    (command,) = found[0]["commands"]
    words = shlex.split(command["command"])
    env = dict(word.split("=") for word in words if word.startswith("IACE_"))
    assert set(env) == {"IACE_ISOLATION__FRACTION_MAX"}
    again = iace(*words[words.index("iace") + 1 :], cwd=cwd, env=env)
    assert again.code in {0, 50, 51}, again.err
    before, after = (json.loads((cwd / name / "report.json").read_text()) for name in ("reports", "reports-again"))
    assert (before, after["run"]) == (done.report, before["run"])
    assert len(after["isolations"]) > len(before["isolations"])


def test_a_daemon_names_its_own_configuration_file(healthy_run, tmp_path, monkeypatch):
    """The settings are to be changed in the file that was asked for, by option, by variable or by default."""
    waiting(healthy_run)
    (found,) = of_kind(proposals(healthy_run, command=DAEMON, config_file="my.toml"), "budget")
    assert found["commands"][1]["does"] == "puts it in force once my.toml has [isolation] rate_share = 0.5"
    (tmp_path / "my.toml").write_text("")
    job = asked_of(monkeypatch, govern, "govern", "govern", "--config", str(tmp_path / "my.toml"))
    assert job.config_file == tmp_path / "my.toml"
    monkeypatch.setenv("IACE_CONFIG", str(tmp_path / "my.toml"))
    assert asked_of(monkeypatch, govern, "govern", "govern").config_file == tmp_path / "my.toml"
    monkeypatch.delenv("IACE_CONFIG")
    assert asked_of(monkeypatch, govern, "govern", "govern").config_file == Path("iace.toml")


@pytest.mark.parametrize("report", [[], ["--report", "r"], ["--report=r"]])
def test_the_run_that_is_made_again_acts_and_spares_the_report(tmp_path, monkeypatch, report):
    """A dry run's command is not dry, and neither overwrites what it is to be compared with."""
    monkeypatch.chdir(tmp_path)
    words = ["run", "--dry-run", *report, "--nodes", "15"]
    name = "r" if report else "reports"
    command = asked_of(monkeypatch, run, "execute", *words).command
    assert command == f"iace run --nodes 15 --report={name}-again"
    job = asked_of(monkeypatch, run, "execute", *shlex.split(command)[1:])
    assert (job.dry_run, job.report_dir) == (False, Path(f"{name}-again"))


@pytest.mark.parametrize("words", [("--dry",), ("--rep", "r"), ("--repo=r",)])
def test_no_option_is_abbreviated(capsys, words):
    """What is printed as the command that makes a run again is made of the options by their whole names."""
    for command in ("run", "govern"):
        with pytest.raises(SystemExit) as left:
            cli.main([command, *words])
        assert left.value.code == 2
    assert f"unrecognized arguments: {' '.join(words)}" in capsys.readouterr().err


def test_a_plant_whose_parameters_cannot_be_changed_gets_no_trial_proposed(healthy_run):
    """A recording shows parameters and takes none: that is told as the obstacle."""
    asked = {"parameters": Parameters(), "unhealthy": ("gas",)}
    (tried,) = proposals(healthy_run, **asked)
    assert (tried["kind"], tried["carried_out_by"]) == ("parameters", "trial")
    (told,) = proposals(healthy_run, **asked, settable=False)
    assert (told["kind"], told["carried_out_by"], told["change"]["parameters"]) == ("kpi", "people", {})
    assert "because the plant does not let them be changed" in told["summary"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2469.1356, "2469.1356"), (0.1, "0.1"), (1e-7, "1e-07"), (604.0, "604"), (12, "12"), (1e6, "1000000")],
)
def test_a_variable_has_the_very_value_that_is_proposed(value, text):
    """No digit is lost, and a whole number needs no fraction."""
    finding = Finding("budget", "t", "s", ("x",), settings={"isolation.backoff_base_s": (1.0, value)})
    (command,) = way(finding, load(None, {}, {}), "iace run", "iace.toml").commands
    assert command == (f"IACE_ISOLATION__BACKOFF_BASE_S={text} iace run", "runs again with it")
