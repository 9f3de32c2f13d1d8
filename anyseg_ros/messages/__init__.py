"""ROS messages to arrays and back. No node."""
