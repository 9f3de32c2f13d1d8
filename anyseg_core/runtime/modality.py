"""The four modalities and the raw frame each of them delivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.named import Named


class Modality(Named):
    """A kind of sensor. The order is the paper's R, D, E, L (AnySeg, arXiv 2411.17141)."""

    CAMERA = "camera"
    DEPTH = "depth"
    EVENT = "event"
    LIDAR = "lidar"

    @classmethod
    def parse(cls, name: str) -> Modality:
        """The modality of that name; raises ValueError that lists the known names."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(m.value for m in cls)
            raise ValueError(f"unknown modality {name!r}; known modalities: {known}") from None


MODALITIES: tuple[Modality, ...] = tuple(Modality)


@dataclass(frozen=True, eq=False)
class ModalityFrame:
    """One measurement of one sensor, as arrays, before any encoding for the network.

    `data` by modality:

    - CAMERA: uint8 [H, W, 3], RGB.
    - DEPTH: float32 [H, W], metres along the optical axis; 0 or NaN = no measurement.
    - EVENT: uint8 [H, W, 2], saturating counts of positive and negative events since the last frame.
    - LIDAR: float32 [N, 4], x, y, z in metres in the sensor's frame, and intensity.

    `stamp_ns` is the acquisition time from the message header. `data` may be a read-only view of the
    message it came from: never write to it.
    """

    modality: Modality
    data: NDArray[np.uint8] | NDArray[np.float32]
    stamp_ns: int
    frame_id: str = ""
    sequence: int | None = None
    """The sender's own count of its messages (`seq` of an EventPacket), where there is one: a gap in it is loss."""
    point_times: NDArray | None = None
    """LIDAR: [N], the cloud's own time field as it was sent, where it has one; see motion.py."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None for points, which have no image size of their own."""
        if self.modality is Modality.LIDAR:
            return None
        return int(self.data.shape[0]), int(self.data.shape[1])


def all_subsets(modalities: Sequence[Modality]) -> list[tuple[Modality, ...]]:
    """The 2^M - 1 non-empty subsets, small ones first: the order of the published tables."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def subset_name(modalities: Sequence[Modality]) -> str:
    """`camera+depth`."""
    return "+".join(modality.value for modality in modalities)
