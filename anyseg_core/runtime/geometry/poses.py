"""Where the vehicle was, between the poses that odometry gives."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.time_units import NS_PER_S

MAX_APART_NS = NS_PER_S // 5
"""From the nearest pose: a car that brakes is elsewhere after more."""
_RESTART_NS = NS_PER_S
_KEPT = 400


class PoseHistory:
    """The newest poses, 4x4 world_from_vehicle, by stamp."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=_KEPT)

    def add(self, stamp_ns: int, pose: NDArray[np.float64]) -> None:
        """The next pose. One that is older than the last is dropped; one much older: the clock was set, all are."""
        if self._recent and stamp_ns <= self._recent[-1][0]:
            if stamp_ns > self._recent[-1][0] - _RESTART_NS:
                return
            self._recent.clear()
        self._recent.append((stamp_ns, pose))

    def at(self, stamp_ns: int) -> NDArray[np.float64] | None:
        """The pose at a time, between the two around it or the nearest; None where that is too far away."""
        recent = list(self._recent)
        after = bisect_left(recent, stamp_ns, key=lambda entry: entry[0])
        around = recent[max(after - 1, 0) : after + 1]
        if not around or min(abs(stamp - stamp_ns) for stamp, _ in around) > MAX_APART_NS:
            return None
        (first_ns, first), (last_ns, last) = around[0], around[-1]
        if not first_ns <= stamp_ns <= last_ns or last_ns - first_ns > 2 * MAX_APART_NS:
            return min(around, key=lambda entry: abs(entry[0] - stamp_ns))[1]
        return between(first, last, (stamp_ns - first_ns) / max(last_ns - first_ns, 1))


def between(first: NDArray[np.float64], last: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """The pose at a share 0..1 of the way from one to another: a straight line, and a turn about one axis."""
    pose = first.copy()
    turn = cv2.Rodrigues(first[:3, :3].T @ last[:3, :3])[0]
    pose[:3, :3] = first[:3, :3] @ cv2.Rodrigues(share * turn)[0]
    pose[:3, 3] = (1 - share) * first[:3, 3] + share * last[:3, 3]
    return pose
