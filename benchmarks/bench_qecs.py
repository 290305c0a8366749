"""How much does a tick of the reference cluster cost, beside the bare numpy passes that its equations need?

Run: `python benchmarks/bench_qecs.py`. Prints, for 1e3, 1e5 and 1e6 nodes, milliseconds a tick with and without the
ledger, the limit, their ratio, and bytes a node. The limit is measured in the same run: `PASSES` counts the primitive
passes over N numbers that the equations consist of, in preallocated memory, and nothing else of the program.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from qecs.cluster import GENESIS_BALANCE, Cluster
from qecs.ledger import Ledger
from qecs.membership import Membership

SIZES = ((1_000, 300), (100_000, 20), (1_000_000, 5))
WARM_UP = 3
GOAL = 3.0

PASSES = {
    "normal": 3,  # phase noise, arrivals, report
    "uniform": 1,  # rounding of the commits
    "sin": 1,
    "cos": 1,
    "log": 1,  # entropy
    "sqrt": 1,  # arrivals
    "divide": 1,  # arrivals
    "multiply": 30,  # fields 2, pull 2, noise 1, wraps 4, report 1, demand 4, Poisson 5, success 5, shares 6
    "add": 19,  # pull 1, phase 5, wraps 2, report 1, Poisson 6, success 2, activity 2
    "round": 3,  # wraps, Poisson
    "bound": 5,  # demand 2, Poisson, emission, entropy
    "cast": 4,  # arrivals, commits, payments, emission
    "repeat": 3,  # from cluster to node: pull 2, common increment 1
    "reduceat": 2,  # from node to cluster
    "integer add": 11,  # queue 4, attempts 2, shed 1, payments 1, balances 3
    "integer bound": 3,  # attempts, shed
    "integer multiply": 3,  # spendable, paid, burned
    "integer divide": 1,  # spendable
    "copy": 3,  # queue, balances, activity
    "sum": 13,
}


def passes(nodes: int) -> dict[str, Callable[[], object]]:
    """One callable for each kind of pass, on arrays of `nodes` entries."""
    generator = np.random.Generator(np.random.Philox(1))
    membership = Membership(nodes)
    of_cluster = np.ones(membership.clusters)
    x = generator.normal(0.0, 0.3, nodes)
    positive = np.abs(x) + 1.0
    whole = np.full(nodes, 500_000, dtype=np.int64)
    out, out_whole = np.empty(nodes), np.empty(nodes, dtype=np.int64)
    return {
        "normal": lambda: generator.standard_normal(out=out),
        "uniform": lambda: generator.random(out=out),
        "sin": lambda: np.sin(x, out=out),
        "cos": lambda: np.cos(x, out=out),
        "log": lambda: np.log(positive, out=out),
        "sqrt": lambda: np.sqrt(positive, out=out),
        "divide": lambda: np.divide(x, positive, out=out),
        "multiply": lambda: np.multiply(x, positive, out=out),
        "add": lambda: np.add(x, positive, out=out),
        "round": lambda: np.rint(x, out=out),
        "bound": lambda: np.maximum(x, 0.0, out=out),
        "cast": lambda: np.copyto(out_whole, x, casting="unsafe"),
        "repeat": lambda: np.repeat(of_cluster, membership.sizes),
        "reduceat": lambda: np.add.reduceat(x, membership.bounds[:-1]),
        "integer add": lambda: np.add(whole, whole, out=out_whole),
        "integer bound": lambda: np.minimum(whole, 36, out=out_whole),
        "integer multiply": lambda: np.multiply(whole, 7, out=out_whole),
        "integer divide": lambda: np.floor_divide(whole, 100_000, out=out_whole),
        "copy": lambda: np.copyto(out_whole, whole),
        "sum": whole.sum,
        "poisson": lambda: generator.poisson(20.0, nodes),
    }


def best_s(run: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs, seconds: what the machine can do when nobody disturbs it."""
    found = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found = min(found, time.perf_counter() - start)
    return found


class TimedLedger:
    """Notes how long the ledger took, so that its share of a tick can be told apart."""

    def __init__(self, ledger: Ledger) -> None:
        self.last_s = 0.0
        self._append = ledger.append
        ledger.append = self  # type: ignore[method-assign, assignment] # a stopwatch in its place

    def __call__(self, *args: object) -> object:
        """Appends, and takes the time."""
        start = time.perf_counter()
        header = self._append(*args)  # type: ignore[arg-type] # handed through as they came
        self.last_s = time.perf_counter() - start
        return header


def new_cluster(nodes: int) -> Cluster:
    """A cluster whose ledger holds one body only, so that memory counts the dynamics and not the record."""
    balances = np.full(nodes, GENESIS_BALANCE, dtype=np.int64)
    return Cluster(nodes, ledger=Ledger.genesis(balances, Membership(nodes).bounds, bodies_max=1))


def tick_ms(nodes: int, ticks: int) -> tuple[float, float]:
    """Milliseconds a tick: without the ledger, and with it (the best of `ticks` each)."""
    cluster = new_cluster(nodes)
    watch = TimedLedger(cluster.ledger)
    bare, whole = float("inf"), float("inf")
    for tick in range(WARM_UP + ticks):
        start = time.perf_counter()
        cluster.step()
        taken = time.perf_counter() - start
        if tick >= WARM_UP:
            bare, whole = min(bare, taken - watch.last_s), min(whole, taken)
    return bare * 1e3, whole * 1e3


def bytes_per_node(nodes: int) -> tuple[float, float]:
    """Bytes a node: held after a few ticks, and at the peak within them."""
    tracemalloc.start()
    cluster = new_cluster(nodes)
    for _ in range(WARM_UP):
        cluster.step()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / nodes, peak / nodes


def main() -> None:
    """Measures and prints."""
    print(f"{'nodes':>9} {'tick':>9} {'limit':>9} {'ratio':>6} {'with ledger':>12} {'held':>8} {'peak':>8}")
    for nodes, ticks in SIZES:
        bare, whole = tick_ms(nodes, ticks)
        costs = {name: best_s(run, max(5, ticks)) * 1e3 for name, run in passes(nodes).items()}
        limit = sum(count * costs[name] for name, count in PASSES.items())
        with_poisson = limit - costs["normal"] + costs["poisson"]
        held, peak = bytes_per_node(nodes)
        print(
            f"{nodes:>9} {bare:>6.2f} ms {limit:>6.2f} ms {bare / limit:>6.2f} {whole:>9.2f} ms "
            f"{held:>6.0f} B {peak:>6.0f} B   (limit with numpy's own Poisson: {with_poisson:.2f} ms)"
        )
    print(f"goal: ratio at 1,000,000 nodes <= {GOAL:g}, at most 1024 B a node")


if __name__ == "__main__":
    main()
