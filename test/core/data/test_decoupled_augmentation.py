"""Decoupled augmentation: each sensor moves by itself, its labels move with it, and the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from repository import REPOSITORY
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from anyseg_core.data.decoupled import (
    CameraPipeline,
    DecoupledConfig,
    DecoupledSample,
    SensorPipeline,
    augment_apart,
    augment_view,
    draw_affine,
)
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

STILL = SensorPipeline(hflip=0.0, scale=(1.0, 1.0), rotation_deg=(0.0, 0.0))
RGBD = (Sensor.CAMERA, Sensor.DEPTH)


def coordinates(height: int, width: int) -> np.ndarray:
    """[h, w, 3]: every pixel shows its column, its row, and 255."""
    rows, cols = np.indices((height, width))
    return np.stack([cols, rows, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


def cells(height: int, width: int, side: int = 8) -> np.ndarray:
    """[h, w]: labels 0 to 249 in square cells; neighbours differ."""
    rows, cols = np.indices((height, width)) // side
    return ((rows * 37 + cols) % 250).astype(np.uint8)


def moved(config: SensorPipeline | None = None, seed: int = 0, size: tuple[int, int] = (64, 96)) -> DecoupledSample:
    """Depth alone, which shows coordinates at the output's own size."""
    image = coordinates(*size)[None]
    apart = DecoupledConfig(depth=config or SensorPipeline())
    return augment_apart(image, cells(*size), (Sensor.DEPTH,), size, apart, np.random.default_rng(seed))


def nearest(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """image [H, W, ...] at normalised positions [H, W, 2]."""
    height, width = image.shape[:2]
    cols = np.clip(np.floor((grid[..., 0] + 1) / 2 * width), 0, width - 1).astype(int)
    rows = np.clip(np.floor((grid[..., 1] + 1) / 2 * height), 0, height - 1).astype(int)
    return image[rows, cols]


pipelines = st.builds(
    SensorPipeline,
    hflip=st.sampled_from([0.0, 1.0]),
    scale=st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 3.0)),
    rotation_deg=st.floats(0, 180).map(lambda angle: (-angle, angle)),
    random_crop=st.booleans(),
)
sizes = st.sampled_from([(32, 32), (64, 96), (96, 64)])


# --- there and back


@given(pipelines, st.integers(0, 10_000), sizes)
def test_warp_and_inverse_bring_every_pixel_back_within_a_pixel_or_mark_it(
    pipeline: SensorPipeline, seed: int, size: tuple[int, int]
) -> None:
    sample = moved(pipeline, seed, size)
    back = nearest(sample.images[0], sample.to_common[0])
    away = np.abs(back.astype(int) - coordinates(*size)).max(axis=-1)
    labels = cells(*size)
    around = np.pad(labels, 1, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).reshape(*size, 9)
    has_label = (around == nearest(sample.labels[0], sample.to_common[0])[..., None]).any(axis=-1)
    interior = np.abs(sample.to_common[0]).max(axis=-1) < 1 - 2 / min(
        size
    )  # interpolation ends a pixel before the edge
    inner = np.zeros(size, bool)
    inner[1:-1, 1:-1] = True
    assert (away[sample.valid[0] & interior & inner] <= 1).all()
    assert has_label[sample.valid[0] & interior & inner].all()


@given(pipelines, st.integers(0, 10_000), sizes)
def test_the_view_shows_what_its_grid_says_and_nothing_beyond(
    pipeline: SensorPipeline, seed: int, size: tuple[int, int]
) -> None:
    sample = moved(pipeline, seed, size)
    grid, shown = sample.from_common[0], sample.images[0, ..., 2] == 255
    expected = (grid + 1) / 2 * (size[1], size[0]) - 0.5  # column and row
    away = np.abs(sample.images[0, ..., :2] - expected).max(axis=-1)
    assert (away[shown] <= 0.6).all()
    np.testing.assert_array_equal(shown, sample.labels[0] != 255)
    edge = np.abs(np.abs(grid).max(axis=-1) - 1) < 1 / min(size)  # half a pixel
    np.testing.assert_array_equal(shown[~edge], sample.valid_from[0][~edge])


@given(pipelines, st.integers(0, 10_000), sizes)
def test_both_grids_undo_each_other(pipeline: SensorPipeline, seed: int, size: tuple[int, int]) -> None:
    sample = moved(pipeline, seed, size)
    there = np.concatenate([sample.from_common, np.ones((1, *size, 1), np.float32)], axis=-1)
    again = np.einsum("mhwj,mij->mhwi", there, sample.to_view)
    np.testing.assert_allclose(again[0, 0, 0], (1 / size[1] - 1, 1 / size[0] - 1), atol=1e-4)
    np.testing.assert_allclose(again[0, -1, -1], (1 - 1 / size[1], 1 - 1 / size[0]), atol=1e-4)


