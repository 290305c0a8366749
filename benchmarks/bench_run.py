"""What does a run cost? Processor time of a healthy run of 50 nodes and 300 ticks, and of what is imported for it.

Processor seconds, not wall time, each the least of a few rounds, since the machine has other work as well. Imports are
given as ratios to `import numpy` in the same run, which tells more than seconds of an unknown machine.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller import config as configuration
from controller.console import RunConsole
from controller.run import Job, execute
from controller.settings import Config
from state.phase import Phase
from state.verdict import PhaseResult

ROUNDS = 3
LOOP_GOAL_S = 3.0
START_GOALS_S = {"iace --help": 0.4, "import controller.run": 0.5}
REPORT = "report"

PYTHON = (sys.executable, "-c")
STARTS: Mapping[str, Sequence[str]] = {
    "bare python": (*PYTHON, "pass"),
    "import numpy": (*PYTHON, "import numpy"),
    "iace --help": (sys.executable, "-m", "controller", "--help"),
    "import controller.run": (*PYTHON, "import controller.run"),
}


class StopwatchConsole(RunConsole):
    """The console of a run, which notes the processor time of each stage.

    Attributes:
        stages: stage to seconds.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.catalogue(), stream=io.StringIO())
        self.stages: dict[str, float] = {}
        self._stage = "setting up"
        self._since_s = time.process_time()

    def phase_started(self, phase: Phase, ticks: int | None = None) -> None:
        """Ends the stage before."""
        self.lap(phase.value)
        super().phase_started(phase, ticks)

    def phase_ended(self, result: PhaseResult) -> None:
        """What follows Phase IV is the report."""
        super().phase_ended(result)
        if result.phase is Phase.PHASE_IV:
            self.lap(REPORT)

    def lap(self, following: str) -> None:
        """Closes the stage under way and opens the next."""
        now_s = time.process_time()
        self.stages[self._stage] = now_s - self._since_s
        self._stage, self._since_s = following, now_s


def run_once() -> dict[str, float]:
    """Processor seconds of each stage of one healthy run."""
    config = configuration.load(None, {})
    with tempfile.TemporaryDirectory() as directory:
        job = Job(config, None, Path(directory, "data"), Path(directory, "reports"), dry_run=False)
        with StopwatchConsole(config) as console:
            finished = execute(job, console)
            console.lap("")
    if not finished.outcome.coherent:
        raise RuntimeError(f"a healthy run ended otherwise: {finished.outcome.causes}")
    return console.stages


def start_s(command: Sequence[str]) -> float:
    """Least processor seconds of a command, its start and end included."""
    found = []
    for _ in range(2 * ROUNDS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        found.append(used.ru_utime + used.ru_stime)
    return min(found)


def main() -> int:
    """Measures and prints; 1 if a goal is missed."""
    stages = min((run_once() for _ in range(ROUNDS)), key=lambda found: sum(found.values()))
    for name, seconds in stages.items():
        print(f"{name:<24} {seconds:6.2f} s")
    loop_s = sum(seconds for name, seconds in stages.items() if name != REPORT)
    print(f"{'loop of the run':<24} {loop_s:6.2f} s   goal < {LOOP_GOAL_S:g} s")
    missed = loop_s >= LOOP_GOAL_S
    starts = {name: start_s(command) for name, command in STARTS.items()}
    for name, seconds in starts.items():
        goal = START_GOALS_S.get(name)
        told = f"   goal < {goal:g} s" if goal else ""
        print(f"{name:<24} {seconds:6.3f} s {seconds / starts['import numpy']:6.2f} × import numpy{told}")
        missed = missed or (goal is not None and seconds >= goal)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
