"""Pictures as the network wants them: rectified, depth and events in the camera's, where the parameters ask for it.

The node, the replay of bags and the making of data sets call this same file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.geometry.registration import EventRegistration, Rectification, register_depth
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import CAMERA, Sensor, SensorFrame
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.pipeline.parameters import RigParameters

Lookup = Callable[[str, str], "NDArray[np.float64] | None"]
"""target_from_source as 4x4 of the frames (target, source), or None where nothing connects the two."""


@dataclass(frozen=True)
class KnownCamera:
    """What camera_info says of a sensor's pictures."""

    camera: PinholeCamera
    frame_id: str


class Alignment:
    """Brings frames into the picture that the mask is drawn in. For one thread per sensor."""

    def __init__(self, parameters: RigParameters) -> None:
        self._rectifies = parameters.rectify
        self._registers_depth = parameters.register_depth
        self._events_at_m = parameters.register_events_at_m
        self._event_registration: tuple[tuple[object, ...], EventRegistration] | None = None
        self.events_note = ""
        """How far beside their place registered events are, in words; empty before the first. For their thread."""
        self._rectifications: dict[Sensor, tuple[PinholeCamera, Rectification]] = {}

    def registers(self, sensor: Sensor) -> bool:
        """Whether frames of that sensor are brought into the camera's picture."""
        return {Sensor.DEPTH: self._registers_depth, Sensor.EVENT: bool(self._events_at_m)}.get(sensor, False)

    def drawn_in(self, camera: PinholeCamera) -> PinholeCamera:
        """The intrinsics of the pictures that come out for those that camera_info tells."""
        return camera.undistorted if self._rectifies else camera

    def aligned(self, frame: SensorFrame, cameras: Mapping[Sensor, KnownCamera], lookup: Lookup | None) -> SensorFrame:
        """The frame of `Sensor.CAMERA`, `DEPTH` or `EVENT` as it is to be used; those of other sensors as they are.

        Raises ConversionError where the parameters ask for what the messages do not tell: an unaligned picture would be
        a wrong one.
        """
        if self._rectifies and frame.modality in (Sensor.CAMERA, Sensor.DEPTH):
            frame = self._rectified(frame, cameras)
        if frame.modality == Sensor.DEPTH and self._registers_depth:
            frame = self._registered_depth(frame, cameras, lookup)
        if frame.modality == Sensor.EVENT and self._events_at_m:
            frame = self._registered_events(frame, cameras, lookup)
        return frame

    def _rectified(self, frame: SensorFrame, cameras: Mapping[Sensor, KnownCamera]) -> SensorFrame:
        camera = _camera_of(frame.modality, cameras, "rig.rectify").camera
        _check_size(frame, camera)
        if camera.distortion is None:
            return frame
        known, rectification = self._rectifications.get(frame.modality, (None, None))
        if rectification is None or known != camera:
            rectification = Rectification(camera)
            self._rectifications[frame.modality] = camera, rectification
        return replace(frame, data=rectification.rectify(frame.data, averages=frame.kind is CAMERA))

    def _registered_depth(
        self, frame: SensorFrame, cameras: Mapping[Sensor, KnownCamera], lookup: Lookup | None
    ) -> SensorFrame:
        depth, camera = (_camera_of(s, cameras, "rig.register_depth") for s in (Sensor.DEPTH, Sensor.CAMERA))
        _check_size(frame, depth.camera)
        if depth.camera.distortion is not None and not self._rectifies:
            raise _refusal("depth pictures are not rectified: set rig.rectify, too")
        between = _transform(camera.frame_id, depth.frame_id, lookup)
        source = self.drawn_in(depth.camera)
        data = register_depth(np.asarray(frame.data, np.float32), source, self.drawn_in(camera.camera), between)
        return replace(frame, data=data, frame_id=camera.frame_id)

    def _registered_events(
        self, frame: SensorFrame, cameras: Mapping[Sensor, KnownCamera], lookup: Lookup | None
    ) -> SensorFrame:
        event, camera = (_camera_of(s, cameras, "rig.register_events_at_m") for s in (Sensor.EVENT, Sensor.CAMERA))
        _check_size(frame, event.camera)
        target = self.drawn_in(camera.camera)
        if target.distortion is not None:
            raise _refusal("the camera's pictures are not rectified: set rig.rectify, too")
        between = _transform(event.frame_id, camera.frame_id, lookup)
        known = event.camera, target, between.tobytes()
        if self._event_registration is None or self._event_registration[0] != known:
            registration = EventRegistration(event.camera, target, between, self._events_at_m)
            self._event_registration = known, registration
            at_m = self._events_at_m
            near_px, far_px = registration.error_px(at_m / 2), registration.error_px(math.inf)
            self.events_note = (
                f"registered at {at_m:g} m: what is {at_m / 2:g} m ahead is {near_px:.1f} pixels of the camera beside "
                f"its place, what is far away {far_px:.1f}"
            )
        data = self._event_registration[1].register(np.asarray(frame.data, np.uint8))
        return replace(frame, data=data, frame_id=camera.frame_id)


REGISTERED_BY = {Sensor.DEPTH: "rig.register_depth", Sensor.EVENT: "rig.register_events_at_m"}
"""The parameter that brings a sensor's frames into the camera's picture."""


def why_unregistered(sensor: Sensor, cameras: Mapping[Sensor, KnownCamera]) -> str:
    """Why frames are not of the camera's picture, by both camera_infos; empty where they are, or nobody knows."""
    if not {Sensor.CAMERA, sensor} <= set(cameras):
        return ""
    camera, known = cameras[Sensor.CAMERA], cameras[sensor]
    if camera.frame_id != known.frame_id:
        return f"it is of {known.frame_id}, the camera's pictures of {camera.frame_id}"
    own, other = (_in_widths(one.camera) for one in (known, camera))
    if not np.allclose(own, other, atol=SAME_VIEW):
        return "its focal length or centre is another than the camera's"
    beside_m = math.dist(known.camera.center, camera.camera.center)
    return f"its lens is {beside_m:.3f} m beside the camera's, by P of camera_info" if beside_m > SAME_PLACE_M else ""


SAME_VIEW = 0.02
"""Of the width: focal lengths and centres that differ by less are of the same view."""


SAME_PLACE_M = 0.005
"""Lenses that are nearer to each other are of the same view."""


def _in_widths(camera: PinholeCamera) -> tuple[float, ...]:
    return camera.fx / camera.width, camera.fy / camera.height, camera.cx / camera.width, camera.cy / camera.height


def _camera_of(sensor: Sensor, cameras: Mapping[Sensor, KnownCamera], parameter: str) -> KnownCamera:
    if sensor not in cameras:
        raise _refusal(f"{parameter} is true, and no camera_info of the {sensor} pictures has come")
    return cameras[sensor]


def _check_size(frame: SensorFrame, camera: PinholeCamera) -> None:
    size = frame.image_size
    if size != (camera.height, camera.width):
        found = f"{size[1]}x{size[0]}" if size is not None else "no picture"
        raise _refusal(f"camera_info is of {camera.width}x{camera.height} pixels, and the picture is {found}")


def _transform(target: str, source: str, lookup: Lookup | None) -> NDArray[np.float64]:
    """target_from_source, 4x4."""
    if target == source:
        return np.eye(4)
    found = lookup(target, source) if lookup is not None else None
    if found is None:
        why = "TF is not used" if lookup is None else "TF does not connect them"
        raise _refusal(f"where {source} sits in {target} is not known: {why}")
    return found


def _refusal(why: str) -> ConversionError:
    return ConversionError(Fault.DECODE_ERROR, f"it cannot be aligned: {why}")
