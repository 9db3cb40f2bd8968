"""The sites that a recipe quantizes: their state in training, and how it is saved."""
