"""What is known of a running segmentation_node, from its messages, for the page. No ROS, no clock of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from anyseg_ros.pipeline.status_lines import MASK, sensor_named, status_key

HISTORY_S = 60.0
"""How far back the page's strips go."""
RATE_WINDOW_S = 3.0
"""Masks are counted over so long."""
LOST_S = 3.0
"""A node that has sent nothing for so long is not there: its diagnostics come once a second, masks or not."""
_TOPIC_WORD = " topic/"
_LEVELS = ("OK", "WARN", "ERROR", "STALE")


class NodeView:
    """Collects `~/modality_status` and `/diagnostics` of one node; times are seconds of any clock that never steps.

    Safe to be written to and read from several threads.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._lock = threading.Lock()
        self._sensors: dict[str, dict[str, str]] = {}
        self._spans: dict[str, deque[dict[str, Any]]] = {}
        self._mask: dict[str, str] = {}
        self._statuses: dict[str, dict[str, Any]] = {}
        self._topics: dict[str, str] = {}
        self._mask_times: deque[float] = deque()
        self._last_s: float | None = None

    def add_status(self, array: Any, now_s: float) -> None:
        """Take in a DiagnosticArray of `~/modality_status`."""
        with self._lock:
            self._last_s = now_s
            self._keep_only({sensor_named(status_key(status.name)) for status in array.status})
            for status in array.status:
                key, values = status_key(status.name), _values_of(status)
                if key == MASK:
                    self._mask = values
                    self._mask_times.append(now_s)
                elif (sensor := sensor_named(key)) is not None:
                    self._add_sensor(sensor, status.message, values, now_s)

    def add_diagnostics(self, array: Any, now_s: float) -> None:
        """Take in a DiagnosticArray of `/diagnostics`; those of other nodes are left alone."""
        own = [status for status in array.status if status.hardware_id == self.node]
        if not own:
            return
        with self._lock:
            self._last_s = now_s
            for status in own:
                key = status_key(status.name)
                sensor, is_topic, topic = key.partition(_TOPIC_WORD)
                if is_topic:
                    self._topics[sensor] = f"/{topic}"
                elif key in {"inference", "engine"}:
                    level = _LEVELS[min(_level_of(status), len(_LEVELS) - 1)]
                    self._statuses[key] = {"level": level, "message": status.message, **_values_of(status)}

    def topic_of(self, sensor: str) -> str | None:
        """The resolved name of the sensor's topic; None until the node has said it."""
        with self._lock:
            return self._topics.get(sensor)

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """All that the page shows, as JSON takes it. Times are seconds before `now_s`."""
        with self._lock:
            self._forget_before(now_s)
            silent_s = None if self._last_s is None else now_s - self._last_s
            return {
                "node": self.node,
                "silent_s": silent_s,
                "is_there": silent_s is not None and silent_s <= LOST_S,
                "history_s": HISTORY_S,
                "inference": self._statuses.get("inference", {}),
                "engine": self._statuses.get("engine", {}),
                "mask": self._mask if self._mask_times else {},
                "mask_hz": sum(now_s - time_s <= RATE_WINDOW_S for time_s in self._mask_times) / RATE_WINDOW_S,
                "sensors": [
                    {"name": name, **values, "spans": [_span_before(span, now_s) for span in self._spans[name]]}
                    for name, values in self._sensors.items()
                ],
            }

    def _add_sensor(self, name: str, message: str, values: Mapping[str, str], now_s: float) -> None:
        self._sensors[name] = {**values, "message": message}
        spans = self._spans.setdefault(name, deque())
        what = {"state": values.get("state", ""), "used": values.get("used", "") == "true"}
        if spans and all(spans[-1][key] == value for key, value in what.items()):
            spans[-1]["end_s"] = now_s
        else:
            start_s = now_s
            if spans and now_s - spans[-1]["end_s"] <= LOST_S:  # else nothing was known in between
                start_s = spans[-1]["end_s"]
            spans.append({**what, "start_s": start_s, "end_s": now_s})

    def _keep_only(self, told: set[str | None]) -> None:
        """Each array tells of every sensor that the node has: one with another student has others."""
        for name in self._sensors.keys() - told:
            del self._sensors[name], self._spans[name]

    def _forget_before(self, now_s: float) -> None:
        while self._mask_times and now_s - self._mask_times[0] > RATE_WINDOW_S:
            self._mask_times.popleft()
        for spans in self._spans.values():
            while spans and now_s - spans[0]["end_s"] > HISTORY_S:
                spans.popleft()


def _level_of(status: Any) -> int:
    """rclpy delivers the byte of a level as bytes of length one."""
    return status.level[0] if isinstance(status.level, bytes) else int(status.level)


def _values_of(status: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def _span_before(span: Mapping[str, Any], now_s: float) -> dict[str, Any]:
    return {
        "state": span["state"],
        "used": span["used"],
        "from_s": now_s - span["start_s"],
        "to_s": now_s - span["end_s"],
    }
