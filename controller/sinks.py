"""Where does telemetry go? Into the run's own SQLite store, to InfluxDB where one is configured, and to subscribers.

One object for `iace run` and whoever else has a loop: told each tick and each journaled event, it hands them on. It
waits for nobody but the SQLite store, whose failure is buffered; InfluxDB can neither delay a tick nor fail a run.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from controller.node_series import worst_nodes
from controller.record import Recorded
from controller.settings import Config
from metrics.assessment import Assessment
from metrics.errors import NotPermittedError, StoreFailedError
from metrics.observation import Observation
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import StoreAccounts, StoreWriter
from metrics.telemetry import Frame, Telemetry
from state.durable import DurableState
from state.phase import Phase
from state.view import view

if TYPE_CHECKING:
    from controller.influx_sink import InfluxSink

_log = logging.getLogger(f"iace.{__name__}")


class Sinks:
    """All that telemetry goes to; for the loop's thread.

    Args:
        config: the configuration in force.
        store: the run's own store; stays the caller's to close.
        influx: InfluxDB, where it is in use; closed by `close`.
        telemetry: the stream to publish to, where others are subscribed to it already.

    Attributes:
        telemetry: the stream of what goes into `store`, for other subscribers.
        store, writer: the run's own store, and who writes into it.
    """

    def __init__(
        self,
        config: Config,
        store: SqliteStore,
        influx: InfluxSink | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry or Telemetry()
        self.store = store
        self.writer = StoreWriter(self.telemetry, store, batch_frames=config.store.flush_ticks, tidy=store.tidy)
        self._influx = influx
        self._node_series_max = config.prometheus.node_series_max

    def tick(self, observation: Observation, assessment: Assessment, phase: Phase) -> None:
        """Hand one tick on; `phase` is the controller's state in it."""
        points = {f"kpi.{name}": verdict.value for name, verdict in assessment.kpis.items()}
        if observation.parameters is not None:
            points |= {f"parameter.{name}": value for name, value in observation.parameters.as_dict().items()}
        if self._influx is not None:
            self._influx.tick(observation, assessment, points)
        nodes = _worst_nodes(assessment, self._node_series_max)
        self.telemetry.publish(Frame(observation.tick, observation.plant_time_s, phase.value, points | nodes))
        self.writer.flush_when_due()

    def event(self, recorded: Recorded) -> None:
        """Hand on an event that has just become durable."""
        if self._influx is not None:
            self._influx.event(recorded)

    def accounts(self) -> dict[str, StoreAccounts]:
        """What became of the points, by store."""
        accounts = {"sqlite": self.writer.accounts()}
        if self._influx is not None:
            accounts["influxdb"] = self._influx.accounts()
        return accounts

    def flush(self) -> None:
        """Write what is left for the run's own store.

        Raises:
            StoreFailedError: the store failed.
            NotPermittedError: likewise, for want of permission.
        """
        self.writer.flush(must_succeed=True)

    def close(self) -> None:
        """Take no more: the own store gets what is left for it, InfluxDB what can be sent within 5 s.

        Raises:
            StoreFailedError: the own store failed.
            NotPermittedError: likewise, for want of permission.
        """
        try:
            self.writer.close()
        finally:
            if self._influx is not None:
                self._influx.close()


def prepare(config: Config) -> None:
    """See that the sinks can be opened, and import what takes a while: once connected, a plant's ticks would pile up.

    Raises:
        ConfigInvalidError: a file that the configuration names cannot be used.
    """
    if config.influxdb.url is not None:
        from controller import influx, influx_sink  # noqa: F401, PLC0415 - imported for `open_sinks`, where it is used

        influx.target(config)


def open_sinks(
    config: Config,
    store: SqliteStore,
    data_dir: Path,
    *,
    plant: str,
    run: str,
    real_time: bool,
    state: DurableState,
    telemetry: Telemetry | None = None,
) -> Sinks:
    """All sinks that the configuration asks for.

    Args:
        config: the configuration in force.
        store: the run's own store.
        data_dir: where InfluxDB's spool is, shared by all runs.
        plant: name of the plant.
        run: name of the run.
        real_time: whether the plant ticks by itself; a virtual one has no time of day.
        state: the governor's, which the sinks look at.
        telemetry: the stream to publish to; a new one where none is given.

    Raises:
        ConfigInvalidError: a file that the configuration names cannot be used.
    """
    influx = _influx(config, data_dir, plant=plant, run=run, real_time=real_time, state=state)
    return Sinks(config, store, influx, telemetry)


def _influx(
    config: Config, data_dir: Path, *, plant: str, run: str, real_time: bool, state: DurableState
) -> InfluxSink | None:
    if config.influxdb.url is None:
        return None
    from controller.influx_sink import open_sink  # noqa: PLC0415 - the client's import is for those who use it

    try:
        return open_sink(config, data_dir, plant=plant, run=run, real_time=real_time, state=state)
    except (StoreFailedError, NotPermittedError) as error:
        _log.warning("nothing goes to InfluxDB: %s", error)
        return None


def _worst_nodes(assessment: Assessment, series_max: int) -> dict[str, float]:
    seen = view(assessment)
    if seen is None:
        return {}
    chosen = worst_nodes(seen, series_max)
    gravity = seen.reading.gravity[chosen].tolist()
    return {f"node.{seen.topology.nodes[i]}.gravity": g for i, g in zip(chosen.tolist(), gravity, strict=True)}
