"""Which plant is governed: the one place that turns configuration into a plant."""

from __future__ import annotations

import logging

from controller import config as configuration
from controller.clock import SystemClock, VirtualClock
from controller.plants.plant import Plant
from controller.settings import Config

BAD_ROWS_TOLD = 20

_log = logging.getLogger(f"iace.{__name__}")


def make_plant(config: Config, virtual: VirtualClock, *, bodies_max: int | None = None) -> Plant:
    """The plant that the configuration names; `virtual` is the clock that a virtual plant advances.

    `bodies_max` bounds what the ledger of an embedded plant holds, see there.

    Adapters are imported here because each brings its own world: an embedded plant the whole governed system.

    Raises:
        ConfigInvalidError: the address or the token file is unusable, or the embedded cluster cannot be built as asked.
        BadDataError: nothing in the recording can be used.
        StoreFailedError: the store that holds the recording does not answer.
        NotPermittedError: the recording must not be read.
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
    if plant.kind == "replay":
        from controller.plants.recorded import RecordedPlant  # noqa: PLC0415 - as the docstring says
        from controller.recording_source import take  # noqa: PLC0415 - as the docstring says

        recording = take(plant.recording or "", config, signals=True)
        for bad in recording.bad[:BAD_ROWS_TOLD]:
            _log.warning("%s:%d is left out: %s", recording.source, bad.line, bad.reason)
        if len(recording.bad) > BAD_ROWS_TOLD:
            _log.warning("%s: %d bad rows are left out in all", recording.source, len(recording.bad))
        return RecordedPlant(recording, clock=virtual)
    from controller.plants.embedded import EmbeddedPlant  # noqa: PLC0415 - as the docstring says

    return EmbeddedPlant(plant.nodes, plant.clusters, plant.seed, clock=virtual, bodies_max=bodies_max)
