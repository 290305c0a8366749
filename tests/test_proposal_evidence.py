"""What proposals expect, and from where: the gray box, backtests of the run itself, idle limits, and the proof."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from controller.cli import main
from controller.config import load
from controller.estimates import predicted
from controller.proposal_text import expected, lines, standing
from controller.proposals import Situation, digest, encode, id_of, propose, write
from controller.provenance import NotProvenError, prove
from controller.provenance import load as load_document
from controller.recording import assemble
from controller.rehearsal import CHANGES_MAX, NotRehearsedError, Rehearsal, tick_s, with_settings
from metrics.assessment import Anomaly
from metrics.errors import BadDataError, StoreFailedError
from metrics.haru.plant_model import Bias, Environment
from metrics.haru.tuning import outlook
from metrics.observation import Parameters
from state.event import Event, EventKind
from state.isolation import Refusal
from state.journal import Journal
from state.outcome import ExitCode
from state.phase import Phase

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "proposal.schema.json").read_text(encoding="utf-8"))
CONFIG = load(None, {}, {})
DRIFTED = Environment(frequency_spread=0.15**2, typical_spread=0.15**2, drift=0.06, bias=Bias(-0.004, 0.002, 0.001))
TICKS, BAD_FROM = 300, 200


def recording(last_s=None):
    """Ten nodes of which two in one cluster pull from some tick on; only the last `last_s` of it, if asked."""
    first = 0 if last_s is None else max(0, TICKS - round(last_s))
    cells = {("", "coherence"): {float(tick): 0.96 for tick in range(first, TICKS)}}
    for node in range(10):
        pull = 2.5 if node < 2 else 0.2
        cells[f"node-{node:04}", "gravity"] = {
            float(tick): pull if tick >= BAD_FROM else 0.2 for tick in range(first, TICKS)
        }
    return assemble("test", cells, (), 0)


def rehearsal(nodes=10, config=CONFIG, opened=recording):
    return Rehearsal(opened, config, nodes=nodes, tick_s=1.0)


def situation(**options):
    return Situation(
        600.0, (31, "ab" * 32), options.pop("config", CONFIG), options.pop("command", "iace run"), **options
    )


def the(found, kind):
    (one,) = [item for item in found if item["kind"] == kind]
    Draft202012Validator(SCHEMA).validate(json.loads(encode(one)))
    return one


# --- the gray box


def test_the_gray_box_leads_from_what_was_measured_to_what_it_predicts(healthy_run):
    """The interval reaches from the prediction without the model's error of late to that with all of it, and beyond."""
    after = Parameters(lambda1=0.42, lambda2=0.5)
    found = predicted(DRIFTED, Parameters(), after, healthy_run, 1.0)
    values, biased = healthy_run.history.values["gas"][-30:], outlook(DRIFTED, after).gas
    noise = 0.003 + 1.645 * np.std(values, ddof=1)  # of a difference between two means of two samples each
    gas = found.effects["gas"]
    assert gas.low == pytest.approx(biased - 0.002 - np.mean(values) - noise)
    assert gas.high == pytest.approx(biased - np.mean(values) + noise)
    assert gas.change == pytest.approx((gas.low + gas.high) / 2)
    assert found.bias == {"coherence": -0.004, "gas": 0.002, "action_cost": 0.001}
    assert found.confidence.level == "high"
    assert predicted(DRIFTED, Parameters(), after, healthy_run, 0.5).confidence.level == "medium"
    off = dataclasses.replace(DRIFTED, drift=0.0, bias=Bias(0.03, 0.03, 0.03))
    assert predicted(off, Parameters(), after, healthy_run, 1.0).confidence.level == "low"


