"""Augmentation: all modalities and labels move together, and nothing is invented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anyseg_core.data.augmentation import AugmentConfig, Window, augment, cut, draw_window
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

SIDE = 64
STILL = AugmentConfig(hflip=0.0, scale=(1.0, 1.0), jitter=0.0, blur=0.0)


def checkerboard() -> np.ndarray:
    """Labels 0 to 15 in cells of 16 pixels."""
    rows, cols = np.indices((SIDE, SIDE)) // 16
    return (4 * rows + cols).astype(np.uint8)


def seen_by_all(labels: np.ndarray) -> np.ndarray:
    """Every modality shows the label itself, times ten: misalignment cannot hide."""
    return np.repeat(np.repeat(labels[None, ..., None] * 10, 4, axis=0), 3, axis=3)


def test_nothing_changes_when_everything_is_off() -> None:
    labels = checkerboard()
    images, changed = augment(
        seen_by_all(labels), labels, DEFAULT_SENSORS, (SIDE, SIDE), STILL, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(changed, labels)
    np.testing.assert_array_equal(images, seen_by_all(labels))


@given(st.integers(0, 10_000), st.sampled_from([32, 64, 96]))
def test_depth_and_lidar_stay_on_their_labels(seed: int, side: int) -> None:
    labels = checkerboard()
    config = AugmentConfig(hflip=0.5, scale=(0.5, 2.0))
    rng = np.random.default_rng(seed)
    images, changed = augment(seen_by_all(labels), labels, DEFAULT_SENSORS, (side, side), config, rng)
    expected = np.where(changed == 255, 0, changed * 10)
    for index in (DEFAULT_SENSORS.index(Sensor.DEPTH), DEFAULT_SENSORS.index(Sensor.LIDAR)):
        np.testing.assert_array_equal(images[index, ..., 0], expected)


@given(st.integers(0, 10_000))
def test_the_camera_follows_the_same_geometry(seed: int) -> None:
    labels = checkerboard()
    config = AugmentConfig(hflip=0.5, scale=(0.7, 2.0), jitter=0.0, blur=0.0)
    images, changed = augment(
        seen_by_all(labels), labels, DEFAULT_SENSORS, (SIDE, SIDE), config, np.random.default_rng(seed)
    )
    interior = changed == np.roll(changed, 3, (0, 1))
    interior &= (changed == np.roll(changed, -3, (0, 1))) & (changed == np.roll(changed, (3, -3), (0, 1)))
    interior[:4] = interior[-4:] = False
    interior[:, :4] = interior[:, -4:] = False
    wrong = np.abs(images[0, ..., 0].astype(int) - np.where(changed == 255, 0, changed.astype(int) * 10)) > 40
    assert (wrong & interior).mean() < 0.02


def test_a_mirror_mirrors() -> None:
    labels = checkerboard()
    config = STILL.model_copy(update={"hflip": 1.0})
    images, changed = augment(
        seen_by_all(labels), labels, DEFAULT_SENSORS, (SIDE, SIDE), config, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(changed, labels[:, ::-1])
    np.testing.assert_array_equal(images[2], seen_by_all(labels)[2, :, ::-1])


def test_colour_changes_touch_the_camera_only() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    config = STILL.model_copy(update={"jitter": 1.0, "blur": 1.0})
    changed, _ = augment(images, checkerboard(), DEFAULT_SENSORS, (SIDE, SIDE), config, np.random.default_rng(1))
    assert not np.array_equal(changed[0], images[0])
    np.testing.assert_array_equal(changed[1:], images[1:])


def test_zooming_out_leaves_a_margin_of_nothing() -> None:
    labels = np.ones((SIDE, SIDE), np.uint8)
    view = cut(labels, Window(-32, -32, 128, 128), (SIDE, SIDE), fill=255, average=False)
    assert (view[16:48, 16:48] == 1).all()
    view[16:48, 16:48] = 255
    assert (view == 255).all()


@given(st.integers(0, 10_000), st.floats(0.3, 1.0), st.floats(1.0, 3.0))
def test_windows_overlap_the_image_and_keep_its_proportions(seed: int, low: float, high: float) -> None:
    top, left, height, width = draw_window((60, 120), (low, high), np.random.default_rng(seed))
    assert abs(width - 2 * height) <= 1
    assert 60 / high - 1 <= height <= 60 / low + 1
    assert min(top + height, 60) - max(top, 0) == min(height, 60)
    assert min(left + width, 120) - max(left, 0) == min(width, 120)


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="scale"):
        AugmentConfig(scale=(2.0, 1.0))
