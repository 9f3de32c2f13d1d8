"""Whether the intensity of a LiDAR is what its student was trained with, in words: the node's and the replay's."""

from __future__ import annotations

from typing import NamedTuple

from anyseg_core.runtime.model_card import Encoding, LidarEncoding
from anyseg_core.runtime.sensors import Intensity, Sensor, SensorFrame
from anyseg_ros.messages.conversions import INTENSITY_FIELDS

MOST_COMMON = 255.0
"""A greater full scale is a count without a top, which no student was trained with."""


class IntensityFit(NamedTuple):
    """What is said of it."""

    text: str
    """Field, range, and what is done about it."""
    remark: str = ""
    """What a person should mend; empty where there is nothing."""


def fit_of(frame: SensorFrame, encoding: Encoding) -> IntensityFit | None:
    """How the intensity of a scan fits what the student was trained with; None where nobody looked."""
    if frame.intensity is None or not isinstance(encoding, LidarEncoding):
        return None
    return _fit(frame.intensity, encoding, frame.modality)


def _fit(intensity: Intensity, encoding: LidarEncoding, sensor: Sensor) -> IntensityFit:
    if not intensity.field:
        fields = ", ".join(INTENSITY_FIELDS)
        text = f"the points have no intensity ({fields}), which the student was trained with: labels may be worse"
        return IntensityFit("none", text)
    if not intensity.full_scale:
        return IntensityFit(f"field {intensity.field}, 0 in every point so far")
    how = "learnt" if intensity.is_learnt else "set"
    text = f"field {intensity.field}, 0 to {intensity.full_scale:g} ({how})"
    if intensity.full_scale != encoding.max_intensity:
        text += f", brought to the student's 0 to {encoding.max_intensity:g}"
    if intensity.is_learnt and intensity.full_scale > MOST_COMMON:
        remedy = f"intensity is a count without a top: set modalities.{sensor}.full_scale, {intensity.full_scale:g} is"
        return IntensityFit(text, f"{remedy} assumed")
    return IntensityFit(text)
