"""injector over real DDS: bytes in, the same bytes out, and faults when the scenario says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from node_processes import output_until, shared_memory, shared_memory_of, start  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from repository import REPOSITORY  # noqa: E402
from ros_harness import TIMEOUT_S, SpunNodes, live_frame  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, PointCloud2  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from anyseg_core.runtime.sensors import Sensor  # noqa: E402
from anyseg_core.runtime.strict_yaml import load_yaml_file  # noqa: E402
from anyseg_ros.inject.injector_node import InjectorNode  # noqa: E402
from anyseg_ros.messages.headers import STATE_QOS  # noqa: E402
from anyseg_ros.pipeline.parameters import flattened  # noqa: E402
from anyseg_ros.process.node_process import new_executor  # noqa: E402
from anyseg_ros.vehicle.publisher import camera_message, lidar_message  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

NS = "injection"


class Rig(SpunNodes):
    """The injector with a driver before it and a listener behind it."""

    def __init__(self, scenario: Path | None, **parameters: Any) -> None:
        values: dict[str, Any] = {"injections": str(scenario or ""), **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = InjectorNode(namespace=NS, parameter_overrides=overrides)
        self.driver = rclpy.create_node("driver", namespace=NS)
        self.camera = self.driver.create_publisher(Image, "in/camera/image_raw", 10)
        self.lidar = self.driver.create_publisher(PointCloud2, "in/lidar/points", 10)
        self.heard: dict[str, list[bytes]] = {"camera": [], "lidar": []}
        self.truth: list[DiagnosticArray] = []
        listen = self.driver.create_subscription
        listen(Image, "camera/image_raw", self.heard["camera"].append, 10, raw=True)
        listen(PointCloud2, "lidar/points", self.heard["lidar"].append, 10, raw=True)
        listen(DiagnosticArray, "injector/active_faults", self.truth.append, STATE_QOS)
        super().__init__(self.node, self.driver)
        self.spin_until(self._is_connected, "the injector between driver and listener")

    def _is_connected(self) -> bool:
        counts = [p.get_subscription_count() for p in (self.camera, self.lidar)]
        outputs = [self.driver.count_publishers(t) for t in ("camera/image_raw", "lidar/points")]
        return min(counts + outputs) > 0

    def send(self, index: int, modality: Sensor = Sensor.CAMERA) -> bytes:
        """Publish a frame; its serialized message."""
        frame = live_frame(modality, 10**18 + index)
        message = camera_message(frame) if modality is Sensor.CAMERA else lidar_message(frame)
        raw = serialize_message(message)
        (self.camera if modality is Sensor.CAMERA else self.lidar).publish(raw)
        return raw

    def relayed(self, index: int) -> Any:
        """What comes of a camera frame that is sent; sent again until the connection is there."""
        count = len(self.heard["camera"])
        self.send(index)
        self.spin_until(lambda: len(self.heard["camera"]) > count, f"camera frame {index}")
        return deserialize_message(self.heard["camera"][-1], Image)

    def active(self) -> list[str]:
        return [status.name for status in self.truth[-1].status] if self.truth else []

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name, Trigger.Request())


@contextmanager
def rig(scenario: Path | None = None, **parameters: Any) -> Iterator[Rig]:
    one = Rig(scenario, **parameters)
    try:
        yield one
    finally:
        one.destroy()


def scenario_file(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / f"scenario_{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({"injections": list(entries)}))
    return path


ALWAYS_BLACK = {"modality": "camera", "kind": "black", "start_s": 0}


def test_untouched_messages_are_the_same_to_the_byte(tmp_path: Path) -> None:
    later = scenario_file(tmp_path, {"kind": "crash", "start_s": 3600})
    with rig(later) as one:
        for modality in (Sensor.CAMERA, Sensor.LIDAR):
            heard = one.heard[str(modality)]
            for index in range(5):
                sent = one.send(index, modality)
                one.spin_until(lambda count=index, heard=heard: len(heard) > count, f"{modality} {index}")
                assert len(heard[-1]) == len(sent)
                assert heard[-1][4:] == sent[4:]


def test_a_fault_is_injected_and_told_with_its_true_times(tmp_path: Path) -> None:
    ramped = {**ALWAYS_BLACK, "duration_s": 3600, "parameters": {"light": 0.5}}
    with rig(scenario_file(tmp_path, ramped, {"modality": "depth", "kind": "drop", "start_s": 99})) as one:
        message = one.relayed(0)
        expected = live_frame(Sensor.CAMERA, 10**18).data
        np.testing.assert_allclose(np.asarray(message.data).reshape(expected.shape), expected / 2, atol=0.51)
        one.spin_until(lambda: one.active() != [], "the ground truth")
        (status,) = one.truth[-1].status
        values = {pair.key: pair.value for pair in status.values}
        assert (values["modality"], values["kind"], values["hits"]) == ("camera", "black", "1")
        assert (values["expected"], values["parameters.light"]) == ("dark,blank", "0.5")
        assert int(values["end_ns"]) - int(values["start_ns"]) == 3600 * 10**9
        now_ns = one.node.get_clock().now().nanoseconds
        assert now_ns - 60 * 10**9 < int(values["start_ns"]) < now_ns


def test_start_and_stop(tmp_path: Path) -> None:
    with rig(scenario_file(tmp_path, ALWAYS_BLACK), autostart=False) as one:
        assert any(one.relayed(0).data)
        assert (one.trigger("stop").success, one.trigger("start").message) == (False, "started")
        assert not any(one.relayed(1).data)
        one.spin_until(lambda: one.active() == ["injector: camera black"], "the ground truth")
        assert one.trigger("start").message == "started anew"
        assert one.trigger("stop").success
        assert any(one.relayed(2).data)
        one.spin_until(lambda: one.active() == [], "the end of the fault")


def test_delayed_messages_come_without_others_to_push_them(tmp_path: Path) -> None:
    delay = {"modality": "camera", "kind": "delay", "start_s": 0, "parameters": {"delay_s": 0.4}}
    with rig(scenario_file(tmp_path, delay)) as one:
        sent_at = time.monotonic()
        one.relayed(0)
        assert time.monotonic() - sent_at >= 0.4


def test_stopping_delivers_what_was_delayed(tmp_path: Path) -> None:
    delay = {"modality": "camera", "kind": "delay", "start_s": 0, "parameters": {"delay_s": 60}}
    with rig(scenario_file(tmp_path, delay)) as one:
        one.send(0)
        one.spin_until(lambda: one.active() != [], "the start")
        one.trigger("stop")
        one.spin_until(lambda: len(one.heard["camera"]) == 1, "the delayed message")


def test_another_scenario_may_be_set_while_it_runs(tmp_path: Path) -> None:
    with rig(scenario_file(tmp_path, ALWAYS_BLACK)) as one:
        assert not any(one.relayed(0).data)
        bad = one.node.set_parameters([Parameter("injections", value=str(tmp_path / "none.yaml"))])[0]
        assert (bad.successful, "none.yaml cannot be read" in bad.reason) == (False, True)
        assert not any(one.relayed(1).data)
        other = scenario_file(tmp_path, {"modality": "camera", "kind": "wrong_encoding", "start_s": 0})
        assert one.node.set_parameters([Parameter("injections", value=str(other))])[0].successful
        assert one.relayed(2).encoding == "nv24"


def test_a_compressed_image_is_relayed_as_one(tmp_path: Path) -> None:
    node = InjectorNode(
        namespace="compressed",
        parameter_overrides=[
            Parameter("topics.camera.input", value="in/camera/image_raw/compressed"),
            Parameter("topics.camera.output", value="camera/image_raw/compressed"),
        ],
    )
    driver = rclpy.create_node("driver", namespace="compressed")
    publisher = driver.create_publisher(CompressedImage, "in/camera/image_raw/compressed", 10)
    heard: list[CompressedImage] = []
    driver.create_subscription(CompressedImage, "camera/image_raw/compressed", heard.append, 10)
    executor = new_executor()
    for each in (node, driver):
        executor.add_node(each)
    end = time.monotonic() + TIMEOUT_S
    while not heard and time.monotonic() < end:
        publisher.publish(CompressedImage(format="jpeg", data=b"\xff\xd8\xff"))
        executor.spin_once(timeout_sec=0.05)
    for each in (node, driver):
        executor.remove_node(each)
        each.destroy_node()
    executor.shutdown()
    assert heard
    assert (heard[0].format, bytes(heard[0].data)) == ("jpeg", b"\xff\xd8\xff")


def test_a_crash_that_kills_ends_the_process_for_real(tmp_path: Path) -> None:
    scenario = scenario_file(tmp_path, {"kind": "crash", "start_s": 0.2, "parameters": {"kill": 1}})
    driver = rclpy.create_node("driver", namespace="killed")
    publisher = driver.create_publisher(Image, "in", 10)
    driver.create_subscription(Image, "out", lambda _: None, 10)
    of_others = shared_memory()
    topics = ("topics.camera.input:=/killed/in", "topics.camera.output:=/killed/out")
    process = start("inject.injector_node", f"injections:={scenario}", *topics)
    output_until(process, "camera: /killed/in -> /killed/out")
    own = shared_memory_of(process) - of_others
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        publisher.publish(Image())
        time.sleep(0.05)
    driver.destroy_node()
    process.communicate(timeout=TIMEOUT_S)
    for segment in own & shared_memory():  # the dead do not clean up
        Path(segment).unlink(missing_ok=True)
    assert process.returncode == -signal.SIGKILL


def test_wrong_parameters_are_named(tmp_path: Path) -> None:
    def create(**parameters: Any) -> None:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        InjectorNode(namespace="wrong", parameter_overrides=overrides)

    with pytest.raises(ValueError, match=r"none\.yaml cannot be read"):
        create(injections=str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match=r"topics\.camera: input and output are both"):
        create(**{"topics.camera.input": "camera/image_raw"})
    with pytest.raises(ValueError, match=r"topics\.camera\.input: '1st' is no name of a topic"):
        create(**{"topics.camera.input": "1st"})
    with pytest.raises(ValueError, match=r"unknown parameter injection: did you mean injections\?"):
        create(injection="faults.yaml")


def test_a_file_of_the_whole_vehicle_is_no_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    """`/**` of config/vehicle.yaml is for every node; a sensor's topic that is not among `sensors` has no effect."""
    content = load_yaml_file(REPOSITORY / "config" / "vehicle.yaml")
    values = {"topics.thermal.input": "thermal", **flattened(content["/**"]["ros__parameters"])}
    node = InjectorNode(namespace="whole", parameter_overrides=[Parameter(name, value=values[name]) for name in values])
    node.destroy_node()
    assert "of no effect here: topics.thermal.input, modalities." in capfd.readouterr().err


