"""Pictures that the reports share: the sensors as the network sees them, the colours of their states."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

Image = NDArray[np.uint8]


STATE_COLORS = {
    State.DISABLED: "#9e9e9e",
    State.WAITING: "#cfd8dc",
    State.ACTIVE: "#43a047",
    State.SUSPECT: "#fdd835",
    State.FAILED: "#e53935",
    State.RECOVERING: "#1e88e5",
    State.DISPUTED: "#8e24aa",
}


def sensor_strip(frames: Mapping[Sensor, SensorFrame], card: ModelCard, rig: Rig, lost: Sequence[Sensor]) -> Image:
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
        cv2.putText(tile, str(spec.modality), (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(tile, str(spec.modality), (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def jpeg_uri(rgb: Image, quality: int = 85) -> str:
    """An RGB picture as a data URI."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


ABSENT = "-"


def initials(modalities: Sequence[Sensor]) -> str:
    """C, D, E, L of the modalities, a dot for each absent one: `CD.L`."""
    return "".join(str(m)[0].upper() if m in modalities else "·" for m in DEFAULT_SENSORS)
