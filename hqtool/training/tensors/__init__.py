"""Quantizing torch tensors, and where the result is put."""
