"""Networks in torch: used to train and export, never on the robot."""
