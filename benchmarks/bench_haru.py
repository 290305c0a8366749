"""How good are HARU's forecasts, how honest its intervals, and does it stay sound for a month?

Beside persistence (the last value) and the seasonal-naive forecast (the value a day earlier; a period that HARU has to
find by itself), on the shared development series where they are found, and on KPIs of the reference cluster in three
lives: healthy, a slow drift, and couplings that are changed every 200 ticks. Printed by horizon: the median over series
of the mean absolute error relative to persistence, on how many series it is below 1, and the share of truths inside the
90 % interval (mean and lowest of the series). The first fifth of each series is for learning and does not count.

    python benchmarks/bench_haru.py [--data ../shared/bench/data/nab/data] [--month 100000]

`--month 2600000` is a month of seconds, and takes about as many milliseconds as the last line says.
"""

from __future__ import annotations

import argparse
import csv
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metrics.haru.autoregression import HarmonicAutoregression
from qecs.cluster import Cluster
from qecs.faults import Fault
from qecs.parameters import Parameters

Floats = NDArray[np.float64]

DAY_S = 86_400.0
EVERY = 7  # rows between two forecasts that are judged; no divisor of a period
LEARNING = 0.2
KPIS = (
    "coherence",
    "gas",
    "rsi",
    "action_cost",
    "lambda_opt",
    "delta_lambda",
    "entropy",
    "coherence_service",
    "gas_target",
    "transaction_rate",
)
LIVES = ("healthy", "drift", "couplings")
LIFE_TICKS = 3000


