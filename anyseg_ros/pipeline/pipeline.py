"""Decides which frames make a mask, and when: buffer and health with an injected clock; no network, rclpy or threads.

The node and the replay of bags run this same file, so one log gives one result. Every call takes the time of the
caller's clock and belongs under the caller's lock. `jobs.segment` turns what `poll` gives into a label image.

Which frames make a mask:

1. The anchor is the first usable modality of `anchor_order`; its new frame triggers the mask and gives the stamp.
2. While frames of other usable modalities that belong to it are still on their way, it waits for them for
   `join_wait_ms` at most. Without this, synchronous sensors would never meet: their messages arrive some
   milliseconds apart.
3. Where the anchor's next frame is late by `deadline_ms`, the next usable modality that has a new frame is promoted.
4. Others join with the frame stamped nearest to the anchor's, within `max_time_diff_ms` and not older than their
   `max_age_ms`.
   One that never does is named, with how far apart the stamps are.
5. A usable modality whose quality is below its `min_quality` is left out while `keep_at_least` others are usable.
6. Stamps of masks strictly increase: a frame that is older than the last mask is never an anchor.
7. Where no sensor is usable, one is that only its timing has failed: better a mask now and then than none.
8. A usable modality that the others contradict (`examine`) is left out as `CrossExaminationConfig` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from anyseg_core.runtime.clock_steps import clock_was_set
from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.cross_examination.examiner import CrossExaminer
from anyseg_core.runtime.cross_examination.network_witness import NOTHING_KNOWN, NetworkKnowledge
from anyseg_core.runtime.cross_examination.policy import DEFAULT, CrossExaminationConfig, left_out
from anyseg_core.runtime.geometry.motion import MotionHistory
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import Fault, HealthConfig, HealthMonitor, ModalityStatus, State
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import CheckConfig
from anyseg_core.runtime.model_card import Encoding
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame, point_sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.pipeline.frame_buffer import BufferedFrame, FrameBuffer
from anyseg_ros.pipeline.intensity_fit import IntensityFit, fit_of
from anyseg_ros.pipeline.jobs import Job

STAMP_JUMP_NS = 1000 * NS_PER_MS
"""A good frame that is stamped this much before the last mask comes from a sensor clock that was set back."""
HELD_UP_NS = 1 * NS_PER_MS
"""A caller that comes this much later than it was asked to was held up: by the scheduler, or by a message of 100 MB."""
CATCH_UP_NS = 20 * NS_PER_MS
"""Time to read what has arrived meanwhile, before a sensor is called silent."""
NEVER_NS = 2**62
"""Longer than any two stamps are apart."""
QUALITY_MARGIN = 0.05
"""How far above its limit the quality of a modality must rise before it is in the mask again."""
FASTER = 0.75
"""A sensor whose period is a smaller part of the anchor's is the faster one; jitter alone is less."""
JOIN_PATIENCE_NS = 2000 * NS_PER_MS
"""A sensor that is alive and in no mask for this long, and for `JOIN_PERIODS` of its own, never joins."""
JOIN_PERIODS = 3
DOUBTED_NS = 3 * NS_PER_S
"""For so long after its own checks have let a sensor in again, the others need less to find it wrong."""
EARLY = 0.3
"""Share of the period of `cross_examination.rate_hz` by which a mask may come early: arrivals jitter."""
NO_RIG = "camera intrinsics are not known; publish camera_info or set the rig.* parameters"


