"""Topics of a bag by type and name: found where there is no choice, asked for where there is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.sim.bag_writer import TOPICS
from anyseg_ros.bags.topics import (
    CAMERA_INFO,
    ODOMETRY,
    CompanionTopics,
    TopicChoice,
    TopicError,
    find_companions,
    find_topics,
    left_out,
    mapping_by,
    parse_mapping,
    taken_instead,
)
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, EVENT_STREAMS, IMAGE, POINT_CLOUD
from anyseg_ros.pipeline.parameters import Parameters, from_values

REAL_RIG = [
    ("/front/color/image_raw", IMAGE),
    ("/front/color/image_raw/compressed", COMPRESSED_IMAGE),
    ("/front/color/camera_info", CAMERA_INFO),
    ("/front/aligned_depth_to_color/image_raw/compressedDepth", COMPRESSED_IMAGE),
    ("/front/aligned_depth_to_color/camera_info", CAMERA_INFO),
    ("/event_camera/events", EVENT_STREAMS[0]),
    ("/event_camera/event_image", IMAGE),
    ("/velodyne_points", POINT_CLOUD),
    ("/clock", "rosgraph_msgs/msg/Clock"),
    ("/tf", "tf2_msgs/msg/TFMessage"),
    ("/imu", "sensor_msgs/msg/Imu"),
]


def names(connections: list[tuple[str, str]], *mapping: str) -> dict[str, str]:
    found = find_topics(connections, parse_mapping(mapping))
    return {str(modality): choice.topic for modality, choice in found.items()}


def test_the_simulated_vehicle_s_topics_are_found() -> None:
    sensors = find_topics(TOPICS.items())
    assert [choice.topic for choice in sensors.values()] == [
        "/camera/image_raw", "/depth/image_rect", "/events", "/lidar/points",
    ]  # fmt: skip
    companions = find_companions(TOPICS.items(), sensors)
    assert companions.labels == TopicChoice("/ground_truth/labels", IMAGE)
    assert companions.camera_info == TopicChoice("/camera/camera_info", CAMERA_INFO)
    assert companions.depth_info == TopicChoice("/depth/camera_info", CAMERA_INFO)
    assert (companions.tf_static is not None, companions.tf, companions.clock) == (True, None, None)


def test_other_rigs_are_found_by_type_and_words() -> None:
    assert names(REAL_RIG) == {
        "camera": "/front/color/image_raw",
        "depth": "/front/aligned_depth_to_color/image_raw/compressedDepth",
        "event": "/event_camera/events",
        "lidar": "/velodyne_points",
    }
    companions = find_companions(REAL_RIG, find_topics(REAL_RIG))
    assert companions.camera_info == TopicChoice("/front/color/camera_info", CAMERA_INFO)
    assert companions.depth_info == TopicChoice("/front/aligned_depth_to_color/camera_info", CAMERA_INFO)
    assert (companions.labels, companions.clock, companions.tf_static) == (
        None, TopicChoice("/clock", "rosgraph_msgs/msg/Clock"), None,
    )  # fmt: skip


def test_a_bag_without_a_sensor_has_no_topic_for_it() -> None:
    assert names([("/scan", POINT_CLOUD)]) == {"lidar": "/scan"}
    assert names([]) == {}


def test_the_usual_name_wins_in_any_namespace() -> None:
    assert names([("/left/image", IMAGE), ("/car/camera/image_raw", IMAGE)]) == {"camera": "/car/camera/image_raw"}


@pytest.mark.parametrize(
    "topic",
    [
        "/camera/depth/color/points", "/radar_front/points", "/rtabmap/cloud_map", "/local_costmap/voxel_marked_cloud",
        "/perception/obstacle_segmentation/pointcloud", "/stereo/points2", "/octomap_point_cloud_centers",
    ],
)  # fmt: skip
def test_a_lone_cloud_of_another_source_is_no_lidar_and_said(topic: str) -> None:
    connections = [(topic, POINT_CLOUD), ("/camera/color/image_raw", IMAGE)]
    assert names(connections) == {"camera": "/camera/color/image_raw"}
    assert names(connections, f"lidar:={topic}")["lidar"] == topic
    sensors = find_topics(connections)
    (note,) = left_out(connections, sensors, find_companions(connections, sensors))
    assert f"--map lidar:={topic}" in note
    assert left_out(connections, sensors, find_companions(connections, sensors), [Sensor.CAMERA]) == []


@pytest.mark.parametrize(
    ("topic", "sensor"),
    [
        ("/dvs/image_raw", "camera"), ("/dvs/image_raw/compressed", "camera"), ("/dvs/events", "event"),
        ("/event_camera/event_image", "event"), ("/camera/infra1/image_rect_raw", "camera"),
    ],
)  # fmt: skip
def test_the_frames_of_an_event_camera_are_pictures(topic: str, sensor: str) -> None:
    assert names([(topic, COMPRESSED_IMAGE if topic.endswith("compressed") else IMAGE)]) == {sensor: topic}


@pytest.mark.parametrize("topic", ["/rviz/debug_image", "/yolo/dbg_image", "/segmentation_node/segmentation/overlay"])
def test_what_was_drawn_for_people_is_no_camera(topic: str) -> None:
    assert names([(topic, IMAGE)]) == {}
    assert any(topic in note for note in left_out([(topic, IMAGE)], {}, CompanionTopics()))


@pytest.mark.parametrize(
    ("topic", "is_truth"),
    [
        ("/ground_truth/labels", True), ("/carla/hero/semantic_segmentation_front/image", True),
        ("/labels/compressed", True), ("/annotations/road", True), ("/segmentation_node/segmentation/mask", False),
        ("/front/semantic_node/segmentation/mask", False), ("/unet/raw_segmentation_mask", False),
    ],
)  # fmt: skip
def test_what_a_network_gave_is_no_ground_truth(topic: str, is_truth: bool) -> None:
    connections = [(topic, IMAGE)]
    companions = find_companions(connections, {})
    assert (companions.labels is not None) is is_truth
    assert any("--map labels:=" in note for note in left_out(connections, {}, companions)) is not is_truth
    assert find_companions(connections, {}, {"labels": topic}).labels == TopicChoice(topic, IMAGE)


def test_nothing_is_said_of_what_the_user_left_out() -> None:
    connections = [("/ground_truth/tags", IMAGE), ("/radar/points", POINT_CLOUD), ("/rviz/debug_image", IMAGE)]
    roles = {"labels": "", "lidar": "", "camera": ""}
    for role in roles:
        notes = left_out(connections, {}, CompanionTopics(), mapping={role: ""})
        assert not any(f"--map {role}:=" in note for note in notes)
        assert len(notes) == len(left_out(connections, {}, CompanionTopics())) - 1 == 2
    assert left_out(connections, {}, CompanionTopics(), mapping=roles) == []


def test_the_old_name_of_event_packets_is_known() -> None:
    assert names([("/events", "event_array_msgs/msg/EventArray")]) == {"event": "/events"}


def test_a_topic_of_two_publishers_is_one() -> None:
    assert names([("/scan", POINT_CLOUD), ("/scan", POINT_CLOUD)]) == {"lidar": "/scan"}


def test_several_candidates_are_listed_with_the_remedy() -> None:
    two = [("/left/image", IMAGE), ("/right/image", IMAGE)]
    with pytest.raises(TopicError, match=r"several topics may be camera: /left/image .*/right/image .*--map camera:="):
        find_topics(two)
    with pytest.raises(TopicError, match="label images is named with --map labels:=TOPIC"):
        find_topics(two)
    with pytest.raises(TopicError, match=r"--map lidar:=TOPIC$"):
        find_topics([("/front/scan", POINT_CLOUD), ("/rear/scan", POINT_CLOUD)])
    assert find_topics(two, wanted=[Sensor.LIDAR]) == {}
    assert names(two, "camera:=/right/image") == {"camera": "/right/image"}
    assert names(two, "depth:=/left/image") == {"camera": "/right/image", "depth": "/left/image"}
    assert names(two, "camera:=") == {}


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ("camera:=/none", r"no topic /none for camera; topics there: .*/imu"),
        ("camera:=/imu", r"/imu is sensor_msgs/msg/Imu, and camera can only be sensor_msgs/msg/Image"),
        ("lidar:=/front/color/image_raw", r"lidar can only be sensor_msgs/msg/PointCloud2"),
    ],
)
def test_a_named_topic_must_be_there_and_fit(mapping: str, named: str) -> None:
    with pytest.raises(TopicError, match=named):
        find_topics(REAL_RIG, parse_mapping([mapping]))


def test_companions_can_be_named_too() -> None:
    labels = parse_mapping(["labels:=/event_camera/event_image"])
    assert find_companions(REAL_RIG, {}, labels).labels == TopicChoice("/event_camera/event_image", IMAGE)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["camera=/a"], "must be ROLE:=TOPIC"),
        (["camera:=/a", "camera:=/b"], "given twice: /a and /b"),
    ],
)
def test_a_wrong_mapping_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(TopicError, match=named):
        parse_mapping(arguments)


def test_a_role_that_nothing_has_is_named() -> None:
    with pytest.raises(TopicError, match="unknown role 'sonar'; known: camera, depth, event, lidar, labels"):
        find_topics([], parse_mapping(["sonar:=/a"]))


THERMAL, REAR = Sensor("thermal", "camera"), Sensor("lidar_rear", "lidar")
FIVE = (*DEFAULT_SENSORS, THERMAL)


@pytest.mark.parametrize(
    ("connections", "wanted", "found"),
    [
        (
            {"/thermal/image_raw": IMAGE, "/front/image": IMAGE},
            FIVE,
            {"camera": "/front/image", "thermal": "/thermal/image_raw"},
        ),
        ({"/thermal/image_raw": IMAGE, "/front/image": IMAGE}, [THERMAL], {"thermal": "/thermal/image_raw"}),
        ({"/thermal/image_raw": IMAGE}, DEFAULT_SENSORS, {"camera": "/thermal/image_raw"}),
        ({"/front/image": IMAGE}, [THERMAL], {}),
        ({"/a/thermal/image_raw": IMAGE, "/b/thermal": IMAGE}, [THERMAL], {"thermal": "/a/thermal/image_raw"}),
        ({"/thermal/depth": IMAGE}, FIVE, {"depth": "/thermal/depth"}),
        (
            {"/points": POINT_CLOUD, "/lidar_rear/points": POINT_CLOUD},
            (*DEFAULT_SENSORS, REAR),
            {"lidar": "/points", "lidar_rear": "/lidar_rear/points"},
        ),
    ],
)
def test_other_sensors_are_found_by_their_names(
    connections: dict[str, str], wanted: Sequence[Sensor], found: dict[str, str]
) -> None:
    choices = find_topics(connections.items(), wanted=wanted)
    assert {sensor: choice.topic for sensor, choice in choices.items()} == found


def test_every_role_can_be_mapped() -> None:
    assert parse_mapping([f"{m}:=/x/{m}" for m in DEFAULT_SENSORS]) == {str(m): f"/x/{m}" for m in DEFAULT_SENSORS}


def test_topics_that_parameters_name_are_those_of_the_node() -> None:
    """Where the bag has them; what is taken instead of one that it lacks is said, but not of a default's."""
    connections = [
        ("/front/image_raw", IMAGE), ("/rear/image_raw", IMAGE), ("/calibration/front", CAMERA_INFO),
        ("/lidar/points", POINT_CLOUD), ("/odom", ODOMETRY), ("/odometry/filtered", ODOMETRY),
    ]  # fmt: skip
    values = {
        "modalities.camera.topic": "/front/image_raw",
        "rig.camera_info_topic": "/calibration/front",
        "rig.odometry_topic": "odom",
    }
    parameters = from_values(values)
    mapping = mapping_by(parameters, connections, {})
    sensors = find_topics(connections, mapping)
    companions = find_companions(connections, sensors, mapping)
    assert sensors[Sensor.CAMERA].topic == "/front/image_raw"
    assert companions.camera_info == TopicChoice("/calibration/front", CAMERA_INFO)
    assert companions.odometry == TopicChoice("/odom", ODOMETRY)
    assert taken_instead(parameters, sensors, companions, mapping) == []
    assert mapping_by(parameters, connections, {"camera": "/rear/image_raw"})["camera"] == "/rear/image_raw"

    lacking = connections[1:2] + connections[3:4]
    mapping = mapping_by(parameters, lacking, {})
    sensors = find_topics(lacking, mapping)
    said = taken_instead(parameters, sensors, find_companions(lacking, sensors, mapping), mapping)
    assert said == [
        "the parameters name /front/image_raw for camera, which the bag does not have: /rear/image_raw is taken"
    ]
    assert taken_instead(Parameters(), sensors, find_companions(lacking, sensors)) == []
