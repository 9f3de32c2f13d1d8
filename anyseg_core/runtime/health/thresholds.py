"""The fault catalogue: what can be wrong with a sensor, and when it counts as wrong.

Every default has its unit, its reason, what it was measured against and, where there is one, the value that others
publish. "Clean" below is: 3,900 simulated frames in all five weathers, driving and parked, 3,000 of them in drives of
up to 40 s; 52 real road images and disparities (pothole), 2 real images and scans (KITTI), 2 s of a real event stream.
No check fires on any of them. `anyseg bench checks` prints how far clean frames stay from the limits, and
`anyseg bench faults` what is found when something breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from anyseg_core.runtime.health import content_checks as content
from anyseg_core.runtime.health import timing_checks as timing
from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.named import Named
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame, SensorKind


class Fault(Named):
    """What can be wrong with a sensor, as it is named in status messages and parameters."""

    NEVER_RECEIVED = "never_received"
    SILENT = "silent"
    LOW_RATE = "low_rate"
    STALE_STAMP = "stale_stamp"
    FUTURE_STAMP = "future_stamp"
    STAMP_REGRESSION = "stamp_regression"
    DUPLICATE_STAMP = "duplicate_stamp"
    FROZEN = "frozen"
    DARK = "dark"
    SATURATED = "saturated"
    BLANK = "blank"
    NOISY = "noisy"
    INVALID_DEPTH = "invalid_depth"
    FEW_POINTS = "few_points"
    LIDAR_SECTOR_LOST = "lidar_sector_lost"
    EVENT_FLOOD = "event_flood"
    EVENT_SEQUENCE_GAP = "event_sequence_gap"
    DECODE_ERROR = "decode_error"
    WRONG_SIZE = "wrong_size"
    INCOMPATIBLE_QOS = "incompatible_qos"
    INCONSISTENT_GEOMETRY = "inconsistent_geometry"
    INCONSISTENT_CONTENT = "inconsistent_content"
    MISALIGNED = "misaligned"
    TIME_OFFSET = "time_offset"
    WRONG_SCALE = "wrong_scale"
    NOT_MOVING = "not_moving"


@dataclass(frozen=True)
class CheckConfig:
    """When a check fails and when its sensor may come back.

    Raises ValueError that names the field.
    """

    RANGES: ClassVar[Ranges] = {
        "threshold": Range(0.0, 1e6),
        "fail_count": Range(1, 1000),
        "recover_count": Range(1, 1000),
        "recover_time_s": Range(0.0, 3600.0),
    }
    enabled: bool = True
    """Whether it is looked for at all."""
    threshold: float = 0.0
    """In the check's own unit, see `CHECKS`; 0 where the check has none."""
    fail_count: int = 3
    """Bad messages (for `silent`: missed messages) before the sensor has failed; a good one makes up for half of a bad
    one, so that a sensor that is bad every other time fails too."""
    recover_count: int = 3
    """Consecutive good frames before it is used again ..."""
    recover_time_s: float = 0.5
    """... over at least this many seconds, doubled with every relapse: a sensor that comes and goes stays out."""
    latch: bool = False
    """Stay failed until a person clears the fault."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)


Test = Callable[[SensorFrame, History, float], "str | None"]
"""Of a frame, what is known of its sensor, and the check's threshold: why the frame is bad, or None."""

EVERY: tuple[SensorKind, ...] = ()
"""Of checks: every kind of sensor."""
_SHARE, _MILLISECONDS, _COUNT = Range(0.0, 1.0), Range(1.0, 60_000.0), Range(0.0, 1e6)
_DEGREES = Range(0.1, 180.0)


class Check(NamedTuple):
    """How a fault is found."""

    default: CheckConfig
    test: Test | None = None
    """None: no frame shows it."""
    kinds: tuple[SensorKind, ...] = EVERY
    """Those whose sensors can have the fault."""
    limits: Range = _COUNT
    """Of the threshold: more would be no guard, and belongs in `enabled`."""
    is_timing: bool = False
    """It says when a sensor speaks, not what it says: a frame that did come, and is young enough, may be believed."""
    is_found_by_others: bool = False
    """`cross_examination` finds it: no frame of the sensor itself shows it."""

    def applies_to(self, kind: SensorKind) -> bool:
        """Whether a sensor of that kind can have the fault."""
        return self.kinds is EVERY or kind.family in self.kinds


_AT_ONCE = {"fail_count": 1, "recover_count": 1, "recover_time_s": 0.0}

