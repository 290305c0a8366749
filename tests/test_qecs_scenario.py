import pytest

from qecs.cluster import Cluster
from qecs.errors import ScenarioError, UnknownTargetError
from qecs.faults import Fault
from qecs.scenario import PHASES, load_scenario, shipped

SHIPPED = (
    "byzantine-node",
    "cluster-fault",
    "demand-surge",
    "detuned-node",
    "entropy-spike",
    "flapping-node",
    "frequency-drift",
    "healthy",
    "ledger-fork",
    "ledger-tampering",
    "sensor-fault",
    "silent-node",
    "slow-node",
    "supply-inflation",
)


def test_shipped_scenarios():
    """All scenarios of the model are shipped, each with a sentence of description."""
    assert tuple(shipped()) == SHIPPED
    assert all(description.endswith(".") for description in shipped().values())


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("nodes", [5, 50, 1000])
def test_every_shipped_scenario_works_at_every_size(name, nodes):
    """Each shipped scenario can be injected into clusters of every size and lived with."""
    cluster = Cluster(nodes, seed=1)
    for _ in range(5):
        cluster.step()
    for planned in load_scenario(name).faults:
        assert planned.phase in PHASES
        cluster.inject(planned.fault)
    for _ in range(5):
        cluster.step()


@pytest.mark.parametrize("name", SHIPPED)
def test_when_shipped_faults_begin(name):
    """Faults begin 60 ticks into GOVERNING, those of the ledger with Phase II."""
    on_ledger = name in {"ledger-tampering", "ledger-fork", "supply-inflation", "entropy-spike"}
    expected = ("PHASE_II", 0) if on_ledger else ("GOVERNING", 60)
    assert {(planned.phase, planned.after_ticks) for planned in load_scenario(name).faults} <= {expected}
    assert len(load_scenario(name).faults) == (0 if name == "healthy" else 1)


def test_a_shipped_scenario_in_full():
    """The shipped drift says what the model says."""
    (planned,) = load_scenario("frequency-drift").faults
    assert planned.fault == Fault(id="drift-1", kind="drift", channels={"omega": 0.15}, ramp_ticks=60)


def test_own_file(tmp_path):
    """A user's file takes its name from the file, numbers its faults, and may say when each begins."""
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        description = "Mine."
        [[fault]]
        kind = "silent"
        nodes = ["node-0001"]
        phase = "PHASE_III"
        after_ticks = 5
        [[fault]]
        id = "late"
        kind = "slow"
        """
    )
    scenario = load_scenario(str(path))
    assert (scenario.name, scenario.description) == ("mine", "Mine.")
    first, second = scenario.faults
    assert (first.phase, first.after_ticks) == ("PHASE_III", 5)
    assert first.fault == Fault(id="silent-1", kind="silent", nodes=("node-0001",))
    assert (second.phase, second.after_ticks, second.fault.id) == ("GOVERNING", 60, "late")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("byzantine", r"no scenario 'byzantine' \(did you mean 'byzantine-node'\?\); shipped are byzantine-node, "),
        ("zzz", "no scenario 'zzz'; shipped are"),
        ("", "no scenario ''"),
        ("nowhere/mine.toml", "no scenario file 'nowhere/mine.toml'; shipped scenarios are"),
        ("../healthy", "no scenario file"),
        ("/", "no scenario file"),
    ],
)
def test_unknown(name, message):
    """An unknown scenario is answered with the nearest name and all there are."""
    with pytest.raises(UnknownTargetError, match=message):
        load_scenario(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faults = []", "unknown key 'faults'"),
        ("name = 3", "name must be a text, not 3"),
        ("fault = 3", r"fault must be given as \[\[fault\]\] tables"),
        ("fault = [1]", r"fault must be given as \[\[fault\]\] tables"),
        ("[[fault]]\nkind = 'quiet'", "fault 1: kind must be one of"),
        ("[[fault]]\nkind = 'silent'\nphase = 'PHASE_V'", "fault 1: phase must be one of PHASE_I, .*, not 'PHASE_V'"),
        ("[[fault]]\nkind = 'silent'\nphase = ['x']", "fault 1: phase must be one of"),
        ("[[fault]]\nkind = 'silent'\nafter_ticks = -1", "fault 1: after_ticks must be a whole number"),
        ("[[fault]]\nkind = 'silent'\nafter_ticks = true", "fault 1: after_ticks must be a whole number"),
        ("[[fault]]\nkind = 'silent'\nid = 'a'\n" * 2, "2 faults have the id 'a'"),
        ("[[fault]]\nkind = 'silent'\nid = 7", "fault 1: id must be"),
        ("kind = ", "not a TOML file"),
        ("x = " + "[" * 10_000, "not a TOML file"),
    ],
)
def test_wrong_file(tmp_path, text, message):
    """A file that cannot be meant is refused with its path and the key of each problem."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message) as caught:
        load_scenario(str(path))
    assert str(path) in str(caught.value)


def test_every_problem_of_a_file_at_once(tmp_path):
    """One error names everything that is wrong in a file."""
    path = tmp_path / "mine.toml"
    path.write_text("color = 1\n[[fault]]\nkind = 'silent'\ncount = 0\n[[fault]]\nkind = 'slow'\nmagnitude = 7")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(path))
    for part in ("'color'", "fault 1: count", "fault 2: magnitude"):
        assert part in str(caught.value)


def test_file_that_is_no_text(tmp_path):
    """A file that is not UTF-8 is refused, not guessed at."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(str(path))