def test_an_identified_environment_gives_a_vector(healthy_run):
    """Each parameter has the effect of itself alone, and all together have theirs."""
    found = the(
        propose(healthy_run, situation(parameters=Parameters(), unhealthy=("gas",), environment=DRIFTED)), "parameters"
    )
    assert found["direction"] == "gray_box"
    assert [entry["name"] for entry in found["optimisation"]][:2] == ["lambda1", "lambda2"]
    first = found["optimisation"][0]
    model = predicted(DRIFTED, Parameters(), Parameters(lambda1=first["to"]), healthy_run, 1.0)
    assert first["estimate"]["effects"]["coherence"]["change"] == model.effects["coherence"].change
    assert first["estimate"]["effects"]["rsi"] is None
    assert first["estimate"] != found["expectation"]
    assert found["expectation"]["method"] == "gray_box"
    assert "rolled back" in first["risk"]["because"]
    assert first["rollback"].startswith("back to lambda1 0.3, lambda2 0.35")
    told = list(lines(found))
    assert told[0] == f"lambda1: 0.3 → {first['to']:.4g}"
    assert told[-1].startswith("all together: coherence ")


def test_nothing_is_tried_where_the_model_expects_nothing(healthy_run):
    """In an environment in which the couplings in force are the best within reach, the KPI is left to people."""
    best = Parameters(lambda1=0.01, lambda2=0.01, action_cost_limit=0.05)
    dear = Environment(price=50.0, load=1.0)
    found = the(propose(healthy_run, situation(parameters=best, unhealthy=("gas",), environment=dear)), "kpi")
    assert "because nothing within reach is expected to help" in found["summary"]


# --- rehearsals


def test_a_budget_is_rehearsed_on_the_runs_own_telemetry(healthy_run):
    """What the raised budget would have done is replayed: more isolations, less exposure."""
    config = load(None, {"isolation": {"fraction_max": 0.1}}, {})
    healthy_run.refuse([Refusal("isolate", "budget_fraction", "node-0001", 0.2, 0.1, 250.0)])
    found = the(propose(healthy_run, situation(config=config, rehearsal=rehearsal(config=config))), "budget")
    assert found["change"]["settings"] == {"isolation.fraction_max": {"from": 0.1, "to": 0.2}}
    assert found["carried_out_by"] == "reload"
    effects = found["expectation"]["effects"]
    assert effects["isolations"] == {"change": 1.0, "low": None, "high": None}
    assert effects["exposure_node_s"]["change"] < -50.0
    told = found["evidence"]["rehearsal"]
    assert (told["in_force"]["isolations"], told["changed"]["isolations"]) == (1, 2)
    assert found["expectation"]["basis"].startswith("backtest of the last 300 ticks of this run's own telemetry")
    assert expected(found["expectation"]).startswith("isolations +1, blocked ")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "there is no telemetry of this run to replay"),
        (rehearsal(nodes=1501), "a replay of 120 ticks of 1501 nodes would take too long"),
        (rehearsal(opened=lambda _: assemble("x", {("", "gas"): {0.0: 0.9}}, (), 0)), "fewer than 120 ticks of |g|"),
    ],
)
def test_what_is_not_rehearsed_says_why(healthy_run, made, words):
    """Too large, too short or nothing at all: the proposal stands, its effect is not estimated."""
    healthy_run.refuse([Refusal("isolate", "budget_fraction", "node-0001", 0.4, 0.3, 250.0)])
    found = the(propose(healthy_run, situation(rehearsal=made)), "budget")
    assert found["expectation"]["estimated"] is False
    assert words in found["expectation"]["basis"]
    assert words in found["evidence"]["rehearsal"]["skipped"]


def test_a_store_that_cannot_be_read_costs_the_estimate_alone():
    """A failing store is a reason not to rehearse, and no more."""

    def broken(_last_s):
        raise StoreFailedError("disk gone")

    with pytest.raises(NotRehearsedError, match="its telemetry cannot be read: disk gone"):
        rehearsal(opened=broken).compare({"isolation.quorum": 4})


def test_only_so_many_changes_are_rehearsed_and_only_so_much():
    """The rest is told to have been skipped; large plants are replayed for fewer ticks."""
    asked = []

    def opened(last_s):
        asked.append(last_s)
        return recording(last_s)

    made = rehearsal(nodes=1000, opened=opened)
    for _ in range(CHANGES_MAX):
        made.compare({"isolation.quorum": 3})
    with pytest.raises(NotRehearsedError, match="4 other changes were replayed"):
        made.compare({"isolation.quorum": 3})
    assert asked == [180.0]
    assert with_settings(CONFIG, {"gravity.critical": 2.0}).gravity.critical == 2.0
    assert (tick_s([0.0, 0.5, 1.0]), tick_s([3.0])) == (0.5, 1.0)


