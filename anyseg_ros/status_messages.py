"""Health and engine -> diagnostic messages (REP-107 levels; STALE is left to the aggregator)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anyseg_core.runtime.engine import EngineInfo
from anyseg_core.runtime.health import ModalityStatus, State
from anyseg_core.runtime.modality import Modality
from anyseg_ros.conversions import NS_PER_S
from anyseg_ros.pipeline import Result

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


def status_array(
    stamp: Time, statuses: Sequence[ModalityStatus], used_ages_ms: Mapping[Modality, float]
) -> DiagnosticArray:
    """`~/modality_status`: one status a modality; `used_ages_ms` are those in the mask of that stamp."""
    array = DiagnosticArray(status=[modality_status(s, used_ages_ms.get(s.modality)) for s in statuses])
    array.header.stamp = stamp
    return array


def mask_array(result: Result) -> DiagnosticArray:
    """`~/modality_status` of a mask: its modalities, then how it was made."""
    segmentation, job = result.segmentation, result.job
    array = status_array(time_message(job.anchor_frame.stamp_ns), job.statuses, used_ages_ms(result))
    values = {
        "anchor": job.anchor,
        "used": ",".join(map(str, segmentation.modalities)),
        "encode_ms": _number(1e3 * segmentation.encode_s),
        "engine_ms": _number(1e3 * segmentation.engine_s),
    }
    made_from = f"made from {', '.join(map(str, segmentation.modalities))}"
    array.status = [*array.status, _status(MASK, DiagnosticStatus.OK, made_from, values)]
    return array


def used_ages_ms(result: Result) -> dict[Modality, float]:
    """The modalities of a mask, and the age of each frame when the mask was begun."""
    job = result.job
    return {m: (job.created_ns - job.frames[m].stamp_ns) / 1e6 for m in result.segmentation.modalities}


def modality_status(status: ModalityStatus, used_age_ms: float | None) -> DiagnosticStatus:
    """The health of one modality, and the age of its frame in the mask. An absent number is an empty value."""
    values: dict[str, Any] = {
        "state": status.state,
        "fault": status.fault or "",
        "used": str(used_age_ms is not None).lower(),
        "used_age_ms": _number(used_age_ms),
        "age_ms": _number(status.age_ms),
        "rate_hz": _number(status.rate_hz),
        "received": status.received,
        "rejected": status.rejected,
        **{f"count.{fault}": count for fault, count in status.fault_counts.items()},
    }
    message = f"{status.state}: {status.fault}: {status.reason}" if status.fault else _quiet_message(status)
    return _status(f"{status.modality} status", LEVELS[status.state], message, values)


def diagnostics_array(
    stamp: Time, statuses: Sequence[ModalityStatus], record: InferenceRecord, engine: EngineInfo, student: str
) -> DiagnosticArray:
    """`/diagnostics`: every modality, inference, and engine."""
    usable = [s.modality for s in statuses if s.state is State.ACTIVE]
    array = status_array(stamp, statuses, record.used_ages_ms if usable else {})
    array.status = [*array.status, inference_status(statuses, record), engine_status(record, engine, student)]
    return array


def inference_status(statuses: Sequence[ModalityStatus], record: InferenceRecord) -> DiagnosticStatus:
    """OK with every enabled modality, WARN with some, ERROR with none."""
    wanted = [s for s in statuses if s.state is not State.DISABLED]
    lost = [str(s.modality) for s in wanted if s.state is not State.ACTIVE]
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
        "used": ",".join(map(str, record.used_ages_ms)),
        "encode_ms": _number(record.encode_ms),
        "engine_ms": _number(record.engine_ms),
        "latency_ms": _number(record.latency_ms),
    }
    return _status("inference", level, message, values)


def engine_status(record: InferenceRecord, engine: EngineInfo, student: str) -> DiagnosticStatus:
    """What really runs, and why it was chosen."""
    level = DiagnosticStatus.ERROR if record.last_error else DiagnosticStatus.OK
    values = {
        "student": student,
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        "reason": engine.reason,
    }
    return _status(ENGINE, level, record.last_error or f"{engine.backend} on {engine.device}", values)


def _quiet_message(status: ModalityStatus) -> str:
    return f"{status.state}: {status.reason}" if status.reason else str(status.state)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=PREFIX + name, level=level, message=message, hardware_id="anyseg", values=pairs)


def time_message(time_ns: int) -> Time:
    """Nanoseconds -> builtin_interfaces/Time."""
    return Time(sec=time_ns // NS_PER_S, nanosec=time_ns % NS_PER_S)
