"""What only the embedded plant does: virtual time, equal lives for equal seeds, and scenarios as plain values."""

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.plants.embedded import EmbeddedPlant, load_scenario, shipped_scenarios
from metrics.errors import BadDataError, ConfigInvalidError, PlantRefusedError, PlantUnavailableError
from metrics.observation import SIGNAL_NAMES
from qecs.errors import QecsError


def test_each_look_is_one_tick_of_virtual_time():
    """Observing lets exactly one tick pass, and the clock goes with it."""
    clock = VirtualClock()
    plant = EmbeddedPlant(6, clock=clock)
    seen = [plant.observe(1.0) for _ in range(3)]
    assert [[item.tick for item in batch] for batch in seen] == [[1], [2], [3]]
    assert [batch[0].received_s for batch in seen] == [1.0, 2.0, 3.0]
    assert clock.monotonic_s() == 3.0


def test_equal_seeds_live_equal_lives():
    """Two plants of one seed show the same signals bit for bit; another seed shows others."""
    plants = [EmbeddedPlant(10, 2, seed, clock=VirtualClock()) for seed in (7, 7, 8)]
    one, same, other = ([plant.observe(1.0)[0] for _ in range(20)][-1] for plant in plants)
    for name in SIGNAL_NAMES:
        assert np.array_equal(getattr(one.signals, name), getattr(same.signals, name))
    assert not np.array_equal(one.signals.phase, other.signals.phase)
    assert np.array_equal(list(one.kpis.values()), list(same.kpis.values()), equal_nan=True)


def test_signals_cannot_be_changed_by_who_reads_them():
    """What the plant published stays what it was."""
    plant = EmbeddedPlant(6, clock=VirtualClock())
    (first,) = plant.observe(1.0)
    kept = {name: getattr(first.signals, name).copy() for name in SIGNAL_NAMES}
    plant.isolate("node-0003", key="k", epoch=1, ttl_s=5.0)
    plant.observe(1.0)
    for name in SIGNAL_NAMES:
        assert np.array_equal(getattr(first.signals, name), kept[name])


@pytest.mark.parametrize(
    ("nodes", "clusters", "seed"), [(0, None, 0), (-1, None, 0), (3, 4, 0), (5, 0, 0), (5, None, -1)]
)
def test_a_cluster_that_cannot_be_is_a_matter_of_configuration(nodes, clusters, seed):
    """No nodes, more clusters than nodes, no clusters, a negative seed: 78, not a traceback."""
    with pytest.raises(ConfigInvalidError, match="plant: 1 problem"):
        EmbeddedPlant(nodes, clusters, seed, clock=VirtualClock())


def test_a_plant_that_fails_by_itself_is_unavailable(monkeypatch):
    """An error of the governed system that is no refusal leaves the effect unknown."""
    plant = EmbeddedPlant(6, clock=VirtualClock())

    def broken():
        raise QecsError("the disk is full")

    monkeypatch.setattr(plant.host, "tick", broken)
    with pytest.raises(PlantUnavailableError, match="failed to live one tick: the disk is full"):
        plant.observe(1.0)


def test_every_shipped_scenario_is_described_and_can_be_injected():
    """The scenarios are plain values whose faults a plant takes and gives back."""
    names = shipped_scenarios()
    assert {"healthy", "byzantine-node", "ledger-fork", "frequency-drift"} <= set(names)
    for name, description in names.items():
        scenario = load_scenario(name)
        assert (scenario.name, scenario.description) == (name, description)
        plant = EmbeddedPlant(50, clock=VirtualClock())
        plant.observe(1.0)
        for number, planned in enumerate(scenario.faults):
            assert planned.phase in {"PHASE_I", "PHASE_II", "PHASE_III", "GOVERNING"}
            plant.inject(planned.fault, key=f"i{number}", epoch=1)
            plant.clear(str(planned.fault["id"]), key=f"c{number}", epoch=1)
    assert load_scenario("healthy").faults == ()


def test_a_scenario_begins_when_it_says(tmp_path):
    """A user's own file becomes the same plain values."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'description = "One node goes silent."\n'
        '[[fault]]\nkind = "silent"\nnodes = ["node-0001"]\nphase = "PHASE_III"\nafter_ticks = 5\n'
    )
    scenario = load_scenario(str(path))
    (planned,) = scenario.faults
    assert (scenario.name, planned.phase, planned.after_ticks) == ("mine", "PHASE_III", 5)
    assert planned.fault == {"id": "silent-1", "kind": "silent", "nodes": ["node-0001"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[fault]]\nkind = 'gremlins'\n", "kind must be one of"),
        ("[[fault\n", "not a TOML file"),
        ("[[fault]]\nkind = 'silent'\nphase = 'LUNCH'\n", "phase must be one of"),
    ],
)
def test_a_scenario_that_cannot_be_read_is_bad_data(tmp_path, text, words):
    """A broken file names its problem."""
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(BadDataError, match=words):
        load_scenario(str(path))


@pytest.mark.parametrize("name", ["byzantine", "nowhere.toml", ""])
def test_an_unknown_scenario_is_bad_data_and_lists_the_known(name):
    """Who mistypes a name gets to read the names there are."""
    with pytest.raises(BadDataError, match="byzantine-node"):
        load_scenario(name)


def test_a_fault_on_nodes_that_this_plant_lacks_is_refused():
    """A scenario written for another size is refused by the plant, in its words."""
    plant = EmbeddedPlant(6, clock=VirtualClock())
    with pytest.raises(PlantRefusedError, match="node-0042"):
        plant.inject({"id": "f", "kind": "silent", "nodes": ["node-0042"]}, key="k", epoch=1)
