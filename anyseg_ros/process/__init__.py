"""The operating-system process around a node: start, signals, missing packages."""
