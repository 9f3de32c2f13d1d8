"""The node's publishers for planners: labelled points, obstacles, and the ground grid. Only for subscribers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from anyseg_core.runtime.geometry.poses import PoseHistory
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.points.ground_grid import GroundGrid
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.points.obstacles import obstacle_index
from anyseg_ros.messages.clouds import cloud_message, grid_message, packed_cloud
from anyseg_ros.messages.headers import STATE_QOS, time_message
from anyseg_ros.messages.types import install_command, message_class
from anyseg_ros.node.newest_job import NewestJob
from anyseg_ros.pipeline.jobs import Job, Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import OutputClasses, label_points, points_source

FAILURE_LOG_PERIOD_S = 5.0
NO_BASE = (
    "where the sensor sits on the vehicle is not known: let TF tell it (from {base} to {sensor}), "
    "or set rig.base_from_lidar_translation_m and rig.base_from_lidar_rotation_xyzw"
)


class VehiclePlace(Protocol):
    """Where the sensors sit on the vehicle, and where the vehicle is."""

    poses: PoseHistory
    """Of the base, in `odometry_frame`."""

    @property
    def odometry_frame(self) -> str:
        """In which odometry gives poses; empty before it does."""
        ...

    @property
    def base_frame(self) -> str:
        """Of the vehicle's base; empty where only a parameter names it."""
        ...

    def base_from(self, base_frame: str, frame_id: str, *, is_lidar: bool, rig: Rig) -> NDArray[np.float64] | None:
        """4x4, from a sensor's axes to the base's; None where nobody knows it."""
        ...


class PlannerOutputs:
    """Publishes on a thread of its own what is made of a mask. Destroy it before the node."""

    def __init__(self, node: Node, classes: OutputClasses, parameters: Parameters) -> None:
        self._node = node
        self._points = node.create_publisher(PointCloud2, "~/segmentation/points", 2)
        self._obstacles = node.create_publisher(PointCloud2, "~/segmentation/obstacles", 2)
        occupancy = message_class("nav_msgs/msg/OccupancyGrid")
        self._map = None
        if occupancy is not None:
            self._map = node.create_publisher(occupancy, "~/segmentation/ground_grid", STATE_QOS)
        else:
            node.get_logger().info(f"no ground grid: nav_msgs is not installed ({install_command('nav_msgs')})")
        self.reconfigure(classes, parameters)
        self._frame_of_grid = ""
        self._about_grid = self._about_obstacles = ""
        self._points_ms = 0.0
        self._thread = NewestJob("planner_outputs", self._on_error)

    def destroy(self) -> None:
        """End the thread and the publishers."""
        self._thread.close()
        for publisher in (self._points, self._obstacles, self._map):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def reconfigure(self, classes: OutputClasses, parameters: Parameters) -> None:
        """Use other settings from the next mask on; the map begins anew."""
        self._classes, self._parameters = classes, parameters
        self._grid = GroundGrid(parameters.grid)
        for topic, table in (("obstacles", classes.obstacles), ("ground_grid", classes.drivable)):
            if isinstance(table, str):
                self._node.get_logger().warning(f"nothing is published on ~/segmentation/{topic}: {table}")

    def on_result(
        self, result: Result, place: VehiclePlace | None, too_old_ms: Callable[[], float | None] = lambda: None
    ) -> None:
        """The next mask, which has been published; never waits. `too_old_ms` gives an age once it is too late."""
        publishers = (self._points, self._obstacles, self._map)
        if any(publisher is not None and publisher.get_subscription_count() for publisher in publishers):
            self._thread.submit(lambda: self._publish(result, place, too_old_ms))

    def status(self, job: Job) -> dict[str, str]:
        """What the status of a mask says of these outputs; times and reasons are those of the last mask."""
        return {
            "points": str(points_source(job)),
            "points_ms": f"{self._points_ms:.1f}" if self._points_ms else "",
            "obstacles": self._classes.obstacles if isinstance(self._classes.obstacles, str) else self._about_obstacles,
            "ground_grid": self._about_grid,
        }

    def _publish(self, result: Result, place: VehiclePlace | None, too_old_ms: Callable[[], float | None]) -> None:
        started = time.perf_counter()
        parameters, classes, rig = self._parameters, self._classes, result.job.rig
        cloud = label_points(result, parameters.points)
        if cloud is None or rig is None:
            return  # the status says why
        header = Header(stamp=time_message(cloud.stamp_ns), frame_id=cloud.frame_id)
        if self._points.get_subscription_count():
            _publish_fresh(self._points, cloud_message(packed_cloud(cloud, classes.published), header), too_old_ms)
        base_frame = (place.base_frame if place is not None else "") or parameters.output.base_frame
        is_lidar = result.job.scan is not None
        base = None
        if place is not None:
            base = place.base_from(base_frame, cloud.frame_id, is_lidar=is_lidar, rig=rig)
        if self._obstacles.get_subscription_count() and not isinstance(classes.obstacles, str):
            self._about_obstacles = ""
            if base is None:
                unknown = NO_BASE.format(base=base_frame, sensor=cloud.frame_id)
                self._about_obstacles = f"heights are not limited: {unknown}"
            index = obstacle_index(cloud, classes.obstacles, parameters.obstacles, base)
            message = cloud_message(packed_cloud(cloud, classes.published, index), header)
            _publish_fresh(self._obstacles, message, too_old_ms)
        if self._map is not None and self._map.get_subscription_count() and too_old_ms() is None:
            self._publish_grid(cloud, base_frame, base, place)
        self._points_ms = 1e3 * (time.perf_counter() - started)

    def _publish_grid(
        self, cloud: LabelledPoints, base_frame: str, base: NDArray[np.float64] | None, place: VehiclePlace | None
    ) -> None:
        """Without odometry the map is that of one cloud, in the vehicle's own axes."""
        assert self._map is not None
        drivable = self._classes.drivable
        if base is None or isinstance(drivable, str):
            unknown = NO_BASE.format(base=base_frame, sensor=cloud.frame_id)
            self._about_grid = f"none: {drivable if isinstance(drivable, str) else unknown}"
            self._node.get_logger().warning(
                f"ground grid {self._about_grid}", throttle_duration_sec=12 * FAILURE_LOG_PERIOD_S
            )
            return
        pose = place.poses.at(cloud.stamp_ns) if place is not None else None
        frame_id = place.odometry_frame if place is not None and pose is not None else base_frame
        if frame_id != self._frame_of_grid or pose is None:
            self._grid.clear()
        self._frame_of_grid = frame_id
        self._about_grid = f"in {frame_id}" + (": no odometry of that time, one cloud only" if pose is None else "")
        pose = np.eye(4) if pose is None else pose
        self._grid.add(cloud, drivable, base, pose)
        grid = self._grid.at(cloud.stamp_ns, (float(pose[0, 3]), float(pose[1, 3])))
        header = Header(stamp=time_message(cloud.stamp_ns), frame_id=frame_id)
        self._map.publish(grid_message(grid, self._parameters.grid.resolution_m, header))

    def _on_error(self, error: Exception) -> None:
        self._node.get_logger().error(f"no points of a mask: {error!r}", throttle_duration_sec=FAILURE_LOG_PERIOD_S)


def _publish_fresh(publisher: Any, message: Any, too_old_ms: Callable[[], float | None]) -> None:
    """Publish points of a mask, unless the process was stopped since and they are too old now."""
    if too_old_ms() is None:
        publisher.publish(message)
