"""The lifecycle node that segments: it subscribes, calls the pipeline and publishes."""
