"""Which works of a network are joined, so that the tensor between stays on the chip."""
