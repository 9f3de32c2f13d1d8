"""The node behind the page: it listens to one segmentation_node, and to its pictures while a browser shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription

from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.messages.sensor_messages import SENSOR_MESSAGES
from anyseg_ros.messages.types import message_class
from anyseg_ros.process.guarded_callbacks import GuardedCallbacks
from anyseg_ros.process.node_process import run
from anyseg_ros.watch.node_view import NodeView
from anyseg_ros.watch.page_server import NewestPictures, PageServer, WatchError

LOOK_S = 0.5
"""Between looks at whether a browser is there, and where the pictures come from."""
OPEN_S = 3.0
"""A page that has not asked for so long is closed."""
JPEG_QUALITY = 80
LONGEST_SIDE = 960
"""Pixels of a picture on the page; larger ones are reduced."""
_CAMERA = next(sensor for sensor in DEFAULT_SENSORS if sensor.kind is CAMERA)


def serve(watched: str, host: str, port: int, say: Callable[[str], None]) -> int:
    """Serve the page of that node until Ctrl-C; `say` gets its address. Returns the exit code."""

    def create() -> WatchNode:
        return WatchNode(watched, host, port)

    def start(node: WatchNode) -> None:
        say(f"http://{host}:{node.port}/")

    return run(create, start, bad_input=(WatchError,))


class WatchNode(GuardedCallbacks, Node):
    """Serves the page of `watched`, the full name of a segmentation_node. Destroying it ends the page.

    Raises WatchError where host and port cannot be listened on.
    """

    def __init__(self, watched: str, host: str, port: int) -> None:
        super().__init__("anyseg_watch")
        self._watched = watched
        self._view = NodeView(watched)
        self._pictures = NewestPictures()
        self._picture_subscriptions: dict[str, tuple[str, Subscription]] = {}
        self.create_subscription(DiagnosticArray, f"{watched}/modality_status", self._on_status, STATE_QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_timer(LOOK_S, self._look)
        self._page = PageServer(host, port, lambda: self._view.snapshot(time.monotonic()), self._pictures)

    @property
    def port(self) -> int:
        """Where the page is served."""
        return self._page.port

    def destroy_node(self) -> None:
        """End the page, then the node."""
        self._page.close()
        super().destroy_node()

    def _on_status(self, message: DiagnosticArray) -> None:
        self._view.add_status(message, time.monotonic())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._view.add_diagnostics(message, time.monotonic())

    def _look(self) -> None:
        """Pictures cost the network's computer time, so they are subscribed to only while a page is open."""
        is_open = self._pictures.asked_within(OPEN_S)
        self._listen("overlay", f"{self._watched}/segmentation/overlay" if is_open else None)
        self._listen("camera", self._view.topic_of(_CAMERA) if is_open else None)

    def _listen(self, name: str, topic: str | None) -> None:
        """Subscribe to the picture there, in place of what was subscribed to; None: to nothing."""
        listened_to, subscription = self._picture_subscriptions.get(name, (None, None))
        if topic == listened_to:
            return
        if subscription is not None:
            self.destroy_subscription(subscription)
            del self._picture_subscriptions[name]
            self._pictures.drop(name)
        kind = self._type_of(topic) if topic is not None else None
        message_type = message_class(kind) if kind is not None else None
        if topic is None or kind is None or message_type is None:
            return
        reader = SENSOR_MESSAGES[CAMERA].readers[kind]

        def on_picture(message: Any) -> None:
            self._on_picture(name, reader, message)

        made = self.create_subscription(message_type, topic, on_picture, qos_profile_sensor_data)
        self._picture_subscriptions[name] = topic, made

    def _type_of(self, topic: str) -> str | None:
        """The type of picture that is published there; None where there is none yet."""
        types = dict(self.get_topic_names_and_types()).get(topic, [])
        return next((kind for kind in SENSOR_MESSAGES[CAMERA].readers if kind in types), None)

    def _on_picture(self, name: str, reader: Any, message: Any) -> None:
        try:
            rgb = reader(message, _CAMERA).data
        except ConversionError:
            self._pictures.drop(name)  # the node says what is wrong with it
            return
        scale = LONGEST_SIDE / max(rgb.shape[:2])
        if scale < 1:
            size = [max(1, round(scale * side)) for side in rgb.shape[1::-1]]  # a line of pixels stays one
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        is_encoded, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if is_encoded:
            self._pictures.put(name, jpeg.tobytes())
