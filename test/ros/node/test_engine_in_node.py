"""The engine's life in segmentation_node, over real DDS: building, failing, mending. TensorRT and GPU are doubles."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from cuda_double import DeviceDouble
from lifecycle_msgs.srv import GetState
from ros_harness import Vehicle, running, status_values, toy_parameters
from tensorrt_double import TensorrtDouble

from anyseg_core.runtime.engines import tensorrt as engine_tensorrt
from anyseg_core.runtime.engines.cuda.device import DeviceError
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.messages.conversions import stamp_ns
from anyseg_ros.node import segmentation_node
from anyseg_ros.node.segmentation_node import after_build
from anyseg_ros.pipeline.status_lines import status_key

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

ALL = {str(m) for m in DEFAULT_SENSORS}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diagnostics ten times a second: these tests wait for them."""
    monkeypatch.setattr(segmentation_node, "DIAGNOSTICS_PERIOD_S", 0.1)


@pytest.fixture
def parameters(tmp_path: Path) -> dict[str, Any]:
    """Those of a node that is to run on the GPU."""
    engine = {"model.backend": "tensorrt", "model.engine_cache_dir": str(tmp_path / "engines")}
    return {**toy_parameters(tmp_path), **engine}


def engine_now(vehicle: Vehicle) -> dict[str, str]:
    """The newest `anyseg: engine`."""
    return status_values(vehicle.diagnostics[-1]).get("engine", {}) if vehicle.diagnostics else {}


def wait_for_engine(vehicle: Vehicle, **wanted: str) -> dict[str, str]:
    """Until its status has these values."""

    def is_so() -> bool:
        now = engine_now(vehicle)
        return all(value in now.get(name, "") for name, value in wanted.items())

    vehicle.spin_until(is_so, f"engine {wanted}, not {engine_now(vehicle)}")
    return engine_now(vehicle)


def assert_no_mask_is_old(vehicle: Vehicle) -> None:
    """Every mask has the stamp of a frame that was sent, and later ones have later stamps."""
    stamps = [stamp_ns(mask.header) for mask in vehicle.masks]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= set(vehicle.sent)


def test_masks_and_diagnostics_with_a_double_of_the_gpu(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, device: DeviceDouble
) -> None:
    with running(parameters) as vehicle:
        vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
        status = wait_for_engine(vehicle, state="ready", backend="tensorrt")
        assert status["precision"] == "fp16"
        assert status["tactics"] == "2 layers, 1 kernels"
        assert status["message"] == "tensorrt on cuda:0"
        vehicle.alive = {Sensor.LIDAR}
        vehicle.spin_until(lambda: vehicle.used() == {"lidar"}, "LiDAR alone")
    assert {kind: n for kind, n in device.alive.items() if n} == {}


class HeldBuild:
    """Lets a double's build go on only when it is told to."""

    def __init__(self, tensorrt: TensorrtDouble) -> None:
        self.go_on = threading.Event()
        builder = tensorrt.Builder

        def held(logger: Any) -> Any:
            made = builder(logger)
            build = made.behaviour.build_serialized_network

            def wait_and_build(network: Any, config: Any) -> Any:
                monitor = config.behaviour.progress_monitor
                monitor.phase_start("Building engine", None, 4)
                monitor._reported_s = float("-inf")
                while not self.go_on.wait(0.02):
                    if not monitor.step_complete("Building engine", 1):
                        return None
                return build(network, config)

            made.behaviour.build_serialized_network = wait_and_build
            return made

        tensorrt.Builder = held


def test_the_node_answers_and_says_building_while_a_double_of_tensorrt_builds(
    parameters: dict[str, Any], tensorrt: TensorrtDouble
) -> None:
    build = HeldBuild(tensorrt)
    with running(parameters) as vehicle:
        status = wait_for_engine(vehicle, state="building")
        assert status["percent"] == "50"
        assert float(status["elapsed_s"]) >= 0
        assert "BUILDING: the engine is not ready yet" in status["message"]
        assert "no label image: BUILDING" in status_values(vehicle.diagnostics[-1])["inference"]["message"]
        assert vehicle.call(GetState, "get_state", GetState.Request()).current_state.label == "active"
        assert not vehicle.masks
        build.go_on.set()
        vehicle.spin_masks(3)
        wait_for_engine(vehicle, state="ready")
        assert_no_mask_is_old(vehicle)


