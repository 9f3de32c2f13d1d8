"""Labels that other tools export -> PNGs of class indices: colour codes, CVAT (XML), Labelme and COCO (JSON).

What nobody has marked is 255, unlabelled. A class or colour that is not in the list is an error that names it: a label
that is left out in silence is a wrong one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Literal
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import read_image
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.label_files import files_at_other_depths
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import ClassSpec

Labels = NDArray[np.uint8]
Form = Literal["auto", "colors", "cvat", "labelme", "coco"]
_MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, cv2.error)
"""What a file of another tool raises where something in it is not what it should be."""
_Source = Callable[[Path, Mapping[str, int]], Iterator[tuple[str, Labels]]]


def import_labels(source: Path, out: Path, classes: Sequence[ClassSpec], form: Form = "auto") -> list[Path]:
    """Write a `<name of the picture>.png` for each picture that `source` has labels of.

    Args:
        source: a folder of colour-coded PNGs or of Labelme's files, CVAT's annotations.xml ("CVAT for images 1.1"), or
            COCO's instances file.
        out: folder of the PNGs; made where missing.
        classes: their position is the label.
        form: what `source` is; found by its looks where `auto`.

    Raises DataError that names the file and the class or colour that is not known.
    """
    found = _form_of(source) if form == "auto" else form
    if out.resolve() == source.resolve():
        raise DataError(f"{out} is where the labels come from: they would be overwritten; choose another folder")
    if source.is_dir():
        _require_none_deeper(source, ".json" if found == "labelme" else ".png", out)
    index_of = {entry.name: number for number, entry in enumerate(classes)}
    pictures = _from_colors(source, classes) if found == "colors" else _FORMS[found](source, index_of)
    out.mkdir(parents=True, exist_ok=True)
    written: dict[Path, str] = {}
    for name, labels in pictures:
        path = out / f"{PureWindowsPath(name).stem}.png"  # which takes both kinds of slashes: Labelme writes either
        if path in written:
            raise DataError(f"{source} has labels of {written[path]} and of {name}: both would be {path}")
        if not cv2.imwrite(str(path), labels):
            raise DataError(f"cannot write {path}")
        written[path] = name
    if not written:
        raise DataError(f"{source} has no labels of any picture")
    return list(written)


def _require_none_deeper(folder: Path, ending: str, out: Path) -> None:
    """Raises DataError where labels lie in folders below, which are not entered: names might stand there twice."""
    lost = [
        path for path in files_at_other_depths(folder, ending, depth=0) if out.resolve() not in path.resolve().parents
    ]
    if lost:
        raise DataError(
            f"{lost[0]} lies in a folder below {folder}, and would be left out, as {len(lost)} such files would: "
            "import each folder by itself, or move them"
        )


def _form_of(source: Path) -> Form:
    if source.is_dir():
        return "labelme" if any(source.glob("*.json")) else "colors"
    forms: dict[str, Form] = {".xml": "cvat", ".json": "coco"}
    if source.suffix not in forms or not source.is_file():
        raise DataError(f"{source} is no folder, .xml or .json file: a folder of colour-coded PNGs or Labelme's files, "
                        "CVAT's annotations.xml, or COCO's instances file was expected")  # fmt: skip
    return forms[source.suffix]


def _index(name: str, index_of: Mapping[str, int], file: object) -> int:
    if name not in index_of:
        raise DataError(f"{file} has the class {name!r}; known: {', '.join(index_of)}")
    return index_of[name]


def _filled(labels: Labels, points: Any, index: int) -> None:
    """Draw a polygon [N, 2] of x and y. Raises ValueError for one that is not of this picture."""
    polygon = np.rint(np.asarray(points, np.float64).reshape(-1, 2))
    height, width = labels.shape
    if not np.isfinite(polygon).all() or (polygon.min(0) >= (width, height)).any() or (polygon.max(0) < 0).any():
        raise ValueError(f"an outline lies outside of its picture of {width}x{height}: {polygon[:3].tolist()} ...")
    cv2.fillPoly(labels, [polygon.astype(np.int32)], [float(index)])


def _empty(height: Any, width: Any) -> Labels:
    return np.full((int(height), int(width)), UNLABELLED, np.uint8)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())  # of bytes: tools of Windows begin a file with a mark
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no JSON file: {error}") from None


# --- each form -------------------------------------------------------------------------------------------------------


def _from_colors(folder: Path, classes: Sequence[ClassSpec]) -> Iterator[tuple[str, Labels]]:
    """Colours of classes; black, unless it is a class's, is unlabelled."""
    codes: dict[int, int] = {}
    for number, entry in enumerate(classes):
        first = codes.setdefault(int(_code(np.array(entry.color))), number)
        if first != number:
            raise DataError(f"classes {classes[first].name} and {entry.name} have one colour, {entry.color}")
    known = {0: UNLABELLED} | codes
    for path in sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png"):
        rgb = read_image(path)
        if rgb.ndim != 3 or rgb.dtype != np.uint8:
            raise DataError(f"{path} is {rgb.dtype} {list(rgb.shape)}: colour codes of 8 bits were expected")
        values, inverse = np.unique(_code(rgb.astype(np.int64)), return_inverse=True)
        for value in values.tolist():
            if value not in known:
                color = (value >> 16, value >> 8 & 255, value & 255)
                raise DataError(f"{path} has the colour {color}, which is of no class. Is it a JPEG, or smoothed?")
        table = np.array([known[value] for value in values.tolist()], np.uint8)
        yield path.name, table[inverse].reshape(rgb.shape[:2])


