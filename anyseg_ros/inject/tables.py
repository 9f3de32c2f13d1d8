"""What `anyseg inject` prints: the catalogue of faults, a scenario, and what was done to a bag."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Column, Table

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Parameter, ScheduledInjection
from anyseg_core.runtime.sensors import DEFAULT_SENSORS

if TYPE_CHECKING:
    from anyseg_ros.inject.bag import BagReport  # it needs rosbags, which a list of kinds does not


def kinds_table() -> Table:
    """Every kind of fault."""
    table = Table(Column("kind", no_wrap=True), "sensors", "parameters", "imitates", "named by", show_lines=True)
    for name, kind in INJECTION_KINDS.items():
        sensors = "all" if kind.modalities == DEFAULT_SENSORS else ", ".join(kind.modalities)
        parameters = "\n".join(parameter_text(*item) for item in kind.parameters.items()) or "-"
        table.add_row(name, sensors, parameters, kind.imitates, ", ".join(kind.expected) or "-")
    return table


def parameter_text(name: str, parameter: Parameter) -> str:
    """`sigma_px = 8 px (0.1 to 100)`."""
    unit = f" {parameter.unit}" if parameter.unit else ""
    return f"{name} = {parameter.default:g}{unit} ({parameter.low:g} to {parameter.high:g})"


def schedule_table(schedule: InjectionSchedule) -> Table:
    """Every fault of a scenario with its times."""
    table = Table("sensor", "fault", "from s", "to s", "how", title=schedule.description or None)
    for entry in schedule.injections:
        table.add_row(entry.modality, entry.kind, f"{entry.start_s:g}", _time(entry.end_s), _how(entry))
    return table


def bag_table(report: BagReport) -> Table:
    """What each kind of fault did to each sensor, with the messages of its topic."""
    hits: Counter[tuple[str, str, str]] = Counter()
    for entry, count in report.hits:
        hits[entry.modality, report.topics[entry.modality].topic, entry.kind] += count
    table = Table("sensor", "topic", "fault", "messages hit", "read", "written")
    for (modality, topic, kind), count in hits.items():
        table.add_row(modality, topic, kind, str(count), str(report.read[topic]), str(report.written[topic]))
    return table


def _time(seconds: float) -> str:
    return "the end" if math.isinf(seconds) else f"{seconds:g}"


def _how(entry: ScheduledInjection) -> str:
    parts = [f"{name} {value:g}" for name, value in entry.parameters.items()]
    parts += [f"over {entry.ramp_s:g} s"] if entry.ramp_s else []
    parts += [f"{entry.probability:.0%} of the frames"] if entry.probability < 1 else []
    return ", ".join(parts)
