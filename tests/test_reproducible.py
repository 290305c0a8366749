"""One seed, configuration and scenario: one journal, one report, one set of proposals, byte for byte."""

import pytest

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("scenario", "nodes", "seed"), [("byzantine-node", 20, 3), ("frequency-drift", 10, 1), ("cluster-fault", 20, 2)]
)
def test_equal_runs_leave_equal_traces(iace, tmp_path, scenario, nodes, seed):
    """Two equal runs differ in the run's id and in wall-clock fields alone."""
    arguments = ("run", "--scenario", scenario, "--nodes", nodes, "--seed", seed, "--ticks", 120)
    first, second = (iace(*arguments, cwd=tmp_path / name) for name in ("first", "second"))
    assert first.code == second.code
    exports = [iace("journal", "export", cwd=done.cwd).out for done in (first, second)]
    assert exports[0] == exports[1]
    assert len(exports[0].splitlines()) > 10
    own = {"run_id", "wall"}
    assert {k: v for k, v in first.report.items() if k not in own} == {
        k: v for k, v in second.report.items() if k not in own
    }
    assert first.report["run_id"] != second.report["run_id"]
    for name in ("junit.xml", "kpis.png"):
        assert (first.cwd / "reports" / name).read_bytes() == (second.cwd / "reports" / name).read_bytes()
    proposals = [
        {path.name: path.read_bytes() for path in (done.cwd / "reports" / "proposals").iterdir()}
        for done in (first, second)
    ]
    assert proposals[0] == proposals[1]
    assert proposals[0]


def test_another_seed_is_another_run(iace, tmp_path):
    """The seed is no decoration: it changes what happens."""
    tips = {
        iace("run", "--nodes", 10, "--ticks", 1, "--seed", seed, cwd=tmp_path / str(seed)).report["journal_tip"]["hash"]
        for seed in (1, 2)
    }
    assert len(tips) == 2
