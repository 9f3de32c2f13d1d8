"""What planners get of segmentation_node, over real DDS with a toy student."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from rclpy.parameter import Parameter
from ros_harness import HEIGHT, NS, RIG, WIDTH, Vehicle, running, toy_parameters
from sensor_msgs.msg import Image, PointCloud2, PointField

from anyseg_core.runtime.geometry.projection import points_in_view
from anyseg_core.runtime.label_sets import DELIVER, UNLABELLED
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.messages.conversions import image_view, points_view, stamp_ns
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.messages.types import message_class

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

BASE = {"rig.base_from_lidar_translation_m": [0.0, 0.0, 2.0]}
"""A LiDAR two metres above the base."""
CONFIG = Path(__file__).parents[3] / "config"
OWN = f"/{NS}/segmentation_node/segmentation"


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    with running({**toy_parameters(tmp_path), **BASE, "output.obstacles.voxel_m": 0.0}) as started:
        yield started


def listen(vehicle: Vehicle, topic: str, kind: type, qos: Any = 10) -> list[Any]:
    """What is heard on one of the node's topics."""
    heard: list[Any] = []
    vehicle.driver.create_subscription(kind, f"{OWN}/{topic}", heard.append, qos)
    return heard


def column(cloud: PointCloud2, name: str) -> NDArray[Any]:
    """A field of a cloud [N], read by its own description."""
    field = next(field for field in cloud.fields if field.name == name)
    dtype = {PointField.FLOAT32: "<f4", PointField.UINT8: "u1"}[field.datatype]
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    return rows[:, field.offset : field.offset + np.dtype(dtype).itemsize].copy().view(dtype)[:, 0]


def mask_status(vehicle: Vehicle) -> dict[str, str]:
    return vehicle.states().get("mask", {})


def points_of_a_mask(
    vehicle: Vehicle,
    clouds: list[PointCloud2],
    agree: Callable[[PointCloud2, Image], bool] = lambda _cloud, _mask: True,
) -> tuple[PointCloud2, Image]:
    """A cloud and the mask of the same stamp that agree.

    On a busy machine a frame is in a later mask, too: there are then two clouds of its stamp, and one is of that mask.
    """

    def matching() -> list[tuple[PointCloud2, Image]]:
        masks = {stamp_ns(mask.header): mask for mask in vehicle.masks}
        pairs = [(cloud, masks[stamp_ns(cloud.header)]) for cloud in clouds if stamp_ns(cloud.header) in masks]
        return [pair for pair in pairs if agree(*pair)]

    vehicle.spin_until(lambda: bool(matching()), "points and a mask of one stamp that agree")
    return matching()[-1]


def test_labelled_points_are_those_of_the_mask(vehicle: Vehicle) -> None:
    clouds = listen(vehicle, "points", PointCloud2)
    vehicle.spin_until(lambda: "lidar" in vehicle.used(), "LiDAR in a mask")
    clouds.clear()
    seen, expected, view = np.zeros(0), np.zeros(0), points_in_view(np.zeros((0, 4), np.float32), RIG, HEIGHT, WIDTH)

    def agree(cloud: PointCloud2, mask: Image) -> bool:
        nonlocal seen, expected, view
        view = points_in_view(points_view(cloud), RIG, HEIGHT, WIDTH)
        expected = image_view(mask, ("mono8",))[view.row.astype(int), view.col.astype(int)]
        seen = column(cloud, "label")[view.index]
        return bool((seen == expected).mean() > 0.9)  # a few lie behind others of the uneven wall

    cloud, mask = points_of_a_mask(vehicle, clouds, agree)
    assert agree(cloud, mask)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity", "rgb", "label", "confidence"]
    assert (cloud.height, cloud.width, cloud.header.frame_id) == (1, 2400, "lidar_frame")
    assert set(seen[seen != expected].tolist()) <= {UNLABELLED}
    labels = column(cloud, "label")
    outside = np.setdiff1d(np.arange(2400), view.index)
    assert (labels[outside] == UNLABELLED).all()
    assert not column(cloud, "confidence")[outside].any()
    color = DELIVER[int(seen[seen == expected][0])].color
    rgb = struct.unpack("<I", column(cloud, "rgb")[view.index][seen == expected][:1].tobytes())[0]
    assert (rgb >> 16, rgb >> 8 & 255, rgb & 255) == color
    vehicle.spin_until(lambda: mask_status(vehicle).get("points") == "lidar", "the source in the status")


def test_nothing_is_computed_without_a_subscriber(vehicle: Vehicle) -> None:
    vehicle.spin_masks(10)
    assert mask_status(vehicle)["points"] in ("lidar", "depth")
    assert mask_status(vehicle)["points_ms"] == ""


def test_points_go_on_when_the_camera_dies_from_the_mask_that_the_others_made(vehicle: Vehicle) -> None:
    clouds = listen(vehicle, "points", PointCloud2)
    vehicle.spin_until(lambda: bool(clouds), "points")
    vehicle.alive = {Sensor.LIDAR}
    vehicle.spin_until(lambda: vehicle.used() == {"lidar"}, "a mask from LiDAR alone")
    assert mask_status(vehicle)["lost_classes"].startswith("without camera, depth, event: not measured")  # a toy's card
    clouds.clear()
    cloud, _ = points_of_a_mask(vehicle, clouds)
    assert set(column(cloud, "label").tolist()) - {UNLABELLED}


