"""What docker-compose.yml, the Dockerfile and the systemd unit promise, as far as that shows without running them."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from controller import config as configuration
from controller.api.auth import Role, Standing, TokenFile
from state.event import Event, EventKind
from state.journal import Journal

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
LASTING = [name for name in SERVICES if name != "tokens"]  # which does its work and ends
OURS = ("controller", "qecs", "tokens")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNIT = (ROOT / "deploy" / "iace.service").read_text(encoding="utf-8")
SECRETS = {"INFLUXDB_TOKEN": "t", "INFLUXDB_PASSWORD": "p", "GRAFANA_PASSWORD": "g"}
TALKING = [
    ("controller", "qecs"),
    ("controller", "influxdb"),
    ("prometheus", "controller"),
    ("prometheus", "alertmanager"),
    ("grafana", "prometheus"),
    ("grafana", "influxdb"),
]


def mounts(service):
    """Each mount of a service as source, target and mode."""
    for mount in SERVICES[service].get("volumes", ()):
        source, target, *mode = mount.split(":")
        yield source, PurePosixPath(target), mode


def compose_config(tmp_path, **secrets):
    """What docker-compose makes of the file, with these secrets in its .env."""
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    return subprocess.run(
        ["docker-compose", "--file", ROOT / "docker-compose.yml", "--env-file", tmp_path / "env", "config"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# docker-compose.yml


def test_docker_compose_accepts_the_file(need_programs, tmp_path):
    """docker-compose resolves it, old as it is, with all services and every secret where it belongs."""
    need_programs("docker-compose")
    done = compose_config(tmp_path, **SECRETS)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    assert resolved.keys() == SERVICES.keys()
    for secret, readers in (("t", {"tokens", "influxdb", "grafana"}), ("p", {"influxdb"}), ("g", {"grafana"})):
        assert {name for name, given in resolved.items() if secret in given.get("environment", {}).values()} == readers


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_has_a_default(name, need_programs, tmp_path):
    """Without one of the secrets nothing starts, and the message names it."""
    need_programs("docker-compose")
    done = compose_config(tmp_path, **{**SECRETS, name: ""})
    assert done.returncode != 0
    assert f"{name}:?is missing, see .env.example" in done.stderr


def test_the_file_follows_the_compose_specification():
    """It is valid against the schema of the Compose Specification, which does notice a misspelt key."""
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert not validator.is_valid({**COMPOSE, "services": {"qecs": {"imagge": "iace"}}})


def test_the_example_of_secrets_names_them_all_and_gives_none_away():
    """.env.example has the variables that are used, each without a value; git and the builder see no .env."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert named == [f"{name}=" for name in SECRETS]
    assert used == SECRETS.keys()
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", ["README.md", "docs/deploy.md"])
def test_the_documented_command_draws_every_secret(page, need_programs, tmp_path):
    """It fills .env.example in with values of their own, and nobody else may read what it wrote."""
    need_programs("openssl")
    shutil.copy(ROOT / ".env.example", tmp_path)
    (command,) = re.findall(r"^\(umask .+\)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=60)
    drawn = re.findall(r"^(\w+)=([0-9a-f]{48})$", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert [name for name, _ in drawn] == list(SECRETS)
    assert len({value for _, value in drawn}) == len(SECRETS)
    assert mode(tmp_path / ".env") == 0o600


def test_no_secret_stands_in_the_file():
    """Whatever is called a password or token is a variable that has to be given."""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|KEY", name):
                assert re.fullmatch(r"\$\{\w+:\?is missing, see \.env\.example\}", value), name


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_do_little_harm(name):
    """No root, no capabilities, nothing to write to but volumes and /tmp, and bounds on what it takes."""
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert 0 < service["cpus"] <= 1
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] <= 512
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name):
    """Each image has a full version, ours that of the project."""
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert (image == "iace") == (name in OURS)
    if name in OURS:
        assert tag == PROJECT["project"]["version"]


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_watched_and_started_again(name):
    """It has a healthcheck with bounds, and is restarted unless somebody stops it."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}


def test_what_is_waited_for_can_be_waited_for():
    """Dependencies are healthy before those who need them start, or have ended well."""
    for service in SERVICES.values():
        for dependency, how in service.get("depends_on", {}).items():
            expected = "service_healthy" if dependency in LASTING else "service_completed_successfully"
            assert how == {"condition": expected}


def test_ports_are_published_on_loopback_only():
    """Nobody but this machine reaches anything, each service at the port that its own documentation names."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "controller": ["127.0.0.1:8470:8470"],
        "qecs": ["127.0.0.1:8600:8600"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "influxdb": ["127.0.0.1:8086:8086"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in LASTING for b in LASTING if a < b])
