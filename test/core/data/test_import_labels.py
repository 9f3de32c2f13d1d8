"""Labels of other tools become class indices; what is not known is named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from anyseg_core.data.import_labels import _coco_runs, import_labels
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.label_files import read_labels
from anyseg_core.runtime.model_card import ClassSpec

CLASSES = (ClassSpec(name="road", color=(128, 64, 128)), ClassSpec(name="hole", color=(255, 120, 0)))
SQUARE = [[2, 1], [5, 1], [5, 4], [2, 4]]
EXPECTED = np.full((8, 10), 255, np.uint8)
EXPECTED[1:5, 2:6] = 1


def coco(segmentation: object, name: str = "hole") -> dict:
    return {
        "categories": [{"id": 7, "name": name}],
        "images": [{"id": 3, "file_name": "a/frame_1.jpg", "height": 8, "width": 10}],
        "annotations": [{"image_id": 3, "category_id": 7, "segmentation": segmentation}],
    }


def column_runs() -> list[int]:
    """EXPECTED as COCO counts: column by column, outside and inside in turn."""
    inside = (EXPECTED == 1).T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    return np.diff(np.concatenate([[0], edges, [inside.size]])).tolist()


def cvat(shape: str) -> str:
    picture = f'<image name="x/frame_1.jpg" width="10" height="8"><tag label="day"/>{shape}</image>'
    return f"<annotations>{picture}</annotations>"


LABELME = {
    "imagePath": "frame_1.jpg", "imageHeight": 8, "imageWidth": 10, "shapes": [{"label": "hole", "points": SQUARE}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels/frame_1.json", json.dumps(LABELME)),
        ("coco.json", json.dumps(coco([np.ravel(SQUARE).tolist()]))),
        ("runs.json", json.dumps(coco({"size": [8, 10], "counts": column_runs()}))),
        ("a.xml", cvat('<polygon label="hole" points="2,1;5,1;5,4;2,4" z_order="0"/>')),
        ("m.xml", cvat('<mask label="hole" left="2" top="1" width="4" height="4" rle="0,16"/>')),
    ],
)
def test_each_form_gives_the_same_labels(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    (written,) = import_labels(path.parent if "/" in name else path, tmp_path / "out", CLASSES)
    assert written.name == "frame_1.png"
    np.testing.assert_array_equal(read_labels(written, 2), EXPECTED)


def test_colour_codes(tmp_path: Path) -> None:
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[1:5, 2:6] = CLASSES[1].color
    cv2.imwrite(str(tmp_path / "frame_1.png"), rgb[..., ::-1])
    (written,) = import_labels(tmp_path, tmp_path / "out", CLASSES)
    np.testing.assert_array_equal(read_labels(written, 2), EXPECTED)
    rgb[0, 0] = (1, 2, 3)
    cv2.imwrite(str(tmp_path / "frame_1.png"), rgb[..., ::-1])
    with pytest.raises(DataError, match=r"frame_1\.png has the colour \(1, 2, 3\), which is of no class"):
        import_labels(tmp_path, tmp_path / "out", CLASSES)


def test_runs_in_coco_s_text() -> None:
    assert _coco_runs("52204") == [5, 2, 2, 2, 6]  # from the fourth on: the difference to the last but one


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("coco.json", json.dumps(coco([[1, 1, 2, 2, 3, 3]], "tree")), "class 'tree'; known: road, hole"),
        ("a.xml", cvat('<box label="hole" xtl="1" ytl="1" xbr="2" ybr="2"/>'), "has a box"),
        ("a.xml", cvat('<ellipse label="hole" cx="4" cy="4" rx="2" ry="2"/>'), "has a ellipse"),
        ("a.xml", cvat('<skeleton label="hole"><points points="1,1"/></skeleton>'), "has a skeleton"),
        ("coco.json", json.dumps(coco([])), r"has a hole in a/frame_1\.jpg without outline or mask"),
        ("a.xml", "<annotations>", "no file of CVAT"),
        ("a.xml", cvat('<mask label="hole" left="-1" top="1" width="4" height="4" rle="0,16"/>'), "no file of CVAT"),
        ("coco.json", json.dumps(coco([[20, 1, 22, 2, 23, 3]])), "lies outside of its picture of 10x8"),
        ("coco.json", json.dumps(coco([[float("nan"), 1, 2, 2, 3, 3]])), "lies outside of its picture"),
        ("coco.json", json.dumps(coco([[]])), "no instances file"),
        ("coco.json", json.dumps(coco([1, 2])), "no instances file"),
        ("coco.json", json.dumps(coco("text")), "no instances file"),
        ("a.json", "[]", "no instances file"),
        ("a.txt", "", "no folder, .xml or .json file"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says):
        import_labels(tmp_path / name, tmp_path / "out", CLASSES)


def test_pictures_of_one_name_are_not_written_over_each_other(tmp_path: Path) -> None:
    content = coco([np.ravel(SQUARE).tolist()])
    content["images"].append({"id": 4, "file_name": "b/frame_1.jpg", "height": 8, "width": 10})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"labels of a/frame_1\.jpg and of b/frame_1\.jpg"):
        import_labels(tmp_path / "coco.json", tmp_path / "out", CLASSES)


def test_a_path_of_windows_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "any.json").write_text(json.dumps(LABELME | {"imagePath": "..\\pictures\\frame_1.jpg"}))
    (written,) = import_labels(tmp_path, tmp_path / "out", CLASSES)
    assert written.name == "frame_1.png"


def test_colour_codes_that_mean_two_classes_or_would_be_lost_are_refused(tmp_path: Path) -> None:
    rgb = np.full((8, 10, 3), CLASSES[1].color, np.uint8)
    cv2.imwrite(str(tmp_path / "frame_1.png"), rgb[..., ::-1])
    (tmp_path / "frame_1.png").rename(tmp_path / "frame_1.PNG")
    with pytest.raises(DataError, match="classes road and hole have one colour"):
        import_labels(tmp_path, tmp_path / "out", [CLASSES[0].model_copy(update={"color": (255, 120, 0)}), CLASSES[1]])
    with pytest.raises(DataError, match="would be overwritten"):
        import_labels(tmp_path, tmp_path, CLASSES)
    (written,) = import_labels(tmp_path, tmp_path / "out", CLASSES)
    assert (read_labels(written, 2) == 1).all()


def test_labels_in_a_folder_below_are_not_left_out_in_silence(tmp_path: Path) -> None:
    for name in ("labels/frame_1.json", "labels/second_drive/frame_2.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(LABELME))
    with pytest.raises(DataError, match=r"second_drive/frame_2\.json lies in a folder below"):
        import_labels(tmp_path / "labels", tmp_path / "out", CLASSES)
    colors = tmp_path / "colors"
    colors.mkdir()
    cv2.imwrite(str(colors / "a.png"), np.zeros((4, 4, 3), np.uint8))
    for _ in range(2):  # what it wrote into a folder below is no label to import
        assert len(import_labels(colors, colors / "out", CLASSES)) == 1


@pytest.mark.parametrize("shapes", [["hole"], [{"label": "hole", "points": []}], [7], None])
def test_malformed_files_of_labelme_are_named(tmp_path: Path, shapes: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps(LABELME | {"shapes": shapes}))
    with pytest.raises(DataError, match=r"a\.json is no file of Labelme"):
        import_labels(tmp_path, tmp_path / "out", CLASSES)


def test_a_file_with_the_mark_that_tools_of_windows_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(LABELME).encode().replace(b", ", b",\r\n"))
    (written,) = import_labels(tmp_path, tmp_path / "out", CLASSES)
    np.testing.assert_array_equal(read_labels(written, 2), EXPECTED)
