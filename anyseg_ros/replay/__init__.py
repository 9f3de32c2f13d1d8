"""Bags through the node's own pipeline, offline and without ROS: replay, scores, verdicts, reports.

`bag_reader` gives messages in the order of their times, `bag_samples` turns them into frames, `offline` runs them
through the pipeline of every scenario and scores the masks, `run` judges and reports: what `anyseg replay` does.
"""
