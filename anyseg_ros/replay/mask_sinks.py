"""Who gets every mask of a replay: a new bag, a video, the scores of points, views from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import CAMERA
from anyseg_ros.drawing.label_images import color_image, overlay_image
from anyseg_ros.drawing.state_strip import draw_strip, sensor_cell
from anyseg_ros.drawing.top_view import top_view
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import OutputClasses, label_points
from anyseg_ros.replay.scenarios import Scenario

_MOST_VIEWS = 120
_VIEW_HEIGHT = 300


class MaskSink(Protocol):
    """Gets every mask of every scenario."""

    def on_mask(self, scenario: Scenario, result: Result) -> None: ...


class EverySink:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[MaskSink]) -> None:
        self._sinks = sinks

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Hand it to each of them."""
        for sink in self._sinks:
            sink.on_mask(scenario, result)


def overlay_of(result: Result, classes: OutputClasses, opacity: float) -> NDArray[np.uint8]:
    """The picture that the node publishes as overlay: the anchor's, the mask over it, and the strip of sensors."""
    labels = classes.published.of(result.segmentation.resized_labels(*result.mask_size))
    picture = color_image(labels, classes.published.palette)
    anchor = result.job.anchor_frame
    if anchor.kind is CAMERA:
        picture = overlay_image(anchor.data, picture, opacity)  # type: ignore[arg-type]
    draw_strip(picture, [sensor_cell(status, result.segmentation.modalities) for status in result.job.statuses])
    return picture


class TopViews:
    """Keeps views from above, one a simulated second, of each scenario that has phases, for the report."""

    def __init__(self, classes: OutputClasses, parameters: Parameters) -> None:
        self._classes, self._parameters = classes, parameters
        self._views: dict[str, list[tuple[int, NDArray[np.uint8]]]] = {}
        self._every_ns: dict[str, int] = {}

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Draw it, where the last view is old enough."""
        if scenario.is_subset:
            return
        now_ns, views = result.job.created_ns, self._views.setdefault(scenario.name, [])
        every_ns = self._every_ns.setdefault(scenario.name, 10**9)
        if views and now_ns - views[-1][0] < every_ns:
            return
        view = top_view(label_points(result, self._parameters.points), self._classes.published, _VIEW_HEIGHT)
        views.append((now_ns, cv2.imencode(".png", view[..., ::-1])[1].ravel()))
        if len(views) > _MOST_VIEWS:  # of a long bag every second one does
            del views[1::2]
            self._every_ns[scenario.name] *= 2

    def nearest(self, scenario: str, time_ns: int, within: tuple[int, int]) -> NDArray[np.uint8] | None:
        """PNG, as bytes [n], of the view nearest to a time, from between two times; None without one."""
        views = [view for view in self._views.get(scenario, []) if within[0] <= view[0] <= within[1]]
        return min(views, key=lambda view: abs(view[0] - time_ns))[1] if views else None
