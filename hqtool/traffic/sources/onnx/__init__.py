"""ONNX models as sources of layer specs."""
