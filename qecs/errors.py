"""What can go wrong in the governed system, named by what the caller should do next.

`QecsError` stands apart from the controller's `IaceError`: the governed system knows nothing of its governor.
"""

from __future__ import annotations


class QecsError(Exception):
    """Root of every error that the governed system raises on purpose."""


class InvalidRequestError(QecsError):
    """The request itself is wrong: repeating it unchanged cannot succeed."""


class UnknownTargetError(InvalidRequestError):
    """A node, cluster, fault or scenario that does not exist."""


class ScenarioError(InvalidRequestError):
    """A scenario file that cannot be read; the message names the file and each problem in it."""


class StaleEpochError(QecsError):
    """A write that carries an epoch older than one already seen: its author has lost the lead."""


class LedgerCorruptError(QecsError):
    """A persisted ledger that is damaged elsewhere than in its torn tail."""
