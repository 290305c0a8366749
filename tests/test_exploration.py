"""Every reachable state of the real governor in small worlds; bugs that are planted are found, with the way there."""

import copy
import dataclasses
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from state import confirmation, durable, governor, nodes, readback, trials, wells
from state.decision import Draft
from state.governor import Governor
from state.isolation import Guard, forbid_isolation
from state.wells import WellWatch

SOME = 1000  # states, within which each planted bug is found
PAIRS = 60  # of states of one name, of each scope
EXPLORER = Path(__file__).parent / "exploration" / "explore.py"
COMPLETE = ("nodes", "crashes", "operators", "vetoes", "doubts", "healing", "interrupted", "phases", "pauses")
BOUNDED = {"blindness": 2000, "probes": 2000}  # states, of scopes larger than the time of a test


@pytest.fixture
def explorer(monkeypatch):
    """The explorer; the constants that it shortens are put back afterwards."""
    monkeypatch.syspath_prepend(str(EXPLORER.parent))
    settings = importlib.import_module("exploration_settings")
    for module, name, _ in settings.SHORTENED:
        monkeypatch.setattr(module, name, getattr(module, name))
    return importlib.import_module("explore")


def explored(explorer, name, **limits):
    scope = next(scope for scope in explorer.SCOPES if scope.name == name)
    size, clusters = scope.sizes[0]
    found = explorer.explore(scope, size, clusters, **limits)
    text = "\n".join(explorer.lines(scope, size, clusters, found))
    sys.stdout.write(f"{text}\n")
    return scope, found, text


