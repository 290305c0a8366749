"""Merkle roots and inclusion proofs against independent definitions."""

from dataclasses import replace
from hashlib import sha256

import pytest

from qecs.merkle import InclusionProof, audit_path, leaf_hash, merkle_root, verify_proof


def reference_root(leaves):
    """RFC 6962 section 2.1, word for word: split at the largest power of two below n."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return sha256(b"\x01" + left + right).digest()


def sample_leaves(count):
    return [f"leaf {index}".encode() for index in range(count)]


def proof_of(leaves, index):
    hashes = [leaf_hash(leaf) for leaf in leaves]
    path = tuple(sibling.hex() for sibling in audit_path(hashes, index))
    return InclusionProof(7, index, len(leaves), hashes[index].hex(), path, merkle_root(hashes).hex())


@pytest.mark.parametrize("count", range(1, 40))
def test_root_is_that_of_rfc_6962(count):
    """The root built level by level equals the recursive definition of RFC 6962."""
    leaves = sample_leaves(count)
    assert merkle_root([leaf_hash(leaf) for leaf in leaves]) == reference_root(leaves)


def test_root_of_known_leaves():
    """The root of the test vectors of Certificate Transparency is the published one."""
    vectors = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    root = merkle_root([leaf_hash(bytes.fromhex(vector)) for vector in vectors])
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 9, 33])
def test_every_leaf_has_a_valid_proof(count):
    """A proof made for any leaf of a tree of any shape verifies."""
    leaves = sample_leaves(count)
    assert all(verify_proof(proof_of(leaves, index)) for index in range(count))


@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_a_proof_proves_nothing_else(count):
    """A proof with another leaf, position, tree size, sibling, length or root is refused."""
    leaves = sample_leaves(count)
    for index in range(count):
        proof = proof_of(leaves, index)
        other = "ab" * 32
        assert not verify_proof(replace(proof, leaf_hash=other))
        assert not verify_proof(replace(proof, root=other))
        assert not verify_proof(replace(proof, leaf_index=(index + 1) % count))
        assert not verify_proof(replace(proof, leaf_count=4 * count))
        assert not verify_proof(replace(proof, path=(other, *proof.path[1:])))
        assert not verify_proof(replace(proof, path=proof.path[:-1]))
        assert not verify_proof(replace(proof, path=(*proof.path, other)))


@pytest.mark.parametrize(("index", "count"), [(-1, 3), (3, 3), (0, 0)])
def test_an_impossible_position_is_refused(index, count):
    """A proof for a position outside its tree is refused."""
    assert not verify_proof(replace(proof_of(sample_leaves(3), 0), leaf_index=index, leaf_count=count))


def test_a_proof_that_is_not_hexadecimal_is_refused():
    """Garbage instead of a hash makes a proof false, not an error."""
    assert not verify_proof(replace(proof_of(sample_leaves(3), 0), leaf_hash="zz"))


def test_a_node_cannot_pose_as_a_leaf():
    """The two child hashes of a node, offered as a leaf, do not hash to that node."""
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    assert leaf_hash(left + right) != merkle_root([left, right])


def test_a_tree_has_leaves():
    """There is no root without a leaf, and no path for a leaf that does not exist."""
    with pytest.raises(ValueError, match="at least one leaf"):
        merkle_root([])
    with pytest.raises(IndexError, match="leaf 2 of 2"):
        audit_path([b"", b""], 2)