def test_a_build_that_fails_leaves_the_node_unconfigured_with_a_double_of_tensorrt(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    build = HeldBuild(tensorrt)
    tensorrt.double.refused_plans = 2
    with running(parameters) as vehicle:
        wait_for_engine(vehicle, state="building")
        build.go_on.set()
        vehicle.spin_until(lambda: vehicle.node.build_failed, "the failure")

        def state() -> str:
            return vehicle.call(GetState, "get_state", GetState.Request()).current_state.label

        assert state() == "unconfigured"
        assert "refuses what it built" in capfd.readouterr().err
        assert vehicle.node.trigger_configure().name == "SUCCESS"  # and can be configured anew


def test_shutdown_gives_up_a_build_of_a_double_of_tensorrt(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, device: DeviceDouble
) -> None:
    HeldBuild(tensorrt)
    with running(parameters) as vehicle:
        wait_for_engine(vehicle, state="building")
        assert vehicle.node.trigger_deactivate().name == "SUCCESS"
        wait_for_engine(vehicle, state="building")
    assert {kind: n for kind, n in device.alive.items() if n} == {}


def test_build_only_ends_when_it_is_built_with_a_double_of_tensorrt(
    parameters: dict[str, Any], tensorrt: TensorrtDouble
) -> None:
    build = HeldBuild(tensorrt)
    vehicle = Vehicle({**parameters, "model.build_only": True})
    try:
        assert vehicle.node.trigger_configure().name == "SUCCESS"
        assert after_build(vehicle.node) is None
        build.go_on.set()
        vehicle.spin_until(lambda: after_build(vehicle.node) == 0, "the exit code")
        assert tensorrt.double.builds == 1
    finally:
        vehicle.destroy()


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(
    parameters: dict[str, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # type: ignore[arg-type]
    vehicle = Vehicle(parameters)
    try:
        assert vehicle.node.trigger_configure().name == "FAILURE"
        assert "tensorrt was asked for and cannot be used: TensorRT is not installed" in capfd.readouterr().err
    finally:
        vehicle.destroy()


def test_auto_without_a_gpu_says_why_it_runs_on_the_cpu(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # type: ignore[arg-type]
    with running({**parameters, "model.backend": "auto"}) as vehicle:
        status = wait_for_engine(vehicle, state="ready", backend="onnxruntime")
        assert status["reason"].startswith("auto: the CPU, because TensorRT is not installed")


def lose_device(device: DeviceDouble) -> None:
    device.lost = "CUDA: unspecified launch failure"


def test_a_lost_double_of_the_gpu_is_opened_again(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, device: DeviceDouble
) -> None:
    with running(parameters) as vehicle:
        vehicle.spin_masks(3)
        lose_device(device)
        vehicle.spin_until(lambda: engine_now(vehicle).get("failures") == "1", "the failure in diagnostics")
        status = wait_for_engine(vehicle, state="ready", backend="tensorrt")
        assert status["reason"] == "opened again: CUDA: unspecified launch failure"
        vehicle.spin_masks(3)
        assert_no_mask_is_old(vehicle)
        assert tensorrt.double.builds == 1  # from the cache


def test_a_double_of_the_gpu_that_stays_away_makes_way_for_the_cpu(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, device: DeviceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> DeviceDouble:
        raise DeviceError("no GPU can be used here: CUDA_ERROR_NO_DEVICE")

    with running(parameters) as vehicle:
        vehicle.spin_masks(3)
        monkeypatch.setattr(engine_tensorrt, "open_device", gone)
        lose_device(device)
        status = wait_for_engine(vehicle, state="ready", backend="onnxruntime")
        assert "the CPU took over" in status["message"]
        assert "fallback: tensorrt was asked for and cannot be used: no GPU" in status["reason"]
        levels = {status_key(s.name): s.level for s in vehicle.diagnostics[-1].status}
        assert levels["engine"] == b"\x01"
        vehicle.spin_masks(3)
        assert_no_mask_is_old(vehicle)


def test_a_double_of_the_gpu_that_stays_away_publishes_nothing_old_without_fallback(
    parameters: dict[str, Any], tensorrt: TensorrtDouble, device: DeviceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> DeviceDouble:
        raise DeviceError("no GPU can be used here: CUDA_ERROR_NO_DEVICE")

    with running({**parameters, "model.on_engine_failure": "reopen"}) as vehicle:
        vehicle.spin_masks(3)
        monkeypatch.setattr(engine_tensorrt, "open_device", gone)
        lose_device(device)
        wait_for_engine(vehicle, state="failed", message="CUDA_ERROR_NO_DEVICE")
        vehicle.masks.clear()
        vehicle.spin_for(0.5)
        assert not vehicle.masks
        inference = status_values(vehicle.diagnostics[-1])["inference"]["message"]
        assert inference.startswith("no label image: the engine failed")
        monkeypatch.setattr(engine_tensorrt, "open_device", device.reopened)
        vehicle.spin_masks(3)
        assert_no_mask_is_old(vehicle)


def test_bad_output_of_a_double_of_the_gpu_is_never_published(
    parameters: dict[str, Any], tensorrt: TensorrtDouble
) -> None:
    with running({**parameters, "model.on_engine_failure": "report"}) as vehicle:
        vehicle.spin_masks(3)
        tensorrt.double.labels_add = 100  # there are 25 classes
        vehicle.spin_until(
            lambda: (
                "gave bad output" in status_values(vehicle.diagnostics[-1])["inference"]["message"]
                if vehicle.diagnostics
                else False
            ),
            "the failure",
        )
        vehicle.masks.clear()
        vehicle.spin_for(0.3)
        assert not vehicle.masks
        tensorrt.double.labels_add = 0
        vehicle.spin_masks(2)
        assert_no_mask_is_old(vehicle)