def _code(color: Any) -> Any:
    """RGB [..., 3] -> one number."""
    return color[..., 0] * 65536 + color[..., 1] * 256 + color[..., 2]


def _from_labelme(folder: Path, index_of: Mapping[str, int]) -> Iterator[tuple[str, Labels]]:
    for path in sorted(folder.glob("*.json")):
        content = _read_json(path)
        try:
            labels = _empty(content["imageHeight"], content["imageWidth"])
            for shape in content["shapes"]:
                if shape.get("shape_type", "polygon") != "polygon":
                    raise DataError(f"{path} has a {shape['shape_type']}: only polygons mark pixels")
                _filled(labels, shape["points"], _index(shape["label"], index_of, path))
            name = str(content.get("imagePath") or path.name)
        except _MALFORMED as error:
            raise DataError(f"{path} is no file of Labelme: {error!r}") from None
        yield name, labels


def _from_coco(path: Path, index_of: Mapping[str, int]) -> Iterator[tuple[str, Labels]]:
    content = _read_json(path)
    try:
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        pictures = {
            entry["id"]: (str(entry["file_name"]), _empty(entry["height"], entry["width"]))
            for entry in content["images"]
        }
        for annotation in content["annotations"]:
            picture, labels = pictures[annotation["image_id"]]
            index = _index(names[annotation["category_id"]], index_of, path)
            segmentation = annotation["segmentation"]
            if not segmentation:
                name = names[annotation["category_id"]]
                raise DataError(f"{path} has a {name} in {picture} without outline or mask: a box marks no pixels")
            if isinstance(segmentation, list):
                for polygon in segmentation:
                    _filled(labels, polygon, index)
            else:
                labels[_coco_mask(segmentation)] = index
    except _MALFORMED as error:
        raise DataError(f"{path} is no instances file of COCO: {error!r}") from None
    yield from pictures.values()


def _coco_mask(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Runs that alternate between outside and inside, column by column, as numbers or in COCO's text."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    runs = _coco_runs(counts) if isinstance(counts, str) else counts
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def _coco_runs(text: str) -> list[int]:
    """Five bits a character and one that says whether more follow; from the fourth on the difference to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _from_cvat(path: Path, index_of: Mapping[str, int]) -> Iterator[tuple[str, Labels]]:
    try:
        root = ElementTree.parse(path).getroot()
        for picture in root.iter("image"):
            labels = _empty(picture.attrib["height"], picture.attrib["width"])
            for shape in sorted(picture, key=lambda each: int(each.get("z_order", 0))):
                _draw_cvat(labels, shape, index_of, path)
            yield picture.attrib["name"], labels
    except (ElementTree.ParseError, OSError, *_MALFORMED) as error:
        raise DataError(f"{path} is no file of CVAT for images: {error!r}") from None


def _draw_cvat(labels: Labels, shape: ElementTree.Element, index_of: Mapping[str, int], path: Path) -> None:
    """A polygon or a mask; a tag, which is of the whole picture, marks no pixels, other shapes are an error."""
    if shape.tag == "tag":
        return
    if shape.tag not in ("polygon", "mask"):
        raise DataError(f"{path} has a {shape.tag}: only polygons and masks mark pixels")
    index = _index(shape.attrib["label"], index_of, path)
    if shape.tag == "polygon":
        _filled(labels, [[float(v) for v in point.split(",")] for point in shape.attrib["points"].split(";")], index)
        return
    left, top, width, height = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    labels[top : top + height, left : left + width][inside] = index


_FORMS: dict[str, _Source] = {"cvat": _from_cvat, "labelme": _from_labelme, "coco": _from_coco}