def test_without_lidar_the_points_are_those_of_the_depth_image(vehicle: Vehicle) -> None:
    vehicle.alive = {Sensor.CAMERA, Sensor.DEPTH}
    clouds = listen(vehicle, "points", PointCloud2)

    def agree(cloud: PointCloud2, mask: Image) -> bool:
        own = image_view(mask, ("mono8",))[2::4, 2::4]
        return np.array_equal(column(cloud, "label").reshape(cloud.height, -1), own)

    cloud, _ = points_of_a_mask(vehicle, clouds, agree)
    assert (cloud.height, cloud.width, cloud.header.frame_id) == (HEIGHT // 4, WIDTH // 4, "depth_frame")
    assert "intensity" not in {field.name for field in cloud.fields}
    vehicle.spin_until(lambda: mask_status(vehicle).get("points") == "depth", "the source in the status")


def test_obstacles_are_points_of_the_chosen_classes(vehicle: Vehicle) -> None:
    """And keep the contract of Nav2's obstacle and voxel layers: x, y, z, the sensor's frame and stamp."""
    obstacles = listen(vehicle, "obstacles", PointCloud2)
    clouds = listen(vehicle, "points", PointCloud2)
    vehicle.spin_until(lambda: "lidar" in vehicle.used(), "LiDAR in a mask")
    for chosen in (["obstacle"], ["ground", "Vegetation"]):
        vehicle.node.set_parameters([Parameter("output.obstacles.classes", value=chosen)])
        obstacles.clear()
        clouds.clear()
        names = [spec.name for spec in DELIVER if (spec.surface == "") == (chosen == ["obstacle"])]
        names += [name for name in chosen if name == "Vegetation"]
        wanted = [label for label, spec in enumerate(DELIVER) if spec.name in names]

        def of_one_mask(wanted: list[int] = wanted) -> list[PointCloud2]:
            """Those that have as many points as a cloud of their stamp has of the wanted classes."""
            counts = {(stamp_ns(c.header), int(np.isin(column(c, "label"), wanted).sum())) for c in clouds}
            return [cloud for cloud in obstacles if (stamp_ns(cloud.header), cloud.width) in counts]

        vehicle.spin_until(lambda: bool(of_one_mask()), "obstacles and points of a mask")
        cloud = of_one_mask()[-1]
        assert set(column(cloud, "label").tolist()) <= set(wanted)
        assert (cloud.height, cloud.header.frame_id) == (1, "lidar_frame")
        assert [(f.name, f.datatype) for f in list(cloud.fields)[:3]] == [(n, PointField.FLOAT32) for n in "xyz"]


def test_nav2s_parameter_file_reads_what_the_node_publishes() -> None:
    """Topics, types and frames of the layers in config/nav2.yaml; Nav2 itself is not run here."""
    costmap = yaml.safe_load((CONFIG / "nav2.yaml").read_text())["local_costmap"]["local_costmap"]["ros__parameters"]
    voxels, static = costmap["anyseg_obstacles"], costmap["anyseg_ground"]
    assert {costmap[name]["plugin"] for name in costmap["plugins"]} >= {"nav2_costmap_2d::VoxelLayer"}
    topics = {name: voxels[name] for name in voxels["observation_sources"].split()}
    assert {s["topic"] for s in topics.values()} == {
        f"segmentation_node/segmentation/{n}" for n in ("obstacles", "points")
    }
    assert {s["data_type"] for s in topics.values()} == {"PointCloud2"}
    marking = [s["topic"] for s in topics.values() if s["marking"]]
    assert marking == ["segmentation_node/segmentation/obstacles"]  # a labelled road must never be an obstacle
    assert static["map_topic"] == "segmentation_node/segmentation/ground_grid"
    assert static["map_subscribe_transient_local"] is True  # as the node offers it
    assert static["plugin"] == "nav2_costmap_2d::StaticLayer"
    assert costmap["track_unknown_space"] is True  # unknown is never free


def test_the_ground_grid_lies_in_odometrys_frame_and_follows_the_vehicle(vehicle: Vehicle) -> None:
    odometry = message_class("nav_msgs/msg/Odometry")
    grid_type = message_class("nav_msgs/msg/OccupancyGrid")
    if odometry is None or grid_type is None:
        pytest.skip("nav_msgs is not installed: pip install ros-nav-msgs")
    names = [spec.name for spec in DELIVER]
    vehicle.node.set_parameters([Parameter("output.grid.drivable", value=names)])
    publisher = vehicle.driver.create_publisher(odometry, "odometry", 10)

    def publish() -> None:
        message: Any = odometry()
        message.header.stamp = vehicle.driver.get_clock().now().to_msg()
        message.header.frame_id, message.child_frame_id = "odom", "base_link"
        message.pose.pose.position.x, message.pose.pose.orientation.w = 100.0, 1.0
        publisher.publish(message)

    grids = listen(vehicle, "ground_grid", grid_type, STATE_QOS)
    vehicle.spin_until(lambda: bool(grids), "a grid without odometry")
    assert grids[-1].header.frame_id == "base_link"
    vehicle.driver.create_timer(0.05, publish)
    vehicle.spin_until(lambda: grids[-1].header.frame_id == "odom", "a grid in odometry's frame")
    grid = grids[-1]
    values = np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)
    assert set(np.unique(values).tolist()) == {-1, 0}  # a wall that is drivable by its name, else unknown
    assert grid.info.origin.position.x == pytest.approx(80.0, abs=0.3)
    rows, cols = np.nonzero(values == 0)
    x = grid.info.origin.position.x + (cols + 0.5) * grid.info.resolution - 100.0
    y = grid.info.origin.position.y + (rows + 0.5) * grid.info.resolution
    assert (np.abs(np.hypot(x, y) - 10) < 1.3).all()  # the living sensors' wall
    assert (x > 0).all()  # what the camera does not see is unknown
    vehicle.node.set_parameters([Parameter("output.grid.drivable", value=["Road"])])
    grids.clear()
    vehicle.spin_until(lambda: bool(grids) and 100 in grids[-1].data, "a grid that is blocked")
    assert 0 not in grids[-1].data


