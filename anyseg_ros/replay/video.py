"""A video of a replay: what the camera sees with the mask over it, the strip of sensors, and the points from above."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.drawing.top_view import top_view
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import OutputClasses, label_points
from anyseg_ros.replay.mask_sinks import overlay_of
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario

CODECS: Mapping[str, str] = MappingProxyType({".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"})
"""By the file's ending; OpenCV's wheel has no encoder of H.264."""
FPS = 10
_HOLD_NS = NS_PER_S // 2
"""A mask is shown for so long; then the picture says that there is none."""
_MOST_HEIGHT = 720


class VideoError(ValueError):
    """A video that cannot be written; the message names the remedy."""


class MaskVideo:
    """Use it as a context manager. The scenario with all sensors goes to the file, one with faults to NAME_scenario."""

    def __init__(self, path: Path, classes: OutputClasses, parameters: Parameters) -> None:
        """Raises VideoError for an ending that stands for no codec."""
        if path.suffix not in CODECS:
            raise VideoError(f"{path}: a video ends in {', '.join(CODECS)}")
        self._path, self._classes, self._parameters = path, classes, parameters
        self._films: dict[str, _Film] = {}

    def __enter__(self) -> MaskVideo:
        return self

    def __exit__(self, *_: object) -> None:
        for film in self._films.values():
            film.close()

    @property
    def files(self) -> list[Path]:
        """Those that have been begun."""
        return [film.path for film in self._films.values()]

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """The next picture of its scenario."""
        if scenario.is_subset:
            return
        overlay = overlay_of(result, self._classes, self._parameters.output.overlay_opacity)
        overlay = _scaled(overlay)
        view = top_view(label_points(result, self._parameters.points), self._classes.published, len(overlay))
        if scenario.name not in self._films:
            part = "" if scenario.name == ALL_SENSORS else "_" + re.sub(r"\W+", "_", scenario.name)
            path = self._path.with_name(f"{self._path.stem}{part}{self._path.suffix}")
            self._films[scenario.name] = _Film(path, (overlay.shape[0], overlay.shape[1] + view.shape[1]))
        self._films[scenario.name].show(np.hstack([overlay, view]), result.job.created_ns)


def _scaled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """No higher than 720 pixels, with even sides, which codecs want."""
    scale = min(1.0, _MOST_HEIGHT / len(picture))
    height, width = (2 * max(1, round(scale * side / 2)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class _Film:
    """Pictures at their own times -> a file at a fixed rate."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._size = path, (size[0], size[1] + size[1] % 2)
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
        self._writer = cv2.VideoWriter(str(path), codec, FPS, self._size[::-1])
        if not self._writer.isOpened():
            raise VideoError(
                f"OpenCV cannot write {path} with {CODECS[path.suffix]}: try another of {', '.join(CODECS)}"
            )
        self._last: tuple[NDArray[np.uint8], int] | None = None
        self._written_until_ns = 0

    def show(self, picture: NDArray[np.uint8], now_ns: int) -> None:
        """The picture from now on; the one before it fills the time until now."""
        if self._last is None or now_ns < self._last[1]:  # the first, or the clock was set back
            self._written_until_ns = now_ns
        else:
            self._fill(now_ns)
        self._last = self._fitted(picture), now_ns

    def close(self) -> None:
        """Write the last picture and end the file."""
        if self._last is not None:
            self._fill(self._written_until_ns + NS_PER_S // FPS)
        self._writer.release()

    def _fill(self, until_ns: int) -> None:
        assert self._last is not None
        picture, shown_ns = self._last
        while self._written_until_ns + NS_PER_S // FPS <= until_ns:
            is_old = self._written_until_ns - shown_ns > _HOLD_NS
            self._writer.write((_without_mask(picture) if is_old else picture)[..., ::-1])
            self._written_until_ns += NS_PER_S // FPS

    def _fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """In the file's size, which is that of its first picture."""
        if picture.shape[:2] == self._size:
            return picture
        fitted = np.zeros((*self._size, 3), np.uint8)
        height, width = (min(a, b) for a, b in zip(self._size, picture.shape[:2], strict=True))
        fitted[:height, :width] = picture[:height, :width]
        return fitted


def _without_mask(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dark, and it says so: an old mask is never shown as one of now."""
    dark = picture // 4
    cv2.putText(dark, "no mask", (20, len(dark) // 2), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 2, cv2.LINE_AA)
    return dark
