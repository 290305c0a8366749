"""The plant as a dry run sees it."""

import pytest

from controller.clock import VirtualClock
from controller.plants.embedded import EmbeddedPlant
from controller.plants.plant import Plant
from controller.plants.read_only import ReadOnlyPlant
from metrics.errors import UnsupportedError
from metrics.observation import Parameters

STAMP = {"key": "k", "epoch": 9}
WRITING = {
    "isolate": lambda plant: plant.isolate("node-0001", ttl_s=60.0, **STAMP),
    "restore": lambda plant: plant.restore("node-0001", **STAMP),
    "apply": lambda plant: plant.apply(Parameters(lambda1=0.4), **STAMP),
    "inject": lambda plant: plant.inject({"id": "bad", "kind": "byzantine", "nodes": ["node-0001"]}, **STAMP),
    "clear": lambda plant: plant.clear("bad", **STAMP),
    "commit": lambda plant: plant.commit({"id": "t-1", "sender": "a", "receiver": "b", "amount": 1}),
}
READING = {
    "epoch_seen": lambda plant: plant.epoch_seen(1.0),
    "isolated": lambda plant: plant.isolated(),
    "parameters": lambda plant: plant.parameters(),
    "ledger": lambda plant: plant.ledger(),
    "blocks": lambda plant: plant.blocks(0, 1),
    "balance": lambda plant: plant.balance("node-0001"),
}
LOOKING = {"info", "connect", "observe", "close"}


@pytest.fixture
def plant():
    """The plant itself, connected, one tick old."""
    made = EmbeddedPlant(10, seed=3, clock=VirtualClock())
    made.connect(1.0)
    made.observe(1.0)
    yield made
    made.close()


@pytest.mark.parametrize("name", WRITING)
def test_what_would_change_something_never_reaches_the_plant(name):
    """A call that acts is refused before anything is asked of the plant: here there is none."""
    with pytest.raises(UnsupportedError, match="to a dry run, which acts on nothing"):
        WRITING[name](ReadOnlyPlant(None))


@pytest.mark.parametrize("name", READING)
def test_what_is_read_is_the_plants_own(plant, name):
    """Reading goes through."""
    assert READING[name](ReadOnlyPlant(plant)) == READING[name](plant)


def test_looking_goes_through(plant):
    """Connecting and observing are the plant's, and closing lets go of it."""
    seen = ReadOnlyPlant(plant)
    assert seen.connect(1.0) == seen.info == plant.info
    before = plant.observe(1.0)[-1].tick
    assert [observation.tick for observation in seen.observe(1.0)] == [before + 1]
    seen.close()


def test_each_call_of_a_plant_is_one_or_the_other():
    """A call that plants get some day has to be decided on here, too."""
    calls = {name for name in vars(Plant) if not name.startswith("_")}
    assert calls == {*WRITING, *READING, *LOOKING}
