"""The pipeline and its monitors under anything that can happen to them, told by fuzzed bytes.

Held at every step: no exception; every message is counted once, as received or as rejected; states change only as
ALLOWED_TRANSITIONS says; a mask is made of usable frames, its stamps increase, and a wakeup never lies in the past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from anyseg_core.runtime.clock_steps import clock_was_set
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import (
    ALLOWED_TRANSITIONS,
    CheckConfig,
    Fault,
    HealthConfig,
    HealthMonitor,
    State,
)
from anyseg_core.runtime.health.thresholds import CHECKS, DEFAULT_CHECKS
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.pipeline import pipeline as pipeline_module
from anyseg_ros.pipeline.jobs import Job
from anyseg_ros.pipeline.pipeline import STAMP_JUMP_NS, Pipeline, SyncConfig
from fuzz.byte_source import ByteSource

MS = 1_000_000
START_NS = 1_000_000 * MS
RIG = Rig(PinholeCamera(32, 24, 16.0, 16.0, 15.5, 11.5))
SHAPES: Mapping[Sensor, tuple[tuple[int, ...], ...]] = {
    Sensor.CAMERA: ((24, 32, 3), (1, 1, 3), (5, 300, 3)),
    Sensor.DEPTH: ((24, 32), (1, 1), (300, 5)),
    Sensor.EVENT: ((24, 32, 2), (1, 1, 2), (5, 300, 2)),
    Sensor.LIDAR: ((500, 4), (1, 4), (40, 5), (0, 4)),
}
MAX_STEPS = 40
MAX_POLLS = 8
"""Jobs at one moment: more would be a loop."""


class StepMonitor(HealthMonitor):
    """A monitor that refuses a step between states that is not allowed."""

    def _enter(self, state: State, now_ns: int) -> None:
        before = self._state
        assert state is before or state in ALLOWED_TRANSITIONS[before], f"{before} -> {state} is not allowed"
        super()._enter(state, now_ns)


class PipelineFuzz:
    """A pipeline, its clock, and what was sent to it."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.now_ns = START_NS
        self._sent: Counter[Sensor] = Counter()
        self._last: dict[Sensor, SensorFrame] = {}
        self._last_stamp_ns: int | None = None
        self._latest_ns = self.now_ns
        self._pipeline = Pipeline(self._health(), self._sync(), self.now_ns)
        if source.chance(2):
            self._pipeline.set_rig(RIG)

    def run(self) -> None:
        """Until the bytes are used up, or for `MAX_STEPS`."""
        actions: tuple[Callable[[], None], ...] = (
            *[self._frame] * 8, self._reject, *[self._wait] * 4, self._wake_up, self._set_clock_back, self._reconfigure,
            self._switch, self._clear, lambda: self._pipeline.set_rig(RIG),
        )  # fmt: skip
        for _ in range(MAX_STEPS):
            if self._source.is_empty:
                break
            self._source.choice(actions)()
            self._poll()
            self._check_counts()

    def _frame(self) -> None:
        modality = self._source.choice(DEFAULT_SENSORS)
        lag_ms = self._source.choice((0, 3, 3, 3, 30, 120, 250, 2000, -20, -80, -5000))
        stamp_ns = self.now_ns - lag_ms * MS
        if modality in self._last and self._source.chance(6):
            stamp_ns = self._last[modality].stamp_ns
        frame = SensorFrame(modality, self._content(modality), stamp_ns, "", self._source.choice((None, 1, 2, 900)))
        self._last[modality] = frame
        self._sent[modality] += 1
        self._pipeline.on_frame(frame, self.now_ns)

    def _content(self, modality: Sensor) -> np.ndarray:
        """Live, frozen, uniform, or numbers that no sensor measures."""
        kind = self._source.integer(0, 7)
        if kind == 0 and modality in self._last:
            return self._last[modality].data
        shape = self._source.choice((*[SHAPES[modality][0]] * 6, *SHAPES[modality]))
        values = np.random.default_rng(self._source.integer(0, 255)).integers(1, 90, shape)
        data = values.astype(np.float32 if modality in (Sensor.DEPTH, Sensor.LIDAR) else np.uint8)
        if kind == 1:
            data[...] = self._source.choice((0, 255))
        elif kind == 2 and data.dtype == np.float32:
            data[...] = self._source.choice((np.nan, np.inf, -np.inf, -1.0, 1e38, 1e-38))
        elif kind == 3:
            data[: len(data) // 2] = 0
        return data

    def _reject(self) -> None:
        modality, fault = self._source.choice(DEFAULT_SENSORS), self._source.choice(tuple(Fault))
        self._sent[modality] += 1
        self._pipeline.on_rejected(modality, fault, "fuzzed", self.now_ns)

    def _wait(self) -> None:
        self.now_ns += self._source.choice((1, 10, 33, 100, 100, 100, 160, 400, 6000, 10**7)) * MS
        self._note_the_clock()

    def _wake_up(self) -> None:
        wakeup_ns = self._pipeline.next_wakeup_ns(self.now_ns)
        if wakeup_ns is not None:
            self.now_ns = max(self.now_ns, wakeup_ns)

    def _set_clock_back(self) -> None:
        back_ns = self._source.choice((1, 100, 499, 501, 5000, 10**6)) * MS
        self.now_ns -= back_ns
        self._note_the_clock()

    def _note_the_clock(self) -> None:
        if clock_was_set(self._latest_ns, self.now_ns):  # the pipeline starts anew
            self._last_stamp_ns, self._latest_ns = None, self.now_ns

    def _reconfigure(self) -> None:
        self._pipeline.reconfigure(self._health(), self._sync(), self.now_ns)

    def _switch(self) -> None:
        self._pipeline.set_enabled(self._source.choice(DEFAULT_SENSORS), self._source.chance(2), self.now_ns)

    def _clear(self) -> None:
        self._pipeline.clear_faults(self.now_ns)

    def _health(self) -> dict[Sensor, HealthConfig]:
        return {modality: self._one_config() for modality in DEFAULT_SENSORS}

    def _one_config(self) -> HealthConfig:
        if self._source.chance(2):
            return HealthConfig()
        choice = self._source.choice
        faults = [choice(tuple(Fault)) for _ in range(self._source.integer(0, 3))]
        checks = {
            fault: CheckConfig(
                enabled=choice((True, True, False)),
                threshold=choice((*CHECKS[fault].limits, DEFAULT_CHECKS[fault].threshold)),
                fail_count=choice((1, 2, 3, 50)),
                recover_count=choice((1, 3)),
                recover_time_s=choice((0.0, 0.5, 30.0)),
                latch=choice((False, False, True)),
            )
            for fault in faults
        }
        return HealthConfig(choice((0.0, 1.0, 10.0, 60.0)), choice((1000.0, 5000.0)), choice((0.1, 5.0)), checks=checks)

    def _sync(self) -> SyncConfig:
        choice = self._source.choice
        order = choice((DEFAULT_SENSORS, DEFAULT_SENSORS[::-1], (Sensor.LIDAR,), (Sensor.EVENT, Sensor.CAMERA)))
        return SyncConfig(order, choice((0.0, 50.0, 1e4)), choice((1e-3, 15.0, 500.0)), choice((0.0, 25.0, 400.0)))

    def _poll(self) -> None:
        self._latest_ns = max(self._latest_ns, self.now_ns)
        for _ in range(MAX_POLLS):
            job = self._pipeline.poll(self.now_ns)
            if job is None:
                break
            self._check_job(job, self._pipeline.usable(self.now_ns))
        else:
            raise AssertionError(f"{MAX_POLLS} masks at one moment")
        while self._pipeline.take_frame_to_encode() is not None:
            pass
        wakeup_ns = self._pipeline.next_wakeup_ns(self.now_ns)
        assert wakeup_ns is None or wakeup_ns > self._latest_ns, "a wakeup in the past would be a busy loop"

    def _check_job(self, job: Job, usable: tuple[Sensor, ...]) -> None:
        assert job.anchor in job.frames, "a mask without its anchor"
        assert set(job.frames) <= set(usable), "a mask of a sensor that is not usable"
        stamp_ns, last_ns = job.anchor_frame.stamp_ns, self._last_stamp_ns
        steps = last_ns is None or stamp_ns > last_ns or stamp_ns < last_ns - STAMP_JUMP_NS
        assert steps, "the stamps of two masks are the same, or run backwards"
        self._last_stamp_ns = stamp_ns

    def _check_counts(self) -> None:
        for status in self._pipeline.statuses(self.now_ns):
            assert status.received + status.rejected == self._sent[status.modality], "a message was not counted"


def run_pipeline(source: ByteSource) -> bool:
    """Drive a pipeline as the bytes say; nothing is refused here."""
    original = pipeline_module.HealthMonitor
    pipeline_module.HealthMonitor = StepMonitor
    try:
        PipelineFuzz(source).run()
    finally:
        pipeline_module.HealthMonitor = original
    return False
