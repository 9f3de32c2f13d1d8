"""The newest frames of each modality, and which of them belong together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from anyseg_core.runtime.sensors import Sensor, SensorFrame

KEPT_FRAMES = 3
"""Per modality: the partner of an anchor that was delivered late is one of the last few frames, not the newest."""


@dataclass(frozen=True, eq=False)
class BufferedFrame:
    """A frame and when it was received, in nanoseconds of the node's clock."""

    frame: SensorFrame
    received_ns: int


class FrameBuffer:
    """Keeps the last good frames of each modality. Not thread-safe: the caller serialises the calls."""

    def __init__(self) -> None:
        self._recent: dict[Sensor, deque[BufferedFrame]] = {}

    def put(self, frame: SensorFrame, received_ns: int) -> None:
        """Keep a frame, received later than all before it."""
        recent = self._recent.setdefault(frame.modality, deque(maxlen=KEPT_FRAMES))
        recent.append(BufferedFrame(frame, received_ns))

    def drop(self, modality: Sensor) -> None:
        """Forget what is kept of a modality."""
        self._recent.pop(modality, None)

    def clear(self) -> None:
        """Forget everything."""
        self._recent.clear()

    def newest(self, modality: Sensor) -> BufferedFrame | None:
        """The frame that was received last."""
        recent = self._recent.get(modality)
        return recent[-1] if recent else None

    def nearest(self, modality: Sensor, stamp_ns: int, max_difference_ns: int) -> BufferedFrame | None:
        """The frame stamped nearest to `stamp_ns`, or None where none is within `max_difference_ns`.

        Of two equally near ones the later received.
        """
        best: BufferedFrame | None = None
        least = max_difference_ns
        for entry in self._recent.get(modality, ()):
            difference = abs(entry.frame.stamp_ns - stamp_ns)
            if difference <= least:
                best, least = entry, difference
        return best

    def period_ns(self, modality: Sensor) -> int | None:
        """The shortest time between stamps of successive kept frames, None before the second frame."""
        stamps = [entry.frame.stamp_ns for entry in self._recent.get(modality, ())]
        gaps = [later - earlier for earlier, later in pairwise(stamps) if later > earlier]
        return min(gaps, default=None)

    def delay_ns(self, modality: Sensor) -> int | None:
        """From stamp to reception, of the kept frame that took the least; None without one.

        Whatever the two clocks say, the next frame can be here so long after its stamp.
        """
        recent = self._recent.get(modality, ())
        return min((entry.received_ns - entry.frame.stamp_ns for entry in recent), default=None)
