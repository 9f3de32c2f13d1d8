"""The node's publishers: messages from results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from anyseg_core.runtime.class_losses import losses_in_words
from anyseg_core.runtime.health.monitor import ModalityStatus
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.sensor_shares import sensor_colors, shares_in_words, shares_picture
from anyseg_core.runtime.sensors import CAMERA
from anyseg_ros.drawing.label_images import color_image, overlay_image
from anyseg_ros.drawing.state_strip import Cell, draw_strip, sensor_cell
from anyseg_ros.messages.conversions import image_message
from anyseg_ros.messages.headers import STATE_QOS, time_message
from anyseg_ros.node.status_messages import for_node, mask_array, status_array
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.planner_products import OutputClasses

try:
    import vision_msgs.msg as vision_msgs
except ImportError:  # the wheels have none: the classes are in the student's model.json
    vision_msgs = None


class MaskOutputs:
    """Publishes masks and statuses. Destroy it before the node."""

    def __init__(self, node: Node, card: ModelCard, classes: OutputClasses) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name()
        self._card = card
        self._classes = classes.published
        self.student_values = {"student": card.name, "classes": json.dumps(self._classes.legend())}
        """The student in `/diagnostics`: its name, and `classes`, JSON of the published ones: name -> colour."""
        self._mask = node.create_publisher(Image, "~/segmentation/mask", 2)
        self._confidence = node.create_publisher(Image, "~/segmentation/confidence", 2)
        self._color_mask = node.create_publisher(Image, "~/segmentation/color_mask", 2)
        self._overlay = node.create_publisher(Image, "~/segmentation/overlay", 2)
        self._shares = node.create_publisher(Image, "~/segmentation/sensor_shares", 2)
        self._status = node.create_publisher(DiagnosticArray, "~/modality_status", STATE_QOS)
        self._publishers = [self._mask, self._confidence, self._color_mask, self._overlay, self._shares, self._status]
        if vision_msgs is not None:
            names = self._classes.names.items()
            class_map = [vision_msgs.VisionClass(class_id=label, class_name=name) for label, name in names]
            info = node.create_publisher(vision_msgs.LabelInfo, "~/segmentation/label_info", STATE_QOS)
            info.publish(vision_msgs.LabelInfo(class_map=class_map))
            self._publishers.append(info)
        self._class_masks = [
            (node.create_publisher(Image, f"~/segmentation/class_masks/{name}", 2), shown)
            for name, shown in classes.masks.items()
        ]
        self._publishers += [publisher for publisher, _ in self._class_masks]

    def destroy(self) -> None:
        """End the publishers."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def publish_result(
        self,
        result: Result,
        overlay_opacity: float,
        too_old_ms: Callable[[], float | None],
        also: Mapping[str, str] = MappingProxyType({}),
    ) -> float | None:
        """The mask and its status with what else it says; the other images only where somebody listens.

        `too_old_ms` is asked when all is ready to go; where it gives an age, that is returned and nothing published.
        """
        anchor = result.job.anchor_frame
        header = Header(stamp=time_message(anchor.stamp_ns), frame_id=result.frame_id)
        own = result.segmentation.resized_labels(*result.mask_size)
        labels = self._classes.of(own)
        mask = image_message(labels, "mono8", header)
        shares = result.segmentation.shares
        losses = losses_in_words(self._card, result.segmentation.modalities)
        also = {**also, "lost_classes": losses, "sensor_shares": shares_in_words(shares)}
        status = for_node(mask_array(result, also), self._name)
        if (age_ms := too_old_ms()) is not None:
            return age_ms
        self._mask.publish(mask)
        self._status.publish(status)
        if self._confidence.get_subscription_count():
            _, confidence = result.segmentation.resized(*result.mask_size)
            self._confidence.publish(image_message(confidence, "mono8", header))
        if shares and self._shares.get_subscription_count():
            picture = self._shares_picture(result)
            self._shares.publish(image_message(picture, "rgb8", header))
        for publisher, shown in self._class_masks:
            if publisher.get_subscription_count():
                mask = shown.view(np.uint8).take(own) * np.uint8(255)
                publisher.publish(image_message(mask, "mono8", header))
        if not (self._color_mask.get_subscription_count() or self._overlay.get_subscription_count()):
            return None
        colored = color_image(labels, self._classes.palette)
        if self._color_mask.get_subscription_count():
            self._color_mask.publish(image_message(colored, "rgb8", header))
        if self._overlay.get_subscription_count():
            if anchor.kind is CAMERA:
                colored = overlay_image(anchor.data, colored, overlay_opacity)  # type: ignore[arg-type]
            draw_strip(colored, [sensor_cell(s, result.segmentation.modalities) for s in result.job.statuses])
            self._overlay.publish(image_message(colored, "rgb8", header))
        return None

    def _shares_picture(self, result: Result) -> NDArray[np.uint8]:
        """The sensors' colours where they count most, at the mask's size, under a strip that says which is whose."""
        height, width = result.mask_size
        shares, colors = result.segmentation.shares, sensor_colors(self._card.modalities)
        picture = shares_picture(shares, self._card.modalities)
        picture = np.ascontiguousarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
        draw_strip(picture, [Cell(str(s), f"{100 * share.mean():.0f} %", colors[s]) for s, share in shares.items()])
        return picture

    def publish_statuses(self, stamp: Time, statuses: Sequence[ModalityStatus]) -> None:
        """The health of every modality where there is no mask to tell it with."""
        self._status.publish(for_node(status_array(stamp, statuses, {}), self._name))
