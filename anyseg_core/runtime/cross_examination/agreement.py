"""How far what the network makes of one sensor alone agrees with what it makes of the others: numbers of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.vote import fuse

Bytes = NDArray[np.uint8]
Numbers: TypeAlias = "tuple[float, float, float]"

ROWS = 32
"""Of a label image that is looked at, at least: every so many pixels are left out of a larger one."""
MEASURES = ("in the whole picture", "by its classes", "in one quarter of the picture")
"""What each of an agreement's numbers is of."""
LEAST_SHARE = 0.01
"""Of the certain pixels, below which a class says nothing."""
LEAST_QUARTER = 0.05
"""The same of a quarter."""
SURELY = 0.005
"""Added to a share of disagreement before its logarithm: what is less is chance."""


class Shown(NamedTuple):
    """What the network makes of one sensor alone."""

    labels: Bytes
    """[h, w]"""
    confidence: Bytes
    """[h, w], 255 = certain."""


class Agreement(NamedTuple):
    """Of a sensor with the others, each pixel weighted by how certain both are."""

    whole: float
    """Share of the pixels with the same label, 0 to 1."""
    by_class: float
    """IoU of the classes that one of them sees, a large one counting less than its size (its square root)."""
    worst_quarter: float
    """As `whole`, in the quarter of the picture where they agree least."""
    classes: tuple[int, int] | None
    """Where they differ most: what the sensor shows, and the others."""

    @property
    def disagreement(self) -> Numbers:
        """Logarithms of what is missing to full agreement, in the order of `MEASURES`. They spread alike by day and by
        night, when sensors agree less."""
        return tuple(float(np.log(1.0 - share + SURELY)) for share in self[:3])  # type: ignore[return-value]


def shown(labels: Bytes, confidence: Bytes) -> Shown:
    """Of a label image and its confidence [H, W], enough to compare."""
    step = max(1, labels.shape[0] // ROWS)
    return Shown(labels[::step, ::step].copy(), confidence[::step, ::step].copy())


def agreement(sensor: Shown, others: Sequence[Shown]) -> Agreement | None:
    """Of one with the consensus of one or more others, all of one shape. None: nobody is certain of anything."""
    labels, confidence = consensus(others)
    weight = sensor.confidence.astype(np.float32) * confidence  # [h, w]
    total = float(weight.sum())
    if total <= 0:
        return None
    same = sensor.labels == labels
    agreed = np.where(same, weight, np.float32(0.0))
    return Agreement(
        float(agreed.sum()) / total,
        _by_class(sensor.labels, labels, weight, agreed),
        _worst_quarter(weight, agreed),
        _differ_most(sensor.labels, labels, weight - agreed),
    )


def consensus(others: Sequence[Shown]) -> Shown:
    """A vote weighted by confidence; its own confidence is less where they differ."""
    return Shown(*fuse(others))


def agreements(shown_by: Mapping[Sensor, Shown]) -> dict[Sensor, Agreement]:
    """Of each of two or more sensors with all others."""
    found = {
        sensor: agreement(own, [other for name, other in shown_by.items() if name != sensor])
        for sensor, own in shown_by.items()
        if len(shown_by) > 1
    }
    return {sensor: each for sensor, each in found.items() if each is not None}


def _by_class(labels: Bytes, others: Bytes, weight: NDArray, agreed: NDArray) -> float:
    own, theirs, both = (
        np.bincount(image.ravel(), weights.ravel(), 256)
        for image, weights in ((labels, weight), (others, weight), (labels, agreed))
    )
    union = own + theirs - both
    seen = union > LEAST_SHARE * weight.sum()
    size = np.sqrt(union[seen])
    return float((both[seen] / union[seen] * size).sum() / size.sum())


def _worst_quarter(weight: NDArray, agreed: NDArray) -> float:
    middle = [0, weight.shape[0] // 2], [0, weight.shape[1] // 2]
    totals, agree = (
        np.add.reduceat(np.add.reduceat(each, middle[0], axis=0), middle[1], axis=1) for each in (weight, agreed)
    )
    certain = totals > LEAST_QUARTER * weight.sum()
    return float((agree[certain] / totals[certain]).min()) if certain.any() else 1.0


def _differ_most(labels: Bytes, others: Bytes, differing: NDArray) -> tuple[int, int] | None:
    pairs = np.bincount(labels.ravel().astype(np.intp) * 256 + others.ravel(), differing.ravel())
    most = int(pairs.argmax())
    return divmod(most, 256) if pairs[most] > 0 else None
