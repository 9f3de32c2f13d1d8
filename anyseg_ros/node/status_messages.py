"""Health and engine -> diagnostic messages (REP-107 levels; STALE is left to the aggregator).

What is said of inference is computed from the masks that were published, not from what could be segmented: OK means
that the masks of the last second or so had every sensor in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anyseg_core.runtime.clock_steps import is_within
from anyseg_core.runtime.health.monitor import DEFAULT_CHECKS, Fault, ModalityStatus, State
from anyseg_core.runtime.health.state import ALIVE
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.messages.headers import time_message
from anyseg_ros.pipeline.engine_owner import EnginePhase, EngineState
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.status_lines import (
    ERROR,
    HARDWARE,
    OK,
    PREFIX,
    WARN,
    StatusLine,
    level_of,
    mask_lines,
    number_text,
    sensor_line,
    status_key,
    status_name,
)

ENGINE = "engine"
"""Name of the status that says what runs the network."""
MASK_PATIENCE_NS = NS_PER_S
"""Without a mask for so long, and for `PATIENT_PERIODS` of every living sensor, there is none."""
PATIENT_PERIODS = 3
HIGH_LATENCY = 0.5
"""Of `output.max_mask_age_ms`: masks that are older when they leave deserve a warning before they are withheld."""


@dataclass(frozen=True)
class InferenceRecord:
    """What inference has done since the node was activated."""

    masks: int = 0
    failures: int = 0
    last_error: str = ""
    """Of the last attempt; empty when it succeeded."""
    used_ages_ms: Mapping[Sensor, float] = field(default_factory=dict)
    """What the last mask was made from, with the age that each frame had then."""
    blocked: str = ""
    """Why no mask can be made now; empty while one can."""
    last_mask_ns: int | None = None
    """When the last mask was published; None before the first."""
    in_mask_ns: Mapping[Sensor, int] = field(default_factory=dict)
    """When each modality was last in a mask that was published."""
    max_mask_age_ms: float = float("inf")
    """`output.max_mask_age_ms`"""
    callback_errors: int = 0
    """Exceptions that nobody foresaw."""
    encode_ms: float = 0.0
    engine_ms: float = 0.0
    latency_ms: float = 0.0
    """From the stamp of the anchor frame to the end of inference."""
    lidar_motion: str = ""
    """What the scan in the last mask was compensated with, or why it was not."""
    lost_classes: str = ""
    """Which classes the last mask sees worse for the lack of sensors."""
    too_old: int = 0
    """Masks that were withheld for their age."""

    def masks_come(self, statuses: Sequence[ModalityStatus], now_ns: int) -> bool:
        """Whether the last mask is so recent that the next one may still be awaited."""
        if self.blocked or self.last_mask_ns is None:
            return False
        return is_within(self.last_mask_ns, now_ns, _patience_ns(statuses, self))

    def in_masks(self, modality: Sensor, now_ns: int, patience_ns: int) -> bool:
        """Whether it was in a mask within that time."""
        last_ns = self.in_mask_ns.get(modality)
        return last_ns is not None and is_within(last_ns, now_ns, patience_ns)

    def with_too_old(self, reason: str, age_ms: float) -> InferenceRecord:
        """After a mask that was withheld for its age, in milliseconds."""
        return replace(self, too_old=self.too_old + 1, last_error=reason, latency_ms=age_ms, used_ages_ms={})

    def without_times(self) -> InferenceRecord:
        """After the clock was set: no mask has been made by it yet."""
        return replace(self, last_mask_ns=None, in_mask_ns={}, used_ages_ms={})


def modality_status(status: ModalityStatus, used_age_ms: float | None) -> DiagnosticStatus:
    """As `status_lines.sensor_line`."""
    return _message(sensor_line(status, used_age_ms))


def status_array(
    stamp: Time, statuses: Sequence[ModalityStatus], used_ages_ms: Mapping[Sensor, float]
) -> DiagnosticArray:
    """`~/modality_status`: one status a modality; `used_ages_ms` are those in the mask of that stamp."""
    array = DiagnosticArray(status=[modality_status(s, used_ages_ms.get(s.modality)) for s in statuses])
    array.header.stamp = stamp
    return array


def mask_array(result: Result, also: Mapping[str, str] = MappingProxyType({})) -> DiagnosticArray:
    """`~/modality_status` of a mask: its modalities, then how it was made, and what else there is to say of it."""
    array = DiagnosticArray(status=list(map(_message, mask_lines(result, also))))
    array.header.stamp = time_message(result.job.anchor_frame.stamp_ns)
    return array


def for_node(array: DiagnosticArray, node: str) -> DiagnosticArray:
    """The same array, in place, with the node's full name in every status: a vehicle may have several."""
    for status in array.status:
        status.hardware_id = node
        status.name = status_name(status_key(status.name), node)
    return array


