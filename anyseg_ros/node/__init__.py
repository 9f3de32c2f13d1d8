"""The segmentation node: subscribe, call the pipeline, publish."""
