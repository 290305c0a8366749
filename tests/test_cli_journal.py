"""`iace journal`: what a run left behind can be verified, shown and exported, and no change to it goes unseen."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The data directory of a run with a probe and a proposal in its journal."""
    import subprocess  # noqa: PLC0415 - once for the module
    import sys  # noqa: PLC0415 - as above

    cwd = tmp_path_factory.mktemp("journal")
    command = [sys.executable, "-m", "controller", "run", "--nodes", "10", "--ticks", "1"]
    assert subprocess.run(command, cwd=cwd, check=False, capture_output=True).returncode == 0
    return cwd


@pytest.fixture
def data(finished, tmp_path):
    """A copy of it to be damaged, with the path of its journal."""
    shutil.copytree(finished / ".iace", tmp_path / "data")
    return tmp_path / "data"


def journal_of(data):
    return data / "runs" / "1" / "journal.db"


def change(data, statement):
    with closing(sqlite3.connect(journal_of(data))) as connection, connection:
        connection.execute(statement)


def test_a_whole_journal_is_verified(iace, finished):
    """`verify` counts the events and names the tip that the report names, too."""
    report = json.loads((finished / "reports" / "report.json").read_text())
    done = iace("journal", "verify", "--data-dir", finished / ".iace")
    assert done.code == 0
    tip = report["journal_tip"]
    assert done.out.endswith(f"{tip['seq']} events, gapless, chain whole, tip {tip['hash']}\n")


def test_export_is_one_canonical_json_object_a_line(iace, finished):
    """`export` gives every event in order, keys sorted, without white space, and without wall-clock time."""
    done = iace("journal", "export", "--data-dir", finished / ".iace")
    lines = done.out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["kind"] == "RUN_STARTED"
    assert events[-1]["kind"] == "RUN_ENDED"
    assert lines == [json.dumps(e, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for e in events]
    assert all("wall" not in key for event in events for key in event)


def test_show_tells_the_events(iace, finished):
    """`show` prints a line for each event."""
    exported = iace("journal", "export", "--data-dir", finished / ".iace").out.splitlines()
    shown = iace("journal", "show", "--data-dir", finished / ".iace").out.splitlines()
    assert len(shown) == len(exported)
    assert "PROBE_INTENDED" in "\n".join(shown)


def test_a_reader_that_has_heard_enough_is_no_error(start_iace, finished):
    """`iace journal export | head -c1` is no traceback."""
    running = start_iace("journal", "export", "--data-dir", finished / ".iace")
    running.stdout.close()
    running.wait(timeout=60)
    assert running.returncode == 0
    assert (running.cwd / "stderr").read_text() == ""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE journal SET body = replace(body, 'passed', 'PASSED') WHERE seq = 2", "event 2: has been altered"),
        ("DELETE FROM journal WHERE seq = 3", "event 3: is missing"),
        ("UPDATE journal SET epoch = 0 WHERE seq = 4", "event 4: "),
        ("UPDATE journal SET previous = hash WHERE seq = 2", "event 2: does not follow the one before it"),
        ("UPDATE journal SET seq = 0 WHERE seq = 1", "event 1: is missing"),
        ("UPDATE journal SET body = x'00ff' WHERE seq = 2", "event 2: "),
    ],
)
def test_an_edited_journal_is_found_out(iace, data, statement, words):
    """Any change to a recorded event ends `verify` in 65 with the event's number."""
    change(data, statement)
    done = iace("journal", "verify", "--data-dir", data)
    assert done.code == 65
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("keep", [0, 10, 100, 4096, 9000])
def test_a_truncated_journal_file_is_bad_data(iace, data, keep):
    """A journal file that was cut off ends in 65, however little is left of it."""
    journal_of(data).with_name("journal.db-wal").unlink(missing_ok=True)
    journal_of(data).with_name("journal.db-shm").unlink(missing_ok=True)
    journal_of(data).write_bytes(journal_of(data).read_bytes()[:keep])
    done = iace("journal", "verify", "--data-dir", data)
    assert done.code == 65, done.err
    assert "Traceback" not in done.err


def test_a_journal_of_a_newer_schema_is_refused(iace, data):
    """A journal of a later version is not guessed at: 65, and a clear word."""
    change(data, "UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    done = iace("journal", "verify", "--data-dir", data)
    assert done.code == 65
    assert "use a newer IACE" in done.err


def test_a_run_that_does_not_exist_is_named(iace, finished):
    """An unknown run number ends in 65 with the numbers that there are."""
    done = iace("journal", "show", "--run", 7, "--data-dir", finished / ".iace")
    assert done.code == 65
    assert "runs there: 1 to 1" in done.err


def test_a_damaged_journal_stops_the_next_run(iace, data):
    """A run refuses to start over an unsettled journal that is not whole, and says which event is broken."""
    (data / "runs" / "1" / "open").touch()
    change(data, "DELETE FROM journal WHERE seq = 3")
    done = iace("run", "--nodes", 10, "--ticks", 1, "--data-dir", data)
    assert done.code == 65
    assert "event 3: is missing" in done.err


def test_the_diagram_shows_every_phase(iace):
    """`iace diagram` prints the state machine as Mermaid."""
    done = iace("diagram")
    assert done.code == 0
    assert done.out.startswith("stateDiagram-v2")
    for phase in ("PHASE_I", "PHASE_II", "PHASE_III", "GOVERNING", "ISOLATING", "HEALING", "PHASE_IV", "SAFE_MODE"):
        assert phase in done.out
