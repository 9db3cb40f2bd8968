"""What works cost: bits of a format, looks of an estimator, buffers, re-reads, joules, time."""
