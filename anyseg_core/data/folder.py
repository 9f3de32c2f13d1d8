"""One's own data: raw frames and labels in the layout of `runtime/sample_folder.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from anyseg_core.data.files import (
    FileSamples,
    Size,
    known_words,
    read_image,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.input_images import InputError, encode_frame
from anyseg_core.runtime.label_files import files_at_other_depths, is_same_view
from anyseg_core.runtime.label_sets import UNLABELLED, LabelClass
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.model_faults import told
from anyseg_core.runtime.sample_folder import (
    DESCRIPTION_NAME,
    LABEL_ENDING,
    RIG_NAME,
    FolderDescription,
    RigSpec,
    endings,
    frame_from_stored,
)
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame


def read_description(root: Path) -> FolderDescription:
    """dataset.json; raises DataError that names every fault."""
    path = root / DESCRIPTION_NAME
    try:
        return FolderDescription.model_validate_json(path.read_bytes())
    except OSError:
        raise DataError(
            f"{path} is missing: `anyseg data from-bag` writes it, docs/training/data_sets.md describes it"
        ) from None
    except ValidationError as error:
        raise DataError(f"{path} is not valid: {told(error, FolderDescription)}") from None


def read_rig(drive: Path) -> RigSpec | None:
    """The calibration of a drive's folder, None where it has none of its own; raises DataError for a broken file."""
    path = drive / RIG_NAME
    if not path.is_file():
        return None
    try:
        return RigSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is not valid: {told(error, RigSpec)}") from None


def folder_inputs(description: FolderDescription, modalities: Sequence[Sensor]) -> tuple[InputSpec, ...]:
    """The inputs of these modalities; raises DataError where none remains, or nobody chose and some are left out."""
    others = [spec.modality for spec in description.inputs if spec.modality not in DEFAULT_SENSORS]
    if others and tuple(modalities) == DEFAULT_SENSORS:
        listed = ", ".join(f"{sensor}: {sensor.kind}" for sensor in others)
        raise DataError(
            f"{DESCRIPTION_NAME} has sensors beside the usual ones: declare them in data.sensors ({{{listed}}}), and "
            "list in data.modalities those to use"
        )
    inputs = tuple(spec for spec in description.inputs if spec.modality in modalities)
    if not inputs:
        known_words("data.modalities", modalities, [spec.modality for spec in description.inputs])
    return inputs


