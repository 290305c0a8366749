"""Every reachable state of the real governor in a small world; bugs that are planted are found, with the way there."""

import copy
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from state.decision import Draft
from state.governor import Governor
from state.isolation import Guard, forbid_isolation
from state.wells import WellWatch

ALL, SOME = 10_000, 1000  # states
EXPLORER = Path(__file__).parent / "exploration" / "explore.py"
SHORTENED = (
    ("state.confirmation", "PATIENCE_TICKS"),
    ("state.wells", "GONE_TICKS"),
    ("state.nodes", "RENEW_BEFORE_S"),
    ("state.governor", "RETRY_BASE_S"),
    ("state.governor", "RETRY_MAX_S"),
)


@pytest.fixture
def explorer(monkeypatch):
    """The explorer; the constants that it shortens are put back afterwards."""
    for module, name in SHORTENED:
        monkeypatch.setattr(f"{module}.{name}", getattr(importlib.import_module(module), name))
    monkeypatch.syspath_prepend(str(EXPLORER.parent))
    return importlib.import_module("explore")


def explored(explorer, name, states_max, size=3):
    scope = next(scope for scope in explorer.SCOPES if scope.name == name)
    found = explorer.explore(scope, size, 1, states_max=states_max)
    explorer.tell(scope, size, found)
    return found


@pytest.mark.parametrize("name", ["nodes", "blindness", "crashes", "operators", "phases", "healing"])
def test_no_reachable_state_breaks_an_invariant(explorer, name):
    """In no state that three nodes can be led to does anything break, and from each a way leads home.

    Of the scopes but "nodes" only as many states as the suite has time for; `make explore` goes on from there.
    """
    found = explored(explorer, name, ALL if name == "nodes" else SOME)
    assert found.violation is None, found.path
    assert found.complete is (name == "nodes")
    assert found.states >= (7000 if name == "nodes" else SOME)


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
    """Each ends in a violation and the choices that lead to it."""
    plant(planted, monkeypatch)
    found = explored(explorer, scope, SOME)
    assert found.violation is not None
    assert re.search(words, found.violation), found.violation
    assert found.path


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
    assert "nodes  N=3" in done.stdout
    assert "states (not all)" in done.stdout
