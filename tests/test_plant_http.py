"""What the HTTP plant makes of servers that offer little, lie, hang or speak nonsense."""

import json
import math
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pytest

from controller.plants import endpoint
from controller.plants.http import HttpPlant
from metrics.errors import (
    ConfigInvalidError,
    NotPermittedError,
    PlantError,
    PlantRefusedError,
    PlantUnavailableError,
    UnsupportedError,
)
from metrics.observation import Capability, Parameters

SHORT_S = 0.3
PATIENCE_S = 20.0  # far beyond any deadline used here; only a call that never ends exceeds it


@pytest.fixture
def make_plant():
    """HttpPlant, closed when the test is over."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(closing(HttpPlant(url, **options)))


@pytest.fixture
def connected(make_plant):
    """A plant that is connected to a server."""

    def connect(server):
        plant = make_plant(server.url, deadline_s=5.0)
        plant.connect(5.0)
        return plant

    return connect


# --- a server of v1.5 -----------------------------------------------------------------------------------------------


def test_a_v15_server_is_recognised(start_fake_qecs, make_plant):
    """Without /capabilities but with the routes of v1.5, a server takes commits and can do nothing else."""
    plant = make_plant(start_fake_qecs().url)
    info = plant.connect(5.0)
    assert info.capabilities == {Capability.COMMIT}
    assert (info.system, info.seed, info.real_time) == ("qecs 1.5 (figures only)", None, True)


def test_a_v15_server_is_observed_by_its_figures(start_fake_qecs, connected):
    """Figures come under catalogue names from both routes; a fresh timestamp is a new tick; there are no nodes."""
    plant = connected(start_fake_qecs())
    seen = [*plant.observe(5.0), *plant.observe(5.0)]
    assert [item.tick for item in seen] == [0, 1]
    assert [item.plant_time_s for item in seen] == [0.0, 1.0]
    kpis = seen[0].kpis
    assert kpis["coherence"] == pytest.approx(0.962, abs=0.003)
    assert kpis["action_cost"] == 0.025
    assert set(kpis) == {
        "coherence",
        "gas",
        "rsi",
        "lambda_opt",
        "delta_lambda",
        "action_cost",
        "delta_entropy",
    }
    assert (seen[0].topology, seen[0].signals, seen[0].parameters, seen[0].safe_mode) == (None, None, None, False)


def test_what_a_v15_server_lacks_is_unsupported(start_fake_qecs, connected):
    """Each capability that is not offered is refused as such, and nothing is sent."""
    server = start_fake_qecs()
    plant = connected(server)
    asked = len(server.requests)
    key = {"key": "k", "epoch": 1}
    for call in (
        plant.isolated,
        plant.parameters,
        plant.ledger,
        lambda: plant.blocks(0, 1),
        lambda: plant.balance("a"),
        lambda: plant.isolate("node-0000", ttl_s=1.0, **key),
        lambda: plant.restore("node-0000", **key),
        lambda: plant.apply(Parameters(), **key),
        lambda: plant.inject({}, **key),
        lambda: plant.clear("f", **key),
    ):
        with pytest.raises(UnsupportedError, match="the plant does not offer"):
            call()
    assert len(server.requests) == asked
    assert plant.epoch_seen(5.0) == 0


def test_commits_at_a_v15_server_are_answered(start_fake_qecs, connected):
    """Approval, overdraft, replay, conflict and a malformed transaction get their answers."""
    server = start_fake_qecs()
    plant = connected(server)
    good = {"id": "t1", "sender": "a", "receiver": "b", "amount": 1000}
    first = plant.commit(good)
    assert first.approved
    assert plant.commit(good) == first
    conflict = plant.commit({**good, "amount": 7})
    assert (conflict.http_status, conflict.approved) == (409, False)
    overdraft = plant.commit({**good, "id": "t2", "amount": 10**9})
    assert (overdraft.http_status, overdraft.reason) == (400, "insufficient funds: a has 999000")
    assert plant.commit({**good, "id": "t3", "amount": -1}).http_status == 400
    assert server.balance("b") == 1_000_990


@pytest.mark.parametrize(
    ("vice", "approved"),
    [("approves_everything", [True, True, True]), ("rejects_everything", [False, False, False])],
)
def test_wrong_answers_to_commits_are_handed_on(start_fake_qecs, vice, approved, connected):
    """Whether an answer is right is judged elsewhere; the plant tells what the server said."""
    plant = connected(start_fake_qecs(vice))
    amounts = (10, 10**12, -5)
    answers = [plant.commit({"id": f"t{n}", "sender": "a", "receiver": "b", "amount": n}) for n in amounts]
    assert [answer.approved for answer in answers] == approved


def test_a_replay_that_was_executed_shows_in_the_answer(start_fake_qecs, connected):
    """A server that executes an identical replay answers it with something other than the first answer."""
    server = start_fake_qecs("executes_replays")
    plant = connected(server)
    transaction = {"id": "t1", "sender": "a", "receiver": "b", "amount": 1000}
    assert plant.commit(transaction) != plant.commit(transaction)
    assert server.balance("a") == 998_000


def test_a_transaction_that_is_no_json_is_not_sent(start_fake_qecs, connected):
    """NaN cannot be written as JSON, so nothing reaches the server."""
    server = start_fake_qecs()
    plant = connected(server)
    with pytest.raises(PlantRefusedError, match="cannot be written as JSON"):
        plant.commit({"id": "t", "sender": "a", "receiver": "b", "amount": math.nan})
    assert ("POST", "/ledger/commit") not in server.requests


@pytest.mark.parametrize("vice", ["nan_kpis", "null_kpis", "string_kpis", "bool_kpis"])
def test_figures_that_are_no_numbers_are_unknown(start_fake_qecs, vice, connected):
    """NaN, null, text and true never pass for a figure."""
    server = start_fake_qecs()
    plant = connected(server)
    server.turn(vice)
    (seen,) = plant.observe(5.0)
    assert math.isnan(seen.kpis["coherence"])
    assert math.isnan(seen.kpis["gas"])


def test_a_timestamp_that_stands_still_is_no_news(start_fake_qecs, connected):
    """A server that repeats itself yields no observation."""
    server = start_fake_qecs()
    plant = connected(server)
    assert len(plant.observe(5.0)) == 1
    server.turn("frozen_time")
    assert plant.observe(5.0) == ()
    server.turn()
    assert [item.tick for item in plant.observe(5.0)] == [1]


@pytest.mark.parametrize(
    ("vice", "words"),
    [("backward_time", "went back to tick"), ("no_time", "expected timestamp to be a time, in seconds or ISO 8601")],
)
def test_time_that_cannot_be_is_unintelligible(start_fake_qecs, vice, words, connected):
    """Without a time that goes on there is no telling fresh evidence from stale."""
    server = start_fake_qecs()
    plant = connected(server)
    plant.observe(5.0)
    server.turn(vice)
    with pytest.raises(PlantUnavailableError, match=words):
        [*plant.observe(5.0), *plant.observe(5.0)]


# --- servers that do not answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vice", "words"),
    [
        ("garbage", "expected JSON"),
        ("wrong_shape", r"expected a JSON object, but \[1, 2, 3\] came"),
        ("duplicate_keys", "a key occurs twice"),
        ("deep_nesting", "expected JSON"),
        ("not_http", "not HTTP"),
        ("server_errors", "HTTP 500 came, saying: out of cheese"),
        ("redirects", "a redirect to http://127.0.0.1:.*/elsewhere, which is not followed"),
        ("truncated_body", "broke off before its end"),
        ("huge_length", "1099511627776 bytes long"),
        ("endless_body", "longer than the 67108864 bytes"),
    ],
)
def test_an_unintelligible_answer_is_no_answer(start_fake_qecs, vice, words, connected):
    """Whatever cannot be understood leaves the effect unknown, and says what came, for reads and commits alike."""
    server = start_fake_qecs()
    plant = connected(server)
    server.turn(vice)
    with pytest.raises(PlantUnavailableError, match=words):
        plant.observe(PATIENCE_S)
    with pytest.raises(PlantUnavailableError, match=words):
        plant.connect(PATIENCE_S)
    if vice != "endless_body":
        with pytest.raises(PlantUnavailableError, match=words):
            plant.commit({"id": "t", "sender": "a", "receiver": "b", "amount": 1})
    server.turn()
    assert len(plant.observe(5.0)) == 1


@pytest.mark.parametrize("vice", ["hangs", "drips_headers", "drips_body"])
def test_the_deadline_is_total(start_fake_qecs, vice, make_plant):
    """A server that hangs, or drips a byte now and then, holds no call beyond its deadline."""
    server = start_fake_qecs()
    plant = make_plant(server.url, deadline_s=SHORT_S)
    plant.connect(5.0)
    server.turn(vice)
    began_s = time.monotonic()
    with pytest.raises(PlantUnavailableError, match=r"expected an answer within 0\.\d+ s, but it was not complete"):
        plant.observe(SHORT_S)
    with pytest.raises(PlantUnavailableError, match="not complete"):
        plant.commit({"id": "t", "sender": "a", "receiver": "b", "amount": 1})
    assert time.monotonic() - began_s < PATIENCE_S
    server.turn()
    assert len(plant.observe(5.0)) == 1


def test_a_server_that_reads_nothing_is_left_at_the_deadline(make_plant):
    """A connection that is accepted by the system but served by nobody ends as any other."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        plant = make_plant(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(PlantUnavailableError, match="not complete"):
            plant.connect(SHORT_S)


