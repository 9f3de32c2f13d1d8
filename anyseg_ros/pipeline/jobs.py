"""What the pipeline decides on, a job, and what a segmenter makes of it: a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from anyseg_core.runtime.cross_examination.agreement import Shown, shown
from anyseg_core.runtime.cross_examination.network_witness import Expected, NetworkKnowledge, can_be_asked
from anyseg_core.runtime.geometry.motion import LidarMotion
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import ModalityStatus
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame, point_sensor
from anyseg_core.runtime.time_units import NS_PER_MS


@dataclass(frozen=True, eq=False)
class Job:
    """The frames of one mask, and the health that chose them."""

    anchor: Sensor
    frames: Mapping[Sensor, SensorFrame]
    """The anchor's and those that joined it."""
    rig: Rig | None
    created_ns: int
    statuses: tuple[ModalityStatus, ...]
    born: Mapping[Sensor, int]
    """When each frame was acquired; when it was received, where its sensor's stamps are not trusted or run ahead."""
    motion: LidarMotion | None = None
    """What LiDAR points are compensated with; None without LiDAR, or where odometry does not tell."""
    examined: Mapping[Sensor, SensorFrame] = field(default_factory=dict)
    """For `Pipeline.examine`: those that belong to the anchor's, of every sensor that is well by its own checks."""
    twist: Twist | None = None
    """Of the LiDAR in its own axes, by odometry; None without."""
    doubted: frozenset[Sensor] = frozenset()
    """Those that their own checks distrusted a moment ago."""
    asks_network: bool = False
    """Whether it is time to ask the network what it makes of each of the `examined` alone (`NetworkLook`)."""

    @property
    def anchor_frame(self) -> SensorFrame:
        return self.frames[self.anchor]

    @property
    def born_ns(self) -> int:
        """When the anchor's frame was acquired."""
        return self.born[self.anchor]

    def ages_ms(self) -> dict[Sensor, float]:
        """The age of each frame when the mask was begun; never negative, whatever a sensor's clock says."""
        return {sensor: (self.created_ns - born_ns) / NS_PER_MS for sensor, born_ns in self.born.items()}

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


class NetworkLook:
    """What the network makes of each examined sensor of a job alone, asked one by one so that no mask has to wait."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._open = [
            s for s, f in job.examined.items() if can_be_asked(f) and (not s.kind.is_points or _has_rig(job.rig))
        ]
        self.shown_by: dict[Sensor, Shown] = {}
        """What is known already."""

    @property
    def is_done(self) -> bool:
        """Whether every sensor was asked."""
        return not self._open

    def step(self, run: Callable[[Job], Segmentation]) -> None:
        """Ask for one sensor more. A frame that cannot be encoded shows nothing; raises EngineError."""
        sensor = self._open.pop()
        with suppress(InputError):
            made = run(self._alone(sensor))
            self.shown_by[sensor] = shown(made.labels, made.confidence)

    def complete(self, run: Callable[[Job], Segmentation]) -> Mapping[Sensor, Shown]:
        """Ask for all that are left, and return what each shows; raises EngineError."""
        while not self.is_done:
            self.step(run)
        return self.shown_by

    def _alone(self, sensor: Sensor) -> Job:
        """The job of one sensor; a scan as it was drawn for the mask, whose network image is there already."""
        job, frame = self.job, self.job.examined[sensor]
        if sensor.kind.is_points and job.frames.get(sensor) is frame and job.scan is not None:
            frame = job.scan
        return replace(job, anchor=sensor, frames={sensor: frame}, motion=None, examined={}, asks_network=False)


def _has_rig(rig: Rig | None) -> bool:
    return rig is not None and not rig.missing


def network_knowledge(card: ModelCard) -> NetworkKnowledge:
    """What a student's card says of its network as a witness."""
    expected = {each.key: Expected(each.mean, each.spread) for each in card.agreement}
    return NetworkKnowledge([spec.name for spec in card.classes], expected)


def encode_ahead(segmenter: Segmenter, job: Job) -> None:
    """Make the network images that `segment` will need, on any thread. What cannot be encoded, `segment` reports."""
    for sensor, frame in job.frames.items():
        if not sensor.kind.is_points or job.motion is None:  # which makes another scan of it
            with suppress(InputError):
                segmenter.network_image(frame, job.rig)
