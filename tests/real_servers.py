"""Real servers for tests, as Debian packages them: InfluxDB behind nginx, VictoriaMetrics, Prometheus, Alertmanager.

Each listens on a free loopback port, keeps its files below the directory that it is given, and is ended by its process
id. Debian's InfluxDB lacks the v2 write route; nginx rewrites it to the v1 one, and the engine, its parser, its type
rules and InfluxQL are the real ones. `stop` and `start` make an outage: the port and the data stay.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0

_INFLUXD = """
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[logging]
  level = "error"
"""

_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 32m;
  client_body_buffer_size 8m;
  map $arg_precision $v1_precision {{ default $arg_precision; us u; "" ns; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_set_header Authorization "";
    location = /api/v2/write {{
      rewrite ^ /write?db=$arg_bucket&precision=$v1_precision? break;
      proxy_pass http://127.0.0.1:{behind};
    }}
    location / {{ proxy_pass http://127.0.0.1:{behind}; }}
  }}
}}
"""


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """A process that is ready once it answers on its port."""

    def __init__(self, name: str, directory: Path, ready_path: str) -> None:
        self.name = name
        self.directory = directory
        self.port = free_port()
        self._ready_url = f"http://127.0.0.1:{self.port}{ready_path}"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """What starts it on `port`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self._ready_url):
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"{self.name} did not start: {(self.directory / 'output').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it, and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Influxd(Daemon):
    """InfluxDB 1.x itself."""

    def __init__(self, directory: Path) -> None:
        super().__init__("influxd", directory, "/ping")

    def command(self) -> list[str]:
        config = self.directory / "influxd.conf"
        config.write_text(_INFLUXD.format(directory=self.directory, port=self.port))
        return [_binary("influxd"), "-config", str(config)]


class Nginx(Daemon):
    """The proxy that gives InfluxDB 1.6 the v2 write route."""

    def __init__(self, directory: Path, behind: int) -> None:
        super().__init__("nginx", directory, "/ping")
        self._behind = behind

    def command(self) -> list[str]:
        user = "user root root;" if os.geteuid() == 0 else ""  # its own user could not enter a private directory
        config = self.directory / "nginx.conf"
        config.write_text(_NGINX.format(user=user, directory=self.directory, port=self.port, behind=self._behind))
        return [_binary("nginx"), "-p", str(self.directory), "-c", str(config), "-e", str(self.directory / "error.log")]


class InfluxServer:
    """InfluxDB behind nginx, at `url`; `with` starts and ends both."""

    def __init__(self, directory: Path) -> None:
        self._influxd = Influxd(directory / "influxd")
        self._nginx = Nginx(directory / "nginx", self._influxd.port)
        self.url = f"http://127.0.0.1:{self._nginx.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, with the data that are there."""
        self._influxd.start()
        self._nginx.start()

    def stop(self) -> None:
        """End both: connections are refused from now on."""
        self._nginx.stop()
        self._influxd.stop()

    def stop_database(self) -> None:
        """End InfluxDB only: nginx answers 502 from now on; `start_database` ends that."""
        self._influxd.stop()

    def start_database(self) -> None:
        """Start InfluxDB again, behind the nginx that is running."""
        self._influxd.start()

    def query(self, statement: str, database: str = "", method: str = "GET") -> list[dict]:
        """The series that an InfluxQL statement gives, times in nanoseconds."""
        arguments = urllib.parse.urlencode({"q": statement, "db": database, "epoch": "ns"})
        request = urllib.request.Request(f"{self.url}/query?{arguments}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            (result,) = json.load(response)["results"]
        if "error" in result:
            raise RuntimeError(result["error"])
        return result.get("series", [])

    def create(self, database: str) -> str:
        """Create a database; its name."""
        self.query(f'CREATE DATABASE "{database}"', method="POST")
        return database


class VictoriaMetrics(Daemon):
    """VictoriaMetrics, at `url`; `with` starts and ends it."""

    def __init__(self, directory: Path) -> None:
        super().__init__("victoria-metrics", directory, "/health")
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            _binary("victoria-metrics"),
            f"-storageDataPath={self.directory / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.disableCache",
            "-dedup.minScrapeInterval=1ms",
            "-memory.allowedBytes=512MiB",
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, path: str, **arguments: str) -> str:
        """What it answers to a GET."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as response:
            return response.read().decode()

    def flush(self) -> None:
        """Make everything that was written visible to queries."""
        self.get("/internal/force_flush")

    def counter(self, name: str) -> int:
        """The sum over one of its own metrics, such as `vm_rows_invalid_total`."""
        lines = self.get("/metrics").splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def export(self, selector: str) -> list[dict]:
        """All series that match, each with `metric`, `values` and `timestamps` in milliseconds."""
        self.flush()
        return [json.loads(line) for line in self.get("/api/v1/export", **{"match[]": selector}).split("\n") if line]


WEBHOOKS = "http://127.0.0.1:9095"  # the placeholder in prometheus/alertmanager.yml


class Prometheus(Daemon):
    """Prometheus with a copy of a configuration folder, at `url`; `with` starts and ends it.

    Args:
        directory: where its files go.
        config: a folder with prometheus.yml, rules and targets.
        targets: name of a file in targets/, without suffix, to the address that it names instead.
    """

    def __init__(self, directory: Path, config: Path, targets: dict[str, str]) -> None:
        super().__init__("prometheus", directory, "/-/ready")
        self.url = f"http://127.0.0.1:{self.port}"
        shutil.copytree(config, directory / "config")
        for name in ("iace", "alertmanager", "pushgateway"):
            listed = [{"targets": [targets[name]]}] if name in targets else []
            (directory / "config" / "targets" / f"{name}.yml").write_text(json.dumps(listed))

    def command(self) -> list[str]:
        return [
            _binary("prometheus"),
            f"--config.file={self.directory / 'config' / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def query(self, expr: str) -> list[dict]:
        """The series that a PromQL expression gives now, each with `metric` and `value`."""
        arguments = urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=10) as response:
            return json.load(response)["data"]["result"]


class Alertmanager(Daemon):
    """Alertmanager, at `url`; `with` starts and ends it.

    Args:
        directory: where its files go.
        config: its configuration.
        webhooks: where the webhooks of the configuration are instead.
    """

    def __init__(self, directory: Path, config: Path, webhooks: str = WEBHOOKS) -> None:
        super().__init__("prometheus-alertmanager", directory, "/-/ready")
        self.url = f"http://127.0.0.1:{self.port}"
        text = config.read_text(encoding="utf-8").replace(WEBHOOKS, webhooks)
        (directory / "alertmanager.yml").write_text(text, encoding="utf-8")

    def command(self) -> list[str]:
        return [
            _binary("prometheus-alertmanager"),
            f"--config.file={self.directory / 'alertmanager.yml'}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def alert(self, *alerts: dict[str, str]) -> None:
        """Report alerts, each by its labels, as firing."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10):
            pass

    def state(self, labels: dict[str, str]) -> str:
        """What has become of the one alert with those labels: unprocessed, active or suppressed."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as response:
            found = [alert for alert in json.load(response) if labels.items() <= alert["labels"].items()]
        (alert,) = found
        return alert["status"]["state"]


class Pushgateway(Daemon):
    """Prometheus' Pushgateway, at `url`; `with` starts and ends it."""

    def __init__(self, directory: Path) -> None:
        super().__init__("prometheus-pushgateway", directory, "/-/ready")
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [_binary("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{self.port}"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def metrics(self) -> str:
        """What was pushed, as Prometheus would scrape it."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            return response.read().decode()


class Webhook:
    """A receiver of Alertmanager's notifications at `url`, kept in `received` with their path; `with` starts it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict]] = []
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Tell nobody."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def alerts(self, name: str, path: str) -> list[dict]:
        """Every alert of that name that was received at that path, in order."""
        return [
            alert
            for where, notification in list(self.received)
            for alert in notification["alerts"]
            if where == path and alert["labels"]["alertname"] == name
        ]


def missing(*programs: str) -> str:
    """The Debian packages of those programs that are not installed, "" when all are there."""
    packages = {
        "influxd": "influxdb",
        "nginx": "nginx-light",
        "victoria-metrics": "victoria-metrics",
        "prometheus": "prometheus",
        "promtool": "prometheus",
        "prometheus-alertmanager": "prometheus-alertmanager",
        "amtool": "prometheus-alertmanager",
        "prometheus-pushgateway": "prometheus-pushgateway",
        "docker-compose": "docker-compose",
        "git": "git",
        "jq": "jq",
        "openssl": "openssl",
        "systemd-analyze": "systemd",
    }
    return ", ".join(packages[program] for program in programs if _find(program) is None)


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")  # sbin is not everyone's


def _binary(program: str) -> str:
    found = _find(program)
    if found is None:
        raise RuntimeError(f"{program} is not installed")
    return found


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return response.status < 300
    except OSError:
        return False
