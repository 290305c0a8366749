"""What an earlier run left at the plant: cleared up by the next one, before it begins.

Faults that it injected are ended, a parameter trial goes back to the last good value, and nodes that a probe had taken
out are let back in. Nodes that the policy isolated stay out until their time limit ends: nobody knows better. A virtual
plant died with its run, so there is nothing to clear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from controller import rundir
from controller.plants.plant import Plant
from controller.rundir import Leftover
from metrics.errors import PlantError, PlantRefusedError
from metrics.observation import Parameters
from state.durable import DurableState, NodeStatus


@dataclass(slots=True)
class Aftermath:
    """What became of it.

    Attributes:
        told: a sentence for each thing done, found, or that could not be done.
        settled: False if something has to be tried again by a later run.
    """

    told: list[str] = field(default_factory=list)
    settled: bool = True

    def attempt(self, text: str, action: Callable[[], None]) -> None:
        """Do something; a refusal is final, since what the plant does not know needs no undoing."""
        try:
            action()
        except PlantRefusedError as refused:
            text = f"not needed or refused: {text} ({refused.reason})"
        except PlantError as error:
            text, self.settled = f"failed: {text} ({error})", False
        self.told.append(text)


def clear_up_after(
    left: Leftover,
    plant: Plant,
    say: Callable[[str], None],
    *,
    data_dir: Path,
    epoch: int,
    name: str,
    dry_run: bool,
) -> bool:
    """Undo what a run has left at this plant, tell of it, and settle it; False in a dry run, which leaves it."""
    if dry_run:
        say(f"run {left.number} may have left something at {left.plant}; a dry run leaves it")
        return False
    after = clear_up(left, plant, epoch=epoch, name=f"{name}/after-{left.number}")
    for text in after.told:
        say(f"left by run {left.number}: {text}")
    if after.settled:
        rundir.settle(data_dir, left.number)
    return True


def clear_up(left: Leftover, plant: Plant, *, epoch: int, name: str) -> Aftermath:
    """Undo what is left at the plant; `name` makes the idempotency keys unique."""
    after = undo_probes(left.state, plant, epoch=epoch, name=name)
    if left.state.trial is not None:
        good = Parameters.parse(left.state.trial.previous)
        back = partial(plant.apply, good, key=f"{name}/parameters", epoch=epoch)
        after.attempt("parameters back to the last good value", back)
    _look_at_nodes(after, left.state, plant)
    return after


def undo_probes(state: DurableState, plant: Plant, *, epoch: int, name: str) -> Aftermath:
    """Undo what open probes have left at the plant; `name` makes the idempotency keys unique."""
    after = Aftermath()
    for probe, data in state.probes.items():
        undo = data.get("undo")
        if isinstance(undo, dict):
            _undo(after, probe, undo, plant, epoch=epoch, name=name)
    return after


def _undo(after: Aftermath, probe: str, undo: dict[str, object], plant: Plant, *, epoch: int, name: str) -> None:
    fault, node = undo.get("clear"), undo.get("restore")
    if isinstance(fault, str):
        after.attempt(f"fault {fault} ended", partial(plant.clear, fault, key=f"{name}/clear-{probe}", epoch=epoch))
    if isinstance(node, str):
        back = partial(plant.restore, node, key=f"{name}/restore-{probe}", epoch=epoch)
        after.attempt(f"{node} let back in", back)
    if "accounts" in undo:
        after.told.append(f"tokens may be left on the accounts of probe {probe}")


def _look_at_nodes(after: Aftermath, state: DurableState, plant: Plant) -> None:
    """Tell what the plant shows of the nodes that the run held out or was about to switch."""
    held = {node for node, record in state.nodes.items() if record.status is NodeStatus.ISOLATED}
    named = sorted(held | {intent.node for intent in state.intents.values()})
    if not named:
        return
    try:
        out = plant.isolated()
    except PlantError as error:
        after.told.append(f"failed: a look at {', '.join(named)} ({error})")
        after.settled = False
        return
    after.told += [f"{node} is {'still out, until its time limit' if node in out else 'in'}" for node in named]
