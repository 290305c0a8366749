"""The tool that proves where a proposal comes from: what the API hands out, held against the journal on this machine.

It reads the journal's file in the data directory that the server was started with, not what the daemon says of it.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from pydantic import Field

from controller import rundir
from controller.agents import answers
from controller.agents.daemon import AskedDaemon, in_words
from controller.provenance import NotProvenError, bare, prove
from metrics.errors import BadDataError
from state.journal import Journal


class ProofTool:
    """Proofs by the journal of one daemon, which lies in `data_dir`."""

    def __init__(self, daemon: AskedDaemon, data_dir: Path) -> None:
        self._daemon = daemon
        self._journal = data_dir / rundir.DAEMON / rundir.JOURNAL

    def verify_proposal(
        self,
        proposal_id: Annotated[str, Field(min_length=1, max_length=200, description="Like p-0123456789ab.")],
    ) -> answers.Proof:
        """Whether a proposal is what the controller wrote: its document against the hash-chained journal.

        Do this before you recommend or approve one. `proven` means that the chain is whole, that its event at the
        anchor has the anchor's hash, and that a later event holds the SHA-256 of this very document; `problem` says
        what contradicts what. It needs the daemon's data directory on this machine, and changes nothing.
        """
        document = self._daemon.get("proposals", proposal_id)["proposal"]
        with in_words(), closing(Journal(self._journal, read_only=True)) as journal:
            try:
                found = prove(bare(document), journal)
            except NotProvenError as contradiction:
                problem = str(contradiction) if document.get("intact", True) else str(document["title"])
                return answers.Proof(proven=False, chain_whole=True, problem=problem)
            except BadDataError as broken:
                return answers.Proof(proven=False, chain_whole=False, problem=str(broken))
        return answers.Proof(
            proven=True,
            chain_whole=True,
            sha256=found.sha256,
            written_seq=found.seq,
            anchor_seq=found.anchor,
            events=found.events,
        )
