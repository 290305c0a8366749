"""What is a block, byte for byte? The ledger's values and the layout that everybody can recompute.

Three kinds of block, heights from 0 without a gap:

- *genesis* (height 0): who owns what at the start;
- *tick*: the flows of one tick, aggregated per node;
- *commit*: one single transaction from `POST /ledger/commit`.

Byte layout
-----------
Header hash = SHA-256(0x02 || canonical header). The canonical header is the JSON object of `Header.to_dict`
with sorted keys and no white space, in ASCII: it holds integers, strings and nulls only. Floats are written as
C99 hexadecimal (`float.hex`), so that no reader can round them. `previous_hash` is the hash of the header one
below (64 zeros for genesis), `root` the Merkle root over the block's leaves (see `qecs.merkle`):

- genesis: one leaf a cluster, its nodes' balances as little-endian int64;
- tick: one leaf a cluster, its nodes' `committed`, then `paid`, `received`, `emitted`, `burned`, each as
  little-endian int64 (40 bytes a node);
- commit: one leaf, the UTF-8 bytes of the entry (`qecs.commits` says what it holds).

Cluster c owns the nodes `bounds[c] : bounds[c + 1]`.

Left out: signatures. The chain is tamper-evident against whoever knows a tip, not against whoever can rewrite all
of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qecs.flows import EmissionInputs
from qecs.merkle import leaf_hash, merkle_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qecs.flows import TickFlows

T = TypeVar("T", int, str)

NO_HASH = "0" * 64
FLOW_COLUMNS = ("committed", "paid", "received", "emitted", "burned")

_HEADER = b"\x02"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class BlockKind(StrEnum):
    """What a block records."""

    GENESIS = "genesis"
    TICK = "tick"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a chain: its height and the hexadecimal hash of its last header."""

    height: int
    hash: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a block claims; chained to the one below by `previous_hash`.

    Attributes:
        height: position in the chain, from 0.
        kind: what the block records.
        previous_hash: hexadecimal hash of the header below.
        root: hexadecimal Merkle root over the leaves.
        supply: tokens in existence after this block.
        emission: tokens minted by this block.
        burn: tokens burned by this block.
        tick: the tick of a tick block; for a commit the latest one before it.
        inputs: what a tick's emission was computed from; None for the other kinds.
    """

    height: int
    kind: BlockKind
    previous_hash: str
    root: str
    supply: int
    emission: int
    burn: int
    tick: int
    inputs: EmissionInputs | None

    def to_dict(self) -> dict[str, int | str | None]:
        """Return the header as JSON-ready integers, strings and nulls."""
        inputs = self.inputs
        return {
            "height": self.height,
            "kind": self.kind.value,
            "previous_hash": self.previous_hash,
            "root": self.root,
            "supply": self.supply,
            "emission": self.emission,
            "burn": self.burn,
            "tick": self.tick,
            "coherence_30": None if inputs is None else float(inputs.coherence_30).hex(),
            "gas_target": None if inputs is None else float(inputs.gas_target).hex(),
            "supply_genesis": None if inputs is None else float(inputs.supply_genesis).hex(),
            "alpha": None if inputs is None else float(inputs.alpha).hex(),
            "carry": None if inputs is None else float(inputs.carry).hex(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Header:
        """Return the header that `to_dict` wrote.

        Raises:
            ValueError: a field is missing or is not what `to_dict` writes.
        """
        try:
            header = cls(
                height=_typed(fields, "height", int),
                kind=BlockKind(fields["kind"]),
                previous_hash=_typed(fields, "previous_hash", str),
                root=_typed(fields, "root", str),
                supply=_typed(fields, "supply", int),
                emission=_typed(fields, "emission", int),
                burn=_typed(fields, "burn", int),
                tick=_typed(fields, "tick", int),
                inputs=None if fields["coherence_30"] is None else _inputs_from(fields),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a block header: {error}") from error
        if header.to_dict() != dict(fields):
            raise ValueError("not a block header: it does not read back as it was written")
        return header

    def canonical(self) -> bytes:
        """Return the bytes over which the header is hashed."""
        return _ENCODER.encode(self.to_dict()).encode("ascii")

    def hash(self) -> str:
        """Return the hexadecimal hash that chains the next block to this one."""
        return sha256(_HEADER + self.canonical()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class GenesisBody:
    """Who owns what at the start.

    Attributes:
        balances: int64, tokens of each node.
        bounds: int64, cluster c owns the nodes `bounds[c] : bounds[c + 1]`.
    """

    balances: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def leaf_hashes(self) -> list[bytes]:
        """Return the 32-byte hash of each cluster's leaf."""
        view = self.balances.data.cast("B")
        return [leaf_hash(view[start:end]) for start, end in _byte_spans(self.bounds)]

    def to_bytes(self) -> bytes:
        """Return the balances of all nodes as stored."""
        return self.balances.tobytes()

    def to_dict(self) -> dict[str, Any]:
        """Return the balances and cluster bounds as lists."""
        return {"balances": self.balances.tolist(), "cluster_bounds": self.bounds.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class TickBody:
    """The flows of one tick.

    Attributes:
        columns: int64, shape (5, nodes), rows as in `FLOW_COLUMNS`.
        bounds: int64, cluster c owns the nodes `bounds[c] : bounds[c + 1]`.
    """

    columns: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, flows: TickFlows, bounds: NDArray[np.int64]) -> TickBody:
        """Return a copy of the flows, in the layout that is hashed."""
        columns = np.empty((len(FLOW_COLUMNS), int(bounds[-1])), dtype="<i8")
        for row, name in enumerate(FLOW_COLUMNS):
            columns[row] = getattr(flows, name)
        return cls(columns, bounds)

    def column(self, name: str) -> NDArray[np.int64]:
        """Return one of `FLOW_COLUMNS`, int64, one entry a node."""
        column: NDArray[np.int64] = self.columns[FLOW_COLUMNS.index(name)]
        return column

    def balance_change(self) -> NDArray[np.int64]:
        """Return what the tick added to each node's balance, int64 tokens."""
        return self.column("received") + self.column("emitted") - self.column("paid")

    def leaf_hashes(self) -> list[bytes]:
        """Return the 32-byte hash of each cluster's leaf: its nodes' five columns, one after the other."""
        view = self.columns.data.cast("B")
        rows = range(0, self.columns.nbytes, self.columns.strides[0])
        return [leaf_hash(*[view[row + start : row + end] for row in rows]) for start, end in _byte_spans(self.bounds)]

    def to_bytes(self) -> bytes:
        """Return the columns of all nodes as stored."""
        return self.columns.tobytes()

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as lists."""
        return {name: self.column(name).tolist() for name in FLOW_COLUMNS}


@dataclass(frozen=True, slots=True)
class CommitBody:
    """A single transaction, as the canonical JSON text that is hashed."""

    entry: str

    def leaf_hashes(self) -> list[bytes]:
        """Return the 32-byte hash of the one leaf."""
        return [leaf_hash(self.to_bytes())]

    def to_bytes(self) -> bytes:
        """Return the entry as stored and hashed."""
        return self.entry.encode()

    def to_dict(self) -> dict[str, Any]:
        """Return the exact text, since hashing a re-encoded object would depend on the encoder."""
        return {"entry": self.entry}


Body = GenesisBody | TickBody | CommitBody


@dataclass(frozen=True, slots=True)
class Block:
    """A header, its recorded hash, and its body while that is still held (else None)."""

    header: Header
    hash: str
    body: Body | None

    def to_dict(self) -> dict[str, Any]:
        """Return what an outsider needs to recompute leaves, root and hash."""
        body = None if self.body is None else self.body.to_dict()
        return {"header": self.header.to_dict(), "hash": self.hash, "body": body}


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys and no white space, in ASCII.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return _ENCODER.encode(value)


def body_root(body: Body) -> str:
    """Return the hexadecimal Merkle root over the body's leaves."""
    return merkle_root(body.leaf_hashes()).hex()


def _byte_spans(bounds: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where each cluster's entries start and end within an int64 column, in bytes."""
    return list(pairwise((8 * bounds).tolist()))


def _typed(fields: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a field that must be exactly of type `kind` (a bool is no int)."""
    value = fields[name]
    if type(value) is not kind:
        raise TypeError(f"{name} must be {kind.__name__}, not {value!r}")
    return value


def _inputs_from(fields: Mapping[str, Any]) -> EmissionInputs:
    return EmissionInputs(
        coherence_30=float.fromhex(fields["coherence_30"]),
        gas_target=float.fromhex(fields["gas_target"]),
        supply_genesis=int(float.fromhex(fields["supply_genesis"])),
        alpha=float.fromhex(fields["alpha"]),
        carry=float.fromhex(fields["carry"]),
    )