def test_a_dead_server_is_told_from_a_wrong_name(make_plant):
    """Nothing listening, and a host that does not exist, each say how to mend it."""
    with socket.create_server(("127.0.0.1", 0)) as dying:
        port = dying.getsockname()[1]
    with pytest.raises(PlantUnavailableError, match="nothing listens there; start the plant or correct the URL"):
        make_plant(f"http://127.0.0.1:{port}").connect(5.0)
    with pytest.raises(PlantUnavailableError, match="cannot be resolved"):
        make_plant("http://no-such-host.invalid:80").connect(PATIENCE_S)


def test_a_resolver_that_hangs_is_left_at_the_deadline(monkeypatch, make_plant):
    """The system's resolver knows no deadline; the call has one all the same."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(PATIENCE_S) and [])
    with pytest.raises(PlantUnavailableError, match="not complete"):
        make_plant("http://plant.example:80").connect(SHORT_S)
    released.set()


def test_a_call_that_waits_for_another_ends_by_its_deadline(start_fake_qecs, connected):
    """Calls take turns on the connection, and waiting for one's turn counts."""
    server = start_fake_qecs()
    plant = connected(server)
    server.turn("hangs")

    def hold():
        with pytest.raises(PlantUnavailableError):
            plant.observe(1.0)

    holder = threading.Thread(target=hold)
    asked = len(server.requests)
    holder.start()
    while len(server.requests) == asked:
        time.sleep(0.01)
    with pytest.raises(PlantUnavailableError, match="another request held the connection"):
        plant.observe(SHORT_S)
    holder.join()