# --- limits that tell nothing


def test_a_limit_that_is_always_broken_is_told_with_its_quantiles(healthy_run):
    """No other limit is proposed: somebody has to say what it is for."""
    governed = [at for at, phase in enumerate(healthy_run.history.phases) if phase == Phase.GOVERNING]
    for at in governed:
        healthy_run.history.values["rsi"][at] = 0.5 + 0.0001 * (at % 7)
    found = the(propose(healthy_run, situation()), "threshold")
    assert found["title"] == "Decide what kpi.rsi.healthy is for"
    assert (found["change"]["settings"], found["commands"], found["carried_out_by"]) == ({}, [], "people")
    told = found["evidence"]["threshold"]
    assert (told["fired_ticks"], told["ticks"], told["value"]) == (len(governed), len(governed), 0.65)
    assert told["quantiles"]["0.5"] == pytest.approx(0.5003)


def test_a_gravity_limit_that_fires_all_the_time_or_never_is_replayed_otherwise(healthy_run):
    """The evidence has what another limit would have done; nothing is proposed to be changed."""
    history = healthy_run.history
    history.values["gravity_wells"] = [1.0] * len(history.phases)
    found = the(propose(healthy_run, situation(rehearsal=rehearsal())), "threshold")
    assert found["title"] == "Look at gravity.critical, which fires most of the time"
    assert found["evidence"]["rehearsal"]["settings"] == {"gravity.critical": 2.0}
    assert found["evidence"]["rehearsal"]["changed"]["isolations"] == 2
    history.values["gravity_wells"] = [0.0] * len(history.phases)
    assert [item["kind"] for item in propose(healthy_run, situation(unhealthy=("rsi",)))] == ["kpi"]
    healthy_run.anomalies.append(Anomaly("coherence_service", "n07", 0.5, "warning", "serves worse", 400.0))
    found = the(propose(healthy_run, situation(unhealthy=("rsi",), rehearsal=rehearsal())), "threshold")
    assert found["title"] == "Look at gravity.critical, which never fires"
    assert "though n07 behaved oddly and rsi ended outside limits" in found["summary"]
    assert found["evidence"]["rehearsal"]["settings"] == {"gravity.critical": 1.0}


# --- for a daemon, and the proof


def test_a_daemons_commands_approve_and_reload(healthy_run):
    """They name the proposal itself, and the lines that the configuration needs."""
    healthy_run.refuse([Refusal("isolate", "budget_fraction", "node-0001", 0.4, 0.3, 250.0)])
    found = the(propose(healthy_run, situation(command="iace govern")), "budget")
    assert [item["command"] for item in found["commands"]] == [
        f'iace proposals approve {found["id"]} --reason "as proposed"',
        f'iace reload --reason "proposal {found["id"]}"',
    ]
    assert found["commands"][1]["does"] == "puts it in force once iace.toml has [isolation] fraction_max = 0.4"


def test_every_proposal_tells_what_the_run_saw(eventful_run):
    """KPIs, anomalies, isolations, blocked wells, refusals and trials are in each, whatever it is about."""
    for found in propose(eventful_run, situation()):
        seen = found["seen"]
        assert set(seen) == {"kpis", "anomalies", "isolations", "blocked", "refusals", "trials"}
        assert seen["kpis"]["coherence"]["healthy"] == 0.9
        assert [story["node"] for story in seen["isolations"]].count("n07") == 2
        assert seen["refusals"][0]["count"] == max(item.count for item in eventful_run.refusals.values())
        assert [story["outcome"] for story in seen["trials"]] == ["kept", "rolled_back"]


