"""Rigid transforms, cameras, motion of points, and geometry of depth images."""
