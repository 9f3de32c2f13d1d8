"""A sensor against its own past: what cannot change from one frame to the next unless somebody changed the driver.

Such a change happens once and lasts, so it is counted: one jump and it is wrong, the jump back and it is right again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from anyseg_core.runtime.cross_examination.judge import OWN_PAST, Testimony
from anyseg_core.runtime.cross_examination.small_arrays import correlation, spread
from anyseg_core.runtime.cross_examination.views import CameraView, LidarView, View
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor

COLORED = 0.02
"""Standard deviation of the warmth of cells, below which a picture is grey and its channels cannot be told apart."""
EXCHANGED = -0.6
"""Correlation of the warmth of cells with that of the frame before: red and blue have changed places."""
LOST_LIGHT = 0.02
"""Share of a colour in the light that is none: the channel is dead. Clean: at least 0.2."""
LEAST_LIGHT = 8.0
"""Mean grey level below which a picture is too dark to judge its colours."""
INTENSITY_JUMP = 5.0
"""Times that the median intensity changes from one scan to the next: another unit. Clean: at most 1.5."""


class OwnPast:
    """Of all sensors."""

    def __init__(self) -> None:
        self._before: dict[Sensor, View] = {}
        self._is_exchanged: dict[Sensor, bool] = {}
        self._gain: dict[Sensor, float] = {}

    def testimonies(self, views: Mapping[Sensor, View]) -> Iterator[Testimony]:
        """Of each of them; they are the past from now on."""
        for sensor, view in views.items():
            before = self._before.get(sensor)
            if isinstance(view, CameraView):
                yield self._colors(sensor, before, view)
            elif isinstance(view, LidarView):
                yield self._units(sensor, before, view)
            self._before[sensor] = view

    def _colors(self, sensor: Sensor, before: View | None, view: CameraView) -> Testimony:
        if isinstance(before, CameraView) and min(spread(before.warmth), spread(view.warmth)) > COLORED:
            exchanged = correlation(before.warmth.ravel(), view.warmth.ravel()) < EXCHANGED
            self._is_exchanged[sensor] = self._is_exchanged.get(sensor, False) ^ exchanged
        light = view.light
        share = float(light.min() / max(float(light.sum()), 1e-6))
        if share < LOST_LIGHT and light.mean() > LEAST_LIGHT:
            color = ("red", "green", "blue")[int(light.argmin())]
            text = f"{sensor} has lost its {color}"
            return Testimony(OWN_PAST, Fault.INCONSISTENT_CONTENT, (sensor,), 1.0, share, "share of the light", text)
        wrong = self._is_exchanged.get(sensor, False)
        text = f"red and blue of {sensor} have changed places"
        return Testimony(
            OWN_PAST, Fault.INCONSISTENT_CONTENT, (sensor,), 1.0 if wrong else -1.0, share, "share of the light", text
        )

    def _units(self, sensor: Sensor, before: View | None, view: LidarView) -> Testimony:
        then = before.intensity if isinstance(before, LidarView) else 0.0
        ratio = view.intensity / then if then > 0 and view.intensity > 0 else 1.0
        if max(ratio, 1 / ratio) > INTENSITY_JUMP:
            self._gain[sensor] = self._gain.get(sensor, 1.0) * ratio
        gain = self._gain.get(sensor, 1.0)
        text = f"intensities of {sensor} are {gain:.3g} times what they were"
        wrong = abs(np.log(gain)) > np.log(INTENSITY_JUMP) / 2
        return Testimony(OWN_PAST, Fault.WRONG_SCALE, (sensor,), 1.0 if wrong else -1.0, gain, "x", text)
