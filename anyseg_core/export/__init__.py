"""From a checkpoint to a student folder: ONNX, int8, and the import of published weights and students."""
