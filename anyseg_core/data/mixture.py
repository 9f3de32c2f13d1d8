"""Several data sets as one: each sample brings the sensors and the labels that its own data set has.

The classes of every part are translated to the mixture's. A coarse label stands for several of these ("far object" is
building or vegetation): such labels get indices beyond the classes, and `members` says what each index stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import Size
from anyseg_core.data.layouts import Meaning
from anyseg_core.data.packed import pixel_counts
from anyseg_core.data.sample import DataError, Sample, SegmentationDataset
from anyseg_core.runtime.label_sets import UNLABELLED, LabelClass
from anyseg_core.runtime.model_card import InputSpec


@dataclass(frozen=True, eq=False)
class MixturePart:
    """A data set in a mixture."""

    dataset: SegmentationDataset
    meaning: Meaning
    """Its classes in the mixture's terms, where their names differ."""
    name: str = ""
    weight: float = 1.0
    """How often its samples are drawn, relative to the other parts: its share of a batch."""


class Mixture:
    """The samples of all parts, one part after another.

    Args:
        size: (height, width) of the network; samples in training may have another, their own part's.

    Raises DataError where a part has a sensor that the mixture has not, or a class that is not translated.
    """

    def __init__(
        self,
        parts: Sequence[MixturePart],
        inputs: Sequence[InputSpec],
        classes: Sequence[LabelClass],
        size: Size,
    ) -> None:
        if not parts:
            raise DataError("the mixture has no part with samples of this split")
        self.parts, self.inputs, self.classes, self.size = tuple(parts), tuple(inputs), tuple(classes), size
        self._starts = np.cumsum([0, *(len(part.dataset) for part in parts)])
        self._slots = [self._slots_of(part) for part in parts]
        meanings = [class_meanings(part, classes) for part in parts]
        coarse = sorted({meaning for of_part in meanings for meaning in of_part if len(meaning) > 1})
        if len(classes) + len(coarse) > UNLABELLED:
            raise DataError(f"{len(classes)} classes and {len(coarse)} coarse labels are more than {UNLABELLED}")
        self._coarse: tuple[tuple[int, ...], ...] = tuple(coarse)
        self._meanings = meanings
        self._codes = [self._code_table(of_part) for of_part in meanings]

    def _slots_of(self, part: MixturePart) -> list[int]:
        """Where each of a part's inputs is among the mixture's."""
        for spec in part.dataset.inputs:
            if spec not in self.inputs:
                raise DataError(
                    f"{part.dataset.description} has {spec.modality} encoded as {spec.encoding}; the mixture's inputs "
                    f"are {', '.join(str(own.encoding) for own in self.inputs)}"
                )
        return [self.inputs.index(spec) for spec in part.dataset.inputs]

    def _code_table(self, meanings: Sequence[tuple[int, ...]]) -> NDArray[np.uint8]:
        """A part's label -> the mixture's, [256]."""
        table = np.full(256, UNLABELLED, np.uint8)
        for label, meaning in enumerate(meanings):
            if len(meaning) == 1:
                table[label] = meaning[0]
            elif meaning:
                table[label] = len(self.classes) + self._coarse.index(meaning)
        return table

    @property
    def members(self) -> NDArray[np.bool_]:
        """[K + G, K]: the classes that each label stands for: itself, or those of a coarse one."""
        coarse = np.zeros((len(self._coarse), len(self.classes)), bool)
        for row, meaning in enumerate(self._coarse):
            coarse[row, list(meaning)] = True
        return np.vstack([np.eye(len(self.classes), dtype=bool), coarse])

    @property
    def description(self) -> str:
        total = sum(part.weight for part in self.parts)
        return "mixture of " + "; ".join(
            f"{part.dataset.description} ({100 * part.weight / total:.0f} % of the draws)" for part in self.parts
        )

    @property
    def fingerprint(self) -> str:
        content = [(part.dataset.fingerprint, part.meaning, part.weight) for part in self.parts]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Which part a sample is of, and its index there."""
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])

    def __getitem__(self, index: int) -> Sample:
        number, inside = self.locate(index)
        own = self.parts[number].dataset[inside]
        images = np.zeros((len(self.inputs), *own.images.shape[1:]), np.uint8)
        images[self._slots[number]] = own.images
        present = np.zeros(len(self.inputs), bool)
        present[self._slots[number]] = True if own.present is None else own.present
        return Sample(images, self._codes[number][own.labels], own.name, present)

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Indices of `count` samples: of each part its share of them, rounded up or down; which ones is random.

        Systematic sampling, so that a batch has the same mixture of sensors as the next one.
        """
        shares = np.cumsum([part.weight for part in self.parts])
        positions = (np.arange(count) + rng.random()) / count * shares[-1]
        numbers = np.minimum(np.searchsorted(shares, positions, side="right"), len(self.parts) - 1)
        return [int(rng.integers(self._starts[number], self._starts[number + 1])) for number in numbers]

    def pixel_counts(self) -> NDArray[np.int64]:
        """Of each label, [K + G], how many pixels of a million draws have it."""
        counts = np.zeros(256)
        for part, codes in zip(self.parts, self._codes, strict=True):
            own = pixel_counts(part.dataset)
            height, width = part.dataset.size
            share = part.weight * own / (len(part.dataset) * height * width)
            np.add.at(counts, codes[: len(own)], share)
        total = sum(part.weight for part in self.parts)
        return (1e6 * counts[: len(self.classes) + len(self._coarse)] / total).astype(np.int64)

    def scoring(self, part: int) -> Scoring:
        """How a part's labels are scored."""
        return Scoring.of(self.parts[part].dataset.classes, self._meanings[part])


