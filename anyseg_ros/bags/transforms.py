"""The transforms of a bag at a time, by the rules of tf2 and of the node's rig_source.py, without ROS."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.poses import between
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.conversions import stamp_ns as stamp_of
from anyseg_ros.pipeline.calibration import MAX_TF_AGE_NS

_KEPT_NS = 10 * NS_PER_S
"""How far back a transform that moves is known, as in tf2's buffer."""
_UNIT_TOLERANCE = 0.01
"""Of a quaternion's length squared, beyond which tf2 refuses it."""


class TransformTree:
    """Where each coordinate frame sits in its parent, and when."""

    def __init__(self) -> None:
        self._mounts: dict[str, _Mount] = {}  # by the child's frame
        self._neighbours: dict[str, set[str]] = {}

    def add(self, message: Any, *, is_static: bool) -> None:
        """tf2_msgs/TFMessage. A transform that tf2 refuses is left out: NaN, no rotation, a frame in itself."""
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            t, r = stamped.transform.translation, stamped.transform.rotation
            rotation = np.array([r.x, r.y, r.z, r.w])
            is_unit = abs(rotation @ rotation - 1) <= _UNIT_TOLERANCE
            if not (is_unit and np.isfinite([t.x, t.y, t.z]).all() and parent and child and parent != child):
                continue
            place = _Place(stamp_of(stamped.header), parent, rigid_transform((t.x, t.y, t.z), tuple(rotation)))
            self._mounts.setdefault(child, _Mount(is_static=is_static)).add(place)
            self._neighbours.setdefault(parent, set()).add(child)
            self._neighbours.setdefault(child, set()).add(parent)

    def lookup(self, target: str, source: str, stamp_ns: int = 0) -> NDArray[np.float64] | None:
        """target_from_source as 4x4 at that time, 0 = the newest; None where nothing connects the two then.

        Of a transform that moves, the newest stands in for one that is not `MAX_TF_AGE_NS` younger.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return np.eye(4)
        up, down = self._above(target), self._above(source)
        top = next((frame for frame in up if frame in down), None)
        if top is None:
            return None
        up, down = up[: up.index(top)], down[: down.index(top)]
        moving = [mount for mount in map(self._mounts.__getitem__, [*up, *down]) if not mount.is_static]
        newest_ns = min((mount.newest_ns for mount in moving), default=stamp_ns)
        if not stamp_ns:
            stamp_ns = newest_ns
        elif not all(mount.knows(stamp_ns) for mount in moving):
            if abs(newest_ns - stamp_ns) > MAX_TF_AGE_NS:
                return None
            stamp_ns = newest_ns
        if not all(mount.knows(stamp_ns) for mount in moving):
            return None
        return np.asarray(np.linalg.inv(self._chained(up, stamp_ns)) @ self._chained(down, stamp_ns), np.float64)

    def trees(self) -> list[list[str]]:
        """The frames of each tree, in alphabetical order; more than one where nothing ever connected them."""
        trees: list[list[str]] = []
        for frame in sorted(self._neighbours):
            if not any(frame in tree for tree in trees):
                trees.append(sorted(self._connected(frame)))
        return trees

    def _connected(self, frame: str) -> set[str]:
        found, waiting = {frame}, [frame]
        while waiting:
            new = self._neighbours[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    def _above(self, frame: str) -> list[str]:
        """The frame and those that it sits in, up to the root."""
        frames = [frame]
        while frame in self._mounts and (frame := self._mounts[frame].parent) not in frames:
            frames.append(frame)
        return frames

    def _chained(self, frames: list[str], stamp_ns: int) -> NDArray[np.float64]:
        """top_from_first as 4x4 of frames that sit in each other, the last one in the top."""
        chained = np.eye(4)
        for frame in frames:
            chained = self._mounts[frame].at(stamp_ns) @ chained
        return chained


class _Place(NamedTuple):
    """What one message says of a frame."""

    stamp_ns: int
    parent: str
    parent_from_child: NDArray[np.float64]


class _Mount:
    """Where one frame sits in its parent."""

    def __init__(self, *, is_static: bool) -> None:
        """Static is what was so at first, as in tf2: its newest place is that of every time."""
        self.is_static = is_static
        self._places: list[_Place] = []

    @property
    def parent(self) -> str:
        return self._places[-1].parent

    @property
    def newest_ns(self) -> int:
        return self._places[-1].stamp_ns

    def add(self, place: _Place) -> None:
        """In the order of the stamps; far before the newest the clock was set, as at the end of a bag in a loop."""
        if self.is_static or (self._places and place.stamp_ns < self.newest_ns - _KEPT_NS):
            self._places.clear()
        if any(place.stamp_ns == known.stamp_ns for known in self._around(place.stamp_ns)):
            return
        insort(self._places, place, key=_stamp)
        if self._places[0].stamp_ns < self.newest_ns - 2 * _KEPT_NS:
            del self._places[: bisect_left(self._places, self.newest_ns - _KEPT_NS, key=_stamp)]

    def knows(self, stamp_ns: int) -> bool:
        """Whether there is a place at that time, or one before and one after it."""
        return self._places[0].stamp_ns <= stamp_ns <= self.newest_ns

    def at(self, stamp_ns: int) -> NDArray[np.float64]:
        """parent_from_child as 4x4 at a time that it `knows`, or at any of a static one."""
        if self.is_static:
            return self._places[-1].parent_from_child
        around = self._around(stamp_ns)
        first, last = around[0], around[-1]
        if np.array_equal(first.parent_from_child, last.parent_from_child):  # many drivers repeat what never moves
            return first.parent_from_child
        share = (stamp_ns - first.stamp_ns) / max(last.stamp_ns - first.stamp_ns, 1)
        return between(first.parent_from_child, last.parent_from_child, share)

    def _around(self, stamp_ns: int) -> list[_Place]:
        """The last place before a time and the first one that is not: two, or the one that there is."""
        after = bisect_left(self._places, stamp_ns, key=_stamp)
        return self._places[max(after - 1, 0) : after + 1]


def _stamp(place: _Place) -> int:
    return place.stamp_ns
