"""Health and engine -> diagnostic messages (REP-107 levels; STALE is left to the aggregator)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anyseg_core.runtime.health.monitor import DEFAULT_CHECKS, Fault, ModalityStatus, State
from anyseg_core.runtime.modality import Modality
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.headers import time_message
from anyseg_ros.pipeline.engine_owner import EnginePhase, EngineState
from anyseg_ros.pipeline.pipeline import Result

PREFIX = "anyseg: "
ENGINE = "engine"
"""Name of the status that says what runs the network."""
MASK = "mask"
"""Name of the status that says how the mask was made."""
LEVELS: Mapping[State, bytes] = {
    State.ACTIVE: DiagnosticStatus.OK,
    State.DISABLED: DiagnosticStatus.OK,
    State.WAITING: DiagnosticStatus.WARN,
    State.SUSPECT: DiagnosticStatus.WARN,
    State.RECOVERING: DiagnosticStatus.WARN,
    State.FAILED: DiagnosticStatus.ERROR,
}


@dataclass(frozen=True)
class InferenceRecord:
    """What inference has done since the node was activated."""

    masks: int = 0
    failures: int = 0
    last_error: str = ""
    """Of the last attempt; empty when it succeeded."""
    used_ages_ms: Mapping[Modality, float] = field(default_factory=dict)
    """What the last mask was made from, with the age that each frame had then."""
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

    def with_too_old(self, reason: str, age_ms: float) -> InferenceRecord:
        """After a mask that was withheld for its age, in milliseconds."""
        return replace(self, too_old=self.too_old + 1, last_error=reason, latency_ms=age_ms, used_ages_ms={})


def status_array(
    stamp: Time, statuses: Sequence[ModalityStatus], used_ages_ms: Mapping[Modality, float]
) -> DiagnosticArray:
    """`~/modality_status`: one status a modality; `used_ages_ms` are those in the mask of that stamp."""
    array = DiagnosticArray(status=[modality_status(s, used_ages_ms.get(s.modality)) for s in statuses])
    array.header.stamp = stamp
    return array


def mask_array(result: Result, also: Mapping[str, str] = MappingProxyType({})) -> DiagnosticArray:
    """`~/modality_status` of a mask: its modalities, then how it was made, and what else there is to say of it."""
    segmentation, job = result.segmentation, result.job
    array = status_array(time_message(job.anchor_frame.stamp_ns), job.statuses, used_ages_ms(result))
    values = {
        "anchor": job.anchor,
        "used": ",".join(map(str, segmentation.modalities)),
        "encode_ms": _number(1e3 * segmentation.encode_s),
        "engine_ms": _number(1e3 * segmentation.engine_s),
        "lidar_motion": job.motion or "",
        **also,
    }
    made_from = f"made from {', '.join(map(str, segmentation.modalities))}"
    array.status = [*array.status, _status(MASK, DiagnosticStatus.OK, made_from, values)]
    return array


def used_ages_ms(result: Result) -> dict[Modality, float]:
    """The modalities of a mask, and the age of each frame when the mask was begun."""
    job = result.job
    return {m: (job.created_ns - job.frames[m].stamp_ns) / 1e6 for m in result.segmentation.modalities}


def modality_status(status: ModalityStatus, used_age_ms: float | None) -> DiagnosticStatus:
    """The health of one modality, and the age of its frame in the mask. An absent number is an empty value.

    `first_s` and `last_s` are when the present fault was seen first and last, `since_s` when the state began, all on
    the node's clock.
    """
    values: dict[str, Any] = {
        "state": status.state,
        "fault": status.fault or "",
        "used": str(used_age_ms is not None).lower(),
        "used_age_ms": _number(used_age_ms),
        "age_ms": _number(status.age_ms),
        "rate_hz": _number(status.rate_hz),
        "quality": _number(status.quality.value if status.quality else None, digits=2),
        "quality_cause": status.quality.cause if status.quality else "",
        "left_out": status.left_out,
        "received": status.received,
        "rejected": status.rejected,
        "first_s": _seconds(status.first_ns),
        "last_s": _seconds(status.last_ns),
        "since_s": _seconds(status.since_ns),
        "recover_time_s": _number(status.recover_time_s),
        **{f"count.{fault}": count for fault, count in status.fault_counts.items()},
    }
    message = f"{status.state}: {status.fault}: {status.reason}" if status.fault else _quiet_message(status)
    return _status(f"{status.modality} status", _level(status), message, values)


def _level(status: ModalityStatus) -> bytes:
    """That of the state; a sensor that is left out for its quality is not as it should be."""
    return DiagnosticStatus.WARN if status.left_out else LEVELS[status.state]


def topic_status(status: ModalityStatus, topic: str) -> DiagnosticStatus:
    """The same sensor by its resolved topic, in the keys that the dashboard of greenwave_monitor reads.

    The dashboard takes a name from its first `/` on for the topic. Rates are in Hz, the delay is from the newest
    frame's stamp to now, the tolerance in percent of the expected rate.
    """
    values = {
        "frame_rate_node": _number(status.rate_hz),
        "current_delay_from_realtime_ms": _number(status.age_ms),
        "expected_frequency": _number(status.expected_rate_hz),
        "tolerance": _number(100 * (1 - DEFAULT_CHECKS[Fault.LOW_RATE].threshold)),
    }
    message = f"{status.state}: {status.fault}" if status.fault else str(status.state)
    return _status(f"{status.modality} topic{topic}", _level(status), message, values)


def diagnostics_array(
    stamp: Time,
    statuses: Sequence[ModalityStatus],
    record: InferenceRecord,
    engine: EngineState,
    student: str,
    topics: Mapping[Modality, str] = MappingProxyType({}),
) -> DiagnosticArray:
    """`/diagnostics`: every modality, by its (resolved) topic too, inference, and engine."""
    if engine.phase is not EnginePhase.READY:
        record = replace(record, last_error=_not_ready(engine))
    usable = [s.modality for s in statuses if s.state is State.ACTIVE]
    array = status_array(stamp, statuses, record.used_ages_ms if usable else {})
    by_topic = [topic_status(s, topics[s.modality]) for s in statuses if s.modality in topics]
    array.status = [*array.status, *by_topic, inference_status(statuses, record), engine_status(engine, student)]
    return array


def engine_array(stamp: Time, engine: EngineState, student: str) -> DiagnosticArray:
    """`/diagnostics` of a node that is configured and not active."""
    array = DiagnosticArray(status=[engine_status(engine, student)])
    array.header.stamp = stamp
    return array


def unconfigured_array(stamp: Time) -> DiagnosticArray:
    """`/diagnostics` of a node that is not configured: no label image comes of it."""
    message = "no label image: the node is not configured"
    array = DiagnosticArray(status=[_status("inference", DiagnosticStatus.ERROR, message, {})])
    array.header.stamp = stamp
    return array


def inference_status(statuses: Sequence[ModalityStatus], record: InferenceRecord) -> DiagnosticStatus:
    """OK with every enabled modality, WARN with some, ERROR with none."""
    wanted = [s for s in statuses if s.state is not State.DISABLED]
    lost = [str(s.modality) for s in wanted if s.state is not State.ACTIVE or s.left_out]
    if len(lost) == len(wanted):
        level, message = DiagnosticStatus.ERROR, "no label image: no modality is usable"
    elif record.last_error:
        level, message = DiagnosticStatus.ERROR, f"no label image: {record.last_error}"
    elif lost:
        level, message = DiagnosticStatus.WARN, f"segmenting without {', '.join(lost)}"
    else:
        level, message = DiagnosticStatus.OK, "segmenting with every modality"
    values = {
        "masks": record.masks,
        "failures": record.failures,
        "too_old": record.too_old,
        "used": ",".join(map(str, record.used_ages_ms)),
        "encode_ms": _number(record.encode_ms),
        "engine_ms": _number(record.engine_ms),
        "latency_ms": _number(record.latency_ms),
        "lidar_motion": record.lidar_motion,
        "lost_classes": record.lost_classes,
    }
    return _status("inference", level, message, values)


def engine_status(engine: EngineState, student: str) -> DiagnosticStatus:
    """What really runs, and why it was chosen; while nothing does, what is being done about it.

    OK when it runs, WARN while it is opened or built, or runs with something to mend, ERROR when it failed.
    """
    values: dict[str, Any] = {"student": student, "state": engine.phase.value, "failures": engine.failures}
    if engine.progress is not None:
        values |= {"percent": f"{engine.progress.percent:.0f}", "elapsed_s": f"{engine.progress.elapsed_s:.0f}"}
    if engine.info is None:
        level = DiagnosticStatus.ERROR if engine.phase is EnginePhase.FAILED else DiagnosticStatus.WARN
        return _status(ENGINE, level, _not_ready(engine), values)
    info = engine.info
    values |= {"backend": info.backend, "device": info.device, "precision": info.precision, "reason": info.reason}
    level = DiagnosticStatus.WARN if engine.warning else DiagnosticStatus.OK
    return _status(ENGINE, level, engine.warning or f"{info.backend} on {info.device}", {**values, **info.details})


def _not_ready(engine: EngineState) -> str:
    if engine.phase is EnginePhase.BUILDING:
        return f"BUILDING: the engine is not ready yet: {engine.progress}"
    if engine.phase is EnginePhase.OPENING:
        return f"the engine is being opened{f' after a failure: {engine.error}' if engine.error else ''}"
    return f"the engine failed: {engine.error}"


def _quiet_message(status: ModalityStatus) -> str:
    if status.left_out:
        return f"{status.state}, left out: {status.left_out}"
    return f"{status.state}: {status.reason}" if status.reason else str(status.state)


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _seconds(time_ns: int | None) -> str:
    return "" if time_ns is None else f"{time_ns / NS_PER_S:.3f}"


def _status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=PREFIX + name, level=level, message=message, hardware_id="anyseg", values=pairs)
