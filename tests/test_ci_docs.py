"""The pipelines of docs/ci.md work: their YAML is valid, and each of their commands does what the page says.

Commands are run as they stand, by bash as the services run it, in a directory of their own with a configuration, a
Git repository, a live cluster and a real Pushgateway. A line that both services have is run for one of them.
Settings in the environment make the runs short.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import yaml

from state.outcome import ExitCode

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
GITHUB, GITLAB = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
(PLAIN,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
TICK_S = 0.02
SHORT = {
    "IACE_SCHEDULE__INTERVAL_S": str(TICK_S),
    "IACE_SCHEDULE__TICKS": "90",  # long enough for the scenario's fault and its isolation
    "IACE_PLANT__NODES": "20",
    "IACE_ISOLATION__VERIFY_S": "120",
    "IACE_HEALING__VERIFY_S": "120",
}
# pip may use nothing but what the tests have: no index, and hatchling as it is installed.
PIP = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
VARIABLE = re.compile(r"\$\{\{ vars\.(\w+) \}\}")


def schema(name):
    document = json.loads((ROOT / "tests" / "data" / f"{name}.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft7Validator(document)


def steps(job):
    """The names of a GitHub job's commands to their text."""
    return {step["name"]: step["run"] for step in GITHUB["jobs"][job]["steps"] if "run" in step}


# The YAML


def test_the_workflow_is_one_of_github():
    """It follows GitHub's schema, which does notice a step that does nothing; every job ends some time."""
    document = {"on" if key is True else key: value for key, value in GITHUB.items()}  # YAML 1.1 takes `on` for true
    assert [error.message for error in schema("github-workflow").iter_errors(document)] == []
    broken = {**document, "jobs": {"x": {"runs-on": "ubuntu-24.04", "steps": [{"name": "nothing"}]}}}
    assert not schema("github-workflow").is_valid(broken)
    assert all(job["timeout-minutes"] <= 30 for job in GITHUB["jobs"].values())
    used = [step["uses"] for job in GITHUB["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action) for action in used)


def test_the_pipeline_is_one_of_gitlab():
    """It follows GitLab's schema, which does notice a misspelt artefact; jobs belong to stages that exist."""
    assert [error.message for error in schema("gitlab-ci").iter_errors(GITLAB)] == []
    assert not schema("gitlab-ci").is_valid({**GITLAB, "cluster": {"script": ["x"], "artifacts": {"path": ["y"]}}})
    jobs = {name: job for name, job in GITLAB.items() if name not in ("stages", "default")}
    assert [job["stage"] for job in jobs.values()] == GITLAB["stages"]
    assert GITLAB["cluster"]["artifacts"]["when"] == "always"


def test_what_is_shown_and_kept_is_what_a_run_leaves():
    """Paths of reports and artefacts are those that --report names."""
    shown, kept = (GITHUB["jobs"]["cluster"]["steps"][at]["with"] for at in (-2, -1))
    assert (shown["report_paths"], kept["path"]) == ("reports/junit.xml", "reports/")
    assert all(step.get("if") == "always()" for step in GITHUB["jobs"]["cluster"]["steps"][-3:])
    artifacts = GITLAB["cluster"]["artifacts"]
    assert (artifacts["paths"], artifacts["reports"]) == (["reports/"], {"junit": "reports/junit.xml"})


def test_the_page_names_the_variables_that_are_used():
    """Each variable of the two pipelines is explained, and none that is a setting by its name."""
    used = set(VARIABLE.findall(PAGE)) | set(re.findall(r"\$([A-Z]+_[A-Z]+)\b", json.dumps(GITLAB)))
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)) == used
    assert not [name for name in used if name.startswith("IACE_")]