@dataclass(frozen=True, eq=False)
class Scoring:
    """A part's labels and the mixture's classes, both brought to what can be compared.

    Labels that mean the same are one scored class. A label that leaves open what another label decides (parking may be
    road or sidewalk, where both have labels of their own) is not scored, nor are two that both leave open the same.
    """

    names: tuple[str, ...]
    """The S scored classes."""
    of_label: NDArray[np.uint8]
    """[256], the part's label -> the scored class, 255 for none."""
    of_class: NDArray[np.uint8]
    """[256], the mixture's class -> the scored class; 255 for one that the part has no label for: always a miss."""

    @classmethod
    def of(cls, own: Sequence[LabelClass], meanings: Sequence[tuple[int, ...]]) -> Scoring:
        """From a part's classes, and what each means among the mixture's."""
        distinct = [m for m in dict.fromkeys(meanings) if m]
        scored = [m for m in distinct if all(set(m) <= set(other) or not set(m) & set(other) for other in distinct)]
        of_label, of_class = np.full((2, 256), UNLABELLED, np.uint8)
        for label, meaning in enumerate(meanings):
            if meaning in scored:
                of_label[label] = scored.index(meaning)
        for number in reversed(range(len(scored))):
            of_class[list(scored[number])] = number
        names = tuple(own[meanings.index(meaning)].name for meaning in scored)
        return cls(names, of_label, of_class)


def class_meanings(part: MixturePart, classes: Sequence[LabelClass]) -> list[tuple[int, ...]]:
    """Of each class of a part, the mixture's classes that it may be; none for a class without a name.

    Raises DataError for a name that is no class of the mixture.
    """
    index = {entry.name: number for number, entry in enumerate(classes)}
    found = []
    for entry in part.dataset.classes:
        names = part.meaning.get(entry.name, (entry.name,)) if entry.name else ()
        unknown = [name for name in names if name not in index]
        if unknown:
            raise DataError(
                f"class {entry.name!r} of {part.dataset.description} has no meaning here ({', '.join(unknown)}): add "
                f"it to the part's `meaning`; the mixture's classes are {', '.join(index)}"
            )
        found.append(tuple(sorted(index[name] for name in names)))
    return found