def test_what_is_read_at_the_start_cannot_be_changed_later() -> None:
    with rig() as one:
        for name in ("topics.camera.input", "sensors"):
            done = one.node.set_parameters([Parameter(name, value="other")])[0]
            assert (done.successful, done.reason.startswith(f"{name} is read at the start only")) == (False, True)
        assert one.node.set_parameters([Parameter("use_sim_time", value=True)])[0].successful


def test_a_driver_that_comes_back_as_another_one_is_relayed_again() -> None:
    with rig() as one:
        one.relayed(0)
        one.driver.destroy_publisher(one.camera)
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        one.driver.create_subscription(Image, "camera/image_raw", one.heard["camera"].append, best_effort, raw=True)
        one.camera = one.driver.create_publisher(Image, "in/camera/image_raw", best_effort)

        def is_heard() -> bool:
            one.send(1)
            return len(one.heard["camera"]) > count

        count = len(one.heard["camera"])
        one.spin_until(is_heard, "a frame of a driver that offers less")


def test_a_clock_that_tells_no_time_does_not_end_the_node() -> None:
    """A simulator that is being reset: rclpy raises for times before 1970, in the callback."""
    with rig(use_sim_time=True) as one:
        clock = one.driver.create_publisher(Clock, "/clock", 10)
        one.spin_until(lambda: clock.get_subscription_count() > 0, "the node at the clock")
        clock.publish(Clock(clock=Time(sec=-5)))
        one.spin_until(lambda: one.node.callback_errors > 0, "the time that is none")
        one.relayed(0)


@contextmanager
def alone() -> Iterator[tuple[Any, Any]]:
    """A node and its executor with a participant of their own: one has one type for each topic."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("driver", namespace=NS, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        context.shutdown()


def test_a_driver_that_comes_back_with_another_type_is_relayed_again() -> None:
    node = InjectorNode(namespace=NS)
    executor = new_executor()
    executor.add_node(node)
    try:
        for message in (Image(), CompressedImage(format="jpeg", data=b"\xff\xd8\xff")):
            heard: list[Any] = []
            with alone() as (driver, own_executor):
                publisher = driver.create_publisher(type(message), "in/camera/image_raw", 5)
                driver.create_subscription(type(message), "camera/image_raw", heard.append, 5)
                end = time.monotonic() + TIMEOUT_S
                while not heard and time.monotonic() < end:
                    publisher.publish(message)
                    executor.spin_once(timeout_sec=0.02)
                    own_executor.spin_once(timeout_sec=0.02)
            assert heard, type(message)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
