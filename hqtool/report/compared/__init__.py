"""The parts of the report of a comparison."""