@pytest.fixture
def proven(healthy_run, tmp_path):
    """A proposal on disk, its document, and the journal that knows it."""
    journal = Journal(tmp_path / "journal.db")
    entries = journal.append([Event(EventKind.RUN_STARTED, 0.0, {"epoch": 1})], epoch=1, wall_time="w")
    (found,) = propose(healthy_run, dataclasses.replace(situation(), journal_tip=(1, entries[0].hash)))
    (path,) = write([found], tmp_path)
    yield path, found, journal
    journal.close()


def note(journal, found, sha256):
    data = {"id": found["id"], "sha256": sha256, "expires_s": None, "parameters": None, "settings": None}
    journal.append([Event(EventKind.PROPOSAL_WRITTEN, 600.0, data)], epoch=1, wall_time="w")


def test_a_proposal_is_proven_whatever_its_layout(proven):
    """The file itself and a copy with sorted keys, standing and envelope give the same proof."""
    path, found, journal = proven
    note(journal, found, digest(found))
    first = prove(load_document(path), journal)
    assert (first.anchor, first.seq, first.events, first.sha256) == (1, 2, 2, digest(found))
    standing = {"status": "approved", "by": "ann", "reason": "r", "trial": None, "approved_by": "ann", "intact": True}
    path.write_text(json.dumps({"proposal": {**found, **standing}}))
    assert prove(load_document(path), journal) == first
    assert first.sha256 == hashlib.sha256(encode(found)).hexdigest()


def test_what_is_not_ours_is_told(proven):
    """Changed content, a changed hash, another run's anchor, an unknown id, and no proposal at all."""
    path, found, journal = proven
    with pytest.raises(NotProvenError, match="knows no proposal"):
        prove(found, journal)
    note(journal, found, "00" * 32)
    with pytest.raises(NotProvenError, match="was changed: it has SHA-256"):
        prove(found, journal)
    with pytest.raises(NotProvenError, match="was changed: its content has the id p-"):
        prove({**found, "summary": "trust me"}, journal)
    moved = {**found, "anchor": {"seq": 1, "hash": "cd" * 32}}
    moved["id"] = id_of(moved)
    note(journal, moved, digest(moved))
    with pytest.raises(NotProvenError, match=r"is anchored at event 1, which .* contradicts"):
        prove(moved, journal)
    with pytest.raises(NotProvenError, match="was changed: its content has the id p-"):
        prove({"id": found["id"], "title": "Its file is gone"}, journal)
    path.write_text("[]")
    with pytest.raises(BadDataError, match="is no proposal"):
        load_document(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is no JSON"),
        ('{"title": "no id"}', "it has no id"),
        ('{"id": "p-1", "written_s": NaN}', "it holds NaN"),
        ('{"id": "p-1", "written_s": 1e999}', "beyond the range of a double"),
        (r'{"id": "p-1", "title": "\ud800"}', "not valid UTF-8 text"),
        ('{"id": "p-1", "id": "p-2"}', "a key occurs twice"),
        ('{"id": "p-1", "a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_plain_json_is_no_proposal(tmp_path, capsys, text, words):
    """Whatever somebody hands in is one plain refusal with exit code 65, and never taken for a bug."""
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(BadDataError, match=f"is no proposal: .*{words}"):
        load_document(path)
    Journal(tmp_path / "govern" / "journal.db").close()
    assert main(["proposals", "verify", str(path), "--run", "govern", "--data-dir", str(tmp_path)]) == ExitCode.BAD_DATA
    assert words in capsys.readouterr().err


def test_where_one_stands_reads_as_a_sentence():
    """Status, by whom, why, and the trial."""
    told = {"status": "verified", "by": "ann", "reason": "as discussed", "trial": 3}
    assert standing(told) == "verified by ann: as discussed (trial 3)"
    assert standing({**told, "by": "trial", "reason": "healed", "approved_by": "ann"}) == (
        "verified by trial, approved by ann: healed (trial 3)"
    )
    assert standing({"status": "proposed", "by": "", "reason": "", "trial": None}) == "proposed"
    assert expected({"estimated": False, "basis": "not estimated: too early"}) == "not estimated: too early"
