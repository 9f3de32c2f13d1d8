"""A network is scored on data that mean the same: its classes in its order, its sensors encoded as it learned them."""

from __future__ import annotations

from collections.abc import Sequence

from anyseg_core.data.datasets import DataConfig, open_dataset
from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.runtime.label_sets import LabelClass
from anyseg_core.runtime.model_card import ClassSpec, Encoding
from anyseg_core.training.checkpoint import CheckpointError, TrainingState


def open_same(state: TrainingState, data: DataConfig, split: str) -> SegmentationDataset:
    """A split of the data that a network was trained on, or of other data.

    Raises DataError where it cannot be opened, CheckpointError where its classes, sensors or encodings are not the
    network's, in its order.
    """
    dataset = open_dataset(data, split)
    require_same_classes(state.classes, dataset.classes, data.root)
    _require_same_sensors(state, dataset, data)
    _require_same_encodings(state, dataset, data)
    return dataset


def require_same_classes(learned: Sequence[ClassSpec], there: Sequence[ClassSpec | LabelClass], where: object) -> None:
    """Raises CheckpointError where the classes of the data at `where` are not those that a network has learned, in
    their order.
    """
    known, found = [entry.name for entry in learned], [entry.name for entry in there]
    if known != found:
        kind = "the same classes in another order" if sorted(known) == sorted(found) else "other classes"
        raise CheckpointError(
            f"{where} has {kind}: {', '.join(found)}; the network has learned {', '.join(known)}. Labels are "
            "numbers: bring the data's labels into the network's order"
        )


def _require_same_sensors(state: TrainingState, dataset: SegmentationDataset, data: DataConfig) -> None:
    """A network knows a sensor by its place: of fewer ones, or others, each would be taken for another one."""
    learned, there = ([str(spec.modality) for spec in inputs] for inputs in (state.inputs, dataset.inputs))
    if learned != there:
        raise CheckpointError(
            f"{data.root} is of {', '.join(there)}; the network has learned {', '.join(learned)}, in this order: bring "
            "the data's inputs into it, or set data.modalities"
        )


def _require_same_encodings(state: TrainingState, dataset: SegmentationDataset, data: DataConfig) -> None:
    learned = {spec.modality: spec.encoding for spec in state.inputs}
    for spec in dataset.inputs:
        if spec.modality in learned and spec.encoding != learned[spec.modality]:
            raise CheckpointError(
                f"{data.root} encodes {spec.modality} with {_differences(spec.encoding, learned[spec.modality])}: "
                "set the same in the data"
            )


def _differences(there: Encoding, learned: Encoding) -> str:
    """`drawn_at (256, 256), the network has learned drawn_at (288, 384)`: what is not the same, and no more."""
    values, wanted = there.model_dump(), learned.model_dump()
    names = [name for name in {**wanted, **values} if values.get(name) != wanted.get(name)]
    said, known = (", ".join(f"{name} {own[name]}" for name in names if name in own) for own in (values, wanted))
    return f"{said}, the network has learned {known}"
