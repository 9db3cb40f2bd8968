"""What a quantized training tells: RUN.h5, coverage, traffic, and the time it took."""
