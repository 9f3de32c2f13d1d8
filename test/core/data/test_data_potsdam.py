"""ISPRS Potsdam: windows of tiles, on small tiles in the exact layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyseg_core.data.check import check_split, contact_sheet
from anyseg_core.data.datasets import DataConfig, kind_of, open_dataset
from anyseg_core.data.potsdam import Potsdam
from anyseg_core.data.sample import DataError
from anyseg_core.data.usable import UsableSamples
from anyseg_core.runtime.label_sets import POTSDAM
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.config import ConfigError, parse_config

rasterio = pytest.importorskip("rasterio", reason="Potsdam's tiles need pip install anyseg_ros[potsdam]")
from rasterio.transform import from_origin  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio's own
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),  # when the test writes a JPEG
]
SIZE = (64, 96)
TILE = (150, 240)
"""Rows and columns: 3 lines of windows and 3 columns, of which the last overlap."""


def write(path: Path, image: np.ndarray, **options: object) -> None:
    """image [h, w, bands], with the georeference that Potsdam's TIFFs have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = image.shape
    driver = "JPEG" if path.suffix == ".jpg" else "GTiff"
    place = {} if driver == "JPEG" else {"transform": from_origin(366_000, 5_807_000, 0.05, 0.05), "crs": "EPSG:32633"}
    shape = {"width": width, "height": height, "count": bands, "dtype": "uint8"}
    with rasterio.open(path, "w", driver=driver, **shape, **place, **options) as file:
        file.write(np.moveaxis(image, 2, 0))


def aerial(height: int = TILE[0], width: int = TILE[1]) -> np.ndarray:
    """[h, w, 4]: line, column, 7, and an infrared that must not be shown."""
    rows, cols = np.indices((height, width))
    return np.stack([rows % 256, cols % 256, np.full_like(rows, 7), np.full_like(rows, 200)], axis=-1).astype(np.uint8)


