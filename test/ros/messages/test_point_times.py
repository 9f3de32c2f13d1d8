"""Point times of a cloud by the names and units that drivers give them, as seconds after the cloud's stamp."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anyseg_core.runtime.geometry.motion import point_seconds
from anyseg_ros.messages.conversions import lidar_frame

STAMP_NS = 1_700_000_000_000_000_000
SWEEP_S = np.linspace(0, 0.099, 50)
DATATYPES = {"<u4": 6, "<f4": 7, "<f8": 8}


def cloud_with_times(name: str, code: str, values: Any) -> Any:
    """A PointCloud2 with a field of this name behind x, y, z and intensity."""
    points = np.zeros(len(SWEEP_S), np.dtype([*((axis, "<f4") for axis in ("x", "y", "z", "intensity")), (name, code)]))
    points["x"], points[name] = 5, values
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    fields += [SimpleNamespace(name="intensity", offset=12, datatype=7, count=1)]
    fields += [SimpleNamespace(name=name, offset=16, datatype=DATATYPES[code], count=1)]
    stamp = SimpleNamespace(sec=STAMP_NS // 10**9, nanosec=STAMP_NS % 10**9)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id="lidar"), height=1, width=len(points), fields=fields,
        is_bigendian=False, point_step=points.dtype.itemsize, row_step=points.nbytes, is_dense=True,
        data=np.frombuffer(points.tobytes(), np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code", "values", "start_s"),
    [
        ("time_stamp", "<u4", SWEEP_S * 1e9, 0.0),  # Nebula, Autoware's PointXYZIRCAEDT
        ("time_stamp", "<f8", STAMP_NS * 1e-9 + SWEEP_S, 0.0),  # Autoware before
        ("t", "<u4", SWEEP_S * 1e9, 0.0),  # Ouster
        ("time", "<f4", SWEEP_S, 0.0),  # Velodyne
        ("time", "<f4", SWEEP_S - 0.099, -0.099),  # Velodyne, stamped at the end of the sweep
        ("timestamp", "<f8", STAMP_NS * 1e-9 + SWEEP_S, 0.0),  # Hesai, RoboSense
        ("timestamp", "<f8", STAMP_NS + SWEEP_S * 1e9, 0.0),  # Livox
        ("offset_time", "<u4", SWEEP_S * 1e9, 0.0),  # Livox
    ],
)
def test_times_of_every_driver_become_seconds_after_the_stamp(
    name: str, code: str, values: Any, start_s: float
) -> None:
    frame = lidar_frame(cloud_with_times(name, code, values))
    seconds = point_seconds(frame.point_times, frame.stamp_ns)
    assert seconds is not None
    np.testing.assert_allclose(seconds[1:-1], SWEEP_S[1:-1] + start_s, atol=1e-6)


@pytest.mark.parametrize(("name", "code", "values"), [("time", "<f4", SWEEP_S * 1e6), ("ring", "<u4", 0)])
def test_times_that_make_no_sense_and_other_fields_are_no_times(name: str, code: str, values: Any) -> None:
    frame = lidar_frame(cloud_with_times(name, code, values))
    assert point_seconds(frame.point_times, frame.stamp_ns) is None
