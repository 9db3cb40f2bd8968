"""Sums over a tensor and its quantized values: two engines, one for few and one for many values."""
