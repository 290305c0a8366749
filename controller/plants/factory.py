"""Which plant is governed: the one place that turns configuration into a plant."""

from __future__ import annotations

from controller import config as configuration
from controller.clock import SystemClock, VirtualClock
from controller.plants.plant import Plant
from controller.settings import Config


def make_plant(config: Config, virtual: VirtualClock) -> Plant:
    """The plant that the configuration names; `virtual` is the clock that a virtual plant advances.

    Adapters are imported here because each brings its own world: an embedded plant the whole governed system.

    Raises:
        ConfigInvalidError: the address or the token file is unusable, or the embedded cluster cannot be built as asked.
    """
    plant = config.plant
    if plant.kind == "http":
        from controller.plants.http import HttpPlant  # noqa: PLC0415 - as the docstring says

        return HttpPlant(
            plant.url or "",
            deadline_s=plant.deadline_s,
            token=configuration.token(config),
            monotonic_s=SystemClock().monotonic_s,
        )
    from controller.plants.embedded import EmbeddedPlant  # noqa: PLC0415 - as the docstring says

    return EmbeddedPlant(nodes=plant.nodes, clusters=plant.clusters, seed=plant.seed, clock=virtual)
