"""All a robot installs: numpy, OpenCV and an inference engine. Never torch, never rclpy."""
