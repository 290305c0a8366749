"""Where does randomness come from, so that every replay is bit-identical?

Each draw is named by (seed, stream, index), where the index is mostly the tick: these words are the key and the counter
of a Philox generator, hence no draw depends on what was drawn before it. Within a draw entry i belongs to node i, and
no distribution used here depends on the node: a fault of one node never changes the noise of another. That is also why
there is no Poisson draw (numpy's rejection sampler consumes as many words as the rate of each node wants).

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qecs.errors import InvalidRequestError

SEED_MAX: Final = 2**64 - 1


class Stream(IntEnum):
    """What a draw is for. The numbers are part of every recorded run: they never change."""

    INITIAL_PHASE = 1
    NODE_FREQUENCY = 2
    CLUSTER_FREQUENCY = 3
    NODE_DRIFT = 4
    CLUSTER_DRIFT = 5
    NODE_PHASE = 6
    COMMON_PHASE = 7
    ARRIVALS = 8
    COMMITS = 9
    INVALID = 10
    REMAINDER = 11
    REPORT = 12
    SENSOR_NOISE = 13
    SENSOR_STATIC = 14
    TARGETS = 15


class Noise:
    """All randomness of one cluster.

    Args:
        seed: 0 to 2^64 − 1.

    Raises:
        InvalidRequestError: the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= SEED_MAX:
            raise InvalidRequestError(f"the seed must be within 0 and 2^64 − 1, not {seed}")
        self._bits = np.random.Philox(counter=0, key=[seed, 0])
        self._generator = np.random.Generator(self._bits)
        # One state, rewound by changing three words of it, costs 2 µs; a new generator for each draw would cost 30.
        self._state: Any = self._bits.state
        self._key: NDArray[np.uint64] = self._state["state"]["key"]
        self._counter: NDArray[np.uint64] = self._state["state"]["counter"]

    def generator(self, stream: Stream, index: int = 0) -> np.random.Generator:
        """A generator at the start of the draw (stream, index), valid until the next call of any method."""
        self._key[1] = stream
        self._counter[2] = index
        self._bits.state = self._state
        return self._generator

    def normal(self, stream: Stream, index: int, out: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fills `out` with standard normals and returns it."""
        return self.generator(stream, index).standard_normal(out=out)

    def uniform(self, stream: Stream, index: int, out: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fills `out` with uniforms on [0, 1) and returns it."""
        return self.generator(stream, index).random(out=out)

    def clipped_normal(self, stream: Stream, size: int) -> NDArray[np.float64]:
        """`size` standard normals clipped to ± 2, fixed for the seed (clipN of the model)."""
        return np.clip(self.generator(stream).standard_normal(size), -2.0, 2.0)
