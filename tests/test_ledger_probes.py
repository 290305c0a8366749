"""The five questions to a live ledger: right answers pass, each wrong one is found by the question made for it."""

from types import SimpleNamespace

import pytest

from controller.clock import VirtualClock
from controller.phases.ledger_probes import LedgerProbe
from controller.plants.embedded import EmbeddedPlant
from controller.plants.http import HttpPlant
from controller.plants.plant import CommitAnswer
from metrics.errors import PlantUnavailableError
from metrics.observation import Capability
from state.verdict import CheckStatus

QUESTIONS = ("good", "overdraft", "replay", "conflict", "malformed")


def session_on(plant, *, serving=(), sender=None):
    return SimpleNamespace(
        plant=plant,
        config=SimpleNamespace(plant=SimpleNamespace(probe_sender=sender)),
        offers=lambda capability: capability in plant.info.capabilities,
        serving=lambda: list(serving),
    )


def asked(plant, **options):
    """What the probe found: question to result."""
    probe = LedgerProbe(session_on(plant, **options), "probe/test", required=True)
    results = probe.run()
    assert [result.name for result in results] == [f"ledger.probe.{name}" for name in QUESTIONS]
    return probe, dict(zip(QUESTIONS, results, strict=True))


def statuses(results):
    return {name: result.status for name, result in results.items()}


@pytest.fixture
def embedded():
    plant = EmbeddedPlant(10, seed=1, clock=VirtualClock())
    for _ in range(3):
        plant.observe(1.0)
    return plant


@pytest.fixture
def fake(start_fake_qecs):
    """Call it with vices for a plant on a v1.5 server that has them."""
    plants = []

    def connected(*vices):
        server = start_fake_qecs(*vices)
        plant = HttpPlant(server.url)
        plant.connect(5.0)
        plants.append(plant)
        return server, plant

    yield connected
    for plant in plants:
        plant.close()


class Wrong:
    """A plant that is sound but for what `answer` makes of its answers."""

    def __init__(self, plant, answer):
        self._plant, self._answer, self.info = plant, answer, plant.info

    def commit(self, transaction):
        return self._answer(transaction, self._plant.commit(transaction))

    def balance(self, account):
        return self._plant.balance(account)


def test_a_sound_ledger_passes_and_is_left_as_it_was(embedded):
    """All five answers are right, and what the probe moved goes back but for fees and burn."""
    before = embedded.balance("node-0000")
    probe, results = asked(embedded, serving=["node-0000", "node-0001"])
    assert set(statuses(results).values()) == {CheckStatus.PASSED}
    assert embedded.balance("probe/test/a") == 995
    probe.undo()
    assert embedded.balance("probe/test/a") == 0
    assert embedded.balance("node-0000") == before - 1000 + 995 - 4


def test_a_sound_v15_server_passes_without_readable_balances(fake):
    """Where balances cannot be read, the same five answers are enough."""
    _, plant = fake()
    _, results = asked(plant)
    assert set(statuses(results).values()) == {CheckStatus.PASSED}


@pytest.mark.parametrize(
    ("vice", "failed"),
    [
        ("approves_everything", {"overdraft", "conflict", "malformed"}),
        ("approves_overdrafts", {"overdraft"}),
        ("approves_malformed", {"malformed"}),
        ("approves_conflicts", {"conflict"}),
        ("executes_replays", {"replay"}),
    ],
)
def test_each_wrong_answer_of_a_v15_server_is_found_by_its_question(fake, vice, failed):
    """A server with one vice fails the question that asks for it."""
    _, results = asked(fake(vice)[1])
    found = {name for name, status in statuses(results).items() if status is CheckStatus.FAILED}
    assert found >= failed
    assert found <= failed | {"replay"}


def test_a_server_that_refuses_everything_is_inconclusive(fake):
    """Nothing was approved, so nothing is known; the server's own words and the way out are given."""
    _, results = asked(fake("rejects_everything")[1])
    assert results["good"].status is CheckStatus.INCONCLUSIVE
    assert "closed for stocktaking" in results["good"].message
    assert "plant.probe_sender" in results["good"].message
    assert {results[name].status for name in ("replay", "conflict")} == {CheckStatus.INCONCLUSIVE}