CHECKS: Mapping[Fault, Check] = MappingProxyType(
    {
        # --- what no frame shows: the monitor finds it
        # Back with the first good frame: there is no history that speaks against the sensor.
        Fault.NEVER_RECEIVED: Check(CheckConfig(**_AT_ONCE), is_timing=True),
        Fault.INCOMPATIBLE_QOS: Check(CheckConfig(**_AT_ONCE), is_timing=True),
        # Periods without a message (and never less than SILENCE_FLOOR_MS). Two arrivals that each jitter by
        # +-30% of the period lie up to 1.6 periods apart. The mask without the sensor is due 2 periods after
        # its last message, or 150 ms, whichever is more, so 30 ms or more remain to make it.
        # Others wait for 1 s (autoware_topic_state_monitor, timeout) or 5 s (greenwave_monitor).
        Fault.SILENT: Check(CheckConfig(threshold=1.6, fail_count=1), limits=Range(1.0, 100.0), is_timing=True),
        # The network input is wrong or absent for as long as this lasts: two in a row are no accident.
        Fault.DECODE_ERROR: Check(CheckConfig(fail_count=2)),
        Fault.WRONG_SIZE: Check(CheckConfig(fail_count=2)),
        # --- what a frame shows; the first test that fails names the fault, an untimely one only where no other does.
        # A stamp that stands still or runs back grows stale as well: the cause comes first.
        # Best-effort transport may swap two packets once: the late frame is not used, the sensor is kept.
        Fault.STAMP_REGRESSION: Check(CheckConfig(), test=timing.stamp_regression),
        Fault.DUPLICATE_STAMP: Check(CheckConfig(), test=timing.duplicate_stamp),
        # ms ahead of the node's clock; synchronised clocks differ by far less. Others: 1,000 ms (TimeStampStatus).
        Fault.FUTURE_STAMP: Check(CheckConfig(threshold=50.0), test=timing.future_stamp, limits=_MILLISECONDS),
        # ms from acquisition to reception. A 10 Hz LiDAR stamps the start of its 100 ms sweep. Others: 5,000 ms
        # (diagnostic_updater, TimeStampStatus).
        Fault.STALE_STAMP: Check(
            CheckConfig(threshold=200.0), test=timing.stale_stamp, limits=_MILLISECONDS, is_timing=True
        ),
        # Content before `frozen`: two black pictures are alike, too. Of content, what explains most comes first.
        # Share of the pixels without depth. Clean: at most 0.54 (sky, and fog that hides the rest). Two more signs need
        # no threshold: three tenths of the part that usually has depth has none (a covered lens), or a hundredth of the
        # pixels has a depth that no sensor measures (negative, under 1 cm, over 1 km).
        Fault.INVALID_DEPTH: Check(
            CheckConfig(threshold=0.9, fail_count=5), test=content.invalid_depth, kinds=(DEPTH,), limits=_SHARE
        ),
        # Level 0-255 that the brightest 0.1% of the pixels stay under. Clean: at least 147 (fog), 210 at night, where
        # lamps and the lit road are bright however dark the rest is; 0 under a lens cap. Others: mean of a block
        # under 10 (autoware_image_diagnostics), which at night most of a picture is.
        Fault.DARK: Check(
            CheckConfig(threshold=20.0, fail_count=5), test=content.dark, kinds=(CAMERA,), limits=Range(0.0, 255.0)
        ),
        # Share of the pixels at or above 250 in every channel. Clean: at most 0.36 (low sun), real sky 0.15; a stuck
        # exposure (gain 20) 0.88 at night, 1 by day. Others: mean of a block over 230 in 4 blocks of 25
        # (autoware_image_diagnostics), which a bright sky fulfils.
        Fault.SATURATED: Check(
            CheckConfig(threshold=0.7, fail_count=5), test=content.saturated, kinds=(CAMERA,), limits=_SHARE
        ),
        # Share of the picture that shows nothing: blocks without the texture that they usually have (under 3 grey
        # levels of standard deviation, and not white), or dead rows. Clean: at most 0.03. A disc of mud over
        # half of the picture leaves some blocks half covered and is seen as 0.3 to 0.5; from about 40% of the picture
        # on it is recognised. What never had texture (sky, and all that was covered from the start) cannot be told
        # from mud, unless it is everything. Others: 6 blocks of 25 (autoware_image_diagnostics).
        Fault.BLANK: Check(
            CheckConfig(threshold=0.2, fail_count=5), test=content.blank, kinds=(CAMERA,), limits=_SHARE
        ),
        # Share of the points that the sensor usually gives; fewer than 100 are too few for any. Clean: at least 0.9
        # of the average of the last ten seconds.
        Fault.FEW_POINTS: Check(
            CheckConfig(threshold=0.3, fail_count=5), test=content.few_points, kinds=(LIDAR,), limits=_SHARE
        ),
        # Standard deviation of the noise as a share of full scale: of 255 grey levels, of the distance for depth and
        # LiDAR. Clean: camera 0.03 by day, 0.14 at night with the simulator's highest gain; stereo 0.016; LiDAR 0.005.
        # A loose connection or torn transfers: 0.18 and more. `parameters` ships 0.08 for depth and LiDAR.
        Fault.NOISY: Check(CheckConfig(threshold=0.16, fail_count=5), test=content.noisy, limits=_SHARE),
        # Share of the points that a sector of 15 degrees usually gives; below it is lost. Sectors that usually give
        # (next to) nothing do not count. Clean: at least 0.67. Any loss of 30 degrees covers a sector whole. Others:
        # 0.8 of a region without a return (blockage_diag, blockage_ratio_threshold).
        Fault.LIDAR_SECTOR_LOST: Check(
            CheckConfig(threshold=0.2, fail_count=5), test=content.lidar_sector_lost, kinds=(LIDAR,), limits=_SHARE
        ),
        # Events per pixel and second. Clean: at most 13 (a turn in the sun), 0.5 in a real stream; a flood of
        # flicker 100.
        Fault.EVENT_FLOOD: Check(
            CheckConfig(threshold=40.0, fail_count=5), test=content.event_flood, kinds=(EVENT,), limits=_COUNT
        ),
        # Bit-identical content. Sensor noise makes it impossible in a live sensor, at standstill too.
        Fault.FROZEN: Check(CheckConfig(), test=content.frozen),
        # --- what other sensors show: `cross_examination` finds it, and counts its judgements, not messages
        Fault.INCONSISTENT_GEOMETRY: Check(
            CheckConfig(fail_count=6, recover_count=10, recover_time_s=2.0), is_found_by_others=True
        ),
        Fault.INCONSISTENT_CONTENT: Check(
            CheckConfig(fail_count=10, recover_count=20, recover_time_s=2.0), is_found_by_others=True
        ),
        # Degrees, to the side, up or down, or rolled. Clean: to the side at most 0.4, in a real drive (KITTI) as well.
        Fault.MISALIGNED: Check(
            CheckConfig(threshold=1.0, fail_count=6, recover_count=10, recover_time_s=2.0),
            limits=_DEGREES,
            is_found_by_others=True,
        ),
        # ms of what two sensors see under one stamp. Whole periods of the slower one are found surely.
        Fault.TIME_OFFSET: Check(
            CheckConfig(threshold=60.0, fail_count=10, recover_count=20, recover_time_s=2.0),
            limits=_MILLISECONDS,
            is_found_by_others=True,
        ),
        Fault.WRONG_SCALE: Check(
            CheckConfig(fail_count=6, recover_count=10, recover_time_s=2.0), is_found_by_others=True
        ),
        Fault.NOT_MOVING: Check(
            CheckConfig(fail_count=10, recover_count=20, recover_time_s=2.0), is_found_by_others=True
        ),
        # Last: such a frame is good in itself, only some before it are missing.
        # Messages lost at once, by their sequence numbers, more than this: the count image lacks their events.
        Fault.EVENT_SEQUENCE_GAP: Check(CheckConfig(), test=timing.sequence_gap, kinds=(EVENT,), limits=_COUNT),
        # Fraction of the expected rate, from the median of the last five gaps, so that one outage is none of its
        # business. Half, because a camera that exposes longer at night may drop from 30 to 20 frames a second and
        # is still a good sensor. Others: below 0.9 (diagnostic_updater, tolerance 0.1), below 0.5 Hz
        # (autoware_topic_state_monitor, warn_rate).
        Fault.LOW_RATE: Check(CheckConfig(threshold=0.5), test=timing.low_rate, limits=_SHARE, is_timing=True),
    }
)
"""A row for every fault, in the order in which the tests are made. To add one: a `Fault`, a row here, and its test in
`timing_checks` or `content_checks`."""

FOUND_BY_OTHERS = frozenset(fault for fault, check in CHECKS.items() if check.is_found_by_others)
"""What no sensor's own frames show, and `cross_examination` finds."""

DEFAULT_CHECKS: Mapping[Fault, CheckConfig] = MappingProxyType(
    {fault: check.default for fault, check in CHECKS.items()}
)


def check_threshold(fault: Fault, config: CheckConfig) -> None:
    """Raises ValueError where the threshold is none for that check."""
    CHECKS[fault].limits.check("threshold", config.threshold)
