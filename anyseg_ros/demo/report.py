"""Scores and pictures -> the terminal table and the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich import box
from rich.console import Console
from rich.table import Table

from anyseg_core.html_report import render_report
from anyseg_core.injection.phases import Phase
from anyseg_core.invocation import command_line, machine
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.model_card import ModelCard, introduction, usage_notice
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim.drive import SLOW_SHARE
from anyseg_ros.demo.scoring import PhaseScore, driven_rate_hz, seconds_into, state_spans
from anyseg_ros.drawing.label_images import color_image, overlay_image, palette
from anyseg_ros.drawing.pictures import ABSENT, STATE_COLORS, initials, jpeg_uri, sensor_strip
from anyseg_ros.drawing.timeline import timeline
from anyseg_ros.live_run.recording import ReceivedMask, Recording

OPACITY = 0.6
"""Of the label colours over the camera picture."""


@dataclass(frozen=True, eq=False)
class DriveRecord:
    """Everything the report speaks of."""

    recording: Recording
    phases: Sequence[Phase]
    scores: Sequence[PhaseScore]
    broken: Sequence[str]
    card: ModelCard
    rig: Rig
    frames_at: Callable[[int], Mapping[Sensor, SensorFrame]]
    """What the sensors measured at a stamp, before any fault was injected."""
    engine: str
    schedule: str
    seed: int
    weather: str
    rate_hz: float
    """At which the vehicle was to drive."""

    @property
    def slowness(self) -> str:
        """What to say of a computer that the vehicle alone is too much for; empty where it kept its rate."""
        driven_hz = driven_rate_hz(self.recording)
        if driven_hz >= SLOW_SHARE * self.rate_hz:
            return ""
        return (
            f"this computer had too little to spare: the vehicle drove at {driven_hz:.1f} Hz instead of "
            f"{self.rate_hz:g}. What is late or missing says more of the computer than of the node: end other programs "
            "and run it again"
        )

    @property
    def verdict(self) -> str:
        masks = len(self.recording.masks)
        if self.broken:
            return f"{len(self.broken)} promises broken in {masks} label images"
        return f"{masks} label images, none missed, stale or wrongly stamped"


class Row(TypedDict):
    """A phase in words, the same on the terminal and in the report."""

    span: str
    fault: str
    miou: str
    rate: str
    p50: str
    p95: str
    engine: str
    reaction: str
    used: str


def row_of(score: PhaseScore) -> Row:
    """The figures of a phase as text."""
    return Row(
        span=f"{score.phase.start_s:.0f}-{score.phase.end_s:.0f}",
        fault=score.phase.name,
        miou=ABSENT if score.miou is None else f"{100 * score.miou:.1f}",
        rate=f"{score.rate_hz:.1f}",
        p50=_rounded(score.latency_p50_ms),
        p95=_rounded(score.latency_p95_ms),
        engine=_rounded(score.engine_p50_ms),
        reaction=_rounded(score.reaction_ms),
        used=", ".join(f"{initials(used)} {count}" for used, count in sorted(score.used.items(), key=lambda u: -u[1])),
    )


def _rounded(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def print_table(console: Console, record: DriveRecord) -> None:
    """The phases on the terminal, then every broken promise."""
    table = Table(
        title="The drive, phase by phase (times in ms)", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    for column in COLUMNS:
        table.add_column(column)
    for score in record.scores:
        table.add_row(*map(str, row_of(score).values()))
    console.print(table)
    console.print("[dim]made from: C camera, D depth, E event, L lidar, and the number of label images[/]")
    for line in record.broken[:10]:
        console.print(f"[red]broken:[/] {line}")
    if len(record.broken) > 10:
        console.print(f"[red]and {len(record.broken) - 10} more[/]")
    if record.slowness:
        console.print(f"[yellow]{record.slowness}[/]")
    console.print(f"[{'red' if record.broken else 'green'}]{record.verdict}[/]")


COLUMNS = ("s", "fault injected", "mIoU %", "Hz", "p50", "p95", "engine", "reaction", "made from")


def write_report(path: Path, record: DriveRecord) -> None:
    """Write the HTML report: one file, pictures inside."""
    duration_s = record.phases[-1].end_s
    html = render_report(
        Path(__file__).with_name("report.html.j2"),
        verdict=record.verdict,
        broken=list(record.broken),
        slowness=record.slowness,
        subtitle=f"{duration_s:.0f} s of simulated driving ({record.weather}), sensors lost on schedule",
        rows=[row_of(score) | {"width": 100 * (score.miou or 0.0)} for score in record.scores],
        machine=machine(),
        timeline=timeline(state_spans(record.recording, duration_s), record.phases, (), (), duration_s),
        state_colors={state.value: color for state, color in STATE_COLORS.items()},
        scenes=[_scene(record, index) for index, phase in enumerate(record.phases) if phase.injections],
        classes=[c.model_dump() for c in record.card.classes],
        command=command_line(),
        card=record.card.model_dump(),
        student=introduction(record.card),
        notice=usage_notice(record.card),
        engine=record.engine,
        schedule=record.schedule,
        seed=record.seed,
        weather=record.weather,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _scene(record: DriveRecord, index: int) -> dict[str, object]:
    """Before, during and after the faults of a phase. The moment during is late in it, when the node has reacted."""
    phase = record.phases[index]
    during = phase.start_s + 0.75 * (phase.end_s - phase.start_s)
    after = min(phase.end_s + 1.5, record.phases[-1].end_s - 0.2)
    moments = [("before", max(phase.start_s - 0.5, 0.0)), ("during", during), ("after", after)]
    lost = [m for m in DEFAULT_SENSORS if m not in phase.healthy()]
    middle = _mask_near(record.recording, during)
    strip = sensor_strip(record.frames_at(middle.stamp_ns), record.card, record.rig, lost) if middle else None
    return {
        "title": f"{phase.start_s:.0f}-{phase.end_s:.0f} s: {phase.name}",
        "moments": [m for name, at in moments if (m := _moment(record, name, at))],
        "strip": "" if strip is None else jpeg_uri(strip),
    }


def _moment(record: DriveRecord, name: str, at_s: float) -> dict[str, str] | None:
    mask = _mask_near(record.recording, at_s)
    if mask is None:
        return None
    camera = record.frames_at(mask.stamp_ns)[Sensor.CAMERA].data
    overlay = overlay_image(camera, color_image(mask.labels, palette(record.card)), OPACITY)  # type: ignore[arg-type]
    used = ", ".join(str(m) for m in record.recording.used_in(mask.stamp_ns))
    return {
        "overlay": jpeg_uri(overlay),
        "caption": f"{name}, {seconds_into(record.recording, mask.stamp_ns):.1f} s: made from {used}",
    }


def _mask_near(recording: Recording, at_s: float) -> ReceivedMask | None:
    """The mask whose stamp is nearest to `at_s`, among those with a ground truth."""
    scored = [m for m in recording.masks if m.stamp_ns in recording.truth]
    return min(scored, key=lambda m: abs(seconds_into(recording, m.stamp_ns) - at_s), default=None)
