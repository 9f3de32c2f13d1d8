"""Broken sensors in training samples: only the sensor that was drawn changes, as the runtime's faults change it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from anyseg_core.data.degradation import DegradeConfig, SampleDegrader
from anyseg_core.data.sample import DataError
from anyseg_core.injection import INJECTION_KINDS, Stage, degrade
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.input_images import depth_image, encode_frame
from anyseg_core.runtime.model_card import (
    DepthEncoding,
    EventEncoding,
    HhaEncoding,
    InputSpec,
    LidarEncoding,
    RgbEncoding,
)
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

HEIGHT, WIDTH = 64, 96
INPUTS = (
    InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding()),
    InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding()),
    InputSpec(modality=Sensor.EVENT, encoding=EventEncoding()),
    InputSpec(modality=Sensor.LIDAR, encoding=LidarEncoding()),
)
SHOWABLE = [
    (kind, modality)
    for kind, fault in INJECTION_KINDS.items()
    if fault.stage is Stage.CONTENT and fault.degradation is not None
    for modality in fault.modalities
]
DEPTH_M = np.tile(np.geomspace(2.0, 70.0, HEIGHT, dtype=np.float32)[:, None], (1, WIDTH))


def sample() -> NDArray[np.uint8]:
    """[4, H, W, 3], as a data set gives it."""
    rng = np.random.default_rng(0)
    events = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    events[..., :2] = 40 * rng.integers(0, 4, (HEIGHT, WIDTH, 2))
    lidar = rng.integers(60, 250, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    lidar[rng.random((HEIGHT, WIDTH)) < 0.7] = 0
    camera = rng.integers(20, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    images = np.stack([camera, depth_image(DEPTH_M, (HEIGHT, WIDTH), DepthEncoding()), events, lidar])
    images.setflags(write=False)  # the packed data is mapped into memory
    return images


def degrader(kind: str, modality: Sensor, inputs=INPUTS, strength=(1.0, 1.0), **parameters: float) -> SampleDegrader:
    fault = {"modality": modality, "kind": kind, "parameters": parameters}
    config = DegradeConfig.model_validate({"probability": 1.0, "strength": strength, "faults": [fault]})
    return SampleDegrader(config, inputs)


def degraded(kind: str, modality: Sensor, seed: int = 1, **parameters: float) -> NDArray[np.uint8]:
    images = degrader(kind, modality, **parameters)(sample(), np.random.default_rng(seed))
    return images[DEFAULT_SENSORS.index(modality)]


@pytest.mark.parametrize(("kind", "modality"), SHOWABLE)
def test_every_fault_of_content_changes_its_sensor_and_no_other(kind: str, modality: Sensor) -> None:
    before = sample()
    first, second = (degrader(kind, modality)(before, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before, sample())
    assert (first.shape, first.dtype) == (before.shape, before.dtype)
    for index, other in enumerate(DEFAULT_SENSORS):
        assert np.array_equal(first[index], before[index]) == (other is not modality)


@pytest.mark.parametrize(("kind", "modality"), SHOWABLE)
def test_strength_zero_changes_nothing(kind: str, modality: Sensor) -> None:
    out = degrader(kind, modality, strength=(0.0, 0.0))(sample(), np.random.default_rng(5))
    np.testing.assert_array_equal(out, sample())


def test_lost_depth_is_lost_in_every_channel_and_the_rest_is_as_it_was() -> None:
    before, after = sample()[1], degraded("nan_depth", Sensor.DEPTH, fraction=0.4)
    lost = ~after.any(axis=-1)
    assert lost.mean() == pytest.approx(0.4, abs=0.05)
    np.testing.assert_array_equal(after[~lost], before[~lost])


@pytest.mark.parametrize("scale", ["log", "linear", "inverse"])
def test_scaled_depth_is_encoded_as_the_scaled_depth_is(scale: str) -> None:
    encoding = DepthEncoding.model_validate({"scale": scale})
    spec = (InputSpec(modality=Sensor.DEPTH, encoding=encoding),)
    before = depth_image(DEPTH_M, (HEIGHT, WIDTH), encoding)[None]
    after = degrader("depth_scale", Sensor.DEPTH, spec, scale=0.5)(before, np.random.default_rng(0))[0]
    truth = depth_image(DEPTH_M * np.float32(0.5), (HEIGHT, WIDTH), encoding)
    fine = (DEPTH_M > 8) & (DEPTH_M < 40)  # near, the linear scale has too few levels, and far the inverse one
    assert np.abs(after.astype(int) - truth)[fine].max() <= 4


def test_depth_in_another_encoding_can_only_be_lost() -> None:
    spec = (InputSpec(modality=Sensor.DEPTH, encoding=HhaEncoding()),)
    images = np.full((1, HEIGHT, WIDTH, 3), 90, np.uint8)
    after = degrader("blockage", Sensor.DEPTH, spec, fraction=0.3)(images, np.random.default_rng(0))
    assert (after == 0).mean() == pytest.approx(0.3, abs=0.03)
    with pytest.raises(DataError, match="noise needs depth in metres, not hha; use nan_depth"):
        degrader("noise", Sensor.DEPTH, spec)


def test_a_flood_of_events_adds_as_many_as_the_gain_says() -> None:
    before, after = sample()[2], degraded("event_flood", Sensor.EVENT, events_per_pixel=1)
    added = after[..., :2].astype(int) - before[..., :2]
    assert (added[after[..., :2] < 255] % 40 == 0).all()
    assert added.mean() == pytest.approx(40, rel=0.1)
    assert not after[..., 2].any()


def test_a_lost_sector_of_the_lidar_is_one_of_columns() -> None:
    before, after = sample()[3], degraded("sector_loss", Sensor.LIDAR, from_deg=0, to_deg=60)
    assert before[:, : WIDTH // 2].any()
    assert not after[:, : WIDTH // 2].any()  # counter-clockwise from straight ahead is the left half of the picture
    np.testing.assert_array_equal(after[:, WIDTH // 2 + 1 :], before[:, WIDTH // 2 + 1 :])


def test_thinned_points_are_a_subset() -> None:
    before, after = sample()[3], degraded("sparse", Sensor.LIDAR, keep=0.3)
    left = after.any(axis=-1)
    assert left.sum() / before.any(axis=-1).sum() == pytest.approx(0.3, abs=0.1)
    np.testing.assert_array_equal(after[left], before[left])


def test_a_turned_lidar_moves_its_points_in_the_picture_and_keeps_their_ranges() -> None:
    before, after = sample()[3], degraded("lidar_yaw", Sensor.LIDAR, angle_deg=10)
    moved = np.asarray(after.any(axis=-1))  # [H, W]
    assert moved.sum() < before.any(axis=-1).sum()  # some are out of the picture now
    assert not moved[:, -5:].any()  # counter-clockwise is to the left
    assert set(after[moved][:, 0]) <= set(before[before.any(axis=-1)][:, 0])


def seen_by_a_lidar(tilt_deg: float = 0.0, moved_m: float = 0.0) -> NDArray[np.uint8]:
    """[1, H, W, 3]: a point 20 m ahead, 2 m to the left, as the encoder draws it through a lens of 90 degrees."""
    point = np.array([[20.0, 2.0, 0.0, 50.0]], np.float32)
    frame = SensorFrame(Sensor.LIDAR, point, 0)
    for kind, value in (("lidar_pitch", tilt_deg), ("lidar_moved", moved_m)):
        parameter = next(iter(INJECTION_KINDS[kind].parameters))
        frame = degrade(frame, kind, np.random.default_rng(0), **{parameter: value})
    camera = PinholeCamera(WIDTH, HEIGHT, WIDTH / 2, WIDTH / 2, WIDTH / 2, HEIGHT / 2)
    rig = Rig(camera, np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64))
    return encode_frame(frame, POINTS, (HEIGHT, WIDTH), rig)[None]


POINTS = InputSpec(modality=Sensor.LIDAR, encoding=LidarEncoding(point_radius=0))


@pytest.mark.parametrize(
    ("kind", "parameter", "value", "expected"),
    [
        ("lidar_pitch", "angle_deg", 4.0, {"tilt_deg": 4.0}),
        ("lidar_pitch", "angle_deg", -4.0, {"tilt_deg": -4.0}),
        ("lidar_moved", "forward_m", -8.0, {"moved_m": -8.0}),
    ],
)
def test_a_lidar_that_is_tilted_or_late_is_drawn_as_its_points_would_be(
    kind: str, parameter: str, value: float, expected: dict[str, float]
) -> None:
    break_it = degrader(kind, Sensor.LIDAR, (POINTS,), **{parameter: value})
    after = break_it(seen_by_a_lidar(), np.random.default_rng(0))[0].astype(int)
    wanted = seen_by_a_lidar(**expected)[0].astype(int)
    (place,), (wanted_place,) = np.argwhere(after.any(axis=-1)), np.argwhere(wanted.any(axis=-1))
    np.testing.assert_allclose(place, wanted_place, atol=1)
    np.testing.assert_allclose(after[tuple(place)], wanted[tuple(wanted_place)], atol=6)  # of ranges of 255 levels


def test_a_half_sized_picture_is_brought_to_the_size_of_the_input() -> None:
    before, after = sample()[0], degraded("half_size", Sensor.CAMERA)
    assert after.shape == before.shape
    assert after.std() < 0.9 * before.std()


def test_a_kind_that_cannot_be_weak_is_rarer_at_a_low_strength() -> None:
    degrade, before, rng = degrader("mirror", Sensor.CAMERA, strength=(0.3, 0.3)), sample(), np.random.default_rng(0)
    changed = [not np.array_equal(degrade(before, rng)[0], before[0]) for _ in range(200)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.1)


def test_the_probability_is_that_of_each_sensor() -> None:
    faults = [{"modality": m, "kind": "corrupt"} for m in DEFAULT_SENSORS] + [{"modality": "camera", "kind": "black"}]
    config = DegradeConfig.model_validate({"probability": 0.25, "faults": faults})
    degrade, rng, before = SampleDegrader(config, INPUTS), np.random.default_rng(0), sample()
    changed = [
        [not np.array_equal(a, b) for a, b in zip(degrade(before, rng), before, strict=True)] for _ in range(200)
    ]
    np.testing.assert_allclose(np.mean(changed, axis=0), 0.25, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"faults": [{"modality": "camera", "kind": "drop"}]}, "cannot show drop; faults of camera are .*blur"),
        ({"faults": [{"modality": "camera", "kind": "sparse"}]}, "sparse does not apply to camera"),
        ({"faults": [{"modality": "camera", "kind": "blur", "parameters": {"size": 3}}]}, "no parameter 'size'"),
        ({"faults": []}, "faults"),
        ({"strength": (0.5, 0.2)}, "strength"),
        ({"probability": 1.5}, "probability"),
    ],
)
def test_a_wrong_configuration_is_named(changes: dict, named: str) -> None:
    config = {"faults": [{"modality": "camera", "kind": "blur"}], **changes}
    with pytest.raises(ValidationError, match=named):
        DegradeConfig.model_validate(config)


def test_a_fault_of_a_sensor_that_the_data_lacks_is_named() -> None:
    with pytest.raises(DataError, match="sparse of lidar, which the data does not have"):
        degrader("sparse", Sensor.LIDAR, INPUTS[:2])


def test_large_images_keep_their_points() -> None:
    """The index of a point travels as a float32."""
    lidar = np.full((1, 512, 1024, 3), 100, np.uint8)
    out = degrader("sparse", Sensor.LIDAR, INPUTS[3:], keep=0.5)(lidar, np.random.default_rng(0))[0]
    assert out.any(axis=-1).mean() == pytest.approx(0.5, abs=0.01)
    assert cv2.countNonZero(out[..., 0]) == np.count_nonzero(out.all(axis=-1))


def test_a_training_run_takes_the_section_from_its_configuration(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs pip install anyseg_ros[train]")
    from shapes_dataset import SIDE, shapes_config, write_shapes

    from anyseg_core.data.datasets import open_dataset
    from anyseg_core.training.batches import Batches
    from anyseg_core.training.loop import train

    faults = [{"modality": "camera", "kind": "black"}]
    section = {"probability": 1.0, "strength": [1.0, 1.0], "faults": faults}
    config = shapes_config(write_shapes(tmp_path / "shapes"), degrade=section, budget={"max_steps": 1})
    assert shapes_config(tmp_path).degrade is None
    dataset = open_dataset(config.data, "train")
    plain, dark = (
        Batches(dataset, (SIDE, SIDE), 6, config.augment, degrade=degrade)[0] for degrade in (None, config.degrade)
    )
    assert plain.images[:, 0].any()
    assert not dark.images[:, 0].any()  # [B, M, H, W, 3]
    assert dark.images[:, 1].any()
    assert train(config, tmp_path / "run", show_progress=False).is_dir()
