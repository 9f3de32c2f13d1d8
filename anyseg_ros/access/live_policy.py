"""The policy of the nodes as they are with a vehicle's own parameters: each is started, asked, and ended."""

from __future__ import annotations

import gc
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from anyseg_ros.access.policy import Interface, drivers_of, interface_of, policy
from anyseg_ros.inject.injector_node import InjectorNode
from anyseg_ros.node.segmentation_node import SegmentationNode

ENCLAVES = "/anyseg"


class NotActiveError(Exception):
    """The node could not be configured or activated with these parameters; its log says why."""


def live_policy(params_file: Path | None = None, namespace: str = "/", *, injector: bool = False) -> str:
    """The SROS2 policy for segmentation_node with a parameter file, its drivers and, where wanted, the injector.

    rclpy must be initialised, best so that no other process is found. Raises NotActiveError, NamesakeError.
    """
    gc.collect()  # a destroyed lifecycle node is in the middleware's graph until its cycle of references is collected
    arguments = ["--ros-args", "--params-file", str(params_file)] if params_file else []
    enclaves = {f"{ENCLAVES}/segmentation_node": _segmentation(namespace, arguments)}
    if injector:
        enclaves[f"{ENCLAVES}/injector"] = _injector(namespace, arguments)
    return policy({**enclaves, f"{ENCLAVES}/drivers": drivers_of(list(enclaves.values()))})


def _segmentation(namespace: str, arguments: list[str]) -> Interface:
    node = SegmentationNode(namespace=namespace, cli_args=arguments)
    try:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() is not TransitionCallbackReturn.SUCCESS:
                raise NotActiveError("segmentation_node does not start with these parameters: see its log above")
        rclpy.spin_once(node, executor=SingleThreadedExecutor(), timeout_sec=0.1)  # rclpy's global one keeps the node
        return interface_of(node, subscribes=node.sensor_topics.values())
    finally:
        node.destroy_node()


def _injector(namespace: str, arguments: list[str]) -> Interface:
    node = InjectorNode(namespace=namespace, cli_args=arguments)
    try:
        sources, targets = zip(*node.routes, strict=True)
        return interface_of(node, publishes=targets, subscribes=sources)
    finally:
        node.destroy_node()
