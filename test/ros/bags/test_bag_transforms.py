"""The place of a sensor in a bag is that of its stamp, as in the live node, whatever is told before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bags import INFO, PERIOD_NS, START_NS, TF, TYPES, Written, drive, transforms, write_ros2

from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import BagSamples, BagTopics, FrameSample, RigSample
from anyseg_ros.bags.to_folder import FolderOptions, write_folder
from anyseg_ros.bags.topics import find_companions, find_topics
from anyseg_ros.bags.transforms import TransformTree
from anyseg_ros.pipeline.parameters import Parameters, from_values

LEVEL = (0.0, 0.0, 0.0, 1.0)
QUARTER = (0.0, 0.0, 0.5**0.5, 0.5**0.5)
"""A quarter turn to the left."""


def placed(child: str, stamp_ns: int, *, height_m: float = 0.0, turn: tuple[float, ...] = LEVEL) -> Any:
    """A transform from the vehicle's base."""
    message = transforms("base_link", child, turn, stamp_ns)
    message.transforms[0].transform.translation = TYPES["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=height_m)
    return message


def height_of(tree: TransformTree, stamp_ns: int) -> float | None:
    found = tree.lookup("base_link", "lidar", stamp_ns)
    return None if found is None else float(found[2, 3])


def test_transforms_are_chained_both_ways() -> None:
    """camera and lidar are both bolted to the vehicle; a broken transform is left out."""
    tree = TransformTree()
    tree.add(transforms("base_link", "camera", QUARTER, 0), is_static=True)
    tree.add(transforms("/base_link", "lidar", LEVEL, 0), is_static=True)
    for broken in ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, float("nan")), (0.0, 0.0, 0.0, 2.0)):
        tree.add(transforms("base_link", "lidar", broken, 1), is_static=True)
    tree.add(transforms("lidar", "lidar", LEVEL, 1), is_static=True)
    turn, back = tree.lookup("camera", "lidar"), tree.lookup("lidar", "camera", START_NS)
    assert turn is not None
    assert back is not None
    np.testing.assert_allclose(turn[:3, :3] @ [1.0, 0.0, 0.0], [0.0, -1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(turn @ back, np.eye(4), atol=1e-9)
    assert tree.lookup("camera", "radar") is None
    assert tree.trees() == [["base_link", "camera", "lidar"]]


def test_a_transform_that_moves_is_that_of_the_stamp() -> None:
    tree = TransformTree()
    for second in (1, 0, 2):  # not in order
        tree.add(placed("lidar", START_NS + second * NS_PER_S, height_m=float(second)), is_static=False)
    assert height_of(tree, START_NS + NS_PER_S // 2) == pytest.approx(0.5)
    assert height_of(tree, START_NS + NS_PER_S) == pytest.approx(1.0)
    assert height_of(tree, 0) == pytest.approx(2.0), "the newest"
    assert height_of(tree, START_NS + 2 * NS_PER_S + 90 * NS_PER_MS) == pytest.approx(2.0), "near enough"
    assert height_of(tree, START_NS + 2 * NS_PER_S + 110 * NS_PER_MS) is None
    assert height_of(tree, START_NS - NS_PER_S) is None
    tree.add(placed("lidar", START_NS - 100 * NS_PER_S, height_m=9.0), is_static=False)  # the clock was set back
    assert height_of(tree, START_NS - 100 * NS_PER_S) == pytest.approx(9.0)
    assert height_of(tree, START_NS) is None


def test_a_turn_is_followed_and_the_chain_has_one_time() -> None:
    tree = TransformTree()
    tree.add(placed("mast", START_NS, turn=LEVEL), is_static=False)
    tree.add(placed("mast", START_NS + NS_PER_S, turn=QUARTER), is_static=False)
    tree.add(transforms("mast", "lidar", LEVEL, START_NS), is_static=True)
    half = tree.lookup("base_link", "lidar", START_NS + NS_PER_S // 2)
    assert half is not None
    np.testing.assert_allclose(half[:3, 0], [0.5**0.5, 0.5**0.5, 0.0], atol=1e-6)
    tree.add(placed("camera", START_NS + 5 * NS_PER_S), is_static=False)
    assert tree.lookup("camera", "lidar") is None, "no time at which both are known"


def rising(heights_m: dict[int, float], until: int = 10) -> list[Written]:
    """The drive, with the LiDAR on a mast that is at those heights at those frames."""
    moves = [
        Written("/tf", START_NS + at * PERIOD_NS - 1, placed("lidar", START_NS + at * PERIOD_NS, height_m=height))
        for at, height in heights_m.items()
    ]
    still = [Written(TF, START_NS, placed("camera_optical_frame", START_NS))]
    recorded = [w for w in drive(until) if w.topic != TF]
    return sorted([*still, *moves, *recorded], key=lambda w: w.received_ns)


def heights_at_scans(bag: Path) -> list[float | None]:
    """Where each scan of the bag is placed."""
    reader = BagReader(bag)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    sensors = find_topics(connections, {}, wanted=DEFAULT_SENSORS)
    topics, heights, rig = BagTopics(sensors, find_companions(connections, sensors, {})), [], None
    for sample in BagSamples(reader, topics, Parameters(), uses_stamps=False):
        if isinstance(sample, RigSample):
            rig = sample.rig
        elif isinstance(sample, FrameSample) and sample.frame.modality == Sensor.LIDAR:
            assert rig is not None
            heights.append(None if rig.missing else round(float(rig.camera_from_lidar[2, 3]), 3))
    return heights


def test_a_scan_of_a_bag_is_placed_at_its_stamp_and_left_out_where_nobody_knows(tmp_path: Path) -> None:
    every_frame = write_ros2(tmp_path / "rising", rising({at: 0.1 * at for at in range(10)}))
    assert heights_at_scans(every_frame) == pytest.approx([0.1 * at for at in range(10)], abs=1e-3)
    early = write_ros2(tmp_path / "planned", rising({0: 0.0, 9: 0.9}))  # the end is told late: known at its time only
    assert heights_at_scans(early) == [0.0, 0.0, *[None] * 7, 0.9], "not the place of a second ago"


def test_a_data_set_has_one_place_of_the_lidar_and_one_that_moved_is_said(tmp_path: Path) -> None:
    card = load_card(find_student("vehicle_sim"), verify=False)
    said: dict[str, list[str]] = {}
    for name, heights in (("rising", {at: 0.1 * at for at in range(10)}), ("still", dict.fromkeys(range(10), 1.0))):
        written = write_folder(
            write_ros2(tmp_path / name, rising(heights)), tmp_path / "data" / name, card, FolderOptions(every_s=0.1)
        )
        said[name] = [each for each in written.advice if "moves" in each]
    assert said["still"] == []
    assert "rig.json has its last place for all samples" in said["rising"][0]


def test_a_lens_that_the_data_set_cannot_hold_is_said_unless_it_is_taken_out(tmp_path: Path) -> None:
    def bent(written: Written) -> Written:
        if written.topic == INFO:
            written.message.d[0] = -0.3
        return written

    bag, card = write_ros2(tmp_path / "bent", map(bent, drive())), load_card(find_student("vehicle_sim"), verify=False)
    for rectify in (False, True):
        parameters = from_values({"rig.rectify": rectify})
        options = FolderOptions(every_s=0.1, mapping=("depth:=",), parameters=parameters)
        advice = write_folder(bag, tmp_path / f"set_{rectify}", card, options).advice
        assert any("rig.json does not hold" in each for each in advice) != rectify
