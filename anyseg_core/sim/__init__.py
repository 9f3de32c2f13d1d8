"""The simulated vehicle: a street world by seed, seen by a camera, stereo depth, an event camera and a LiDAR.

`Drive` renders frames, `RecordedDrive` keeps them, `simulate_dataset` writes DELIVER's layout, `write_bag` a ROS 2 bag.
"""

from __future__ import annotations

from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame
from anyseg_core.sim.weather import Weather

__all__ = ["Drive", "DriveConfig", "DriveFrame", "Weather"]
