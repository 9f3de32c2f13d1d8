"""What the pipeline decides on, a job, and what a segmenter makes of it: a result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from anyseg_core.runtime.geometry.motion import LidarMotion
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.monitor import ModalityStatus
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame, point_sensor


@dataclass(frozen=True, eq=False)
class Job:
    """The frames of one mask, and the health that chose them."""

    anchor: Sensor
    frames: Mapping[Sensor, SensorFrame]
    """The anchor's and those that joined it."""
    rig: Rig | None
    created_ns: int
    statuses: tuple[ModalityStatus, ...]
    born_ns: int
    """When the anchor's frame was acquired; when it was received, where its sensor's stamps are not trusted."""
    motion: LidarMotion | None = None
    """What LiDAR points are compensated with; None without LiDAR, or where odometry does not tell."""
    examined: Mapping[Sensor, SensorFrame] = field(default_factory=dict)
    """For `Pipeline.examine`: those that belong to the anchor's, of every sensor that is well by its own checks."""
    speed_mps: float | None = None
    """Of the vehicle, by odometry; None without."""

    @property
    def anchor_frame(self) -> SensorFrame:
        return self.frames[self.anchor]

    @cached_property
    def scan(self) -> SensorFrame | None:
        """The LiDAR's frame, brought to the anchor's moment where odometry tells how; None without LiDAR."""
        points = point_sensor(self.frames)
        scan = self.frames[points] if points is not None else None
        return scan if scan is None or self.motion is None else self.motion.compensate(scan)


@dataclass(frozen=True, eq=False)
class Result:
    """A mask at network size and the job that it was made from."""

    job: Job
    segmentation: Segmentation

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of the mask: the anchor's image; for LiDAR the calibrated camera's."""
        size = self.job.anchor_frame.image_size
        if size is None and self.job.rig is not None:
            size = self.job.rig.camera.height, self.job.rig.camera.width
        return size or self.segmentation.labels.shape[:2]

    @property
    def frame_id(self) -> str:
        """Of the picture that the mask is drawn in: the anchor's; for points the calibrated camera's."""
        anchor, rig = self.job.anchor_frame, self.job.rig
        return rig.frame_id if anchor.kind.is_points and rig is not None and rig.frame_id else anchor.frame_id


def segment(segmenter: Segmenter, job: Job, min_confidence: float = 0.0) -> Result:
    """Segment a job's frames; pixels whose confidence is below `min_confidence` (0..1) get no label.

    Raises InputError and EngineError, as `Segmenter.segment` does.
    """
    scan = job.scan
    frames = {**job.frames} if scan is None else {**job.frames, scan.modality: scan}
    return Result(job, segmenter.segment(frames, job.rig).unknown_below(min_confidence))


def encode_ahead(segmenter: Segmenter, job: Job) -> None:
    """Make the network images that `segment` will need, on any thread. What cannot be encoded, `segment` reports."""
    for sensor, frame in job.frames.items():
        if not sensor.kind.is_points or job.motion is None:  # which makes another scan of it
            with suppress(InputError):
                segmenter.network_image(frame, job.rig)
