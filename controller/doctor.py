"""What is wrong with this set-up, and how is it mended? One check for each thing that a controller depends on.

Nothing is changed and no plant is acted upon. Every check ends as ok, as a finding that says what to do, or skipped,
with the reason; one that fails in a way nobody foresaw is a finding, too.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from controller import config as configuration
from controller import rundir
from controller.api.auth import FILE, Role, Standing, TokenFile
from controller.api_client import ApiClient, ApiRefusedError
from controller.clock import VirtualClock
from controller.plants.connection import TimedConnection
from controller.plants.endpoint import parse_endpoint
from controller.plants.factory import make_plant
from controller.settings import Config
from metrics.errors import ConfigInvalidError, IaceError
from metrics.store.sqlite import SqliteStore
from state.journal import Journal

OK, FINDING, SKIPPED = "ok", "finding", "skipped"
SKEW_MAX_S = 5.0
FREE_BYTES_MIN = 200 * 1024 * 1024
_DEADLINE_S = 5.0
_ANSWER_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: its name, how it ended, what there is, and how to mend it."""

    name: str
    standing: str
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is examined.

    Attributes:
        config: the configuration in force.
        data_dir: journals, telemetry and tokens.
        api: asks the daemon.
        prometheus, grafana: base addresses, None where they are not to be examined.
        job: the scrape job under which Prometheus knows the daemon.
    """

    config: Config
    data_dir: Path
    api: ApiClient
    prometheus: str | None
    grafana: str | None
    job: str


class _IllError(Exception):
    """A check found something."""

    def __init__(self, text: str, mend: str) -> None:
        self.mend = mend
        super().__init__(text)


class _NotApplicableError(Exception):
    """A check has nothing to look at."""


def examine(around: Surroundings, skip: Sequence[str] = ()) -> Iterator[Finding]:
    """Make every check but those in `skip`, one after the other."""
    for name, check in CHECKS.items():
        if name in skip:
            yield Finding(name, SKIPPED, "as you asked")
            continue
        try:
            yield Finding(name, OK, check(around))
        except _NotApplicableError as reason:
            yield Finding(name, SKIPPED, str(reason))
        except _IllError as ill:
            yield Finding(name, FINDING, str(ill), ill.mend)
        except Exception as error:  # noqa: BLE001 - whatever it is, a doctor does not fall over it
            yield Finding(name, FINDING, str(error) or type(error).__name__, "see to what the message names")


def _permissions(around: Surroundings) -> str:
    directory = around.data_dir
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise _IllError(f"{there} may not be written", f"chown it to uid {os.geteuid()}, or name another --data-dir")
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES_MIN:
        raise _IllError(f"only {free / 2**20:.0f} MiB free under {there}", "free space, or name another --data-dir")
    return f"{directory} can be written, {free / 2**30:.1f} GiB free"


def _stores(around: Surroundings) -> str:
    directory = _latest(around.data_dir)
    if directory is None:
        raise _NotApplicableError(f"nothing under {around.data_dir} yet")
    with closing(Journal(directory / rundir.JOURNAL, read_only=True)) as journal:
        events = sum(1 for _ in journal.entries())
    telemetry = directory / rundir.TELEMETRY
    if telemetry.exists():
        with closing(SqliteStore(telemetry)) as store:
            store.check()
    return f"{directory}: {events} events, chain whole, telemetry {'sound' if telemetry.exists() else 'none'}"


def _latest(data_dir: Path) -> Path | None:
    """The daemon's directory, else that of the latest run."""
    if (data_dir / rundir.DAEMON / rundir.JOURNAL).exists():
        return data_dir / rundir.DAEMON
    numbers = rundir.numbers(data_dir)
    return rundir.directory(data_dir, numbers[-1]) if numbers else None


def _plant(around: Surroundings) -> str:
    config = around.config
    if config.plant.kind != "http":
        return f"{config.plant.kind}: needs nothing"
    plant = make_plant(config, VirtualClock())
    try:
        info = plant.connect(config.plant.connect_s)
    except IaceError as error:
        raise _IllError(str(error), "start the plant, or correct plant.url and plant.token_file") from error
    finally:
        plant.close()
    return f"{info.name} ({info.system}) offers {', '.join(sorted(info.capabilities)) or 'nothing but its KPIs'}"


def _api(around: Surroundings) -> str:
    try:
        around.api.get("livez")
    except ApiRefusedError as refusal:
        raise _IllError(f"{around.api.url} lives badly: {refusal}", "see the daemon's log; restart it") from refusal
    except IaceError as error:
        raise _IllError(str(error), "start iace govern, or name its address with --api") from error
    try:
        around.api.get("readyz")
    except ApiRefusedError as refusal:
        raise _IllError(f"{around.api.url} does not govern: {refusal}", "see iace status for the way out") from refusal
    return f"{around.api.url} lives and governs"


