"""Which classes a student loses without a sensor, by what was measured when it was trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.sensors import Sensor, subset_name

CLASS_IOU = "iou_by_subset"
"""In a card's metrics: subset of the sensors -> class -> IoU in percent."""
CLASS_IOU_DATA = "iou_by_subset_data"
"""In a card's metrics, where not every subset was measured on the same frames: subset -> what it was measured on."""
WORTH_SAYING = 5.0
"""Points of IoU: less is lost from one data set to the next."""


class ClassLoss(NamedTuple):
    """A class that is seen worse."""

    name: str
    before: float
    """IoU in percent with all sensors."""
    after: float

    def __str__(self) -> str:
        return f"{self.name} {self.before:.0f} -> {self.after:.0f}"


def class_losses(card: ModelCard, live: Collection[Sensor]) -> list[ClassLoss] | None:
    """The classes that lose most with only these sensors, the greatest loss first; None where it was not measured."""
    table: Mapping[str, Mapping[str, float]] = card.training.metrics.get(CLASS_IOU, {})
    before = table.get(subset_name(card.modalities))
    after = table.get(subset_name([modality for modality in card.modalities if modality in live]))
    if before is None or after is None:
        return None
    losses = [ClassLoss(name, iou, after[name]) for name, iou in before.items() if name in after]
    losses = [loss for loss in losses if loss.before - loss.after >= WORTH_SAYING]
    return sorted(losses, key=lambda loss: loss.after - loss.before)


def losses_in_words(card: ModelCard, live: Collection[Sensor], most: int = 5) -> str:
    """`without camera: TrafficLight 27 -> 3, Pole 30 -> 12`; empty with all sensors, or with none."""
    lost = ", ".join(str(modality) for modality in card.modalities if modality not in live)
    if not lost or not live:
        return ""
    losses = class_losses(card, live)
    if losses is None and (seen := _still_seen(card, live, most)):
        return f"without {lost}: {seen}"
    if losses is None:
        return f"without {lost}: not measured, the card has no IoU per class for these sensors"
    return f"without {lost}: {', '.join(map(str, losses[:most])) or 'no class loses much'}"


def _still_seen(card: ModelCard, live: Collection[Sensor], most: int) -> str:
    """What these sensors see of each class, where all sensors together were never measured; empty where nothing was.

    `the IoU left is road 71, car 62 (on SemanticKITTI val, points); under 5: person, fence`.
    """
    subset = subset_name([modality for modality in card.modalities if modality in live])
    metrics = card.training.metrics
    if not (table := metrics.get(CLASS_IOU, {}).get(subset)):
        return ""
    best = sorted(table.items(), key=lambda entry: -entry[1])
    left = ", ".join(f"{name} {iou:.0f}" for name, iou in best[:most] if iou >= WORTH_SAYING)
    blind = ", ".join(name for name, iou in best if iou < WORTH_SAYING)
    where = metrics.get(CLASS_IOU_DATA, {}).get(subset, "unknown data")
    return f"the IoU left is {left or 'nothing'} (on {where})" + (f"; under {WORTH_SAYING:g}: {blind}" if blind else "")
