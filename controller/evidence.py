"""How strange was each node at each recorded moment, and why? The detector's pass over a recording.

Where |g| was recorded it is the evidence. Elsewhere it is made from the node's metrics: the node's strength in
effective deviations (`metrics/anomaly/verdict.py`), less the median of its last `HABIT_ROWS` rows, because some nodes
are restless by nature, divided by `DEVIATIONS_PER_G`. So the critical |g| of 1.5 is a node that stands six effective
deviations above its own habit. On a day of a real system of ten nodes, faults left out, 1 in 100 rows of a node rises
by 3.9, and 1 in 200 by 5.2. A node is trusted after `WARM_UP_ROWS` of its rows.

The pass depends on no configuration, can be interrupted and goes on where its checkpoint stands, to the same result.

Source: docs/backtest.md "Evidence".
"""

from __future__ import annotations

import io
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from controller.files import write_atomically
from controller.recording import GRAVITY, Recording
from metrics.anomaly.detector import StreamingDetector
from metrics.anomaly.verdict import NodeVerdict, Reason, strangeness, strength, verdict
from metrics.errors import BadDataError

HABIT_ROWS = 30
DEVIATIONS_PER_G = 4.0
WARM_UP_ROWS = 120
EXPLAINED_G = 0.75  # from which a node's reasons are kept
CHECKPOINT_EVERY_S = 5.0

Floats = NDArray[np.float64]
Why = dict[str, object]
Progress = Callable[[int], None]


class Evidence:
    """The evidence of a recording, as far as the pass has got.

    Attributes:
        gravity: float64[T, N], |g| or what stands for it; NaN where nothing was recorded.
        trusted: bool[T, N].
        rise: float64[T, N], signed, in units of g; what nodes are ranked by.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        shape = recording.values.shape
        self._detector = StreamingDetector(shape[1] * shape[2])
        self._strength = np.full(shape[:2], np.nan)
        self._why: dict[str, list[Why]] = {}
        self.done = 0
        self.rise = np.full(shape[:2], np.nan)

    @property
    def gravity(self) -> Floats:
        """float64[T, N], never negative."""
        gravity: Floats = np.maximum(self.rise, 0.0)
        return gravity

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """bool[T, N]: there is evidence, with enough of it behind."""
        known: NDArray[np.bool_] = np.isfinite(self.rise)
        if self._recording.gravity is not None:
            return known
        trusted: NDArray[np.bool_] = known & (np.cumsum(known, axis=0) > WARM_UP_ROWS)
        return trusted

    def why(self, row: int, node: int) -> list[Why]:
        """The reasons of a node that was strange in a row, strongest first."""
        return self._why.get(f"{row}/{node}", [])

    def run(self, checkpoint: Path | None = None, progress: Progress = lambda _row: None) -> None:
        """Go through all rows that are left, leaving a checkpoint every few seconds, and when interrupted."""
        saved_s = time.monotonic()
        try:
            while self.done < len(self.rise):
                self._take(self.done)
                self.done += 1
                progress(self.done)
                if checkpoint is not None and time.monotonic() - saved_s > CHECKPOINT_EVERY_S:
                    self.save(checkpoint)
                    saved_s = time.monotonic()
        except KeyboardInterrupt:
            if checkpoint is not None:
                self.save(checkpoint)
            raise

    def save(self, path: Path) -> None:
        """Leave a checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        held = io.BytesIO()
        why = np.frombuffer(json.dumps(self._why).encode(), np.uint8)
        arrays = {f"detector.{name}": array for name, array in self._detector.state().items()}
        np.savez(
            held,
            done=np.int64(self.done),
            identity=self._identity(),
            strength=self._strength[: self.done],
            rise=self.rise[: self.done],
            why=why,
            **arrays,  # type: ignore[arg-type]  # the stub takes the names for its own options
        )
        write_atomically(path, held.getvalue())

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            BadDataError: it is none, or of another recording.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
                if held["identity"].tolist() != self._identity().tolist():
                    raise BadDataError(f"{path} is the checkpoint of another recording: start without --resume")
                prefix = "detector."
                names = [name for name in held.files if name.startswith(prefix)]
                self._detector.restore({name.removeprefix(prefix): held[name] for name in names})
                done = int(held["done"])
                self._strength[:done], self.rise[:done] = held["strength"], held["rise"]
                self._why = json.loads(held["why"].tobytes())
                self.done = done
        except (OSError, EOFError, KeyError, ValueError, BadZipFile, zlib.error) as error:
            raise BadDataError(f"{path} is no checkpoint of this recording: start without --resume") from error

    def _identity(self) -> Floats:
        """Numbers that no two different recordings are likely to share."""
        held = self._recording
        parts = [np.nansum(held.values), np.nansum(held.times_s), float(held.rows), *map(float, held.values.shape)]
        if held.gravity is not None:
            parts.append(np.nansum(held.gravity))
        return np.array(parts, dtype=np.float64)

    def _take(self, row: int) -> None:
        held = self._recording
        found: list[NodeVerdict] = []
        if held.metrics:
            scores = self._detector.update(float(held.times_s[row]), held.values[row].ravel())
            nats = strangeness(scores, len(held.metrics))
            silent = np.isnan(nats).all(axis=1)
            self._strength[row] = np.where(silent, np.nan, strength(nats))
            self.rise[row] = (self._strength[row] - self._habit(row)) / DEVIATIONS_PER_G
            if (self.rise[row] >= EXPLAINED_G).any():
                found = verdict(scores, held.nodes, held.metrics)
        if held.gravity is not None:
            self.rise[row] = held.gravity[row]
        reasons = {item.node: item.reasons for item in found}
        for node in np.flatnonzero(self.rise[row] >= EXPLAINED_G).tolist():
            told = [_told(reason) for reason in reasons.get(held.nodes[node], ())]
            if held.gravity is not None:
                told.insert(0, {"kpi": GRAVITY, "value": float(held.gravity[row, node])})
            self._why[f"{row}/{node}"] = told

    def _habit(self, row: int) -> Floats:
        """float64[N], what the strength of each node was like of late; itself before there is any."""
        recent = self._strength[max(0, row - HABIT_ROWS) : row]
        habit: Floats = self._strength[row].copy()
        known = np.isfinite(recent).any(axis=0) if len(recent) else np.zeros(len(habit), np.bool_)
        habit[known] = np.nanmedian(recent[:, known], axis=0)
        return habit


def _told(reason: Reason) -> Why:
    return {
        "kpi": reason.kpi,
        "share": reason.share,
        "deviation": reason.deviation,
        "view": None if reason.view is None else reason.view.name.lower(),
        "distance": reason.distance,
        "since_s": reason.since,
        "new_level": reason.shift,
    }
