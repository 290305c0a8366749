"""A daemon's proposals from end to end: a drift leads to one, people decide, it is tried, kept or not, and proven."""

import hashlib
import json
import runpy
import sqlite3
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

from controller import config as configuration
from controller import daemon_report
from controller.cli import main
from metrics.observation import Parameters
from state import command as asked
from state.event import EventKind as E
from state.outcome import ExitCode
from state.stimulus import ProposalWritten

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA = json.loads((DOCS / "proposal.schema.json").read_text(encoding="utf-8"))
DRIFT = {"id": "drift", "kind": "drift", "channels": {"omega": 0.15}}


class ByHand(runpy.run_path(str(Path(__file__).with_name("test_daemon.py")))["Governing"]):
    """A daemon that changes no parameter by itself, at a plant whose nodes are left alone."""

    settings: ClassVar[dict] = {}

    def load(self):
        healing = {"enabled": False, "holdoff_s": 1.0, "suspect_s": 1.0}
        values = {"plant": self.overrides, "healing": healing, "isolation": {"confirm_ticks": 10_000}, **self.settings}
        return configuration.load(None, values)

    def drifted(self):
        """A drift has made KPIs unhealthy, and the report has proposed a trial; its document."""
        self.governing()
        self.inject(DRIFT)
        self.until(lambda: self.daemon.state()["unhealthy"], 300)
        return self.report()

    def report(self):
        self.daemon.write_report(self.directory / "reports")
        found = [item for item in self.daemon.proposals() if item["carried_out_by"] == "trial"]
        return found[0]

    def proposal(self, name):
        (found,) = [item for item in self.daemon.proposals() if item["id"] == name]
        return found

    def write(self, name, **change):
        """A proposal whose file is what was journaled, whatever its content."""
        file = self.directory / "govern" / "proposals" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"id": name, "title": name, "kind": "budget", "summary": "s"}))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.daemon._tell(ProposalWritten(name, sha256, **change))

    def decide(self, name, *, approve=True):
        return self.tell(asked.DecideProposal(name, approve))

    def started(self):
        return [entry.event.data for entry in self.journal.entries() if entry.event.kind is E.TRIAL_STARTED]


@pytest.fixture
def governed(tmp_path):
    made = ByHand(tmp_path, nodes=50, seed=3)
    yield made
    if not made.daemon.ended.is_set():
        made.daemon.stop(ExitCode.TERMINATED, "the test is over")
    made.journal.close()
    made.lease.__exit__(None, None, None)


def test_an_approved_proposal_heals_the_plant(governed, capsys):
    """Drift, proposal by the gray box, approval, trial, verified; and the document is proven from the journal."""
    document = governed.drifted()
    jsonschema.validate(document, SCHEMA)
    assert (document["status"], document["direction"]) == ("proposed", "gray_box")
    assert document["title"].startswith("Try lambda1 0.3 → ")
    effects = document["expectation"]["effects"]
    assert effects["coherence"]["low"] < effects["coherence"]["change"] < effects["coherence"]["high"]
    assert [entry["name"] for entry in document["optimisation"]] == ["lambda1", "lambda2"]
    assert document["conditions"] == Parameters().as_dict()
    assert document["commands"][0]["command"] == f'iace proposals approve {document["id"]} --reason "as proposed"'
    assert governed.decide(document["id"]).accepted
    governed.ticks(2)
    waits = governed.daemon.explain(document["id"])["not_done"]
    assert {item["rule"] for item in waits} == {"heal"}
    (waiting,) = governed.daemon.state()["waiting"]
    assert (waiting["proposal"], waiting["guard"]) == (document["id"], waits[0]["guard"])
    assert waiting["waits_for"].startswith(f"guard {waiting['guard']}: ")
    jsonschema.validate(governed.proposal(document["id"]), SCHEMA)
    governed.until(lambda: governed.proposal(document["id"])["status"] == "verified", 300)
    wanted = {name: change["to"] for name, change in document["change"]["parameters"].items()}
    assert governed.daemon.state()["parameters"] == {**Parameters().as_dict(), **wanted}
    assert [data["proposal"] for data in governed.started()] == [document["id"]]
    told = governed.proposal(document["id"])
    jsonschema.validate(told, SCHEMA)
    assert (told["trial"], told["by"], told["approved_by"], told["intact"]) == (1, "trial", "ann", True)
    assert governed.daemon.state()["waiting"] == []
    assert governed.daemon._snapshot().proposals["verified"] == 1
    governed.live_equals_journal()

    file = governed.directory / "from-the-api.json"
    file.write_text(json.dumps({"proposal": governed.proposal(document["id"])}, sort_keys=True), encoding="utf-8")
    assert main(["proposals", "verify", str(file), "--run", "govern", "--data-dir", str(governed.directory)]) == 0
    told = capsys.readouterr().out
    assert f"anchored at event {document['anchor']['seq']}" in told
    file.write_text(file.read_text(encoding="utf-8").replace("gray_box", "by_heart"), encoding="utf-8")
    assert main(["proposals", "verify", str(file), "--run", "govern", "--data-dir", str(governed.directory)]) == 65
    assert "was changed" in capsys.readouterr().err


