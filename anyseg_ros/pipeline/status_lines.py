"""What the status of a sensor and of a mask says: the node publishes it, and a bag of masks holds the same.

Levels are those of diagnostic_msgs/DiagnosticStatus (REP 107); STALE is left to the aggregator. No ROS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from anyseg_core.runtime.health.state import ALIVE, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.pipeline.jobs import Result

PREFIX = "anyseg: "
"""Before each name in a message."""
HARDWARE = "anyseg"
MASK = "mask"
"""Name of the status that says how the mask was made."""
_OF_SENSOR = " status"
"""Behind a sensor's name, in the name of its status."""
OK, WARN, ERROR = 0, 1, 2
_LEVELS: Mapping[State, int] = {State.ACTIVE: OK, State.DISABLED: OK, State.FAILED: ERROR, State.DISPUTED: ERROR}
"""Of the others: WARN."""
LATE = "no frame of it lies near this mask's"
"""Why a sensor that is well is not in one mask, where nothing else tells."""


class StatusLine(NamedTuple):
    """A DiagnosticStatus before it is a message of one of the libraries."""

    name: str
    """Without the prefix."""
    level: int
    message: str
    values: Mapping[str, Any]


def sensor_line(status: ModalityStatus, used_age_ms: float | None) -> StatusLine:
    """The health of one modality, and the age of its frame in the mask. An absent number is an empty value.

    `first_s` and `last_s` are when the present fault was seen first and last, `since_s` when the state began, all on
    the node's clock.
    """
    values: dict[str, Any] = {
        "state": status.state,
        "fault": status.fault or "",
        "used": str(used_age_ms is not None).lower(),
        "used_age_ms": number_text(used_age_ms),
        "age_ms": number_text(status.age_ms),
        "rate_hz": number_text(status.rate_hz),
        "quality": number_text(status.quality.value if status.quality else None, digits=2),
        "quality_cause": status.quality.cause if status.quality else "",
        "left_out": status.left_out,
        "remark": status.remark,
        **status.details,
        "received": status.received,
        "rejected": status.rejected,
        "first_s": _seconds(status.first_ns),
        "last_s": _seconds(status.last_ns),
        "since_s": _seconds(status.since_ns),
        "recover_time_s": number_text(status.recover_time_s),
        **{f"count.{fault}": count for fault, count in status.fault_counts.items()},
    }
    message = f"{status.state}: {status.fault}: {status.reason}" if status.fault else _quiet_message(status)
    message += f"; {status.remark}" if status.remark else ""
    return StatusLine(
        f"{status.modality}{_OF_SENSOR}", level_of(status, is_used=used_age_ms is not None), message, values
    )


def mask_lines(result: Result, also: Mapping[str, str] = MappingProxyType({})) -> list[StatusLine]:
    """Of the sensors when a mask was begun, then of the mask: how it was made, and what else there is to say of it."""
    segmentation, job, ages_ms = result.segmentation, result.job, used_ages_ms(result)
    used = list(map(str, segmentation.modalities))
    values = {
        "anchor": job.anchor,
        "used": ",".join(used),
        "encode_ms": number_text(1e3 * segmentation.encode_s),
        "engine_ms": number_text(1e3 * segmentation.engine_s),
        "lidar_motion": job.motion or "",
        **also,
    }
    sensors = [_line_in_mask(status, ages_ms.get(status.modality)) for status in job.statuses]
    return [*sensors, StatusLine(MASK, OK, f"made from {', '.join(used)}", values)]


def _line_in_mask(status: ModalityStatus, used_age_ms: float | None) -> StatusLine:
    """One that is well and not in the mask says so: its frame came too late for this one."""
    is_late = used_age_ms is None and status.state in ALIVE and not status.why
    return sensor_line(replace(status, reason=LATE) if is_late else status, used_age_ms)


def used_ages_ms(result: Result) -> dict[Sensor, float]:
    """The modalities of a mask, and the age of each frame when the mask was begun."""
    ages_ms = result.job.ages_ms()
    return {m: ages_ms[m] for m in result.segmentation.modalities}


def status_name(key: str, node: str) -> str:
    """`camera status` -> `anyseg /vehicle/segmentation_node: camera status`, as panels and aggregators know it.

    A status by topic has the topic's full name already, which tools take from the first slash on.
    """
    return PREFIX + key if "/" in key else f"{PREFIX.removesuffix(': ')} {node}: {key}"


def status_key(name: str) -> str:
    """`anyseg /vehicle/segmentation_node: camera status` -> `camera status`, with or without the node's name."""
    return name.partition(": ")[2]


def sensor_named(key: str) -> str | None:
    """`camera status` -> `camera`; None of the key of a status that is no sensor's."""
    return key.removesuffix(_OF_SENSOR) if key.endswith(_OF_SENSOR) else None


def level_of(status: ModalityStatus, *, is_used: bool = False) -> int:
    """That of the state; a sensor that is left out, or has something to mend, is not as it should be; one that has
    failed by its timing, or is in dispute, and is used is not lost."""
    level = _LEVELS.get(status.state, WARN)
    if is_used and level == ERROR:
        return WARN
    return max(level, WARN) if status.left_out or status.remark else level


def _quiet_message(status: ModalityStatus) -> str:
    if status.left_out:
        return f"{status.state}, left out: {status.left_out}"
    return f"{status.state}: {status.reason}" if status.reason else str(status.state)


def number_text(value: float | None, digits: int = 1) -> str:
    """Empty for one that is not known."""
    return "" if value is None else f"{value:.{digits}f}"


def _seconds(time_ns: int | None) -> str:
    return "" if time_ns is None else f"{time_ns / NS_PER_S:.3f}"