@dataclass(frozen=True)
class SyncConfig:
    """Which frames go together. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        "max_time_diff_ms": Range(0.0, 10_000.0),
        "deadline_ms": Range(0.001, 10_000.0),
        "join_wait_ms": Range(0.0, 1000.0),
        "keep_at_least": Range(1, 100),
    }
    anchor_order: tuple[Sensor, ...] = DEFAULT_SENSORS
    """Who triggers the mask and gives its stamp: the first usable one. Modalities left out only join."""
    max_time_diff_ms: float = 50.0
    """Largest difference between the stamps of the anchor and of a frame that joins it."""
    deadline_ms: float = 15.0
    """How late the anchor's next frame may be before the next usable modality is promoted for this mask. It is expected
    one period of its `expected_rate_hz` after the last one."""
    join_wait_ms: float = 25.0
    """Longest wait for frames that belong to the anchor's and are on their way; 0 = never wait."""
    keep_at_least: int = 2
    """Modalities that stay in the mask however poor their quality (`min_quality`). One alone gives worse
    masks than the same with a poor one."""

    def __post_init__(self) -> None:
        if not self.anchor_order or len(set(self.anchor_order)) != len(self.anchor_order):
            raise ValueError("anchor_order must name at least one modality, and none twice")
        check_ranges(self, self.RANGES)


