"""Class names and colours of the public data sets. A student's own classes are in its model card."""

from __future__ import annotations

from typing import Literal, NamedTuple

UNLABELLED = 255
"""Label of a pixel that has no class: ignored in training and scoring, published where nothing is known."""


Surface = Literal["", "ground", "drivable"]


class LabelClass(NamedTuple):
    """A class: its index is its position in the label set."""

    name: str
    color: tuple[int, int, int]
    """RGB, 0-255."""
    surface: Surface = ""
    """What a planner takes it for: something that stands ("", an obstacle), ground, or ground that is for vehicles."""


DELIVER: tuple[LabelClass, ...] = (
    LabelClass("Building", (70, 70, 70)),
    LabelClass("Fence", (100, 40, 40)),
    LabelClass("Other", (55, 90, 80)),
    LabelClass("Pedestrian", (220, 20, 60)),
    LabelClass("Pole", (153, 153, 153)),
    LabelClass("RoadLine", (157, 234, 50), "drivable"),
    LabelClass("Road", (128, 64, 128), "drivable"),
    LabelClass("SideWalk", (244, 35, 232), "ground"),
    LabelClass("Vegetation", (107, 142, 35)),
    LabelClass("Cars", (0, 0, 142)),
    LabelClass("Wall", (102, 102, 156)),
    LabelClass("TrafficSign", (220, 220, 0)),
    LabelClass("Sky", (70, 130, 180)),
    LabelClass("Ground", (81, 0, 81), "ground"),
    LabelClass("Bridge", (150, 100, 100)),
    LabelClass("RailTrack", (230, 150, 140), "ground"),
    LabelClass("GroundRail", (180, 165, 180)),
    LabelClass("TrafficLight", (250, 170, 30)),
    LabelClass("Static", (110, 190, 160)),
    LabelClass("Dynamic", (170, 120, 50)),
    LabelClass("Water", (45, 60, 150)),
    LabelClass("Terrain", (145, 170, 100), "ground"),
    LabelClass("TwoWheeler", (0, 0, 230)),
    LabelClass("Bus", (0, 60, 100)),
    LabelClass("Truck", (0, 0, 70)),
)
"""The 25 classes of DELIVER (CMNeXt, arXiv 2303.01480) in its label order, with CARLA's colours."""

POTHOLE: tuple[LabelClass, ...] = (
    LabelClass("Road", (128, 64, 128), "drivable"),
    LabelClass("Pothole", (255, 120, 0)),
)
"""The classes of the stereo pothole data set (ruirangerfan/stereo_pothole_datasets)."""

CITYSCAPES: tuple[LabelClass, ...] = (
    LabelClass("road", (128, 64, 128), "drivable"),
    LabelClass("sidewalk", (244, 35, 232), "ground"),
    LabelClass("building", (70, 70, 70)),
    LabelClass("wall", (102, 102, 156)),
    LabelClass("fence", (190, 153, 153)),
    LabelClass("pole", (153, 153, 153)),
    LabelClass("traffic light", (250, 170, 30)),
    LabelClass("traffic sign", (220, 220, 0)),
    LabelClass("vegetation", (107, 142, 35)),
    LabelClass("terrain", (152, 251, 152), "ground"),
    LabelClass("sky", (70, 130, 180)),
    LabelClass("person", (220, 20, 60)),
    LabelClass("rider", (255, 0, 0)),
    LabelClass("car", (0, 0, 142)),
    LabelClass("truck", (0, 0, 70)),
    LabelClass("bus", (0, 60, 100)),
    LabelClass("train", (0, 80, 100)),
    LabelClass("motorcycle", (0, 0, 230)),
    LabelClass("bicycle", (119, 11, 32)),
)
"""The 19 classes of Cityscapes (train ids), which MUSES is labelled with."""

_NYU40 = (
    "wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain dresser "
    "pillow mirror floor_mat clothes ceiling books refridgerator television paper towel shower_curtain box whiteboard "
    "person night_stand toilet sink lamp bathtub bag otherstructure otherfurniture otherprop"
)
_NYU40_GROUND: dict[str, Surface] = {"floor": "drivable", "floor_mat": "drivable"}


def distinct_color(number: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour map: the bits of the number, three at a time, become the high bits of red, green and blue."""
    bits = [[number >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


NYU40: tuple[LabelClass, ...] = tuple(
    LabelClass(name, distinct_color(number), _NYU40_GROUND.get(name, ""))
    for number, name in enumerate(_NYU40.split(), start=1)
)
"""The 40 classes of NYUDepth v2 (Gupta et al., CVPR 2013), with the names and the spelling of classMapping40.mat."""

POTSDAM: tuple[LabelClass, ...] = (
    LabelClass("impervious surface", (255, 255, 255), "ground"),
    LabelClass("building", (0, 0, 255)),
    LabelClass("low vegetation", (0, 255, 255), "ground"),
    LabelClass("tree", (0, 255, 0)),
    LabelClass("car", (255, 255, 0)),
    LabelClass("clutter", (255, 0, 0)),
)
"""The classes of ISPRS Potsdam in the colours of its label images."""

MID_AIR: tuple[LabelClass, ...] = (
    LabelClass("sky", (127, 175, 230)),
    LabelClass("animals", (220, 20, 60)),
    LabelClass("trees", (50, 128, 0)),
    LabelClass("dirt ground", (105, 58, 69), "ground"),
    LabelClass("ground vegetation", (53, 94, 59), "ground"),
    LabelClass("rocky ground", (117, 97, 97), "ground"),
    LabelClass("boulders", (70, 70, 70)),
    LabelClass("water plane", (75, 163, 185)),
    LabelClass("man-made construction", (64, 64, 128)),
    LabelClass("road", (128, 64, 128), "drivable"),
    LabelClass("train track", (230, 150, 140), "ground"),
    LabelClass("road sign", (220, 220, 0)),
    LabelClass("others", (128, 64, 64)),
)
"""The classes of Mid-Air in the order of its ids, without id 7, which is empty."""
