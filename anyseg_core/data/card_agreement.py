"""How far a student's sensors agree on data that it was not trained on, written into its card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from anyseg_core.data.sample import DataError, Sample, SegmentationDataset
from anyseg_core.processes import Progress
from anyseg_core.runtime.cross_examination.agreement import Numbers, Shown, agreements, shown
from anyseg_core.runtime.cross_examination.network_witness import LEARNT, are_lively, expectation_key
from anyseg_core.runtime.model_card import EventEncoding, ExpectedAgreement, edited_card, load_card
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor


def write_expected_agreement(folder: Path, dataset: SegmentationDataset, progress: Progress | None = None) -> int:
    """Ask a student about every sensor of every sample alone, and write how far they agree; returns how many sets.

    Nothing else of the card changes. Raises StudentError, EngineError, OSError; DataError where the samples are not
    what the student takes, or too few for a spread.
    """
    card = load_card(folder)
    if dataset.inputs and [spec.modality for spec in dataset.inputs] != list(card.modalities):
        names = ", ".join(spec.modality for spec in dataset.inputs)
        raise DataError(f"the samples are of {names}; student {card.name} takes {', '.join(card.modalities)}")
    if tuple(dataset.size) != tuple(card.input_size):
        raise DataError(f"the samples are {dataset.size}; student {card.name} takes {card.input_size}: set data.size")
    segmenter = Segmenter.open(folder)
    try:
        found = _disagreements(segmenter, dataset, progress)
    finally:
        segmenter.close()
    expected = [_expected(key, numbers) for key, numbers in sorted(found.items()) if len(numbers) >= LEARNT]
    if not expected:
        raise DataError(f"{len(dataset)} samples say nothing of what {card.name}'s sensors agree on: use more")
    with edited_card(folder) as written:
        written["agreement"] = [each.model_dump(mode="json") for each in expected]
    return len(expected)


def _disagreements(
    segmenter: Segmenter, dataset: SegmentationDataset, progress: Progress | None
) -> dict[str, list[Numbers]]:
    """By `expectation_key`, of every sample."""
    found: defaultdict[str, list[Numbers]] = defaultdict(list)
    for index in range(len(dataset)):
        shown_by = dict(_alone(segmenter, dataset[index]))
        for size in range(2, len(shown_by) + 1):
            for some in combinations(shown_by, size):
                for sensor, each in agreements({s: shown_by[s] for s in some}).items():
                    found[expectation_key(sensor, [o for o in some if o != sensor])].append(each.disagreement)
        if progress is not None:
            progress(index + 1, len(dataset))
    return found


def _alone(segmenter: Segmenter, sample: Sample) -> Iterator[tuple[Sensor, Shown]]:
    card = segmenter.card
    for index, spec in enumerate(card.inputs):
        image = sample.images[index]
        has_it = sample.present is None or bool(sample.present[index])
        if has_it and _shows_enough(image, spec.encoding):
            labels, confidence = segmenter.segment_images({spec.modality: image})
            yield spec.modality, shown(labels, confidence)


def _shows_enough(image: np.ndarray, encoding: object) -> bool:
    """As `network_witness.can_be_asked` has it of a frame."""
    if not isinstance(encoding, EventEncoding):
        return True
    return are_lively(float(image.sum()) / encoding.gain, image.shape)


def _expected(key: str, numbers: list[Numbers]) -> ExpectedAgreement:
    mean, spread = np.mean(numbers, axis=0), np.std(numbers, axis=0)
    return ExpectedAgreement(key=key, mean=_rounded(mean), spread=_rounded(spread))


def _rounded(numbers: np.ndarray) -> tuple[float, float, float]:
    whole, by_class, quarter = (round(float(number), 4) for number in numbers)
    return whole, by_class, quarter
