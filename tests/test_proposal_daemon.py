"""A daemon's proposals from end to end: a drift leads to one, people decide, it is tried, kept or not, and proven."""

import json
import runpy
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
STANDING = ("status", "by", "reason", "trial")


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
    jsonschema.validate({k: v for k, v in document.items() if k not in STANDING}, SCHEMA)
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
    governed.until(lambda: governed.proposal(document["id"])["status"] == "verified", 300)
    wanted = {name: change["to"] for name, change in document["change"]["parameters"].items()}
    assert governed.daemon.state()["parameters"] == {**Parameters().as_dict(), **wanted}
    assert [data["proposal"] for data in governed.started()] == [document["id"]]
    assert governed.proposal(document["id"])["trial"] == 1
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
        stimulus = ProposalWritten(
            name,
            "00" * 32,
            governed.daemon.state()["plant_time_s"] + lifetime_s,
            parameters={"lambda1": 0.16, "lambda2": 0.18},
            previous=in_force,
            direction="both_down",
        )
        governed.daemon._tell(stimulus)
    assert governed.decide("p-worse").accepted
    governed.until(lambda: governed.proposal("p-worse")["status"] == "rolled_back", 300)
    assert governed.proposal("p-late")["status"] == "expired"
    assert governed.daemon.state()["parameters"] == in_force
    assert governed.decide("p-crash").accepted
    governed.until(lambda: governed.proposal("p-crash")["status"] == "applied", 300)
    governed.restart()
    assert governed.proposal("p-crash")["status"] == "applied"
    governed.until(lambda: governed.proposal("p-crash")["status"] == "rolled_back", 30)
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
        governed.daemon._tell(ProposalWritten(name, "00" * 32, None, settings={"isolation.quorum": quorum}))
        governed.decide(name)
    governed.settings = {"isolation": {"confirm_ticks": 10_000, "quorum": 4}}
    assert governed.daemon.reload(by="ann").accepted
    assert [governed.proposal(name)["status"] for name in ("p-1", "p-2")] == ["applied", "approved"]
    assert governed.proposal("p-1")["by"] == "ann"
    governed.settings = {"isolation": {"confirm_ticks": 10_000, "quorum": 5}}
    governed.restart()
    governed.ticks(1)
    assert (governed.proposal("p-2")["status"], governed.proposal("p-2")["by"]) == ("applied", "a restart")
    governed.live_equals_journal()


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
        )
        return {item["title"] for item in daemon_report.new_proposals(record, situation, earlier)}

    now_s = governed.daemon.state()["plant_time_s"]
    assert again(now_s) == set()
    assert {item["title"] for item in earlier} <= again(now_s + 8 * 24 * 3600.0)
