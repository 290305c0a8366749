"""The chain's memory: old headers go to a file and come back as they were, whatever has a body stays at hand."""

import os

import numpy as np
import pytest

from qecs import block_log
from qecs.audit import audit
from qecs.block_log import BlockLog
from qecs.cluster import Cluster
from qecs.entry import CommitEntry

ENTRY = CommitEntry("t1", "node-0000", "node-0001", 1000, 10, 5, 995, 0, 1, "0" * 64, (0.9).hex(), 0)
pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def short(monkeypatch):
    """The latest 8 blocks stay in memory, the rest is moved four at a time."""
    monkeypatch.setattr(block_log, "KEPT_MIN", 8)
    monkeypatch.setattr(block_log, "MOVED", 4)


def lived(ticks, **options):
    cluster = Cluster(6, clusters=2, seed=1, **options)
    for _ in range(ticks):
        cluster.step()
    return cluster


def headers(cluster):
    return [block.header for block in cluster.ledger.blocks(0, 1000)]


def test_headers_come_back_from_the_file_as_they_were(monkeypatch):
    """A chain of which most is in the file is the one that is all in memory, and verifies."""
    moved = lived(60, bodies_max=3)
    monkeypatch.undo()
    kept = lived(60, bodies_max=3)
    assert headers(moved) == headers(kept)
    assert len(moved.ledger._blocks._held) < 16
    assert len(kept.ledger._blocks._held) == 61
    assert [block.hash for block in moved.ledger.blocks(5, 3)] == [block.hash for block in kept.ledger.blocks(5, 3)]
    assert moved.ledger.header(1).inputs == kept.ledger.header(1).inputs
    assert audit(moved.ledger.blocks(0, 1000)) == []
    assert moved.ledger.blocks(59, 10)[-1].header.height == 60
    assert moved.ledger.blocks(61, 10) == []


def test_blocks_with_a_body_stay():
    """The genesis, and whatever ledger bodies the limit allows, are never without their body."""
    cluster = lived(60, bodies_max=20)
    bodies = [block.header.height for block in cluster.ledger.blocks(0, 1000) if block.body is not None]
    assert bodies == [0, *range(41, 61)]
    assert np.array_equal(cluster.ledger.balances(), cluster.balances)


def test_a_fork_of_a_chain_in_the_file_can_be_told():
    """Parting below the tip takes the headers from wherever they are."""
    cluster = lived(60, bodies_max=20)
    cluster.ledger.fork([0, 1], depth=15)
    assert len(cluster.ledger.tips().distinct) == 2


def test_without_a_temporary_file_it_stays_in_memory(monkeypatch):
    """A full disk costs memory, and nothing else."""

    def full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(block_log.tempfile, "mkstemp", full)
    cluster = lived(40, bodies_max=3)
    assert audit(cluster.ledger.blocks(0, 1000)) == []
    assert len(cluster.ledger._blocks._held) == 41


def test_a_torn_write_moves_nothing(monkeypatch):
    """Headers of which only a part was written are still in memory."""
    monkeypatch.setattr(block_log.os, "pwrite", lambda *_: 100)
    cluster = lived(40, bodies_max=3)
    assert len(cluster.ledger._blocks._held) == 41


def test_the_file_ends_with_the_chain():
    """Nothing is left open, and nothing on disk, when the chain is forgotten."""
    cluster = lived(40, bodies_max=3)
    descriptor = cluster.ledger._blocks._file
    assert os.fstat(descriptor).st_nlink == 0
    del cluster
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_heights_out_of_range_are_errors():
    """There is no block below the genesis or beyond the tip."""
    log = lived(20, bodies_max=3).ledger._blocks
    assert isinstance(log, BlockLog)
    assert log[-1].header.height == len(log) - 1 == 20
    for height in (21, -22):
        with pytest.raises(IndexError):
            log[height]


def test_transactions_are_kept_for_good():
    """A single transaction stays readable when its block is long past."""
    cluster = lived(3, bodies_max=3)
    cluster.ledger.append_commit(ENTRY)
    for _ in range(40):
        cluster.step()
    assert list(cluster.ledger.entries()) == [(4, ENTRY)]
    assert cluster.ledger.entry(4) == ENTRY
