"""Parameters: flat names, validation, and the shipped file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from repository import REPOSITORY
from typer.testing import CliRunner

from anyseg_core.runtime.engines.protocol import BuildOptions
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.cli import app
from anyseg_ros.pipeline.parameter_descriptions import about
from anyseg_ros.pipeline.parameters import (
    ModelParameters,
    ParameterError,
    Parameters,
    RigParameters,
    changeable_at_run_time,
    from_values,
    load_parameters,
    to_values,
)
from anyseg_ros.process.ros_arguments import check_ros_arguments

CONFIG = REPOSITORY / "config"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return values


def file_values(name: str) -> dict[str, Any]:
    return flat(yaml.safe_load((CONFIG / name).read_text())["/**"]["ros__parameters"])


def test_lists_as_launch_writes_them_are_read(tmp_path: Path) -> None:
    """launch_ros dumps them as tuples, with a tag that ROS 2 does not look at."""
    file = tmp_path / "launch_params_x"
    intrinsics = (640.0, 480.0, 400.0, 400.0, 319.5, 239.5)
    parameters = {"rig.intrinsics": intrinsics, "sync.anchor_order": ("depth", "camera")}
    file.write_text(yaml.dump({"/**": {"ros__parameters": parameters}}))
    assert "!!python/tuple" in file.read_text()
    check_ros_arguments(["--params-file", str(file)])
    read = load_parameters(file)
    assert read.rig.intrinsics == intrinsics
    assert read.sync.anchor_order == ("depth", "camera")


def test_the_shipped_file_lists_every_parameter_with_its_default() -> None:
    assert file_values("vehicle.yaml") == to_values()


def test_the_simulated_vehicle_s_file_is_its_calibration() -> None:
    drive = pytest.importorskip("anyseg_core.sim.drive", reason="the simulator needs pip install anyseg_ros[sim]")
    parameters = from_values(file_values("simulated_vehicle.yaml"))
    np.testing.assert_allclose(parameters.rig.camera_from_lidar(), drive.camera_from_lidar(), atol=1e-6)
    np.testing.assert_allclose(parameters.rig.base_from_lidar(), drive.base_from_lidar(), atol=1e-6)


def test_values_round_trip() -> None:
    assert from_values(to_values()) == Parameters()
    changed = from_values({"modalities.depth.expected_rate_hz": 30, "sync.anchor_order": ["lidar", "depth"]})
    assert from_values(to_values(changed)) == changed
    assert changed.modalities[Sensor.DEPTH].expected_rate_hz == 30.0
    assert changed.sync.anchor_order == (Sensor.LIDAR, Sensor.DEPTH)


def test_check_settings_reach_the_monitors() -> None:
    health = from_values({"faults.silent.threshold": 7.0, "modalities.event.max_age_ms": 123.0}).health()
    assert health[Sensor.EVENT].check(Fault.SILENT).threshold == 7.0
    assert health[Sensor.EVENT].max_age_ms == 123.0


def test_a_check_of_one_modality_may_differ_from_the_others() -> None:
    name = "modalities.camera.faults.dark.threshold"
    parameters = from_values({"faults.dark.fail_count": 9, name: 5, "modalities.lidar.faults.silent.latch": True})
    health = parameters.health()
    assert (
        health[Sensor.CAMERA].check(Fault.DARK).threshold,
        health[Sensor.CAMERA].check(Fault.DARK).fail_count,
    ) == (
        5.0,
        9,
    )
    assert health[Sensor.LIDAR].check(Fault.SILENT).latch
    assert not health[Sensor.DEPTH].check(Fault.SILENT).latch
    assert to_values(parameters)[name] == 5.0
    assert from_values(to_values(parameters)) == parameters
    assert changeable_at_run_time(name)
    assert (
        from_values({**to_values(parameters), name: None}).health()[Sensor.CAMERA].check(Fault.DARK).threshold == 20.0
    )


def test_ranging_sensors_ship_with_a_noise_limit_of_their_own() -> None:
    health = Parameters().health()
    assert [health[m].check(Fault.NOISY).threshold for m in DEFAULT_SENSORS] == [0.16, 0.08, 0.16, 0.08]


def test_every_fault_of_the_catalogue_has_parameters() -> None:
    assert {fault.value for fault in Fault} == {
        name.split(".")[1] for name in to_values() if name.startswith("faults.")
    }


MISTAKES = [
    (
        {"modalities.camera.faults.few_points.threshold": 1.0},
        "unknown parameter modalities.camera.faults.few_points.threshold: did you mean",
    ),
    ({"modalities.camera.faults.dark.threshold": -1.0}, "modalities.camera.faults.dark.threshold: threshold must be"),
    ({"modalities.camera.faults.dark.enabled": 1}, "modalities.camera.faults.dark.enabled: must be true or false"),
    ({"modalities.camera.min_quality": 1.5}, "modalities.camera: min_quality must be in [0, 1]"),
    ({"sync.keep_at_least": 0}, "keep_at_least must be in [1, "),
    (
        {"modalities.camra.topic": "x"},
        "unknown parameter modalities.camra.topic: did you mean modalities.camera.topic?",
    ),
    ({"zzz": 1}, "config/vehicle.yaml lists all of them"),
    ({"sync.anchor_order": ["camera", "radar"]}, "known sensors: camera, depth, event, lidar"),
    ({"sync.anchor_order": ["camera", "camera"]}, "none twice"),
    ({"sync.anchor_order": "camera"}, "must be a list"),
    ({"sync.deadline_ms": 0.0}, "deadline_ms must be in [0.001, "),
    ({"sync.join_wait_ms": -1.0}, "join_wait_ms"),
    (
        {"modalities.depth.max_age_ms": 5.0, "modalities.depth.expected_rate_hz": 10.0},
        "modalities.depth: max_age_ms 5 is less than the period",
    ),
    ({"modalities.camera.expected_rate_hz": 3e9}, "expected_rate_hz must be in [0, 1000]"),
    ({"modalities.camera.max_age_ms": 1e308}, "max_age_ms must be in [1, 60000]"),
    ({"modalities.camera.max_age_ms": float("nan")}, "max_age_ms must be in [1, 60000]"),
    ({"modalities.camera.startup_grace_s": float("inf")}, "startup_grace_s must be in"),
    ({"sync.join_wait_ms": 1e308}, "join_wait_ms must be in [0, 1000]"),
    ({"sync.max_time_diff_ms": 1e308}, "max_time_diff_ms must be in"),
    ({"faults.silent.threshold": 1e308}, "threshold must be in"),
    ({"faults.silent.threshold": 1e5}, "faults.silent: threshold must be in [1, 100]"),
    ({"faults.dark.threshold": 256}, "faults.dark: threshold must be in [0, 255]"),
    ({"modalities.camera.faults.noisy.threshold": 1.5}, "threshold must be in [0, 1]"),
    ({"faults.silent.recover_time_s": 1e308}, "recover_time_s must be in"),
    ({"faults.silent.fail_count": 2**62}, "fail_count must be in [1, 1000]"),
    ({"model.open_timeout_s": 0.0}, "open_timeout_s must be in"),
    ({"output.max_mask_age_ms": 1e308}, "max_mask_age_ms must be in"),
    ({"events.window_ms": 1e308}, "window_ms must be in"),
    ({"output.grid.seconds": 1e308}, "seconds must be in"),
    ({"output.grid.max_height_m": float("nan")}, "max_height_m must be in"),
    ({"output.obstacles.max_range_m": 1e308}, "max_range_m must be in"),
    ({"output.obstacles.voxel_m": float("inf")}, "voxel_m must be in"),
    ({"output.points.depth_stride": 2**62}, "depth_stride must be in"),
    ({"output.points.occlusion_bound_m": 0.0}, "occlusion_bound_m must be in"),
    ({"modalities.depth.qos": "sensor"}, "qos must be one of best_effort, reliable"),
    ({"modalities.depth.topic": ""}, "topic must not be empty"),
    ({"modalities.depth.enabled": 1}, "must be true or false"),
    ({"faults.silent.fail_count": 1.5}, "must be an integer"),
    ({"faults.silent.threshold": "high"}, "must be a number"),
    ({"model.precision": "int8"}, "precision must be one of"),
    ({"model.on_engine_failure": "pray"}, "on_engine_failure must be one of fallback, reopen, report"),
    ({"model.threads": -1}, "threads must be in [0, "),
    ({"rig.intrinsics": [640.0, 480.0, 0.0, 0.0, 320.0, 240.0]}, "focal lengths positive"),
    ({"rig.camera_from_lidar_rotation_xyzw": [0.0, 0.0, 0.0, 2.0]}, "unit quaternion"),
    ({"rig.camera_from_lidar_translation_m": [0.0]}, "must be 3 finite numbers"),
    ({"rig.camera_from_lidar_translation_m": [0.0, 1.0, 0.0]}, "needs camera_from_lidar_rotation_xyzw"),
    ({"output.min_confidence": -0.1}, "min_confidence must be in"),
    ({"output.overlay_opacity": 2.0}, "overlay_opacity must be in"),
    ({"autostart": "yes"}, "autostart: must be true or false"),
]


@pytest.mark.parametrize(("values", "words"), MISTAKES)
def test_mistakes_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as raised:
        from_values(values)
    assert words in str(raised.value)


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(ParameterError) as raised:
        from_values({"modelx.student": "a", "model.threads": -1, "autostart": 3})
    assert len(str(raised.value).splitlines()) == 3


def test_what_may_change_at_run_time() -> None:
    assert changeable_at_run_time("faults.silent.threshold")
    assert changeable_at_run_time("modalities.camera.max_age_ms")
    assert not changeable_at_run_time("modalities.camera.topic")
    assert not changeable_at_run_time("model.student")
    assert not changeable_at_run_time("rig.intrinsics")


def test_the_default_lidar_looks_where_the_camera_does() -> None:
    forward, left, up = np.eye(3)
    rotation = RigParameters(camera_from_lidar_rotation_xyzw=(0.5, -0.5, 0.5, 0.5)).camera_from_lidar()[:3, :3]
    np.testing.assert_allclose(rotation @ forward, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation @ left, [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation @ up, [0, -1, 0], atol=1e-12)


def test_rigid_transform_turns_about_z() -> None:
    half = np.sqrt(0.5)
    transform = rigid_transform((1, 2, 3), (0, 0, half, half))
    np.testing.assert_allclose(transform @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


def test_engines_are_built_and_kept_as_the_parameters_say() -> None:
    model = ModelParameters(precision="fp32", engine_cache_dir="~/engines")
    assert model.build_options() == BuildOptions("fp32", Path.home() / "engines")
    assert ModelParameters().build_options() == BuildOptions()


def test_a_key_that_stands_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("/**:\n  ros__parameters:\n    sync: {deadline_ms: 10.0}\n    sync: {join_wait_ms: 1.0}\n")
    with pytest.raises(ParameterError, match="'sync' stands twice"):
        load_parameters(file)


def test_a_file_of_two_nodes_is_never_mixed(tmp_path: Path) -> None:
    """The node takes the section of its own name; who reads the file alone cannot know which that is."""
    section = "{name}: {{ros__parameters: {{modalities: {{camera: {{topic: {topic}}}}}}}}}\n"
    path = tmp_path / "two.yaml"
    path.write_text("".join(section.format(name=f"/{n}/segmentation_node", topic=f"/{n}") for n in ("front", "rear")))
    with pytest.raises(ParameterError, match=r"several nodes \(/front/segmentation_node, /rear/segmentation_node\)"):
        load_parameters(path)
    for name in ("front", "rear"):
        assert load_parameters(path, f"/{name}/segmentation_node").modalities[Sensor.CAMERA].topic == f"/{name}"
    with pytest.raises(ParameterError, match="no section is for segmentation_node"):
        load_parameters(path, "/segmentation_node")
    common = section.format(name="/**", topic="/common") + section.format(
        name="/front/segmentation_node", topic="/front"
    )
    path.write_text(common)
    assert load_parameters(path).modalities[Sensor.CAMERA].topic == "/front"


@pytest.mark.parametrize(
    ("section", "node", "is_for_it"),
    [
        ("/**", "/segmentation_node", True),
        ("/**", "/a/b/segmentation_node", True),
        ("/**/segmentation_node", "/a/segmentation_node", True),
        ("/*/segmentation_node", "/a/segmentation_node", True),
        ("/*/segmentation_node", "/a/b/segmentation_node", False),
        ("segmentation_node", "/segmentation_node", True),
        ("segmentation_node", "/a/segmentation_node", False),
        ("/a/**", "/b/segmentation_node", False),
    ],
)
def test_a_section_is_used_where_ros_uses_it(tmp_path: Path, section: str, node: str, is_for_it: bool) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f'"{section}": {{ros__parameters: {{sync: {{deadline_ms: 7.0}}}}}}')
    if is_for_it:
        assert load_parameters(path, node).sync.deadline_ms == 7.0
    else:
        with pytest.raises(ParameterError, match=f"no section is for {node[1:]}"):
            load_parameters(path, node)


def test_every_parameter_has_a_description_of_its_own_and_every_number_a_range() -> None:
    values = to_values()
    assert [name for name in values if not about(name).description] == []
    numbers = [n for n, value in values.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    assert [name for name in numbers if about(name).allowed is None] == []
    assert about("output.grid.resolution_m").allowed == (0.001, 100.0)
    assert about("output.points.depth_stride").allowed == (1, 1000)
    assert about("modalities.camera.max_age_ms").allowed == (1.0, 60_000.0)
    assert about("faults.dark.threshold").allowed == (0.0, 255.0)
    assert about("modalities.lidar.faults.noisy.threshold").allowed == (0.0, 1.0)


def test_run_refuses_a_file_that_its_node_would_not_read(tmp_path: Path) -> None:
    """ROS 2 gives `segmentation_node:` to no node in a namespace, and says nothing: all of it would be defaults."""
    path = tmp_path / "vehicle.yaml"
    path.write_text("segmentation_node: {ros__parameters: {sync: {deadline_ms: 7.0}}}")
    result = CliRunner().invoke(app, ["run", "--params-file", str(path), "--namespace", "front"])
    assert result.exit_code == 2
    assert "no section is for front/segmentation_node or /**" in " ".join(result.stderr.split())