def test_only_who_talks_shares_a_network(one, other):
    """Two services are on one network exactly if one of them asks the other."""
    talking = (one, other) in TALKING or (other, one) in TALKING
    assert bool(set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"])) == talking


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_file_is_there(name):
    """What is mounted of this tree exists and is read-only; everything else is a declared volume."""
    for source, target, mode in mounts(name):
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
        assert target.is_absolute()
        assert mode in ([], ["ro"])


def test_every_volume_is_written_by_somebody():
    """No volume is declared in vain, and none is only read."""
    written = {source for name in SERVICES for source, _, mode in mounts(name) if mode == []}
    assert written == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", OURS)
def test_volumes_of_ours_belong_to_the_user_of_the_image(name):
    """Each volume is mounted over a directory that the image made for its user, whose owner it takes."""
    made = re.findall(r"install --directory --owner=iace --group=iace --mode=\d+ ([^\\&\n]+)", DOCKERFILE)
    directories = {path for line in made for path in line.split()}
    assert {str(target) for source, target, _ in mounts(name) if source in COMPOSE["volumes"]} <= directories
    assert SERVICES[name]["user"] == re.search(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[1] == "10001:10001"


# What is mounted


def test_the_controllers_configuration_names_the_services():
    """It is valid, and leads to the plant, the database and the files as the stack has them."""
    config = configuration.load(ROOT / "deploy" / "compose" / "iace.toml", {}, {})
    plant, influx = urlsplit(config.plant.url), urlsplit(config.influxdb.url)
    assert (plant.hostname, influx.hostname) == ("qecs", "influxdb")
    assert SERVICES["qecs"]["ports"] == [f"127.0.0.1:{plant.port}:{plant.port}"]
    assert SERVICES["influxdb"]["ports"] == [f"127.0.0.1:{influx.port}:{influx.port}"]
    assert SERVICES["controller"]["ports"] == [f"127.0.0.1:{config.api.port}:{config.api.port}"]
    environment = SERVICES["influxdb"]["environment"]
    assert config.influxdb.bucket == environment["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert config.influxdb.org == environment["DOCKER_INFLUXDB_INIT_ORG"]
    assert str(config.influxdb.token_file) == SERVICES["tokens"]["command"][0]
    assert config.api.anonymous_read is None  # hence nobody reads without a token from another container


def test_influxql_knows_the_bucket():
    """Grafana asks for the bucket by its own name, under which InfluxDB 2.7 answers InfluxQL without a mapping."""
    bucket = SERVICES["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert SERVICES["grafana"]["environment"]["INFLUXDB_DATABASE"] == bucket


def test_there_is_no_shell_script():
    """What the stack has to do at its start is Python, like everything else."""
    assert [*(ROOT / "deploy").rglob("*.sh")] == []


def test_prometheus_is_configured_as_everywhere_but_for_its_token():
    """The stack's prometheus.yml is the common one with a token for the controller, from where `tokens` leaves it."""
    common, theirs = (
        yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
        for path in ("prometheus/prometheus.yml", "deploy/compose/prometheus.yml")
    )
    (job,) = [job for job in theirs["scrape_configs"] if job["job_name"] == "iace"]
    token = job.pop("authorization")
    assert theirs == common
    (volume,) = [source for source, target, _ in mounts("prometheus") if target.match("/etc/prometheus/tokens")]
    (written,) = [target for source, target, _ in mounts("tokens") if source == volume]
    assert str(written / PurePosixPath(token["credentials_file"]).name) == SERVICES["tokens"]["command"][1]


def test_prometheus_accepts_what_is_mounted(need_programs, tmp_path):
    """Promtool finds no fault with the files as they lie in the container."""
    need_programs("promtool")
    for source, target, _ in mounts("prometheus"):
        where = tmp_path / target.relative_to("/")
        if source.startswith("./"):
            where.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, where)
    (tmp_path / "etc/prometheus/tokens").mkdir()
    (tmp_path / "etc/prometheus/tokens/iace.token").write_text("token")
    config = tmp_path / "etc/prometheus/prometheus.yml"
    assert f"--config.file=/{config.relative_to(tmp_path)}" in SERVICES["prometheus"]["command"]
    done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout


def test_prometheus_looks_for_services_where_they_are():
    """Each target of compose-targets is a service at its port."""
    for path in (ROOT / "prometheus" / "compose-targets").iterdir():
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            for target in entry["targets"]:
                name, port = target.split(":")
                assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]


def test_grafana_gets_every_variable_and_folder_that_it_is_told_of():
    """What provisioning files name is in its environment, and the dashboards are where they are looked for."""
    environment = SERVICES["grafana"]["environment"]
    files = list((ROOT / "grafana" / "provisioning").rglob("*.yml"))
    wanted = {name for path in files for name in re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8"))}
    assert wanted <= environment.keys()
    assert wanted >= {"PROMETHEUS_URL", "INFLUXDB_URL", "INFLUXDB_TOKEN", "INFLUXDB_DATABASE"}
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/iace.yml").read_text(encoding="utf-8"))
    mounted = {str(target): source for source, target, _ in mounts("grafana")}
    assert mounted[provider["providers"][0]["options"]["path"]] == "./grafana/dashboards"
    for variable, service in (("PROMETHEUS_URL", "prometheus"), ("INFLUXDB_URL", "influxdb")):
        url = urlsplit(environment[variable])
        assert url.hostname == service
        assert SERVICES[service]["ports"] == [f"127.0.0.1:{url.port}:{url.port}"]


# The tokens


@pytest.fixture
def hand_out(tmp_path):
    """Call it to run the script of the service `tokens`; the two files that it writes are attributes."""

    def run(given=SECRETS["INFLUXDB_TOKEN"]):
        command = [sys.executable, ROOT / "deploy" / "compose" / "tokens.py", run.influx, run.prometheus]
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "INFLUXDB_TOKEN": given}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    run.influx, run.prometheus = tmp_path / "influxdb.token", tmp_path / "iace.token"
    run.known = TokenFile(tmp_path / ".iace" / "tokens.json")
    return run


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.process
def test_tokens_reach_those_who_need_them_once(hand_out):
    """The controller gets InfluxDB's, Prometheus a viewer's that is valid and stays the same at the next start."""
    first = hand_out()
    assert first.returncode == 0, first.stderr
    assert hand_out.influx.read_text() == "t\n"
    assert (mode(hand_out.influx), mode(hand_out.prometheus)) == (0o600, 0o644)
    secret = hand_out.prometheus.read_text().strip()
    token, standing = hand_out.known.find(secret)
    assert (token.name, token.role, standing) == ("prometheus", Role.VIEWER, Standing.VALID)
    assert secret not in first.stdout + first.stderr
    assert hand_out("other").returncode == 0
    assert hand_out.influx.read_text() == "other\n"
    assert hand_out.prometheus.read_text().strip() == secret


@pytest.mark.process
@pytest.mark.parametrize("lost", ["hashes", "token"])
def test_a_token_that_is_of_no_use_is_made_anew(hand_out, lost):
    """Where either half of Prometheus' token was lost, the next start gives it another one."""
    assert hand_out().returncode == 0
    secret = hand_out.prometheus.read_text().strip()
    (hand_out.known.path if lost == "hashes" else hand_out.prometheus).unlink()
    assert hand_out().returncode == 0
    renewed = hand_out.prometheus.read_text().strip()
    assert renewed != secret
    assert hand_out.known.find(renewed)[1] is Standing.VALID


@pytest.mark.process
def test_a_revoked_token_is_made_anew(hand_out):
    """Revoking Prometheus' token is how it is changed: the next start makes another one."""
    assert hand_out().returncode == 0
    secret = hand_out.prometheus.read_text().strip()
    hand_out.known.revoke("prometheus")
    assert hand_out().returncode == 0
    assert hand_out.known.find(secret)[1] is Standing.REVOKED
    assert hand_out.known.find(hand_out.prometheus.read_text().strip())[1] is Standing.VALID


@pytest.mark.process
def test_without_a_token_for_influxdb_nothing_starts(hand_out):
    """An empty token ends the service in failure, and with it whoever waits for it."""
    assert hand_out("").returncode != 0
    assert not hand_out.prometheus.exists()


# The image


def test_hadolint_finds_no_fault():
    """The Dockerfile passes hadolint, which does find fault with another one."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    wrong = subprocess.run(
        [hadolint, "-"], input="FROM debian\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert "DL3006" in wrong.stdout


def test_the_image_is_built_from_what_the_wheel_is_made_of():
    """Every package is copied, everything copied is there and let through, and nothing else is sent to the builder."""
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in shlex.split(line)[:-1]
    ]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied)
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= set(copied)


def test_the_image_ends_without_tools_and_without_root():
    """What runs is another stage than what builds, of the same pinned Python, without pip, as a numbered user."""
    builder, runtime = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    bases = [stage.split()[0] for stage in (builder, runtime)]
    assert bases[0] == bases[1]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert "pip uninstall --yes --root-user-action ignore pip setuptools wheel" in runtime
    assert not fnmatch(runtime, "*pip install*")
    assert "HEALTHCHECK" in runtime
    checked = re.search(r"HEALTHCHECK .*?CMD (\[.+?\])$", runtime, re.DOTALL | re.MULTILINE)[1]
    assert SERVICES["controller"]["healthcheck"]["test"] == ["CMD", *json.loads(checked)]


# systemd


def directives(name):
    """All values of a directive in the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


@pytest.fixture
def unit(tmp_path):
    """The unit with the command of this environment, since none is installed where the unit looks for it."""
    (command,) = directives("ExecStart")
    assert command == "/opt/iace/bin/iace govern --config /etc/iace/iace.toml"
    path = tmp_path / "iace.service"
    path.write_text(UNIT.replace("/opt/iace/bin/iace", str(Path(sys.executable).with_name("iace"))))
    return path


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )


def test_systemd_finds_no_fault_with_the_unit(unit, need_programs):
    """systemd-analyze verify says nothing about the unit, and something about one with a misspelt directive."""
    need_programs("systemd-analyze")
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("MemoryMax=", "MemmoryMax="))
    assert "MemmoryMax" in analyze("verify", unit).stderr


