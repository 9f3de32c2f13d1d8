"""Where data sets of pictures and of LiDAR scans keep their files, and what their labels mean: one table of each.

A row is enough to read such a data set; one's own folder is the same row, written in the configuration.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from anyseg_core.runtime.label_sets import CITYSCAPES, LabelClass, distinct_color

_CITYSCAPES_COLORS = {entry.name: entry.color for entry in CITYSCAPES}
Meaning = dict[str, tuple[str, ...]]
"""Of a class, the classes of another label set that it stands for: one, or several of which it is any."""


class _Layout(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = Field(min_length=2)
    """The class of label 0, 1, 2 …; "" for a label that is not to be learned."""
    meaning: Meaning = {}
    """What a class is in Cityscapes' terms, where its own name is not one of them."""
    licence: str = ""
    """Of the data, as it goes into a student's card."""
    non_commercial: bool = False
    """Whether the licence allows research and non-commercial use only."""
    splits: dict[str, tuple[int, int | None]] = {}
    """Of a split that has no folder of its own: the first and the end of its files, sorted by name."""

    @model_validator(mode="after")
    def _meaning_is_of_classes(self) -> _Layout:
        unknown = sorted(set(self.meaning) - set(self.classes))
        if unknown:
            raise ValueError(f"meaning of {', '.join(unknown)}: no such class among {', '.join(self.classes)}")
        return self

    def label_classes(self) -> tuple[LabelClass, ...]:
        """Names and colours, those of Cityscapes where a class is one of its classes."""
        return tuple(LabelClass(name, self._color(name, number)) for number, name in enumerate(self.classes, start=1))

    def _color(self, name: str, number: int) -> tuple[int, int, int]:
        first = self.meaning.get(name, (name,))[0]
        return _CITYSCAPES_COLORS.get(first) or distinct_color(number)


class PictureLayout(_Layout):
    """A data set of pictures, each with a picture of labels (8-bit class indices, 255 = ignored)."""

    images: str
    """Pattern below the data set's folder, such as image/{split}/*.jpg."""
    labels: str
    """The label picture of an image, such as label/{split}/{stem}.png; {stem} is the image's name without ending."""


class ScanLayout(_Layout):
    """A data set of LiDAR scans with a label for every point, each an .npz file.

    Arrays of a file: `xyz_cm` int16 [..., 3] in centimetres, z up; `intensity` uint8 [...]; `label` uint8 [...].
    """

    scans: str
    """Pattern below the data set's folder, such as {split}/*.npz."""
    full_intensity: float = Field(default=255.0, gt=0)
    """The stored intensity that counts as 1. Intensity has no common unit: each sensor needs its own."""
    forward_deg: float = 0.0
    """Direction in which the vehicle drives, from the scan's x axis towards its y axis."""


_VEHICLES = ("car", "truck", "bus", "train", "motorcycle", "bicycle")

PICTURE_LAYOUTS: dict[str, PictureLayout] = {
    "kitti_semantic": PictureLayout(
        images="image/*.jpg",
        labels="label/{stem}.png",
        classes=tuple(entry.name for entry in CITYSCAPES),
        splits={"train": (0, 155), "val": (155, None), "test": (155, None)},
        licence="KITTI, CC BY-NC-SA 3.0",
        non_commercial=True,
    ),
    "camvid": PictureLayout(
        images="image/*.jpg",
        labels="label/{stem}.png",
        classes=(
            *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian"),
            "bicyclist",
        ),
        meaning={
            "building": ("building", "wall"),
            "pavement": ("sidewalk",),
            "tree": ("vegetation", "terrain"),
            "sign": ("traffic sign", "traffic light"),
            "car": ("car", "truck", "bus", "train"),
            "pedestrian": ("person",),
            "bicyclist": ("rider", "bicycle", "motorcycle"),
        },
        splits={"train": (0, None)},
        licence="CamVid, research",
        non_commercial=True,
    ),
    "idd_lite": PictureLayout(
        images="image/{split}/*.jpg",
        labels="label/{split}/{stem}.png",
        classes=("drivable", "non-drivable", "living", "vehicle", "roadside object", "far object", "sky"),
        meaning={
            "drivable": ("road",),
            "non-drivable": ("sidewalk", "terrain"),
            "living": ("person", "rider"),
            "vehicle": _VEHICLES,
            "roadside object": ("wall", "fence", "pole", "traffic light", "traffic sign"),
            "far object": ("building", "vegetation"),
        },
        licence="IDD-Lite, research, non-commercial",
        non_commercial=True,
    ),
}
"""By name: KITTI's semantic benchmark (one recording day to train on, the others held out), CamVid with SegNet's 11
classes, IDD-Lite."""

SCAN_LAYOUTS: dict[str, ScanLayout] = {
    "semantic_kitti": ScanLayout(
        scans="{split}/*.npz",
        classes=(
            *("", "car", "bicycle", "motorcycle", "truck", "other vehicle", "person", "bicyclist", "motorcyclist"),
            *("road", "parking", "sidewalk", "other ground", "building", "fence", "vegetation", "trunk", "terrain"),
            *("pole", "sign"),
        ),
        meaning={
            "other vehicle": ("bus", "train", "truck"),
            "bicyclist": ("rider",),
            "motorcyclist": ("rider",),
            "parking": ("road", "sidewalk"),
            "other ground": ("sidewalk", "terrain"),
            "fence": ("fence", "wall"),
            "trunk": ("vegetation",),
            "sign": ("traffic sign", "traffic light"),
        },
        licence="SemanticKITTI, CC BY-NC-SA 4.0",
        non_commercial=True,
    ),
    "nuscenes": ScanLayout(
        scans="{split}/*.npz",
        classes=("road", "sidewalk", "building", "pole", "vegetation", "person", "two-wheeler", "car", "truck", "bus"),
        meaning={
            "building": ("building", "wall", "fence"),
            "vegetation": ("vegetation", "terrain"),
            "two-wheeler": ("bicycle", "motorcycle", "rider"),
        },
        full_intensity=96.0,
        forward_deg=90.0,
        licence="nuScenes, CC BY-NC-SA 4.0",
        non_commercial=True,
    ),
}
"""By name: SemanticKITTI (HDL-64) and nuScenes (32 lines) as range images. KITTI's brightest points are at 255; of
nuScenes' points 99 % are below 96, most of them below 20."""


Row = TypeVar("Row", PictureLayout, ScanLayout)


def find_layout(layouts: dict[str, Row], name: str | None, own: Row | None) -> Row:
    """The layout that is written out, or the one of that name; raises ValueError that lists the names."""
    if own is not None:
        return own
    if name not in layouts:
        raise ValueError(f"layout {name!r} is unknown; known: {', '.join(layouts)}, or write one out")
    return layouts[name]
