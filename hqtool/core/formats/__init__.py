"""Number formats, and the levels that they make of a range."""
