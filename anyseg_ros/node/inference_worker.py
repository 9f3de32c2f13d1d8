"""The one thread that runs the network, drives the pipeline's clock, and never lets a callback wait for either."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from math import inf
from typing import Protocol, TypeVar

import cv2

from anyseg_core.runtime.clock_steps import CLOCK_JUMP_NS, ClockSteps
from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.monitor import Fault, ModalityStatus
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.pipeline.engine_owner import EngineOwner, EngineSettings, EngineState
from anyseg_ros.pipeline.jobs import Job, NetworkLook, Result
from anyseg_ros.pipeline.output_parameters import OutputParameters
from anyseg_ros.pipeline.pipeline import Pipeline
from anyseg_ros.pipeline.status_changes import StatusChanges

MAX_WAIT_S = 0.1
"""Between looks at the clock: a simulated one may jump, or run faster than real time."""
MIN_WAIT_S = 0.001
LOOK_MARGIN = 1.5
"""Times what it takes to ask the network about one sensor, that must be left until the next mask is due."""
FORGETS = 0.9
"""Of the longest time that this took, from one time to the next."""

_Answer = TypeVar("_Answer")


class Listener(Protocol):
    """Gets what happens; called on the worker's thread."""

    def on_result(self, result: Result) -> None:
        """A mask was made: publish it, unless it is `too_old_ms` when all else is done."""

    def on_statuses(self, statuses: Sequence[ModalityStatus]) -> None:
        """The state or fault of a modality changed and no mask says so."""

    def on_clock_step(self, step_s: float) -> None:
        """The clock was set, back where negative, or a bag has begun again: every sensor starts anew."""

    def on_inference_failure(self, error: Exception) -> None:
        """A mask could not be made: EngineError (it is opened again as its settings say), InputError, or a bug."""

    def on_too_old(self, age_ms: float) -> None:
        """A mask was ready when it was too old already: it must not be published. inf: as `too_old_ms` says."""


