"""What the dashboards are tried on: a real Prometheus and InfluxDB that hold an eventful time of a governed plant.

The controller's own `execute` governs the embedded plant in virtual time, so nobody waits. Its telemetry goes to
InfluxDB by its own sink. Every two seconds of plant time a scrape of its exporter is kept, and Prometheus gets all of
them at once, as blocks. Runs that pipelines pushed stand beside it as a Pushgateway would show them.

Test modules cannot import each other; they take `Stage` from here with `runpy`, and `make look` runs this file.
"""

import io
import itertools
import re
import runpy
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

from controller import run
from controller.config import load
from controller.console import RunConsole
from controller.dashboards import looking, reading
from controller.dashboards.asking import Servers
from controller.last_scrape import LastScrape
from controller.plants.embedded import load_scenario
from controller.plants.scenario import PlannedFault, Scenario
from controller.run import Job, execute
from metrics.exporter import Exporter
from state.phase import Phase

real_servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("real_servers.py"))))

BASE = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SCRAPE_S = 2
LABELS = 'job="iace",instance="controller:8470"'
RUNS_EVERY_S = 1800
GATEWAY_SCRAPE_S = 60
NODES, CLUSTERS, TICKS = 24, 3, 760
DATABASE = "iace"
FILES = sorted((Path(__file__).resolve().parents[1] / "grafana" / "dashboards").glob("*.json"))

# A node works against its cluster and is cured; a whole cluster goes wrong, which no policy may isolate; the
# environment drifts, so that parameters are tried; and at the end one node has just been isolated.
STORY = Scenario(
    "story",
    "What a dashboard should be able to tell.",
    tuple(
        PlannedFault("GOVERNING", after, {"id": f"fault-{number}", **fault})
        for number, (after, fault) in enumerate(
            [
                (40, {"kind": "byzantine", "nodes": ["node-0017"], "magnitude": 2.0, "duration_ticks": 90}),
                (280, {"kind": "cluster", "cluster": "cluster-01", "magnitude": 0.25, "duration_ticks": 60}),
                (400, {"kind": "drift", "channels": {"omega": 0.15}, "ramp_ticks": 60, "duration_ticks": 280}),
                (730, {"kind": "silent", "nodes": ["node-0004"]}),
            ]
        )
    ),
)
PIPELINE = ("healthy", "cluster-fault", "ledger-fork", "healthy")


class Backfilled(real_servers.Prometheus):
    """Prometheus with the shipped configuration, over blocks that are there already; it scrapes nothing."""

    def __init__(self, directory):
        super().__init__(directory, Path(__file__).resolve().parents[1] / "prometheus", {})

    def command(self):
        return [*super().command(), "--storage.tsdb.retention.time=100y"]

    def backfill(self, samples):
        """Make blocks of `samples`, lines of the exposition format with times in seconds."""
        path = self.directory / "samples.om"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in samples)
            file.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(path), str(self.directory / "data")]
        subprocess.run(command, check=True, capture_output=True)
        path.unlink()


class Filmed(run._Run):
    """A run whose exporter is scraped every other second of plant time."""

    film: ClassVar[list] = []

    def _lifecycle(self, session, world):
        inner = super()._lifecycle(session, world)
        scheduled = self._meter.scheduled(lambda: None, 1.0, self._plant_clock)
        exporter = Exporter(self._plant_clock.monotonic_s)
        next(inner)
        while True:
            seen = yield
            scheduled()
            governing = session.loop.governor.state.phase is not Phase.PHASE_IV  # in which a daemon never ends
            if governing and seen.observation.tick % SCRAPE_S == 0:
                exporter.publish(self._snapshot())
                self.film.append((seen.observation.plant_time_s, exporter.scrape().body.decode()))
            try:
                inner.send(seen)
            except StopIteration:
                return


def labelled(exposition, labels, at_s):
    """The samples of a scrape with what Prometheus would add: the target's labels, and the time."""
    for line in exposition.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, brace, own = series.partition("{")
        own = re.sub(r"(^|,)job=", r"\1exported_job=", own)  # what Prometheus makes of a label that the target has
        inside = f"{own[:-1]},{labels}" if brace else labels
        yield f"{name}{{{inside}}} {value} {at_s:.0f}"


