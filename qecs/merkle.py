"""Is this leaf part of that root? Merkle trees with inclusion proofs, as in Certificate Transparency.

Hashing is SHA-256 with domain separation, so that no leaf can be passed off as an inner node:

    leaf hash  = SHA-256(0x00 || leaf bytes)
    node hash  = SHA-256(0x01 || left hash || right hash)

A tree of n leaves splits at the largest power of two below n. Built from below this is the same as pairing
neighbours and lifting an unpaired last one to the next level. The empty tree does not occur here: every block
has at least one leaf.

Source: RFC 6962 section 2.1 (tree and audit path), RFC 9162 section 2.1.3.2 (verification).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAF = b"\x00"
_NODE = b"\x01"
_COPIED_BYTES_MAX = 1 << 16  # up to here one copy costs less than hashing the parts one by one


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That one leaf is part of one block, checkable with nothing but the block's root.

    Attributes:
        height: the block.
        leaf_index: position of the leaf, from 0.
        leaf_count: leaves of the block.
        leaf_hash: hexadecimal hash of the leaf.
        path: hexadecimal hashes of the siblings, from the leaf up to the root.
        root: hexadecimal Merkle root that the block's header states.
    """

    height: int
    leaf_index: int
    leaf_count: int
    leaf_hash: str
    path: tuple[str, ...]
    root: str

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as JSON-ready values."""
        return {
            "height": self.height,
            "leaf_index": self.leaf_index,
            "leaf_count": self.leaf_count,
            "leaf_hash": self.leaf_hash,
            "path": list(self.path),
            "root": self.root,
        }


def verify_proof(proof: InclusionProof) -> bool:
    """Return whether `proof` leads from its leaf hash to its root; malformed proofs are simply false."""
    try:
        climbed = _climb(
            bytes.fromhex(proof.leaf_hash),
            proof.leaf_index,
            proof.leaf_count,
            [bytes.fromhex(sibling) for sibling in proof.path],
        )
    except ValueError:
        return False
    return climbed is not None and climbed.hex() == proof.root


def leaf_hash(*parts: bytes | memoryview) -> bytes:
    """Return the 32-byte hash of the leaf whose bytes are `parts`, one after the other."""
    if sum(map(len, parts)) <= _COPIED_BYTES_MAX:
        return sha256(b"".join((_LEAF, *parts))).digest()
    # Updates instead of a concatenation, since the leaves of a large cluster come to tens of megabytes.
    digest = sha256(_LEAF)
    for part in parts:
        digest.update(part)
    return digest.digest()


def merkle_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the 32-byte root over `leaf_hashes` (at least one).

    Raises:
        ValueError: there is no leaf.
    """
    if not leaf_hashes:
        raise ValueError("a Merkle root needs at least one leaf")
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def audit_path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the sibling hashes of leaf `index`, from the bottom up.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"leaf {index} of {len(leaf_hashes)}")
    path: list[bytes] = []
    level = list(leaf_hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index //= 2
        level = _parents(level)
    return path


def _parents(level: list[bytes]) -> list[bytes]:
    """Return the level above: hashes of pairs, an unpaired last one lifted as it is."""
    pairs = zip(level[0::2], level[1::2], strict=False)
    above = [sha256(_NODE + left + right).digest() for left, right in pairs]
    return above if len(level) % 2 == 0 else [*above, level[-1]]


def _climb(node: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that `path` leads to, or None where its length does not fit the tree.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < count:
        return None
    last = count - 1
    for sibling in path:
        if last == 0:
            return None
        if index % 2 == 1 or index == last:
            node = sha256(_NODE + sibling + node).digest()
            while index % 2 == 0 and index != 0:
                index //= 2
                last //= 2
        else:
            node = sha256(_NODE + node + sibling).digest()
        index //= 2
        last //= 2
    return node if last == 0 else None
