"""Does the live ledger answer a transaction rightly? Asked from outside, with accounts of our own.

Five questions, each with one right answer: a good transaction, an overdraft, an identical replay (the first answer
again, and no second execution), a replay of the id with other content, and malformed ones. They work on any server that
takes `POST /ledger/commit`: where balances can be read they are compared to the token, where they cannot, a second
execution is found by emptying the receiving account first and then trying to spend more than it was sent once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from controller.plants.plant import CommitAnswer
from controller.session import Session
from metrics.errors import PlantError
from metrics.observation import Capability
from state.verdict import CheckResult, CheckStatus

AMOUNT = 1000
CREDITED = 995  # 1000 less half of the fee of a hundredth, which is burned
OVERDRAFT = 10**15
DRAIN_BITS = 40
SENDERS_MAX = 3
# What may differ between a first answer and its repetition without changing what was answered.
VOLATILE = frozenset({"timestamp", "time", "replayed", "replay", "duplicate", "idempotent", "cached"})
OK = 200
CLIENT_ERRORS = range(400, 500)


class LedgerProbe:
    """The probes of one run.

    Args:
        session: the run.
        name: prefix of every account and transaction id, unique at the plant.
        required: whether the phase needs the probes to pass.
    """

    def __init__(self, session: Session, name: str, *, required: bool) -> None:
        self._session = session
        self._name = name
        self._required = required
        self._sender: str | None = None
        self._first: tuple[dict[str, object], CommitAnswer] | None = None
        self._receiver_was_empty = False

    def run(self) -> list[CheckResult]:
        """Ask everything, in the order in which the answers build on each other."""
        questions: tuple[tuple[str, Callable[[], CheckResult]], ...] = (
            ("good", self._good),
            ("overdraft", self._overdraft),
            ("replay", self._replay),
            ("conflict", self._conflict),
            ("malformed", self._malformed),
        )
        results = []
        for name, ask in questions:
            try:
                results.append(ask())
            except PlantError as error:
                results.append(self._result(name, CheckStatus.ERROR, f"no intelligible answer: {error}"))
        return results

    def undo(self) -> None:
        """Send back what the receiving account still holds; a refusal leaves a few tokens, which is said nowhere."""
        if self._first is None or self._sender is None:
            return
        held = self._balance(self._receiver)
        amount = CREDITED if held is None else held
        if amount > 0:
            self._commit("undo", self._receiver, self._sender, amount)

    @property
    def _receiver(self) -> str:
        return f"{self._name}/a"

    def _good(self) -> CheckResult:
        self._receiver_was_empty = self._empty_receiver()
        refusals = []
        for number, sender in enumerate(self._senders()):
            before = self._balance(sender)
            transaction = self._transaction(f"good-{number}", sender, self._receiver, AMOUNT)
            answer = self._session.plant.commit(transaction)
            if answer.approved:
                self._sender, self._first = sender, (transaction, answer)
                return self._judge_good(answer)
            if answer.http_status not in CLIENT_ERRORS:
                text = f"a good transaction was answered {answer.http_status} {answer.status!r}"
                return self._result("good", CheckStatus.FAILED, text, observed=answer.status)
            if before is not None and before >= AMOUNT:
                text = f"{sender} holds {before} tokens, yet: {answer.reason}"
                return self._result("good", CheckStatus.FAILED, text, observed=answer.status)
            refusals.append(f"{sender}: {answer.reason}")
        text = f"no account could pay ({'; '.join(refusals)}): name a funded one with plant.probe_sender"
        return self._result("good", CheckStatus.INCONCLUSIVE, text)

    def _judge_good(self, answer: CommitAnswer) -> CheckResult:
        """An approval must name its transaction, and move the money exactly."""
        if not answer.body.get("tx_id"):
            return self._result("good", CheckStatus.FAILED, "approved without a tx_id", observed=answer.status)
        coherence = answer.body.get("C_system")
        if isinstance(coherence, bool) or not (coherence is None or isinstance(coherence, int | float)):
            return self._result("good", CheckStatus.FAILED, f"C_system is {coherence!r}, not a number")
        if isinstance(coherence, float) and not math.isfinite(coherence):
            return self._result("good", CheckStatus.FAILED, f"C_system is {coherence}")
        held = self._balance(self._receiver)
        if held is not None and held != CREDITED:
            text = f"the receiver holds {held} tokens after {AMOUNT} were sent, not {CREDITED}"
            return self._result("good", CheckStatus.FAILED, text, observed=held, threshold=CREDITED)
        return self._result("good", CheckStatus.PASSED, "approved, balances exact", observed=held, threshold=CREDITED)

    def _overdraft(self) -> CheckResult:
        sender = self._sender or self._senders()[0]
        answer = self._commit("overdraft", sender, self._receiver, OVERDRAFT)
        if answer.http_status in CLIENT_ERRORS:
            return self._result("overdraft", CheckStatus.PASSED, f"refused: {answer.reason}", answer.http_status)
        text = f"{OVERDRAFT} tokens that {sender} cannot hold were answered {answer.status!r}"
        return self._result("overdraft", CheckStatus.FAILED, text, observed=answer.http_status)

    def _replay(self) -> CheckResult:
        if self._first is None:
            return self._not_asked("replay")
        transaction, first = self._first
        again = self._session.plant.commit(transaction)
        if not _same(first, again):
            text = "an identical replay was answered otherwise than the first time"
            evidence = {"first": dict(first.body), "again": dict(again.body)}
            return self._result("replay", CheckStatus.FAILED, text, again.http_status, evidence=evidence)
        held = self._balance(self._receiver)
        if held is not None and held != CREDITED:
            text = f"the receiver holds {held} tokens after the replay, not {CREDITED}: it was executed twice"
            return self._result("replay", CheckStatus.FAILED, text, observed=held, threshold=CREDITED)
        if held is None and self._receiver_was_empty and self._spends_too_much():
            text = f"the receiver could spend more than the {AMOUNT} it was sent: the replay was executed twice"
            return self._result("replay", CheckStatus.FAILED, text)
        return self._result("replay", CheckStatus.PASSED, "the first answer again, executed once")

    def _conflict(self) -> CheckResult:
        if self._first is None:
            return self._not_asked("conflict")
        transaction, _ = self._first
        answer = self._session.plant.commit({**transaction, "amount": AMOUNT + 1})
        if answer.http_status in CLIENT_ERRORS:
            return self._result("conflict", CheckStatus.PASSED, f"refused: {answer.reason}", answer.http_status, 409)
        text = f"a used id with other content was answered {answer.status!r}"
        return self._result("conflict", CheckStatus.FAILED, text, answer.http_status, 409)

    def _malformed(self) -> CheckResult:
        sender = self._sender or self._senders()[0]
        good = self._transaction("malformed", sender, self._receiver, AMOUNT)
        without_amount = {name: value for name, value in good.items() if name != "amount"}
        attempts: dict[str, Mapping[str, object]] = {
            "without an amount": without_amount,
            "with a negative amount": {**good, "id": f"{good['id']}-negative", "amount": -AMOUNT},
            "with a textual amount": {**good, "id": f"{good['id']}-text", "amount": "much"},
            "with half a token": {**good, "id": f"{good['id']}-half", "amount": 0.5},
        }
        wrong = []
        for what, transaction in attempts.items():
            answer = self._session.plant.commit(transaction)
            if answer.http_status not in CLIENT_ERRORS:
                wrong.append(f"{what}: {answer.http_status} {answer.status!r}")
        if wrong:
            text = f"malformed transactions were not refused: {'; '.join(wrong)}"
            return self._result("malformed", CheckStatus.FAILED, text, len(wrong), 0)
        return self._result("malformed", CheckStatus.PASSED, f"{len(attempts)} malformed ones refused", 0, 0)

    def _senders(self) -> list[str]:
        """Accounts that may be able to pay: the configured one, else a node, else one of our own."""
        configured = self._session.config.plant.probe_sender
        if configured is not None:
            return [configured]
        return [*self._session.serving()[:SENDERS_MAX]] or [f"{self._name}/s", "node-0000"]

    def _empty_receiver(self) -> bool:
        """Without readable balances: spend whatever a fresh account is given, so that what it gets can be counted."""
        if self._session.offers(Capability.LEDGER):
            return True
        if not self._commit("empty", self._receiver, f"{self._name}/b", 1).approved:
            return True
        for bit in range(DRAIN_BITS, -1, -1):
            self._commit(f"drain-{bit}", self._receiver, f"{self._name}/b", 1 << bit)
        return not self._commit("emptied", self._receiver, f"{self._name}/b", 1).approved

    def _spends_too_much(self) -> bool:
        return self._commit("spend", self._receiver, f"{self._name}/b", AMOUNT + AMOUNT // 2).approved

    def _balance(self, account: str) -> int | None:
        return self._session.plant.balance(account) if self._session.offers(Capability.LEDGER) else None

    def _commit(self, step: str, sender: str, receiver: str, amount: int) -> CommitAnswer:
        return self._session.plant.commit(self._transaction(step, sender, receiver, amount))

    def _transaction(self, step: str, sender: str, receiver: str, amount: int) -> dict[str, object]:
        return {"id": f"{self._name}/{step}", "sender": sender, "receiver": receiver, "amount": amount}

    def _not_asked(self, name: str) -> CheckResult:
        text = "not asked, since no good transaction was approved"
        return self._result(name, CheckStatus.INCONCLUSIVE, text)

    def _result(
        self,
        name: str,
        status: CheckStatus,
        message: str,
        observed: float | str | None = None,
        threshold: float | None = None,
        evidence: Mapping[str, object] | None = None,
    ) -> CheckResult:
        return CheckResult(
            f"ledger.probe.{name}",
            status,
            message,
            observed,
            threshold,
            evidence=evidence or {},
            required=self._required,
        )


def _same(first: CommitAnswer, again: CommitAnswer) -> bool:
    def kept(answer: CommitAnswer) -> dict[str, object]:
        return {name: value for name, value in answer.body.items() if name not in VOLATILE}

    return first.http_status == again.http_status and kept(first) == kept(again)