def test_without_the_sensors_place_on_the_vehicle_no_grid_is_made_and_why_is_said(tmp_path: Path) -> None:
    grid_type = message_class("nav_msgs/msg/OccupancyGrid")
    if grid_type is None:
        pytest.skip("nav_msgs is not installed: pip install ros-nav-msgs")
    with running(toy_parameters(tmp_path)) as vehicle:
        grids = listen(vehicle, "ground_grid", grid_type, STATE_QOS)
        vehicle.spin_until(lambda: "rig.base_from_lidar" in mask_status(vehicle).get("ground_grid", ""), "the reason")
        assert not grids


def test_obstacles_of_any_height_say_why(tmp_path: Path) -> None:
    """A bridge is one of them where nobody knows how high the sensor is."""
    for place, says in (({}, "heights are not limited: where the sensor sits"), (BASE, "")):
        with running({**toy_parameters(tmp_path), **place}) as vehicle:
            obstacles = listen(vehicle, "obstacles", PointCloud2)
            vehicle.spin_until(lambda heard=obstacles: len(heard) > 2, "obstacles")
            vehicle.spin_masks(2)
            assert mask_status(vehicle)["obstacles"].startswith(says)
            assert bool(mask_status(vehicle)["obstacles"]) is bool(says)


GROUPS = {
    "output.class_groups.low": ["Ground", "RailTrack"],
    "output.class_groups.high": ["GroundRail", "TrafficLight"],
}


def test_groups_are_published_in_place_of_classes(tmp_path: Path) -> None:
    settings = {
        **GROUPS,
        "output.publish": "groups",
        "output.label_ids.high": 77,
        "output.class_masks": ["high", "Static"],
    }
    with running({**toy_parameters(tmp_path), **settings}) as vehicle:
        high = listen(vehicle, "class_masks/high", Image)
        clouds = listen(vehicle, "points", PointCloud2)
        vehicle.spin_until(lambda: "lidar" in vehicle.used() and bool(high), "a mask of the group")
        clouds.clear()
        cloud, mask = points_of_a_mask(vehicle, clouds)
        assert set(np.unique(image_view(mask, ("mono8",))).tolist()) <= {1, 77, UNLABELLED}
        assert set(column(cloud, "label").tolist()) <= {1, 77, UNLABELLED}
        own = {stamp_ns(m.header): m for m in high}
        vehicle.spin_until(lambda: any(stamp_ns(m.header) in own for m in vehicle.masks), "both masks of a stamp")
        pair = next(m for m in vehicle.masks if stamp_ns(m.header) in own)
        shown = image_view(own[stamp_ns(pair.header)], ("mono8",))
        np.testing.assert_array_equal(shown == 255, image_view(pair, ("mono8",)) == 77)
        assert set(np.unique(shown).tolist()) <= {0, 255}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"output.obstacles.classes": ["Carz"]}, "did you mean Cars"),
        ({"output.class_groups.vehicle": ["Lorry"]}, "no class or group 'Lorry'"),
        ({"output.class_masks": ["nothing"]}, "'nothing'"),
        ({"output.label_ids.Road": 300}, "output.label_ids.Road must be 0 to 255"),
        ({"output.colors.Road": [1, 2]}, "output.colors.Road must be three numbers"),
    ],
)
def test_names_that_the_student_does_not_have_are_refused_at_configure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], setting: dict[str, Any], told: str
) -> None:
    with running({**toy_parameters(tmp_path), **setting}):
        pass
    assert told in capfd.readouterr().err


def test_a_wrong_name_at_run_time_changes_nothing(vehicle: Vehicle) -> None:
    result = vehicle.node.set_parameters([Parameter("output.obstacles.classes", value=["Carz"])])[0]
    assert not result.successful
    assert "did you mean Cars" in result.reason
    assert vehicle.node.get_parameter("output.obstacles.classes").value == ["obstacle"]
