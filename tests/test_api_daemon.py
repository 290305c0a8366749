"""The API over the daemon itself: a real process, asked and told through the client that the commands use."""

import re
import time

import pytest

from controller.api.auth import FILE, Role, TokenFile
from controller.api_client import ApiClient, ApiRefusedError
from metrics.errors import NotPermittedError

pytestmark = pytest.mark.process


@pytest.fixture
def governing(start_iace, tmp_path):
    """A daemon over ten nodes at 20 ticks a second: its address."""
    process = start_iace(
        "govern", "--nodes", 10, "--interval", 0.05, "--data-dir", tmp_path, env={"IACE_API__PORT": "0"}
    )
    ends_s = time.monotonic() + 60
    while (told := re.search(r"answers at (http://\S+)", (process.cwd / "stderr").read_text())) is None:
        assert process.poll() is None, (process.cwd / "stderr").read_text()
        assert time.monotonic() < ends_s
        time.sleep(0.05)
    return told[1]


def test_a_daemon_is_asked_and_told(governing, tmp_path):
    """Questions are answered, commands are decided and journaled with whose they are, and refused without a token."""
    anonymous = ApiClient(governing)
    events = anonymous.events()
    _, tick = next(events)
    assert {"timestamp", "phase", "system_health", "caf_emission"} <= tick.keys()
    following = int(next(events)[0])
    events.close()
    assert following > tick["tick"]
    found = anonymous.get("api", "nodes")
    assert (found["total"], len(found["nodes"])) == (10, 10)
    node = found["nodes"][0]["node"]
    assert anonymous.get("api", "explain", node)["data"]["node"]["node"] == node
    with pytest.raises(NotPermittedError, match="bearer token"):
        anonymous.post("api", "control", "exempt", body={"node": node, "reason": "r"}, key="k")
    operator = ApiClient(governing, TokenFile(tmp_path / FILE).create("ops", Role.OPERATOR))
    body = {"node": node, "kind": "maintenance", "for_s": 60.0, "reason": "new disk"}
    done = operator.post("api", "control", "exempt", body=body, key="k")
    again = operator.post("api", "control", "exempt", body=body, key="k")
    assert (done["repeated"], again["repeated"], again["text"]) == (False, True, done["text"])
    (command,) = [
        event for event in operator.get("api", "journal", limit=1000)["events"] if event["kind"] == "COMMANDED"
    ]
    assert (command["data"]["by"], command["data"]["reason"]) == ("ops", "new disk")
    (exemption,) = operator.get("api", "control", "state")["data"]["exemptions"]
    assert (exemption["node"], exemption["owner"]) == (node, "ops")
    with pytest.raises(ApiRefusedError, match="shows no node nobody") as refused:
        operator.post("api", "control", "isolate", body={"node": "nobody", "reason": "r"}, key="k2")
    assert refused.value.status == 409
    assert operator.get("api", "explain", str(command["seq"]))["data"]["event"]["seq"] == command["seq"]
    assert operator.get("livez") == {"status": "ok"}
