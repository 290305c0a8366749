"""Every permanent exit code, reached by the real process with a documented command."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

pytestmark = pytest.mark.process

SHORT = ("--nodes", 10, "--ticks", 20)  # enough where it ends before the governing window
SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "report.schema.json"
KNOWN = {
    0: "COHERENT_LOCK",
    10: "PHASE_I_FAILED",
    20: "PHASE_II_FAILED",
    30: "PHASE_III_FAILED",
    40: "PHASE_IV_FAILED",
    50: "CRITICAL_DISSONANCE",
    51: "ISOLATION_BLOCKED",
    60: "SAFE_MODE",
    61: "INCONCLUSIVE",
    70: "INTERNAL_ERROR",
    74: "STORE_FAILED",
    130: "INTERRUPTED",
    143: "TERMINATED",
}


def is_as_promised(done, code):
    """Exit code and report say the same, the report follows its published schema, and nobody gets a traceback."""
    assert done.code == code, done.err[-3000:]
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(done.report)
    assert done.report["exit_code"] == code
    assert done.report["exit_name"] == KNOWN[code]
    assert done.report["status_code"] == ("200_COHERENT_LOCK" if code == 0 else "500_CRITICAL_DISSONANCE")
    assert "Traceback" not in done.err
    assert "Traceback" not in done.out


def checks(report, status):
    return {check["name"] for phase in report["phases"] for check in phase["checks"] if check["status"] == status}


def governed(report):
    """The isolations of the governing window, without the one that Phase III makes itself."""
    return [isolation for isolation in report["isolations"] if isolation["probe"] is None]


def journal(done):
    """The events of the latest run, by its own export."""
    lines = subprocess.run(
        [sys.executable, "-m", "controller", "journal", "export"],
        cwd=done.cwd,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_a_healthy_cluster_ends_in_coherent_lock(iace):
    """A healthy run ends in 0 with every check passed, four report files and a whole journal."""
    done = iace("run", "--ticks", 60)
    is_as_promised(done, 0)
    assert done.out == "200_COHERENT_LOCK exit 0 COHERENT_LOCK\n"
    assert checks(done.report, "passed") == {c["name"] for p in done.report["phases"] for c in p["checks"]}
    assert {path.name for path in (done.cwd / "reports").iterdir() if path.is_file()} == {
        "report.json",
        "report.md",
        "junit.xml",
        "kpis.png",
    }
    assert governed(done.report) == []
    assert journal(done)[-1]["kind"] == "RUN_ENDED"
    assert journal(done)[-1]["hash"] == done.report["journal_tip"]["hash"]


@pytest.mark.parametrize(
    ("scenario", "ticks"),
    [("byzantine-node", 120), ("detuned-node", 120), ("slow-node", 120), ("silent-node", 120), ("flapping-node", 180)],
)
def test_a_bad_node_is_isolated_verified_and_the_run_ends_well(iace, scenario, ticks):
    """One bad node of fifty is isolated, the isolation verified, and the run ends in 0."""
    done = iace("run", "--scenario", scenario, "--ticks", ticks)
    is_as_promised(done, 0)
    (isolation,) = governed(done.report)
    assert isolation["verified"]
    assert isolation["gravity"] > 1.5
    assert [item["node"] for item in done.report["still_isolated"]] == [isolation["node"]]


def test_usage(iace):
    """A command line that argparse refuses ends in 2 with the usage."""
    for arguments in (["fly"], [], ["run", "--ticks", "many"], ["run", "--format", "xml"], ["journal"]):
        done = iace(*arguments)
        assert done.code == 2
        assert done.err.startswith("usage: iace")
        assert done.out == ""


def test_phase_i_fails_where_coherence_cannot_be_reached(iace, tmp_path):
    """A limit that no cluster reaches fails Phase I: 10, and the check says which KPI."""
    config = tmp_path / "strict.toml"
    config.write_text("[kpi.coherence]\nhealthy = 0.999\n")
    done = iace("run", "--config", config, *SHORT)
    is_as_promised(done, 10)
    assert checks(done.report, "failed") == {"kpi.coherence"}
    assert "PHASE_I failed: kpi.coherence" in done.report["causes"][0]


@pytest.mark.parametrize(
    ("scenario", "failed"),
    [
        ("ledger-tampering", "ledger.roots"),
        ("ledger-fork", "ledger.fork"),
        ("supply-inflation", "ledger.supply"),
        ("entropy-spike", "kpi.delta_entropy"),
    ],
)
def test_a_bad_ledger_fails_phase_ii_by_the_right_check(iace, scenario, failed):
    """Each kind of damage to the ledger ends in 20, found by the check that is made for it."""
    done = iace("run", "--scenario", scenario, *SHORT)
    is_as_promised(done, 20)
    assert failed in checks(done.report, "failed")
    assert checks(done.report, "failed") <= {failed, "ledger.supply"}
    assert [phase["phase"] for phase in done.report["phases"]] == ["PHASE_I", "PHASE_II"]


def test_a_run_that_fails_leaves_no_proposals_of_an_earlier_one(iace, tmp_path):
    """The report says that there are none, and its folder agrees; what else lies there is left alone."""
    folder = tmp_path / "reports" / "proposals"
    folder.mkdir(parents=True)
    for name in ("p-0123456789ab.json", "notes.txt"):
        (folder / name).write_text("{}")
    done = iace("run", "--scenario", "ledger-tampering", *SHORT, cwd=tmp_path)
    is_as_promised(done, 20)
    assert done.report["proposals"] == []
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_phase_iii_fails_where_gravity_gating_cannot_work(iace, tmp_path):
    """With a critical gravity that no node reaches, the injected dissonance is not isolated: 30."""
    config = tmp_path / "blind.toml"
    config.write_text("[gravity]\ncritical = 50\n")
    done = iace("run", "--config", config, *SHORT)
    is_as_promised(done, 30)
    assert checks(done.report, "failed") == {"field.gating"}


def test_phase_iv_fails_where_proposals_cannot_be_written(iace, tmp_path):
    """A file in the place of reports/proposals fails Phase IV: 40, and the rest of the report is written."""
    (tmp_path / "run" / "reports").mkdir(parents=True)
    (tmp_path / "run" / "reports" / "proposals").write_text("not a directory")
    done = iace("run", *SHORT)
    is_as_promised(done, 40)
    assert checks(done.report, "failed") == {"improvement.proposal"}
    assert (done.cwd / "reports" / "kpis.png").exists()


def test_kpis_outside_their_limits_at_the_end_are_critical(iace):
    """A bad node among five that a dry run may not isolate leaves the KPIs outside their limits: 50, and no action."""
    done = iace("run", "--dry-run", "--scenario", "byzantine-node", "--nodes", 5, "--ticks", 150)
    is_as_promised(done, 50)
    assert done.report["run"]["dry_run"]
    assert done.report["isolations"] == []
    assert done.report["healing"] == []
    intended = {event["kind"] for event in journal(done)} & {"ISOLATION_INTENDED", "TRIAL_STARTED"}
    assert intended == set()


def test_a_cluster_that_no_guard_lets_go_blocks_isolation(iace):
    """A whole cluster that turns wrongly ends in 51; the guard is named and nobody beyond the budget isolated."""
    done = iace("run", "--scenario", "cluster-fault", "--ticks", 150)
    is_as_promised(done, 51)
    assert "budget_cluster" in done.report["causes"][0]
    assert {blocked["guard"] for blocked in done.report["blocked"]} >= {"budget_cluster"}
    out = {item["node"] for item in done.report["still_isolated"]}
    assert len(out) <= 15
    assert "ISOLATION_BLOCKED" in done.out


def test_lying_sensors_are_held_in_safe_mode(iace):
    """Noise on all sensors ends in 60, and nobody is isolated on such evidence."""
    done = iace("run", "--scenario", "sensor-fault", "--ticks", 150)
    is_as_promised(done, 60)
    assert governed(done.report) == []
    assert "sensors contradict service" in done.report["causes"][0]


def test_frequency_drift_is_healed_or_ends_in_critical_dissonance(iace):
    """When the environment drifts away nobody is isolated; the run heals it or says 50."""
    done = iace("run", "--scenario", "frequency-drift", "--ticks", 150)
    is_as_promised(done, done.code)
    assert done.code in {0, 50}
    assert governed(done.report) == []


def test_a_demand_surge_blames_no_node(iace):
    """A rush passes without any node being isolated or taken for a gravity well."""
    done = iace("run", "--scenario", "demand-surge", "--ticks", 150)
    is_as_promised(done, 0)
    assert governed(done.report) == []
    wells = [event for event in journal(done) if event["kind"] == "GRAVITY_WELL_CONFIRMED"]
    assert len(wells) == 1  # the one of Phase III's own making


def test_the_deadline_ends_a_run_without_a_verdict(iace):
    """A wall-clock deadline that passes ends in 61 and names itself."""
    done = iace("run", *SHORT, "--deadline", 0.001)
    is_as_promised(done, 61)
    assert "--deadline" in done.report["causes"][0]


def test_an_internal_error_leaves_a_file_and_the_report(iace):
    """A bug ends in 70: the traceback is in a file that standard error names, and the report is still written."""
    done = iace("run", *SHORT, env={"IACE_TEST_FAIL": "internal"})
    is_as_promised(done, 70)
    (crash,) = (done.cwd / "reports").glob("iace-crash-*.txt")
    assert f"reports/{crash.name}" in done.err
    assert "Traceback" in crash.read_text()
    assert "fire drill" in crash.read_text()
    assert [phase["phase"] for phase in done.report["phases"]] == ["PHASE_I", "PHASE_II", "PHASE_III"]
    assert {"junit.xml", "report.md", "kpis.png"} <= {path.name for path in (done.cwd / "reports").iterdir()}
    assert journal(done)[-1]["data"]["exit_code"] == 70


def test_a_full_disk_ends_in_store_failed(iace):
    """A journal that cannot grow ends in 74 with the words of the store, and no traceback."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (96 * 1024, 96 * 1024))

    done = iace("run", *SHORT, preexec_fn=small_files)
    assert done.code == 74, done.err[-3000:]
    assert "Traceback" not in done.err
    assert "Free space or repair the disk" in done.err


