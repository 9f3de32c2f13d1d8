"""The simulated vehicle's node."""
