"""Which sensor counts where, read out of the features, in words and as a picture."""

from __future__ import annotations

import numpy as np
import pytest

from anyseg_core.runtime.sensor_shares import sensor_colors, shares_in_words, shares_of, shares_picture
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

CAMERA, DEPTH = Sensor.CAMERA, Sensor.DEPTH


def features_with(weight: float) -> np.ndarray:
    """A map [2, 3, 4] whose last channel is the weight, and 5 numbers of other maps."""
    first = np.zeros((2, 3, 4), np.float32)
    first[..., -1] = weight
    return np.concatenate([first.ravel(), np.full(5, 99, np.float32)])


def test_shares_are_the_weights_divided_by_their_sum() -> None:
    shares = shares_of([features_with(3.0), features_with(1.0)], (CAMERA, DEPTH), (2, 3, 4))
    assert shares[CAMERA].shape == (2, 3)
    np.testing.assert_allclose(shares[CAMERA], 0.75)
    np.testing.assert_allclose(shares[DEPTH], 0.25)
    assert shares_in_words(shares) == "camera 75 %, depth 25 %"
    assert shares_in_words({}) == ""


def test_a_sensor_alone_has_all() -> None:
    shares = shares_of([features_with(0.02)], (DEPTH,), (2, 3, 4))
    assert shares_in_words(shares) == "depth 100 %"
    assert tuple(shares_picture(shares, DEFAULT_SENSORS)[0, 0]) == sensor_colors(DEFAULT_SENSORS)[DEPTH]


def test_even_shares_are_white_and_a_sensor_keeps_its_colour_whoever_else_is_there() -> None:
    even = np.full((2, 2), 0.5, np.float32)
    assert (shares_picture({CAMERA: even, DEPTH: even}, DEFAULT_SENSORS) == 255).all()
    all_of_depth = {CAMERA: 0 * even, DEPTH: 2 * even}
    for others in ({}, {Sensor.LIDAR: 0 * even}):
        picture = shares_picture({**all_of_depth, **others}, DEFAULT_SENSORS)
        assert tuple(picture[1, 1]) == sensor_colors(DEFAULT_SENSORS)[DEPTH]


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_colours_differ(count: int) -> None:
    sensors = [Sensor(f"sensor{number}", "camera") for number in range(count)]
    assert len(set(sensor_colors(sensors).values())) == count