class Pipeline:
    """Decides at every moment which frames to segment. Times are nanoseconds of one clock, the node's."""

    def __init__(
        self,
        health: Mapping[Sensor, HealthConfig],
        sync: SyncConfig,
        now_ns: int,
        encodings: Mapping[Sensor, Encoding] = MappingProxyType({}),
        examination: CrossExaminationConfig = DEFAULT,
        knowledge: NetworkKnowledge = NOTHING_KNOWN,
    ) -> None:
        """Watch and use the modalities that `health` configures, all of which the segmenter must take.

        `encodings` are the student's: the status says where frames do not fit them; `knowledge`: of its network as a
        witness, `network_knowledge(card)`.
        """
        self._knowledge = knowledge
        self._encodings = encodings
        self._health = dict(health)
        self._sync = sync
        self._examination = examination
        self._monitors = {modality: HealthMonitor(modality, config, now_ns) for modality, config in health.items()}
        self._buffer = FrameBuffer()
        self._rig: Rig | None = None
        self._remarks: dict[Sensor, str] = {}  # of the connection
        self._motion = MotionHistory()
        self._start_anew(now_ns)

    # --- what happens, in the order of the clock -----------------------------------------------------------------

    def on_frame(self, frame: SensorFrame, now_ns: int) -> None:
        """A well-formed frame was received."""
        now_ns = self._advance(now_ns)
        monitor = self._monitors[frame.modality]
        monitor.on_frame(frame, now_ns)
        if monitor.newest_is_good:  # of a sensor that recovers, too: its time may be up before the next one comes
            self._buffer.put(frame, now_ns)
        self._judge(frame.modality)

    def on_rejected(self, modality: Sensor, fault: Fault, reason: str, now_ns: int) -> None:
        """A malformed message, or a fault of the transport."""
        self._monitors[modality].on_rejected(fault, reason, self._advance(now_ns))

    def poll(self, now_ns: int) -> Job | None:
        """The frames to segment now, or None. Call it after every message and at `next_wakeup_ns`.

        At 0, which a simulated clock reads before it is told the time, no frame has an age and no mask is made.
        """
        now_ns = self._advance(now_ns)
        if now_ns == 0:
            return None
        held_up = self._wakeup_ns is not None and now_ns > self._wakeup_ns + HELD_UP_NS
        self._wakeup_ns = None
        for monitor in self._monitors.values():
            if held_up:
                monitor.excuse(now_ns + CATCH_UP_NS)
            monitor.on_time(now_ns)
        anchor = self._anchor(now_ns)
        if anchor is None or self._ready_ns(anchor, now_ns) > now_ns:
            return None
        frame = anchor.frame
        self._last_stamp_ns = frame.stamp_ns
        self._anchored[frame.modality] = frame
        entries = self._entries_with(anchor, now_ns)
        frames = {modality: entry.frame for modality, entry in entries.items()}
        points = point_sensor(frames)
        motion = self._motion.between(frames[points].stamp_ns, frame.stamp_ns) if points else None
        statuses, born = self.statuses(now_ns), {m: self._born_ns(entry) for m, entry in entries.items()}
        examined = self._to_examine(frame, now_ns)
        twist = self._twist(frame.stamp_ns) if examined else None
        asks = self._asks_network(examined, now_ns)
        doubted = self._doubted(now_ns)
        return Job(frame.modality, frames, self._rig, now_ns, statuses, born, motion, examined, twist, doubted, asks)

    def hear_network(self, job: Job, shown_by: Mapping[Sensor, Shown]) -> None:
        """What the network makes of each sensor of a job that `asks_network`, alone. On the thread of `examine`."""
        if job.created_ns <= self._now_ns:
            self._examiner.hear_network(shown_by, job.created_ns)

    def expected_ns(self, now_ns: int) -> int | None:
        """When the next frame that a mask is made of is expected; None where none is, `now_ns` where one has come."""
        anchors = self._candidates(self._advance(now_ns))
        newest = self._buffer.newest(anchors[0]) if anchors else None
        if newest is None:
            return None
        next_ns = newest.received_ns + self._monitors[anchors[0]].period_ns
        return now_ns if self._is_new(newest.frame) or next_ns < now_ns else next_ns

    def examine(self, job: Job) -> None:
        """Compare the sensors of a job with each other: some milliseconds, for when its mask is on its way.

        On one thread, and without the lock. What it finds holds from the next job on; of one from before the clock was
        set back, nothing does.
        """
        if job.examined and job.created_ns <= self._now_ns:
            rig = None if job.rig is None or job.rig.missing else job.rig
            self._examiner.examine(job.examined, rig, job.twist, job.created_ns, job.doubted)

    @property
    def suspicion_levels(self) -> Mapping[Fault, float]:
        """The greatest sum of each fault that sensors are suspected of; from 1 on it is a suspicion. On the thread of
        `examine`."""
        return self._examiner.suspicion_levels

    def set_lag(self, lag_ns: int) -> None:
        """How late this computer itself is, 0 while it is not: no sensor is blamed for that."""
        for monitor in self._monitors.values():
            monitor.set_lag(lag_ns)

    def next_wakeup_ns(self, now_ns: int) -> int | None:
        """When `poll` must be called though no message arrives, None while nothing is awaited."""
        now_ns = self._advance(now_ns)
        if now_ns == 0:
            return None
        times = [monitor.next_deadline_ns() for monitor in self._monitors.values()]
        anchor = self._anchor(now_ns)
        if anchor is not None:
            times.append(self._ready_ns(anchor, now_ns))
        else:
            times.append(self._promotion_ns(now_ns))
        self._wakeup_ns = min((time for time in times if time is not None), default=None)
        return self._wakeup_ns

    def take_frame_to_encode(self) -> tuple[SensorFrame, Rig | None] | None:
        """Take a frame that the next mask will need, and the rig: `Segmenter.encode` it while `poll` gives no job.

        Each frame is given once. What is encoded while an anchor waits for its companions delays no mask.
        """
        candidates = self._candidates(self._now_ns)
        for modality in self._monitors:
            entry = self._buffer.newest(modality)
            if entry is None or entry.frame is self._given_to_encode.get(modality) or not self._is_new(entry.frame):
                continue
            if not candidates or not self._is_needed(modality, candidates[0]):
                continue
            self._given_to_encode[modality] = entry.frame
            # A scan that is to be compensated waits for the stamp of its anchor.
            if self._has_rig_for(modality) and not (modality.kind.is_points and self._motion):
                return entry.frame, self._rig
        return None

    # --- state and settings --------------------------------------------------------------------------------------

    @property
    def modalities(self) -> tuple[Sensor, ...]:
        """Those that are watched and used."""
        return tuple(self._monitors)

    def statuses(self, now_ns: int) -> tuple[ModalityStatus, ...]:
        """The health of every modality."""
        now_ns = self._advance(now_ns)
        alive = self._alive(now_ns)
        left_out = {**self._never_joins(alive, now_ns), **self._left_out(alive)}
        statuses = [self._explained(monitor.status(now_ns)) for monitor in self._monitors.values()]
        left_out |= {s.modality: self._why_no_rig() for s in statuses if self._lacks_rig(s)}
        disputes = self.disputes
        statuses = [replace(s, left_out=left_out.get(s.modality, s.left_out)) for s in statuses]
        return tuple(_in_dispute(s, disputes.get(s.modality)) for s in statuses)

    @property
    def disputes(self) -> Mapping[Sensor, Dispute]:
        """What the others say against each sensor that is in dispute."""
        return self._examiner.disputes if self._examination.enabled else {}

    def usable(self, now_ns: int) -> tuple[Sensor, ...]:
        """The modalities that a mask may use now."""
        alive = self._alive(now_ns)
        left_out = self._left_out(alive)
        return tuple(modality for modality in alive if modality not in left_out)

    def set_rig(self, rig: Rig) -> None:
        """Intrinsics and extrinsics for LiDAR, which is not used before they are known."""
        self._rig = rig

    def on_motion(self, stamp_ns: int, twist: Twist) -> None:
        """Odometry: how the LiDAR moved at a time, in its own axes."""
        self._motion.add(stamp_ns, twist)

    def set_remark(self, modality: Sensor, remark: str) -> None:
        """What a person should mend about the connection of a sensor; empty = nothing."""
        self._remarks[modality] = remark

    def set_enabled(self, modality: Sensor, enabled: bool, now_ns: int) -> None:
        """Take a modality out of use, or let it start again."""
        self._monitors[modality].set_enabled(enabled, self._advance(now_ns))
        if not enabled:
            self._buffer.drop(modality)
            self._remarks.pop(modality, None)

    def restart(self, now_ns: int) -> None:
        """The clock was set: nothing that was timed by it counts. Told by the caller where only it can know."""
        for monitor in self._monitors.values():
            monitor.reset(now_ns)
        self._start_anew(now_ns)

    def clear_faults(self, now_ns: int) -> None:
        """Forget every fault: a failed sensor is back with its first good frame."""
        for monitor in self._monitors.values():
            monitor.clear_faults(self._advance(now_ns))
        self._examiner = self._new_examiner()

    def reconfigure(
        self,
        health: Mapping[Sensor, HealthConfig],
        sync: SyncConfig,
        now_ns: int,
        examination: CrossExaminationConfig | None = None,
    ) -> None:
        """Use other limits from now on, for the same modalities."""
        now_ns = self._advance(now_ns)
        for modality, monitor in self._monitors.items():
            self._health[modality] = health[modality]
            monitor.reconfigure(health[modality], now_ns)
            self._judge(modality)
        self._sync = sync
        self._examination = examination or self._examination

    # --- decisions -----------------------------------------------------------------------------------------------

    def _start_anew(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self._wakeup_ns: int | None = None  # when the caller was last asked to come
        self._poor: set[Sensor] = set()  # whose quality has fallen below its limit
        self._last_stamp_ns: int | None = None
        self._anchored: dict[Sensor, SensorFrame] = {}  # the last anchor of each modality
        self._given_to_encode: dict[Sensor, SensorFrame] = {}  # by `take_frame_to_encode`
        self._in_mask_ns: dict[Sensor, int] = {}  # when each was in a mask, or began to be usable beside one
        self._apart: dict[Sensor, str] = {}  # how far from the anchor those are that do not join
        self._examiner = self._new_examiner()
        self._doubted_ns: dict[Sensor, int] = {}  # when its own checks last distrusted each
        self._examined_ns = self._network_asked_ns = 0
        self._buffer.clear()

    def _advance(self, now_ns: int) -> int:
        """The time that never runs backwards; starts anew where the clock was set."""
        if clock_was_set(self._now_ns, now_ns):
            self.restart(now_ns)
        self._now_ns = max(self._now_ns, now_ns)
        return self._now_ns

    def _new_examiner(self) -> CrossExaminer:
        def limits(sensor: Sensor, fault: Fault) -> CheckConfig:
            return self._health[sensor].check(fault)

        return CrossExaminer(limits, lambda: self._examination, self._knowledge)

    def _to_examine(self, anchor: SensorFrame, now_ns: int) -> dict[Sensor, SensorFrame]:
        """The frames that belong to the anchor's, of those in dispute and of those that recover, too; none while it is
        not time to look."""
        period_ns = NS_PER_S / self._examination.rate_hz
        if not self._examination.enabled or now_ns - self._examined_ns < (1 - EARLY) * period_ns:
            return {}
        self._examined_ns = now_ns
        apart_ns = int(self._sync.max_time_diff_ms * NS_PER_MS)
        alive = (m for m, monitor in self._monitors.items() if monitor.may_be_compared(now_ns))
        nearest = {m: self._buffer.nearest(m, anchor.stamp_ns, apart_ns) for m in alive}
        return {m: entry.frame for m, entry in nearest.items() if entry is not None}

    def _doubted(self, now_ns: int) -> frozenset[Sensor]:
        """Those that their own checks distrust, or did a moment ago."""
        self._doubted_ns |= {m: now_ns for m, monitor in self._monitors.items() if monitor.is_distrusted}
        return frozenset(m for m, doubted_ns in self._doubted_ns.items() if now_ns - doubted_ns <= DOUBTED_NS)

    def _asks_network(self, examined: Mapping[Sensor, SensorFrame], now_ns: int) -> bool:
        config = self._examination
        if len(examined) < 2 or not config.network_rate_hz:
            return False
        if now_ns - self._network_asked_ns < NS_PER_S / config.network_rate_hz - EARLY * NS_PER_S / config.rate_hz:
            return False
        self._network_asked_ns = now_ns
        return True

    def _twist(self, stamp_ns: int) -> Twist | None:
        motion = self._motion.between(stamp_ns, stamp_ns)
        return None if motion is None else motion.twist

    def _late_ns(self, modality: Sensor) -> int:
        """From when on the next frame of a modality is late, and another one may take its place."""
        newest = self._buffer.newest(modality)
        if newest is None:
            return 0
        return newest.received_ns + self._monitors[modality].period_ns + int(self._sync.deadline_ms * NS_PER_MS)

    def _anchor(self, now_ns: int) -> BufferedFrame | None:
        """The new frame of the first usable modality; of a lower one where those before it are late."""
        for modality in self._candidates(now_ns):
            entry = self._buffer.newest(modality)
            if entry is not None and self._may_anchor(entry, now_ns):
                return entry
            if now_ns < self._late_ns(modality):
                return None
        return None

    def _candidates(self, now_ns: int) -> list[Sensor]:
        usable = self.usable(now_ns)
        return [modality for modality in self._sync.anchor_order if modality in usable]

    def _is_needed(self, modality: Sensor, anchor: Sensor) -> bool:
        """Whether a mask will likely be made of every frame of a sensor: it is used, and no faster than the anchor.

        A sensor that recovers is not used yet; of a faster one most frames are encoded for nothing.
        """
        if not self._monitors[modality].usable(self._now_ns):
            return False
        period_ns, anchor_ns = self._buffer.period_ns(modality), self._buffer.period_ns(anchor)
        return period_ns is None or anchor_ns is None or period_ns >= FASTER * anchor_ns

    def _promotion_ns(self, now_ns: int) -> int | None:
        """When a modality that has a new frame is promoted, because those before it are all late; None without one."""
        late_ns = now_ns
        for modality in self._candidates(now_ns):
            entry = self._buffer.newest(modality)
            if entry is not None and self._may_anchor(entry, now_ns):
                return late_ns
            late_ns = max(late_ns, self._late_ns(modality))
        return None

    def _may_anchor(self, entry: BufferedFrame, now_ns: int) -> bool:
        return self._is_new(entry.frame) and self._is_young(entry, now_ns)

    def _is_new(self, frame: SensorFrame) -> bool:
        """Whether it may be an anchor. Once at most: two clocks that are a second apart would take turns for ever."""
        if self._anchored.get(frame.modality) is frame:
            return False
        last = self._last_stamp_ns
        return last is None or frame.stamp_ns > last or frame.stamp_ns < last - STAMP_JUMP_NS

    def _ready_ns(self, anchor: BufferedFrame, now_ns: int) -> int:
        """When the anchor need wait no longer: now, or when the last frame on its way is given up."""
        given_up_ns = anchor.received_ns + int(self._sync.join_wait_ms * NS_PER_MS)
        others = (modality for modality in self.usable(now_ns) if modality is not anchor.frame.modality)
        awaited = any(self._is_on_its_way(modality, anchor, given_up_ns) for modality in others)
        return given_up_ns if awaited else now_ns

    def _is_on_its_way(self, modality: Sensor, anchor: BufferedFrame, given_up_ns: int) -> bool:
        """Whether a frame that fits the anchor better than what is here can arrive before `given_up_ns`.

        By the stamps: arrivals jitter more, and a frame that was late does not make the next one late.
        """
        newest, period_ns = self._buffer.newest(modality), self._buffer.period_ns(modality)
        delay_ns = self._buffer.delay_ns(modality)
        if newest is None or period_ns is None or delay_ns is None:
            return False
        behind_ns = anchor.frame.stamp_ns - newest.frame.stamp_ns
        fits_better = abs(behind_ns - period_ns) < abs(behind_ns)
        joins = abs(behind_ns - period_ns) <= self._sync.max_time_diff_ms * NS_PER_MS
        return fits_better and joins and newest.frame.stamp_ns + period_ns + delay_ns <= given_up_ns

    def _entries_with(self, newest: BufferedFrame, now_ns: int) -> dict[Sensor, BufferedFrame]:
        """The anchor's frame and those that belong to it."""
        anchor = newest.frame
        entries = {anchor.modality: newest}
        max_difference_ns = int(self._sync.max_time_diff_ms * NS_PER_MS)
        for modality in self.usable(now_ns):
            entry = self._buffer.nearest(modality, anchor.stamp_ns, max_difference_ns)
            if modality is not anchor.modality and entry is not None and self._is_young(entry, now_ns):
                entries[modality] = entry
            self._note(modality, anchor, joins=modality in entries)
        return entries

    def _note(self, modality: Sensor, anchor: SensorFrame, *, joins: bool) -> None:
        """Remember when a usable sensor was in a mask, and how far from the anchor it was where it is not."""
        if joins or modality not in self._in_mask_ns:
            self._in_mask_ns[modality] = self._now_ns
        nearest = self._buffer.nearest(modality, anchor.stamp_ns, NEVER_NS)
        if joins or nearest is None:
            self._apart.pop(modality, None)
            return
        apart_ms = abs(nearest.frame.stamp_ns - anchor.stamp_ns) / NS_PER_MS
        limit_ms = self._sync.max_time_diff_ms
        self._apart[modality] = (
            f"{apart_ms:.0f} ms from the anchor ({anchor.modality}), more than sync.max_time_diff_ms {limit_ms:g}"
        )

    def _never_joins(self, alive: Sequence[Sensor], now_ns: int) -> dict[Sensor, str]:
        """Which of the living are in no mask, and how far from the anchor they are."""
        return {
            m: self._apart[m]
            for m in alive
            if m in self._apart
            and now_ns - self._in_mask_ns[m] > max(JOIN_PATIENCE_NS, JOIN_PERIODS * self._monitors[m].period_ns)
        }

    def _is_young(self, entry: BufferedFrame, now_ns: int) -> bool:
        return self._health[entry.frame.modality].is_fresh(self._born_ns(entry), now_ns)

    def _born_ns(self, entry: BufferedFrame) -> int:
        return self._health[entry.frame.modality].born_ns(entry.received_ns, entry.frame.stamp_ns)

    def _alive(self, now_ns: int) -> list[Sensor]:
        """Those that are usable, whatever their quality; where none is, those that only their timing has failed."""
        with_rig = [(m, monitor) for m, monitor in self._monitors.items() if self._has_rig_for(m)]
        alive = [m for m, monitor in with_rig if monitor.usable(now_ns)]
        return alive or [m for m, monitor in with_rig if monitor.usable_in_need(now_ns)]

    def _judge(self, modality: Sensor) -> None:
        """Note a quality that has crossed its limit; upwards by a margin, so that the masks do not flicker."""
        quality, limit = self._monitors[modality].quality, self._health[modality].min_quality
        if quality is None or quality.value >= limit + (QUALITY_MARGIN if limit > 0 else 0):
            self._poor.discard(modality)
        elif quality.value < limit:
            self._poor.add(modality)

    def _left_out(self, alive: Sequence[Sensor]) -> dict[Sensor, str]:
        """Which of them a mask is made without and why: those in dispute, and the poorest, as long as enough others
        remain."""
        out = left_out(self.disputes, alive, self._examination)
        agreed = [m for m in alive if m not in out]
        poor = sorted((m for m in agreed if m in self._poor), key=self._headroom)
        count = max(0, min(len(poor), len(agreed) - self._sync.keep_at_least))
        for m in poor[:count]:
            out[m] = f"quality {self._monitors[m].quality} < {self._health[m].min_quality:.2f}"
        return out

    def _headroom(self, modality: Sensor) -> float:
        quality = self._monitors[modality].quality
        return quality.value - self._health[modality].min_quality if quality else 0.0

    def _has_rig_for(self, modality: Sensor) -> bool:
        return not modality.kind.is_points or not self._why_no_rig()

    def _why_no_rig(self) -> str:
        """Why points cannot be drawn into a picture; empty where they can."""
        rig = self._rig
        if rig is None or rig.missing:
            return NO_RIG if rig is None else rig.missing
        of = (rig.sensor,) if rig.sensor is not None else (Sensor.CAMERA, Sensor.DEPTH)
        sensor, size = next(((s, e.frame.image_size) for s in of if (e := self._buffer.newest(s))), (None, None))
        own = rig.camera.height, rig.camera.width
        if size is None or size == own or (rig.sensor is None and _is_of_shape(size, own)):
            return ""
        name, shape = ("camera_info is", "") if rig.sensor is not None else ("rig.intrinsics are", ", of another shape")
        return f"{name} of {own[1]}x{own[0]} pixels, the pictures of {sensor} are {size[1]}x{size[0]}{shape}"

    def _explained(self, status: ModalityStatus) -> ModalityStatus:
        """With what is known of the sensor beside its health."""
        remarks, details = [self._remarks.get(status.modality, "")], {}
        if status.modality.kind.is_points:
            details["extrinsics"] = self._rig.source or "none" if self._rig is not None else "none"
            if (fit := self._intensity_fit(status.modality)) is not None:
                details["intensity"] = fit.text
                remarks.append(fit.remark)
            newest = self._buffer.newest(status.modality)
            remarks.append(self._rig.odd_axes(newest.frame.frame_id) if self._rig is not None and newest else "")
        return replace(status, remark="; ".join(filter(None, remarks)), details=details)

    def _intensity_fit(self, modality: Sensor) -> IntensityFit | None:
        """Of the newest scan; None before it, and where nobody looked."""
        newest = self._buffer.newest(modality)
        encoding = self._encodings.get(modality)
        return fit_of(newest.frame, encoding) if newest is not None and encoding is not None else None

    def _lacks_rig(self, status: ModalityStatus) -> bool:
        return not self._has_rig_for(status.modality) and status.state in (State.ACTIVE, State.SUSPECT)


def _is_of_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one (height, width) is the other at another scale, to a pixel."""
    return abs(size[0] * other[1] / other[0] - size[1]) <= max(1.0, other[1] / other[0])


def _in_dispute(status: ModalityStatus, dispute: Dispute | None) -> ModalityStatus:
    """The status of a sensor that is well by itself, and what the others say against it."""
    if dispute is None or status.state not in (State.ACTIVE, State.SUSPECT):
        return status
    details = {
        **status.details,
        "dispute_partner": dispute.partner or "",
        "dispute_value": f"{dispute.value:.4g}",
        "dispute_unit": dispute.unit,
        "dispute_confidence": f"{dispute.confidence:.2f}",
        "dispute_blamed": str(dispute.is_blamed).lower(),
    }
    return replace(status, state=State.DISPUTED, fault=dispute.fault, reason=dispute.reason, details=details)
