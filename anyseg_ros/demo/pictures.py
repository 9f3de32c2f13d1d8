"""Pictures of the report: mask overlays, the four sensors as the network sees them, the timeline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib

from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.modality import MODALITIES, Modality
from anyseg_ros.demo.scoring import PhaseScore, seconds_into
from anyseg_ros.drawing.pictures import STATE_COLORS
from anyseg_ros.live_run.recording import Phase, Recording

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle


def timeline(recording: Recording, phases: Sequence[Phase], duration_s: float) -> str:
    """State over time of each modality that was watched, with the phases' borders, as a data URI."""
    told = {status.modality for status in recording.statuses}
    rows = [modality for modality in reversed(MODALITIES) if modality in told]
    figure, axes = plt.subplots(figsize=(11, 1 + 0.4 * len(rows)), layout="constrained")
    for row, modality in enumerate(rows):
        for start, end, state in _state_spans(recording, modality, duration_s):
            axes.barh(row, end - start, left=start, height=0.7, color=STATE_COLORS[state])
        for phase in phases:
            if modality not in phase.healthy():
                axes.plot([phase.start_s, phase.end_s], [row + 0.44] * 2, color="black", linewidth=2)
    for phase in phases[1:]:
        axes.axvline(phase.start_s, color="black", linewidth=0.5, linestyle=":")
    axes.set_yticks(range(len(rows)), [modality.value for modality in rows])
    axes.set(xlim=(0, duration_s), xlabel="seconds into the drive")
    handles: list[Artist] = [Rectangle((0, 0), 1, 1, color=color) for color in STATE_COLORS.values()]
    handles.append(Line2D([], [], color="black", linewidth=2))
    names = [*(state.value for state in STATE_COLORS), "injected fault"]
    figure.legend(handles, names, ncols=7, loc="outside upper center", frameon=False, fontsize=9)
    return _data_uri(figure)


def _state_spans(recording: Recording, modality: Modality, duration_s: float) -> list[tuple[float, float, State]]:
    samples = sorted((s.received_ns, s.state) for s in recording.statuses if s.modality is modality)
    times = [seconds_into(recording, received_ns) for received_ns, _ in samples]
    ends = [*times[1:], duration_s]
    return [
        (max(start, 0.0), end, state)
        for start, end, (_, state) in zip(times, ends, samples, strict=True)
        if end > 0 and end > start
    ]


def bars(scores: Sequence[PhaseScore]) -> str:
    """mIoU per phase as a data URI."""
    figure, axes = plt.subplots(figsize=(11, 2.8), layout="constrained")
    names = [f"{s.phase.start_s:.0f}-{s.phase.end_s:.0f} s\n" + s.phase.name.replace(", ", "\n") for s in scores]
    values = [100 * (s.miou or 0.0) for s in scores]
    colors = ["#43a047" if not s.phase.faults else "#ef6c00" for s in scores]
    drawn = axes.bar(range(len(scores)), values, color=colors)
    axes.bar_label(drawn, fmt="%.1f")
    axes.set_xticks(range(len(scores)), names, fontsize=8)
    axes.set(ylabel="mIoU, %", ylim=(0, max(values, default=1.0) * 1.2 + 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return _data_uri(figure)


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