def test_the_unit_exposes_little(unit, need_programs):
    """The exposure that systemd sees is what the documentation says, far below the 9.6 of a unit without hardening."""
    need_programs("systemd-analyze")
    done = analyze("security", "--offline=true", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout[-400:]
    told = re.search(r"exposure ([\d.]+) of 10", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"))[1]
    assert f"exposure level for iace.service: {told} OK" in done.stdout


def test_the_documented_credential_fits_the_unit(unit, need_programs, tmp_path):
    """The drop-in that hands a token file over is understood."""
    need_programs("systemd-analyze")
    (addition,) = re.findall(
        r"```ini\n(\[Service\]\n.*?)```", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.DOTALL
    )
    unit.write_text(f"{unit.read_text()}\n{addition}")
    assert analyze("verify", unit).stderr == ""
    setting = re.search(r"^Environment=(IACE_\w+)=", addition, re.MULTILINE)[1]
    assert configuration.load(None, {}, {setting: str(tmp_path)}).influxdb.token_file == tmp_path


def test_the_documented_backup_of_a_journal_is_whole(tmp_path):
    """A copy of a journal that somebody is writing to has the same events, and can be gone on from."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^(python3 -c .*)$", text, re.MULTILINE)
    journal = Journal(tmp_path / ".iace" / "govern" / "journal.db")
    try:
        journal.append([Event(EventKind.RUN_STARTED, 0.0, {"epoch": 1})], epoch=1, wall_time="2030-01-01T00:00:00Z")
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=60)
        copy = Journal(tmp_path / "journal.backup.db")
        try:
            assert list(copy.entries()) == list(journal.entries())
            copy.append([Event(EventKind.STOPPED, 1.0, {})], epoch=1, wall_time="2030-01-01T00:00:01Z")
        finally:
            copy.close()
    finally:
        journal.close()


def test_the_unit_starts_again_only_what_may_get_better():
    """Failures are tried again, but not those that a person has to mend; a stop is no failure; HUP reads anew."""
    assert directives("Restart") == ["on-failure"]
    assert directives("RestartPreventExitStatus") == ["75 77 78"]
    assert directives("SuccessExitStatus") == ["130 143"]
    assert directives("ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert directives("StateDirectory") == ["iace"]
    assert directives("WorkingDirectory") == ["/var/lib/iace"]