def test_a_server_that_closes_idle_connections_is_reached_again(start_fake_qecs, connected):
    """A kept connection that the server closed meanwhile is replaced, for reads and for commits."""
    server = start_fake_qecs("closes_unasked")
    plant = connected(server)
    for number in range(5):
        assert len(plant.observe(5.0)) == 1
        assert plant.commit({"id": f"t{number}", "sender": "a", "receiver": "b", "amount": 100}).approved
    assert server.balance("a") == 999_500


def test_another_page_is_no_plant(start_fake_qecs, make_plant):
    """A server that has none of the routes is not taken for a plant."""
    server = start_fake_qecs()
    with pytest.raises(PlantUnavailableError, match="expected a QECS server"):
        make_plant(f"{server.url}/elsewhere").connect(5.0)


def test_a_plant_that_was_never_connected_to_says_so(start_fake_qecs, make_plant):
    """Its capabilities are not known before."""
    with pytest.raises(PlantUnavailableError, match="connect first"):
        _ = make_plant(start_fake_qecs().url).info


# --- permission and configuration -----------------------------------------------------------------------------------


def test_a_refused_token_is_a_matter_of_permission_at_the_connection_and_a_refusal_later(
    start_fake_qecs, connected, make_plant
):
    """At the start it ends the run with 77; in a run it refuses a single call."""
    server = start_fake_qecs()
    plant = connected(server)
    server.turn("unauthorized")
    with pytest.raises(PlantRefusedError, match=r"who are you\? \(HTTP 401\)"):
        plant.commit({"id": "t", "sender": "a", "receiver": "b", "amount": 1})
    with pytest.raises(NotPermittedError, match="configure a token") as caught:
        make_plant(server.url, token="s3cret-token").connect(5.0)  # noqa: S106 - made up
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_token_that_cannot_be_sent_is_refused_unseen(token, make_plant):
    """It is refused at once, and not shown."""
    with pytest.raises(ConfigInvalidError) as caught:
        make_plant("http://127.0.0.1:1", token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with http:// or https://"),
        ("127.0.0.1:8080", "must begin with http:// or https://"),
        ("ftp://host/", "must begin with http:// or https://"),
        ("http://", "names no host"),
        ("http://host:0", "port 0"),
        ("http://host:99999", "is not a URL"),
        ("http://host:eighty", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://me:secret@host", "must not hold credentials"),
        ("http://host/path?query", "without \\? or #"),
        ("http://ho st/", "without blanks"),
        ("http://host/\n", "without blanks"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(url, words, make_plant):
    """Each problem of the plant's URL is named before anything is sent."""
    with pytest.raises(ConfigInvalidError, match=words) as caught:
        make_plant(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://host", "http://host:80"),
        ("https://host/qecs/", "https://host:443/qecs"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_a_good_url_is_kept(url, plain):
    """Default ports, IPv6 addresses and path prefixes are understood."""
    assert endpoint.parse_endpoint(url).url == plain


# --- our own server, and others that claim its capabilities ---------------------------------------------------------


def test_no_tick_is_missed_however_late_we_ask(start_qecs, connected):
    """All ticks since the last look come at once, oldest first; without a new one there is none."""
    server = start_qecs()
    plant = connected(server)
    assert [item.tick for item in plant.observe(5.0)] == [1]
    for _ in range(7):
        server.host.tick()
    assert [item.tick for item in plant.observe(5.0)] == [2, 3, 4, 5, 6, 7, 8]
    assert plant.observe(5.0) == []


def test_a_live_server_is_followed_without_a_gap(start_qecs, connected):
    """Polling a server that ticks by itself sees every tick once."""
    plant = connected(start_qecs(interval_s=0.01, live=True))
    seen = []
    while len(seen) < 40:
        seen += [item.tick for item in plant.observe(5.0)]
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    state = plant.ledger()
    assert set(state.node_tips.values()) == {state.tip}


def test_what_a_server_does_not_allow_is_unsupported(start_qecs, connected):
    """A server without faults refuses them before anything is sent."""
    plant = connected(start_qecs(allow_faults=False))
    assert plant.info.capabilities == set(Capability) - {Capability.FAULTS}
    with pytest.raises(UnsupportedError, match="does not offer faults"):
        plant.inject({"id": "f", "kind": "silent", "count": 1}, key="k", epoch=1)


def good_answers():
    """The routes of a minimal server that claims capabilities, as JSON values; tests spoil them."""
    constants = {"nodes": ["a", "b", "c"], "clusters": ["x"], "cluster_of": [0, 0, 0]}
    floats = ("phase", "participation", "arrivals", "commits", "retries", "shed", "invalid", "queue", "balance")
    tick = {
        "tick": 5,
        "plant_time_s": 5.0,
        "kpis": {"coherence": 0.96, "gas": None},
        "safe_mode": False,
        "parameters": Parameters().as_dict(),
        "signals": {**{name: [0.5, 1, None] for name in floats}, "active": [True, True, False]},
    }
    return {
        "/capabilities": {
            "system": "qecs",
            "version": "9",
            "capabilities": ["nodes", "isolate", "parameters", "ledger", "commit", "faults", "levitate"],
            "interval_s": 1.0,
            "seed": None,
            "nodes": 3,
        },
        "/nodes": {**constants, **tick},
        "/observations": {**constants, "latest_tick": 5, "observations": [tick]},
    }


class Canned:
    """A server that answers GET with what `answers` holds for the path (or returns), and everything else with 404."""

    def __init__(self, fake):
        self.answers = good_answers()
        self.url = fake.url
        fake.get = self.get

    def get(self, path):
        found = self.answers.get(path.partition("?")[0])
        if found is None:
            return 404, {"status": "error", "message": "not found"}
        return 200, found() if callable(found) else found


@pytest.fixture
def canned(start_fake_qecs):
    return Canned(start_fake_qecs())


def test_a_minimal_server_is_understood(canned, connected):
    """Unknown capabilities are ignored, whole numbers are numbers, null is unknown, more fields do no harm."""
    canned.answers["/observations"]["extra"] = {"deep": [1]}
    plant = connected(canned)
    assert plant.info.capabilities == set(Capability)
    (seen,) = plant.observe(5.0)
    assert np.array_equal(seen.signals.phase, [0.5, 1.0, math.nan], equal_nan=True)
    assert seen.signals.active.tolist() == [True, True, False]
    assert seen.kpis["coherence"] == 0.96
    assert math.isnan(seen.kpis["gas"])


@pytest.mark.parametrize("value", ["0.5", True, [1], {}, 10**400])
def test_a_signal_that_is_no_number_is_unknown(canned, value, connected):
    """One node's nonsense is that node's unknown signal, and nobody else's."""
    canned.answers["/observations"]["observations"][0]["signals"]["phase"] = [0.5, value, -1]
    (seen,) = connected(canned).observe(5.0)
    assert np.array_equal(seen.signals.phase, [0.5, math.nan, -1.0], equal_nan=True)


def test_an_infinite_signal_is_unknown(canned, monkeypatch, connected):
    """A number beyond all floats is no evidence."""
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda value: dumps(value).replace('"INF"', "1e999"))
    canned.answers["/observations"]["observations"][0]["signals"]["queue"] = [0.5, "INF", 3]
    (seen,) = connected(canned).observe(5.0)
    assert np.array_equal(seen.signals.queue, [0.5, math.nan, 3.0], equal_nan=True)


TICK_SPOILERS = {
    "a tick below zero": {"tick": -1},
    "a tick beyond reason": {"tick": 2**60},
    "a tick that is a fraction": {"tick": 5.5},
    "a tick that is text": {"tick": "5"},
    "time that is unknown": {"plant_time_s": None},
    "time below zero": {"plant_time_s": -1.0},
    "time beyond nanoseconds": {"plant_time_s": 1e10},
    "a safe mode that is a number": {"safe_mode": 0},
    "figures that are a list": {"kpis": []},
    "too many figures": {"kpis": {f"k{n}": 0 for n in range(2000)}},
    "parameters out of bounds": {"parameters": {**Parameters().as_dict(), "lambda1": 7}},
    "parameters that lack one": {"parameters": {"lambda1": 0.3}},
    "signals that are missing": {"signals": {}},
    "an old tick": {"tick": 4},
}


@pytest.mark.parametrize("name", TICK_SPOILERS)
def test_an_observation_that_does_not_fit_is_unintelligible(canned, name, connected):
    """A tick that cannot be used as a whole is not used at all, and the next good one is."""
    plant = connected(canned)
    canned.answers["/observations"]["observations"][0].update(TICK_SPOILERS[name])
    with pytest.raises(PlantUnavailableError, match="expected"):
        plant.observe(5.0)
    canned.answers = good_answers()
    assert [item.tick for item in plant.observe(5.0)] == [5]


@pytest.mark.parametrize(
    ("signal", "values"),
    [
        ("phase", [0.1, 0.2]),
        ("phase", [0.1, 0.2, 0.3, 0.4]),
        ("phase", "0.1"),
        ("active", [True, True, 1]),
        ("active", [True, True, None]),
        ("active", [True]),
    ],
)
def test_a_signal_that_does_not_fit_the_nodes_is_unintelligible(canned, signal, values, connected):
    """Columns of another length are never cut or filled, and nobody guesses who is active."""
    canned.answers["/observations"]["observations"][0]["signals"][signal] = values
    plant = connected(canned)
    with pytest.raises(PlantUnavailableError, match=f"expected {signal} to be a list"):
        plant.observe(5.0)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": ["a", "b", "z"]},
        {"nodes": ["a", "b"]},
        {"clusters": ["y"]},
        {"cluster_of": [0, 0, 1]},
        {"latest_tick": 3},
        {"observations": [{}] * 600},
        {"observations": [7]},
    ],
)
def test_a_plant_that_is_no_longer_the_one_is_unintelligible(canned, change, connected):
    """Other nodes, or a tick that lies behind us, are another plant: nothing is concluded from it."""
    plant = connected(canned)
    canned.answers["/observations"].update(change)
    with pytest.raises(PlantUnavailableError, match="expected"):
        plant.observe(5.0)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": []},
        {"nodes": ["a", "a", "b"]},
        {"nodes": ["a", "", "b"]},
        {"nodes": ["a", 7, "b"]},
        {"cluster_of": [0, 0]},
        {"cluster_of": [0, 0, 1]},
        {"cluster_of": [0, 0, -1]},
        {"cluster_of": [0, 0, True]},
        {"cluster_of": None},
        {"tick": 0},
    ],
)
def test_nodes_that_cannot_be_are_refused_at_the_connection(canned, change, make_plant):
    """No names, doubled names, or clusters that do not exist: the plant is not governed."""
    canned.answers["/nodes"].update(change)
    with pytest.raises(PlantUnavailableError, match="expected"):
        make_plant(canned.url).connect(5.0)


