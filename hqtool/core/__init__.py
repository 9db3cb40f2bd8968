"""Formats, quantization, observations and metrics: pure numpy, float64 throughout."""
