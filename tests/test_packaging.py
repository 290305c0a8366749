"""The distribution: four packages side by side, nobody else's under their names, and a wheel that holds all of them."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("controller", "metrics", "qecs", "state")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Names of the files in a freshly built wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = directory.glob("iace-*.whl")
    return {PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()}


def test_the_packages_stand_side_by_side():
    """All four are imported from one folder: none of them is somebody else's of the same name."""
    folders = {Path(importlib.import_module(name).__file__).resolve().parents[1] for name in PACKAGES}
    assert len(folders) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_else_provides_a_package_of_that_name(package):
    """No other distribution of the environment shadows ours (an editable install of ours is not listed)."""
    assert set(importlib.metadata.packages_distributions().get(package, [])) <= {"iace"}


def test_the_command_is_installed_under_its_name():
    """The console script `iace` is the command line's main."""
    (script,) = importlib.metadata.distribution("iace").entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("iace", "controller.cli:main")


def test_the_wheel_holds_every_module_and_every_shipped_file(wheel_names):
    """Each file of the packages is in the wheel: modules, scenario files, markers of typing."""
    expected = {
        PurePosixPath(path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= wheel_names
    assert {PurePosixPath(package, "py.typed") for package in PACKAGES} <= wheel_names
    assert PurePosixPath("qecs/scenarios/byzantine-node.toml") in wheel_names


def test_the_wheel_holds_nothing_else(wheel_names):
    """Neither tests nor benchmarks nor documents end up among other people's packages."""
    assert {name.parts[0] for name in wheel_names} == {*PACKAGES, "iace-2.0.0.dist-info"}
    assert PurePosixPath("iace-2.0.0.dist-info/licenses/LICENSE") in wheel_names


def test_everything_that_is_asked_for_is_pinned():
    """Each dependency of pyproject.toml stands in constraints.txt with an exact version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    names = {name.lower() for name in pins}
    assert {_name(requirement) for requirement in asked} <= names
    assert all(pins.values())


def _name(requirement):
    return next(part for part in requirement.replace(">", " ").replace("<", " ").replace("=", " ").split()).lower()