class InferenceWorker:
    """Owns a student on its own thread, from opening to closing (an engine's context belongs to one thread).

    Between `start` and `stop` frames go in by `deliver` from any thread, and results out to the listener.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        listener: Listener,
        *,
        is_simulated: Callable[[], bool] = lambda: False,
        lag_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        """`is_simulated`: whether `now_ns` tells a simulated time, which may run at any speed; `lag_ns`: how late the
        executor is that frames come from."""
        self._now_ns = now_ns
        self._listener = listener
        self._is_simulated = is_simulated
        self._lag_ns = lag_ns
        self._clock_steps = ClockSteps()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._changed = threading.Condition()
        self._pipeline: Pipeline | None = None
        self._loop: Future[None] | None = None
        self._changes = StatusChanges(with_remarks=True)
        self._engine: EngineOwner | None = None
        self._opening: Future[None] | None = None
        self._stuck = False
        self._look: NetworkLook | None = None
        self._step_ns = 0
        self.output = OutputParameters()
        """A mask that is older than `max_mask_age_ms` when it is ready goes to `on_too_old`; below `min_confidence` a
        pixel has no label. Set from any thread."""
        self.bug: BaseException | None = None
        """What ended the worker's loop, which nothing should; no mask can be made after it."""

    def open(self, student: str, settings: EngineSettings) -> ModelCard:
        """Open the student and give its card; an engine that must be built first is left to be built (`opening_error`).

        Raises StudentError or EngineError, as `Segmenter.open` does; EngineError, too, where the engine has not
        opened in time: its thread is left alone then, and this worker can only be closed.
        """
        # Encoding is short: split over threads it would wait for a core that the middleware is using.
        cv2.setNumThreads(1)
        segmenter = Segmenter.load(student)
        segmenter.while_waiting = self._encode_next
        self._engine = EngineOwner(segmenter, settings)
        self._opening = self._thread.submit(self._engine.open)
        if not self._engine.answered.wait(settings.open_timeout_s):
            self._stuck = True
            raise EngineError(
                f"the engine of student {student} did not open in {settings.open_timeout_s:g} s: export the student "
                "again, or raise model.open_timeout_s for a slow computer"
            )
        if not self._engine.is_building:
            self._opening.result()
        return self._engine.card

    @property
    def is_started(self) -> bool:
        """Whether it is between `start` and `stop`."""
        return self._pipeline is not None

    @property
    def is_opening(self) -> bool:
        """Whether the engine is still being built."""
        return self._opening is not None and not self._opening.done()

    def opening_error(self) -> BaseException | None:
        """Why the engine could not be opened; None where it was, or still is being built."""
        return self._opening.exception() if self._opening is not None and self._opening.done() else None

    @property
    def engine_state(self) -> EngineState:
        """What the engine is doing."""
        assert self._engine is not None, "open comes first"
        return self._engine.state

    def start(self, pipeline: Pipeline) -> None:
        """Begin to segment what is delivered."""
        self._pipeline = pipeline
        self._changes = StatusChanges(with_remarks=True)
        self._look = None
        self._loop = self._thread.submit(self._run_watched, pipeline)

    def stop(self) -> None:
        """Finish the mask in work and stop; frames that are delivered afterwards are ignored."""
        with self._changed:
            self._pipeline = None
            self._changed.notify()
        if self._loop is not None and not self._loop.cancel():  # it waits its turn while an engine is being built
            self._loop.result()
        self._loop = None

    def close(self) -> None:
        """Stop, and free the student and the thread; a build that is going on is given up."""
        if self._engine is not None:
            self._engine.cancel()
        if self._stuck:  # for ever, perhaps
            self._thread.shutdown(wait=False)
            return
        try:
            self.stop()
        finally:
            closed = self._thread.submit(self._engine.close) if self._engine is not None else None
            self._engine = None
            self._thread.shutdown()
        if closed is not None:
            closed.result()

    def deliver(self, frame: SensorFrame) -> None:
        """Hand over a frame; never waits for inference."""
        self.apply(lambda pipeline, now_ns: pipeline.on_frame(frame, now_ns))

    def reject(self, modality: Sensor, fault: Fault, reason: str) -> None:
        """Report a malformed message or a fault of the transport."""
        self.apply(lambda pipeline, now_ns: pipeline.on_rejected(modality, fault, reason, now_ns))

    def apply(self, action: Callable[[Pipeline, int], _Answer]) -> _Answer | None:
        """Call `action(pipeline, now_ns)` when it is safe to; None while stopped."""
        with self._changed:
            if self._pipeline is None:
                return None
            answer = action(self._pipeline, self._time(self._pipeline))
            self._changed.notify()
            return answer

    def _time(self, pipeline: Pipeline) -> int:
        """The node's time; where it was set, no sensor is to blame for the time that did not pass."""
        now_ns = self._now_ns()
        pipeline.set_lag(self._lag_ns())
        step_ns = self._clock_steps.step_ns(now_ns, is_simulated=self._is_simulated())
        if step_ns:
            pipeline.restart(now_ns)
            self._listener.on_clock_step(step_ns / NS_PER_S)
        return now_ns

    def _run_watched(self, pipeline: Pipeline) -> None:
        try:
            self._run(pipeline)
        except BaseException as error:  # a listener that cannot even report a failure
            self.bug = error
            raise

    def _run(self, pipeline: Pipeline) -> None:
        if self.opening_error() is not None:  # the node is told by the same
            return
        while self._pipeline is pipeline:
            try:
                self._step(pipeline)
            except Exception as error:  # unforeseen: without a word it would be the end of all masks
                self._listener.on_inference_failure(error)
                with self._changed:
                    self._changed.wait(MAX_WAIT_S)

    def _step(self, pipeline: Pipeline) -> None:
        """Do what is most urgent, or wait where nothing is."""
        with self._changed:
            if self._pipeline is not pipeline:
                return
            now_ns = self._time(pipeline)
            job = pipeline.poll(now_ns)
            statuses = job.statuses if job else pipeline.statuses(now_ns)
            has_changed = bool(self._changes.among(statuses))
            ahead = None if job or has_changed else pipeline.take_frame_to_encode()
            looks = self._may_look(pipeline, now_ns)
            if not (job or has_changed or ahead or looks):
                self._changed.wait(self._wait_s(pipeline, now_ns))
                return
        if job:
            was_made = self._segment(job)
            pipeline.examine(job)  # when the mask is on its way
            if job.asks_network and was_made:
                self._look = NetworkLook(job)  # one that is not done yet is given up
        elif has_changed:
            self._listener.on_statuses(statuses)
        elif ahead:
            self._encode(*ahead)
        else:
            self._look_on(pipeline)

    def _may_look(self, pipeline: Pipeline, now_ns: int) -> bool:
        """Whether the network can be asked about one sensor more before the next mask is due."""
        if self._look is None:
            return False
        due_ns = pipeline.expected_ns(now_ns)
        return due_ns is not None and due_ns - now_ns > LOOK_MARGIN * self._step_ns

    def _look_on(self, pipeline: Pipeline) -> None:
        """Ask the network what it makes of one sensor more; when all were asked, what follows."""
        assert self._engine is not None
        look, engine = self._look, self._engine
        assert look is not None
        begun_ns = time.monotonic_ns()
        try:
            look.step(lambda job: engine.segment(job, 0.0).segmentation)
        except EngineError as error:  # it is opened again for the next mask
            self._look = None
            self._listener.on_inference_failure(error)
            return
        self._step_ns = max(time.monotonic_ns() - begun_ns, int(FORGETS * self._step_ns))
        if look.is_done:
            self._look = None
            pipeline.hear_network(look.job, look.shown_by)

    def _segment(self, job: Job) -> bool:
        """Whether a mask was made."""
        assert self._engine is not None
        try:
            if self._engine.restore():
                return False  # that took its time: these frames are old now
        except EngineError as error:
            self._report(error, job)
            return False
        try:
            result = self._engine.segment(job, self.output.min_confidence)
        except Exception as error:  # EngineError, InputError, or an unforeseen one
            self._report(error, job)
            return False
        self._hand_over(result)
        return True

    def _hand_over(self, result: Result) -> None:
        age_ms = self.too_old_ms(result)
        if age_ms is None:
            self._listener.on_result(result)
        else:
            self._listener.on_too_old(age_ms)
            self._listener.on_statuses(result.job.statuses)

    def too_old_ms(self, result: Result) -> float | None:
        """The age of a mask that must not be published any more; None while it may be.

        On any thread. The process may be stopped at any moment (SIGSTOP, a hypervisor, a suspended computer), so this
        is asked as the last thing before a message goes to the middleware. inf where the clock was set back since its
        frames came: they are of another time, and no subtraction tells their age.
        """
        age_ms = (self._now_ns() - result.job.born_ns) / NS_PER_MS
        if age_ms < -CLOCK_JUMP_NS / NS_PER_MS:
            return inf
        return age_ms if age_ms > self.output.max_mask_age_ms else None

    def _report(self, error: Exception, job: Job) -> None:
        self._listener.on_inference_failure(error)
        self._listener.on_statuses(job.statuses)

    def _encode(self, frame: SensorFrame, rig: Rig | None) -> None:
        """Have the network image ready, and on its way to the device, before the mask is begun."""
        assert self._engine is not None
        with suppress(InputError, EngineError):  # the mask that needs it reports the same
            self._engine.encode(frame, rig)

    def _encode_next(self) -> bool:
        """Encode a frame that came while the device works on the mask before; False without one."""
        with self._changed:
            ahead = self._pipeline.take_frame_to_encode() if self._pipeline is not None else None
        if ahead is None:
            return False
        self._encode(*ahead)
        return True

    @staticmethod
    def _wait_s(pipeline: Pipeline, now_ns: int) -> float:
        wakeup_ns = pipeline.next_wakeup_ns(now_ns)
        if wakeup_ns is None:
            return MAX_WAIT_S
        return min(max((wakeup_ns - now_ns) / 1e9, MIN_WAIT_S), MAX_WAIT_S)