def test_one_is_rolled_back_one_expires_one_is_rejected_over_a_restart(governed):
    """Each end of a proposal, with a crash while a trial is open; the report proposes nothing twice."""
    document = governed.drifted()
    count = len(governed.daemon.proposals())
    governed.report()
    assert len(governed.daemon.proposals()) == count
    assert governed.decide(document["id"], approve=False).text == f"proposal {document['id']} is rejected"
    in_force = Parameters().as_dict()
    for name, lifetime_s in (("p-worse", 900.0), ("p-late", 25.0), ("p-crash", 900.0)):
        governed.write(
            name,
            expires_s=governed.daemon.state()["plant_time_s"] + lifetime_s,
            parameters={"lambda1": 0.16, "lambda2": 0.18},
            previous=in_force,
            direction="both_down",
        )
    assert governed.decide("p-worse").accepted
    governed.until(lambda: governed.proposal("p-worse")["status"] == "rolled_back", 300)
    assert governed.proposal("p-late")["status"] == "expired"
    assert governed.daemon.state()["parameters"] == in_force
    assert governed.decide("p-crash").accepted
    governed.until(lambda: governed.proposal("p-crash")["status"] == "applied", 300)
    governed.restart()
    assert governed.proposal("p-crash")["status"] == "applied"
    governed.until(lambda: governed.proposal("p-crash")["status"] == "rolled_back", 30)
    told = governed.proposal("p-crash")
    assert (told["by"], told["approved_by"]) == ("trial", "ann")
    assert told["reason"].startswith("the controller was restarted during the trial")
    standing = {name: governed.proposal(name)["status"] for name in ("p-worse", "p-late", "p-crash", document["id"])}
    assert standing == {
        "p-worse": "rolled_back",
        "p-late": "expired",
        "p-crash": "rolled_back",
        document["id"]: "rejected",
    }
    governed.live_equals_journal()


def test_settings_are_applied_by_the_reload_that_brings_them(governed):
    """An approved change of settings is marked by a reload with exactly these, or by a restart."""
    governed.governing()
    for name, quorum in (("p-1", 4), ("p-2", 5)):
        governed.write(name, settings={"isolation.quorum": quorum})
        assert governed.decide(name).accepted
    waiting = governed.daemon.state()["waiting"]
    assert waiting[0] == {"proposal": "p-1", "waits_for": "the reload that brings its settings", "guard": None}
    governed.settings = {"isolation": {"confirm_ticks": 10_000, "quorum": 4}}
    assert governed.daemon.reload(by="ann").accepted
    assert [governed.proposal(name)["status"] for name in ("p-1", "p-2")] == ["applied", "approved"]
    assert governed.proposal("p-1")["by"] == "ann"
    governed.settings = {"isolation": {"confirm_ticks": 10_000, "quorum": 5}}
    governed.restart()
    governed.ticks(1)
    assert (governed.proposal("p-2")["status"], governed.proposal("p-2")["by"]) == ("applied", "a restart")
    told = governed.proposal("p-1")
    assert (told["status"], told["reason"]) == ("rolled_back", "isolation.quorum is 5 and not 4")
    governed.settings = {}
    assert governed.daemon.reload(by="bob").accepted
    told = governed.proposal("p-2")
    assert (told["status"], told["by"], told["reason"]) == ("rolled_back", "bob", "isolation.quorum is 3 and not 5")
    governed.live_equals_journal()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes().replace(b"Try lambda1", b"Try nothing")), "has been changed"),
        (lambda file: file.write_bytes(file.read_bytes() + b" "), "has been changed"),
        (lambda file: file.unlink(), "is gone"),
    ],
)
def test_a_document_that_is_not_what_was_written_is_told_and_not_approved(governed, damage, words):
    """Only what the journal knows is handed out, in its schema; it cannot be approved, only rejected; reports go on."""
    document = governed.drifted()
    damage(governed.directory / "govern" / "proposals" / f"{document['id']}.json")
    told = governed.proposal(document["id"])
    assert (told["intact"], told["kind"], told["status"]) == (False, "unknown", "proposed")
    assert words in told["title"]
    assert told["change"] == document["change"]
    jsonschema.validate(told, SCHEMA)
    answer = governed.decide(document["id"])
    assert not answer.accepted
    assert answer.text.startswith(f"proposal {document['id']} cannot be approved: its file ")
    assert answer.text.endswith(words if words == "is gone" else "has been changed since it was written")
    governed.ticks(5)
    assert governed.started() == []
    governed.report()
    assert document["id"] not in (governed.directory / "reports" / "report.json").read_text()
    assert governed.decide(document["id"], approve=False).accepted
    governed.live_equals_journal()


