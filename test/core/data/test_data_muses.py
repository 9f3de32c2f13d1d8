"""The MUSES reader on files in its exact layout: raw sensors, the SDK's images, and the release's way to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anyseg_core.data.muses import Muses, projected_lidar_image
from anyseg_core.data.muses_sensors import (
    EVENT_WINDOW_US,
    IMAGE_SIZE,
    compensate_motion,
    event_counts,
    read_calibration,
    read_events,
    read_lidar,
    rotations,
)
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.input_images import event_image, lidar_image
from anyseg_core.runtime.model_card import LidarEncoding
from anyseg_core.runtime.sensors import Sensor

h5py = pytest.importorskip("h5py", reason="MUSES' events need pip install anyseg_ros[train]")

SIZE = (96, 160)
SCENE = "clear/day/REC0001_frame_000100"
MID_EXPOSURE_US = 1_000_000_000
K_EVENT = [[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]
LIDAR_AXES = [[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]]
"""x ahead, y left, z up -> x right, y down, z ahead."""


def k_rgb() -> list[list[float]]:
    return [[1500.0, 0, 960], [0, 1500, 540], [0, 0, 1]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training scenes with raw sensors and labels."""
    scenes = [(SCENE, 1), ("fog/night/REC0002_frame_000200", 2)]
    for scene, seed in scenes:
        write_scene(tmp_path, "train", scene, seed)
    (tmp_path / "meta.json").write_text(json.dumps({f"scene{seed}": meta(scene) for scene, seed in scenes}))
    angle = np.deg2rad(2.0)
    turn = [[np.cos(angle), 0, np.sin(angle), 0.3], [0, 1, 0, 0], [-np.sin(angle), 0, np.cos(angle), 0], [0, 0, 0, 1]]
    calibration = {
        "intrinsics": {"rgb": {"K": k_rgb()}, "event": {"K": K_EVENT}},
        "extrinsics": {"lidar2rgb": LIDAR_AXES, "event2rgb": turn, "lidar2gnss": np.eye(4).tolist()},
    }
    (tmp_path / "calib.json").write_text(json.dumps(calibration))
    return tmp_path


def meta(scene: str) -> dict[str, Any]:
    return {
        "path_to_frame_camera": f"frame_camera/train/{scene}_frame_camera.png",
        "path_to_lidar": f"lidar/train/{scene}_lidar.bin",
        "path_to_gnss": f"gnss/train/{scene}_gnss.txt",
        "frame_camera_exposure_start_timestamp_us": str(MID_EXPOSURE_US - 500),
        "frame_camera_exposure_end_timestamp_us": str(MID_EXPOSURE_US + 500),
    }


