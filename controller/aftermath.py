"""What a run that died left at the plant: cleared up by the next one, before it begins.

Faults that it injected are ended, a parameter trial goes back to the last good value, and nodes that a probe had taken
out are let back in. Nodes that the policy isolated stay out until their time limit ends: nobody knows better. A virtual
plant died with its run, so there is nothing to clear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from controller.plants.plant import Plant
from controller.rundir import Unfinished
from metrics.errors import PlantError, PlantRefusedError
from metrics.observation import Parameters


def clear_up(left: Unfinished, plant: Plant, *, epoch: int, name: str) -> list[str]:
    """Undo what is left at the plant; a sentence for each thing done, or that could not be done."""
    done = []
    for probe, data in left.state.probes.items():
        undo = data.get("undo")
        if not isinstance(undo, dict):
            continue
        fault, node = undo.get("clear"), undo.get("restore")
        if isinstance(fault, str):
            clear = partial(plant.clear, fault, key=f"{name}/clear-{probe}", epoch=epoch)
            done.append(_try(f"fault {fault} ended", clear))
        if isinstance(node, str):
            restore = partial(plant.restore, node, key=f"{name}/restore-{probe}", epoch=epoch)
            done.append(_try(f"{node} let back in", restore))
    if left.state.trial is not None:
        good = Parameters.parse(left.state.trial.previous)
        done.append(_try("parameters back to the last good value", lambda: plant.apply(good, key=name, epoch=epoch)))
    if left.state.intents:
        out = plant.isolated()
        done += [
            f"{intent.node} is {'out' if intent.node in out else 'in'} after an unfinished {intent.kind}"
            for intent in left.state.intents.values()
        ]
    return done


def _try(text: str, action: Callable[[], None]) -> str:
    try:
        action()
    except PlantRefusedError as refused:
        return f"not needed or refused: {text} ({refused.reason})"
    except PlantError as error:
        return f"failed: {text} ({error})"
    return text
