"""Does the built wheel work where nothing else is? Build it, install it into a bare environment, run it elsewhere.

The environment is made outside of this tree and the commands run there, so that nothing but the wheel can be imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("controller", "metrics", "qecs", "state")
# Where each package comes from, and which distributions say that it is theirs.
ORIGINS = f"""
from importlib import import_module
from importlib.metadata import packages_distributions
for name in {PACKAGES}:
    print(import_module(name).__file__, *packages_distributions()[name], sep="\\t")
"""


def main() -> int:
    """Build, install, run; a failing step ends it with the step's own words and a code other than 0."""
    with tempfile.TemporaryDirectory(prefix="iace-wheel-") as directory:
        outside = Path(directory)
        wheel = _built(outside / "dist")
        environment = outside / "venv"
        venv.create(environment, with_pip=True)
        python, iace = environment / "bin" / "python", environment / "bin" / "iace"
        constraints = ROOT / "constraints.txt"
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, wheel)
        _run(outside, python, *install)
        for line in _run(outside, python, "-c", ORIGINS).stdout.splitlines():
            where, *owners = line.split("\t")
            if owners != ["iace"] or not Path(where).is_relative_to(environment):
                print(f"wheel: {where} belongs to {owners}, not to the wheel alone")
                return 1
        _run(outside, iace, "--help")
        finished = _run(outside, iace, "run", "--data-dir", "data", "--report", "reports")
        print(f"{wheel.name}: iace --help and iace run in a bare environment: {finished.stdout.strip()}")
    return 0


def _built(directory: Path) -> Path:
    """The wheel, built by the pinned backend of this environment; a copy stays in dist/."""
    _run(ROOT, sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory)
    wheel = next(directory.glob("iace-*.whl"))
    (ROOT / "dist").mkdir(exist_ok=True)
    shutil.copy(wheel, ROOT / "dist")
    return wheel


def _run(directory: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed, without the outer environment's paths."""
    words: Sequence[str] = [str(word) for word in command]
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    finished = subprocess.run(words, cwd=directory, env=variables, text=True, capture_output=True, check=False)
    if finished.returncode != 0:
        print(f"wheel: {' '.join(words)} ended in {finished.returncode}\n{finished.stdout}{finished.stderr}")
        raise SystemExit(1)
    return finished


if __name__ == "__main__":
    sys.exit(main())
