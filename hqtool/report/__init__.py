"""Reports: results as tables, JSON and CSV. Knows nothing of commands."""
