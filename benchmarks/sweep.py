"""A sweep over cases, in processes: each that is done is a line of a file at once, and none is run twice.

A line is `{"case": {...}, "results": ...}`; what the results are is the benchmark's, as plain JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be made: a cluster of so many nodes in a scenario, for so many ticks after its onset."""

    scenario: str
    nodes: int
    seed: int
    ticks: int


def read(path: Path | None) -> dict[Case, Any]:
    """The results of the cases that a file holds, none without one; a line that an interruption tore is left out."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else ():
        try:
            held = json.loads(line)
        except ValueError:
            continue
        done[Case(**held["case"])] = held["results"]
    return done


def run(
    work: Callable[[Case], Any],
    cases: Sequence[Case],
    *,
    jobs: int,
    path: Path | None = None,
    minutes: float = math.inf,
) -> Iterator[tuple[Case, Any]]:
    """Run `work` on the cases, in so many processes, until the time is up; each result as soon as it is there.

    Progress goes to stderr. A case that has begun is finished; none begins later than that.
    """
    began_s = time.monotonic()
    if path is not None and path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")  # the end of a line that an interruption tore
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, case): case for case in cases}
        for count, future in enumerate(as_completed(futures), start=1):
            if future.cancelled():
                continue
            case, results = futures[future], future.result()
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"case": asdict(case), "results": results}) + "\n")
            spent_s = time.monotonic() - began_s
            told = f"{case.scenario}, N = {case.nodes}, seed {case.seed}"
            print(f"{count}/{len(cases)} {spent_s:.0f} s: {told}", file=sys.stderr, flush=True)
            yield case, results
            if spent_s > 60.0 * minutes:
                pool.shutdown(wait=False, cancel_futures=True)
