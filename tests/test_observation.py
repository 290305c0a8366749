"""The values that an observation is made of."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.errors import BadDataError
from metrics.observation import PARAMETER_BOUNDS, SIGNAL_NAMES, ClusterId, NodeId, Parameters, Topology


def test_topology_knows_positions_and_sizes():
    """A topology finds each node's place and counts the nodes of each cluster, empty ones included."""
    topology = Topology(
        (NodeId("a"), NodeId("b"), NodeId("c")),
        (ClusterId("x"), ClusterId("y"), ClusterId("z")),
        np.array([0, 2, 2], dtype=np.int32),
    )
    assert topology.index == {"a": 0, "b": 1, "c": 2}
    assert topology.sizes.tolist() == [1, 0, 2]


def test_signal_names_are_the_contract():
    """The node signals have the names that plants and stores use."""
    assert SIGNAL_NAMES == (
        "phase",
        "participation",
        "arrivals",
        "commits",
        "retries",
        "shed",
        "invalid",
        "queue",
        "balance",
        "active",
    )


def test_parameters_survive_a_round_trip():
    """Parameters parse from what they print, and their defaults are within their bounds."""
    parameters = Parameters(lambda1=0.4, lambda2=0.3, alpha=0.9, action_cost_limit=0.06)
    assert Parameters.parse(parameters.as_dict()) == parameters
    assert all(low <= Parameters().as_dict()[name] <= high for name, (low, high) in PARAMETER_BOUNDS.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lambda1": 0.0}, "lambda1 = 0.0 is outside 0.01 to 1.0"),
        ({"lambda2": float("nan")}, "lambda2 must be a finite number, not nan"),
        ({"alpha": True}, "alpha must be a finite number, not True"),
        ({"alpha": "1"}, "alpha must be a finite number, not '1'"),
        ({"action_cost_limit": None}, "action_cost_limit must be a finite number, not None"),
        ({"beta": 1.0}, "beta is not a parameter"),
    ],
)
def test_parameters_refuse_garbage(change, said):
    """What is unknown, missing, not finite or out of bounds is refused by name."""
    with pytest.raises(BadDataError, match=r"^parameters: ") as caught:
        Parameters.parse(Parameters().as_dict() | change)
    assert said in str(caught.value)


def test_parameters_tell_every_problem_at_once():
    """All problems of a set of parameters stand in one message."""
    with pytest.raises(BadDataError) as caught:
        Parameters.parse({"lambda1": 7.0, "gamma": 1.0})
    for name in ("gamma", "lambda1", "lambda2", "alpha", "action_cost_limit"):
        assert name in str(caught.value)
