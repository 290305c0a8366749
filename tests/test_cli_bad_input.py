"""What the command line does with input that is wrong, and with output that nobody takes."""

import json
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.process

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)(?:;\d+)*m")
QUICK = ("run", "--nodes", 10, "--ticks", 1, "--deadline", 0.001)  # ends inconclusive before the first tick


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--nodes", 0], 78, "plant.nodes: "),
        (["run", "--nodes", 4], 78, "plant.nodes: "),
        (["run", "--nodes", -1], 78, "plant.nodes: "),
        (["run", "--nodes", 10, "--clusters", 11], 78, "plant.clusters: "),
        (["run", "--nodes", 10, "--clusters", 0], 78, "plant.clusters: "),
        (["run", "--seed", -1], 78, "plant.seed: "),
        (["run", "--ticks", 0], 78, "schedule.ticks: "),
        (["run", "--interval", "nan"], 78, "schedule.interval_s: "),
        (["run", "--interval", 0], 78, "schedule.interval_s: "),
        (["run", "--deadline", -1], 78, "schedule.deadline_s: "),
        (["run", "--plant", "http"], 78, "plant.url: "),
        (["run", "--url", "ftp://somewhere"], 78, "plant.url: "),
        (["run", "--config", "nowhere.toml"], 78, "nowhere.toml"),
        (["config", "check", "--nodes", 2], 78, "plant.nodes: "),
        (["run", "--scenario", "bizantine-node"], 65, "byzantine-node"),
        (["run", "--scenario", "nowhere.toml"], 65, "no scenario file 'nowhere.toml'"),
        (["qecs", "serve", "--nodes", 0], 78, "at least one node, not 0"),
        (["qecs", "serve", "--nodes", 6, "--clusters", 7], 78, "clusters"),
        (["qecs", "serve", "--interval", 0], 78, "interval"),
        (["journal", "verify"], 65, "start one with iace run"),
    ],
)
def test_wrong_input_is_refused_in_words(iace, arguments, code, words):
    """Each wrong value is refused at once with its own code, naming what is wrong, and nothing is written."""
    done = iace(*arguments)
    assert done.code == code
    assert words in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert [path.name for path in done.cwd.iterdir()] == ["stderr"]


def test_a_broken_scenario_file_names_every_problem(iace, tmp_path):
    """A scenario file with several mistakes ends in 65 and lists all of them."""
    scenario = tmp_path / "broken.toml"
    scenario.write_text('descripton = "x"\n[[fault]]\nkind = "sloth"\n[[fault]]\nkind = "slow"\nphase = "LUNCH"\n')
    done = iace("run", "--scenario", scenario)
    assert done.code == 65
    for words in ("descripton", "sloth", "LUNCH"):
        assert words in done.err


def test_a_scenario_for_a_node_that_does_not_exist_is_bad_data(iace, tmp_path):
    """A scenario file that names a node this plant does not have ends in 65, naming it."""
    scenario = tmp_path / "nobody.toml"
    scenario.write_text('[[fault]]\nkind = "slow"\nnodes = ["node-9999"]\nphase = "PHASE_I"\nafter_ticks = 0\n')
    done = iace("run", "--nodes", 10, "--scenario", scenario)
    assert done.code == 65, done.err[-2000:]
    assert "node-9999" in done.report["causes"][0]


def test_an_unknown_variable_of_the_environment_is_refused(iace):
    """A misspelt IACE_ variable ends in 78 with the one that was meant."""
    done = iace("config", "check", env={"IACE_PLANT__NODS": "7"})
    assert done.code == 78
    assert "IACE_PLANT__NODS: no such setting; did you mean IACE_PLANT__NODES?" in done.err


def test_json_on_standard_output_is_one_document(iace):
    """With --format json standard output is the report and nothing else."""
    done = iace(*QUICK, "--format", "json")
    assert done.code == 61
    assert json.loads(done.out) == done.report


def test_a_reader_that_has_heard_enough_is_no_error(start_iace):
    """Standard output closed by its reader changes nothing about the code, and gives no traceback."""
    running = start_iace(*QUICK, "--format", "json")
    running.stdout.close()
    running.wait(timeout=60)
    err = (running.cwd / "stderr").read_text()
    assert running.returncode == 61
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_standard_streams_may_be_closed_from_the_start(tmp_path, closed):
    """A process without standard output, error or input runs as any other."""
    words = " ".join(map(str, QUICK))
    command = f"{sys.executable} -m controller {words} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 61, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "reports" / "report.json").exists()


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_colour_on_a_terminal_unless_it_is_unwanted(tmp_path, no_color, coloured):
    """A terminal gets colours, with NO_COLOR set it does not; standard output never does."""
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    master, terminal = pty.openpty()
    shown = bytearray()

    def listen():
        try:
            while chunk := os.read(master, 65536):
                shown.extend(chunk)
        except OSError:
            return  # the other end has been closed

    listener = threading.Thread(target=listen)
    listener.start()
    done = subprocess.run(
        [sys.executable, "-m", "controller", *map(str, QUICK)],
        cwd=tmp_path,
        env=environ | ({"NO_COLOR": no_color} if no_color else {}),
        check=False,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    listener.join()
    os.close(master)
    assert done.returncode == 61
    assert done.stdout == b"500_CRITICAL_DISSONANCE exit 61 INCONCLUSIVE\n"
    assert b"INCONCLUSIVE" in shown
    assert (COLOUR.search(shown) is not None) is coloured
