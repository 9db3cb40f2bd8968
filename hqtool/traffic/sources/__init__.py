"""Where layer specs come from besides people's own files: traces, ONNX models, models in Python."""