# The commands


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A Git repository of this tree as the wheel needs it, at the tag that the page names."""
    directory = tmp_path_factory.mktemp("repository")
    for name in ("constraints.txt", "pyproject.toml", "README.md", "LICENSE", "controller", "metrics", "qecs", "state"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, directory / name)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "-m", "x"), ("tag", "v2.0.0")):
        subprocess.run(["git", *command], cwd=directory, check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def gateway(need_programs, real_servers, tmp_path_factory):
    need_programs("prometheus-pushgateway", "git", "jq")
    with real_servers.Pushgateway(tmp_path_factory.mktemp("pushgateway")) as server:
        yield server


@pytest.fixture
def service(gateway, serve_qecs, tmp_path):
    """A machine of a CI service; see `Machine`."""
    return Machine(gateway, serve_qecs("--nodes", 10, "--seed", 3, "--interval", TICK_S), tmp_path)


class Machine:
    """Runs commands in `directory`, with the variables of the page and the `iace` of the tests."""

    def __init__(self, gateway, plant, tmp_path):
        self.gateway, self.plant, self.directory = gateway, plant, tmp_path / "work"
        self.summary = tmp_path / "summary.md"
        self.directory.mkdir()
        (self.directory / "iace.toml").write_text("[isolation]\nfraction_max = 0.2\n")
        self.variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PLANT_URL": plant,
            "PUSHGATEWAY_URL": gateway.url,
            "GITHUB_STEP_SUMMARY": str(self.summary),
            **SHORT,
        }

    def run(self, command, *shell, **changes):
        """What came of a command, in bash as GitLab calls it or with other flags."""
        return subprocess.run(
            ["bash", *(shell or ("-eo", "pipefail")), "-c", command],
            cwd=self.directory,
            env={**self.variables, **changes},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def succeed(self, command, *shell, **changes):
        """The same for a command that has to end in 0."""
        done = self.run(command, *shell, **changes)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def has_a_report_of_success(self):
        """Report, tests and picture of a run that ended in 0 are where they are kept from."""
        reports = self.directory / "reports"
        assert json.loads((reports / "report.json").read_text())["exit_name"] == "COHERENT_LOCK"
        suites = ET.parse(reports / "junit.xml").getroot()  # noqa: S314 - our own file
        assert (suites.get("failures"), suites.get("errors")) == ("0", "0")
        assert (reports / "kpis.png").stat().st_size > 0


@pytest.mark.process
def test_both_services_install_what_stands_at_the_tag(service, repository, tmp_path):
    """Cloning and installing give an `iace` of that tag in the service's own Python."""
    environment = tmp_path / "environment"
    venv.create(environment)
    # What the tests have installed is there as well: pip itself, hatchling, and what IACE depends on.
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = environment / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)
    path = {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}

    clone, install = GITLAB["default"]["before_script"]
    checkouts = [GITHUB["jobs"][job]["steps"][1]["with"] for job in GITHUB["jobs"]]
    assert all(f"--branch {checkout['ref']} " in clone for checkout in checkouts)
    assert all(clone.endswith(f" {checkout['path']}") for checkout in checkouts)
    assert [steps(job)["Install"] for job in GITHUB["jobs"]] == [install, install]
    service.succeed(clone, GOVERNOR_REPOSITORY=f"file://{repository}")
    service.succeed(install, **path, **PIP)
    where = service.succeed("cd / && python -c 'import controller; print(controller.__file__)'", **path).stdout
    assert Path(where.strip()).is_relative_to(packages)
    assert service.succeed("command -v iace && iace --version", **path).stdout.splitlines() == [
        str(environment / "bin" / "iace"),
        "iace 2.0.0",
    ]


@pytest.mark.process
def test_both_services_check_the_configuration(service):
    """The configuration is valid, and a node that lies is isolated under it."""
    _, *commands = steps("configuration").values()
    assert commands == GITLAB["configuration"]["script"]
    for command in commands:
        service.succeed(command)
    report = json.loads((service.directory / "reports" / "report.json").read_text())
    assert [isolation["node"] for isolation in report["isolations"] if isolation["probe"] is None]
    (service.directory / "iace.toml").write_text("[isolation]\nfraction_max = 2\n")
    assert service.run(commands[0]).returncode == 78


@pytest.mark.process
def test_github_governs_a_cluster(service):
    """A healthy cluster passes and is told to the Pushgateway; codes mean what the page says; the summary says why."""
    govern, why = steps("cluster")["Govern"], steps("cluster")["Say why"]
    assert "::warning" not in service.succeed(govern, "-e").stdout
    service.has_a_report_of_success()
    code = f'iace_last_run_exit_code{{instance="",job="iace_run",plant="{service.plant}"}} 0\n'
    assert code in service.gateway.metrics()

    inconclusive = service.succeed(govern, "-e", IACE_SCHEDULE__DEADLINE_S="0.001")
    assert inconclusive.stdout.splitlines()[-1] == "::warning title=IACE::inconclusive, see the report"
    assert service.run(govern, "-e", PLANT_URL="http://127.0.0.1:9").returncode == 69
    service.succeed(why, "-e")
    assert "PLANT_UNAVAILABLE" in service.summary.read_text()


@pytest.mark.process
def test_gitlab_governs_a_cluster(service):
    """A healthy cluster passes; the code that is a warning is the one for too little evidence."""
    (govern,) = GITLAB["cluster"]["script"]
    service.succeed(govern)
    service.has_a_report_of_success()
    assert GITLAB["cluster"]["allow_failure"]["exit_codes"] == [ExitCode.INCONCLUSIVE]


@pytest.mark.process
def test_the_command_for_any_shell_works(service):
    """Standard output is JSON that jq reads: the code, its name and the causes."""
    told = service.succeed(PLAIN).stdout.splitlines()
    assert told[0] == "0 COHERENT_LOCK"
    assert len(told) > 1
