"""How does a day of the Nezha data set become a recording that `iace backtest` reads?

    python benchmarks/nezha_csv.py ../shared/bench/data/nezha/2022-08-22.npz day.csv

The fault-free end of the day comes first, as the scorer feeds it, so that the detector knows the system before the
first fault; the seam between the two is itself a jump. Printed are the faults with their times in the CSV.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

QUIET_ROWS = 30  # after the last fault
TAIL_ROWS = 10
STEP_S = 60.0


def convert(source: Path, target: Path) -> list[dict]:
    """Write the CSV; the faults with the time of each as `at_s`."""
    with np.load(source) as held:
        values = held["values"].astype(float).transpose(1, 0, 2)  # time, node, metric
    meta = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    last = meta["faults"][-1]["row"]
    quiet = values[last + QUIET_ROWS :]
    rows = np.concatenate([quiet, values[: last + TAIL_ROWS]])
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "node", *meta["metrics"]])
        for i, row in enumerate(rows):
            for node, measured in zip(meta["nodes"], row, strict=True):
                writer.writerow([i * STEP_S, node, *("" if np.isnan(x) else repr(float(x)) for x in measured)])
    return [{**fault, "at_s": (len(quiet) + fault["row"]) * STEP_S} for fault in meta["faults"]]


if __name__ == "__main__":
    for fault in convert(Path(sys.argv[1]), Path(sys.argv[2])):
        print(f"{fault['at_s']:g} s  {fault['node']}  {fault['type']}")
