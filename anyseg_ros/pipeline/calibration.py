"""What is known of camera and LiDAR: intrinsics, extrinsics, and why the LiDAR cannot be placed where it cannot.

The node and the replay of bags decide by this same file. Nothing is guessed: extrinsics come from TF or from a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.pipeline.alignment import REGISTERED_BY, Alignment, KnownCamera, Lookup, why_unregistered
from anyseg_ros.pipeline.parameters import RigParameters

MAX_TF_AGE_NS = 100 * NS_PER_MS
"""Of a moving transform beside the scan's stamp: publishers of 10 Hz and more are always near enough."""
FROM_TF, FROM_PARAMETERS = "TF", "the parameters rig.camera_from_lidar_*"

ASSUMED_PLACE = (
    "the LiDAR is taken to look ahead: TF does not connect {lidar} with odometry's {base}, and rig.base_from_lidar_* "
    "are not set"
)


class Calibration:
    """Gathers what messages say; `rig` is what follows from it. Not thread-safe: the caller serialises the calls.

    The depth camera's intrinsics stand in until the camera's are known: students are trained on aligned images, so
    both look at the same view.
    """

    def __init__(self, parameters: RigParameters) -> None:
        self._parameters = parameters
        self._cameras: dict[Sensor, KnownCamera] = {}
        self.alignment = Alignment(parameters)
        self.unregistered: Mapping[Sensor, str] = {}
        """Why the depth's or events' frames are not of the camera's picture though they are taken for that."""
        self._known: tuple[object, ...] = ()
        self._rig: Rig | None = None
        self._given: Rig | None = None
        self.lidar_frame = ""
        """frame_id of the points; empty before the first."""
        self.assumed_place = ""
        """What is assumed of where the LiDAR sits on the vehicle, as nobody tells it; empty where somebody does."""

    def set_camera(self, sensor: Sensor, camera: PinholeCamera, frame_id: str) -> None:
        """Intrinsics of the pictures of `Sensor.CAMERA`, `DEPTH` or `EVENT`, and their optical frame."""
        if not self._parameters.stereo_offset:
            camera = replace(camera, center=(0.0, 0.0))
        known = KnownCamera(camera, frame_id.lstrip("/"))
        if self._cameras.get(sensor) != known:  # a camera_info comes with every picture
            self._cameras = {**self._cameras, sensor: known}
            self.unregistered = {
                other: why
                for other in REGISTERED_BY
                if not self.alignment.registers(other) and (why := why_unregistered(other, self._cameras))
            }

    @property
    def cameras(self) -> Mapping[Sensor, KnownCamera]:
        """What camera_info messages told, of raw pictures where they are raw; never changed in place."""
        return self._cameras

    def camera_of(self, sensor: Sensor) -> PinholeCamera | None:
        """The intrinsics that a message told."""
        return self._cameras[sensor].camera if sensor in self._cameras else None

    @property
    def optical_frame(self) -> str:
        """Of the camera whose intrinsics are used; empty where it is not known."""
        return next((self._cameras[s].frame_id for s in (Sensor.CAMERA, Sensor.DEPTH) if s in self._cameras), "")

    def changed_rig(self, lookup: Lookup | None) -> Rig | None:
        """As `rig`, and None where it is the one that this gave last."""
        rig = self.rig(lookup)
        if rig is None or rig is self._given:
            return None
        self._given = rig
        return rig

    def rig(self, lookup: Lookup | None) -> Rig | None:
        """The rig as it is known now, the same object as long as nothing changes; None without intrinsics.

        `lookup` asks TF; None where there is no TF.
        """
        sensor = next((s for s in (Sensor.CAMERA, Sensor.DEPTH) if s in self._cameras), None)
        camera = self._cameras[sensor].camera if sensor is not None else self._parameters.camera()
        if camera is None:
            return None
        camera = self.alignment.drawn_in(camera)
        extrinsics, source, missing = self._extrinsics(lookup)
        if source == FROM_PARAMETERS:
            extrinsics[:3, 3] += camera.lens  # who measured them saw its picture
        elif source:
            source += _beside_its_frame(camera)
        known = camera, extrinsics.tobytes(), source, missing, self.optical_frame, sensor
        if known != self._known:
            self._known = known
            self._rig = Rig(camera, extrinsics, source, missing, self.optical_frame, sensor)
        return self._rig

    def lidar_from_base(self, base_frame: str, lookup: Lookup | None) -> NDArray[np.float64]:
        """4x4, from the frame whose motion odometry tells to the LiDAR's: by TF, else by the parameters.

        Without either the LiDAR is taken to look ahead, and `assumed_place` says so.
        """
        lidar, base = self.lidar_frame.lstrip("/"), base_frame.lstrip("/")
        found = np.eye(4) if lidar == base else None
        if found is None and lookup is not None and lidar and base:
            found = lookup(lidar, base)
        is_assumed = found is None and not self._parameters.knows_base
        self.assumed_place = ASSUMED_PLACE.format(lidar=lidar, base=base) if is_assumed and lidar else ""
        return self._parameters.lidar_from_base() if found is None else found

    def _extrinsics(self, lookup: Lookup | None) -> tuple[NDArray[np.float64], str, str]:
        """camera_from_lidar 4x4, where it comes from, and why it is not known."""
        optical, lidar = self.optical_frame, self.lidar_frame.lstrip("/")
        found = lookup(optical, lidar) if lookup is not None and optical and lidar else None
        if found is not None:
            return found, f"{FROM_TF} ({lidar} in {optical})", ""
        if self._parameters.knows_extrinsics:
            return self._parameters.camera_from_lidar(), FROM_PARAMETERS, ""
        return np.eye(4), "", f"{self._why_missing(lookup)}, and rig.camera_from_lidar_* are not set"

    def _why_missing(self, lookup: Lookup | None) -> str:
        if lookup is None:
            return "TF is not used (rig.use_tf is false, or tf2_ros is not installed)"
        if not self.lidar_frame:
            return "the points have no frame_id that TF could be asked for"
        if not self.optical_frame:
            return "camera_info has no frame_id that TF could be asked for"
        return f"TF does not connect {self.lidar_frame.lstrip('/')} with {self.optical_frame} at that time"


def _beside_its_frame(camera: PinholeCamera) -> str:
    """How far from its frame camera_info puts the lens, and the remedy if that is wrong; empty for one at its frame."""
    if not any(camera.center):
        return ""
    right, down = camera.center
    return (
        f"; P of camera_info puts the lens {right:.3f} m to the right of that frame and {down:.3f} m below it: if it "
        "is the lens' own, set rig.stereo_offset to false"
    )