class Folder(FileSamples):
    """A split of one's own data, encoded as the robot encodes it, at `size` (height, width).

    Args:
        modalities: those to use of the ones that dataset.json lists.
        labels: folder of the label pictures, in the same layout, where they are not beside the frames.
        labelled: false takes every moment, whether it has a label picture or not, and gives no labels.

    Raises DataError.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: Size,
        modalities: Sequence[Sensor] = DEFAULT_SENSORS,
        limit: int | None = None,
        *,
        labels: Path | None = None,
        labelled: bool = True,
    ) -> None:
        self.root, self.split, self.size = root, split, size
        self.labels, self.labelled = labels or root, labelled
        description = read_description(root)
        self.inputs = folder_inputs(description, modalities)
        self.classes = tuple(LabelClass(entry.name, entry.color, entry.surface) for entry in description.classes)
        self._rig = description.rig
        self._stems = self._find_stems(description)[:limit]
        drives = {str(Path(stem).parent) for stem in self._stems}
        self._drive_rigs = {drive: read_rig(root / drive) for drive in sorted(drives)}

    def _find_stems(self, description: FolderDescription) -> list[str]:
        """`<split>/<drive>/<name>` of each moment, sorted."""
        wanted = (LABEL_ENDING,) if self.labelled else endings(self.inputs[0].modality)
        place = self.labels if self.labelled else self.root
        every = [ending for spec in description.inputs for ending in endings(spec.modality)]
        found = {
            str(path.relative_to(place)).removesuffix(ending)
            for ending in wanted
            for path in (place / self.split).glob(f"*/*{ending}")
            if not any(path.name.endswith(own) for own in every if own != ending and own.endswith(ending))
        }  # of camera, not of front_camera
        self._require_none_elsewhere(place / self.split, wanted)
        if not found:
            what = "labels" if self.labelled else f"{self.inputs[0].modality} frames"
            where = f"{place}/{self.split}/*"
            raise DataError(f"no {what} *{wanted[0]} in {where}; the layout is in docs/training/data_sets.md")
        return sorted(found)

    def _require_none_elsewhere(self, folder: Path, wanted: Sequence[str]) -> None:
        """Raises DataError where files lie where no sample is looked for: they would be left out in silence."""
        lost = [path for ending in wanted for path in files_at_other_depths(folder, ending, depth=1)]
        if lost:
            raise DataError(
                f"{lost[0]} is not in a folder of a drive, {folder}/<drive>/*{wanted[0]}, and would be left out, as "
                f"{len(lost)} such files would: move them there, or out of {folder}"
            )

    @property
    def description(self) -> str:
        return f"{self.root.name} {self.split}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        rigs = [str(rig) for rig in (self._rig, *self._drive_rigs.values())]
        return self.size, self.inputs, self.classes, rigs

    def __len__(self) -> int:
        return len(self._stems)

    def name(self, index: int) -> str:
        return self._stems[index]

    def picture_size(self, index: int) -> Size:
        """(height, width) of the picture that a sample's labels belong to; the network's where it has none."""
        pictures = [spec.modality for spec in self.inputs if not spec.modality.kind.is_points]
        return read_image(self._file(index, pictures[0])).shape[:2] if pictures else self.size

    def label_file(self, index: int) -> Path:
        """Where the labels of a sample are, or belong."""
        return self.labels / f"{self._stems[index]}{LABEL_ENDING}"

    def files(self, index: int) -> tuple[Path, ...]:
        frames = tuple(self._file(index, spec.modality) for spec in self.inputs)
        return (self.label_file(index), *frames) if self.labelled else frames

    def __getitem__(self, index: int) -> Sample:
        labels = read_label_image(self.label_file(index), len(self.classes)) if self.labelled else None
        images = np.stack([self._image(index, spec, labels) for spec in self.inputs])
        if labels is None:
            return Sample(images, np.full(self.size, UNLABELLED, np.uint8), self.name(index))
        return Sample(images, resize_nearest(labels, self.size), self.name(index))

    def _image(self, index: int, spec: InputSpec, labels: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        path, rig = self._file(index, spec.modality), self._rig_of(index)
        try:
            frame = self._frame(spec.modality, path)
            if not spec.modality.kind.is_points and labels is not None:
                require_same_view(path, frame.data, self.label_file(index), labels)
            if spec.modality.kind.is_points and labels is not None and rig is not None:
                self._require_rig_of_view(rig, index, labels)
            return encode_frame(frame, spec, self.size, rig)
        except InputError as error:
            raise DataError(f"{path}: {error} ({RIG_NAME} of the drive, or `rig` in {DESCRIPTION_NAME})") from None
        except ValueError as error:
            raise DataError(f"{path} cannot be used: {error}") from None

    def _require_rig_of_view(self, rig: Rig, index: int, labels: NDArray[np.uint8]) -> None:
        """Raises DataError where the calibration is of a picture of other proportions than the labelled one."""
        width, height = rig.camera.width, rig.camera.height
        if not is_same_view((height, width), labels.shape):
            raise DataError(
                f"{self.label_file(index)} is {labels.shape[1]}x{labels.shape[0]}, but the calibration ({RIG_NAME} of "
                f"the drive, or `rig` in {DESCRIPTION_NAME}) is of {width}x{height}: points would fall beside their "
                "labels. Give the calibration of the picture as it is stored"
            )

    def _rig_of(self, index: int) -> Rig | None:
        """The calibration of the drive that a sample is of, else that of the data set."""
        spec = self._drive_rigs[str(Path(self._stems[index]).parent)] or self._rig
        return spec.rig() if spec else None

    def _frame(self, modality: Sensor, path: Path) -> SensorFrame:
        if not modality.kind.is_points:
            return frame_from_stored(modality, read_image(path))
        try:
            return frame_from_stored(modality, np.load(path))
        except (OSError, EOFError):
            fault = "is damaged: a NumPy array was expected" if path.is_file() else "is missing"
            raise DataError(f"{path} {fault}") from None

    def _file(self, index: int, modality: Sensor) -> Path:
        candidates = [self.root / f"{self._stems[index]}{ending}" for ending in endings(modality)]
        return next((path for path in candidates if path.is_file()), candidates[0])
