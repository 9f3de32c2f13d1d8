"""Train, distil, export and run anymodal semantic segmentation. No ROS anywhere in this package."""

__version__ = "0.1.0"
