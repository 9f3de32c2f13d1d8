"""Faults on ROS messages as they travel, serialized: between driver and node, from bag to bag, in replay. No ROS."""