def shared_series(folder: Path) -> tuple[list[str], Floats, Floats]:
    """Names, rows float64[T, K] (NaN after a series' end) and rows a day float64[K] of the shared series."""
    names, columns, day = [], [], []
    for path in sorted(folder.glob("*/*.csv")):
        with path.open(newline="") as file:
            rows = [(datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
        steps = [(b[0] - a[0]).total_seconds() for a, b in pairwise(rows)]
        names.append(path.stem)
        columns.append(np.array([value for _, value in rows]))
        day.append(max(1.0, round(DAY_S / max(float(np.median(steps)), 1.0))))
    table = np.full((max(map(len, columns)), len(columns)), np.nan)
    for k, column in enumerate(columns):
        table[: len(column), k] = column
    return names, table, np.array(day)


def life(kind: str, seed: int) -> tuple[Floats, Floats]:
    """KPIs float64[T, K] and couplings float64[T, 2] of one life of the reference cluster with 50 nodes."""
    cluster = Cluster(50, seed=seed)
    if kind == "drift":
        cluster.inject(Fault(id="drift", kind="drift", channels={"omega": 0.08}, ramp_ticks=LIFE_TICKS))
    rows, inputs = [], []
    for tick in range(LIFE_TICKS):
        if kind == "couplings" and tick % 200 == 0:
            factor = 1.4 if tick % 400 else 1.0
            cluster.apply(Parameters(lambda1=0.30 * factor, lambda2=0.35 * factor))
        kpis = cluster.step().kpis
        rows.append([kpis[name] for name in KPIS])
        inputs.append([cluster.parameters.lambda1, cluster.parameters.lambda2])
    return np.array(rows), np.array(inputs)


class Score:
    """Errors and coverage of some series at one horizon."""

    def __init__(self, series: int) -> None:
        self.count, self.inside = np.zeros(series), np.zeros(series)
        self.errors = {name: np.zeros(series) for name in ("haru", "persistence", "seasonal")}

    def add(self, truth: Floats, inside: NDArray[np.bool_], said: dict[str, Floats], counts: NDArray[np.bool_]) -> None:
        """One row of forecasts and their truth."""
        counts = counts & np.isfinite(truth) & np.isfinite(said["haru"])
        self.count += counts
        self.inside += counts & inside
        for name, forecast in said.items():
            self.errors[name] += np.where(counts, np.abs(truth - forecast), 0.0)

    def report(self, label: str) -> None:
        """Print the row."""
        known = (self.count > 0) & (self.errors["persistence"] > 0)
        ratio = self.errors["haru"][known] / self.errors["persistence"][known]
        seasonal = self.errors["seasonal"][known] / self.errors["persistence"][known]
        coverage = self.inside[known] / self.count[known]
        better = np.count_nonzero(ratio < 1.0)
        best = np.count_nonzero((ratio < seasonal) | np.isnan(seasonal))
        print(
            f"{label:24s} {np.median(ratio):8.3f} {better:4d}/{known.sum():<3d}"
            f" {np.median(seasonal):9.3f} {best:4d}/{known.sum():<3d} {coverage.mean():9.3f} {coverage.min():7.3f}"
            f" {ratio.max():7.3f}"
        )


def compare(label: str, table: Floats, inputs: Floats, season: Floats, horizons: tuple[int, ...]) -> None:
    """Forecast a table row by row and print a line for each horizon."""
    rows, series = table.shape
    haru = HarmonicAutoregression(series, inputs=inputs.shape[1], horizons=horizons)
    scores = {horizon: Score(series) for horizon in horizons}
    begin = LEARNING * np.isfinite(table).sum(axis=0)
    began = time.process_time()
    for tick in range(rows):
        haru.update(tick, table[tick], inputs[tick])
        if tick % EVERY:
            continue
        for horizon, score in scores.items():
            if tick + horizon >= rows:
                continue
            truth, forecast = table[tick + horizon], haru.forecast(horizon)
            earlier = tick + horizon - (season * np.ceil(horizon / season)).astype(int)
            seasonal = np.where(earlier >= 0, table[earlier, np.arange(series)], table[tick])
            said = {"haru": forecast.mean, "persistence": table[tick], "seasonal": seasonal}
            inside = (truth >= forecast.low) & (truth <= forecast.high)
            score.add(truth, inside, said, (tick >= begin) & np.isfinite(table[tick]) & np.isfinite(seasonal))
    for horizon, score in scores.items():
        score.report(f"{label}, {horizon} ahead")
    spent_ms = 1e3 * (time.process_time() - began) / rows
    converged = haru.convergence()
    print(
        f"  {series} series, {spent_ms:.2f} ms a row with forecasts; converged "
        f"{np.count_nonzero(converged.converged)}, with a period "
        f"{np.count_nonzero(np.isfinite(converged.periods[:, 0]))}"
    )


def month(ticks: int) -> None:
    """Run on, with noise, a period, a series that stands still, and gaps, and print what has become of the numbers."""
    rng = np.random.default_rng(5)
    haru = HarmonicAutoregression(3, inputs=1, horizons=(1, 15))
    began = time.process_time()
    block = 10_000
    for start in range(0, ticks, block):
        tick = np.arange(start, min(start + block, ticks))
        noise = rng.normal(0.0, 1.0, len(tick))
        table = np.column_stack([noise, 5.0 + 2.0 * np.sin(tick * (2.0 * np.pi / 60.0)) + 0.3 * noise, 0.0 * noise])
        table[rng.random(len(tick)) < 0.001] = np.nan
        for at, row in zip(tick.tolist(), table, strict=True):
            haru.update(at, row, (0.3,))
    spent_ms = 1e3 * (time.process_time() - began) / ticks
    eigenvalues = np.linalg.eigvalsh(haru.regression.information)
    said = haru.convergence()
    print(
        f"after {ticks:,} updates: eigenvalues of R {eigenvalues.min():.3g} to {eigenvalues.max():.3g}, "
        f"largest coefficient {np.abs(haru.regression.coefficients).max():.3g}, finite "
        f"{all(np.isfinite(a).all() for n, a in haru.state().items() if n.startswith('regression'))}, skill "
        f"{np.round(said.skill, 3).tolist()}, coverage {np.round(said.coverage[:, 0], 4).tolist()}, {spent_ms:.3f} ms"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, default=here.parent / "shared" / "bench" / "data" / "nab" / "data")
    parser.add_argument("--month", type=int, default=100_000, help="updates of the endurance run")
    chosen = parser.parse_args()
    print(
        f"{'':24s} {'HARU':>8s} {'better':>8s} {'seasonal':>9s} {'beaten':>8s} {'coverage':>9s} {'lowest':>7s}"
        f" {'worst':>7s}"
    )
    if chosen.data.exists():
        _, table, day = shared_series(chosen.data)
        compare("shared series", table, np.empty((len(table), 0)), day, (1, 12, 60))
    else:
        print(f"no shared series at {chosen.data}: left out")
    for kind in LIVES:
        table, inputs = life(kind, seed=100)
        season = np.full(table.shape[1], 400.0 if kind == "couplings" else 60.0)
        compare(f"KPIs, {kind}", table, inputs, season, (1, 5, 15, 60))
    month(chosen.month)


if __name__ == "__main__":
    main()
