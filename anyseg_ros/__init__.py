"""ROS 2 nodes that keep segmenting the scene from whichever of camera, depth, event and LiDAR are alive."""
