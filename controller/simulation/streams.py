"""Where does chance come from? Every draw is named by the seed and by what it is for, never by what was drawn before.

A fault that is left out of a schedule therefore changes no draw of any other: schedules can be shrunk.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def stream(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for what `names` name."""
    return np.random.default_rng(_hash(seed, names))


def share(seed: int, *names: object) -> float:
    """A number within [0, 1) for what `names` name."""
    return _hash(seed, names) / 2**64


def _hash(seed: int, names: tuple[object, ...]) -> int:
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
