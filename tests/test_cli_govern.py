"""`iace govern` as a process: started, killed, started again, told to read its configuration, and stopped."""

import json
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from state.event import EventKind
from state.journal import Journal

pytestmark = pytest.mark.process

TICK_S = 0.05
ENV = {"IACE_ISOLATION__VERIFY_S": "120", "IACE_SCHEDULE__FLUSH_S": "0.5"}  # ten ticks are a blink here
E = EventKind


def until(reached, seconds=90):
    """Wait for another process; a machine that is busier than this is broken."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)


def read(url, route):
    with urllib.request.urlopen(f"{url}{route}", timeout=5) as answer:
        return json.load(answer)


def fault(url, **body):
    request = urllib.request.Request(
        f"{url}/faults", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request, timeout=5).close()


def governing(url, data, *arguments):
    return ("govern", "--plant", "http", "--url", url, "--interval", TICK_S, "--no-api", "--data-dir", data, *arguments)


def told(running):
    return (running.cwd / "stderr").read_text()


def entries(data):
    journal = Journal(data / "govern" / "journal.db", read_only=True)
    try:
        return list(journal.entries())
    finally:
        journal.close()


def isolations(url):
    return read(url, "/isolations")["isolations"]


def test_a_killed_daemon_goes_on_where_it_was(serve_qecs, start_iace, iace, tmp_path):
    """After `kill -9` the next process knows who is out, isolates nobody twice, and stops in order on SIGTERM."""
    plant, data = serve_qecs("--nodes", 20, "--interval", TICK_S, "--allow-faults"), tmp_path / "data"
    first = start_iace(*governing(plant, data), env=ENV)
    until(lambda: "GOVERNING: gravity-well daemon" in told(first))
    fault(plant, fault={"id": "bad", "kind": "byzantine", "nodes": ["node-0004"]})
    until(lambda: "node-0004 is isolated, as the plant shows" in told(first))

    beside = iace(*governing(plant, data), env=ENV)
    assert beside.code == 75
    assert "is held by another controller" in beside.err

    first.kill()
    assert first.finish().code == -signal.SIGKILL
    second = start_iace(*governing(plant, data), env=ENV)
    until(lambda: "epoch 2, GOVERNING" in told(second))
    time.sleep(2.0)
    assert isolations(plant).keys() == {"node-0004"}
    second.send_signal(signal.SIGTERM)
    done = second.finish()
    assert done.code == 143, done.err
    assert "Traceback" not in done.err
    kinds = [entry.event.kind for entry in entries(data)]
    assert kinds.count(E.ISOLATION_INTENDED) == 1
    assert kinds.count(E.PHASE_PASSED) == 3
    assert kinds[-1] is E.STOPPED
    assert isolations(plant).keys() == {"node-0004"}  # the plant is left as it is
    assert iace("journal", "verify", "--data-dir", data, "--run", "govern").code == 0


def test_sighup_reads_the_configuration_again(serve_qecs, start_iace, tmp_path):
    """A changed policy is in force without a restart; an invalid file changes nothing, and says what is wrong."""
    plant, config = serve_qecs("--nodes", 20, "--interval", TICK_S), tmp_path / "iace.toml"
    config.write_text("[isolation]\nconfirm_ticks = 3\n")
    running = start_iace(*governing(plant, tmp_path / "data", "--config", config), env=ENV)
    until(lambda: "PHASE_I" in told(running))
    config.write_text("[isolation]\nconfirm_ticks = 4\n")
    running.send_signal(signal.SIGHUP)
    until(lambda: "in force now: isolation.confirm_ticks" in told(running))
    config.write_text("[isolation]\nconfirm_ticks = 0\n")
    running.send_signal(signal.SIGHUP)
    until(lambda: "nothing is changed" in told(running))
    assert "isolation.confirm_ticks" in told(running).rpartition("nothing is changed")[2]
    running.send_signal(signal.SIGINT)
    assert running.finish().code == 130
    assert [e.event.kind for e in entries(tmp_path / "data")].count(E.CONFIG_RELOADED) == 1


def test_sighup_before_it_lives_and_after_it_has_ended_does_no_harm(tmp_path):
    """One while it imports and one after the report end nothing; what the first asks for is done once it lives."""
    code = """
import os, signal, sys
from controller.cli import main

class Early:
    @staticmethod
    def find_spec(name, *_):
        if name == "controller.govern":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Early)
code = main(sys.argv[1:])
os.kill(os.getpid(), signal.SIGHUP)
sys.exit(code)
"""
    command = [sys.executable, "-c", code, "govern", "--nodes", "5", "--no-api"]
    log = tmp_path / "stderr"
    with log.open("w") as stderr, subprocess.Popen(command, cwd=tmp_path, stderr=stderr) as process:
        try:
            until(lambda: "nothing has changed" in log.read_text() or process.poll() is not None)
            process.terminate()
            assert process.wait(30) == 143, log.read_text()
        finally:
            process.kill()


def test_a_plant_that_is_away_is_waited_for(start_iace, tmp_path):
    """A daemon whose plant is not there tries again; it is no reason to end."""
    running = start_iace(*governing("http://127.0.0.1:9", tmp_path / "data"), env=ENV)
    until(lambda: "trying again until it answers" in told(running))
    running.send_signal(signal.SIGTERM)
    done = running.finish()
    assert done.code == 143
    assert "Traceback" not in done.err


def test_a_recording_cannot_be_governed(iace, tmp_path):
    """`--plant replay` is refused with the commands that serve it."""
    done = iace("govern", "--plant", "replay", "--from", tmp_path / "some.csv", "--data-dir", tmp_path / "data")
    assert done.code == 78
    assert "iace backtest" in done.err
