"""Running a model on tensors without values, to see the shape of every operation."""
