"""What runs a student's network: onnxruntime, OpenVINO or TensorRT behind one protocol."""
