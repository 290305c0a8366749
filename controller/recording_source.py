"""From where is a recording taken? A file, a run of ours, or InfluxDB, as `--from` and `plant.recording` name it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from controller.recording import Recording, load
from controller.settings import Config
from metrics.errors import BadDataError


def located(source: str, data_dir: Path) -> str:
    """`source`, with the number of a run in `data_dir` replaced by the name of its telemetry store.

    Raises:
        BadDataError: there is no such run.
    """
    from controller import rundir  # noqa: PLC0415 - it needs the journal, which most sources do not

    if not source.isdecimal() or Path(source).exists():
        return source
    return str(rundir.journal_path(data_dir, int(source)).with_name(rundir.TELEMETRY))


def is_influx(source: str) -> bool:
    """Whether `source` is an InfluxDB, and no file that happens to be called so."""
    return source.partition(":")[0] == "influxdb" and not Path(source).exists()


def plant_of(source: str, config: Config) -> str:
    """The plant that a source "influxdb:PLANT" names; with "influxdb" alone the one that the configuration governs."""
    return source.partition(":")[2] or config.plant.url or "embedded"


def take(source: str, config: Config, *, last_s: float | None = None, signals: bool = False) -> Recording:
    """The recording that `source` names: a CSV file, a telemetry store, "influxdb" or "influxdb:PLANT".

    Args:
        source: see above.
        config: names the InfluxDB server, and the plant where `source` does not.
        last_s: only so many seconds before the newest row; None for all.
        signals: whether the nodes' signals are wanted where a store has them; a CSV file has its metrics anyway.

    Raises:
        BadDataError: there is no such file, or nothing in it can be used.
        ConfigInvalidError: no InfluxDB is configured.
        StoreFailedError: InfluxDB does not answer.
        NotPermittedError: the file must not be read.
    """
    if not is_influx(source):
        found = load(Path(source))
        return found if last_s is None else _newest(found, last_s)
    from controller import influx, recording_store  # noqa: PLC0415 - the client takes a while to import

    plant = plant_of(source, config)
    with influx.history(config, plant) as history:
        found = recording_store.recorded(history, f"influxdb:{plant}", last_s=last_s, signals=signals)
        if not found.times_s.size:
            others = ", ".join(history.plants()) or "none"
            raise BadDataError(f"InfluxDB holds nothing of plant {plant}; the plants there: {others}")
    return found


def _newest(recording: Recording, last_s: float) -> Recording:
    first = int(np.searchsorted(recording.times_s, recording.times_s[-1] - last_s, side="right"))
    return replace(
        recording,
        times_s=recording.times_s[first:],
        values=recording.values[first:],
        gravity=None if recording.gravity is None else recording.gravity[first:],
        kpis={name: series[first:] for name, series in recording.kpis.items()},
        parameters={name: series[first:] for name, series in recording.parameters.items()},
    )