def _tokens(around: Surroundings) -> str:
    path = around.data_dir / FILE
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _IllError(f"others may get at {path}", f"chmod 600 {path}")
    try:
        tokens = TokenFile(path).tokens()
    except IaceError as error:
        raise _IllError(str(error), "restore the file, or remove it and create new tokens") from error
    now_s = time.time()
    valid = [token for token in tokens if token.standing(now_s) is Standing.VALID]
    if tokens and not any(token.role is Role.OPERATOR for token in valid):
        raise _IllError("no operator's token counts: nobody can control it", "iace token create NAME --role operator")
    return f"{len(valid)} of {len(tokens)} count" if tokens else "none: reading from this machine alone, no control"


def _influxdb(around: Surroundings) -> str:
    url = around.config.influxdb.url
    if url is None:
        raise _NotApplicableError("influxdb.url is not set")
    status, _, _ = _fetched(url, "/ping", "correct influxdb.url, or start the server")
    if status >= http.client.BAD_REQUEST:
        raise _IllError(f"{url}/ping answers {status}", "see the server's log")
    configuration.influxdb_token(around.config)
    return f"{url} answers"


def _prometheus(around: Surroundings) -> str:
    url = around.prometheus
    if url is None:
        raise _NotApplicableError("name it with --prometheus URL")
    mend = "start Prometheus, or correct --prometheus"
    status, _, _ = _fetched(url, "/-/ready", mend)
    if status != http.client.OK:
        raise _IllError(f"{url} is not ready ({status})", mend)
    query = urlencode({"query": f'up{{job="{around.job}"}}'})
    _, _, found = _fetched(url, f"/api/v1/query?{query}", mend)
    up = [sample.get("value", [0, "0"])[1] for sample in found.get("data", {}).get("result", [])]
    if "1" not in up:
        told = "knows no job" if not up else "cannot scrape job"
        raise _IllError(
            f"{url} {told} {around.job}", "scrape /metrics with a viewer's token; see prometheus/prometheus.yml"
        )
    return f"{url} scrapes {around.job}"


def _grafana(around: Surroundings) -> str:
    url = around.grafana
    if url is None:
        raise _NotApplicableError("name it with --grafana URL")
    status, _, found = _fetched(url, "/api/health", "start Grafana, or correct --grafana")
    if status != http.client.OK or found.get("database") != "ok":
        raise _IllError(f"{url} is not well ({status}, database {found.get('database')})", "see Grafana's log")
    return f"{url} is well, version {found.get('version')}"


def _clock(around: Surroundings) -> str:
    """Against every other server's clock; that of this machine alone cannot be judged."""
    addresses = {
        "the plant": around.config.plant.url if around.config.plant.kind == "http" else None,
        "InfluxDB": around.config.influxdb.url,
        "Prometheus": around.prometheus,
        "Grafana": around.grafana,
    }
    skews = {name: skew for name, url in addresses.items() if url and (skew := _skew_s(url)) is not None}
    if not skews:
        raise _NotApplicableError("there is no other clock to compare with")
    name, worst = max(skews.items(), key=lambda item: abs(item[1]))
    if abs(worst) > SKEW_MAX_S:
        raise _IllError(f"this clock is {worst:+.0f} s off that of {name}", "let both be set by NTP, e.g. chrony")
    return f"within {abs(worst):.0f} s of {', '.join(skews)}"


def _skew_s(url: str) -> float | None:
    try:
        _, headers, _ = _fetched(url, "/", "")
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (_IllError, KeyError, ValueError):
        return None


def _fetched(url: str, route: str, mend: str) -> tuple[int, Mapping[str, str], dict[str, Any]]:
    """Status, headers by lower-case name, and the JSON object of an answer (empty where it is none)."""
    try:
        endpoint = parse_endpoint(url)
    except ConfigInvalidError as invalid:
        raise _IllError(f"an address cannot be used: {'; '.join(invalid.problems)}", mend) from invalid
    with closing(TimedConnection(endpoint)) as connection:
        connection.ends_s = time.monotonic() + _DEADLINE_S
        try:
            connection.request("GET", endpoint.prefix + route)
            response = connection.getresponse()
            raw = response.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise _IllError(f"{endpoint.url} does not answer: {error or type(error).__name__}", mend) from error
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, document if isinstance(document, dict) else {}


CHECKS: Mapping[str, Callable[[Surroundings], str]] = {
    "permissions": _permissions,
    "stores": _stores,
    "plant": _plant,
    "api": _api,
    "tokens": _tokens,
    "influxdb": _influxdb,
    "prometheus": _prometheus,
    "grafana": _grafana,
    "clock": _clock,
}
