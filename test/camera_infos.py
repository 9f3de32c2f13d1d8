"""sensor_msgs/CameraInfo as any object with its fields."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

IDENTITY = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]


def camera_info(**changes: Any) -> SimpleNamespace:
    """Of a raw picture of 640x480 without distortion; `changes` are its fields."""
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    values = {
        "width": 640, "height": 480, "k": [500.0, 0, 320, 0, 500, 240, 0, 0, 1], "d": [0.0] * 5, "r": IDENTITY,
        "p": [0.0] * 12, "distortion_model": "plumb_bob", "binning_x": 0, "binning_y": 0, "roi": roi,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})
