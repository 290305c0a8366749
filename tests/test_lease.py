"""One controller for a data directory."""

import os
import signal
import subprocess
import sys

import pytest

from metrics.errors import NotLeaderError, StoreFailedError
from state.lease import DirectoryLease

HOLD = """
import sys, time
from pathlib import Path
from state.lease import DirectoryLease
with DirectoryLease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the directory."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_holder_is_refused_and_told_who_holds(tmp_path):
    """The message names the process, the directory and what to do; the first holder is not disturbed."""
    with DirectoryLease(tmp_path):
        with pytest.raises(NotLeaderError, match=rf"held by another controller \(process {os.getpid()}\).*--data-dir"):
            DirectoryLease(tmp_path).__enter__()
        with pytest.raises(NotLeaderError):
            DirectoryLease(tmp_path).__enter__()


def test_it_ends_with_its_block_and_can_be_held_again(tmp_path):
    """After the block the directory is free; the directory is made where it is missing."""
    for _ in range(2):
        with DirectoryLease(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b" / "lock").read_text() == str(os.getpid())


@pytest.mark.process
def test_another_process_is_refused_while_it_lives(tmp_path, holder):
    """The lock holds between processes, and the operating system ends it with the process, even by SIGKILL."""
    with pytest.raises(NotLeaderError, match=f"process {holder.pid}"):
        DirectoryLease(tmp_path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    with DirectoryLease(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_shorter_process_id_leaves_no_rest_of_a_longer_one(tmp_path):
    """The lock file says exactly who holds it."""
    (tmp_path / "lock").write_text("9" * 30)
    with DirectoryLease(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_directory_that_cannot_be_made_is_a_store_failure(tmp_path):
    """A file in the way is told with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailedError, match="file"):
        DirectoryLease(tmp_path / "file" / "data").__enter__()
