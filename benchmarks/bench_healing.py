"""How well does the healing of this controller do, beside other ways to tune, and beside hindsight?

`healing_cases.py` says what a case is: nobody tunes; the governor itself, with its model or, as on a plant without
phases, with its fixed step; a PID on the worst KPI, extremum seeking, or a (1+1)-CMA-ES, each with a rollback of its
own; and the optimum, which knows the future.

Printed for each method, over the runs in which the untuned cluster became unhealthy: how many recovered; median and
90th percentile of the ticks from the first breach to sustained recovery (from then on all limits hold in at least 57 of
60 ticks; a run that never does counts as its full length, one without a breach as 0); median over the runs of the worst
violation in a tick, and mean of the mean violation; mean regret, J beyond that of the optimum, over the run and over
its last 150 ticks; changes of parameters; and harm, the violation beyond the untuned run's in the same tick, mean over
the run: what wrong trials cost. Below each table it is said where ours is not ahead.

    python benchmarks/bench_healing.py [--nodes 5 50 1000] [--seeds 20] [--ticks 500] [--first-seed 100]
        [--scenario healthy step fast slow cyclic surge combined reversal w0] [--method ...] [--jobs 2]
        [--out results.jsonl] [--minutes 25] [--markdown]

Without arguments it is quick: 50 nodes, 2 seeds, 300 ticks. With `--out` each case is written as a line once it is
done, and cases that are there already are not run again. Nothing was tuned on seeds from 9000 on.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import sweep
from healing_cases import METHODS, OPTIMUM, OURS, SCENARIOS, SUSTAINED_MISSES, UNTUNED, run
from sweep import Case

Figures: TypeAlias = dict[str, dict[str, Any]]
SAME = 0.0005  # violations that differ by less are alike
NEAR_OPTIMUM = 0.10
ERRORS = 2.0  # standard errors beyond which a difference is no noise


@dataclass(frozen=True, slots=True)
class Row:
    """A method's figures in one scenario; see the module's docstring."""

    method: str
    healed: int
    unhealthy: int
    median_ticks: float
    p90_ticks: float
    violation: float
    mean_violation: float
    objective: float
    regret: float
    settled_regret: float
    settled_optimum: float
    changes: float
    harm: float


def row(method: str, runs: list[Figures], ticks: int) -> Row:
    """The figures of a method over some runs."""

    def mean(name: str, of: str = method) -> float:
        return float(np.mean([one[of][name] for one in runs])) if runs else math.nan

    recoveries = [one[method]["recovery"] for one in runs]
    times = [float(ticks if one is None else one) for one in recoveries] or [math.nan]
    best = OPTIMUM if all(OPTIMUM in one for one in runs) else UNTUNED
    return Row(
        method=method,
        healed=sum(one is not None for one in recoveries),
        unhealthy=len(runs),
        median_ticks=float(np.median(times)),
        p90_ticks=float(np.quantile(times, 0.9)),
        violation=float(np.median([one[method]["violation"] for one in runs])) if runs else math.nan,
        mean_violation=mean("mean_violation"),
        objective=mean("objective"),
        regret=mean("objective") - mean("objective", best),
        settled_regret=mean("settled") - mean("settled", best),
        settled_optimum=mean("settled", best),
        changes=mean("changes"),
        harm=mean("harm"),
    )


def behind(rows: list[Row], runs: list[Figures]) -> list[str]:
    """Where ours is not ahead of each online method, beyond the optimum's reach, or worse than no tuning, in words."""
    ours = next((one for one in rows if one.method == OURS), None)
    if ours is None or not runs:
        return []
    told = []
    for other in rows:
        if other.method in (OURS, OPTIMUM):
            continue
        if other.median_ticks < ours.median_ticks:
            told.append(f"{other.method} recovers sooner ({other.median_ticks:.0f} to {ours.median_ticks:.0f} ticks)")
        if other.violation < ours.violation - SAME:
            told.append(f"{other.method} violates less at worst ({other.violation:.3f} to {ours.violation:.3f})")
    if any(one.method == OPTIMUM for one in rows) and ours.settled_regret > NEAR_OPTIMUM * ours.settled_optimum:
        told.append(f"settled J is {ours.settled_regret / ours.settled_optimum:.0%} above the optimum's")
    excess = np.array([one[OURS]["objective"] - one[UNTUNED]["objective"] for one in runs])
    error = float(excess.std(ddof=1)) / math.sqrt(excess.size) if excess.size > 1 else math.inf
    if excess.mean() > ERRORS * error:
        told.append(f"J is {excess.mean():.4f} above that without tuning")
    return [f"ours is not ahead: {words}" for words in told]


_COLUMNS = ("method", "recovered", "ticks", "worst", "mean", "J", "regret", "settled", "changes", "harm")


def _cells(one: Row) -> tuple[str, ...]:
    return (
        one.method,
        f"{one.healed}/{one.unhealthy}",
        f"{one.median_ticks:.0f}/{one.p90_ticks:.0f}",
        f"{one.violation:.3f}",
        f"{one.mean_violation:.4f}",
        f"{one.objective:.4f}",
        f"{one.regret:.4f}",
        f"{one.settled_regret / one.settled_optimum:+.0%}",
        f"{one.changes:.1f}",
        f"{one.harm:.5f}",
    )


def show(heading: str, rows: list[Row], told: list[str], *, markdown: bool) -> None:
    """Print a scenario's table."""
    lines = [_COLUMNS, *(_cells(one) for one in rows)]
    print(f"**{heading}**\n" if markdown else heading)
    if markdown:
        lines.insert(1, ("---",) * len(_COLUMNS))
        print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")
    else:
        widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
        for line in lines:
            print("  " + "  ".join(f"{cell:>{width}s}" for cell, width in zip(line, widths, strict=True)))
    print("\n".join(f"- {words}" if markdown else f"  ! {words}" for words in told))
    sys.stdout.flush()


def main() -> None:
    """Print a table for each scenario and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50])
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=300, help="after the onset, at least 150")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, help="file of results, a JSON line each; what is there is not run again")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no case is begun later than that")
    parser.add_argument("--markdown", action="store_true", help="print the tables as such")
    chosen = parser.parse_args()
    methods = tuple(dict.fromkeys((UNTUNED, *chosen.method)))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    order = itertools.product(seeds, chosen.nodes, chosen.scenario)
    cases = [Case(name, nodes, seed, chosen.ticks) for seed, nodes, name in order]
    done: dict[Case, Figures] = sweep.read(chosen.out)
    lacking = [case for case in cases if not set(methods) <= set(done.get(case, ()))]
    work = functools.partial(run, methods=methods)
    done |= dict(sweep.run(work, lacking, jobs=chosen.jobs, path=chosen.out, minutes=chosen.minutes))
    for nodes, name in itertools.product(chosen.nodes, chosen.scenario):
        runs = [done[case] for case in cases if case in done and (case.scenario, case.nodes) == (name, nodes)]
        if not runs:
            continue
        ill = [one for one in runs if one[UNTUNED]["broken"] > SUSTAINED_MISSES or name == "healthy"]
        heading = f"{name}, N = {nodes}: {len(ill)} of {len(runs)} runs, {chosen.ticks} ticks"
        rows = [row(method, ill, chosen.ticks) for method in methods]
        show(heading, rows, behind(rows, ill), markdown=chosen.markdown)


if __name__ == "__main__":
    main()
