"""From frames to decisions: buffer, health, selection and the engine's owner. No rclpy."""