@pytest.mark.parametrize(
    "change",
    [
        {"capabilities": "nodes"},
        {"capabilities": ["nodes", 3]},
        {"nodes": 0},
        {"nodes": 10**7},
        {"interval_s": -1},
        {"interval_s": None},
        {"seed": "3"},
        {"system": None},
    ],
)
def test_capabilities_that_cannot_be_are_refused(canned, change, make_plant):
    """A server that states its capabilities has to state them properly."""
    canned.answers["/capabilities"].update(change)
    with pytest.raises(PlantUnavailableError, match="expected"):
        make_plant(canned.url).connect(5.0)


def test_a_capability_whose_route_is_missing_is_unsupported(canned, connected):
    """A server that promises more than it has is told so."""
    plant = connected(canned)
    key = {"key": "k", "epoch": 1}
    for call in (
        plant.isolated,
        plant.parameters,
        plant.ledger,
        lambda: plant.blocks(0, 10),
        lambda: plant.isolate("a", ttl_s=9.0, **key),
        lambda: plant.apply(Parameters(), **key),
    ):
        with pytest.raises(UnsupportedError, match="has no route"):
            call()
    for call in (lambda: plant.balance("a"), lambda: plant.inject({}, **key)):
        with pytest.raises(PlantError):
            call()


def test_a_server_with_capabilities_but_without_nodes_is_observed_by_its_figures(canned, connected):
    """Without nodes nobody can be isolated, whatever is claimed."""
    canned.answers["/capabilities"]["capabilities"] = ["isolate", "commit"]
    canned.answers["/field/curvature_metrics"] = {"timestamp": 1.5, "cs": 0.97}
    canned.answers["/system/status"] = {}
    plant = connected(canned)
    assert plant.info.capabilities == {Capability.COMMIT}
    (seen,) = plant.observe(5.0)
    assert (seen.kpis, seen.topology) == ({"coherence": 0.97}, None)


