"""A process that fills a journal as fast as it can, for the crash tests: `python journal_writer.py FILE SEED KNOWN`.

It opens the journal as a restarted controller does, checks the whole chain, and says on standard output where it
stands: "open <tip> <hash> <hash of event KNOWN>". Then it appends batch after batch and acknowledges each one: "ack
<tip> <hash>". Every line is one write, so that whoever reads the pipe sees it even if the process is gone the next
moment. It never ends.
"""

import os
import random
import sys
from pathlib import Path

from state.event import Event, EventKind
from state.journal import Journal

BATCH_MAX = 4
PADDING_MAX = 2000  # bytes: some events fill half a page of the database, some a few bytes of it


def say(*words):
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


def main():
    path, seed, known = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    journal = Journal(path)
    hashes = {entry.seq: entry.hash for entry in journal.entries()}  # raises where the chain is not whole
    assert list(hashes) == list(range(1, journal.tip.seq + 1))
    say("open", journal.tip.seq, journal.tip.hash, hashes.get(known, "none"))
    while True:
        start = journal.tip.seq
        batch = [
            Event(
                EventKind.REQUESTS_REFUSED, float(start + i), {"n": start + i, "by": "x" * rng.randrange(PADDING_MAX)}
            )
            for i in range(rng.randint(1, BATCH_MAX))
        ]
        journal.append(batch, epoch=1, wall_time="2030-01-01T00:00:00Z")
        say("ack", journal.tip.seq, journal.tip.hash)


if __name__ == "__main__":
    main()