@pytest.mark.parametrize("vice", ["garbage", "server_errors", "wrong_shape", "truncated_body"])
def test_unintelligible_answers_never_pass(fake, vice):
    """A server that begins to talk nonsense gives no passed question."""
    server, plant = fake()
    server.turn(vice)
    _, results = asked(plant)
    assert CheckStatus.PASSED not in statuses(results).values()


def test_a_replay_executed_in_secret_is_found_by_the_balance(embedded):
    """The same answer again, and yet money moved twice: the balance tells."""

    def secretly(transaction, answer):
        if transaction["id"].endswith("good-0") and embedded.balance("probe/test/a") == 995:
            embedded.commit({**transaction, "id": "again"})
        return answer

    first = []

    def on_replay(transaction, answer):
        if transaction["id"].endswith("good-0") and transaction["amount"] == 1000:
            first.append(answer)
            return secretly(transaction, answer) if len(first) > 1 else answer
        return answer

    _, results = asked(Wrong(embedded, on_replay), serving=["node-0000"])
    assert results["replay"].status is CheckStatus.FAILED
    assert "executed twice" in results["replay"].message


def test_an_approval_that_moves_the_wrong_sum_fails(embedded):
    """An approved transaction that credits anything but 995 of 1000 is wrong."""

    def generous(transaction, answer):
        if transaction["id"].endswith("good-0"):
            embedded.commit({"id": "gift", "sender": "node-0001", "receiver": "probe/test/a", "amount": 50})
        return answer

    _, results = asked(Wrong(embedded, generous), serving=["node-0000"])
    assert results["good"].status is CheckStatus.FAILED
    assert results["good"].observed == 1045


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"status": "APPROVED"}, "without a tx_id"),
        ({"status": "APPROVED", "tx_id": "x", "C_system": "high"}, "not a number"),
        ({"status": "APPROVED", "tx_id": "x", "C_system": True}, "not a number"),
        ({"status": "APPROVED", "tx_id": "x", "C_system": float("inf")}, "inf"),
    ],
)
def test_an_approval_must_be_whole(embedded, body, words):
    """An approval without a name for the transaction, or with nonsense beside it, is no approval."""
    plant = Wrong(embedded, lambda _, answer: CommitAnswer(200, "APPROVED", body) if answer.approved else answer)
    _, results = asked(plant, serving=["node-0000"])
    assert results["good"].status is CheckStatus.FAILED
    assert words in results["good"].message


def test_a_refusal_to_one_who_can_pay_fails(embedded):
    """Where balances show that the sender has the money, a refusal is wrong."""
    plant = Wrong(embedded, lambda *_: CommitAnswer(400, "REJECTED", {"reason": "no mood"}))
    _, results = asked(plant, serving=["node-0000"])
    assert results["good"].status is CheckStatus.FAILED
    assert "no mood" in results["good"].message


def test_a_configured_sender_pays(embedded):
    """`plant.probe_sender` is who pays, and nobody else."""
    before = embedded.balance("node-0007")
    _, results = asked(embedded, serving=["node-0000"], sender="node-0007")
    assert results["good"].status is CheckStatus.PASSED
    assert embedded.balance("node-0007") < before


def test_a_repetition_may_be_marked_as_one(embedded):
    """A first answer that comes again with a time or a mark of its own is still the first answer."""
    count = iter(range(100))

    def marked(_, answer):
        number = next(count)
        return CommitAnswer(
            answer.http_status, answer.status, {**answer.body, "timestamp": number, "replayed": number > 0}
        )

    _, results = asked(Wrong(embedded, marked), serving=["node-0000"])
    assert results["replay"].status is CheckStatus.PASSED


def test_a_plant_that_goes_away_in_between_is_an_error_of_each_question_after(embedded):
    """No answer is no pass."""
    gone = []

    def vanishing(_, answer):
        if gone:
            raise PlantUnavailableError("gone")
        gone.append(True)
        return answer

    _, results = asked(Wrong(embedded, vanishing), serving=["node-0000"])
    assert results["good"].status is CheckStatus.PASSED
    assert {results[name].status for name in QUESTIONS[1:]} == {CheckStatus.ERROR}
    assert Capability.LEDGER in embedded.info.capabilities