def test_a_server_that_counts_ticks_is_believed_its_ticks(canned, connected):
    """Tick and plant time of the server go before its timestamp."""
    del canned.answers["/capabilities"]
    canned.answers["/system/status"] = {}
    canned.answers["/field/curvature_metrics"] = {"timestamp": 1.5, "tick": 40, "plant_time_s": 40.0, "cs": 0.97}
    plant = connected(canned)
    assert [item.tick for item in plant.observe(5.0)] == [40]
    canned.answers["/field/curvature_metrics"]["timestamp"] = 2.5
    assert plant.observe(5.0) == ()
    canned.answers["/field/curvature_metrics"].update(tick=43, plant_time_s=43.0)
    assert [(item.tick, item.plant_time_s) for item in plant.observe(5.0)] == [(43, 3.0)]
    canned.answers["/field/curvature_metrics"].update(tick=2, plant_time_s=2.0)
    with pytest.raises(PlantUnavailableError, match="went back to tick 2"):
        plant.observe(5.0)


def test_tips_without_their_ledger_are_not_taken_for_a_fork(canned, connected):
    """Node tips can only be compared with a ledger of the same moment, so an answer without one is unintelligible."""
    canned.answers["/ledger/tips"] = {"tips": [], "nodes": [], "tip_of": []}
    plant = connected(canned)
    with pytest.raises(PlantUnavailableError, match="ledger: expected a JSON object"):
        plant.ledger()