def test_a_full_file_system_ends_in_store_failed(iace, tmp_path):
    """The same on a real file system of 200 KiB; the report, elsewhere, is written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        done = iace("run", *SHORT, "--data-dir", disk)
    finally:
        subprocess.run(["umount", disk], check=True)
    is_as_promised(done, 74)


def test_output_that_cannot_be_written_ends_in_store_failed(iace):
    """A standard output on a full device ends in 74, not in a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = iace("diagram", stdout=full)
    assert done.code == 74
    assert done.err == "iace: the output cannot be written: No space left on device: free some space\n"


def test_a_second_controller_on_one_data_directory_is_refused(iace, start_iace, tmp_path):
    """While a run holds a data directory another one ends in 75, naming the process that holds it."""
    first = start_iace("run", "--nodes", 10, "--ticks", 100_000, cwd=tmp_path / "first")
    data = tmp_path / "first" / ".iace"
    _wait_until((data / "runs" / "1" / "journal.db").exists)
    done = iace("run", *SHORT, "--data-dir", data)
    assert done.code == 75
    assert f"held by another controller (process {first.pid})" in done.err
    assert done.report is None
    first.send_signal(signal.SIGTERM)
    ended = first.finish()
    is_as_promised(ended, 143)


def test_a_data_directory_without_permission_is_not_permitted(iace, tmp_path):
    """A data directory that may not be written ends in 77 and says how to go on."""
    data = tmp_path / "read-only"
    data.mkdir()
    data.chmod(0o500)
    done = iace("run", *SHORT, "--data-dir", data, preexec_fn=_without_root_privileges)
    assert done.code == 77, done.err
    assert done.err == (
        f"iace: {data}/lock: Permission denied: give write permission, or name another with --data-dir\n"
    )


