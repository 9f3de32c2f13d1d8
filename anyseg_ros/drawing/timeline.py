"""The states of each sensor over time, with the injections and a score, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from anyseg_core.injection.phases import Phase
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.drawing.pictures import STATE_COLORS

WIDTH, LEFT, RIGHT = 1060.0, 70.0, 20.0
ROW, BAR, CURVE = 26.0, 15.0, 90.0
Points = Sequence[tuple[float, float]]
Spans = Sequence[tuple[float, float, State]]


def timeline(
    spans: dict[Sensor, list[tuple[float, float, State]]],
    phases: Sequence[Phase],
    curve: Points,
    baseline: Points,
    duration_s: float,
    score_name: str = "mIoU",
) -> str:
    """States of the sensors, the injected faults above them, and a score (0..1) below; `baseline` is grey."""
    duration_s = max(duration_s, 1e-3)
    rows = list(spans)
    height = ROW * len(rows) + (CURVE + 20 if curve else 0) + 30
    parts = [part for row, modality in enumerate(rows) for part in _row(row, modality, spans[modality], duration_s)]
    parts += [_fault_line(rows, phase, modality, duration_s) for phase in phases for modality in _faulty(phase, rows)]
    axis = ROW * len(rows) + 4
    parts += [
        f'<line x1="{_x(phase.start_s, duration_s):.1f}" x2="{_x(phase.start_s, duration_s):.1f}" y1="0" '
        f'y2="{height - 26:.0f}" class="border"/>'
        for phase in phases[1:]
    ]
    if curve:
        highest = max(share for _, share in (*curve, *baseline))
        top_share = min(1.0, 0.1 * (int(10 * highest) + 1))
        parts += _curve_axis(axis + 8, top_share, score_name)
        parts += [_polyline(baseline, axis + 8, duration_s, top_share, "baseline")] if baseline else []
        parts.append(_polyline(curve, axis + 8, duration_s, top_share, "curve"))
    parts += _time_axis(height, duration_s)
    return f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="timeline">{"".join(parts)}</svg>'


def _faulty(phase: Phase, rows: Sequence[Sensor]) -> list[Sensor]:
    broken = {entry.modality for entry in phase.injections}
    return [modality for modality in rows if modality in broken]


def _x(at_s: float, duration_s: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s / duration_s, 0.0), 1.0)


def _row(row: int, modality: Sensor, spans: Spans, duration_s: float) -> list[str]:
    top = ROW * row + 8
    parts = [f'<text x="{LEFT - 8}" y="{top + 12}" class="label">{modality!s}</text>']
    for start, end, state in spans:
        left, right = _x(start, duration_s), _x(end, duration_s)
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{max(right - left, 0.5):.1f}" height="{BAR}" '
            f'fill="{STATE_COLORS[state]}"><title>{state.value} {start:.2f}-{end:.2f} s</title></rect>'
        )
    return parts


def _fault_line(rows: Sequence[Sensor], phase: Phase, modality: Sensor, duration_s: float) -> str:
    y = ROW * rows.index(modality) + 5
    kinds = ", ".join(entry.kind for entry in phase.injections if entry.modality is modality)
    return (
        f'<line x1="{_x(phase.start_s, duration_s):.1f}" x2="{_x(phase.end_s, duration_s):.1f}" y1="{y}" y2="{y}" '
        f'class="fault"><title>{escape(kinds)}</title></line>'
    )


def _curve_axis(top: float, top_share: float, score_name: str) -> list[str]:
    """With a word of the score's name in a line, as there is little room left of the axis."""
    *words, last = score_name.split()
    parts = [
        f'<text x="{LEFT - 8}" y="{top + CURVE / 2 + 4 + 14 * row}" class="label">{escape(word)}</text>'
        for row, word in enumerate([*words, f"{last}, %"])
    ]
    for share in (0.0, top_share / 2, top_share):
        y = top + CURVE * (1 - share / top_share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 3}" y="{y + 4}" class="tick">{100 * share:.0f}</text>')
    return parts


def _polyline(points: Points, top: float, duration_s: float, top_share: float, name: str) -> str:
    path = " ".join(f"{_x(at, duration_s):.1f},{top + CURVE * (1 - share / top_share):.1f}" for at, share in points)
    return f'<polyline points="{path}" class="{name}"/>'


def _time_axis(height: float, duration_s: float) -> list[str]:
    step = next(s for s in (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 1e9) if duration_s / s <= 12)
    return [
        f'<text x="{_x(k * step, duration_s):.1f}" y="{height - 8}" class="time">{k * step:g} s</text>'
        for k in range(int(duration_s / step) + 1)
    ]
