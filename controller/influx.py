"""Where the configuration meets InfluxDB: the server that it names, and what that server holds of a plant.

Imported only where InfluxDB is in use, because its client takes a while to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from controller import config as configuration
from controller.settings import Config
from metrics.errors import ConfigInvalidError
from metrics.store.influx_client import InfluxClient, InfluxTarget
from metrics.store.influx_history import InfluxHistory


def target(config: Config) -> InfluxTarget:
    """The server that `[influxdb]` names.

    Raises:
        ConfigInvalidError: it names none, or a file that cannot be used.
    """
    settings = config.influxdb
    if settings.url is None:
        raise ConfigInvalidError("configuration", ["influxdb.url: is needed, e.g. http://127.0.0.1:8086"])
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise ConfigInvalidError(str(settings.ca_file), ["influxdb.ca_file: no such file"])
    return InfluxTarget(
        url=settings.url,
        bucket=settings.bucket,
        org=settings.org,
        token=configuration.influxdb_token(config) or "",
        database=settings.database,
        ca_file="" if settings.ca_file is None else str(settings.ca_file),
        timeout_s=settings.timeout_s,
    )


@contextmanager
def history(config: Config, plant: str) -> Iterator[InfluxHistory]:
    """What the server holds of `plant`, while this is entered.

    Raises:
        ConfigInvalidError: as `target`.
        StoreFailedError: the address cannot be used.
    """
    client = InfluxClient(target(config))
    try:
        yield InfluxHistory(client, plant)
    finally:
        client.close()