def test_every_problem_of_a_configuration_is_listed(iace, tmp_path):
    """A broken configuration ends in 78 with every problem and its path, before anything is touched."""
    config = tmp_path / "broken.toml"
    config.write_text(
        "[plant]\nnodes = 3\nsede = 1\n[gravity]\ncritical = -1\n[isolation]\nquorum = 'three'\n[nowhere]\nx = 1\n"
    )
    done = iace("run", "--config", config)
    assert done.code == 78
    for path in ("plant.nodes", "plant.sede", "gravity.critical", "isolation.quorum", "nowhere"):
        assert path in done.err
    assert "5 problem(s)" in done.err
    assert not (done.cwd / ".iace").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_virtual_run_stops_in_order(start_iace, number, code):
    """A signal in the middle of a run on the embedded plant ends it in 130 or 143, with journal and report."""
    running = start_iace("run", "--nodes", 10, "--ticks", 100_000)
    _wait_until(lambda: "GOVERNING" in (running.cwd / "stderr").read_text())
    running.send_signal(number)
    done = running.finish()
    is_as_promised(done, code)
    assert journal(done)[-1]["kind"] == "RUN_ENDED"
    assert journal(done)[-1]["data"]["exit_code"] == code


def _wait_until(reached, seconds=60):
    """Wait for another process; a machine that is busier than this is broken."""
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "it has not come about"
        time.sleep(0.05)


def _without_root_privileges():
    """Let file permissions hold for root, too; others need nothing."""
    if os.geteuid() == 0:
        import ctypes  # noqa: PLC0415 - in the child only

        drop_bounding, may_override, may_read = 24, 1, 2
        for capability in (may_override, may_read):
            ctypes.CDLL(None).prctl(drop_bounding, capability, 0, 0, 0)