def topic_status(status: ModalityStatus, topic: str) -> DiagnosticStatus:
    """The same sensor by its resolved topic, in the keys that the dashboard of greenwave_monitor reads.

    The dashboard takes a name from its first `/` on for the topic. Rates are in Hz, the delay is from the newest
    frame's stamp to now, the tolerance in percent of the expected rate.
    """
    values = {
        "frame_rate_node": number_text(status.rate_hz),
        "current_delay_from_realtime_ms": number_text(status.age_ms),
        "expected_frequency": number_text(status.expected_rate_hz),
        "tolerance": number_text(100 * (1 - DEFAULT_CHECKS[Fault.LOW_RATE].threshold)),
    }
    message = f"{status.state}: {status.fault}" if status.fault else str(status.state)
    return _status(f"{status.modality} topic{topic}", level_of(status), message, values)


def diagnostics_array(
    stamp: Time,
    statuses: Sequence[ModalityStatus],
    record: InferenceRecord,
    engine: EngineState,
    student: Mapping[str, str],
    topics: Mapping[Sensor, str] = MappingProxyType({}),
    lag_ns: int = 0,
) -> DiagnosticArray:
    """`/diagnostics`: every modality, by its (resolved) topic too, inference, and engine.

    `student` is what the engine's status says of it; `lag_ns` is how late the computer is.
    """
    if engine.phase is not EnginePhase.READY:
        record = replace(record, blocked=_not_ready(engine))
    now_ns = stamp.sec * NS_PER_S + stamp.nanosec
    array = status_array(stamp, statuses, record.used_ages_ms if record.masks_come(statuses, now_ns) else {})
    by_topic = [topic_status(s, topics[s.modality]) for s in statuses if s.modality in topics]
    inference = inference_status(statuses, record, now_ns, lag_ns)
    array.status = [*array.status, *by_topic, inference, engine_status(engine, student)]
    return array


def inactive_array(stamp: Time, engine: EngineState, student: Mapping[str, str]) -> DiagnosticArray:
    """`/diagnostics` of a node that is configured and not active."""
    return _array_without_mask(stamp, "the node is not active", [engine_status(engine, student)])


def unconfigured_array(stamp: Time, failed: str = "") -> DiagnosticArray:
    """`/diagnostics` of a node that is not configured; `failed`: which transition failed before, and why."""
    return _array_without_mask(stamp, f"the node is not configured{f': {failed}' if failed else ''}")


def _array_without_mask(stamp: Time, why: str, others: Sequence[DiagnosticStatus] = ()) -> DiagnosticArray:
    array = DiagnosticArray(status=[_status("inference", ERROR, f"no label image: {why}", {}), *others])
    array.header.stamp = stamp
    return array


def inference_status(
    statuses: Sequence[ModalityStatus], record: InferenceRecord, now_ns: int, lag_ns: int = 0
) -> DiagnosticStatus:
    """ERROR without masks, WARN where they lack a sensor or are late, OK where every enabled sensor is in them."""
    masks_come = record.masks_come(statuses, now_ns)
    if not masks_come:
        level, message = ERROR, f"no label image: {_why_none(statuses, record)}"
    else:
        level, message = _how_masks_are(statuses, record, now_ns)
    if lag_ns:
        level = max(level, WARN)
        message += f"; this computer is overloaded: the executor is {lag_ns / NS_PER_MS:.0f} ms late"
    values = {
        "masks": record.masks,
        "failures": record.failures,
        "too_old": record.too_old,
        "used": ",".join(map(str, record.used_ages_ms)) if masks_come else "",
        "encode_ms": number_text(record.encode_ms),
        "engine_ms": number_text(record.engine_ms),
        "latency_ms": number_text(record.latency_ms),
        "lag_ms": number_text(lag_ns / NS_PER_MS),
        "callback_errors": record.callback_errors,
        "lidar_motion": record.lidar_motion,
        "lost_classes": record.lost_classes,
    }
    return _status("inference", level, message, values)