# --- features of a network, through torch


@pytest.mark.parametrize("stride", [4, 8])
@given(pipelines, st.integers(0, 10_000))
@settings(max_examples=25)
def test_features_come_back_aligned(stride: int, pipeline: SensorPipeline, seed: int) -> None:
    size = (128, 192)
    image = coordinates(*size)
    view = augment_view(image, cells(*size), size, pipeline, np.random.default_rng(seed), average=True)
    theta = torch.from_numpy(view.to_view[None]).float()
    features = avg_pool2d(torch.from_numpy(view.image).permute(2, 0, 1)[None].float(), stride)  # [1, 3, H/s, W/s]
    grid = affine_grid(theta, list(features.shape), align_corners=False)
    back = grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    expected = avg_pool2d(torch.from_numpy(image).permute(2, 0, 1)[None].float(), stride)[0]
    whole = grid.abs().amax(dim=-1)[0] < 1 - 2 * stride / min(size)  # bilinear weights end half a cell before the edge
    whole &= back[2] > 254.5  # no margin in the cells
    assert ((back - expected)[:2].abs().amax(dim=0)[whole] < 1.1).all()  # of a pixel: rounded twice


def test_the_grid_of_the_sample_is_torchs() -> None:
    sample = moved(seed=3)
    theta = torch.from_numpy(sample.to_view)
    grid = affine_grid(theta, [1, 1, 64, 96], align_corners=False)
    np.testing.assert_allclose(grid.numpy(), sample.to_common, atol=1e-5)
    back = grid_sample(
        torch.from_numpy(sample.labels)[:, None].float(),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    agree = back[0, 0].numpy() == nearest(sample.labels[0], sample.to_common[0])
    assert agree[sample.valid[0]].mean() > 0.99  # rounding


# --- known changes


def test_nothing_changes_when_everything_is_off() -> None:
    sample = moved(STILL)
    np.testing.assert_array_equal(sample.images[0], coordinates(64, 96))
    np.testing.assert_array_equal(sample.labels[0], cells(64, 96))
    np.testing.assert_allclose(sample.to_view[0], [[1, 0, 0], [0, 1, 0]], atol=1e-7)
    assert sample.valid.all()
    assert sample.valid_from.all()


@pytest.mark.parametrize("average", [False, True])
def test_a_quarter_turn_is_a_quarter_turn_counter_clockwise(average: bool) -> None:
    still = STILL.model_copy(update={"rotation_deg": (90.0, 90.0)})
    image = coordinates(64, 64)
    view = augment_view(image, cells(64, 64), (64, 64), still, np.random.default_rng(0), average=average)
    np.testing.assert_array_equal(view.image, np.rot90(image))
    np.testing.assert_array_equal(view.labels, np.rot90(cells(64, 64)))
    np.testing.assert_allclose(view.to_view @ (1, 0, 1), (0, -1), atol=1e-9)  # right becomes up


@given(pipelines, st.integers(0, 10_000), sizes)
def test_shapes_keep_their_proportions_also_in_an_oblong_image(
    pipeline: SensorPipeline, seed: int, size: tuple[int, int]
) -> None:
    half = np.array([size[1], size[0]]) / 2
    to_view = draw_affine(size, pipeline, np.random.default_rng(seed))[:, :2] * half[:, None] / half  # in pixels
    zoom = np.sqrt(abs(np.linalg.det(to_view)))
    np.testing.assert_allclose(to_view @ to_view.T, zoom**2 * np.eye(2), atol=1e-6)
    assert pipeline.scale[0] - 1e-6 <= zoom <= pipeline.scale[1] + 1e-6


def test_a_mirror_mirrors_before_it_turns() -> None:
    sample = moved(STILL.model_copy(update={"hflip": 1.0}))
    np.testing.assert_array_equal(sample.labels[0], cells(64, 96)[:, ::-1])
    both = moved(STILL.model_copy(update={"hflip": 1.0, "rotation_deg": (90.0, 90.0)}), size=(64, 64))
    np.testing.assert_array_equal(both.labels[0], np.rot90(cells(64, 64)[:, ::-1]))


def test_a_zoom_without_a_random_crop_shows_the_middle() -> None:
    sample = moved(STILL.model_copy(update={"scale": (2.0, 2.0), "random_crop": False}))
    np.testing.assert_array_equal(sample.labels[0], cells(64, 96)[16:48, 24:72].repeat(2, 0).repeat(2, 1))
    assert sample.valid[0, 16:48, 24:72].all()
    assert sample.valid.sum() == 32 * 48


@given(st.integers(0, 1000))
def test_a_random_crop_stays_over_the_image(seed: int) -> None:
    near = moved(STILL.model_copy(update={"scale": (2.0, 2.0)}), seed)
    assert near.valid_from.all()
    far = moved(STILL.model_copy(update={"scale": (0.5, 0.5)}), seed)
    assert far.valid.all()


def test_the_output_may_have_another_size_than_the_image() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[15:30, 20:40] = 1  # rows 1/4 to 1/2, columns 1/4 to 1/2
    picture = np.repeat(labels[..., None] * np.uint8(200), 3, axis=2)
    for average in (False, True):
        for side in (32, 128):
            view = augment_view(picture, labels, (side, side), STILL, np.random.default_rng(0), average=average)
            quarter = slice(side // 4, side // 2)
            assert (view.labels == 1).sum() == (side // 4) ** 2
            assert (view.labels[quarter, quarter] == 1).all()
            assert view.image[..., 0].sum() == pytest.approx(200 * (side // 4) ** 2, rel=0.05)


def test_a_camera_that_shrinks_is_averaged() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    still = STILL.model_copy(update={"scale": (0.5, 0.5), "random_crop": False})
    for average, values in ((True, {100}), (False, {0, 200})):
        view = augment_view(stripes, cells(128, 128), (64, 64), still, np.random.default_rng(0), average=average)
        assert set(np.unique(view.image[20:44, 20:44])) <= values


# --- sensors apart


def test_the_documented_example_runs() -> None:
    text = (REPOSITORY / "docs" / "training" / "methods.md").read_text()
    example = next(part for part in text.split("```python\n")[1:] if "augment_view" in part).split("```")[0]
    names: dict = {}
    exec(example, names)  # our own documentation
    assert names["view"].image.shape == (256, 256, 3)
    assert names["back"].shape == names["there"].shape == (64, 64, 2)


def test_every_sensor_has_its_own_geometry_and_labels_that_fit_it() -> None:
    labels = cells(64, 96)
    images = np.repeat(np.repeat(labels[None, ..., None], 4, axis=0), 3, axis=3)  # all show their labels
    config = DecoupledConfig(camera=CameraPipeline(jitter=0, blur=0))
    sample = augment_apart(images, labels, DEFAULT_SENSORS, (64, 96), config, np.random.default_rng(5))
    assert sample.images.shape == (4, 64, 96, 3)
    assert sample.to_common.shape == (4, 64, 96, 2)
    assert len({affine.tobytes() for affine in sample.to_view}) == 4
    for index in (DEFAULT_SENSORS.index(Sensor.DEPTH), DEFAULT_SENSORS.index(Sensor.LIDAR)):
        shown = np.where(sample.labels[index] == 255, 0, sample.labels[index])
        np.testing.assert_array_equal(sample.images[index, ..., 0], shown)


def test_colour_changes_touch_the_camera_only_and_leave_the_margin_black() -> None:
    images = np.random.default_rng(0).integers(1, 256, (2, 64, 64, 3), np.uint8)
    geometry = {"hflip": 0.0, "scale": (0.5, 0.5), "rotation_deg": (0.0, 0.0)}

    def at(strength: float) -> DecoupledSample:
        config = DecoupledConfig(
            camera=CameraPipeline(**geometry, jitter=strength, blur=strength), depth=SensorPipeline(**geometry)
        )
        return augment_apart(images, cells(64, 64), RGBD, (64, 64), config, np.random.default_rng(1))

    plain, changed = at(0.0), at(1.0)
    assert not np.array_equal(plain.images[0], changed.images[0])
    assert set(np.unique(changed.images[1])) <= set(np.unique(images[1])) | {0}
    beyond = np.abs(changed.from_common).max(axis=-1) > 1 + 4 / 64  # a pixel of the view: the camera's edge is blended
    assert beyond.any()
    assert not changed.images[beyond].any()


def test_the_same_seed_gives_the_same_sample() -> None:
    np.testing.assert_array_equal(moved(seed=4).images, moved(seed=4).images)
    assert not np.array_equal(moved(seed=4).images, moved(seed=5).images)


def test_a_sensor_keeps_its_defaults_when_one_of_its_settings_is_given() -> None:
    config = DecoupledConfig.model_validate({"camera": {"rotation_deg": [0, 0]}})
    assert config.of(Sensor.CAMERA).jitter == CameraPipeline().jitter > 0
    assert config.of(Sensor.DEPTH).jitter == 0


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"depth": {"jitter": 0.5}}, "depth: jitter and blur would change distances"),
        ({"lidar": {"blur": 0.5}}, "lidar: jitter and blur"),
        ({"camera": {"rotation_deg": [5, -5]}}, "low <= high"),
        ({"camera": {"scale": [2, 1]}}, "scale"),
        ({"radar": {}}, "radar"),
        ({"camera": {"focus": 0.5}}, "focus is a setting of augment"),
        ({"depth": {"paste": {"labels": ["car"]}}}, "paste is a setting of augment"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DecoupledConfig.model_validate(settings_)