def colours(height: int = TILE[0], width: int = TILE[1]) -> np.ndarray:
    """[h, w, 3]: the six classes side by side, black below."""
    palette = np.array([entry.color for entry in POTSDAM], np.uint8)
    image = palette[np.arange(width) * 6 // width][None].repeat(height, axis=0)
    image[-10:] = 0
    return image


def heights(height: int = TILE[0], width: int = TILE[1]) -> np.ndarray:
    """[h, w, 1]: the ground at 0, a building at 100."""
    image = np.zeros((height, width, 1), np.uint8)
    image[:, width // 2 :] = 100
    return image


def write_tile(root: Path, tile: str, **options: object) -> None:
    row, column = map(int, tile.split("_"))
    height = f"1_DSM_normalisation/dsm_potsdam_{row:02d}_{column:02d}_normalized_lastools.jpg"
    write(root / "4_Ortho_RGBIR" / f"top_potsdam_{tile}_RGBIR.tif", aerial(), **options)
    write(root / "5_Labels_all" / f"top_potsdam_{tile}_label.tif", colours(), **options)
    write(root / height, heights(), quality=95)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "potsdam"
    write_tile(root, "2_10")
    write_tile(root, "7_13", compress="lzw", tiled=True, blockxsize=64, blockysize=64)
    return root


def test_tiles_are_cut_into_windows_that_cover_them(root: Path) -> None:
    dataset = Potsdam(root, "train", SIZE)
    assert len(dataset) == 9
    seen = np.zeros(TILE, bool)
    for index in range(9):
        top, left = (int(number) for number in dataset.name(index).split("/")[1].split("_")[:2])
        seen[top : top + SIZE[0], left : left + SIZE[1]] = True
        image = dataset[index].images[0]
        assert image[0, 0].tolist() == [top, left, 7]  # where it says it is, without the infrared
        assert image[-1, -1].tolist() == [top + 63, left + 95, 7]
    assert seen.all()


def test_a_compressed_tile_of_the_test_columns_is_read_the_same(root: Path) -> None:
    train, test = Potsdam(root, "train", SIZE), Potsdam(root, "test", SIZE)
    assert (train.name(4)[:4], test.name(4)[:4]) == ("2_10", "7_13")
    for a, b in zip((train[i] for i in range(9)), (test[i] for i in range(9)), strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_colours_become_classes_and_black_is_ignored(root: Path) -> None:
    whole = Potsdam(root, "train", (128, 224), window=TILE)[0].labels
    assert len(Potsdam(root, "train", (128, 224), window=TILE)) == 1
    assert [int(whole[20, 224 * number // 6 + 10]) for number in range(6)] == [0, 1, 2, 3, 4, 5]
    assert (whole[-6:] == 255).all()


def test_a_colour_that_is_off_by_some_counts_as_its_neighbour(root: Path) -> None:
    image = colours()
    image[image == 255] = 251
    image[image == 0] = 4
    write(root / "5_Labels_all/top_potsdam_2_10_label.tif", image)
    np.testing.assert_array_equal(Potsdam(root, "train", SIZE)[0].labels, Potsdam(root, "test", SIZE)[0].labels)


def test_height_is_depth_from_above(root: Path) -> None:
    depth = Potsdam(root, "train", (128, 224), window=TILE)[0].images[1]
    ground, roof = depth[20, 50], depth[20, 200]
    assert (ground[0], ground[2]) == (255, 255)  # the ground is measured, and furthest
    assert roof[0] == pytest.approx(155, abs=3)
    assert roof[2] == 255


def test_a_window_of_a_broken_tile_is_read_where_the_tile_is_whole(root: Path) -> None:
    """Only what is in the window is read: half a file is enough for the windows in that half."""
    path = root / "4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif"
    write(path, aerial(), compress="deflate", blockysize=10, tiled=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    dataset = Potsdam(root, "train", SIZE)
    usable = UsableSamples(dataset, show_progress=False)
    assert {sample.name.split("/")[1][:4] for sample in usable.skipped} == {"0064", "0086"}
    assert (len(usable), len(usable.skipped)) == (3, 6)
    assert "top_potsdam_2_10_RGBIR.tif is damaged at line 64" in usable.skipped[0].error
    assert "6 broken ones skipped" in usable.description


def test_a_height_image_may_lack_a_line_but_not_more(root: Path) -> None:
    path = root / "1_DSM_normalisation/dsm_potsdam_02_10_normalized_lastools.jpg"
    write(path, heights(TILE[0] - 1))
    last = Potsdam(root, "train", SIZE)[8].images[1]
    np.testing.assert_array_equal(last[-1], last[-2])
    write(path, heights(TILE[0] // 2))
    with pytest.raises(DataError, match=r"normalized_lastools\.jpg ends before line 150"):
        _ = Potsdam(root, "train", SIZE)[8]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif", None, r"_RGBIR\.tif is missing.*skip_broken"),
        ("4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif", b"no tif", r"_RGBIR\.tif is damaged"),
        ("5_Labels_all/top_potsdam_2_10_label.tif", b"no tif", r"_label\.tif is damaged"),
        ("1_DSM_normalisation/dsm_potsdam_02_10_normalized_lastools.jpg", None, r"_lastools\.jpg is missing"),
    ],
)
def test_a_broken_file_is_named(root: Path, file: str, content: bytes | None, says: str) -> None:
    (root / file).unlink() if content is None else (root / file).write_bytes(content)
    with pytest.raises(DataError, match=says):
        _ = Potsdam(root, "train", SIZE)[0]


def test_images_of_other_bands_are_named(root: Path) -> None:
    write(root / "5_Labels_all/top_potsdam_2_10_label.tif", heights())
    with pytest.raises(DataError, match=r"has 1 bands of uint8: 3 of uint8 were expected"):
        _ = Potsdam(root, "train", SIZE)[0]


def test_what_is_not_there_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"no top_potsdam_\*_label\.tif of split train"):
        Potsdam(tmp_path / "nowhere", "train", SIZE)
    with pytest.raises(DataError, match="split holdout is unknown; known: train, val, test"):
        Potsdam(root, "holdout", SIZE)
    with pytest.raises(ConfigError, match="window is a setting of kind potsdam, not of mid_air"):
        parse_config({"name": "x", "data": {"kind": "mid_air", "root": "d", "window": [9, 9]}}, "test")


def test_the_rgb_tiles_do_as_well_and_depth_may_be_left_out(root: Path) -> None:
    (root / "4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif").unlink()
    write(root / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif", aerial()[..., :3])
    sample = Potsdam(root, "train", SIZE, [Sensor.CAMERA])[0]
    assert sample.images.shape == (1, *SIZE, 3)
    assert sample.images[0, 5, 9].tolist() == [5, 9, 7]


def test_windows_are_packed_and_checked(root: Path, tmp_path: Path) -> None:
    assert kind_of(root) == "potsdam"
    config = DataConfig(kind="potsdam", root=root, size=SIZE, window=(75, 120), cache=tmp_path / "cache")
    packed = open_dataset(config, "train")
    assert len(packed) == 4
    found, usable = check_split(Potsdam(root, "train", SIZE), show_progress=False)
    assert not found.never_seen
    assert found.unlabelled == pytest.approx(100 * 30 / (9 * 64), abs=2)
    assert contact_sheet(usable, rows=2).shape[1] == 4 * 204