def test_a_file_is_proven_by_its_bytes_alone(governed):
    """The journal holds what sha256sum says of the file, and its chain follows from the bytes of its rows."""
    document = governed.drifted()
    content = (governed.directory / "govern" / "proposals" / f"{document['id']}.json").read_bytes()
    connection = sqlite3.connect(governed.directory / "govern" / "journal.db")
    previous, hashes = "0" * 64, []
    for seq, epoch, body, digest in connection.execute("SELECT seq, epoch, body, hash FROM journal ORDER BY seq"):
        previous = hashlib.sha256(f"{previous}:{seq}:{epoch}:".encode() + body).hexdigest()
        assert previous == digest
        if b'"PROPOSAL_WRITTEN"' in body:
            hashes.append(json.loads(body)["data"]["sha256"])
    connection.close()
    assert hashlib.sha256(content).hexdigest() in hashes


def test_approved_work_says_what_forbids_it(governed):
    """In a hold or a pause no trial begins, whatever its gates say; work of people waits for nobody here."""
    governed.governing()
    governed.write("p-1", parameters={"lambda1": 0.4}, previous=Parameters().as_dict(), direction="both_up")
    governed.write("p-2")
    assert governed.tell(asked.Pause(600.0)).accepted
    governed.until(lambda: governed.daemon.state()["phase"] == "PAUSED", 30)
    assert governed.decide("p-1").accepted
    assert governed.decide("p-2").accepted
    governed.ticks(2)
    (waiting,) = governed.daemon.state()["waiting"]
    assert waiting == {"proposal": "p-1", "waits_for": "guard paused: no trial begins in PAUSED", "guard": "paused"}


def test_a_decided_finding_does_not_come_back_before_its_time(governed):
    """What was rejected is not proposed again until it would have expired; then it is."""
    governed.drifted()
    record = daemon_report.frozen(governed.daemon._record, governed.daemon._governor, ("coherence",))
    earlier = governed.daemon.proposals()
    loop = governed.daemon._governed.loop

    def again(now_s):
        situation = daemon_report.situation(
            record,
            governed.daemon._governor,
            governed.load(),
            loop,
            now_s=now_s,
            journal_tip=(1, "00"),
            telemetry=governed.directory / "govern" / "telemetry.db",
            settable=True,
        )
        known = [daemon_report.remembered(item) for item in earlier]
        return {item["title"] for item in daemon_report.new_proposals(record, situation, known)}

    now_s = governed.daemon.state()["plant_time_s"]
    assert again(now_s) == set()
    assert {item["title"] for item in earlier} <= again(now_s + 8 * 24 * 3600.0)


def left(governed):
    return list((governed.directory / "govern" / "proposals").glob("*.json"))


def test_a_daemon_that_has_stopped_proposes_and_rehearses_nothing(governed, monkeypatch):
    """Nobody could journal it any more; the report itself is written, with what waits for a decision."""
    governed.governing()
    governed.inject(DRIFT)
    governed.until(lambda: governed.daemon.state()["unhealthy"], 300)
    governed.daemon.stop(ExitCode.TERMINATED, "TERMINATED")
    monkeypatch.setattr(daemon_report, "new_proposals", lambda *_: pytest.fail("proposed after the end"))
    governed.daemon.write_report(governed.directory / "reports")
    assert (governed.directory / "reports" / "report.json").exists()
    assert left(governed) == governed.daemon.proposals() == []
    governed.live_equals_journal()


def test_a_stop_while_a_change_is_rehearsed_leaves_no_file_that_nobody_journaled(governed, monkeypatch):
    """A rehearsal takes seconds beside the ticks, and the end may come meanwhile."""
    governed.governing()
    governed.inject(DRIFT)
    governed.until(lambda: governed.daemon.state()["unhealthy"], 300)
    propose, found = daemon_report.new_proposals, []

    def slow(*arguments):
        found.extend(propose(*arguments))
        governed.daemon.stop(ExitCode.TERMINATED, "TERMINATED")
        return found

    monkeypatch.setattr(daemon_report, "new_proposals", slow)
    governed.daemon.write_report(governed.directory / "reports")
    assert len(found) == 1
    assert left(governed) == governed.daemon.proposals() == []
    assert (governed.directory / "reports" / "report.json").exists()


def test_proposals_that_cannot_be_written_cost_the_report_alone(governed, capsys):
    """The directory is no directory: that is told, nothing is journaled, and the governing goes on."""
    governed.governing()
    governed.inject(DRIFT)
    governed.until(lambda: governed.daemon.state()["unhealthy"], 300)
    (governed.directory / "govern" / "proposals").write_text("in the way")
    governed.daemon.write_report(governed.directory / "reports")
    assert "the report was not written: proposals cannot be written to" in capsys.readouterr().err
    governed.ticks(1)
    assert governed.daemon.proposals() == []


def test_the_page_tells_how_many_nodes_there_are_and_where_the_proposals_lie(governed):
    """A daemon's proposals are not beside its report, so their folder is named; the plant's nodes are counted."""
    document = governed.drifted()
    page = (governed.directory / "reports" / "report.md").read_text(encoding="utf-8")
    assert f"Each is whole in `{governed.directory / 'govern' / 'proposals'}/<id>.json`" in page
    assert "50 nodes in 7 clusters" in page
    assert document["run"]["nodes"] == 50
