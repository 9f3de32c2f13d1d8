"""Bags through the node's own pipeline, offline and without ROS: replay, scores, verdicts, reports.

`bags.reader` gives messages in the order of their times, `bags.samples` turns them into frames, `offline` runs them
through the pipeline of every scenario and scores the masks, `run` judges and reports: what `anyseg replay` does.
"""