def write_scene(root: Path, split: str, scene: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = IMAGE_SIZE
    picture = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    labels = random.integers(0, 20, (height // 8, width // 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    labels[labels == 19] = 255
    for folder, suffix, image in (
        ("frame_camera", "frame_camera", picture),
        ("gt_semantic", "gt_labelTrainIds", labels),
    ):
        path = root / folder / split / f"{scene}_{suffix}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_lidar(root / "lidar" / split / f"{scene}_lidar.bin", random)
    write_events(root / "event_camera" / split / f"{scene}_event_camera.h5", random)
    write_gnss(root / "gnss" / split / f"{scene}_gnss.txt", speed_mm_s=10_000, heading_rate=0)


def write_lidar(path: Path, random: np.random.Generator) -> None:
    points = np.zeros((500, 6))
    points[:, :3] = random.uniform([5, -8, -1.5], [60, 8, 2], (500, 3))
    points[:, 3] = random.uniform(0, 255, 500)
    points[:, 5] = MID_EXPOSURE_US / 1e6 + random.uniform(-0.1, 0, 500)
    path.parent.mkdir(parents=True, exist_ok=True)
    points.tofile(path)


def write_events(path: Path, random: np.random.Generator) -> None:
    count = 4000
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["events/x"] = random.integers(0, 1280, count).astype(np.uint16)
        file["events/y"] = random.integers(0, 720, count).astype(np.uint16)
        file["events/t"] = np.linspace(0, 2 * EVENT_WINDOW_US, count).astype(np.int64)
        file["events/p"] = random.integers(0, 2, count).astype(np.uint8)


def write_gnss(path: Path, speed_mm_s: int, heading_rate: int) -> None:
    values = [0] * 28
    values[23], values[19] = speed_mm_s, heading_rate
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(map(str, values)) + "\n")


def test_a_sample_of_raw_sensors_is_what_the_robot_would_make_of_them(root: Path) -> None:
    dataset = Muses(root, "train", SIZE, motion_compensation=False)
    assert dataset.source == "raw"
    assert len(dataset) == 2
    assert [spec.modality for spec in dataset.inputs] == [Sensor.CAMERA, Sensor.EVENT, Sensor.LIDAR]
    sample = dataset[0]
    assert sample.images.shape == (3, *SIZE, 3)
    calibration = read_calibration(root / "calib.json")
    points = read_lidar(root / f"lidar/train/{SCENE}_lidar.bin")[:, :4].astype(np.float32)
    expected = lidar_image(points, SIZE, dataset.inputs[2].encoding, calibration.rig())  # type: ignore[arg-type]
    np.testing.assert_array_equal(sample.images[2], expected)
    assert (expected > 0).mean() > 0.02
    events = read_events(root / f"event_camera/train/{SCENE}_event_camera.h5")
    counts = event_counts(*events, calibration.events_to_image())
    np.testing.assert_array_equal(sample.images[1], event_image(counts, SIZE, dataset.inputs[1].encoding))  # type: ignore[arg-type]


def test_labels_are_cityscapes_train_ids_and_void_stays_void(root: Path) -> None:
    dataset = Muses(root, "train", SIZE)
    labels = dataset[0].labels
    assert set(np.unique(labels)) <= {*range(19), 255}
    assert (labels == 255).any()
    assert len(dataset.classes) == 19


def test_conditions_choose_weather_and_time(root: Path) -> None:
    assert Muses(root, "train", SIZE, conditions=["fog"]).name(0).startswith("train/fog/night")
    assert len(Muses(root, "train", SIZE, conditions=["fog", "clear"])) == 2
    assert len(Muses(root, "train", SIZE, conditions=["night"])) == 1
    with pytest.raises(DataError, match="has no image of fog, day"):
        Muses(root, "train", SIZE, conditions=["fog", "day"])
    with pytest.raises(DataError, match=r"data\.conditions hail is unknown; known: clear"):
        Muses(root, "train", SIZE, conditions=["hail"])


def test_events_of_the_last_30_ms_by_polarity(root: Path) -> None:
    path = root / f"event_camera/train/{SCENE}_event_camera.h5"
    x, _, polarity = read_events(path)
    assert len(x) == 2000  # half of the 60 ms
    identity = np.eye(3)
    counts = event_counts(np.full(300, 7), np.full(300, 5), np.ones(300, int), identity)
    assert counts[5, 7].tolist() == [255, 0]  # saturated, not wrapped round
    counts = event_counts(np.array([7, 7, 9]), np.array([5, 5, 5]), np.array([0, 0, 1]), identity)
    assert (counts[5, 7].tolist(), counts[5, 9].tolist()) == ([0, 2], [1, 0])
    assert counts.sum() == 3
    assert set(polarity) == {0, 1}


def test_events_go_where_opencv_s_rectification_puts_them(root: Path) -> None:
    """The SDK rectifies the pair of cameras and undoes it for the frame camera; that is one homography."""
    calibration = read_calibration(root / "calib.json")
    event_from_rgb = np.linalg.inv(calibration.camera_from_events)
    rotation, translation = (np.ascontiguousarray(part) for part in (event_from_rgb[:3, :3], event_from_rgb[:3, 3:]))
    no_distortion = np.zeros(5)
    first, second, p_first, p_second, *_ = cv2.stereoRectify(
        calibration.camera, no_distortion, calibration.event_camera, no_distortion, (1920, 1080), rotation, translation,
        flags=cv2.CALIB_ZERO_DISPARITY,
    )  # fmt: skip
    pixels = np.random.default_rng(0).uniform([0, 0], [1280, 720], (50, 2))
    rectified = cv2.undistortPoints(pixels[:, None], calibration.event_camera, no_distortion, R=second, P=p_second)
    seen = cv2.undistortPoints(
        rectified, p_first[:, :3], no_distortion, R=np.linalg.inv(first), P=calibration.camera
    )[:, 0]  # fmt: skip
    mapped = calibration.events_to_image() @ np.c_[pixels, np.ones(50)].T
    np.testing.assert_allclose((mapped[:2] / mapped[2]).T, seen, atol=0.05)


def test_motion_compensation_moves_late_points_ahead(tmp_path: Path) -> None:
    """10 m/s: a point seen 100 ms early is, at exposure, 1 m nearer."""
    gnss = tmp_path / "gnss.txt"
    write_gnss(gnss, speed_mm_s=10_000, heading_rate=0)
    points = np.array([[20.0, 2, 1, 9, 0, MID_EXPOSURE_US / 1e6 - 0.1], [20, 2, 1, 9, 0, MID_EXPOSURE_US / 1e6]])
    moved = compensate_motion(points, meta(SCENE), gnss, np.eye(4))
    np.testing.assert_allclose(moved[:, :3], [[19, 2, 1], [20, 2, 1]], atol=1e-6)
    np.testing.assert_array_equal(moved[:, 3:], points[:, 3:])


def test_motion_compensation_turns_with_the_car(tmp_path: Path) -> None:
    """90 degrees a second of heading, 1 s late: ahead becomes +y. The lever arm of the sensor is undone."""
    gnss = tmp_path / "gnss.txt"
    write_gnss(gnss, speed_mm_s=0, heading_rate=9_000_000)
    points = np.array([[10.0, 0, 0, 0, 0, MID_EXPOSURE_US / 1e6 + 1]])
    np.testing.assert_allclose(compensate_motion(points, meta(SCENE), gnss, np.eye(4))[0, :3], [0, 10, 0], atol=1e-6)
    raised = np.eye(4)
    raised[2, 3] = 5.0
    np.testing.assert_allclose(compensate_motion(points, meta(SCENE), gnss, raised)[0, :3], [0, 10, 0], atol=1e-6)


def test_rotations_are_rotations() -> None:
    matrices = rotations(np.random.default_rng(0).uniform(-3, 3, (20, 3)))
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3)[None].repeat(20, 0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1)


def test_motion_compensation_changes_the_picture_of_a_moving_car(root: Path) -> None:
    still, moving = (Muses(root, "train", SIZE, motion_compensation=on)[0].images for on in (False, True))
    np.testing.assert_array_equal(still[:2], moving[:2])
    assert (still[2] != moving[2]).any()


# --- the SDK's images


def sdk_lidar(points: NDArray[np.float64], root: Path) -> NDArray[np.uint16]:
    """An image as MUSES' SDK makes it: range, intensity, height at the pixel of each point."""
    calibration = read_calibration(root / "calib.json")
    in_camera = calibration.camera_from_lidar @ np.c_[points[:, :3], np.ones(len(points))].T
    u, v, _ = calibration.camera @ in_camera[:3] / in_camera[2]
    inside = (u > 0) & (u < 1919) & (v > 0) & (v < 1079)
    image = np.zeros((*IMAGE_SIZE, 3))
    values = np.c_[np.linalg.norm(points[:, :3], axis=1), points[:, 3], points[:, 2]]
    image[v[inside].astype(int), u[inside].astype(int)] = values[inside]
    return ((image + 100) * 150).astype(np.uint16)


@pytest.fixture
def projected(root: Path) -> Path:
    """The first scene's sensors also as images of the SDK, which are written in OpenCV's order of channels."""
    calibration = read_calibration(root / "calib.json")
    for scene in (SCENE, "fog/night/REC0002_frame_000200"):
        points = read_lidar(root / f"lidar/train/{scene}_lidar.bin")
        counts = event_counts(
            *read_events(root / f"event_camera/train/{scene}_event_camera.h5"), calibration.events_to_image()
        )
        images = {
            "lidar": sdk_lidar(points, root),
            "event_camera": np.dstack([counts, np.zeros(IMAGE_SIZE, np.uint8)]),
        }
        for folder, image in images.items():
            path = root / "projected_to_rgb" / folder / "train" / f"{scene}_{folder}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
    return root


def test_the_sdk_s_images_give_what_the_raw_sensors_give(projected: Path) -> None:
    png = Muses(projected, "train", SIZE, source="png")
    raw = Muses(projected, "train", SIZE, motion_compensation=False)
    assert (png.source, raw.source) == ("png", "raw")  # where both are there, the raw sensors are read
    ours, theirs = raw[0], png[0]
    np.testing.assert_array_equal(ours.images[1], theirs.images[1])  # events, to the last count
    drawn, expected = theirs.images[2].astype(int), ours.images[2].astype(int)
    both = (drawn[..., 0] > 0) & (expected[..., 0] > 0)
    assert both.sum() > 0.85 * (expected[..., 0] > 0).sum()  # the SDK keeps one point a pixel, and rounds it
    assert np.median(np.abs(drawn - expected)[both], axis=0).max() <= 12  # range from the LiDAR, not from the camera


def test_the_points_of_an_sdk_image_are_not_shifted() -> None:
    """A point in the middle of its stored pixel stays in the middle, at whatever size it is drawn."""
    encoding = LidarEncoding(max_range_m=120.0, max_intensity=255.0, point_radius=0)
    stored = np.full((4, 6, 3), 100 * 150, np.uint16)
    stored[1, 2] = (np.array([10, 50, 1]) + 100) * 150
    for size, at in (((4, 6), (1, 2)), ((8, 12), (3, 5)), ((2, 3), (0, 1))):
        drawn = projected_lidar_image(stored, size, encoding)
        assert [tuple(place) for place in np.argwhere(drawn[..., 0] > 0)] == [at]


def test_the_release_s_protocol_has_its_faults(projected: Path) -> None:
    released = Muses(projected, "train", (128, 128), released_protocol=True)
    sample = released[0]
    assert (sample.labels != 255).all()  # void is road
    ours = Muses(projected, "train", (128, 128))[0]
    np.testing.assert_array_equal(sample.labels[ours.labels != 255], ours.labels[ours.labels != 255])
    assert (sample.labels[ours.labels == 255] == 0).all()
    assert sample.images[2].max() <= (100 + 255) * 150 >> 8  # the high byte
    assert np.median(sample.images[2]) == 100 * 150 >> 8  # nothing measured is not zero
    assert released.inputs[0].mean == (0.0, 0.0, 0.0)
    assert released.inputs[0].std == (1 / 255,) * 3
    with pytest.raises(DataError, match="no raw sensors"):
        Muses(projected, "train", SIZE, released_protocol=True, source="raw")


# --- broken files


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (f"lidar/train/{SCENE}_lidar.bin", b"12345678", "no multiple of 6"),
        (f"lidar/train/{SCENE}_lidar.bin", None, "is missing"),
        (f"event_camera/train/{SCENE}_event_camera.h5", b"not hdf5", "hdf5plugin"),
        (f"event_camera/train/{SCENE}_event_camera.h5", None, "event file was expected"),
        (f"gt_semantic/train/{SCENE}_gt_labelTrainIds.png", b"no png", "is no PNG"),
        (f"frame_camera/train/{SCENE}_frame_camera.png", b"no png", "is damaged"),
        (f"gnss/train/{SCENE}_gnss.txt", b"1 2 3", "28 integers"),
        (f"gnss/train/{SCENE}_gnss.txt", b"1 two", "is damaged"),
        (f"gnss/train/{SCENE}_gnss.txt", None, "motion_compensation"),
        ("calib.json", b"{}", "has no 'intrinsics'"),
        ("calib.json", None, "is missing"),
        ("meta.json", b"{}", "no entry with path_to_lidar"),
        ("meta.json", b"[", "is not JSON"),
    ],
)
def test_a_broken_file_is_named_with_what_was_expected(root: Path, file: str, content: bytes | None, says: str) -> None:
    dataset = Muses(root, "train", SIZE)
    if content is None:
        (root / file).unlink()
    else:
        (root / file).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        _ = dataset[0]
    assert Path(file).name in str(caught.value)


def test_what_is_no_muses_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"is .* MUSES, unzipped"):
        Muses(tmp_path / "nowhere", "train", SIZE)
    with pytest.raises(DataError, match=r"data\.modalities depth is unknown"):
        Muses(root, "train", SIZE, [Sensor.CAMERA, Sensor.DEPTH])
