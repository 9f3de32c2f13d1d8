"""segmentation_node: keeps publishing a label image from whichever of camera, depth, event and LiDAR are alive.

A lifecycle node that only wires: topics -> conversions -> worker (pipeline, student) -> messages. With the parameter
`autostart` it configures and activates itself, for launches without a lifecycle manager.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import isinf
from traceback import format_exception
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  # where every distribution has it
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from anyseg_core.runtime.class_losses import losses_in_words
from anyseg_core.runtime.engines.protocol import EngineError, EngineInfo
from anyseg_core.runtime.events import kernel as event_kernel
from anyseg_core.runtime.health.monitor import ModalityStatus
from anyseg_core.runtime.health.state import ALIVE
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.model_card import ModelCard, StudentError, usage_notice
from anyseg_core.runtime.sensors import EVENT, Sensor, point_sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.headers import time_message
from anyseg_ros.node.inference_worker import InferenceWorker
from anyseg_ros.node.mask_outputs import MaskOutputs
from anyseg_ros.node.planner_outputs import PlannerOutputs
from anyseg_ros.node.rig_source import RigSource
from anyseg_ros.node.sensor_input import EventInput, SensorInput
from anyseg_ros.node.status_log import StatusLog
from anyseg_ros.node.status_messages import (
    InferenceRecord,
    diagnostics_array,
    for_node,
    inactive_array,
    unconfigured_array,
)
from anyseg_ros.pipeline import parameters as node_parameters
from anyseg_ros.pipeline.computer_lag import BEAT_NS, ComputerLag
from anyseg_ros.pipeline.engine_owner import EngineSettings, EngineState
from anyseg_ros.pipeline.jobs import Job, Result, network_knowledge
from anyseg_ros.pipeline.parameter_descriptions import about
from anyseg_ros.pipeline.parameters import ModelParameters, ParameterError, Parameters
from anyseg_ros.pipeline.pipeline import Pipeline
from anyseg_ros.pipeline.planner_products import output_classes
from anyseg_ros.pipeline.status_lines import used_ages_ms
from anyseg_ros.process.guarded_callbacks import GuardedCallbacks
from anyseg_ros.process.memory import give_back_memory
from anyseg_ros.process.node_process import run
from anyseg_ros.process.service_manager import READY, WATCHDOG, notify
from anyseg_ros.process.topic_names import full_topic_name

NAME = "segmentation_node"
DIAGNOSTICS_PERIOD_S = 1.0
BUILD_LOG_PERIOD_S = 10.0
FAILURE_LOG_PERIOD_S = 5.0
NO_PUBLISHER_PERIOD_S = 5.0
"""Time for discovery before a topic without a publisher is worth a warning."""


class SegmentationNode(GuardedCallbacks, LifecycleNode):
    """The lifecycle node. Services, parameters and diagnostics answer in every state.

    `namespace`, `parameter_overrides` ... are passed on to rclpy.

    The worker calls `on_result`, `on_too_old`, `on_statuses` and `on_inference_failure` on its own thread,
    `on_clock_step` on any.
    """

    def __init__(self, **node_options: Any) -> None:
        # Undeclared ones are overrides of a check for one modality; `_on_set_parameters` refuses any other.
        node_options |= {"allow_undeclared_parameters": True, "automatically_declare_parameters_from_overrides": True}
        super().__init__(NAME, **node_options)
        self._declare_parameters()
        self._settings = Parameters()
        self._worker: InferenceWorker | None = None
        self._card: ModelCard | None = None  # of the student, while the node is configured
        self._told_ns = 0  # the time of the last diagnostics
        self._outputs: MaskOutputs | None = None
        self._planners: PlannerOutputs | None = None
        self._inputs: list[SensorInput] = []
        self._rig: RigSource | None = None
        self._record = InferenceRecord()
        self._status_log = StatusLog(self.get_logger().warning, self.get_logger().info)
        self._lag = ComputerLag()
        self._building = False
        self._logged: EngineInfo | None = None
        self.build_failed = False
        """The engine that was being built when the node was configured could not be built."""
        self._failed = ""
        """The transition that failed last, and why, or that there will be none; empty once the node is configured."""
        self._configured: list[Callable[[], Any]] = []  # what ends what a configured node has, newest last
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._offer_services()

    # --- lifecycle -----------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters and open the student; one clear error and FAILURE where they cannot be used."""
        try:
            self._open_student()
        except Exception as error:
            self._log_failed("configure", error)
            self._end_what_failed()
            return TransitionCallbackReturn.FAILURE
        self._failed = ""
        return super().on_configure(state)

    def _open_student(self) -> None:
        worker = self._worker = InferenceWorker(
            self._now_ns,
            self,
            is_simulated=lambda: self.get_clock().ros_time_is_active,
            lag_ns=self._lag.lag_ns,
        )
        self._settings = node_parameters.from_values(self._parameter_values())
        self._check_topics()
        model = self._settings.model
        card = self._card = worker.open(model.student, engine_settings(model))
        self._modalities()
        if any(modality.kind is EVENT for modality in card.modalities):
            event_kernel.compiled()  # some seconds on a new machine: now rather than with the first packet
        worker.output = self._settings.output
        self._offer_outputs(card)
        self._building = worker.is_opening
        if self._building:
            self.get_logger().info(f"building the engine of {card.name}: masks come when it is ready")
        self.get_logger().info(f"configured: {card.name}")
        if notice := usage_notice(card):
            self.get_logger().warning(notice)
        self._log_engine(worker.engine_state)

    def _check_topics(self) -> None:
        """Raises ParameterError for a name that no topic can have: activating would end with it."""
        for name, topic in node_parameters.topics_of(self._settings).items():
            try:
                full_topic_name(self, name, topic)
            except ValueError as error:
                raise ParameterError(str(error)) from None

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and segment."""
        return self._done("activate", self._begin_activity) or super().on_activate(state)

    def _done(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn | None:
        """Do the step of a transition. ERROR where it raised, which rclpy would swallow: `on_error` comes next."""
        try:
            step()
        except Exception as error:
            self._log_failed(what, error)
            return TransitionCallbackReturn.ERROR
        return None

    def _log_failed(self, what: str, error: BaseException) -> None:
        """Say why, in one line where a person can mend it and with the traceback where nobody foresaw it."""
        foreseen = isinstance(error, (ParameterError, StudentError, EngineError))
        self._failed = f"cannot {what}: {error if foreseen else repr(error)}"
        self.get_logger().error(self._failed if foreseen else f"cannot {what}: {''.join(format_exception(error))}")

    def _begin_activity(self) -> None:
        assert self._worker is not None
        assert self._card is not None
        worker, modalities, now_ns = self._worker, self._modalities(), self._now_ns()
        self._record = InferenceRecord()
        health, examination = self._settings.health(modalities), self._settings.cross_examination
        knowledge = network_knowledge(self._card)
        pipeline = Pipeline(health, self._settings.sync, now_ns, self._card.encodings, examination, knowledge)
        for modality in modalities:
            pipeline.set_enabled(modality, self._settings.modalities[modality].enabled, now_ns)
        worker.start(pipeline)
        images = {m: self.resolve_topic_name(self._settings.modalities[m].topic) for m in modalities}
        has_lidar = any(m.kind.is_points for m in modalities)
        self._rig = RigSource(self, self._settings.rig, worker, images, has_lidar=has_lidar)
        self._rig.refresh()
        for modality in modalities:  # one by one: those before one that fails must be ended
            self._inputs.append(self._input(modality, worker))
            self._inputs[-1].start()

    @property
    def starts_itself(self) -> bool:
        """Whether the parameter `autostart` has it configure and activate itself, without a lifecycle manager."""
        return self.get_parameter("autostart").value is not False  # of a wrong type: configuring says so

    @property
    def sensor_topics(self) -> dict[Sensor, str]:
        """The full name of each sensor's topic while the node is active, whether it is subscribed to yet or not."""
        return {sensor.modality: sensor.topic for sensor in self._inputs}

    @property
    def is_building(self) -> bool:
        """Whether the engine is being built, since the node was configured."""
        return self._building

    @property
    def worker_bug(self) -> BaseException | None:
        """What ended the worker's thread, which nothing should."""
        return self._worker.bug if self._worker is not None else None

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and segmenting; the student stays open."""
        return self._done("deactivate", self._end_activity) or super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured: the student is closed, and its memory given back."""
        failed = self._done("clean up", self._end_everything)
        give_back_memory()
        return failed or super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End whatever runs."""
        self._failed = "it was shut down, and ROS 2 lets none come back: start the process again"
        return self._done("shut down", self._end_everything) or super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed by an exception: back to unconfigured, so that it may be tried again."""
        self._end_what_failed()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """End whatever runs, and the node."""
        try:
            self._end_everything()
        finally:
            super().destroy_node()

    # --- what the worker tells -----------------------------------------------------------------------------------

    def on_result(self, result: Result) -> None:
        """Publish a mask and its status."""
        assert self._outputs is not None
        assert self._planners is not None
        assert self._worker is not None
        too_old_ms = partial(self._worker.too_old_ms, result)
        now_ns = self._now_ns()  # the process may be stopped between here and the record of the mask
        opacity, also = self._settings.output.overlay_opacity, self._planners.status(result.job)
        age_ms = self._outputs.publish_result(result, opacity, too_old_ms, also)
        if age_ms is not None:
            self.on_too_old(age_ms)
            self.on_statuses(result.job.statuses)
            return
        self._planners.on_result(result, self._rig, too_old_ms)
        self._status_log.add(result.job.statuses)
        segmentation = result.segmentation
        self._record = replace(
            self._record,
            masks=self._record.masks + 1,
            last_error="",
            used_ages_ms=used_ages_ms(result),
            encode_ms=1e3 * segmentation.encode_s,
            engine_ms=1e3 * segmentation.engine_s,
            latency_ms=max(0.0, (now_ns - result.job.born_ns) / 1e6),  # a clock that is adjusted may go back a little
            last_mask_ns=now_ns,
            in_mask_ns={**self._record.in_mask_ns, **dict.fromkeys(segmentation.modalities, now_ns)},
            max_mask_age_ms=self._settings.output.max_mask_age_ms,
            lidar_motion=self._motion_in_words(result.job),
            lost_classes=losses_in_words(self._card, segmentation.modalities) if self._card else "",
        )

    def _motion_in_words(self, job: Job) -> str:
        if point_sensor(job.frames) is None:
            return ""
        rig = self._rig
        if job.motion is None:
            return f"not compensated: {rig.without_motion if rig is not None else 'inactive'}"
        assumed = rig.assumed_place if rig is not None else ""
        return "; ".join(filter(None, (str(job.motion), assumed)))

    def on_statuses(self, statuses: Sequence[ModalityStatus]) -> None:
        """Publish a change that comes without a mask."""
        assert self._outputs is not None
        self._outputs.publish_statuses(time_message(self._now_ns()), statuses)
        self._status_log.add(statuses)

    def on_too_old(self, age_ms: float) -> None:
        """Count a mask that is withheld for its age; one of before the clock was set back is dropped."""
        if isinf(age_ms):  # `on_clock_step` says so
            return
        limit_ms = self._settings.output.max_mask_age_ms
        reason = f"the mask was {age_ms:.0f} ms old when it was ready, output.max_mask_age_ms is {limit_ms:g}"
        self.get_logger().error(f"no label image: {reason}", throttle_duration_sec=FAILURE_LOG_PERIOD_S)
        self._record = self._record.with_too_old(reason, age_ms)

    def on_clock_step(self, step_s: float) -> None:
        """Say why every sensor is waited for again, and forget what was timed by the clock as it was."""
        direction = "forward" if step_s > 0 else "back"
        self.get_logger().warning(f"the clock was set {direction} by {abs(step_s):.1f} s: every sensor starts anew")
        self._record = self._record.without_times()
        if self._rig is not None:
            self._rig.on_clock_step()

    def on_inference_failure(self, error: Exception) -> None:
        """Count it; the next frame is tried all the same. A bug is told with its traceback."""
        if isinstance(error, (EngineError, InputError)):
            reason = str(error)
            self.get_logger().error(f"no label image: {reason}", throttle_duration_sec=FAILURE_LOG_PERIOD_S)
        else:
            reason, trace = repr(error), "".join(format_exception(error))
            self.get_logger().error(f"no label image, by a bug: {trace}", throttle_duration_sec=FAILURE_LOG_PERIOD_S)
        self._record = replace(self._record, failures=self._record.failures + 1, last_error=reason)

    # --- parameters ----------------------------------------------------------------------------------------------

    def _declare_parameters(self) -> None:
        """Those that were not set at the start; unknown ones that were are reported at configure."""
        defaults = node_parameters.defaults_for(self._parameter_values())
        for name, value in node_parameters.to_values(defaults).items():
            if not self.has_parameter(name):
                self.declare_parameter(name, value, _descriptor(name, value), ignore_override=True)
            self.set_descriptor(name, _descriptor(name, value))

    def _parameter_values(self) -> dict[str, Any]:
        return {name: parameter.value for name, parameter in self.get_parameters_by_prefix("").items()}

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Validate the whole set with the changes in it, then use it."""
        before = self._parameter_values()
        if self._worker is not None:
            fixed = [c.name for c in changes if not node_parameters.may_change_to(c.name, before.get(c.name), c.value)]
            if fixed:
                reason = f"{', '.join(fixed)} can be changed only before configure: clean up the node first"
                return SetParametersResult(successful=False, reason=reason)
        after = before | {change.name: change.value for change in changes}
        try:
            self._reconfigure(node_parameters.from_values(after))
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for line in node_parameters.differences(before, after):
            self.get_logger().warning(f"parameter {line}")
        return SetParametersResult(successful=True)

    def _reconfigure(self, new: Parameters) -> None:
        if self._card is not None and self._planners is not None:
            self._planners.reconfigure(output_classes(self._card, new), new)
        old, self._settings = self._settings, new
        if self._worker is None:
            return
        self._worker.output = new.output

        def apply(pipeline: Pipeline, now_ns: int) -> None:
            pipeline.reconfigure(new.health(pipeline.modalities), new.sync, now_ns, new.cross_examination)
            for modality in pipeline.modalities:
                if new.modalities[modality].enabled != old.modalities[modality].enabled:
                    pipeline.set_enabled(modality, new.modalities[modality].enabled, now_ns)

        self._worker.apply(apply)

    def _input(self, modality: Sensor, worker: InferenceWorker) -> SensorInput:
        settings = self._settings.modalities[modality]
        assert self._rig is not None
        if modality.kind is EVENT:
            return EventInput(self, modality, settings, worker, self._rig, self._settings.events)
        return SensorInput(self, modality, settings, worker, self._rig)

    def _modalities(self) -> tuple[Sensor, ...]:
        """Those that the student takes. Raises ParameterError where none of them can be an anchor."""
        assert self._card is not None
        taken = self._card.modalities
        if not set(taken) & set(self._settings.sync.anchor_order):
            order = ", ".join(map(str, self._settings.sync.anchor_order))
            raise ParameterError(
                f"sync.anchor_order ({order}) names none of the modalities that student {self._card.name} "
                f"takes ({', '.join(map(str, taken))}): add one of them"
            )
        return taken

    # --- services and diagnostics --------------------------------------------------------------------------------

    def _offer_outputs(self, card: ModelCard) -> None:
        """Everything that a configured node has; `_configured` ends it."""
        classes = output_classes(card, self._settings)
        self._outputs = MaskOutputs(self, card, classes)
        self._configured.append(self._outputs.destroy)
        self._planners = PlannerOutputs(self, classes, self._settings)
        self._configured.append(self._planners.destroy)

    def _offer_services(self) -> None:
        """What answers in every state. Nothing of it is ever destroyed: a request may be on its way at any moment."""
        diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(Trigger, "~/clear_faults", self._on_clear_faults)
        for modality in node_parameters.defaults_for(self._parameter_values()).modalities:
            self._offer_switch(modality)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulated one may run at any speed, or not at all
        self.create_timer(DIAGNOSTICS_PERIOD_S, lambda: self._publish_diagnostics(diagnostics), clock=steady)
        self.create_timer(NO_PUBLISHER_PERIOD_S, self._check_connections, clock=steady)
        self.create_timer(BEAT_NS / NS_PER_S, self._lag.beat, clock=steady)

    def _offer_switch(self, modality: Sensor) -> None:
        def on_request(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            change = Parameter(f"modalities.{modality}.enabled", value=request.data)
            result = self.set_parameters([change])[0]
            response.success, response.message = result.successful, result.reason
            if result.successful and self._card is not None and modality not in self._card.modalities:
                response.message = f"it makes no difference: student {self._card.name} takes no {modality}"
            return response

        self.create_service(SetBool, f"~/set_{modality}_enabled", on_request)

    def _on_clear_faults(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None or not self._worker.is_started:
            response.success, response.message = False, "the node is not active: there are no faults to clear"
            return response
        self._worker.apply(lambda pipeline, now_ns: pipeline.clear_faults(now_ns))
        response.success = True
        return response

    def _publish_diagnostics(self, publisher: Any) -> None:
        stamp, name = time_message(self._now_ns()), self.get_fully_qualified_name()
        if self._worker is None or self._outputs is None:
            publisher.publish(for_node(unconfigured_array(stamp, self._failed), name))
            return
        if self._rig is not None:
            self._rig.look_for_latched()
            self._rig.refresh()  # TF may have learnt the extrinsics since the last look
        statuses = self._worker.apply(lambda pipeline, now_ns: pipeline.statuses(now_ns))
        engine, student = self._worker.engine_state, self._outputs.student_values
        self._log_engine(engine)
        if statuses is None:  # configured, not active
            publisher.publish(for_node(inactive_array(stamp, engine, student), name))
        else:
            topics = self.sensor_topics
            record = replace(self._record, callback_errors=self.callback_errors)
            if stands_still := self._clock_stands_still():
                record = replace(record, blocked=stands_still)
            lag_ns = self._lag.lag_ns()
            array = diagnostics_array(stamp, statuses, record, engine, student, topics, lag_ns)
            publisher.publish(for_node(array, name))
            self._feed_watchdog(statuses)
        self._follow_build()

    def _clock_stands_still(self) -> str:
        """In words, where a simulated clock has told no new time since the last diagnostics; else empty."""
        before_ns, self._told_ns = self._told_ns, self._now_ns()
        if self._told_ns != before_ns or not self.get_clock().ros_time_is_active:
            return ""
        return "/clock stands still" if self._told_ns else "use_sim_time is true, and no time has come on /clock"

    def _feed_watchdog(self, statuses: Sequence[ModalityStatus]) -> None:
        """Tell systemd that the node does what it can: masks go out, or it says that no sensor gives it anything."""
        nothing_lives = all(s.state not in ALIVE or s.left_out for s in statuses)
        if self._record.masks_come(statuses, self._now_ns()) or nothing_lives:
            notify(READY, WATCHDOG)

    def _follow_build(self) -> None:
        """Say how a build that goes on since configure gets on; where it failed, the node is unconfigured again."""
        if not self._building or self._worker is None:
            return
        if self._worker.is_opening:
            progress = self._worker.engine_state.progress
            self.get_logger().info(f"the engine is not ready: {progress}", throttle_duration_sec=BUILD_LOG_PERIOD_S)
            return
        self._building = False
        error = self._worker.opening_error()
        if error is None:
            return
        self._log_failed("configure", error)
        self.build_failed = True
        if self._worker.is_started:
            self.trigger_deactivate()
        self.trigger_cleanup()

    def _log_engine(self, engine: EngineState) -> None:
        """Say what runs, whenever that has changed."""
        if engine.info is None or engine.info is self._logged:
            return
        self._logged = info = engine.info
        details = "".join(f"; {name}: {value}" for name, value in info.details.items())
        self.get_logger().info(f"engine: {info.backend} on {info.device}, {info.precision} ({info.reason}){details}")
        if engine.warning:
            self.get_logger().warning(engine.warning)

    def _check_connections(self) -> None:
        for sensor in self._inputs:
            if self._settings.modalities[sensor.modality].enabled:
                sensor.check_connection()

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # --- the end -------------------------------------------------------------------------------------------------

    def _end_activity(self) -> None:
        """Every step, also after one that raises."""
        with ExitStack() as steps:  # the last one first
            if self._worker is not None:
                steps.callback(self._worker.stop)
            if self._rig is not None:
                steps.callback(self._rig.destroy)
            for sensor in self._inputs:
                steps.callback(sensor.destroy)
            self._rig, self._inputs = None, []

    def _end_everything(self) -> None:
        """Every step, also after one that raises."""
        try:
            with ExitStack() as steps:  # the last one first
                for end in self._configured:
                    steps.callback(end)
                if self._worker is not None:
                    steps.callback(self._worker.close)
                steps.callback(self._end_activity)
        finally:
            self._configured = []
            self._building = False
            self._worker = self._card = self._outputs = self._planners = None

    def _end_what_failed(self) -> None:
        """After a transition that failed, whatever it left."""
        try:
            self._end_everything()
        except Exception as error:
            self.get_logger().error(f"ending what failed: {''.join(format_exception(error))}")
        give_back_memory()


def _descriptor(name: str, value: Any) -> ParameterDescriptor:
    """What `ros2 param describe` tells of a parameter. 10 is a fine 10.0, so types are checked by `parameters`."""
    documented = about(name)
    descriptor = ParameterDescriptor(name=name, dynamic_typing=True, description=documented.description)
    descriptor.type = Parameter.Type.from_parameter_value(value).value
    limits = documented.allowed
    if limits is not None and isinstance(value, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=limits.low, to_value=limits.high)]
    elif limits is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(limits.low), to_value=int(limits.high), step=1)]
    return descriptor


def start(node: SegmentationNode) -> int | None:
    """What the parameters `autostart` and `model.build_only` ask for; returns an exit code where that is all.

    A node that was to start itself and cannot be configured ends with 1: nobody else would configure it again.
    """
    build_only = node.get_parameter("model.build_only").value is True
    if not build_only and not node.starts_itself:
        return None
    if node.trigger_configure() is not TransitionCallbackReturn.SUCCESS:
        return 1
    if build_only:
        return after_build(node)
    return None if node.trigger_activate() is TransitionCallbackReturn.SUCCESS else 1


def end_of(node: SegmentationNode) -> int | None:
    """The exit code of a node that has nothing left to do, or can do nothing any more; else None."""
    if node.worker_bug is not None:
        print(f"error: the worker ended, by a bug:\n{''.join(format_exception(node.worker_bug))}", file=sys.stderr)
        return 1
    if node.starts_itself and node.build_failed:
        return 1
    return after_build(node)


def after_build(node: SegmentationNode) -> int | None:
    """The exit code that `model.build_only` asks for, once the engine is built; None before, or without it."""
    if node.get_parameter("model.build_only").value is not True or node.is_building:
        return None
    return 1 if node.build_failed else 0


def engine_settings(model: ModelParameters) -> EngineSettings:
    """What the worker needs of the parameters."""
    return EngineSettings(
        model.backend, model.threads, model.build_options(), model.on_engine_failure, model.open_timeout_s
    )


def main() -> None:
    """Entry point `segmentation_node`."""
    sys.exit(run(SegmentationNode, start, finished=end_of))


if __name__ == "__main__":
    main()