def _patience_ns(statuses: Sequence[ModalityStatus], record: InferenceRecord) -> int:
    """How long a mask may be awaited: some periods of the fastest sensor of the last one that still lives."""
    alive = [s for s in statuses if s.modality in record.used_ages_ms and s.state in ALIVE]
    return min((_patience_with_ns(s) for s in alive), default=MASK_PATIENCE_NS)


def _patience_with_ns(status: ModalityStatus) -> int:
    """How long a sensor may be missing from the masks that are made."""
    rate_hz = min((rate for rate in (status.rate_hz, status.expected_rate_hz) if rate), default=0.0)
    return max(MASK_PATIENCE_NS, int(PATIENT_PERIODS * NS_PER_S / rate_hz) if rate_hz else 0)


def _why_none(statuses: Sequence[ModalityStatus], record: InferenceRecord) -> str:
    """Why there is no mask: what inference failed for, else what is wrong with each sensor that lives."""
    alive = [s for s in statuses if s.state in ALIVE]
    if record.blocked:
        return record.blocked
    if not alive:
        return "no modality is usable"
    if record.last_error:
        return record.last_error
    reasons = [f"{s.modality}: {why}" for s in alive if (why := s.why)]
    return "; ".join(reasons) or "none was made of the sensors that live"


def _how_masks_are(statuses: Sequence[ModalityStatus], record: InferenceRecord, now_ns: int) -> tuple[int, str]:
    """Level and message where masks come."""
    wanted = [s for s in statuses if s.state is not State.DISABLED]
    without = [s for s in wanted if not record.in_masks(s.modality, now_ns, _patience_with_ns(s))]
    without += [s for s in wanted if s.state is State.FAILED and s.modality not in record.used_ages_ms]
    lacking = [str(s.modality) for s in wanted if s in without]
    if lacking:
        return WARN, f"segmenting without {', '.join(lacking)}"
    poor = [f"{s.modality} ({s.fault or s.state})" for s in wanted if s.state is not State.ACTIVE]
    if poor:
        return WARN, f"segmenting with every modality, not all of them well: {', '.join(poor)}"
    if record.last_error:
        return WARN, f"segmenting with every modality, not every time: {record.last_error}"
    if record.latency_ms > HIGH_LATENCY * record.max_mask_age_ms:
        old = f"{record.latency_ms:.0f} ms old when they leave"
        return WARN, f"segmenting with every modality; masks are {old}"
    return OK, "segmenting with every modality"


def engine_status(engine: EngineState, student: Mapping[str, str]) -> DiagnosticStatus:
    """What really runs, and why it was chosen; while nothing does, what is being done about it.

    OK when it runs, WARN while it is opened or built, or runs with something to mend, ERROR when it failed.
    """
    values: dict[str, Any] = {**student, "state": engine.phase.value, "failures": engine.failures}
    if engine.progress is not None:
        values |= {"percent": f"{engine.progress.percent:.0f}", "elapsed_s": f"{engine.progress.elapsed_s:.0f}"}
    if engine.info is None:
        level = ERROR if engine.phase is EnginePhase.FAILED else WARN
        return _status(ENGINE, level, _not_ready(engine), values)
    info = engine.info
    values |= {"backend": info.backend, "device": info.device, "precision": info.precision, "reason": info.reason}
    level = WARN if engine.warning else OK
    return _status(ENGINE, level, engine.warning or f"{info.backend} on {info.device}", {**values, **info.details})


def _not_ready(engine: EngineState) -> str:
    if engine.phase is EnginePhase.BUILDING:
        return f"BUILDING: the engine is not ready yet: {engine.progress}"
    if engine.phase is EnginePhase.OPENING:
        return f"the engine is being opened{f' after a failure: {engine.error}' if engine.error else ''}"
    return f"the engine failed: {engine.error}"


def _status(name: str, level: int, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    return _message(StatusLine(name, level, message, values))


def _message(line: StatusLine) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in line.values.items()]
    return DiagnosticStatus(
        name=PREFIX + line.name, level=bytes([line.level]), message=line.message, hardware_id=HARDWARE, values=pairs
    )
