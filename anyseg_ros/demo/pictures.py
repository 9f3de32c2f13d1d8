"""Pictures of the report: mask overlays, the four sensors as the network sees them, the timeline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health import State
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.projection import Rig
from anyseg_ros.demo.recording import Phase, Recording
from anyseg_ros.demo.scoring import PhaseScore, seconds_into

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

Image = NDArray[np.uint8]

STATE_COLORS = {
    State.DISABLED: "#9e9e9e",
    State.WAITING: "#cfd8dc",
    State.ACTIVE: "#43a047",
    State.SUSPECT: "#fdd835",
    State.FAILED: "#e53935",
    State.RECOVERING: "#1e88e5",
}


def sensor_strip(
    frames: Mapping[Modality, ModalityFrame], card: ModelCard, rig: Rig, lost: Sequence[Modality]
) -> Image:
    """The network's input images side by side, uint8 [H, 4 * W, 3]; a lost sensor is dark and crossed out."""
    tiles = []
    for spec in card.inputs:
        height, width = card.input_size
        tile = np.zeros((height, width, 3), np.uint8)
        if spec.modality in frames:
            tile = encode_frame(frames[spec.modality], spec, card.input_size, rig).copy()
        if spec.modality in lost:
            tile //= 5
            cv2.line(tile, (0, 0), (width, height), (229, 57, 53), 3, cv2.LINE_AA)
            cv2.line(tile, (width, 0), (0, height), (229, 57, 53), 3, cv2.LINE_AA)
        cv2.putText(tile, spec.modality.value, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(tile, spec.modality.value, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


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


def jpeg_uri(rgb: Image, quality: int = 85) -> str:
    """An RGB picture as a data URI."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