# --- TLS ------------------------------------------------------------------------------------------------------------


@contextmanager
def tls_server(folder, answer):
    """A server for one connection at a time, under a certificate of its own making for 127.0.0.1."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*made, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve():
            while not stopping.is_set():
                try:
                    plain, _ = listener.accept()
                except TimeoutError:
                    continue
                plain.settimeout(PATIENCE_S)
                try:
                    with context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(65536)
                        answer(secured, stopping)
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}", certificate
        finally:
            stopping.set()
            thread.join()


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


@needs_openssl
def test_tls_is_spoken_with_servers_whose_certificate_is_trusted_and_no_others(tmp_path, monkeypatch, make_plant):
    """A certificate that nobody vouches for is refused; a trusted one is accepted."""

    def not_found(connection, _):
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    with tls_server(tmp_path, not_found) as (url, certificate):
        with pytest.raises(PlantUnavailableError, match="its certificate is not trusted"):
            make_plant(url).connect(5.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(PlantUnavailableError, match="expected a QECS server"):
            make_plant(url).connect(5.0)


@needs_openssl
def test_the_deadline_is_total_over_tls(tmp_path, monkeypatch, make_plant):
    """Dripping under TLS is no way around it."""

    def drip(connection, stopping):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stopping.wait(0.02):
            connection.sendall(b"z")

    with tls_server(tmp_path, drip) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        began_s = time.monotonic()
        with pytest.raises(PlantUnavailableError, match="not complete"):
            make_plant(url).connect(SHORT_S)
        assert time.monotonic() - began_s < PATIENCE_S