@pytest.mark.timeout(900)  # together they take three minutes on two idle cores, and CI's may be busy
@pytest.mark.parametrize("name", [*COMPLETE, *BOUNDED])
def test_no_reachable_state_breaks_an_invariant(explorer, name):
    """In no state that the smallest plant can be led to does anything break, and from each a way leads home.

    Of a bounded scope only the states nearest to the start are seen, and it is said so. That all have been seen rests
    on states of one name having equal futures: this is asked of pairs of those that were taken for the same, drawn
    evenly from the whole exploration.
    """
    scope, found, text = explored(explorer, name, merged_every=7, states_max=BOUNDED.get(name, math.inf))
    assert found.violation is None, text
    assert found.complete is (name in COMPLETE)
    soundness = importlib.import_module("exploration_soundness")
    world = scope.world(*scope.sizes[0])
    pairs = found.merged[:: max(1, len(found.merged) // PAIRS)]
    assert len(pairs) >= PAIRS
    assert [told for one, other in pairs if (told := soundness.difference(scope, world, one, other))] == []


def test_a_name_that_leaves_out_too_much_is_found(explorer, monkeypatch):
    """Where states are taken for the same that differ in a bad tick, their futures are seen to differ."""
    names = importlib.import_module("exploration_names")
    monkeypatch.setattr(names, "CONFIRM_TICKS", 0)
    scope, found, _ = explored(explorer, "nodes", merged_every=1, states_max=200)
    soundness = importlib.import_module("exploration_soundness")
    world = scope.world(*scope.sizes[0])
    differences = [soundness.difference(scope, world, one, other) for one, other in found.merged]
    assert any(told and "isolation_intended" in told.lower() for told in differences)


@pytest.mark.parametrize(
    "kind",
    [
        durable.DurableState,
        durable.NodeRecord,
        durable.Intent,
        durable.PauseRecord,
        durable.Exemption,
        durable.Trial,
        governor.Governor,
        nodes.NodeGovernance,
        wells.WellWatch,
        confirmation.Confirmation,
        readback.ReadBack,
        trials.TrialGovernance,
    ],
)
def test_every_field_is_named_or_left_out_for_a_reason(explorer, kind):
    """No field of the governor is forgotten: one that is added has to be thought about."""
    tables = importlib.import_module("exploration_fields")
    if dataclasses.is_dataclass(kind):
        fields = {item.name for item in dataclasses.fields(kind)}
    else:
        scope = next(scope for scope in explorer.SCOPES if scope.name == "healing")
        gov = scope.world(*scope.sizes[0]).governor
        watch = gov._nodes._wells
        owners = (gov, gov._nodes, watch, watch.nodes, gov._nodes._in_flight, gov._trials)
        fields = set(vars(next(owner for owner in owners if type(owner) is kind)))
    named, left_out = tables.NAMED[kind.__name__], set(tables.LEFT_OUT.get(kind.__name__, ()))
    assert not named & left_out
    assert named | left_out == fields


def plant(planted, monkeypatch):
    if planted == "the budget is counted before the action":
        monkeypatch.setattr("state.nodes.forbid_isolation", forbid_before)
    elif planted == "nan counts":
        monkeypatch.setattr("state.confirmation.Confirmation.update", credulous)
    elif planted == "a pause is ignored":
        real = Governor._forbids_actions

        def deaf(governor, assessment):
            guard = real(governor, assessment)
            return None if guard == Guard.PAUSED else guard

        monkeypatch.setattr(Governor, "_forbids_actions", deaf)
    elif planted == "a storm is no reason":
        monkeypatch.setattr("state.nodes.NodeGovernance.storm", None)
        monkeypatch.setattr(
            WellWatch, "storm", property(lambda _watch: None, lambda _watch, _value: None), raising=False
        )
    elif planted == "what has failed stays in flight":
        monkeypatch.setattr("state.readback.ReadBack._fail", lambda *_arguments: None)
    elif planted == "a rollback is not sent":
        real_act = Draft.act

        def lazy(draft, action):
            if not action.key.startswith("rollback"):
                real_act(draft, action)

        monkeypatch.setattr(Draft, "act", lazy)


def forbid_before(policy, standing, node):
    """The over-ejection that counting before the action allows."""
    before = copy.copy(standing)
    before.cluster_out = standing.cluster_out.copy()
    before.total_out -= 1
    before.cluster_out[standing.topology.cluster_of[node]] -= 1
    return forbid_isolation(policy, before, node)


def credulous(counters, value, _trusted):
    """Counts whatever is not seen to be good."""
    bad = ~(value <= 1.5)
    counters.bad += bad
    counters.bad[~bad] = 0
    counters.clean += ~bad
    counters.clean[bad] = 0
    counters._bad_now = bad
    return bad


@pytest.mark.parametrize(
    ("scope", "planted", "words"),
    [
        ("nodes", "the budget is counted before the action", "2 of 3 nodes out"),
        ("blindness", "nan counts", "8: "),
        ("operators", "a pause is ignored", "not in the table for PAUSED|10: something was started in a pause"),
        ("nodes", "a storm is no reason", "13: something was started in a storm"),
        ("nodes", "what has failed stays in flight", "no well-behaved way leads home"),
        ("healing", "a rollback is not sent", "no well-behaved way leads home|12: "),
    ],
)
def test_planted_bugs_are_found_with_the_way_there(explorer, monkeypatch, scope, planted, words):
    """Each ends in a violation and the shortest path of choices and events that leads to it."""
    plant(planted, monkeypatch)
    _, found, text = explored(explorer, scope, states_max=SOME)
    assert found.violation is not None
    assert re.search(words, found.violation), found.violation
    steps = [line for line in text.splitlines() if "  ->  " in line]
    assert len(steps) == len(found.path) > 0
    if "no well-behaved way" not in found.violation:
        assert steps[-1].endswith(found.violation)


def test_the_command_line_tells_how_much_there_was(tmp_path):
    """One line for each world, with states and transitions; a world that was too large for the time is said to be."""
    done = subprocess.run(
        [sys.executable, str(EXPLORER), "--scope", "nodes", "--nodes", "3", "--seconds", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert re.search(r"nodes  N=3 +\d+ states +\d+ transitions  bounded", done.stdout)
