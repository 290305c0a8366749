"""A QECS server in another process or on another machine, adapted to the `Plant` protocol.

A server that names its capabilities at `GET /capabilities` is held to them. One without that route is taken for what it
shows: the published figures and the commit route of QECS v1.5, no nodes, no isolation. What a server offers is asked
once, at the connection; from then on its restart, or other nodes, are errors until it is connected to again.

Every call ends by its total deadline. Writes carry an idempotency key and the epoch, so they may be sent again on a
fresh connection; a commit may not, and is sent once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from controller.plants.client import Client, Deadline, PermissionRefusedError
from controller.plants.endpoint import parse_endpoint
from controller.plants.field_nodes import NODES_MAX, FieldNodes, read_parameters
from controller.plants.field_v15 import FieldV15
from controller.plants.plant import CommitAnswer, LedgerState, LedgerTip, PlantInfo
from controller.plants.transport import ANSWER_MAX_BYTES, Transport
from controller.plants.wire import WHOLE_MAX, Fields, as_fields
from metrics.errors import NotPermittedError, PlantRefusedError, PlantUnavailableError, UnsupportedError
from metrics.observation import Capability, NodeId, Observation, Parameters

_ANSWER_BYTES_A_NODE: Final = 256  # ten signals of up to twenty digits, and the name
_TICK_S_MAX: Final = 86_400.0


class HttpPlant:
    """A QECS server; implements `Plant`. Calls from several threads take turns.

    Args:
        url: of the server, e.g. "http://127.0.0.1:8080".
        deadline_s: total time that a call may take, unless it is given one of its own.
        token: bearer token.
        monotonic_s: the clock by which the receipt of observations is timed, s.

    Raises:
        ConfigInvalidError: the URL or the token cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = 2.0,
        token: str | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        endpoint = parse_endpoint(url)
        self._url = endpoint.url
        self._deadline_s = deadline_s
        self._monotonic_s = monotonic_s
        self._transport = Transport(endpoint, token=token)
        self._client = Client(endpoint, self._transport)
        self._info: PlantInfo | None = None
        self._nodes: FieldNodes | None = None
        self._figures = FieldV15(self._client, monotonic_s)

    @property
    def info(self) -> PlantInfo:
        """What the server is and can.

        Raises:
            PlantUnavailableError: it was never connected to.
        """
        if self._info is None:
            raise PlantUnavailableError(f"{self._url}: what it can do is not known yet: connect first")
        return self._info

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the server and learn what it offers; also the way back after its restart.

        Raises:
            PlantUnavailableError: it does not answer, or not as a QECS server does.
            NotPermittedError: it wants a token, or another one.
        """
        deadline = Deadline(deadline_s)
        try:
            said = self._client.find("/capabilities", deadline)
            if said is None:
                self._info = self._connect_v15(deadline)
            else:
                self._info = self._connect(said, deadline)
        except PermissionRefusedError as error:
            raise NotPermittedError(f"{error}; configure a token that {self._url} accepts") from error
        return self._info

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks since the last call, oldest first; the first call begins with the latest tick."""
        field = self._figures if self._nodes is None else self._nodes
        return field.observe(Deadline(deadline_s))

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the server holds isolated, read now."""
        self._require(Capability.ISOLATE)
        return self._known_nodes().isolated(self._deadline())

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out for at most `ttl_s` of plant time; asking again under another key renews the limit."""
        self._switch("isolate", node, {"idempotency_key": key, "epoch": epoch, "ttl_s": ttl_s}, isolated=True)

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again."""
        self._switch("restore", node, {"idempotency_key": key, "epoch": epoch}, isolated=False)

    def parameters(self) -> Parameters:
        """The parameters in force, read now."""
        self._require(Capability.PARAMETERS)
        return read_parameters(self._client.get("/parameters", self._deadline(), offers=Capability.PARAMETERS))

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force."""
        self._require(Capability.PARAMETERS)
        body = {"parameters": parameters.as_dict(), "idempotency_key": key, "epoch": epoch}
        self._client.write("PUT", "/parameters", body, self._deadline(), offers=Capability.PARAMETERS)

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Start a fault, in the JSON form of `POST /faults`."""
        self._change_faults({"fault": dict(fault), "idempotency_key": key, "epoch": epoch})

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """End a fault."""
        self._change_faults({"clear": fault_id, "idempotency_key": key, "epoch": epoch})

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest epoch that the server has seen, 0 where it does not say; a controller claims a higher one."""
        said = self._client.find("/capabilities", Deadline(deadline_s))
        return said.whole("epoch") if said is not None and "epoch" in said.values else 0

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip, all of one moment."""
        self._require(Capability.LEDGER)
        return _ledger_state(self._client.get("/ledger/tips", self._deadline(), offers=Capability.LEDGER))

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Up to `limit` blocks from height `start` on; a server may give fewer, but none only beyond the tip."""
        self._require(Capability.LEDGER)
        route = f"/ledger/blocks?from={start}&limit={limit}"
        answer = self._client.get(route, self._deadline(), offers=Capability.LEDGER)
        return [as_fields(block, answer.where).values for block in answer.array("blocks", limit)]

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Offer a transaction to the live ledger, once; a refusal is an answer."""
        self._require(Capability.COMMIT)
        return self._client.commit("/ledger/commit", transaction, self._deadline())

    def balance(self, account: str) -> int:
        """The balance of a node or another account, tokens."""
        self._require(Capability.LEDGER)
        route = f"/ledger/accounts/{quote(account, safe='')}"
        return self._client.get(route, self._deadline()).whole("balance", -WHOLE_MAX)

    def close(self) -> None:
        """Let go of the connection; the server is left as it is."""
        self._transport.close()

    def _connect(self, said: Fields, deadline: Deadline) -> PlantInfo:
        """Take the server at its word; without nodes there is nothing to isolate."""
        offered = set(said.texts("capabilities", 100))
        capabilities = {capability for capability in Capability if capability in offered}
        if Capability.NODES in capabilities:
            nodes = said.whole("nodes", 1, NODES_MAX)
            self._transport.answer_max_bytes = max(ANSWER_MAX_BYTES, nodes * _ANSWER_BYTES_A_NODE)
            field = FieldNodes(self._client, self._monotonic_s)
            field.connect(deadline)
            self._nodes = field
        else:
            capabilities.discard(Capability.ISOLATE)
            self._connect_figures(deadline)
        return PlantInfo(
            name=self._url,
            system=f"{said.text('system')} {said.text('version')}",
            capabilities=frozenset(capabilities),
            seed=said.whole("seed", 0, 2**64 - 1) if said.values.get("seed") is not None else None,
            real_time=True,
            interval_s=said.finite("interval_s", 0.0, _TICK_S_MAX),
        )

    def _connect_v15(self, deadline: Deadline) -> PlantInfo:
        """Make do with the three routes of v1.5. How often it ticks it does not say."""
        self._connect_figures(deadline)
        return PlantInfo(
            name=self._url,
            system="qecs 1.5 (figures only)",
            capabilities=frozenset({Capability.COMMIT}),
            seed=None,
            real_time=True,
            interval_s=0.0,
        )

    def _connect_figures(self, deadline: Deadline) -> None:
        figures = FieldV15(self._client, self._monotonic_s)
        if not figures.probe(deadline):
            raise PlantUnavailableError(
                f"{self._url}: expected a QECS server, but it has neither /capabilities nor the field and status "
                "routes of v1.5; correct the URL"
            )
        self._figures, self._nodes = figures, None

    def _known_nodes(self) -> FieldNodes:
        if self._nodes is None:
            raise UnsupportedError(Capability.NODES)
        return self._nodes

    def _switch(self, verb: str, node: NodeId, body: Mapping[str, object], *, isolated: bool) -> None:
        self._require(Capability.ISOLATE)
        names = self._known_nodes().topology
        if node not in names.index:
            raise PlantRefusedError(
                f"to {verb} {node!r}", f"there is no node {node!r}; there are {names.nodes[0]} to {names.nodes[-1]}"
            )
        route = f"/nodes/{quote(node, safe='')}/{verb}"
        answer = self._client.write("POST", route, body, self._deadline(), offers=Capability.ISOLATE)
        if answer.flag("isolated") is not isolated:
            raise answer.unintelligible("isolated", str(isolated).lower(), answer.values["isolated"])

    def _change_faults(self, body: Mapping[str, object]) -> None:
        self._require(Capability.FAULTS)
        self._client.write("POST", "/faults", body, self._deadline(), offers=None)

    def _require(self, capability: Capability) -> None:
        if capability not in self.info.capabilities:
            raise UnsupportedError(capability)

    def _deadline(self) -> Deadline:
        return Deadline(self._deadline_s)


def _ledger_state(tips: Fields) -> LedgerState:
    # A summary of another moment would make every node seem to hold another tip than the ledger.
    summary = tips.fields("ledger")
    nodes = tips.texts("nodes", NODES_MAX)
    distinct = [_tip(as_fields(raw, tips.where)) for raw in tips.array("tips", NODES_MAX)]
    return LedgerState(
        tip=_tip(summary.fields("tip")),
        supply=_tokens(summary, "supply"),
        supply_genesis=_tokens(summary, "supply_genesis"),
        balances_total=_tokens(summary, "supply_nodes") + _tokens(summary, "supply_guests"),
        node_tips={
            NodeId(node): distinct[index]
            for node, index in zip(nodes, tips.indices("tip_of", len(nodes), len(distinct)), strict=True)
        },
    )


def _tip(said: Fields) -> LedgerTip:
    return LedgerTip(said.whole("height"), said.text("hash"))


def _tokens(said: Fields, name: str) -> int:
    """An amount as the server claims it: a negative one would be a finding, not a misunderstanding."""
    return said.whole(name, -WHOLE_MAX)