def govern(directory, scenario, ticks, *, settings=None, nodes=NODES, clusters=CLUSTERS, textfile=None):
    """One run of the controller over the embedded plant; what it finished with."""
    wanted = {"plant": {"nodes": nodes, "clusters": clusters, "seed": 0}, "schedule": {"ticks": ticks}}
    config = load(None, {**wanted, **(settings or {})})
    with RunConsole(config.catalogue(), stream=io.StringIO()) as console:
        last = LastScrape(textfile)
        job = Job(config, scenario, directory / "data", directory / "report", dry_run=False, last_scrape=last)
        return execute(job, console)


def story(directory, influx_url):
    """The lines for Prometheus of the eventful time, and the time at which it ends; InfluxDB has been written to."""
    Filmed.film = []
    settings = {"influxdb": {"url": influx_url, "bucket": DATABASE, "base_time": BASE.isoformat()}}
    with mock.patch.object(run, "_Run", Filmed):
        govern(directory, STORY, TICKS, settings=settings)
    start_s = BASE.timestamp()
    lines = []
    for at_s, exposition in Filmed.film:
        lines += labelled(exposition, LABELS, start_s + at_s)
        lines.append(f"up{{{LABELS}}} 1 {start_s + at_s:.0f}")
    return lines, start_s + Filmed.film[-1][0]


def pushed(directory):
    """The lines for Prometheus of what a Pushgateway shows while a pipeline runs and runs; the time of the last."""
    directory.mkdir()
    start_s, lines = BASE.timestamp(), []
    for number, name in enumerate(PIPELINE):
        textfile = directory / f"{name}.prom"
        if not textfile.exists():  # the same run again would push the same
            govern(directory / name, load_scenario(name), 100, nodes=15, clusters=3, textfile=textfile)
        exposition, ended_s = textfile.read_text(), start_s + number * RUNS_EVERY_S
        labels = 'job="iace_run",plant="embedded"'
        for at_s in range(0, RUNS_EVERY_S, GATEWAY_SCRAPE_S):
            lines += labelled(exposition, labels, ended_s + at_s)
            lines.append(f"push_time_seconds{{{labels}}} {ended_s:.0f} {ended_s + at_s:.0f}")
    return lines, start_s + len(PIPELINE) * RUNS_EVERY_S - GATEWAY_SCRAPE_S


class Stage:
    """Both servers with their data.

    Attributes:
        servers: where to ask, with the values of all variables.
        live, runs: the time ranges to look at: of the governed plant, and of the pipelines' runs.
    """

    def __init__(self, servers, live, runs):
        self.servers, self.live, self.runs = servers, live, runs

    def when(self, board):
        """The time range for a board."""
        return self.live if board.annotations else self.runs


@contextmanager
def staged(directory):
    """Both servers running, filled."""
    with ExitStack() as stack:
        influx = stack.enter_context(real_servers.InfluxServer(directory / "influx"))
        influx.create(DATABASE)
        live_lines, live_end_s = story(directory / "story", influx.url)
        run_lines, runs_end_s = pushed(directory / "pipeline")
        prometheus = Backfilled(directory / "prometheus")
        prometheus.backfill(itertools.chain(live_lines, run_lines))
        stack.enter_context(prometheus)
        values = {
            "job": ".+",
            "instance": ".+",
            "plant": ".*",
            "cluster": ".*",
            "node": "(node-0017|node-0004|node-0012)",
            "signal": "gravity",
        }
        start_s = BASE.timestamp()
        yield Stage(
            Servers(prometheus.url, influx.url, DATABASE, values),
            reading.TimeRange(start_s + 120, live_end_s),
            reading.TimeRange(start_s, runs_end_s),
        )


def main():
    """Draw every dashboard into the directory that the command line names."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "look")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, staged(Path(directory)) as stage:
        for path in FILES:
            board = reading.read(path)
            looking.draw(board, stage.servers, stage.when(board), target / f"{path.stem}.png")
            sys.stdout.write(f"{target / path.stem}.png\n")


if __name__ == "__main__":
    main()
